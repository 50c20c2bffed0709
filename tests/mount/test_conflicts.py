# SPDX-License-Identifier: MIT
"""
Two who change the same thing: what somebody else did on the server since it was last seen is never
overwritten or removed unseen, also where nothing was polled in between; both are kept, and what was
kept is told by `attachfs conflicts`.
"""

import errno
import os
import random
import threading
import time

import pytest

from harness import random_bytes, seed_of_the_day

NOTES = "users/Ada Byron/notes.txt"
OURS = b"ours " * 1000
THEIRS = "theirs " * 500


def replace_there(m, path, text=THEIRS):
    """Another client saves @path."""
    m.emulator.clock(60)
    ident = m.emulator.file(path)["id"]
    m.emulator.change({"op": "replace", "id": ident, "text": text})


def contents(m, folder, start):
    """Of the server's files whose names begin so."""
    return sorted(
        m.emulator.blob(a["id"])
        for p, a in m.emulator.files().items()
        if p.startswith(f"{folder}/{start}")
    )


def kept_as(m, folder):
    return [name for name in os.listdir(m / folder) if " (conflict " in name]


def can_replace(system):
    if not system.replace_keeps_id:
        pytest.skip("files are immutable there: nothing can be overwritten")


def save_whole(path):
    path.write_bytes(OURS)


def save_by_rename(path):
    tmp = path.with_name("new contents")
    tmp.write_bytes(OURS)
    os.rename(tmp, path)


@pytest.mark.parametrize("save", [save_whole, save_by_rename])
def test_what_others_saved_since_it_was_read_is_not_overwritten(drive, system, save):
    can_replace(system)
    m = drive(settle=0, poll=0)
    assert (m / NOTES).read_bytes()
    replace_there(m, NOTES)
    save(m / NOTES)
    m.sync()
    assert contents(m, "users/Ada Byron", "notes") == sorted([OURS, THEIRS.encode()])
    assert m.emulator.bytes_of(NOTES) == THEIRS.encode()
    assert (m / NOTES).read_bytes() == THEIRS.encode()
    (name,) = kept_as(m, "users/Ada Byron")
    assert (m / "users/Ada Byron" / name).read_bytes() == OURS
    said = m.command("conflicts").stdout
    assert name in said


def test_what_others_saved_since_it_was_seen_is_not_deleted(drive, system):
    can_replace(system)
    m = drive(settle=0, poll=0)
    os.listdir(m / "users/Ada Byron")
    replace_there(m, NOTES)
    os.unlink(m / NOTES)
    m.sync()
    assert m.emulator.bytes_of(NOTES) == THEIRS.encode()
    assert (m / NOTES).read_bytes() == THEIRS.encode()
    os.unlink(m / NOTES)
    m.sync()
    assert "notes.txt" not in m.emulator.folder("users/Ada Byron"), "seen, and deleted again"


def test_a_file_that_others_saved_is_not_lost_under_one_renamed_over_it(drive, system):
    can_replace(system)
    m = drive(settle=0, poll=0)
    (m / "users/Ada Byron/other.txt").write_bytes(OURS)
    m.sync()
    replace_there(m, NOTES)
    os.rename(m / "users/Ada Byron/other.txt", m / NOTES)
    m.sync()
    found = contents(m, "users/Ada Byron", "")
    assert OURS in found and THEIRS.encode() in found
    assert sorted(
        (m / "users/Ada Byron" / n).read_bytes() for n in m.names("users/Ada Byron")
    ) == found


def test_what_others_renamed_while_it_was_edited_has_the_edit(drive, system):
    if not system.rename_in_place:
        pytest.skip("no renames there")
    m = drive(settle=600, poll=0)
    (m / NOTES).read_bytes()
    (m / NOTES).write_bytes(OURS)
    record = m.emulator.file(NOTES)
    m.emulator.change(
        {"op": "rename", "id": record["id"], "name": "letters.txt", "filename": "letters.txt"}
    )
    m.sync()
    m.sync()
    assert contents(m, "users/Ada Byron", "letters") == [OURS]
    assert contents(m, "users/Ada Byron", "notes") == []
    assert m.emulator.file("users/Ada Byron/letters.txt")["id"] == record["id"]
    assert (m / "users/Ada Byron/letters.txt").read_bytes() == OURS


def test_a_name_that_others_took_first_is_not_overwritten(drive, system):
    m = drive(settle=0, poll=0)
    m.same_at_end = False  # which of the two has the plain name is another's view
    os.listdir(m / "users/Nobody")
    m.emulator.change(
        {
            "op": "add",
            "collection": "users",
            "record": "Nobody",
            "name": "same.txt",
            "filename": "same.txt",
            "text": THEIRS,
        }
    )
    (m / "users/Nobody/same.txt").write_bytes(OURS)
    m.sync()
    assert contents(m, "users/Nobody", "same") == sorted([OURS, THEIRS.encode()])
    m.command("refresh")
    assert sorted((m / "users/Nobody" / n).read_bytes() for n in m.names("users/Nobody")) == sorted(
        [OURS, THEIRS.encode()]
    )


def test_looking_first_costs_one_listing_for_many_files(drive, system):
    if system.name != "perscom":
        pytest.skip("others list after uploads too: test_calls.py counts")
    files = {f"f{i:03}.txt": random_bytes(1500, i) for i in range(60)}
    m = drive(tree={"users": {"Ada Byron": files}, "events": {}}, settle=1, poll=0)
    os.listdir(m / "users/Ada Byron")
    m.emulator.reset()
    for name in files:
        (m / "users/Ada Byron" / name).write_bytes(OURS)
    m.sync()
    assert m.emulator.count(system.lists) == 1
    m.emulator.reset()
    for name in files:
        os.unlink(m / "users/Ada Byron" / name)
    time.sleep(2.1)  # what was just acknowledged need not be looked at
    m.sync()
    assert m.emulator.count(system.lists) <= 2, "one before, one after it where that is needed"


def test_looking_at_many_records_is_one_listing_of_their_collection(drive, system):
    can_replace(system)
    names = [f"Record {i}" for i in range(6)]
    tree = {n: {"f.txt": random_bytes(1500, n)} for n in names}
    m = drive(tree={"users": tree, "events": {}}, settle=600, poll=0)
    for n in names:
        assert (m / "users" / n / "f.txt").read_bytes() == tree[n]["f.txt"]
    replace_there(m, "users/Record 3/f.txt")
    m.emulator.reset()
    for n in names:
        (m / "users" / n / "f.txt").write_bytes(OURS)
    m.sync()
    if system.name == "perscom":
        assert m.emulator.count(r"POST /v2/users/search") == 1, m.emulator.calls()
        assert m.emulator.count(r"POST /v2/attachments/search") == 0, m.emulator.calls()
    for n in names:
        theirs = [THEIRS.encode()] if n == "Record 3" else []
        assert contents(m, f"users/{n}", "f") == sorted([OURS, *theirs])


def test_a_look_that_fails_is_repeated_and_nothing_is_sent_blindly(drive, system):
    can_replace(system)
    m = drive(settle=0, poll=0)
    (m / NOTES).read_bytes()
    m.emulator.faults({**system.list, "status": 503, "count": 3})
    m.allow_errors("503")
    replace_there(m, NOTES)
    (m / NOTES).write_bytes(OURS)
    m.sync()
    assert contents(m, "users/Ada Byron", "notes") == sorted([OURS, THEIRS.encode()])


class Editor(threading.Thread):
    """Adds lines to files of one mount; a line whose close() returned must survive somewhere."""

    def __init__(self, folder, name, size, seconds):
        super().__init__()
        self.folder, self.name, self.size = folder, name, size
        self.end = time.monotonic() + seconds
        self.chance = random.Random(f"{seed_of_the_day()} {name}")
        self.lines: list = []  # promised by a close
        self.tried: list = []
        self.problem = None

    def edit(self, path, line):
        mode = self.chance.choice(["ab", "r+b"])
        with open(path, mode, buffering=0) as f:
            if mode == "r+b":
                f.seek(0, os.SEEK_END)
            f.write(line)

    def run(self):
        number = 0
        try:
            while time.monotonic() < self.end:
                number += 1
                line = f"{self.name} {number} ".encode().ljust(self.size - 1, b".") + b"\n"
                path = self.folder / f"shared-{self.chance.randrange(20):02}.txt"
                self.tried.append(line)
                try:
                    self.edit(path, line)
                    self.lines.append(line)
                except OSError as e:
                    # replaced under the open handle, or moved aside: the editor would try again
                    assert e.errno in (errno.ESTALE, errno.ENOENT), e
                time.sleep(self.chance.uniform(0, 0.05))
        except BaseException as e:  # told by the test
            self.problem = e


@pytest.mark.limit(240)
def test_a_storm_of_edits_from_two_ends_loses_no_line(mount, emulator, system):
    start = b"the beginning of all\n" * 150
    files = {f"shared-{i:02}.txt": start for i in range(20)}
    server = emulator(tree={"users": {"Ada Byron": files}, "events": {}})
    mounts = [mount(server, poll=1, settle=0), mount(server, poll=1, settle=0.3)]
    editors = []
    for i, m in enumerate(mounts):
        m.same_at_end = False
        assert len(m.names("users/Ada Byron")) == 20
        editors.append(Editor(m / "users/Ada Byron", "ab"[i], (31, 44)[i], 8))
    for e in editors:
        e.start()
    for e in editors:
        e.join()
        assert not e.problem, e.problem
    def shown(m):
        return sorted((m / "users/Ada Byron" / n).read_bytes() for n in m.names("users/Ada Byron"))

    for _ in range(10):  # what the one sends may be a conflict for the other
        for m in mounts:
            m.sync()
        for m in mounts:
            m.command("refresh")
        held = sorted(server.blob(a["id"]) for a in server.folder("users/Ada Byron").values())
        if all(m.idle() and shown(m) == held for m in mounts):
            break
    lines = set()
    for data in held:
        assert data.startswith(start), "a file without its beginning"
        rest = data[len(start) :].splitlines(keepends=True)
        assert len(set(rest)) == len(rest), "a line twice in one file"
        lines.update(rest)
    written = editors[0].lines + editors[1].lines
    assert len(written) > 100
    lost = [line for line in written if line not in lines]
    assert not lost, f"{len(lost)} of {len(written)} lines are nowhere: {lost[:5]}"
    assert lines <= set(editors[0].tried + editors[1].tried), "a torn line"
    for m in mounts:
        assert shown(m) == held
