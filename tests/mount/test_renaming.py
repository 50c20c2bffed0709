# SPDX-License-Identifier: MIT
"""
Renames and moves: within a record, across records and collections, over existing files, of records
themselves; what they cost, and that ids, bytes and open handles come along.
"""

import errno
import os
import random
import time

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
    wait_until,
    write_tree,
)


def test_a_rename_is_one_update_of_both_names_or_an_upload_and_a_removal(drive, system):
    m = drive(poll=0)
    before = m.emulator.file("users/Ada Byron/notes.txt")
    data = m.emulator.blob(before["id"])
    inode = os.stat(m / "users/Ada Byron/notes.txt").st_ino
    m.emulator.reset()
    os.rename(m / "users/Ada Byron/notes.txt", m / "users/Ada Byron/memoirs.txt")
    assert not (m / "users/Ada Byron/notes.txt").exists()
    m.sync()
    after = m.emulator.file("users/Ada Byron/memoirs.txt")
    assert (after["name"], after["filename"]) == ("memoirs.txt", "memoirs.txt")
    assert "users/Ada Byron/notes.txt" not in m.emulator.files()
    assert m.emulator.blob(after["id"]) == data
    assert os.stat(m / "users/Ada Byron/memoirs.txt").st_ino == inode
    calls = m.emulator.calls()
    if system.rename_in_place:
        assert (after["id"], after["path"]) == (before["id"], before["path"])
        assert m.emulator.uploads() == 0
        assert m.emulator.downloads() == [], "no byte moves"
        assert m.emulator.count(system.removes) == 0
        assert calls.get(system.batch_rename) == 1 or sum(calls.values()) <= 3, calls
    else:
        assert after["id"] != before["id"]
        assert m.emulator.uploads() == 1 and m.emulator.count(system.removes) == 1, calls
        m.emulator.removes_come_last()


def test_mv_into_another_record_and_collection(drive, system):
    m = drive(poll=0)
    before = m.emulator.files()
    data = {p: m.emulator.blob(a["id"]) for p, a in before.items()}
    moves = {
        "users/Ada Byron/notes.txt": "users/Grace Hopper/notes.txt",
        "users/Ada Byron/logo.png": "events/Live fire/logo.png",
        "events/Winter camp/packing list.txt": "users/Nobody/list.txt",
    }
    for old, new in moves.items():
        os.stat(m / old)
    m.emulator.reset()
    for old, new in moves.items():
        run("mv", m / old, m / new)
    m.sync()
    after = m.emulator.files()
    assert {p: m.emulator.blob(a["id"]) for p, a in after.items()} == {
        moves.get(p, p): d for p, d in data.items()
    }
    uploaded = 0
    for old, new in moves.items():
        far = old.partition("/")[0] != new.partition("/")[0]
        moved = system.move_in_place and (system.move_between_collections or not far)
        assert (after[new]["id"] == before[old]["id"]) == moved, (old, new)
        uploaded += not moved
    assert m.emulator.uploads() == uploaded, m.emulator.calls()


def test_between_collections_is_another_device_where_the_server_moves_nothing_there(drive, system):
    m = drive(poll=0)
    old, new = m / "users/Ada Byron/notes.txt", m / "events/Live fire/notes.txt"
    if system.move_between_collections:
        os.rename(old, new)
        assert new.exists() and not old.exists()
    else:
        with raises_errno(errno.EXDEV):
            os.rename(old, new)
        with raises_errno(errno.EXDEV, errno.EINVAL):
            renameat2(old, m / "events/Live fire/map.jpg", RENAME_EXCHANGE)
        assert old.exists() and not new.exists()


def test_a_rename_keeps_inode_times_mode_and_xattrs(drive, system):
    m = drive()
    path = m / "users/Ada Byron/notes.txt"
    os.chmod(path, 0o640)
    os.setxattr(path, "user.mine", b"kept")
    before = os.stat(path)
    new = m / system.far_record / "renamed.txt"
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
    for again in (m.sync, m.remount):
        again()
        after = os.stat(new)
        assert (after.st_ino, after.st_mode, after.st_mtime_ns, after.st_size) == (
            before.st_ino,
            before.st_mode,
            before.st_mtime_ns,
            before.st_size,
        )
        assert os.getxattr(new, "user.mine") == b"kept"


def test_rename_over_existing_leaves_one_file(drive):
    m = drive(poll=0)
    before = m.emulator.files()
    data = m.emulator.bytes_of("users/Ada Byron/logo.png")
    os.rename(m / "users/Ada Byron/logo.png", m / "users/Ada Byron/notes.txt")
    assert (m / "users/Ada Byron/notes.txt").read_bytes() == data
    m.sync()
    after = m.emulator.files()
    assert set(before) - set(after) == {"users/Ada Byron/logo.png"}
    assert m.emulator.bytes_of("users/Ada Byron/notes.txt") == data


def test_a_new_file_renamed_over_an_existing_one_keeps_the_remote_id(drive, system):
    m = drive(poll=0)
    before = m.emulator.files()
    ident = before["users/Ada Byron/notes.txt"]["id"]
    (m / "users/Ada Byron/tmp.1").write_bytes(b"new text" * 400)
    m.emulator.reset()
    os.rename(m / "users/Ada Byron/tmp.1", m / "users/Ada Byron/notes.txt")
    m.sync()
    kept = m.emulator.file("users/Ada Byron/notes.txt")["id"] == ident
    assert kept == system.replace_keeps_id
    assert m.emulator.bytes_of("users/Ada Byron/notes.txt") == b"new text" * 400
    assert set(m.emulator.files()) == set(before)
    assert m.emulator.uploads() == 1
    m.emulator.removes_come_last()


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


def test_500_files_renamed_by_a_shell_loop_cost_few_calls(drive, system):
    m = drive(tree={"users": {"Ada Byron": numbered(500)}, "events": {}}, poll=0)
    os.listdir(m / "users/Ada Byron")
    before = m.emulator.files()
    m.emulator.reset()
    run("sh", "-c", 'for f in *; do mv "$f" "renamed-$f"; done', cwd=m / "users/Ada Byron")
    m.sync()
    calls = m.emulator.calls()
    after = {p.replace("renamed-", ""): a for p, a in m.emulator.files().items()}
    assert {p: a["sha256"] for p, a in after.items()} == {
        p: a["sha256"] for p, a in before.items()
    }
    assert all("renamed-" in p for p in m.emulator.files())
    assert sum(calls.values()) <= system.calls_to_rename(500), calls
    if system.rename_in_place:
        assert all(after[p]["id"] == a["id"] for p, a in before.items())
        assert m.emulator.uploads() == 0
    if system.batch_rename:
        assert calls.get(system.batch_rename, 0) >= 1, calls


def test_500_files_moved_to_another_record_cost_few_calls(drive, system):
    tree = {"users": {"Ada Byron": numbered(500), "Nobody": {}}, "events": {"Live fire": {}}}
    target = system.far_record if system.move_between_collections else "users/Nobody"
    m = drive(tree=tree, poll=0)
    os.listdir(m / "users/Ada Byron")
    os.listdir(m / target)
    m.emulator.reset()
    run("sh", "-c", 'mv * "$1"', "sh", m / target, cwd=m / "users/Ada Byron")
    m.sync()
    assert len(m.emulator.folder(target)) == 500 and not m.emulator.folder("users/Ada Byron")
    calls = m.emulator.calls()
    assert sum(calls.values()) <= system.calls_to_rename(500), calls
    assert (m.emulator.uploads() == 0) == system.move_in_place, calls


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


def test_an_open_file_can_be_renamed_and_written_on(drive, system):
    m = drive(poll=0)
    far = f"{system.far_record}/live.txt"
    with open(m / "users/Ada Byron/notes.txt", "r+b", buffering=0) as f:
        first = f.read(10)
        os.rename(m / "users/Ada Byron/notes.txt", m / far)
        assert os.pread(f.fileno(), 10, 0) == first
        f.write(b"WRITTEN")
        m.sync(ok=None)
        os.rename(m / far, m / "users/Nobody/end.txt")
        f.write(b"MORE")
    m.sync()
    data = m.emulator.bytes_of("users/Nobody/end.txt")
    assert data[:10] == first and data[10:21] == b"WRITTENMORE"
    assert "users/Ada Byron/notes.txt" not in m.emulator.files()


def test_a_file_renamed_while_it_is_uploaded_ends_under_its_last_name(drive, system):
    m = drive(poll=0, settle=0)
    m.emulator.faults({**system.upload, "count": 2, "latency_ms": 700})
    (m / "users/Nobody/first.txt").write_bytes(b"text" * 1000)
    for name in ("second.txt", "third.txt"):
        old = m.names("users/Nobody")[0]
        os.rename(m / "users/Nobody" / old, m / "users/Nobody" / name)
        run("sleep", "0.3")
    m.emulator.heal()
    m.sync()
    assert list(m.emulator.folder("users/Nobody")) == ["third.txt"]
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
        "com,ma.txt",
        "back\\slash.txt",
        "star*?.txt",
        "a%2Fb.txt",
    ],
)
def test_names_of_every_kind_arrive_and_come_back(drive, system, name):
    m = drive(poll=0)
    if any(c in system.bad_in_names for c in name.replace("%2F", "/")):
        with raises_errno(errno.EINVAL):
            (m / "users/Nobody" / name).write_bytes(b"new" * 1000)
        with raises_errno(errno.EINVAL):
            os.rename(m / "users/Ada Byron/notes.txt", m / "users/Ada Byron" / name)
        assert (m / "users/Ada Byron/notes.txt").exists() and m.names("users/Nobody") == []
        return
    os.rename(m / "users/Ada Byron/notes.txt", m / "users/Ada Byron" / name)
    (m / "users/Nobody" / name).write_bytes(b"new" * 1000)
    m.sync()
    m.remount()
    assert name in os.listdir(m / "users/Ada Byron")
    assert m.names("users/Nobody") == [name]
    m.forget_cache()
    assert name in os.listdir(m / "users/Ada Byron")
    assert m.names("users/Nobody") == [name]
    assert (m / "users/Nobody" / name).read_bytes() == b"new" * 1000


def test_too_long_a_name_is_enametoolong(drive):
    m = drive(poll=0)
    with raises_errno(errno.ENAMETOOLONG):
        os.rename(m / "users/Ada Byron/notes.txt", m / "users/Ada Byron" / ("x" * 256))
    assert (m / "users/Ada Byron/notes.txt").exists()


def test_a_name_that_cannot_be_removed_stays_as_it_is(drive, system):
    m = drive(changes=[added("one, two.txt", text="three")], poll=0)
    old, new = m / "users/Ada Byron/one, two.txt", m / "users/Ada Byron/one.txt"
    if "," in system.bad_to_remove:
        with raises_errno(errno.EPERM):
            os.unlink(old)
        with raises_errno(errno.EPERM):
            os.rename(old, new)
        with raises_errno(errno.EINVAL):
            os.rename(m / "users/Ada Byron/notes.txt", old)
        old.write_bytes(b"other bytes")
        m.sync()
        assert m.emulator.bytes_of("users/Ada Byron/one, two.txt") == b"other bytes"
    else:
        os.rename(old, new)
        m.sync()
        assert m.emulator.bytes_of("users/Ada Byron/one.txt") == b"three"
        os.unlink(new)
        m.sync()
    assert m.names("users/Ada Byron") == sorted(m.emulator.folder("users/Ada Byron"))


def test_renaming_a_duplicate_away_from_its_id(drive, system):
    texts = ["oldest", "youngest"]
    m = drive(tree=one_record(), changes=[added("plan.txt", text=t) for t in texts], poll=0)
    if system.names_unique:
        assert m.names("users/Ada Byron") == ["plan.txt"], "the second is a version of the first"
        assert (m / "users/Ada Byron/plan.txt").read_bytes() == b"youngest"
        return
    (second,) = (n for n in m.names("users/Ada Byron") if n != "plan.txt")
    assert m.xattr(f"users/Ada Byron/{second}", "id") in second
    os.rename(m / "users/Ada Byron" / second, m / "users/Ada Byron/other.txt")
    m.sync()
    assert m.emulator.bytes_of("users/Ada Byron/other.txt") == b"youngest"
    assert m.emulator.bytes_of("users/Ada Byron/plan.txt") == b"oldest"
    if system.rename_in_place:
        ids = [m.emulator.file(f"users/Ada Byron/{n}.txt")["id"] for n in ("plan", "other")]
        assert ids == m.changed


# What the server has while renames are on their way


def test_no_content_leaves_the_server_before_it_is_there_anew(drive, system):
    """Swaps, cycles and renames over others while no upload gets through."""
    m = drive(poll=0, settle=0)
    m.allow_errors("503")
    folder = "users/Ada Byron"
    before = {p: m.emulator.blob(a["id"]) for p, a in m.emulator.files().items()}
    for name in ("notes.txt", "logo.png", "tiny.txt", "large.bin"):
        (m / folder / name).read_bytes()
    m.emulator.faults({**system.upload, "status": 503})

    def rename(old, new):
        os.rename(m / folder / old, m / folder / new)

    rename("notes.txt", "swap")
    rename("logo.png", "notes.txt")
    rename("swap", "logo.png")
    rename("tiny.txt", "once")
    rename("large.bin", "tiny.txt")
    rename("empty.txt", "large.bin")
    rename("once", "empty.txt")
    os.rename(m / "users/Grace Hopper/cobol.pdf", m / folder / "cobol.pdf")
    os.rename(m / "users/Grace Hopper/readme", m / folder / "notes.txt")
    wanted = {n: (m / folder / n).read_bytes() for n in m.names(folder)}
    wait_until(lambda: m.emulator.struck() >= 3 or m.idle(), "uploads to be refused")
    there = {m.emulator.blob(a["id"]) for a in m.emulator.files().values()}
    overwritten = {before["users/Ada Byron/logo.png"]}
    assert set(before.values()) - there <= overwritten, "a content has left the server"
    m.emulator.heal()
    m.command("retry", ok=None)
    m.sync()
    assert {
        n: m.emulator.blob(a["id"]) for n, a in m.emulator.folder(folder).items()
    } == wanted
    assert not m.emulator.folder("users/Grace Hopper")


def test_a_cycle_of_three_and_an_exchange_end_right_after_a_kill(drive, system):
    m = drive(poll=0, settle=0)
    folder = m / "users/Ada Byron"
    names = ["notes.txt", "logo.png", "large.bin"]
    data = [m.emulator.bytes_of(f"users/Ada Byron/{n}") for n in names]
    everything = set(m.emulator.files())
    m.emulator.faults(latency_ms=60)
    os.rename(folder / names[0], folder / "aside")
    os.rename(folder / names[1], folder / names[0])
    os.rename(folder / names[2], folder / names[1])
    os.rename(folder / "aside", folder / names[2])
    run("sleep", "0.3")
    m.kill9()
    m.emulator.heal()
    m.start()
    m.sync()
    assert [m.emulator.bytes_of(f"users/Ada Byron/{n}") for n in names] == data[1:] + data[:1]
    assert set(m.emulator.files()) == everything


# Records


def renamable(system) -> str:
    """A record that can be renamed on the server; the test is about nothing where none can."""
    if not system.renamable:
        pytest.skip("records keep their names there")
    return "events/Live fire" if "events" in system.renamable else "users/Ada Byron"


def test_a_record_is_renamed_by_one_call(drive, system):
    record = renamable(system)
    top, _, name = record.partition("/")
    m = drive(poll=0)
    ident = m.emulator.record_id(top, name)
    inode, files = os.stat(m / record).st_ino, m.names(record)
    m.emulator.reset()
    os.rename(m / record, m / top / "Dry fire")
    assert "Dry fire" in os.listdir(m / top) and name not in os.listdir(m / top)
    assert m.names(f"{top}/Dry fire") == files
    m.sync()
    assert m.emulator.record_id(top, "Dry fire") == ident
    calls = m.emulator.calls()
    if system.batch_rename_record:
        assert calls.get(system.batch_rename_record) == 1, calls
    assert sum(calls.values()) <= 3, calls
    assert m.emulator.uploads() == 0
    m.remount()
    assert "Dry fire" in os.listdir(m / top)
    assert os.stat(m / top / "Dry fire").st_ino == inode


@pytest.mark.parametrize("life", ["lives", "killed"])
def test_a_records_name_that_was_taken_back_before_it_was_answered(drive, system, life):
    """The server has the name that nobody wants any more, and has not said so."""
    record = renamable(system)
    top, _, name = record.partition("/")
    m = drive(settle=0, poll=0, timeout=2)
    m.allow_errors("cut|lost|reset|connection|unknown|empty|answer|50[0-9]")
    ident = m.emulator.record_id(top, name)
    os.listdir(m / record)

    def names():
        return [r["name"] for r in m.emulator.state()["records"]]

    lost = {"port": "api", "method": "PATCH", "match": "", "count": 1}
    m.emulator.faults({**lost, "drop_reply": True}, {**lost, "count": -1, "hang": True})
    os.rename(m / record, m / top / "Dry fire")
    wait_until(lambda: "Dry fire" in names(), "the server to have it")
    os.rename(m / top / "Dry fire", m / record)
    if life == "killed":
        m.kill9()
    m.emulator.heal()
    if life == "killed":
        m.start()
    m.command("retry")
    m.command("refresh")
    m.sync()
    assert name in os.listdir(m / top) and "Dry fire" not in os.listdir(m / top)
    assert m.emulator.record_id(top, name) == ident
    m.command("refresh")
    assert name in os.listdir(m / top)


def test_a_record_keeps_its_name_where_the_server_cannot_change_it(drive, system):
    m = drive(poll=0)
    if "events" in system.renamable:
        pytest.skip("it can")
    old, new = m / "events/Live fire", m / "events/Dry fire"
    names = sorted(os.listdir(m / "events"))
    ident = m.emulator.record_id("events", "Live fire")
    if system.renamable:
        # It may be able to: nobody knows before it was asked once. The user is told, and takes
        # it back; from then on it is known.
        os.rename(old, new)
        m.sync(ok=False)
        assert "cannot change" in os.getxattr(new, "user.attachfs.error").decode()
        os.rename(new, old)
        m.sync()
        assert "user.attachfs.error" not in os.listxattr(old)
    m.emulator.reset()
    with raises_errno(errno.EPERM):
        os.rename(old, new)
    assert sorted(os.listdir(m / "events")) == names
    m.sync()
    assert m.emulator.record_id("events", "Live fire") == ident
    assert m.emulator.calls() == {}


def test_many_records_are_renamed_in_few_calls(drive, system):
    top = renamable(system).partition("/")[0]
    tree = {"users": {}, "events": {}, top: {f"Drill {i}": {} for i in range(100)}}
    m = drive(tree=tree, poll=0)
    os.listdir(m / top)
    m.emulator.reset()
    run("sh", "-c", 'for d in *; do mv "$d" "New $d"; done', cwd=m / top)
    m.sync()
    assert sorted(r["name"] for r in m.emulator.state()["records"]) == sorted(
        f"New Drill {i}" for i in range(100)
    )
    most = 10 if system.batch_rename_record else 110
    assert sum(m.emulator.calls().values()) <= most, m.emulator.calls()


def test_files_written_into_a_renamed_record_arrive_there(drive, system):
    record = renamable(system)
    top = record.partition("/")[0]
    m = drive(poll=0)
    os.rename(m / record, m / top / "Dry fire")
    (m / top / "Dry fire/new.txt").write_bytes(b"x" * 2000)
    os.rename(m / top / "Dry fire", m / top / "Wet fire")
    m.sync()
    assert m.emulator.bytes_of(f"{top}/Wet fire/new.txt") == b"x" * 2000


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
def test_a_random_history_of_renames_ends_as_a_local_copy_does(drive, system, scratch):
    chance = random.Random(seed_of_the_day())
    tree = {
        "users": {"A": numbered(8, 1100), "B": numbered(4, 2000)},
        "events": {"C": numbered(3, 50)},
    }
    m = drive(tree=tree, poll=0, settle=0.2)
    write_tree(scratch, tree)

    def rename(old, new):
        os.rename(scratch / old, scratch / new)
        try:
            os.rename(m / old, m / new)
        except OSError as e:
            far = old.partition("/")[0] != new.partition("/")[0]
            assert e.errno == errno.EXDEV and far and not system.move_between_collections
            run("mv", "-f", m / old, m / new)

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
            rename(old, new)
        elif what == "write":
            path = f"{chance.choice(records)}/name-{chance.randrange(20)}"
            data = random_bytes(chance.choice([10, 1500, 9000]), step)
            for root in (scratch, m):
                (root / path).write_bytes(data)
        elif what == "unlink" and files:
            path = chance.choice(files)
            for root in (scratch, m):
                os.unlink(root / path)
        elif what == "pause":
            time.sleep(chance.choice([0.02, 0.2]))
        elif what == "sync" and chance.random() < 0.3:
            m.sync()
    local = {
        f"{r}/{n}": (scratch / r / n).read_bytes() for r in records for n in os.listdir(scratch / r)
    }
    assert m.tree() == local
    m.sync()
    assert {p: m.emulator.blob(a["id"]) for p, a in m.emulator.files().items()} == local
