# SPDX-License-Identifier: MIT
"""
A server that takes so many calls a minute: what is sent behind the programs' backs is spread over
the minute, so that somebody who wants something is never the one who waits.
"""

import os
import pty
import re
import subprocess

import pytest

from harness import PERSCOM, binary, numbered, wait_until


@pytest.fixture
def system():
    return PERSCOM


def told_on_a_terminal(m) -> str:
    ours, its = pty.openpty()
    subprocess.run([binary("attachfs"), "status", m.path], stdout=its, env=m.env(), check=True)
    os.close(its)
    told = os.read(ours, 65536).decode()
    os.close(ours)
    return told


def test_a_person_gets_through_while_uploads_wait_for_the_limit(drive):
    tree = {"users": {"Ada Byron": numbered(5), "Nobody": {}}, "events": {"Camp": numbered(5)}}
    m = drive(tree=tree, toggles={"throttle": 40}, settle=0, poll=0)
    m.allow_errors("429|throttl")
    os.listdir(m / "users/Nobody")
    for name, data in numbered(60, name="new-%02d.txt").items():
        (m / "users/Nobody" / name).write_bytes(data)
    status = wait_until(lambda: (s := m.status())["state"] == "throttled" and s, "the limit")
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", status["until"])
    assert re.search(r"^state +throttled until \d\d:\d\d:\d\d\r?$", told_on_a_terminal(m), re.M)
    for collection, record in (("events", "Camp"), ("users", "Ada Byron")):
        for name in os.listdir(m / collection / record):
            assert (m / collection / record / name).read_bytes() == tree[collection][record][name]
    m.command("refresh")
    assert m.status()["state"] == "throttled" and not m.idle(), "all of it happened meanwhile"
    assert not [r for r in m.emulator.requests() if r["status"] == 429]
    m.terminate()  # what is left waits for the next mount
