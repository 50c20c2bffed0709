# SPDX-License-Identifier: MIT
"""
Fixtures of the mount tests: see harness.py for what they hand out.

    emulator(tree=..., generate=[...], toggles={...})   a server of one's own
    mount(emulator, settle=600, ...)                    a mount of it, running
    drive(tree=..., ...)                                both: a mount whose .emulator holds the tree
                                                        given, or the small one
    scratch                                             a directory outside the mount

Everything a test makes is below one temporary directory, removed when the test passed and kept (and
named) when it failed. `--part K/N` runs every N-th test, so that N pytest processes share a file;
`--share K/N` a choice of every N-th or so by its name, which is the same whatever else runs.
"""

import faulthandler
import shutil
import sys
import tempfile
import threading
import zlib
from pathlib import Path

import pytest

sys.dont_write_bytecode = True

from harness import (
    Emulator,
    Gate,
    Mount,
    Readers,
    SLOW,
    SYSTEMS,
    binary,
    build_dir,
    clean_environment,
    dump_stacks,
    lazy_unmount,
    run,
    small_tree,
)  # noqa: E402


def pytest_addoption(parser):
    parser.addoption("--part", metavar="K/N", help="run only every N-th test, from the K-th on")
    parser.addoption("--share", metavar="K/N", help="run only the K-th of N shares, by the name")
    parser.addoption(
        "--systems",
        metavar="FIRST:END",
        help="each test on these only, of the four systems in an order of its own",
    )


def rank_of(item) -> int:
    """
    The place of an item's system in the order its test tries them: a few places of each test still
    see every test, and every system with many of them.
    """
    chosen = item.callspec.params["system"]
    name = item.nodeid.replace(chosen.name, "")
    return (SYSTEMS.index(chosen) - zlib.crc32(name.encode())) % len(SYSTEMS)


def has_system(item) -> bool:
    return "system" in getattr(getattr(item, "callspec", None), "params", {})


def k_of_n(text: str) -> tuple:
    k, n = map(int, text.split("/"))
    assert 1 <= k <= n, f"{text}: not one of so many"
    return k, n


def pytest_collection_modifyitems(config, items):
    chosen = items
    if systems := config.getoption("--systems"):
        first, end = map(int, systems.split(":"))
        assert 0 <= first < end <= len(SYSTEMS), f"--systems {systems}"
        chosen = [i for i in chosen if not has_system(i) or first <= rank_of(i) < end]
    if share := config.getoption("--share"):
        k, n = k_of_n(share)
        chosen = [i for i in chosen if zlib.crc32(i.nodeid.encode()) % n == k - 1]
    if part := config.getoption("--part"):
        k, n = k_of_n(part)
        chosen = chosen[k - 1 :: n]
    kept = set(chosen)
    config.hook.pytest_deselected(items=[item for item in items if item not in kept])
    items[:] = chosen


@pytest.hookimpl(hookwrapper=True, tryfirst=True)
def pytest_runtest_makereport(item, call):
    outcome = yield
    report = outcome.get_result()
    if report.failed:
        item.failed_somewhere = True


@pytest.fixture(params=SYSTEMS, ids=lambda s: s.name)
def system(request):
    """
    The server under the mount; tests that need one kind of server say so with `only_perscom` or
    look at its capabilities.
    """
    return request.param


@pytest.fixture
def base(request):
    """The test's own temporary directory, passable by other users, kept when the test failed."""
    path = Path(tempfile.mkdtemp(prefix="attachfs-test-"))
    path.chmod(0o755)
    yield path
    if getattr(request.node, "failed_somewhere", False):
        print(f"kept for inspection: {path}")
    else:
        shutil.rmtree(path, ignore_errors=True)


@pytest.fixture
def scratch(base):
    path = base / "scratch"
    path.mkdir()
    return path


@pytest.fixture
def attachfs(base):
    """Run attachfs with arguments; options `ok` and `timeout` as run()."""
    env = clean_environment(base)

    def call(*argv, environment=None, **kwargs):
        return run(binary("attachfs"), *argv, env={**env, **(environment or {})}, **kwargs)

    return call


@pytest.fixture
def token(base):
    path = base / "token"
    path.write_text("test-token\n")
    path.chmod(0o600)
    return path


@pytest.fixture
def mnt(base):
    path = base / "mnt"
    path.mkdir()
    yield path
    lazy_unmount(path)


@pytest.fixture
def emulator(base, system):
    made = []

    def make(tree=None, **kwargs) -> Emulator:
        made.append(Emulator(base / f"emulator-{len(made)}", system, tree=tree, **kwargs))
        return made[-1]

    yield make
    for e in made:
        e.stop()
    for e in made:
        e.finish()


@pytest.fixture
def mount(base, emulator, gate, request):
    """
    Mounts that get the final check. A test whose body failed only gets cleaned up: its first error
    is the one to read.
    """
    made = []
    marker = request.node.get_closest_marker("limit")
    watchdog = threading.Timer(
        (marker.args[0] if marker else 60) * SLOW, _bite, [made, request.node.nodeid]
    )
    watchdog.daemon = True
    watchdog.start()

    def make(server: Emulator, start: bool = True, **options) -> Mount:
        m = Mount(base / f"mount-{len(made)}", server, **options)
        made.append(m)
        return m.start() if start else m

    yield make
    try:
        if not getattr(request.node, "failed_somewhere", False):
            for m in made:
                if m.check_at_end:
                    m.finish()
        for m in made:
            assert (
                not m.hung
            ), f"hung; stacks of the daemon in {m.base}/stacks.txt if gdb is installed"
    except BaseException:
        # pytest tells of it when all is cleaned up
        request.node.failed_somewhere = True
        raise
    finally:
        watchdog.cancel()
        for m in made:
            m.abandon()
        if getattr(request.node, "failed_somewhere", False):
            for m in made:
                print(f"--- {m.path}, exit status {m.exit_status}\n{m.said()}")


def _bite(mounts, test):
    """
    A test hangs, most likely in a system call on its mount: end the daemon, so that the call fails
    and the test with it.
    """
    print(f"\n{test}: hangs", file=sys.stderr)
    faulthandler.dump_traceback(file=sys.__stderr__)
    for m in mounts:
        m.hung = True
        if m.process is not None and m.process.poll() is None:
            dump_stacks(m.process.pid, m.base)
            m.process.kill()


@pytest.fixture
def drive(emulator, mount):
    """
    A running mount of an emulator with the small tree, or the one given. @changes are made on the
    server before it is mounted; `.changed` has their ids.
    """

    def make(
        tree=None, toggles=None, generate=(), tokens=(), changes=(), start=True, **options
    ) -> Mount:
        if tree is None and not generate:
            tree = small_tree()
        server = emulator(tree=tree, toggles=toggles, generate=generate, tokens=tokens)
        changed = server.change(*changes) if changes else []
        m = mount(server, start=start, **options)
        m.changed = changed
        return m

    return make


@pytest.fixture
def gate(emulator):
    """A way to take the network away: mount gate(server).url instead of its api."""
    made = []

    def make(server: Emulator, kind=Gate, *arguments) -> Gate:
        g = kind(server.api, *arguments)
        g.open()
        made.append(g)
        return g

    yield make
    for g in made:
        g.shut()


@pytest.fixture
def readers(mount):
    r = Readers()
    yield r
    r.end()


def pytest_report_header(config):
    return f"attachfs mount tests: build {build_dir()}, slow factor {SLOW:g}"
