# SPDX-License-Identifier: MIT
"""
scripts/bench writes: writing through attachfs, beside rclone mount and davfs2 on the same work.

Two clocks: until the program returns, and until everything is on the server. The first is measured against
the same program on a directory of the disk that also holds the caches, the second against curl --parallel,
which does only the calls that are needed, over as many connections as attachfs has. A filesystem that keeps
nothing (nothing.c) shows the kernel's and libfuse's share of the first.

attachfs and curl speak to the emulator of PERSCOM, the others to nginx with WebDAV, both on a memory
filesystem, on loopback. Latency is added by delay.c, the same for all; without latency all connect directly.
What has to be listed before the work is listed before the clock starts. All contenders take turns; those that
take long do so once. A result counts when the server has exactly the files it should have, with their bytes;
one that is not there at the limit is told as '> limit'. Everything is removed at the end and not between runs:
ext4 without a journal is slow to create files where others were just removed.
"""

import contextlib
import json
import os
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Callable, Optional

from common import digest, expect, machine
from harness import PERSCOM, Emulator, Mount, binary, is_mounted, lazy_unmount, random_bytes
from harness import wait_until

FILES = 1000
FILE_BYTES = 4096
BIG_BYTES = 1 << 30
SLOTS = 16  # of attachfs by default, and of the others where it can be said
SLOW_S = 5  # who takes longer does it once
TMPFS = "/dev/shm"


@dataclass
class Result:
    round: int
    application: Optional[float] = None  # None = stopped at the limit
    server: Optional[float] = None
    requests: Optional[int] = None
    bytes: Optional[int] = None
    stopped: bool = False


@dataclass
class Workload:
    """@command makes argv from the directory; @after is what the server then has, name -> sha256."""

    title: str
    command: Callable[[Path], list]
    after: dict
    before: int = 0  # files that are there already
    peers: bool = True
    server: bool = True  # how long until it is on the server is asked, too
    nothing: bool = False  # can be done to a filesystem that keeps nothing
    size: int = FILE_BYTES


class Stopped(Exception):
    """The limit."""


def free_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def end(process: Optional[subprocess.Popen], seconds: float = 10) -> None:
    if process is None or process.poll() is not None:
        return
    process.terminate()
    try:
        process.wait(seconds)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def run_limited(argv: list, seconds: float) -> None:
    """Like a person at a terminal who waits so long. A failure is an AssertionError."""
    with tempfile.TemporaryFile() as said:
        process = subprocess.Popen(
            [str(a) for a in argv],
            stdin=subprocess.DEVNULL,
            stdout=said,
            stderr=said,
            start_new_session=True,
        )
        try:
            process.wait(max(seconds, 0.1))
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(5)
            raise Stopped from None
        said.seek(0)
        words = said.read(300).decode(errors="replace")
        assert process.returncode == 0, f"{argv[0]} exited {process.returncode}: {words}"


# -------------------------------------------------------------------------------------------------
# Who takes part.


class Contender:
    """
    One life: start(), the work on .directory, settle(), counts(), check(), stop(). The constructor does nothing
    that would have to be undone.
    """

    name = ""
    networked = True

    def __init__(self, bench: "Bench", work: Workload, latency: int):
        self.bench = bench
        self.work = work
        self.latency = latency
        self.base = Path(tempfile.mkdtemp(prefix=f"{self.name.replace(' ', '-')}-", dir=bench.base))
        self.base.chmod(0o755)
        self.shm = Path(tempfile.mkdtemp(dir=bench.shm))
        self.shm.chmod(0o755)
        self.directory = self.base / "mnt"
        self.delays: list = []

    def port(self, host: str, port: int) -> int:
        """Where to reach a server at 127.0.0.1 with the latency asked for."""
        if not self.latency:
            return port
        process = subprocess.Popen(
            [binary("bench-delay"), str(self.latency), host, str(port)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.delays.append(process)
        return int(process.stdout.readline())

    def start(self) -> None:
        """Ready for the work, and everything that is there already is listed."""

    def do(self, seconds: float) -> None:
        run_limited(self.work.command(self.directory), seconds)

    def settle(self, deadline: float) -> None:
        """Until the server has it all; Stopped."""

    def counts(self) -> tuple:
        """Requests and bytes sent since start()."""
        return None, None

    def check(self) -> None:
        """The server has what it should have."""

    def stop(self) -> None:
        for process in self.delays:
            end(process)
            process.stdout.close()
        shutil.rmtree(self.shm, ignore_errors=True)
        # 1 GiB is not kept until the end
        if self.work.size > FILE_BYTES:
            shutil.rmtree(self.base, ignore_errors=True)

    def look(self) -> None:
        subprocess.run(["ls", "-l", self.directory], stdout=subprocess.DEVNULL, check=True)


class Ext4(Contender):
    name = "ext4"
    networked = False

    def start(self) -> None:
        self.directory.mkdir()
        for i in range(self.work.before):
            (self.directory / f"file-{i:04d}.dat").write_bytes(random_bytes(FILE_BYTES, i))
        self.look()

    def check(self) -> None:
        expect(len(os.listdir(self.directory)), len(self.work.after), "files")


class Nothing(Contender):
    name = "nothing"
    networked = False
    process = None

    def start(self) -> None:
        self.directory.mkdir()
        self.process = subprocess.Popen([binary("bench-nothing"), str(self.directory)])
        wait_until(lambda: is_mounted(self.directory), "bench-nothing to be mounted")
        self.look()

    def stop(self) -> None:
        if is_mounted(self.directory):
            lazy_unmount(self.directory)
        end(self.process)
        super().stop()


class WithEmulator(Contender):
    def start_emulator(self) -> None:
        self.emulator = None
        generated = f"users:1:{self.work.before}:{FILE_BYTES}"
        self.emulator = Emulator(self.shm / "emulator", PERSCOM, generate=[generated])
        api = self.emulator.api
        host, port = api.split("/")[2].split(":")
        self.api = api.replace(f":{port}/", f":{self.port(host, int(port))}/")

    def reset(self) -> None:
        self.emulator.reset()

    def counts(self) -> tuple:
        n = self.emulator.summary()
        expect(n["blob"], 0, "downloads")
        return n["total"], n["bytes_in"]

    def check(self) -> None:
        there = {a["name"]: a["sha256"] for a in self.emulator.attachments()}
        wanted = self.work.after
        if self.work.before:
            # the emulator's own bytes, under the names that it gave them or none
            expect(sorted(there), sorted(self.renamed(wanted)), "names on the server")
            return
        expect(sorted(there), sorted(wanted), "names on the server")
        expect(there, wanted, "contents on the server")

    @staticmethod
    def renamed(names: dict) -> list:
        """The emulator counts its files from 1."""
        return [n.replace(f"{int(n[-8:-4]):04d}", f"{int(n[-8:-4]) + 1:04d}") for n in names]

    def stop(self) -> None:
        if getattr(self, "emulator", None):
            self.emulator.stop()
        super().stop()


class Attachfs(WithEmulator):
    name = "attachfs"
    mount = None

    def start(self) -> None:
        self.start_emulator()
        self.mount = Mount(
            self.base / "mount", self.emulator, source=f"perscom:{self.api}", log="warning"
        )
        self.mount.start()
        (self.directory,) = (self.mount.path / "users").iterdir()
        self.look()
        self.reset()

    def settle(self, deadline: float) -> None:
        run_limited([binary("attachfs"), "sync", self.mount.path], deadline - time.monotonic())

    def check(self) -> None:
        if not self.work.server:
            self.mount.sync()
        super().check()

    def stop(self) -> None:
        if self.mount and self.mount.process:
            try:
                self.mount.umount(timeout=20)
            except (AssertionError, subprocess.SubprocessError) as e:
                print(f"  attachfs umount: {e:.300}", file=sys.stderr)
            self.mount.abandon()
        super().stop()


class Curl(WithEmulator):
    """Only what must be sent, from files that are there."""

    name = "curl"

    def start(self) -> None:
        self.start_emulator()
        self.config = self.base / "curl.config"
        self.record = self.emulator.state()["records"][0]["id"]
        transfers = self.transfers()
        self.config.write_text("\nnext\n".join("\n".join(t) for t in transfers) + "\n")
        self.reset()

    def request(self, url: str, *lines: str) -> list:
        return [
            f'url = "{self.api}/{url}"',
            f'header = "Authorization: Bearer {self.emulator.token}"',
            'header = "Accept: application/json"',
            'header = "Expect:"',
            "fail",
            "silent",
            "show-error",
            'output = "/dev/null"',
            *lines,
        ]

    def upload(self, path: Path, name: str, url: str = "attachments") -> list:
        return self.request(
            url,
            f'form = "name={name}"',
            'form = "model_type=App\\\\Models\\\\User"',
            f'form = "model_id={self.record}"',
            f'form = "file=@{path};filename={name}"',
        )

    def batches(self, method: str, resources: Callable[[list], object]) -> list:
        """As many to a call as attachfs sends, all calls at once."""
        files, made = self.emulator.attachments(), []
        for i in range(0, len(files), 500):
            body = self.base / f"body-{i}.json"
            body.write_text(json.dumps({"resources": resources(files[i : i + 500])}))
            made.append(
                self.request(
                    "attachments/batch",
                    f'request = "{method}"',
                    'header = "Content-Type: application/json"',
                    f'data-binary = "@{body}"',
                )
            )
        return made

    def transfers(self) -> list:
        if self.work.size == BIG_BYTES:
            # P-1: too large to be created; the id it will get is that of the one before plus one
            filler = self.base / "filler"
            filler.write_bytes(b"\0" * 1024)
            config = self.base / "first.config"
            config.write_text("\n".join(self.upload(filler, "first")) + "\n")
            subprocess.run(["curl", "-K", config], check=True)
            (first,) = self.emulator.attachments()
            self.emulator.change({"op": "delete", "id": first["id"]})
            replace = self.upload(self.bench.big, "big.bin", f"attachments/{first['id'] + 1}")
            return [self.upload(filler, "big.bin"), [*replace, 'form = "_method=PATCH"']]
        if not self.work.before:
            return [self.upload(p, p.name) for p in sorted(self.bench.source.iterdir())]
        if self.work.after:
            return self.batches(
                "PATCH",
                lambda files: {
                    str(a["id"]): {"name": f"renamed-{a['name']}", "filename": f"renamed-{a['name']}"}
                    for a in files
                },
            )
        return self.batches("DELETE", lambda files: [a["id"] for a in files])

    def do(self, seconds: float) -> None:
        argv = ["curl", "-q", "-K", self.config]
        if self.work.size != BIG_BYTES:
            argv += ["--parallel", "--parallel-immediate", "--parallel-max", str(SLOTS)]
        run_limited(argv, seconds)


NGINX = """
daemon off;
{user}
worker_processes 2;
pid {shm}/nginx.pid;
error_log {shm}/error.log error;
load_module /usr/lib/nginx/modules/ngx_http_dav_ext_module.so;
events {{ worker_connections 1024; }}
http {{
    log_format counted '$request_method $status $request_length $request_uri';
    access_log {shm}/access.log counted;
    sendfile on;
    tcp_nodelay on;
    keepalive_requests 1000000;
    keepalive_timeout 300;
    client_max_body_size 0;
    client_body_temp_path {shm}/body;
    proxy_temp_path {shm}/proxy;
    fastcgi_temp_path {shm}/fastcgi;
    uwsgi_temp_path {shm}/uwsgi;
    scgi_temp_path {shm}/scgi;
    dav_ext_lock_zone zone=locks:8m;
    server {{
        listen 127.0.0.1:{port} backlog=1024;
        root {root};
        location / {{
            dav_methods PUT DELETE MKCOL COPY MOVE;
            dav_ext_methods PROPFIND OPTIONS LOCK UNLOCK;
            dav_ext_lock zone=locks;
            dav_access user:rw;
            create_full_put_path on;
        }}
    }}
}}
"""


class Peer(Contender):
    """Over a WebDAV origin of its own."""

    nginx = None
    process = None

    def start_origin(self) -> None:
        root = self.shm / "root"
        self.held = root / "record"
        self.held.mkdir(parents=True)
        for i in range(self.work.before):
            (self.held / f"file-{i:04d}.dat").write_bytes(random_bytes(FILE_BYTES, i))
        port = free_port()
        config = self.shm / "nginx.conf"
        user = "user root;" if os.geteuid() == 0 else ""
        config.write_text(NGINX.format(shm=self.shm, root=root, port=port, user=user))
        with open(self.shm / "nginx.out", "wb") as out:
            self.nginx = subprocess.Popen(
                ["/usr/sbin/nginx", "-e", self.shm / "error.log", "-c", config],
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
            )
        wait_until(lambda: self.answers(port), "nginx to answer")
        self.url = f"http://127.0.0.1:{self.port('127.0.0.1', port)}/"
        (self.base / "root").mkdir()
        self.cache = self.base / "cache"
        self.cache.mkdir()
        self.directory = self.base / "root" / "record"

    @staticmethod
    def answers(port: int) -> bool:
        with socket.socket() as s:
            return s.connect_ex(("127.0.0.1", port)) == 0

    @property
    def log(self) -> Path:
        return self.shm / "access.log"

    def mounted(self) -> None:
        wait_until(lambda: is_mounted(self.base / "root"), f"{self.name} to be mounted")
        self.look()
        self.skip = self.log.stat().st_size

    def counts(self) -> tuple:
        with open(self.log, "rb") as f:
            f.seek(self.skip)
            lines = f.read().split(b"\n")[:-1]
        return len(lines), sum(int(line.split(b" ")[2]) for line in lines)

    def there(self) -> dict:
        with os.scandir(self.held) as entries:
            sizes = {}
            for e in entries:
                with contextlib.suppress(FileNotFoundError):
                    sizes[e.name] = e.stat().st_size
            return sizes

    def settle(self, deadline: float) -> None:
        wanted = dict.fromkeys(self.work.after, self.work.size)
        while self.there() != wanted:
            if time.monotonic() > deadline:
                raise Stopped
            time.sleep(0.01)

    def check(self) -> None:
        found = {p.name: digest(p) for p in self.held.iterdir()}
        expect(sorted(found), sorted(self.work.after), "names on the server")
        expect(found, self.work.after, "contents on the server")

    def stop(self) -> None:
        for _ in range(20):
            if not is_mounted(self.base / "root"):
                break
            with contextlib.suppress(subprocess.TimeoutExpired):
                subprocess.run(["umount", self.base / "root"], stderr=subprocess.DEVNULL, timeout=2)
            time.sleep(0.05)
        self.kill()
        if is_mounted(self.base / "root"):
            lazy_unmount(self.base / "root")
        end(self.nginx)
        super().stop()

    def kill(self) -> None:
        end(self.process, 3)


class Rclone(Peer):
    name = "rclone"
    flags: tuple = ()

    def start(self) -> None:
        self.start_origin()
        config = self.base / "rclone.conf"
        config.write_text(f"[origin]\ntype = webdav\nurl = {self.url}\nvendor = other\n")
        with open(self.base / "rclone.out", "wb") as out:
            self.process = subprocess.Popen(
                [
                    "rclone",
                    "mount",
                    "origin:",
                    self.base / "root",
                    "--config",
                    config,
                    "--cache-dir",
                    self.cache,
                    "--vfs-cache-mode",
                    "writes",
                    *self.flags,
                ],
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
            )
        self.mounted()


class RcloneTuned(Rclone):
    """A write-back of 0 would be shorter still, but rsync's renames then lose files."""

    name = "rclone tuned"
    flags = (
        "--vfs-write-back=1s",
        f"--transfers={SLOTS}",
        "--dir-cache-time=24h",
        "--attr-timeout=60s",
        "--vfs-fast-fingerprint",
        "--poll-interval=0",
    )


class Davfs(Peer):
    """Uploads at once; the unmount waits for them. With its default buf_size newer kernels fail in readdir."""

    name = "davfs2"
    unmount = None

    def start(self) -> None:
        self.start_origin()
        self.cache.chmod(0o777)
        config = self.base / "davfs2.conf"
        config.write_text(
            f"ignore_dav_header 1\nuse_locks 0\nask_auth 0\ncache_dir {self.cache}\n"
            "delay_upload 0\ngui_optimize 1\nprecheck 0\nbuf_size 1024\ntable_size 16384\n"
            "cache_size 4096\ndir_refresh 3600\nfile_refresh 3600\n"
        )
        before = self.pids()
        argv = ["mount.davfs", self.url, self.base / "root", "-o", f"conf={config},rw"]
        said = subprocess.run(
            argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
        )
        assert said.returncode == 0, f"mount.davfs: {said.stdout[-300:]!r}"
        self.pid = (self.pids() - before or {0}).pop()
        self.mounted()

    @staticmethod
    def pids() -> set:
        return {int(p.read_text()) for p in Path("/var/run/mount.davfs").glob("*.pid")}

    def settle(self, deadline: float) -> None:
        self.unmount = subprocess.Popen(
            ["umount.davfs", self.base / "root"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        super().settle(deadline)

    def kill(self) -> None:
        end(self.unmount, 5)
        if getattr(self, "pid", 0):
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, signal.SIGKILL)


# -------------------------------------------------------------------------------------------------

OURS = (Ext4, Nothing, Curl, Attachfs)
PEERS = (Rclone, RcloneTuned, Davfs)
WORKLOADS = ("cp", "rsync", "large", "renames", "deletes", "close", "fsync")


@dataclass
class Bench:
    latencies: list
    runs: int
    limit: float
    peers: bool
    only: list
    results: dict = field(default_factory=dict)  # (workload, latency, contender) -> [Result]
    failed: int = 0

    def measure(self) -> int:
        """How many results failed."""
        unknown = set(self.only) - set(WORKLOADS)
        if unknown:
            raise SystemExit(f"no workload {', '.join(unknown)}; there are {', '.join(WORKLOADS)}")
        with contextlib.ExitStack() as stack:
            for name, where in (("base", os.environ.get("TMPDIR", "/var/tmp")), ("shm", TMPFS)):
                made = Path(tempfile.mkdtemp(prefix="attachfs-bench-", dir=where))
                made.chmod(0o755)
                stack.callback(shutil.rmtree, made, ignore_errors=True)
                setattr(self, name, made)
            self.disk = filesystem(self.base)
            self.make_sources()
            self.work = self.workloads()
            for name, work in self.work.items():
                for latency in self.latencies if work.server else self.latencies[:1]:
                    print(f"{name}, {latency} ms", file=sys.stderr)
                    self.rounds(name, work, latency)
        return self.failed

    def make_sources(self) -> None:
        self.source = self.base / "source"
        self.source.mkdir()
        for i in range(FILES):
            (self.source / f"file-{i:04d}.dat").write_bytes(random_bytes(FILE_BYTES, i))
        self.created = self.base / "created"
        self.created.mkdir()
        run_limited([binary("bench-work"), "create", self.created, FILES, FILE_BYTES], 60)
        self.big = self.shm / "big.bin"
        if not self.only or "large" in self.only:
            block = random_bytes(1 << 24)
            with open(self.big, "wb") as f:
                for i in range(BIG_BYTES >> 24):
                    f.write(block[i:] + block[:i])

    def workloads(self) -> dict:
        small = {p.name: digest(p) for p in self.source.iterdir()}
        created = {p.name: digest(p) for p in self.created.iterdir()}
        work = binary("bench-work")
        create = [work, "create", FILES, FILE_BYTES]
        made = {
            "cp": Workload(
                "cp -r of 1,000 x 4 KiB",
                lambda d: ["cp", "-r", f"{self.source}/.", d],
                small,
                nothing=True,
            ),
            "rsync": Workload(
                "rsync -a of 1,000 x 4 KiB",
                lambda d: ["rsync", "-a", f"{self.source}/", d],
                small,
                nothing=True,
            ),
            "large": Workload(
                "1 GiB by dd, with fsync",
                lambda d: ["dd", f"if={self.big}", f"of={d}/big.bin", "bs=1M", "conv=fsync"],
                {"big.bin": digest(self.big) if self.big.exists() else ""},
                size=BIG_BYTES,
            ),
            "renames": Workload(
                "1,000 renames",
                lambda d: [work, "rename", d, "renamed-"],
                {f"renamed-{name}": sha for name, sha in small.items()},
                before=FILES,
            ),
            "deletes": Workload(
                "1,000 deletes", lambda d: [work, "unlink", d], {}, before=FILES
            ),
            "close": Workload(
                "1,000 x 4 KiB: create, write, close",
                lambda d: [create[0], create[1], d, *create[2:]],
                created,
                peers=False,
                server=False,
                nothing=True,
            ),
            "fsync": Workload(
                "the same with an fsync of each",
                lambda d: [create[0], create[1], d, *create[2:], "fsync"],
                created,
                peers=False,
                server=False,
                nothing=True,
            ),
        }
        return {n: w for n, w in made.items() if not self.only or n in self.only}

    def contenders(self, work: Workload) -> list:
        who = [Ext4, Attachfs]
        if work.nothing:
            who.insert(1, Nothing)
        if work.server:
            who.append(Curl)
        if self.peers and work.peers:
            who += [p for p in PEERS if p is not Davfs or os.geteuid() == 0]
        return who

    def rounds(self, name: str, work: Workload, latency: int) -> None:
        out: set = set()
        for i in range(self.runs):
            who = [c for c in self.contenders(work) if c not in out]
            for kind in who[i % len(who) :] + who[: i % len(who)]:
                began = time.monotonic()
                result = self.once(kind, work, latency, i)
                if result:
                    self.results.setdefault((name, latency, kind.name), []).append(result)
                took = max(result.application or 0, result.server or 0) if result else None
                if took is None or result.stopped or took > SLOW_S:
                    out.add(kind)
                print(
                    f"  {kind.name}: {told(result, work)}"
                    f"  ({time.monotonic() - began:.1f} s in all)",
                    file=sys.stderr,
                    flush=True,
                )

    def once(self, kind: type, work: Workload, latency: int, number: int) -> Optional[Result]:
        c = kind(self, work, latency)
        result = Result(number)
        try:
            c.start()
            os.sync()
            start = time.monotonic()
            try:
                c.do(self.limit)
                result.application = time.monotonic() - start
                if work.server and c.networked:
                    c.settle(start + self.limit)
                    result.server = time.monotonic() - start
            except Stopped:
                result.stopped = True
            if work.server:
                result.requests, result.bytes = c.counts()
            if not result.stopped:
                c.check()
        except (AssertionError, OSError, subprocess.SubprocessError, ValueError) as e:
            print(f"  {kind.name} FAILED: {type(e).__name__}: {e!s:.500}", file=sys.stderr)
            # what the peers get wrong is no failure of ours
            self.failed += kind not in PEERS
            return None
        finally:
            c.stop()
        return result

    # what came out

    def median(self, key: tuple, what: str) -> Optional[float]:
        values = [getattr(r, what) for r in self.results.get(key, [])]
        values = [v for v in values if v is not None]
        return statistics.median(values) if values else None

    def ratio(self, name: str, latency: int, what: str, other: str) -> Optional[float]:
        """attachfs to another: the median over the rounds."""
        mine = {r.round: getattr(r, what) for r in self.results.get((name, latency, "attachfs"), [])}
        theirs = {r.round: getattr(r, what) for r in self.results.get((name, latency, other), [])}
        ratios = [mine[i] / theirs[i] for i in mine if mine[i] and theirs.get(i)]
        return statistics.median(ratios) if ratios else None

    def cell(self, name: str, work: Workload, latency: int, who: str) -> str:
        key = (name, latency, who)
        results = self.results.get(key)
        if not results:
            return ""
        application, server = self.median(key, "application"), self.median(key, "server")
        if application is None:
            return f"> {self.limit:.0f}"
        if not work.server or who in ("ext4", "nothing"):
            return seconds(application)
        until = f"> {self.limit:.0f}" if server is None else seconds(server)
        if who == "curl":
            return f"{until} {self.counted(key)}"
        return f"{seconds(application)} / {until} {self.counted(key)}"

    def counted(self, key: tuple) -> str:
        r = self.results[key][-1]
        return f"[{r.requests:,}; {r.bytes / 1e6:,.1f} MB]"

    def table(self) -> list:
        names = [c.name for c in (Ext4, Nothing, Curl, Attachfs, *(PEERS if self.peers else ()))]
        lines = ["| workload | " + " | ".join(names) + " |", "|---" * (len(names) + 1) + "|"]
        for name, work in self.done():
            for latency in self.latencies if work.server else self.latencies[:1]:
                cells = [self.cell(name, work, latency, who) for who in names]
                where = f", {latency} ms" if work.server else ""
                lines.append(f"| {work.title}{where} | " + " | ".join(cells) + " |")
        return lines

    def done(self) -> list:
        return [(n, w) for n, w in self.work.items() if any(k[0] == n for k in self.results)]

    def goals(self) -> list:
        """What is asked, what came out, and whether it is reached."""
        found = []
        for name, work in self.done():
            for latency in self.latencies if work.server else self.latencies[:1]:
                where = f"{work.title}, {latency} ms" if work.server else work.title
                floor = ""
                nothing = self.median((name, latency, "nothing"), "application")
                plain = self.median((name, latency, "ext4"), "application")
                if nothing and plain:
                    floor = f" (FUSE alone: {nothing / plain:.1f} x)"
                most = {"cp": 1.2, "rsync": 1.2, "large": 1.2, "close": 1.5}.get(name)
                r = self.ratio(name, latency, "application", "ext4")
                if r and most:
                    asked = f"<= {most} x ext4 for the program"
                    found.append((where, asked, f"{r:.2f} x{floor}", r <= most))
                r = self.ratio(name, latency, "server", "curl")
                if r and name in ("cp", "rsync", "large"):
                    asked = ">= 0.8 x curl until on the server"
                    found.append((where, asked, f"{1 / r:.2f} x", 1 / r >= 0.8))
                best = self.best_peer(name, latency)
                mine = self.median((name, latency, "attachfs"), "server")
                if best and mine and latency and name in ("renames", "deletes"):
                    more = ">= " if best[1] else ""
                    asked = ">= 20 x faster than the best peer"
                    found.append((where, asked, f"{more}{best[0] / mine:.0f} x", best[0] / mine >= 20))
        return found

    def best_peer(self, name: str, latency: int) -> Optional[tuple]:
        """Seconds until on the server, and whether that is only what they were stopped at."""
        keys = [(name, latency, c.name) for c in PEERS]
        times = [t for t in (self.median(k, "server") for k in keys) if t]
        if times:
            return min(times), False
        return (self.limit, True) if any(k in self.results for k in keys) else None

    def text(self) -> str:
        lines = [
            f"{machine()}, caches on {self.disk}; medians of {self.runs} rounds, seconds: until the program",
            "returned / until all was on the server [requests; MB sent].",
            "",
            *self.table(),
            "",
            "| goal | asked | measured | reached |",
            "|---|---|---|---|",
            *(f"| {w} | {a} | {m} | {'yes' if ok else 'no'} |" for w, a, m, ok in self.goals()),
        ]
        return "\n".join(lines) + "\n"


def seconds(value: float) -> str:
    return f"{value:.3f}" if value < 1 else f"{value:.1f}"


def told(result: Optional[Result], work: Workload) -> str:
    if result is None:
        return "failed"
    if result.stopped:
        return "stopped at the limit"
    text = seconds(result.application)
    if result.server:
        text += f" / {seconds(result.server)} [{result.requests}; {result.bytes}]"
    return text


def filesystem(path: Path) -> str:
    """Its type, as mountinfo tells."""
    best = ("", "?")
    with open("/proc/self/mountinfo") as f:
        for line in f:
            fields = line.split()
            kind = fields[fields.index("-") + 1]
            if str(path).startswith(fields[4].rstrip("/") + "/") and len(fields[4]) >= len(best[0]):
                best = (fields[4], kind)
    return best[1]
