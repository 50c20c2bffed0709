# SPDX-License-Identifier: MIT
"""
Who takes part in scripts/bench writes: a plain directory, a filesystem that keeps nothing, curl, attachfs,
and its peers over a WebDAV origin. Each brings up what it needs, lists what is there, does the work, waits
until the server has it, tells what was sent, is checked, and leaves nothing running or mounted.
"""

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Callable, Optional

from common import digest, expect
from harness import PERSCOM, Emulator, Mount, binary, is_mounted, lazy_unmount, random_bytes
from harness import wait_until

FILE_BYTES = 4096
BIG_BYTES = 1 << 30
SLOTS = 16  # of attachfs by default, and of the others where it can be said


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


def remove(path: Path) -> None:
    """The directory with all below, of which nothing must be mounted: that would be emptied, too."""
    with open("/proc/self/mountinfo") as f:
        mounted = [Path(line.split()[4]) for line in f if line.split()[4].startswith(f"{path}/")]
    for below in mounted:
        lazy_unmount(below)
    if not any(is_mounted(below) for below in mounted):
        shutil.rmtree(path, ignore_errors=True)


def run_limited(argv: list, seconds: float) -> None:
    """Like a person at a terminal who waits so long. A failure is an AssertionError."""
    late = threading.Event()
    with tempfile.TemporaryFile() as said:
        process = subprocess.Popen(
            [str(a) for a in argv],
            stdin=subprocess.DEVNULL,
            stdout=said,
            stderr=said,
            start_new_session=True,
        )

        def give_up() -> None:
            late.set()
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)

        # not wait(seconds), which looks every 50 ms whether the process has ended
        timer = threading.Timer(max(seconds, 0.1), give_up)
        timer.start()
        process.wait()
        timer.cancel()
        if late.is_set():
            raise Stopped
        said.seek(0)
        words = said.read(300).decode(errors="replace")
        assert process.returncode == 0, f"{argv[0]} exited {process.returncode}: {words}"


class Contender:
    """
    One life: start(), the work on .directory, settle(), counts(), check(), stop(). The constructor does nothing
    that would have to be undone.
    """

    name = ""
    networked = True

    def __init__(self, bench, work: Workload, latency: int):
        self.bench = bench
        self.work = work
        self.latency = latency
        self.base = Path(tempfile.mkdtemp(prefix=f"{self.name.replace(' ', '-')}-", dir=bench.base))
        self.base.chmod(0o755)
        self.shm = Path(tempfile.mkdtemp(dir=bench.shm))
        self.shm.chmod(0o755)
        self.directory = self.base / "mnt"
        self.delays: list = []
        self.stopped = False

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
        remove(self.shm)
        # 1 GiB is not kept until the end
        if self.work.size > FILE_BYTES:
            remove(self.base)

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
                # one that was stopped at the limit would go on sending
                if not self.stopped:
                    self.mount.umount(timeout=60)
            except (AssertionError, subprocess.SubprocessError) as e:
                print(f"  attachfs umount: {e!s:.300}", file=sys.stderr)
            finally:
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

            def renamed(files: list) -> dict:
                names = {str(a["id"]): f"renamed-{a['name']}" for a in files}
                return {ident: {"name": n, "filename": n} for ident, n in names.items()}

            return self.batches("PATCH", renamed)
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
    log_format counted '$request_method $status $request_length $bytes_sent $request_uri';
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

    def fill_origin(self) -> None:
        self.held.mkdir()
        for i in range(self.work.before):
            (self.held / f"file-{i:04d}.dat").write_bytes(random_bytes(FILE_BYTES, i))

    def start_origin(self) -> None:
        root = self.shm / "root"
        root.mkdir()
        self.held = root / "record"
        self.fill_origin()
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

    counted = 2  # field of the log: bytes sent

    def counts(self) -> tuple:
        # a request is logged when it is over, which is after its file was seen
        size = -1
        while size != self.log.stat().st_size:
            size = self.log.stat().st_size
            time.sleep(0.2)
        with open(self.log, "rb") as f:
            f.seek(self.skip)
            lines = f.read().split(b"\n")[:-1]
        return len(lines), sum(int(line.split(b" ")[self.counted]) for line in lines)

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
                quiet = subprocess.DEVNULL
                subprocess.run(
                    ["umount", "-i", self.base / "root"], stdout=quiet, stderr=quiet, timeout=2
                )
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
    mode = "writes"
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
                    self.mode,
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
        self.mounted()
        self.pid = (self.pids() - before or {0}).pop()

    @staticmethod
    def pids() -> set:
        """Of all mounts of davfs2; a file may be there before its number."""
        found = set()
        for path in Path("/var/run/mount.davfs").glob("*.pid"):
            with contextlib.suppress(OSError, ValueError):
                found.add(int(path.read_text()))
        return found

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
