# SPDX-License-Identifier: MIT
"""
What every mount test stands on: an emulator of its own, a mount of its own, and the final check.

An Emulator is one `attachfs-emulator` process with its control port as methods. A Mount is one
`attachfs -f` process with its mountpoint, cache and log; it can be synced, killed, stopped and
started again over the same cache. Mount.finish() is the end every test has: drained, exit status 0,
nothing left mounted, nothing suspicious in the log, ledger sound, tree equal to the server's.

Deadlines here only guard against hanging for ever; nothing is asserted about how long things take.
ATTACHFS_TEST_SLOW multiplies them (sanitizer builds). ATTACHFS_BUILD says where the binaries are
(default: build/ of the repository), ATTACHFS_EMULATOR names another emulator than the one there.
"""

import ctypes
import errno
import functools
import hashlib
import http.client
import json
import os
import pty
import random
import re
import select
import shutil
import signal
import socket
import sqlite3
import stat
import subprocess
import threading
import time
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Callable, Iterable, Optional, Union
from urllib.parse import urlsplit

REPOSITORY = Path(__file__).resolve().parents[2]
SLOW = float(os.environ.get("ATTACHFS_TEST_SLOW", "1"))

Tree = dict  # collection -> record -> file name -> bytes


def build_dir() -> Path:
    return Path(os.environ.get("ATTACHFS_BUILD", REPOSITORY / "build"))


@functools.lru_cache(maxsize=None)
@functools.lru_cache(maxsize=None)
def binary(name: str) -> str:
    """The executable of that name, wherever meson put it."""
    if name == "attachfs-emulator" and "ATTACHFS_EMULATOR" in os.environ:
        return os.environ["ATTACHFS_EMULATOR"]
    for folder, _, files in os.walk(build_dir()):
        path = os.path.join(folder, name)
        if name in files and os.access(path, os.X_OK):
            return path
    raise AssertionError(
        f"no executable '{name}' below {build_dir()}: build it, or set ATTACHFS_BUILD"
    )


def tool() -> str:
    """The attachfs that talks to a mount: one without instruments will do where that is not what is tested."""
    tested = "test_commands" in os.environ.get("PYTEST_CURRENT_TEST", "")
    return binary("attachfs") if tested else os.environ.get("ATTACHFS_TOOL", binary("attachfs"))


def wait_until(condition: Callable[[], object], what: str, seconds: float = 30):
    """Poll until the condition holds and return its value; give up with words."""
    deadline = time.monotonic() + seconds * SLOW
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > deadline:
            raise AssertionError(f"waited in vain: {what}")
        time.sleep(0.02)


def run(
    *argv, ok: Union[bool, None] = True, timeout: float = 60, **kwargs
) -> subprocess.CompletedProcess:
    """
    Run a program to its end, output captured as text. @ok: True = must succeed, False = must fail,
    None = either. Killed by a signal is never fine.
    """
    kwargs.setdefault("stdin", subprocess.DEVNULL)
    if "input" in kwargs:
        del kwargs["stdin"]
    result = subprocess.run(
        [str(a) for a in argv],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        errors="surrogateescape",
        timeout=timeout * SLOW,
        **kwargs,
    )
    said = result.stdout[-4000:] + result.stderr[-4000:]
    told = f"{' '.join(map(str, argv))!r}: exit {result.returncode}\n{said}"
    assert result.returncode >= 0, told
    if ok is not None:
        assert (result.returncode == 0) == ok, told
    return result


def on_terminal(argv, env, until=lambda shown: False, seconds: float = 30) -> tuple:
    """
    What a command shows on a terminal, until @until says so of it or its end; its exit status.
    """
    near, far = pty.openpty()
    p = subprocess.Popen(
        [str(a) for a in argv], stdin=far, stdout=far, stderr=far, env={**env, "TERM": "xterm"}
    )
    os.close(far)
    shown = b""
    deadline = time.monotonic() + seconds * SLOW
    while time.monotonic() < deadline and not until(shown):
        if select.select([near], [], [], 0.1)[0]:
            try:
                data = os.read(near, 65536)
            except OSError:
                break
            if not data:
                break
            shown += data
    if p.poll() is None and until(shown):
        p.send_signal(signal.SIGINT)
    p.wait(30 * SLOW)
    os.close(near)
    return shown.decode(), p.returncode


@contextmanager
def raises_errno(*numbers: int):
    """The block must fail with one of these errnos."""
    names = " or ".join(errno.errorcode[n] for n in numbers)
    try:
        yield
    except OSError as e:
        assert (
            e.errno in numbers
        ), f"{errno.errorcode.get(e.errno, e.errno)} instead of {names}: {e}"
    else:
        raise AssertionError(f"succeeded instead of {names}")


def refused(result, *words):
    """
    Non-zero, said on standard error, with words that tell what and how; no usage wall, no crash.
    """
    assert result.returncode != 0
    for word in words:
        assert word.lower() in result.stderr.lower(), f"{word!r} not in {result.stderr!r}"
    assert len(result.stderr.splitlines()) <= 12, result.stderr
    return result


def refusal(message: str, kind: str = "ValidationException") -> str:
    """A server's error body."""
    return json.dumps({"error": {"message": message, "type": kind}})


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def random_bytes(size: int, seed: object = 0) -> bytes:
    """The same bytes for the same seed; no two 4 KiB pages alike."""
    return random.Random(f"{seed}/{size}").randbytes(size)


def seed_of_the_day() -> int:
    """
    A seed for random histories: from ATTACHFS_TEST_SEED, or fresh and printed (pytest shows it when
    the test fails).
    """
    seed = int(os.environ.get("ATTACHFS_TEST_SEED") or random.SystemRandom().randrange(1 << 32))
    print(f"seed {seed}: repeat with ATTACHFS_TEST_SEED={seed}")
    return seed


def is_mounted(path: Path) -> bool:
    wanted = str(path).encode("unicode_escape").replace(b" ", b"\\040").decode()
    with open("/proc/self/mountinfo") as f:
        return any(line.split()[4] == wanted for line in f)


# -------------------------------------------------------------------------------------------------
# Systems: what differs between servers, so that the tests need not.


@dataclass(frozen=True, eq=False)
class System:
    """
    A server and what it can do. Tests call the two collections every system has by their logical
    names, users and events, and find them in the mount under the names the system has for them.
    """

    name: str
    collections: tuple  # at the top by default, by logical name
    rename_in_place: bool
    move_in_place: bool
    replace_keeps_id: bool
    sizes_listed: bool
    sets_mtime: bool
    renamable: tuple  # collections whose records can be renamed
    move_between_collections: bool = True
    names_unique: bool = False  # a record holds one file per name
    hides_empty: bool = False  # a record without files is not listed
    has_filename: bool = False  # two names per file (P-31)
    label_shown: bool = False  # of two names the label; else the one with an extension
    list_of_collections: Optional[str] = None  # endpoint, where the server tells them
    first_collection_id: Optional[int] = None  # collections= takes ids, which count from here
    presigned: bool = False  # addresses of bytes can expire
    foreign_bytes: dict = field(default_factory=dict)  # toggles: bytes come from another host
    version_field: Optional[str] = None  # of the emulator's attachments: the version as we call it
    record_fields: tuple = (("name",), "id")  # of .record.json: its name, by collection; its id
    addresses: bool = False  # the server tells where the bytes are
    real: tuple = ()  # (logical, real) names of collections where they differ
    say_collections: bool = False  # collections= must be given
    options: tuple = ()  # (name, value) of what a mount needs besides
    password: Optional[str] = None  # logs in with it instead of a token
    page_is_login: bool = False  # an HTML page instead of an answer means bad credentials
    # endpoints of the request log, whole, as regular expressions
    downloads: str = r"\w+ blob"
    logins: str = r"(?!)"
    creates: str = r"(?!)"
    replaces: str = r"(?!)"
    removes: str = r"(?!)"
    lists: str = r"(?!)"
    batch_rename: Optional[str] = None  # endpoints as they are
    batch_remove: Optional[str] = None
    batch_rename_record: Optional[str] = None
    create_min: int = 0
    create_max: int = 0
    batch_create: int = 1
    removes_at_once: int = 1  # files in one call that removes
    bad_in_names: str = ""  # characters of names the server cannot be told: EINVAL
    bad_to_remove: str = ""  # of names that cannot be removed: EPERM
    # fault rules, to be completed with what shall happen: {**system.blob, "hang": True}
    api: dict = field(default_factory=lambda: {"port": "api", "match": "/v2/", "count": -1})
    blob: dict = field(default_factory=dict)  # downloads
    upload: dict = field(default_factory=dict)  # creates and replacements
    list: dict = field(default_factory=dict)  # of a collection, or of a record
    remove: dict = field(default_factory=dict)
    tree: dict = field(default_factory=dict)  # of a collection, where polls ask for something else
    writes: dict = field(default_factory=dict)  # uploads, changes and removals of files
    # goes before a rule of `writes`: what is only asked
    reads: dict = field(
        default_factory=lambda: {
            "port": "api",
            "method": "GET",
            "match": "",
            "count": -1,
            "latency_ms": 0,
        }
    )
    # an error body; %s: the words, as JSON
    error_body: str = '{"error": {"message": %s, "type": "ValidationException"}}'

    def refusal(self, message: str) -> str:
        """A server's error body."""
        return self.error_body % json.dumps(message)

    @property
    def listing(self) -> dict:
        return self.tree or self.list

    def shown(self, name: str, filename: Optional[str] = None) -> str:
        """What a file of these names is called in the mount."""
        if not self.has_filename:
            return encode_name(name)
        if self.label_shown:
            return encode_name(shown_label(name, filename))
        return encode_name(filename if filename and extension(filename) else name)

    @property
    def far_record(self) -> str:
        """A record that a user's files can be moved to: of another collection where that goes."""
        return "events/Live fire" if self.move_between_collections else "users/Grace Hopper"

    def calls_to_remove(self, files: int) -> int:
        """The most calls that removing so many files of one record may cost."""
        return 10 if self.removes_at_once > 1 else files + 10

    def calls_to_rename(self, files: int) -> int:
        """The most calls that renaming so many files, or moving them to a record, may cost."""
        if self.batch_rename:
            return 10
        if self.rename_in_place:
            return files + 10
        return self.calls_to_remove(files) + 2 * files // self.batch_create

    def source(self, api: str) -> str:
        return f"{self.name}:{api}"

    def real_name(self, collection: str) -> str:
        return dict(self.real).get(collection, collection)

    def logical_name(self, collection: str) -> str:
        return {r: l for l, r in self.real}.get(collection, collection)

    def real_path(self, path: str) -> str:
        top, slash, rest = path.partition("/")
        return self.real_name(top) + slash + rest

    def logical_path(self, path: str) -> str:
        top, slash, rest = path.partition("/")
        return self.logical_name(top) + slash + rest


PERSCOM = System(
    name="perscom",
    collections=("users", "events"),
    rename_in_place=True,
    move_in_place=True,
    replace_keeps_id=True,
    sizes_listed=False,
    sets_mtime=True,
    has_filename=True,
    label_shown=True,
    addresses=True,
    presigned=True,
    foreign_bytes={"url": "presigned"},
    version_field="path",
    renamable=("events",),
    create_min=1024,
    create_max=10_240_000,
    creates=r"POST /v2/attachments",
    replaces=r"POST /v2/attachments/\{id\}",
    removes=r"DELETE /v2/attachments(/.*)?",
    lists=r"POST /v2/\w+/search",
    removes_at_once=500,
    batch_rename="PATCH /v2/attachments/batch",
    batch_remove="DELETE /v2/attachments/batch",
    batch_rename_record="PATCH /v2/events/batch",
    blob={"port": "blob", "method": "GET", "match": "", "count": -1},
    upload={
        "port": "api",
        "method": "POST",
        "match": "/v2/attachments",
        "unless": "search",
        "count": -1,
    },
    list={"port": "api", "match": "search", "count": -1},
    tree={"port": "api", "match": "/v2/users/search", "count": -1},
    remove={"port": "api", "method": "DELETE", "match": "/v2/attachments", "count": -1},
    writes={"port": "api", "match": "/v2/attachments", "count": -1},
    reads={
        "port": "api",
        "method": "POST",
        "match": "/v2/attachments/search",
        "count": -1,
        "latency_ms": 0,
    },
)

SERVICEMAX = System(
    name="servicemax",
    collections=("users", "events"),
    rename_in_place=False,
    move_in_place=False,
    replace_keeps_id=True,
    sizes_listed=True,
    sets_mtime=False,
    names_unique=True,
    foreign_bytes={"redirect": "foreign"},
    record_fields=(("io_name",), "io_uuid"),
    addresses=True,
    renamable=(),
    say_collections=True,
    options=(("user", "mount"), ("client_id", "attachfs")),
    password="secret",
    downloads=r"GET /document/.*",
    logins=r"\w+ /(sec/auth|oauth|resources)/.*",
    creates=r"POST /v2/\w+/\{id\}/attachments",
    replaces=r"(?!)",
    removes=r"DELETE /v2/\w+/\{id\}/attachments?",
    lists=r"GET /v2/\w+(/attachments)?",
    batch_create=20,
    removes_at_once=100,
    bad_in_names=",/\\",
    bad_to_remove=",",
    blob={"port": "api", "method": "GET", "match": "/document/", "count": -1},
    upload={"port": "api", "method": "POST", "match": "/attachments", "count": -1},
    list={"port": "api", "method": "GET", "match": "/v2/", "count": -1},
    remove={"port": "api", "method": "DELETE", "match": "/attachments", "count": -1},
    writes={"port": "api", "match": "/attachment", "count": -1},
    error_body='{"type": "validation_error", "message": %s}',
)

ENTERPRISE_TESTER = System(
    name="enterprise-tester",
    collections=("users", "events"),
    rename_in_place=False,
    move_in_place=False,
    replace_keeps_id=False,
    sizes_listed=True,
    sets_mtime=False,
    has_filename=True,
    record_fields=(("Name", "Summary"), "Id"),
    renamable=("users",),  # requirements; of the others it may turn out so (405)
    real=(("users", "requirements"), ("events", "incidents")),
    options=(("user", "mount"),),
    say_collections=True,
    password="secret",
    page_is_login=True,
    downloads=r"GET /EnterpriseTester/api/attachment/\{id\}/contents",
    creates=r"POST /EnterpriseTester/api/\w+/\{id\}/attachments",
    replaces=r"(?!)",
    removes=r"DELETE /EnterpriseTester/api/\w+/\{id\}/attachment/\{id\}",
    lists=r"GET /EnterpriseTester/api/(requirements|incidents)",
    batch_create=20,
    api={"port": "api", "match": "/api/", "count": -1},
    blob={"port": "api", "method": "GET", "match": "/contents", "count": -1},
    upload={"port": "api", "method": "POST", "match": "/attachments", "count": -1},
    list={"port": "api", "method": "GET", "match": "s", "count": -1},
    remove={"port": "api", "method": "DELETE", "match": "/attachment/", "count": -1},
    writes={"port": "api", "match": "/attachment", "count": -1},
    error_body='{"Message": %s}',
)

RILLSOFT = System(
    name="rillsoft",
    collections=("users", "events"),
    rename_in_place=True,
    move_in_place=True,
    move_between_collections=False,
    replace_keeps_id=True,
    sizes_listed=True,
    sets_mtime=False,
    hides_empty=True,
    first_collection_id=40,
    list_of_collections="GET /api/v2/clients/{id}/projects",
    record_fields=(("elementName",), "uuid"),
    foreign_bytes={"download": "redirect"},
    renamable=(),
    options=(("user", "mount"), ("client", "1")),
    password="secret",
    downloads=r"GET /api/v2/clients/\{id\}/dms/projects/\{id\}/documents/\{id\}",
    logins=r"POST /api/v1/login",
    creates=r"POST /api/v2/clients/\{id\}/dms/projects/\{id\}/folders/.*/documents",
    replaces=r"POST /api/v2/clients/\{id\}/dms/projects/\{id\}/documents/\{id\}",
    removes=r"DELETE /api/v2/clients/\{id\}/dms/projects/\{id\}/documents/\{id\}",
    lists=r"GET /api/v2/clients/\{id\}/dms/documents",
    api={"port": "api", "match": "/api/v2/", "count": -1},
    blob={"port": "api", "method": "GET", "match": "/dms/projects/", "count": -1},
    upload={"port": "api", "method": "POST", "match": "/dms/projects/", "count": -1},
    list={"port": "api", "method": "GET", "match": "/dms/documents", "count": -1},
    remove={"port": "api", "method": "DELETE", "match": "/dms/projects/", "count": -1},
    writes={"port": "api", "match": "/dms/projects/", "count": -1},
    error_body='{"status": "error", "message": "Bad Request", "details": %s}',
)

SYSTEMS = (PERSCOM, SERVICEMAX, ENTERPRISE_TESTER, RILLSOFT)

EXTENSION = re.compile(r"(?<=.)\.[0-9A-Za-z_-]{1,16}$", re.S)


def extension(name: str) -> str:
    found = EXTENSION.search(name)
    return found.group() if found else ""


def shown_label(name: str, filename: Optional[str]) -> str:
    """P-31: the label, with the file name's extension where the label does not end in it."""
    ext = extension(filename or "")
    return name if name.lower().endswith(ext.lower()) else name + ext


def encode_name(name: str) -> str:
    """names.h: percent-encode what cannot stand in a directory."""
    blanks = " \u00a0\u1680\u2028\u2029\u202f\u205f\u3000\u200b\ufeff" + "".join(
        map(chr, range(0x2000, 0x200B))
    )

    def escape(text: str) -> str:
        return "".join(f"%{b:02X}" for b in text.encode())

    if name in (".", ".."):
        return escape(name)
    head = len(name) - len(name.lstrip(blanks))
    tail = len(name.rstrip(blanks))
    return "".join(
        escape(c) if c == "/" or ord(c) < 32 or ord(c) == 127 or i < head or i >= tail else c
        for i, c in enumerate(name)
    )


def with_id(name: str, ident: object) -> str:
    """What a second holder of a name is called."""
    ext = extension(name)
    return f"{name[:len(name) - len(ext)]} ({ident}){ext}"


# -------------------------------------------------------------------------------------------------
# Trees of bytes on the local disk.

KEEP = "keep.txt"  # in records that would not be listed without a file

EPOCH = (
    1_700_000_000  # of the first file of a tree; whole seconds, because servers have no finer ones
)


def write_tree(root: Path, tree: Tree) -> None:
    """@tree as directories and files below @root, every file with a time of its own."""
    when = EPOCH
    for collection, records in tree.items():
        (root / collection).mkdir(parents=True, exist_ok=True)
        for record, files in records.items():
            (root / collection / record).mkdir()
            for name, data in files.items():
                path = root / collection / record / name
                path.write_bytes(data)
                when += 61
                os.utime(path, (when, when))


def read_tree(root: Path) -> dict:
    """Relative path -> bytes of every file below a directory."""
    found = {}
    for folder, _, files in os.walk(root, onerror=_raise):
        for name in files:
            path = os.path.join(folder, name)
            with open(path, "rb") as f:
                found[os.path.relpath(path, root)] = f.read()
    return found


def _raise(e: OSError):
    raise e


def small_tree() -> Tree:
    """A bit of everything: what most tests start from."""
    return {
        "users": {
            "Ada Byron": {
                "notes.txt": b"".join(b"line %d of the notes\n" % i for i in range(400)),
                "logo.png": random_bytes(5000, "logo"),
                "empty.txt": b"",
                "tiny.txt": b"abc",
                "large.bin": random_bytes(600_000, "large"),
            },
            "Grace Hopper": {
                "cobol.pdf": random_bytes(70_000, "cobol"),
                "readme": b"no extension\n" * 100,
            },
            "Nobody": {},
        },
        "events": {
            "Live fire": {
                "range-card.txt": b"Range 4\n" * 300,
                "map.jpg": random_bytes(9000, "map"),
            },
            "Winter camp": {"packing list.txt": b"socks\n" * 500},
        },
    }


def one_record() -> Tree:
    """A user without files, for tests that put there what they need."""
    return {"users": {"Ada Byron": {}}, "events": {}}


def added(name: str, filename: Optional[str] = None, text: str = "hello", **more) -> dict:
    """The change of adding a file to Ada Byron (or the record said in @more)."""
    op = {"op": "add", "collection": "users", "record": "Ada Byron", "name": name}
    return {**op, "filename": filename or name, "text": text, **more}


def numbered(count: int, size: int = 1500, name: str = "file-%04d.txt") -> dict:
    """@count files with names and bytes of their own."""
    return {name % i: random_bytes(size, i) for i in range(count)}


# -------------------------------------------------------------------------------------------------


class Emulator:
    """
    One running attachfs-emulator. All methods speak to the control port, which is never delayed and
    never fails.
    """

    def __init__(
        self,
        base: Path,
        system: System,
        tree: Optional[Tree] = None,
        data: Optional[Path] = None,
        generate: Iterable[str] = (),
        toggles: Optional[dict] = None,
        tokens: Iterable[str] = (),
        port: int = 0,
        more: Iterable[str] = (),
    ):
        base.mkdir(parents=True)
        self.base = base
        self.system = system
        if tree is not None:
            assert data is None
            data = base / "data"
            write_tree(data, self._as_stored(tree))
        (base / "spool").mkdir()
        ready = base / "ready.json"
        argv = [
            binary("attachfs-emulator"),
            "--system",
            system.name,
            "--ready-file",
            ready,
            "--die-with-parent",
            "--quiet",
            "--port",
            port,
            "--spool",
            base / "spool",
        ]
        if data is not None:
            argv += ["--data", data]
        for g in generate:
            argv += ["--generate", ":".join((system.real_name(g.split(":")[0]), *g.split(":")[1:]))]
        for t in tokens:
            argv += ["--token", t]
        for k, v in (toggles or {}).items():
            argv += ["--set", f"{k}={v}"]
        argv += more
        self.output = base / "emulator.out"
        with open(self.output, "wb") as out:
            self.process = subprocess.Popen(
                [str(a) for a in argv], stdin=subprocess.DEVNULL, stdout=out, stderr=out
            )
        wait_until(
            lambda: ready.exists() or self.process.poll() is not None, "the emulator to be ready"
        )
        assert (
            ready.exists()
        ), f"emulator exited {self.process.returncode}: {self.output.read_text()}"
        told = json.loads(ready.read_text())
        self.api: str = told["api"]
        self.blob_host: str = told["blob"]
        self.control: str = told["control"]
        self.token: str = told["token"]

    def _as_stored(self, tree: Tree) -> Tree:
        """
        Under the system's names; where it does not list empty records, with a file in each, so that
        they are there.
        """
        keep = {KEEP: b"so that this is listed\n"} if self.system.hides_empty else {}
        return {
            self.system.real_name(c): {r: files or keep for r, files in records.items()}
            for c, records in tree.items()
        }

    def ask(self, method: str, path: str, body: Optional[dict] = None) -> bytes:
        where = urlsplit(self.control)
        c = http.client.HTTPConnection(where.hostname, where.port, timeout=60 * SLOW)
        try:
            c.request(
                method,
                path,
                None if body is None else json.dumps(body),
                {"Content-Type": "application/json"},
            )
            answer = c.getresponse()
            data = answer.read()
        finally:
            c.close()
        assert (
            answer.status == 200
        ), f"emulator: {method} {path} {body}: {answer.status} {data[:500]!r}"
        return data

    def ask_json(self, method: str, path: str, body: Optional[dict] = None) -> dict:
        return json.loads(self.ask(method, path, body))

    # what the server has

    def state(self) -> dict:
        """With the logical names of the collections."""
        state = self.ask_json("GET", "/state")
        for row in state["records"] + state["attachments"]:
            if row["collection"]:
                row["collection"] = self.system.logical_name(row["collection"])
        return state

    def attachments(self) -> list:
        return [a for a in self.state()["attachments"] if not a.get("deleted_at")]

    def blob(self, ident: int) -> bytes:
        return self.ask("GET", f"/blob/{ident}")

    def record(self, collection: str, name: str) -> dict:
        found = [
            r
            for r in self.state()["records"]
            if r["collection"] == collection and r["name"] == name
        ]
        assert len(found) == 1, f"{len(found)} records '{name}' in {collection}"
        return found[0]

    def record_id(self, collection: str, name: str) -> int:
        return self.record(collection, name)["id"]

    def remote_id(self, ident: int) -> str:
        """What the API calls the attachment of that number."""
        (found,) = [a for a in self.state()["attachments"] if a["id"] == ident]
        return str(found["remote_id"])

    def collection_id(self, collection: str) -> str:
        """What collections= calls it."""
        name = self.system.real_name(collection)
        names = self.ask_json("GET", "/state?sha256=0")["collections"]
        if self.system.first_collection_id is None or name not in names:
            return name
        return str(self.system.first_collection_id + names.index(name))

    def files(self, collections: Optional[Iterable[str]] = None) -> dict:
        """
        Path in the mount -> attachment, for every attachment of a record, as a fresh mount would
        name them.
        """
        wanted = tuple(collections or self.system.collections)
        state = self.state()
        folders: dict = {}
        titles: dict = {}
        for r in sorted(state["records"], key=lambda r: r["id"]):
            taken = titles.setdefault(r["collection"], {})
            shown = encode_name(r["name"])
            if shown in taken:
                shown = with_id(shown, r["remote_id"])
            taken[shown] = r["id"]
            folders[(r["collection"], r["id"])] = (shown, {})
        for a in sorted(state["attachments"], key=lambda a: a["id"]):
            folder = folders.get((a["collection"], a["record_id"]))
            if folder is None or a.get("deleted_at"):  # eras that only mark what is deleted
                continue
            shown = self.system.shown(a["name"], a["filename"])
            if shown in folder[1]:
                shown = with_id(shown, a["remote_id"])
            folder[1][shown] = a
        return {
            f"{collection}/{record}/{name}": a
            for (collection, _), (record, files) in folders.items()
            if collection in wanted
            for name, a in files.items()
        }

    def folder(self, record: str) -> dict:
        """Name -> attachment of one record, without what only keeps it in the lists."""
        return {
            p[len(record) + 1 :]: a
            for p, a in self.files().items()
            if p.startswith(record + "/") and not p.endswith("/" + KEEP)
        }

    def file(self, path: str) -> dict:
        files = self.files()
        assert path in files, f"the server has no {path}, but {sorted(files)}"
        return files[path]

    def bytes_of(self, path: str) -> bytes:
        return self.blob(self.file(path)["id"])

    # what it was asked

    def requests(self, **equal) -> list:
        """The request log, or those lines of it whose fields are as given."""
        return [
            r
            for r in self.ask_json("GET", "/requests")["requests"]
            if all(r[k] == v for k, v in equal.items())
        ]

    def calls(self) -> dict:
        """Endpoint -> how often: neither downloads nor logins."""
        apart = f"{self.system.downloads}|{self.system.logins}"
        return {
            k: v
            for k, v in self.ask_json("GET", "/requests/summary")["by_endpoint"].items()
            if not re.fullmatch(apart, k)
        }

    def count(self, endpoints: str) -> int:
        """How many calls there were to endpoints that match as a whole."""
        return sum(v for k, v in self.calls().items() if re.fullmatch(endpoints, k))

    def summary(self) -> dict:
        return self.ask_json("GET", "/requests/summary")

    def uploads(self) -> int:
        """How many calls brought bytes, fillers not told from contents."""
        endpoints = re.compile(f"{self.system.creates}|{self.system.replaces}")
        return sum(
            endpoints.fullmatch(r["endpoint"]) is not None and r["files"] != 0
            for r in self.requests()
        )

    def uploaded(self) -> int:
        """How many files came with all uploads."""
        endpoints = re.compile(f"{self.system.creates}|{self.system.replaces}")
        return sum(r["files"] or 0 for r in self.requests() if endpoints.fullmatch(r["endpoint"]))

    def changes(self) -> dict:
        """Endpoint -> how often: calls that change something."""
        lists = re.compile(rf"GET .*|{self.system.lists}")
        return {k: n for k, n in self.calls().items() if not lists.fullmatch(k)}

    def blob_requests(self) -> list:
        """Requests for bytes, were it for the one that tells a size."""
        return [r for r in self.requests() if re.fullmatch(self.system.downloads, r["endpoint"])]

    def downloads(self) -> list:
        """Requests for bytes, of more than the one that tells a size."""
        return [
            r
            for r in self.requests()
            if re.fullmatch(self.system.downloads, r["endpoint"])
            and r["range"] not in ("bytes=0-0", "0-0")
        ]

    def reset(self) -> None:
        self.ask("POST", "/requests/reset", {})

    def removes_come_last(self) -> None:
        """Nothing was removed before all that was uploaded was acknowledged (POST, then DELETE)."""
        uploads = f"{self.system.creates}|{self.system.replaces}"
        log = self.requests()
        ended = [
            r["t_ms"] + r["duration_ms"] for r in log if re.fullmatch(uploads, r["endpoint"])
        ]
        removes = [r["t_ms"] for r in log if re.fullmatch(self.system.removes, r["endpoint"])]
        assert not ended or not removes or max(ended) <= min(removes) + 1, log

    # breaking and healing

    def faults(self, *rules: dict, latency_ms: Optional[int] = None) -> None:
        body: dict = {"rules": list(rules)}
        if latency_ms is not None:
            body["latency_ms"] = latency_ms
        self.ask("POST", "/faults", body)

    def heal(self) -> None:
        self.faults(latency_ms=0)

    def struck(self, rule: Optional[int] = None) -> int:
        """How often the fault rules, or the one of that number, have struck."""
        counts = [r["struck"] for r in self.ask_json("GET", "/faults")["rules"]]
        return sum(counts) if rule is None else counts[rule]

    def toggle(self, **values) -> None:
        self.ask("POST", "/set", values)

    def clock(self, offset_s: int) -> None:
        self.ask("POST", "/clock", {"offset_s": offset_s})

    def change(self, *ops: dict) -> list:
        """Changes behind the daemon's back; the ids they concern."""
        real = [
            {k: self.system.real_name(v) if k == "collection" else v for k, v in op.items()}
            for op in ops
        ]
        return self.ask_json("POST", "/change", {"ops": real})["ids"]

    def stop(self) -> None:
        if self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(20 * SLOW)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()

    def finish(self) -> None:
        """The emulator itself must have behaved: sanitizer findings in it are findings."""
        self.stop()
        said = self.output.read_text(errors="replace")
        assert (
            self.process.returncode == 0
        ), f"emulator exited {self.process.returncode}: {said[-3000:]}"
        assert not SUSPICIOUS.search(said), f"emulator: {said[-3000:]}"


class Gate:
    """
    A TCP forwarder in front of the API that can be shut (connections refused, open ones cut) and
    opened again.
    """

    def __init__(self, api: str):
        where = urlsplit(api)
        self.target = (where.hostname, where.port)
        with socket.socket() as s:
            s.bind(("127.0.0.1", 0))
            self.port = s.getsockname()[1]
        self.url = f"{where.scheme}://127.0.0.1:{self.port}{where.path}"
        self.lock = threading.Lock()
        self.connections: list = []
        self.listener: Optional[socket.socket] = None

    def open(self) -> None:
        listener = socket.socket()
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(("127.0.0.1", self.port))
        listener.listen(100)
        self.listener = listener
        threading.Thread(target=self._accept, args=(listener,), daemon=True).start()

    def shut(self) -> None:
        if self.listener is not None:
            try:
                self.listener.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass
            self.listener.close()
            self.listener = None
        with self.lock:
            for s in self.connections:
                try:
                    s.shutdown(socket.SHUT_RDWR)
                except OSError:
                    pass
            self.connections.clear()

    def _accept(self, listener: socket.socket) -> None:
        while True:
            try:
                near, _ = listener.accept()
                far = socket.create_connection(self.target)
            except OSError:
                return
            with self.lock:
                self.connections += [near, far]
            for a, b in ((near, far), (far, near)):
                threading.Thread(target=self._copy, args=(a, b), daemon=True).start()

    @staticmethod
    def _copy(source: socket.socket, sink: socket.socket) -> None:
        try:
            while data := source.recv(65536):
                sink.sendall(data)
        except OSError:
            pass
        try:
            sink.shutdown(socket.SHUT_WR)
        except OSError:
            pass


# -------------------------------------------------------------------------------------------------

SUSPICIOUS = re.compile(
    r"AddressSanitizer|LeakSanitizer|ThreadSanitizer|UndefinedBehavior|runtime error|ERROR: |assert"
    r"|deadlock|Segmentation|stack smashing|double free",
    re.I,
)
ERROR_LINE = re.compile(r"^\S+Z error ")


class Mount:
    """One mountpoint with its cache, and the daemon that serves it now."""

    def __init__(
        self,
        base: Path,
        emulator: Emulator,
        source: Optional[str] = None,
        collections: Optional[Iterable[str]] = None,
        cache: Optional[Path] = None,
        environment: Optional[dict] = None,
        **options,
    ):
        base.mkdir(parents=True)
        self.base = base
        self.emulator = emulator
        self.system = emulator.system
        self.source = source or emulator.system.source(emulator.api)
        self.collections = tuple(collections or emulator.system.collections)
        self.path = base / "mnt"
        self.cache = cache or base / "cache"
        self.log_file = base / "attachfs.log"
        self.output = base / "daemon.out"
        self.token_file = base / "token"
        self.options = options
        self.environment = environment or {}
        self.process: Optional[subprocess.Popen] = None
        self.exit_status: Optional[int] = None
        self.allowed_errors: list = []
        self.same_at_end = True  # finish() compares the tree with the server's
        self.check_at_end = True
        self.hung = False
        self.killed = False
        self.changed: list = []
        self.path.mkdir()
        self.write_token(emulator.token)
        self.password_file = base / "password"
        if self.system.password:
            self.password_file.write_text(self.system.password + "\n")
            self.password_file.chmod(0o600)

    # life

    def write_token(self, token: str) -> None:
        self.token_file.write_text(token + "\n")
        self.token_file.chmod(0o600)

    def option_text(self) -> str:
        options = {
            "cache_dir": self.cache,
            "log_file": self.log_file,
            "log": "debug",
            **dict(self.system.options),
        }
        if self.system.password:
            options["password_file"] = self.password_file
        else:
            options["token_file"] = self.token_file
        if self.collections != self.system.collections or self.system.say_collections:
            options["collections"] = ":".join(map(self.emulator.collection_id, self.collections))
        options.update(self.options)
        return ",".join(
            k if v is True else f"{k}={v}"
            for k, v in options.items()
            if v is not None and v is not False
        )

    def argv(self) -> list:
        return [binary("attachfs"), "-f", "-o", self.option_text(), self.source, str(self.path)]

    def env(self) -> dict:
        return clean_environment(self.base, **self.environment)

    def spawn(self, limits: Optional[Callable[[], None]] = None) -> subprocess.Popen:
        with open(self.output, "ab") as out:
            return subprocess.Popen(
                self.argv(),
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
                env=self.env(),
                cwd=self.base,
                preexec_fn=limits,
            )

    def start(self, limits: Optional[Callable[[], None]] = None, look: bool = True) -> "Mount":
        assert os.path.exists(
            "/dev/fuse"
        ), "no /dev/fuse: modprobe fuse, or give the container --device /dev/fuse"
        assert self.process is None
        self.exit_status = None
        before = os.stat(self.base).st_dev
        self.process = self.spawn(limits)

        def there() -> bool:
            if self.process.poll() is not None:
                return True
            try:
                # a dead mount may lie there yet: it answers a stat, but not this
                os.statvfs(self.path)
                return is_mounted(self.path) and os.stat(self.path).st_dev != before
            except OSError:
                return False

        wait_until(there, f"{self.path} to be mounted")
        assert (
            self.process.poll() is None
        ), f"attachfs exited {self.process.returncode} instead of mounting: {self.said()}"
        if look:
            os.listdir(self.path)
        return self

    def said(self) -> str:
        """What the daemon wrote: standard output and error, then the log's end."""
        log = self.log()
        output = self.output.read_text(errors="replace") if self.output.exists() else ""
        return output[-3000:] + "\n--- log ---\n" + log[-6000:]

    def log(self) -> str:
        return self.log_file.read_text(errors="replace") if self.log_file.exists() else ""

    def command(
        self, name: str, *arguments, ok: Union[bool, None] = True, timeout: float = 90, **kwargs
    ):
        """`attachfs NAME MOUNTPOINT arguments`."""
        return run(
            tool(),
            name,
            *arguments,
            self.path,
            ok=ok,
            timeout=timeout,
            env=self.env(),
            **kwargs,
        )

    def sync(self, ok: Union[bool, None] = True, timeout: float = 90):
        return self.command("sync", ok=ok, timeout=timeout)

    def status(self) -> dict:
        return json.loads((self.path / ".attachfs" / "status").read_text())

    def requests_taken(self) -> int:
        """How often the daemon has read something, which it does at least once for each request."""
        with open(f"/proc/{self.process.pid}/io") as f:
            return int(dict(line.split(": ") for line in f)["syscr"])

    def idle(self) -> bool:
        """Nothing left to send."""
        pending = self.status()["pending"]
        return not (pending["uploads"] or pending["renames"] or pending["deletes"])

    def _ended(self, seconds: float = 60) -> int:
        try:
            self.exit_status = self.process.wait(seconds * SLOW)
        except subprocess.TimeoutExpired:
            self.hung = True
            dump_stacks(self.process.pid, self.base)
            raise AssertionError(f"the daemon (pid {self.process.pid}) did not end: {self.said()}")
        self.process = None
        return self.exit_status

    def umount(self, ok: Union[bool, None] = True, timeout: float = 90):
        """`attachfs umount`: drains, unmounts; the daemon ends by itself."""
        # A daemon is not gone before its parent, which is this process, has reaped it.
        threading.Thread(target=self.process.wait, daemon=True).start()
        result = run(
            tool(), "umount", self.path, ok=ok, timeout=timeout, env=self.env()
        )
        if result.returncode == 0:
            self._ended()
            assert self.exit_status == 0, f"daemon exited {self.exit_status}: {self.said()}"
            assert not is_mounted(self.path), "still mounted after umount"
        return result

    def terminate(self, number: int = signal.SIGTERM) -> None:
        """
        What systemd does: the daemon ends with 0 and keeps for later what the server does not have.
        """
        self.process.send_signal(number)
        self._ended()
        assert (
            self.exit_status == 0
        ), f"daemon exited {self.exit_status} on signal {number}: {self.said()}"
        wait_until(lambda: not is_mounted(self.path), "the mount to go with the daemon")

    def kill9(self, unmount: bool = True) -> None:
        self.killed = True
        self.process.kill()
        # its last thread may wait in the kernel until the guard ends that
        self.process.wait(60 * SLOW)
        self.process = None
        if unmount:
            lazy_unmount(self.path)

    def remount(self, **options) -> "Mount":
        """End as a person would, start again over the same cache."""
        if self.process is not None:
            self.umount()
        self.options.update(options)
        return self.start()

    def forget_cache(self) -> "Mount":
        """A second machine: unmount, lose the cache, mount again."""
        if self.process is not None:
            self.umount()
        shutil.rmtree(self.cache)
        return self.start()

    # looking

    def __truediv__(self, relative: str) -> Path:
        return self.path / self.system.real_path(str(relative))

    def xattr(self, relative: str, name: str) -> str:
        return os.getxattr(
            self / relative, f"user.attachfs.{name}", follow_symlinks=False
        ).decode()

    def names(self, folder: str) -> list:
        """What a directory lists, sorted, without what only keeps it in the server's lists."""
        return sorted(n for n in os.listdir(self / folder) if n != KEEP)

    def tree(self) -> dict:
        return {self.system.logical_path(p): data for p, data in read_tree(self.path).items()}

    def same_as_server(self) -> None:
        """Names, sizes and bytes of the mount are those of the server."""
        server = self.emulator.files(self.collections)
        found = {}
        for folder, _, files in os.walk(self.path, onerror=_raise):
            for name in files:
                path = os.path.join(folder, name)
                found[self.system.logical_path(os.path.relpath(path, self.path))] = path

        def listed(names):
            return sorted(os.fsencode(n) for n in names)

        missing, extra = set(server) - set(found), set(found) - set(server)
        assert (
            not missing and not extra
        ), f"only on the server: {listed(missing)}, only in the mount: {listed(extra)}"
        for name, path in found.items():
            with open(path, "rb") as f:
                digest = hashlib.sha256()
                while data := f.read(1 << 20):
                    digest.update(data)
            size = os.stat(path).st_size
            assert (
                size == server[name]["size"]
            ), f"{name}: {size} bytes here, {server[name]['size']} on the server"
            assert (
                digest.hexdigest() == server[name]["sha256"]
            ), f"{name}: other bytes here than on the server"

    # the end of every test

    def finish(self) -> None:
        if self.process is not None:
            if self.same_at_end:
                if not self.idle():
                    self.sync()
                self.same_as_server()
            self.umount()
        assert self.exit_status in (0, None), f"daemon exited {self.exit_status}: {self.said()}"
        assert not is_mounted(self.path), "something is left mounted"
        said = self.output.read_text(errors="replace") if self.output.exists() else ""
        for line in said.splitlines() + self.log().splitlines():
            assert not SUSPICIOUS.search(line) or self._allowed(line), f"suspicious line: {line}"
        for line in self.log().splitlines():
            assert not ERROR_LINE.search(line) or self._allowed(
                line
            ), f"unexpected error in the log: {line}"
        for token in {self.emulator.token, self.token_file.read_text().strip()} - {""}:
            assert token not in said + self.log(), "the token is in the log"
        if self.system.password:
            assert self.system.password not in said + self.log(), "the password is in the log"
        check_cache(self.cache, self.killed)

    def _allowed(self, line: str) -> bool:
        return any(re.search(p, line) for p in self.allowed_errors)

    def allow_errors(self, pattern: str) -> None:
        """
        This test breaks something on purpose: error lines like this one are what the log should
        say.
        """
        self.allowed_errors.append(pattern)

    def abandon(self) -> None:
        """Whatever happened: leave no process and no mount behind."""
        if self.process is not None and self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        if is_mounted(self.path):
            lazy_unmount(self.path)


def clean_environment(base: Path, **more) -> dict:
    """The caller's environment without what would reach the daemon from outside the test."""
    env = {
        k: v
        for k, v in os.environ.items()
        if not k.startswith(("XDG_", "ATTACHFS_")) and not k.lower().endswith("_proxy")
    }
    env.update(
        HOME=str(base / "home"),
        XDG_CACHE_HOME=str(base / "home" / "cache"),
        LC_ALL="C.UTF-8",
        TZ="UTC",
    )
    (base / "home").mkdir(exist_ok=True)
    env.update({k: str(v) for k, v in more.items()})
    return env


def lazy_unmount(path: Path) -> None:
    for argv in (["fusermount3", "-uz", str(path)], ["umount", "-l", str(path)]):
        if not is_mounted(path):
            return
        try:
            subprocess.run(argv, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, timeout=30)
        except (OSError, subprocess.TimeoutExpired):
            pass


def check_cache(cache: Path, killed: bool) -> None:
    """Private, a sound database, and nothing set aside unless the daemon was killed."""
    if not cache.exists():
        return
    assert stat.S_IMODE(cache.stat().st_mode) == 0o700, f"{cache} is open to others"
    for folder, folders, files in os.walk(cache):
        for name in files:
            path = Path(folder) / name
            mode = stat.S_IMODE(path.stat().st_mode)
            assert not mode & 0o077, f"{path} has mode {mode:o}"
            assert killed or "lost+found" not in folder, f"set aside as unknown: {path}"
            with open(path, "rb") as f:
                # a database of the user's is as good as he left it
                ours = not {"objects", "lost+found"} & set(path.parts)
                if not ours or f.read(16) != b"SQLite format 3\0":
                    continue
            database = sqlite3.connect(path)
            try:
                result = database.execute("PRAGMA integrity_check").fetchall()
                assert result == [("ok",)], f"{path}: {result}"
            finally:
                database.close()


def dump_stacks(pid: int, where: Path) -> None:
    """For a hang's post-mortem, where gdb is there."""
    if shutil.which("gdb"):
        with open(where / "stacks.txt", "wb") as out:
            try:
                subprocess.run(
                    ["gdb", "-batch", "-p", str(pid), "-ex", "thread apply all bt"],
                    stdin=subprocess.DEVNULL,
                    stdout=out,
                    stderr=out,
                    timeout=60,
                )
            except subprocess.TimeoutExpired:
                pass


# -------------------------------------------------------------------------------------------------
# System calls Python has no name for.

libc = ctypes.CDLL(None, use_errno=True)

RENAME_NOREPLACE = 1
RENAME_EXCHANGE = 2
UTIME_NOW = (1 << 30) - 1
UTIME_OMIT = (1 << 30) - 2
AT_FDCWD = -100


class timespec(ctypes.Structure):
    _fields_ = [("sec", ctypes.c_long), ("nsec", ctypes.c_long)]


def _checked(result: int, path) -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), os.fsdecode(path))
    return result


def renameat2(old, new, flags: int) -> None:
    _checked(
        libc.renameat2(
            AT_FDCWD, os.fsencode(old), AT_FDCWD, os.fsencode(new), ctypes.c_uint(flags)
        ),
        old,
    )


def utimensat(path, atime: tuple, mtime: tuple) -> None:
    """Each time as (seconds, nanoseconds); nanoseconds may be UTIME_NOW or UTIME_OMIT."""
    _checked(
        libc.utimensat(
            AT_FDCWD, os.fsencode(path), (timespec * 2)(timespec(*atime), timespec(*mtime)), 0
        ),
        path,
    )


def fallocate(fd: int, mode: int, offset: int, length: int) -> None:
    libc.fallocate64.argtypes = [ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64]
    _checked(libc.fallocate64(fd, mode, offset, length), b"fd")


class dirent(ctypes.Structure):
    _fields_ = [
        ("ino", ctypes.c_uint64),
        ("off", ctypes.c_int64),
        ("reclen", ctypes.c_ushort),
        ("type", ctypes.c_ubyte),
        ("name", ctypes.c_char * 256),
    ]


class Directory:
    """A directory stream with its positions: opendir, readdir, telldir, seekdir."""

    def __init__(self, path):
        libc.opendir.restype = ctypes.c_void_p
        libc.readdir64.restype = ctypes.POINTER(dirent)
        libc.telldir.restype = ctypes.c_long
        self.stream = ctypes.c_void_p(libc.opendir(os.fsencode(path)))
        assert self.stream, f"opendir {path}: {os.strerror(ctypes.get_errno())}"

    def read(self) -> Optional[tuple]:
        """(name, inode, type) or None at the end."""
        ctypes.set_errno(0)
        found = libc.readdir64(self.stream)
        if not found:
            assert ctypes.get_errno() == 0, os.strerror(ctypes.get_errno())
            return None
        return found.contents.name, found.contents.ino, found.contents.type

    def names(self) -> list:
        return [entry[0] for entry in iter(self.read, None)]

    def tell(self) -> int:
        return libc.telldir(self.stream)

    def seek(self, position: int) -> None:
        libc.seekdir(self.stream, ctypes.c_long(position))

    def rewind(self) -> None:
        libc.rewinddir(self.stream)

    def close(self) -> None:
        libc.closedir(self.stream)


@dataclass
class Readers:
    """Programs that read in the background: parked ones do not stop the test."""

    processes: list = field(default_factory=list)

    def start(self, path: Path, count: str = "1") -> subprocess.Popen:
        p = subprocess.Popen(
            ["head", "-c", count, str(path)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        self.processes.append(p)
        return p

    def waiting(self) -> int:
        return sum(p.poll() is None for p in self.processes)

    def end(self) -> None:
        for p in self.processes:
            if p.poll() is None:
                p.kill()
        for p in self.processes:
            p.communicate()
