# SPDX-License-Identifier: MIT
"""
What other clients do to the server's files, as programs here see it: through a shell that has been
in the directory all the time, through handles that are open, by inotify, and in .attachfs/events.
How few calls it takes to find out is in test_calls.py, and here for a mount that nobody uses.
"""

import ctypes
import errno
import json
import os
import select
import struct
import subprocess
import time

import pytest

from harness import (
    SLOW,
    added,
    libc,
    raises_errno,
    random_bytes,
    run,
    binary,
    wait_until,
)

ADA = "users/Ada Byron"
DONE = "-- done --"


class Shell:
    """An interactive person's shell: starts in a directory and stays there."""

    def __init__(self, folder):
        self.process = subprocess.Popen(
            ["bash"],
            cwd=folder,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def __call__(self, command: str) -> str:
        self.process.stdin.write(f"{command}\necho; echo '{DONE}'\n")
        self.process.stdin.flush()
        lines = []
        for line in self.process.stdout:
            if line.rstrip("\n") == DONE:
                return "".join(lines)[:-1]
            lines.append(line)
        raise AssertionError(f"the shell ended: {lines}")

    def end(self):
        self.process.stdin.close()
        self.process.stdout.close()
        self.process.wait()


@pytest.fixture
def shell(mount):
    started = []

    def make(folder) -> Shell:
        started.append(Shell(folder))
        return started[-1]

    yield make
    for s in started:
        s.end()


def two_records() -> dict:
    return {
        "users": {
            "Ada Byron": {
                "changes.txt": b"old\n",
                "renamed.txt": b"renamed\n",
                "moved.txt": b"moved\n",
                "deleted.txt": b"deleted\n",
                "stays.txt": b"stays\n",
            },
            "Grace Hopper": {"other.txt": b"other\n"},
        },
        "events": {},
    }


def change_all(m) -> None:
    """Each kind of change, by another client, at once."""
    e = m.emulator
    ids = {p.rpartition("/")[2]: a["id"] for p, a in e.files().items()}
    e.change(
        added("appeared.txt", text="appeared\n"),
        {"op": "replace", "id": ids["changes.txt"], "text": "new and longer\n"},
        {
            "op": "rename",
            "id": ids["renamed.txt"],
            "name": "new-name.txt",
            "filename": "new-name.txt",
        },
        {"op": "move", "id": ids["moved.txt"], "collection": "users", "record": "Grace Hopper"},
        {"op": "delete", "id": ids["deleted.txt"]},
    )


AFTER = ["appeared.txt", "changes.txt", "new-name.txt", "stays.txt"]


def test_a_shell_that_is_there_sees_every_kind_of_change(drive, shell):
    m = drive(two_records(), poll=1)
    sh = shell(m / ADA)
    assert "deleted.txt" in sh("ls") and sh("cat changes.txt") == "old\n"
    assert sh("stat -c %s renamed.txt moved.txt deleted.txt") == "8\n6\n8\n"
    assert sh("cat appeared.txt; cat new-name.txt").count("No such file") == 2
    change_all(m)
    wait_until(lambda: [n for n in sh("ls").split() if n != "keep.txt"] == AFTER, "what is new")
    assert sh("cat changes.txt appeared.txt new-name.txt stays.txt") == (
        "new and longer\nappeared\nrenamed\nstays\n"
    )
    assert sh("stat -c %s changes.txt") == "15\n"
    assert sh("cat renamed.txt; cat moved.txt; cat deleted.txt").count("No such file") == 3
    assert sh("cat ../Grace*/moved.txt") == "moved\n"
    # it has not lost its place
    assert sh("pwd -P") == f"{m / ADA}\n" and sh("ls ..").split() == [
        "Ada",
        "Byron",
        "Grace",
        "Hopper",
    ]


def test_a_shell_keeps_its_place_while_nothing_happens(drive, shell):
    m = drive(two_records(), poll=0.2)
    sh = shell(m / ADA)
    assert sh("cat stays.txt") == "stays\n"
    m.emulator.reset()
    wait_until(lambda: m.emulator.summary()["total"] >= 4, "some polls")
    assert sh("cd .; pwd -P") == f"{m / ADA}\n"
    assert sh("ls; cat stays.txt").endswith("stays\n")


def test_records_come_and_go_before_an_open_shell(drive, shell, system):
    if system.hides_empty:
        pytest.skip("records are elements of plans here")
    m = drive(two_records(), poll=1)
    sh = shell(m / "users")
    assert sh("ls") == "Ada Byron\nGrace Hopper\n"
    (made,) = m.emulator.change({"op": "add_record", "collection": "users", "name": "Alan Turing"})
    wait_until(lambda: sh("ls") == "Ada Byron\nAlan Turing\nGrace Hopper\n", "the new record")
    m.emulator.change({"op": "delete_record", "collection": "users", "id": made})
    wait_until(lambda: sh("ls") == "Ada Byron\nGrace Hopper\n", "the record to be gone")


def test_an_open_handle_keeps_its_version(drive, system):
    m = drive({"users": {"Ada Byron": {"a.bin": random_bytes(300_000)}}, "events": {}}, poll=0)
    with open(m / ADA / "a.bin", "rb") as whole, open(m / ADA / "a.bin", "rb") as part:
        assert whole.read(1000) == random_bytes(300_000)[:1000]
        whole.seek(0)
        m.emulator.change(
            {"op": "replace", "id": m.emulator.file(f"{ADA}/a.bin")["id"], "size": 5000}
        )
        m.command("refresh")
        wait_until(lambda: os.stat(m / ADA / "a.bin").st_size == 5000, "the new one")
        for f in (whole, part):
            try:
                data = f.read()
            except OSError:
                continue  # ESTALE: never a mix
            assert data == random_bytes(300_000)
    assert (m / ADA / "a.bin").read_bytes() == m.emulator.bytes_of(f"{ADA}/a.bin")


def test_what_is_gone_from_the_server_is_not_opened_as_an_empty_file(drive):
    m = drive(two_records(), poll=0)
    path = m / ADA / "deleted.txt"
    there = os.open(path, os.O_PATH)
    try:
        m.emulator.change({"op": "delete", "id": m.emulator.file(f"{ADA}/deleted.txt")["id"]})
        m.command("refresh")
        # as a program that had looked it up just before
        with raises_errno(errno.ESTALE, errno.ENOENT):
            os.close(os.open(f"/proc/self/fd/{there}", os.O_RDONLY))
    finally:
        os.close(there)
    assert not path.exists()


def test_refresh_does_it_now(drive):
    m = drive(two_records(), poll=0)
    os.listdir(m / ADA)
    m.emulator.change(added("new.txt", text="hello"))
    run(binary("attachfs"), "refresh", m / ADA, env=m.env())
    assert "new.txt" in os.listdir(m / ADA)


def in_both_records(m) -> None:
    for record in ("Ada Byron", "Grace Hopper"):
        m.emulator.change(added("new.txt", record=record, text="hello"))


def test_refresh_of_a_record_or_a_file_looks_at_that_record_only(drive, system):
    m = drive(two_records(), poll=0)
    ada, grace = m / ADA, m / "users/Grace Hopper"
    assert os.listdir(grace) and all(os.stat(f.path) for f in os.scandir(ada))
    in_both_records(m)
    m.emulator.reset()
    run(binary("attachfs"), "refresh", ada, env=m.env())
    assert sum(m.emulator.calls().values()) == 1, m.emulator.calls()
    assert "new.txt" in os.listdir(ada)
    if system.name != "rillsoft":  # which has one list for all, and it is taken for all
        assert os.listdir(grace) == ["other.txt"]
    m.emulator.change({"op": "delete", "id": m.emulator.file(f"{ADA}/deleted.txt")["id"]})
    m.emulator.reset()
    run(binary("attachfs"), "refresh", ada / "stays.txt", env=m.env())
    assert sum(m.emulator.calls().values()) == 1, m.emulator.calls()
    assert "deleted.txt" not in os.listdir(ada)
    m.command("refresh")


def test_refresh_of_a_collection_looks_at_that_collection_only(drive, system):
    m = drive(two_records(), poll=0)
    assert os.listdir(m / ADA) and os.listdir(m / "events") == []
    in_both_records(m)
    m.emulator.reset()
    run(binary("attachfs"), "refresh", m / "users", env=m.env())
    one = sum(m.emulator.calls().values())
    assert "new.txt" in os.listdir(m / ADA) and "new.txt" in os.listdir(m / "users/Grace Hopper")
    m.emulator.reset()
    m.command("refresh")
    assert one < sum(m.emulator.calls().values()), m.emulator.calls()


def test_refresh_of_what_is_not_there_says_so(drive):
    m = drive(two_records(), poll=0)
    result = run(binary("attachfs"), "refresh", m / "users/Nobody", env=m.env(), ok=False)
    assert "does not exist" in result.stderr


def test_refresh_sees_what_was_changed_while_a_listing_was_under_way(drive, system):
    m = drive(two_records(), poll=0)
    os.listdir(m / ADA)
    m.emulator.faults({**system.listing, "count": 1, "latency_ms": 1000})
    first = subprocess.Popen([binary("attachfs"), "refresh", str(m.path)], env=m.env())
    wait_until(lambda: m.emulator.struck(), "the first listing")
    m.emulator.change(added("late.txt", text="hello"))
    m.command("refresh")
    assert "late.txt" in os.listdir(m / ADA)
    assert first.wait(60 * SLOW) == 0


# events


def events_of(m) -> list:
    """What there is now: the file's size says how much."""
    path = m / ".attachfs/events"
    with open(path, "rb") as f:
        text = f.read(os.fstat(f.fileno()).st_size)
    return [json.loads(line) for line in text.splitlines()]


def told(m, event: str, path: str) -> list:
    path = m.system.real_path(path)
    return [e for e in events_of(m) if e["event"] == event and e.get("path") == path]


def test_events_tell_every_kind_of_change(drive, system):
    m = drive(two_records(), poll=0)
    os.listdir(m / ADA)
    os.listdir(m / "users/Grace Hopper")
    assert [e["event"] for e in events_of(m)][0] == "started"
    assert not any("path" in e for e in events_of(m)), "a first listing is no news"
    change_all(m)
    m.command("refresh")
    assert len(told(m, "appeared", f"{ADA}/appeared.txt")) == 1
    assert len(told(m, "disappeared", f"{ADA}/deleted.txt")) == 1
    assert len(told(m, "changed", f"{ADA}/changes.txt")) == 1
    if system.rename_in_place:
        (renamed,) = told(m, "renamed", f"{ADA}/new-name.txt")
        assert renamed["detail"] == system.real_path(f"{ADA}/renamed.txt")
        (moved,) = told(m, "moved", "users/Grace Hopper/moved.txt")
        assert moved["detail"] == system.real_path(f"{ADA}/moved.txt")
    else:
        # another attachment is there now
        assert told(m, "appeared", f"{ADA}/new-name.txt")
        assert told(m, "disappeared", f"{ADA}/renamed.txt")
    assert not any(e.get("path", "").endswith("stays.txt") for e in events_of(m))


# inotify

IN_CREATE, IN_DELETE_SELF = 0x100, 0x400
IN_ALL = 0xFFF & ~0x11 & ~0x20  # but for opens, closes and reads


class Inotify:
    def __init__(self):
        self.fd = libc.inotify_init1(os.O_NONBLOCK)
        self.watches: dict = {}

    def watch(self, path) -> None:
        wd = libc.inotify_add_watch(self.fd, os.fsencode(path), ctypes.c_uint32(IN_ALL))
        assert wd > 0, ctypes.get_errno()
        self.watches[wd] = os.path.basename(path)

    def read(self, seconds: float) -> set:
        """(watch, event) of all that comes in that time, or sooner if something came."""
        found = set()
        while select.select([self.fd], [], [], seconds)[0]:
            data, at = os.read(self.fd, 1 << 16), 0
            while at < len(data):
                wd, mask, _, length = struct.unpack_from("iIII", data, at)
                at += 16 + length
                found.add((self.watches.get(wd), mask & 0xFFF))
            seconds = 0
        return found

    def close(self) -> None:
        os.close(self.fd)


def test_inotify_tells_what_the_kernel_can(drive, system):
    """
    Whoever watches a file is told that it is gone from the server. Of the rest the kernel knows
    nothing to tell: .attachfs/events does.
    """
    m = drive(two_records(), poll=0)
    inotify = Inotify()
    try:
        for name in ("deleted.txt", "changes.txt"):
            os.stat(m / ADA / name)
            inotify.watch(m / ADA / name)
        inotify.watch(m / ADA)
        # a name that nobody holds goes when the kernel needs memory, and then it cannot tell
        held = os.open(m / ADA / "deleted.txt", os.O_PATH)
        change_all(m)
        m.command("refresh")
        wait_until(lambda: "appeared.txt" in os.listdir(m / ADA), "the changes")
        os.close(held)
        seen: set = set()

        def is_deleted() -> bool:
            seen.update(inotify.read(0.1))
            return ("deleted.txt", IN_DELETE_SELF) in seen

        wait_until(is_deleted, "the deletion")
        print(seen)
        # what is done here is told as everywhere
        (m / ADA / "own.txt").write_bytes(b"x")
        assert ("Ada Byron", IN_CREATE) in inotify.read(10)
    finally:
        inotify.close()


# a mount that nobody uses


def test_a_mount_that_nobody_uses_asks_rarely_until_somebody_does(drive, shell):
    m = drive(two_records(), poll=1, poll_idle=5)
    sh = shell(m / ADA)
    assert sh("cat stays.txt") == "stays\n"

    def asked() -> float:
        """When, since the last reset, the last call was made."""
        return max([r["t_ms"] for r in m.emulator.requests()], default=0)

    def rested() -> bool:
        before = asked()
        time.sleep(2.5)
        return asked() == before

    # looking after it is not using it
    wait_until(lambda: os.stat(m.path) and m.status() and rested(), "the polls to become rare")
    before = asked()
    wait_until(lambda: asked() > before, "the next one")
    m.emulator.change(added("new.txt", text="hello"))
    wait_until(lambda: "new.txt" in sh("ls"), "what came while nobody was there")
