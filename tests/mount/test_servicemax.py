# SPDX-License-Identifier: MIT
"""
ServiceMax's traps, by their numbers in reference/servicemax.md, as seen from the mount: every toggle
of section 13, the life of tokens, swaps of names that a server without renames must be led through.
"""

import errno
import http.client
import json
import os
import threading
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from urllib.parse import parse_qs, quote, urlencode, urlsplit

import pytest

from harness import (
    RENAME_EXCHANGE,
    SERVICEMAX,
    Gate,
    Mount,
    added,
    binary,
    numbered,
    one_record,
    raises_errno,
    random_bytes,
    renameat2,
    run,
    sha256,
    small_tree,
    wait_until,
)

LOGIN = "POST /sec/auth/token"
BY_TOKEN = replace(SERVICEMAX, password=None, options=())


@pytest.fixture
def system():
    return SERVICEMAX


@pytest.fixture(autouse=True)
def nothing_leaks(emulator, monkeypatch):
    """
    No test lets the credential out of the server's own host and port (S-11): the blob port is
    another host.
    """
    yield
    for server in emulator.__closure__[
        [*emulator.__code__.co_freevars].index("made")
    ].cell_contents:
        if server.process.poll() is None:
            assert not [r for r in server.requests(port="blob") if r["authorization"]]


class Api:
    """Another client of the same server."""

    def __init__(self, m: Mount):
        self.api = m.emulator.api
        self.token = m.emulator.token

    def __call__(self, method: str, path: str, form: dict = None) -> tuple:
        """Status and body."""
        where = urlsplit(self.api)
        c = http.client.HTTPConnection(where.hostname, where.port, timeout=60)
        headers = {"Authorization": f"Bearer {self.token}"}
        if form:
            headers = {"Content-Type": "application/x-www-form-urlencoded"}
        try:
            c.request(method, path, urlencode(form) if form else None, headers)
            answer = c.getresponse()
            return answer.status, answer.read()
        finally:
            c.close()

    def revoke(self, token: str) -> None:
        form = {"token": token, "client_id": "attachfs"}
        assert self("POST", "/sec/auth/token/revoke", form)[0] == 200

    def delete_latest(self, m: Mount, path: str) -> None:
        file = m.emulator.file(path)
        names = f"names={quote(file['name'])}&version=latest"
        where = f"/v2/{file['collection']}/{file['record_remote_id']}/attachments?{names}"
        assert self("DELETE", where)[0] == 200


def failed(m: Mount) -> str:
    return (m / ".attachfs/failed").read_text()


def logins(m: Mount, endpoint: str = LOGIN) -> int:
    return m.emulator.summary()["by_endpoint"].get(endpoint, 0)


def logical(tree: dict) -> dict:
    """A tree as read_tree() tells it."""
    return {
        f"{c}/{r}/{name}": data
        for c, records in tree.items()
        for r, files in records.items()
        for name, data in files.items()
    }


def server_tree(m: Mount) -> dict:
    return {path: m.emulator.blob(a["id"]) for path, a in m.emulator.files().items()}


def same(found: dict, expected: dict) -> bool:
    """As ==, with words that can be read."""
    assert sorted(found) == sorted(expected)
    assert not [path for path in expected if found[path] != expected[path]]
    return True


def swap(a: Path, b: Path) -> None:
    renameat2(a, b, RENAME_EXCHANGE)


NAMES = (
    'gr\u00fc\u00df "dich".html',
    "a&b=c;d+e %2C #1.txt",
    "no extension",
    "\U0001f600.txt",
    "'.txt",
)


def work(m: Mount) -> dict:
    """All that can be done to files; what must be there afterwards."""
    tree = logical(small_tree())
    for i, name in enumerate(NAMES):
        tree[f"users/Nobody/{name}"] = random_bytes(1000 * i + 1, name)
        (m / f"users/Nobody/{name}").write_bytes(tree[f"users/Nobody/{name}"])
    tree["users/Ada Byron/notes.txt"] = b"a new version\n" * 300
    (m / "users/Ada Byron/notes.txt").write_bytes(tree["users/Ada Byron/notes.txt"])
    moves = {
        "users/Ada Byron/logo.png": "users/Ada Byron/emblem.png",
        "users/Ada Byron/tiny.txt": "events/Winter camp/tinier.txt",
        "events/Live fire/map.jpg": "events/Live fire/range-card.txt",
    }
    for old, new in moves.items():
        os.rename(m / old, m / new)
        tree[new] = tree.pop(old)
    one, other = "users/Grace Hopper/cobol.pdf", "users/Grace Hopper/readme"
    swap(m / one, m / other)
    tree[one], tree[other] = tree[other], tree[one]
    for name in ("large.bin", "empty.txt"):
        os.unlink(m / "users/Ada Byron" / name)
        del tree[f"users/Ada Byron/{name}"]
    return tree


SERVERS = [
    pytest.param({}, id="plain"),
    pytest.param(
        {"numbers": "numbers", "links": "without", "href_query": "none", "post_reply": "all"},
        id="S-2 numbers, bare links",
    ),
    pytest.param(
        {"href_host": "localhost:8080", "href_query": "12", "links": "reversed"}, id="S-3, S-11"
    ),
    pytest.param(
        {
            "href_host": "foreign",
            "range": "ignored",
            "document_auth": "none",
            "delete_status": 202,
            "delete_reply": "list",
        },
        id="foreign links, no range",
    ),
    pytest.param(
        {"href_host": "http", "document_auth": "refused", "post_reply": "reversed"}, id="open bytes"
    ),
    pytest.param(
        {"href_host": "https", "redirect": "same", "etag": "absent", "delete_reply": "list"},
        id="redirected",
    ),
    pytest.param(
        {"redirect": "foreign", "document_auth": "none", "href_query": "12"}, id="bytes elsewhere"
    ),
    pytest.param(
        {"delete_path": "singular", "delete_path_other": 404, "delete_status": 204}, id="S-12 404"
    ),
    pytest.param(
        {"delete_path": "singular", "delete_path_other": 405, "delete_partial": "on"}, id="S-12 405"
    ),
    pytest.param({"delete_path": "both", "delete_path_other": 405}, id="S-12 both"),
    pytest.param({"delete_path": "plural", "delete_path_other": 405}, id="S-12 plural 405"),
    pytest.param(
        {
            "name_case": "insensitive",
            "rename_by_document_id": "stays",
            "other_types": "on",
            "comma_escape": "on",
        },
        id="S-8, any case",
    ),
    pytest.param(
        {"replace_uuid": "changes", "restored_time": "now", "version_urls": "on"}, id="new uuids"
    ),
    pytest.param({"csrf": "on"}, id="csrf script"),
    pytest.param(
        {"csrf": "on", "csrf_header": "X-XSRF-TOKEN", "csrf_form": "header"}, id="csrf header"
    ),
    pytest.param(
        {"csrf": "on", "csrf_header": "OWASP-CSRFTOKEN", "csrf_form": "bare", "error_form": "text"},
        id="csrf bare",
    ),
    pytest.param(
        {
            "order": "stable",
            "user_reply": "array",
            "record_zone": "+00:00",
            "touch_record": "on",
            "error_form": "nested",
        },
        id="S-20 stable",
    ),
    pytest.param(
        {"updated_field": "absent", "record_zone": "+05:30", "error_form": "text"},
        id="S-23 no date",
    ),
    pytest.param({"uri_max": 170}, id="short addresses"),
]


@pytest.mark.parametrize("toggles", SERVERS)
def test_every_kind_of_server_can_be_read_and_written(drive, toggles):
    m = drive(toggles=toggles, poll=0, settle=600)
    same(m.tree(), logical(small_tree()))
    before = m.emulator.file("users/Ada Byron/notes.txt")
    expected = work(m)
    m.emulator.reset()
    m.sync()
    same(server_tree(m), expected)
    same(m.tree(), expected)
    sent = [r for r in m.emulator.requests(port="api", method="POST") if r["status"] == 200]
    replaced = [r for r in sent if parse_qs(r["query"]).get("document_id") == [before["remote_id"]]]
    assert len(replaced) == 1, "a new version is told by the document's id"
    made = [
        r for r in sent if r["path"].endswith("attachments") and "document_id" not in r["query"]
    ]
    assert len(made) < len(NAMES) + 4, "several creates are one POST"
    if toggles.get("replace_uuid") != "changes":
        after = m.emulator.file("users/Ada Byron/notes.txt")
        assert after["remote_id"] == before["remote_id"]
    # once more, with what was learnt of the server
    (m / "users/Ada Byron/notes.txt").write_bytes(b"and another")
    os.unlink(m / "users/Ada Byron/emblem.png")
    m.sync()
    expected["users/Ada Byron/notes.txt"] = b"and another"
    del expected["users/Ada Byron/emblem.png"]
    same(server_tree(m), expected)
    m.forget_cache()
    same(m.tree(), expected)
    assert json.loads((m / "users/Ada Byron/.record.json").read_text())["io_uuid"]


def test_many_creates_of_a_record_are_one_post_and_many_deletes_one_call(drive):
    m = drive(poll=0, settle=600)
    for name, data in numbered(20, 300).items():
        (m / "users/Nobody" / name).write_bytes(data)
    m.emulator.reset()
    m.sync()
    assert m.emulator.count(SERVICEMAX.creates) == 1, m.emulator.calls()
    m.emulator.reset()
    for name in numbered(20, 300):
        os.unlink(m / "users/Nobody" / name)
    m.sync()
    assert m.emulator.count(SERVICEMAX.removes) == 1, m.emulator.calls()


def test_a_rename_uploads_looks_and_only_then_deletes(drive):
    m = drive(poll=0, settle=600)
    os.rename(m / "users/Ada Byron/logo.png", m / "users/Nobody/logo 2.png")
    m.emulator.reset()
    m.sync()
    kinds = [r["method"] for r in m.emulator.requests(port="api") if r["method"] != "GET"]
    assert kinds == ["POST", "DELETE"]
    (deleted,) = m.emulator.requests(method="DELETE")
    assert "version=all" in deleted["query"], "S-14"


def test_new_bytes_and_a_new_name_at_a_time(drive):
    for_name = {"rename_by_document_id": "follows"}
    m = drive(toggles=for_name, poll=0, settle=600)
    os.rename(m / "users/Ada Byron/notes.txt", m / "users/Ada Byron/log.txt")
    (m / "users/Ada Byron/log.txt").write_bytes(b"both")
    m.sync()
    assert m.emulator.bytes_of("users/Ada Byron/log.txt") == b"both"
    assert "users/Ada Byron/notes.txt" not in m.emulator.files()


# The life of tokens


class Tap(Gate):
    """A gate that remembers which tokens went through it."""

    def __init__(self, api: str):
        super().__init__(api)
        self.seen = b""

    def _copy(self, source, sink) -> None:
        try:
            while data := source.recv(65536):
                with self.lock:
                    self.seen += data
                sink.sendall(data)
        except OSError:
            pass

    def tokens(self) -> list:
        """Access tokens, oldest first."""
        with self.lock:
            parts = self.seen.split(b"Authorization: Bearer ")[1:]
        return list(dict.fromkeys(part.split(b"\r\n")[0].decode() for part in parts))


@contextmanager
def tapped(m: Mount):
    tap = Tap(m.emulator.api)
    tap.open()
    m.source = m.system.source(tap.url)
    try:
        yield tap
    finally:
        tap.shut()


@pytest.mark.parametrize("token_path", ["/sec/auth/token", "/auth/token"])
def test_tokens_are_worthless_after_the_unmount(drive, token_path):
    m = drive(toggles={"token_path": token_path}, poll=0, start=False)
    with tapped(m) as tap:
        m.start()
        same(m.tree(), logical(small_tree()))
        (token,) = tap.tokens()
        other = Api(m)
        other.token = token
        assert other("GET", "/v2/user")[0] == 200
        m.umount()
    assert other("GET", "/v2/user")[0] == 401
    assert logins(m, f"POST {token_path}/revoke") == 2, "the refresh token, too"
    assert logins(m, f"POST {token_path}") == 1


@pytest.mark.parametrize(
    "toggles",
    [
        {"refresh_rotation": "same", "expired": 401},
        {"refresh_rotation": "new", "expired": 403},
        {"refresh_rotation": "omitted", "expired": 400},
        {"refresh": "absent", "expired": 401, "error_form": "text"},
    ],
    ids=lambda t: "-".join(map(str, t.values())),
)
def test_a_token_that_ends_while_nobody_works_is_renewed_once(drive, toggles):
    m = drive(toggles={"ttl": 1000, **toggles}, poll=0, settle=600)
    os.listdir(m / "users/Ada Byron")
    assert logins(m) == 1
    for i, name in enumerate(("notes.txt", "logo.png", "tiny.txt"), 1):
        m.emulator.clock(2000 * i)
        assert (m / "users/Ada Byron" / name).read_bytes() == small_tree()["users"]["Ada Byron"][
            name
        ]
        assert logins(m) == i + 1, "one more login, not many"
    m.emulator.clock(9000)
    (m / "users/Nobody/new.txt").write_bytes(b"new")
    os.unlink(m / "users/Ada Byron/tiny.txt")
    m.sync()
    assert m.status()["state"] == "online"


@pytest.mark.parametrize("expired", [401, 403, 400])
def test_a_token_that_ends_in_the_middle_of_a_download(drive, expired):
    data = random_bytes(6_000_000)
    tree = {"users": {"Ada Byron": {"large.bin": data}}, "events": {}}
    m = drive(tree=tree, toggles={"ttl": 1000, "expired": expired}, poll=0)
    m.emulator.faults(
        {**SERVICEMAX.blob, "count": 1, "bytes_per_second": 8_000_000, "cut_after": 2_000_000}
    )
    found = []
    reader = threading.Thread(
        target=lambda: found.append((m / "users/Ada Byron/large.bin").read_bytes())
    )
    reader.start()
    wait_until(lambda: m.emulator.struck(), "the download to begin")
    m.emulator.clock(2000)
    reader.join()
    assert found == [data]
    assert logins(m) == 2


@pytest.mark.parametrize("toggles", [{}, {"expired": 403, "csrf": "on", "error_form": "text"}])
def test_a_token_that_ends_in_the_middle_of_many_writes(drive, toggles):
    m = drive(toggles={"ttl": 1000, **toggles}, poll=0, settle=600)
    os.listdir(m / "users/Ada Byron")
    m.emulator.clock(2000)
    expected = work(m)
    m.sync()
    same(server_tree(m), expected)
    assert logins(m) == 2


def test_a_password_that_is_refused_is_said_before_anything_is_mounted(drive):
    m = drive(toggles={"password": "changed"}, start=False)
    m.allow_errors("password|credential")
    m.check_at_end = False  # there is no mount to check
    with pytest.raises(AssertionError, match="password") as e:
        m.start()
    assert "client_id=" not in m.output.read_text(), e


def test_a_client_id_that_is_refused_names_its_option_not_the_password(drive):
    m = drive(start=False, client_id="other")
    m.allow_errors("client_id")
    m.check_at_end = False
    with pytest.raises(AssertionError, match="client_id="):
        m.start()
    assert "password" not in m.output.read_text(), m.output.read_text()


def test_check_tells_a_bad_client_id_from_a_bad_password(drive):
    m = drive(poll=0)
    for options, said, unsaid in (
        ({"client_id": "other"}, "client_id=", "password"),
        ({"user": "nobody"}, "password_file=", "client_id="),
        ({}, "mount", "FAIL"),
    ):
        other = Mount(m.base / str(len(said)), m.emulator, **options)
        argv = ("check", "-o", other.option_text(), m.source)
        told = run(binary("attachfs"), *argv, env=m.env(), ok=unsaid == "FAIL")
        assert said in told.stdout + told.stderr
        assert unsaid not in told.stdout + told.stderr, told.stdout + told.stderr


def test_a_token_that_may_only_read(drive):
    m = drive(
        tokens=["read-token-4711=read", "test-token=*"],
        start=False,
        poll=0,
        settle=600,
    )
    m.system = BY_TOKEN
    m.allow_errors("token|credential|denied|403|permission")
    m.write_token("read-token-4711")
    m.start()
    same(m.tree(), logical(small_tree()))
    (m / "users/Nobody/new.txt").write_bytes(b"new")
    (m / "users/Ada Byron/notes.txt").write_bytes(b"new")
    m.sync(ok=False)
    assert "new.txt" in failed(m) and "notes.txt" in failed(m)
    assert os.strerror(errno.EACCES) in failed(m)
    assert (m / "users/Nobody/new.txt").read_bytes() == b"new"
    m.write_token("test-token")
    m.kill9()
    m.start()
    m.command("retry")
    m.sync()


def test_a_client_id_nobody_tells_names_its_option(drive):
    m = drive(start=False, client_id=None)
    m.emulator.faults({"port": "api", "match": "/oauth/client", "count": -1, "status": 404})
    m.allow_errors("client_id")
    m.check_at_end = False
    with pytest.raises(AssertionError, match="client_id="):
        m.start()


@pytest.mark.parametrize("header", ["client_id", "X-Client-Id", "Client-Id"])
def test_the_client_id_is_found_out(drive, header):
    m = drive(toggles={"client_header": header}, client_id=None, poll=0)
    same(m.tree(), logical(small_tree()))
    assert logins(m, "GET /oauth/client") == 1


def test_a_password_changed_while_mounted_keeps_the_cache_and_what_was_written(drive):
    m = drive(toggles={"ttl": 1000, "refresh": "absent"}, poll=0, settle=0)
    m.allow_errors("password|credential|denied|invalid_grant")
    notes = (m / "users/Ada Byron/notes.txt").read_bytes()
    m.emulator.toggle(password="changed")
    m.emulator.clock(2000)
    (m / "users/Nobody/new.txt").write_bytes(b"queued")
    wait_until(lambda: m.status()["state"] == "auth", "the status to say so")
    assert (m / "users/Ada Byron/notes.txt").read_bytes() == notes
    with raises_errno(errno.EACCES):
        (m / "users/Ada Byron/large.bin").read_bytes()
    assert "password" in json.dumps(m.status())
    m.password_file.write_text("changed\n")
    m.command("retry")
    m.sync()
    assert m.emulator.bytes_of("users/Nobody/new.txt") == b"queued"


@pytest.mark.parametrize("expired", [401, 403, 400])
def test_a_ready_made_token_is_read_again_when_it_is_refused(drive, expired):
    m = drive(
        toggles={"expired": expired},
        tokens=["first-token-4711", "second-token-4711"],
        start=False,
        poll=0,
        settle=0,
    )
    m.system = BY_TOKEN
    m.allow_errors("token|credential|denied")
    m.write_token("first-token-4711")
    m.start()
    same(m.tree(), logical(small_tree()))
    Api(m).revoke("first-token-4711")
    (m / "users/Nobody/new.txt").write_bytes(b"queued")
    wait_until(lambda: m.status()["state"] == "auth", "the status to say so")
    m.write_token("second-token-4711")
    m.command("retry")
    m.sync()
    assert m.emulator.bytes_of("users/Nobody/new.txt") == b"queued"
    m.emulator.reset()
    m.umount()
    assert not logins(m) and not logins(m, LOGIN + "/revoke"), "the user's own token is left alone"
    m.start()


# Reading


@pytest.mark.parametrize("host", ["localhost:8080", "foreign", "https"])
def test_s11_links_are_read_from_the_mounts_own_server(drive, host):
    m = drive(toggles={"href_host": host}, poll=0)
    same(m.tree(), logical(small_tree()))
    assert not m.emulator.requests(port="blob")
    assert all(r["authorization"] for r in m.emulator.downloads())


@pytest.mark.parametrize("auth", ["required", "refused", "none"])
@pytest.mark.parametrize("redirect", ["same", "foreign"])
def test_a_redirect_takes_the_credential_no_further_than_home(drive, redirect, auth):
    m = drive(toggles={"redirect": redirect, "document_auth": auth}, poll=0)
    same(m.tree(), logical(small_tree()))
    assert bool(m.emulator.requests(port="blob")) == (redirect == "foreign")


@pytest.mark.parametrize(
    "toggles", [{}, {"range": "ignored"}, {"range": "ignored", "etag": "absent"}]
)
def test_parts_of_a_large_file_are_the_right_parts(drive, toggles):
    data = random_bytes(6_000_000)
    tree = {"users": {"Ada Byron": {"large.bin": data}}, "events": {}}
    m = drive(tree=tree, toggles=toggles, poll=0)
    with open(m / "users/Ada Byron/large.bin", "rb") as f:
        for at in (5_999_000, 3_000_000, 0, 4_500_123):
            assert os.pread(f.fileno(), 5000, at) == data[at : at + 5000]


def test_s1_malformed_json_is_eio_and_heals(drive):
    m = drive(toggles={"links_comma": "off"}, poll=0, timeout=3)
    m.allow_errors("JSON|list|json")
    with raises_errno(errno.EIO):
        os.listdir(m / "users/Ada Byron")
    m.emulator.toggle(links_comma="on")
    wait_until(lambda: works(m / "users/Ada Byron"), "the listing")
    same(m.tree(), logical(small_tree()))


def works(path) -> bool:
    try:
        return bool(os.listdir(path))
    except OSError:
        return False


def reads(path, data: bytes) -> bool:
    try:
        return path.read_bytes() == data
    except OSError as e:
        assert e.errno == errno.ESTALE
        return False


def test_bytes_that_are_newer_than_the_list_are_never_served_as_old_ones(drive):
    m = drive(poll=0)
    path = "users/Ada Byron/notes.txt"
    os.listdir(m / "users/Ada Byron")
    m.emulator.change({"op": "replace", "id": m.emulator.file(path)["id"], "text": "theirs"})
    with raises_errno(errno.ESTALE):
        (m / path).read_bytes()
    wait_until(lambda: reads(m / path, b"theirs"), "the list to be read again")


def test_s1_malformed_json_after_an_upload_makes_no_second_version(drive):
    m = drive(poll=0, settle=0)
    m.allow_errors("JSON|list|json")
    os.listdir(m / "users/Nobody")
    m.emulator.reset()
    m.emulator.toggle(links_comma="off")
    (m / "users/Nobody/new.txt").write_bytes(b"new")
    wait_until(lambda: m.emulator.uploads(), "the upload")
    m.emulator.toggle(links_comma="on")
    m.sync()
    assert m.emulator.uploads() == 1
    assert m.emulator.bytes_of("users/Nobody/new.txt") == b"new"


def test_s9_one_vanished_record_hides_no_other(drive):
    m = drive(generate=["users:30:1:100"], collections=("users",), poll=1)
    records = sorted(os.listdir(m / "users"))
    assert len(records) == 30
    gone = m.emulator.record_id("users", records[7])
    m.emulator.change({"op": "delete_record", "collection": "users", "id": gone})
    wait_until(lambda: len(os.listdir(m / "users")) == 29, "the record to go")
    for r in set(records) - {records[7]}:
        (m / "users" / r / "new.txt").write_bytes(r.encode())
    m.sync()


@pytest.mark.parametrize(
    "toggles",
    [{"unreadable": 2, "unreadable_status": s} for s in (404, 403)] + [{"soft_deleted": 2}],
)
def test_records_that_are_not_to_be_seen_are_not_there(drive, toggles):
    m = drive(generate=["users:40:2:100"], collections=("users",), toggles=toggles, poll=0)
    m.same_at_end = False
    records = m.emulator.state()["records"]
    seen = {r["name"] for r in records if r["collection"] == "users" and r["id"] % 2}
    assert set(os.listdir(m / "users")) == seen
    for name in seen:
        assert len(os.listdir(m / "users" / name)) == 2
        assert len((m / "users" / name / "file-0001.dat").read_bytes()) == 100
    record = m / "users" / min(seen)
    (record / "new.txt").write_bytes(b"new")
    os.unlink(record / "file-0001.dat")
    m.sync()
    assert m.emulator.bytes_of(f"users/{min(seen)}/new.txt") == b"new"


@pytest.mark.parametrize("status", [404, 403])
def test_a_record_that_becomes_unreadable_keeps_what_was_written(drive, status):
    m = drive(poll=0, settle=600)
    m.same_at_end = False
    m.allow_errors("gone|404|403|denied|not found|permission")
    nobody = m.emulator.record_id("users", "Nobody")
    (m / "users/Nobody/new.txt").write_bytes(b"kept")
    m.emulator.toggle(unreadable=nobody, unreadable_status=status)
    m.sync(ok=False)
    assert (m / "users/Nobody/new.txt").read_bytes() == b"kept"
    assert "new.txt" in failed(m)
    m.emulator.toggle(unreadable="off")
    m.command("retry")
    m.sync()
    assert m.emulator.bytes_of("users/Nobody/new.txt") == b"kept"


def test_objects_whose_records_have_no_io_name_are_shown_by_their_uuid(drive):
    m = drive(toggles={"name_field": "io_title"}, poll=0)
    m.same_at_end = False
    ids = {r["remote_id"]: r["name"] for r in m.emulator.state()["records"] if r["name"] != "?"}
    expected = logical(small_tree())
    found = {}
    for path, data in m.tree().items():
        c, r, name = path.split("/")
        found[f"{c}/{ids[r]}/{name}"] = data
    same(found, expected)
    uuid = {v: k for k, v in ids.items()}["Nobody"]
    (m / "users" / uuid / "new.txt").write_bytes(b"new")
    m.sync()
    assert m.emulator.bytes_of("users/Nobody/new.txt") == b"new"


@pytest.mark.parametrize("toggles", [{}, {"updated_field": "absent"}, {"record_zone": "+05:30"}])
def test_what_others_do_is_seen(drive, toggles):
    m = drive(toggles=toggles, poll=1)
    os.listdir(m / "users/Nobody")
    m.emulator.clock(300)
    m.emulator.change(added("new.txt", record="Nobody", text="theirs"))
    tiny = m.emulator.file("users/Ada Byron/tiny.txt")["id"]
    m.emulator.change({"op": "replace", "id": tiny, "text": "tinier"})
    m.emulator.change({"op": "add_record", "collection": "events", "name": "Summer camp"})
    wait_until(lambda: os.listdir(m / "users/Nobody") == ["new.txt"], "the new file")
    wait_until(lambda: (m / "users/Ada Byron/tiny.txt").read_bytes() == b"tinier", "the new bytes")
    wait_until(lambda: "Summer camp" in os.listdir(m / "events"), "the new record")


@pytest.mark.parametrize("restored", ["version", "now"])
def test_an_older_version_that_comes_back_is_a_change(drive, restored):
    m = drive(toggles={"restored_time": restored}, poll=1, settle=0)
    path = "users/Ada Byron/notes.txt"
    old = (m / path).read_bytes()
    m.emulator.clock(60)
    (m / path).write_bytes(b"newer\n" * 500)
    m.sync()
    Api(m).delete_latest(m, path)
    assert m.emulator.bytes_of(path) == old

    def shown() -> bytes:
        try:
            return (m / path).read_bytes()
        except OSError as e:
            assert e.errno == errno.ESTALE  # it changed between open() and read()
            return b""

    wait_until(lambda: shown() == old, "the older version")


# Names


def test_s13_names_with_a_comma_can_be_read_and_no_more(drive):
    m = drive(
        tree=one_record(),
        changes=[added("a,b.txt", text="comma"), added("a", text="a"), added("b.txt", text="b")],
        poll=0,
    )
    record = m / "users/Ada Byron"
    assert sorted(os.listdir(record)) == ["a", "a,b.txt", "b.txt"]
    assert (record / "a,b.txt").read_bytes() == b"comma"
    with raises_errno(errno.EPERM):
        os.unlink(record / "a,b.txt")
    with raises_errno(errno.EPERM):
        os.rename(record / "a,b.txt", record / "ab.txt")
    with raises_errno(errno.EPERM):
        os.rename(record / "a,b.txt", record / "a")
    with raises_errno(errno.EINVAL):
        (record / "x,y.txt").write_bytes(b"")
    with raises_errno(errno.EINVAL):
        os.rename(record / "a", record / "x,y")
    with raises_errno(errno.EPERM, errno.EINVAL):
        swap(record / "a", record / "a,b.txt")
    (record / "a,b.txt").write_bytes(b"a new version")
    m.sync()
    assert m.emulator.bytes_of("users/Ada Byron/a,b.txt") == b"a new version"
    os.unlink(record / "a")
    m.sync()
    assert sorted(os.listdir(record)) == ["a,b.txt", "b.txt"]


def test_s15_the_same_name_in_one_record_is_one_file(drive):
    m = drive(poll=0, settle=600)
    for i in range(3):
        (m / "users/Nobody/one.txt").write_bytes(b"%d" % i)
        if i < 2:
            os.unlink(m / "users/Nobody/one.txt")
    m.emulator.reset()
    m.sync()
    assert m.emulator.uploads() == 1
    assert m.emulator.bytes_of("users/Nobody/one.txt") == b"2"


@pytest.mark.parametrize("case", ["sensitive", "insensitive"])
def test_names_that_differ_in_case_only(drive, case):
    m = drive(toggles={"name_case": case}, poll=0, settle=600)
    m.allow_errors("under another name")
    (m / "users/Ada Byron/NOTES.txt").write_bytes(b"mine")
    notes = m.emulator.bytes_of("users/Ada Byron/notes.txt")
    m.sync(ok=case == "sensitive")
    assert m.emulator.bytes_of("users/Ada Byron/notes.txt") == notes
    assert (m / "users/Ada Byron/notes.txt").read_bytes() == notes
    if case == "sensitive":
        assert m.emulator.bytes_of("users/Ada Byron/NOTES.txt") == b"mine"
        return
    assert "NOTES.txt" in failed(m) and "notes.txt" in failed(m) and "rename" in failed(m)
    assert "another name" in m.xattr("users/Ada Byron/NOTES.txt", "error")
    assert (m / "users/Ada Byron/NOTES.txt").read_bytes() == b"mine"
    os.rename(m / "users/Ada Byron/NOTES.txt", m / "users/Ada Byron/mine.txt")
    m.sync()
    assert m.emulator.bytes_of("users/Ada Byron/mine.txt") == b"mine"


@pytest.mark.parametrize("case", ["sensitive", "insensitive"])
def test_new_names_that_differ_in_case_only(drive, case):
    m = drive(toggles={"name_case": case}, poll=0, settle=600)
    m.allow_errors("under another name")
    files = {"a.txt": b"one", "A.txt": b"two", "b.txt": b"three"}
    for name, data in files.items():
        (m / "users/Nobody" / name).write_bytes(data)
    m.sync(ok=case == "sensitive")
    assert {name: (m / "users/Nobody" / name).read_bytes() for name in files} == files
    if case == "insensitive":
        (there,) = {"users/Nobody/a.txt", "users/Nobody/A.txt"} & set(m.emulator.files())
        name = there.split("/")[-1]
        assert m.emulator.bytes_of(there) == files[name]
        os.rename(
            m / "users/Nobody" / name.swapcase().replace("TXT", "txt"), m / "users/Nobody/c.txt"
        )
        m.sync()


def test_a_version_taken_by_mistake_that_cannot_be_given_back_is_said(drive):
    m = drive(toggles={"name_case": "insensitive"}, poll=0, settle=600)
    m.allow_errors("under another name")
    m.emulator.faults({**SERVICEMAX.remove, "status": 500})
    os.listdir(m / "users/Ada Byron")
    (m / "users/Ada Byron/NOTES.txt").write_bytes(b"mine")
    m.sync(ok=False)
    m.emulator.heal()
    assert "until then" in failed(m)
    assert (m / "users/Ada Byron/NOTES.txt").read_bytes() == b"mine"
    wait_until(lambda: reads(m / "users/Ada Byron/notes.txt", b"mine"), "what the server has")
    os.unlink(m / "users/Ada Byron/NOTES.txt")
    m.sync()


@pytest.mark.parametrize("case", ["sensitive", "insensitive"])
def test_a_rename_that_changes_nothing_but_the_case(drive, case):
    m = drive(toggles={"name_case": case}, poll=0, settle=600)
    m.allow_errors("under another name")
    logo = (m / "users/Ada Byron/logo.png").read_bytes()
    os.rename(m / "users/Ada Byron/logo.png", m / "users/Ada Byron/LOGO.png")
    m.sync(ok=case == "sensitive")
    name = "LOGO.png" if case == "sensitive" else "logo.png"
    assert m.emulator.bytes_of(f"users/Ada Byron/{name}") == logo, "nothing is lost"
    if case == "insensitive":
        assert "LOGO.png" in failed(m)
        os.rename(m / "users/Ada Byron/LOGO.png", m / "users/Ada Byron/logo.png")
        m.sync()


# Refusals

TOO_LARGE = {"max_bytes": 4000, "max_bytes_status": 413}
LIMITS = [
    pytest.param(TOO_LARGE, "large.dat", errno.EFBIG, id="413"),
    pytest.param({**TOO_LARGE, "max_bytes_status": 400}, "large.dat", errno.EFBIG, id="400"),
    pytest.param({"empty_files": "refused"}, "empty.dat", errno.EINVAL, id="empty"),
    pytest.param({"extension_rule": "exe"}, "setup.exe", errno.EINVAL, id="exe"),
    pytest.param({**TOO_LARGE, "error_form": "nested"}, "large.dat", errno.EFBIG, id="nested"),
    pytest.param(
        {"extension_rule": "exe", "error_form": "text"}, "setup.exe", errno.EINVAL, id="text"
    ),
]


@pytest.mark.parametrize("toggles, refused, error", LIMITS)
def test_one_file_of_many_that_is_refused_stays_and_says_why(drive, toggles, refused, error):
    m = drive(toggles=toggles, poll=0, settle=600)
    m.allow_errors("too large|empty|extension")
    files = {"large.dat": b"x" * 5000, "empty.dat": b"", "setup.exe": b"MZ", "good.txt": b"good"}
    for name, data in files.items():
        (m / "users/Nobody" / name).write_bytes(data)
    m.sync(ok=False)
    on_server = {p.split("/")[-1] for p in m.emulator.files() if p.startswith("users/Nobody/")}
    assert on_server == set(files) - {refused}
    said = {"large.dat": "too large", "empty.dat": "empty", "setup.exe": "extension"}[refused]
    assert refused in failed(m) and said in failed(m), failed(m)
    assert said in m.xattr(f"users/Nobody/{refused}", "error")
    assert m.xattr(f"users/Nobody/{refused}", "state") == "parked"
    assert (m / "users/Nobody" / refused).read_bytes() == files[refused]
    assert os.strerror(error) in failed(m) or errno.errorcode[error] in failed(m), failed(m)
    m.emulator.toggle(max_bytes="off", empty_files="accepted", extension_rule="off")
    m.command("retry")
    m.sync()
    assert m.emulator.bytes_of(f"users/Nobody/{refused}") == files[refused]


def test_a_new_version_that_is_refused_leaves_the_old_one(drive):
    m = drive(toggles={"max_bytes": 700_000}, poll=0, settle=600)
    m.allow_errors("too large")
    old = m.emulator.bytes_of("users/Ada Byron/notes.txt")
    (m / "users/Ada Byron/notes.txt").write_bytes(b"x" * 800_000)
    m.sync(ok=False)
    assert m.emulator.bytes_of("users/Ada Byron/notes.txt") == old
    assert (m / "users/Ada Byron/notes.txt").read_bytes() == b"x" * 800_000
    assert "notes.txt" in failed(m)
    (m / "users/Ada Byron/notes.txt").write_bytes(b"shorter")
    m.sync()
    assert m.emulator.bytes_of("users/Ada Byron/notes.txt") == b"shorter"


@pytest.mark.parametrize("path", ["plural", "singular"])
@pytest.mark.parametrize("partial", ["off", "on"])
def test_s9_s13_one_name_that_is_gone_does_not_keep_the_others(drive, partial, path):
    m = drive(tree={"users": {"Ada Byron": numbered(9)}, "events": {}}, poll=0, settle=600)
    m.emulator.toggle(delete_partial=partial, delete_path=path)
    names = sorted(os.listdir(m / "users/Ada Byron"))
    for name in (names[2], names[7]):
        m.emulator.change({"op": "delete", "id": m.emulator.file(f"users/Ada Byron/{name}")["id"]})
    for name in names[:8]:
        os.unlink(m / "users/Ada Byron" / name)
    m.sync()
    assert sorted(m.emulator.files()) == [f"users/Ada Byron/{names[8]}"]


def test_many_long_names_are_deleted_in_addresses_the_server_takes(drive):
    names = [f"{i:03} {'long name ' * 5}.txt" for i in range(60)]
    tree = {"users": {"Ada Byron": {n: b"x" for n in names}}, "events": {}}
    m = drive(tree=tree, toggles={"uri_max": 1000}, poll=0, settle=600)
    assert len(os.listdir(m / "users/Ada Byron")) == 60
    for name in names:
        os.unlink(m / "users/Ada Byron" / name)
    m.sync()
    assert not m.emulator.files()


def test_many_records_are_looked_at_in_addresses_the_server_takes(drive):
    m = drive(
        generate=["users:12:1:100"],
        collections=("users",),
        toggles={"uri_max": 200},
        poll=0,
        settle=600,
    )
    m.allow_errors("lost|broke|reset|connection|unknown|empty")
    records = sorted(os.listdir(m / "users"))
    for r in records:
        (m / "users" / r / "new.txt").write_bytes(r.encode())
    m.emulator.reset()
    m.emulator.faults({**SERVICEMAX.upload, "drop_reply": True, "count": 12})
    m.sync()
    assert m.emulator.uploads() == 12, "what arrived is not sent again"


@pytest.mark.parametrize("change", ["replace", "delete"])
def test_a_file_that_another_client_changes_before_its_bytes_are_fetched_for_a_rename(
    drive, change
):
    m = drive(poll=0, settle=600)
    m.allow_errors("gone|404")
    os.listdir(m / "users/Ada Byron")
    ident = m.emulator.file("users/Ada Byron/notes.txt")["id"]
    more = {"text": "theirs"} if change == "replace" else {}
    m.emulator.change({"op": change, "id": ident, **more})
    os.rename(m / "users/Ada Byron/notes.txt", m / "users/Nobody/log.txt")
    m.sync(ok=None)
    if change == "replace":
        assert m.emulator.bytes_of("users/Nobody/log.txt") == b"theirs"
    else:
        print(m.log(), failed(m))
        wait_until(lambda: not os.listdir(m / "users/Nobody"), "it to be gone here, too")


def test_a_token_for_writes_that_cannot_be_had_is_said(drive):
    m = drive(toggles={"csrf": "on"}, poll=0, settle=600)
    m.allow_errors("CSRF|csrf")
    m.emulator.faults({"port": "api", "match": "/resources/", "count": -1, "status": 404})
    (m / "users/Nobody/new.txt").write_bytes(b"new")
    os.unlink(m / "users/Ada Byron/logo.png")
    m.sync(ok=False)
    assert "new.txt" in failed(m) and "/resources/js/csrf_script" in failed(m)
    assert "CSRF" in m.xattr("users/Nobody/new.txt", "error")
    m.emulator.heal()
    m.command("retry")
    m.sync()
    assert m.emulator.bytes_of("users/Nobody/new.txt") == b"new"
    assert "users/Ada Byron/logo.png" not in m.emulator.files()


def test_many_writes_that_want_a_token_ask_for_it_once(drive):
    m = drive(toggles={"csrf": "on"}, poll=0, settle=600)
    expected = work(m)
    m.sync()
    same(server_tree(m), expected)
    assert logins(m, "GET /resources/js/csrf_script") == 1


def test_a_throttle_that_tells_when_to_come_back_is_waited_for(drive):
    m = drive(poll=0, settle=600)
    os.listdir(m / "users/Ada Byron")
    m.emulator.toggle(throttle=2)  # a look at the record and the upload
    m.emulator.reset()
    (m / "users/Nobody/1.txt").write_bytes(b"1")
    m.sync()
    m.emulator.clock(58)
    (m / "users/Nobody/2.txt").write_bytes(b"2")
    m.sync()
    log = [(r["method"], r["status"]) for r in m.emulator.requests()]
    assert log.count(("POST", 200)) == 2, log
    assert [status for _, status in log if status != 200] == [429], log
    m.emulator.toggle(throttle="off")


def test_a_throttle_without_words_keeps_the_rest_for_later(drive):
    m = drive(toggles={"throttle_headers": "absent"}, poll=0, settle=0)
    notes = (m / "users/Ada Byron/notes.txt").read_bytes()
    m.emulator.toggle(throttle=2)
    m.emulator.reset()
    (m / "users/Nobody/1.txt").write_bytes(b"1")
    m.sync()
    (m / "users/Nobody/2.txt").write_bytes(b"2")
    wait_until(lambda: m.emulator.requests(status=429), "a call to be refused")
    wait_until(lambda: m.status()["state"] == "throttled", "the status to say so")
    assert (m / "users/Ada Byron/notes.txt").read_bytes() == notes
    m.kill9()
    m.emulator.toggle(throttle="off")
    m.start()


# Swaps: no rename, unique names


def cycle(record: Path, names: list) -> None:
    """Each file takes the name of the next one."""
    os.rename(record / names[-1], record / "~away")
    for old, new in reversed(list(zip(names, names[1:]))):
        os.rename(record / old, record / new)
    os.rename(record / "~away", record / names[0])


def cycled(n: int) -> tuple:
    files = numbered(n, 2000, "%d.txt")
    names = list(files)
    expected = dict(zip(names[1:] + names[:1], files.values()))
    return files, names, {f"users/Ada Byron/{name}": data for name, data in expected.items()}


@pytest.mark.parametrize(
    "n, toggles",
    [(2, {}), (3, {"replace_uuid": "changes"}), (4, {"delete_path": "singular"}), (5, {})],
)
def test_names_go_round_and_every_content_stays(drive, n, toggles):
    files, names, expected = cycled(n)
    m = drive(
        tree={"users": {"Ada Byron": files}, "events": {}}, toggles=toggles, poll=0, settle=600
    )
    cycle(m / "users/Ada Byron", names)
    m.emulator.reset()
    m.sync()
    same(server_tree(m), expected)
    same(m.tree(), expected)
    assert m.emulator.uploads() <= n + 1, m.emulator.calls()


def test_a_swap_between_records(drive):
    m = drive(poll=0, settle=600)
    one, other = "users/Ada Byron/logo.png", "events/Live fire/map.jpg"
    swap(m / one, m / other)
    expected = logical(small_tree())
    expected[one], expected[other] = expected[other], expected[one]
    m.sync()
    same(server_tree(m), expected)


KILLS = [("POST", skip) for skip in range(4)] + [("DELETE", 0)]


@pytest.mark.parametrize("what", ["done", "not done"])
@pytest.mark.parametrize("verb, skip", KILLS)
def test_kill_in_the_middle_of_a_cycle_loses_nothing(drive, verb, skip, what):
    files, names, expected = cycled(3)
    m = drive(tree={"users": {"Ada Byron": files}, "events": {}}, poll=0, settle=600)
    cycle(m / "users/Ada Byron", names)
    fault = {"latency_ms": 60000} if what == "done" else {"hang": True}
    m.emulator.faults(
        {"port": "api", "method": verb, "match": "/attachment", "skip": skip, "count": 1, **fault}
    )
    sync = threading.Thread(target=lambda: m.command("sync", ok=None))
    sync.start()
    wait_until(lambda: m.emulator.struck(), f"{verb} number {skip + 1}")
    m.kill9()
    sync.join()
    there = {a["sha256"] for a in m.emulator.attachments()}
    assert {sha256(data) for data in files.values()} <= there, "each content is somewhere"
    m.emulator.heal()
    m.start()
    m.sync()
    same(server_tree(m), expected)
    same(m.tree(), expected)
