# SPDX-License-Identifier: MIT
"""
Programs that trust a filesystem: git's work tree in a record (its repository outside, as records hold
no directories), and databases of SQLite in every journal mode, also when the daemon is killed. What
they write for themselves only stays here.
"""

import os
import random
import sqlite3
import subprocess
import sys
import time

import pytest

from harness import SLOW, random_bytes, run, seed_of_the_day, wait_until

RECORD = "users/Nobody"

# git


class Git:
    """A work tree, and the repository of it outside."""

    def __init__(self, work, repository):
        self.work = work
        self.env = {
            **{k: v for k, v in os.environ.items() if not k.startswith("GIT_")},
            "GIT_DIR": str(repository),
            "GIT_WORK_TREE": str(work),
            "GIT_CONFIG_NOSYSTEM": "1",
            "GIT_CONFIG_GLOBAL": "/dev/null",
            "GIT_AUTHOR_NAME": "Ada",
            "GIT_AUTHOR_EMAIL": "ada@example.org",
            "GIT_AUTHOR_DATE": "1700000000 +0000",
            "GIT_COMMITTER_NAME": "Ada",
            "GIT_COMMITTER_EMAIL": "ada@example.org",
            "GIT_COMMITTER_DATE": "1700000000 +0000",
            "LC_ALL": "C.UTF-8",
        }
        self.told: list = []

    def __call__(self, *argv, ok=True) -> str:
        said = run("git", *argv, ok=ok, cwd=self.work, env=self.env).stdout
        self.told.append((argv, said))
        return said

    def write(self, name: str, text: str) -> None:
        (self.work / name).write_text(text)

    def files(self) -> dict:
        found = {n: self.work / n for n in os.listdir(self.work) if n != "keep.txt"}
        return {n: (p.read_bytes(), os.stat(p).st_mode & 0o777) for n, p in found.items()}


def lines(start: int, **other) -> str:
    return "".join(other.get(f"l{i}", f"line {start + i}") + "\n" for i in range(300))


def a_day_of_work(git: Git) -> None:
    git("init", "-q", "-b", "main")
    git("config", "core.excludesFile", "/dev/null")
    git("config", "merge.slow.driver", "sleep 0.3; cat %B >> %A")
    git.write(".gitignore", "*.o\nkeep.txt\n")
    git.write(".gitattributes", "*.list merge=slow\n")
    git.write("notes.txt", lines(0))
    git.write("names.list", "Ada\n")
    git.write("empty", "")
    git.write("old name.txt", lines(500))
    git.write("build.sh", "#!/bin/sh\necho built\n" * 80)
    os.chmod(git.work / "build.sh", 0o755)
    (git.work / "logo.png").write_bytes(random_bytes(50_000, "logo"))
    git("add", ".")
    git("commit", "-q", "-m", "first")
    git("status", "--porcelain")

    git.write("notes.txt", lines(0, l3="line three"))
    git("status", "--porcelain")
    git("diff")
    git("commit", "-q", "-a", "-m", "second")

    git("checkout", "-q", "-b", "side")
    git("mv", "old name.txt", "new name.txt")
    git("rm", "-q", "empty")
    git.write("notes.txt", lines(0, l3="line three", l100="of the side"))
    git.write("names.list", "Ada\nGrace\n")
    git.write("only here.txt", "side\n" * 400)
    git("add", ".")
    git("commit", "-q", "-m", "side")

    git("checkout", "-q", "main")
    git("status", "--porcelain")
    git.write("notes.txt", lines(0, l3="line three", l200="stashed"))
    git.write("untracked.txt", "not in the index\n" * 100)
    git("stash", "--include-untracked")
    git("status", "--porcelain")
    git("stash", "pop")
    git("status", "--porcelain")
    git("reset", "-q", "--hard")
    git("status", "--porcelain")
    git.write("main.o", "object\n" * 300)
    git("clean", "-f", "-d", "-x", "-e", "keep.txt")
    git("status", "--porcelain", "--ignored=no")

    git.write("notes.txt", lines(0, l3="line three", l100="of main"))
    git.write("names.list", "Ada\nBarbara\n")
    git("commit", "-q", "-a", "-m", "third")
    git("merge", "side", ok=False)
    git("status", "--porcelain")
    git("diff")
    git("checkout", "--ours", "notes.txt")
    git("add", "-A")
    git("commit", "-q", "-m", "merged")
    git("checkout", "-q", "HEAD~1")
    git("checkout", "-q", "side")
    git("checkout", "-q", "main")
    git("revert", "--no-edit", "-m", "1", "HEAD")
    git("rebase", "-q", "--onto", "HEAD~2", "HEAD~1", "main", ok=None)
    git("log", "--stat", "--format=%h %s")
    git("status", "--porcelain", "--branch")
    git("fsck", "--full")


@pytest.mark.limit(120)
@pytest.mark.parametrize("settle", [0, 2])
def test_a_git_work_tree_in_a_record(drive, system, scratch, settle):
    m = drive(poll=0, settle=settle)
    (scratch / "plain").mkdir()
    plain = Git(scratch / "plain", scratch / "plain.git")
    mounted = Git(m / RECORD, scratch / "mounted.git")
    a_day_of_work(plain)
    a_day_of_work(mounted)
    assert mounted.told == plain.told
    assert mounted.files() == plain.files()

    m.sync()
    assert {
        n: m.emulator.blob(a["id"]) for n, a in m.emulator.folder(RECORD).items()
    } == {n: data for n, (data, _) in plain.files().items()}
    there = [a for a in m.emulator.state()["attachments"] if a["record_name"] == "Nobody"]
    assert not [a["name"] for a in there if a["name"].startswith(".merge_file_")]

    for again in (m.sync, m.remount):
        again()
        # diff-files trusts what stat() says: device, inode, size, times, owner
        assert mounted("diff-files", "--name-only") == ""
        assert mounted("status", "--porcelain") == ""
    os.utime(m / RECORD / "notes.txt", (1_600_000_000, 1_600_000_000))
    assert mounted("diff-files", "--name-only") == "notes.txt\n", "it would tell"
    m.emulator.reset()
    assert mounted("status", "--porcelain") == ""
    m.sync()
    assert m.emulator.uploaded() == 0
    m.forget_cache()  # another machine, whose stat() says other things of the same bytes
    assert mounted("-c", "core.fileMode=false", "status", "--porcelain") == ""


def test_names_that_git_gives_what_it_merges_stay_here(drive):
    m = drive(poll=0, settle=0)
    os.listdir(m / RECORD)
    m.emulator.reset()
    for name in (".merge_file_a01234", "index.lock", "tmp_obj_Ab12Cd"):
        (m / RECORD / name).write_bytes(b"x" * 2000)
    m.sync()
    assert m.emulator.calls() == {}
    for name in (".merge_file_a01234", "index.lock", "tmp_obj_Ab12Cd"):
        os.unlink(m / RECORD / name)


# SQLite

MODES = ["delete", "truncate", "persist", "memory", "wal", "off"]
COMPANIONS = {"-journal", "-wal", "-shm"}


def connect(path, mode: str, **kwargs) -> sqlite3.Connection:
    """With few pages in memory, so that transactions reach the file before they end."""
    db = sqlite3.connect(path, isolation_level=None, **kwargs)
    assert db.execute(f"PRAGMA journal_mode={mode}").fetchone() == (mode,)
    db.execute("PRAGMA cache_size=8")
    db.execute("PRAGMA synchronous=FULL")
    return db


def rows_of(db) -> tuple:
    return db.execute("SELECT count(*), total(n), total(length(text)) FROM t").fetchone()


def assert_sound(path) -> tuple:
    """The rows of a database that is as it should be."""
    db = sqlite3.connect(path)
    try:
        assert db.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        return rows_of(db)
    finally:
        db.close()


def on_the_server(m, scratch) -> tuple:
    """The rows of what the server has, opened alone."""
    copy = scratch / "copy.db"
    copy.write_bytes(m.emulator.bytes_of(f"{RECORD}/data.db"))
    try:
        return assert_sound(copy)
    finally:
        for name in scratch.glob("copy.db*"):
            name.unlink()


def shell(path, sql: str, ok=True) -> str:
    """The command line program: another process, whose locks are its own."""
    result = run("sqlite3", "-bail", path, sql, ok=ok)
    return result.stdout + result.stderr


@pytest.mark.parametrize("mode", MODES)
def test_a_database_in_every_journal_mode(drive, system, scratch, mode):
    m = drive(poll=0, settle=0.1)
    path = m / RECORD / "data.db"
    db = connect(path, mode)
    db.execute("CREATE TABLE t (n INTEGER PRIMARY KEY, text TEXT)")
    db.execute("CREATE INDEX i ON t (text)")
    for start in range(0, 400, 100):
        with db:
            db.execute("BEGIN")
            db.executemany(
                "INSERT INTO t VALUES (?, ?)", [(n, "x" * (n % 90)) for n in range(start, start + 100)]
            )
    before = rows_of(db)
    if mode != "off":  # which cannot
        db.execute("BEGIN")
        db.execute("UPDATE t SET text = text || text || n")
        db.execute("DELETE FROM t WHERE n % 3")
        companions = {n[len("data.db") :] for n in m.names(RECORD)} & COMPANIONS
        assert bool(companions) == (mode != "memory"), m.names(RECORD)
        m.sync(ok=None)
        assert set(m.emulator.folder(RECORD)) <= {"data.db"}
        db.execute("ROLLBACK")
        assert rows_of(db) == before

    db.execute("BEGIN IMMEDIATE")
    db.execute("INSERT INTO t VALUES (1000, 'first')")
    assert "locked" in shell(path, "INSERT INTO t VALUES (1001, 'second')", ok=False)
    if mode == "wal":
        assert shell(path, "SELECT count(*) FROM t") == "400\n", "readers see what is committed"
    db.execute("COMMIT")
    shell(path, "INSERT INTO t VALUES (1001, 'second'); DELETE FROM t WHERE n < 100")
    assert db.execute("SELECT text FROM t WHERE n >= 1000 ORDER BY n").fetchall() == [
        ("first",),
        ("second",),
    ]
    db.execute("VACUUM")
    wanted = rows_of(db)
    db.close()

    m.sync()
    assert set(m.emulator.folder(RECORD)) == {"data.db"}
    assert on_the_server(m, scratch) == wanted
    m.remount()
    assert assert_sound(path) == wanted
    shell(path, "INSERT INTO t VALUES (2000, 'third')")
    tidy(m)
    wanted = assert_sound(path)
    m.sync()
    assert on_the_server(m, scratch) == wanted


@pytest.mark.parametrize("mode", ["delete", "wal"])
def test_two_processes_write_to_one_database(drive, mode):
    """By turns: neither loses a row, nobody sees half of a transaction."""
    m = drive(poll=0, settle=0.1)
    path = m / RECORD / "data.db"
    db = connect(path, mode)
    db.execute("CREATE TABLE t (n INTEGER PRIMARY KEY, text TEXT)")
    program = f"""
import sqlite3, sys
db = sqlite3.connect(sys.argv[1], isolation_level=None, timeout={60 * SLOW})
for i in range(40):
    db.execute("BEGIN IMMEDIATE")
    n, = db.execute("SELECT count(*) FROM t").fetchone()
    assert n % 5 == 0, n
    db.executemany("INSERT INTO t VALUES (?, ?)", [(n + k, sys.argv[2]) for k in range(5)])
    db.execute("COMMIT")
"""
    writers = [
        subprocess.Popen([sys.executable, "-c", program, path, name], stderr=subprocess.PIPE)
        for name in ("one", "two")
    ]
    for w in writers:
        _, said = w.communicate(timeout=120 * SLOW)
        assert w.returncode == 0, said.decode()
    assert rows_of(db) == (400, sum(range(400)), 1200)
    db.close()
    m.sync()
    m.remount()
    assert assert_sound(path) == (400, sum(range(400)), 1200)


# Each transaction adds a row and moves one from each account to the next: half of one would show.
WRITER = """
import sqlite3, sys
db = sqlite3.connect(sys.argv[1], isolation_level=None)
db.execute("PRAGMA journal_mode=" + sys.argv[2])
db.execute("PRAGMA synchronous=FULL")
db.execute("PRAGMA cache_size=4")
while True:
    db.execute("BEGIN IMMEDIATE")
    n, = db.execute("SELECT count(*) FROM t").fetchone()
    db.execute("INSERT INTO t VALUES (?, ?)", (n, "x" * (n * 37 % 2000)))
    db.execute("UPDATE account SET sum = sum + 1, text = zeroblob(500 + ? % 50)", (n,))
    if len(sys.argv) > 3 and n == int(sys.argv[3]):
        print("in the middle", flush=True)
        sys.stdin.read()
    db.execute("COMMIT")
    print(n, flush=True)
"""


def a_database_with_accounts(path, mode) -> None:
    db = connect(path, mode)
    with db:
        db.execute("CREATE TABLE t (n INTEGER PRIMARY KEY, text TEXT)")
        db.execute("CREATE TABLE account (id INTEGER PRIMARY KEY, sum INTEGER, text TEXT)")
        db.executemany("INSERT INTO account VALUES (?, 0, zeroblob(500))", [(i,) for i in range(60)])
    db.close()


class Writer:
    """A process that writes until its mount is dead."""

    def __init__(self, output, *argv):
        self.output = output
        with open(output, "wb") as out:
            self.process = subprocess.Popen(
                [sys.executable, "-c", WRITER, *map(str, argv)],
                stdin=subprocess.PIPE,
                stdout=out,
                stderr=subprocess.STDOUT,
            )

    def lines(self) -> list:
        return self.output.read_text().splitlines()

    def wait_for(self, line: str) -> None:
        wait_until(
            lambda: line in self.lines() or self.process.poll() is not None, f"'{line}' to be told"
        )
        assert line in self.lines(), self.lines()

    def end(self) -> int:
        """How many transactions it was told are committed, counted from the first one ever."""
        self.process.communicate(b"", timeout=60 * SLOW)
        return max(int(line) for line in self.lines() if line.isdigit()) + 1


def whole_transactions(path) -> int:
    """How many there are, none of them half."""
    db = sqlite3.connect(path)
    assert db.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    (count,) = db.execute("SELECT count(*) FROM t").fetchone()
    assert db.execute("SELECT min(sum), max(sum) FROM account").fetchone() == (count, count)
    db.close()
    return count


def tidy(m) -> None:
    """The journal that truncate and persist leave behind goes with the next transaction."""
    db = connect(m / RECORD / "data.db", "delete")
    db.execute("PRAGMA user_version=1")
    db.close()
    assert m.names(RECORD) == ["data.db"]


def whole_transactions_on_the_server(m, scratch) -> int:
    assert set(m.emulator.folder(RECORD)) == {"data.db"}
    (scratch / "copy.db").write_bytes(m.emulator.bytes_of(f"{RECORD}/data.db"))
    return whole_transactions(scratch / "copy.db")


@pytest.mark.parametrize("mode", ["delete", "truncate", "persist", "wal"])
def test_a_hot_journal_survives_the_daemon(drive, system, scratch, mode):
    """Killed in the middle of a transaction whose first pages are in the database already."""
    m = drive(poll=0, settle=0)
    path = m / RECORD / "data.db"
    a_database_with_accounts(path, mode)
    writer = Writer(scratch / "writer.out", path, mode, 3)
    writer.wait_for("in the middle")
    m.sync(ok=None)
    m.kill9()
    assert writer.end() == 3
    m.start()
    companion = m / RECORD / ("data.db-wal" if mode == "wal" else "data.db-journal")
    assert os.stat(companion).st_size > 0, "it is local, not lost"
    assert companion.name not in m.emulator.folder(RECORD)
    assert whole_transactions(path) == 3
    tidy(m)
    m.sync()
    assert whole_transactions_on_the_server(m, scratch) == 3


@pytest.mark.limit(180)
@pytest.mark.parametrize("mode", ["delete", "truncate", "persist", "wal"])
def test_no_committed_transaction_is_lost_when_the_daemon_is_killed(drive, system, scratch, mode):
    chance = random.Random(seed_of_the_day())
    m = drive(poll=0, settle=0)
    path = m / RECORD / "data.db"
    a_database_with_accounts(path, mode)
    count = 0
    for i in range(5):
        writer = Writer(scratch / f"writer-{i}.out", path, mode)
        writer.wait_for(str(count))
        time.sleep(chance.random() * 0.3)
        m.kill9()
        told = writer.end()
        m.start()
        count = whole_transactions(path)
        assert told <= count <= told + 1, f"{count} transactions, {told} were told"
    tidy(m)
    m.sync()
    assert whole_transactions_on_the_server(m, scratch) == count
