# SPDX-License-Identifier: MIT
"""A mount of a system's emulator, with two empty records, for what judges it."""

import os
import shutil
import sys
import tempfile
from contextlib import contextmanager
from pathlib import Path

sys.dont_write_bytecode = True
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "mount"))

from harness import Emulator, Mount, SYSTEMS  # noqa: E402

RECORD, OTHER = "users/Ada Byron", "users/Grace Hopper"


def system_of(name):
    return next(s for s in SYSTEMS if s.name == name)


@contextmanager
def drive(name, finish=False, **options):
    """A running mount; @finish: with the check that ends each mount test."""
    base = Path(tempfile.mkdtemp(prefix="attachfs-judge-"))
    base.chmod(0o755)
    system = system_of(name)
    tree = {"users": {"Ada Byron": {}, "Grace Hopper": {}}, "events": {}}
    emulator = Emulator(base / "emulator", system, tree=tree)
    mount = None
    try:
        mount = Mount(base / "mount", emulator, **{"log": "info", **options})
        mount.start()
        yield mount
        if finish:
            mount.finish()
            emulator.finish()
    finally:
        if mount:
            mount.abandon()
        emulator.stop()
        shutil.rmtree(base, ignore_errors=True)


def main(argv):
    """drive.py SYSTEM[,OPTION=VALUE...] COMMAND...: run with the two records as DIR and OTHER in the environment."""
    import subprocess

    name, *options = argv[0].split(",")
    given = dict(o.split("=", 1) if "=" in o else (o, True) for o in options)
    with drive(name, **given) as m:
        env = {**os.environ, "DIR": str(m / RECORD), "OTHER": str(m / OTHER), "MOUNTPOINT": str(m.path)}
        env["LOG"] = str(m.log_file)
        return subprocess.run(argv[1:], env=env, check=False).returncode


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
