# SPDX-License-Identifier: MIT
"""
1,000 real files from /usr/share, empty to 20 MB: in, compared on the server, and out again on a
machine that never saw them.
"""

import os
import random
import shutil

import pytest

from harness import KEEP, random_bytes, run, seed_of_the_day

SIZE_MAX = 20_000_000
COUNT = 1000
RECORDS = ["users/Ada Byron", "users/Grace Hopper", "events/Live fire", "events/Winter camp"]


def chosen_files(chance) -> list:
    """
    COUNT readable regular files below /usr/share: any, but with some large ones, some below 1 KiB
    and an empty one if there is.
    """
    found = []
    for folder, _, names in os.walk("/usr/share"):
        for name in names:
            path = os.path.join(folder, name)
            try:
                size = os.stat(path, follow_symlinks=False).st_size
            except OSError:
                continue
            if (
                os.path.isfile(path)
                and not os.path.islink(path)
                and size <= SIZE_MAX
                and os.access(path, os.R_OK)
            ):
                found.append((size, path))
    found.sort()
    assert len(found) >= COUNT, f"only {len(found)} files in /usr/share"
    large = found[-12:]
    small = [f for f in found if f[0] < 1024]
    picked = {p for _, p in large + found[:3] + chance.sample(small, min(150, len(small)))}
    rest = [p for s, p in found if p not in picked and s <= 1_000_000]
    picked |= set(chance.sample(rest, COUNT - len(picked)))
    return sorted(picked)


@pytest.fixture
def files(scratch, system):
    """A local tree of four records with COUNT files, and two just beyond the server's limits."""
    chance = random.Random(seed_of_the_day())
    records = [system.real_path(r) for r in RECORDS]
    root = scratch / "in"
    for r in records:
        (root / r).mkdir(parents=True)
    taken = set()
    for i, path in enumerate(chosen_files(chance)):
        # where the server cannot be told of a character: that is EINVAL, and tested elsewhere
        name = os.path.basename(path).translate({ord(c): "_" for c in system.bad_in_names})
        record = records[i % 4]
        if (record, name.lower()) in taken:
            name = f"{i}-{name}"[-255:]
        taken.add((record, name.lower()))
        shutil.copy2(path, root / record / name)
    for size in (0, 10_240_001, SIZE_MAX):
        (root / records[0] / f"made-{size}.bin").write_bytes(random_bytes(size))
    return root


@pytest.mark.limit(400)
def test_1000_files_round_trip_with_equal_checksums(drive, files):
    m = drive(
        tree={
            "users": {"Ada Byron": {}, "Grace Hopper": {}},
            "events": {"Live fire": {}, "Winter camp": {}},
        }
    )
    m.same_at_end = False  # done here, with sha256sum
    for record in RECORDS:
        run("cp", "-r", f"{files / m.system.real_path(record)}/.", m / record, timeout=200)
    m.sync(timeout=300)
    server = sums_of(m.emulator)
    local = checksums(files)
    assert len(local) >= COUNT
    assert set(server) == set(local)
    assert server == local
    m.forget_cache()
    assert checksums(m.path) == local


@pytest.mark.limit(400)
def test_a_thousand_files_by_rsync_and_again(drive, files):
    m = drive(
        tree={
            "users": {"Ada Byron": {}, "Grace Hopper": {}},
            "events": {"Live fire": {}, "Winter camp": {}},
        }
    )
    m.same_at_end = False
    argv = ["rsync", "-ai", *sorted(files.iterdir()), f"{m.path}/"]
    run(*argv, timeout=200)
    m.sync(timeout=300)
    assert sums_of(m.emulator) == checksums(files)
    assert run(*argv, timeout=200).stdout == ""


def sums_of(emulator) -> dict:
    """Path as in the mount -> checksum, without what only keeps records in the server's lists."""
    return {
        emulator.system.real_path(path): a["sha256"]
        for path, a in emulator.files().items()
        if os.path.basename(path) != KEEP
    }


def checksums(root) -> dict:
    told = run(
        "sh",
        "-c",
        f"find * -type f ! -name {KEEP} -print0 | sort -z | xargs -0 sha256sum -z",
        cwd=root,
        timeout=200,
    ).stdout
    return {line[66:]: line[:64] for line in told.split("\0") if line}
