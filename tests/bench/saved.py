# SPDX-License-Identifier: MIT
"""
Results kept as JSON, one file a commit in build-bench/saved/, and two of them side by side.

Times of two days differ by what else the machine did. What curl or the plain disk took in the same rounds
takes that out again, where they took part.
"""

import json
import statistics
import subprocess
import time
from pathlib import Path
from typing import Optional

from common import REPOSITORY, machine

PLACE = REPOSITORY / "build-bench" / "saved"
OURS = "attachfs"
LIMITS = ("curl", "ext4")
NOT_MEASURED = ("workload", "latency_ms", "contender", "round", "stopped")


def git(*arguments: str) -> str:
    done = subprocess.run(["git", *arguments], cwd=REPOSITORY, capture_output=True, text=True)
    return done.stdout.strip()


def commit() -> str:
    changed = "-changed" if git("status", "--porcelain", "--untracked-files=no") else ""
    return (git("rev-parse", "--short=12", "HEAD") or "unknown") + changed


def save(benches: dict) -> Path:
    """What was measured now takes the place of the same benches of that commit; others of it stay."""
    path = PLACE / f"{commit()}.json"
    PLACE.mkdir(parents=True, exist_ok=True)
    kept = json.loads(path.read_text())["benches"] if path.exists() else {}
    made = {"commit": commit(), "machine": machine(), "time": int(time.time())}
    path.write_text(json.dumps({**made, "benches": {**kept, **benches}}, indent=1) + "\n")
    return path


def load(name: str) -> dict:
    """Of a file, or of a commit as git knows it."""
    path = Path(name)
    if not path.is_file():
        full = git("rev-parse", "--verify", "--quiet", f"{name}^{{commit}}") or name
        there = sorted(PLACE.glob("*.json"))  # a commit comes before what was changed after it
        found = [p for p in there if full.startswith(p.stem.removesuffix("-changed")) or p.stem == name]
        if not found:
            known = ", ".join(p.stem for p in there) or "none"
            raise SystemExit(f"nothing saved of {name}; there are: {known} (scripts/bench --save)")
        path = found[0]
    return json.loads(path.read_text())


def medians(rows: list) -> dict:
    """(workload, latency, contender, what) -> the median of what was measured."""
    values: dict = {}
    for row in rows:
        for what, value in row.items():
            if what not in NOT_MEASURED and value is not None:
                key = (row["workload"], row["latency_ms"], row["contender"], what)
                values.setdefault(key, []).append(value)
    return {key: statistics.median(v) for key, v in values.items()}


def beside_limit(found: dict, key: tuple) -> Optional[float]:
    workload, latency, who, what = key
    if isinstance(found[key], float):
        for limit in LIMITS:
            for theirs in (what, "server", "application", "seconds"):
                value = found.get((workload, latency, limit, theirs))
                if value and who != limit:
                    return found[key] / value
    return None


def told(value: float) -> str:
    return f"{value:.3f}" if isinstance(value, float) and value != int(value) else f"{value:,.0f}"


def compare(one: str, other: str) -> str:
    a, b = load(one), load(other)
    lines = [
        f"{a['commit']} on {a['machine']}, {b['commit']} on {b['machine']}.",
        "",
        f"| workload | what | {a['commit']} | {b['commit']} | ratio | beside curl or ext4 |",
        "|---|---|---:|---:|---:|---:|",
    ]
    for bench in a["benches"]:
        first, second = medians(a["benches"][bench]), medians(b["benches"].get(bench, []))
        for key in first:
            if key[2] != OURS or key not in second:
                continue
            ratio = f"{second[key] / first[key]:.2f}" if first[key] else ""
            limits = [beside_limit(found, key) for found in (first, second)]
            taken = f"{limits[1] / limits[0]:.2f}" if all(limits) else ""
            lines.append(
                f"| {bench} {key[0]}, {key[1]} ms | {key[3]} | {told(first[key])} | {told(second[key])} |"
                f" {ratio} | {taken} |"
            )
    return "\n".join(lines) + "\n"
