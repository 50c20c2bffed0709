# SPDX-License-Identifier: MIT
"""
Servers and networks that misbehave: refused and lost calls, cut and lying answers, throttling, HTML
where JSON should be. Never a crash, never a half-written file on either side, the right errno, and
everything arrives once the trouble is over.
"""

import errno
import json
import os

import pytest

from harness import numbered, raises_errno, random_bytes, run, sha256, wait_until

TROUBLE = (
    r"50\d|429|reset|cut|connect|reach|refused|parked|broke|short|timed? ?out|EIO|invalid|JSON|HTML"
    r"|lost|unknown|truncat|stall|answer"
)

PASSING = [
    pytest.param({"status": 500}, id="500"),
    pytest.param(
        {"status": 502, "body": "<html><h1>Bad Gateway</h1></html>", "content_type": "text/html"},
        id="502 html",
    ),
    pytest.param({"status": 503, "headers": {"Retry-After": "1"}}, id="503 retry-after"),
    pytest.param({"status": 429, "headers": {"Retry-After": "1"}}, id="429 retry-after"),
    pytest.param({"status": 408}, id="408"),
    pytest.param({"reset": True}, id="reset"),
    pytest.param({"drop_reply": True}, id="reply lost"),
    pytest.param({"cut_after": 10}, id="answer cut"),
    pytest.param({"cut_upload_after": 600}, id="upload cut"),
    pytest.param({"truncate_declared": 5}, id="answer short"),
]


@pytest.mark.parametrize("what", PASSING)
@pytest.mark.parametrize("count", [1, 2])
def test_writes_survive_trouble_that_passes(drive, what, count):
    m = drive(settle=0, poll=0)
    m.allow_errors(TROUBLE)
    before = m.emulator.files()
    os.listdir(m / "users/Ada Byron")
    os.listdir(m / "users/Nobody")
    m.emulator.faults({**m.system.api, "count": count, **what})
    (m / "users/Nobody/small.txt").write_bytes(b"small")
    (m / "users/Nobody/usual.txt").write_bytes(b"usual" * 1000)
    (m / "users/Ada Byron/notes.txt").write_bytes(b"replaced" * 1000)
    os.rename(m / "users/Ada Byron/logo.png", m / "users/Ada Byron/emblem.png")
    os.unlink(m / "users/Ada Byron/tiny.txt")
    m.sync(ok=None)
    m.emulator.heal()
    m.command("retry", ok=None)
    m.sync()
    after = m.emulator.files()
    assert m.emulator.bytes_of("users/Nobody/small.txt") == b"small"
    assert m.emulator.bytes_of("users/Nobody/usual.txt") == b"usual" * 1000
    assert m.emulator.bytes_of("users/Ada Byron/notes.txt") == b"replaced" * 1000
    assert set(after) == set(before) - {"users/Ada Byron/logo.png", "users/Ada Byron/tiny.txt"} | {
        "users/Ada Byron/emblem.png",
        "users/Nobody/small.txt",
        "users/Nobody/usual.txt",
    }


@pytest.mark.parametrize(
    "what",
    [
        pytest.param({"status": 500}, id="500"),
        pytest.param({"status": 503, "headers": {"Retry-After": "1"}}, id="503"),
        pytest.param({"reset": True}, id="reset"),
        pytest.param({"cut_after": 1000}, id="cut"),
        pytest.param({"truncate_declared": 100}, id="short"),
        pytest.param({"drop_reply": True}, id="no answer"),
    ],
)
def test_reads_survive_trouble_that_passes(drive, what):
    m = drive(poll=0)
    m.allow_errors(TROUBLE)
    for path in m.emulator.files():
        os.stat(m / path)
    m.emulator.faults({**m.system.blob, "count": 2, **what})
    for path, attachment in m.emulator.files().items():
        assert sha256((m / path).read_bytes()) == attachment["sha256"], path


@pytest.mark.parametrize(
    "what",
    [
        pytest.param(
            {"status": 200, "body": "<html>a proxy's login page, not the file</html>"},
            id="another page",
        ),
        pytest.param(
            {"status": 206, "body": "x", "headers": {"Content-Range": "bytes 7-7/99999"}},
            id="another range",
        ),
        pytest.param(
            {"status": 206, "body": "abc", "headers": {"Content-Range": "nonsense"}},
            id="nonsense range",
        ),
        pytest.param({"status": 404}, id="404"),
        pytest.param({"status": 500}, id="500"),
        pytest.param({"cut_after": 1000}, id="cut"),
    ],
)
def test_lying_answers_never_become_the_file(drive, what):
    m = drive(poll=0, timeout=3)
    m.allow_errors(TROUBLE + "|404|range|size|gone|ESTALE|Range|other bytes")
    path = "users/Ada Byron/large.bin"
    data = m.emulator.bytes_of(path)
    for name in m.emulator.files():
        os.stat(m / name)
    m.emulator.faults({**m.system.blob, **what})
    try:
        found = (m / path).read_bytes()
    except OSError as e:
        assert e.errno in (
            errno.EIO,
            errno.ETIMEDOUT,
            errno.ENOENT,
            errno.ESTALE,
            errno.EHOSTDOWN,
            errno.EACCES,
        )
    else:
        assert found == data
    m.emulator.heal()
    wait_until(lambda: reads(m / path, data), "the true bytes once the server is well")


def reads(path, data) -> bool:
    try:
        return path.read_bytes() == data
    except OSError:
        return False


@pytest.mark.parametrize(
    "what, numbers",
    [
        pytest.param({"status": 500, "body": "<html>"}, (errno.EIO,), id="500"),
        pytest.param({"status": 403}, (errno.EACCES,), id="403"),
        pytest.param(
            {"status": 200, "body": "<html>hello</html>", "content_type": "text/html"},
            (errno.EIO,),
            id="html",
        ),
        pytest.param({"status": 200, "body": "{\"data\": 7}"}, (errno.EIO,), id="wrong shape"),
        pytest.param({"status": 200, "body": "[" * 100000}, (errno.EIO,), id="nested"),
        pytest.param({"status": 200, "body": ""}, (errno.EIO,), id="empty"),
        pytest.param({"cut_after": 30}, (errno.EIO, errno.EHOSTDOWN), id="cut"),
    ],
)
def test_listings_that_fail_say_so_and_come_back(drive, what, numbers):
    m = drive(poll=0, timeout=3)
    m.allow_errors(TROUBLE + "|403|list|nest|depth|empty|parse|denied")
    m.emulator.faults({**m.system.api, **what})
    if m.system.page_is_login and "<html>" in what.get("body", ""):
        numbers += (errno.EACCES,)
        m.allow_errors("credentials")
    with raises_errno(*numbers, errno.ETIMEDOUT):
        os.listdir(m / "users/Ada Byron")
    m.emulator.heal()
    wait_until(lambda: lists(m / "users/Ada Byron"), "the listing once the server is well")
    assert "notes.txt" in os.listdir(m / "users/Ada Byron")


def lists(path) -> bool:
    try:
        os.listdir(path)
        return True
    except OSError:
        return False


UUIDS = [f"0f0b8b0e-53a5-4f3f-9e0c-7e3a6c1d2b4{i}" for i in range(4)]
UP = "../../../etc/passwd"


def perscom_rows(ids) -> list:
    climbing = {
        "id": 9,
        "name": UP,
        "filename": "x",
        "path": "p",
        "model_type": "App\\Models\\User",
        "model_id": 7,
        "attachment_url": "file:///etc/passwd",
        "created_at": "2026-01-01T00:00:00.000000Z",
        "updated_at": "2026-01-01T00:00:00.000000Z",
    }
    records = [{"id": i, "name": "a record", "attachments": []} for i in ids]
    records.append({"id": 7, "name": "../../up", "attachments": [climbing], "created_at": "x"})
    meta = {"current_page": 1, "last_page": 1, "per_page": 1000, "total": len(records)}
    return [({}, {"data": records, "links": {}, "meta": meta})]


def servicemax_rows(ids) -> list:
    def file(ident):
        href = "file:///etc/passwd"
        links = [{"rel": "url", "href": href}]
        return {"uuid": ident, "type": "file", "name": UP, "size": "9", "links": links}

    records = [{"io_uuid": UUIDS[0], "io_name": "../../up"}]
    records += [{"io_uuid": i, "io_name": "a record"} for i in ids]
    files = {UUIDS[0]: [file(UUIDS[1])], **{str(i): [file(i)] for i in ids}}
    return [({"match": "/attachments"}, files), ({}, records)]


def enterprise_tester_rows(ids) -> list:
    def file(ident):
        link = "file:///etc/passwd"
        return {"Id": ident, "Name": UP, "FileName": UP, "Size": 9, "Content": link, "Self": link}

    records = [{"Id": UUIDS[0], "Name": "../../up", "Attachments": [file(UUIDS[1])]}]
    records += [{"Id": i, "Name": "a record", "Attachments": [file(i)]} for i in ids]
    return [({}, {"Skip": 0, "Top": 1000, "Total": len(records), "Items": records})]


def rillsoft_rows(ids) -> list:
    def document(ident, parent):
        more = {"projectId": 42, "folderId": 3, "createdAt": "2026-01-01T00:00:00"}
        place = {"parentUuid": parent, "elementName": "../../up"}
        return {"id": ident, "name": UP, "description": "", "fileSize": 9, **place, **more}

    rows = [document(7, UUIDS[0])] + [document(i, i) for i in ids]
    return [({}, {"status": "success", "code": 200, "message": "OK", "details": rows})]


HOSTILE = {
    "perscom": perscom_rows,
    "servicemax": servicemax_rows,
    "enterprise-tester": enterprise_tester_rows,
    "rillsoft": rillsoft_rows,
}


@pytest.mark.parametrize("ids", [(), ("../../etc", -1, 10**22, None)], ids=["names", "ids"])
def test_hostile_answers_do_not_leave_the_tree(drive, system, ids):
    """Ids and names that would climb, collide or overflow are not believed."""
    m = drive(poll=0, timeout=3)
    m.same_at_end = False
    m.allow_errors(TROUBLE + "|id|name|list|record|HTTP|url|address|protocol|bytes")
    answer = {**m.system.api, "status": 200, "content_type": "application/json"}
    rows = HOSTILE[system.name](ids)
    m.emulator.faults(*({**answer, **rule, "body": json.dumps(body)} for rule, body in rows))
    shown = []
    for folder, folders, files in os.walk(m.path):
        for name in folders + files:
            assert name not in ("..", ".") and "/" not in name
            if name in files:
                shown.append(name)
                with raises_errno(
                    errno.EIO,
                    errno.EACCES,
                    errno.EINVAL,
                    errno.EPERM,
                    errno.EHOSTDOWN,
                    errno.ETIMEDOUT,
                    errno.ENOENT,
                    errno.ESTALE,
                ):
                    with open(os.path.join(folder, name), "rb") as f:
                        assert b"root:" not in f.read()
                        raise OSError(errno.EIO, "read something harmless")
    assert ids or any("etc%2Fpasswd" in name for name in shown), shown
    m.emulator.heal()


def test_failing_calls_leave_the_daemon_well(drive):
    m = drive(poll=0, timeout=1)
    m.allow_errors(TROUBLE)
    m.emulator.faults({**m.system.blob, "reset": True})
    for _ in range(2):
        run("sh", "-c", "cat Grace*/* > /dev/null; ls -lR > /dev/null", cwd=m / "users", ok=None)
    m.emulator.heal()
    for path, attachment in m.emulator.files().items():
        data = m.emulator.blob(attachment["id"])
        wait_until(lambda: reads(m / path, data), f"{path} to be read again")


# Writes that are refused


def test_one_bad_entry_does_not_keep_the_batch_back(drive, system):
    if not system.batch_rename:
        pytest.skip("renames go out one by one")
    m = drive(tree={"users": {"Ada Byron": numbered(40)}, "events": {}}, poll=0)
    m.allow_errors("422|refused|parked")
    os.listdir(m / "users/Ada Byron")
    bad = "bad-" + "\u00e4" * 120 + ".txt"
    assert len(os.fsencode(bad)) <= 255
    victim = m.emulator.file("users/Ada Byron/file-0007.txt")["id"]
    m.emulator.reset()
    m.emulator.faults(
        {
            "port": "api",
            "method": "PATCH",
            "match": "/batch",
            "count": 1,
            "status": 422,
            "body": system.refusal(f"The resources.{victim}.name field must be a string."),
        }
    )
    for i in range(40):
        os.rename(
            m / f"users/Ada Byron/file-{i:04d}.txt", m / f"users/Ada Byron/renamed-{i:04d}.txt"
        )
    m.sync(ok=None)
    assert (
        sum("renamed-" in p for p in m.emulator.files()) == 40
    ), "the halves went through when asked again"


def test_unauthorised_writes_are_kept_and_said(drive):
    m = drive(poll=0)
    m.allow_errors("401|403|auth|denied|token|refused|parked|EACCES|permission")
    m.emulator.faults(
        {
            **m.system.upload,
            "status": 403,
            "body": m.system.refusal("The API key does not have the permissions."),
        }
    )
    (m / "users/Nobody/kept.txt").write_bytes(b"kept" * 500)
    m.sync(ok=None, timeout=30)
    assert (m / "users/Nobody/kept.txt").read_bytes() == b"kept" * 500
    m.emulator.heal()
    m.command("retry", ok=None)
    m.sync()
    assert m.emulator.bytes_of("users/Nobody/kept.txt") == b"kept" * 500


def test_expired_credentials_are_said_and_new_ones_taken_from_the_file(drive, system):
    tokens = () if system.password else ["first-token-1234=*", "second-token-5678=*"]
    m = drive(poll=0, tokens=tokens, start=False)
    m.allow_errors("401|auth|denied|token|credential|EACCES|password")
    if tokens:
        m.write_token("first-token-1234")
    m.start()
    assert (m / "users/Ada Byron/tiny.txt").read_bytes() == b"abc"
    m.emulator.faults(
        {**m.system.api, "status": 401, "body": m.system.refusal("You are not authenticated.")}
    )
    (m / "users/Nobody/new.txt").write_bytes(b"x" * 2000)
    wait_until(lambda: m.status()["state"] == "auth", "the status to say so")
    assert (m / "users/Ada Byron/tiny.txt").read_bytes() == b"abc", "what is cached is served"
    assert (m / "users/Nobody/new.txt").read_bytes() == b"x" * 2000
    if tokens:
        m.write_token("second-token-5678")
    m.emulator.heal()
    m.command("retry", ok=None)
    m.sync()
    assert m.emulator.bytes_of("users/Nobody/new.txt") == b"x" * 2000
    assert "first-token-1234" not in m.log() and "second-token-5678" not in m.log()
    if tokens:
        m.emulator.token = "second-token-5678"


def test_a_conflict_keeps_both(drive):
    m = drive(settle=600, poll=0)
    path = "users/Ada Byron/notes.txt"
    (m / path).read_bytes()
    (m / path).write_bytes(b"ours" * 1000)
    m.emulator.clock(60)
    m.emulator.change({"op": "replace", "id": m.emulator.file(path)["id"], "text": "theirs " * 500})
    m.command("refresh", ok=None)
    m.sync(ok=None)
    m.sync(ok=None)
    contents = [
        m.emulator.blob(a["id"])
        for p, a in m.emulator.files().items()
        if p.startswith("users/Ada Byron/notes")
    ]
    assert sorted(contents) == sorted([b"ours" * 1000, b"theirs " * 500])
    names = [n for n in os.listdir(m / "users/Ada Byron") if "conflict" in n]
    assert len(names) == 1 and names[0].endswith(".txt")
    assert (m / "users/Ada Byron" / names[0]).read_bytes() == b"ours" * 1000


def test_edited_here_and_deleted_there_is_not_lost(drive):
    m = drive(settle=600, poll=0)
    path = "users/Ada Byron/notes.txt"
    (m / path).read_bytes()
    (m / path).write_bytes(b"ours" * 1000)
    m.emulator.change({"op": "delete", "id": m.emulator.file(path)["id"]})
    m.sync(ok=None)
    m.sync()
    assert b"ours" * 1000 in [
        m.emulator.blob(a["id"])
        for p, a in m.emulator.files().items()
        if p.startswith("users/Ada Byron/")
    ]


def test_a_throttled_mount_waits_says_so_and_then_works(drive):
    m = drive(settle=0, poll=0)
    m.allow_errors("429|throttl")
    os.listdir(m / "users/Nobody")
    m.emulator.faults({**m.system.api, "count": 2, "status": 429, "headers": {"Retry-After": "1"}})
    (m / "users/Nobody/new.txt").write_bytes(b"x" * 2000)
    wait_until(lambda: m.status()["state"] == "throttled", "the status to say so")
    m.sync()
    assert m.emulator.bytes_of("users/Nobody/new.txt") == b"x" * 2000


def test_a_slow_dribbling_server_is_read_and_written_exactly(drive):
    m = drive(settle=0, poll=0)
    m.emulator.faults({**m.system.blob, "bytes_per_second": 200_000}, latency_ms=100)
    data = m.emulator.bytes_of("users/Grace Hopper/cobol.pdf")
    assert (m / "users/Grace Hopper/cobol.pdf").read_bytes() == data
    big = random_bytes(300_000)
    (m / "users/Nobody/big.bin").write_bytes(big)
    m.sync()
    assert m.emulator.bytes_of("users/Nobody/big.bin") == big
    m.emulator.heal()
