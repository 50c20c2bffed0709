# SPDX-License-Identifier: MIT
"""What processes took: seconds of processor time, and the most memory they had."""

import contextlib
import os
from pathlib import Path

TICKS = os.sysconf("SC_CLK_TCK")


def cpu_seconds(pid: int) -> float:
    """Of the process and those of its children that have ended."""
    with open(f"/proc/{pid}/stat") as f:
        fields = f.read().rpartition(")")[2].split()
    return sum(int(t) for t in fields[11:15]) / TICKS


def memory(pid: int, what: str) -> int:
    """Bytes; @what is a line of status: VmRSS, or VmHWM, the most there was."""
    with open(f"/proc/{pid}/status") as f:
        for line in f:
            if line.startswith(f"{what}:"):
                return int(line.split()[1]) * 1024
    return 0  # it is ending


def family(pid: int) -> list:
    """The process and its children: sshfs has an ssh."""
    found = [pid]
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        with contextlib.suppress(OSError):
            found += [int(n) for n in task.read_text().split()]
    return found


class Usage:
    """Of a process and its children from now on; what was seen last counts when it has ended."""

    def __init__(self, pid: int):
        self.pid = pid
        self.cpu = 0.0
        self.peak = 0
        self.before = 0.0
        self.before = self.look()
        self.cpu = 0.0

    def look(self) -> float:
        try:
            of = family(self.pid)
            self.cpu = sum(cpu_seconds(p) for p in of) - self.before
            self.peak = sum(memory(p, "VmHWM") for p in of)
        except OSError:
            pass
        return self.cpu
