# SPDX-License-Identifier: MIT
"""
Who takes part in scripts/bench writes: a plain directory, a filesystem that keeps nothing, curl, attachfs;
its peers are in peers.py. Each brings up what it needs, lists what is there, does the work, waits until the
server has it, tells what was sent, is checked, and leaves nothing running or mounted.
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
from harness import PERSCOM, SERVICEMAX, Emulator, Mount, binary, is_mounted, lazy_unmount
from harness import random_bytes, wait_until
from usage import Usage

FILE_BYTES = 4096
BIG_BYTES = 1 << 30
SLOTS = 16  # of attachfs by default, and of the others where it can be said
MANY_SLOTS = 64
PARALLEL = ("--parallel", "--parallel-immediate", "--parallel-max")


@dataclass
class Workload:
    """
    @command makes argv from the directory; @after is what the server then has, name -> sha256. What was done
    @already is the same, until the server had it; then all are mounted anew if @remount says so.
    """

    title: str
    command: Callable[[Path], list]
    after: dict
    before: int = 0  # files that are there already
    peers: bool = True
    server: bool = True  # how long until it is on the server is asked, too
    nothing: bool = False  # can be done to a filesystem that keeps nothing
    size: int = FILE_BYTES
    already: bool = False
    remount: bool = False
    unchanged: bool = False  # nothing needs to be sent
    whole: bool = False  # the directory is that of all records


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
    system = None  # whose emulator it speaks to
    networked = True
    pid = 0  # of the process that serves the mount
    mounted_s: Optional[float] = None  # from its start until it was mounted

    @classmethod
    def absent(cls) -> str:
        """Why it cannot take part here, if so."""
        return ""

    def __init__(self, bench, work: Workload, latency: int):
        self.bench = bench
        self.work = work
        self.latency = latency
        self.base = Path(tempfile.mkdtemp(prefix=f"{type(self).__name__}-", dir=bench.base))
        self.base.chmod(0o755)
        self.shm = Path(tempfile.mkdtemp(dir=bench.shm))
        self.shm.chmod(0o755)
        self.directory = self.base / "mnt"
        self.delays: list = []
        self.stopped = False
        self.usage: Optional[Usage] = None

    def begin(self) -> None:
        """What the process takes is counted from here on."""
        self.usage = Usage(self.pid) if self.pid else None

    def used(self) -> tuple:
        """Seconds of processor time since begin(), and bytes of memory at most; None, None without a process."""
        if not self.usage:
            return None, None
        self.usage.look()
        return self.usage.cpu, self.usage.peak

    def is_there(self) -> bool:
        """davfs2 is unmounted to have it send."""
        return True

    def remount(self) -> None:
        """Gone and there again, with the cache it had."""

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

    @contextlib.contextmanager
    def near(self):
        """Without latency, what is only made ready."""
        for process in self.delays:
            process.send_signal(signal.SIGUSR1)
        yield
        for process in self.delays:
            process.send_signal(signal.SIGUSR2)

    def start(self) -> None:
        """Ready for the work, and everything that is there already is listed."""

    def reset(self) -> None:
        """Requests and bytes are counted from here on."""

    def do(self, seconds: float) -> None:
        run_limited(self.work.command(self.directory), seconds)

    def settle(self, deadline: float) -> None:
        """Until the server has it all; Stopped."""

    def counts(self) -> tuple:
        """Requests and bytes since then; None, None: nobody counts."""
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
        if not self.work.whole:
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
        self.pid = self.process.pid
        wait_until(lambda: is_mounted(self.directory), "bench-nothing to be mounted")
        self.look()

    def stop(self) -> None:
        if is_mounted(self.directory):
            lazy_unmount(self.directory)
        end(self.process)
        super().stop()


class WithEmulator(Contender):
    system = PERSCOM

    def start_emulator(self) -> None:
        self.emulator = None
        generated = f"users:1:{self.work.before}:{FILE_BYTES}"
        self.emulator = Emulator(self.shm / "emulator", self.system, generate=[generated])
        self.api = self.through(self.emulator.api)

    def through(self, api: str) -> str:
        """The address with the latency asked for."""
        host, port = api.split("/")[2].split(":")
        return api.replace(f":{port}", f":{self.port(host, int(port))}", 1)

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
    options: dict = {}
    mount = None

    def start(self) -> None:
        self.start_emulator()
        self.mount = Mount(
            self.base / "mount",
            self.emulator,
            source=self.system.source(self.api),
            collections=("users",),
            log="warning",
            **self.options,
        )
        self.mount_it()
        self.look()
        self.reset()

    def mount_it(self) -> None:
        began = time.monotonic()
        self.mount.start(look=False)
        self.mounted_s = time.monotonic() - began
        self.pid = self.mount.process.pid
        self.directory = self.mount.path / "users"
        if not self.work.whole:
            (self.directory,) = self.directory.iterdir()

    def remount(self) -> None:
        self.mount.umount(timeout=60)
        self.mount_it()

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


class AttachfsTuned(Attachfs):
    """With as many connections as curl --parallel has where it has many."""

    name = "attachfs tuned"
    options = {"slots": MANY_SLOTS}


class AttachfsServiceMax(Attachfs):
    name = "attachfs, ServiceMax"
    system = SERVICEMAX


class Curl(WithEmulator):
    """Only what must be sent, from files that are there."""

    name = "curl"
    slots = SLOTS

    def start(self) -> None:
        self.start_emulator()
        self.config = self.base / "curl.config"
        self.record = self.emulator.state()["records"][0]["id"]
        transfers = self.transfers()
        self.config.write_text("\nnext\n".join("\n".join(t) for t in transfers) + "\n")
        self.reset()

    def request(self, url: str, *lines: str) -> list:
        return [
            f'url = "{self.api}{"" if self.api.endswith("/v2") else "/v2"}/{url}"',
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
            argv += [*PARALLEL, str(self.slots)]
        run_limited(argv, seconds)


class CurlMany(Curl):
    name = f"curl, {MANY_SLOTS} at once"
    slots = MANY_SLOTS


class CurlServiceMax(Curl):
    """As many files to a call as attachfs sends."""

    name = "curl, ServiceMax"
    system = SERVICEMAX

    def transfers(self) -> list:
        files = [self.bench.big] if self.work.size == BIG_BYTES else sorted(self.bench.source.iterdir())
        at_once = self.system.batch_create
        record = self.emulator.state()["records"][0]["remote_id"]
        return [
            self.request(
                f"users/{record}/attachments",
                *(f'form = "file=@{p};filename={p.name}"' for p in files[i : i + at_once]),
            )
            for i in range(0, len(files), at_once)
        ]
