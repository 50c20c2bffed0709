# SPDX-License-Identifier: MIT
"""
The config file as a person meets it: sections that include others, what holds and where it was
said, and the file and line of what is wrong. How each value is read is tested in C.
"""

import pytest

from harness import PERSCOM, is_mounted, refused


@pytest.fixture
def system():
    return PERSCOM


@pytest.fixture
def config(base):
    """Write the user's config file; where it is."""
    path = base / "home/.config/attachfs/config"
    path.parent.mkdir(parents=True)

    def write(text):
        path.write_text(text)
        return path

    return write


def test_config_show_tells_where_each_value_comes_from(attachfs, config, token):
    path = config(
        f"[common]\ntoken_file = {token}\ncache_size = 2G\n\n"
        "[work]\nsource = perscom:http://127.0.0.1:1/v2\ninclude = common\nnoatime = yes\n"
        "proxy = http://me:hush@proxy\n"
    )
    told = attachfs(
        "config", "show", "-o", "settle=5", "work", environment={"ATTACHFS_PASSWORD": "hush"}
    ).stdout
    rows = dict(line.split(" = ", 1) for line in told.splitlines()[1:] if " = " in line)
    assert told.startswith("[work]\n")
    assert rows["source"].split() == ["perscom:http://127.0.0.1:1/v2", ";", f"{path}:6"]
    assert rows["token_file"].split() == [str(token), ";", f"{path}:2"]
    assert rows["cache_size"].split() == ["2G", ";", f"{path}:3"]
    assert rows["noatime"].split() == ["yes", ";", f"{path}:8"]
    assert rows["settle"].split() == ["5", ";", "command", "line"]
    assert rows["poll"].split() == ["60", ";", "default"]
    assert rows["proxy"].split() == ["<set>", ";", f"{path}:9"]
    assert "ATTACHFS_PASSWORD = <set>" in told and "hush" not in told
    assert set(attachfs("--complete", "sections").stdout.split()) >= {"common", "work"}


def test_what_config_shows_can_be_mounted(attachfs, config, emulator, token, mnt, base):
    server = emulator(tree={"users": {"Ada Byron": {"a.txt": b"hello"}}, "events": {}})
    text = f"source = {server.system.source(server.api)}\ntoken_file = {token}\n"
    config(f"[work]\n{text}cache_dir = {base}/cache\n")
    shown = attachfs("config", "show", "work").stdout
    config(shown.replace("[work]", "[again]"))
    attachfs("again", mnt)
    assert (mnt / "users/Ada Byron/a.txt").read_bytes() == b"hello"
    attachfs("umount", mnt)


@pytest.mark.parametrize(
    "text, words",
    [
        ("[work]\nsource = perscom:http://127.0.0.1:1/\nsettel = 3\n", [":3:", "settel", "settle"]),
        ("[work]\nsource = perscom:http://127.0.0.1:1/\nsettle = x\n", [":3:", "settle", "'x'"]),
        ("[work]\nsource = nonsense:http://h/\n", [":2:", "nonsense", "perscom"]),
        ("[work]\ninclude = other\n", [":2:", "other"]),
        ("[work]\nslots = 3\n", ["work", "source"]),
        ("[work\n", ["config:1:"]),
        ("[elsewhere]\nslots = 3\n", ["[work]", "config"]),
    ],
)
def test_what_is_wrong_names_file_and_line(attachfs, config, mnt, text, words):
    path = config(text)
    for result in (
        attachfs("-f", "work", mnt, ok=False),
        attachfs("config", "show", "work", ok=False),
    ):
        refused(result, str(path), *words)
    assert not is_mounted(mnt)


def test_config_is_refused_without_a_name(attachfs):
    for argv in ((), ("show",), ("show", "-o"), ("show", "a", "b"), ("edit", "work")):
        result = attachfs("config", *argv, ok=False)
        assert result.returncode == 2 and "usage:" in result.stderr

