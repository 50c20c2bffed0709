# SPDX-License-Identifier: MIT
"""
The cache in a person's hands: pinning, use by collection, comparing with checksums, making room.
Conflicts, which are a choice between two files.
"""

import json
import os

import pytest

from harness import PERSCOM, binary, on_terminal, random_bytes, run
from test_conflicts import NOTES, OURS, THEIRS, kept_as, replace_there


@pytest.fixture
def system():
    return PERSCOM


def pinned(path):
    return "user.attachfs.pin" in os.listxattr(path)


# pin, unpin


def test_pin_fetches_and_keeps_all_below(drive):
    m = drive()
    told = run(binary("attachfs"), "pin", m / "users/Ada Byron", m / "events", env=m.env())
    last = json.loads(told.stdout.splitlines()[-1])
    assert last["done"] and last["files"] == last["of"] == 8 and last["failed"] == 0
    assert last["bytes"] == last["of_bytes"] > 600_000
    for name in ("Ada Byron/large.bin", "Ada Byron/notes.txt"):
        assert pinned(m / "users" / name) and m.xattr(f"users/{name}", "state") == "cached"
    assert not pinned(m / "users/Grace Hopper/cobol.pdf")
    before = m.emulator.downloads()
    m.command("cache", "drop")
    assert (m / "users/Ada Byron/large.bin").read_bytes() == random_bytes(600_000, "large")
    assert m.emulator.downloads() == before, "what is pinned is not dropped"
    run(binary("attachfs"), "unpin", m / "users", m / "events", env=m.env())
    assert not pinned(m / "users/Ada Byron/large.bin")
    m.command("cache", "drop")
    assert m.xattr("users/Ada Byron/large.bin", "state") == "remote"


def test_pin_shows_progress_on_a_terminal(drive):
    m = drive()
    shown, status = on_terminal([binary("attachfs"), "pin", m / "users/Ada Byron"], m.env())
    assert status == 0 and "5 of 5 files, 599.3 KiB of 599.3 KiB" in shown, shown


def test_pin_names_the_file_that_fails_and_goes_on(drive):
    m = drive(timeout=2)
    m.allow_errors("404|gone|fetch|pin")
    os.listdir(m / "users/Ada Byron")
    os.stat(m / "users/Ada Byron/large.bin")
    m.emulator.change({"op": "delete", "id": m.emulator.file("users/Ada Byron/large.bin")["id"]})
    result = run(binary("attachfs"), "pin", m / "users/Ada Byron", env=m.env(), ok=False)
    assert "large.bin" in result.stderr and "cannot be fetched" in result.stderr
    assert m.xattr("users/Ada Byron/notes.txt", "state") == "cached"
    missing = run(binary("attachfs"), "pin", m / "users/no one", env=m.env(), ok=False)
    assert "no one" in missing.stderr
    m.command("refresh")


# cache


def lines(result):
    return [json.loads(line) for line in result.stdout.splitlines()]


def test_use_of_the_cache_is_told_by_collection(drive):
    m = drive(settle=600)
    (m / "users/Ada Byron/large.bin").read_bytes()
    (m / "events/Live fire/map.jpg").read_bytes()
    (m / "users/Nobody/new.txt").write_bytes(b"x" * 2000)
    run(binary("attachfs"), "pin", m / "events/Live fire/map.jpg", env=m.env())
    use = {row["collection"]: row for row in lines(m.command("cache"))}
    assert set(use) == {"users", "events", "all"}
    assert use["users"]["bytes"] == 602_000 and use["users"]["dirty"] == 2000
    assert use["events"]["bytes"] == use["events"]["pinned"] == 9000
    assert use["all"]["cached"] == 3 and use["all"]["files"] == 11
    shown, _ = on_terminal([binary("attachfs"), "cache", m.path], m.env())
    assert "COLLECTION" in shown and "587.9 KiB" in shown, shown


def test_verify_finds_what_the_disk_has_spoilt(drive):
    m = drive()
    m.tree()
    good = lines(m.command("cache", "verify"))[-1]
    assert good["done"] and good["bad"] == 0 and good["files"] == 9
    m.allow_errors("other bytes")
    (victim,) = [
        p for p in m.cache.rglob("objects/*/*") if p.stat().st_size == 600_000 and p.is_file()
    ]
    stat = victim.stat()
    with open(victim, "r+b") as f:
        f.seek(300_000)
        f.write(b"rot")
    os.utime(victim, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    elsewhere = run(binary("attachfs"), "cache", "verify", m / "events", env=m.env())
    assert lines(elsewhere)[-1]["files"] == 3
    found = m.command("cache", "verify", ok=False)
    assert lines(found)[-1]["bad"] == 1 and "fetched again" in found.stderr
    assert "large.bin" in m.log()
    assert (m / "users/Ada Byron/large.bin").read_bytes() == random_bytes(600_000, "large")
    m.command("cache", "verify")


def test_drop_makes_room_but_leaves_what_is_needed(drive):
    m = drive(settle=600)
    m.tree()
    (m / "users/Nobody/new.txt").write_bytes(b"x" * 2000)
    with open(m / "users/Grace Hopper/cobol.pdf", "rb") as f:
        f.read(10)
        told = run(binary("attachfs"), "cache", "drop", m / "users", env=m.env())
        assert lines(told)[-1]["kept"] == 2 and "2 files stay" in told.stderr
        assert f.read() == random_bytes(70_000, "cobol")[10:]
    assert m.xattr("users/Ada Byron/large.bin", "state") == "remote"
    assert m.xattr("events/Live fire/map.jpg", "state") == "cached", "not there"
    assert (m / "users/Ada Byron/large.bin").read_bytes() == random_bytes(600_000, "large")
    m.sync()
    assert m.emulator.bytes_of("users/Nobody/new.txt") == b"x" * 2000


def test_a_read_only_mount_takes_them_as_a_whole(drive):
    m = drive(ro=True)
    m.tree()
    assert lines(m.command("cache", "verify"))[-1]["files"] == 9
    part = run(binary("attachfs"), "cache", "drop", m / "users", env=m.env(), ok=False)
    assert "read-only" in part.stderr
    assert lines(m.command("cache", "drop"))[-1]["files"] == 9
    pin = run(binary("attachfs"), "pin", m / "users", env=m.env(), ok=False)
    assert "read-only" in pin.stderr


# conflicts


@pytest.fixture
def conflict(drive):
    """A mount, and the copy that was kept of a file changed on both sides."""
    m = drive(settle=0, poll=0)
    assert (m / NOTES).read_bytes()
    replace_there(m, NOTES)
    (m / NOTES).write_bytes(OURS)
    m.sync()
    (name,) = kept_as(m, "users/Ada Byron")
    return m, m / "users/Ada Byron" / name


def keep(m, which, *files, ok=True):
    return run(binary("attachfs"), "conflicts", "keep", which, *files, env=m.env(), ok=ok)


def test_mine_takes_the_place_of_theirs_and_its_identity(conflict):
    m, copy = conflict
    ident = m.emulator.file(NOTES)["id"]
    keep(m, "mine", copy)
    m.sync()
    assert (m / NOTES).read_bytes() == OURS and not copy.exists()
    assert m.emulator.bytes_of(NOTES) == OURS
    assert m.emulator.file(NOTES)["id"] == ident
    assert m.command("conflicts").stdout == ""


def test_theirs_stays_and_mine_goes(conflict):
    m, copy = conflict
    keep(m, "theirs", copy)
    m.sync()
    assert (m / NOTES).read_bytes() == THEIRS.encode() and not copy.exists()
    assert m.emulator.folder("users/Ada Byron").keys() >= {"notes.txt"}
    assert len([n for n in m.emulator.folder("users/Ada Byron") if "notes" in n]) == 1


def test_both_stay_and_are_no_conflict_any_more(conflict):
    m, copy = conflict
    keep(m, "both", copy)
    m.sync()
    assert (m / "users/Ada Byron/notes (mine).txt").read_bytes() == OURS
    assert m.emulator.bytes_of("users/Ada Byron/notes (mine).txt") == OURS
    assert (m / NOTES).read_bytes() == THEIRS.encode()
    assert m.command("conflicts").stdout == ""


def test_a_wrong_choice_is_refused_and_changes_nothing(conflict):
    m, copy = conflict
    assert "not a conflict's copy" in keep(m, "mine", m / NOTES, ok=False).stderr
    assert keep(m, "ours", copy, ok=False).returncode == 2
    assert keep(m, "mine", ok=False).returncode == 2
    os.unlink(m / NOTES)
    assert "all that is left" in keep(m, "theirs", copy, ok=False).stderr
    assert copy.read_bytes() == OURS
    keep(m, "mine", copy)
    assert (m / NOTES).read_bytes() == OURS
