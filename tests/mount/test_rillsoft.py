# SPDX-License-Identifier: MIT
"""
Rillsoft's traps, by their numbers in reference/rillsoft.md, as seen from the mount: every toggle of
section 13, logins, rights, templates, limits, and the upload of the seed to attachments known by id.
"""

import errno
import json
import os
import time
from dataclasses import replace

import pytest

from harness import (
    KEEP,
    RILLSOFT,
    added,
    raises_errno,
    random_bytes,
    run,
    sha256,
    wait_until,
)

OTHER_DOWNLOAD = "/api/v2/clients/{cid}/dms/documents/{did}/content"
OTHER_DELETE = "/api/v2/clients/{cid}/dms/documents/{did}"
OTHER_ATTACHMENT = "/api/v2/clients/{cid}/attachments/{aid}/content"
DOCUMENTS = "/api/v2/clients/{cid}/dms/documents"
UPDATE = {"port": "api", "match": "/documents/", "count": -1}

# What a server may do without anybody noticing.
SERVERS = [
    pytest.param({}, {}, id="plain"),
    pytest.param(
        {
            "token_at": "token",
            "login_reply": "bare",
            "token_form": "no-exp",
            "details": "object",
            "json_type": "charset",
            "body_code": "text",
            "delete_status": "204",
        },
        {},
        id="token, object",
    ),
    pytest.param(
        {
            "token_at": "access_token",
            "token_form": "opaque",
            "details": "string",
            "body_code": "absent",
            "create_status": "200",
            "update_status": "200",
            "names": "documentId/size/uuid",
        },
        {},
        id="access_token, string, other names",
    ),
    pytest.param(
        {
            "token_at": "details.accessToken",
            "ttl": "off",
            "details": "document",
            "body_code": "200",
            "delete_status": "202",
            "description": "null",
            "zone_minutes": 120,
        },
        {},
        id="details.accessToken, document, east",
    ),
    pytest.param(
        {
            "token_at": "jwt",
            "login_reply": "bare",
            "selector": "ignored",
            "description": "absent",
            "created_at": "minute",
            "parents": "any",
            "zone_minutes": 840,
        },
        {},
        id="jwt, no selector, minutes, far east",
    ),
    pytest.param(
        {"selector": "required", "rename_on_replace": "on", "created_at": "zeroed"},
        {},
        id="R-16",
    ),
    pytest.param(
        {"file_required_on_update": "on", "rename_on_replace": "on", "created_at": "dotted"},
        {},
        id="file required, R-16",
    ),
    pytest.param(
        {"left_out": "cleared", "update_id": "new", "created_at": "empty"}, {}, id="new ids"
    ),
    pytest.param(
        {
            "update_id": "new",
            "file_required_on_update": "on",
            "created_on_update": "new",
            "created_at": "null",
        },
        {},
        id="new ids, file required",
    ),
    pytest.param(
        {
            "range": "ignored",
            "download_type": "guessed",
            "disposition": "present",
            "validators": "present",
        },
        {},
        id="no range, types guessed",
    ),
    pytest.param(
        {
            "download_type": "absent",
            "folder_shape": "parent",
            "tpl_versions": "default",
            "tpl_clients": "default",
        },
        {},
        id="no types",
    ),
    pytest.param({"download": "redirect"}, {}, id="redirected downloads"),
    pytest.param({"tpl_folders": "404", "duplicates": "409"}, {}, id="no folders, names unique"),
    pytest.param({"tpl_folders": "other"}, {}, id="other folders"),
    pytest.param({"created_on_update": "new"}, {}, id="created on update"),
    pytest.param(
        {"tpl_download": "other", "tpl_delete": "other"},
        {"template_download": OTHER_DOWNLOAD, "template_delete": OTHER_DELETE},
        id="other templates",
    ),
    pytest.param({"selector_name": "projectId"}, {}, id="selector unknown"),
    pytest.param(
        {"selector_name": "projectIds", "selector": "required"},
        {"template_documents": DOCUMENTS + "?projectIds={pid}"},
        id="projectIds",
    ),
    pytest.param(
        {"selector_name": "projects"}, {"template_documents": DOCUMENTS}, id="no selector sent"
    ),
    pytest.param({"override": "header", "real_put": "405"}, {}, id="override header"),
    pytest.param({"override": "field"}, {"method_override": "field"}, id="override field"),
    pytest.param({"override": "both"}, {"method_override": "both"}, id="override both"),
    pytest.param({"override": "header"}, {"method_override": "both"}, id="override header of both"),
    pytest.param({"override": "put"}, {"method_override": "none"}, id="override put"),
    pytest.param({"override": "none"}, {}, id="override none"),
]

WORDS = r"parked|waits for you|refus|40\d|41\d|42\d|500|denied|template|EIO|lost|broke|closed|clos"


@pytest.fixture
def system():
    return RILLSOFT


def failed(m) -> str:
    return (m / ".attachfs/failed").read_text()


def parked(m, path: str, *words: str) -> str:
    """The sync fails, and both places say which file it is and why."""
    m.sync(ok=False)
    text = failed(m)
    assert os.path.basename(path) in text, text
    for word in words:
        assert word in text, text
        if os.path.lexists(m / path):
            assert word in m.xattr(path, "error")
    return text


def mend(m) -> None:
    m.command("retry", ok=None)
    m.sync()
    assert failed(m) == ""


def counted(m, endpoints: str) -> int:
    import re

    by_endpoint = m.emulator.summary()["by_endpoint"]
    return sum(v for k, v in by_endpoint.items() if re.fullmatch(endpoints, k))


# ---- servers that work ----


@pytest.mark.parametrize("toggles, options", SERVERS)
def test_every_kind_of_server_can_be_read_and_written(drive, toggles, options):
    m = drive(toggles=toggles, poll=0, **options)
    before = m.emulator.files()
    for path, attachment in before.items():
        assert sha256((m / path).read_bytes()) == attachment["sha256"], path
    (m / "users/Nobody/small.txt").write_bytes(b"small")
    (m / "users/Nobody/empty").write_bytes(b"")
    (m / 'users/Nobody/gr\u00fc\u00df "dich"; 100%.html').write_bytes(b"<html>" * 100)
    (m / "events/Winter camp/data.json").write_bytes(b'{"details": "json"}')
    (m / "users/Ada Byron/notes.txt").write_bytes(b"others")
    (m / "users/Ada Byron/empty.txt").write_bytes(b"not empty")
    os.rename(m / "users/Ada Byron/logo.png", m / "users/Ada Byron/emblem \u2116 1.png")
    os.rename(m / "users/Ada Byron/tiny.txt", m / "users/Nobody/tinier.txt")
    os.unlink(m / "users/Grace Hopper/readme")
    m.sync()
    files = m.emulator.files()
    assert files["users/Nobody/small.txt"]["size"] == 5
    assert m.emulator.bytes_of("users/Ada Byron/notes.txt") == b"others"
    assert m.emulator.bytes_of("users/Nobody/tinier.txt") == b"abc"
    assert "users/Grace Hopper/readme" not in files and "users/Ada Byron/tiny.txt" not in files
    assert len(files) == len(before) + 3, sorted(files)
    m.same_as_server()
    m.forget_cache()
    assert (m / "events/Winter camp/data.json").read_bytes() == b'{"details": "json"}'


TIMES = [
    ("iso", 1),
    ("minute", 60),
    ("zeroed", 60),
    ("dotted", 60),
    ("empty", None),
    ("null", None),
]


@pytest.mark.parametrize("created_at, unit", TIMES)
def test_r13_times_as_good_as_they_come(drive, created_at, unit):
    m = drive(toggles={"created_at": created_at}, poll=0)
    from calendar import timegm

    for path, attachment in m.emulator.files().items():
        here = int(os.stat(m / path).st_mtime)
        there = timegm(time.strptime(attachment["created_at"][:19].replace("T", " "), "%Y-%m-%d %H:%M:%S"))
        if unit:
            assert here == there - there % unit, path
        else:
            assert here >= 0, path
    path = m / "users/Ada Byron/notes.txt"
    path.write_bytes(b"new")
    os.utime(path, (1_600_000_000, 1_600_000_000))
    m.sync()
    assert int(path.stat().st_mtime) == 1_600_000_000, "no field for it: kept here (section 7)"
    m.remount()
    assert int(path.stat().st_mtime) == 1_600_000_000
    m.command("refresh")
    assert int(path.stat().st_mtime) == 1_600_000_000


# ---- logging in ----


@pytest.mark.parametrize("login_refused", ["401", "403", "400"])
@pytest.mark.parametrize("error_details", ["string", "object", "array"])
def test_a_wrong_password_is_said_whatever_the_server_answers(drive, login_refused, error_details):
    m = drive(
        toggles={"login_refused": login_refused, "error_details": error_details},
        poll=0,
        start=False,
    )
    m.allow_errors(r"40\d|credential|password|denied|EACCES|refuse|log ?in")
    m.password_file.write_text("wrong\n")
    with pytest.raises(AssertionError, match="password_file="):
        m.start()
    m.check_at_end = False
    assert counted(m, "POST /api/v1/login") <= 2, "a password is not tried until the account locks"


@pytest.mark.parametrize("token_form", ["exp", "no-exp", "opaque"])
@pytest.mark.parametrize("expired_details", ["other", "same"])
def test_a_token_that_ends_while_idle_is_one_login(drive, token_form, expired_details):
    m = drive(
        toggles={"token_form": token_form, "expired_details": expired_details, "ttl": 600},
        poll=0,
        settle=600,
    )
    os.listdir(m / "users/Ada Byron")
    for round in (1, 2):
        m.emulator.clock(round * 100_000)
        m.emulator.reset()
        for path, attachment in list(m.emulator.files().items())[:6]:
            assert sha256((m / path).read_bytes()) == attachment["sha256"], path
        for i in range(10):
            (m / f"users/Nobody/{round}-{i}.txt").write_bytes(b"x" * i)
        m.sync()
        assert counted(m, "POST /api/v1/login") == 1
        m.remount()


def test_a_token_that_ends_is_renewed_before(drive):
    m = drive(toggles={"ttl": 2}, poll=0)
    for i in range(8):
        (m / f"users/Nobody/{i}.txt").write_bytes(b"x" * i)
        m.sync()
        time.sleep(0.15)
    refused = [r for r in m.emulator.requests() if r["status"] == 401]
    assert len(refused) <= 1
    assert 2 <= counted(m, "POST /api/v1/login") <= 8


def test_a_token_that_ends_in_the_middle_of_work(drive):
    m = drive(toggles={"ttl": 600}, poll=0, settle=600)
    for i in range(30):
        (m / f"users/Nobody/{i}.txt").write_bytes(b"x" * i)
    os.listdir(m / "users/Ada Byron")
    m.emulator.faults({**RILLSOFT.upload, "latency_ms": 200})
    m.emulator.reset()
    done = run_sync(m)
    wait_until(lambda: counted(m, RILLSOFT.creates) >= 4, "uploads to be under way")
    m.emulator.clock(100_000)
    assert done.wait(60) == 0
    assert len([p for p in m.emulator.files() if p.startswith("users/Nobody/")]) == 31
    assert counted(m, "POST /api/v1/login") <= 2
    m.emulator.heal()


def run_sync(m):
    import subprocess

    from harness import binary

    return subprocess.Popen(
        [binary("attachfs"), "sync", str(m.path)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env=m.env(),
    )


def test_a_token_that_ends_during_a_download(drive):
    data = random_bytes(9_000_000, "movie")
    m = drive(tree={"users": {"Ada Byron": {"movie.bin": data}}, "events": {}}, poll=0)
    m.allow_errors(WORDS)
    m.emulator.faults({**RILLSOFT.blob, "cut_after": 1_000_000, "count": 2})
    with open(m / "users/Ada Byron/movie.bin", "rb", buffering=0) as f:
        found = f.read(4096)
        m.emulator.clock(100_000)
        while piece := f.read(1 << 20):
            found += piece
    assert found == data
    assert counted(m, "POST /api/v1/login") <= 3


def test_a_password_changed_meanwhile_is_said_and_read_again(drive):
    m = drive(toggles={"ttl": 600}, poll=0, settle=0)
    m.allow_errors(r"40\d|credential|password|denied|EACCES|refuse|auth")
    cached = (m / "users/Ada Byron/notes.txt").read_bytes()
    m.password_file.write_text("wrong\n")
    m.emulator.clock(100_000)
    with raises_errno(errno.EACCES):
        (m / "users/Ada Byron/large.bin").read_bytes()
    assert (m / "users/Ada Byron/notes.txt").read_bytes() == cached
    (m / "users/Nobody/new.txt").write_bytes(b"kept until then")
    wait_until(lambda: m.status()["state"] == "auth", "the status to say so")
    logins = counted(m, "POST /api/v1/login")
    time.sleep(1)
    assert counted(m, "POST /api/v1/login") <= logins + 2
    m.password_file.write_text("secret\n")
    wait_until(lambda: not m.sync(ok=None).returncode, "the new password to be read")
    assert m.emulator.bytes_of("users/Nobody/new.txt") == b"kept until then"


# ---- rights ----


def test_without_the_right_to_use_the_api_nothing_is_mounted(drive):
    m = drive(toggles={"denied": "api"}, poll=0, start=False)
    m.allow_errors(r"40\d|denied|EACCES|refuse|right")
    m.check_at_end = False
    with pytest.raises(AssertionError, match="Insufficient permissions"):
        m.start()


@pytest.mark.parametrize(
    "denied, words", [("client", "Insufficient permissions"), ("project", "Read project")]
)
def test_without_the_right_to_projects_there_are_none(drive, denied, words):
    m = drive(toggles={"denied": denied}, poll=0, start=False)
    m.allow_errors(r"40\d|denied|EACCES|refuse|right")
    m.check_at_end = False
    with raises_errno(errno.EACCES):
        m.start()
    assert words in m.log()
    m.emulator.toggle(denied="none")
    assert wait_until(lambda: listed(m.path), "the right to be noticed") == ["events", "users"]


def listed(path):
    try:
        return sorted(os.listdir(path))
    except OSError:
        return None


@pytest.mark.parametrize("error_details", ["string", "object", "array"])
def test_without_the_right_to_read_nothing_is_listed(drive, error_details):
    m = drive(toggles={"denied": "read", "error_details": error_details}, poll=0)
    m.allow_errors(r"40\d|denied|EACCES|refuse|right")
    m.same_at_end = False
    with raises_errno(errno.EACCES):
        os.listdir(m / "users")
    assert "Read documents" in m.log() and "Insufficient permissions" in m.log()


@pytest.mark.parametrize("error_details", ["string", "object", "array"])
@pytest.mark.parametrize("denied", ["create", "change", "delete"])
def test_without_a_right_to_write_it_is_parked_with_words(drive, denied, error_details):
    m = drive(toggles={"denied": denied, "error_details": error_details}, poll=0)
    m.allow_errors(WORDS)
    if denied == "create":
        path = "users/Nobody/new.txt"
        (m / path).write_bytes(b"new")
    elif denied == "change":
        path = "users/Ada Byron/notes.txt"
        (m / path).write_bytes(b"new")
    else:
        path = "users/Ada Byron/notes.txt"
        os.unlink(m / path)
    before = m.emulator.files()
    text = parked(m, path, "Insufficient permissions", "right", f"to {denied} documents")
    assert '"Permission denied' in text or "EACCES" in text, text
    assert m.emulator.files() == before
    m.emulator.toggle(denied="none")
    mend(m)


# ---- templates ----


@pytest.mark.parametrize(
    "toggles",
    [{"tpl_download": "404"}, {"tpl_download": "other"}, {"download": "json"}],
    ids=["404", "other", "json"],
)
def test_a_wrong_template_for_downloads_is_eio_and_one_line(drive, toggles):
    m = drive(toggles=toggles, poll=0)
    m.same_at_end = False
    m.allow_errors("template_download=")
    for path in ("users/Ada Byron/notes.txt", "users/Ada Byron/logo.png", "events/Live fire/map.jpg"):
        with raises_errno(errno.EIO):
            (m / path).read_bytes()
    lines = [l for l in m.log().splitlines() if " error " in l]
    assert len(lines) == 3 and all("template_download=" in l for l in lines), lines
    (m / "users/Nobody/new.txt").write_bytes(b"new")
    m.sync()
    assert m.emulator.bytes_of("users/Nobody/new.txt") == b"new"
    if toggles == {"tpl_download": "other"}:
        m.remount(template_download=OTHER_DOWNLOAD)
        m.same_as_server()


@pytest.mark.parametrize("tpl_delete", ["404", "405", "other"])
def test_a_wrong_template_for_deleting_is_enosys_logged_once(drive, tpl_delete):
    m = drive(toggles={"tpl_delete": tpl_delete}, poll=0)
    m.allow_errors("template_delete=|waits for you")
    for name in ("notes.txt", "logo.png", "tiny.txt"):
        os.unlink(m / "users/Ada Byron" / name)
    before = m.emulator.files()
    text = parked(m, "notes.txt", "template_delete=", "logo.png", "tiny.txt")
    assert os.strerror(errno.ENOSYS) in text, text
    assert m.emulator.files() == before
    lines = [l for l in m.log().splitlines() if " error " in l and "template_delete=" in l]
    assert len(lines) == 1, lines
    if tpl_delete == "other":
        m.terminate()
        m.options["template_delete"] = OTHER_DELETE
        m.start()
    else:
        m.emulator.toggle(tpl_delete="default")
    mend(m)
    assert len(m.emulator.files()) == len(before) - 3


# ---- updates ----


@pytest.mark.parametrize(
    "override, method", [("header", "field"), ("field", "header"), ("put", "both"), ("both", "none")]
)
def test_a_wrong_override_is_refused_with_the_remedy(drive, override, method):
    real_put = "405" if method == "none" else "accepted"
    m = drive(toggles={"override": override, "real_put": real_put}, poll=0, method_override=method)
    m.allow_errors(WORDS)
    before = m.emulator.files()
    (m / "users/Ada Byron/notes.txt").write_bytes(b"new")
    os.rename(m / "users/Ada Byron/logo.png", m / "users/Ada Byron/emblem.png")
    text = parked(m, "users/Ada Byron/notes.txt", "method_override=")
    assert "emblem.png" in text
    assert m.emulator.files() == before
    m.terminate()
    m.options["method_override"] = {"put": "none"}.get(override, override)
    m.start()
    mend(m)
    assert m.emulator.bytes_of("users/Ada Byron/notes.txt") == b"new"


def with_subproject():
    return {
        "users": {
            "Ada Byron": {"notes.txt": b"notes", "map.png": b"map"},
            "Subproject North": {"site.txt": b"site"},
        },
        "events": {"Live fire": {"card.txt": b"card"}},
    }


def test_r9_documents_hang_on_tasks_only(drive):
    m = drive(tree=with_subproject(), poll=0)
    m.allow_errors(WORDS)
    assert (m / "users/Subproject North/site.txt").read_bytes() == b"site"
    (m / "users/Subproject North/new.txt").write_bytes(b"new")
    text = parked(m, "users/Subproject North/new.txt", "tasks only")
    assert os.strerror(errno.EPERM) in text, text
    os.rename(m / "users/Ada Byron/map.png", m / "users/Subproject North/map.png")
    text = parked(m, "users/Subproject North/map.png", "tasks only")
    assert (m / "users/Subproject North/map.png").read_bytes() == b"map"
    assert (m / "users/Subproject North/new.txt").read_bytes() == b"new"
    os.rename(m / "users/Subproject North/new.txt", m / "users/Ada Byron/new.txt")
    os.rename(m / "users/Subproject North/map.png", m / "users/Ada Byron/map.png")
    m.sync()
    assert failed(m) == ""
    assert m.emulator.bytes_of("users/Ada Byron/new.txt") == b"new"
    (m / "users/Subproject North/site.txt").write_bytes(b"changed")  # what is there may change
    m.sync()


@pytest.mark.parametrize("reparent", ["ignored", "409"])
def test_r10_the_element_of_a_document_cannot_be_changed(drive, reparent):
    m = drive(toggles={"reparent": reparent}, poll=0)
    m.allow_errors(WORDS)
    before = m.emulator.files()
    old, new = "users/Ada Byron/notes.txt", "users/Grace Hopper/moved.txt"
    data = (m / old).read_bytes()
    os.rename(m / old, m / new)
    text = parked(m, new, "R-10")
    assert os.strerror(errno.EXDEV) in text, text
    assert (m / new).read_bytes() == data
    assert [a["sha256"] for a in m.emulator.files().values()] == [
        a["sha256"] for a in before.values()
    ]
    (m / new).write_bytes(b"and written to")
    os.rename(m / new, m / old)
    m.command("retry", ok=None)
    m.sync()
    assert m.emulator.bytes_of(old) == b"and written to"
    assert set(m.emulator.files()) == set(before)


def test_a_document_does_not_leave_its_project(drive):
    m = drive(poll=0)
    with raises_errno(errno.EXDEV):
        os.rename(m / "users/Ada Byron/tiny.txt", m / "events/Live fire/tiny.txt")
    run("mv", m / "users/Ada Byron/tiny.txt", m / "events/Live fire/tiny.txt")
    m.sync()
    assert m.emulator.bytes_of("events/Live fire/tiny.txt") == b"abc"
    assert "users/Ada Byron/tiny.txt" not in m.emulator.files()
