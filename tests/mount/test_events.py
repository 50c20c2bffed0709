# SPDX-License-Identifier: MIT
"""
.attachfs/events for those who follow it: a matter of the kernel and of programs, so of one server. What
is told there is in test_changes.py.
"""

import json
import os
import subprocess
import threading
import time

import pytest

from harness import PERSCOM, added, binary, one_record, wait_until

ADA = "users/Ada Byron"


@pytest.fixture
def system():
    return PERSCOM


FOLLOWERS = {
    "tail": ["tail", "-f"],
    "tail-n0": ["tail", "-n", "0", "-f"],
    "cat": ["cat"],
    "head": ["head", "-n", "2"],
    "shell": ["bash", "-c", 'while read -r l; do echo "$l"; done < "$0"'],
    "command": None,
}


@pytest.mark.parametrize("how", FOLLOWERS)
def test_events_can_be_followed_by(drive, how):
    m = drive(one_record(), poll=0)
    os.listdir(m / ADA)
    path = str(m / ".attachfs/events")
    argv = FOLLOWERS[how] or [binary("attachfs"), "events"]
    follower = subprocess.Popen([*argv, path], stdout=subprocess.PIPE, text=True, env=m.env())
    lines: list = []
    seen = threading.Thread(target=lambda: [lines.append(l) for l in follower.stdout])
    seen.start()
    try:
        if how not in ("tail-n0", "head"):  # head tells at its end
            wait_until(lambda: lines, "what is there already")

        # again and again: when one that wants only what is new begins to listen is its affair
        def is_told() -> bool:
            m.emulator.change(added(f"new-{time.monotonic()}.txt", text="hello"))
            m.command("refresh")
            return any("new-" in l for l in lines)

        wait_until(is_told, "the new event")
    finally:
        follower.kill()
        follower.wait()
        seen.join()
    assert all("event" in json.loads(l) for l in lines)


def test_who_falls_behind_is_told_and_goes_on(drive):
    m = drive(one_record(), poll=0)
    os.listdir(m / ADA)
    path = m / ".attachfs/events"
    with open(path, "rb", buffering=0) as f:
        f.read(10)
        # long lines, until the first are not kept any more
        name = "n" * 200
        for i in range(12):
            m.emulator.change(*(added(f"{name}-{i}-{j}", text="x") for j in range(200)))
            m.command("refresh")
        size = os.stat(path).st_size
        assert size > 512 << 10
        line = f.readline()
        assert json.loads(line)["event"] == "lost"
        rest = b""
        while not rest.endswith(b"\n") or b"-11-199" not in rest:
            rest += f.read(1 << 16)
    assert all("event" in json.loads(l) for l in rest.splitlines())
    assert 256 << 10 <= len(rest) <= 512 << 10
