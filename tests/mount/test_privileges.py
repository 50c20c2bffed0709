# SPDX-License-Identifier: MIT
"""
A daemon has the rights of whoever mounts, and of root's those that a mount takes. What a user mounts
needs no root but fusermount3's.
"""

import os
import stat
from pathlib import Path

import pytest

from harness import PERSCOM, binary, is_mounted, run, wait_until

SYS_ADMIN, SYS_RESOURCE, DAC_OVERRIDE = 1 << 21, 1 << 24, 1 << 1
NEEDED = SYS_ADMIN | SYS_RESOURCE | DAC_OVERRIDE
ADA = "users/Ada Byron"
pytestmark = pytest.mark.skipif(os.getuid() != 0, reason="only root has something to give up")


@pytest.fixture
def system():
    return PERSCOM


def rights(text: str) -> dict:
    """Of /proc/PID/status: the sets of capabilities, and whether no program can get more."""
    lines = dict(line.split(":", 1) for line in text.splitlines() if ":" in line)
    sets = {k: int(lines[k], 16) for k in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")}
    return {**sets, "NoNewPrivs": int(lines["NoNewPrivs"])}


def rights_of(pid) -> dict:
    return rights(Path(f"/proc/{pid}/status").read_text())


def guard_of(m) -> int:
    told = run("pgrep", "-P", m.process.pid, "-x", "attachfs-guard").stdout.split()
    assert len(told) == 1
    return int(told[0])


def test_root_gives_up_what_a_mount_does_not_take(drive):
    m = drive(settle=0)
    threads = [f"{m.process.pid}/task/{t}" for t in os.listdir(f"/proc/{m.process.pid}/task")]
    for pid in [guard_of(m), *threads]:
        has = rights_of(pid)
        assert has["NoNewPrivs"] == 1
        assert has["CapInh"] == has["CapAmb"] == 0
        for which in ("CapPrm", "CapEff", "CapBnd"):
            assert not has[which] & ~NEEDED, f"{pid}: {which} {has[which]:x}"
        assert has["CapEff"] & SYS_ADMIN
    (m / ADA / "new.txt").write_bytes(b"works")
    m.terminate()  # unmounts without more
    m.start()


def test_a_token_command_may_what_it_could_elsewhere(drive, base):
    m = drive(start=False, token_file=None)
    command = base / "token-command"
    command.write_text(f"#!/bin/sh\ncat /proc/self/status >{base}/status\ncat {m.token_file}\n")
    command.chmod(0o700)
    m.options["token_command"] = command
    m.start()
    assert (m / ADA / "tiny.txt").read_bytes() == b"abc"
    ours, has = rights_of("self"), rights((base / "status").read_text())
    assert has["CapBnd"] == ours["CapBnd"] and has["NoNewPrivs"] == ours["NoNewPrivs"]
    daemon = rights_of(m.process.pid)
    assert not (daemon["CapPrm"] | daemon["CapEff"]) & ~NEEDED


@pytest.fixture
def device_for_all():
    """/dev/fuse as udev makes it; a container may have it for root only."""
    mode = stat.S_IMODE(os.stat("/dev/fuse").st_mode)
    os.chmod("/dev/fuse", 0o666)
    yield
    os.chmod("/dev/fuse", mode)


def test_a_user_mounts_works_and_unmounts_without_any_right_of_roots(drive, base, device_for_all):
    m = drive(start=False, settle=0)
    # a checkout may lie where only root may look
    program = base / "attachfs"
    program.write_bytes(Path(binary("attachfs")).read_bytes())
    program.chmod(0o755)
    for path in (m.base, m.path, m.token_file):
        os.chown(path, 65534, 65534)
    home = base / "home"
    home.mkdir(exist_ok=True)
    os.chown(home, 65534, 65534)

    def as_user(*argv, **kwargs):
        return run(*argv, user=65534, group=65534, extra_groups=[], env=m.env(), **kwargs)

    as_user(program, *m.argv()[2:])
    assert is_mounted(m.path)
    try:
        found = run("pgrep", "-u", "65534", "-f", str(m.path)).stdout.split()
        daemon = next(p for p in found if Path(f"/proc/{p}/comm").read_text() == "attachfs\n")
        has = rights_of(daemon)
        assert has["CapPrm"] == has["CapEff"] == 0
        assert as_user("cat", m / ADA / "tiny.txt").stdout == "abc"
        as_user("sh", "-c", f"echo mine >'{m / ADA}/mine.txt'")
        as_user(program, "sync", m.path)
        assert m.emulator.bytes_of(f"{ADA}/mine.txt") == b"mine\n"
        for folder, folders, files in os.walk(m.cache):
            assert {os.stat(os.path.join(folder, f)).st_uid for f in files} <= {65534}
    finally:
        as_user(program, "umount", m.path)
    assert not is_mounted(m.path)
    wait_until(lambda: not os.path.exists(f"/proc/{daemon}"), "the daemon to end")
