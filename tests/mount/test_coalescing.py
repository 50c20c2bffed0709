# SPDX-License-Identifier: MIT
"""
Many system calls, few requests: what programs do to get something done costs what it comes to, and
nothing where it comes to nothing. Everything is counted in the server's log.

What saving programs do step by step is in test_editors.py, that ids and bytes come along with renames
in test_renaming.py, the table of README in test_calls.py.
"""

import mmap
import os
import re
import shutil
import time

import pytest

from harness import (
    RENAME_EXCHANGE,
    numbered,
    one_record,
    random_bytes,
    renameat2,
    run,
    wait_until,
    write_tree,
)

RECORD = "users/Ada Byron"
NOTES = f"{RECORD}/notes.txt"


def assert_only(m, *endpoints) -> None:
    """No change on the server but by calls of these endpoints."""
    allowed = "|".join(e for e in endpoints if e)
    assert all(re.fullmatch(allowed or r"(?!)", e) for e in m.emulator.changes()), m.emulator.changes()


def of_mtimes(system) -> str:
    """What only a new time may cost: nothing where the server has no field for it."""
    return re.escape(system.batch_rename) if system.sets_mtime else r"(?!)"


# Copies


def source_of(scratch, files: dict):
    write_tree(scratch, {"in": {"Ada Byron": files}})
    folder = scratch / "in/Ada Byron"
    for i, name in enumerate(files):
        when = os.stat(folder / name).st_mtime_ns + i * 1_000_003
        os.utime(folder / name, ns=(when, when))
    return folder


COPIES = {
    "rsync -a": ["rsync", "-a"],
    "cp -r": ["cp", "-r"],
    "cp -a": ["cp", "-a"],
}


@pytest.mark.limit(180)
@pytest.mark.parametrize("program", COPIES)
def test_1000_files_are_1000_creates_and_nothing_when_copied_again(
    drive, system, scratch, program
):
    folder = source_of(scratch, numbered(1000))
    # what rests while the program runs goes together, however slow the machine is
    m = drive(tree=one_record(), poll=0, settle=30)
    assert m.names(RECORD) == []
    m.emulator.reset()
    argv = [*COPIES[program], f"{folder}/.", f"{m / RECORD}/"]
    run(*argv)
    m.sync()
    assert m.emulator.uploaded() == 1000
    assert_only(m, system.creates)
    most = {"rillsoft": 1200}.get(system.name, 1000 // system.batch_create)
    assert sum(m.emulator.calls().values()) <= most * (1.25 if system.batch_create > 1 else 1)
    ids = {p: a["id"] for p, a in m.emulator.files().items()}

    for again in (m.sync, m.remount):
        again()
        os.listdir(m / RECORD)
        m.emulator.reset()
        run(*argv)
        m.sync()
        assert m.emulator.uploaded() == 0
        if program == "cp -r":  # it gives each copy the time of copying
            assert_only(m, of_mtimes(system))
            assert sum(m.emulator.changes().values()) <= 10, m.emulator.changes()
        elif program == "cp -a":  # before bytes are compared, the server is asked for news of them
            assert m.emulator.changes() == {}
            assert sum(m.emulator.calls().values()) <= 10, m.emulator.calls()
        else:
            assert m.emulator.calls() == {}
    assert {p: a["id"] for p, a in m.emulator.files().items()} == ids


# Saves


@pytest.mark.limit(120)
def test_five_saves_within_the_settle_time_are_one_upload(drive, system):
    m = drive(poll=0)
    before = m.emulator.file(NOTES)
    os.listdir(m / RECORD)
    settle_s = 2.0
    for attempt in range(5):
        m.emulator.reset()
        longest = 0.0
        saved_at = time.monotonic()
        for i in range(5):
            data = b"attempt %d, save %d\n" % (attempt, i) * 300
            (m / NOTES).write_bytes(data)
            longest = max(longest, time.monotonic() - saved_at)
            saved_at = time.monotonic()
            if i < 4:
                time.sleep(0.4)
        wait_until(m.idle, "the upload")
        if longest < settle_s:
            break
    else:
        raise AssertionError("never five saves within the settle time: the machine is too slow")
    assert m.emulator.uploads() == 1 and m.emulator.uploaded() == 1, m.emulator.calls()
    assert_only(m, system.creates, system.replaces, system.removes)
    after = m.emulator.file(NOTES)
    assert m.emulator.blob(after["id"]) == data
    assert (after["id"] == before["id"]) == system.replace_keeps_id


# Names


def test_created_renamed_and_deleted_costs_nothing(drive):
    m = drive(poll=0)
    os.listdir(m / RECORD)
    os.listdir(m / "users/Nobody")
    m.emulator.reset()
    for i in range(50):
        path = m / f"users/Nobody/{i}.tmp"
        path.write_bytes(b"x" * (i * 100))
        if i % 3 == 1:
            os.rename(path, m / f"users/Nobody/{i}.out")
            path = m / f"users/Nobody/{i}.out"
        if i % 3 == 2:
            os.rename(path, m / f"{RECORD}/{i}.out")
            path = m / f"{RECORD}/{i}.out"
        os.unlink(path)
    m.sync()
    assert m.emulator.calls() == {}
    assert m.status()["cache"]["dirty"] == 0


def swap_by_hand(folder):
    os.rename(folder / "notes.txt", folder / "swap")
    os.rename(folder / "logo.png", folder / "notes.txt")
    os.rename(folder / "swap", folder / "logo.png")


def swap_at_once(folder):
    renameat2(folder / "notes.txt", folder / "logo.png", RENAME_EXCHANGE)


@pytest.mark.parametrize("swap", [swap_by_hand, swap_at_once])
def test_swapping_two_names_is_one_batch(drive, system, swap):
    m = drive(poll=0)
    before = m.emulator.folder(RECORD)
    data = {n: m.emulator.blob(before[n]["id"]) for n in ("notes.txt", "logo.png")}
    for name in data:
        (m / RECORD / name).read_bytes()
    m.emulator.reset()
    swap(m / RECORD)
    m.sync()
    after = m.emulator.folder(RECORD)
    assert set(after) == set(before)
    assert m.emulator.blob(after["notes.txt"]["id"]) == data["logo.png"]
    assert m.emulator.blob(after["logo.png"]["id"]) == data["notes.txt"]
    if system.rename_in_place:
        assert after["notes.txt"]["id"] == before["logo.png"]["id"]
        assert after["logo.png"]["id"] == before["notes.txt"]["id"]
        assert m.emulator.uploaded() == 0
        most = 1 if system.batch_rename else 2
    elif system.names_unique:
        # one steps aside under a temporary name, which is removed in the end
        assert m.emulator.uploaded() == 3
        most = 4
    else:
        assert m.emulator.uploaded() == 2
        most = 4
    assert sum(m.emulator.changes().values()) <= most, m.emulator.calls()
    if system.batch_rename:
        assert m.emulator.calls() == {system.batch_rename: 1}


# The same bytes again


def overwrite(path, data, scratch):
    path.write_bytes(data)


def cp_over(path, data, scratch):
    (scratch / "copy").write_bytes(data)
    run("cp", scratch / "copy", path)


def write_without_truncating(path, data, scratch):
    fd = os.open(path, os.O_WRONLY)
    os.write(fd, data)
    os.close(fd)


def truncate_then_write(path, data, scratch):
    os.truncate(path, 0)
    with open(path, "ab") as f:
        f.write(data)


def a_part_of_it(path, data, scratch):
    fd = os.open(path, os.O_RDWR)
    os.pwrite(fd, data[100:300], 100)
    os.fsync(fd)
    os.pwrite(fd, data[1000:1001], 1000)
    os.close(fd)


def there_and_back(path, data, scratch):
    """Changed, closed, and changed back before it was sent."""
    path.write_bytes(b"something else\n" * 90)
    path.write_bytes(data)


def cut_and_appended(path, data, scratch):
    os.truncate(path, len(data) // 2)
    with open(path, "ab") as f:
        f.write(data[len(data) // 2 :])


def mapped(path, data, scratch):
    with open(path, "r+b") as f, mmap.mmap(f.fileno(), 0) as shared:
        shared[5:900] = data[5:900]
        shared.flush()


def tmp_and_rename(path, data, scratch):
    tmp = path.parent / f".{path.name}.Ab3xYz"
    tmp.write_bytes(data)
    os.rename(tmp, path)


def backup_new_and_gone(path, data, scratch):
    os.rename(path, f"{path}~")
    path.write_bytes(data)
    os.unlink(f"{path}~")


def unlink_and_write(path, data, scratch):
    os.unlink(path)
    path.write_bytes(data)


def away_and_back(path, data, scratch):
    os.rename(path, f"{path}.away")
    os.rename(f"{path}.away", path)


def exchanged_with_a_copy(path, data, scratch):
    tmp = path.parent / "copy.tmp"
    tmp.write_bytes(data)
    renameat2(tmp, path, RENAME_EXCHANGE)
    os.unlink(tmp)


def copied_from_itself(path, data, scratch):
    shutil.copyfile(path, f"{path}.copy")
    os.rename(f"{path}.copy", path)


def touch(path, data, scratch):
    run("touch", path)


def rsync_ignoring_times(path, data, scratch):
    (scratch / path.name).write_bytes(data)
    run("rsync", "-a", "--ignore-times", scratch / path.name, path)


def rsync_by_checksum(path, data, scratch):
    (scratch / path.name).write_bytes(data)
    run("rsync", "-r", "--checksum", scratch / path.name, path)


def rsync_in_place(path, data, scratch):
    (scratch / path.name).write_bytes(data)
    run("rsync", "-a", "--inplace", "--whole-file", "-I", scratch / path.name, path)


def vim(path, data, scratch):
    commands = ["set backupskip= swapfile writebackup backupcopy=no", "normal! Gox", "undo", "w!"]
    run("vim", "-u", "NONE", "-N", "-es", *(a for c in commands + ["q"] for a in ("-c", c)), path)


AGAIN = [
    overwrite,
    cp_over,
    write_without_truncating,
    truncate_then_write,
    a_part_of_it,
    there_and_back,
    cut_and_appended,
    mapped,
    tmp_and_rename,
    backup_new_and_gone,
    unlink_and_write,
    away_and_back,
    exchanged_with_a_copy,
    copied_from_itself,
    touch,
    rsync_ignoring_times,
    rsync_by_checksum,
    rsync_in_place,
    vim,
]


def assert_nothing_sent(m, before: dict) -> None:
    """But a new time, where the server has a field for it."""
    m.sync()
    assert m.emulator.uploaded() == 0, m.emulator.calls()
    assert_only(m, of_mtimes(m.system))
    assert sum(m.emulator.changes().values()) <= 1, m.emulator.changes()
    after = m.emulator.files()
    assert {p: a["id"] for p, a in after.items()} == {p: a["id"] for p, a in before.items()}


@pytest.mark.parametrize("write", AGAIN, ids=lambda f: f.__name__)
def test_the_same_bytes_again_are_not_sent(drive, system, scratch, write):
    m = drive(poll=0)
    data = (m / NOTES).read_bytes()
    before = m.emulator.files()
    m.emulator.reset()
    write(m / NOTES, data, scratch)
    assert_nothing_sent(m, before)
    assert (m / NOTES).read_bytes() == data
    assert m.xattr(NOTES, "state") == "cached"
    # and it is known afterwards, too, what is there
    m.remount()
    os.listdir(m / RECORD)
    m.emulator.reset()
    write(m / NOTES, data, scratch)
    assert_nothing_sent(m, before)


@pytest.mark.parametrize("name, size", [("empty", 0), ("tiny", 3), ("large", 3_000_000)])
@pytest.mark.parametrize("write", [overwrite, tmp_and_rename, unlink_and_write])
def test_the_same_bytes_of_any_size_are_not_sent(drive, scratch, write, name, size):
    data = random_bytes(size, "same")
    m = drive(tree={"users": {"Ada Byron": {name: data}}, "events": {}}, poll=0)
    assert (m / RECORD / name).read_bytes() == data
    before = m.emulator.files()
    m.emulator.reset()
    write(m / RECORD / name, data, scratch)
    assert_nothing_sent(m, before)


@pytest.mark.parametrize("write", [overwrite, tmp_and_rename, unlink_and_write])
def test_what_was_written_here_is_known_without_reading_it(drive, scratch, write):
    """Uploaded by this mount, never read: the same bytes again are not sent, for ever."""
    m = drive(tree=one_record(), poll=0)
    data = random_bytes(5000, "mine")
    (m / NOTES).write_bytes(data)
    m.sync()
    before = m.emulator.files()
    for again in (m.sync, m.remount):
        again()
        os.listdir(m / RECORD)
        m.emulator.reset()
        write(m / NOTES, data, scratch)
        assert_nothing_sent(m, before)


@pytest.mark.parametrize("write", [overwrite, tmp_and_rename, unlink_and_write])
def test_what_left_the_cache_is_still_known_by_its_hash(drive, scratch, write):
    filler = {f"{i}.bin": random_bytes(2_000_000, i) for i in range(6)}
    tree = {"users": {"Ada Byron": {"notes.txt": random_bytes(5000)}, "Nobody": filler}, "events": {}}
    m = drive(tree=tree, poll=0, cache_size=8_000_000)
    data = (m / NOTES).read_bytes()
    before = m.emulator.files()
    for i in (3, 0, 4, 1, 5, 2):  # in no order: nothing is fetched ahead
        assert (m / f"users/Nobody/{i}.bin").read_bytes() == filler[f"{i}.bin"]
    assert m.xattr(NOTES, "state") == "remote", "it is in the cache still"
    m.remount()
    os.listdir(m / RECORD)
    m.emulator.reset()
    write(m / NOTES, data, scratch)
    assert_nothing_sent(m, before)
    assert not m.emulator.downloads()


def test_what_was_never_here_is_sent_as_nobody_knows_it(drive, system):
    """To compare would cost as many bytes as to send."""
    m = drive(poll=0)
    data = m.emulator.bytes_of(NOTES)
    os.listdir(m / RECORD)
    m.emulator.reset()
    (m / NOTES).write_bytes(data)
    m.sync()
    assert m.emulator.uploaded() == 1 and not m.emulator.downloads()


def test_what_others_replaced_meanwhile_is_sent(drive):
    """Known is what the server has now, not what it had."""
    m = drive(poll=0)
    data = (m / NOTES).read_bytes()
    m.emulator.change({"op": "replace", "id": m.emulator.file(NOTES)["id"], "text": "other" * 400})
    m.command("refresh")
    wait_until(lambda: (m / NOTES).read_bytes() == b"other" * 400, "the new bytes")
    m.emulator.reset()
    (m / NOTES).write_bytes(data)
    m.sync()
    assert m.emulator.uploaded() == 1
    assert m.emulator.bytes_of(NOTES) == data


@pytest.mark.parametrize("write", [overwrite, tmp_and_rename, unlink_and_write])
def test_other_bytes_of_the_same_size_are_sent(drive, system, scratch, write):
    m = drive(poll=0)
    data = bytearray((m / NOTES).read_bytes())
    data[-1] ^= 1
    m.emulator.reset()
    write(m / NOTES, bytes(data), scratch)
    m.sync()
    assert m.emulator.uploaded() == 1
    assert m.emulator.bytes_of(NOTES) == data
