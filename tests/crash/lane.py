# SPDX-License-Identifier: MIT
"""
One mount with its server, whose daemon is killed over and over.

A life of the daemon: started (perhaps with a crash point armed), looked at, worked on by several
threads, killed. What a look shows must be one of the states its owner was promised. Every few
lives everything is sent and compared with what the server has.

A kill is one of
    point   the daemon ends itself at a named step (fs/crashpoint.h)
    moment  SIGKILL at some instant of the work
    start   SIGKILL while it starts over what the last one left
    end     SIGKILL after it was asked to end
"""

import hashlib
import os
import random
import shutil
import signal
import sqlite3
import subprocess
import threading
import time
from collections import Counter
from pathlib import Path

from harness import (
    KEEP,
    MNT_FORCE,
    SLOW,
    Emulator,
    Mount,
    System,
    binary,
    is_mounted,
    lazy_unmount,
    libc,
)
from workload import File, Hashes, Violation, Worker, bytes_of, told

FILLER = (b"attachfs filler, the content follows (P-1)\n" * 24)[:1024]
SETTLE_EVERY = 8  # lives
TRIES = 6  # for a point
POINT_SECONDS = 2.0  # to wait for a point to be passed
MNT_DETACH = 2
# what a daemon says that finds what another was killed over
EXPECTED_ERRORS = (
    r"no file has it",
    r"HTTP 503",
    r" 503",
    r"cannot be reached",
)


class QuickMount(Mount):
    """Looks for its binary once."""

    program = None

    def argv(self) -> list:
        self.program = self.program or binary("attachfs")
        return [self.program, "-f", "-o", self.option_text(), self.source, str(self.path)]


def leader_is_dead(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return False


def detach(path: Path) -> None:
    if libc.umount2(os.fsencode(path), MNT_DETACH) < 0 and is_mounted(path):
        lazy_unmount(path)


class Lane:
    power = False

    def __init__(self, base: Path, system: System, seed: str, points: list, tell):
        base.mkdir(parents=True)
        self.base = base
        self.system = system
        self.chance = random.Random(seed)
        self.points = list(points)
        self.tell = tell
        self.counts: Counter = Counter()
        self.tries: Counter = Counter()  # of points that were waited for in vain
        self.passed: set = set()
        self.struck: set = set()
        self.lives = 0
        self.ended_well = False
        self.stop = threading.Event()
        self.turn = threading.Lock()  # held while the daemon changes
        self.problems: list = []
        self.crash_log = base / "points.log"
        self.checker = binary("ledger-check")
        self.hashes = Hashes()
        far = ["events/Live fire"] if system.move_between_collections else []
        records = ["users/Ada Byron", "users/Grace Hopper", *far]
        tree = {
            "users": {"Ada Byron": {}, "Grace Hopper": {}, "Spare": {}},
            "events": {"Live fire": {}, "Drill": {}},
        }
        self.records = ["users/Ada Byron", "users/Grace Hopper", "events/Live fire"]
        self.emulator = Emulator(base / "emulator", system, tree=tree)
        self.mount = QuickMount(base / "mount", self.emulator, settle=0, poll=0, timeout=60)
        self.mount.killed = True
        for pattern in EXPECTED_ERRORS:
            self.mount.allow_errors(pattern)
        self.workers = [
            Worker(letter, self.mount.path, system, records, self.hashes, f"{seed}/{letter}")
            for letter in "abc"
        ]
        if system.renamable:
            folder = system.renamable[0]
            title = {"users": "Spare", "events": "Drill"}[folder]
            self.workers[0].titles = (folder, title, "Exercise")
            self.workers[0].settle({"@title": File(title.encode())})
        for w in self.workers:
            w.history = [[0.0, True, w.state]]

        threading.Thread(target=self.watch, daemon=True).start()

    # life of the daemon

    def watch(self) -> None:
        """
        A daemon that killed itself may hang with a thread in the kernel: a notification that waits
        for a directory whose holder, one of us, waits for the daemon (see reap()).
        """
        while True:
            time.sleep(0.5 * SLOW)
            process = self.mount.process
            if process is not None and leader_is_dead(process.pid):
                time.sleep(0.5 * SLOW)
                # or it is the next one's mount that ends
                with self.turn:
                    if self.mount.process is process and leader_is_dead(process.pid):
                        libc.umount2(os.fsencode(self.mount.path), MNT_FORCE)

    def launch(self, environment: dict, kill_after=None) -> bool:
        """False: it died before it was mounted."""
        m = self.mount
        m.environment = environment
        before = os.stat(m.base).st_dev
        with self.turn:
            m.process = m.spawn()
        m.environment = {}  # not for our own commands
        timer = None
        if kill_after is not None:
            timer = threading.Timer(kill_after, m.process.kill)
            timer.start()
        deadline = time.monotonic() + 60 * SLOW
        try:
            while m.process.poll() is None:
                try:
                    if is_mounted(m.path) and os.stat(m.path).st_dev != before:
                        return True
                except OSError:
                    pass
                if time.monotonic() > deadline:
                    raise Violation(f"not mounted after a minute: {m.said()}")
                time.sleep(0.003)
        finally:
            if timer is not None:
                timer.join()
        return False

    def is_dying(self) -> bool:
        process = self.mount.process
        if process is None:
            return True
        try:
            process.wait(3 * SLOW)
        except subprocess.TimeoutExpired:
            return False
        return True

    def reap(self, ask: int = signal.SIGKILL) -> int:
        """
        The daemon's exit status. A notification of it may wait in the kernel for a directory whose
        holder waits for the daemon: aborting the connection ends that.
        """
        process = self.mount.process
        process.send_signal(ask)
        for i in range(60):
            try:
                process.wait(0.5 * SLOW)
                break
            except subprocess.TimeoutExpired:
                if ask == signal.SIGKILL or i > 20:
                    libc.umount2(os.fsencode(self.mount.path), MNT_FORCE)
        else:
            raise Violation("the daemon cannot be killed")
        with self.turn:
            self.mount.process = None
        return process.returncode

    def after_end(self) -> None:
        """Whatever ended: no mount left, the ledger sound, nothing strange on the server."""
        if is_mounted(self.mount.path):
            detach(self.mount.path)
        if self.crash_log.exists():
            for line in self.crash_log.read_text().splitlines():
                if line.startswith("killed "):
                    self.struck.add(line[7:])
                else:
                    self.passed.add(line)
            self.crash_log.unlink()
        self.check_ledger()
        self.check_server_now()
        if self.problems:
            raise Violation("; ".join(self.problems))

    def check_ledger(self) -> None:
        """Of a copy: to open it is to change it."""
        copy = self.base / "copy"
        shutil.rmtree(copy, ignore_errors=True)
        copy.mkdir()
        for path in self.mount.cache.glob("*/ledger.db*"):
            if not path.name.endswith(("-shm", "-lock")):
                shutil.copyfile(path, copy / path.name)
        if not (copy / "ledger.db").exists():
            return
        database = sqlite3.connect(copy / "ledger.db")
        try:
            found = database.execute("PRAGMA integrity_check").fetchall()
            has_tables = database.execute("SELECT count(*) FROM sqlite_schema").fetchone()[0]
        finally:
            database.close()
        if found != [("ok",)]:
            raise Violation(f"the ledger is damaged: {found}")
        if not has_tables:
            return
        result = subprocess.run(
            [self.checker, copy / "ledger.db"],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        if result.returncode:
            raise Violation(f"the ledger contradicts itself: {result.stdout}")

    def check_server_now(self) -> None:
        """At any instant it has nothing but contents somebody wrote, or a filler."""
        filler = hashlib.sha256(FILLER).hexdigest()
        for a in self.emulator.attachments():
            if a["name"] == KEEP or a["filename"] == KEEP:
                continue
            if a["sha256"] not in self.hashes.known and a["sha256"] != filler:
                raise Violation(
                    f"foreign bytes on the server: {a['name']} ({a['filename']}), {a['size']} "
                    f"bytes {a['sha256'][:12]}"
                )

    # looking

    def listed(self) -> dict:
        """Worker -> what of its paths the drive shows."""
        seen: dict = {w: set() for w in self.workers}
        for record in self.records:
            for name in os.listdir(self.mount / record):
                owner = [w for w in self.workers if w.letter == name[0]]
                if name == KEEP:
                    continue
                if not owner or " (" in name:
                    raise Violation(f"nobody's file: {record}/{name}")
                seen[owner[0]].add(f"{record}/{name}")
        for w in self.workers:
            if w.titles:
                there = [t for t in os.listdir(self.mount / w.titles[0]) if t in w.titles[1:]]
                if len(there) != 1:
                    raise Violation(f"record of two names: {there}")
                seen[w].add("@title")
                w.title = there[0].encode()
        return seen

    def read(self, path: str) -> bytes:
        with open(self.mount / path, "rb", buffering=0) as f:
            return f.readall()

    def look(self) -> None:
        """What the drive shows is a state that was promised."""
        for w, names in self.listed().items():
            w.settle(self.match(w, names))

    def match(self, w: Worker, names: set) -> dict:
        found: dict = {}
        for path in sorted(names):
            values = {bytes_of(s, path) for s in w.possible}
            cold = path in w.cold and len(values) == 1 and self.chance.random() > 0.1
            if path == "@title":
                found[path] = w.title
            elif not cold:
                found[path] = self.read(path)
                w.cold.discard(path)
        for state in w.possible:
            if set(state) == names and all(state[p].data == d for p, d in found.items()):
                return state
        raise Violation(self.mismatch(w, names, found))

    @staticmethod
    def mismatch(w: Worker, names: set, found: dict) -> str:
        lines = [f"worker {w.letter}: what is shown was never promised"]
        for i, state in enumerate(w.possible):
            for p in sorted(names | set(state)):
                shown = found.get(p, b"?" if p in names else None)
                wanted = bytes_of(state, p)
                if shown != wanted and not (p in names and p not in found and p in state):
                    lines.append(f"  state {i}: {p}: shows {told(shown)}, promised {told(wanted)}")
        return "\n".join(lines)

    def settle(self) -> None:
        """Everything is sent; the server has what was promised, each once, and nothing else."""
        m = self.mount
        self.emulator.heal()
        m.command("retry", ok=None)
        sent = m.sync(ok=None, timeout=120)
        if sent.returncode:
            failed = (m.path / ".attachfs" / "failed").read_text()
            pending = (m.path / ".attachfs" / "pending").read_text()
            raise Violation(f"not all could be sent: {sent.stdout}{sent.stderr}{failed}{pending}")
        files = self.emulator.files()
        there = {p: a for p, a in files.items() if not p.endswith("/" + KEEP)}
        wanted = {
            p: f
            for w in self.workers
            for p, f in w.state.items()
            if not p.startswith("@") and not p.endswith(".part")
        }
        lines = [f"  lost: {p}" for p in sorted(set(wanted) - set(there))]
        lines += [
            f"  doubled or left: {p} {there[p]['size']} bytes"
            for p in sorted(set(there) - set(wanted))
        ]
        for p in sorted(set(there) & set(wanted)):
            a, f = there[p], wanted[p]
            if a["sha256"] != hashlib.sha256(f.data).hexdigest():
                lines.append(
                    f"  {p}: has {a['size']} bytes {a['sha256'][:12]}, not {told(f.data)}"
                )
            if f.ident and str(a["remote_id"]) != f.ident:
                lines.append(f"  {p}: its id is {a['remote_id']}, not {f.ident}")
            if self.system.has_filename and a["filename"] not in (a["name"], os.path.basename(p)):
                lines.append(f"  {p}: still has the file name {a['filename']}")
        if lines:
            raise Violation("\n".join(["what the server has is not what was promised:", *lines]))
        for w in self.workers:
            if w.titles:
                titles = [r["name"] for r in self.emulator.state()["records"]]
                if w.state["@title"].data.decode() not in titles:
                    raise Violation(f"record renamed, but the server has {titles}")
            w.replaced.clear()
            w.settle(
                {
                    p: f._replace(ident=str(there[p]["remote_id"]), moved=False)
                    if p in there
                    else f
                    for p, f in w.state.items()
                }
            )
        self.counts["settled"] += 1
        self.mount.log_file.write_text("")

    def forget_cache(self) -> None:
        """A second machine: what is not on the server would be gone."""
        if any(p.endswith(".part") for w in self.workers for p in w.state):
            return
        self.mount.umount()
        shutil.rmtree(self.mount.cache)
        for w in self.workers:
            w.cold = {p for p in w.state if not p.startswith("@")}
        if not self.launch({}):
            raise Violation(f"does not start: {self.mount.said()}")
        self.look()
        self.counts["forgotten"] += 1

    # work

    def work(self, w: Worker) -> None:
        try:
            while not self.stop.is_set():
                w.one()
        except OSError as e:
            if not self.is_dying():
                self.problems.append(f"worker {w.letter}: {e}")
        except Violation as e:
            self.problems.append(str(e))

    def start_work(self, focus: str = "") -> list:
        self.stop.clear()
        for w in self.workers:
            w.focus = focus
        threads = [threading.Thread(target=self.work, args=(w,)) for w in self.workers]
        for t in threads:
            t.start()
        return threads

    def end_work(self, threads: list) -> None:
        self.stop.set()
        for t in threads:
            t.join(60 * SLOW)
            if t.is_alive():
                raise Violation("a program hangs on a drive without a daemon")

    def trouble(self, focus: str) -> None:
        """What the network does during a life."""
        rules = []
        kind = self.chance.random()
        if focus == "look.arrived":
            # only a new file can arrive
            rules = [{**self.system.upload, "count": self.chance.randrange(3, 7), "drop_reply": True}]
        elif kind < 0.2 or "look" in focus:
            rules = [
                self.system.reads,
                {
                    **self.system.writes,
                    "skip": self.chance.randrange(3),
                    "count": self.chance.randrange(1, 3),
                    "drop_reply": True,
                },
            ]
        elif kind < 0.25:
            rules = [{**self.system.writes, "count": 1, "status": 503}]
        self.emulator.faults(*rules, latency_ms=self.chance.choice([0, 0, 5, 30, 80]))

    # kills

    def choose(self) -> tuple:
        """(kind of kill, point)"""
        if self.points and self.chance.random() < 0.75:
            return "point", self.points.pop(0)
        kind = self.chance.choices(["point", "moment", "start", "end"], [4, 4, 2, 1])[0]
        known = sorted(self.passed)
        return (kind, self.chance.choice(known)) if kind == "point" and known else (kind, "")

    def environment(self, point: str) -> dict:
        env = {"ATTACHFS_CRASH_LOG": self.crash_log}
        if point:
            common = point.startswith(
                ("write", "close", "seal", "commit.", "sync", "name", "flatten")
            )
            nth = self.chance.choice([1, 2, 3, 5, 20]) if common else self.chance.choice([1, 1, 2])
            if self.tries[point] or point.startswith(
                ("start", "end", "look", "fetch", "unchanged")
            ):
                nth = 1
            env["ATTACHFS_CRASH_POINT"] = f"{point}:{nth}"
        return env

    def life(self) -> str:
        """From start to death. Which kill it was."""
        self.ended_well = False
        kind, point = self.choose()
        if point.startswith(("fetch", "listing", "fill.")) and self.mount.process is None:
            self.cool_down()
        self.trouble(point)
        after = self.chance.uniform(0, 0.08) if kind == "start" else None
        if not self.launch(self.environment(point), after):
            return self.died_starting(kind, point)
        try:
            self.look()
        except (OSError, Violation):
            if not self.is_dying():
                raise
            self.reap()
            return kind
        threads = self.start_work(point)
        if kind == "end" or point.startswith("end"):
            return self.asked_to_end(threads, kind, point)
        return self.struck_down(threads, kind, point)

    def died_starting(self, kind: str, point: str) -> str:
        status = self.reap()
        if status != -signal.SIGKILL or not (point or kind == "start"):
            raise Violation(f"ended at start with {status}: {self.mount.said()}")
        return kind

    def asked_to_end(self, threads: list, kind: str, point: str) -> str:
        time.sleep(self.chance.uniform(0, 0.2))
        self.end_work(threads)
        if kind == "end":
            timer = threading.Timer(self.chance.uniform(0, 0.05), self.mount.process.kill)
            timer.start()
            status = self.reap(signal.SIGTERM)
            timer.join()
        else:
            status = self.reap(signal.SIGTERM)
        self.ended_well = status == 0
        if status not in (0, -signal.SIGKILL):
            raise Violation(f"asked to end, it ended with {status}: {self.mount.said()}")
        return kind

    def struck_down(self, threads: list, kind: str, point: str) -> str:
        try:
            if kind == "point":
                try:
                    self.mount.process.wait(POINT_SECONDS * SLOW)
                except subprocess.TimeoutExpired:
                    kind = "moment"  # it did not come to that: later again
                    self.tries[point] += 1
                    if self.tries[point] < TRIES:
                        self.points.append(point)
            else:
                time.sleep(self.chance.uniform(0, 0.4))
            status = self.reap()
        finally:
            self.stop.set()
        self.end_work(threads)
        if status != -signal.SIGKILL:
            raise Violation(f"ended by itself with {status}: {self.mount.said()}")
        return kind

    def cool_down(self) -> None:
        """Send everything, lose the cache: what is needed comes from the server again."""
        if not self.launch({}):
            raise Violation(f"does not start: {self.mount.said()}")
        self.look()
        self.settle()
        self.forget_cache()
        self.leave()

    def leave(self) -> None:
        self.mount.umount()
        self.ended_well = True

    def run(self, kills: int) -> None:
        while self.lives < kills:
            kind = self.life()
            self.lives += 1
            self.counts[kind] += 1
            self.after_end()
            self.tell(self.lives)
            if self.lives % SETTLE_EVERY == 0 and self.lives < kills:
                self.check_all()
        self.check_all(finish=True)

    def check_all(self, finish: bool = False) -> None:
        self.emulator.heal()
        if not self.launch({"ATTACHFS_CRASH_LOG": self.crash_log}):
            raise Violation(f"does not start: {self.mount.said()}")
        self.look()
        self.settle()
        if self.chance.random() < 0.3:
            self.forget_cache()
        if finish:
            self.mount.same_at_end = not any(
                p.endswith(".part") for w in self.workers for p in w.state
            )
            self.mount.finish()
            self.ended_well = True
        else:
            self.leave()
        self.after_end()

    def close(self) -> None:
        self.mount.abandon()
        self.emulator.stop()
