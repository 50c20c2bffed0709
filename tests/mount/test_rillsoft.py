# SPDX-License-Identifier: MIT
"""
Rillsoft's traps, by their numbers in reference/rillsoft.md, as seen from the mount: every toggle of
section 13, logins, rights, templates, limits, and the upload of the seed to attachments known by id.
"""

import errno
import json
import os
import re
import subprocess
import time
import urllib.request
from calendar import timegm

import pytest

from harness import (
    RILLSOFT,
    added,
    binary,
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
    for path, attachment in m.emulator.files().items():
        here = int(os.stat(m / path).st_mtime)
        there = timegm(time.strptime(attachment["created_at"][:19], "%Y-%m-%dT%H:%M:%S"))
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


@pytest.mark.parametrize(
    "login_refused, error_details", [("401", "string"), ("403", "object"), ("400", "array")]
)
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


@pytest.mark.parametrize(
    "token_form, expired_details", [("exp", "other"), ("no-exp", "same"), ("opaque", "other")]
)
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
    m = drive(toggles={"ttl": 4}, poll=0)  # renewed in its last second, which has steps enough
    begun = time.monotonic()
    for i in range(16):
        (m / f"users/Nobody/{i}.txt").write_bytes(b"x" * i)
        m.sync()
        time.sleep(0.4)
    refused = [r for r in m.emulator.requests() if r["status"] == 401]
    assert len(refused) <= 1
    each_its_time = (time.monotonic() - begun) / 3 + 2
    assert 2 <= counted(m, "POST /api/v1/login") <= max(8, each_its_time)


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


@pytest.mark.parametrize("error_details", ["object"])
def test_without_the_right_to_read_nothing_is_listed(drive, error_details):
    m = drive(toggles={"denied": "read", "error_details": error_details}, poll=0)
    m.allow_errors(r"40\d|denied|EACCES|refuse|right")
    m.same_at_end = False
    with raises_errno(errno.EACCES):
        os.listdir(m / "users")
    assert "Read documents" in m.log() and "Insufficient permissions" in m.log()


@pytest.mark.parametrize(
    "denied, error_details", [("create", "string"), ("change", "object"), ("delete", "array")]
)
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
    "toggles, template",
    [
        ({"tpl_download": "404"}, None),
        ({"tpl_download": "other"}, None),
        ({"download": "json"}, None),
        ({}, OTHER_DOWNLOAD),
    ],
    ids=["404", "other", "json", "option"],
)
def test_a_wrong_template_for_downloads_is_eio_and_one_line(drive, toggles, template):
    m = drive(toggles=toggles, poll=0, template_download=template)
    m.same_at_end = False
    m.allow_errors("template_download=")
    for path in (
        "users/Ada Byron/notes.txt",
        "users/Ada Byron/logo.png",
        "events/Live fire/map.jpg",
    ):
        with raises_errno(errno.EIO):
            (m / path).read_bytes()
    lines = [l for l in m.log().splitlines() if " error " in l]
    assert len(lines) == 3 and all("template_download=" in l for l in lines), lines
    (m / "users/Nobody/new.txt").write_bytes(b"new")
    m.sync()
    assert m.emulator.bytes_of("users/Nobody/new.txt") == b"new"
    if template or toggles.get("tpl_download") == "other":
        m.remount(template_download=None if template else OTHER_DOWNLOAD)
        m.same_as_server()


@pytest.mark.parametrize("tpl_delete", ["404", "405", "other", "default"])
def test_a_wrong_template_for_deleting_is_enosys_logged_once(drive, tpl_delete):
    template = OTHER_DELETE if tpl_delete == "default" else None
    m = drive(toggles={"tpl_delete": tpl_delete}, poll=0, template_delete=template)
    m.allow_errors("template_delete=|waits for you")
    for name in ("notes.txt", "logo.png", "tiny.txt"):
        os.unlink(m / "users/Ada Byron" / name)
    before = m.emulator.files()
    text = parked(m, "notes.txt", "template_delete=", "logo.png", "tiny.txt")
    assert os.strerror(errno.ENOSYS) in text, text
    assert m.emulator.files() == before
    lines = [l for l in m.log().splitlines() if " error " in l and "template_delete=" in l]
    assert len(lines) == 1, lines
    if tpl_delete in ("other", "default"):
        m.terminate()
        m.options["template_delete"] = None if template else OTHER_DELETE
        m.start()
    else:
        m.emulator.toggle(tpl_delete="default")
    mend(m)
    assert len(m.emulator.files()) == len(before) - 3


# ---- updates ----


@pytest.mark.parametrize(
    "override, method",
    [("header", "field"), ("field", "header"), ("put", "both"), ("both", "none")],
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


def test_r9_where_any_element_takes_documents(drive):
    m = drive(tree=with_subproject(), toggles={"parents": "any"}, poll=0)
    (m / "users/Subproject North/new.txt").write_bytes(b"new")
    os.rename(m / "users/Ada Byron/map.png", m / "users/Subproject North/map.png")
    m.sync()
    assert m.emulator.bytes_of("users/Subproject North/new.txt") == b"new"
    assert m.emulator.bytes_of("users/Subproject North/map.png") == b"map"


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


# ---- limits ----


@pytest.mark.parametrize("answer", ["400", "413"])
def test_what_is_too_large_is_refused_as_that(drive, answer):
    m = drive(toggles={"max_bytes": 100_000, "max_bytes_answer": answer}, poll=0, settle=600)
    m.allow_errors(WORDS)
    data = random_bytes(200_000)
    (m / "users/Nobody/large.bin").write_bytes(data)
    (m / "users/Nobody/small.bin").write_bytes(b"small")
    (m / "users/Ada Byron/notes.txt").write_bytes(data)
    number = errno.EIO if answer == "400" else errno.EFBIG
    text = parked(m, "users/Nobody/large.bin", "larg")
    assert text.count(os.strerror(number)) == 2 and "notes.txt" in text, text
    assert "small.bin" not in text
    assert m.emulator.bytes_of("users/Nobody/small.bin") == b"small"
    assert (m / "users/Nobody/large.bin").read_bytes() == data
    m.emulator.toggle(max_bytes="off")
    mend(m)
    assert m.emulator.bytes_of("users/Nobody/large.bin") == data
    assert m.emulator.bytes_of("users/Ada Byron/notes.txt") == data


@pytest.mark.parametrize("path", ["users/Nobody/large.bin", "users/Ada Byron/large.bin"])
def test_a_server_that_hangs_up_on_what_is_too_large_is_not_hammered(drive, path):
    m = drive(toggles={"max_bytes": 700_000, "max_bytes_answer": "close"}, poll=0, settle=0)
    m.allow_errors(WORDS)
    data = random_bytes(900_000)
    (m / path).write_bytes(data)
    uploads = RILLSOFT.creates + "|" + RILLSOFT.replaces
    wait_until(lambda: counted(m, uploads) >= 1, "the first try")
    time.sleep(1)
    assert counted(m, uploads) <= 4
    assert "connection" in pending(m)
    (m / "users/Nobody/small.bin").write_bytes(b"small")  # others are not held up by it
    wait_until(lambda: "users/Nobody/small.bin" in m.emulator.files(), "the small file")
    assert (m / "users/Grace Hopper/readme").read_bytes()
    assert (m / path).read_bytes() == data
    assert m.status()["state"] == "online"
    m.emulator.toggle(max_bytes="off")
    m.sync()
    assert m.emulator.bytes_of(path) == data
    assert sum(p.startswith("users/Nobody/large") for p in m.emulator.files()) <= 1


def test_a_name_too_long_for_the_server_is_refused(drive):
    m = drive(toggles={"name_max": 20}, poll=0)
    m.allow_errors(WORDS)
    long = "users/Nobody/a name of more than twenty.txt"
    (m / long).write_bytes(b"new")
    os.rename(m / "users/Ada Byron/tiny.txt", m / "users/Ada Byron/another name too long.txt")
    text = parked(m, long, "Validation error")
    assert "another name too long.txt" in text
    os.rename(m / long, m / "users/Nobody/short.txt")
    os.rename(m / "users/Ada Byron/another name too long.txt", m / "users/Ada Byron/tiny2.txt")
    m.sync()
    assert failed(m) == ""
    assert m.emulator.bytes_of("users/Nobody/short.txt") == b"new"
    assert m.emulator.bytes_of("users/Ada Byron/tiny2.txt") == b"abc"


# ---- states that may pass ----


@pytest.mark.parametrize("locked, number", [("423", errno.EROFS), ("409", errno.EBUSY)])
def test_what_is_locked_waits_for_the_user(drive, locked, number):
    m = drive(toggles={"locked": locked}, poll=0)
    m.allow_errors(WORDS)
    before = m.emulator.files()
    (m / "users/Ada Byron/notes.txt").write_bytes(b"new")
    os.rename(m / "users/Ada Byron/tiny.txt", m / "users/Ada Byron/small.txt")
    os.unlink(m / "users/Grace Hopper/readme")
    text = parked(
        m, "users/Ada Byron/notes.txt", "lock", "read only" if locked == "423" else "conflict"
    )
    assert text.count(os.strerror(number)) == 3, text
    assert "small.txt" in text and "readme" in text
    assert m.emulator.files() == before
    m.emulator.toggle(locked="off")
    mend(m)
    assert m.emulator.bytes_of("users/Ada Byron/notes.txt") == b"new"
    assert m.emulator.bytes_of("users/Ada Byron/small.txt") == b"abc"
    assert "users/Grace Hopper/readme" not in m.emulator.files()


def test_a_name_that_is_taken_waits_for_the_user(drive):
    m = drive(toggles={"duplicates": "409"}, poll=0)
    m.allow_errors(WORDS)
    os.listdir(m / "users/Ada Byron")
    m.emulator.change(added("new.txt", text="theirs"))
    (m / "users/Ada Byron/new.txt").write_bytes(b"ours")
    text = parked(m, "users/Ada Byron/new.txt", "have that name")
    assert os.strerror(errno.EBUSY) in text
    assert m.emulator.bytes_of("users/Ada Byron/new.txt") == b"theirs"
    os.rename(m / "users/Ada Byron/new.txt", m / "users/Ada Byron/ours.txt")
    m.sync()
    m.command("refresh")
    assert m.emulator.bytes_of("users/Ada Byron/ours.txt") == b"ours"


def test_names_move_on_where_they_are_unique(drive):
    m = drive(toggles={"duplicates": "409"}, poll=0)
    ada = m / "users/Ada Byron"
    data = {p.name: p.read_bytes() for p in ada.iterdir()}
    os.rename(ada / "notes.txt", ada / "notes.2")  # as logs are rotated
    os.rename(ada / "logo.png", ada / "notes.txt")
    os.unlink(ada / "large.bin")
    os.rename(ada / "tiny.txt", ada / "large.bin")
    (ada / "tiny.txt").write_bytes(b"a new one")
    m.sync()
    assert m.emulator.bytes_of("users/Ada Byron/notes.2") == data["notes.txt"]
    assert m.emulator.bytes_of("users/Ada Byron/notes.txt") == data["logo.png"]
    assert m.emulator.bytes_of("users/Ada Byron/large.bin") == b"abc"
    assert m.emulator.bytes_of("users/Ada Byron/tiny.txt") == b"a new one"


def test_two_names_exchanged_where_they_are_unique_need_a_third(drive):
    m = drive(toggles={"duplicates": "409"}, poll=0)
    m.allow_errors(WORDS)
    ada = m / "users/Ada Byron"
    data = {p.name: p.read_bytes() for p in ada.iterdir()}
    os.rename(ada / "notes.txt", ada / "spare")
    os.rename(ada / "logo.png", ada / "notes.txt")
    os.rename(ada / "spare", ada / "logo.png")
    assert "logo.png" in parked(m, "users/Ada Byron/notes.txt", "have that name")
    os.rename(ada / "logo.png", ada / "spare")
    m.command("retry", ok=None)
    m.sync()
    os.rename(ada / "spare", ada / "logo.png")
    m.sync()
    assert m.emulator.bytes_of("users/Ada Byron/notes.txt") == data["logo.png"]
    assert m.emulator.bytes_of("users/Ada Byron/logo.png") == data["notes.txt"]


@pytest.mark.parametrize("retry_after", ["absent", "present"])
def test_a_throttled_server_is_waited_for(drive, retry_after):
    m = drive(toggles={"throttle": 12, "retry_after": retry_after}, poll=0, settle=600)
    m.allow_errors("rate limit|429")
    cached = (m / "users/Ada Byron/notes.txt").read_bytes()
    for i in range(8):
        (m / f"users/Nobody/{i}.txt").write_bytes(b"x" * i)
    syncing = run_sync(m)
    wait_until(lambda: m.status()["state"] == "throttled", "the limit")
    time.sleep(1)  # those that had left before the first refusal came
    refused = len(m.emulator.requests(status=429))
    assert refused <= 8, "each upload once"
    time.sleep(1)
    assert len(m.emulator.requests(status=429)) == refused, "it is left alone"
    assert (m / "users/Ada Byron/notes.txt").read_bytes() == cached
    assert failed(m) == ""
    m.emulator.toggle(throttle="off")
    syncing.kill()
    syncing.wait()
    m.kill9()
    m.start()  # knows nothing of the rest of the minute
    m.sync()
    assert len([p for p in m.emulator.files() if p.startswith("users/Nobody/")]) == 9


# ---- what only the list tells ----


def test_r11_documents_of_a_deleted_folder_are_found_again(drive):
    m = drive(poll=0)
    (m / "users/Ada Byron/a.txt").write_bytes(b"a")
    m.sync()
    (folder,) = {a.get("folder_id", 1) for a in m.emulator.attachments()}
    assert folder in (1, None)
    m.emulator.toggle(gone_folder=3)
    m.command("refresh")
    (m / "users/Ada Byron/a.txt").write_bytes(b"new")
    (m / "users/Ada Byron/b.txt").write_bytes(b"b")
    m.sync()
    m.emulator.toggle(gone_folder="off")
    m.command("refresh")
    assert m.emulator.bytes_of("users/Ada Byron/a.txt") == b"new"


@pytest.mark.parametrize("gone", ["before", "between"])
def test_r8_r11_a_document_below_contracts(drive, gone):
    """In a folder that is deleted before, or after we have listed it: then 404, and once more."""
    m = drive(poll=0)
    m.allow_errors(WORDS)
    upload(m.emulator, m.xattr("users", "id"), "Ada Byron", 3, "contract.txt", b"signed")
    if gone == "before":
        m.emulator.toggle(gone_folder=3)
    m.command("refresh")
    path = m / "users/Ada Byron/contract.txt"
    assert path.read_bytes() == b"signed"
    if gone == "between":
        m.emulator.toggle(gone_folder=3)
    path.write_bytes(b"signed twice")
    os.rename(path, m / "users/Ada Byron/deed.txt")
    (m / "users/Ada Byron/annex.txt").write_bytes(b"beside it")
    m.sync()
    assert m.emulator.bytes_of("users/Ada Byron/deed.txt") == b"signed twice"
    assert m.emulator.bytes_of("users/Ada Byron/annex.txt") == b"beside it"
    m.emulator.toggle(gone_folder="off")


def upload(emulator, project, element, folder, name, data):
    """Another client's upload."""
    (row,) = [r for r in emulator.state()["records"] if r["name"] == element]
    parent = row["remote_id"]
    body = (
        (
            f'--XbX\r\nContent-Disposition: form-data; name="name"\r\n\r\n{name}\r\n'
            f'--XbX\r\nContent-Disposition: form-data; name="file"; filename="{name}"\r\n\r\n'
        ).encode()
        + data
        + b"\r\n--XbX--\r\n"
    )
    request = urllib.request.Request(
        f"{emulator.api}/v2/clients/1/dms/projects/{project}/folders/{folder}"
        f"/parent/{parent}/documents",
        body,
        {
            "Authorization": f"Bearer {emulator.token}",
            "Content-Type": "multipart/form-data; boundary=XbX",
        },
    )
    with urllib.request.urlopen(request) as answer:
        assert answer.status == 201


def test_r5_many_uploads_share_the_lists_that_tell_what_became_of_them(drive):
    m = drive(poll=0, settle=600)
    os.listdir(m / "users/Nobody")
    m.emulator.reset()
    for i in range(60):
        (m / f"users/Nobody/{i:02}.txt").write_bytes(b"x" * (i % 3))
    m.sync()
    assert counted(m, RILLSOFT.creates) == 60
    assert counted(m, RILLSOFT.lists) <= 40


def test_r17_an_element_whose_last_document_goes_stays_until_it_is_left(drive):
    m = drive(poll=0)
    os.unlink(m / "events/Winter camp/packing list.txt")
    m.sync()
    (m / "events/Winter camp/back.txt").write_bytes(b"back")
    m.sync()
    assert m.emulator.bytes_of("events/Winter camp/back.txt") == b"back"
    with raises_errno(errno.EPERM):
        (m / "events/Unlisted").mkdir()


# ---- the seed: bytes to an attachment that is there (family 1) ----

SEED = [
    pytest.param({"attachment_scope": "optional"}, {}, "", id="no scope"),
    pytest.param(
        {"attachment_scope": "project", "create_status": "200"},
        {"project": 41},
        "project_id=41",
        id="project",
    ),
    pytest.param(
        {"attachment_scope": "portfolio", "details": "string"},
        {"portfolio": 7},
        "portfolio_id=7",
        id="portfolio",
    ),
    pytest.param(
        {"attachment_scope": "portfolio", "tpl_attachment": "other", "details": "object"},
        {"project": 41, "portfolio": 7, "template_attachment": OTHER_ATTACHMENT},
        "project_id=41&portfolio_id=7",
        id="both, other template",
    ),
]


def of_attachment(m, ident: int) -> bytes:
    (row,) = [
        a
        for a in m.emulator.state()["attachments"]
        if a["collection"] == "attachments" and str(a["remote_id"]) == str(ident)
    ]
    return m.emulator.blob(row["id"])


def seed(drive, toggles=None, attachments="9001:9003", **options):
    m = drive(
        toggles={"attachments": 3, **(toggles or {})}, poll=0, attachments=attachments, **options
    )
    m.same_at_end = False
    m.allow_errors(r"read attachment \d+: .* status 40[045]|Internal server error|" + WORDS)
    return m


@pytest.mark.parametrize("toggles, options, query", SEED)
def test_the_seeds_upload(drive, toggles, options, query):
    m = seed(drive, toggles, **options)
    first, second = random_bytes(70_000, "one"), b""
    (m.path / "attachments/9001").write_bytes(first)
    (m.path / "attachments/9003").write_bytes(second)
    m.sync()
    assert of_attachment(m, 9001) == first and of_attachment(m, 9003) == second
    posts = [r for r in m.emulator.requests() if r["endpoint"].endswith("/attachments/{id}")]
    posts = [r for r in posts if r["method"] == "POST"]
    assert len(posts) == 2
    for r in posts:
        assert (r["query"] or "").lstrip("?") == query
        assert r["status"] == (200 if "create_status" in toggles else 201)
    (m.path / "attachments/9001").write_bytes(b"replaced")
    m.sync()
    assert of_attachment(m, 9001) == b"replaced"
    m.forget_cache()
    assert (m.path / "attachments/9001").read_bytes() == b"replaced"
    assert (m.path / "attachments/9003").read_bytes() == b""


def test_r18_what_cannot_be_read_back_can_be_written(drive):
    m = seed(drive, {"tpl_attachment": "404"})
    (m.path / "attachments/9003").write_bytes(b"write only")
    m.sync()
    assert of_attachment(m, 9003) == b"write only"
    m.forget_cache()
    assert (m.path / "attachments/9003").read_bytes() == b""
    (m.path / "attachments/9003").write_bytes(b"once more")
    m.sync()
    assert of_attachment(m, 9003) == b"once more"


def test_the_seed_cannot_create_rename_or_delete(drive):
    m = seed(drive)
    top = m.path / "attachments"
    (top / "9001").write_bytes(b"one")
    m.sync()
    for deed in (
        lambda: (top / "9002").write_bytes(b"not of the option"),
        lambda: (top / "named.pdf").write_bytes(b"no id"),
        lambda: os.unlink(top / "9001"),
        lambda: os.rename(top / "9001", top / "9003"),
        lambda: os.rename(top / "9001", top / "new"),
        lambda: os.mkdir(top / "folder"),
    ):
        with raises_errno(errno.EPERM):
            deed()
    with raises_errno(errno.EPERM, errno.EXDEV):
        os.rename(top / "9001", m / "users/Ada Byron/9001")
    with raises_errno(errno.EPERM, errno.EXDEV):
        os.rename(m / "users/Ada Byron/tiny.txt", top / "tiny.txt")
    assert of_attachment(m, 9001) == b"one"
    assert (m / "users/Ada Byron/tiny.txt").read_bytes() == b"abc"


def test_an_attachment_the_server_does_not_know_is_enoent(drive):
    m = seed(drive, {"attachment_scope": "project"}, attachments="9001:9009", project=41)
    (m.path / "attachments/9009").write_bytes(b"nowhere")
    text = parked(m, "attachments/9009", "no attachment 9009", "attachments=", "project=")
    assert os.strerror(errno.ENOENT) in text
    assert (m.path / "attachments/9009").read_bytes() == b"nowhere"
    m.emulator.toggle(attachments=9)
    mend(m)
    assert of_attachment(m, 9009) == b"nowhere"


def test_an_attachment_without_its_scope_is_refused_with_the_remedy(drive):
    m = seed(drive, {"attachment_scope": "project"})
    (m.path / "attachments/9001").write_bytes(b"one")
    parked(m, "attachments/9001", "Validation error", "project=")
    m.terminate()
    m.options["project"] = 41
    m.start()
    mend(m)
    assert of_attachment(m, 9001) == b"one"


# Section 10: status -> errno, the seed's words; None: is tried again by itself.
REFUSALS = [
    (400, errno.EIO, "Invalid request", "Validation error"),
    (401, None, "Authentication failed", "JWT token not found"),
    (403, errno.EACCES, "Access denied", "Insufficient permissions"),
    (404, errno.ENOENT, "Not found", "The requested resource was not found"),
    (500, None, "Internal server error", "An internal server error occurred"),
]
SHAPES = {
    "string": lambda text: text,
    "object": lambda text: {"error": text},
    "array": lambda text: [text],
}


@pytest.mark.parametrize("status, number, message, details", REFUSALS)
def test_the_seeds_errors_reach_the_user(drive, status, number, message, details):
    shape = {400: "array", 403: "object"}.get(status, "string")
    m = seed(drive, settle=0)
    body = {
        "status": "error",
        "code": status,
        "message": message,
        "details": SHAPES[shape](details),
    }
    m.emulator.faults(
        {
            "port": "api",
            "method": "POST",
            "match": "/attachments/9001",
            "count": -1,
            "status": status,
            "body": json.dumps(body),
            "content_type": "application/json",
        }
    )
    (m.path / "attachments/9001").write_bytes(b"one")
    if number:
        text = parked(m, "attachments/9001", details)
        assert os.strerror(number) in text, text
    else:
        wait_until(lambda: m.emulator.struck() >= 1, "a try")
        wait_until(lambda: details in pending(m), "the words")
        assert failed(m) == ""
    assert (m.path / "attachments/9001").read_bytes() == b"one"
    m.emulator.heal()
    m.command("retry", ok=None)
    m.sync()
    assert of_attachment(m, 9001) == b"one"


def pending(m) -> str:
    return (m.path / ".attachfs/pending").read_text()


def test_what_was_moved_unseen_and_removed_is_removed_on_the_server(drive):
    """The move is done, but nobody could look at it: the file is not where it was, and not gone."""
    tree = {
        "users": {"Ada Byron": {"a.txt": b"hello", "b.txt": b"b"}, "Grace Hopper": {"c.txt": b"c"}}
    }
    m = drive({**tree, "events": {}}, settle=0, poll=0)
    m.allow_errors("list project")
    os.listdir(m / "users/Grace Hopper")
    m.emulator.faults({**RILLSOFT.list, "status": 502})
    os.rename(m / "users/Ada Byron/a.txt", m / "users/Grace Hopper/a.txt")
    wait_until(lambda: "users/Grace Hopper/a.txt" in m.emulator.files(), "the move")
    wait_until(lambda: "'a.txt' again later" in m.log() or m.emulator.struck() > 4, "the look")
    os.unlink(m / "users/Grace Hopper/a.txt")
    m.emulator.heal()
    m.sync()
    wait_until(lambda: "users/Grace Hopper/a.txt" not in m.emulator.files(), "the removal")
