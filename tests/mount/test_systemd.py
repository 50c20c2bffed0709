# SPDX-License-Identifier: MIT
"""
Mounted by the system: mount(8) and its helper, and systemd, by its protocol of readiness and by a
real `systemd --user` that runs the unit. That needs a system booted with systemd, or root, who can
make it look like one for as long as the test takes.
"""

import fcntl
import os
import signal
import socket
import subprocess
from pathlib import Path

import pytest

from harness import (
    PERSCOM,
    SLOW,
    binary,
    clean_environment,
    is_mounted,
    lazy_unmount,
    run,
    wait_until,
)

SCRIPTS = Path(__file__).resolve().parents[2] / "scripts"
BOOTED = Path("/run/systemd/system")
MANAGER = next(filter(os.path.exists, ("/usr/lib/systemd/systemd", "/lib/systemd/systemd")), None)


@pytest.fixture
def system():
    return PERSCOM


# What Type=notify stands on


def listen(path):
    s = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    s.settimeout(30 * SLOW)
    s.bind(path)
    return s


def test_readiness_status_and_end_are_told(mount, emulator, base):
    """On an abstract socket; the real one below has a path."""
    server = emulator(tree={"users": {"Ada Byron": {"a.txt": b"hello"}}, "events": {}})
    name = f"\0{base}/notify"
    told = listen(name)
    m = mount(
        server, start=False, environment={"NOTIFY_SOCKET": name.replace("\0", "@")}, settle=600
    )
    process = m.spawn()
    m.process = process
    first = told.recv(4096).decode()
    assert "READY=1\n" in first and f"STATUS={m.source}: online, 0 to send" in first
    assert sorted(os.listdir(m.path)) == ["events", "users"], "ready is: it can be listed"
    (m / "users/Ada Byron/new.txt").write_bytes(b"x" * 2000)
    assert "1 to send (2 KiB)" in told.recv(4096).decode()
    m.sync()
    while "0 to send" not in told.recv(4096).decode():
        pass
    m.terminate()
    while "STOPPING=1" not in (last := told.recv(4096).decode()):
        pass
    assert "READY" not in last
    told.close()
    m.start()


def test_a_broken_notify_socket_is_no_reason_not_to_mount(drive, base):
    m = drive(environment={"NOTIFY_SOCKET": f"{base}/nobody"})
    m.allow_errors("NOTIFY_SOCKET")
    assert (m / "users/Ada Byron/tiny.txt").read_bytes() == b"abc"


def test_systemd_finds_nothing_wrong_with_the_units(base):
    """
    The units of the system, which need a system that was booted with systemd, are only looked at;
    those of a user are run below.
    """
    if not MANAGER:
        pytest.skip("systemd is not installed")
    for unit in (SCRIPTS / "systemd").iterdir():
        name = unit.name.replace("@", "@work").replace(".in", "")
        text = unit.read_text().replace("@bindir@", str(Path(binary("attachfs")).parent))
        # what it runs by name is not installed here
        (base / name).write_text(text.replace("=attachfs ", f"={binary('attachfs')} "))
    env = clean_environment(base, XDG_RUNTIME_DIR=str(base), SYSTEMD_UNIT_PATH=f"{base}:")
    users = [base / n for n in ("attachfs@work.service", "attachfs-send@work.service")]
    users.append(base / "attachfs-send@work.timer")
    systems = [base / "mnt-perscom.mount", base / "mnt-perscom.automount"]
    for argv in (["--user", *users], systems):
        told = run("systemd-analyze", "verify", "--man=no", *argv, env=env, cwd=base)
        assert not told.stderr, told.stderr


# A real one


@pytest.fixture
def manager(base):
    """A `systemd --user` of the test's own: systemctl(...), and where its units are."""
    if not MANAGER:
        pytest.skip("systemd is not installed")
    # one such test at a time on this machine
    lock = os.open("/run", os.O_RDONLY | os.O_DIRECTORY)
    fcntl.flock(lock, fcntl.LOCK_EX)
    faked = not BOOTED.exists()
    if faked and os.getuid() != 0:
        pytest.skip("not booted with systemd, and not root")
    if faked:
        BOOTED.mkdir(parents=True)
    home, runtime = base / "home", base / "run"
    units = home / ".config/systemd/user"
    units.mkdir(parents=True)
    runtime.mkdir(mode=0o700)
    env = clean_environment(base, XDG_RUNTIME_DIR=str(runtime), HOME=str(home))
    log = open(base / "systemd.log", "wb")
    p = subprocess.Popen(
        [MANAGER, "--user", "--log-target=console"], env=env, stdout=log, stderr=log
    )

    def systemctl(*argv, **kwargs):
        return run("systemctl", "--user", *argv, env=env, **kwargs)

    try:
        wait_until(
            lambda: p.poll() is not None or (runtime / "systemd/private").exists(),
            "systemd --user to run",
        )
        if p.poll() is not None:
            pytest.skip(f"systemd --user does not run here: {(base / 'systemd.log').read_text()}")
        yield systemctl, units
    finally:
        if p.poll() is None:
            p.send_signal(signal.SIGRTMIN + 24)  # exit, stopping all
            try:
                p.wait(20 * SLOW)
            except subprocess.TimeoutExpired:
                p.kill()
                p.wait()
        log.close()
        if faked:
            BOOTED.rmdir()
        os.close(lock)


@pytest.fixture
def service(manager, emulator, token, base):
    """
    The user's unit for a section [work], with changes to it: (server, mountpoint, what `systemctl
    show` says).
    """
    systemctl, units = manager
    server = emulator(tree={"users": {"Ada Byron": {"a.txt": b"hello"}}, "events": {}})
    mnt = base / "home/work"
    config = base / "home/.config/attachfs"
    config.mkdir(parents=True)
    (config / "config").write_text(
        f"[work]\nsource = {server.system.source(server.api)}\ntoken_file = {token}\n"
        f"cache_dir = {base}/cache\nsettle = 600\n"
    )

    def make(**changes):
        unit = (SCRIPTS / "systemd/attachfs@.service.in").read_text()
        unit = unit.replace("@bindir@", str(Path(binary("attachfs")).parent))
        for old, new in {"RestartSec=5": "RestartSec=0.1", **changes}.items():
            assert old in unit
            unit = unit.replace(old, new)
        (units / "attachfs@.service").write_text(unit)

        def show(what):
            return systemctl("show", "-P", what, "attachfs@work").stdout.strip()

        return server, mnt, show

    yield make
    lazy_unmount(mnt)


@pytest.mark.skipif(SLOW > 1, reason="it waits; in the ordinary build only")
def test_a_stop_ends_in_time_and_keeps_what_is_not_sent(manager, service):
    """Against a server that takes uploads and never answers."""
    systemctl, _ = manager
    server, mnt, show = service(**{"--timeout 240": "--timeout 2"})
    systemctl("start", "attachfs@work")
    server.faults({**server.system.upload, "hang": True})
    (mnt / "users/Ada Byron/b.txt").write_bytes(b"b" * 2000)
    systemctl("stop", "attachfs@work", ok=None, timeout=50)  # 2 s, and the daemon's own 10
    assert show("ActiveState") in ("inactive", "failed") and not is_mounted(mnt)
    assert show("MainPID") == "0" and show("Result") != "timeout", "it ended by itself"
    server.heal()
    systemctl("start", "attachfs@work")
    assert (mnt / "users/Ada Byron/b.txt").read_bytes() == b"b" * 2000
    systemctl("stop", "attachfs@work")
    assert server.bytes_of("users/Ada Byron/b.txt") == b"b" * 2000
    assert show("Result") == "success"


def test_the_unit_of_a_user_under_systemd(manager, service):
    systemctl, _ = manager
    server, mnt, show = service()
    try:
        systemctl("enable", "--now", "attachfs@work")
        assert os.listdir(mnt / "users") == ["Ada Byron"], "started is: it can be listed"
        (mnt / "users/Ada Byron/b.txt").write_bytes(b"b" * 2000)
        wait_until(lambda: "1 to send" in show("StatusText"), "systemd to be told of the file")
        systemctl("stop", "attachfs@work")
        assert server.bytes_of("users/Ada Byron/b.txt") == b"b" * 2000, "stop sends first"
        assert not is_mounted(mnt)
        assert (show("ActiveState"), show("Result")) == ("inactive", "success")

        # somebody unmounts it behind systemd's back
        systemctl("start", "attachfs@work")
        (mnt / "users/Ada Byron/c.txt").write_bytes(b"c" * 2000)
        run("umount", mnt) if os.getuid() == 0 else run("fusermount3", "-u", mnt)
        wait_until(lambda: show("ActiveState") == "inactive", "the service to end")
        assert show("Result") == "success"

        # its daemon is killed: it comes again, over the dead mount
        systemctl("start", "attachfs@work")
        assert (mnt / "users/Ada Byron/c.txt").read_bytes() == b"c" * 2000
        os.kill(int(show("MainPID")), signal.SIGKILL)
        wait_until(lambda: show("NRestarts") == "1" and show("ActiveState") == "active", "restart")
        assert (mnt / "users/Ada Byron/c.txt").read_bytes() == b"c" * 2000
        systemctl("stop", "attachfs@work")
        assert server.bytes_of("users/Ada Byron/c.txt") == b"c" * 2000
    finally:
        lazy_unmount(mnt)


@pytest.mark.skipif(os.getuid() != 0, reason="what root's units take away is root's to have")
def test_what_the_units_of_root_take_away_is_not_missed(manager, emulator, token, base):
    """The example's restrictions, on a service: no mount unit can be had of a `systemd --user`."""
    systemctl, units = manager
    server = emulator(tree={"users": {"Ada Byron": {"a.txt": b"hello"}}, "events": {}})
    mnt = base / "mnt"
    mnt.mkdir()
    example = (SCRIPTS / "systemd/mnt-perscom.mount").read_text()
    taken = example.split("TimeoutSec=60\n")[1]
    assert "NoNewPrivileges=yes" in taken and "SystemCallFilter=" in taken
    options = f"cache_dir={base}/cache,token_file={token},settle=600,log_file={base}/log"
    (units / "drive.service").write_text(
        "[Service]\nType=notify\nNotifyAccess=main\n"
        # LeakSanitizer wants to trace
        "Environment=ASAN_OPTIONS=detect_leaks=0:exitcode=99\n"
        f"ExecStart={binary('attachfs')} -f -o {options} {server.system.source(server.api)} {mnt}\n"
        f"{taken}"
    )
    try:
        systemctl("start", "drive")
        pid = systemctl("show", "-P", "MainPID", "drive").stdout.strip()
        status = Path(f"/proc/{pid}/status").read_text()
        assert "NoNewPrivs:\t1\n" in status and "Seccomp:\t2\n" in status
        assert (mnt / "users/Ada Byron/a.txt").read_bytes() == b"hello"
        (mnt / "users/Ada Byron/b.txt").write_bytes(b"b" * 2000)
        run(binary("attachfs"), "sync", mnt, env=clean_environment(base))
        assert server.bytes_of("users/Ada Byron/b.txt") == b"b" * 2000
        systemctl("stop", "drive")
        assert not is_mounted(mnt)
        assert systemctl("show", "-P", "Result", "drive").stdout.strip() == "success"
        assert " error " not in (base / "log").read_text()
    finally:
        lazy_unmount(mnt)


# mount(8)


@pytest.fixture
def helper(base):
    """mount.attachfs with the program that was built in its PATH."""

    def call(*argv, **kwargs):
        path = f"{Path(binary('attachfs')).parent}:/usr/sbin:/usr/bin:/sbin:/bin"
        return run(
            SCRIPTS / "mount.attachfs", *argv, env=clean_environment(base, PATH=path), **kwargs
        )

    return call


def test_the_helper_takes_what_mount_gives_it(helper, emulator, token, mnt, base, attachfs):
    server = emulator(tree={"users": {"Ada Byron": {"a.txt": b"hello"}}, "events": {}})
    options = (
        f"rw,token_file={token},cache_dir={base}/cache,_netdev,nofail,user,noauto,"
        "x-systemd.automount,x-systemd.idle-timeout=60,noatime,nosuid,nodev"
    )
    source = server.system.source(server.api)
    assert source in helper(source, mnt, "-f", "-v", "-o", options).stdout
    assert not is_mounted(mnt), "-f does nothing"
    helper(source, mnt, "-n", "-o", options)
    assert is_mounted(mnt) and (mnt / "users/Ada Byron/a.txt").read_bytes() == b"hello"
    flags = next(
        line.split()[5]
        for line in Path("/proc/self/mountinfo").read_text().splitlines()
        if line.split()[4] == str(mnt)
    ).split(",")
    assert {"rw", "nosuid", "nodev", "noatime"} <= set(flags)
    attachfs("umount", mnt)


def test_the_helper_fails_as_mount_knows_it(helper, base, token):
    result = helper("perscom:http://127.0.0.1:1/v2", base / "missing", ok=False)
    assert result.returncode == 32 and "missing" in result.stderr
    assert helper("perscom:http://127.0.0.1:1/v2", ok=False).returncode == 1
    assert helper("-Z", "a", "b", ok=False).returncode == 1
