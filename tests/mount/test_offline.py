# SPDX-License-Identifier: MIT
"""
Without the network, and with half of one: what is here is served, what is written waits and goes by
itself, what would need the server fails soon and says why; nobody who hangs on to a dribbling or
breaking connection hangs for ever.
"""

import errno
import json
import os
import socket
import ssl
import subprocess
import threading
import time

import pytest

from harness import SLOW, Gate, one_record, raises_errno, random_bytes, run, wait_until

ADA = "users/Ada Byron"
TROUBLE = (
    r"EHOSTDOWN|down|reach|refused|connect|TLS|DNS|cut|broke|short|timed? ?out|stall|answer|reset|JSON|EIO"
    r"|Input/output|unknown|truncat|listen|login|log in|token"
)
FOR_EVER = 600  # a deadline that a test would notice


@pytest.fixture
def behind(mount, emulator, gate):
    """A mount of a server behind a gate."""

    def make(kind=Gate, *arguments, tree=None, **options):
        server = emulator(tree=tree or {"users": {"Ada Byron": files()}, "events": {}})
        door = gate(server, kind, *arguments)
        options = {"settle": 0, "poll": 0, "timeout": FOR_EVER, **options}
        m = mount(server, source=server.system.source(door.url), **options)
        m.allow_errors(TROUBLE)
        return m, door

    return make


def files() -> dict:
    return {
        "cached.txt": random_bytes(30_000, "cached"),
        "large.bin": random_bytes(300_000, "large"),
    }


def look(m) -> dict:
    """What can be told without a call, of everything."""
    found = {}
    for folder, _, names in os.walk(m / "users"):
        for name in names:
            s = os.stat(os.path.join(folder, name))
            found[os.path.join(folder, name)] = (s.st_size, s.st_mtime_ns, s.st_ino, s.st_mode)
    return found


def wait_for_state(m, state: str) -> dict:
    return wait_until(lambda: (s := m.status())["state"] == state and s, f"state {state}")


def hurry(work) -> None:
    """What needs the server fails, and not at its deadline of ten minutes."""
    began = time.monotonic()
    with raises_errno(errno.EHOSTDOWN):
        work()
    assert time.monotonic() - began < 5 * SLOW


def follow(m, readers) -> subprocess.Popen:
    p = subprocess.Popen(["cat", m.path / ".attachfs/events"], stdout=subprocess.PIPE, text=True)
    readers.processes.append(p)
    return p


def test_a_mount_without_its_server_has_what_was_there_and_catches_up_by_itself(behind, readers):
    m, door = behind()
    (m / ADA / "cached.txt").read_bytes()
    before = look(m)
    m.umount()
    door.shut()
    m.start()
    assert look(m) == before
    assert (m / ADA / "cached.txt").read_bytes() == files()["cached.txt"]
    hurry(lambda: os.listdir(m / "events"))
    assert "refused" in wait_for_state(m, "offline")["message"]
    (m / ADA / "new.txt").write_bytes(b"new" * 1000)
    os.rename(m / ADA / "large.bin", m / ADA / "renamed.bin")
    assert m.status()["pending"]["uploads"] >= 1
    events = follow(m, readers)
    door.open()
    wait_until(lambda: m.idle() and m.status()["state"] == "online", "the queue to drain by itself")
    assert "message" not in m.status()
    assert m.emulator.bytes_of(f"{ADA}/new.txt") == b"new" * 1000
    assert sorted(m.emulator.folder(ADA)) == ["cached.txt", "new.txt", "renamed.bin"]
    assert any(json.loads(line)["event"] == "online" for line in events.stdout)


def test_an_idle_mount_notices_that_its_server_is_back(behind):
    m, door = behind()
    os.listdir(m / ADA)
    door.shut()
    hurry(lambda: os.listdir(m / "events"))
    wait_for_state(m, "offline")
    m.emulator.reset()
    door.open()
    wait_for_state(m, "online")
    assert m.emulator.requests() == [], "nobody wanted anything"
    assert os.listdir(m / "events") is not None
    assert (m / ADA / "large.bin").read_bytes() == files()["large.bin"]


# Half-open networks


class Leak(Gate):
    """Lets so many bytes of the server through each connection, then drops it; None = all."""

    def __init__(self, api: str):
        super().__init__(api)
        self.let_through = None

    def _copy(self, source: socket.socket, sink: socket.socket) -> None:
        left = self.let_through
        from_server = source.getpeername() == self.target
        try:
            while data := source.recv(65536):
                if from_server and left is not None:
                    data = data[:left]
                    left -= len(data)
                sink.sendall(data)
                if left == 0 and from_server:
                    break
        except OSError:
            pass
        for s in (source, sink):
            try:
                s.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass


class Drip(Gate):
    """When told so: takes connections and answers a byte of a head now and then, for ever."""

    dripping = False

    def _accept(self, listener: socket.socket) -> None:
        if not self.dripping:
            return super()._accept(listener)
        while True:
            try:
                near, _ = listener.accept()
            except OSError:
                return
            with self.lock:
                self.connections.append(near)
            threading.Thread(target=self._drip, args=(near,), daemon=True).start()

    @staticmethod
    def _drip(s: socket.socket) -> None:
        try:
            s.sendall(b"HTTP/1.1 200 OK\r\nX-Patience: ")
            while True:
                s.sendall(b"a")
                time.sleep(0.1)
        except OSError:
            pass


@pytest.mark.parametrize("count", [0, 1, 40, 300])
def test_connections_that_break_after_so_many_bytes_end_in_an_error_and_heal(behind, count):
    m, door = behind(Leak, timeout=20)
    os.listdir(m / ADA)
    door.shut()
    door.let_through = count
    door.open()
    m.command("refresh", ok=None)
    (m / ADA / "new.txt").write_bytes(b"new" * 1000)
    m.status()
    door.shut()
    door.let_through = None
    door.open()
    m.command("retry")
    m.sync()
    assert m.emulator.bytes_of(f"{ADA}/new.txt") == b"new" * 1000
    assert sorted(m.emulator.folder(ADA)) == ["cached.txt", "large.bin", "new.txt"]


def test_an_answer_that_never_gets_beyond_its_head_ends_at_the_deadline(behind):
    m, door = behind(Drip, timeout=1)
    assert (m / ADA / "cached.txt").read_bytes() == files()["cached.txt"]
    door.shut()
    door.dripping = True
    door.open()
    with raises_errno(errno.ETIMEDOUT):
        os.listdir(m / "events")
    assert (m / ADA / "cached.txt").read_bytes() == files()["cached.txt"]
    door.shut()
    door.dripping = False
    door.open()
    wait_until(lambda: listable(m / "events"), "listing to work again")


def listable(path) -> bool:
    try:
        os.listdir(path)
        return True
    except OSError:
        return False


def readable(path) -> bool:
    try:
        path.read_bytes()
        return True
    except OSError:
        return False


def test_a_body_of_a_byte_a_second_ends_at_the_deadline(behind):
    m, _ = behind(timeout=2)
    assert (m / ADA / "cached.txt").read_bytes() == files()["cached.txt"]
    os.stat(m / ADA / "large.bin")
    m.emulator.faults({**m.system.blob, "bytes_per_second": 1})
    with raises_errno(errno.ETIMEDOUT):
        (m / ADA / "large.bin").read_bytes()
    assert (m / ADA / "cached.txt").read_bytes() == files()["cached.txt"]
    m.emulator.heal()
    wait_until(lambda: readable(m / ADA / "large.bin"), "reading to work again")


def test_a_name_that_nobody_knows_is_said(behind):
    m, _ = behind()
    (m / ADA / "cached.txt").read_bytes()
    m.umount()
    m.options["proxy"] = "http://no-such-host.invalid:3128"
    m.start()
    hurry(lambda: (m / ADA / "large.bin").read_bytes())
    assert "DNS" in wait_for_state(m, "offline")["message"]
    assert (m / ADA / "cached.txt").read_bytes() == files()["cached.txt"]
    m.umount()
    del m.options["proxy"]
    m.start()


# TLS


class TlsGate(Gate):
    """The same with TLS in front, by one of the certificates that make_certificates() made."""

    def __init__(self, api: str, certificates):
        super().__init__(api)
        self.url = self.url.replace("http://", "https://")
        self.certificates = certificates
        self.show = "good"

    def _accept(self, listener: socket.socket) -> None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        stem = self.certificates / self.show
        context.load_cert_chain(f"{stem}.pem", f"{stem}.key")
        while True:
            try:
                raw, _ = listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(context, raw), daemon=True).start()

    def _serve(self, context: ssl.SSLContext, raw: socket.socket) -> None:
        try:
            near = context.wrap_socket(raw, server_side=True)
            far = socket.create_connection(self.target)
        except OSError:
            raw.close()
            return
        with self.lock:
            self.connections += [near, far]
        for a, b in ((near, far), (far, near)):
            threading.Thread(target=self._copy, args=(a, b), daemon=True).start()

    def change(self, show: str) -> None:
        self.shut()
        self.show = show
        self.open()


def openssl(*arguments, cwd) -> None:
    run("openssl", *arguments, cwd=cwd)


def make_certificates(where) -> None:
    """good, expired, other (another host's), and unknown (signed by nobody known); ca.pem to trust."""
    where.mkdir()
    key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    for ca in ("ca", "unknown-ca"):
        name = ["-subj", f"/CN={ca}", "-keyout", f"{ca}.key", "-out", f"{ca}.pem"]
        openssl("req", "-x509", *key, *name, "-days", 10, cwd=where)
    kinds = {
        "good": ("127.0.0.1", "ca", 10),
        "expired": ("127.0.0.1", "ca", 0),
        "other": ("127.9.9.9", "ca", 10),
        "unknown": ("127.0.0.1", "unknown-ca", 10),
    }
    for kind, (host, ca, days) in kinds.items():
        name = ["-subj", f"/CN={host}", "-addext", f"subjectAltName=IP:{host}"]
        openssl("req", *key, *name, "-keyout", f"{kind}.key", "-out", f"{kind}.csr", cwd=where)
        sign = ["-CA", f"{ca}.pem", "-CAkey", f"{ca}.key", "-CAcreateserial", "-days", days]
        out = ["-copy_extensions", "copy", "-in", f"{kind}.csr", "-out", f"{kind}.pem"]
        openssl("x509", "-req", *sign, *out, cwd=where)


CERTIFICATES = {
    "expired": "certificate has expired",
    "other": "certificate is for another host",
    "unknown": "unknown authority",
}


def test_a_certificate_that_is_no_good_is_said_and_nothing_is_sent(behind, scratch, attachfs_check):
    make_certificates(scratch / "tls")
    m, door = behind(TlsGate, scratch / "tls", cacert=scratch / "tls" / "ca.pem")
    assert sorted(os.listdir(m / ADA)) == ["cached.txt", "large.bin"]
    for kind, words in CERTIFICATES.items():
        door.change(kind)
        m.emulator.reset()
        m.command("refresh", ok=None)
        status = wait_for_state(m, "offline")
        assert words in status["message"], status
        (m / ADA / f"{kind}.txt").write_bytes(kind.encode() * 500)
        said = attachfs_check(m)
        assert words in said
        assert m.emulator.requests() == []
        door.change("good")
        wait_until(lambda: m.idle() and m.status()["state"] == "online", "the queue to drain")
        assert m.emulator.bytes_of(f"{ADA}/{kind}.txt") == kind.encode() * 500


def test_a_redirect_that_leaves_tls_is_not_followed(behind, scratch, emulator):
    make_certificates(scratch / "tls")
    m, _ = behind(TlsGate, scratch / "tls", cacert=scratch / "tls" / "ca.pem", timeout=3)
    m.allow_errors("redirect")
    other = emulator(tree=one_record())
    other.reset()
    m.emulator.faults({**m.system.api, "status": 307, "headers": {"Location": other.api + "/stolen"}})
    m.command("refresh", ok=False)
    wait_until(lambda: m.emulator.struck() > 0, "the redirect to be given")
    assert "from https to http" in m.log()
    assert other.requests() == []
    m.emulator.heal()


@pytest.fixture
def attachfs_check():
    """What `attachfs check` says of the source of a mount."""

    def check(m) -> str:
        argv = m.argv()
        result = run(argv[0], "check", *argv[2:5], ok=False, env=m.env())
        return result.stdout + result.stderr

    return check
