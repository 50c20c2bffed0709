# SPDX-License-Identifier: MIT
"""
Waiting for the server: the bar, a part of the mount, a limit; and unmounting without waiting.
"""

import json
import os
import re
import time

import pytest

from harness import PERSCOM, SLOW, binary, is_mounted, on_terminal, refusal, run


SLOWLY = {"port": "api", "method": "POST", "match": "/attachments", "latency_ms": 1500}


@pytest.fixture
def system():
    return PERSCOM


def test_the_bar_tells_files_bytes_and_rate(drive):
    m = drive(settle=600, slots=2)
    m.emulator.faults(latency_ms=120)
    for i in range(6):
        (m / f"users/Nobody/{i}.bin").write_bytes(bytes([i]) * 700_000)
    shown, status = on_terminal([binary("attachfs"), "sync", m.path], m.env())
    assert status == 0
    last = shown.replace("\x1b[K", "").strip().split("\r")[-1].strip()
    assert last == "[####################] 6 of 6 files, 4.0 MiB of 4.0 MiB", repr(last)
    assert re.search(r"[\d.]+ [KM]iB/s", shown), shown
    m.emulator.heal()


def test_lines_for_a_program_end_with_done(drive):
    m = drive(settle=600)
    (m / "users/Nobody/new.bin").write_bytes(b"x" * 3000)
    lines = [json.loads(line) for line in m.sync().stdout.splitlines()]
    assert lines[-1]["done"] is True and lines[-1]["uploads"] == 0
    assert lines[-1]["bytes_sent"] == 3000 and lines[-1]["failed"] == 0


def test_only_a_part_can_be_waited_for(drive):
    m = drive(settle=600)
    # Grace's never gets through; Ada's and Nobody's do
    m.emulator.faults(
        {"port": "api", "method": "POST", "match": "/attachments", "skip": 0, "count": -1,
         "status": 422, "body": refusal("no")},
    )  # fmt: skip
    m.allow_errors("422|refused|parked")
    (m / "users/Grace Hopper/refused.txt").write_bytes(b"x" * 2000)
    assert "retry" in m.sync(ok=False).stderr
    m.emulator.heal()
    (m / "users/Nobody/wanted.txt").write_bytes(b"y" * 2000)
    told = m.command("sync", "--path", m / "users/Nobody")
    assert m.emulator.bytes_of("users/Nobody/wanted.txt") == b"y" * 2000
    assert json.loads(told.stdout.splitlines()[-1])["failed"] == 0, "not in that part"
    m.command("sync", "--path", m / "users/Nobody/wanted.txt")
    run(binary("attachfs"), "sync", "--path", m / "users/Nobody", env=m.env())
    run(binary("attachfs"), "sync", "--path", "users/Nobody", m.path, env=m.env())
    whole = m.command("sync", "--path", m / "users", ok=False)
    assert json.loads(whole.stdout.splitlines()[-1])["failed"] == 1
    missing = m.command("sync", "--path", m / "users/nobody at all", ok=False)
    assert "nobody at all" in missing.stderr and "--path" in missing.stderr
    m.command("retry")
    m.sync()


def test_a_limit_ends_the_waiting_with_a_failure(drive):
    m = drive(settle=600)
    m.emulator.faults(SLOWLY)
    (m / "users/Nobody/slow.txt").write_bytes(b"x" * 2000)
    begun = time.monotonic()
    result = m.command("sync", "--timeout", "0.5", ok=False)
    assert result.returncode == 1 and time.monotonic() - begun < 10 * SLOW
    assert "1 are not on the server after 0.5 s" in result.stderr
    assert m.command("sync", "--timeout", "soon", ok=False).returncode == 2


def test_pending_for_a_person_names_the_files(drive):
    m = drive(settle=600)
    (m / "users/Nobody/waiting.txt").write_bytes(b"x" * 2000)
    shown, status = on_terminal([binary("attachfs"), "pending", m.path], m.env())
    assert status == 0 and "upload  users/Nobody/waiting.txt: waits" in shown, shown
    line = json.loads(m.command("pending").stdout)
    assert line["path"] == "users/Nobody/waiting.txt" and line["what"] == "upload"


# umount


def test_umount_now_says_what_is_left_and_keeps_it(drive):
    m = drive(settle=600)
    (m / "users/Nobody/left.txt").write_bytes(b"x" * 2000)
    m.emulator.faults(SLOWLY)
    told = m.command("umount", "--now", ok=False)
    assert "left.txt" in told.stderr and "next mount" in told.stderr
    m._ended()
    assert m.exit_status == 0 and not is_mounted(m.path)
    m.start()
    assert (m / "users/Nobody/left.txt").read_bytes() == b"x" * 2000
    m.sync()
    assert m.emulator.bytes_of("users/Nobody/left.txt") == b"x" * 2000


def test_umount_lazy_takes_a_busy_directory_away(drive):
    m = drive(settle=600)
    (m / "users/Nobody/new.txt").write_bytes(b"x" * 2000)
    with open(m / "users/Ada Byron/notes.txt", "rb") as f:
        assert "--lazy" in m.command("umount", ok=False).stderr
        m.command("umount", "--lazy")
        assert not is_mounted(m.path)
        assert f.read(6) == b"line 0", "who has it open may go on"
    m._ended()
    assert m.exit_status == 0
    assert m.emulator.bytes_of("users/Nobody/new.txt") == b"x" * 2000


def test_umount_gives_up_sending_at_its_limit(drive):
    m = drive(settle=600)
    m.emulator.faults(SLOWLY)
    (m / "users/Nobody/slow.txt").write_bytes(b"x" * 2000)
    told = m.command("umount", "--timeout", "0.5", ok=False)
    assert "slow.txt" in told.stderr
    m._ended()
    assert m.exit_status == 0 and not is_mounted(m.path)
    m.emulator.heal()
    m.start()
    m.sync()


@pytest.mark.parametrize("when", [0, 4_102_444_900])
def test_a_time_that_the_server_cannot_hold_keeps_nobody_waiting(drive, when):
    """PERSCOM's end in 2038 and begin after 1970 (P-24)."""
    m = drive()
    os.utime(m / "users/Ada Byron/notes.txt", (when, when))
    m.command("sync", "--timeout", "20")
    (m / "users/Ada Byron/new.txt").write_bytes(b"x" * 2000)
    os.utime(m / "users/Ada Byron/new.txt", (when, when))
    m.command("sync", "--timeout", "20")
    m.remount()
    for name in ("notes.txt", "new.txt"):
        assert os.stat(m / f"users/Ada Byron/{name}").st_mtime == when
