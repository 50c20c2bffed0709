# SPDX-License-Identifier: MIT
"""
README.md as it is read: the session is typed on a terminal and shows what is printed there, and
each system's section of a config file mounts that system. Figures may be others. The recipes for
backups are in test_backups.py.
"""

import errno
import os
import re
from pathlib import Path

import pytest

from harness import (
    PERSCOM,
    binary,
    clean_environment,
    is_mounted,
    lazy_unmount,
    on_terminal,
    random_bytes,
    small_tree,
)

README = (Path(__file__).resolve().parents[2] / "README.md").read_text()
SECTIONS = re.findall(r"(?:^    .*\n)+", README.split("## Each server\n")[1].split("\n## ")[0], re.M)


def sections():
    """The config file's sections of the guide, by system."""
    found = {}
    for block in SECTIONS:
        text = re.sub(r"^    ", "", block, flags=re.M)
        if match := re.search(r"^source = ([a-z-]+):", text, re.M):
            found[match[1]] = text
    return found


def typed():
    """(command, what it prints) of the session."""
    block = README.split("```console\n")[1].split("```")[0]
    parts = re.split(r"^\$ (.*)\n", block, flags=re.M)[1:]
    return list(zip(parts[::2], parts[1::2]))


def masked(text):
    """Without figures and what a terminal is told besides."""
    text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", text.replace("\r\n", "\n"))
    text = "\n".join(line.split("\r")[-1].rstrip() for line in text.strip().split("\n"))
    return re.sub(r"[ \d.]*\d[ \d.]*", " N ", text)


@pytest.fixture
def home(base):
    path = base / "home"
    (path / ".config/attachfs").mkdir(parents=True)
    (path / "drive").mkdir()
    yield path
    lazy_unmount(path / "drive")


def environment(base, home):
    path = f"{Path(binary('attachfs')).parent}:/usr/bin:/bin"
    return {**clean_environment(base, PATH=path), "HOME": str(home), "LC_ALL": "C.UTF-8"}


# What programs get from any filesystem, with the same meaning, and what never reaches one.
ORDINARY = {"ENOENT", "EEXIST", "EISDIR", "ENOTDIR", "EINTR", "ENXIO", "ENODATA", "ERANGE", "ENOMEM"}
INSIDE = {"EAGAIN", "EALREADY", "ECANCELED", "ECONNRESET", "EINPROGRESS", "ENOSYS", "EOVERFLOW", "EPROTO"}


def test_every_errno_a_program_may_meet_is_explained():
    table = README.split("## When something is wrong\n")[1].split("\n## ")[0]
    explained = set(re.findall(r"\((E[A-Z]+)\)", table))
    root = Path(__file__).resolve().parents[2]
    used = set()
    for pattern in ("fs/ops*.c", "fs/file.c", "fs/may.c", "fs/record*.c", "api/call_words.c"):
        for path in root.glob(pattern):
            used |= set(re.findall(r"\bE[A-Z]{3,}\b", path.read_text()))
    used = {name for name in used if hasattr(errno, name)}
    missing = used - explained - ORDINARY - INSIDE
    assert not missing, f"not in the table of README.md: {missing}"
    for name in explained:
        text = os.strerror(getattr(errno, name))
        assert f"`{text}` ({name})" in table or name == "EHOSTDOWN", f"{name} is `{text}`"


def told_at_start():
    """What a mount may end with: the words of it that are always the same, the longest in a row."""
    root = Path(__file__).resolve().parents[2]
    for path in ("fs/main.c", "fs/mount.c", "fs/cmd_find.c", "fs/cmd_talk.c"):
        text = re.sub(r'"\s+"', "", (root / path).read_text())
        for said in re.findall(r'(?:snprintf\(message,\s*size,\s*|fprintf\(stderr,\s*)"([^"]+)"', text):
            yield said, max(re.split(r"%\S+|\\n|'|:  ?", said), key=len).strip()


# Messages that say themselves what to do, or are about how the command line is written.
SAY_IT = (
    "nothing to do: see attachfs --help", "unknown argument", "too many", "where to mount",
    "is no command", "-o needs options", "cannot go into the background", "attachfs list",
    "usage", "only the whole of it can be", "cannot open the log file", "cannot start",
    "mountpoint '%s': %s",
)  # fmt: skip


def test_every_message_a_mount_may_end_with_is_explained():
    table = README.split("## When something is wrong\n")[1].split("\n## ")[0]
    found = list(told_at_start())
    assert len(found) > 15
    for said, core in found:
        words = [w for w in re.findall(r"`([^`]+)`", table) if len(w) > 10]
        known = any(all(piece in said for piece in w.split("...")) for w in words)
        if core == "attachfs" or known or any(w in said for w in SAY_IT):
            continue
        raise AssertionError(f"README.md does not explain: {said}")


class TestSession:
    @pytest.fixture
    def system(self):
        return PERSCOM

    def test_the_session_shows_what_is_printed(self, emulator, home, base, token):
        server = emulator(
            tree={
                "users": {
                    "Ada Byron": {"notes.txt": b"The engine\n" * 40, "photo.jpg": b"\xff" * 90_000},
                    "Grace Hopper": {"moth.txt": b"15:45 Relay #70\n"},
                },
                "events": {"Winter camp": {"packing.txt": b"socks\n"}},
            }
        )
        (home / ".config/attachfs/config").write_text(
            f"[perscom]\nsource = perscom:{server.api}\ntoken_file = {token}\n"
            f"cache_dir = {base}/cache\nsettle = 60\n"
        )
        (home / "report.pdf").write_bytes(random_bytes(2_500_000, "report"))
        env = environment(base, home)
        for command, printed in typed():
            shown, _ = on_terminal(
                ["bash", "-c", f"cd ~; stty cols 100; {command}"], env
            )
            shown = shown.replace(f"perscom:{server.api}", "perscom:https://api.perscom.io/v2")
            shown = shown.replace(server.api, "https://api.perscom.io/v2")
            assert masked(shown) == masked(printed), f"$ {command}\n{shown}"
        assert not is_mounted(home / "drive")


def test_each_servers_section_mounts_it(system, emulator, home, base, token, attachfs):
    server = emulator(tree=small_tree())
    text = sections()[system.name]
    text = re.sub(r"(source = [a-z-]+:)\S+", rf"\g<1>{server.api}", text)
    (base / "password").write_text((system.password or "") + "\n")
    (base / "password").chmod(0o600)
    text = re.sub(r"(token_file =) .*", rf"\1 {token}", text)
    text = re.sub(r"(password_file =) .*", rf"\1 {base}/password", text)
    for name, value in system.options:
        text = re.sub(rf"^({name} =) .*", rf"\g<1> {value}", text, flags=re.M)
    if system.say_collections or "collections =" in text:
        ids = ":".join(map(server.collection_id, system.collections))
        text = re.sub(r"(collections =) .*", rf"\1 {ids}", text)
    (home / ".config/attachfs/config").write_text(text + f"cache_dir = {base}/cache\n")
    name = re.match(r"\[(.*)\]", text)[1]
    env = {"HOME": str(home)}
    assert "FAIL" not in attachfs("check", name, environment=env).stdout
    attachfs(name, home / "drive", environment=env)
    assert os.listdir(home / "drive")
    attachfs("umount", home / "drive", environment=env)
