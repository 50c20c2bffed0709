# SPDX-License-Identifier: MIT
"""
A token_command= that is not there, fails, hangs, floods or dies, at the start and when a token has ended:
the reason and the remedy are told, nothing hangs, no process is left, and what waits goes when it works
again.
"""

import os
import resource
import subprocess
from dataclasses import replace

import pytest

from harness import PERSCOM, SERVICEMAX, SLOW, is_mounted, run, wait_until
from test_servicemax import Api

ADA = "users/Ada Byron"
TROUBLE = r"40[13]|auth|credential|token|denied|EACCES|command|status|waits for you|kept"
FIRST, SECOND = "first-token-4711", "second-token-4712"

# what is done instead of printing a token -> words that tell
BROKEN = {
    "not there": ("/nonexistent/program", "127"),
    "not executable": ("/dev/null", "126"),
    "fails": ("echo first-token-4711; exit 1", "status 1"),
    "hangs": ("sleep 1000", "did not end"),
    "hangs with a child": ("sleep 1000 & wait", "did not end"),
    "leaves a child that holds the output": ("sleep 1000 & echo x", "did not end"),
    "prints a lot": ("head -c 1000000 /dev/zero | tr '\\0' x", "more than"),
    "prints nothing": ("true", "empty"),
    "prints control characters": (r"printf 'a\001b'", "control characters"),
    "is killed": ("kill -9 $$", "signal 9"),
}


def by_command(drive, system, scratch, command: str, **options):
    """A mount whose token comes from @scratch/token by a command, or from @command, if there is such a file."""
    by_token = system in (PERSCOM, SERVICEMAX)  # the others log in with what the command prints
    (scratch / "token").write_text((FIRST if by_token else system.password) + "\n")
    script = scratch / "command"
    script.write_text(f"if [ -e {scratch}/broken ]; then . {scratch}/broken; else cat {scratch}/token; fi\n")
    (scratch / "instead").write_text(command + "\n")
    tokens = [FIRST, SECOND] if by_token else []
    m = drive(tokens=tokens, start=False, settle=0, poll=0, **options)
    if by_token:
        m.options["user"] = None
    m.options.update(token_file=None, password_file=None, token_command=f"sh {script}")
    m.system = replace(system, password=None)
    m.allow_errors(TROUBLE)
    return m


def breaks(scratch, broken: bool = True):
    if broken:
        os.rename(scratch / "instead", scratch / "broken")
    else:
        os.rename(scratch / "broken", scratch / "instead")


def children(pid: int) -> list:
    """Without the guard, which is a process of its own."""
    found = run("ps", "-o", "pid=,stat=,args=", "--ppid", pid, ok=None).stdout.splitlines()
    return [line for line in found if "attachfs" not in line]


def shown(m) -> str:
    return m.status().get("message", "")


@pytest.mark.parametrize("how", BROKEN)
@pytest.mark.parametrize("system", [PERSCOM, SERVICEMAX], ids=lambda s: s.name)
def test_a_start_without_a_token_says_why(drive, system, scratch, how):
    """The first mount of a source; after one that worked, it starts from what it has."""
    command, words = BROKEN[how]
    m = by_command(drive, system, scratch, command, timeout=3)
    breaks(scratch)
    process = m.process = m.spawn()
    wait_until(lambda: process.poll() is not None or is_mounted(m.path), "an answer", 60)
    assert process.poll() == 1, m.said()
    m.process = None
    said = m.output.read_text()
    assert words in said and "token_command" in said, said
    breaks(scratch, False)
    m.start()
    assert (m / ADA / "tiny.txt").read_bytes() == b"abc"


@pytest.mark.parametrize("how", ["fails", "hangs"])
def test_a_start_from_the_ledger_goes_on_without_a_token(drive, system, scratch, how):
    """The command may want the network, which is not there either."""
    command, words = BROKEN[how]
    m = by_command(drive, system, scratch, command, timeout=3)
    m.start()
    cached = (m / ADA / "notes.txt").read_bytes()
    m.umount()
    breaks(scratch)
    m.start()
    assert m.status()["state"] == "auth" and words in shown(m) and "token_command=" in shown(m)
    assert (m / ADA / "notes.txt").read_bytes() == cached
    (m / "users/Nobody/new.txt").write_bytes(b"queued")
    breaks(scratch, False)
    m.command("retry")
    m.sync()
    assert m.emulator.bytes_of("users/Nobody/new.txt") == b"queued"
    assert m.status()["state"] == "online"


@pytest.mark.parametrize("how", BROKEN)
@pytest.mark.parametrize("system", [SERVICEMAX], ids=lambda s: s.name)
def test_a_token_that_ends_and_no_other_to_be_had(drive, system, scratch, how):
    command, words = BROKEN[how]
    m = by_command(drive, system, scratch, command, timeout=3)
    m.start()
    cached = (m / ADA / "notes.txt").read_bytes()
    breaks(scratch)
    Api(m).revoke(FIRST)
    (m / "users/Nobody/new.txt").write_bytes(b"queued")
    wait_until(lambda: m.status()["state"] == "auth" and words in shown(m), "the state and the reason", 60)
    assert "token_command=" in shown(m), shown(m)
    assert (m / ADA / "notes.txt").read_bytes() == cached
    assert m.status()["pending"]["uploads"] == 1 and not m.status()["failed"]
    wait_until(lambda: not children(m.process.pid), "no process to be left")
    assert sum(" error " in line for line in m.log().splitlines()) <= 3, m.log()
    breaks(scratch, False)
    (scratch / "token").write_text(SECOND + "\n")
    m.command("retry")
    m.sync()
    assert m.emulator.bytes_of("users/Nobody/new.txt") == b"queued"
    m.emulator.token = SECOND
