# SPDX-License-Identifier: MIT
"""
Who takes part in scripts/bench reads, all over the same files: a plain directory, the same behind FUSE with
nothing else (mirror.c), curl, attachfs, and its peers over WebDAV. See contenders.py.
"""

import os
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Callable, Optional

from common import digest, expect
from contenders import FILE_BYTES, SLOTS, Attachfs, Contender, Curl, Davfs, Rclone, free_port
from contenders import lazy_unmount, run_limited
from harness import PERSCOM, Emulator, binary, is_mounted, wait_until

BLOB_HOST = "127.0.0.2"
TICKS = os.sysconf("SC_CLK_TCK")


@dataclass
class Reading:
    """
    @command makes argv from the directory of the files, @transfers what curl is told instead: of (name, URL)
    the lines of each transfer, with @curl for all of them.
    """

    title: str
    files: Path  # what server and directory hold; the last part of the path is the record's name
    command: Callable[[Path], list]
    transfers: Optional[Callable] = None
    curl: tuple = ()
    warm: bool = False  # read as a whole before, then the page cache is dropped
    size: int = FILE_BYTES
    before: int = 0
    peers: bool = True

    @property
    def after(self) -> dict:
        return {p.name: digest(p) for p in self.files.iterdir()}


def cpu_seconds(pid: int) -> float:
    """Of the process and those of its children that have ended."""
    with open(f"/proc/{pid}/stat") as f:
        fields = f.read().rpartition(")")[2].split()
    return sum(int(t) for t in fields[11:15]) / TICKS


def drop_page_cache() -> None:
    os.sync()
    with open("/proc/sys/vm/drop_caches", "w") as f:
        f.write("1")


class Reader(Contender):
    """What readers have in common: the daemon's processor time, and a warm start."""

    pid = 0

    def ready(self) -> None:
        if self.work.warm:
            for path in sorted(self.directory.iterdir()):
                run_limited(["dd", f"if={path}", "of=/dev/null", "bs=1M"], 120)
            time.sleep(1)  # hashes and rows are written
            drop_page_cache()
        self.reset()
        self.cpu_before = cpu_seconds(self.pid) if self.pid else 0.0

    def reset(self) -> None:
        """The counts."""

    def cpu(self) -> Optional[float]:
        return cpu_seconds(self.pid) - self.cpu_before if self.pid else None

    def check(self) -> None:
        found = {p.name: digest(p) for p in self.directory.iterdir()}
        expect(found, self.bench.wanted(self.work), "contents")


class ReadExt4(Reader):
    name = "ext4"
    networked = False

    def start(self) -> None:
        self.directory = self.bench.on_disk(self.work)
        self.ready()


class Mirror(Reader):
    name = "FUSE alone"
    networked = False
    process = None

    def start(self) -> None:
        self.directory.mkdir()
        source = self.bench.on_disk(self.work)
        self.process = subprocess.Popen([binary("bench-mirror"), str(source), self.directory])
        wait_until(lambda: is_mounted(self.directory), "bench-mirror to be mounted")
        self.pid = self.process.pid
        self.ready()

    def stop(self) -> None:
        if is_mounted(self.directory):
            lazy_unmount(self.directory)
        if self.process:
            self.process.terminate()
            self.process.wait()
        super().stop()


class FromEmulator:
    """The addresses of bytes lead through the same latency as those of calls."""

    def start_emulator(self) -> None:
        self.emulator = None
        port = free_port()
        host, near = BLOB_HOST, port
        if self.latency:
            host, near = "127.0.0.1", self.port(BLOB_HOST, port)
        self.emulator = Emulator(
            self.shm / "emulator",
            PERSCOM,
            data=self.work.files.parents[1],
            more=["--blob-port", port, "--blob-url", f"http://{host}:{near}"],
        )
        self.blob_url = f"http://{host}:{near}"
        api = self.emulator.api
        at = api.split("/")[2].split(":")
        self.api = api.replace(f":{at[1]}/", f":{self.port(at[0], int(at[1]))}/")

    def counts(self) -> tuple:
        n = self.emulator.summary()
        return n["total"], n["bytes_out"]


class ReadAttachfs(FromEmulator, Reader, Attachfs):
    name = "attachfs"

    def start(self) -> None:
        Attachfs.start(self)
        self.pid = self.mount.process.pid
        self.ready()

    def reset(self) -> None:
        self.emulator.reset()


class ReadCurl(FromEmulator, Reader, Curl):
    """To files, where a whole is read, else to nowhere."""

    name = "curl"

    def transfers(self) -> list:
        tenant = self.emulator.ask_json("GET", "/set")["tenancy"]
        files = sorted(self.emulator.attachments(), key=lambda a: a["name"])
        made = []
        for a in files:
            url = f"{self.blob_url}/tenant{tenant}/{a['path']}"
            made += self.work.transfers(a["name"], url, self.base)
        return [[*lines, "fail", "silent", "show-error"] for lines in made]

    def start(self) -> None:
        Curl.start(self)
        self.ready()

    def reset(self) -> None:
        self.emulator.reset()

    def do(self, seconds: float) -> None:
        run_limited(["curl", "-q", "-K", self.config, *self.work.curl], seconds)

    def check(self) -> None:
        """curl's exit status told."""


class FromNginx:
    counted = 3  # bytes sent by the server

    def fill_origin(self) -> None:
        self.held.symlink_to(self.work.files)

    def mounted(self) -> None:
        super().mounted()
        self.pid = self.daemon()
        self.ready()

    def reset(self) -> None:
        time.sleep(0.1)  # a request is logged when it is over
        self.skip = self.log.stat().st_size


class ReadRclone(FromNginx, Reader, Rclone):
    mode = "full"

    def daemon(self) -> int:
        return self.process.pid


class ReadRcloneTuned(ReadRclone):
    name = "rclone tuned"
    flags = (
        f"--transfers={SLOTS}",
        "--dir-cache-time=24h",
        "--attr-timeout=60s",
        "--vfs-cache-max-age=720h",
        "--vfs-fast-fingerprint",
        "--vfs-read-chunk-size=4M",
        "--buffer-size=4M",
        "--max-read-ahead=1M",
        "--poll-interval=0",
    )


class ReadDavfs(FromNginx, Reader, Davfs):
    def daemon(self) -> int:
        """The number is written when it is mounted, or a moment later."""
        found = wait_until(lambda: self.pids() - self.pids_before, "the number of davfs2's process")
        return found.pop()

    def start(self) -> None:
        self.pids_before = self.pids()
        super().start()
