# SPDX-License-Identifier: MIT
"""
What a few everyday jobs cost: seconds on the clock and requests as the server counted them.

Each workload gets an emulator and a mount of its own, with an empty cache unless it says "warm", and a
latency that the emulator adds to every answer. Every result is checked (all there, same bytes) before its
time is told; a workload that does not check out is told as failed.
"""

import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from common import digest, expect, machine, sums
from harness import PERSCOM, Emulator, Mount, binary, random_bytes, run

ROWS = []


class Job:
    """A server with @generate, mounted; measure() times one thing done to it."""

    def __init__(self, base: Path, latency_ms: int, generate: str = "users:1:0:0", **options):
        self.base = Path(tempfile.mkdtemp(dir=base))
        self.emulator = Emulator(self.base / "emulator", PERSCOM, generate=[generate])
        if latency_ms:
            self.emulator.ask_json("POST", "/faults", {"rules": [], "latency_ms": latency_ms})
        options = {"log": "warning", "poll": 0, **options}
        self.mount = Mount(self.base / "mount", self.emulator, **options)

    def __enter__(self) -> "Job":
        self.mount.start()
        return self

    def __exit__(self, *_) -> None:
        self.mount.abandon()
        self.emulator.process.terminate()
        self.emulator.process.wait()
        shutil.rmtree(self.base, ignore_errors=True)

    def measure(self, what: str, work, check=None) -> None:
        self.emulator.ask_json("POST", "/requests/reset")
        start = time.monotonic()
        work()
        seconds = time.monotonic() - start
        counted = self.emulator.summary()
        if check:
            check()
        ROWS.append((what, seconds, counted))
        print(f"  {what}: {seconds:.2f} s", file=sys.stderr)


def server_sums(e: Emulator) -> list:
    return sorted(a["sha256"] for a in e.attachments())


def listing(base: Path, latency: int) -> None:
    """1,000 records of 10 files: names only, then with sizes."""
    with Job(base, latency, "users:1000:10:2048") as j:
        users = j.mount.path / "users"
        find = ["find", str(users), "-type", "f"]

        def names():
            expect(len(run(*find, timeout=600).stdout.splitlines()), 10_000, "files")

        j.measure("list 1,000 records, 10,000 names, cold", names)
        j.measure("the same, warm", names)
        one = users / "users 0500"
        j.measure("ls -l of one record of 10 files, sizes unknown", lambda: run("ls", "-l", one))
        j.measure("the same, warm", lambda: run("ls", "-l", one))


def copy_in(base: Path, latency: int) -> None:
    """1,000 small files, until the server has them."""
    with Job(base, latency) as j:
        source = j.base / "files"
        source.mkdir()
        for i in range(1000):
            (source / f"file-{i:04d}.txt").write_bytes(random_bytes(2048, i))
        record = next((j.mount.path / "users").iterdir())
        j.measure(
            "cp -r of 1,000 files of 2 KiB, cp alone",
            lambda: run("cp", "-r", f"{source}/.", record, timeout=600),
        )
        j.measure(
            "... and then attachfs sync",
            lambda: run(binary("attachfs"), "sync", j.mount.path, timeout=600),
        )
        expect(server_sums(j.emulator), sums(source), "contents on the server")


def renames(base: Path, latency: int) -> None:
    with Job(base, latency, "users:1:500:2048") as j:
        record = next((j.mount.path / "users").iterdir())
        names = sorted(os.listdir(record))
        expect(len(names), 500, "files")

        def rename():
            for name in names:
                os.rename(record / name, record / f"renamed {name}")
            run(binary("attachfs"), "sync", j.mount.path, timeout=600)

        def check():
            on_server = sorted(a["name"] for a in j.emulator.attachments())
            expect(on_server, [f"renamed {n}" for n in names], "names on the server")

        j.measure("500 renames, until the server has them", rename, check)


def removals(base: Path, latency: int) -> None:
    with Job(base, latency, "users:1:500:2048") as j:
        record = next((j.mount.path / "users").iterdir())
        expect(len(os.listdir(record)), 500, "files")

        def remove():
            run("sh", "-c", 'rm -- "$1"/*', "sh", record, timeout=600)
            run(binary("attachfs"), "sync", j.mount.path, timeout=600)

        j.measure(
            "500 removals, until the server has them",
            remove,
            lambda: expect(j.emulator.attachments(), [], "left on the server"),
        )


def archive(base: Path, latency: int) -> None:
    with Job(base, latency, "users:100:10:4096") as j:
        out = j.base / "all.tar"

        def tar():
            run("tar", "-C", j.mount.path, "-cf", out, "users", timeout=600)

        def check():
            target = j.base / "unpacked"
            target.mkdir()
            run("tar", "-C", target, "-xf", out)
            expect(sums(target), server_sums(j.emulator), "contents of the archive")
            shutil.rmtree(target)

        j.measure("tar of 1,000 files of 4 KiB in 100 records, cold", tar, check)
        j.measure("the same, warm", tar, check)


def large(base: Path, latency: int) -> None:
    with Job(base, latency, f"users:1:1:{256 << 20}") as j:
        path = next((j.mount.path / "users").iterdir()) / "file-0001.dat"

        def head():
            with open(path, "rb") as f:
                expect(len(f.read(4096)), 4096, "bytes")

        j.measure("first 4 KiB of a file of 256 MiB, cold", head)

    with Job(base, latency, f"users:1:1:{256 << 20}") as j:
        path = next((j.mount.path / "users").iterdir()) / "file-0001.dat"
        j.measure(
            "all of a file of 256 MiB, cold",
            lambda: run("cp", path, j.base / "copy", timeout=600),
            lambda: expect(
                [digest(j.base / "copy")], server_sums(j.emulator), "contents"
            ),
        )


WORKLOADS = {
    "listing": listing,
    "copy": copy_in,
    "renames": renames,
    "removals": removals,
    "tar": archive,
    "large": large,
}


def table(latency: int) -> str:
    lines = [
        f"{machine()}, {latency} ms added to each answer:",
        "",
        "| workload | seconds | API requests | downloads | at once |",
        "|---|---:|---:|---:|---:|",
    ]
    for what, seconds, n in ROWS:
        lines.append(f"| {what} | {seconds:.2f} | {n['api']} | {n['blob']} | {n['max_parallel']} |")
    return "\n".join(lines) + "\n"


def kept(latency: int) -> list:
    """For JSON, as the results of the comparisons."""
    return [
        {"workload": what, "latency_ms": latency, "contender": "attachfs", "seconds": seconds}
        | {"requests": n["api"], "downloads": n["blob"]}
        for what, seconds, n in ROWS
    ]


def measure(names: list, latency: int) -> int:
    """Fills the table; how many workloads failed."""
    base = Path(tempfile.mkdtemp(prefix="attachfs-bench-"))
    failed = 0
    try:
        for name in names or WORKLOADS:
            print(name, file=sys.stderr)
            try:
                WORKLOADS[name](base, latency)
            except (AssertionError, OSError, subprocess.SubprocessError, StopIteration) as e:
                failed += 1
                print(f"  FAILED: {type(e).__name__}: {e}", file=sys.stderr)
    finally:
        shutil.rmtree(base, ignore_errors=True)
    return failed
