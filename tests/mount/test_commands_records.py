# SPDX-License-Identifier: MIT
"""
attachfs ls-records: what there is, with its ids, as JSON lines and on a terminal, by the calls a
listing takes and no more.
"""

import json

import pytest

from harness import KEEP, PERSCOM, binary, on_terminal, run, small_tree


def records(m, *path):
    told = run(binary("attachfs"), "ls-records", *(path or [m.path]), env=m.env()).stdout
    return {m.system.logical_path(r.pop("path")): r for r in map(json.loads, told.splitlines())}


def test_records_are_told_with_ids_and_what_is_attached(drive, system):
    m = drive()
    found = records(m)
    wanted = {f"{c}/{r}": files for c, rs in small_tree().items() for r, files in rs.items()}
    assert set(found) == set(wanted)
    for path, files in wanted.items():
        if not files and system.hides_empty:
            files = {KEEP: b"so that this is listed\n"}
        r = found[path]
        assert r["id"] == m.xattr(path, "id")
        assert r["attachments"] == len(files)
        if system.sizes_listed:
            assert (r["bytes"], r["unsized"]) == (sum(map(len, files.values())), 0)
    assert m.emulator.downloads() == [], "it asks for no sizes"


def test_of_a_collection_a_record_or_a_file(drive):
    m = drive()
    all_of_them = records(m)
    users = records(m, m / "users")
    assert set(users) == {p for p in all_of_them if p.startswith("users/")}
    one = {"users/Ada Byron": all_of_them["users/Ada Byron"]}
    assert records(m, m / "users/Ada Byron") == one
    assert records(m, m / "users/Ada Byron/notes.txt") == one


def test_what_was_listed_costs_nothing(drive):
    m = drive(poll=0)
    first = records(m)
    m.emulator.reset()
    assert records(m) == first
    assert m.emulator.calls() == {}


class TestTerminal:
    @pytest.fixture
    def system(self):
        return PERSCOM

    def test_it_is_a_table(self, drive):
        m = drive()
        shown, status = on_terminal([binary("attachfs"), "ls-records", m / "users"], m.env())
        lines = shown.replace("\r", "").splitlines()
        assert status == 0 and lines[0].split() == ["ID", "FILES", "BYTES", "RECORD"]
        ident = m.xattr("users/Ada Byron", "id")
        (row,) = [line for line in lines if "Ada Byron" in line]
        assert row.split()[:2] == [ident, "5"] and "users/Ada Byron" in row
        assert "5 of unknown size" in row
        assert not [line for line in lines if "events" in line]

    def test_what_cannot_be_listed_is_told(self, drive):
        m = drive(timeout=2)
        m.emulator.faults({**m.system.list, "status": 403, "body": m.system.refusal("no")})
        m.allow_errors("403|refused|list")
        told = m.command("ls-records", ok=False)
        assert "users' cannot be listed: Permission denied" in told.stderr
        m.emulator.heal()
    