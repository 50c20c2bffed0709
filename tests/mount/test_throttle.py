# SPDX-License-Identifier: MIT
"""
A server that takes so many calls a minute: what is sent behind the programs' backs is spread over
the minute, so that somebody who wants something is never the one who waits.
"""

import json
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


def test_what_is_overwritten_was_looked_at_just_before(drive):
    """Nothing is handed over to wait for the limit after its record was listed."""
    files = numbered(40)
    tree = {"users": {"Ada Byron": files}, "events": {}}
    m = drive(tree=tree, toggles={"throttle": 30}, settle=0, poll=0)
    m.allow_errors("429|throttl")
    for name in files:
        (m / "users/Ada Byron" / name).write_bytes(b"other " * 300)
    wait_until(lambda: m.status()["state"] == "throttled", "the limit")
    pending = wait_until(lambda: few_in_flight(m), "the first ones to be answered")
    assert len(pending) > 12, "the others are not handed over yet"
    m.terminate()


def few_in_flight(m) -> list:
    """What is pending, once at most four of it are on their way."""
    pending = [json.loads(line) for line in open(m.path / ".attachfs/pending")]
    return pending if sum(item.get("in_flight", False) for item in pending) <= 4 else []
