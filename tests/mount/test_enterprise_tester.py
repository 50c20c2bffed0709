# SPDX-License-Identifier: MIT
"""
Enterprise Tester's traps, by their numbers in reference/enterprise-tester.md, as seen from the mount:
every toggle of section 13, the owners below runs, temporary sets, requests refused in part.
"""

import base64
import errno
import http.client
import json
import os
from urllib.parse import urlsplit

import pytest

from harness import ENTERPRISE_TESTER, added, numbered, raises_errno, sha256, wait_until

SERVERS = [
    pytest.param({}, id="plain"),
    pytest.param({"name_swap": "second"}, id="E-2 second"),
    pytest.param({"name_swap": "always"}, id="E-2 always"),
    pytest.param({"nil_guid": "content"}, id="E-7 content"),
    pytest.param({"link_host": "internal"}, id="E-12 internal"),
    pytest.param({"link_host": "api-api", "owner_id": "other"}, id="E-15, E-17"),
    pytest.param({"link_host": "no-path"}, id="E-12 no path"),
    pytest.param({"self_links": "off", "has_attachments": "absent"}, id="E-23"),
    pytest.param({"range": "ignored"}, id="no range"),
    pytest.param({"content_length": "off"}, id="no length"),
    pytest.param({"contents_type": "octet-stream", "etag": "on"}, id="octet-stream, etag"),
    pytest.param({"totals": "always", "delete_status": "204"}, id="totals"),
    pytest.param({"top_max": 3, "unordered": "shuffled"}, id="short pages"),
    pytest.param({"dispositions": "attachment"}, id="E-4"),
    pytest.param({"bump_on_attach": "off"}, id="no bump"),
    pytest.param({"mime_strict": "off", "upload_no_owner": "403"}, id="E-5"),
    pytest.param({"totals": "tql", "tql_top": "off", "odata_top": 2}, id="E-10, E-26"),
    pytest.param({"application_path": "EnterpriseTester", "nodes": "all"}, id="nodes"),
    pytest.param({"error_body": "html", "content_disposition": "off"}, id="HTML errors"),
    pytest.param({"tql_has_attachments": "refused"}, id="no HasAttachments in TQL"),
]


@pytest.fixture
def system():
    return ENTERPRISE_TESTER


@pytest.mark.parametrize("toggles", SERVERS)
def test_every_kind_of_server_can_be_read_and_written(drive, toggles):
    m = drive(toggles=toggles, poll=0)
    for path, attachment in m.emulator.files().items():
        assert sha256((m / path).read_bytes()) == attachment["sha256"], path
    (m / "users/Nobody/small.txt").write_bytes(b"small")
    (m / "users/Nobody/no extension").write_bytes(b"")
    (m / 'users/Nobody/gr\u00fc\u00df "dich".html').write_bytes(b"<html>" * 100)
    (m / "users/Ada Byron/notes.txt").write_bytes(b"others")
    os.rename(m / "users/Ada Byron/tiny.txt", m / "users/Nobody/tinier.txt")
    os.unlink(m / "users/Ada Byron/logo.png")
    m.sync()
    files = m.emulator.files()
    assert files["users/Nobody/small.txt"]["size"] == 5
    assert files["users/Nobody/tinier.txt"]["size"] == 3
    assert m.emulator.bytes_of("users/Ada Byron/notes.txt") == b"others"
    assert "users/Ada Byron/logo.png" not in files
    assert "users/Ada Byron/tiny.txt" not in files
    m.forget_cache()
    assert (m / 'users/Nobody/gr\u00fc\u00df "dich".html').read_bytes() == b"<html>" * 100


@pytest.mark.parametrize("toggles", [{}, {"dispositions": "form-data"}])
def test_form_data_is_another_way_to_upload(drive, toggles):
    m = drive(toggles=toggles, poll=0, multipart="form")
    (m / "users/Nobody/a b.txt").write_bytes(b"one")
    (m / "users/Nobody/c.txt").write_bytes(b"two")
    m.sync()
    assert m.emulator.bytes_of("users/Nobody/a b.txt") == b"one"


def test_a_layout_the_server_does_not_take_is_refused_with_the_remedy(drive):
    m = drive(toggles={"dispositions": "form-data"}, poll=0)
    m.allow_errors("no file|multipart")
    m.same_at_end = False
    (m / "users/Nobody/a.txt").write_bytes(b"one")
    m.sync(ok=False)
    m.check_at_end = False  # what is parked stays, and umount says so
    assert "multipart=form" in (m / ".attachfs/failed").read_text()


@pytest.mark.parametrize("auth_fail", ["401", "302", "200"])
def test_a_wrong_password_is_said_whatever_the_server_answers(drive, auth_fail):
    m = drive(toggles={"auth_fail": auth_fail}, poll=0, start=False)
    m.allow_errors("401|credential|password|denied|EACCES|refuse")
    m.password_file.write_text("wrong\n")
    with pytest.raises(AssertionError, match="credentials|password"):
        m.start()
    m.check_at_end = False


def test_files_a_server_gives_no_id_are_not_shown(drive):
    m = drive(toggles={"nil_guid": "everywhere"}, poll=0)
    m.allow_errors("E-7")
    m.same_at_end = False
    assert os.listdir(m / "users/Ada Byron") == []
    (m / "users/Nobody/new.txt").write_bytes(b"new")
    m.sync(ok=False)
    m.check_at_end = False  # what is parked stays, and umount says so
    assert "no id" in (m / ".attachfs/failed").read_text()
    assert len([p for p in m.emulator.files() if p.endswith("new.txt")]) == 1


@pytest.mark.parametrize("partial", ["none", "others"])
def test_one_bad_file_of_many_is_the_only_one_refused(drive, partial):
    m = drive(toggles={"partial_upload": partial, "part_max": 3000}, poll=0, settle=600)
    m.allow_errors("refused|large|part|kept|403")
    m.same_at_end = False
    for i in range(30):
        size = 5000 if i in (7, 25) else 1000 + i
        (m / f"users/Nobody/file-{i:02}.bin").write_bytes(bytes([i]) * size)
    m.sync(ok=False)
    m.check_at_end = False  # what is parked stays, and umount says so
    files = [p for p in m.emulator.files() if p.startswith("users/Nobody/")]
    assert len(files) == 28, "each of them once"
    assert m.status()["failed"] == 2


@pytest.mark.parametrize("limit", ["4mb-500", "4mb-400", "30mb-404", "30mb-413"])
def test_what_is_too_large_for_the_server_is_refused_as_that(drive, limit):
    m = drive(toggles={"max_request": limit}, poll=0, settle=600)
    m.allow_errors("large|413|404|400|500|limit|File")
    m.same_at_end = False
    size = 5 << 20 if limit.startswith("4") else 31_000_000
    (m / "users/Nobody/large.bin").write_bytes(b"x" * size)
    (m / "users/Nobody/small.bin").write_bytes(b"y")
    m.sync(ok=False)
    m.check_at_end = False  # what is parked stays, and umount says so
    assert m.emulator.bytes_of("users/Nobody/small.bin") == b"y"
    failed = (m / ".attachfs/failed").read_text()
    assert "large.bin" in failed and "small.bin" not in failed


def test_an_answer_that_was_lost_doubles_nothing(drive):
    m = drive(poll=0)
    m.allow_errors("lost|broke|reset|connection|unknown|empty")
    m.emulator.faults({**ENTERPRISE_TESTER.upload, "drop_reply": True, "count": 2})
    for i in range(5):
        (m / f"users/Nobody/{i}.txt").write_bytes(b"x" * i)
    m.sync()
    assert len([p for p in m.emulator.files() if p.startswith("users/Nobody/")]) == 5


def test_more_files_than_a_page_holds_are_all_there(drive):
    m = drive(
        tree={"users": {"Ada": numbered(60)}, "events": {}},
        toggles={"top_max": 25, "unordered": "shuffled"},
        poll=0,
    )
    assert len(os.listdir(m / "users/Ada")) == 60


def test_change_is_seen_also_where_attaching_moves_no_date(drive):
    m = drive(toggles={"bump_on_attach": "off"}, poll=1)
    os.listdir(m / "users/Ada Byron")
    m.emulator.clock(3600)
    (m / "users/Nobody/ours.txt").write_bytes(b"ours")
    m.sync()
    wait_until(lambda: "compare all of them" in m.log(), "the poll to learn")
    m.emulator.change(
        {
            "op": "add",
            "collection": "requirements",
            "record": "Ada Byron",
            "name": "theirs.txt",
            "filename": "theirs.txt",
            "text": "theirs",
        }
    )
    wait_until(lambda: "theirs.txt" in os.listdir(m / "users/Ada Byron"), "their file")


BELOW_RUNS = ["stepresults", "agilerunsteps", "automatedtestruns", "automatedtestrunnodes"]


@pytest.mark.parametrize("toggles", [{}, {"nodes": "all", "has_attachments": "absent"}])
def test_the_owners_below_runs_hold_files_too(drive, toggles):
    tree = {c: {f"{c} {i}": {"a.txt": b"a" * i} for i in range(7)} for c in BELOW_RUNS}
    m = drive(tree=tree, toggles=toggles, collections=BELOW_RUNS, poll=0)
    m.same_at_end = False
    for c in BELOW_RUNS:
        names = os.listdir(m.path / c)
        assert len(names) >= 7
        record = m.path / c / f"{c} 5"
        assert (record / "a.txt").read_bytes() == b"aaaaa"
        (record / "b.txt").write_bytes(b"b")
        os.unlink(m.path / c / f"{c} 3" / "a.txt")
    m.sync()
    here = {(a["collection"], a["record_name"], a["filename"]) for a in m.emulator.attachments()}
    for c in BELOW_RUNS:
        assert (c, f"{c} 5", "b.txt") in here
        assert (c, f"{c} 3", "a.txt") not in here
    m.forget_cache()
    for c in BELOW_RUNS:
        assert (m.path / c / f"{c} 5" / "b.txt").read_bytes() == b"b"


@pytest.mark.parametrize("toggles", [{}, {"get_status": "201"}])
def test_a_temporary_set_is_made_filled_and_emptied(drive, toggles):
    m = drive(toggles=toggles, collections=["requirements", "sets"], poll=0)
    m.same_at_end = False
    os.mkdir(m.path / "sets/mine")
    (m.path / "sets/mine/a.txt").write_bytes(b"a")
    (m.path / "sets/mine/b.txt").write_bytes(b"bb")
    m.sync()
    os.unlink(m.path / "sets/mine/a.txt")
    m.sync()
    here = [
        (a["filename"], a["size"]) for a in m.emulator.attachments() if a["collection"] == "sets"
    ]
    assert here == [("b.txt", 2)]
    assert os.listdir(m.path / "sets/mine") == ["b.txt"]


def test_a_requirement_can_be_renamed_and_an_incident_says_why_not(drive):
    m = drive(poll=0)
    m.allow_errors("cannot change|405")
    os.rename(m / "users/Nobody", m / "users/Somebody")
    m.sync()
    assert "Somebody" in [r["name"] for r in m.emulator.state()["records"]]
    m.same_at_end = False
    os.rename(m / "events/Live fire", m / "events/Dead fire")
    m.sync(ok=False)
    m.check_at_end = False  # what is parked stays, and umount says so
    assert "cannot change incidents" in (m / ".attachfs/failed").read_text()


def test_write_through_returns_when_the_old_file_is_gone_too(drive):
    m = drive(write="through", poll=0)
    for i in range(5):
        (m / "users/Ada Byron/notes.txt").write_bytes(b"round %d\n" % i)
        here = [a for a in m.emulator.attachments() if a["name"] == "notes.txt"]
        assert [m.emulator.blob(a["id"]) for a in here] == [b"round %d\n" % i]


def made_set(m, name="mine") -> str:
    os.mkdir(m / f"sets/{name}")
    return os.getxattr(m / f"sets/{name}", "user.attachfs.id").decode()


def in_sets(m) -> dict:
    """The id of each temporary set -> names of what is in it, on the server."""
    found = {}
    for a in m.emulator.attachments():
        if a["collection"] == "sets":
            found.setdefault(a["record_remote_id"], []).append(a["name"])
    return found


def test_a_set_is_there_after_a_remount_and_opened_by_its_id_elsewhere(drive):
    m = drive(collections=["requirements", "sets"], poll=0)
    m.same_at_end = False  # the server tells no set by the name it has here
    ident = made_set(m)
    (m / "sets/mine/a.txt").write_bytes(b"one")
    m.remount()
    assert os.listdir(m / "sets") == ["mine"]
    assert (m / "sets/mine/a.txt").read_bytes() == b"one"
    m.forget_cache()
    assert os.listdir(m / "sets") == []
    assert (m / f"sets/{ident}/a.txt").read_bytes() == b"one"
    assert os.listdir(m / "sets") == [ident]
    with raises_errno(errno.ENOENT):
        os.listdir(m / "sets/41f19ff6-2738-4000-8bfd-a18950caa1d1")


def test_many_files_go_into_a_set_several_at_a_time(drive):
    m = drive(collections=["requirements", "sets"], poll=0, settle=600)
    m.same_at_end = False
    ident = made_set(m)
    m.emulator.reset()
    for name, data in numbered(40).items():
        (m / "sets/mine" / name).write_bytes(data)
    m.sync()
    posts = m.emulator.count(r"POST /EnterpriseTester/api/temporaryattachmentset/\{id\}")
    assert len(in_sets(m)[ident]) == 40 and posts <= 4, m.emulator.calls()
    os.unlink(m / "sets/mine/file-0003.txt")
    m.sync()
    assert len(in_sets(m)[ident]) == 39


def test_a_set_whose_files_come_without_ids_shows_none_and_keeps_what_was_written(drive):
    m = drive(
        toggles={"nil_guid": "sets"}, collections=["requirements", "sets"], poll=0, settle=600
    )
    m.same_at_end = m.check_at_end = False
    made_set(m)
    (m / "sets/mine/a.txt").write_bytes(b"one")
    m.sync(ok=None)
    assert (m / "sets/mine/a.txt").read_bytes() == b"one", "nothing lost"
    assert sum(len(names) for names in in_sets(m).values()) == 1, "and nothing doubled"


def test_a_set_that_was_swept_is_gone_and_unsent_work_in_it_is_kept(drive):
    m = drive(
        toggles={"set_ttl": 60}, collections=["requirements", "sets"], poll=0, settle=600
    )
    m.same_at_end = m.check_at_end = False
    made_set(m, "old")
    made_set(m, "busy")
    (m / "sets/busy/a.txt").write_bytes(b"one")
    m.emulator.clock(3600)
    m.command("refresh")
    assert "old" not in os.listdir(m / "sets")
    m.sync(ok=False)
    assert (m / "sets/busy/a.txt").read_bytes() == b"one"
    assert "a.txt" in (m / ".attachfs/failed").read_text()


@pytest.mark.parametrize("temporary_id", ["consumed", "copied", "ignored"])
def test_a_script_makes_a_record_of_a_set_by_its_xattr(drive, temporary_id):
    m = drive(
        toggles={"temporary_id": temporary_id}, collections=["requirements", "sets"], poll=0
    )
    m.same_at_end = False
    ident = made_set(m)
    (m / "sets/mine/plan.txt").write_bytes(b"the plan")
    m.sync()
    packages = json.loads(api(m, "GET", "/requirementpackages"))["Items"]
    made = {"Name": "From a set", "PackageId": packages[0]["Id"], "TemporaryId": ident}
    api(m, "POST", "/requirements", made)
    m.command("refresh")
    there = os.listdir(m / "users/From a set")
    assert there == ([] if temporary_id == "ignored" else ["plan.txt"])
    left = os.listdir(m / "sets/mine") if "mine" in os.listdir(m / "sets") else []
    assert left == ([] if temporary_id == "consumed" else ["plan.txt"])


@pytest.mark.parametrize("charset", ["utf-8", "latin-1"])
def test_names_beyond_ascii_never_end_as_other_names_unsaid(drive, charset):
    m = drive(toggles={"header_charset": charset}, poll=0)
    m.same_at_end = charset == "utf-8"
    m.check_at_end = charset == "utf-8"
    (m / "users/Nobody/gr\u00fc\u00df.txt").write_bytes(b"hello")
    m.sync(ok=None)
    m.command("refresh")
    stored = [a for a in m.emulator.attachments() if m.emulator.blob(a["id"]) == b"hello"]
    assert len(stored) == 1, "one upload is one file"
    shown = [p.name for p in (m / "users/Nobody").iterdir() if p.read_bytes() == b"hello"]
    assert shown, "and it is seen"


def api(m, method, path, body=None) -> bytes:
    """As a script would, beside the mount."""
    where = urlsplit(m.emulator.api)
    c = http.client.HTTPConnection(where.hostname, where.port, timeout=30)
    secret = base64.b64encode(f"mount:{m.system.password}".encode()).decode()
    headers = {"Authorization": f"Basic {secret}", "Content-Type": "application/json"}
    c.request(method, where.path + path, body and json.dumps(body), headers)
    answer = c.getresponse()
    data = answer.read()
    c.close()
    assert answer.status in (200, 201), data
    return data
