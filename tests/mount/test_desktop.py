# SPDX-License-Identifier: MIT
"""
What a desktop does to a drive without being asked, and what its programs do with files: indexers
download nothing, GIO (Nautilus, and what else is of GNOME) copies and saves, free space, types and
attributes are told. Editors are in test_editors.py.
"""

import errno
import os
import shutil

import pytest

from harness import PERSCOM, raises_errno, random_bytes, run

HINTS = (".trackerignore", ".nomedia", ".metadata_never_index")


@pytest.fixture
def system():
    return PERSCOM


# Indexers


def test_indexers_are_told_to_leave_it_alone(drive):
    m = drive()
    for name in HINTS:
        assert (m.path / name).read_bytes() == b""
        with raises_errno(errno.EACCES, errno.EPERM):
            (m.path / name).write_bytes(b"x")
        with raises_errno(errno.ENOENT, errno.EPERM):
            os.unlink(m.path / name)
        assert (m.path / name).exists()
    assert sorted(os.listdir(m.path)) == ["events", "users"], "there, but not shown"


@pytest.fixture
def as_program(base):
    """Run `cat` under another program's name."""

    def call(name, path, **kwargs):
        program = base / name
        if not program.exists():
            shutil.copy("/bin/cat", program)
        return run(program, path, **kwargs)

    return call


def test_indexers_download_nothing(drive, as_program):
    m = drive()
    before = m.emulator.downloads()
    path = m / "users/Ada Byron/notes.txt"
    for name in ("tracker-miner-fs-3", "tracker-extract-3", "baloo_file", "baloo_file_extractor"):
        assert "Permission denied" in as_program(name, path, ok=False).stderr
        os.stat(path)
    assert as_program("baloo_file", m / "users/Ada Byron/empty.txt").stdout == ""
    assert len(m.emulator.downloads()) - len(before) <= 5, "sizes only, a byte each"
    text = as_program("somebody", path).stdout
    assert as_program("baloo_file", path).stdout == text, "what is here they get"
    (m / "users/Nobody/mine.txt").write_bytes(b"mine")
    assert as_program("updatedb.plocate", m / "users/Nobody/mine.txt").stdout == "mine"


def test_who_indexes_can_be_said(drive, as_program):
    m = drive(indexers="somebod?")
    path = m / "users/Ada Byron/notes.txt"
    as_program("somebody", path, ok=False)
    as_program("baloo_file", path)
    other = drive(indexers="")
    as_program("baloo_file", other / "users/Ada Byron/notes.txt")


# GIO


@pytest.fixture
def gio(base):
    if not shutil.which("gio"):
        pytest.fail("apt-get install libglib2.0-bin")

    def call(*argv, **kwargs):
        # no daemons of a desktop: only the library
        env = {"PATH": "/usr/bin:/bin", "HOME": str(base), "GIO_USE_VFS": "local", "LC_ALL": "C"}
        return run("gio", *argv, env=env, **kwargs)

    return call


def test_gio_copies_in_out_and_over(drive, gio, scratch):
    m = drive()
    (scratch / "in.bin").write_bytes(random_bytes(300_000, "in"))
    os.utime(scratch / "in.bin", (1_700_000_000, 1_700_000_000))
    gio("copy", "--preserve", scratch / "in.bin", m / "users/Nobody/in.bin")
    gio("copy", m / "users/Ada Byron/large.bin", scratch / "out.bin")
    assert (scratch / "out.bin").read_bytes() == random_bytes(600_000, "large")
    assert os.stat(m / "users/Nobody/in.bin").st_mtime == 1_700_000_000
    ident = m.emulator.file("users/Ada Byron/notes.txt")["id"]
    gio("copy", scratch / "in.bin", m / "users/Ada Byron/notes.txt")
    m.sync()
    for path in ("users/Nobody/in.bin", "users/Ada Byron/notes.txt"):
        assert m.emulator.bytes_of(path) == random_bytes(300_000, "in")
    assert m.emulator.file("users/Ada Byron/notes.txt")["id"] == ident, "the same attachment"
    names = set(os.listdir(m / "users/Ada Byron"))
    assert not [n for n in names if "goutputstream" in n or n.endswith("~")]


def test_gio_saves_moves_renames_and_removes(drive, gio):
    m = drive()
    ident = m.emulator.file("users/Ada Byron/notes.txt")["id"]
    gio("save", m / "users/Ada Byron/notes.txt", input="saved\n" * 500)
    m.sync()
    assert m.emulator.bytes_of("users/Ada Byron/notes.txt") == b"saved\n" * 500
    assert m.emulator.file("users/Ada Byron/notes.txt")["id"] == ident
    gio("rename", m / "users/Ada Byron/tiny.txt", "small.txt")
    gio("move", m / "users/Ada Byron/logo.png", m / "users/Nobody/logo.png")
    gio("remove", m / "users/Ada Byron/empty.txt")
    m.sync()
    server = m.emulator.files()
    assert {"users/Ada Byron/small.txt", "users/Nobody/logo.png"} <= set(server)
    assert not {"users/Ada Byron/empty.txt", "users/Ada Byron/logo.png"} & set(server)


def test_the_trash_refuses_and_removes_nothing(drive, gio):
    m = drive()
    gio("trash", m / "users/Ada Byron/notes.txt", ok=False)
    assert (m / "users/Ada Byron/notes.txt").exists()
    assert sorted(os.listdir(m.path)) == ["events", "users"], "no directory of a trash"


def test_gio_is_told_type_size_and_room(drive, gio):
    m = drive()
    told = gio("info", m / "users/Ada Byron/notes.txt").stdout
    assert "standard::size: 8690" in told and "standard::content-type: text/plain" in told
    room = gio("info", "-f", m.path).stdout
    values = dict(line.strip().split(": ", 1) for line in room.splitlines() if ": " in line)
    assert int(values["filesystem::free"]) > 1 << 30
    assert int(values["filesystem::size"]) >= int(values["filesystem::free"])


# What other programs are told


def test_df_file_and_getfattr_tell_what_is(drive):
    m = drive()
    assert "users" in run("ls", m.path).stdout
    size, used, free = map(
        int, run("df", "-B1", "--output=size,used,avail", m.path).stdout.split()[-3:]
    )
    assert size >= free > 0 and used >= 0
    assert run("df", "--output=fstype", m.path).stdout.split()[-1] == "fuse.attachfs"
    assert "ASCII text" in run("file", "-b", m / "users/Ada Byron/notes.txt").stdout
    assert "directory" in run("file", "-b", m / "users").stdout
    told = run("getfattr", "-d", "--absolute-names", m / "users/Ada Byron/notes.txt").stdout
    for name in ("id", "state", "url", "version"):
        assert f"user.attachfs.{name}=" in told
    everything = run("getfattr", "-d", "-m", "-", m / "users/Ada Byron/notes.txt")
    assert everything.stderr.count("Operation not supported") == 0
