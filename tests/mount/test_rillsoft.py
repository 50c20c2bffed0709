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
