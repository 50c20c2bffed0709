# SPDX-License-Identifier: MIT
"""
Secrets that are planted are looked for where they must not be: logs, control files, attributes, the
cache, command lines, environments of children, messages; and tokens in requests of hosts that have no
business with them. Files and directories that hold secrets, or say what somebody has, are their owner's.
"""

import base64
import errno
import json
import os
import re
import subprocess
import sys
import time

import pytest

from harness import (
    PERSCOM,
    SERVICEMAX,
    binary,
    is_mounted,
    raises_errno,
    run,
    small_tree,
    wait_until,
)

SECRET = "planted-Sw0rdfish.7731"
ADA = "users/Ada Byron"
only_perscom = pytest.mark.parametrize("system", [PERSCOM], indirect=True, ids=lambda s: s.name)


def everything_shown(m) -> dict:
    """Where text of the daemon can be seen -> the text."""
    shown = {"log": m.log_file.read_bytes(), "output": m.output.read_bytes()}
    for name in ("status", "pending", "failed", "conflicts", "metrics"):
        shown[name] = (m / ".attachfs" / name).read_bytes()
    events = run("timeout", "0.3", "cat", m / ".attachfs/events", ok=None)  # which has no end
    shown["events"] = events.stdout.encode()
    for folder, folders, files in os.walk(m.path):
        for name in folders + files:
            path = os.path.join(folder, name)
            for key in os.listxattr(path):
                try:
                    shown[f"{path} {key}"] = os.getxattr(path, key)
                except OSError:  # its size cannot be asked for
                    pass
    for folder, _, files in os.walk(m.cache):
        for name in files:
            with open(os.path.join(folder, name), "rb") as f:
                shown[os.path.join(folder, name)] = f.read()
    for pid in [m.process.pid, *children(m.process.pid)]:
        with open(f"/proc/{pid}/cmdline", "rb") as f:
            shown[f"command line of {pid}"] = f.read()
    with open("/proc/self/mountinfo", "rb") as f:
        shown["mountinfo"] = f.read()
    for command in ("status", "pending", "failed", "conflicts"):
        told = m.command(command, ok=None)
        shown[f"attachfs {command}"] = (told.stdout + told.stderr).encode()
    return shown


def children(pid) -> list:
    with open(f"/proc/{pid}/task/{pid}/children") as f:
        return [int(c) for c in f.read().split()]


def nowhere(m, *secrets):
    for place, text in everything_shown(m).items():
        for secret in secrets:
            forms = (secret.encode(), base64.b64encode(secret.encode())[:-4], secret.replace(".", "%2E").encode())
            assert not any(f in text for f in forms), f"{secret} in {place}"


def at_work(m):
    """Reads, writes, and things that go wrong, with words of a server that repeats what it was told."""
    m.allow_errors(".")
    m.same_at_end = False
    for path in (f"{ADA}/notes.txt", f"{ADA}/large.bin", "users/Grace Hopper/readme"):
        (m / path).read_bytes()
    (m / "users/Nobody/new.txt").write_bytes(b"x" * 2000)
    os.rename(m / f"{ADA}/tiny.txt", m / f"{ADA}/renamed.txt")
    m.sync(ok=None)


@pytest.mark.parametrize("level", ["error", "debug"])
def test_a_token_shows_nowhere(emulator, mount, system, level):
    if system.name == "enterprise-tester":
        server = emulator(tree=small_tree(), tokens=(f"planted:{SECRET}",))
        m = mount(server, start=False, log=level, poll=0, settle=0, user="planted")
        m.password_file.write_text(SECRET + "\n")
    else:
        server = emulator(tree=small_tree(), tokens=(SECRET,))
        m = mount(server, start=False, log=level, poll=0, settle=0, password_file=None, token_file="", user=None)
        m.options["token_file"] = m.token_file
        m.write_token(SECRET)
    m.start()
    at_work(m)
    echo = m.system.refusal(f"the token {SECRET} may not do this")
    m.emulator.faults({**m.system.upload, "status": 403, "body": echo})
    (m / "users/Nobody/refused.txt").write_bytes(b"x" * 3000)
    m.sync(ok=None)
    m.emulator.faults({**m.system.api, "status": 401, "body": echo})
    with raises_errno(errno.EACCES, errno.EIO, errno.EHOSTDOWN):
        os.listdir(m / "events/Live fire")
    nowhere(m, SECRET)
    m.emulator.heal()
    m.command("retry", ok=None)
    m.sync(ok=None)
    nowhere(m, SECRET)


@only_perscom
def test_signatures_of_links_show_nowhere(drive):
    m = drive(toggles={"url": "presigned"}, poll=0, settle=0)
    at_work(m)
    m.emulator.faults({**m.system.blob, "status": 500})
    with raises_errno(errno.EIO, errno.ETIMEDOUT, errno.EHOSTDOWN):
        (m / "events/Live fire/map.jpg").read_bytes()
    queries = {r["query"] for r in m.emulator.requests(port="blob") if r["query"]}
    values = {v for q in queries for v in re.findall(r"[Ss]ignature=([^&]+)", q)}
    assert values, queries
    shown = everything_shown(m)
    for place, text in shown.items():
        for v in values:
            assert v.encode() not in text, place
    m.emulator.heal()
    m.remount()
    for path in ("events/Live fire/map.jpg", f"{ADA}/notes.txt"):
        assert (m / path).read_bytes() == m.emulator.bytes_of(path)


def test_the_token_goes_to_its_own_origin_only(emulator, mount, system):
    other = emulator(tree=small_tree())
    m = mount(emulator(tree=small_tree()), poll=0, timeout=3)
    m.allow_errors(".")
    m.same_at_end = False
    os.listdir(m / ADA)
    other.reset()
    m.emulator.faults(
        {**system.blob, "status": 302, "headers": {"Location": other.api + "/stolen"}},
        {**system.api, "status": 307, "headers": {"Location": other.api + "/stolen"}},
    )
    for action in (
        lambda: (m / f"{ADA}/large.bin").read_bytes(),
        lambda: os.listdir(m / "events/Live fire"),
        lambda: (m / "users/Nobody/new.txt").write_bytes(b"x" * 2000),
    ):
        try:
            action()
        except OSError:
            pass
    wait_until(lambda: m.emulator.struck() > 0, "a redirect to be given")
    time.sleep(0.3)
    for r in other.requests():
        assert not r["authorization"], r
        assert SECRET not in r["query"]
    m.emulator.heal()


def test_bytes_on_another_host_are_fetched_without_the_token(drive, system):
    if not system.foreign_bytes and system.name != "perscom":
        pytest.skip("its bytes are at the API")
    m = drive(toggles=system.foreign_bytes, poll=0)
    assert (m / f"{ADA}/large.bin").read_bytes() == m.emulator.bytes_of(f"{ADA}/large.bin")
    asked = m.emulator.requests(port="blob")
    assert asked and not any(r["authorization"] for r in asked)


@only_perscom
def test_children_do_not_inherit_secrets(drive, scratch):
    m = drive(start=False, token_file=None)
    seen = scratch / "environment"
    m.options["token_command"] = f"env > {seen}; cat {m.token_file}"
    m.environment = {"ATTACHFS_TOKEN": SECRET, "ATTACHFS_PASSWORD": SECRET + "2", "USUAL": "yes"}
    m.start()
    text = seen.read_text()
    assert "USUAL=yes" in text and SECRET not in text


@pytest.mark.skipif(os.getuid() != 0, reason="only root can be somebody else")
@only_perscom
def test_its_memory_is_nobody_elses(drive, base):
    """... not even another process of its user: that is what an owner of root in /proc says."""
    m = drive(start=False)
    home = base / "of-nobody"
    home.mkdir()
    os.chown(home, 65534, 65534)
    options = f"cache_dir={home}/cache,token_command=sleep 20"
    p = subprocess.Popen(
        [binary("attachfs"), "-f", "-o", options, m.source, str(m.path)],
        user=65534,
        group=65534,
        extra_groups=[],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        wait_until(lambda: p.poll() is not None or os.stat(f"/proc/{p.pid}/environ").st_uid == 0, "it to hide")
        assert p.poll() is None, "it ended"
    finally:
        p.kill()
        p.wait()
        for pid in run("pgrep", "-u", "65534", "-x", "sleep", ok=None).stdout.split():
            try:
                os.kill(int(pid), 9)
            except OSError:
                pass


# ---- the cache directory


def refused(m, *words):
    process = m.spawn()
    wait_until(lambda: process.poll() is not None or is_mounted(m.path), "an answer")
    m.process = process
    assert process.poll() is not None, "it mounted"
    m.process = None
    said = m.output.read_text()
    assert process.returncode == 1 and all(w in said for w in words), said


def used(drive):
    """A mount that has ended, and the directory of its server in the cache directory."""
    m = drive(poll=0)
    m.umount()
    (store,) = m.cache.iterdir()
    return m, store


@only_perscom
def test_a_planted_cache_is_not_used(drive, scratch):
    """In a cache_dir= that others can write to, somebody may have been there first."""
    m, store = used(drive)
    store.rename(scratch / "kept")
    target = scratch / "elsewhere"
    target.mkdir(0o700)
    store.symlink_to(target)
    refused(m, str(store))
    assert not os.listdir(target)
    store.unlink()
    store.mkdir()
    store.chmod(0o777)
    refused(m, str(store), "chmod")
    assert not os.listdir(store)
    if os.getuid() == 0:
        store.chmod(0o700)
        os.chown(store, 65534, 65534)
        refused(m, str(store), "65534")
    store.rmdir()


@pytest.mark.parametrize("name", ["lock", "objects", "lost+found", "ledger"])
@only_perscom
def test_links_in_the_cache_are_not_followed(drive, scratch, name):
    m, store = used(drive)
    victim = scratch / "victim"
    names = [n for n in os.listdir(store) if n.startswith(name)]
    assert names, os.listdir(store)
    if (store / names[0]).is_dir():
        victim.mkdir()
        (victim / "precious").write_bytes(b"precious")
    else:
        victim.write_bytes(b"precious")
    before = sorted((str(p), p.stat().st_size) for p in [victim, *victim.glob("*")])
    for n in names:
        (store / n).rename(scratch / f"old-{n}")
        (store / n).symlink_to(victim)
    process = m.spawn()
    wait_until(lambda: process.poll() is not None or is_mounted(m.path), "an answer")
    if process.poll() is None:
        m.process = process
        m.umount(ok=None)
    assert sorted((str(p), p.stat().st_size) for p in [victim, *victim.glob("*")]) == before
    assert (victim / "precious" if victim.is_dir() else victim).read_bytes() == b"precious"
    m.check_at_end = False


# ---- control files


@pytest.mark.skipif(os.getuid() != 0, reason="only root can be somebody else")
@only_perscom
def test_control_files_are_the_mounting_users(drive):
    m = drive(allow_other=True)
    program = """
import os, sys
for name, flags in (("status", os.O_RDONLY), ("pending", os.O_RDONLY), ("failed", os.O_RDONLY), ("events", os.O_RDONLY),
                    ("metrics", os.O_RDONLY), ("conflicts", os.O_RDONLY), ("control", os.O_WRONLY), ("control", os.O_RDWR)):
    try:
        os.open(os.path.join(sys.argv[1], ".attachfs", name), flags)
        print("opened", name)
    except PermissionError:
        pass
"""
    told = subprocess.run(
        [sys.executable, "-c", program, str(m.path)],
        user=65534,
        group=65534,
        extra_groups=[],
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    assert told.stdout == ""
    assert json.loads((m / ".attachfs/status").read_text())["state"] == "online"


@pytest.mark.parametrize("system", [PERSCOM, SERVICEMAX], indirect=True, ids=lambda s: s.name)
@pytest.mark.parametrize("umask", [0, 0o077], ids=oct)
def test_what_is_kept_is_its_owners_whatever_the_umask(drive, umask):
    old = os.umask(umask)
    try:
        m = drive(poll=0, settle=0)
        at_work(m)
        for folder, folders, files in os.walk(m.cache):
            for name in folders + files:
                mode = os.lstat(os.path.join(folder, name)).st_mode
                assert not mode & 0o077, f"{folder}/{name}: {mode:o}"
        assert not m.log_file.stat().st_mode & 0o077
        assert m.cache.stat().st_mode & 0o777 == 0o700
    finally:
        os.umask(old)
