# SPDX-License-Identifier: MIT
"""Programs that read small files one after another, and what is fetched ahead of them: by the server's log."""

import os
import random
import subprocess
import tarfile

import pytest

from harness import PERSCOM, added, numbered, random_bytes, run, wait_until

AHEAD = 64
only_perscom = pytest.mark.parametrize("system", [PERSCOM], indirect=True, ids=lambda s: s.name)


def looked_at(drive, users, poll=0):
    """A mount whose sizes are known, and of which nothing was read yet."""
    m = drive(tree={"users": users, "events": {}}, poll=poll)
    for folder, _, names in os.walk(m / "users"):
        for name in names:
            os.stat(os.path.join(folder, name))
    m.emulator.reset()
    return m


def at_a_time(requests) -> int:
    """How many the server had before it at most."""
    steps = [(r["t_ms"], 1) for r in requests]
    steps += [(r["t_ms"] + max(1, r["duration_ms"]), -1) for r in requests]
    most = now = 0
    for _, step in sorted(steps):
        now += step
        most = max(most, now)
    return most


def by_path(m) -> dict:
    found: dict = {}
    for r in m.emulator.downloads():
        found[r["path"]] = found.get(r["path"], 0) + 1
    return found


def quiet(m, sizes=False) -> int:
    """How many downloads there were once there are no more; with requests for sizes, too."""
    requests = m.emulator.blob_requests if sizes else m.emulator.downloads
    seen = []

    def rests():
        seen.append(len(requests()))
        return len(seen) > 5 and len(set(seen[-5:])) == 1

    wait_until(rests, "downloads to end")
    return seen[-1]


def cat(*paths) -> bytes:
    return subprocess.run(["cat", *paths], capture_output=True, check=True).stdout


def test_tar_fetches_ahead_and_each_file_once(drive, tmp_path):
    files = numbered(300)
    m = looked_at(drive, {"Ada": files})
    m.emulator.faults(latency_ms=50)
    run("tar", "-C", m / "users", "-cf", tmp_path / "all.tar", "Ada")
    with tarfile.open(tmp_path / "all.tar") as tar:
        got = {os.path.basename(t.name): tar.extractfile(t).read() for t in tar if t.isfile()}
    assert got == files
    assert len(m.emulator.downloads()) == 300
    assert at_a_time(m.emulator.downloads()) > 5


def test_from_record_to_record(drive, tmp_path):
    """Where sizes have to be asked for, they are asked for ahead, too."""
    tree = {f"person {i:02d}": numbered(4, name=f"{i:02d}-%d.txt") for i in range(40)}
    m = drive(tree={"users": tree, "events": {}}, poll=0)
    os.listdir(m / "users")
    m.emulator.reset()
    m.emulator.faults(latency_ms=50)
    run("tar", "-C", m / "users", "-cf", tmp_path / "all.tar", ".")
    assert len(m.emulator.downloads()) == 160
    assert len(m.emulator.blob_requests()) <= 320
    # a record has four files: who fetched ahead in one record alone would never have more than three
    assert at_a_time(m.emulator.downloads()) > 4


def walked(drive, records):
    """A mount of which only the names are known, whose server then takes its time."""
    tree = {f"person {i:02d}": numbered(4, name=f"{i:02d}-%d.txt") for i in range(records)}
    m = drive(tree={"users": tree, "events": {}}, poll=0)
    os.listdir(m / "users")
    m.emulator.reset()
    m.emulator.faults(latency_ms=50)
    return m


@only_perscom
def test_sizes_are_asked_for_from_record_to_record(drive):
    """A record has four files: who asked for those of one record alone would never have more."""
    m = walked(drive, 60)
    r = run("find", m / "users", "-type", "f", "-printf", "%s\\n")
    assert r.stdout.split() == ["1500"] * 240
    assert len(m.emulator.blob_requests()) == 240, "each size is asked once"
    assert at_a_time(m.emulator.blob_requests()) > 8
    assert m.emulator.downloads() == []


@only_perscom
def test_who_walks_no_further_leaves_no_more_sizes_than_were_ahead(drive):
    m = walked(drive, 60)
    for record in sorted((m / "users").iterdir())[:5]:
        for name in os.listdir(record):
            os.stat(record / name)
    assert 20 < quiet(m, sizes=True) <= 20 + AHEAD


@only_perscom
def test_looks_at_a_record_here_and_there_ask_for_no_others(drive):
    m = walked(drive, 60)
    records = sorted((m / "users").iterdir())[::3]
    for record in records:
        for name in os.listdir(record):
            os.stat(record / name)
    assert len(m.emulator.blob_requests()) == 4 * len(records)


def test_by_name(drive):
    names = [f"file-{i:03d}.txt" for i in range(200)]
    random.Random(7).shuffle(names)
    m = drive(
        tree={"users": {"Ada": {}}, "events": {}},
        changes=[{**added(name), "record": "Ada"} for name in names],
        poll=0,
    )
    paths = sorted((m / "users/Ada").iterdir())
    for path in paths:
        path.stat()
    m.emulator.reset()
    m.emulator.faults(latency_ms=50)
    cat(*paths)
    assert set(by_path(m).values()) == {1}
    assert at_a_time(m.emulator.downloads()) > 5


@pytest.mark.parametrize("step,count", [(1, 2), (10, 20), (-1, 20)])
def test_what_is_no_pattern_fetches_nothing_ahead(drive, step, count):
    m = looked_at(drive, {"Ada": numbered(200)})
    paths = sorted((m / "users/Ada").iterdir())[:: abs(step)][:count]
    cat(*paths[:: 1 if step > 0 else -1])
    assert quiet(m) == len(paths)


def test_programs_that_stop_leave_no_more_than_what_was_ahead(drive):
    m = looked_at(drive, {"Ada": numbered(300)})
    cat(*sorted((m / "users/Ada").iterdir())[:20])
    assert 20 < quiet(m) <= 20 + AHEAD


def test_two_programs_by_turns(drive):
    """Each has its own pattern, whatever the other one does."""
    a, b = (numbered(100, name=f"{kind}-%03d.txt") for kind in "ab")
    m = looked_at(drive, {"Ada": a, "Bob": b})
    m.emulator.faults(latency_ms=50)
    programs = [
        subprocess.Popen(["cat", *sorted((m / "users" / who).iterdir())], stdout=subprocess.DEVNULL)
        for who in ("Ada", "Bob")
    ]
    assert [p.wait() for p in programs] == [0, 0]
    assert set(by_path(m).values()) == {1}
    assert at_a_time(m.emulator.downloads()) > 5


def test_grep_that_stops_at_the_first_match_of_each(drive):
    files = {f"{i:03d}.txt": b"needle\n" + random_bytes(50_000, i) for i in range(100)}
    m = looked_at(drive, {"Ada": files})
    m.emulator.faults(latency_ms=50)
    r = run("grep", "-rl", "needle", m / "users/Ada")
    assert len(r.stdout.splitlines()) == 100
    assert set(by_path(m).values()) == {1}
    assert at_a_time(m.emulator.downloads()) > 5


def test_nothing_is_fetched_ahead_while_the_server_throttles(drive):
    m = looked_at(drive, {"Ada": numbered(100)}, poll=1)
    if m.system.blob["port"] == m.system.api["port"]:
        pytest.skip("the bytes come from the server that throttles")
    m.allow_errors("429|throttl|rate limit")
    m.same_at_end = False  # which would take calls
    m.emulator.faults({**m.system.api, "status": 429, "headers": {"Retry-After": "120"}})
    wait_until(lambda: m.status()["state"] == "throttled", "a poll to be refused")
    cat(*sorted((m / "users/Ada").iterdir())[:20])
    assert quiet(m) == 20
