# SPDX-License-Identifier: MIT
"""
Credentials and `attachfs check`, on every system: what works is said before anything is mounted,
what is wrong is said with the remedy, and the secret shows nowhere.
"""

import errno
import os
import socket

import pytest

from harness import (
    added,
    binary,
    clean_environment,
    is_mounted,
    raises_errno,
    run,
    wait_until,
)

WRONG = "hush-hush-8642"

# What each system's check must tell of: who am I, what can I see, what may I write.
TOPICS = {
    "perscom": ("who am I", "server", "may read", "clock", "rate limit", "may write", "list users"),
    "servicemax": ("server", "user", "credentials", "clock", "rate limit", "writing", "list users"),
    "enterprise-tester": (
        "server",
        "credentials",
        "clock",
        "rate limit",
        "projects",
        "may write",
        "list requirements",
    ),
    "rillsoft": (
        "credentials",
        "server",
        "clock",
        "rate limit",
        "documents",
        "reading",
        "may write",
        "list users",
    ),
}


@pytest.fixture
def attachfs(base):
    """Run attachfs with arguments; options as run()."""
    return lambda *argv, **kwargs: run(
        binary("attachfs"), *argv, env=clean_environment(base), **kwargs
    )


@pytest.fixture
def unmounted(emulator, mount):
    """A mount that is not started, of a server with one file: its options are to be used."""

    def make(**kwargs) -> "Mount":
        server = emulator(tree={"users": {"Ada Byron": {"a.txt": b"hello"}}, "events": {}})
        m = mount(server, start=False, **kwargs)
        m.check_at_end = False
        return m

    return make


def check(attachfs, m, ok: bool) -> str:
    result = attachfs("check", "-o", m.option_text(), m.source, ok=ok)
    said = result.stdout + result.stderr + m.log()
    for secret in (m.system.password or m.emulator.token, WRONG):
        assert secret not in said
    return result.stdout


def spoil(m) -> None:
    """Give it a wrong secret."""
    m.write_token(WRONG)
    m.password_file.write_text(WRONG + "\n")
    m.password_file.chmod(0o600)


def mend(m) -> None:
    m.write_token(m.emulator.token)
    if m.system.password:
        m.password_file.write_text(m.system.password + "\n")


def word(m) -> str:
    return "password" if m.system.password else "token"


def test_check_says_who_i_am_what_i_see_and_what_i_may_do(attachfs, unmounted):
    m = unmounted()
    before = m.emulator.attachments()
    told = check(attachfs, m, ok=True)
    for topic in TOPICS[m.system.name]:
        assert f" {topic}" in told, f"nothing of '{topic}' in:\n{told}"
    assert "FAIL" not in told
    assert "mount" in told or not m.system.password, "the user's name"
    assert "127.0.0.1" in told
    assert m.emulator.attachments() == before, "nothing is written to find out"


def test_check_tells_the_rate_limit_of_a_server_that_has_one(attachfs, unmounted):
    m = unmounted()
    if "throttle" not in m.emulator.ask_json("GET", "/set"):
        pytest.skip("it has none")
    m.emulator.toggle(throttle=90)
    (line,) = [text for text in check(attachfs, m, ok=True).splitlines() if "rate limit" in text]
    assert "90" in line or "none" in line, line


def test_check_with_a_bad_secret_says_so(attachfs, unmounted):
    m = unmounted()
    spoil(m)
    told = check(attachfs, m, ok=False)
    assert "FAIL" in told and word(m) in told.lower()
    assert str(m.password_file if m.system.password else m.token_file) in told, "what to mend"


def test_check_of_an_unreachable_server_says_so(attachfs, unmounted):
    m = unmounted()
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port = s.getsockname()[1]
    m.source = m.system.source(f"http://127.0.0.1:{port}/api")
    told = check(attachfs, m, ok=False)
    assert f"127.0.0.1:{port}" in told and "FAIL" in told and "address" in told


@pytest.mark.parametrize("status", [403, 500])
def test_check_of_a_server_that_refuses_everything_says_so(attachfs, unmounted, status):
    m = unmounted()
    m.emulator.faults({**m.system.api, "status": status, "body": m.system.refusal("Not today.")})
    told = check(attachfs, m, ok=False)
    assert "FAIL" in told and ("Not today." in told or str(status) in told)


def test_no_credentials_at_all_says_what_to_give(attachfs, unmounted):
    m = unmounted()
    options = {**dict(m.system.options), "cache_dir": m.cache}
    if m.system.say_collections:
        options["collections"] = m.system.real_name("users")
    said = ",".join(f"{k}={v}" for k, v in options.items())
    for words in (("-f", "-o", said, m.source, m.path), ("check", "-o", said, m.source)):
        result = attachfs(*words, ok=False)
        told = result.stdout + result.stderr
        assert ("password_file" if m.system.password else "token_file") in told
    assert not is_mounted(m.path)


@pytest.mark.parametrize("what", ["missing", "empty", "open to others"])
def test_a_bad_secret_file_is_said(attachfs, unmounted, what):
    m = unmounted()
    path = m.password_file if m.system.password else m.token_file
    if what == "missing":
        path.unlink()
    elif what == "empty":
        path.write_text("\n")
    else:
        path.chmod(0o644)
    result = attachfs("-f", "-o", m.option_text(), m.source, m.path, ok=False)
    assert str(path) in result.stderr
    assert what != "open to others" or "chmod" in result.stderr
    assert not is_mounted(m.path)


def test_a_secret_is_not_accepted_on_the_command_line(attachfs, unmounted):
    m = unmounted()
    for option in ("token", "password"):
        result = attachfs(
            "-f", "-o", f"{m.option_text()},{option}={WRONG}", m.source, m.path, ok=False
        )
        assert f"{option}_file" in result.stderr and WRONG not in result.stderr


@pytest.mark.parametrize("way", ["command", "environment"])
def test_other_ways_to_give_the_secret(unmounted, way):
    m = unmounted()
    secret = m.system.password or m.emulator.token
    m.options.update({"token_file": None, "password_file": None})
    if way == "command":
        m.options["token_command"] = f"echo {secret}"
    else:
        m.environment["ATTACHFS_PASSWORD" if m.system.password else "ATTACHFS_TOKEN"] = secret
    m.check_at_end = True
    m.start()
    assert (m / "users/Ada Byron/a.txt").read_bytes() == b"hello"


def test_a_bad_secret_at_mount_is_said(unmounted):
    """
    Either it refuses to mount with words, or it mounts, says so in its status and answers EACCES.
    """
    m = unmounted()
    spoil(m)
    process = m.spawn()
    wait_until(lambda: process.poll() is not None or is_mounted(m.path), "an answer")
    if process.poll() is not None:
        said = m.output.read_text() + m.log()
        assert process.returncode != 0
        assert word(m) in said.lower() and WRONG not in said
        return
    m.process = process
    with raises_errno(errno.EACCES):
        os.listdir(m / "users")
    assert m.status()["state"] == "auth"
    mend(m)
    wait_until(lambda: readable(m / "users"), "the file to be read again")
    m.umount()


def readable(path) -> bool:
    try:
        os.listdir(path)
        return True
    except OSError:
        return False


def test_a_secret_that_goes_bad_keeps_the_mount_and_a_good_one_heals_it(drive):
    m = drive(tree={"users": {"Ada Byron": {"a.txt": b"hello"}}, "events": {}}, poll=0, settle=0)
    m.allow_errors("401|403|credential|password|token|denied|EACCES")
    assert (m / "users/Ada Byron/a.txt").read_bytes() == b"hello"
    spoil(m)
    m.terminate()
    m.emulator.faults({**m.system.api, "status": 401, "body": m.system.refusal("Who are you?")})
    m.start()
    assert (m / "users/Ada Byron/a.txt").read_bytes() == b"hello", "what is cached is served"
    (m / "users/Ada Byron/new.txt").write_bytes(b"x" * 2000)
    wait_until(lambda: m.status()["state"] == "auth", "the status to say so")
    assert WRONG not in m.said() + (m / ".attachfs/status").read_text()
    mend(m)
    m.emulator.heal()
    m.command("retry", ok=None)
    m.sync()
    assert m.emulator.bytes_of("users/Ada Byron/new.txt") == b"x" * 2000


def test_the_secret_shows_nowhere(drive):
    m = drive()
    secret = (m.system.password or m.emulator.token).encode()
    m.tree()
    (m / "users/Nobody/new.txt").write_bytes(b"x" * 2000)
    m.sync()
    pid = m.process.pid
    shown = [open(f"/proc/{pid}/cmdline", "rb").read()]
    for name in os.listdir(m / ".attachfs"):
        path = m / ".attachfs" / name
        if name not in ("events", "control") and path.is_file():
            shown.append(path.read_bytes())
    for name in os.listxattr(m / "users/Nobody/new.txt"):
        shown.append(os.getxattr(m / "users/Nobody/new.txt", name))
    shown += [m.command("status").stdout.encode(), m.log().encode(), m.output.read_bytes()]
    for folder, _, files in os.walk(m.cache):
        for name in files:
            with open(os.path.join(folder, name), "rb") as f:
                # the ledger calls a value of its own so
                shown.append(f.read().replace(b"content_secret", b""))
    with open("/proc/self/mountinfo", "rb") as f:
        shown.append(f.read())
    for text in shown:
        assert secret not in text


def test_a_login_that_ends_is_renewed_by_itself(drive, system):
    if not system.password:
        pytest.skip("a token is all there is")
    m = drive(tree={"users": {"Ada Byron": {}}, "events": {}}, poll=0, settle=0)
    os.listdir(m / "users/Ada Byron")
    m.emulator.clock(2 * 86400)
    m.emulator.change(added("late.txt"))
    m.command("refresh")
    wait_until(lambda: "late.txt" in os.listdir(m / "users/Ada Byron"), "the new file")
    (m / "users/Ada Byron/new.txt").write_bytes(b"x" * 2000)
    m.sync()
    assert m.status()["state"] == "online"
