# SPDX-License-Identifier: MIT
"""
The time of day jumps, by a day and by a year, forward and back: while readers wait, uploads are on their
way or throttled, tokens are cached, polls are due. Nobody waits longer for it, nothing is lost or sent
twice, and the times of files are no business of the cache.
"""

import errno
import os

import pytest

from crowd import Crowd
from harness import SLOW, added, binary, random_bytes, wait_until
from test_cache import written_down

ADA = "users/Ada Byron"
DAY = 86400
JUMPS = pytest.mark.parametrize("jump_s", [-366 * DAY, -DAY, DAY, 366 * DAY])


class Clock:
    """The daemon's, by a library in front of libc's; what counts from the machine's start is as it is."""

    def __init__(self, file):
        self.file = file
        self.environment = {
            "LD_PRELOAD": binary("clockshift.so"),
            "CLOCKSHIFT_FILE": str(file),
            "ASAN_OPTIONS": "verify_asan_link_order=0",
        }
        self.jump(0)

    def jump(self, seconds: int):
        """So far from the right time."""
        new = self.file.with_suffix(".new")
        new.write_text(str(seconds))
        new.rename(self.file)


@pytest.fixture
def clock(scratch):
    return Clock(scratch / "shift")


def with_clock(drive, clock, **options):
    m = drive(start=False, **options)
    m.environment = clock.environment
    return m.start()


def parked_calls(m) -> int:
    return m.status()["parked_calls"]


@JUMPS
def test_nobody_waits_longer(drive, clock, jump_s):
    m = with_clock(drive, clock, generate=["users:1:70:5000"], poll=0, timeout=3, settle=0)
    m.same_at_end = False
    m.allow_errors("timed out|deadline|ETIMEDOUT|timeout|time|stall|answer|cut")
    record = m / f"users/{os.listdir(m / 'users')[0]}"
    names = sorted(os.listdir(record))
    assert len((record / names[-1]).read_bytes()) == 5000
    for name in names:
        assert (record / name).stat().st_size == 5000
    m.emulator.faults({**m.system.blob, "hang": True})
    waiting = Crowd([record / name for name in names[:60]])
    try:
        wait_until(lambda: parked_calls(m) >= 60, "all readers to wait")
        clock.jump(jump_s)
        assert set(waiting.results(60 * SLOW)) == {errno.ETIMEDOUT}
    finally:
        waiting.end()
    assert len((record / names[-1]).read_bytes()) == 5000
    m.emulator.heal()
    (record / "new.txt").write_bytes(b"after the jump" * 100)
    m.sync()
    assert m.emulator.bytes_of(f"users/{record.name}/new.txt") == b"after the jump" * 100


@JUMPS
def test_what_is_pending_throttled_or_due_goes_on(drive, clock, jump_s):
    m = with_clock(drive, clock, poll=1, settle=1)
    m.allow_errors("429|throttl|rate limit")
    there = {p: m.emulator.blob(a["id"]) for p, a in m.emulator.files().items()}
    times = {p: os.stat(m / p).st_mtime_ns for p in there}
    assert (m / ADA / "large.bin").read_bytes() == there[f"{ADA}/large.bin"]
    os.listdir(m / "users/Nobody")
    m.emulator.faults({**m.system.upload, "count": 1, "status": 429, "headers": {"Retry-After": "1"}})
    m.emulator.reset()
    for i in range(3):
        (m / "users/Nobody" / f"{i}.bin").write_bytes(random_bytes(3000, i))
    clock.jump(jump_s)
    (m / "users/Nobody/later.bin").write_bytes(b"later" * 500)
    m.sync()
    clock.jump(-jump_s)
    for i in range(3):
        assert m.emulator.bytes_of(f"users/Nobody/{i}.bin") == random_bytes(3000, i)
    m.emulator.change(added("theirs.txt"))
    wait_until(lambda: "theirs.txt" in os.listdir(m / ADA), "a poll")
    assert m.status()["state"] == "online"
    for path, when in times.items():
        assert os.stat(m / path).st_mtime_ns == when, path
    logins = [r for r in m.emulator.requests() if "login" in r["path"] or "token" in r["path"]]
    assert len(logins) <= 3, "a token is not asked for again and again"
    downloads = len(m.emulator.downloads())
    assert (m / ADA / "large.bin").read_bytes() == there[f"{ADA}/large.bin"]
    assert len(m.emulator.downloads()) == downloads, "it is in the cache"


@JUMPS
@pytest.mark.parametrize("end", ["lives", "killed"])
def test_what_arrived_though_its_answer_was_lost_is_not_sent_twice(drive, clock, system, jump_s, end):
    """The clock is wrong when the call leaves, and right when its fate is looked into; and the other way round."""
    m = with_clock(drive, clock, poll=0, settle=0)
    m.allow_errors(".")
    before = set(m.emulator.files())
    os.listdir(m / "users/Nobody")
    m.emulator.faults(system.reads, {**system.upload, "count": 1, "drop_reply": True})
    clock.jump(jump_s)
    (m / "users/Nobody/new.bin").write_bytes(random_bytes(5000, "new"))
    wait_until(lambda: m.emulator.struck(1), "the answer to be lost")
    clock.jump(0 if end == "killed" else -jump_s)
    if end == "killed":
        m.kill9()
        m.emulator.heal()
        m.start()
    m.emulator.heal()
    m.command("retry", ok=None)
    m.sync()
    assert set(m.emulator.files()) == before | {"users/Nobody/new.bin"}
    assert m.emulator.bytes_of("users/Nobody/new.bin") == random_bytes(5000, "new")


@JUMPS
def test_a_mount_of_another_year_starts_from_what_the_last_one_left(drive, clock, jump_s):
    m = with_clock(drive, clock, poll=0, settle=600)
    there = m.tree()
    sizes = {len(data) for data in there.values() if data}
    wait_until(lambda: all(written_down(m, size) for size in sizes), "the rows of what was read")
    (m / "users/Nobody/new.bin").write_bytes(random_bytes(5000, "new"))
    m.kill9()
    clock.jump(jump_s)
    m.start()
    m.emulator.reset()
    assert {p: d for p, d in m.tree().items() if p in there} == there
    assert not m.emulator.downloads(), m.said()
    m.sync()
    assert m.emulator.bytes_of("users/Nobody/new.bin") == random_bytes(5000, "new")
