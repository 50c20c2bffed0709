# SPDX-License-Identifier: MIT
"""
PERSCOM's traps, by their numbers in reference/perscom.md, as seen from the mount: fillers,
multipart overrides, batches, two names, stale caches, presigned addresses, eras.
"""

import errno
import json
import os
import re
import subprocess
import time

import pytest

from harness import (
    PERSCOM,
    Directory,
    added,
    numbered,
    one_record,
    raises_errno,
    random_bytes,
    run,
    sha256,
    wait_until,
)

ERAS = [
    pytest.param({"era": "2.3"}, id="2.3"),
    pytest.param({"era": "2.9", "patch_multipart": "ignored"}, id="2.9"),
    pytest.param(
        {"era": "2.9.17", "patch_multipart": "parsed", "url": "presigned", "cache": "app"},
        id="2.9.17",
    ),
    pytest.param(
        {
            "era": "3.0",
            "patch_multipart": "parsed",
            "url": "presigned",
            "unguarded": "on",
            "meta_page_key": "on",
            "cache": "app",
        },
        id="3.0",
    ),
    pytest.param({"cache": "edge", "purge_delay_ms": 60000, "url": "presigned"}, id="edge"),
    pytest.param({"range": "ignored"}, id="no range"),
    pytest.param({"tenant_header": "optional", "throttle_headers": "absent"}, id="no rate headers"),
]


@pytest.fixture
def system():
    return PERSCOM


@pytest.mark.parametrize("toggles", ERAS)
def test_every_release_and_hosting_can_be_read_and_written(drive, scratch, toggles):
    m = drive(toggles=toggles, poll=0)
    run("cp", "-a", m / "users", m / "events", scratch)
    for path, attachment in m.emulator.files().items():
        assert sha256((scratch / path).read_bytes()) == attachment["sha256"], path
    (m / "users/Nobody/small.txt").write_bytes(b"small")
    (m / "users/Nobody/usual.txt").write_bytes(b"usual" * 1000)
    (m / "users/Ada Byron/notes.txt").write_bytes(b"replaced" * 1000)
    os.rename(m / "users/Ada Byron/logo.png", m / "events/Live fire/emblem.png")
    os.unlink(m / "users/Ada Byron/tiny.txt")
    m.sync()
    m.same_as_server()
    m.forget_cache()
    m.same_as_server()


@pytest.mark.parametrize("size", [0, 1, 1023, 10_240_001])
def test_p1_a_file_too_small_or_large_to_create_goes_as_filler_then_bytes(drive, size):
    m = drive(poll=0)
    os.listdir(m / "events/Live fire")
    m.emulator.reset()
    data = random_bytes(size)
    (m / "events/Live fire/odd.bin").write_bytes(data)
    m.sync()
    attachment = m.emulator.file("events/Live fire/odd.bin")
    assert m.emulator.blob(attachment["id"]) == data
    calls = m.emulator.calls()
    assert calls.get("POST /v2/attachments", 0) == 1
    assert calls.get("POST /v2/attachments/{id}", 0) == 1
    assert all(r["status"] < 300 for r in m.emulator.requests(port="api"))


@pytest.mark.parametrize("size", [1024, 10_240_000])
def test_p1_a_file_of_allowed_size_is_one_upload(drive, size):
    m = drive(poll=0)
    os.listdir(m / "events/Live fire")
    m.emulator.reset()
    (m / "events/Live fire/usual.bin").write_bytes(random_bytes(size))
    m.sync()
    assert m.emulator.uploads() == 1
    assert sum(m.emulator.calls().values()) <= 3, m.emulator.calls()


def test_p1_a_filler_never_shows(drive):
    m = drive(settle=0, poll=1)
    m.emulator.faults(
        {
            "port": "api",
            "method": "POST",
            "match": "/v2/attachments/",
            "skip": 0,
            "count": -1,
            "latency_ms": 1500,
        }
    )
    (m / "users/Nobody/tiny.txt").write_bytes(b"tiny")
    for _ in range(20):
        assert (m / "users/Nobody/tiny.txt").read_bytes() == b"tiny"
        assert (m / "users/Nobody/tiny.txt").stat().st_size == 4
        run("sleep", "0.1")
    m.emulator.heal()
    m.sync()
    assert m.emulator.bytes_of("users/Nobody/tiny.txt") == b"tiny"


def test_p2_replacing_works_where_real_patch_multipart_is_ignored(drive):
    m = drive(toggles={"patch_multipart": "ignored"}, poll=0)
    before = m.emulator.file("users/Ada Byron/notes.txt")
    (m / "users/Ada Byron/notes.txt").write_bytes(b"new" * 1000)
    m.sync()
    after = m.emulator.file("users/Ada Byron/notes.txt")
    assert after["id"] == before["id"] and after["path"] != before["path"]
    assert after["filename"] == "notes.txt"


def test_p12_deletes_go_out_as_batches_with_ids_in_the_body(drive):
    m = drive(poll=0)
    os.listdir(m / "users/Ada Byron")
    m.emulator.reset()
    for name in ("notes.txt", "logo.png", "tiny.txt"):
        os.unlink(m / "users/Ada Byron" / name)
    m.sync()
    deletes = [r for r in m.emulator.requests(port="api") if r["method"] == "DELETE"]
    assert [r["endpoint"] for r in deletes] == ["DELETE /v2/attachments/batch"]
    assert deletes[0]["request_bytes"] >= len('{"resources":[1,2,3]}')


def test_p13_a_delete_the_storage_refuses_is_noticed(drive):
    """The server says 200 and keeps the row: asked again, or told and asked on demand."""
    m = drive(toggles={"delete_storage_failure": "on"}, poll=0)
    m.allow_errors("delet|remove|refused|parked|still|kept")
    os.unlink(m / "users/Ada Byron/notes.txt")
    wait_until(
        lambda: [r for r in m.emulator.requests(port="api") if r["method"] == "DELETE"], "the call"
    )
    wait_until(lambda: not m.idle() or m.status()["failed"], "the deletion to be known as not done")
    assert "users/Ada Byron/notes.txt" in m.emulator.files()
    m.emulator.toggle(delete_storage_failure="off")
    m.command("retry", ok=None)
    m.sync()
    assert "users/Ada Byron/notes.txt" not in m.emulator.files()


@pytest.mark.parametrize(
    "name",
    [
        'quote".txt',
        "back\\slash.txt",
        "semi;colon.txt",
        "percent%22.txt",
        "gr\u00fc\u00df.txt",
        "\U0001f600.txt",
        "many  spaces.txt",
        "comma,.txt",
        "=equal=.txt",
        "\u202etxt.exe",
        "nel\u0085x",
    ],
)
def test_p15_names_that_multipart_would_mangle_arrive_exactly(drive, name):
    m = drive(poll=0)
    for size in (5, 5000):
        (m / "users/Nobody" / f"{size}{name}").write_bytes(b"x" * size)
    (m / "users/Ada Byron/notes.txt").rename(m / "users/Ada Byron" / name)
    (m / "users/Ada Byron" / name).write_bytes(b"and replaced" * 200)
    m.sync()
    names = {(a["name"], a["filename"]) for a in m.emulator.attachments()}
    for expected in (f"5{name}", f"5000{name}", name):
        assert (expected, expected) in names


def test_p15_names_the_server_would_trim_come_back_exactly(drive):
    m = drive(poll=0)
    m.same_at_end = False
    for name in (" leading.txt", "trailing ", "\u00a0nbsp.txt", "zero width\u200b"):
        (m / "users/Nobody" / name).write_bytes(name.encode() * 200)
    m.sync()
    m.remount()
    for name in (" leading.txt", "trailing ", "\u00a0nbsp.txt", "zero width\u200b"):
        assert (m / "users/Nobody" / name).read_bytes() == name.encode() * 200


def test_p31_renaming_a_labelled_file_sets_both_names(drive):
    m = drive(tree=one_record(), changes=[added("Range card", "rc.txt")])
    os.rename(m / "users/Ada Byron/Range card.txt", m / "users/Ada Byron/Plan B.txt")
    m.sync()
    (attachment,) = m.emulator.attachments()
    assert (attachment["name"], attachment["filename"]) == ("Plan B.txt", "Plan B.txt")


def test_p31_new_bytes_leave_the_label_alone(drive):
    m = drive(tree=one_record(), changes=[added("Range card", "rc.txt")])
    (m / "users/Ada Byron/Range card.txt").write_bytes(b"new text" * 300)
    m.sync()
    (attachment,) = m.emulator.attachments()
    assert attachment["name"] in ("Range card", "Range card.txt")
    assert os.listdir(m / "users/Ada Byron") == ["Range card.txt"]


def test_p5_p6_stale_caches_in_front_of_gets_do_not_reach_the_mount(drive):
    m = drive(toggles={"cache": "edge", "purge_delay_ms": 600000}, poll=1)
    assert os.listdir(m / "users/Nobody") == []
    m.emulator.clock(5)
    m.emulator.change(
        {
            "op": "add",
            "collection": "users",
            "record": "Nobody",
            "name": "new.txt",
            "filename": "new.txt",
            "text": "fresh",
        }
    )
    wait_until(lambda: os.listdir(m / "users/Nobody") == ["new.txt"], "the new file")
    assert (m / "users/Nobody/new.txt").read_bytes() == b"fresh"


@pytest.mark.parametrize("form", ["null", "relative"])
def test_addresses_that_cannot_be_read_are_eio_and_one_log_line(drive, form):
    m = drive(toggles={"url": form}, poll=0, timeout=3)
    m.same_at_end = False
    m.allow_errors("address|url|URL|storage|relative|null|bytes")
    with raises_errno(errno.EIO):
        (m / "users/Ada Byron/notes.txt").read_bytes()
    assert sorted(os.listdir(m / "users")) == ["Ada Byron", "Grace Hopper", "Nobody"]


def test_p14_a_hundred_calls_a_minute_are_enough_for_a_day_of_small_work(drive):
    m = drive(toggles={"throttle": 100}, poll=0)
    for i in range(10):
        (m / f"users/Nobody/{i}.txt").write_bytes(b"%d" % i * 1500)
    for name in os.listdir(m / "users/Ada Byron"):
        os.rename(m / "users/Ada Byron" / name, m / "users/Ada Byron" / f"new {name}")
    m.sync()
    assert not [r for r in m.emulator.requests() if r["status"] == 429]
    assert m.emulator.summary()["api"] < 60, m.emulator.calls()


@pytest.mark.parametrize(
    "toggle, token",
    [
        ({"subscription": "lapsed"}, None),
        ({}, "scoped-token-9876=view:user"),
        ({"maintenance": "on"}, None),
    ],
    ids=["402", "403", "503"],
)
def test_refusals_at_the_listing_have_their_errno(drive, toggle, token):
    m = drive(start=False, poll=0, timeout=3, tokens=[token, "test-token=*"] if token else ())
    m.same_at_end = False
    m.allow_errors("402|403|503|subscription|permission|maintenance|EACCES|denied|scope")
    if token:
        m.write_token("scoped-token-9876")
    m.start()
    m.emulator.toggle(**toggle)
    with raises_errno(errno.EACCES, errno.EIO, errno.ETIMEDOUT):
        os.listdir(m / "events/Live fire" if token else m / "users")
    if toggle:
        m.emulator.toggle(subscription="ok", maintenance="off")
        wait_until(lambda: works(m / "users"), "the listing once it is paid for")


def works(path) -> bool:
    try:
        return bool(os.listdir(path))
    except OSError:
        return False


def test_orphans_stay_out_of_sight(drive):
    m = drive(poll=0, start=False)
    before = len(m.emulator.attachments())
    grace = m.emulator.record_id("users", "Grace Hopper")
    m.emulator.change({"op": "delete_record", "collection": "users", "id": grace})
    m.start()
    assert sorted(os.listdir(m / "users")) == ["Ada Byron", "Nobody"]
    assert len(m.emulator.attachments()) == before, "deleting an owner keeps its attachments"


def test_p25_a_record_is_renamed_with_nothing_but_its_name(drive):
    m = drive(poll=0)
    before = [r for r in m.emulator.state()["records"] if r["name"] == "Live fire"][0]
    os.rename(m / "events/Live fire", m / "events/Dry fire")
    m.sync()
    after = [
        r
        for r in m.emulator.state()["records"]
        if r["id"] == before["id"] and r["collection"] == "events"
    ][0]
    changed = {k for k in before if before[k] != after.get(k)}
    assert changed <= {"name", "updated_at", "label"}, changed


OTHERS = (
    "tasks",
    "assignment-records",
    "award-records",
    "combat-records",
    "qualification-records",
    "rank-records",
    "service-records",
    "training-records",
)


@pytest.mark.parametrize("collection", OTHERS)
def test_the_other_owners_can_be_mounted_and_worked_on(drive, collection):
    tree = {collection: {"One": {"a.txt": b"hello " * 300, "b.txt": b"b" * 1500}, "Two": {}}}
    m = drive(tree=tree, collections=(collection,), poll=0)
    one, two = sorted(
        os.listdir(m / collection), key=lambda r: -len(os.listdir(m / collection / r))
    )
    record = m / collection / one
    assert (record / "a.txt").read_bytes() == b"hello " * 300
    (record / "new.txt").write_bytes(b"new " * 400)
    (record / "a.txt").write_bytes(b"other " * 400)
    os.rename(record / "b.txt", m / collection / two / "c.txt")
    m.sync()
    state = {
        (a["record_name"], a["name"]): m.emulator.blob(a["id"]) for a in m.emulator.attachments()
    }
    assert state == {
        ("One", "a.txt"): b"other " * 400,
        ("One", "new.txt"): b"new " * 400,
        ("Two", "c.txt"): b"b" * 1500,
    }
    os.unlink(record / "a.txt")
    m.sync()
    assert ("One", "a.txt") not in {(a["record_name"], a["name"]) for a in m.emulator.attachments()}
    m.same_at_end = False  # the harness does not know how records without a name are called


def test_training_records_are_missing_on_servers_before_2_6(drive):
    m = drive(tree={"users": {"A": {}}, "events": {}}, start=False, toggles={"era": "2.5"}, poll=0)
    m.collections = ("users", "training-records")
    m.allow_errors("training-records|404")
    m.same_at_end = False
    m.start()
    assert os.listdir(m / "users") == ["A"]
    with raises_errno(errno.ENOENT, errno.EIO):
        os.listdir(m / "training-records")


def test_files_move_between_owners_of_different_types_in_one_call(drive):
    tree = {
        "users": {"Ada": numbered(20)},
        "events": {"Camp": {}},
        "tasks": {"Clean up": {}},
    }
    m = drive(tree=tree, collections=tuple(tree), poll=0)
    before = {a["name"]: a for a in m.emulator.attachments()}
    (task,) = os.listdir(m / "tasks")
    m.emulator.reset()
    for i in range(20):
        to = m / "events/Camp" if i % 2 else m / "tasks" / task
        os.rename(m / f"users/Ada/file-{i:04}.txt", to / f"file-{i:04}.txt")
    m.sync()
    after = {a["name"]: a for a in m.emulator.attachments()}
    for i in range(20):
        name = f"file-{i:04}.txt"
        assert after[name]["collection"] == ("events" if i % 2 else "tasks")
        assert (after[name]["id"], after[name]["path"]) == (
            before[name]["id"],
            before[name]["path"],
        )
    assert m.emulator.calls()["PATCH /v2/attachments/batch"] <= 2, m.emulator.calls()
    assert not m.emulator.uploads() and not m.emulator.downloads()
    m.same_at_end = False


@pytest.mark.parametrize("size", [100, 5000])
def test_p16_an_upload_into_a_vanished_record_leaves_no_orphan(drive, size):
    m = drive(poll=0, settle=600)
    m.same_at_end = False
    m.allow_errors("gone from the server")
    before = {a["id"] for a in m.emulator.attachments()}
    (m / "users/Nobody/new.txt").write_bytes(b"x" * size)
    nobody = m.emulator.record_id("users", "Nobody")
    m.emulator.change({"op": "delete_record", "collection": "users", "id": nobody})
    m.sync(ok=False)
    assert {a["id"] for a in m.emulator.attachments()} == before
    failed = (m / ".attachfs/failed").read_text()
    assert "new.txt" in failed and "gone from the server" in failed
    assert (m / "users/Nobody/new.txt").read_bytes() == b"x" * size, "nothing lost"
    os.unlink(m / "users/Nobody/new.txt")
    m.sync()


def test_p16_a_move_into_a_vanished_record_leaves_no_orphan(drive):
    m = drive(poll=0, settle=600)
    m.same_at_end = False
    m.allow_errors("gone from the server")
    os.rename(m / "users/Ada Byron/notes.txt", m / "users/Nobody/notes.txt")
    os.rename(m / "users/Ada Byron/logo.png", m / "users/Grace Hopper/logo.png")
    nobody = m.emulator.record_id("users", "Nobody")
    m.emulator.change({"op": "delete_record", "collection": "users", "id": nobody})
    m.sync(ok=False)
    rows = {a["name"]: a for a in m.emulator.attachments()}
    assert rows["notes.txt"]["record_name"] == "Ada Byron", "put back where it was"
    assert rows["logo.png"]["record_name"] == "Grace Hopper"
    failed = (m / ".attachfs/failed").read_text()
    assert "notes.txt" in failed and "gone from the server" in failed
    notes = m.emulator.blob(rows["notes.txt"]["id"])
    assert (m / "users/Nobody/notes.txt").read_bytes() == notes, "nothing lost"
    os.rename(m / "users/Nobody/notes.txt", m / "users/Ada Byron/notes.txt")
    m.sync()
    assert m.emulator.files()["users/Ada Byron/notes.txt"]["id"] == rows["notes.txt"]["id"]


def test_p16_many_moves_into_a_vanished_record_go_back_with_their_names(drive):
    m = drive(tree={"users": {"Ada": numbered(30), "Nobody": {}}, "events": {}}, poll=0)
    m.same_at_end = False
    m.allow_errors("gone from the server")
    before = {a["id"]: (a["name"], a["filename"], a["path"]) for a in m.emulator.attachments()}
    os.listdir(m / "users/Ada")
    os.listdir(m / "users/Nobody")
    nobody = m.emulator.record_id("users", "Nobody")
    m.emulator.change({"op": "delete_record", "collection": "users", "id": nobody})
    m.emulator.reset()
    for i in range(30):
        os.rename(m / f"users/Ada/file-{i:04}.txt", m / f"users/Nobody/moved-{i}.txt")
    m.sync(ok=False)
    rows = m.emulator.attachments()
    assert {a["record_name"] for a in rows} == {"Ada"}
    assert {a["id"]: (a["name"], a["filename"], a["path"]) for a in rows} == before
    assert m.emulator.calls()["PATCH /v2/attachments/batch"] <= 4, m.emulator.calls()
    for i in range(30):
        os.rename(m / f"users/Nobody/moved-{i}.txt", m / f"users/Ada/file-{i:04}.txt")
    m.sync()


def test_p27_the_tenant_is_said_where_the_server_wants_it(drive):
    m = drive(toggles={"tenant_header": "required", "tenancy": "7"}, tenant="7", poll=0)
    (m / "users/Nobody/new.txt").write_bytes(b"for tenant 7\n" * 100)
    m.sync()


@pytest.mark.parametrize("tenant", [None, "8"], ids=["none", "another"])
def test_p27_the_wrong_tenant_is_refused_at_the_mount(drive, tenant):
    m = drive(
        toggles={"tenant_header": "required", "tenancy": "7"}, tenant=tenant, poll=0, start=False
    )
    m.allow_errors("401")
    process = m.spawn()
    assert process.wait(30) != 0
    assert "401" in m.output.read_text() or "credentials" in m.output.read_text()


def test_p28_a_lapsed_subscription_keeps_what_is_written(drive):
    m = drive(poll=1, settle=0)
    m.allow_errors("402|subscription")
    os.listdir(m / "users/Nobody")
    m.emulator.toggle(subscription="lapsed")
    (m / "users/Nobody/new.txt").write_bytes(b"paid later\n" * 100)
    wait_until(lambda: m.status()["state"] == "auth", "the status to say so")
    assert (m / "users/Nobody/new.txt").read_bytes() == b"paid later\n" * 100
    assert "subscription" in json.dumps(m.status())
    m.emulator.toggle(subscription="ok")
    m.command("retry")
    m.sync()
    assert m.emulator.bytes_of("users/Nobody/new.txt") == b"paid later\n" * 100


def test_record_json_of_an_event_is_what_the_server_says(drive):
    m = drive(poll=0)
    fields = json.loads((m / "events/Live fire/.record.json").read_text())
    fields = fields.get("data", fields)
    assert fields["id"] == m.emulator.record_id("events", "Live fire")
    assert "attachments" not in fields or isinstance(fields["attachments"], list)


@pytest.mark.parametrize("count", [300])
def test_300_small_files_cost_two_calls_each_at_most(drive, count):
    m = drive(poll=0)
    os.listdir(m / "users/Nobody")
    m.emulator.reset()
    for name, data in numbered(count, 300).items():
        (m / "users/Nobody" / name).write_bytes(data)
    m.sync()
    assert sum(m.emulator.calls().values()) <= 2 * count + 10, m.emulator.calls()
    assert m.emulator.summary()["max_parallel"] > 1


def test_a_long_directory_is_read_while_it_is_being_listed(drive):
    m = drive(generate=["users:2500:1:10"], collections=("users",), poll=0, start=False)
    m.same_at_end = False
    m.emulator.faults({**PERSCOM.listing, "skip": 1, "count": 1, "latency_ms": 4000})
    m.start(look=False)
    d = Directory(m / "users")
    early = [d.read()[0] for _ in range(900)]
    later = [r for r in m.emulator.requests() if re.search("users/search", r["path"])][1:]
    assert all(r["status"] == 0 for r in later), "the second page has not come"
    names = early + d.names()
    assert len(names) == len(set(names)) == 2502
    pages = [r for r in m.emulator.requests() if re.search("users/search", r["path"])]
    assert len(pages) == 3
    assert sorted(names[2:]) == sorted(os.fsencode(n) for n in os.listdir(m / "users"))
    d.close()


def test_names_of_a_large_directory_are_shown_while_the_answer_comes(drive):
    """All files of a record are in one answer: the first names are there before its last."""
    m = drive(generate=["users:1:10000:10"], collections=("users",), poll=0, timeout=300)
    m.emulator.faults({"port": "api", "match": "/v2/users/search", "bytes_per_second": 1_000_000})
    (record,) = ["users 0001"]
    with subprocess.Popen(["ls", "-f", m / "users" / record], stdout=subprocess.PIPE) as ls:
        names = [ls.stdout.readline()]
        while names[-1].strip() in (b".", b".."):
            names.append(ls.stdout.readline())
        first = time.monotonic()
        names += ls.stdout.readlines()
    rest = time.monotonic() - first
    assert len(set(names)) == 10_002 and ls.returncode == 0
    assert rest > 1, "the names came with the whole answer"
    assert m.emulator.count("POST /v2/users/search") == 1, m.emulator.calls()
    m.same_at_end = False
