# SPDX-License-Identifier: MIT
"""
The saves of real programs, call by call as strace saw them on a drive (saves/*.save), without the
programs: each is new bytes for the attachment that was there, which keeps its id, by one upload.
"""

import os

import pytest

from harness import random_bytes
from saves import Replay, recordings

RECORDINGS = list(recordings())


def test_there_are_recordings():
    names = {r.name for r in RECORDINGS}
    assert {"vim", "nano", "emacs", "libreoffice", "code"} <= names
    assert all(any(c.name == "open" for c in r.calls) for r in RECORDINGS)


@pytest.mark.parametrize("recording", RECORDINGS, ids=lambda r: r.name)
def test_a_recorded_save_is_one_replace(drive, system, scratch, recording):
    name = recording.file
    old = random_bytes(recording.size, name)
    tree = {"users": {"Ada Byron": {name: old, "other.txt": b"of no concern"}}, "events": {}}
    m = drive(tree=tree, poll=0, settle=600)
    path = f"users/Ada Byron/{name}"
    os.stat(m / path)
    before = m.emulator.files()
    m.emulator.reset()

    # what must come of it, on a local disk
    (scratch / name).write_bytes(old)
    inode = os.stat(scratch / name).st_ino
    keep = os.open(scratch / name, os.O_RDONLY)  # or another file gets its number
    Replay(scratch, recording, on_the_drive=False).run()
    wanted = {f.name: f.read_bytes() for f in scratch.iterdir()}
    backups = [f.name for f in scratch.iterdir() if f.stat().st_ino == inode and f.name != name]
    os.close(keep)
    assert wanted[name] != old

    Replay(m / "users/Ada Byron", recording, on_the_drive=True).run()
    assert (m / path).read_bytes() == wanted[name]
    m.sync()
    after = m.emulator.files()
    for each, data in wanted.items():
        assert m.emulator.bytes_of(f"users/Ada Byron/{each}") == data
    kept = {f"users/Ada Byron/{each}" for each in wanted} | {"users/Ada Byron/other.txt"}
    assert {p for p in after if p.startswith("users/Ada")} == kept, "and nothing beside"
    assert after["users/Ada Byron/other.txt"] == before["users/Ada Byron/other.txt"]
    if backups:
        # the old file was renamed, and stays under that name: it is the one that was there
        if system.rename_in_place:
            assert after[f"users/Ada Byron/{backups[0]}"]["id"] == before[path]["id"]
            assert m.emulator.uploaded() == 1, m.emulator.calls()
        return
    if system.replace_keeps_id:
        assert after[path]["id"] == before[path]["id"], "the same attachment"
    assert m.emulator.uploaded() == len(wanted), m.emulator.calls()
    # the old one goes where a server has no replace
    removed = 0 if system.replace_keeps_id else 1
    assert m.emulator.count(system.removes) == removed, m.emulator.calls()
