# SPDX-License-Identifier: MIT
"""
The emulator's ServiceMax, without a mount: the boxes and toggles of reference/servicemax.md,
section 13, over plain HTTP, and what that document leaves open.
"""

import http.client
import json
import re
import time
from dataclasses import replace
from urllib.parse import quote, urlencode, urlsplit

import pytest

from harness import SERVICEMAX, random_bytes

UUID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}")
NOWHERE = "41f19ff6-2738-4000-8bfd-a18950caa1d1"
ICON = "3b156bad-81fd-4c86-9624-50c4f7cdb71d"
FORM = {"Content-Type": "application/x-www-form-urlencoded"}


class Client:
    """An API client that checks nothing; .headers and .data are those of the last answer."""

    def __init__(self, emulator):
        self.emulator = emulator
        self.toggle = emulator.toggle
        self.token = "test-token"
        self.headers = {}
        self.data = b""

    def raw(self, method, url, body=None, headers=None):
        where = urlsplit(url)
        c = http.client.HTTPConnection(where.hostname, where.port, timeout=60)
        try:
            target = where.path + (f"?{where.query}" if where.query else "")
            c.request(method, target, body, headers or {})
            answer = c.getresponse()
            self.data = answer.read()
            self.headers = dict(answer.getheaders())
            return answer.status, self.data
        finally:
            c.close()

    def __call__(self, method, path, body=None, headers=None, **query):
        """Status and decoded body; @path below /v2, @body an object to be sent as JSON."""
        sent = {"Authorization": f"Bearer {self.token}"} if self.token else {}
        if body is not None and not isinstance(body, bytes):
            body = json.dumps(body).encode()
            sent["Content-Type"] = "application/json"
        sent.update(headers or {})
        url = f"{self.emulator.api}/v2{path}" + (f"?{urlencode(query)}" if query else "")
        status, data = self.raw(method, url, body, sent)
        try:
            return status, json.loads(data)
        except ValueError:
            return status, data

    def oauth(self, path="/sec/auth/token", **fields):
        status, data = self.raw("POST", self.emulator.api + path, urlencode(fields), FORM)
        return status, json.loads(data) if data else None

    def password(self, **more):
        fields = {"username": "mount", "password": "secret", "client_id": "attachfs", **more}
        return self.oauth(grant_type="password", **fields)

    def refresh(self, token, **more):
        fields = {"refresh_token": token, "client_id": "attachfs", **more}
        return self.oauth(grant_type="refresh_token", **fields)

    def records(self, obj="io_showcase"):
        """UUIDs in the order of names."""
        return [r["io_uuid"] for r in self("GET", f"/{obj}", sort="io_name", fields="io_uuid")[1]]

    def post(self, record, *files, headers=None, obj="io_showcase", field="file", **query):
        """@files: (name, bytes)."""
        out = b""
        for name, data in files:
            out += (
                f'--XbX\r\nContent-Disposition: form-data; name="{field}"; filename="{name}"\r\n'
                "Content-Type: application/octet-stream\r\n\r\n"
            ).encode()
            out += data + b"\r\n"
        sent = {"Content-Type": "multipart/form-data; boundary=XbX", **(headers or {})}
        path = f"/{obj}/{record}/attachments"
        return self("POST", path, out + b"--XbX--\r\n", sent, **query)

    def delete(self, record, names, version="all", form="attachments", headers=None):
        return self(
            "DELETE", f"/io_showcase/{record}/{form}", headers=headers, names=names, version=version
        )

    def files(self, record, obj="io_showcase"):
        status, answer = self("GET", f"/{obj}/{record}/attachments")
        assert status == 200, answer
        return {a["name"]: a for a in answer}

    def get(self, attachment, **headers):
        sent = {"Authorization": f"Bearer {self.token}"} if self.token else {}
        url = link(attachment)
        return self.raw("GET", url, headers={**sent, **headers})

    def at_home(self, url):
        """As a client must read a link: its own idea of host and port, the link's path and query."""
        where = urlsplit(url)
        return self.emulator.api + where.path + (f"?{where.query}" if where.query else "")


def link(attachment, rel="url"):
    return next(each["href"] for each in attachment["links"] if each["rel"] == rel)


@pytest.fixture
def system():
    return replace(SERVICEMAX, collections=("io_showcase", "io_account"))


@pytest.fixture
def api(emulator):
    """3 io_showcase with 2 files of 5,000 bytes, 2 io_account without any."""

    def make(**kwargs):
        kwargs.setdefault("generate", ["io_showcase:3:2:5000", "io_account:2:0:0"])
        return Client(emulator(**kwargs))

    return make


# OAuth


def test_the_client_id_is_in_a_header_unless_cookies_are_sent(api):
    c = api()
    for name in ("client_id", "X-Client-Id", "Client-Id"):
        c.toggle(client_header=name)
        assert c.raw("GET", c.emulator.api + "/oauth/client")[0] == 200
        assert c.headers[name] == "attachfs"
    cookies = {"Cookie": "a=b"}
    assert c.raw("GET", c.emulator.api + "/oauth/client", headers=cookies)[0] == 404


def test_a_password_gives_tokens_that_expire_and_are_refreshed(api):
    c = api(toggles={"ttl": 100})
    status, answer = c.password()
    assert status == 200 and answer["token_type"] == "bearer" and answer["expires_in"] == 100
    c.token = answer["access_token"]
    assert c("GET", "/user")[0] == 200
    c.emulator.clock(101)
    for status in (401, 403, 400):
        c.toggle(expired=status)
        assert c("GET", "/user") == (
            status,
            {"error": "invalid_token", "error_description": "Invalid Token"},
        )
    status, fresh = c.refresh(answer["refresh_token"])
    assert status == 200 and fresh["refresh_token"] == answer["refresh_token"]
    c.token = fresh["access_token"]
    assert c("GET", "/user")[0] == 200
    c.token = "nonsense"
    assert c("GET", "/user")[0] == 400
    c.token = None
    assert c("GET", "/user")[0] == 400
    c.toggle(ttl="off")
    answer = c.password()[1]
    c.token = answer["access_token"]
    c.emulator.clock(10**6)
    assert "expires_in" not in answer and c("GET", "/user")[0] == 200


def test_the_token_endpoint_has_four_errors(api):
    c = api()
    refresh = c.password()[1]["refresh_token"]
    assert c.refresh(refresh, client_id="other") == (
        400,
        {"error": "invalid_client", "error_description": "client is invalid"},
    )
    assert c.refresh("nonsense") == (
        401,
        {"error": "invalid_token", "error_description": "invalid token provided"},
    )
    assert c.oauth(grant_type="refresh_token", client_id="attachfs") == (
        400,
        {"error": "invalid_request"},
    )
    assert c.password(password="wrong") == (400, {"error": "invalid_grant"})
    assert c.oauth(grant_type="other", client_id="attachfs")[1] == {"error": "invalid_request"}
    body = json.dumps({"grant_type": "password"})
    url = c.emulator.api + "/sec/auth/token"
    assert c.raw("POST", url, body, {"Content-Type": "application/json"})[0] == 400
    assert c.raw("GET", url)[0] == 405
    c.toggle(password="changed")
    assert c.password()[1] == {"error": "invalid_grant"}
    assert c.password(password="changed")[0] == 200


def test_refresh_tokens_may_be_rotated_left_out_or_absent(api):
    c = api(toggles={"refresh_rotation": "new"})
    first = c.password()[1]["refresh_token"]
    second = c.refresh(first)[1]["refresh_token"]
    assert second != first
    assert c.refresh(first) == (400, {"error": "invalid_grant"})
    c.toggle(refresh_rotation="omitted")
    for _ in range(2):
        status, answer = c.refresh(second)
        assert status == 200 and "refresh_token" not in answer
    c.toggle(refresh="absent")
    assert "refresh_token" not in c.password()[1]
    assert c.refresh(second)[1] == {"error": "invalid_grant"}


def test_revoked_tokens_are_worth_nothing(api):
    c = api()
    revoke = "/sec/auth/token/revoke"
    answer = c.password()[1]
    c.token = answer["access_token"]
    assert c.oauth(revoke, token=c.token, client_id="attachfs") == (200, None)
    assert c("GET", "/user")[0] == 401
    c.token = c.refresh(answer["refresh_token"])[1]["access_token"]
    hint = {"token_type_hint": "refresh_token"}
    assert c.oauth(revoke, token=answer["refresh_token"], client_id="attachfs", **hint)[0] == 200
    assert c("GET", "/user")[0] == 401
    assert c.refresh(answer["refresh_token"])[1] == {"error": "invalid_grant"}
    assert c.oauth(revoke, client_id="attachfs")[0] == 400
    assert c.oauth(revoke, token="x")[0] == 400
    c.token = "test-token"
    assert c("GET", "/user")[0] == 200
    assert c.oauth(revoke, token=c.token, client_id="attachfs")[0] == 200
    assert c("GET", "/user")[0] == 401


def test_the_token_url_may_be_the_one_of_the_caption(api):
    c = api(toggles={"token_path": "/auth/token"})
    assert c.password()[0] == 404
    fields = {"username": "mount", "password": "secret", "client_id": "attachfs"}
    status, answer = c.oauth("/auth/token", grant_type="password", **fields)
    assert status == 200
    assert c.oauth("/auth/token/revoke", token="x", client_id="attachfs")[0] == 200


def test_writes_may_need_a_csrf_token(api):
    c = api(toggles={"csrf": "on"})
    script = c.emulator.api + "/resources/js/csrf_script"
    record = c.records()[0]
    for header in ("X-CSRF-Token", "X-XSRF-TOKEN", "OWASP-CSRFTOKEN"):
        c.toggle(csrf_header=header, csrf_form="script")
        assert c.post(record, ("a", b"x"))[0] == 403
        assert c.delete(record, "a")[0] in (403, 404)
        text = c.raw("GET", script)[1].decode()
        assert f'"{header}"' in text
        token = re.search(r'csrf_token_value = "(\w+)"', text).group(1)
        assert c.post(record, ("a", b"x"), headers={header: "wrong"})[0] == 403
        assert c.post(record, ("a", b"x"), headers={header: token})[0] == 200
        assert c.delete(record, "a", headers={header: token})[0] == 200
        c.toggle(csrf_form="header")
        assert c.raw("GET", script)[1] == b"" and c.headers[header] == token
        c.toggle(csrf_form="bare")
        assert c.raw("GET", script)[1].decode() == token
    assert c("POST", "/io_showcase/extended_read", {})[0] == 403
    assert c("GET", "/io_showcase")[0] == 200


def test_the_probe_answers_a_map_or_an_array(api):
    c = api()
    wanted = {"io_username": "mount", "io_email": "mount@example.org"}
    assert c("GET", "/user", fields="io_username,io_email") == (200, wanted)
    assert UUID.fullmatch(c("GET", "/user")[1]["io_uuid"])
    c.toggle(user_reply="array")
    assert c("GET", "/user", fields="io_username,io_email") == (200, [wanted])


# Records


def test_record_lists_are_unlimited_and_unordered_by_default(api):
    c = api(generate=["io_showcase:60:0:0"])
    status, rows = c("GET", "/io_showcase")
    assert status == 200 and len(rows) == 60 and "X-Total-Count" not in c.headers
    assert all(r["__object_identifier"] == "io_showcase" for r in rows)
    assert all(UUID.fullmatch(r["io_uuid"]) for r in rows)
    assert rows[0]["io_deleted"] is False
    orders = {tuple(r["io_uuid"] for r in c("GET", "/io_showcase")[1]) for _ in range(4)}
    assert len(orders) > 1
    c.toggle(order="stable")
    orders = {tuple(r["io_uuid"] for r in c("GET", "/io_showcase")[1]) for _ in range(4)}
    assert len(orders) == 1


def test_record_lists_are_cut_sorted_and_narrowed(api):
    c = api(generate=["io_showcase:7:0:0"])
    pages = []
    for offset in (0, 3, 6, 9):
        status, rows = c(
            "GET", "/io_showcase", fields="io_uuid,io_name", sort="io_uuid", limit=3, offset=offset
        )
        assert status == 200 and c.headers["X-Total-Count"] == "7"
        pages.append(len(rows))
        assert all(set(r) == {"__object_identifier", "io_uuid", "io_name"} for r in rows)
    assert pages == [3, 3, 1, 0]
    c("GET", "/io_showcase", limit=3, exclude_total_count="true")
    assert "X-Total-Count" not in c.headers
    names = [r["io_name"] for r in c("GET", "/io_showcase", sort="io_name DESC")[1]]
    assert names == sorted(names, reverse=True)
    ids = [r["io_uuid"] for r in c("GET", "/io_showcase", sort="io_deleted, io_uuid ASC")[1]]
    assert ids == sorted(ids)
    for bad in ({"limit": "x"}, {"offset": -1}, {"data_format": "odd"}):
        status, answer = c("GET", "/io_showcase", **bad)
        assert status == 400 and answer["type"] == "serialization_error"
    for bad in ({"sort": "nothing"}, {"fields": "io_uuid,nothing"}, {"filter": "nothing=1"}):
        status, answer = c("GET", "/io_showcase", **bad)
        assert status == 400 and answer["type"] == "smql_query_error"


def test_filters_are_comparisons_joined_by_and(api):
    c = api(generate=["io_showcase:3:0:0"])
    c.emulator.change({"op": "add_record", "collection": "io_showcase", "name": "Ada's"})

    def names(text):
        status, rows = c("GET", "/io_showcase", filter=text, sort="io_name")
        assert status == 200, rows
        assert c("GET", "/io_showcase/count", filter=text) == (200, len(rows))
        return [r["io_name"] for r in rows]

    assert names("io_name='Ada''s'") == ["Ada's"]
    assert names("io_updated_on>'2026-01-06'") == ["Ada's"]
    assert len(names("io_created_on < '2026-01-05T06:00:01.000-03:00'")) == 3
    assert len(names("io_created_on>='2026-01-05T09:00:00Z' and io_deleted=false")) == 4
    assert names("io_name>'io_showcase 0001' AND io_name <> 'io_showcase 0003'") == [
        "io_showcase 0002"
    ]
    assert len(names("io_updated_by.io_username='system'")) == 4
    assert names("io_updated_by.io_username='mount'") == []
    uuid = c.records()[1]
    assert names(f"io_uuid='{uuid}'") == ["io_showcase 0001"]
    for bad in ("io_name", "io_name='x", "io_name='x' OR io_name='y'", "io_created_on>'soon'"):
        assert c("GET", "/io_showcase", filter=bad)[0] == 400, bad


def test_extended_read_takes_the_parameters_as_a_map(api):
    c = api()
    wanted = {"fields": "io_name", "sort": "io_name DESC", "filter": "io_active=true"}
    for numbers in ({"limit": 2, "offset": 1}, {"limit": "2", "offset": "1"}):
        status, rows = c("POST", "/io_showcase/extended_read", {**wanted, **numbers})
        assert status == 200 and [r["io_name"][-4:] for r in rows] == ["0002", "0001"]
        assert c.headers["X-Total-Count"] == "3"
    assert c("POST", "/io_showcase/extended_read", [])[0] == 400
    assert c("GET", "/io_showcase/extended_read")[0] == 405


def test_one_record_is_a_map(api):
    c = api()
    uuid = c.records()[0]
    status, r = c("GET", f"/io_showcase/{uuid}")
    assert status == 200 and r["io_uuid"] == uuid and r["io_name"] == "io_showcase 0001"
    assert re.fullmatch(r"2026-01-05T06:00:00\.\d{3}-03:00", r["io_created_on"])
    for zone, hour in (("+00:00", "09:00"), ("+05:30", "14:30")):
        c.toggle(record_zone=zone)
        r = c("GET", f"/io_showcase/{uuid}", fields="io_created_on,io_owner.io_username")[1]
        assert r["io_created_on"].startswith(f"2026-01-05T{hour}:00.")
        assert r["io_created_on"].endswith(zone) and r["io_owner.io_username"] == "mount"
    assert c("GET", f"/io_account/{uuid}")[0] == 404
    assert c("GET", f"/io_showcase/{NOWHERE}")[0] == 404
    assert c("GET", "/io_showcase/nonsense")[0] == 400
    assert c("GET", "/io_nothing")[0] == 400
    assert c("GET", f"/io_showcase/{uuid}", fields="nothing")[0] == 400
    assert c("PATCH", f"/io_showcase/{uuid}")[0] == 405


def test_the_names_of_fields_may_differ(api):
    c = api(toggles={"name_field": "io_title", "updated_field": "absent"})
    row = c("GET", "/io_showcase")[1][0]
    assert "io_title" in row and "io_name" not in row and "io_updated_on" not in row
    assert c("GET", "/io_showcase", fields="io_name")[0] == 400
    assert c("GET", "/io_showcase", filter="io_updated_on>'2026-01-01'")[0] == 400


def test_new_records_are_not_kept(api):
    c = api()
    uuid = c("GET", "/io_showcase/new_record")[1]["io_uuid"]
    assert UUID.fullmatch(uuid) and c("GET", f"/io_showcase/{uuid}")[0] == 404
    assert c.post(uuid, ("a", b"x"))[0] == 404


def test_unreadable_records_are_absent_and_404(api):
    c = api()
    ids = c.records()
    for status in (404, 403):
        c.toggle(unreadable=2, unreadable_status=status)
        assert c.records() == [ids[0], ids[2]]
        assert c("GET", "/io_showcase/count") == (200, 2)
        assert c("GET", f"/io_showcase/{ids[1]}")[0] == status
        assert c("GET", f"/io_showcase/{ids[1]}/attachments")[0] == status
        assert c.post(ids[1], ("a", b"x"))[0] == status
        assert c("GET", "/io_showcase/attachments", uuids=",".join(ids))[0] == status
        assert set(c("GET", "/io_showcase/attachments")[1]) == {ids[0], ids[2]}


def test_soft_deleted_records_are_shown_on_request_only(api):
    c = api(toggles={"soft_deleted": 3})
    rows = c("GET", "/io_showcase")[1]
    assert len(rows) == 2
    gone = c("GET", "/io_showcase", filter="io_deleted=true")[1]
    assert len(gone) == 1 and gone[0]["io_deleted"] is True
    uuid = gone[0]["io_uuid"]
    assert c("GET", f"/io_showcase/{uuid}")[0] == 404
    assert c("GET", f"/io_showcase/{uuid}", ignore_delete="true")[0] == 200
    assert len(c("GET", "/io_showcase/attachments")[1]) == 2


def test_scopes_limit_objects_and_writing(api):
    c = api(tokens=["all", "reader=read", "narrow=io_account"])
    c.token = "all"
    ids = c.records()
    c.token = "reader"
    assert c.records() == ids and c.post(ids[0], ("a", b"x"))[0] == 403
    assert c.delete(ids[0], "file-0001.dat")[0] == 403
    c.token = "narrow"
    assert c.records() == [] and len(c.records("io_account")) == 2
    assert c("GET", f"/io_showcase/{ids[0]}/attachments")[0] == 404
    assert c.post(c.records("io_account")[0], ("a", b"x"), obj="io_account")[0] == 200


# Attachment lists


def test_three_forms_of_attachment_lists(api):
    c = api()
    ids = c.records()
    empty = c.records("io_account")
    status, one = c("GET", f"/io_showcase/{ids[0]}/attachments")
    assert status == 200 and [a["name"] for a in one] == ["file-0001.dat", "file-0002.dat"]
    assert c("GET", "/io_showcase/attachments", uuids=f"{ids[0]},{ids[2]},{ids[0]}") == (
        200,
        {ids[0]: one, ids[2]: list(c.files(ids[2]).values())},
    )
    assert set(c("GET", "/io_showcase/attachments")[1]) == set(ids)
    assert c("GET", f"/io_account/{empty[0]}/attachments") == (200, [])
    assert c("GET", "/io_account/attachments", uuids=",".join(empty)) == (
        200,
        {empty[0]: [], empty[1]: []},
    )
    assert c("GET", "/io_account/attachments") == (200, {})
    a = one[0]
    assert a["size"] == "5000" and re.fullmatch(r"\d{13}", a["updated_on"])
    assert a["type"] == "file" and UUID.fullmatch(a["uuid"]) and UUID.fullmatch(a["version_uuid"])
    assert link(a) == (f"{c.emulator.api}/document/{a['uuid']}/latest?{a['updated_on']}")
    assert link(a, "thumbnail_url").endswith(f"/document/{ICON}/latest?5.0.0.620")
    token = {"Authorization": "Bearer test-token"}
    assert c.raw("GET", link(a, "thumbnail_url"), headers=token)[1].startswith(b"GIF89a")


def test_one_bad_uuid_fails_the_whole_list(api):
    c = api()
    ids = c.records()
    for uuids in ("", "x", ids[0] + ",", ids[0] + ",x", "x," + ids[0]):
        status, answer = c("GET", "/io_showcase/attachments", uuids=uuids)
        assert status == 400, uuids
        assert answer == {
            "type": "missing_parameter_error",
            "message": "The uuids parameter contains an invalid UUID",
        }
    assert c("GET", "/io_showcase/attachments", uuids=f"{ids[0]},{NOWHERE}")[0] == 404
    assert c("GET", f"/io_showcase/{NOWHERE}/attachments")[0] == 404
    assert c("GET", "/io_showcase/x/attachments")[0] == 400
    assert c("GET", "/io_nothing/attachments")[0] == 400
    assert c("GET", "//attachments")[0] == 400
    c.emulator.change({"op": "delete_record", "collection": "io_showcase", "id": 1})
    assert c("GET", "/io_showcase/attachments", uuids=",".join(ids))[0] == 404
    assert set(c("GET", "/io_showcase/attachments")[1]) == set(ids[1:])


def test_ids_survive_a_restart_and_are_those_of_the_control_port(api):
    tree = {"io_showcase": {"Pump 7": {"a.txt": b"a", "b.txt": b"b"}, "Pump 8": {}}}
    seen = []
    for _ in range(2):
        c = api(tree=tree, generate=["io_other:2:1:10"])
        state = c.emulator.state()
        seen.append([r["remote_id"] for r in state["records"] + state["attachments"]])
        assert c.records() == [
            r["remote_id"] for r in state["records"] if r["collection"] == "io_showcase"
        ]
        listed = c.files(c.records()[0])
        seen[-1] += [listed[n]["version_uuid"] for n in sorted(listed)]
        shown = {a["name"]: a["remote_id"] for a in state["attachments"]}
        assert listed["a.txt"]["uuid"] == shown["a.txt"]
        assert len(c.records("io_other")) == 2
    # the times of the tree's files differ, and with them their versions
    assert seen[0][:-2] == seen[1][:-2] and len(set(seen[0])) == len(seen[0])


def test_numbers_are_strings_or_numbers(api):
    c = api(toggles={"numbers": "numbers"})
    a = next(iter(c.files(c.records()[0]).values()))
    assert a["size"] == 5000 and isinstance(a["updated_on"], int)


def test_links_vary(api):
    c = api()
    record = c.records()[0]

    def rels():
        return [each["rel"] for each in c.files(record)["file-0001.dat"]["links"]]

    assert rels() == ["url", "thumbnail_url"]
    c.toggle(links="without")
    assert rels() == ["url"]
    c.toggle(links="reversed")
    assert rels() == ["thumbnail_url", "url"]
    c.toggle(links_comma="off")
    status, answer = c("GET", f"/io_showcase/{record}/attachments")
    assert status == 200 and isinstance(answer, bytes) and b'"}{"rel"' in answer


def test_links_name_other_hosts(api):
    c = api()
    record = c.records()[0]
    port = urlsplit(c.emulator.api).port
    for value, host in (
        ("base", c.emulator.api),
        ("localhost:8080", "http://localhost:8080"),
        ("foreign", c.emulator.blob_host),
        ("http", "http://127.0.0.1"),
        ("https", f"https://127.0.0.1:{port}"),
    ):
        c.toggle(href_host=value)
        a = c.files(record)["file-0001.dat"]
        assert link(a).startswith(host + "/document/")
        token = {"Authorization": "Bearer test-token"}
        status, data = c.raw("GET", c.at_home(link(a)), headers=token)
        assert status == 200 and len(data) == 5000


def test_a_foreign_host_serves_anybody_and_notes_who_showed_a_token(api):
    c = api(toggles={"href_host": "foreign"})
    a = c.files(c.records()[0])["file-0001.dat"]
    assert c.raw("GET", link(a))[0] == 200
    assert c.get(a)[0] == 200
    seen = c.emulator.requests(port="blob")
    assert [r["authorization"] for r in seen] == [False, True]
    assert c.raw("GET", c.emulator.blob_host + "/v2/user")[0] == 404


def test_the_number_in_a_link_means_nothing(api):
    c = api()
    record = c.records()[0]
    for value, pattern in (("13", r"\?\d{13}$"), ("12", r"\?\d{12}$"), ("none", "latest$")):
        c.toggle(href_query=value)
        a = c.files(record)["file-0001.dat"]
        assert re.search(pattern, link(a))
        assert c.get(a)[0] == 200


def test_other_types_are_listed_on_request(api):
    c = api(toggles={"other_types": "on"})
    status, listed = c("GET", f"/io_showcase/{c.records()[0]}/attachments")
    assert [a["type"] for a in listed] == ["file", "file", "link"]
    assert c("GET", f"/io_account/{c.records('io_account')[0]}/attachments")[1] == []


# Bytes


def test_documents_are_served_in_ranges_or_whole(api):
    c = api()
    a = c.files(c.records()[0])["file-0001.dat"]
    whole = c.get(a)[1]
    assert len(whole) == 5000 and c.headers["ETag"] == f"\"{a['version_uuid']}\""
    assert c.get(a, Range="bytes=1000-1999") == (206, whole[1000:2000])
    assert c.headers["Content-Range"] == "bytes 1000-1999/5000"
    assert c.get(a, Range="bytes=5000-")[0] == 416
    assert (
        c.get(a, **{"If-None-Match": c.headers.get("ETag", f"\"{a['version_uuid']}\"")})[0] == 304
    )
    c.toggle(range="ignored")
    assert c.get(a, Range="bytes=1000-1999") == (200, whole)
    c.toggle(range="206", etag="absent")
    assert c.get(a, **{"If-Match": '"x"'})[0] == 412
    assert c.get(a, Range="bytes=0-0", **{"If-Range": '"x"'}) == (200, whole)
    assert "ETag" not in c.headers


def test_documents_may_need_refuse_or_ignore_a_token(api):
    c = api()
    a = c.files(c.records()[0])["file-0001.dat"]
    for value, without, with_token in (
        ("required", 401, 200),
        ("refused", 200, 400),
        ("none", 200, 200),
    ):
        c.toggle(document_auth=value)
        c.token = None
        assert c.get(a)[0] == without, value
        c.token = "test-token"
        assert c.get(a)[0] == with_token, value
    url = f"{c.emulator.api}/document/{NOWHERE}/latest"
    assert c.raw("GET", url)[0] == 404


def test_documents_may_redirect(api):
    c = api()
    a = c.files(c.records()[0])["file-0001.dat"]
    whole = c.get(a)[1]
    for value, host in (("same", c.emulator.api), ("foreign", c.emulator.blob_host)):
        c.toggle(redirect=value)
        assert c.get(a)[0] == 302
        where = c.headers["Location"]
        assert where == f"{host}/store/{a['uuid']}/{a['version_uuid']}"
        token = {"Authorization": "Bearer test-token"} if value == "same" else {}
        assert c.raw("GET", where, headers=token) == (200, whole)
        assert c.raw("GET", where)[0] == (401 if value == "same" else 200)


def test_old_versions_have_urls_on_request(api):
    c = api()
    record = c.records()[0]
    first = c.post(record, ("a", b"one"))[1][0]
    second = c.post(record, ("a", b"two"))[1][0]
    token = {"Authorization": "Bearer test-token"}
    url = f"{c.emulator.api}/document/{first['uuid']}/"
    assert c.raw("GET", url + first["version_uuid"], headers=token)[0] == 404
    c.toggle(version_urls="on")
    assert c.raw("GET", url + first["version_uuid"], headers=token) == (200, b"one")
    assert c.raw("GET", url + second["version_uuid"], headers=token) == (200, b"two")
    assert c.raw("GET", url + "latest", headers=token) == (200, b"two")
    assert c.raw("GET", url + NOWHERE, headers=token)[0] == 404


# Creating and replacing


def test_several_files_are_added_or_become_versions(api):
    c = api()
    record = c.records()[0]
    big = random_bytes(3 << 20)
    status, added = c.post(record, ("a b+ü.txt", b""), ("big", big), field="whatever")
    assert status == 200 and [a["name"] for a in added] == ["a b+ü.txt", "big"]
    assert [a["size"] for a in added] == ["0", str(len(big))]
    assert c.get(added[1]) == (200, big)
    before = c.files(record)
    status, changed = c.post(record, ("big", b"small"), ("new", b"n"))
    assert [a["name"] for a in changed] == ["big", "new"]
    assert changed[0]["uuid"] == before["big"]["uuid"]
    assert changed[0]["version_uuid"] != before["big"]["version_uuid"]
    assert changed[0]["updated_on"] >= before["big"]["updated_on"]
    assert c.files(record) == {**before, "big": changed[0], "new": changed[1]}
    assert c.get(changed[0])[1] == b"small"


def test_a_name_twice_in_one_request_makes_two_versions(api):
    c = api()
    record = c.records()[0]
    status, made = c.post(record, ("a", b"one"), ("a", b"two"))
    assert status == 200 and len(made) == 1 and c.get(made[0])[1] == b"two"
    assert c.delete(record, "a", "latest")[0] == 200
    assert c.get(c.files(record)["a"])[1] == b"one"
    c.toggle(replace_uuid="changes")
    status, made = c.post(record, ("a", b"three"), ("a", b"four"))
    assert status == 200 and [a["size"] for a in made] == ["4"]


def test_what_is_no_upload_is_400(api):
    c = api()
    record = c.records()[0]
    assert c.post(record)[0] == 400
    assert c("POST", f"/io_showcase/{record}/attachments", {"a": 1})[0] == 400
    assert c.post(NOWHERE, ("a", b"x"))[0] == 404
    assert c.post("x", ("a", b"x"))[0] == 400
    assert c.post(record, ("a", b"x"), obj="io_nothing")[0] == 400


def test_a_document_id_makes_a_version_whose_name_follows_or_stays(api):
    c = api()
    record, other = c.records()[:2]
    a = c.files(record)["file-0001.dat"]
    for value, name in (("follows", "renamed"), ("stays", "file-0001.dat")):
        c.toggle(rename_by_document_id=value)
        status, made = c.post(record, ("renamed", value.encode()), document_id=a["uuid"])
        assert status == 200 and [m["name"] for m in made] == [name]
        assert made[0]["uuid"] == a["uuid"] and made[0]["version_uuid"] != a["version_uuid"]
        assert c.get(made[0])[1] == value.encode()
        c.toggle(rename_by_document_id="follows")
        assert c.post(record, ("file-0001.dat", b"z"), document_id=a["uuid"])[0] == 200
    assert c.post(record, ("file-0002.dat", b"z"), document_id=a["uuid"])[0] == 400
    assert c.post(record, ("a", b"1"), ("b", b"2"), document_id=a["uuid"])[0] == 400
    assert c.post(other, ("a", b"1"), document_id=a["uuid"])[0] == 404
    assert c.post(record, ("a", b"1"), document_id=NOWHERE)[0] == 404
    assert c.post(record, ("a", b"1"), document_id="x")[0] == 400
    assert set(c.files(record)) == {"file-0001.dat", "file-0002.dat"}


def test_a_replaced_file_may_get_another_uuid(api):
    c = api(toggles={"replace_uuid": "changes"})
    record = c.records()[0]
    first = c.post(record, ("a", b"one"))[1][0]
    second = c.post(record, ("a", b"two"))[1][0]
    third = c.post(record, ("a", b"three"), document_id=second["uuid"])[1][0]
    assert len({first["uuid"], second["uuid"], third["uuid"]}) == 3
    assert c.get(first)[0] == 404 and c.get(third) == (200, b"three")
    c.delete(record, "a", "latest")
    assert c.files(record)["a"]["version_uuid"] == second["version_uuid"]


def test_the_reply_may_list_everything_or_be_reversed(api):
    c = api()
    record = c.records()[0]
    c.toggle(post_reply="reversed")
    assert [a["name"] for a in c.post(record, ("x", b"1"), ("y", b"2"))[1]] == ["y", "x"]
    c.toggle(post_reply="all")
    names = [a["name"] for a in c.post(record, ("x", b"1"))[1]]
    assert names == ["file-0001.dat", "file-0002.dat", "x", "y"]


def test_names_differ_by_case_or_not(api):
    c = api()
    record = c.records()[0]
    c.post(record, ("Ünï.TXT", b"1"))
    assert c.delete(record, "ÜNÏ.txt")[0] == 404
    assert c.post(record, ("ünï.txt", b"22"))[1][0]["name"] == "ünï.txt"
    assert c.delete(record, "ünï.txt")[0] == 200
    c.toggle(name_case="insensitive")
    made = c.post(record, ("ÜNÏ.txt", b"333"))[1]
    assert [(a["name"], a["size"]) for a in made] == [("Ünï.TXT", "3")]
    assert c.delete(record, "ünï.txt")[0] == 200
    assert set(c.files(record)) == {"file-0001.dat", "file-0002.dat"}


def test_a_directory_whose_names_differ_by_case_only_becomes_one_file_of_two_versions(api):
    tree = {"io_showcase": {"Pump 7": {"A": b"one", "a": b"two"}}}
    c = api(tree=tree, generate=[], toggles={"name_case": "insensitive"})
    record = c.records()[0]
    assert c.get(c.files(record)["A"])[1] == b"two"
    c.delete(record, "a", "latest")
    assert c.get(c.files(record)["A"])[1] == b"one"


def test_limits_of_uploads(api):
    c = api()
    record = c.records()[0]
    for status in (413, 400):
        c.toggle(max_bytes=10, max_bytes_status=status)
        assert c.post(record, ("ok", b"x"), ("a", b"x" * 11))[0] == status
    assert c.post(record, ("a", b"x" * 10))[0] == 200
    c.toggle(empty_files="refused", extension_rule="exe", max_bytes="off")
    assert c.post(record, ("a", b""))[0] == 400
    assert c.post(record, ("a.EXE", b"x"))[0] == 400
    assert "ok" not in c.files(record)


def test_throttled_calls_are_429(api):
    for value in ("retry-after", "absent"):
        c = api(toggles={"throttle": 3, "throttle_headers": value})
        assert [c("GET", "/user")[0] for _ in range(4)] == [200, 200, 200, 429]
        assert ("Retry-After" in c.headers) == (value == "retry-after")
        c.emulator.clock(61)
        assert c("GET", "/user")[0] == 200


def test_long_addresses_may_be_refused(api):
    c = api(toggles={"uri_max": 500})
    ids = c.records()
    assert c("GET", "/io_showcase/attachments", uuids=",".join(ids))[0] == 200
    assert c("GET", "/io_showcase/attachments", uuids=",".join(ids * 5))[0] == 414


def test_errors_come_in_three_forms(api):
    c = api()
    text = "The object identifier is not specified or is invalid"
    wrapped = {"type": "missing_parameter_error", "message": text}
    assert c("GET", "/io_nothing") == (400, wrapped)
    c.toggle(error_form="nested")
    assert c("GET", "/io_nothing") == (400, {"error": wrapped})
    c.toggle(error_form="text")
    assert c("GET", "/io_nothing") == (400, text.encode())
    assert c.headers["Content-Type"].startswith("text/plain")


# Deleting


def test_deleting_needs_names_and_version(api):
    c = api()
    record = c.records()[0]
    path = f"/io_showcase/{record}/attachments"
    for query in (
        {},
        {"names": "file-0001.dat"},
        {"version": "all"},
        {"names": "", "version": "all"},
        {"names": "file-0001.dat", "version": "newest"},
    ):
        assert c("DELETE", path, **query)[0] == 400, query
    assert c.delete(record, "file-0001.dat,nothing")[0] == 404
    assert c.delete(NOWHERE, "a")[0] == 404
    assert len(c.files(record)) == 2
    assert c.delete(record, "file-0001.dat,file-0002.dat") == (200, b"")
    assert c.files(record) == {}


def test_a_404_may_have_deleted_the_others(api):
    c = api(toggles={"delete_partial": "on"})
    record = c.records()[0]
    assert c.delete(record, "nothing,file-0001.dat")[0] == 404
    assert set(c.files(record)) == {"file-0002.dat"}


def test_deleting_the_latest_version_brings_the_one_before_back(api):
    c = api()
    record = c.records()[0]
    before = c.files(record)["file-0001.dat"]
    whole = c.get(before)[1]
    versions = [before] + [c.post(record, ("file-0001.dat", b"x" * i))[1][0] for i in (1, 2)]
    for older in versions[1::-1]:
        assert c.delete(record, "file-0001.dat", "latest")[0] == 200
        assert c.files(record)["file-0001.dat"] == older
    assert c.get(before)[1] == whole
    assert c.delete(record, "file-0001.dat", "latest")[0] == 200
    assert "file-0001.dat" not in c.files(record) and c.get(before)[0] == 404
    c.toggle(restored_time="now")
    first = c.post(record, ("a", b"1"))[1][0]
    c.post(record, ("a", b"2"))
    time.sleep(0.002)
    c.delete(record, "a", "latest")
    again = c.files(record)["a"]
    assert again["version_uuid"] == first["version_uuid"]
    assert again["updated_on"] > first["updated_on"]


def test_names_are_split_at_commas(api):
    c = api()
    record = c.records()[0]
    path = f"/io_showcase/{record}/attachments"
    c.post(record, ("a,b", b"x"))
    assert c("DELETE", f"{path}?names={quote('a,b')}&version=all")[0] == 404
    c.toggle(comma_escape="on")
    assert c("DELETE", f"{path}?names=a,b&version=all")[0] == 404
    assert c("DELETE", f"{path}?names=a%2Cb,file-0001.dat&version=all")[0] == 200
    assert set(c.files(record)) == {"file-0002.dat"}


def test_the_path_of_delete_is_plural_singular_or_both(api):
    c = api()
    record = c.records()[0]
    for value, plural, singular in (
        ("plural", True, False),
        ("singular", False, True),
        ("both", True, True),
    ):
        for other in (404, 405):
            c.toggle(delete_path=value, delete_path_other=other)
            for form, fine in (("attachments", plural), ("attachment", singular)):
                c.post(record, ("a", b"x"))
                assert c.delete(record, "a", form=form)[0] == (200 if fine else other)
            assert c.files(record) and c.post(record, ("b", b"y"))[0] == 200
    assert c("GET", f"/io_showcase/{record}/attachment")[0] == 405


def test_the_answer_of_delete_varies(api):
    c = api()
    record = c.records()[0]
    for status in (200, 204, 202):
        for reply in ("empty", "list"):
            c.toggle(delete_status=status, delete_reply=reply)
            c.post(record, ("a", b"x"))
            answer = c.delete(record, "a")
            assert answer[0] == status
            if reply == "list" and status != 204:
                assert len(answer[1]) == 2
            else:
                assert answer[1] == b""


def test_a_write_may_touch_the_record(api):
    c = api()
    record = c.records()[0]
    for value in ("off", "on"):
        c.toggle(touch_record=value)
        before = c("GET", f"/io_showcase/{record}")[1]["io_updated_on"]
        c.post(record, ("a", b"x"))
        after = c("GET", f"/io_showcase/{record}")[1]["io_updated_on"]
        assert (before != after) == (value == "on")


# Other clients, faults, speed


def test_other_clients_make_versions_and_new_files(api):
    c = api()
    record, other = c.records()[:2]
    before = c.files(record)
    ids = {a["remote_id"]: a["id"] for a in c.emulator.attachments()}

    def change(**op):
        ident = c.emulator.change(op)[0]
        return next(a["remote_id"] for a in c.emulator.attachments() if a["id"] == ident)

    one = before["file-0001.dat"]
    assert change(op="replace", id=ids[one["uuid"]], text="new") == one["uuid"]
    now = c.files(record)["file-0001.dat"]
    assert now["version_uuid"] != one["version_uuid"] and c.get(now)[1] == b"new"
    added = {"op": "add", "collection": "io_showcase", "record": 1}
    assert change(**added, name="file-0001.dat", text="newer") == one["uuid"]
    assert c.get(now)[1] == b"newer"
    for text in (b"new", None):
        c.delete(record, "file-0001.dat", "latest")
        assert text is None or c.get(now)[1] == text
    assert c.files(record)["file-0001.dat"] == one
    fresh = change(op="rename", id=ids[one["uuid"]], name="other")
    assert fresh != one["uuid"] and c.files(record)["other"]["uuid"] == fresh
    assert c.get(one)[0] == 404
    renamed = next(a["id"] for a in c.emulator.attachments() if a["remote_id"] == fresh)
    two = before["file-0002.dat"]
    assert change(op="rename", id=renamed, name="file-0002.dat") == two["uuid"]
    assert set(c.files(record)) == {"file-0002.dat"}
    there = c.files(other)["file-0002.dat"]
    moved = {"op": "move", "id": ids[two["uuid"]], "collection": "io_showcase", "record": 2}
    assert change(**moved) == there["uuid"]
    assert c.files(record) == {}
    c.emulator.change({"op": "add", "collection": "io_new", "record": "x", "name": "y", "text": ""})
    assert list(c.files(c.records("io_new")[0], "io_new")) == ["y"]


def test_the_log_shows_endpoints_without_ids(api):
    c = api()
    record = c.records()[0]
    a = c.post(record, ("a", b"x"))[1][0]
    c.get(a)
    c.delete(record, "a")
    seen = set(c.emulator.summary()["by_endpoint"])
    assert {
        "GET /v2/io_showcase",
        "POST /v2/io_showcase/{id}/attachments",
        "GET /document/{id}/latest",
        "DELETE /v2/io_showcase/{id}/attachments",
    } <= seen


def test_many_attachments_are_listed_at_once(api):
    c = api(generate=["io_showcase:1000:10:4096"])
    started = time.monotonic()
    status, listed = c("GET", "/io_showcase/attachments")
    assert status == 200 and len(listed) == 1000
    assert all(len(files) == 10 for files in listed.values())
    print(f"{time.monotonic() - started:.3f} s")
    ids = {a["uuid"] for files in listed.values() for a in files}
    assert len(ids) == 10000
