# SPDX-License-Identifier: MIT
"""
Every command that README.md shows is held by a test: a block of lines is run as it stands there, or
by the test named here; a command within a sentence is one the program has, and what cannot be run
in a test is listed with the reason. What nobody has classified fails.
"""

import functools
import os
import re
import shutil
from pathlib import Path

import pytest

from harness import (
    PERSCOM,
    SLOW,
    binary,
    build_dir,
    clean_environment,
    is_mounted,
    lazy_unmount,
    on_terminal,
    run,
    small_tree,
)

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
README = (ROOT / "README.md").read_text()
URL = "https://api.perscom.io/v2"

# A block by how it begins, and the test that holds it. One of test_backups.py must name it itself.
BLOCKS = {
    "scripts/demo [DIR]": "test_the_demo_and_its_end",
    "$ attachfs check perscom": "test_the_session_shows_what_is_printed",
    "umask 077": "test_the_first_mount_as_it_is_typed",
    "attachfs check -o token_file": "test_the_first_mount_as_it_is_typed",
    "ls ~/perscom/users": "test_the_first_mount_as_it_is_typed",
    "[perscom]\nsource = perscom:https://api.perscom.io/v2\ntoken_file = ~/.config/attachfs/token\n": (
        "test_the_section_of_the_config_file"
    ),
    "perscom:https://api.perscom.io/v2 /mnt/perscom fuse.attachfs": "test_the_line_of_fstab",
    "[perscom]": "test_each_servers_section_mounts_it",
    "[servicemax]": "test_each_servers_section_mounts_it",
    "[tester]": "test_each_servers_section_mounts_it",
    "[rillsoft]": "test_each_servers_section_mounts_it",
    "rsync -rt --delete": "test_rsync_out",
    "tar ": "test_tar_out",
    "restic ": "test_restic_out",
    "borg ": "test_borg_out",
    "rsync -rt /backup/reports/": "test_rsync_in_with_sync_as_the_barrier",
    "find ": "test_find_what_has_changed",
    "30 2 * * *": "test_the_line_of_cron",
}
PICTURES = ("          programs: cp, rsync", "cache_dir/  content store")

# Commands within sentences that no test runs, and why not.
NOT_RUN = {
    "modprobe fuse": "loads a module into the kernel the tests run on",
    "umount -f": "frees who waits for a daemon that is no more; needs one that hangs in the kernel",
    "umount -l": "harness.py does, where a test has failed",
    "crontab -e": "opens an editor; the line to put there is run",
    "meson dist -C build": "takes a commit and minutes; scripts/package builds from such an archive",
    "sudo apt install ./build-package/attachfs_*.deb": "scripts/package --check does it, in a clean Debian",
    "meson setup build -Dtests=false --buildtype=release && ninja -C build && sudo ninja -C build install": (
        "what debhelper does for scripts/package --check"
    ),
    "systemd --user": "the name of a program; test_systemd.py runs it",
    "curl --parallel": "scripts/bench does, to compare with",
    "rclone mount --vfs-cache-mode full": "likewise",
    "export RESTIC_PASSWORD_FILE=...": "test_backups.py sets it",
    "ls sets/<GUID>": "test_enterprise_tester.py does, with the GUID of a set",
}


@pytest.fixture
def system():
    return PERSCOM


def blocks():
    """The blocks of the page, without what they are indented by."""
    fenced = re.findall(r"^```console\n(.*?)^```", README, re.M | re.S)
    indented = re.findall(r"(?:^    .*\n)+", re.sub(r"^```.*?^```", "", README, flags=re.M | re.S), re.M)
    return fenced + [re.sub(r"^    ", "", b, flags=re.M) for b in indented]


def commands_in_sentences():
    """What stands between backquotes and begins with a program and has arguments, or is a script of ours."""
    text = re.sub(r"^```.*?^```", "", README, flags=re.M | re.S)
    text = re.sub(r"^    .*\n", "", text, flags=re.M)
    # what is said there is said by programs
    messages = text.split("## When something is wrong\n")[1].split("\n## ")[0]
    text = text.replace(messages, re.sub(r"^\|.*?\|", "|", messages, flags=re.M))
    found = {re.sub(r"\s+", " ", span).replace("\\|", "|") for span in re.findall(r"`([^`]+)`", text)}
    for span in sorted(found):
        words = re.sub(r"^([A-Z_]+=\S+ )+", "", span).split()
        if not words:
            continue
        name = words[0]
        ours = name == "attachfs" or name.startswith(("scripts/", "tests/mount/saves/"))
        if ours or span in NOT_RUN or (len(words) > 1 and shutil.which(name)):
            yield span, words


def test_every_block_is_held_by_a_test():
    tests = "".join(f.read_text() for f in HERE.glob("test_*.py"))
    used = set()
    for block in blocks():
        if block.startswith(PICTURES):
            continue
        starts = [s for s in BLOCKS if block.startswith(s)]
        assert starts, f"no test holds this block of README.md:\n{block}"
        best = max(starts, key=len)
        used.add(best)
        assert f"def {BLOCKS[best]}(" in tests
    assert used == set(BLOCKS), "named here, but not in README.md any more"


def check_attachfs(span, words, complete):
    if words[1] == "COMMAND" or words[1].startswith(("[-f]", "[-o")):
        return
    if words[1] not in complete("commands"):
        # NAME MOUNTPOINT
        assert words[1] == "perscom" and len(words) == 3, span
        return
    for flag in re.findall(r"--[a-z-]+", span):
        assert flag in complete("flags", words[1]) + ["--help"], f"`{span}`: no {flag}"


def check_script(span, words):
    script = ROOT / words[0]
    assert os.access(script, os.X_OK), f"`{span}`: no such script"
    text = script.read_text()
    for more in (ROOT / "tests" / script.name).glob("*"):
        text += more.read_text() if more.is_file() else ""
    for word in re.findall(r"(?<![\w<])--?[a-z]+|(?<= )[a-z_]+(?![\w=])", span.split(words[0])[1]):
        known = word in text or word in ("-k", "rename") or list(HERE.glob(f"{word}.py"))
        assert known, f"`{span}`: no {word} in {words[0]}"


def test_every_command_in_a_sentence_is_one_there_is(attachfs):
    @functools.lru_cache(maxsize=None)
    def complete(*argv):
        return attachfs("--complete", *argv).stdout.split("\n")

    packages = (ROOT / "scripts/packages").read_text().split()
    units = {re.sub(r"\.in$", "", f.name) for f in (ROOT / "scripts/systemd").iterdir()}
    for span, words in commands_in_sentences():
        if span in NOT_RUN:
            continue
        elif words[0] == "attachfs":
            check_attachfs(span, words, complete)
        elif "/" in words[0]:
            check_script(span, words)
        elif words[:2] == ["apt-get", "install"]:
            assert set(words[2:]) <= set(packages), f"`{span}`: not in scripts/packages"
        elif words[:2] == ["systemctl", "--user"] and words[2] in ("status", "enable"):
            for unit in words[4:]:
                template = re.sub(r"@[^.]*", "@", unit) + ("" if "." in unit else ".service")
                assert template in units, f"`{span}`: no such unit"
        elif words[0] in ("ls", "tail", "getfattr", "chmod", "cp", "rsync"):
            # what they do is done all over the tests
            assert run(words[0], "--help", ok=None).returncode == 0
        else:
            raise AssertionError(f"nobody has said how this command of README.md is tested: `{span}`")


def test_what_is_not_run_is_still_there():
    assert not set(NOT_RUN) - {span for span, _ in commands_in_sentences()}


# The blocks


@pytest.fixture
def home(base):
    path = base / "home"
    path.mkdir()
    (path / "report.pdf").write_bytes(b"%PDF" + bytes(5000))
    yield path
    lazy_unmount(path / "perscom")


def environment(base, home):
    path = f"{Path(binary('attachfs')).parent}:/usr/sbin:/usr/bin:/sbin:/bin"
    return {**clean_environment(base, PATH=path), "HOME": str(home), "LC_ALL": "C.UTF-8"}


def block(start):
    (found,) = [b for b in blocks() if b.startswith(start)]
    return found


def test_the_first_mount_as_it_is_typed(emulator, home, base):
    server = emulator(tree=small_tree())
    lines = "".join(map(block, ("umask 077", "attachfs check -o", "ls ~/perscom/users")))
    done = run(
        "bash", "-ec", lines.replace(URL, server.api), cwd=home, input=f"{server.token}\n",
        env=environment(base, home),
    )  # fmt: skip
    assert "ok    may read" in done.stdout and "Ada Byron" in done.stdout
    assert server.bytes_of("users/Ada Byron/report.pdf") == (home / "report.pdf").read_bytes()
    assert not is_mounted(home / "perscom")


def test_the_section_of_the_config_file(emulator, home, base, token):
    server = emulator(tree=small_tree())
    (home / ".config/attachfs").mkdir(parents=True)
    (home / "perscom").mkdir()
    text = block(max((s for s in BLOCKS if s.startswith("[perscom]")), key=len))
    (home / ".config/attachfs/config").write_text(text.replace(URL, server.api))
    shutil.copy(token, home / ".config/attachfs/token")
    env = environment(base, home)
    run("bash", "-ec", "attachfs perscom ~/perscom", env=env)
    assert sorted(os.listdir(home / "perscom")) == ["events", "tasks", "users"]
    told = run("bash", "-ec", "getfattr --only-values -n user.attachfs.state notes.txt", env=env,
               cwd=home / "perscom/users/Ada Byron").stdout  # fmt: skip
    assert told == "remote"
    run("bash", "-ec", "attachfs config show perscom; attachfs umount ~/perscom", env=env)


@pytest.mark.skipif(os.getuid() != 0, reason="mount(8) and allow_other are root's")
def test_the_line_of_fstab(emulator, mnt, base, token, home):
    """
    The line as it is, but for server, directory and token: mount(8) reads it, and the helper it runs
    for the type does the rest. It runs that without a PATH, so here it only says that it would;
    scripts/package --check mounts what is installed.
    """
    server = emulator(tree=small_tree())
    line = block("perscom:https://api.perscom.io/v2 /mnt/perscom")
    source, where, kind, options, *numbers = line.split()
    options = options.replace("/etc/attachfs/token", str(token)) + f",cache_dir={base}/cache"
    fields = (source.replace(URL, server.api), str(mnt), kind, options, *numbers)
    (base / "fstab").write_text(" ".join(fields) + "\n")
    env = environment(base, home)
    run("findmnt", "--verify", "--tab-file", base / "fstab", env=env)
    run("mount", "--fake", "--internal-only", "-T", base / "fstab", mnt, env=env)
    run("mount.fuse", fields[0], mnt, "-t", kind, "-o", f"rw,{options}", env=env)
    assert is_mounted(mnt) and (mnt / "users/Ada Byron/tiny.txt").read_bytes() == b"abc"
    run(binary("attachfs"), "umount", mnt, env=env)
    assert not is_mounted(mnt)


@pytest.mark.skipif(
    SLOW > 1 or build_dir() != ROOT / "build", reason="it runs what is in build, and builds it"
)
def test_the_demo_and_its_end(base, home):
    """The two commands: the other one is what runs this."""
    where = base / "demo of mine"
    env = environment(base, home)
    try:
        shown, status = on_terminal([ROOT / "scripts/demo", where], env, seconds=120)
        assert status == 0, shown
        assert is_mounted(where) and os.listdir(where)
        # as it says how it is ended
        (line,) = re.findall(r"^    (\S*scripts/demo --stop .*)", shown.replace("\r", ""), re.M)
        run("bash", "-ec", line, env=env)
        assert not is_mounted(where) and not where.exists() and not Path(f"{where}.state").exists()
    finally:
        run(ROOT / "scripts/demo", "--stop", where, env=env, ok=None)
        lazy_unmount(where)
