# SPDX-License-Identifier: MIT
"""
Answers made to do harm: names and ids that climb, links to other schemes and hosts, answers without an
end, deeper, longer or of other types than agreed, lengths that lie. Expected: right bytes or a telling
errno, bounded memory, nothing touched but the cache, and a daemon that is well afterwards.

ATTACHFS_TEST_LONG=1 has the large numbers: 100,000 equal names, millions of values.
"""

import errno
import gzip
import json
import os
import threading
import time
from pathlib import Path

import pytest

from harness import Gate, PERSCOM, SYSTEMS, numbered, raises_errno, small_tree, wait_until

LONG = bool(os.environ.get("ATTACHFS_TEST_LONG"))
ADA = "users/Ada Byron"
MANY = 3_000_000 if LONG else 400_000
TROUBLE = r"."  # every error line is what such a server should cause; crashes are another pattern
REFUSED = (
    errno.EIO,
    errno.EACCES,
    errno.EINVAL,
    errno.EPERM,
    errno.EHOSTDOWN,
    errno.ETIMEDOUT,
    errno.ENOENT,
    errno.ESTALE,
    errno.EFBIG,
    errno.EPROTO,
    errno.ELOOP,
    errno.ENOMEM,
)
MEMORY_BYTES = 700 << 20  # what a daemon may have needed at most, an answer of 64 MiB at hand


def peak_bytes(m) -> int:
    """The most memory the daemon had at once."""
    with open(f"/proc/{m.process.pid}/status") as f:
        return 1024 * int(next(line for line in f if line.startswith("VmHWM")).split()[1])


def sanitized(m) -> bool:
    with open(f"/proc/{m.process.pid}/maps") as f:
        return "libasan" in f.read()


class Outside:
    """What lies around the mount, but for the cache and the log."""

    def __init__(self, m):
        self.m = m
        self.before = self.look()

    def look(self):
        spared = {self.m.cache, self.m.path, self.m.log_file, self.m.output}
        found = []
        for folder, folders, files in os.walk(self.m.base.parent):
            here = Path(folder)
            folders[:] = [f for f in folders if here / f not in spared and f != "spool"]
            for name in files:
                if here / name not in spared:
                    st = os.stat(here / name)
                    found.append((str(here / name), st.st_size, st.st_mtime_ns))
        return sorted(found)

    def untouched(self):
        assert self.look() == self.before


def hostile(drive, **options):
    m = drive(**{"poll": 0, "timeout": 5, **options})
    m.same_at_end = False
    m.allow_errors(TROUBLE)
    m.outside = Outside(m)
    return m


def well_again(m, path=ADA):
    """The daemon lives, kept within its memory, and shows the truth once the server tells it."""
    assert m.process.poll() is None, m.said()
    if not sanitized(m):
        assert peak_bytes(m) < MEMORY_BYTES, f"{peak_bytes(m) >> 20} MiB"
    m.outside.untouched()
    m.emulator.heal()
    m.command("refresh", ok=None)
    wait_until(lambda: shows(m / path, "notes.txt"), "the listing once the server is well")
    assert (m / path / "notes.txt").read_bytes() == m.emulator.bytes_of(f"{ADA}/notes.txt")


def shows(path, name) -> bool:
    try:
        return name in os.listdir(path)
    except OSError:
        return False


def text(body, **more) -> dict:
    return {"status": 200, "content_type": "application/json", "body": body, **more}


ANSWERS = {
    "deep": text("[" * 1_000_000),
    "deep objects": text('{"data":' * 500_000),
    "deep and closed": text("[" * 300_000 + "]" * 300_000),
    "many": text('{"data":[' + "{}," * MANY + "{}]}"),
    "many numbers": text("[" + "0," * MANY + "0]"),
    "many keys": text("{" + ",".join(f'"{i}":{i}' for i in range(MANY // 4)) + "}"),
    "a long number": text('{"data":' + "9" * 1_000_000 + "}"),
    "a long text": text('{"data":"' + "x" * 8_000_000 + '"}'),
    "without an end": {"append": 10_000_000_000},
    "no JSON": text("<html>hello</html>", content_type="text/html"),
    "nothing": text(""),
    "null": text("null"),
    "true": text("true"),
    "a number": text("7"),
    "a list of lists": text("[[[]],[[]]]"),
    "data of another type": text('{"data":{"a":1},"details":7,"Items":"x","meta":[],"links":7}'),
    "rows of other types": text(
        '{"data":[7,null,"x",[],{}],"details":[7,null,[],{}],"Items":[null,7,{}],"meta":{"last_page":"x"}}'
    ),
    "pages without an end": text(
        '{"data":[],"details":[],"Items":[],"Total":9223372036854775807,"Skip":-1,'
        '"meta":{"current_page":1,"last_page":9223372036854775807,"per_page":-1},'
        '"links":{"next":"file:///etc/passwd"}}'
    ),
    "a long header": {"headers": {"X-Long": "x" * 1_000_000}},
    "many headers": {"headers": {f"X-{i}": "x" * 900 for i in range(1200)}},
    "packed": text("\u001f\u008bno gzip at all", headers={"Content-Encoding": "gzip"}),
    "packed twice": text("{}", headers={"Content-Encoding": "gzip, br, deflate"}),
    "cut": {"cut_after": 20},
    "shorter than told": {"truncate_declared": 20},
    "to a file": {"status": 302, "headers": {"Location": "file:///etc/passwd"}},
    "to ftp": {"status": 302, "headers": {"Location": "ftp://127.0.0.1/x"}},
    "to gopher": {"status": 307, "headers": {"Location": "gopher://127.0.0.1:25/xHELO"}},
    "to a socket": {"status": 302, "headers": {"Location": "http://127.0.0.1:1/"}},
    "to itself": {"status": 302, "headers": {"Location": "."}},
    "to nowhere": {"status": 302, "headers": {"Location": "http:///"}},
    "with a line break": {"status": 302, "headers": {"Location": "http://127.0.0.1/%0d%0aX: y"}},
    "odd status": {"status": 299, "body": "{}"},
    "status 999": {"status": 999, "body": "{}"},
}


@pytest.mark.parametrize("what", ANSWERS)
def test_a_list_that_does_harm_is_an_error(drive, what):
    m = hostile(drive)
    m.emulator.faults({**m.system.api, **ANSWERS[what]})
    try:
        # an empty list is an answer, too, where nothing is wrong with it
        assert not set(os.listdir(m / "users")) - {"Ada Byron", "Grace Hopper", "Nobody"}
    except OSError as e:
        assert e.errno in REFUSED, e
    well_again(m)


BYTES = {
    "a wrong length": {"truncate_declared": 100},
    "more than there is": {"append": 1_000_000},
    "without an end": {"append": 10_000_000_000},
    "another range": {"shift_range": 5},
    "a range of nonsense": {"status": 206, "body": "x", "headers": {"Content-Range": "bytes 9-3/-1"}},
    "a huge range": {
        "status": 206,
        "body": "x",
        "headers": {"Content-Range": "bytes 0-18446744073709551615/18446744073709551616"},
    },
    "a page": {"status": 200, "body": "<html>log in</html>", "content_type": "text/html"},
    "packed": {"headers": {"Content-Encoding": "gzip"}},
    "a long header": {"headers": {"X-Long": "x" * 1_000_000}},
    "to a file": {"status": 302, "headers": {"Location": "file:///etc/passwd"}},
    "to itself": {"status": 302, "headers": {"Location": "."}},
    "nothing": {"status": 204},
    "an empty part": {"status": 206, "body": "", "headers": {"Content-Range": "bytes 0-0/1"}},
}


@pytest.mark.parametrize("what", BYTES)
def test_bytes_that_do_harm_are_an_error_or_right(drive, what):
    m = hostile(drive)
    path = f"{ADA}/large.bin"
    data = m.emulator.bytes_of(path)
    os.stat(m / path)
    m.emulator.faults({**m.system.blob, **BYTES[what]})
    try:
        assert (m / path).read_bytes() == data
    except OSError as e:
        assert e.errno in REFUSED, e
    well_again(m)


# ---- rows that do harm

UUIDS = [f"0f0b8b0e-53a5-4f3f-9e0c-7e3a{i:08x}" for i in range(101_000 if LONG else 1000)]
DATE = "2026-01-01T00:00:00.000000Z"


def perscom_row(i, f):
    more = {"path": "p", "model_type": "App\\Models\\User", "model_id": 7}
    url = f.get("url", "http://127.0.0.2:9/p")
    names = {"name": f["name"], "filename": f["name"], "size": f["size"]}
    return {"id": f.get("id", i + 1), **names, **more, "attachment_url": url, "created_at": DATE, "updated_at": DATE}


def perscom(files):
    record = {"id": 7, "name": "the record", "created_at": DATE, "updated_at": DATE}
    record["attachments"] = [perscom_row(i, f) for i, f in enumerate(files)]
    meta = {"current_page": 1, "last_page": 1, "per_page": 1000, "total": 1}
    return [({}, {"data": [record], "links": {}, "meta": meta})]


def servicemax(files):
    def row(i, f):
        links = [{"rel": "url", "href": f.get("url", "/document/x")}]
        size = f["size"] if isinstance(f["size"], str) else str(f["size"])
        return {"uuid": f.get("id", UUIDS[i + 1]), "type": "file", "name": f["name"], "size": size, "links": links}

    rows = [row(i, f) for i, f in enumerate(files)]
    return [
        ({"match": "/attachments"}, {UUIDS[0]: rows}),
        ({}, [{"io_uuid": UUIDS[0], "io_name": "the record"}]),
    ]


def enterprise_tester(files):
    def row(i, f):
        link = f.get("url", "x")
        names = {"Name": f["name"], "FileName": f["name"], "Size": f["size"]}
        return {"Id": f.get("id", UUIDS[i + 1]), **names, "Content": link, "Self": link}

    record = {"Id": UUIDS[0], "Name": "the record", "Attachments": [row(i, f) for i, f in enumerate(files)]}
    return [({}, {"Skip": 0, "Top": 1000, "Total": 1, "Items": [record]})]


def rillsoft(files):
    def row(i, f):
        place = {"projectId": 41, "folderId": 3, "createdAt": DATE, "parentUuid": UUIDS[0], "elementName": "the record"}
        return {"id": f.get("id", i + 1), "name": f["name"], "description": "", "fileSize": f["size"], **place}

    rows = [row(i, f) for i, f in enumerate(files)]
    return [({}, {"status": "success", "code": 200, "message": "OK", "details": rows})]


ROWS = dict(zip((s.name for s in SYSTEMS), (perscom, servicemax, enterprise_tester, rillsoft)))

NAMES = ["../../x", "a/b", "/etc/passwd", ".", "..", "", " ", "nul\0in it", "\x01\x1b[31mred\x7f", "\n\r\t"]
NAMES += ["n" * 10_000, "\u00e4" * 5_000, ".by-id", ".record.json", ".attachfs", "%2e%2e", "%00", "a\\..\\b"]
NAMES += ["\u202egnp.exe", "\ufeffbom", "con", "-rf", "\ud7ff\ue000\uffff", "a" * 255, "a" * 256, "a" * 250 + ".txt"]
NAMES += ["equal.txt"] * (100_000 if LONG else 500)

SIZES = [-1, -(2**63), 2**63 - 1, 1.5, "9", "x", "", None, True, [], {}, 1e300, 0, "-7", "9" * 40]
IDS = ["../../etc", "7/../8", "7?x=1", "7#x", "7%2f8", "", " ", "x" * 5000, -1, 0, 2**63 - 1, 1.5, None, True, [], {}]
IDS += ["7\r\nX-Evil: 1", "..", "7;rm", "\u0663", "0x10", "1e3"]
URLS = ["file:///etc/passwd", "ftp://127.0.0.1/x", "http://127.0.0.1:1/x", "http://user:pass@127.0.0.1/", "//x", "x" * 20_000]
URLS += ["http://[::1", "http://169.254.169.254/latest", "javascript:1", "data:,x", "", None, 7, "http://a b/", "ldap://127.0.0.1"]

HARM = {
    "names": [{"name": n, "size": 9} for n in NAMES],
    "names of other types": [{"name": n, "size": 9} for n in (None, 7, True, [], {}, ["x"], 1.5)],
    "sizes": [{"name": f"size {i}", "size": s} for i, s in enumerate(SIZES)],
    "sizes beyond numbers": [{"name": f"size {i}", "size": s} for i, s in enumerate((2**63, 2**64, 10**40))],
    "ids": [{"name": f"id {i}", "size": 9, "id": x} for i, x in enumerate(IDS)],
    "equal ids": [{"name": f"file {i}", "size": 9, "id": 7} for i in range(20)],
    "links": [{"name": f"link {i}", "size": 9, "url": u} for i, u in enumerate(URLS)],
}


@pytest.mark.parametrize("what", HARM)
@pytest.mark.limit(200)
def test_rows_that_do_harm_stay_in_their_place(drive, system, what):
    m = hostile(drive, start=False, timeout=60 if LONG else 5)  # a list of 27 MB takes its time
    answer = {**system.api, "status": 200, "content_type": "application/json"}
    if system.list_of_collections:
        answer["unless"] = "/projects"  # the collections are as they are
    if system.password:
        answer["method"] = "GET"  # logging in is no list
    rules = [{**answer, **rule, "body": json.dumps(body)} for rule, body in ROWS[system.name](HARM[what])]
    m.start()
    m.emulator.faults(*rules)
    shown = walked = 0
    try:
        for folder, folders, files in os.walk(os.fsencode(m.path)):
            assert len(set(folders + files)) == len(folders + files), "two of one name"
            walked += 1
            for name in folders + files:
                assert 0 < len(name) <= 255 and b"/" not in name and name not in (b".", b".."), name
            for name in files[:60]:
                shown += 1
                try:
                    path = os.path.join(folder, name)
                    assert 0 <= os.lstat(path).st_size < 1 << 63
                    with open(path, "rb") as f:
                        assert b"root:" not in f.read(100)
                except OSError as e:
                    assert e.errno in REFUSED, e
    except OSError as e:
        assert e.errno in REFUSED, e
    assert walked > 0 and (shown > 0 or what not in ("names", "sizes")), m.said()
    for line in m.emulator.requests():
        assert "etc/passwd" not in line["path"] and ".." not in line["path"], line
    well_again(m)


def test_a_size_that_changes_between_list_and_bytes_is_noticed(drive, system):
    m = hostile(drive)
    path = f"{ADA}/notes.txt"
    os.stat(m / path)
    real = len(m.emulator.bytes_of(path))
    m.emulator.faults({**system.blob, "status": 200, "body": "x" * (real + 7)})
    with raises_errno(*REFUSED):
        raise_if_right((m / path).read_bytes(), b"x" * real)
    well_again(m)


def raise_if_right(found, wrong):
    assert not found.startswith(wrong[:100]), "another file's bytes were shown"
    raise OSError(errno.EIO, "nothing wrong was shown")


@pytest.mark.parametrize("system", [PERSCOM], ids=lambda s: s.name)
def test_sizes_that_cannot_be_had_cost_a_request_each(drive, system):
    """... and not one for each file of the directory, each time somebody looks at one of them."""
    m = hostile(drive, tree={"users": {"Ada Byron": numbered(60)}, "events": {}})
    names = sorted(os.listdir(m / ADA))
    m.emulator.faults({**system.blob, "status": 403})
    m.emulator.reset()
    for name in names:
        with raises_errno(*REFUSED):
            os.stat(m / ADA / name)
    assert len(m.emulator.blob_requests()) <= 4 * len(names)
    m.emulator.heal()
    m.outside.untouched()


# ---- answers that no HTTP library would send


class RawGate(Gate):
    """A forwarder that, once it is told an answer, gives that to whatever comes, byte for byte."""

    answer = None  # pieces, and the seconds between two

    def _accept(self, listener):
        if self.answer is None:
            return super()._accept(listener)
        while True:
            try:
                near, _ = listener.accept()
            except OSError:
                return
            with self.lock:
                self.connections.append(near)
            threading.Thread(target=self._give, args=(near, *self.answer), daemon=True).start()

    @staticmethod
    def _give(near, pieces, pause):
        try:
            near.recv(65536)
            for piece in pieces:
                near.sendall(piece)
                time.sleep(pause)
            near.close()
        except OSError:
            pass

    def give(self, answer):
        self.shut()
        self.answer = answer
        self.open()


def raw(body: bytes, *headers: str, length=True) -> tuple:
    lines = ["HTTP/1.1 200 OK", "Content-Type: application/json", *headers]
    if length:
        lines.append(f"Content-Length: {len(body)}")
    return [("\r\n".join(lines) + "\r\n\r\n").encode() + body], 0


SLOWLY = [b"HTTP/1.1 200 OK\r\n"] + [b"X-%d: " % i + b"x" * 16384 + b"\r\n" for i in range(64)]
ROWS_OF_BYTES = b'{"data":[{"id":1,"name":"\xff\xfe\xc0\xaf\xed\xa0\x80","attachments":[]}],"details":[],"Items":[]}'

RAW = {
    "a name of invalid UTF-8": raw(ROWS_OF_BYTES),
    "a bomb": raw(gzip.compress(bytes(200_000_000), 9), "Content-Encoding: gzip"),
    "a bomb in pieces": raw(gzip.compress(bytes(200_000_000), 9), "Transfer-Encoding: gzip", length=False),
    "slow headers of 1 MB": (SLOWLY, 0.01),
    "two lengths": raw(b'{"data":[]}', "Content-Length: 7"),
    "a negative length": raw(b'{"data":[]}', "Content-Length: -7", length=False),
    "a length of 2^64": raw(b'{"data":[]}', "Content-Length: 18446744073709551616", length=False),
    "chunks of nonsense": raw(b"ffffffffffffffffff\r\nx", "Transfer-Encoding: chunked", length=False),
    "no HTTP": ([b"SSH-2.0-OpenSSH_9.2\r\n"], 0),
    "nothing": ([b""], 0),
}


@pytest.mark.parametrize("what", RAW)
def test_answers_that_are_no_http_are_an_error(mount, emulator, gate, what):
    server = emulator(tree=small_tree())
    door = gate(server, RawGate)
    m = mount(server, source=server.system.source(door.url), poll=0, timeout=5)
    m.same_at_end = False
    m.allow_errors(TROUBLE)
    m.outside = Outside(m)
    door.give(RAW[what])
    with raises_errno(*REFUSED):
        os.listdir(m / "events")
        raise OSError(errno.EIO, "an empty list is an answer, too")
    door.give(None)
    m.command("retry", ok=None)
    well_again(m)
