# SPDX-License-Identifier: MIT
"""
Credentials that end in the middle of something, and new ones: what is cached is served, what is
written waits, one message says what to do, and once it is done everything goes on by itself.
"""

import errno
import json
import os
import subprocess
import time
from dataclasses import replace

import pytest

from harness import (
    ENTERPRISE_TESTER,
    PERSCOM,
    SERVICEMAX,
    numbered,
    raises_errno,
    random_bytes,
    small_tree,
    wait_until,
)
from test_servicemax import Api

ADA = "users/Ada Byron"
TROUBLE = r"40[123]|auth|credential|password|token|denied|EACCES|right|subscription|waits for you|kept"
FIRST, SECOND = "first-token-4711", "second-token-4712"
# tokens that may read, and all
RIGHTS = {
    "perscom": ("read-token-4711=view:*", "write-token-4712=*"),
    "servicemax": ("read-token-4711=read", "write-token-4712=*"),
}


def by_token(drive, system, tokens, **options):
    """A mount with the first of the tokens."""
    more = {"user": None, "password_file": None} if system.password else {}
    m = drive(tokens=tokens, start=False, settle=0, poll=0, **more, **options)
    m.options.setdefault("token_file", m.token_file)
    m.system = replace(system, password=None)
    m.allow_errors(TROUBLE)
    m.write_token(tokens[0].partition("=")[0])
    return m


def put(path, text: str, how: str) -> None:
    """As an echo does it, as an editor does, or as a mounted secret of a container."""
    if how == "written":
        path.write_text(text + "\n")
        return
    if how == "turned":
        turn(path, text)
        return
    other = path.with_name("other")
    other.write_text(text + "\n")
    other.chmod(0o600)
    other.rename(path)


def turn(path, text: str) -> None:
    """The name leads through a symbolic link beside it, which is turned to another directory."""
    new = path.with_name(f"..{text[:5]}")
    new.mkdir()
    (new / path.name).write_text(text + "\n")
    (new / path.name).chmod(0o600)
    link = path.with_name("..tmp")
    link.symlink_to(new.name)
    link.rename(path.with_name("..data"))
    if not path.is_symlink():
        path.unlink()
        path.symlink_to(f"..data/{path.name}")


@pytest.mark.parametrize("how", ["written", "replaced", "turned"])
@pytest.mark.parametrize("system", [PERSCOM, SERVICEMAX], ids=lambda s: s.name)
def test_a_better_token_in_the_file_is_taken_at_once(drive, system, how):
    """A 403 is no 401: nothing is tried again before there are other credentials."""
    m = by_token(drive, system, RIGHTS[system.name])
    if how == "turned":
        turn(m.token_file, m.token_file.read_text().strip())
    m.start()
    (m / "users/Nobody/new.txt").write_bytes(b"new " * 1000)
    (m / ADA / "notes.txt").write_bytes(b"other " * 1000)
    m.sync(ok=False)
    assert m.status()["failed"] == 2
    if system is PERSCOM:
        words = [json.loads(line)["message"] for line in open(m.path / ".attachfs/failed")]
        assert all("the credentials need the right " in w for w in words), words
    put(m.token_file, "write-token-4712", how)
    wait_until(lambda: not m.status()["failed"] and m.idle(), "the queue to drain by itself")
    assert m.emulator.bytes_of("users/Nobody/new.txt") == b"new " * 1000
    assert m.emulator.bytes_of(f"{ADA}/notes.txt") == b"other " * 1000
    m.emulator.token = "write-token-4712"


@pytest.mark.parametrize("system", [ENTERPRISE_TESTER], ids=lambda s: s.name)
def test_a_better_password_in_the_file_is_taken_at_once(drive, system):
    tokens = ["reader:read-only-4711=view", "reader:read-write-4712=view,*"]
    m = drive(tokens=tokens, start=False, settle=0, poll=0, user="reader")
    m.system = replace(system, password="4711")
    m.allow_errors(TROUBLE)
    m.password_file.write_text("read-only-4711\n")
    m.start()
    (m / "users/Nobody/new.txt").write_bytes(b"new " * 1000)
    m.sync(ok=False)
    m.password_file.write_text("read-write-4712\n")
    wait_until(lambda: not m.status()["failed"] and m.idle(), "the queue to drain by itself")
    assert m.emulator.bytes_of("users/Nobody/new.txt") == b"new " * 1000
    assert "4711" not in m.log() and "4712" not in m.log()


@pytest.mark.parametrize("source", ["file", "command"])
@pytest.mark.parametrize("system", [SERVICEMAX], ids=lambda s: s.name)
def test_a_token_that_ends_is_read_again_where_it_came_from(drive, system, readers, scratch, source):
    """The state, its message and its events while there is no good one."""
    m = by_token(drive, system, [FIRST, SECOND])
    token = m.token_file
    if source == "command":
        token = scratch / "token"
        put(token, FIRST, "written")
        m.options.update(token_file=None, token_command=f"cat {token}")
    m.start()
    cached = (m / ADA / "notes.txt").read_bytes()
    events = subprocess.Popen(
        ["cat", m.path / ".attachfs/events"], stdout=subprocess.PIPE, text=True
    )
    readers.processes.append(events)
    Api(m).revoke(FIRST)
    (m / "users/Nobody/new.txt").write_bytes(b"queued")
    status = wait_until(lambda: (s := m.status())["state"] == "auth" and s, "the state to say so")
    assert "token_" + source in status["message"], status["message"]
    assert FIRST not in status["message"]
    for line in events.stdout:
        if json.loads(line)["event"] == "auth":
            break
    assert (m / ADA / "notes.txt").read_bytes() == cached == small_tree()["users"]["Ada Byron"][
        "notes.txt"
    ]
    put(token, SECOND, "written")
    if source == "command":
        m.command("retry")  # nobody can see that it would print something else by now
    wait_until(lambda: m.idle() and m.status()["state"] == "online", "the queue to drain")
    assert m.emulator.bytes_of("users/Nobody/new.txt") == b"queued"
    m.emulator.token = SECOND


def readable(f) -> bool:
    try:
        return bool(f.read(1))
    except OSError:
        return False


@pytest.mark.parametrize("what", ["listing", "stream", "upload", "batch"])
def test_credentials_that_end_in_the_middle_cost_nothing(drive, system, what):
    """A login is renewed; a token that stays the same is tried again a little later."""
    tree = {
        "users": {"Ada Byron": {"big.bin": random_bytes(9_000_000), **numbered(30)}, "Nobody": {}},
        "events": {"Camp": {}},
    }
    m = drive(tree=tree, poll=0, settle=0)
    m.allow_errors(TROUBLE)
    data = tree["users"]["Ada Byron"]["big.bin"]
    rule = {**system.api, "count": 1, "status": 401, "body": system.refusal("Who are you?")}
    names = sorted(n for n in os.listdir(m / ADA) if n.startswith("file"))
    if what == "listing":
        m.emulator.faults(rule)
        m.command("refresh", ok=None)
        os.listdir(m / "events")
    elif what == "stream":
        with open(m / ADA / "big.bin", "rb", buffering=0) as f:
            f.read(4096)
            m.emulator.faults(rule)
            if system is ENTERPRISE_TESTER:  # the password is still the same: no is no
                with raises_errno(errno.EACCES):
                    f.readall()
                wait_until(lambda: readable(f), "reading to work again")
            assert f.seek(4096) and f.readall() == data[4096:]
    elif what == "upload":
        m.emulator.faults({**rule, "skip": 3})
        for i in range(8):
            (m / f"users/Nobody/{i}.txt").write_bytes(b"%d" % i * 2000)
    else:
        m.emulator.faults(rule)
        for name in names:
            os.rename(m / ADA / name, m / ADA / f"renamed {name}")
    m.sync()
    assert not m.status()["failed"]
    m.emulator.heal()
    m.command("refresh")
    assert m.status()["state"] == "online"


@pytest.mark.parametrize("system", [PERSCOM], ids=lambda s: s.name)
def test_a_lapsed_subscription_is_said_and_what_is_written_waits_for_it(drive, system):
    m = drive(settle=0, poll=0)
    m.allow_errors(TROUBLE)
    cached = (m / ADA / "notes.txt").read_bytes()
    m.emulator.toggle(subscription="lapsed")
    (m / "users/Nobody/new.txt").write_bytes(b"new " * 1000)
    status = wait_until(lambda: (s := m.status())["state"] == "auth" and s, "the state to say so")
    assert "no subscription (402)" in status["message"] and "renew it" in status["message"]
    assert (m / ADA / "notes.txt").read_bytes() == cached
    assert m.status()["pending"]["uploads"] == 1 and not m.status()["failed"]
    m.emulator.toggle(subscription="ok")
    m.command("retry")
    m.sync()
    assert m.status()["state"] == "online"


def test_what_waits_for_credentials_is_not_sent_again_and_again(drive, system):
    m = drive(tree={"users": {"Nobody": {}}, "events": {}}, settle=0, poll=0)
    m.allow_errors(TROUBLE)
    os.listdir(m / "users/Nobody")
    refused = {"status": 401, "body": system.refusal("Who are you?")}
    m.emulator.faults({**system.api, **refused})
    files = numbered(60)
    for name, data in files.items():
        (m / "users/Nobody" / name).write_bytes(data)
    wait_until(lambda: m.status()["state"] == "auth", "the state to say so")
    wait_until(lambda: not in_flight(m), "the first ones to be refused")
    m.emulator.reset()
    time.sleep(2)
    assert m.emulator.summary()["api"] < 15, m.emulator.summary()
    assert m.status()["pending"]["uploads"] == 60 and not m.status()["failed"]
    m.emulator.heal()
    m.command("retry")
    m.sync()
    assert len(m.emulator.folder("users/Nobody")) == 60


def in_flight(m) -> bool:
    return any(json.loads(line).get("in_flight") for line in open(m.path / ".attachfs/pending"))
