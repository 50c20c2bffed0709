# SPDX-License-Identifier: MIT
"""
The config file as a person meets it: sections that include others, what holds and where it was
said, and the file and line of what is wrong. How each value is read is tested in C.
"""

import shutil
from pathlib import Path

import pytest

from harness import PERSCOM, binary, clean_environment, is_mounted, refused, run


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


# What shells complete

COMPLETIONS = Path(__file__).resolve().parents[2] / "scripts/completions"


@pytest.fixture
def complete(base):
    """What bash offers for the last word of a command line."""

    def offered(*words):
        script = (
            f"source {COMPLETIONS}/attachfs.bash; compopt() {{ :; }};"
            ' COMP_WORDS=("$@") COMP_CWORD=$(($# - 1)); _attachfs; printf "%s\\n" "${COMPREPLY[@]}"'
        )
        path = f"{Path(binary('attachfs')).parent}:/usr/bin:/bin"
        env = clean_environment(base, PATH=path)
        said = run("bash", "-c", script, "bash", "attachfs", *words, env=env, cwd=base)
        assert not said.stderr, said.stderr
        return said.stdout.splitlines()

    return offered


def test_bash_completes_commands_sections_flags_options_and_mounts(complete, config, drive):
    m = drive()
    config("[work]\nsource = perscom:http://127.0.0.1:1/\n[wide world]\nslots = 3\n")
    assert complete("s") == ["status", "sync", "servicemax:"]
    assert complete("w") == ["work", "wide\\ world"]
    assert complete("sync", "--") == ["--path", "--timeout", "--help"]
    assert complete("check", "-o", "slots=3,cache_s") == ["slots=3,cache_size="]
    assert str(m.path) in complete("umount", "/")
    assert complete("config", "") == ["show"] and "work" in complete("config", "show", "w")
    assert complete("conflicts", "keep", "") == ["mine", "theirs", "both"]
    assert "verify" in complete("cache", "")
    assert complete("sync", "--timeout", "") in ([], [""])


@pytest.mark.parametrize("shell", ["zsh", "fish"])
def test_other_shells_take_their_completion(shell):
    if not shutil.which(shell):
        pytest.skip(f"no {shell} here")
    run(shell, "-n", COMPLETIONS / f"attachfs.{shell}")
