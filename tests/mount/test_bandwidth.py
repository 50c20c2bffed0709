# SPDX-License-Identifier: MIT
"""bwlimit=: how long bytes take, and that a program's do not wait behind an upload's."""

import os
import time

import pytest

from harness import PERSCOM, random_bytes

RATE = 512 << 10
SIZE = 3 * RATE
# what may go at once: a fifth of a second of each class
LEAST_S = (SIZE - 4 * RATE / 5) / RATE


@pytest.fixture
def system():
    return PERSCOM


def test_an_upload_takes_as_long_as_it_may_and_reads_get_through(drive):
    there = random_bytes(300_000)
    m = drive(tree={"users": {"Ada Byron": {"there.bin": there}}}, settle=0, bwlimit=f"512K:{RATE}")
    ours = random_bytes(SIZE, "ours")
    os.listdir(m / "users/Ada Byron")
    began = time.monotonic()
    (m / "users/Ada Byron/ours.bin").write_bytes(ours)
    assert (m / "users/Ada Byron/there.bin").read_bytes() == there
    assert not m.idle(), "the upload is under way all the time"
    m.sync()
    assert time.monotonic() - began > LEAST_S
    assert m.emulator.bytes_of("users/Ada Byron/ours.bin") == ours


def test_a_download_takes_as_long_as_it_may(drive):
    data = random_bytes(SIZE)
    m = drive(tree={"users": {"Ada Byron": {"there.bin": data}}}, bwlimit=f"0:{RATE}")
    began = time.monotonic()
    assert (m / "users/Ada Byron/there.bin").read_bytes() == data
    assert time.monotonic() - began > LEAST_S
