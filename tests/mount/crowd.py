# SPDX-License-Identifier: MIT
"""
Many readers at once: one process with a thread for each file, which reads one byte of it and notes
what came of that. Run as a program it takes paths, one a line, on standard input.
"""

import json
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Iterable


class Crowd:
    """Readers of @paths, each of its own; they can be stopped, continued and killed together."""

    def __init__(self, paths: Iterable[Path]):
        self.process = subprocess.Popen(
            [sys.executable, "-B", __file__],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.process.stdin.write("".join(f"{p}\n" for p in paths))
        self.process.stdin.close()
        assert self.process.stdout.readline() == "started\n"

    def waiting(self) -> bool:
        return self.process.poll() is None

    def results(self, seconds: float) -> dict:
        """Errno (0 = bytes came) -> how many seconds each of those readers took."""
        told = self.process.stdout.read()
        self.process.wait(seconds)
        return {int(k): v for k, v in json.loads(told).items()}

    def end(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        self.process.stdout.close()


def read_one(path: str, found: list) -> None:
    began = time.monotonic()
    number = 0
    try:
        with open(path, "rb", buffering=0) as f:
            f.read(1)
    except OSError as e:
        number = e.errno
    found.append((number, time.monotonic() - began))


def main() -> None:
    found: list = []
    threads = [
        threading.Thread(target=read_one, args=(line.rstrip("\n"), found)) for line in sys.stdin
    ]
    threading.stack_size(1 << 18)
    for t in threads:
        t.start()
    print("started", flush=True)
    for t in threads:
        t.join()
    by_errno: dict = {}
    for number, seconds in found:
        by_errno.setdefault(number, []).append(seconds)
    print(json.dumps(by_errno))


if __name__ == "__main__":
    main()
