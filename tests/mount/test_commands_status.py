# SPDX-License-Identifier: MIT
"""
Looking at mounts: status as it goes, the list of all of them, help of each command, what shells
complete, and how every command is refused that is not written as it should be.
"""

import json
import re
import signal
import subprocess

import pytest

from harness import PERSCOM, SLOW, binary, on_terminal, run, wait_until

COMMANDS = (
    "status list sync pending failed retry conflicts refresh pin unpin events cache ls-records "
    "umount check config"
).split()


@pytest.fixture
def system():
    """What the commands do with a mount is the same for all servers."""
    return PERSCOM


@pytest.mark.parametrize("command", COMMANDS)
def test_each_command_tells_its_help(attachfs, command):
    told = attachfs(command, "--help")
    assert told.stdout.startswith(f"usage: attachfs {command}") and not told.stderr
    assert "Exit status" in told.stdout
    assert attachfs(command, "-h").stdout == told.stdout


def test_every_command_has_its_help_and_no_other(attachfs):
    told = attachfs("--complete", "commands").stdout.split()
    assert told == COMMANDS


@pytest.mark.parametrize("command", [c for c in COMMANDS if c not in ("check", "config")])
def test_wrong_arguments_exit_with_2_and_the_usage(attachfs, base, command):
    result = attachfs(command, "--nonsense", base, ok=False)
    assert result.returncode == 2
    assert "--nonsense" in result.stderr and f"attachfs {command}" in result.stderr


def test_an_unknown_command_is_told_the_nearest(attachfs):
    for wrong, near in (("statsu", "status"), ("umuont", "umount"), ("synch", "sync")):
        result = attachfs(wrong, ok=False)
        assert wrong in result.stderr and f"'{near}'" in result.stderr, result.stderr


def test_a_command_without_a_path_means_the_working_directory(drive, base):
    m = drive()
    told = run(binary("attachfs"), "status", cwd=m / "users", env=m.env())
    assert json.loads(told.stdout)["source"] == m.source
    result = run(binary("attachfs"), "status", cwd=base, env=m.env(), ok=False)
    assert "not in an attachfs mount" in result.stderr and "attachfs list" in result.stderr


def test_status_can_be_watched(drive):
    m = drive()
    p = subprocess.Popen(
        [binary("attachfs"), "status", "--watch", str(m.path)],
        stdout=subprocess.PIPE,
        text=True,
        env=m.env(),
    )
    try:
        first = json.loads(p.stdout.readline())
        m.tree()
        for line in p.stdout:
            if json.loads(line)["requests"]["total"] > first["requests"]["total"]:
                break
        assert p.poll() is None
    finally:
        p.send_signal(signal.SIGINT)
        p.wait(10 * SLOW)
        p.stdout.close()


def test_watched_on_a_terminal_it_shows_rates(drive):
    m = drive()
    shown, _ = on_terminal(
        [binary("attachfs"), "status", "--watch", m.path],
        m.env(),
        lambda s: b"requests/s" in s,
    )
    assert re.search(r"traffic +up .*/s, down .*/s, \d+ requests/s", shown), shown
    assert "state     online" in shown


def test_list_shows_all_mounts_of_this_user(drive, mount, attachfs):
    m = drive(settle=600)
    other = mount(m.emulator, cache=m.base / "second")
    (m / "users/Nobody/waiting.txt").write_bytes(b"x" * 2000)
    rows = {
        row["mountpoint"]: row
        for row in map(json.loads, attachfs("list", "--json").stdout.splitlines())
    }
    assert rows[str(m.path)]["state"] == rows[str(other.path)]["state"] == "online"
    assert rows[str(m.path)]["pending"]["uploads"] == 1
    told = attachfs("list").stdout
    assert "MOUNTPOINT" in told and str(m.path) in told and m.source in told
    assert set(attachfs("--complete", "mounts").stdout.split()) >= {str(m.path), str(other.path)}
    other.same_at_end = False


def test_list_tells_dead_and_silent_mounts_from_living_ones(drive, mount, attachfs):
    m = drive()
    silent = mount(m.emulator, cache=m.base / "second")
    silent.process.send_signal(signal.SIGSTOP)
    try:
        rows = {
            row["mountpoint"]: row["state"]
            for row in map(json.loads, attachfs("list", "--json").stdout.splitlines())
        }
    finally:
        silent.process.send_signal(signal.SIGCONT)
    assert rows[str(m.path)] == "online" and rows[str(silent.path)] == "no answer"
    m.kill9(unmount=False)
    wait_until(
        lambda: any(
            row["mountpoint"] == str(m.path) and row["state"] == "dead"
            for row in map(json.loads, attachfs("list", "--json").stdout.splitlines())
        ),
        "the killed mount to be told as dead",
    )
    m.start()
