# SPDX-License-Identifier: MIT
"""
scripts/bench scale: what a drive of many attachments costs, ten in a record, on the PERSCOM emulator.

For each size: the first walk (all names, without their sizes), what the daemon then holds for each
attachment (its RSS less that of a mount of ten, at rest, the kernel's entries forgotten where the bench
may ask for that), a refresh in which nothing has changed, a poll, and a start from the ledger. Then one
directory of as many files: how soon `ls -f` prints its first name, all of them, and a lookup in it. How all
that grows is told by growth.py, and plotted to build-bench/saved/scale.png.
"""

import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from common import expect, machine
from growth import Growth
import harness
from harness import PERSCOM, Emulator, Mount

SIZES = [1_000, 10_000, 100_000]
DIRECTORY_MAX = 100_000


def rss(pid: int) -> int:
    for line in open(f"/proc/{pid}/status"):
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) * 1024
    raise KeyError("VmRSS")


def cpu_seconds(pid: int) -> float:
    fields = open(f"/proc/{pid}/stat").read().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def forget() -> bool:
    """Have the kernel forget what nobody uses. False: that is root's."""
    try:
        Path("/proc/sys/vm/drop_caches").write_text("2")
        return True
    except OSError:
        return False


def at_rest(m: Mount) -> int:
    """The daemon's RSS when it has nothing to do any more."""
    pid = m.process.pid
    last = -1.0
    deadline = time.monotonic() + 120
    while (now := cpu_seconds(pid)) - last > 0.01 and time.monotonic() < deadline:
        last = now
        time.sleep(1.5)
    return rss(pid)


def seconds(work) -> float:
    start = time.monotonic()
    work()
    return time.monotonic() - start


def count_files(root: Path) -> int:
    """Like `find`, with the types that readdir tells: no file is asked for anything."""
    total, folders = 0, [os.fspath(root)]
    while folders:
        with os.scandir(folders.pop()) as entries:
            for e in entries:
                if e.is_dir(follow_symlinks=False):
                    folders.append(e.path)
                else:
                    total += 1
    return total


class Drive:
    def __init__(self, generate: str):
        self.base = Path(tempfile.mkdtemp(prefix="attachfs-scale-"))
        self.emulator = Emulator(self.base / "emulator", PERSCOM, generate=[generate])
        self.mount = Mount(
            self.base / "mount",
            self.emulator,
            collections=("users",),
            log="warning",
            poll=0,
            timeout=600,
        )
        self.users = self.mount.path / "users"

    def __enter__(self) -> "Drive":
        self.mount.start(look=False)
        return self

    def __exit__(self, *_) -> None:
        self.mount.abandon()
        self.emulator.process.terminate()
        self.emulator.process.wait()
        shutil.rmtree(self.base, ignore_errors=True)

    def requests(self) -> int:
        return self.emulator.summary()["total"]


def measure_tree(size: int, floor: int) -> dict:
    row: dict = {"attachments": size}
    with Drive(f"users:{size // 10}:10:4096") as d:
        m = d.mount
        d.emulator.reset()
        row["walk"] = seconds(lambda: expect(count_files(d.users), size, "files"))
        row["walk requests"] = d.requests()
        row["walk RSS"] = rss(m.process.pid)
        row["forgotten"] = forget()
        held = at_rest(m)
        row["bytes"] = (held - floor) / size
        row["again"] = seconds(lambda: expect(count_files(d.users), size, "files"))
        d.emulator.reset()
        before = cpu_seconds(m.process.pid)
        row["refresh"] = seconds(lambda: m.command("refresh", timeout=900))
        row["refresh cpu"] = cpu_seconds(m.process.pid) - before
        row["refresh RSS"] = at_rest(m)
        m.umount(timeout=300)
        row["ledger"] = sum(f.stat().st_size for f in m.cache.rglob("ledger.db*")) / size
        m.options["poll"] = 1
        row["restart"] = seconds(lambda: m.start(look=False))
        row["restart cpu"] = cpu_seconds(m.process.pid)
        one = d.users / "users 0001"
        d.emulator.faults({"port": "api", "match": "/v2/", "count": -1, "hang": True})
        # without the server, after a moment, what the ledger knows
        row["restart look"] = seconds(lambda: expect(len(os.listdir(one)), 10, "files"))
        d.emulator.heal()
        row["restart bytes"] = (at_rest(m) - floor) / size
        m.umount(timeout=300)
    return row


def measure_directory(size: int) -> dict:
    row: dict = {"files": size}
    with Drive(f"users:1:{size}:4096") as d:
        folder = d.users / "users 0001"
        start = time.monotonic()
        ls = subprocess.Popen(["ls", "-f", str(folder)], stdout=subprocess.PIPE)
        names = 0
        for line in ls.stdout:
            if line.strip() not in (b".", b".."):
                if not names:
                    row["first"] = time.monotonic() - start
                names += 1
        row["all"] = time.monotonic() - start
        expect((ls.wait(), names), (0, size), "names")
        row["requests"] = d.requests()
        d.emulator.reset()
        fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        row["lookup"] = (
            seconds(lambda: [os.access(f"n-{i}", os.F_OK, dir_fd=fd) for i in range(200)]) / 200
        )
        os.close(fd)
        row["lookup requests"] = d.requests()
        d.mount.umount(timeout=300)
    return row


TREE = (
    ("attachments", lambda r: f"{r['attachments']:,}"),
    ("first walk, s", lambda r: f"{r['walk']:.2f}"),
    ("requests", lambda r: f"{r['walk requests']}"),
    ("RSS then, MB", lambda r: f"{r['walk RSS'] / 1e6:.0f}"),
    (
        "bytes held for each",
        lambda r: f"{r['bytes']:.0f}{'' if r['forgotten'] else ' (not forgotten)'}",
    ),
    ("walk again, s", lambda r: f"{r['again']:.2f}"),
    ("refresh, s", lambda r: f"{r['refresh']:.2f}"),
    ("of that our CPU, s", lambda r: f"{r['refresh cpu']:.2f}"),
    ("start from the ledger, s", lambda r: f"{r['restart']:.2f}"),
    ("... our CPU, s", lambda r: f"{r['restart cpu']:.2f}"),
    ("... its first ls, server hanging, s", lambda r: f"{r['restart look']:.2f}"),
    ("... bytes held for each", lambda r: f"{r['restart bytes']:.0f}"),
    ("ledger, bytes for each", lambda r: f"{r['ledger']:.0f}"),
)
DIRECTORY = (
    ("files in one directory", lambda r: f"{r['files']:,}"),
    ("first name of `ls -f`, s", lambda r: f"{r['first']:.2f}"),
    ("all, s", lambda r: f"{r['all']:.2f}"),
    ("requests", lambda r: f"{r['requests']}"),
    ("lookup of no such file, µs", lambda r: f"{1e6 * r['lookup']:.0f}"),
    ("requests for 200 of these", lambda r: f"{r['lookup requests']}"),
)


def table(columns, rows: list) -> str:
    lines = [[name for name, _ in columns], ["---:" for _ in columns]]
    lines += [[show(r) for _, show in columns] for r in rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def measure(sizes: list) -> str:
    harness.SLOW *= 20  # an emulator makes a million files before it is ready
    with Drive("users:1:10:4096") as d:
        count_files(d.users)
        floor = at_rest(d.mount)
        d.mount.umount()
    trees, directories = [], []
    for size in sizes:
        print(f"  {size:,} attachments", file=sys.stderr)
        trees.append(measure_tree(size, floor))
        print(f"    {trees[-1]}", file=sys.stderr)
        if size <= DIRECTORY_MAX:
            directories.append(measure_directory(size))
            print(f"    {directories[-1]}", file=sys.stderr)
    text = (
        f"{machine()}; a mount of ten has an RSS of {floor / 1e6:.1f} MB:\n\n{table(TREE, trees)}"
    )
    if directories:
        text += f"\n{table(DIRECTORY, directories)}"
    growth = Growth(trees, directories)
    print(f"  {growth.plot()}", file=sys.stderr)
    return text + (f"\n{growth.table()}" if growth.table() else "")
