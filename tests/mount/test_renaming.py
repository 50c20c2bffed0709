# SPDX-License-Identifier: MIT
"""
Renames and moves: within a record, across records and collections, over existing files, of records
themselves; what they cost, and that ids, bytes and open handles come along.
"""

import errno
import os
import random

import pytest

from harness import (
    RENAME_EXCHANGE,
    RENAME_NOREPLACE,
    added,
    numbered,
    one_record,
    raises_errno,
    random_bytes,
    renameat2,
    run,
    seed_of_the_day,
)


def test_a_rename_is_one_batch_update_of_both_names(drive, system):
    m = drive(poll=0)
    before = m.emulator.file("users/Ada Byron/notes.txt")
    m.emulator.reset()
    os.rename(m / "users/Ada Byron/notes.txt", m / "users/Ada Byron/memoirs.txt")
    assert not (m / "users/Ada Byron/notes.txt").exists()
    m.sync()
    after = m.emulator.file("users/Ada Byron/memoirs.txt")
    assert (after["id"], after["path"], after["name"], after["filename"]) == (
        before["id"],
        before["path"],
        "memoirs.txt",
        "memoirs.txt",
    )
    assert m.emulator.calls().get(system.batch_rename) == 1 or sum(m.emulator.calls().values()) <= 2
    assert m.emulator.uploads() == 0
    assert m.emulator.summary()["blob"] == 0, "no byte moves"


def test_mv_into_another_record_and_collection_moves_no_bytes(drive):
    m = drive(poll=0)
    ids = {p: a["id"] for p, a in m.emulator.files().items()}
    m.emulator.reset()
    run("mv", m / "users/Ada Byron/notes.txt", m / "users/Grace Hopper/notes.txt")
    run("mv", m / "users/Ada Byron/logo.png", m / "events/Live fire/")
    run("mv", m / "events/Winter camp/packing list.txt", m / "users/Nobody/list.txt")
    m.sync()
    assert m.emulator.uploads() == 0
    after = {p: a["id"] for p, a in m.emulator.files().items()}
    assert after["users/Grace Hopper/notes.txt"] == ids["users/Ada Byron/notes.txt"]
    assert after["events/Live fire/logo.png"] == ids["users/Ada Byron/logo.png"]
    assert after["users/Nobody/list.txt"] == ids["events/Winter camp/packing list.txt"]
    assert set(after.values()) == set(ids.values())


def test_a_rename_keeps_inode_times_mode_and_xattrs(drive):
    m = drive()
    path = m / "users/Ada Byron/notes.txt"
    os.chmod(path, 0o640)
    os.setxattr(path, "user.mine", b"kept")
    before = os.stat(path)
    new = m / "events/Live fire/renamed.txt"
    os.rename(path, new)
    after = os.stat(new)
    assert (after.st_ino, after.st_mode, after.st_mtime_ns, after.st_size) == (
        before.st_ino,
        before.st_mode,
        before.st_mtime_ns,
        before.st_size,
    )
    assert after.st_ctime_ns >= before.st_ctime_ns
    assert os.getxattr(new, "user.mine") == b"kept"
    m.remount()
    assert os.stat(new).st_ino == before.st_ino
    assert os.stat(new).st_mtime_ns == before.st_mtime_ns
    assert os.getxattr(new, "user.mine") == b"kept"


def test_rename_over_existing_keeps_the_remote_id_of_the_target(drive):
    m = drive(poll=0)
    before = m.emulator.files()
    data = m.emulator.bytes_of("users/Ada Byron/logo.png")
    os.rename(m / "users/Ada Byron/logo.png", m / "users/Ada Byron/notes.txt")
    assert (m / "users/Ada Byron/notes.txt").read_bytes() == data
    m.sync()
    after = m.emulator.files()
    assert set(before) - set(after) == {"users/Ada Byron/logo.png"}
    assert m.emulator.bytes_of("users/Ada Byron/notes.txt") == data


def test_a_new_file_renamed_over_an_existing_one_keeps_the_remote_id(drive):
    m = drive(poll=0)
    ident = m.emulator.file("users/Ada Byron/notes.txt")["id"]
    (m / "users/Ada Byron/tmp.1").write_bytes(b"new text" * 400)
    m.emulator.reset()
    os.rename(m / "users/Ada Byron/tmp.1", m / "users/Ada Byron/notes.txt")
    m.sync()
    assert m.emulator.file("users/Ada Byron/notes.txt")["id"] == ident
    assert m.emulator.bytes_of("users/Ada Byron/notes.txt") == b"new text" * 400
    assert m.emulator.uploads() == 1


def test_there_and_back_again_costs_nothing(drive):
    m = drive(poll=0, settle=600)
    os.listdir(m / "users/Ada Byron")
    m.emulator.faults(latency_ms=0)
    m.emulator.reset()
    run(
        "sh",
        "-c",
        "for i in 1 2 3 4 5; do mv notes.txt other.txt; mv other.txt notes.txt; done",
        cwd=m / "users/Ada Byron",
    )
    m.sync()
    assert m.emulator.calls() == {} or sum(m.emulator.calls().values()) <= 4, m.emulator.calls()
    assert m.emulator.uploads() == 0


def test_500_files_renamed_by_a_shell_loop_cost_at_most_10_calls(drive, system):
    m = drive(tree={"users": {"Ada Byron": numbered(500)}, "events": {}}, poll=0)
    os.listdir(m / "users/Ada Byron")
    before = m.emulator.files()
    m.emulator.reset()
    run("sh", "-c", 'for f in *; do mv "$f" "renamed-$f"; done', cwd=m / "users/Ada Byron")
    m.sync()
    calls = m.emulator.calls()
    assert {p.replace("renamed-", ""): a["id"] for p, a in m.emulator.files().items()} == {
        p: a["id"] for p, a in before.items()
    }
    assert sum(calls.values()) <= 10, calls
    assert calls.get(system.batch_rename, 0) >= 1, calls
    assert m.emulator.uploads() == 0


def test_500_files_moved_to_another_record_cost_at_most_10_calls(drive):
    m = drive(tree={"users": {"Ada Byron": numbered(500)}, "events": {"Drill": {}}}, poll=0)
    os.listdir(m / "users/Ada Byron")
    os.listdir(m / "events/Drill")
    m.emulator.reset()
    run("sh", "-c", "mv * '../../events/Drill/'", cwd=m / "users/Ada Byron")
    m.sync()
    assert sum(p.startswith("events/Drill/") for p in m.emulator.files()) == 500
    assert sum(m.emulator.calls().values()) <= 10, m.emulator.calls()
    assert m.emulator.uploads() == 0


def test_names_can_be_swapped_and_cycled(drive):
    m = drive(poll=0)
    folder = m / "users/Ada Byron"
    notes, logo = m.emulator.bytes_of("users/Ada Byron/notes.txt"), m.emulator.bytes_of(
        "users/Ada Byron/logo.png"
    )
    os.rename(folder / "notes.txt", folder / "swap")
    os.rename(folder / "logo.png", folder / "notes.txt")
    os.rename(folder / "swap", folder / "logo.png")
    assert (folder / "notes.txt").read_bytes() == logo
    m.sync()
    assert m.emulator.bytes_of("users/Ada Byron/notes.txt") == logo
    assert m.emulator.bytes_of("users/Ada Byron/logo.png") == notes


def test_noreplace_refuses_and_exchange_swaps_or_says_so(drive):
    m = drive(poll=0)
    folder = m / "users/Ada Byron"
    with raises_errno(errno.EEXIST):
        renameat2(folder / "notes.txt", folder / "logo.png", RENAME_NOREPLACE)
    renameat2(folder / "notes.txt", folder / "fresh.txt", RENAME_NOREPLACE)
    fresh, logo = (folder / "fresh.txt").read_bytes(), (folder / "logo.png").read_bytes()
    try:
        renameat2(folder / "fresh.txt", folder / "logo.png", RENAME_EXCHANGE)
    except OSError as e:
        assert e.errno == errno.EINVAL
        fresh, logo = logo, fresh
    assert (folder / "fresh.txt").read_bytes() == logo
    assert (folder / "logo.png").read_bytes() == fresh
    m.sync()
    assert m.emulator.bytes_of("users/Ada Byron/fresh.txt") == logo
    assert m.emulator.bytes_of("users/Ada Byron/logo.png") == fresh


def test_an_open_file_can_be_renamed_and_written_on(drive):
    m = drive(poll=0)
    with open(m / "users/Ada Byron/notes.txt", "r+b", buffering=0) as f:
        first = f.read(10)
        os.rename(m / "users/Ada Byron/notes.txt", m / "events/Live fire/live.txt")
        assert os.pread(f.fileno(), 10, 0) == first
        f.write(b"WRITTEN")
        m.sync(ok=None)
        os.rename(m / "events/Live fire/live.txt", m / "users/Nobody/end.txt")
        f.write(b"MORE")
    m.sync()
    data = m.emulator.bytes_of("users/Nobody/end.txt")
    assert data[:10] == first and data[10:21] == b"WRITTENMORE"
    assert "users/Ada Byron/notes.txt" not in m.emulator.files()


def test_a_file_renamed_while_it_is_uploaded_ends_under_its_last_name(drive):
    m = drive(poll=0, settle=0)
    m.emulator.faults(
        {"port": "api", "method": "POST", "match": "/attachments", "count": 2, "latency_ms": 700}
    )
    (m / "users/Nobody/first.txt").write_bytes(b"text" * 1000)
    for name in ("second.txt", "third.txt"):
        old = sorted(os.listdir(m / "users/Nobody"))[0]
        os.rename(m / "users/Nobody" / old, m / "users/Nobody" / name)
        run("sleep", "0.3")
    m.emulator.heal()
    m.sync()
    assert [p for p in m.emulator.files() if p.startswith("users/Nobody/")] == [
        "users/Nobody/third.txt"
    ]
    assert m.emulator.bytes_of("users/Nobody/third.txt") == b"text" * 1000


def test_only_the_case_changes(drive):
    m = drive(poll=0)
    os.rename(m / "users/Ada Byron/notes.txt", m / "users/Ada Byron/Notes.TXT")
    (m / "users/Ada Byron/NOTES.txt").write_bytes(b"another one" * 200)
    m.sync()
    assert m.emulator.file("users/Ada Byron/Notes.TXT")["name"] == "Notes.TXT"
    assert m.emulator.bytes_of("users/Ada Byron/NOTES.txt") == b"another one" * 200


@pytest.mark.parametrize(
    "name",
    [
        "-rf",
        "it's \"quoted\"",
        "gr\u00fc\u00df dich.txt",
        "u\u0308nnormalised.txt",
        "\U0001f600.txt",
        "a" * 251 + ".txt",
        "no extension",
        ".hidden",
        "trailing dot.",
        "100%.txt",
        "semi;colon.txt",
        "back\\slash.txt",
        "star*?.txt",
        "a%2Fb.txt",
    ],
)
def test_names_of_every_kind_arrive_and_come_back(drive, name):
    m = drive(poll=0)
    os.rename(m / "users/Ada Byron/notes.txt", m / "users/Ada Byron" / name)
    (m / "users/Nobody" / name).write_bytes(b"new" * 1000)
    m.sync()
    m.remount()
    assert name in os.listdir(m / "users/Ada Byron")
    assert os.listdir(m / "users/Nobody") == [name]
    m.forget_cache()
    assert name in os.listdir(m / "users/Ada Byron")
    assert os.listdir(m / "users/Nobody") == [name]
    assert (m / "users/Nobody" / name).read_bytes() == b"new" * 1000


def test_too_long_a_name_is_enametoolong(drive):
    m = drive(poll=0)
    with raises_errno(errno.ENAMETOOLONG):
        os.rename(m / "users/Ada Byron/notes.txt", m / "users/Ada Byron" / ("x" * 256))
    assert (m / "users/Ada Byron/notes.txt").exists()


def test_renaming_a_duplicate_away_from_its_id(drive):
    texts = ["oldest", "youngest"]
    m = drive(tree=one_record(), changes=[added("plan.txt", text=t) for t in texts], poll=0)
    oldest, youngest = m.changed
    os.rename(m / f"users/Ada Byron/plan ({youngest}).txt", m / "users/Ada Byron/other.txt")
    m.sync()
    assert m.emulator.file("users/Ada Byron/other.txt")["id"] == youngest
    assert m.emulator.file("users/Ada Byron/plan.txt")["id"] == oldest


# Records


def test_a_record_of_events_can_be_renamed(drive, system):
    m = drive(poll=0)
    ident = m.emulator.record_id("events", "Live fire")
    os.listdir(m / "events")
    m.emulator.reset()
    os.rename(m / "events/Live fire", m / "events/Dry fire")
    assert "Dry fire" in os.listdir(m / "events") and "Live fire" not in os.listdir(m / "events")
    assert (m / "events/Dry fire/range-card.txt").stat().st_size == 2400
    m.sync()
    assert m.emulator.record_id("events", "Dry fire") == ident
    assert m.emulator.calls().get(system.batch_rename_record) == 1, m.emulator.calls()
    m.remount()
    assert "Dry fire" in os.listdir(m / "events")


def test_many_records_are_renamed_in_few_calls(drive):
    m = drive(tree={"users": {}, "events": {f"Drill {i}": {} for i in range(100)}}, poll=0)
    os.listdir(m / "events")
    m.emulator.reset()
    run("sh", "-c", 'for d in *; do mv "$d" "New $d"; done', cwd=m / "events")
    m.sync()
    assert sorted(r["name"] for r in m.emulator.state()["records"]) == sorted(
        f"New Drill {i}" for i in range(100)
    )
    assert sum(m.emulator.calls().values()) <= 10, m.emulator.calls()


def test_files_written_into_a_renamed_record_arrive_there(drive):
    m = drive(poll=0)
    os.rename(m / "events/Live fire", m / "events/Dry fire")
    (m / "events/Dry fire/new.txt").write_bytes(b"x" * 2000)
    os.rename(m / "events/Dry fire", m / "events/Wet fire")
    m.sync()
    assert m.emulator.bytes_of("events/Wet fire/new.txt") == b"x" * 2000


def test_records_and_collections_do_not_move_where_they_cannot(drive):
    m = drive(poll=0)
    with raises_errno(errno.EXDEV, errno.EPERM):
        os.rename(m / "events/Live fire", m / "users/Live fire")
    with raises_errno(errno.EXDEV, errno.EPERM, errno.EINVAL):
        os.rename(m / "events/Live fire", m / "events/Winter camp/Live fire")
    with raises_errno(errno.EPERM, errno.EACCES, errno.EBUSY):
        os.rename(m / "events", m / "happenings")
    with raises_errno(errno.EPERM, errno.EACCES, errno.EXDEV):
        os.rename(m / "users/Ada Byron/notes.txt", m / "users/notes.txt")
    with raises_errno(errno.ENOTEMPTY, errno.EEXIST, errno.EPERM):
        os.rename(m / "events/Live fire", m / "events/Winter camp")
    assert sorted(os.listdir(m / "events")) == ["Live fire", "Winter camp"]


@pytest.mark.limit(120)
def test_a_random_history_of_renames_ends_as_a_local_copy_does(drive, scratch):
    chance = random.Random(seed_of_the_day())
    tree = {
        "users": {"A": numbered(8, 1100), "B": numbered(4, 2000)},
        "events": {"C": numbered(3, 50)},
    }
    m = drive(tree=tree, poll=0, settle=0.2)
    run("cp", "-a", m / "users", m / "events", scratch)
    records = ["users/A", "users/B", "events/C"]
    for step in range(150):
        files = sorted(f"{r}/{n}" for r in records for n in os.listdir(scratch / r))
        what = chance.choice(["rename", "rename", "rename", "write", "unlink", "pause", "sync"])
        if what == "rename" and files:
            old = chance.choice(files)
            new = (
                chance.choice(files)
                if chance.random() < 0.3
                else f"{chance.choice(records)}/name-{chance.randrange(20)}"
            )
            for root in (scratch, m.path):
                os.rename(root / old, root / new)
        elif what == "write":
            path = f"{chance.choice(records)}/name-{chance.randrange(20)}"
            data = random_bytes(chance.choice([10, 1500, 9000]), step)
            for root in (scratch, m.path):
                (root / path).write_bytes(data)
        elif what == "unlink" and files:
            path = chance.choice(files)
            for root in (scratch, m.path):
                os.unlink(root / path)
        elif what == "pause":
            run("sleep", "0.2")
        elif what == "sync" and chance.random() < 0.3:
            m.sync()
    local = {
        f"{r}/{n}": (scratch / r / n).read_bytes() for r in records for n in os.listdir(scratch / r)
    }
    assert m.tree() == local
    m.sync()
    assert {p: m.emulator.blob(a["id"]) for p, a in m.emulator.files().items()} == local
