# SPDX-License-Identifier: MIT
"""
What the top directories are: collections that a server lists (Rillsoft), and one whose records it
does not (Enterprise Tester's sets).
"""

import errno
import os

import pytest

from harness import ENTERPRISE_TESTER, RILLSOFT, raises_errno, run


@pytest.mark.parametrize("system", [RILLSOFT], ids=["rillsoft"])
def test_projects_are_shown_by_name_and_found_by_id(drive, system):
    m = drive()
    names = sorted(os.listdir(m.path))
    assert names == ["events", "users"]
    ident = m.xattr("users", "id")
    assert ident.isdigit()
    assert os.readlink(m / ident) == "users"
    assert os.readlink(m / ".by-id" / ident) == "../users"
    assert os.listdir(m / ident) == os.listdir(m / "users")
    m.remount()
    assert m.xattr("users", "id") == ident


@pytest.mark.parametrize("system", [ENTERPRISE_TESTER], ids=["enterprise-tester"])
def test_a_set_is_made_filled_and_forgotten(drive, system):
    m = drive(collections=("users", "events", "sets"))
    m.same_at_end = False
    (m / "sets/mine").mkdir()
    ident = m.xattr("sets/mine", "id")
    (m / "sets/mine/a.txt").write_bytes(b"one of a set")
    m.sync()
    m.remount()
    assert os.listdir(m / "sets") == ["mine"]
    assert (m / "sets/mine/a.txt").read_bytes() == b"one of a set"
    assert os.readlink(m / "sets" / ident) == "mine"
    m.forget_cache()
    assert os.listdir(m / "sets") == []
    assert os.listdir(m / "sets" / ident) == ["a.txt"]
    assert (m / "sets" / ident / "a.txt").read_bytes() == b"one of a set"
    with raises_errno(errno.ENOTEMPTY):
        (m / "sets" / ident).rmdir()
    run("rm", "-r", m / "sets" / ident)
    m.sync()
    assert os.listdir(m / "sets") == []
    with raises_errno(errno.ENOENT):
        os.stat(m / "sets" / "00000000-1111-2222-3333-444444444444")
    with raises_errno(errno.EPERM):
        (m / "requirements/x").mkdir()


@pytest.mark.parametrize("system", [RILLSOFT], ids=["rillsoft"])
def test_attachments_named_by_an_option_stand_in_their_directory(drive, system):
    m = drive(toggles={"attachments": 2}, attachments="9001:9002")
    m.same_at_end = False
    m.allow_errors(r"read attachment 900\d: .* status 404")  # nobody has uploaded it yet
    assert sorted(os.listdir(m.path)) == ["attachments", "events", "users"]
    assert sorted(os.listdir(m / "attachments")) == ["9001", "9002"]
    (m / "attachments/9001").write_bytes(b"new bytes")
    m.sync()
    m.forget_cache()
    assert (m / "attachments/9001").read_bytes() == b"new bytes"
    assert os.readlink(m / "attachments/.by-id" / m.xattr("attachments/9001", "id")) == "../9001"
    with raises_errno(errno.EPERM):
        (m / "attachments/9003").write_bytes(b"no such id")
    with raises_errno(errno.EPERM):
        (m / "attachments/9001").unlink()
    with raises_errno(errno.EPERM):
        os.rename(m / "attachments/9001", m / "attachments/other")
