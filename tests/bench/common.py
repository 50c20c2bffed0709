# SPDX-License-Identifier: MIT
"""What the benchmarks share: the harness of the mount tests, digests, the machine's name, README."""

import hashlib
import os
import platform
import sys
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]

sys.dont_write_bytecode = True
sys.path.insert(0, str(REPOSITORY / "tests" / "mount"))


def expect(got, wanted, what: str) -> None:
    assert got == wanted, f"{what}: {got!r:.300} instead of {wanted!r:.300}"


def digest(path: Path) -> str:
    with open(path, "rb") as f:
        return hashlib.file_digest(f, "sha256").hexdigest()


def sums(root: Path) -> list:
    return sorted(digest(Path(d) / name) for d, _, files in os.walk(root) for name in files)


def processor() -> str:
    try:
        for line in open("/proc/cpuinfo"):
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    except OSError:
        pass
    return platform.machine()


def machine() -> str:
    """Figures say something about the machine they were taken on."""
    return f"{os.cpu_count()} processors ({processor()}), Linux {platform.release().split('-')[0]}"


def into_readme(mark: str, text: str) -> None:
    """Between the comment that marks the place and the next end."""
    path = REPOSITORY / "README.md"
    begin, end = f"<!-- {mark} -->\n", "<!-- end -->\n"
    before, rest = path.read_text().split(begin)
    _, after = rest.split(end, 1)
    path.write_text(f"{before}{begin}\n{text}\n{end}{after}")
