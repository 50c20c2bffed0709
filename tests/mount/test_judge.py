# SPDX-License-Identifier: MIT
"""
The short form of scripts/judge: what single calls give, and random bytes of one file, in a record
and beside it. tests/judge/ has the cases, and what is longer.
"""

import os
import shutil
import sys

import pytest

from harness import REPOSITORY, seed_of_the_day

sys.path.insert(0, str(REPOSITORY / "tests" / "judge"))

import behaviour  # noqa: E402
from bytes_at_random import History  # noqa: E402
from judge import explain  # noqa: E402

TREE = {"users": {"Ada Byron": {}, "Grace Hopper": {}}, "events": {}}


@pytest.mark.parametrize("settle", [0, 600])
@pytest.mark.limit(120)
def test_single_calls_do_what_they_do_in_a_local_directory(drive, system, scratch, settle):
    m = drive(tree=TREE, settle=settle, poll=0, allow_other=os.getuid() == 0 or None)
    old = os.umask(0o022)
    try:
        lines = list(behaviour.compare(m / "users/Ada Byron", m / "users/Grace Hopper", scratch))
    finally:
        os.umask(old)
    assert [line for line in lines if not explain(system.name, line)] == []


@pytest.mark.limit(240)
def test_random_bytes_are_kept_whatever_happens_in_between(drive):
    m = drive(tree=TREE, settle=0.2, poll=0)

    def forget():
        m.sync()
        m.umount()
        shutil.rmtree(m.cache)
        m.start()

    def kill():
        m.kill9()
        m.start()

    others = {"sync": m.sync, "forget": forget, "remount": m.remount, "kill": kill}
    History(str(m / "users/Ada Byron/bytes"), seed_of_the_day(), 900_000, others).run(250)
