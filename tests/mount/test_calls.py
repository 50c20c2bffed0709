# SPDX-License-Identifier: MIT
"""
How many calls the usual work costs on each server: what README's table says is what is counted
here. Logins are left out; downloads, which go to the storage on some servers, are told apart.
"""

import os
import re
import time

import pytest

from harness import REPOSITORY, numbered, run, wait_until

TITLES = {
    "perscom": "PERSCOM",
    "servicemax": "ServiceMax",
    "enterprise-tester": "Enterprise Tester",
    "rillsoft": "Rillsoft",
}


def said(workload: str, system) -> str:
    """README's entry for it."""
    lines = (REPOSITORY / "README.md").read_text().splitlines()
    rows = [[c.strip() for c in line.strip("|").split("|")] for line in lines if "|" in line]
    head = next(r for r in rows if r[1:5] == list(TITLES.values()))
    row = next((r for r in rows if r[0] == workload), None)
    assert row, f"README has no line '{workload}'"
    return row[head.index(TITLES[system.name])]


def assert_at_most(m, words: str) -> None:
    """
    No more than README says; not many fewer either, or it says too much. How many files go in one
    call depends on how their contents come in.
    """
    calls, downloads = sum(m.emulator.calls().values()), len(m.emulator.downloads())
    numbers = [int(n) for n in re.findall(r"\d+", words)] + [0]
    told = f"{calls} calls, {downloads} downloads: {m.emulator.calls()}"
    assert calls <= numbers[0] and downloads <= numbers[1], f"{told}; README: {words}"
    assert calls >= 0.5 * numbers[0] and downloads >= 0.5 * numbers[1], f"{told}; README: {words}"


def hundred(drive, **options):
    """A mount whose users/Ada has a hundred files."""
    m = drive(tree={"users": {"Ada": numbered(100)}, "events": {}}, settle=600, poll=0, **options)
    assert len(os.listdir(m / "users/Ada")) == 100
    m.emulator.reset()
    return m


def test_listing_1000_records_of_10_attachments(drive, system):
    m = drive(generate=["users:1000:10:4096"], poll=0)
    m.emulator.reset()
    records = os.listdir(m / "users")
    assert len(records) == 1000
    assert all(len(os.listdir(m / "users" / r)) == 10 for r in records[::100])
    assert_at_most(m, said("list 1,000 records of 10 attachments", system))
    m.same_at_end = False


def test_sizes_of_a_tree_cost_nothing_where_they_are_listed_and_else_one_request_each(drive, system):
    m = drive(generate=["users:100:10:4096"], poll=0)
    m.emulator.reset()
    r = run("find", m / "users", "-type", "f", "-printf", "%s\\n")
    assert r.stdout.split() == ["4096"] * 1000
    listed, _ = re.findall(r"\d+", said("list 1,000 records of 10 attachments", system) + " 0")[:2]
    assert sum(m.emulator.calls().values()) <= int(listed), m.emulator.calls()
    assert len(m.emulator.blob_requests()) == (0 if system.sizes_listed else 1000)
    assert m.emulator.downloads() == []
    m.same_at_end = False


def test_uploading_100_files_to_one_record(drive, system):
    m = drive(tree={"users": {"Ada": {"here.txt": b"x" * 2000}}, "events": {}}, settle=600, poll=0)
    os.listdir(m / "users/Ada")
    m.emulator.reset()
    for name, data in numbered(100).items():
        (m / "users/Ada" / name).write_bytes(data)
    m.sync()
    assert_at_most(m, said("upload 100 files to one record", system))


def test_renaming_100_files(drive, system):
    m = hundred(drive)
    for i in range(100):
        os.rename(m / f"users/Ada/file-{i:04}.txt", m / f"users/Ada/renamed-{i:04}.txt")
    m.sync()
    assert_at_most(m, said("rename 100 files", system))


def test_deleting_100_files(drive, system):
    m = hundred(drive)
    for i in range(100):
        os.unlink(m / f"users/Ada/file-{i:04}.txt")
    m.sync()
    assert_at_most(m, said("delete 100 files", system))


def test_an_idle_hour(drive, system):
    """
    Polls are a second or more apart here, and a minute by default: 60 in an hour. A server that
    tells its collections is asked for these as well, no more often, once for all.
    """
    m = drive(tree={"users": {"Ada": numbered(3)}, "events": {}}, collections=("users",), poll=1)
    os.listdir(m / "users")

    def is_list(endpoint: str) -> bool:
        return bool(system.list_of_collections) and endpoint == system.list_of_collections

    def polls() -> list:
        """How many calls each took: what comes within half a second belongs together."""
        sizes, last = [], None
        for r in m.emulator.requests():
            if re.fullmatch(system.logins, r["endpoint"]) or is_list(r["endpoint"]):
                continue
            if last is None or r["t_ms"] - last > 500:
                sizes.append(0)
            sizes[-1] += 1
            last = r["t_ms"]
        return sizes

    # the first poll of a mount costs a listing, which tells what the next are compared with
    wait_until(lambda: len(polls()) >= 3, "the first polls")
    m.emulator.reset()
    wait_until(lambda: len(polls()) >= 5, "some polls")
    assert len(set(polls()[:-1])) == 1, m.emulator.requests()
    words = said("an idle hour, for each collection", system)
    assert str(60 * polls()[0]) == re.split(",| in all", words)[0]
    lists = sum(is_list(r["endpoint"]) for r in m.emulator.requests())
    assert lists <= len(polls()) / 10 + 1
    assert bool(system.list_of_collections) == ("6 for the list of projects" in words)


def test_an_idle_hour_of_several_collections(drive, system):
    """PERSCOM's polls ask for all collections at once, others for each."""
    m = drive(tree={"users": {"Ada": numbered(3)}, "events": {"Drill": numbered(2)}}, poll=1)
    assert os.listdir(m / "users") and os.listdir(m / "events")
    words = said("an idle hour, for each collection", system)
    each = 1 if words.startswith("60 in all") else 2
    # the first ones cost listings
    wait_until(lambda: m.emulator.count(".*") >= 10, "the first polls")
    m.emulator.reset()
    started = time.monotonic()
    wait_until(lambda: m.emulator.count(".*") >= 4 * each, "some polls")
    assert time.monotonic() - started >= 2, m.emulator.requests()
