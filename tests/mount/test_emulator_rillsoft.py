# SPDX-License-Identifier: MIT
"""
The emulator as a Rillsoft Integration Server, without a mount: the boxes and toggles of
reference/rillsoft.md, section 13, over plain HTTP.
"""

import base64
import http.client
import json
import time
from dataclasses import replace
from urllib.parse import quote, urlsplit

import pytest

from harness import RILLSOFT, random_bytes

OFFER = random_bytes(5000, "offer")
PLAN = random_bytes(70_000, "plan")
DOCUMENTS = "/v2/clients/1/dms/documents"
IN_MAIN, IN_CONTRACTS, IN_DRAWINGS, IN_DETAILS = 1, 3, 4, 5


def tree():
    return {
        "Plant B": {
            "Empty": {},
            "Foundation": {"offer.pdf": OFFER, "plan.txt": PLAN},
            "Roof": {"beam.png": b"beam", "bill.json": b'{"a": 1}'},
            "Subproject North": {"site.txt": b"north"},
        },
        "Plant C": {"Fence": {"post.txt": b"post"}},
    }


def multipart(fields, files):
    out = b""
    for key, value in fields.items():
        out += f'--XbX\r\nContent-Disposition: form-data; name="{key}"\r\n\r\n{value}\r\n'.encode()
    for key, filename, data in files:
        out += (
            f'--XbX\r\nContent-Disposition: form-data; name="{key}"; filename="{filename}"\r\n'
            "Content-Type: application/octet-stream\r\n\r\n"
        ).encode()
        out += data + b"\r\n"
    return out + b"--XbX--\r\n"


class Client:
    """An API client that checks nothing; .headers and .body are those of the last answer."""

    def __init__(self, emulator):
        self.emulator = emulator
        self.toggle = emulator.toggle
        self.token = "test-token"
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

    def __call__(self, method, path, body=None, headers=None):
        """Status and decoded body; @body an object is sent as JSON."""
        sent = {"Accept": "application/json"}
        if self.token:
            sent["Authorization"] = f"Bearer {self.token}"
        if body is not None and not isinstance(body, bytes):
            body = json.dumps(body).encode()
            sent["Content-Type"] = "application/json"
        sent.update(headers or {})
        status, data = self.raw(method, self.emulator.api + path, body, sent)
        try:
            return status, json.loads(data)
        except ValueError:
            return status, data

    def form(self, method, path, fields, *files, headers=None):
        sent = {"Content-Type": "multipart/form-data; boundary=XbX", **(headers or {})}
        return self(method, path, multipart(fields, files), sent)

    def login(self, username="mount", password="secret"):
        return self("POST", "/v1/login", {"username": username, "password": password})

    def list(self, query="?project_id=41"):
        status, answer = self("GET", DOCUMENTS + query)
        assert status == 200, answer
        return answer["details"]

    def named(self, name, query="?project_id=41"):
        found = [d for d in self.list(query) if d["name"] == name]
        assert len(found) == 1, found
        return found[0]

    def row(self, ident):
        found = [d for d in self.list("") if d["id"] == ident]
        assert len(found) == 1, f"{ident} is listed {len(found)} times"
        return found[0]

    def element(self, name):
        found = [r for r in self.emulator.state()["records"] if r["name"] == name]
        assert len(found) == 1
        return found[0]["remote_id"]

    def project_uuid(self, ident=41):
        projects = self("GET", "/v2/clients/1/projects")[1]["details"]
        return next(p["uuid"] for p in projects if p["id"] == ident)

    def document(self, ident, project=41):
        return f"/v2/clients/1/dms/projects/{project}/documents/{ident}"

    def place(self, element, folder=IN_MAIN, project=41):
        return f"/v2/clients/1/dms/projects/{project}/folders/{folder}/parent/{element}/documents"

    def create(self, element, data=b"new", filename="new.txt", folder=IN_MAIN, **fields):
        """Status of an upload with all its fields."""
        fields = {"name": filename, "description": "", **fields}
        path = self.place(self.element(element), folder)
        return self.form("POST", path, fields, ("file", filename, data))[0]

    def update(self, ident, fields, *files, headers=None):
        if headers is None:
            headers = {"X-HTTP-Method-Override": "PUT"}
        return self.form("POST", self.document(ident), fields, *files, headers=headers)

    def bytes(self, ident):
        status, data = self.raw(
            "GET",
            self.emulator.api + self.document(ident),
            headers={"Authorization": f"Bearer {self.token}"},
        )
        assert status == 200
        return data


@pytest.fixture
def system():
    return replace(RILLSOFT, hides_empty=False)  # the tree as it is given


@pytest.fixture
def api(emulator):
    def make(**kwargs):
        kwargs.setdefault("tree", tree())
        return Client(emulator(**kwargs))

    return make


def claims(token):
    def part(text):
        return json.loads(base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)))

    header, payload, _ = token.split(".")
    assert part(header)["alg"] == "HS256"
    return part(payload)


REFUSED = {
    400: ("Invalid request", "Validation error"),
    401: ("Authentication failed", "JWT token not found"),
    403: ("Access denied", "Insufficient permissions"),
    404: ("Not found", "The requested resource was not found"),
}


def is_refusal(answer, status, details=None):
    message, usual = REFUSED[status]
    assert answer == (
        status,
        {"status": "error", "code": status, "message": message, "details": details or usual},
    )


# Login and rights.


def test_a_login_gives_a_jwt_that_expires(api):
    c = api(toggles={"ttl": "60"})
    c.token = None
    status, answer = c.login()
    assert (status, answer["status"], answer["code"]) == (200, "success", 200)
    token = answer["details"]["token"]
    assert abs(claims(token)["exp"] - time.time() - 60) < 30
    assert c.login()[1]["details"]["token"] != token
    c.token = token
    assert c("GET", "/v2/clients/1")[0] == 200
    c.emulator.clock(61)
    is_refusal(c("GET", "/v2/clients/1"), 401, "JWT token expired")
    c.toggle(expired_details="same")
    is_refusal(c("GET", "/v2/clients/1"), 401)
    c.token = c.login()[1]["details"]["token"]
    assert c("GET", "/v2/clients/1")[0] == 200, "whatever Authorization the login comes with"


def test_missing_and_invalid_tokens_are_401_everywhere_but_at_the_login(api):
    c = api()
    good = c.login()[1]["details"]["token"]
    for c.token in (None, "nonsense", good[:-2], good + "x"):
        is_refusal(c("GET", "/v2/clients/1/projects"), 401)
        is_refusal(c("GET", "/v2/no/such/path"), 401)
        is_refusal(c("POST", c.place(c.element("Roof")), b""), 401)
    c.token = good
    for scheme in ("Basic", "bearer"):
        status = c("GET", "/v2/clients/1", headers={"Authorization": f"{scheme} {good}"})[0]
        assert status == (200 if scheme == "bearer" else 401)
    assert c("GET", "/v1/login")[0] == 405
    assert c("POST", "/v2/login", {"username": "mount", "password": "secret"})[0] == 404


def test_a_restarted_server_does_not_know_the_tokens_of_the_last_one_but_its_own_names(api):
    first, second = api(), api()
    second.token = first.login()[1]["details"]["token"]
    is_refusal(second("GET", "/v2/clients/1"), 401)
    second.token = "test-token"
    assert first.list("") == second.list("")


@pytest.mark.parametrize("status", [401, 403, 400])
def test_wrong_passwords_are_refused(api, status):
    c = api(toggles={"login_refused": str(status)})
    is_refusal(c.login(password="wrong"), status, "Invalid username or password")
    is_refusal(c.login(username="x"), status, "Invalid username or password")
    is_refusal(c("POST", "/v1/login", {"username": "mount"}), 400)
    is_refusal(c("POST", "/v1/login", b"{", {"Content-Type": "application/json"}), 400)


PLACES = ("details.token", "token", "access_token", "details.accessToken", "jwt")


@pytest.mark.parametrize("reply", ["envelope", "bare"])
@pytest.mark.parametrize("at", PLACES)
def test_the_token_sits_where_the_toggle_says(api, at, reply):
    c = api(toggles={"token_at": at, "login_reply": reply})
    answer = c.login()[1]
    assert ("status" in answer) == (reply == "envelope")
    for key in at.split("."):
        answer = answer[key]
    c.token = answer
    assert c("GET", "/v2/clients/1")[0] == 200


@pytest.mark.parametrize("form", ["exp", "no-exp", "opaque"])
def test_tokens_may_not_tell_when_they_end_and_end_all_the_same(api, form):
    c = api(toggles={"token_form": form, "ttl": "60"})
    c.token = c.login()[1]["details"]["token"]
    if form == "opaque":
        assert "." not in c.token
    else:
        assert ("exp" in claims(c.token)) == (form == "exp")
    assert c("GET", "/v2/clients/1")[0] == 200
    c.emulator.clock(61)
    assert c("GET", "/v2/clients/1")[0] == 401
    c.toggle(ttl="off")
    c.token = c.login()[1]["details"]["token"]
    c.emulator.clock(10_000_000)
    assert c("GET", "/v2/clients/1")[0] == 200


def attempts(c):
    """One call for every right; the names are those of `denied`."""
    ident = c.named("offer.pdf")["id"]
    there = c.place(c.element("Roof"))
    put = {"X-HTTP-Method-Override": "PUT"}
    return {
        "project": lambda: c("GET", "/v2/clients/1/projects"),
        "read": lambda: c("GET", DOCUMENTS),
        "create": lambda: c.form("POST", there, {"name": "n"}, ("file", "n", b"n")),
        "change": lambda: c.form("POST", c.document(ident), {"name": "m"}, headers=put),
        "delete": lambda: c("DELETE", c.document(ident)),
    }


RIGHTS = ("none", "client", "api", "project", "read", "create", "change", "delete")


@pytest.mark.parametrize("right", RIGHTS)
def test_without_a_right_the_answer_is_403(api, right):
    c = api()
    calls = attempts(c)
    c.token = c.login()[1]["details"]["token"]
    c.toggle(denied=right)
    for needed, call in calls.items():
        if right in (needed, "client", "api"):
            is_refusal(call(), 403)
        else:
            assert call()[0] in (200, 201), needed
    assert c.login()[0] == (403 if right == "api" else 200)


def test_ready_made_tokens_have_the_rights_they_name(api):
    c = api(tokens=["all", "reader=project,read"])
    c.token = "all"
    calls = attempts(c)
    c.token = "reader"
    allowed = [right for right, call in calls.items() if call()[0] < 300]
    assert allowed == ["project", "read"]


def test_another_client_is_403_and_unknown_paths_are_404(api):
    c = api()
    is_refusal(c("GET", "/v2/clients/2"), 403)
    is_refusal(c("GET", "/v2/clients/x/projects"), 403)
    for path in (
        "/v2/clients/1/",
        "/v2/clients/1/tasks",
        "/v2",
        "/v1/clients/1",
        "/v2/clients//dms",
    ):
        is_refusal(c("GET", path), 404)
    assert c("DELETE", "/v2/clients/1")[0] == 405


# Projects, folders, lists.


def test_client_projects_and_portfolios_come_in_the_envelope(api):
    c = api()
    status, answer = c("GET", "/v2/clients/1")
    assert (status, answer["details"]["id"]) == (200, 1)
    assert answer["message"] == "Operation completed successfully"
    projects = c("GET", "/v2/clients/1/projects")[1]["details"]
    assert [(p["id"], p["name"]) for p in projects] == [(41, "Plant B"), (42, "Plant C")]
    assert projects[0]["start"] == "2026-01-15T09:00:00" and projects[0]["versionId"] == 9
    assert len({p["uuid"] for p in projects}) == 2
    assert c("GET", "/v2/clients/1/portfolios")[1]["details"][0]["id"] == 7
    is_refusal(c("GET", "/v2/clients"), 404)
    c.toggle(tpl_clients="default")
    assert [x["id"] for x in c("GET", "/v2/clients")[1]["details"]] == [1]


def test_the_version_of_projects_ignores_documents(api):
    def version():
        return c("GET", "/v2/clients/1/projects")[1]["details"][0]["versionId"]

    c = api()
    assert c.create("Roof") == 201 and version() == 9
    record = c.emulator.record_id("Plant B", "Roof")
    op = {"op": "rename_record", "collection": "Plant B", "id": record, "name": "Top"}
    c.emulator.change(op)
    assert version() == 10 and c.named("new.txt")["elementName"] == "Top"


def test_folders_are_a_nested_set_or_name_their_parents(api):
    c = api()
    path = "/v2/clients/1/dms/folders"
    folders = {f["id"]: f for f in c("GET", path)[1]["details"]}

    def parent(f):
        around = [g for g in folders.values() if g["left"] < f["left"] and f["right"] < g["right"]]
        return min(around, key=lambda g: g["right"] - g["left"])["id"] if around else None

    computed = {f["id"]: parent(f) for f in folders.values()}
    assert computed == {
        IN_MAIN: None,
        IN_CONTRACTS: IN_MAIN,
        IN_DRAWINGS: IN_MAIN,
        IN_DETAILS: IN_DRAWINGS,
    }
    c.toggle(folder_shape="parent")
    told = c("GET", path)[1]["details"]
    assert {f["folderId"]: f["parentFolderId"] for f in told} == computed
    other = "/v2/clients/1/dms/projects/41/folders"
    is_refusal(c("GET", other), 404)
    c.toggle(tpl_folders="other")
    assert c("GET", other)[1]["details"] == told
    is_refusal(c("GET", path), 404)
    is_refusal(c("GET", other.replace("41", "99")), 404)
    c.toggle(tpl_folders="404")
    is_refusal(c("GET", other), 404)
    is_refusal(c("GET", path), 404)


def test_documents_of_a_deleted_folder_are_in_the_main_folder(api):
    c = api()
    assert c.create("Roof", folder=IN_DETAILS) == 201
    assert c.named("new.txt")["folderPath"] == "/Drawings/Details"
    c.toggle(gone_folder=IN_DRAWINGS)
    new = c.named("new.txt")
    assert (new["folderId"], new["folderPath"]) == (IN_MAIN, "/")
    assert len(c("GET", "/v2/clients/1/dms/folders")[1]["details"]) == 2
    assert c.create("Roof", folder=IN_DRAWINGS) == 404


def test_the_list_tells_names_and_sizes_and_nothing_of_bytes_or_changes(api):
    c = api()
    rows = c.list()
    assert [r["name"] for r in rows] == [
        "offer.pdf",
        "plan.txt",
        "beam.png",
        "bill.json",
        "site.txt",
    ]
    offer = rows[0]
    assert offer == {
        "id": 5001,
        "projectId": 41,
        "parentUuid": c.element("Foundation"),
        "elementName": "Foundation",
        "folderId": IN_MAIN,
        "folderPath": "/",
        "name": "offer.pdf",
        "description": "",
        "fileSize": 5000,
        "createdAt": offer["createdAt"],
        "createdUserName": "a.byron",
    }
    state = {a["remote_id"]: a for a in c.emulator.attachments()}
    for r in rows:
        assert state[str(r["id"])]["record_remote_id"] == r["parentUuid"]
    assert "Empty" not in {r["elementName"] for r in rows}
    assert c.create("Empty") == 201 and c.named("new.txt")["elementName"] == "Empty"


def test_an_empty_description_may_be_null_or_missing(api):
    c = api(toggles={"description": "null"})
    assert c.create("Roof", description="mine") == 201
    assert [d["description"] for d in c.list()] == [None] * 5 + ["mine"]
    c.toggle(description="absent")
    assert [d.get("description", "none") for d in c.list()] == ["none"] * 5 + ["mine"]


def test_projects_are_selected_by_a_parameter_if_the_server_looks_at_it(api):
    c = api()
    assert {d["projectId"] for d in c.list("")} == {41, 42}
    assert {d["projectId"] for d in c.list("?project_id=42")} == {42}
    assert {d["projectId"] for d in c.list("?project_id=41,42")} == {41, 42}
    assert c.list("?project_id=99") == []
    c.toggle(selector="ignored")
    assert {d["projectId"] for d in c.list("?project_id=42")} == {41, 42}
    c.toggle(selector="required")
    is_refusal(c("GET", DOCUMENTS), 400)
    assert {d["projectId"] for d in c.list("?project_id=42")} == {42}
    c.toggle(selector="honoured")
    for name in ("projectId", "projectIds", "projects"):
        c.toggle(selector_name=name)
        assert {d["projectId"] for d in c.list(f"?{name}=42")} == {42}
        assert {d["projectId"] for d in c.list("?project_id=42")} == {41, 42}


def test_fields_have_other_names_on_other_servers(api):
    c = api(toggles={"names": "documentId/size/uuid"})
    row = c.list()[0]
    assert (row["documentId"], row["size"], row["uuid"]) == (5001, 5000, c.element("Foundation"))
    assert not {"id", "fileSize", "parentUuid"} & set(row)


@pytest.mark.parametrize(
    "form,shown",
    [
        ("iso", "2026-03-01T09:45:30"),
        ("minute", "2026-03-01T09:45"),
        ("zeroed", "2026-03-01T09:45:00"),
        ("dotted", "01.03.2026 09:45"),
        ("empty", ""),
        ("null", None),
    ],
)
def test_times_are_local_and_of_any_precision(api, form, shown):
    c = api(toggles={"created_at": form, "zone_minutes": "90"})
    wanted = 1772352930  # 2026-03-01 08:15:30 UTC
    c.emulator.clock(int(wanted - time.time()))
    assert c.create("Roof") == 201
    told = c.named("new.txt")["createdAt"]
    if form == "iso":
        told, shown = told[:-3], shown[:-3]  # the clock goes on
    assert told == shown


def test_names_are_plain_utf_8(api):
    c = api()
    name = 'Übersicht "1" \\ 😀/x.pdf'
    assert c.create("Roof", name=name.replace('"', "'"), description="ä\tb") == 201
    row = c.list()[-1]
    assert row["name"] == name.replace('"', "'") and row["description"] == "ä\tb"
    assert "Übersicht".encode() in c.body and b'"/Drawings' not in c.body


def test_ten_thousand_documents_come_at_once_and_quickly(api):
    c = api(tree=None, generate=["Plant B:1000:10:4096"])
    best = 9.0
    for _ in range(3):
        start = time.monotonic()
        status, body = c.raw(
            "GET", c.emulator.api + DOCUMENTS, headers={"Authorization": "Bearer test-token"}
        )
        best = min(best, time.monotonic() - start)
    rows = json.loads(body)["details"]
    assert status == 200 and len(rows) == 10_000
    assert len({r["parentUuid"] for r in rows}) == 1000 and len({r["id"] for r in rows}) == 10_000
    print(f"10,000 documents in {best:.3f} s")
    assert best < 5


# Creating.


@pytest.mark.parametrize("details", ["array", "object", "string"])
def test_creating_answers_no_metadata(api, details):
    c = api(toggles={"details": details})
    path = c.place(c.element("Roof"), IN_CONTRACTS)
    fields = {"name": "offer.pdf", "description": "second"}
    status, answer = c.form("POST", path, fields, ("file", "offer.pdf", PLAN))
    assert (status, answer["status"], answer["code"]) == (201, "success", 201)
    assert (
        answer["details"]
        == {
            "array": [],
            "object": {},
            "string": "Operation completed successfully",
        }[details]
    )
    row = c.list()[-1]
    assert row["id"] == 5007 and c.bytes(row["id"]) == PLAN
    assert (row["name"], row["description"], row["fileSize"]) == ("offer.pdf", "second", len(PLAN))
    assert (row["folderId"], row["folderPath"], row["elementName"]) == (3, "/Contracts", "Roof")
    stored = c.emulator.attachments()[-1]
    assert c.emulator.blob(stored["id"]) == PLAN and stored["record_name"] == "Roof"


def test_a_generous_server_tells_what_it_made(api):
    c = api(toggles={"details": "document", "create_status": "200", "update_status": "200"})
    path = c.place(c.element("Roof"))
    status, answer = c.form("POST", path, {"name": "n.txt"}, ("file", "n.txt", b"n"))
    assert status == 200 and answer["details"] == c.row(5007)
    status, answer = c.update(5007, {"name": "m.txt"})
    assert status == 200 and answer["details"]["name"] == "m.txt"


def test_what_is_no_valid_upload_is_400(api):
    c = api()
    path = c.place(c.element("Roof"))
    for kind, body in (
        ("multipart/form-data", b"--XbX--"),
        ("multipart/form-data; boundary=", b""),
        ("multipart/form-data; boundary=XbX", b'{"file":"string"}'),
        ("multipart/form-data; boundary=XbX", multipart({"name": "n", "file": "text"}, [])),
        ("multipart/form-data; boundary=XbX", multipart({}, [("other", "x", b"x")])),
        (
            "multipart/form-data; boundary=XbX",
            multipart({}, [("file", "x", b"x"), ("file", "y", b"y")]),
        ),
        ("application/json", b'{"file":"string"}'),
        ("application/json", b"{"),
        ("text/plain", b"x"),
    ):
        is_refusal(c("POST", path, body, {"Content-Type": kind}), 400)
    is_refusal(c("POST", path), 400)
    assert len(c.list()) == 5


def test_places_that_do_not_exist_are_404(api):
    c = api()
    roof, fence = c.element("Roof"), c.element("Fence")
    unknown = "a3d7b7a4-0c34-4b66-8a57-6f0f6a4cf2a1"
    for path in (
        c.place(roof, 99),
        c.place(roof, project=42),
        c.place(roof, project=40),
        c.place(roof, project=99),
        c.place(fence),
        c.place(unknown),
        c.place("x"),
        c.place(roof[:-1] + ("0" if roof[-1] != "0" else "1")),
    ):
        is_refusal(c.form("POST", path, {"name": "n"}, ("file", "n", b"n")), 404)
    done = c.form("POST", c.place(roof.upper()), {"name": "n"}, ("file", "n", b"n"))
    assert done[0] == 201, "UUIDs have no case"


@pytest.mark.parametrize("parents", ["tasks", "any"])
def test_documents_hang_on_tasks_and_elsewhere_only_if_the_server_lets_them(api, parents):
    c = api(toggles={"parents": parents})
    for uuid in (c.project_uuid(), c.element("Subproject North")):
        status = c.form("POST", c.place(uuid), {"name": "n"}, ("file", "n", b"n"))[0]
        assert status == (404 if parents == "tasks" else 201)
    if parents == "any":
        on_project, on_sub = c.list()[-2:]
        assert on_project["parentUuid"] == c.project_uuid()
        assert on_project["elementName"] == "Plant B"
        assert on_sub["elementName"] == "Subproject North"
        assert c.bytes(on_project["id"]) == b"n"


def test_duplicate_names_are_allowed_unless_the_server_minds(api):
    c = api()
    for _ in range(2):
        assert c.create("Roof", filename="twin.txt") == 201
    first, second = [d["id"] for d in c.list() if d["name"] == "twin.txt"]
    c.toggle(duplicates="409")
    assert c.create("Roof", filename="twin.txt") == 409
    assert c.create("Roof", filename="twin.txt", folder=IN_CONTRACTS) == 201
    assert c.create("Empty", filename="twin.txt") == 201
    assert c.update(first, {"name": "twin.txt"})[0] == 409
    assert c("DELETE", c.document(second))[0] == 200
    assert c.update(first, {"name": "twin.txt"})[0] == 201, "itself is no duplicate"


def test_names_may_be_limited_and_are_taken_from_the_file_if_missing(api):
    c = api(toggles={"name_max": "10"})
    assert c.create("Roof", name="é" * 10) == 201
    assert c.create("Roof", name="é" * 11) == 400
    path = c.place(c.element("Roof"))
    assert c.form("POST", path, {}, ("file", "part.txt", b"x"))[0] == 201
    assert c.list()[-1]["name"] == "part.txt"


@pytest.mark.parametrize("answer", ["400", "413", "close"])
def test_large_files_are_refused_in_several_ways(api, answer):
    c = api(toggles={"max_bytes": "1000", "max_bytes_answer": answer, "attachments": "1"})
    assert c.create("Roof", b"x" * 1000) == 201
    ident = c.list()[-1]["id"]
    for send in (
        lambda: c.create("Roof", b"x" * 1001),
        lambda: c.update(ident, {"name": "new.txt"}, ("file", "new.txt", b"y" * 1001))[0],
        lambda: c.form("POST", "/v2/clients/1/attachments/9001", {}, ("file", "f", b"z" * 1001))[0],
    ):
        if answer == "close":
            with pytest.raises((http.client.RemoteDisconnected, ConnectionResetError)):
                send()
        else:
            assert send() == int(answer)
    assert len(c.list()) == 6 and c.bytes(ident) == b"x" * 1000


def test_large_bodies_are_kept_and_come_back(api):
    c = api()
    data = random_bytes(5_000_000, "large")
    assert c.create("Roof", data, "large.bin") == 201
    assert c.bytes(c.named("large.bin")["id"]) == data


# Downloading.


def auth(**more):
    return {"Authorization": "Bearer test-token", **more}


def test_downloads_know_ranges_or_not(api):
    c = api()
    url = c.emulator.api + c.document(5001)
    assert c.raw("GET", url, headers=auth()) == (200, OFFER)
    assert c.headers["Content-Type"] == "application/octet-stream"
    for name in ("ETag", "Last-Modified", "Content-Disposition"):
        assert name not in c.headers
    assert c.raw("GET", url, headers=auth(Range="bytes=10-19")) == (206, OFFER[10:20])
    assert c.headers["Content-Range"] == "bytes 10-19/5000"
    assert c("GET", c.document(5001), headers={"Range": "bytes=5000-"})[1]["code"] == 416
    assert c.headers["Content-Range"] == "bytes */5000"
    assert c.raw("HEAD", url, headers=auth()) == (200, b"")
    for conditional in ({"If-None-Match": '"x"'}, {"If-Range": '"x"', "Range": "bytes=0-1"}):
        assert c.raw("GET", url, headers=auth(**conditional)) == (200, OFFER)
    c.toggle(range="ignored")
    assert c.raw("GET", url, headers=auth(Range="bytes=10-19")) == (200, OFFER)
    assert "Accept-Ranges" not in c.headers


def test_downloads_may_carry_validators_and_names(api):
    c = api(toggles={"validators": "present", "disposition": "present"})
    assert c.create("Roof", b"x", "ü x.txt") == 201
    ident = c.list()[-1]["id"]
    url = c.emulator.api + c.document(ident)
    c.raw("GET", url, headers=auth())
    tag = c.headers["ETag"]
    assert quote("ü x.txt") in c.headers["Content-Disposition"] and "Last-Modified" in c.headers
    assert c.raw("GET", url, headers=auth(**{"If-None-Match": tag})) == (304, b"")
    assert c.update(ident, {"name": "n"}, ("file", "n", b"y"))[0] == 201
    assert c.raw("GET", url, headers=auth(**{"If-None-Match": tag})) == (200, b"y")
    assert c.headers["ETag"] != tag


def test_downloads_have_a_media_type_or_not(api):
    c = api(toggles={"download_type": "guessed"})
    bill = c.named("bill.json")["id"]
    assert c.bytes(bill) == b'{"a": 1}' and c.headers["Content-Type"] == "application/json"
    c.bytes(5001)
    assert c.headers["Content-Type"] == "application/pdf"
    c.toggle(download_type="absent")
    assert c.bytes(5001) == OFFER and "Content-Type" not in c.headers


def test_a_download_may_be_metadata_or_lie_elsewhere(api):
    c = api(toggles={"download": "json"})
    status, answer = c("GET", c.document(5001))
    assert status == 200 and answer["details"]["fileSize"] == 5000
    assert c.headers["Content-Type"] == "application/json"
    c.toggle(download="redirect")
    assert c("GET", c.document(5001))[0] == 302
    where = c.headers["Location"]
    assert where.startswith(c.emulator.blob_host)
    assert c.raw("GET", where) == (200, OFFER)
    assert c.raw("GET", where, headers={"Range": "bytes=1-2"}) == (206, OFFER[1:3])
    assert c.raw("GET", where, headers=auth())[0] == 400, "a token for another host"
    assert c.raw("GET", where + "x")[0] == 404 and c.raw("PUT", where)[0] == 405
    assert c.raw("GET", c.emulator.blob_host + "/files/x")[0] == 404


def test_templates_of_download_and_delete(api):
    c = api()
    other = {
        "tpl_download": ("GET", "/v2/clients/1/dms/documents/5001/content"),
        "tpl_delete": ("DELETE", "/v2/clients/1/dms/documents/5001"),
    }
    for toggle, (method, path) in other.items():
        assert c(method, path)[0] == 404
        c.toggle(**{toggle: "404"})
        is_refusal(c(method, c.document(5001)), 404)
        c.toggle(**{toggle: "other"})
        assert c(method, c.document(5001))[0] == 405
        assert c(method, path)[0] == 200
    c.toggle(tpl_delete="405")
    assert c("DELETE", c.document(5002))[0] == 405
    assert [r["id"] for r in c.list()][0] == 5002


# Updating.


def full(row, **changed):
    keys = ("folderId", "parentUuid", "name", "description")
    return {**{k: row[k] for k in keys}, **changed}


def test_replacing_keeps_the_id_and_the_old_version(api):
    c = api(toggles={"tpl_versions": "default"})
    before = c.row(5001)
    c.emulator.clock(1000)
    for i, data in enumerate((b"", b"second", PLAN)):
        status, answer = c.update(5001, full(before), ("file", "offer.pdf", data))
        assert (status, answer["details"]) == (201, [])
        assert c.bytes(5001) == data and c.emulator.blob(1) == data
        assert c.row(5001) == {**before, "fileSize": len(data)}
        versions = c("GET", c.document(5001) + "/versions")[1]["details"]
        assert [v["version"] for v in versions] == list(range(1, i + 2))
    url = c.emulator.api + c.document(5001) + "/versions/"
    assert c.raw("GET", url + "1", headers=auth()) == (200, OFFER)
    assert c.raw("GET", url + "3", headers=auth()) == (200, b"second")
    assert len(c.list()) == 5, "versions are not listed"
    for n in ("0", "4", "x"):
        assert c.raw("GET", url + n, headers=auth())[0] == 404
    c.toggle(tpl_versions="404")
    is_refusal(c("GET", c.document(5001) + "/versions"), 404)


def test_renaming_and_moving_need_no_file(api):
    c = api()
    before = c.row(5001)
    assert c.update(5001, full(before, name="bid.pdf"))[0] == 201
    assert c.update(5001, full(before, name="bid.pdf", folderId=IN_DETAILS))[0] == 201
    moved = full(before, name="bid.pdf", folderId=IN_DETAILS, parentUuid=c.element("Roof"))
    assert c.update(5001, moved)[0] == 201
    after = c.row(5001)
    assert (after["name"], after["folderId"]) == ("bid.pdf", IN_DETAILS)
    assert after["elementName"] == "Roof" and c.bytes(5001) == OFFER
    assert after["createdAt"] == before["createdAt"]
    for fields, status in (
        ({}, 400),
        ({"other": "x"}, 400),
        ({"name": ""}, 400),
        ({"folderId": "99"}, 400),
        ({"folderId": "x"}, 400),
        ({"parentUuid": "x"}, 404),
        ({"parentUuid": c.element("Fence")}, 404),
        ({"parentUuid": c.element("Subproject North")}, 404),
    ):
        is_refusal(c.update(5001, {**fields}), status)
    assert c.row(5001) == after
    wrong = c.document(5001, 42)
    assert c.form("POST", wrong, {"name": "x"}, headers={"X-HTTP-Method-Override": "PUT"})[0] == 404
    assert c.update(4999, {"name": "x"})[0] == 404 and c.update(5999, {"name": "x"})[0] == 404


WAYS = {"header": ("POST", True, False), "field": ("POST", False, True)}
WAYS.update({"put": ("PUT", False, False), "none": ("POST", False, False)})


@pytest.mark.parametrize(
    "override,good",
    [
        ("both", "header field put"),
        ("header", "header put"),
        ("field", "field put"),
        ("put", "put"),
        ("none", "header field put none"),
    ],
)
@pytest.mark.parametrize("real_put", ["accepted", "405"])
def test_the_method_is_overridden_as_the_server_likes(api, override, good, real_put):
    c = api(toggles={"override": override, "real_put": real_put})
    for way, (method, header, field) in WAYS.items():
        fields = {"name": f"{way}.pdf", **({"_method": "PUT"} if field else {})}
        headers = {"X-HTTP-Method-Override": "PUT"} if header else {}
        status = c.form(method, c.document(5001), fields, headers=headers)[0]
        fine = way in good.split()
        if way == "put" and override != "put" and real_put == "405":
            fine = False
        assert status == (201 if fine else 405), way
        assert (c.row(5001)["name"] == f"{way}.pdf") == fine


@pytest.mark.parametrize("reparent", ["obeyed", "ignored", "409"])
def test_the_element_of_a_document_may_be_fixed(api, reparent):
    c = api(toggles={"reparent": reparent})
    before = c.row(5001)
    assert c.update(5001, full(before, name="same.pdf"))[0] == 201, "its own element is no change"
    status, answer = c.update(5001, full(before, parentUuid=c.element("Roof")))
    assert status == (409 if reparent == "409" else 201)
    assert c.row(5001)["elementName"] == ("Roof" if reparent == "obeyed" else "Foundation")
    if reparent == "409":
        assert answer["status"] == "error" and c.row(5001)["name"] == "same.pdf"


@pytest.mark.parametrize("wins", ["off", "on"])
def test_a_replacement_may_take_the_name_of_the_part(api, wins):
    c = api(toggles={"rename_on_replace": wins})
    assert c.update(5001, {"name": "name.pdf"}, ("file", "part.pdf", b"x"))[0] == 201
    assert c.row(5001)["name"] == ("part.pdf" if wins == "on" else "name.pdf")
    assert c.update(5001, {}, ("file", "other.pdf", b"y"))[0] == 201
    assert c.row(5001)["name"] == ("other.pdf" if wins == "on" else "name.pdf")
    assert c.update(5001, {"name": "again.pdf"})[0] == 201
    assert c.row(5001)["name"] == "again.pdf"


def test_an_update_may_need_the_file(api):
    c = api(toggles={"file_required_on_update": "on"})
    is_refusal(c.update(5001, full(c.row(5001), name="x")), 400)
    assert c.update(5001, full(c.row(5001), name="x"), ("file", "x", OFFER))[0] == 201
    assert c.row(5001)["name"] == "x"


@pytest.mark.parametrize("left_out", ["kept", "cleared"])
def test_fields_left_out_are_kept_or_cleared(api, left_out):
    c = api(toggles={"left_out": left_out})
    whole = full(c.row(5001), folderId=IN_CONTRACTS, description="mine")
    assert c.update(5001, whole)[0] == 201
    before = c.row(5001)
    assert (before["folderId"], before["description"]) == (IN_CONTRACTS, "mine")
    assert c.update(5001, {}, ("file", "part.pdf", b"x"))[0] == 201
    after = c.row(5001)
    if left_out == "kept":
        assert after == {**before, "fileSize": 1}
    else:
        assert (after["folderId"], after["description"]) == (IN_MAIN, "")
        assert after["name"] == "part.pdf" and after["parentUuid"] == c.project_uuid()
        is_refusal(c.update(5001, {"description": "no name"}), 400)


def test_an_update_may_make_a_new_document(api):
    c = api(toggles={"update_id": "new", "tpl_versions": "default"})
    before = c.row(5001)
    assert c.update(5001, full(before), ("file", "offer.pdf", b"x"))[0] == 201
    after = c.named("offer.pdf")
    assert after == {**before, "id": 5007, "fileSize": 1}
    assert c.bytes(5007) == b"x" and c("GET", c.document(5001))[0] == 404
    assert len(c("GET", c.document(5007) + "/versions")[1]["details"]) == 1


def test_the_date_may_be_that_of_the_last_change(api):
    c = api(toggles={"created_on_update": "new"})
    before = c.row(5001)["createdAt"]
    assert c.update(5001, full(c.row(5001)), ("file", "offer.pdf", b"x"))[0] == 201
    assert c.row(5001)["createdAt"] > before


@pytest.mark.parametrize("status", [423, 409])
def test_documents_may_be_locked(api, status):
    c = api(toggles={"locked": str(status)})
    before = c.list()
    assert c.update(5001, {"name": "x"})[0] == status
    assert c("DELETE", c.document(5001))[0] == status
    assert c.list() == before


# Deleting.


@pytest.mark.parametrize("status", [200, 202, 204])
def test_deleting_hides_a_document_for_good(api, status):
    c = api(toggles={"delete_status": str(status)})
    last = c.list()[-1]["id"]
    done, answer = c("DELETE", c.document(last))
    assert done == status and (answer == b"" if status == 204 else answer["details"] == [])
    assert last not in [d["id"] for d in c.list()]
    for method in ("GET", "DELETE"):
        is_refusal(c(method, c.document(last)), 404)
    assert c.update(last, {"name": "x"})[0] == 404
    assert c.create("Roof") == 201 and c.named("new.txt")["id"] > last
    kept = [a for a in c.emulator.state()["attachments"] if a.get("deleted_at")]
    assert len(kept) == 1 and c.emulator.blob(kept[0]["id"]) == b"north"


# Family 1.


def attachment(number, more=""):
    return f"/v2/clients/1/attachments/{number}{more}"


def test_family_1_takes_bytes_for_ids_that_exist(api):
    c = api(toggles={"attachments": "2"})
    for number, data in ((9001, OFFER), (9002, b"two"), (9001, PLAN)):
        where = attachment(number, "?project_id=41")
        status, answer = c.form("POST", where, {}, ("file", "a b.bin", data))
        assert (status, answer["code"], answer["details"]) == (201, 201, [])
    rows = [a for a in c.emulator.attachments() if a["collection"] == "attachments"]
    assert [(a["remote_id"], a["record_remote_id"]) for a in rows] == [
        ("9001", "9001"),
        ("9002", "9002"),
    ]
    assert rows[0]["filename"] == "a b.bin" and c.emulator.blob(rows[0]["id"]) == PLAN
    assert len(c.list("")) == 6, "no documents"
    assert len(c("GET", "/v2/clients/1/projects")[1]["details"]) == 2, "no project"
    is_refusal(c("GET", c.document(5000 + rows[0]["id"])), 404)
    for path, body, status in (
        (attachment(9003), multipart({}, [("file", "x", b"x")]), 404),
        (attachment("x"), multipart({}, [("file", "x", b"x")]), 404),
        (attachment(9001), multipart({"file": "string"}, []), 400),
        (attachment(9001, "?project_id=99"), multipart({}, [("file", "x", b"x")]), 404),
        (attachment(9001, "?portfolio_id=8"), multipart({}, [("file", "x", b"x")]), 404),
    ):
        kind = {"Content-Type": "multipart/form-data; boundary=XbX"}
        is_refusal(c("POST", path, body, kind), status)
    c.toggle(attachments="off")
    is_refusal(c.form("POST", attachment(9001), {}, ("file", "x", b"x")), 404)


def test_family_1_may_want_to_know_where_the_record_lives(api):
    c = api(toggles={"attachments": "1"})
    queries = {"optional": "", "project": "?project_id=42", "portfolio": "?portfolio_id=7"}
    for scope, query in queries.items():
        c.toggle(attachment_scope=scope)
        for sent in queries.values():
            status = c.form("POST", attachment(9001, sent), {}, ("file", "x", b"x"))[0]
            assert status == (201 if scope == "optional" or sent == query else 400)


def test_family_1_can_be_read_by_template(api):
    c = api(toggles={"attachments": "1"})
    default, other = attachment(9001), attachment(9001, "/content")
    is_refusal(c("GET", default), 404)
    assert c.form("POST", default, {}, ("file", "x", OFFER))[0] == 201
    for toggle, path in (("default", default), ("other", other)):
        c.toggle(tpl_attachment=toggle)
        assert c.raw("GET", c.emulator.api + path, headers=auth()) == (200, OFFER)
    assert c("GET", default)[0] == 405
    c.toggle(tpl_attachment="404")
    is_refusal(c("GET", default), 404)
    is_refusal(c("GET", other), 404)


# Everything else.


@pytest.mark.parametrize("form", ["status", "200", "absent", "text"])
def test_the_code_in_the_body_only_repeats_the_status(api, form):
    c = api(toggles={"body_code": form})
    for path, status in (("/v2/clients/1", 200), ("/v2/clients/2", 403)):
        told, answer = c("GET", path)
        assert told == status
        expected = {"status": status, "200": 200, "absent": None, "text": str(status)}[form]
        assert answer.get("code") == expected


@pytest.mark.parametrize(
    "form,shown",
    [
        ("string", "Insufficient permissions"),
        ("object", {"error": "Insufficient permissions"}),
        ("array", ["Insufficient permissions"]),
    ],
)
def test_refusals_have_details_of_three_types(api, form, shown):
    c = api(toggles={"error_details": form})
    status, answer = c("GET", "/v2/clients/2")
    assert (status, answer["details"]) == (403, shown)


def test_json_may_name_its_charset(api):
    c = api()
    c.list()
    assert c.headers["Content-Type"] == "application/json"
    c.toggle(json_type="charset")
    c.list()
    assert c.headers["Content-Type"] == "application/json;charset=UTF-8"
    assert c.bytes(5001) == OFFER and c.headers["Content-Type"] == "application/octet-stream"


@pytest.mark.parametrize("retry_after", ["absent", "present"])
def test_the_throttle_answers_429(api, retry_after):
    c = api(toggles={"throttle": "3", "retry_after": retry_after})
    assert [c("GET", "/v2/clients/1")[0] for _ in range(4)] == [200, 200, 200, 429]
    assert ("Retry-After" in c.headers) == (retry_after == "present")
    if retry_after == "present":
        assert 0 < int(c.headers["Retry-After"]) <= 60
    assert c.login()[0] == 429
    c.emulator.clock(61)
    assert c("GET", "/v2/clients/1")[0] == 200


def test_changes_behind_the_back_are_seen(api):
    c = api()
    e = c.emulator
    made, _ = e.change(
        {"op": "add", "collection": "Plant B", "record": "New task", "name": "a.txt", "text": "a"},
        {"op": "add", "collection": "Plant D", "record": "Gate", "name": "g.txt", "text": "g"},
    )
    ident = made + 5000
    assert c.row(ident)["elementName"] == "New task" and c.named("g.txt", "")["projectId"] == 43
    e.change({"op": "replace", "id": made, "text": "longer"})
    e.change({"op": "rename", "id": made, "name": "b.txt"})
    e.change({"op": "move", "id": made, "collection": "Plant C", "record": "Fence"})
    row = c.row(ident)
    assert (row["name"], row["fileSize"], row["projectId"]) == ("b.txt", 6, 42)
    stored = next(a for a in e.attachments() if a["id"] == made)
    assert stored["filename"] == "b.txt"
    e.change({"op": "delete", "id": made})
    assert ident not in [d["id"] for d in c.list("")]
    fence = {"op": "delete_record", "collection": "Plant C"}
    e.change({**fence, "id": e.record_id("Plant C", "Fence")})
    assert c.list("?project_id=42") == []


def test_endpoints_in_the_log_have_no_ids(api):
    c = api()
    c.emulator.reset()
    c.login()
    c.list()
    c.create("Roof")
    c.update(5001, {"name": "x"})
    c("DELETE", c.document(5001))
    seen = set(c.emulator.summary()["by_endpoint"])
    assert seen == {
        "POST /api/v1/login",
        "GET /api/v2/clients/{id}/dms/documents",
        "POST /api/v2/clients/{id}/dms/projects/{id}/folders/{id}/parent/{id}/documents",
        "POST /api/v2/clients/{id}/dms/projects/{id}/documents/{id}",
        "DELETE /api/v2/clients/{id}/dms/projects/{id}/documents/{id}",
    }
