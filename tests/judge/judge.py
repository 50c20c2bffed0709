# SPDX-License-Identifier: MIT
"""
Judges records by what others expect of a directory: see scripts/judge. Prints a Markdown table with a
column for each record, and below it what is no failure but a property of the server.
"""

import argparse
import os
import random
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import behaviour
from bytes_at_random import History
from drive import OTHER, RECORD, SYSTEMS, drive

HERE = Path(__file__).resolve().parent

# What is a property of a server: (system, case of behaviour.py, start of what differs, why)
PROPERTIES = (
    (
        "servicemax",
        "odd_names",
        "EINVAL",
        "ServiceMax takes names apart at commas and cannot store slashes and backslashes: such files are "
        "refused with EINVAL when they are made",
    ),
)


def explain(system, line):
    """Why the line of behaviour.compare() is no failure, or nothing."""
    for name, case, said, why in PROPERTIES:
        if system == name and line.startswith(case) and said in line:
            return why
    return None


class Judge:
    def __init__(self, system, folder, other, work, chosen):
        self.system, self.folder, self.other, self.work = system, Path(folder), other, Path(work)
        self.chosen = chosen
        self.verdicts = {}
        self.reasons = set()

    def wants(self, name):
        return not self.chosen or any(name.startswith(c) for c in self.chosen)

    def verdict(self, name, trouble):
        self.verdicts[name] = "ok" if not trouble else "failed: " + trouble[0]
        for line in trouble:
            print(f"{self.system}: {name}: {line}", file=sys.stderr)

    def errnos(self):
        local = self.work / "local"
        local.mkdir(exist_ok=True)
        bad, explained = [], False
        for line in behaviour.compare(self.folder, self.other, local):
            why = explain(self.system, line)
            if why:
                self.reasons.add(why)
                explained = True
            else:
                bad.append(line)
        self.verdict("errnos and results", bad)
        if explained and not bad:
            self.verdicts["errnos and results"] = "ok but for what the server cannot"

    def random_bytes(self, steps):
        seed = random.SystemRandom().randrange(1 << 32)
        try:
            History(str(self.folder / "bytes"), seed).run(steps)
            self.verdict("bytes at random", [])
        except (AssertionError, OSError) as e:
            self.verdict("bytes at random", [f"seed {seed}: {e}"])
        for p in self.folder.glob("bytes*"):
            p.unlink()

    def model(self, examples):
        run = subprocess.run(
            [sys.executable, "-B", HERE / "model.py", self.folder, self.work, str(examples)],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        self.verdict("histories by hypothesis", [] if run.returncode == 0 else run.stdout.splitlines()[-20:])

    def programs(self):
        chosen = [c for c in self.chosen if c not in ("errnos", "random", "model")]
        if self.chosen and not chosen:
            return
        run = subprocess.Popen(
            [HERE / "programs", self.folder, self.work, *chosen], stdout=subprocess.PIPE, text=True
        )
        for line in run.stdout:
            result, name = line.split(":")[0].split()[:2]
            self.verdict(name.replace("_", " "), [] if result == "ok" else [line.split(": ", 1)[1].strip()])
        run.wait()

    def all(self, steps, examples):
        if self.wants("errnos"):
            self.errnos()
        if self.wants("random"):
            self.random_bytes(steps)
        if self.wants("model"):
            self.model(examples)
        self.programs()


def table(judges):
    names = list(dict.fromkeys(n for j in judges for n in j.verdicts))
    print("| check | " + " | ".join(j.system for j in judges) + " |")
    print("|---|" + "---|" * len(judges))
    for n in names:
        cells = (j.verdicts.get(n, "").replace("|", "\\|").replace("\n", " ")[:200] for j in judges)
        print(f"| {n} | " + " | ".join(cells) + " |")
    for why in sorted({w for j in judges for w in j.reasons}):
        print(f"\n{why}.")


def main():
    os.umask(0o022)
    p = argparse.ArgumentParser(prog="scripts/judge")
    p.add_argument("dir", nargs="?", help="a record of a mount; without it, one of each system's emulator")
    p.add_argument("other", nargs="?", help="another record beside it (default: a directory beside DIR)")
    p.add_argument("--system", action="append", help="what DIR is on, or which emulators")
    p.add_argument("--only", action="append", default=[], help="errnos, random, model or a program's check")
    p.add_argument("--steps", type=int, default=1500, help="of the random bytes")
    p.add_argument("--examples", type=int, default=60, help="of the random histories")
    a = p.parse_args()
    judges = []
    work = Path(tempfile.mkdtemp(prefix="judge-"))
    work.chmod(0o755)
    try:
        if a.dir:
            beside = (d for d in Path(a.dir).resolve().parent.iterdir() if d.is_dir() and d != Path(a.dir).resolve())
            other = a.other or next(beside)
            judges.append(Judge((a.system or ["DIR"])[0], Path(a.dir).resolve(), other, work, a.only))
            judges[0].all(a.steps, a.examples)
        for s in [] if a.dir else SYSTEMS:
            if a.system and s.name not in a.system:
                continue
            with drive(s.name, settle=1, **({"allow_other": True} if os.getuid() == 0 else {})) as m:
                (work / s.name).mkdir(mode=0o755)
                judges.append(Judge(s.name, m / RECORD, m / OTHER, work / s.name, a.only))
                judges[-1].all(a.steps, a.examples)
                m.finish()
    finally:
        shutil.rmtree(work, ignore_errors=True)
    table(judges)
    return any(v.startswith("failed") for j in judges for v in j.verdicts.values())


if __name__ == "__main__":
    sys.exit(main())
