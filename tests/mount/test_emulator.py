# SPDX-License-Identifier: MIT
"""
The emulator itself, without a mount: the boxes and toggles of reference/perscom.md, section 13,
over plain HTTP. What the other tests find out about attachfs is worth as much as this.
"""

import http.client
import json
import random
import time
from urllib.parse import urlsplit

import pytest

from harness import PERSCOM, random_bytes

KIB = random_bytes(1024, "kib")
EVENT = "App\\Models\\Event"
USER = "App\\Models\\User"


class Client:
    """An API client that checks nothing; .headers and .body are those of the last answer."""

    def __init__(self, emulator):
        self.emulator = emulator
        self.toggle = emulator.toggle
        self.headers = {}
        self.body = b""

    def raw(self, method, url, body=None, headers=None):
        where = urlsplit(url)
        c = http.client.HTTPConnection(where.hostname, where.port, timeout=30)
        try:
            target = where.path + (f"?{where.query}" if where.query else "")
            c.request(method, target, body, headers or {})
            answer = c.getresponse()
            self.body = answer.read()
            self.headers = dict(answer.getheaders())
            return answer.status, self.body
        finally:
            c.close()

    def __call__(self, method, path, body=None, headers=None, token="test-token"):
        """Status and decoded body; @path below the base, @body an object to be sent as JSON."""
        sent = {"Accept": "application/json"}
        if token:
            sent["Authorization"] = f"Bearer {token}"
        if body is not None and not isinstance(body, bytes):
            body = json.dumps(body).encode()
            sent["Content-Type"] = "application/json"
        sent.update(headers or {})
        status, data = self.raw(method, self.emulator.api + path, body, sent)
        try:
            return status, json.loads(data)
        except ValueError:
            return status, data

    def form(self, method, path, fields, file=None, filename="x.bin", headers=None):
        out = b""
        for key, value in fields.items():
            out += (
                f'--XbX\r\nContent-Disposition: form-data; name="{key}"\r\n\r\n{value}\r\n'.encode()
            )
        if file is not None:
            out += (
                f'--XbX\r\nContent-Disposition: form-data; name="file"; filename="{filename}"\r\n'
                "Content-Type: application/octet-stream\r\n\r\n"
            ).encode()
            out += file + b"\r\n"
        sent = {"Content-Type": "multipart/form-data; boundary=XbX", **(headers or {})}
        return self(method, path, out + b"--XbX--\r\n", sent)

    def upload(self, data=KIB, filename="x.bin", **fields):
        status, answer = self.form("POST", "/attachments", {"name": "x", **fields}, data, filename)
        assert status == 201, answer
        return answer["data"]

    def show(self, ident):
        status, answer = self("GET", f"/attachments/{ident}")
        assert status == 200, answer
        return answer["data"]

    def url(self, ident):
        return self.show(ident)["attachment_url"]

    def ids(self, path):
        return [row["id"] for row in self("GET", path)[1]["data"]]


@pytest.fixture
def system():
    return PERSCOM


@pytest.fixture
def api(emulator):
    """3 users with 2 files of 5,000 bytes (ids 1-6), 20 events with 3 (ids 7-66)."""

    def make(**kwargs):
        return Client(emulator(generate=["users:3:2:5000", "events:20:3:4096"], **kwargs))

    return make


# Routes, envelopes, searches.


def test_lists_come_in_pages_whose_links_lose_the_limit(api):
    c = api()
    status, answer = c("GET", "/users?limit=2")
    assert status == 200 and len(answer["data"]) == 2 and answer["meta"]["total"] == 3
    assert answer["links"]["next"] == c.emulator.api + "/users?page=2"
    assert b"\\/" in c.body and b'.000000Z"' in c.body
    assert c("GET", "/attachments?limit=100000")[1]["meta"]["total"] == 66
    meta = c("GET", "/attachments?limit=0&page=-1")[1]["meta"]
    assert (meta["per_page"], meta["current_page"]) == (15, 1)
    answer = c("GET", "/attachments?limit=4&page=9")[1]
    assert answer["data"][0]["id"] == 33
    assert [link["label"] for link in answer["meta"]["links"]] == (
        "&laquo; Previous|1|2|...|6|7|8|9|10|11|12|...|16|17|Next &raquo;".split("|")
    )
    status, answer = c("GET", "/attachments?limit=4&page=99")
    assert status == 200 and answer["data"] == [] and answer["meta"]["from"] is None


def test_every_answer_has_the_headers_of_the_real_server(api):
    c = api()
    c("GET", "/users")
    for name in ("Surrogate-Control", "Cache-Control", "Vary", "X-Perscom-Request-Id"):
        assert name in c.headers
    assert "X-Perscom-Trace-Id" in c.headers and "X-RateLimit-Limit" not in c.headers


def test_searches_filter_without_case_and_sort(api):
    c = api()
    search = "/attachments/search?limit=1000"
    for model in (EVENT, EVENT.lower()):
        owner = [
            {"field": "model_type", "operator": "=", "value": model},
            {"field": "model_id", "operator": "=", "value": 7},
        ]
        sort = [{"field": "id", "direction": "desc"}]
        found = c("POST", search, {"filters": owner, "sort": sort})[1]["data"]
        assert [a["id"] for a in found] == [27, 26, 25]
    some = [{"field": "id", "operator": "in", "value": [1, 3, 5]}]
    assert [a["id"] for a in c("POST", search, {"filters": some})[1]["data"]] == [1, 3, 5]
    mixed = [
        {"field": "id", "operator": "<", "value": 3},
        {"type": "or", "field": "id", "operator": "=", "value": 9},
        {"type": "and", "nested": [{"field": "id", "operator": "=", "value": 9}]},
    ]
    assert [a["id"] for a in c("POST", search, {"filters": mixed})[1]["data"]] == [1, 2, 9]
    deep = [{"nested": [{"nested": [{"field": "id", "value": 1}]}]}]
    assert c("POST", search, {"filters": deep})[0] == 422
    like = [{"field": "name", "operator": "like", "value": "FILE-000_.%"}]
    assert c("POST", search, {"filters": like})[1]["meta"]["total"] == 66
    assert c("POST", "/users/search", b"")[0] == 200
    assert c("POST", "/events/search", {"search": {"value": "x"}})[0] == 500


def test_fields_and_includes_off_the_whitelist_are_422_but_filters_on_get_are_ignored(api):
    c = api()
    status, answer = c("POST", "/attachments/search", {"filters": [{"field": "bogus", "value": 1}]})
    assert status == 422 and "not whitelisted" in answer["error"]["message"]
    assert answer["error"]["errors"]
    assert c("GET", "/attachments?filters[0][field]=bogus")[0] == 200
    for method in ("GET", "POST"):
        assert c(method, "/attachments?include=foo", None if method == "GET" else {})[0] == 422
    assert c("GET", "/attachments/7?include=model")[1]["data"]["model"]["id"] == 1
    events = c("POST", "/events/search?include=attachments&limit=1000", {})[1]["data"]
    assert len(events) == 20 and all(len(e["attachments"]) == 3 for e in events)


def test_only_users_have_nested_attachments_which_cannot_be_searched_or_attached(api):
    c = api()
    assert c.ids("/users/1/attachments") == [1, 2]
    assert c("GET", "/users/99/attachments")[0] == 404
    assert c("GET", "/users/1/attachments?include=model")[0] == 422
    status, answer = c("POST", "/users/1/attachments/search", {})
    assert status == 500 and answer["error"]["type"] == "ErrorException"
    assert c("GET", "/events/1/attachments")[0] == 404
    status, page = c("GET", "/events/1/attachments", headers={"Accept": "*/*"})
    assert status == 404 and b"<html" in page
    for method, verb, body in (
        ("POST", "attach", {"resources": [2]}),
        ("DELETE", "detach", {"resources": [2]}),
        ("PATCH", "sync", {"resources": [1]}),
        ("PATCH", "toggle", {"resources": [1]}),
        ("PATCH", "2/pivot", {"pivot": {"a": 1}}),
    ):
        status, answer = c(method, f"/users/1/attachments/{verb}", body)
        assert status == 500 and answer["error"]["type"] == "BadMethodCallException", verb


OF_USERS = ["tasks"] + [
    f"{kind}-records"
    for kind in ("assignment", "award", "combat", "qualification", "rank", "service", "training")
]


@pytest.mark.parametrize("collection", OF_USERS)
def test_tasks_and_records_are_found_below_their_user_too(emulator, collection):
    c = Client(emulator(generate=["users:3:0:1024", f"{collection}:7:1:1024"]))
    everything = set(c.ids(f"/{collection}"))
    shares = [c.ids(f"/users/{user}/{collection}") for user in (1, 2, 3)]
    assert sorted(sum(shares, [])) == sorted(everything) and all(shares)
    mine, foreign = shares[0][0], shares[1][0]
    path = f"/users/1/{collection}"
    status, answer = c("GET", f"{path}/{mine}?include=attachments")
    assert status == 200 and len(answer["data"]["attachments"]) == 1
    if collection != "tasks":
        assert answer["data"]["user_id"] == 1
        owned = {"filters": [{"field": "user_id", "value": 1}], "limit": 100}
        assert c("POST", f"/{collection}/search", owned)[1]["meta"]["total"] == len(shares[0])
    assert c("GET", f"{path}/{foreign}")[0] == 404
    status, answer = c("GET", path + "?limit=1")
    assert answer["meta"]["total"] == len(shares[0]) and len(answer["data"]) == 1
    assert answer["links"]["next"] == f"{c.emulator.api}{path}?page=2"
    search = {"filters": [{"field": "id", "operator": "in", "value": [mine, foreign]}]}
    assert [r["id"] for r in c("POST", path + "/search", search)[1]["data"]] == [mine]
    for gone in ("", f"/{mine}"):
        assert c("GET", f"/users/99/{collection}{gone}")[0] == 404
    assert c("POST", f"/users/99/{collection}/search", {})[0] == 404
    status, answer = c("POST", path, {"title": "t", "text": "t"})
    assert status == 201 and answer["data"]["id"] in c.ids(path)
    assert c("PATCH", f"{path}/{foreign}", {})[0] == 404
    assert c("DELETE", f"{path}/{mine}")[0] == 200 and mine not in c.ids(f"/{collection}")


def test_records_of_a_server_without_users_are_nobodys(emulator):
    c = Client(emulator(generate=["rank-records:1:0:1024"]))
    assert c("GET", "/rank-records/1")[1]["data"]["user_id"] is None


# Uploads.


def test_creating_takes_1024_to_10240000_bytes(api):
    c = api()
    status, answer = c.form("POST", "/attachments", {"name": "x"}, KIB[:1023])
    assert status == 422
    assert answer["error"]["message"] == "The file field must be at least 1 kilobytes."
    made = c.upload(KIB)
    assert c.emulator.blob(made["id"]) == KIB and made["label"] == f"Attachment: {made['id']}"
    assert made["model_id"] is None and len(made["path"]) == 44
    big = b"a" * 10_240_001
    made = c.upload(big[:-1])
    assert made["path"].endswith(".txt") and len(c.emulator.blob(made["id"])) == 10_240_000
    assert c.form("POST", "/attachments", {"name": "x"}, big)[0] == 422


def test_names_are_trimmed_and_file_names_cut(api):
    c = api()
    made = c.upload(
        filename='a\\"b\\\\c d.txt',
        name="\u00a0 Range card\u200b\ufeff ",
        model_type=EVENT,
        model_id=7,
    )
    assert (made["name"], made["filename"], made["model_id"]) == ("Range card", "c d.txt", 7)
    made = c.upload(filename="ü😀 x%22 .txt ", name="é" * 255)
    assert made["filename"] == "ü😀 x%22 .txt " and b"\\ud83d\\ude00" in c.body
    for name in (" \u00a0 ", "n" * 256):
        status, answer = c.form("POST", "/attachments", {"name": name}, KIB)
        assert status == 422 and "name" in answer["error"]["errors"]
    status, answer = c.form("POST", "/attachments", {"name": "x"}, KIB, "f" * 256)
    assert status == 500 and answer["error"]["type"] == "QueryException"
    status, answer = c.form("POST", "/attachments", {"name": "x"}, KIB, "")
    assert answer["error"]["errors"]["file"] == ["The file field is required."]
    status, answer = c.form("POST", "/attachments", {})
    assert answer["error"]["message"] == "The name field is required. (and 1 more error)"
    status, answer = c("POST", "/attachments", {"name": "x", "file": "abc"})
    assert answer["error"]["errors"]["file"] == ["The file field must be a file."]


def test_method_can_be_overridden_in_field_query_and_header_and_each_upload_has_a_new_path(api):
    c = api()
    first = c.upload()
    path = f"/attachments/{first['id']}"
    paths = {first["path"]}
    for fields, headers, query in (
        ({"_method": "PATCH"}, {}, ""),
        ({}, {"X-HTTP-Method-Override": "patch"}, ""),
        ({}, {}, "?_method=PATCH"),
    ):
        for data in (b"", b"abc", random_bytes(2 << 20, query), b"%PDF-1.4 x"):
            status, answer = c.form("POST", path + query, fields, data, "r.x", headers)
            assert status == 200, answer
            made = answer["data"]
            assert made["path"] not in paths and made["id"] == first["id"]
            assert ("." in made["path"]) == (len(data) > 0)
            paths.add(made["path"])
            assert c.raw("GET", made["attachment_url"]) == (200, data)
    assert made["path"].endswith(".pdf")
    assert c.raw("GET", first["attachment_url"]) == (200, KIB), "the old blob stays"


def test_multipart_of_a_real_patch_is_ignored_or_parsed(api):
    c = api()
    before = c.show(1)
    assert c.form("PATCH", "/attachments/1", {"name": "new"}, b"x")[1]["data"] == before
    c.toggle(patch_multipart="parsed")
    after = c.form("PATCH", "/attachments/1", {"name": "new"}, b"x")[1]["data"]
    assert after["path"] != before["path"] and after["name"] == "new"


def test_multipart_bodies_survive_near_boundaries_and_any_chunks(api):
    c = api()
    rng = random.Random(5)
    where = urlsplit(c.emulator.api)
    tails = [b"", b"\r", b"\n", b"\r\n", b"\r\n--XbYY", b"\r\n--Xb", b"--XbX", b"\r\n-"]
    for tail in tails:
        data = b"\r\n--XbQ" * rng.choice([1, 300]) + tail
        body = (
            b'preamble\r\n--XbX\r\nContent-Disposition: form-data; name="_method"\r\n\r\nPATCH\r\n'
            b"--XbX\r\nContent-Type: x/y\r\ncontent-disposition:form-data;name=file;"
            b'filename="a;b\\"c.bin"\r\n\r\n' + data + b"\r\n--XbX--\r\nepilogue"
        )
        pieces = []
        while body:
            n = rng.choice([1, 2, 3, 7, 50, 2000])
            pieces.append(body[:n])
            body = body[n:]
        h = http.client.HTTPConnection(where.hostname, where.port, timeout=30)
        headers = {
            "Authorization": "Bearer test-token",
            "Content-Type": 'multipart/form-data; boundary="XbX"',
            "Transfer-Encoding": "chunked",
        }
        h.request("POST", "/v2/attachments/1", iter(pieces), headers, encode_chunked=True)
        answer = h.getresponse()
        row = json.loads(answer.read())
        h.close()
        assert answer.status == 200 and row["data"]["filename"] == 'a;b"c.bin'
        assert c.emulator.blob(1) == data, tail


def test_hostile_multipart_is_refused_and_survived(api):
    c = api()
    for kind in ("", "; boundary=", "; boundary=x"):
        for body in (
            b"",
            b"--x",
            b"--x\r\n\r\n\r\n--x--",
            b'--x\r\nContent-Disposition: form-data; name="file"; filename="u',
            b"\0" * 100_000,
            b"--x\r\n" + b"A" * 100_000,
            b'--x\r\nContent-Disposition: form-data; name="a[[]"\r\n\r\nv\r\n--x--',
        ):
            headers = {"Content-Type": "multipart/form-data" + kind}
            assert c("POST", "/attachments", body, headers)[0] in (422, 500)


# Changing and deleting.


def test_patching_is_lenient_and_moves_but_a_nested_move_is_404(api):
    c = api()
    status, answer = c(
        "PATCH",
        "/attachments/1",
        {
            "filename": "r (2).txt",
            "model_id": 3,
            "updated_at": "2026-03-02T10:00:00+02:00",
            "no": 1,
        },
    )
    assert status == 200 and answer["data"]["model_id"] == 3
    assert answer["data"]["updated_at"] == "2026-03-02T10:00:00.000000Z"
    assert 1 in c.ids("/users/3/attachments")
    for body in (b"{}", b"{bad", b""):
        assert c("PATCH", "/attachments/1", body, {"Content-Type": "application/json"})[0] == 200
    assert c("PATCH", "/attachments/1", {"name": ""})[0] == 422
    assert c("PATCH", "/users/3/attachments/1", {"model_id": 1})[0] == 404
    assert c("GET", "/users/3/attachments/1")[0] == 200, "rolled back"
    assert c("GET", "/users/1/attachments/1")[0] == 404
    assert c("PUT", "/attachments/1", {"name": "put"})[1]["data"]["name"] == "put"
    assert c("PUT", "/attachments", {})[0] == 405


def test_deleting_one_row_takes_the_bytes_from_all_that_share_its_path(api):
    c = api()
    status, answer = c("PATCH", "/attachments/1", {"path": c.show(2)["path"]})
    url = answer["data"]["attachment_url"]
    assert c.raw("GET", url)[0] == 200
    assert c("DELETE", "/attachments/2")[0] == 200
    assert c.raw("GET", url)[0] == 404 and c("GET", "/attachments/1")[0] == 200
    assert c("DELETE", "/attachments/2")[0] == 404


def test_batches_skip_what_is_gone_and_answer_in_the_order_of_the_database(api):
    c = api()
    batch = "/attachments/batch"
    rows = {"5": {"name": "B5"}, "2": {"name": "B2"}, "999": {"name": "gone"}}
    status, answer = c("PATCH", batch, {"resources": rows})
    assert status == 200 and [a["id"] for a in answer["data"]] == [2, 5]
    assert c("PATCH", "/users/1" + batch, {"resources": {"3": {"name": "no"}}})[1]["data"] == []
    rows = {"2": {"name": "ok"}, "5": {"name": "x" * 300}}
    status, answer = c("PATCH", batch, {"resources": rows})
    assert status == 422 and "resources.5.name" in answer["error"]["errors"]
    assert c.show(2)["name"] == "B2", "all or nothing"
    for rows in ({"2": {}}, {"2": {"foo": 1}}, {"5": {"name": "n"}, "2": {}}):
        assert c("PATCH", batch, {"resources": rows}) == (500, {"message": "Server Error"})
    for body in ({}, {"resources": {}}, {"resources": []}):
        assert c("PATCH", batch, body)[0] == 422 and c("POST", batch, body)[0] == 422
        assert c("DELETE", batch, body) == (200, {"data": []})
    assert c("DELETE", batch) == (200, {"data": []})
    assert c("PATCH", "/users/99" + batch, {"resources": {"1": {"name": "x"}}})[0] == 404
    deleted = c("DELETE", batch, {"resources": [6, 4, 999]})[1]["data"]
    assert [a["id"] for a in deleted] == [4, 6]


def test_a_batch_create_shares_the_top_level_file_before_2_10(api):
    c = api()
    fields = {"resources[0][name]": "s1", "resources[1][name]": "s2"}
    one, two = c.form("POST", "/attachments/batch", fields, KIB)[1]["data"]
    assert one["path"] == two["path"]
    c.toggle(era="2.10")
    assert c.form("POST", "/attachments/batch", fields, KIB)[0] == 500


def test_events_take_fields_but_no_dates_on_patch(api):
    c = api()
    rows = {"7": {"name": "Live fire", "location": "Bend", "all_day": False}}
    status, answer = c("PATCH", "/events/batch?include=attachments", {"resources": rows})
    assert status == 200 and len(answer["data"][0]["attachments"]) == 3
    assert (answer["data"][0]["name"], answer["data"][0]["label"]) == ("Live fire", "Event: 7")
    status, answer = c("PATCH", "/events/7", {"starts": "2026-01-01"})
    assert status == 500 and answer["error"]["type"] == "BadMethodCallException"
    made = {"name": "N", "starts": "2026-01-01T10:00:00Z", "all_day": True}
    status, answer = c("POST", "/events", made)
    assert status == 201 and answer["data"]["starts"] == "2026-01-01"
    assert c("PATCH", "/events/7", {"notifications_interval": ["pt0m"]})[0] == 422
    assert c("PATCH", "/events/7", {"notifications_interval": "pt0m"})[0] == 200
    assert c("PATCH", "/events/7", {"author_id": 77})[0] == 422
    assert c("DELETE", "/events/9")[0] == 200 and c("GET", "/events/9")[0] == 404
    orphans = [{"field": "model_type", "value": EVENT}, {"field": "model_id", "value": 9}]
    assert c("POST", "/attachments/search", {"filters": orphans})[1]["meta"]["total"] == 3


# Refusals.


def test_wrong_credentials_are_401_and_missing_scopes_403(api):
    c = api(tokens=["test-token", "ro=view:*", "att=view:attachment"])
    assert c("GET", "/users", token="bad")[0] == 401
    assert c("GET", "/users", token=None)[0] == 401
    assert c("GET", "/users?apikey=test-token", token=None)[0] == 200
    assert c("POST", "/users", {}, token="ro")[0] == 403
    assert c("GET", "/users", token="att")[0] == 403
    assert c("GET", "/users/1/attachments", token="att")[0] == 403
    assert c("POST", "/attachments/search", {}, token="att")[0] == 200


def test_another_tenant_is_401_unless_there_is_no_tenancy(api):
    c = api()
    assert c("GET", "/users", headers={"X-Perscom-Id": "7"})[0] == 401
    assert c("GET", "/users", headers={"X-Perscom-Id": "42"})[0] == 200
    c.toggle(tenant_header="required")
    assert c("GET", "/users")[0] == 401
    c.toggle(tenancy="off")
    assert c("GET", "/users", headers={"X-Perscom-Id": "7"})[0] == 200


def test_a_lapsed_subscription_is_402_and_maintenance_503(api):
    c = api(toggles={"subscription": "lapsed"})
    assert c("GET", "/users")[0] == 402
    c.toggle(subscription="ok", maintenance="on")
    assert c("GET", "/users")[0] == 503


def test_bodies_above_the_limit_are_413_in_json_or_html(api):
    c = api(toggles={"max_body": "1000"})
    status, answer = c("POST", "/attachments/search", b"x" * 1001)
    assert status == 413 and answer["error"]["type"] == "PostTooLargeException"
    c.toggle(max_body_form="html")
    status, page = c("POST", "/attachments/search", b"x" * 1001)
    assert status == 413 and b"<html" in page
    c.toggle(max_body=0, upload_max=2000)
    assert c.form("POST", "/attachments", {"name": "x"}, KIB)[0] == 201
    status, answer = c.form("POST", "/attachments", {"name": "x"}, KIB * 2)
    assert status == 422 and "failed to upload" in answer["error"]["message"]


def test_release_2_3_soft_deletes_and_lists_no_errors(api):
    c = api(toggles={"era": "2.3"})
    assert c.show(2)["deleted_at"] is None
    status, answer = c("POST", "/attachments", {})
    assert status == 422 and "errors" not in answer["error"]
    assert c("DELETE", "/attachments/2")[1]["data"]["deleted_at"]
    assert c("GET", "/attachments/2")[0] == 404
    assert c("GET", "/training-records")[0] == 404
    c.toggle(era="2.9")
    assert c("GET", "/training-records")[0] == 200
    assert "errors" in c("POST", "/attachments", {})[1]["error"]
    assert "deleted_at" not in c.show(1)


def test_an_unguarded_server_stumbles_over_unknown_fields(api):
    c = api()
    assert c("PATCH", "/events/7", {"registrations_enabled": 1})[0] == 200
    c.toggle(unguarded="on")
    assert c("PATCH", "/events/7", {"registrations_enabled": 1})[0] == 500
    assert c("PATCH", "/attachments/2", {"foo": 1})[0] == 500
    assert c("PATCH", "/attachments/2", {"name": "f"})[0] == 200


def test_page_keys_in_links_can_be_had(api):
    c = api()
    assert "page" not in c("GET", "/users")[1]["meta"]["links"][0]
    c.toggle(meta_page_key="on")
    assert "page" in c("GET", "/users")[1]["meta"]["links"][0]


def test_a_failing_storage_keeps_the_row(api):
    c = api(toggles={"delete_storage_failure": "on"})
    assert c("DELETE", "/attachments/3")[0] == 200 and c("GET", "/attachments/3")[0] == 200


def test_risky_dates_are_an_error_where_the_database_is_strict(api):
    c = api()
    risky = [{"field": "updated_at", "operator": ">=", "value": "2026-01-01T00:00:00Z"}]
    assert c("POST", "/attachments/search", {"filters": risky})[1]["meta"]["total"] == 66
    c.toggle(date_z="error")
    assert c("POST", "/attachments/search", {"filters": risky})[0] == 500


# Bytes.


def test_ranges_are_answered_206_and_416_or_ignored(api):
    c = api()
    url = c.url(3)
    full = c.raw("GET", url)[1]
    etag = c.headers["ETag"]
    assert len(full) == 5000 and c.raw("HEAD", url)[0] == 200
    for asked, expected in (
        ("bytes=0-0", full[:1]),
        ("bytes=5-9", full[5:10]),
        ("bytes=4990-", full[4990:]),
        ("bytes=-7", full[-7:]),
        ("bytes=4999-9999", full[4999:]),
    ):
        assert c.raw("GET", url, headers={"Range": asked}) == (206, expected), asked
    assert c.raw("GET", url, headers={"Range": "bytes=5000-"})[0] == 416
    assert c.headers["Content-Range"] == "bytes */5000"
    assert c.raw("GET", url, headers={"If-None-Match": etag})[0] == 304
    assert c.raw("GET", url, headers={"If-Range": '"x"', "Range": "bytes=0-1"})[0] == 200
    c.toggle(range="ignored")
    assert c.raw("GET", url, headers={"Range": "bytes=0-1"}) == (200, full)


def test_presigned_addresses_refuse_head_authorization_forgery_and_expire(api):
    c = api(toggles={"url": "presigned"})
    url = c.url(3)
    assert "X-Amz-Signature=" in url and urlsplit(url).hostname == "127.0.0.2"
    assert c.raw("GET", url)[0] == 200 and c.raw("HEAD", url)[0] == 403
    assert c.raw("GET", url, headers={"Authorization": "Bearer t"})[0] == 400
    assert c.raw("GET", url.split("?")[0])[0] == 403
    assert c.raw("GET", url[:-1] + ("1" if url[-1] == "0" else "0"))[0] == 403
    assert c.raw("GET", url, headers={"Range": "bytes=0-0"})[0] == 206
    assert c.headers["Content-Range"] == "bytes 0-0/5000"
    c.emulator.clock(3601)
    status, page = c.raw("GET", url)
    assert status == 403 and b"Request has expired" in page
    assert c.raw("GET", c.url(3))[0] == 200


def test_addresses_can_be_relative_or_missing(api):
    c = api(toggles={"url": "relative"})
    assert c.url(3).startswith("/storage/")
    assert c.raw("GET", c.emulator.blob_host + c.url(3))[0] == 200
    c.toggle(url="null")
    assert c.url(3) is None


# Caches, throttle, lost answers.


def test_the_edge_keeps_stale_lists_until_the_right_key_is_purged(api):
    c = api(toggles={"cache": "edge"})
    users = "/users/3/attachments?limit=50"
    assert c.ids(users) == [5, 6]
    first = c.headers["X-Perscom-Request-Id"]
    c("GET", users)
    assert c.headers["X-Perscom-Request-Id"] == first and c.headers["X-Cache"] == "HIT"
    made = c.upload()
    assert c.ids(users) == [5, 6]
    c("PATCH", f"/attachments/{made['id']}", {"model_type": USER, "model_id": 3})
    assert c.ids(users) == [5, 6], "stale: moved in"
    c.upload()
    assert len(c.ids(users)) == 3, "creating purges the class"
    for ident in (3, 4):
        c("DELETE", f"/attachments/{ident}")
    empty = "/users/2/attachments"
    assert c.ids(empty) == []
    c.form("POST", empty, {"name": "n"}, KIB)
    assert c.ids(empty) == [], "stale empty"
    assert len(c.ids(empty + "?u=1")) == 1
    assert c("POST", "/cache") == (200, {"status": "okay"})
    assert len(c.ids(empty)) == 1


@pytest.mark.parametrize("kind", ["app", "edge"])
def test_a_purge_takes_its_time(api, kind):
    c = api(toggles={"cache": kind, "purge_delay_ms": "400"})
    path = "/users/2/attachments"
    assert len(c.ids(path)) == 2
    c.form("POST", path, {"name": "n"}, KIB)
    assert len(c.ids(path)) == 2
    time.sleep(0.5)
    assert len(c.ids(path)) == 3


def test_the_throttle_answers_a_bare_429(api):
    c = api(toggles={"throttle": "3"})
    assert [c("GET", "/users")[0] for _ in range(4)] == [200, 200, 200, 429]
    assert "X-RateLimit-Limit" not in c.headers and "Retry-After" not in c.headers
    c.emulator.clock(61)
    assert c("GET", "/users")[0] == 200
    assert (c.headers["X-RateLimit-Limit"], c.headers["X-RateLimit-Remaining"]) == ("3", "2")


def test_a_dropped_reply_was_done_all_the_same(api):
    c = api(toggles={"drop_reply": "on"})
    before = len(c.emulator.attachments())
    with pytest.raises((http.client.RemoteDisconnected, ConnectionResetError)):
        c.upload()
    assert len(c.emulator.attachments()) == before + 1
