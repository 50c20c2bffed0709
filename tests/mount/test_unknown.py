# SPDX-License-Identifier: MIT
"""
Calls whose outcome nobody knows: the server did what was asked, and the answer never came, came in
half, came too late, or was a gateway's. Each kind of writing call on each kind of server, with a
daemon that lives on, is killed, or is unmounted meanwhile: nothing is there twice, nothing is lost,
what the server changes in place keeps its id, and finding out costs few calls.

    round   one act on files of its own, of which the answer to the step-th writing call is lost
"""

import errno
import itertools
import json
import os
from dataclasses import dataclass
from typing import Callable, Optional

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

TROUBLE = (
    r"50\d|lost|broke|reset|connection|unknown|empty|answer|cut|short|timed? ?out|gateway|JSON"
    r"|refused|parked|stall|cancel|transfer closed"
)
ADA = "users/Ada Byron"
GRACE = "users/Grace Hopper"

HTML = {"content_type": "text/html", "body": "<html><h1>The upstream server is slow</h1></html>"}
LOST = {
    "no answer": {"drop_reply": True},
    "half an answer": {"cut_after": 10},
    "502": {"status": 502, "done": True, **HTML},
    "504": {"status": 504, "done": True, **HTML},
    "late": {"latency_ms": 3000},
}
TIMEOUT = 2  # seconds; less than the late answer takes
# how the answer is lost, what becomes of the daemon, and how many steps of an act to try it at
ROUNDS = [
    ("no answer", "lives", 3),
    ("half an answer", "lives", 3),
    ("502", "lives", 3),
    ("504", "lives", 3),
    ("late", "lives", 1),
    ("no answer", "killed", 3),
    ("504", "killed", 1),
    ("no answer", "unmounted", 3),
    ("half an answer", "unmounted", 1),
]
N_ROUNDS = sum(steps for _, _, steps in ROUNDS) + 1


def own(i: int, name: str) -> str:
    """The name of a file of one round."""
    return f"round-{i:02}-{name}"


@dataclass
class Files:
    """What a round has and wants, by name; places are records of the mount."""

    m: object
    i: int

    def path(self, name: str, record: str = ADA):
        return self.m / record / own(self.i, name)


@dataclass(frozen=True)
class Kind:
    """A kind of act: what there must be before it, the act, and what is there after it."""

    before: tuple  # names of files in Ada
    act: Callable
    after: dict  # name, or (record, name) -> the file of before, or bytes
    keeps_id: Callable = lambda s: False  # whether the server changes it in place


def old_bytes(i: int, name: str) -> bytes:
    return random_bytes(1500, f"{i} {name}")


NEW = {"small": b"new and small", "large": random_bytes(5000, "new and large")}
MANY = {f"many-{k}.txt": random_bytes(1100 + k, f"many {k}") for k in range(5)}


def act_create(what):
    return lambda f: f.path("new.txt").write_bytes(NEW[what])


def act_create_many(f):
    for name, data in MANY.items():
        f.path(name).write_bytes(data)


def act_replace(what):
    return lambda f: f.path("a.txt").write_bytes(NEW[what])


def act_replace_and_rename(f):
    f.path("a.txt").write_bytes(NEW["large"])
    os.rename(f.path("a.txt"), f.path("renamed.txt"))


def act_rename_over(f):
    f.path("tmp").write_bytes(NEW["large"])
    os.rename(f.path("tmp"), f.path("a.txt"))


def act_rename(*names):
    def act(f):
        for name in names:
            os.rename(f.path(f"{name}.txt"), f.path(f"{name}-renamed.txt"))

    return act


def act_move(f):
    os.rename(f.path("a.txt"), f.path("a.txt", GRACE))


def act_delete(*names):
    def act(f):
        for name in names:
            os.unlink(f.path(f"{name}.txt"))

    return act


FOUR = ("a.txt", "b.txt", "c.txt", "d.txt")
KINDS = {
    "create small": Kind((), act_create("small"), {"new.txt": NEW["small"]}),
    "create large": Kind((), act_create("large"), {"new.txt": NEW["large"]}),
    "create many": Kind((), act_create_many, MANY),
    "replace": Kind(
        ("a.txt",),
        act_replace("large"),
        {"a.txt": NEW["large"]},
        lambda s: s.replace_keeps_id,
    ),
    "replace by a small one": Kind(
        ("a.txt",),
        act_replace("small"),
        {"a.txt": NEW["small"]},
        lambda s: s.replace_keeps_id,
    ),
    "replace by a rename": Kind(
        ("a.txt",),
        act_rename_over,
        {"a.txt": NEW["large"]},
        lambda s: s.replace_keeps_id,
    ),
    "replace under another name": Kind(
        ("a.txt",),
        act_replace_and_rename,
        {"renamed.txt": NEW["large"]},
        lambda s: s.rename_in_place,
    ),
    "rename": Kind(
        ("a.txt",), act_rename("a"), {"a-renamed.txt": "a.txt"}, lambda s: s.rename_in_place
    ),
    "rename four": Kind(
        FOUR,
        act_rename(*"abcd"),
        {f"{c}-renamed.txt": f"{c}.txt" for c in "abcd"},
        lambda s: s.rename_in_place,
    ),
    "move": Kind(("a.txt",), act_move, {(GRACE, "a.txt"): "a.txt"}, lambda s: s.move_in_place),
    "delete": Kind(("a.txt",), act_delete("a"), {}),
    "delete four": Kind(FOUR, act_delete(*"abcd"), {}),
}


def lose_step(m, what: str, step: int, life: str) -> None:
    """The answer to the step-th writing call from now on is lost; one that dies sends no more."""
    writes = {**m.system.writes, "skip": step}
    rules = [m.system.reads, {**writes, "count": 1, **LOST[what]}]
    if life == "killed":
        rules.append({**writes, "hang": True})
    m.emulator.faults(*rules)


def begin_sync(m) -> None:
    (m.path / ".attachfs/control").write_text("sync")


def live_through(m, life: str) -> bool:
    """Send what there is; whether an answer was lost on the way."""
    if life == "lives":
        m.sync()
    else:
        begin_sync(m)
        wait_until(lambda: m.emulator.struck(1) or m.idle(), "the answer to be lost")
    lost = m.emulator.struck(1) > 0
    if life == "killed":
        m.kill9()
    elif life == "unmounted":
        m.umount()
    m.emulator.heal()
    if life != "lives":
        m.start()
        m.sync()
    return lost


def expected_after(kind: Kind, i: int) -> dict:
    """Path of the mount -> bytes."""
    found = {}
    for place, what in kind.after.items():
        record, name = place if isinstance(place, tuple) else (ADA, place)
        data = old_bytes(i, what) if isinstance(what, str) else what
        found[f"{record}/{own(i, name)}"] = data
    return found


def files_of_round(m, i: int) -> dict:
    return {p: a for p, a in m.emulator.files().items() if f"/round-{i:02}-" in p}


def check_ids(m, kind: Kind, i: int, before: dict, after: dict, label: str) -> None:
    if not kind.keeps_id(m.system):
        return
    olds = [before[f"{ADA}/{own(i, name)}"]["id"] for name in kind.before]
    assert sorted(a["id"] for a in after.values()) == sorted(olds), f"{label}: other ids"


def run_round(m, kind: Kind, i: int, what: Optional[str], step: int, life: str) -> tuple:
    """Whether the answer was lost, and how many calls it took."""
    label = f"round {i}: {what}, daemon {life}, step {step}"
    before = m.emulator.files()
    os.listdir(m / ADA)
    os.listdir(m / GRACE)
    m.emulator.reset()
    if what:
        lose_step(m, what, step, life)
    kind.act(Files(m, i))
    if what:
        lost = live_through(m, life)
    else:
        m.sync()
        lost = False
    calls = m.emulator.calls()
    after = files_of_round(m, i)
    found = {p: m.emulator.blob(a["id"]) for p, a in after.items()}
    wanted = expected_after(kind, i)
    assert sorted(found) == sorted(wanted), f"{label}: {calls}"
    for path, data in wanted.items():
        assert found[path] == data, f"{label}: other bytes in {path}"
        assert (m / path).read_bytes() == data, f"{label}: other bytes shown in {path}"
    check_ids(m, kind, i, before, after, label)
    rest = {p: a["id"] for p, a in m.emulator.files().items() if p not in after}
    assert rest == {
        p: a["id"] for p, a in before.items() if f"/round-{i:02}-" not in p
    }, f"{label}: other files were touched"
    return lost, sum(calls.values()), calls, label


def tree_for(kind: Kind) -> dict:
    files = {own(i, n): old_bytes(i, n) for i in range(N_ROUNDS) for n in kind.before}
    files["there.txt"] = b"was there before"
    return {"users": {"Ada Byron": files, "Grace Hopper": {"hers.txt": b"hers"}}, "events": {}}


@pytest.mark.limit(300)
@pytest.mark.parametrize("name", KINDS)
def test_what_was_done_without_an_answer_is_done_once(drive, name):
    kind = KINDS[name]
    m = drive(tree=tree_for(kind), settle=600, poll=0, timeout=TIMEOUT)
    m.allow_errors(TROUBLE)
    rounds = itertools.count()
    _, usual, _, _ = run_round(m, kind, next(rounds), None, 0, "lives")
    total = 0
    for what, life, steps in ROUNDS:
        for step in range(steps):
            lost, n, calls, label = run_round(m, kind, next(rounds), what, step, life)
            assert lost or step or what == "half an answer", f"{label}: nothing was lost"
            # what is looked at: the record, once or twice; a new daemon lists its collections
            assert n <= 2 * usual + (8 if life == "lives" else 12), f"{label}: {calls}"
            total += lost
            if not lost:
                break
    assert total >= 6, "answers were lost at all"


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
    find_out(
        m,
        life,
        lambda there: "a.txt" not in there,
        lambda: m.emulator.change(added("a.txt", text=THEIRS.decode())),
    )
    found = contents(m)
    assert found.pop("there.txt") == OURS
    assert found.pop("a.txt") == THEIRS
    # where they go one by one, the others had not been asked for; they are gone by now all the same
    assert found == {}
    assert m.status()["failed"] == 0
