# SPDX-License-Identifier: MIT
"""
The system waits with its end while something is on its way to the server: against a logind of the
test's own, on a bus of its own. Without them nothing is held, and nothing is said.
"""

import os
import queue
import shutil
import subprocess
import threading

import pytest

from harness import PERSCOM, SLOW, binary, build_dir, wait_until

CONFIG = """<busconfig>
<type>system</type><listen>unix:path={path}</listen><auth>EXTERNAL</auth>
<policy context="default"><allow own="*"/><allow send_destination="*"/><allow eavesdrop="true"/>
<allow receive_sender="*"/></policy>
</busconfig>
"""


@pytest.fixture
def system():
    return PERSCOM


def fake_logind():
    try:
        return binary("fake-logind")
    except AssertionError:
        if os.environ.get("CI") == "true":
            raise
        pytest.skip(f"{build_dir()} was built without libsystemd")


class Logind:
    """Its lines, as they come."""

    def __init__(self, base):
        if not shutil.which("dbus-daemon"):
            pytest.fail("apt-get install dbus-daemon")
        self.said = queue.Queue()
        (base / "bus.conf").write_text(CONFIG.format(path=base / "bus"))
        self.bus = subprocess.Popen(
            ["dbus-daemon", "--nofork", "--nopidfile", f"--config-file={base}/bus.conf"],
            stderr=subprocess.PIPE,
        )
        wait_until(lambda: (base / "bus").exists(), "the bus")
        self.environment = {"DBUS_SYSTEM_BUS_ADDRESS": f"unix:path={base}/bus"}
        self.process = subprocess.Popen(
            [fake_logind()], env={**os.environ, **self.environment}, text=True,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        )  # fmt: skip
        threading.Thread(target=self._listen, daemon=True).start()
        assert self.next() == "ready"

    def _listen(self):
        for line in self.process.stdout:
            self.said.put(line.strip())

    def next(self):
        return self.said.get(timeout=30 * SLOW)

    def quiet(self):
        return self.said.empty()

    def shut_down(self):
        self.process.stdin.write("shutdown\n")
        self.process.stdin.flush()

    def end(self):
        for p in (self.process, self.bus):
            p.terminate()
            p.wait(30)


@pytest.fixture
def logind(base):
    fake_logind()
    made = Logind(base)
    yield made
    made.end()


TAKEN = "taken shutdown attachfs delay"


def test_a_shutdown_waits_while_something_is_to_be_sent(drive, logind):
    m = drive(environment=logind.environment, settle=600)
    assert logind.quiet(), "nothing to send, nothing to wait for"
    for name in ("new.txt", "another.txt"):
        (m / f"users/Nobody/{name}").write_bytes(b"x" * 3000)
        assert logind.next() == TAKEN
        assert m.emulator.count(m.system.creates) == (name == "another.txt"), "it waits for settle="
        m.sync()
        assert logind.next() == "released"


def test_when_it_begins_all_is_sent_at_once(drive, logind):
    m = drive(environment=logind.environment, settle=600)
    (m / "users/Nobody/new.txt").write_bytes(b"x" * 3000)
    assert logind.next() == TAKEN
    logind.shut_down()
    assert logind.next() == "released"
    assert m.emulator.bytes_of("users/Nobody/new.txt") == b"x" * 3000


def test_what_cannot_be_sent_holds_nothing_up(emulator, mount, gate, logind):
    server = emulator(tree={"users": {"Ada Byron": {"a.txt": b"hello"}}, "events": {}})
    way = gate(server)
    source = server.system.source(way.url)
    m = mount(server, source=source, environment=logind.environment, settle=600)
    m.allow_errors("network: ")
    (m / "users/Ada Byron/b.txt").write_bytes(b"x" * 3000)
    assert logind.next() == TAKEN
    way.shut()
    m.command("sync", "--timeout", "2", ok=False)
    assert logind.next() == "released"
    way.open()
    m.sync()


def test_a_killed_daemon_holds_nothing_up(drive, logind):
    m = drive(environment=logind.environment, settle=600)
    (m / "users/Nobody/new.txt").write_bytes(b"x" * 3000)
    assert logind.next() == TAKEN
    m.kill9()
    assert logind.next() == "released"
    m.start()
    m.sync()


def test_without_a_bus_nothing_is_said(drive, base):
    m = drive(environment={"DBUS_SYSTEM_BUS_ADDRESS": f"unix:path={base}/nobody"}, settle=1)
    (m / "users/Nobody/new.txt").write_bytes(b"x" * 3000)
    wait_until(m.idle, "the file to be sent")
    assert "shutdown:" not in "".join(line for line in m.log().splitlines() if " debug " not in line)
