# SPDX-License-Identifier: MIT
"""
The recipes of README.md's section on backups, run as they stand there: what comes out is what the
server has, and the second time nothing is downloaded that has not changed, also after a remount and
when nothing of it is in the cache any more.
"""

import os
import re
import shlex
import shutil
import time
from pathlib import Path

import pytest

from harness import PERSCOM, SLOW, binary, random_bytes, read_tree, run

README = Path(__file__).resolve().parents[2] / "README.md"


@pytest.fixture
def system():
    return PERSCOM


def recipe(start):
    """The lines of the section's block that has a line beginning so."""
    section = README.read_text().split("## Backups and copies\n")[1].split("\n## ")[0]
    blocks = re.findall(r"(?:^    .*\n)+", section, re.M)
    lines = [[line[4:] for line in block.splitlines()] for block in blocks]
    (found,) = [block for block in lines if any(line.startswith(start) for line in block)]
    return found


@pytest.fixture
def kitchen(drive, scratch):
    """A drive, and a function that runs lines of a recipe with it in the place of ~/perscom."""
    if not shutil.which("borg") or not shutil.which("restic"):
        pytest.fail("apt-get install borgbackup restic")
    m = drive(settle=600)
    (scratch / "password").write_text("secret\n")
    env = m.env()
    env["PATH"] = f"{Path(binary('attachfs')).parent}:{env['PATH']}"
    env["RESTIC_PASSWORD_FILE"] = str(scratch / "password")
    env["BORG_UNKNOWN_UNENCRYPTED_REPO_ACCESS_IS_OK"] = "yes"

    def cook(*lines):
        said = ""
        for line in lines:
            line = line.replace("~/perscom", shlex.quote(str(m.path)))
            line = line.replace("/backup", shlex.quote(str(scratch)))
            said += run("bash", "-ec", line, env=env).stdout
        return said

    return m, scratch, cook


def bytes_below(path):
    return {name: data for name, data in read_tree(path).items()}


def again(m, work):
    """How many downloads @work takes when nothing of the drive is cached, in another mount."""
    m.remount()
    m.command("cache", "drop")
    before = len(m.emulator.downloads())
    work()
    return len(m.emulator.downloads()) - before


def changed(m):
    """One file is new."""
    path = m / "events/Live fire/new.txt"
    path.write_bytes(b"new\n" * 500)
    later = time.time() + 60
    os.utime(path, (later, later))
    m.sync()


def test_rsync_out(kitchen):
    m, scratch, cook = kitchen
    lines = recipe("rsync -rt --delete")
    cook(*lines)
    assert bytes_below(scratch / "mirror") == bytes_below(m.path)
    assert again(m, lambda: cook(*lines)) == 0
    os.unlink(m / "users/Ada Byron/logo.png")
    changed(m)
    cook(*lines)
    assert bytes_below(scratch / "mirror") == bytes_below(m.path)


def test_tar_out(kitchen):
    m, scratch, cook = kitchen
    lines = recipe("tar ")
    cook(lines[0])
    changed(m)
    assert again(m, lambda: cook(*lines[1:])) <= 1
    files = run("tar", "tzf", scratch / "new.tar.gz").stdout.splitlines()
    assert [f for f in files if not f.endswith("/")] == ["./events/Live fire/new.txt"]
    for archive in ("all", "new"):
        (scratch / "out").mkdir(exist_ok=True)
        run(
            "tar", "-C", scratch / "out", "--listed-incremental=/dev/null", "-xzf",
            scratch / f"{archive}.tar.gz",
        )  # fmt: skip
    assert bytes_below(scratch / "out") == bytes_below(m.path)


# They take their time; what they do to a drive, rsync and tar do, too.
once = pytest.mark.skipif(SLOW > 1, reason="in the ordinary build only")


@once
def test_restic_out(kitchen):
    m, scratch, cook = kitchen
    init, backup = recipe("restic ")
    cook(init, backup)
    said = []
    assert again(m, lambda: said.append(cook(backup))) == 0
    assert re.search(r"Files: +0 new, +0 changed", said[0]), said[0]
    changed(m)
    assert re.search(r"Files: +1 new, +0 changed", cook(backup))
    cook(f"restic -r /backup/restic restore latest --target {scratch}/out")
    assert bytes_below(scratch / "out" / str(m.path)[1:]) == bytes_below(m.path)


@once
def test_borg_out(kitchen):
    m, scratch, cook = kitchen
    init, create = recipe("borg ")
    changed(m)  # of files as new as the newest, borg is never sure
    cook(init, create)
    # what it is not sure of is the newest alone
    assert again(m, lambda: cook(create)) <= 1
    archives = cook("borg list --short /backup/borg").split()
    assert len(archives) == 2
    (scratch / "out").mkdir()
    cook(f"cd /backup/out && borg extract /backup/borg::{archives[1]}")
    assert bytes_below(scratch / "out" / str(m.path)[1:]) == bytes_below(m.path)


def test_rsync_in_with_sync_as_the_barrier(kitchen):
    m, scratch, cook = kitchen
    lines = recipe("rsync -rt /backup/reports/")
    reports = scratch / "reports"
    reports.mkdir()
    for i in range(20):
        (reports / f"report {i}.txt").write_bytes(random_bytes(3000, i))
        os.utime(reports / f"report {i}.txt", (1_750_000_000 + i, 1_750_000_000 + i))
    cook(*lines)
    assert m.emulator.bytes_of("users/Ada Byron/report 7.txt") == random_bytes(3000, 7)
    before = m.emulator.uploads()
    m.remount()
    cook(*lines)
    assert m.emulator.uploads() == before, "nothing is sent twice"
    (reports / "report 7.txt").write_bytes(b"another" * 500)
    cook(*lines)
    assert m.emulator.bytes_of("users/Ada Byron/report 7.txt") == b"another" * 500


def test_find_what_has_changed(kitchen):
    m, _, cook = kitchen
    (line,) = recipe("find ")
    assert len(cook(line.replace("2026", "2000")).splitlines()) == 10
    assert cook(line.replace("2026-01-01", "2100-01-01")) == ""
    os.utime(m / "users/Ada Byron/notes.txt", (4_102_444_900, 4_102_444_900))
    m.remount()
    before = len(m.emulator.downloads())
    assert cook(line.replace("2026-01-01", "2100-01-01")).endswith("notes.txt\n")
    assert len(m.emulator.downloads()) == before


def test_the_line_of_cron(kitchen):
    m, scratch, cook = kitchen
    (line,) = recipe("30 2 * * *")
    (scratch / "reports").mkdir()
    (scratch / "reports/nightly.txt").write_bytes(b"x" * 3000)
    assert cook(line.split(" * * * ")[1]) == ""
    assert m.emulator.bytes_of("users/Ada Byron/nightly.txt") == b"x" * 3000
