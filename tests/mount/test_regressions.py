# SPDX-License-Identifier: MIT
"""
Bugs that reviewers found, a test each, so that they stay away: writes through descriptors while the
name, the id or the server's bytes change underneath, answers that come late or never, and programs
that look at the worst moment.
"""

import errno
import hashlib
import json
import os
import signal
import subprocess
import threading
import time
from pathlib import Path

import pytest

from harness import (
    SLOW,
    added,
    is_mounted,
    one_record,
    raises_errno,
    random_bytes,
    run,
    wait_until,
)

ADA = "users/Ada Byron"
GRACE = "users/Grace Hopper"
A, B, C = b"A" * 3000, b"B" * 3000, b"C" * 3000
BIG = random_bytes(8 << 20, "big")
THEIRS = "THEIRS" * 700


def letters(**more) -> dict:
    return {
        "users": {
            "Ada Byron": {"a.txt": A, "b.txt": B, "c.txt": C, **more},
            "Grace Hopper": {"b.txt": b"grace" * 600},
        },
        "events": {},
    }


def refresh(m) -> None:
    """`attachfs refresh` from within: a fork would flush the descriptors that the test has open."""
    (m / ".attachfs/control.refresh").read_bytes()


def in_flight(m) -> None:
    wait_until(m.emulator.struck, "the call to be in flight")


def contents(m, folder: str = ADA, start: str = "") -> list:
    """What the server has in a record, in files whose names start so."""
    return sorted(
        m.emulator.blob(a["id"])
        for path, a in m.emulator.files().items()
        if path.startswith(f"{folder}/{start}")
    )


def only_file(m) -> Path:
    record = m / f"users/{os.listdir(m / 'users')[0]}"
    return record / os.listdir(record)[0]


def reads(path, data: bytes) -> bool:
    try:
        return path.read_bytes() == data
    except OSError:
        return False


# Open while something changes


def test_writes_after_a_rename_over_another_file_are_kept(drive):
    """The file takes over the id of the one it replaces, while somebody writes on."""
    m = drive(letters(), poll=0, settle=0)
    ident = m.emulator.file(f"{ADA}/b.txt")["id"]
    for name in ("a.txt", "b.txt"):
        (m / ADA / name).read_bytes()
    fd = os.open(m / ADA / "a.txt", os.O_RDWR)
    os.pwrite(fd, b"NEW", 0)
    os.rename(m / ADA / "a.txt", m / ADA / "b.txt")
    time.sleep(1)  # the moment to take the id over, if it does not wait for the close
    os.pwrite(fd, b"NEWER", 0)
    os.close(fd)
    assert (m / ADA / "b.txt").read_bytes() == b"NEWER" + A[5:]
    m.sync()
    assert m.emulator.bytes_of(f"{ADA}/b.txt") == b"NEWER" + A[5:]
    assert (m.emulator.file(f"{ADA}/b.txt")["id"] == ident) == m.system.replace_keeps_id
    assert f"{ADA}/a.txt" not in m.emulator.files()


def test_who_opens_after_a_replacement_gets_the_new_bytes(drive):
    """... although somebody still has the old ones open."""
    m = drive(letters(), poll=0)
    path = m / ADA / "a.txt"
    theirs = THEIRS.encode()
    old = os.open(path, os.O_RDONLY)
    assert os.pread(old, 10, 0) == A[:10]
    m.emulator.change(
        {"op": "replace", "id": m.emulator.file(f"{ADA}/a.txt")["id"], "text": THEIRS}
    )
    refresh(m)
    wait_until(lambda: reads(path, theirs), "the new bytes")
    fd = os.open(path, os.O_RDWR)
    os.pwrite(fd, b"x", 0)
    os.close(fd)
    m.sync()
    assert contents(m, start="a") == [b"x" + theirs[1:]]
    os.close(old)


def test_an_edit_under_way_and_a_change_on_the_server_are_both_kept(drive):
    m = drive(letters(), poll=0)
    (m / ADA / "a.txt").read_bytes()
    fd = os.open(m / ADA / "a.txt", os.O_RDWR)
    os.pwrite(fd, b"MINE", 0)
    m.emulator.change(
        {"op": "replace", "id": m.emulator.file(f"{ADA}/a.txt")["id"], "text": THEIRS}
    )
    refresh(m)
    os.pwrite(fd, b"ZZ", 100)
    os.close(fd)
    m.sync()
    mine = b"MINE" + A[4:100] + b"ZZ" + A[102:]
    assert contents(m, start="a") == sorted([mine, THEIRS.encode()])
    assert m.emulator.bytes_of(f"{ADA}/a.txt") == THEIRS.encode()
    kept = [name for name in os.listdir(m / ADA) if "conflict" in name]
    assert len(kept) == 1 and (m / ADA / kept[0]).read_bytes() == mine


def test_an_edit_under_way_of_a_file_deleted_on_the_server_is_kept(drive):
    m = drive(letters(), poll=0)
    (m / ADA / "a.txt").read_bytes()
    ident = m.emulator.file(f"{ADA}/a.txt")["id"]
    fd = os.open(m / ADA / "a.txt", os.O_RDWR)
    os.pwrite(fd, b"MINE", 0)
    m.emulator.change({"op": "delete", "id": ident})
    refresh(m)
    os.pwrite(fd, b"ZZ", 100)
    os.close(fd)
    m.sync()
    assert contents(m, start="a") == [b"MINE" + A[4:100] + b"ZZ" + A[102:]]
    assert m.emulator.file(f"{ADA}/a.txt")["id"] != ident


def test_a_large_file_unlinked_while_open_is_deleted_after_its_close(drive):
    m = drive(letters(**{"big.bin": BIG}), poll=0)
    fd = os.open(m / ADA / "big.bin", os.O_RDONLY)
    assert os.pread(fd, 10, 0) == BIG[:10]
    os.unlink(m / ADA / "big.bin")
    time.sleep(0.5)
    os.close(fd)
    wait_until(lambda: f"{ADA}/big.bin" not in m.emulator.files(), "the deletion, unasked")


def test_a_writer_and_a_slow_reader_of_one_large_file_do_not_wait_for_each_other(drive):
    """More is missing than a stream runs ahead of the reader that holds it up."""
    m = drive(generate=["users:1:1:104857600"], collections=("users",), poll=0, settle=0)
    path = only_file(m)
    (attachment,) = m.emulator.attachments()
    expected = bytearray(m.emulator.blob(attachment["id"]))
    reader = os.open(path, os.O_RDONLY)
    for i in range(32):
        assert os.read(reader, 131072) == expected[i << 17 : (i + 1) << 17]
    fd = os.open(path, os.O_RDWR)
    os.pwrite(fd, b"0123456789", 99_000_000)
    os.close(fd)
    expected[99_000_000:99_000_010] = b"0123456789"
    m.sync()
    (attachment,) = m.emulator.attachments()
    assert attachment["sha256"] == hashlib.sha256(expected).hexdigest()
    os.close(reader)


# Answers that come late or never


def test_a_lost_answer_is_still_known_as_lost_after_a_second_kill(drive):
    m = drive(letters(), poll=0, settle=0)
    before = set(m.emulator.files())
    os.listdir(m / ADA)
    m.emulator.faults(
        {**m.system.upload, "count": 1, "drop_reply": True}, {**m.system.list, "hang": True}
    )
    data = random_bytes(5000, "lost")
    (m / ADA / "new.bin").write_bytes(data)
    in_flight(m)
    m.kill9()
    m.start()
    time.sleep(0.7)  # the look for what became of it hangs
    m.kill9()
    m.emulator.heal()
    m.start()
    m.sync()
    assert set(m.emulator.files()) == before | {f"{ADA}/new.bin"}, "no duplicate"
    assert m.emulator.bytes_of(f"{ADA}/new.bin") == data


def test_an_answer_that_is_outstanding_at_umount_costs_no_duplicate(drive):
    m = drive(letters(), poll=0, settle=0, timeout=60)
    before = set(m.emulator.files())
    os.listdir(m / ADA)
    m.emulator.faults(
        {**m.system.upload, "count": 1, "latency_ms": 30_000}, {**m.system.list, "hang": True}
    )
    data = random_bytes(5000, "outstanding")
    (m / ADA / "new.bin").write_bytes(data)
    in_flight(m)
    m.terminate()
    m.emulator.heal()
    m.start()
    m.sync()
    assert set(m.emulator.files()) == before | {f"{ADA}/new.bin"}, "no duplicate"
    assert m.emulator.bytes_of(f"{ADA}/new.bin") == data


def test_a_file_unlinked_while_its_upload_is_on_its_way_does_not_stay_on_the_server(drive):
    m = drive(letters(), poll=0, settle=0)
    before = set(m.emulator.files())
    os.listdir(m / ADA)
    m.emulator.faults({**m.system.upload, "count": 1, "latency_ms": 1000})
    (m / ADA / "new.bin").write_bytes(random_bytes(5000, "unlinked"))
    in_flight(m)
    os.unlink(m / ADA / "new.bin")
    m.umount()
    assert set(m.emulator.files()) == before


def test_a_replacement_whose_answer_was_lost_is_not_a_change_by_others(drive):
    m = drive(letters(), poll=0, settle=0)
    m.allow_errors("answer|lost|connect|reset|empty reply|refused")
    before = set(m.emulator.files())
    (m / ADA / "a.txt").read_bytes()
    m.emulator.faults({**m.system.upload, "drop_reply": True})
    (m / ADA / "a.txt").write_bytes(b"MINE" * 1000)
    in_flight(m)
    for _ in range(5):
        refresh(m)
        time.sleep(0.5)
    assert contents(m, start="a") == [b"MINE" * 1000], "it arrived"
    m.emulator.heal()
    m.sync()
    assert sorted(os.listdir(m / ADA)) == ["a.txt", "b.txt", "c.txt"], "no conflict copy"
    assert set(m.emulator.files()) == before
    assert contents(m, start="a") == [b"MINE" * 1000]


def test_a_time_set_while_the_upload_is_on_its_way_reaches_the_server(drive, system):
    if not system.sets_mtime:
        return
    m = drive(letters(), poll=0, settle=0)
    os.listdir(m / ADA)
    m.emulator.faults({**m.system.upload, "count": 1, "latency_ms": 1000})
    (m / ADA / "new.bin").write_bytes(b"n" * 5000)
    in_flight(m)
    os.utime(m / ADA / "new.bin", (10**9, 10**9))
    m.sync()
    assert m.emulator.file(f"{ADA}/new.bin")["updated_at"].startswith("2001-09-09T01:46:40")
    assert (m / ADA / "new.bin").stat().st_mtime == 10**9


def test_sync_waits_for_all_the_calls_a_tiny_file_takes(drive):
    m = drive(one_record(), poll=0)
    os.listdir(m / ADA)
    m.emulator.faults({"port": "api", "match": "", "count": -1, "latency_ms": 900})
    (m / ADA / "tiny.txt").write_bytes(b"0123456789")
    m.sync()
    assert (m / ".attachfs/pending").read_text() == ""
    assert not m.status()["failed"] and m.idle()
    assert m.emulator.bytes_of(f"{ADA}/tiny.txt") == b"0123456789"
    m.emulator.heal()


def test_an_edit_whose_other_bytes_are_gone_fails_with_words(drive):
    m = drive(letters(**{"big.bin": BIG}), poll=0, settle=600)
    m.allow_errors("gone|404|parked|refused|waits|cannot|503")
    path = m / ADA / "big.bin"
    fd = os.open(path, os.O_RDWR)
    # before they are gone they would be fetched for the upload
    m.emulator.faults({**m.system.blob, "status": 503})
    os.pwrite(fd, b"MINE", 4 << 20)
    os.close(fd)
    m.emulator.change({"op": "delete", "id": m.emulator.file(f"{ADA}/big.bin")["id"]})
    m.emulator.heal()
    refresh(m)
    m.sync(ok=False, timeout=30)
    assert m.idle() and m.status()["failed"] == 1
    told = m.command("failed", ok=None).stdout
    assert "big.bin" in told and "gone" in told
    os.unlink(path)


def test_an_end_while_a_large_upload_is_being_hashed_does_not_park_it(mount, emulator, gate):
    server = emulator(tree=one_record())
    door = gate(server)
    m = mount(server, source=server.system.source(door.url), poll=0, settle=0)
    m.allow_errors("reach|EHOSTDOWN|offline|down|connect|refused")
    path = m / ADA / "huge.bin"
    with open(path, "wb") as f:
        f.truncate(2 << 30)
    wait_until(
        lambda: m.xattr(f"{ADA}/huge.bin", "state") == "uploading", "the upload to have begun"
    )
    door.shut()
    m.command("refresh", ok=None)
    wait_until(lambda: m.status()["state"] == "offline", "the status to say so")
    m.terminate()
    m.start()
    assert m.status()["failed"] == 0
    assert m.status()["pending"]["uploads"] == 1
    os.unlink(path)
    door.open()
    wait_until(lambda: m.command("refresh", ok=None).returncode == 0, "the server to be reached")


# The first listing is slow


@pytest.mark.parametrize("name", ["b.txt", "c.txt"])
def test_a_move_to_another_record_before_the_first_listing_came(drive, name):
    """b.txt is in both records, c.txt only where it comes from."""
    m = drive(letters(), poll=0, timeout=30)
    data = (m / ADA / name).read_bytes()
    os.listdir(m / GRACE)
    m.umount()
    m.emulator.faults(latency_ms=6000)
    m.start()
    os.rename(m / ADA / name, m / GRACE / name)
    m.emulator.heal()
    assert name not in os.listdir(m / ADA)
    assert (m / GRACE / name).read_bytes() == data
    m.sync()
    assert m.emulator.bytes_of(f"{GRACE}/{name}") == data
    assert f"{ADA}/{name}" not in m.emulator.files()
    assert set(os.listdir(m / GRACE)) == {"b.txt", name}


def test_what_the_ledger_knows_is_told_while_the_first_listing_hangs(drive):
    m = drive(poll=0, timeout=30)
    sizes = {path: os.stat(m / path).st_size for path in m.emulator.files()}
    m.umount()
    m.emulator.faults({**m.system.list, "hang": True})
    m.start()
    for path in sorted(sizes)[:5]:
        assert os.stat(m / path).st_size == sizes[path]
    in_flight(m)
    m.emulator.heal()


def test_a_change_whose_listing_failed_is_seen_once_the_server_is_well(drive):
    m = drive(letters(), poll=1)
    m.allow_errors("403|denied|EACCES|list")
    os.listdir(m / ADA)
    m.emulator.reset()
    wait_until(lambda: sum(m.emulator.calls().values()) >= 2, "two polls")
    m.emulator.faults({**m.system.listing, "status": 403})
    m.emulator.change(added("fresh.txt"))
    in_flight(m)
    wait_until(lambda: "403" in m.log(), "the listing to be refused")
    m.emulator.heal()
    wait_until(lambda: "fresh.txt" in os.listdir(m / ADA), "the change to be seen")


# Reading from servers that are silent, wrong or half well


def test_cat_on_a_silent_server_fails_with_etimedout(drive):
    m = drive(generate=["users:1:1:5000"], poll=0, timeout=3)
    m.same_at_end = False
    m.allow_errors("timed out|deadline|ETIMEDOUT|timeout")
    path = only_file(m)
    path.stat()
    m.emulator.reset()
    m.emulator.faults({**m.system.blob, "hang": True})
    told = run("cat", path, ok=False)
    assert os.strerror(errno.ETIMEDOUT) in told.stderr and told.stdout == ""
    assert len(m.emulator.blob_requests()) == 1, "not asked once more"
    m.emulator.heal()


def test_a_size_that_is_not_the_files_ends_the_read(drive):
    m = drive(poll=0, timeout=3)
    m.same_at_end = False
    m.allow_errors("size|ESTALE|EIO|range|Range|replaced|other bytes than asked")
    path = m / ADA / "large.bin"
    assert path.stat().st_size == 600_000
    m.emulator.faults(
        {
            **m.system.blob,
            "status": 206,
            "body": "0123456789",
            "headers": {"Content-Range": "bytes 0-9/700000"},
        }
    )
    with raises_errno(errno.ESTALE, errno.EIO):
        path.read_bytes()
    assert m.emulator.struck() < 20
    m.emulator.heal()


def test_a_refused_range_does_not_hurt_the_reader_of_another(drive):
    m = drive(generate=["users:1:1:12582912"], collections=("users",), poll=0, timeout=60)
    m.allow_errors("403|denied|EACCES")
    slow = {**m.system.blob, "bytes_per_second": 3_000_000}
    path = only_file(m)
    (attachment,) = m.emulator.attachments()
    expected = m.emulator.blob(attachment["id"])
    path.stat()
    m.emulator.faults(slow)
    found, begun = [], threading.Event()

    def read_all():
        fd = os.open(path, os.O_RDONLY)
        try:
            got = b""
            while data := os.read(fd, 65536):
                got += data
                if len(got) > 1 << 20:
                    begun.set()
            found.append(got)
        except OSError as e:
            found.append(e)
        finally:
            begun.set()
            os.close(fd)

    reader = threading.Thread(target=read_all)
    reader.start()
    begun.wait(60 * SLOW)
    m.emulator.faults({**m.system.blob, "status": 403}, slow)
    fd = os.open(path, os.O_RDONLY)
    with raises_errno(errno.EACCES):
        os.pread(fd, 10, 12_000_000)
    os.close(fd)
    assert reader.is_alive(), "the refusal came while the other was waiting"
    m.emulator.heal()
    reader.join()
    assert found == [expected]


def test_sigterm_with_a_read_parked_ends_the_daemon(drive, readers):
    m = drive(generate=["users:1:1:5000"], poll=0, timeout=600)
    m.same_at_end = False
    path = only_file(m)
    path.stat()
    m.emulator.faults({**m.system.blob, "hang": True})
    reader = readers.start(path)
    in_flight(m)
    m.process.send_signal(signal.SIGTERM)
    assert m._ended() == 0
    assert reader.wait(60 * SLOW) != 0
    wait_until(lambda: not is_mounted(m.path), "nothing to be left mounted")


def test_a_shell_can_read_the_events_line_by_line(drive):
    m = drive(one_record(), settle=0, poll=0)
    follower = subprocess.Popen(
        ["bash", "-c", 'while read -r l; do echo "$l"; case $l in *uploaded*) break ;; esac; done < "$0"']
        + [str(m / ".attachfs/events")],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        (m / ADA / "new.txt").write_bytes(b"new")
        lines, _ = follower.communicate(timeout=30 * SLOW)
        assert [json.loads(line)["event"] for line in lines.splitlines()][-1] == "uploaded"
    finally:
        follower.kill()
        follower.wait()
