# SPDX-License-Identifier: MIT
"""
A drive that always answers: whatever does not need the network is answered while hundreds of reads
wait for a server that never does; who waits can be killed, and waits no longer than it was told.
"""

import errno
import os
import re
import signal
import subprocess

import pytest

from crowd import Crowd
from harness import SLOW, run, wait_until

LATE = "timed out|deadline|ETIMEDOUT|timeout|time|stall|answer|cut"


@pytest.fixture
def crowd(mount):
    made = []

    def make(paths) -> Crowd:
        made.append(Crowd(paths))
        return made[-1]

    yield make
    for c in made:
        c.end()


def metric(m, name: str) -> int:
    text = (m.path / ".attachfs/metrics").read_text()
    (value,) = re.findall(rf"^attachfs_{name} (\d+)$", text, re.M)
    return int(value)


def parked_calls(m) -> int:
    return m.status()["parked_calls"]


def silent(m, count: int):
    """A record with @count files of known sizes and a cached one, and a server that never answers."""
    record = m / f"users/{os.listdir(m / 'users')[0]}"
    names = sorted(os.listdir(record))
    assert len(names) > count
    (record / names[0]).stat()
    cached = record / names[-1]
    assert len(cached.read_bytes()) == 5000
    for name in names:
        assert (record / name).stat().st_size == 5000
    m.emulator.faults({**m.system.blob, "hang": True})
    return record, [record / name for name in names[:count]], cached


def no_worker_waits(m) -> None:
    """Only the one that is asked is at work; none was ever for as long as the network took."""
    wait_until(lambda: metric(m, "workers_busy") <= 1, "the threads to be free")
    assert metric(m, "worker_longest_milliseconds") < 20_000 * SLOW
    assert metric(m, "forbidden_waits_total") == 0


@pytest.mark.limit(120)
def test_500_parked_reads_hold_up_nothing(drive, readers, crowd):
    m = drive(generate=["users:1:510:5000"], poll=0, timeout=600)
    m.same_at_end = False
    record, paths, cached = silent(m, 500)
    crowd_of_many = crowd(paths[:497])
    for path in paths[497:]:
        readers.start(path)
    wait_until(lambda: parked_calls(m) >= 500, "all readers to wait")
    assert len(cached.read_bytes()) == 5000
    assert len(run("ls", record).stdout.splitlines()) == 510
    run("ls", "-l", record)
    run("df", m.path)
    m.command("status")
    (record / "new.txt").write_bytes(b"written meanwhile" * 100)
    os.rename(record / "new.txt", record / "renamed.txt")
    assert (record / "renamed.txt").read_bytes() == b"written meanwhile" * 100
    os.unlink(record / "renamed.txt")
    no_worker_waits(m)
    assert parked_calls(m) >= 500, "all of it happened while every reader was waiting"
    for reader in readers.processes:
        reader.kill()
        assert reader.wait(20 * SLOW) == -signal.SIGKILL
    assert crowd_of_many.waiting()
    crowd_of_many.end()  # gone at once; what the kernel reads ahead for them it asks for all the same
    m.emulator.heal()


def test_who_waits_is_told_at_the_deadline_even_if_stopped_meanwhile(drive, crowd):
    m = drive(generate=["users:1:70:5000"], poll=0, timeout=2)
    m.same_at_end = False
    m.allow_errors(LATE)
    _, paths, _ = silent(m, 60)
    awake, stopped = crowd(paths[:30]), crowd(paths[30:])
    wait_until(lambda: parked_calls(m) >= 60, "all readers to wait")
    stopped.process.send_signal(signal.SIGSTOP)
    results = awake.results(60 * SLOW)
    assert set(results) == {errno.ETIMEDOUT}, results
    assert len(results[errno.ETIMEDOUT]) == 30 and min(results[errno.ETIMEDOUT]) > 1.5
    wait_until(lambda: parked_calls(m) == 0, "the stopped ones to be answered, too")
    stopped.process.send_signal(signal.SIGCONT)
    assert set(stopped.results(60 * SLOW)) == {errno.ETIMEDOUT}
    m.emulator.heal()
    wait_until(lambda: not any(Crowd(paths[:1]).results(60 * SLOW).keys()), "reading to work again")
