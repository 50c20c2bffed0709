# SPDX-License-Identifier: MIT
"""
The emulator's Enterprise Tester without a mount: the boxes and toggles of
reference/enterprise-tester.md, section 13, over plain HTTP.
"""

import base64
import http.client
import json
import random
import re
import time
from dataclasses import replace
from urllib.parse import quote, urlsplit

import pytest

from harness import ENTERPRISE_TESTER, REPOSITORY, SLOW, random_bytes

NIL = "00000000-0000-0000-0000-000000000000"
GUID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}")
OWNERS = (
    "requirements",
    "scripts",
    "incidents",
    "stepresults",
    "agilerunsteps",
    "automatedtestruns",
    "automatedtestrunnodes",
    "sets",
)
BARE = ("automatedtestruns", "automatedtestrunnodes")
EVERYTHING = [f"{owner}:7:3:5000" for owner in OWNERS]


def basic(pair):
    return {"Authorization": "Basic " + base64.b64encode(pair.encode()).decode()}


def part(data, headers, blank=True):
    return headers.encode() + (b"\r\n\r\n" if blank else b"\r\n") + data


def seed_headers(filename, name=None, size=3):
    """A part's headers as the seed has them, without its swap."""
    name = filename if name is None else name
    return (
        f"Content-Disposition: attachment; filename={filename}; name={name}; size={size}\r\n"
        f"Content-Type: text/plain\r\nContent-Length: {size}"
    )


class Client:
    """An API client that checks nothing; .headers and .body are those of the last answer."""

    def __init__(self, emulator):
        self.emulator = emulator
        self.toggle = emulator.toggle
        self.api = emulator.api
        self.headers = {}
        self.body = b""

    def __call__(self, method, path, body=None, headers=None, pair="mount:secret"):
        """Status and decoded body; @path below the base or a whole URL, @body sent as JSON."""
        where = urlsplit(path if path.startswith("http") else self.api + path)
        sent = {"Accept": "application/json", **(basic(pair) if pair else {})}
        if body is not None and not isinstance(body, bytes):
            body = json.dumps(body).encode()
            sent["Content-Type"] = "application/json"
        sent.update(headers or {})
        c = http.client.HTTPConnection(where.hostname, where.port, timeout=30 * SLOW)
        try:
            target = where.path + (f"?{where.query}" if where.query else "")
            c.request(method, target, body, sent)
            answer = c.getresponse()
            self.body = answer.read()
            self.headers = dict(answer.getheaders())
        finally:
            c.close()
        try:
            return answer.status, json.loads(self.body)
        except ValueError:
            return answer.status, self.body

    def get(self, path, **options):
        """The decoded body of a 200; @options are query options without their `$`."""
        query = "&".join(
            f"{'' if k == 'tql' else '$'}{k}={quote(str(v))}" for k, v in options.items()
        )
        status, answer = self("GET", path + ("?" + query if query else ""))
        assert status == 200, (path, query, status, answer)
        return answer

    def items(self, path, **options):
        answer = self.get(path, **options)
        return answer if isinstance(answer, list) else answer["Items"]

    def names(self, path, **options):
        return [item["Name"] for item in self.items(path, **options)]

    def post(self, path, *parts, kind="multipart/mixed; boundary=65bf6b94", end=b"--"):
        body = b"".join(b"--65bf6b94\r\n" + p + b"\r\n" for p in parts)
        return self("POST", path, body + b"--65bf6b94" + end + b"\r\n", {"Content-Type": kind})

    def upload(self, path, data=b"ABC", filename="notes.txt", name=None):
        status, answer = self.post(path, part(data, seed_headers(filename, name)))
        assert status == 201 and isinstance(answer, list) and len(answer) == 1, (status, answer)
        return answer[0]

    def contents(self, ident):
        return self("GET", f"/attachment/{ident}/contents")

    def ids(self, collection):
        return [
            r["remote_id"]
            for r in self.emulator.state()["records"]
            if r["collection"] == collection
        ]

    def owner(self, collection, index=0):
        """Where the attachments of a record are, and the path to one of them."""
        r = [r for r in self.emulator.state()["records"] if r["collection"] == collection][index]
        above = {
            "agilerunsteps": "agilerun/%s/step",
            "automatedtestrunnodes": "automatedtestrun/%s/node",
        }
        one = above.get(collection, "").replace("%s", r.get("run_remote_id", ""))
        one = one or collection.rstrip("s")
        if collection == "sets":
            return (f"/temporaryattachmentset/{r['remote_id']}",) * 2
        return f"/{one}/{r['remote_id']}/attachments", f"/{one}/{r['remote_id']}"


@pytest.fixture
def system():
    return replace(
        ENTERPRISE_TESTER, real=(), collections=("requirements", "scripts", "incidents")
    )


@pytest.fixture
def api(emulator):
    """7 records of each kind with 3 files of 5,000 bytes."""

    def make(**kwargs):
        kwargs.setdefault("generate", EVERYTHING)
        return Client(emulator(**kwargs))

    return make


# Paths, credentials.


@pytest.mark.parametrize("path", ["EnterpriseTester", "et", "none"])
def test_everything_is_below_the_application_path_in_any_case(api, path):
    c = api(toggles={"application_path": path})
    origin = "http://" + urlsplit(c.api).netloc
    base = origin + ("" if path == "none" else f"/{path}") + "/api"
    for other in (origin + "/nowhere/api", origin + ("/api" if path != "none" else "/x")):
        assert c("GET", other + "/requirements")[0] == 404
    for root in (base, base + "/", base.upper().replace("HTTP:", "http:")):
        status, answer = c("GET", root)
        assert status == 200 and {
            "Projects",
            "Search",
            "Requirements",
            "RequirementPackages",
            "ScriptPackages",
        } <= {x["Rel"] for x in answer["Links"]}
    for link in answer["Links"]:
        assert link["Href"].startswith(base + "/")
        assert c("GET", link["Href"])[0] == 200, link
    info = c("GET", base + "/SystemInfo")[1]
    assert info["RootUrl"] == base[:-3] and info["PackagePathSeparator"] == "|"
    for page in ("swagger", "swagger/api", "swagger/v2"):
        assert "apis" in c("GET", f"{base}/{page}")[1]
    one = c("GET", base + "/REQUIREMENTS?%24TOP=1&%24expand=attachments")[1]["Items"][0]
    assert one["Self"] == f"{base}/requirement/{one['Id']}" and len(one["Attachments"]) == 3
    shouted = (
        one["Self"].replace("requirement", "Requirement").replace(one["Id"], one["Id"].upper())
    )
    assert c("GET", shouted)[1]["Id"] == one["Id"]


def test_bad_credentials_are_401_or_a_login_page(api):
    c = api()
    for pair in (None, "mount:wrong", "", "x"):
        status, answer = c("GET", "/requirements", pair=pair)
        assert status == 401 and "Message" in answer
        assert c.headers["WWW-Authenticate"].startswith("Basic ")
    assert c("GET", "/requirements", headers={"Authorization": "Bearer mount:secret"})[0] == 401
    c.toggle(auth_fail="302")
    status, page = c("GET", "/requirements", pair="mount:wrong")
    assert status == 302 and b"<html" in page
    where = c.headers["Location"]
    assert where.startswith("/EnterpriseTester/login")
    status, page = c("GET", "http://" + urlsplit(c.api).netloc + where, pair=None)
    assert status == 200 and c.headers["Content-Type"].startswith("text/html")
    c.toggle(auth_fail="200")
    status, page = c("GET", "/requirements", pair="mount:wrong")
    assert status == 200 and b"<html" in page
    assert c.headers["Content-Type"].startswith("text/html")


def test_tokens_with_a_colon_are_further_pairs_and_may_be_limited_to_viewing(api):
    c = api(tokens=["ann:pass:word", "bob:p=view", "plain"])
    path = c.owner("requirements")[0]
    for pair, can_write in (("mount:secret", True), ("ann:pass:word", True), ("bob:p", False)):
        assert c("GET", path, pair=pair)[0] == 200
        status = c("POST", path, b"", pair=pair)[0]
        assert status == (415 if can_write else 403), pair
    assert c("GET", path, pair="plain")[0] == 401


# Owners.


def test_state_tells_the_ids_of_the_api_and_a_restart_shows_the_same(api):
    c = api()
    state = c.emulator.state()
    ids = [x["remote_id"] for x in state["records"] + state["attachments"]]
    assert all(GUID.fullmatch(i) for i in ids) and len(set(ids)) == len(ids)
    assert len({i[:4] for i in ids}) > len(ids) // 2, "they look random"
    again = api().emulator.state()
    assert [x["remote_id"] for x in again["records"] + again["attachments"]] == ids
    files = {a["remote_id"]: a for a in state["attachments"]}
    shown = c.items(c.owner("scripts")[0])
    for item in shown:
        a = files[item["Id"]]
        assert (item["ScriptId"], item["Size"]) == (a["record_remote_id"], a["size"])
        assert c.contents(item["Id"])[1] == c.emulator.blob(a["id"])


@pytest.mark.parametrize("owner", OWNERS)
def test_every_owner_lists_takes_and_loses_files(api, owner):
    c = api()
    several, one = c.owner(owner)
    key = {
        "requirements": "RequirementId",
        "scripts": "ScriptId",
        "incidents": "IncidentId",
        "stepresults": "StepResultId",
        "agilerunsteps": "StepId",
        "automatedtestruns": "RunId",
        "automatedtestrunnodes": "NodeId",
        "sets": "TemporaryId",
    }[owner]
    answer = c.get(several)
    assert isinstance(answer, list) == (owner in BARE)
    if owner not in BARE:
        assert set(answer) == {"Items"}
    items = c.items(several)
    assert [i["Name"] for i in items] == [f"file-000{n}.dat" for n in (1, 2, 3)]
    for i in items:
        assert i[key] == c.ids(owner)[0] and i["CreatedAt"] == "2026-01-05T09:00:00Z"
        assert i["Size"] == 5000 and i["SourceId"] is None and GUID.fullmatch(i["CreatedById"])
        assert ("RunId" in i) == (owner in BARE or owner == "agilerunsteps")
        assert i["Self"] == f"{c.api}{one}/attachment/{i['Id']}"
        assert i["Content"] == f"{c.api}/attachment/{i['Id']}/contents"
    made = c.upload(several)
    assert made[key] == items[0][key] and (made["Size"], made["ContentType"]) == (3, "text/plain")
    assert (made["Name"], made["FileName"]) == ("notes.txt", "notes.txt")
    assert c.contents(made["Id"]) == (200, b"ABC")
    twin = c.upload(several, b"other")
    assert twin["Id"] != made["Id"] and twin["Name"] == made["Name"], "names may be had twice"
    assert len(c.items(several)) == 5
    for status in (200, 404):
        assert c("DELETE", f"{one}/attachment/{made['Id']}")[0] == status
        assert c.body == b"" or status == 404
    assert c.contents(made["Id"])[0] == 404 and len(c.items(several)) == 4
    for method in ("GET", "PUT", "PATCH", "POST"):
        assert c(method, f"{one}/attachment/{twin['Id']}", {})[0] == 405
        assert c.headers["Allow"] == "DELETE"
    for method in ("PUT", "PATCH", "DELETE"):
        assert c(method, several, {})[0] == 405
    # another owner's file, another kind's id, an id made up
    other_several, other_one = c.owner(owner, 6)
    assert c("DELETE", f"{other_one}/attachment/{twin['Id']}")[0] == 404
    for wrong in (c.ids("scripts" if owner != "scripts" else "incidents")[0], NIL, "1", "x" * 36):
        gone = several.replace(c.ids(owner)[0], wrong)
        assert c("GET", gone)[0] == 404 and c.post(gone, part(b"x", seed_headers("x")))[0] == 404
    if "/step/" in several or "/node/" in several:
        mixed = several.split("/")[:3] + other_several.split("/")[3:]
        assert c("GET", "/".join(mixed))[0] == 404, "a step of another run"


def test_the_log_of_requests_shows_ids_as_such(api):
    c = api()
    for owner in OWNERS:
        several, one = c.owner(owner)
        made = c.upload(several)
        c("DELETE", f"{one}/attachment/{made['Id']}")
    c.contents(made["Id"])
    seen = {r["endpoint"].replace("/EnterpriseTester/api", "") for r in c.emulator.requests()}
    assert seen == {
        *(
            f"{method} /{owner}/{{id}}/{rest}"
            for owner in (
                "requirement",
                "script",
                "incident",
                "stepresult",
                "agilerun/{id}/step",
                "automatedtestrun",
                "automatedtestrun/{id}/node",
            )
            for method, rest in (("POST", "attachments"), ("DELETE", "attachment/{id}"))
        ),
        "POST /temporaryattachmentset/{id}",
        "DELETE /temporaryattachmentset/{id}/attachment/{id}",
        "GET /attachment/{id}/contents",
    }


def test_what_another_client_does_is_seen(api):
    c = api(generate=["requirements:1:1:10"])
    add = {"op": "add", "name": "N", "filename": "n.txt", "text": "hello"}
    ids = c.emulator.change(
        {**add, "collection": "requirements", "record": "requirements 0001"},
        {**add, "collection": "sets", "record": "a new one"},
        {"op": "add_record", "collection": "stepresults", "name": "Step"},
    )
    assert c.names(c.owner("requirements")[0]) == ["file-0001.dat", "N"]
    item = c.items(c.owner("sets")[0])[0]
    assert (item["Name"], item["FileName"], item["Size"]) == ("N", "n.txt", 5)
    before = item["Id"]
    (new,) = c.emulator.change({"op": "replace", "id": ids[1], "text": "hello again"})
    item = c.items(c.owner("sets")[0])[0]
    assert item["Id"] != before and item["Size"] == 11 and new != ids[1]
    assert c.contents(before)[0] == 404 and c.contents(item["Id"])[1] == b"hello again"
    c.emulator.change(
        {"op": "move", "id": new, "collection": "requirements", "record": "requirements 0001"}
    )
    assert c.items(c.owner("sets")[0]) == [] and len(c.items(c.owner("requirements")[0])) == 3
    c.emulator.change({"op": "delete_record", "collection": "requirements", "id": 1})
    assert c("GET", f"/attachment/{item['Id']}/contents")[0] == 404


# Runs, nodes, packages.


def test_steps_are_found_through_their_runs_of_five(api):
    c = api()
    for runs, one, expand, steps in (
        ("scriptruns", "scriptrun", "StepResults", "stepresults"),
        ("agileruns", "agilerun", "Steps", "agilerunsteps"),
    ):
        found = []
        for run in c.items(f"/{runs}"):
            assert expand not in c.get(f"/{one}/{run['Id']}")
            shown = c.get(f"/{one}/{run['Id']}", expand=expand)[expand]
            assert len(shown) in (5, 2) and all(s["HasAttachments"] for s in shown)
            assert all(s["RunId"] == run["Id"] for s in shown)
            found += [s["Id"] for s in shown]
        assert found == c.ids(steps)
    first = c.ids("stepresults")[0]
    assert len(c.get(f"/stepresult/{first}", expand="Attachments")["Attachments"]) == 3
    assert "Attachments" not in c.get(f"/stepresult/{first}")
    assert c("GET", f"/scriptrun/{first}")[0] == 404
    assert c.items("/scriptassignments") == [] and c.items("/automatedtests") == []


def test_nodes_are_bare_arrays_in_a_tree(api):
    c = api()
    run = c.ids("automatedtestruns")[0]
    nodes = c.ids("automatedtestrunnodes")[:5]

    def children(node):
        return [n["Id"] for n in c.get(f"/automatedtestrun/{run}/node/{node}/children")]

    roots = [n["Id"] for n in c.get(f"/automatedtestrun/{run}/nodes")]
    assert roots == children(NIL) == [nodes[0], nodes[4]]
    assert children(nodes[0]) == nodes[1:3] and children(nodes[1]) == [nodes[3]]
    c.toggle(nodes="all")
    assert [n["Id"] for n in c.get(f"/automatedtestrun/{run}/nodes")] == nodes
    path = f"/automatedtestrun/{run}/node/{nodes[0]}/children?statuses="
    assert c("GET", path + "Passed,Failed")[0] == 200 and c("GET", path + "Purple")[0] == 400
    assert c("GET", f"/automatedtestrun/{NIL}/nodes")[0] == 404
    assert c.get(f"/automatedtestrun/{run}")["HasAttachments"] is True


def test_nodes_without_runs_get_some(api):
    c = api(generate=["automatedtestrunnodes:6:1:10"])
    runs = c.items("/automatedtestruns")
    assert len(runs) == 2 and [r["Id"] for r in runs] == c.ids("automatedtestruns")
    assert len(c.items(c.owner("automatedtestrunnodes", 5)[0])) == 1


def test_projects_packages_and_children(api):
    c = api(generate=["requirements:20:1:10", "scripts:4:0:0"])
    projects = c.items("/projects", filter="Name eq 'Portal'")
    assert c.names("/projects", orderby="Name") == ["Back office", "Portal"]
    assert c.items("/projects", top=1, skip=1)[0]["Name"] == "Back office"
    for kind in ("requirement", "script", "execution"):
        packages = c.items(f"/{kind}packages")
        assert [p["Name"] for p in packages] == ["Auth", "Billing", "Sessions", "Invoices"]
        assert packages[0]["ProjectId"] == projects[0]["Id"]
        children = c.items(f"/{kind}package/{packages[0]['Id']}/children")
        assert [p["Id"] for p in children] == [packages[2]["Id"]]
        assert c.names(f"/{kind}packages", tql="Name = 'Auth'") == ["Auth"]
    ids = c.ids("requirements")
    children = c.items(f"/requirement/{ids[0]}/children", expand="Attachments")
    assert [r["Id"] for r in children] == [ids[9]] and len(children[0]["Attachments"]) == 1
    assert c.items(f"/requirement/{ids[1]}/children") == []
    assert c("GET", f"/requirement/{NIL}/children")[0] == 404


# Queries.


def test_items_of_attachments_take_odata_options(api):
    c = api()
    path, _ = c.owner("requirements")
    c.upload(path, b"A" * 10, "Ärger's.txt", '"the worst"')
    worst = ["the worst"]
    for text in (
        "Name eq 'THE WORST'",
        "substringof('worst',Name) eq true",
        "substringof('file',Name) eq false",
        "startswith(Name,'the') and endswith(Name,'st')",
        "not (Size ge 5000)",
        "Size lt 11 and (Name ne 'x' or Size eq 3)",
        "FileName eq 'ärger''s.txt'",
        "CreatedAt gt datetime'2026-01-06T00:00:00'",
        f"Id eq guid'{c.items(path)[3]['Id']}'",
        "ContentType eq 'text/plain'",
    ):
        assert c.names(path, filter=text) == worst, text
    assert c.names(path, orderby="Size,Name desc")[:2] == ["the worst", "file-0003.dat"]
    assert c.names(path, orderby="Name desc", top=1) == worst
    assert c.names(path, skip=3) == worst and c.items(path, skip=9) == []
    assert c.names(path, take=1) == c.names(path), "E-8: there is no $take"
    answer = c.get(path, inlinecount="allpages", top=2, skip=1)
    assert [answer[k] for k in ("Skip", "Top", "Total")] == [1, 2, 4] and len(answer["Items"]) == 2
    assert set(c.get(path, inlinecount="none")) == {"Items"}
    for bad in (
        "filter=x eq",
        "filter=Bogus eq 1",
        "filter=(Name eq 'x'",
        "top=x",
        "skip=-1",
        "orderby=Bogus",
        "filter=" + "(" * 3000,
        "filter=Name eq 'x",
    ):
        assert c("GET", f"{path}?${quote(bad, safe='=')}")[0] == 400, bad
    bare, _ = c.owner("automatedtestruns")
    assert len(c.items(bare, top=1)) == 3, "bare arrays take no options"


def test_lists_of_records_take_tql_and_show_25_at_first(api):
    c = api(generate=["requirements:40:1:10", "scripts:5:0:1", "incidents:5:1:1"])
    everything = c.items("/requirements", top=1000)
    assert len(c.items("/requirements")) == 25 and len(everything) == 40, "E-26"
    pages = [c.names("/requirements", tql="ORDER BY Name", top=15, skip=s) for s in (0, 15, 30)]
    assert sum(pages, []) == [r["Name"] for r in everything]
    one = everything[3]
    for text, expected in (
        ("Name = 'requirements 0004'", 1),
        ('name ~ "ents 000"', 9),
        ("Name !~ '0'", 0),
        (f"Package='{one['PackageId']}'", 10),
        (f"PackageName = \"{one['PackageName']}\"", 10),
        ("Id IN Packages('Auth')", 10),
        ('Project = "Portal"', 20),
        ('Project != "Portal" AND Number <= 4', 2),
        (f"Id in ('{one['Id']}', '{NIL}')", 1),
        ("Number NOT IN (1, 2, 3)", 37),
        ("EntityType = Requirement", 40),
        ("(Number = 1 OR Number = 2) AND NOT Number = 2", 1),
        ("HasAttachments = true", 40),
        ("LastUpdatedAt > '2026-01-05' ORDER BY LastUpdatedAt DESC, Number DESC", 40),
        ("", 40),
    ):
        found = c.items("/requirements", tql=text, top=1000)
        assert len(found) == expected, text
    assert c.items("/requirements", tql="ORDER BY Number DESC")[0]["Number"] == 40
    for bad in (
        "Bogus = 1",
        "Name",
        "Name =",
        "Name = 'x",
        "ORDER",
        "ORDER BY",
        "AND",
        "Name = 1 2",
    ):
        status, answer = c("GET", "/requirements?tql=" + quote(bad))
        assert status == 400 and "Message" in answer, bad
    c.toggle(tql_has_attachments="refused")
    assert c("GET", "/requirements?tql=HasAttachments%20=%20true")[0] == 400
    incident = c.items("/incidents", tql="Summary = 'incidents 0002'")[0]
    assert incident["IncidentNumber"] == 2 and "Name" not in incident
    kinds = {i["EntityType"] for i in c.items("/search", top=100)}
    assert kinds == {"Requirement", "Script", "Incident"}
    for kind in kinds:
        assert {i["EntityType"] for i in c.items("/search", tql=f"EntityType = {kind}")} == {kind}
    form = {"Content-Type": "application/x-www-form-urlencoded"}
    status, answer = c("POST", "/search", b"tql=Name+%7E+%22scripts%22&timeZone=UTC", form)
    assert status == 200 and len(answer["Items"]) == 5


def test_totals_come_when_asked_for_or_always(api):
    c = api()
    attachments, _ = c.owner("scripts")
    for toggle, tql, odata in (
        ("inlinecount", False, False),
        ("always", True, True),
        ("tql", True, False),
    ):
        c.toggle(totals=toggle)
        for path, expected in (("/scripts", tql), (attachments, odata), ("/projects", odata)):
            assert ("Total" in c.get(path)) == expected, (toggle, path)
            assert c.get(path, inlinecount="allpages")["Skip"] == 0
    assert c.get("/scripts", top=2)["Top"] == 2


def test_pages_have_defaults_limits_and_no_order_of_their_own(api):
    c = api(generate=["requirements:40:0:0", "scripts:1:12:10"])
    files, _ = c.owner("scripts")
    for toggle, value, path, given, expected in (
        ("tql_top", 7, "/requirements", {}, 7),
        ("tql_top", "off", "/requirements", {}, 40),
        ("odata_top", 5, files, {}, 5),
        ("odata_top", 5, files, {"top": 9}, 9),
        ("odata_top", "off", files, {}, 12),
        ("top_max", 10, "/requirements", {"top": 1000}, 10),
        ("top_max", 10, files, {}, 10),
        ("top_max", "off", "/requirements", {"top": 1000}, 40),
    ):
        c.toggle(**{toggle: value})
        assert len(c.items(path, **given)) == expected, (toggle, value)
    stable = c.names("/requirements", top=100)
    assert c.names("/requirements", top=100) == stable
    c.toggle(unordered="shuffled")
    seen = [c.names("/requirements", top=100) for _ in range(2)]
    assert seen[0] != seen[1] and sorted(seen[0]) == sorted(seen[1]) == sorted(stable)
    assert c.names("/requirements", top=100, tql="ORDER BY Name") == stable
    assert c.names(files, orderby="Id") == c.names(files, orderby="Id")


@pytest.mark.parametrize("kind", ["requirements", "scripts", "incidents"])
def test_attachments_expand_in_lists_and_alone(api, kind):
    c = api()
    for item in c.items(f"/{kind}", expand="Foo,Attachments"):
        one = c.get(f"/{kind[:-1]}/{item['Id']}", expand="attachments")
        assert len(item["Attachments"]) == 3 and one["Attachments"] == item["Attachments"]
        assert c.items(f"/{kind[:-1]}/{item['Id']}/attachments") == item["Attachments"]
    assert "Attachments" not in c.items(f"/{kind}")[0]


def test_a_thousand_records_with_ten_files_are_listed_at_once(api):
    c = api(generate=["requirements:1000:10:4096"])
    start = time.monotonic()
    found = []
    while len(found) % 100 == 0 and len(found) < 1000:
        found += c.items(
            "/requirements",
            tql="ORDER BY Number",
            top=100,
            skip=len(found),
            expand="Attachments",
        )
    took = time.monotonic() - start
    assert len(found) == 1000 and sum(len(r["Attachments"]) for r in found) == 10_000
    assert took < 1 * SLOW, took


# Uploads.


def test_parts_are_files_by_their_filename_whatever_they_are_called(api):
    c = api()
    path, _ = c.owner("requirements")
    disposition = "Content-Disposition: "
    for headers, filename, name in (
        ("attachment; filename=a.txt; name=a; size=122454", "a.txt", "a"),
        ('attachment; filename="a b.txt"; name="a b"', "a b.txt", "a b"),
        ("attachment; name=a;filename=a.txt", "a.txt", "a"),
        ("ATTACHMENT ;FILENAME=a.txt", "a.txt", "a.txt"),
        ('form-data; name="report"; filename="r.xml"', "r.xml", "report"),
        ("form-data; name=fileupload; filename=r.xml", "r.xml", "fileupload"),
        ('attachment; filename="q\\"\\\\.txt"; name=";"', 'q"\\.txt', ";"),
        ("attachment; filename=it's.txt", "it's.txt", "it's.txt"),
        ('attachment; filename="dir/x.txt"', "dir/x.txt", "dir/x.txt"),
        ('attachment; filename="Größe 😀.txt"', "Größe 😀.txt", "Größe 😀.txt"),
    ):
        status, answer = c.post(path, part(b"ABC", disposition + headers))
        assert status == 201, headers
        assert (answer[0]["FileName"], answer[0]["Name"]) == (filename, name), headers
        assert answer[0]["Size"] == 3, "E-3"
    for kind in ("multipart/form-data", "multipart/x-anything"):
        status, answer = c.post(
            path, part(b"", seed_headers("e.txt")), kind=kind + '; boundary="65bf6b94"'
        )
        assert status == 201 and answer[0]["Size"] == 0
    several = [part(b"no. %d" % i, seed_headers(f"{i}.txt")) for i in range(3)]
    status, answer = c.post(path, *several)
    assert status == 201 and [a["Name"] for a in answer] == ["0.txt", "1.txt", "2.txt"]
    assert [c.contents(a["Id"])[1] for a in answer] == [b"no. 0", b"no. 1", b"no. 2"]
    status, answer = c.post(path, part(b"<p>", disposition + "attachment; filename=p.html"))
    assert answer[0]["ContentType"] == "text/html", "guessed"


def test_no_file_is_403_and_no_multipart_415(api):
    c = api()
    path, _ = c.owner("requirements")
    before = len(c.emulator.attachments())
    for parts in (
        [],
        [part(b"ABC", "Content-Disposition: attachment; name=x")],
        [part(b"ABC", 'Content-Disposition: attachment; name=x; filename=""')],
        [part(b"ABC", "Content-Disposition: inline; filename=x")],
        [part(b"ABC", "Content-Type: text/plain")],
    ):
        status, answer = c.post(path, *parts)
        assert status == 403 and "Message" in answer, "E-11"
    for kind in ("application/octet-stream", "application/json", "multipart/mixed", "multipart"):
        assert c.post(path, part(b"ABC", seed_headers("x")), kind=kind)[0] == 415
    assert c("POST", path)[0] == 415
    assert len(c.emulator.attachments()) == before


def test_a_missing_blank_line_is_tolerated_or_not(api):
    c = api()
    path, _ = c.owner("requirements")
    seed = part(b"ABC", seed_headers("notes.txt"), blank=False)
    assert c.post(path, seed)[0] == 403
    status, answer = c.post(path, seed, part(b"DEF", seed_headers("second.txt")))
    assert status == 201 and [a["Name"] for a in answer] == ["second.txt"]
    c.toggle(mime_strict="off")
    status, answer = c.post(path, seed, part(b"DEF", seed_headers("second.txt")))
    assert status == 201 and [a["Name"] for a in answer] == ["notes.txt", "second.txt"]
    bodies = [b"ABC", b"DEF"]
    for data in (b"...", b"x" * 200_000, b"\x00\x01\n\r\n--65bf6b9\r\n", b"a line\r\nb: c\r\n"):
        for blank in (True, False):
            status, one = c.post(path, part(data, seed_headers("x"), blank))
            answer += one
            bodies.append(data)
    assert [c.contents(a["Id"])[1] for a in answer] == bodies
    empty = b"Content-Disposition: attachment; filename=empty.txt"
    status, answer = c.post(path, empty)
    assert status == 201 and answer[0]["Size"] == 0
    kind = {"Content-Type": "multipart/mixed; boundary=65bf6b94"}
    status, answer = c("POST", path, b"--65bf6b94\n" + empty + b"\n--65bf6b94--", kind)
    assert status == 201 and answer[0]["FileName"] == "empty.txt", "it ends without a line's end"
    c.toggle(mime_strict="on")
    assert c.post(path, empty)[0] == 403


def test_dispositions_may_be_limited(api):
    c = api()
    path, _ = c.owner("requirements")
    attachment = part(b"A", "Content-Disposition: attachment; filename=a")
    form = part(b"F", "Content-Disposition: form-data; name=f; filename=f")
    for value, expected in (
        ("both", ["a", "f"]),
        ("attachment", ["a"]),
        ("form-data", ["f"]),
    ):
        c.toggle(dispositions=value)
        assert [a["FileName"] for a in c.post(path, attachment, form)[1]] == expected


def test_refused_parts_take_the_others_along_or_not(api):
    c = api(toggles={"part_max": 10})
    path, _ = c.owner("requirements")
    good, big = part(b"x" * 10, seed_headers("good")), part(b"x" * 11, seed_headers("big"))
    assert c.post(path, big)[0] == 403
    status, answer = c.post(path, good, big)
    assert status == 403 and "alidation" in answer["Message"] and len(c.items(path)) == 3
    c.toggle(partial_upload="others")
    status, answer = c.post(path, good, big, good)
    assert status == 201 and [a["Name"] for a in answer] == ["good", "good"]
    assert c.post(path, big)[0] == 403 and len(c.items(path)) == 5
    c.toggle(part_max="off", bad_names="refused")
    bad = part(b"x", 'Content-Disposition: attachment; filename="a|b"')
    assert c.post(path, bad)[0] == 403
    c.toggle(bad_names="accepted")
    assert c.post(path, bad)[0] == 201


def test_names_may_come_back_in_another_charset(api):
    c = api(toggles={"header_charset": "latin-1"})
    made = c.upload(c.owner("scripts")[0], filename="ü.txt")
    assert made["FileName"] == "ü.txt".encode().decode("latin-1")


@pytest.mark.parametrize(
    "limit,largest,status",
    [
        ("none", 0, 201),
        ("4mb-500", 4 << 20, 500),
        ("4mb-400", 4 << 20, 400),
        ("30mb-404", 30_000_000, 404),
        ("30mb-413", 30_000_000, 413),
    ],
)
def test_large_requests_are_refused_with_a_page(api, limit, largest, status):
    c = api(toggles={"max_request": limit})
    path, _ = c.owner("requirements")
    data = b"x" * (largest or 5 << 20)
    assert c.post(path, part(data, seed_headers("x")))[0] == status
    if largest:
        assert b"<html" in c.body and (status != 404 or b"404.13" in c.body)
        assert c.post(path, part(data[:-1000], seed_headers("x")))[0] == 201
        c.toggle(max_request_bytes=500)
        assert c.post(path, part(data[:500], seed_headers("x")))[0] == status


def test_bodies_survive_near_boundaries_and_any_chunks(api):
    c = api()
    path, _ = c.owner("requirements")
    where = urlsplit(c.api)
    rng = random.Random(5)
    for strict in ("on", "off"):
        c.toggle(mime_strict=strict)
        for tail in (b"", b"\r", b"\n", b"\r\n", b"\r\n--b", b"--bX", b"\r\n-", b"\r\n--xx"):
            data = b"\r\n--bo" * rng.choice([1, 300]) + tail
            body = b"preamble\r\n--bXc\r\n" + part(data, seed_headers("x")) + b"\r\n--bXc--\r\nend"
            pieces = []
            while body:
                n = rng.choice([1, 2, 3, 7, 50, 2000])
                pieces.append(body[:n])
                body = body[n:]
            h = http.client.HTTPConnection(where.hostname, where.port, timeout=30 * SLOW)
            headers = {
                **basic("mount:secret"),
                "Content-Type": "multipart/mixed; boundary=bXc",
                "Transfer-Encoding": "chunked",
            }
            h.request("POST", where.path + path, iter(pieces), headers, encode_chunked=True)
            answer = h.getresponse()
            made = json.loads(answer.read())
            h.close()
            assert answer.status == 201 and c.contents(made[0]["Id"])[1] == data


def test_hostile_bodies_are_refused_and_survived(api):
    c = api()
    path, _ = c.owner("requirements")
    rng = random.Random(7)
    pieces = [
        b"--65bf6b94",
        b"\r\n",
        b"\n",
        b"--",
        b"Content-Disposition: attachment; filename=",
        b'"',
        b";",
        b"=",
        b"x",
        b"Content-Type:",
        b"\x00",
        b"\xff",
        b":",
        b"name",
    ]
    kind = {"Content-Type": "multipart/mixed; boundary=65bf6b94"}
    for strict in ("on", "off"):
        c.toggle(mime_strict=strict)
        for _ in range(150):
            body = b"".join(rng.choice(pieces) for _ in range(rng.randrange(40)))
            assert c("POST", path, body, kind)[0] in (201, 403)
        assert c("POST", path, b"--65bf6b94\r\n" + b"h" * 200_000, kind)[0] in (400, 403)
    assert c("GET", path)[0] == 200


def test_uploads_without_an_owner_are_404_or_403(api):
    c = api()
    gone = f"/requirement/{NIL}/attachments"
    for status in (404, 403):
        c.toggle(upload_no_owner=str(status))
        assert c.post(gone, part(b"x", seed_headers("x")))[0] == status
        assert c("GET", gone)[0] == 404


# Bytes.


def test_contents_come_in_ranges_or_whole_with_or_without_headers(api):
    c = api()
    a = c.emulator.attachments()[0]
    ident = a["remote_id"]
    full = c.emulator.blob(a["id"])
    assert c.contents(ident) == (200, full) and "ETag" not in c.headers
    assert c.headers["Content-Disposition"] == 'attachment; filename="file-0001.dat"'
    path = f"/attachment/{ident}/contents"
    assert c("GET", path, headers={"Range": "bytes=10-19"}) == (206, full[10:20])
    assert c("GET", path, headers={"Range": "bytes=9000-"})[0] == 416
    for header in ("If-Match", "If-None-Match", "If-Range"):
        assert c("GET", path, headers={header: '"x"', "Range": "bytes=0-1"})[0] in (200, 206, 412)
    assert c("HEAD", path)[0] == 200 and c.headers["Content-Length"] == "5000"
    assert c("PUT", path, b"x")[0] == 405 and c("DELETE", path)[0] == 405
    c.toggle(range="ignored", etag="on", content_disposition="off")
    assert c("GET", path, headers={"Range": "bytes=10-19"}) == (200, full)
    assert "Content-Disposition" not in c.headers
    assert c("GET", path, headers={"If-None-Match": c.headers["ETag"]})[0] == 304
    made = c.upload(c.owner("scripts")[0], b"<html>", "page.html")
    assert c.contents(made["Id"])[1] == b"<html>"
    assert c.headers["Content-Type"] == made["ContentType"] == "text/plain"
    c.toggle(contents_type="octet-stream")
    c.contents(made["Id"])
    assert c.headers["Content-Type"] == "application/octet-stream"
    c.toggle(content_length="off", range="206")
    assert c("GET", path, headers={"Range": "bytes=10-19"}) == (206, full[10:20])
    assert c.contents(ident) == (200, full) and "Content-Length" not in c.headers
    assert c("HEAD", path)[0] == 200
    for wrong in (NIL, ident[:-1] + ("1" if ident[-1] == "0" else "0"), c.ids("scripts")[0], "x"):
        assert c.contents(wrong)[0] == 404
    big = random_bytes(3 << 20, "big")
    made = c.upload(c.owner("scripts")[0], big)
    assert c.contents(made["Id"]) == (200, big)


# Temporary sets.


def new_set(c):
    status, answer = c("POST", "/temporaryattachmentsets")
    assert status == 201 and c.headers["Location"] == answer["Self"]
    assert answer["Self"] == f"{c.api}/temporaryattachmentset/{answer['Id']}"
    return answer["Id"]


def package_of(c, kind):
    return c.items(f"/{'script' if kind == 'scripts' else 'requirement'}packages")[0]["Id"]


def record_body(c, kind, **more):
    if kind == "incidents":
        return {"Summary": "New", **more}
    return {"Name": "New", "PackageId": package_of(c, kind), **more}


def test_a_set_is_made_filled_listed_and_emptied(api):
    c = api(generate=["requirements:1:0:0"])
    ident = new_set(c)
    assert c("GET", "/temporaryattachmentsets")[0] == 405, "E-14"
    (record,) = [r for r in c.emulator.state()["records"] if r["collection"] == "sets"]
    assert record["remote_id"] == record["name"] == ident
    path = f"/temporaryattachmentset/{ident}"
    assert c.get(path) == {"Items": []}
    made = c.upload(path)
    assert made["TemporaryId"] == ident and c.items(path) == [made]
    c.toggle(get_status="201")
    assert c("GET", path) == (201, {"Items": [made]}), "E-1"
    assert c("GET", c.owner("requirements")[0])[0] == 200
    c.toggle(get_status="200", delete_status="204")
    assert c("DELETE", f"{path}/attachment/{made['Id']}") == (204, b"")
    assert c("DELETE", path)[0] == 405 and c("PUT", path, {})[0] == 405


@pytest.mark.parametrize("how", ["consumed", "copied", "ignored"])
@pytest.mark.parametrize("kind", ["requirements", "scripts", "incidents"])
def test_records_made_or_replaced_take_the_files_of_a_set(api, kind, how):
    c = api(toggles={"temporary_id": how})
    there = c.ids(kind)[0]
    for method, path, before in (("POST", f"/{kind}", 0), ("PUT", f"/{kind[:-1]}/{there}", 3)):
        ident = new_set(c)
        made = c.upload(f"/temporaryattachmentset/{ident}")
        status, answer = c(method, path, record_body(c, kind, TemporaryId=ident))
        assert status == (201 if (method, kind) == ("POST", "scripts") else 200)
        assert answer["Summary" if kind == "incidents" else "Name"] == "New"
        files = c.items(f"/{kind[:-1]}/{answer['Id']}/attachments")
        assert len(files) == before + (how != "ignored")
        assert answer["HasAttachments"] == (len(files) > 0)
        if how != "ignored":
            assert c.contents(files[-1]["Id"]) == (200, b"ABC")
            assert (files[-1]["Id"] == made["Id"]) == (how == "consumed")
        status = c("GET", f"/temporaryattachmentset/{ident}")[0]
        assert status == (404 if how == "consumed" else 200)
    if how != "ignored":
        assert c("POST", f"/{kind}", record_body(c, kind, TemporaryId=there))[0] == 403
    assert c("POST", f"/{kind}", record_body(c, kind, TemporaryId=None))[0] in (200, 201)


def test_incidents_may_not_know_sets(api):
    c = api(toggles={"incident_temporary_id": "off"})
    ident = new_set(c)
    c.upload(f"/temporaryattachmentset/{ident}")
    status, answer = c("POST", "/incidents", record_body(c, "incidents", TemporaryId=ident))
    assert status == 200 and answer["HasAttachments"] is False
    assert len(c.items(f"/temporaryattachmentset/{ident}")) == 1


def test_sets_are_swept_in_time(api):
    c = api()
    ident = new_set(c)
    made = c.upload(f"/temporaryattachmentset/{ident}")
    c.emulator.clock(10_000)
    assert c("GET", f"/temporaryattachmentset/{ident}")[0] == 200
    c.emulator.clock(0)
    c.toggle(set_ttl=600)
    assert c("GET", f"/temporaryattachmentset/{ident}")[0] == 200
    c.emulator.clock(601)
    assert c("GET", f"/temporaryattachmentset/{ident}")[0] == 404
    assert c.contents(made["Id"])[0] == 404 and c.ids("sets") == []
    assert c.post(f"/temporaryattachmentset/{ident}", part(b"x", seed_headers("x")))[0] == 404
    assert {a["collection"] for a in c.emulator.attachments()} == set(OWNERS) - {"sets"}


# Records.


def test_records_are_validated_made_and_patched(api):
    c = api()
    for body in (
        {},
        {"Name": "", "PackageId": package_of(c, "requirements")},
        {"Name": "a|b", "PackageId": package_of(c, "requirements")},
        {"Name": "x"},
        {"Name": "x", "PackageId": NIL},
        {"Name": "x", "PackageId": package_of(c, "scripts")},
    ):
        status, answer = c("POST", "/requirements", body)
        assert status == 403 and "Message" in answer, body
    assert c("POST", "/requirements", b"nonsense", {"Content-Type": "application/json"})[0] == 400
    status, made = c("POST", "/requirements", record_body(c, "requirements"))
    assert status == 200 and made["VersionNumber"] == 1 and made["Id"] in c.ids("requirements")
    path = f"/requirement/{made['Id']}"
    assert c("PATCH", path, {"Name": "Renamed"}) == (204, b"")
    after = c.get(path)
    assert (after["Name"], after["VersionNumber"]) == ("Renamed", 2)
    assert c("PATCH", f"/script/{c.ids('scripts')[0]}", {})[0] == 405
    assert c("DELETE", path)[0] == 405 and c("PATCH", f"/requirement/{NIL}", {})[0] == 404


def test_files_move_the_version_of_their_record_or_not(api):
    c = api(generate=["requirements:1:1:10"])
    path, one = c.owner("requirements")
    add = {"op": "add", "collection": "requirements", "record": 1, "name": "n", "text": "x"}
    for toggle, step in (("on", 1), ("off", 0)):
        c.toggle(bump_on_attach=toggle)
        for act in (
            lambda: c.upload(path),
            lambda: c("DELETE", f"{one}/attachment/{c.items(path)[-1]['Id']}"),
            lambda: c.emulator.change(add),
        ):
            before = c.get(one)
            act()
            after = c.get(one)
            assert after["VersionNumber"] == before["VersionNumber"] + step
            if not step:
                assert after["LastUpdatedAt"] == before["LastUpdatedAt"]
    c.toggle(bump_on_attach="on")
    c.emulator.clock(5000)
    c.upload(path)
    assert c.get(one)["LastUpdatedAt"] > after["LastUpdatedAt"]
    newest = c.items("/requirements", tql="ORDER BY LastUpdatedAt DESC", top=1)
    assert newest[0]["Id"] == c.ids("requirements")[0]


def test_has_attachments_is_shown_or_not(api):
    c = api(generate=["requirements:1:1:10", "scripts:1:0:0"])
    assert c.items("/requirements")[0]["HasAttachments"] is True
    assert c.items("/scripts")[0]["HasAttachments"] is False
    c.toggle(has_attachments="absent")
    assert "HasAttachments" not in c.items("/requirements")[0]
    c.toggle(has_attachments="false")
    assert c.items("/requirements")[0]["HasAttachments"] is False


# Odd answers.


def test_guids_may_be_nil(api):
    c = api()
    paths = [c.owner(owner)[0] for owner in OWNERS]
    for toggle in ("off", "sets", "content", "everywhere"):
        c.toggle(nil_guid=toggle)
        for path in paths:
            is_set = "temporary" in path
            nil = toggle == "everywhere" or (toggle == "sets" and is_set)
            for item in c.items(path) + [c.upload(path)]:
                assert (item["Id"] == NIL) == nil, (toggle, path)
                assert item["Self"].endswith(NIL) == nil
                assert (NIL in item["Content"]) == (nil or toggle == "content")


def test_names_may_be_swapped(api):
    c = api(generate=["requirements:1:0:0"])
    path, _ = c.owner("requirements")
    parts = [part(b"x", seed_headers(f"{i}.txt", f"n{i}")) for i in range(3)]
    for toggle, swapped in (("never", ()), ("second", (1,)), ("always", (0, 1, 2))):
        c.toggle(name_swap=toggle)
        status, answer = c.post(path, *parts)
        for i, item in enumerate(answer):
            names = (item["Name"], item["FileName"])
            assert names == ((f"{i}.txt", f"n{i}") if i in swapped else (f"n{i}", f"{i}.txt"))
        listed = c.items(path)
        assert [a["FileName"] == "n0" for a in listed[:1]] == [toggle == "always"]
    c.toggle(name_swap="second")
    assert c.names(path) == ["n0", "1.txt", "n2", "0.txt", "n1", "2.txt", "n0", "1.txt", "n2"]
    stored = {(a["name"], a["filename"]) for a in c.emulator.attachments()}
    assert stored == {(f"n{i}", f"{i}.txt") for i in range(3)}


def test_links_may_lead_astray(api):
    c = api()
    path, one = c.owner("requirements")
    origin = "http://" + urlsplit(c.api).netloc
    for toggle, base in (
        ("base", c.api),
        ("internal", "http://et-internal.example/EnterpriseTester/api"),
        ("api-api", c.api + "/api"),
        ("no-path", origin + "/api"),
    ):
        c.toggle(link_host=toggle)
        item = c.items(path)[0]
        assert item["Self"] == f"{base}{one}/attachment/{item['Id']}"
        assert item["Content"] == f"{base}/attachment/{item['Id']}/contents"
        assert c.get(one)["Self"] == base + one
        assert c.get("/")["Links"][0]["Href"] == base + "/projects"
        assert c("POST", "/temporaryattachmentsets")[1]["Self"].startswith(base)


def test_owner_ids_may_be_those_of_others_and_links_may_miss(api):
    c = api(toggles={"owner_id": "other", "self_links": "off"})
    path, one = c.owner("requirements")
    item = c.items(path)[0]
    assert item["RequirementId"] not in one and GUID.fullmatch(item["RequirementId"]), "E-15"
    assert not {"Self", "Content"} & set(item), "E-23"
    assert not {"Self", "Links", "Expands"} & set(c.get(one))
    c.toggle(owner_id="asked", self_links="on")
    item = c.items(path)[0]
    assert item["RequirementId"] in one and "Content" in item and c.get(one)["Links"] == []


def test_errors_have_a_message_a_page_or_nothing(api):
    c = api()
    wrong = f"/attachment/{NIL}/contents"
    status, answer = c("GET", wrong)
    assert status == 404 and set(answer) == {"Message"}
    c.toggle(error_body="html")
    assert c("GET", wrong)[0] == 404 and b"<html" in c.body
    assert c.headers["Content-Type"].startswith("text/html")
    c.toggle(error_body="empty")
    assert c("GET", wrong) == (404, b"") and c("GET", "/nowhere") == (404, b"")
    assert c("PUT", c.owner("scripts")[0], {}) == (405, b"")
    assert c.post(c.owner("scripts")[0]) == (403, b"")


def test_every_toggle_is_told_of_in_the_readme_with_its_default_first(api):
    c = api()
    toggles = json.loads(c.emulator.ask("GET", "/set"))
    text = (REPOSITORY / "tests/server/README.md").read_text()
    table = text.split("## Toggles of Enterprise Tester")[1].split("\n## ")[0]
    told = {}
    for row in re.findall(r"^\| (`.*?) \| (.*?) \|", table, re.M):
        names = re.findall(r"`(\w+)`", row[0])
        values = row[1].split("; ") if len(names) > 1 else [row[1]]
        for i, name in enumerate(names):
            told[name] = values[i if len(values) > 1 else 0].split(", ")
    assert set(told) == set(toggles)
    for name, values in told.items():
        assert values[0] == str(toggles[name] or "off"), name
        for value in values:
            if value not in ("N", "bytes"):
                c.toggle(**{name: value})
