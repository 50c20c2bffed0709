# SPDX-License-Identifier: MIT
"""
Lost answers once more (test_unknown.py): of changes of records, of sets being made and of logins;
and of calls for files that another client changes before anybody knows what became of the call.
"""

import errno
import json
import os
from typing import Callable

import pytest

from harness import (
    ENTERPRISE_TESTER,
    PERSCOM,
    RILLSOFT,
    SERVICEMAX,
    added,
    raises_errno,
    random_bytes,
    wait_until,
)
from test_unknown import ADA, LOST, ROUNDS, TIMEOUT, TROUBLE, begin_sync

# ---- records, sets and logins ----

ASKING = [{"port": "api", "method": "GET", "match": ""}, {"port": "api", "match": "/search"}]
HOW = [pytest.param(what, life, id=f"{what}, {life}") for what, life, _ in ROUNDS]


def lose(m, rule: dict, what: str) -> None:
    """The answer to the next call that @rule fits; what only asks is answered."""
    asking = [{**r, "count": -1, "latency_ms": 0} for r in ASKING]
    m.emulator.faults(*asking, {"port": "api", "match": "", **rule, "count": 1, **LOST[what]})


def pass_through(m, life: str) -> None:
    """The answer was lost, or will be: go through what is left, with a new daemon perhaps."""
    if life == "lives":
        m.sync()
    else:
        begin_sync(m)
        wait_until(lambda: m.emulator.struck(2) or m.idle(), "the answer to be lost")
    if life == "killed":
        m.kill9()
    elif life == "unmounted":
        m.umount()
    m.emulator.heal()
    if life != "lives":
        m.start()
        m.sync()


@pytest.mark.parametrize("system", [PERSCOM, ENTERPRISE_TESTER], ids=lambda s: s.name)
@pytest.mark.parametrize("what, life", HOW)
@pytest.mark.parametrize("act", ["name", "field"])
def test_a_change_of_a_record_whose_answer_was_lost_is_made_once(drive, system, act, what, life):
    m = drive(settle=600, poll=0, timeout=TIMEOUT)
    m.allow_errors(TROUBLE)
    collection = "events" if "events" in system.renamable else "users"
    old = "Live fire" if collection == "events" else "Ada Byron"
    field = "description" if system is PERSCOM else "Description"
    records = {r["id"]: r for r in m.emulator.state()["records"]}
    json_file = m / collection / old / ".record.json"
    fields = json.loads(json_file.read_text())
    os.listdir(m / collection / old)
    m.emulator.reset()
    lose(m, {}, what)
    if act == "name":
        os.rename(m / collection / old, m / collection / "Another name")
    elif field not in fields:
        pytest.skip(f"no field {field}")
    else:
        json_file.write_text(json.dumps({**fields, field: "other words"}))
    pass_through(m, life)
    calls = m.emulator.calls()
    after = {r["id"]: r for r in m.emulator.state()["records"]}
    assert set(after) == set(records)
    shown = "Another name" if act == "name" else old
    assert shown in os.listdir(m / collection)
    assert m.emulator.record(collection, shown)
    if act == "field":
        found = json.loads((m / collection / old / ".record.json").read_text())
        assert found[field] == "other words"
    assert sum(calls.values()) <= 16, calls
    assert (m.path / ".attachfs/failed").read_text() == ""


@pytest.mark.parametrize("system", [ENTERPRISE_TESTER], ids=lambda s: s.name)
@pytest.mark.parametrize("what", LOST)
def test_a_set_whose_answer_was_lost_can_be_made_again(drive, system, what):
    """Nobody can ask what sets there are: an empty one may be left, which the server sweeps."""
    m = drive(collections=("users", "events", "sets"), settle=0, poll=0, timeout=TIMEOUT)
    m.same_at_end = False
    m.allow_errors(TROUBLE + "|mkdir")
    os.listdir(m / "sets")
    lose(m, {"method": "POST"}, what)
    m.emulator.reset()
    with raises_errno(errno.EIO, errno.ETIMEDOUT, errno.EHOSTDOWN, errno.ECONNRESET, errno.EAGAIN):
        (m / "sets/mine").mkdir()
    assert os.listdir(m / "sets") == []
    assert sum(m.emulator.calls().values()) == 1, "it was not repeated"
    (m / "sets/mine").mkdir()
    assert os.listdir(m / "sets") == ["mine"]
    (m / "sets/mine/a.txt").write_bytes(b"in it")
    m.sync()
    ident = m.xattr("sets/mine", "id")
    found = [a for a in m.emulator.attachments() if a["record_remote_id"] == ident]
    assert [m.emulator.blob(a["id"]) for a in found] == [b"in it"]


LOGIN = {"servicemax": "/token", "rillsoft": "/login"}


@pytest.mark.parametrize("system", [SERVICEMAX, RILLSOFT], ids=lambda s: s.name)
@pytest.mark.parametrize("what", LOST)
@pytest.mark.parametrize("when", ["at the start", "again", "of a refresh that counts once"])
def test_a_login_whose_answer_was_lost_is_made_again(drive, system, what, when):
    toggles = {"ttl": 600}
    if "refresh" in when:
        if system is RILLSOFT:
            pytest.skip("no refresh there")
        toggles["refresh_rotation"] = "new"
    rule = {"port": "api", "method": "POST", "match": LOGIN[system.name], "count": 1, **LOST[what]}
    m = drive(toggles=toggles, start=False, settle=600, poll=0, timeout=TIMEOUT)
    m.allow_errors(TROUBLE + "|log in|login|auth")
    if when == "at the start":
        m.start()
        os.listdir(m / "users")  # a first mount asks the server, and says so when it cannot
        m.umount()
        m.emulator.faults(rule)
    m.start()
    os.listdir(m / "users/Nobody") if when != "at the start" else None
    if when != "at the start":
        m.emulator.clock(3600)
        m.emulator.faults(rule)
    m.emulator.reset()
    (m / "users/Nobody/new.txt").write_bytes(b"new " * 1000)
    os.unlink(m / ADA / "logo.png")
    m.sync()
    assert m.emulator.struck(0) == 1
    logins = [r for r in m.emulator.requests() if LOGIN[system.name] in r["path"]]
    assert len(logins) <= 4, logins
    assert m.emulator.bytes_of("users/Nobody/new.txt") == b"new " * 1000
    assert "logo.png" not in m.emulator.folder(ADA)
    m.emulator.heal()


# ---- another client, before it is known what became of the call ----

OURS, THEIRS = random_bytes(3000, "ours"), b"theirs " * 500


def fate(m, what: str, ident: int) -> None:
    """What the other client does to the file."""
    ops = {
        "renamed": {"op": "rename", "id": ident, "name": "theirs.txt", "filename": "theirs.txt"},
        "replaced": {"op": "replace", "id": ident, "text": THEIRS.decode()},
        "deleted": {"op": "delete", "id": ident},
    }
    m.emulator.clock(60)
    m.emulator.change(ops[what])


def lose_and_stop(m, life: str) -> None:
    """One answer is lost, and nothing is heard of the server from then on."""
    rest = {"hang": True} if life == "killed" else {"status": 503}
    m.emulator.faults(
        m.system.reads,
        {**m.system.writes, "count": 1, "drop_reply": True},
        {**m.system.writes, **rest},
    )


def find_out(m, life: str, done: Callable, meanwhile: Callable) -> None:
    begin_sync(m)
    wait_until(lambda: m.emulator.struck(1) and done(m.emulator.folder(ADA)), "it to be done")
    if life == "killed":
        m.kill9()
    else:
        m.emulator.faults({**m.system.api, "status": 503})
    meanwhile()
    m.emulator.heal()
    if life == "killed":
        m.start()
    else:
        m.command("retry")
    for _ in range(3):
        m.command("refresh")
        m.sync()


def contents(m) -> dict:
    """
    What the server has, and the mount shows; of two of one name either may have the plain one, so
    they are compared by their bytes.
    """
    found = {n: m.emulator.blob(a["id"]) for n, a in m.emulator.folder(ADA).items()}
    shown = [(m / ADA / n).read_bytes() for n in m.names(ADA)]
    assert sorted(shown) == sorted(found.values())
    m.same_at_end = False
    return found


BOTH = pytest.mark.parametrize("life", ["lives", "killed"])
FATES = pytest.mark.parametrize("what", ["renamed", "replaced", "deleted"])


@BOTH
@FATES
def test_a_create_of_unknown_outcome_that_another_client_changed(drive, life, what):
    m = drive(
        tree={"users": {"Ada Byron": {"there.txt": b"there"}}, "events": {}}, settle=600, poll=0
    )
    m.allow_errors(TROUBLE)
    os.listdir(m / ADA)
    lose_and_stop(m, life)
    (m / ADA / "new.txt").write_bytes(OURS)
    find_out(
        m,
        life,
        lambda there: "new.txt" in there,
        lambda: fate(m, what, m.emulator.file(f"{ADA}/new.txt")["id"]),
    )
    found = contents(m)
    assert found.pop("there.txt") == b"there"
    assert OURS in found.values(), f"ours is lost: {sorted(found)}"
    assert len(found) <= 2, sorted(found)
    if what == "deleted":
        assert list(found) == ["new.txt"]
    assert m.status()["failed"] == 0


@BOTH
@FATES
def test_a_replacement_of_unknown_outcome_that_another_client_changed(drive, life, what):
    m = drive(
        tree={
            "users": {"Ada Byron": {"a.txt": b"old " * 500, "there.txt": b"there"}},
            "events": {},
        },
        settle=600,
        poll=0,
    )
    m.allow_errors(TROUBLE + "|conflict")
    (m / ADA / "a.txt").read_bytes()
    lose_and_stop(m, life)
    (m / ADA / "a.txt").write_bytes(OURS)
    names = ["a.txt"] if m.system.replace_keeps_id else None

    def meanwhile():
        found = [a for p, a in m.emulator.files().items() if "/a" in p]
        fate(m, what, max(a["id"] for a in found))

    def done(there) -> bool:
        return OURS in [m.emulator.blob(a["id"]) for a in there.values()]

    find_out(m, life, done, meanwhile)
    found = contents(m)
    assert found.pop("there.txt") == b"there"
    assert OURS in found.values(), f"ours is lost: {sorted(found)}"
    assert b"old " * 500 not in found.values() or not names, sorted(found)
    assert len(found) <= 3, sorted(found)
    assert m.status()["failed"] == 0


@BOTH
@FATES
def test_a_rename_of_unknown_outcome_that_another_client_changed(drive, life, what, system):
    m = drive(
        tree={"users": {"Ada Byron": {"a.txt": OURS, "there.txt": b"there"}}, "events": {}},
        settle=600,
        poll=0,
    )
    m.allow_errors(TROUBLE + "|conflict")
    (m / ADA / "a.txt").read_bytes()
    lose_and_stop(m, life)
    os.rename(m / ADA / "a.txt", m / ADA / "renamed.txt")

    def meanwhile():
        fate(m, what, m.emulator.file(f"{ADA}/renamed.txt")["id"])

    find_out(m, life, lambda there: "renamed.txt" in there, meanwhile)
    found = contents(m)
    assert found.pop("there.txt") == b"there"
    if what == "replaced":
        assert THEIRS in found.values() or OURS in found.values(), sorted(found)
    elif what == "renamed":
        assert OURS in found.values(), sorted(found)
    assert len(found) <= 2, sorted(found)
    if system.rename_in_place:
        assert len(found) == (what != "deleted"), sorted(found)
    assert m.status()["failed"] == 0


@BOTH
@pytest.mark.parametrize("files", [1, 3])
def test_a_deletion_of_unknown_outcome_spares_another_clients_new_file(drive, life, files):
    """A deletion may go by the name, which is somebody else's file by the time it is sent again."""
    names = [f"{c}.txt" for c in "abcdef"[:files]]
    tree = {"users": {"Ada Byron": {n: OURS for n in names + ["there.txt"]}}, "events": {}}
    m = drive(tree=tree, settle=600, poll=0)
    m.allow_errors(TROUBLE)
    os.listdir(m / ADA)
    lose_and_stop(m, life)
    for name in names:
        os.unlink(m / ADA / name)
    taken = []

    def take_a_name() -> None:
        # where they go one by one, any of them may have been the first
        taken.append(min(set(names) - set(m.emulator.folder(ADA))))
        m.emulator.change(added(taken[0], text=THEIRS.decode()))

    find_out(m, life, lambda there: set(names) - set(there), take_a_name)
    found = contents(m)
    assert found.pop("there.txt") == OURS
    assert found.pop(taken[0]) == THEIRS
    # the others had not been asked for then; they are gone by now all the same
    assert found == {}
    assert m.status()["failed"] == 0
