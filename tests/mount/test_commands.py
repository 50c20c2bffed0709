# SPDX-License-Identifier: MIT
"""
The command line: mount in the foreground and background, status, sync, umount, pending and retry,
help and version; and every way to get it wrong, each with an answer that says what to do.
Credentials and check are in test_check.py, for every system.
"""

import errno
import json
import os
import subprocess

import pytest

from harness import (
    PERSCOM,
    SLOW,
    binary,
    is_mounted,
    lazy_unmount,
    on_terminal,
    raises_errno,
    refusal,
    refused,
    run,
    wait_until,
)


@pytest.fixture
def system():
    """What the commands do with a mount is the same for all servers."""
    return PERSCOM


def test_help_names_every_option_and_command(attachfs):
    told = attachfs("--help").stdout
    for word in (
        "token_file",
        "token_command",
        "password_file",
        "client_id",
        "collections",
        "cache_dir",
        "cache_size",
        "cache_free",
        "write",
        "fsync",
        "settle",
        "timeout",
        "poll",
        "slots",
        "names",
        "local_names",
        "cacert",
        "insecure_http",
        "proxy",
        "log",
        "log_file",
        "ro",
        "allow_other",
        "status",
        "sync",
        "umount",
        "check",
        "pending",
        "retry",
        "refresh",
        "perscom",
    ):
        assert word in told, word
    assert attachfs("-h").stdout == told


def test_version_is_one_line(attachfs):
    told = attachfs("--version").stdout
    assert told.startswith("attachfs ") and any(c.isdigit() for c in told.splitlines()[0])
    assert attachfs("-V").stdout == told


def test_no_arguments_tells_the_usage(attachfs):
    result = attachfs(ok=False)
    assert "--help" in result.stderr
    assert result.stdout == ""


@pytest.mark.parametrize(
    "option, words",
    [
        ("tokenfile=/x", ["tokenfile", "token_file"]),
        ("cachedir=/x", ["cachedir", "cache_dir"]),
        ("setle=3", ["setle", "settle"]),
        ("settle=soon", ["settle", "soon"]),
        ("settle=-1", ["settle"]),
        ("write=sideways", ["write", "back", "through"]),
        ("cache_size=plenty", ["cache_size"]),
        ("slots=0", ["slots"]),
        ("slots=many", ["slots"]),
        ("ro=maybe", ["ro"]),
        ("log=loud", ["log", "debug"]),
        ("names=both", ["names", "label", "filename"]),
        ("completely_unknown_thing", ["completely_unknown_thing"]),
    ],
)
def test_bad_options_say_which_and_what_is_meant(attachfs, mnt, option, words):
    refused(attachfs("-f", "-o", option, "perscom:http://127.0.0.1:1/v2", mnt, ok=False), *words)
    assert not is_mounted(mnt)


@pytest.mark.parametrize(
    "source, words",
    [
        ("nonsense:http://127.0.0.1:1/", ["nonsense", "perscom"]),
        ("perscom", ["perscom"]),
        ("perscom:", ["https://"]),
        ("perscom:ftp://127.0.0.1/", ["http"]),
        ("perscom:file:///etc/passwd", ["http"]),
        ("perscom:http://attachfs.invalid/v2", ["insecure_http"]),
        ("no-such-section", ["no-such-section", "config"]),
    ],
)
def test_bad_sources_say_what_is_wrong(attachfs, mnt, token, source, words):
    refused(attachfs("-f", "-o", f"token_file={token}", source, mnt, ok=False), *words)
    assert not is_mounted(mnt)


def test_a_missing_mountpoint_is_said(attachfs, base, token):
    refused(
        attachfs(
            "-f",
            "-o",
            f"token_file={token}",
            "perscom:http://127.0.0.1:1/v2",
            base / "missing",
            ok=False,
        ),
        str(base / "missing"),
    )


def test_a_mountpoint_that_is_a_file_is_said(attachfs, base, token):
    (base / "file").write_text("")
    refused(
        attachfs(
            "-f",
            "-o",
            f"token_file={token}",
            "perscom:http://127.0.0.1:1/v2",
            base / "file",
            ok=False,
        ),
        str(base / "file"),
    )


def test_no_mountpoint_given_is_said(attachfs, token):
    refused(
        attachfs("-o", f"token_file={token}", "perscom:http://127.0.0.1:1/v2", ok=False),
        "mountpoint",
    )


def test_a_busy_mountpoint_is_said_and_left_alone(drive, attachfs):
    m = drive()
    refused(
        attachfs(
            "-f",
            "-o",
            f"token_file={m.token_file},cache_dir={m.base}/other",
            m.source,
            m.path,
            ok=False,
        ),
        str(m.path),
    )
    assert sorted(os.listdir(m.path)) == ["events", "users"]


def test_a_second_daemon_on_the_same_cache_is_refused_and_told_the_pid(drive, attachfs, base):
    m = drive()
    (base / "second").mkdir()
    refused(
        attachfs(
            "-f",
            "-o",
            f"token_file={m.token_file},cache_dir={m.cache}",
            m.source,
            base / "second",
            ok=False,
        ),
        str(m.process.pid),
    )
    assert not is_mounted(base / "second")
    assert (m / "users/Ada Byron/tiny.txt").read_bytes() == b"abc"


# status, sync, pending


def test_status_is_json_when_asked_for(drive):
    m = drive()
    m.tree()
    for status in (json.loads(m.command("status", "--json").stdout), m.status()):
        assert status["state"] == "online"
        assert set(status["pending"]) >= {"uploads", "renames", "deletes", "bytes"}
        assert set(status["cache"]) >= {"bytes", "limit", "dirty"}
        assert status["cache"]["bytes"] > 0 and status["cache"]["limit"] == 10 << 30
        assert status["requests"]["total"] > 0
        assert (
            sum(
                v if isinstance(v, int) else v.get("requests", 0)
                for v in status["requests"]["by_endpoint"].values()
            )
            > 0
        )
        assert status["source"] == m.source
        assert status["version"]
        assert "failed" in status


def test_status_for_a_person_and_from_anywhere_inside(drive):
    m = drive(settle=600)
    (m / "users/Nobody/waiting.txt").write_bytes(b"x" * 2000)
    told = m.command("status").stdout
    assert "online" in told
    inside = run(binary("attachfs"), "status", "--json", m / "users/Ada Byron", env=m.env())
    assert json.loads(inside.stdout)["pending"]["uploads"] == 1
    here = run(binary("attachfs"), "status", "--json", ".", cwd=m / "users", env=m.env())
    assert json.loads(here.stdout)["pending"]["uploads"] == 1


@pytest.mark.parametrize("command", ["status", "sync", "umount", "pending", "retry", "refresh"])
def test_commands_on_what_is_no_mount_say_so(attachfs, base, command):
    refused(attachfs(command, base, ok=False), str(base))
    refused(attachfs(command, base / "missing", ok=False), str(base / "missing"))


def test_an_unknown_command_names_the_nearest(attachfs, base):
    refused(attachfs("statsu", ok=False))


def test_sync_waits_until_the_server_has_everything(drive):
    m = drive(settle=600)
    m.emulator.faults(latency_ms=100)
    for i in range(20):
        (m / f"users/Nobody/{i}.txt").write_bytes(b"%d" % i * 2000)
    os.rename(m / "users/Ada Byron/notes.txt", m / "users/Ada Byron/renamed.txt")
    os.unlink(m / "users/Ada Byron/logo.png")
    result = m.sync()
    server = m.emulator.files()
    assert all(f"users/Nobody/{i}.txt" in server for i in range(20))
    assert "users/Ada Byron/renamed.txt" in server and "users/Ada Byron/logo.png" not in server
    lines = [json.loads(line) for line in result.stdout.splitlines()]
    assert lines and all(isinstance(line, dict) for line in lines)
    assert m.idle()


def test_sync_of_nothing_is_quick_and_fine(drive):
    m = drive()
    m.sync()
    m.sync()


def test_sync_shows_progress_on_a_terminal(drive):
    m = drive(settle=600)
    (m / "users/Nobody/new.bin").write_bytes(b"x" * 3_000_000)
    shown, status = on_terminal([binary("attachfs"), "sync", m.path], m.env())
    assert status == 0 and "1 of 1 files" in shown, shown
    assert "{" not in shown, "a person does not read JSON"
    assert "users/Nobody/new.bin" in m.emulator.files()


def test_pending_names_what_waits(drive):
    m = drive(settle=600)
    (m / "users/Nobody/waiting.txt").write_bytes(b"x" * 2000)
    assert "waiting.txt" in m.command("pending").stdout
    assert "waiting.txt" in (m / ".attachfs/pending").read_text()
    m.sync()
    assert "waiting.txt" not in (m / ".attachfs/pending").read_text()


def test_what_is_refused_is_parked_shown_and_retried(drive):
    m = drive(settle=0)
    m.allow_errors("422|refused|parked|not wanted")
    m.emulator.faults(
        {
            "port": "api",
            "method": "POST",
            "match": "/attachments",
            "skip": 0,
            "count": -1,
            "status": 422,
            "body": refusal("The file is not wanted."),
        }
    )
    (m / "users/Nobody/unwanted.txt").write_bytes(b"x" * 2000)
    wait_until(
        lambda: "unwanted.txt" in (m / ".attachfs/failed").read_text(), "the item to be parked"
    )
    assert "The file is not wanted." in (m / ".attachfs/failed").read_text()
    assert m.status()["failed"] not in (0, [])
    assert m.xattr("users/Nobody/unwanted.txt", "state") == "parked"
    assert "not wanted" in m.xattr("users/Nobody/unwanted.txt", "error")
    told = m.sync(ok=False)
    assert "retry" in told.stderr and ".attachfs/failed" in told.stderr
    assert (m / "users/Nobody/unwanted.txt").read_bytes() == b"x" * 2000
    m.emulator.heal()
    run(binary("attachfs"), "retry", m / "users/Nobody/unwanted.txt", env=m.env())
    m.sync()
    assert m.emulator.bytes_of("users/Nobody/unwanted.txt") == b"x" * 2000
    assert m.status()["failed"] in (0, [])


def test_metrics_are_in_prometheus_format(drive):
    m = drive()
    m.tree()
    text = (m / ".attachfs/metrics").read_text()
    samples = [line for line in text.splitlines() if line and not line.startswith("#")]
    assert samples
    for line in samples:
        name, value = line.rsplit(" ", 1)
        float(value)
        assert name.startswith("attachfs_")


def test_events_can_be_followed(drive):
    m = drive(settle=0)
    follower = subprocess.Popen(
        ["head", "-n", "1", str(m / ".attachfs/events")], stdout=subprocess.PIPE, text=True
    )
    try:
        (m / "users/Nobody/new.txt").write_bytes(b"x" * 2000)
        m.sync()
        line, _ = follower.communicate(timeout=30 * SLOW)
        assert "event" in json.loads(line)
    finally:
        follower.kill()
        follower.wait()


def test_control_files_can_be_read_by_everything(drive):
    m = drive()
    for name in ("status", "pending", "failed", "metrics"):
        path = m / ".attachfs" / name
        text = path.read_bytes()
        assert run("cat", path).stdout.encode()[:10] == text[:10]
        fd = os.open(path, os.O_RDONLY)
        assert os.pread(fd, 1 << 20, len(text) + 100_000) == b""
        os.close(fd)
        with raises_errno(errno.EACCES, errno.EPERM, errno.EROFS):
            path.write_bytes(b"x")


# umount


def test_umount_drains_first(drive):
    m = drive(settle=600)
    m.emulator.faults(latency_ms=50)
    for i in range(10):
        (m / f"users/Nobody/{i}.txt").write_bytes(b"%d" % i * 2000)
    os.unlink(m / "users/Ada Byron/logo.png")
    m.umount()
    server = m.emulator.files()
    assert all(f"users/Nobody/{i}.txt" in server for i in range(10))
    assert "users/Ada Byron/logo.png" not in server


def test_umount_of_a_busy_mount_says_so_and_leaves_it(drive):
    m = drive()
    with open(m / "users/Ada Byron/notes.txt", "rb") as f:
        result = m.umount(ok=False)
        assert "busy" in result.stderr.lower()
        assert is_mounted(m.path)
        assert f.read(6) == b"line 0"
    m.sync()


def test_umount_without_a_server_says_what_is_left(mount, emulator, gate):
    server = emulator(tree={"users": {"Ada Byron": {}}, "events": {}})
    door = gate(server)
    m = mount(server, source=server.system.source(door.url), settle=600, timeout=2)
    m.allow_errors("EHOSTDOWN|reach|offline|down|connect")
    os.listdir(m / "users/Ada Byron")
    door.shut()
    (m / "users/Ada Byron/stuck.txt").write_bytes(b"x" * 2000)
    p = subprocess.Popen(
        [binary("attachfs"), "umount", str(m.path)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=m.env(),
    )
    try:
        said, _ = p.communicate(timeout=5 * SLOW)
        assert "stuck.txt" in said or "1 " in said, said
    except subprocess.TimeoutExpired:
        p.terminate()  # it may wait for the server, as long as a person can stop it
        p.communicate()
    if m.process.poll() is not None:
        m._ended()
        assert m.exit_status == 0
        lazy_unmount(m.path)
        door.open()
        m.start()
    else:
        door.open()
    m.sync()
    assert server.bytes_of("users/Ada Byron/stuck.txt") == b"x" * 2000


def test_fusermount_ends_the_daemon_cleanly_and_loses_nothing(drive):
    m = drive(settle=600)
    (m / "users/Nobody/new.txt").write_bytes(b"x" * 2000)
    run("umount", m.path) if os.getuid() == 0 else run("fusermount3", "-u", m.path)
    m._ended()
    assert m.exit_status == 0
    m.start()
    assert (m / "users/Nobody/new.txt").read_bytes() == b"x" * 2000
    m.sync()
    assert m.emulator.bytes_of("users/Nobody/new.txt") == b"x" * 2000


# The background, the configuration


def daemon_of(path) -> int:
    """The pid of the attachfs process whose command line names this mountpoint."""
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            with open(f"/proc/{pid}/cmdline", "rb") as f:
                argv = f.read().split(b"\0")
        except OSError:
            continue
        if argv and argv[0].endswith(b"attachfs") and os.fsencode(path) in argv:
            return int(pid)
    return 0


def test_without_f_it_returns_when_the_mount_is_there(attachfs, emulator, token, mnt, base):
    server = emulator(tree={"users": {"Ada Byron": {"a.txt": b"hello"}}, "events": {}})
    attachfs(
        "-o",
        f"token_file={token},cache_dir={base}/cache,log_file={base}/log",
        server.system.source(server.api),
        mnt,
    )
    assert is_mounted(mnt)
    assert (mnt / "users/Ada Byron/a.txt").read_bytes() == b"hello"
    pid = daemon_of(mnt)
    (mnt / "users/Ada Byron/b.txt").write_bytes(b"x" * 2000)
    attachfs("umount", mnt)
    assert not is_mounted(mnt)
    assert server.bytes_of("users/Ada Byron/b.txt") == b"x" * 2000
    wait_until(lambda: not pid or not os.path.exists(f"/proc/{pid}"), "the daemon to end")


def test_without_f_a_failed_mount_is_told_by_the_exit_status(attachfs, mnt, base, token):
    refused(
        attachfs(
            "-o", f"token_file={token}", "perscom:http://127.0.0.1:1/v2", base / "missing", ok=False
        ),
        "missing",
    )


def test_a_section_of_the_config_file_can_be_mounted_by_name(attachfs, emulator, token, mnt, base):
    server = emulator(tree={"users": {"Ada Byron": {"a.txt": b"hello"}}, "events": {"Drill": {}}})
    config = base / "home/.config/attachfs"
    config.mkdir(parents=True)
    (config / "config").write_text(
        f"[work]\nsource = {server.system.source(server.api)}\ntoken_file = {token}\n"
        f"cache_dir = {base}/cache\ncollections = users:events\n"
    )
    attachfs("-o", "collections=users", "work", mnt)
    assert os.listdir(mnt) == ["users"], "-o goes over the file"
    attachfs("umount", mnt)
    (config / "config").write_text(
        "[work]\nsource = perscom:http://127.0.0.1:1/v2\ntokne_file = x\n"
    )
    refused(attachfs("-f", "work", mnt, ok=False), "tokne_file", "token_file")


def test_mount_options_every_filesystem_has_are_accepted(drive):
    m = drive(
        nosuid=True,
        nodev=True,
        noatime=True,
        noexec=True,
        _netdev=True,
        rw=True,
        umask="027",
        uid=os.getuid(),
        gid=os.getgid(),
    )
    assert os.stat(m / "users/Ada Byron/notes.txt").st_mode & 0o027 == 0


def test_a_stale_mount_is_replaced_at_start(drive):
    m = drive()
    assert (m / "users/Ada Byron/tiny.txt").read_bytes() == b"abc"
    m.kill9(unmount=False)
    with raises_errno(errno.ENOTCONN, errno.ECONNABORTED):
        os.listdir(m.path)
    m.start()
    assert (m / "users/Ada Byron/tiny.txt").read_bytes() == b"abc"


def test_the_log_and_the_cache_are_private(drive):
    m = drive()
    m.tree()
    assert m.log_file.stat().st_mode & 0o077 == 0
    assert m.cache.stat().st_mode & 0o077 == 0
