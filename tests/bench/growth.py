# SPDX-License-Identifier: MIT
"""
How what scripts/bench scale measures grows with the number of attachments: the exponent of the power of it
that fits best, whether that is what is asked, and a plot of all by gnuplot.

An exponent of 1 is linear, of 0 constant. What is fixed, as the start of a process, makes small sizes look
too good and the exponent too small: it is taken from the sizes of at least a thousand, as far as there are
two, and the step between the two largest is looked at, too.
"""

import math
import shutil
import subprocess
from pathlib import Path
from typing import Optional

from common import REPOSITORY

PLACE = REPOSITORY / "build-bench" / "saved" / "scale.png"
SIZES_MIN = 1_000
LINEAR_MAX = 1.15  # one measurement differs from the next by more than a few percent
CONSTANT_MAX = 0.15

# of which rows, what of them, title, unit, factor, the exponent that is allowed
CURVES = (
    ("tree", "walk", "first walk", "s", 1, LINEAR_MAX),
    ("tree", "again", "walk again", "s", 1, LINEAR_MAX),
    ("tree", "refresh cpu", "refresh, our CPU", "s", 1, LINEAR_MAX),
    ("tree", "restart cpu", "start from the ledger, our CPU", "s", 1, LINEAR_MAX),
    ("tree", "walk RSS", "RSS after the walk", "bytes", 1, LINEAR_MAX),
    ("tree", "ledger all", "ledger", "bytes", 1, LINEAR_MAX),
    ("directory", "all", "ls -f of one directory", "s", 1, LINEAR_MAX),
    ("directory", "lookup", "a lookup in one directory", "s", 1, CONSTANT_MAX),
)


def exponent(points: list) -> Optional[float]:
    """Of (size, value): the slope of the straight line that fits their logarithms best."""
    logs = [(math.log(x), math.log(y)) for x, y in points if x > 0 and y > 0]
    if len(logs) < 2:
        return None
    mean_x, mean_y = (sum(v) / len(logs) for v in zip(*logs))
    across = sum((x - mean_x) ** 2 for x, _ in logs)
    return sum((x - mean_x) * (y - mean_y) for x, y in logs) / across if across else None


class Growth:
    def __init__(self, trees: list, directories: list):
        for r in trees:
            r["ledger all"] = r["ledger"] * r["attachments"]
        rows = {"tree": (trees, "attachments"), "directory": (directories, "files")}
        self.curves = []
        for of, what, title, unit, factor, most in CURVES:
            found, size = rows[of]
            points = [(r[size], r[what] * factor) for r in found if r.get(what)]
            self.curves.append((title, unit, most, points))

    def table(self) -> str:
        lines = [
            "| growth of | asked | exponent | from the largest but one | reached |",
            "|---|---|---:|---:|---|",
        ]
        for title, _, most, points in self.curves:
            fit = exponent([p for p in points if p[0] >= SIZES_MIN] or points)
            last = exponent(points[-2:])
            if fit is None or last is None:
                continue
            asked = "no worse than linear" if most == LINEAR_MAX else "constant"
            # noise in a step of ten is as much as a whole fit allows
            ok = fit <= most and last <= most + 0.1
            lines.append(f"| {title} | {asked} | {fit:.2f} | {last:.2f} | {'yes' if ok else 'no'} |")
        return "\n".join(lines) + "\n" if len(lines) > 2 else ""

    def plot(self, place: Path = PLACE) -> str:
        """Where it is, or why there is none."""
        curves = [c for c in self.curves if len(c[3]) > 1]
        if not shutil.which("gnuplot"):
            return "no plot: gnuplot is not here (apt-get install gnuplot-nox)"
        if not curves:
            return "no plot: of one size there is none"
        place.parent.mkdir(parents=True, exist_ok=True)
        script = [
            "set terminal pngcairo size 1400,700 noenhanced",
            f"set output '{place}'",
            "set multiplot layout 1,2",
            "set logscale xy",
            "set format xy '%.0e'",
            "set grid",
            "set key left top",
            "set xlabel 'attachments'",
        ]
        for unit in ("s", "bytes"):
            script += self.panel(unit, [c for c in curves if c[1] == unit])
        done = subprocess.run(
            ["gnuplot"], input="\n".join(script), capture_output=True, text=True, check=False
        )
        return f"plotted: {place}" if done.returncode == 0 else f"no plot: {done.stderr.strip()[-200:]}"

    @staticmethod
    def panel(unit: str, curves: list) -> list:
        """All of one unit, and a line as steep as what is linear."""
        if not curves:
            return []
        blocks, plots = [], []
        for i, (title, _, _, points) in enumerate(curves):
            blocks += [f"${unit}{i} << END", *(f"{x} {y}" for x, y in points), "END"]
            plots.append(f"${unit}{i} using 1:2 with linespoints linewidth 2 title '{title}'")
        x, y = curves[0][3][0]
        plots.append(f"x * {y / x} with lines dashtype 2 linecolor 'gray' title 'linear'")
        return [*blocks, f"set ylabel '{unit}'", "plot " + ", ".join(plots)]
