# SPDX-License-Identifier: MIT
"""
Calls whose outcome nobody knows: the server did what was asked, and the answer never came, came in
half, came too late, or was a gateway's. Each kind of writing call on each kind of server, with a
daemon that lives on, is killed, or is unmounted meanwhile: nothing is there twice, nothing is lost,
what the server changes in place keeps its id, and finding out costs few calls.

    round   one act on files of its own, of which the answer to the step-th writing call is lost
"""

import itertools
import os
from dataclasses import dataclass
from typing import Callable, Optional

import pytest

from harness import random_bytes, wait_until

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
