# SPDX-License-Identifier: MIT
"""
How programs really save: vim and nano themselves, and the call sequences of others done by hand.
After each: the new bytes on the attachment that was there before, nothing else on the server, one
upload.
"""

import os
import pty
import select
import shutil
import subprocess
import time

import pytest

from harness import SLOW, random_bytes, run, wait_until

PATH = "users/Ada Byron/notes.txt"


def saved(m, before, data: bytes):
    """
    What must be true after a save of @data over PATH, the server having had the attachments
    @before.
    """
    assert (m / PATH).read_bytes() == data
    m.sync()
    after = m.emulator.files()
    assert m.emulator.bytes_of(PATH) == data
    assert set(after) == set(before), "nothing but the file itself"
    if m.system.replace_keeps_id:
        assert after[PATH]["id"] == before[PATH]["id"], "the same attachment"
    assert (after[PATH]["name"], after[PATH]["filename"]) == (
        before[PATH]["name"],
        before[PATH]["filename"],
    )
    # one replace; where the server has none, one create, and the old one removed
    replaced = 1 if m.system.replace_keeps_id else 2
    assert m.emulator.uploaded() == 1, m.emulator.calls()
    assert sum(m.emulator.changes().values()) == replaced, m.emulator.calls()
    assert m.emulator.count(m.system.removes) == replaced - 1, m.emulator.calls()


def tmp_and_rename(folder, data):
    (folder / "notes.txt.tmp12345").write_bytes(data)
    os.rename(folder / "notes.txt.tmp12345", folder / "notes.txt")


def fsynced_tmp_and_rename(folder, data):
    fd = os.open(folder / ".notes.txt.Ab3xYz", os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
    os.write(fd, data)
    os.fchmod(fd, 0o644)
    os.fsync(fd)
    os.close(fd)
    os.rename(folder / ".notes.txt.Ab3xYz", folder / "notes.txt")


def glib(folder, data):
    """gedit, gnome: a local name, renamed over."""
    (folder / ".goutputstream-K3J2A1").write_bytes(data)
    os.rename(folder / ".goutputstream-K3J2A1", folder / "notes.txt")


def backup_then_new(folder, data):
    """vim with backupcopy=no: the old file moves away, a new one is written, the backup goes."""
    os.rename(folder / "notes.txt", folder / "notes.txt~")
    (folder / "notes.txt").write_bytes(data)
    os.unlink(folder / "notes.txt~")


def office(folder, data):
    """Word: new file beside, old one out of the way, new one in its place, old one gone."""
    (folder / "A1B2C3D4.tmp").write_bytes(data)
    os.rename(folder / "notes.txt", folder / "~WRL0001.tmp")
    os.rename(folder / "A1B2C3D4.tmp", folder / "notes.txt")
    os.unlink(folder / "~WRL0001.tmp")


LOCK = b",ada,host,01.01.2026 10:00,file:///home/ada;"


def libreoffice(folder, data):
    (folder / ".~lock.notes.txt#").write_bytes(LOCK)
    (folder / "lu2412abc.tmp").write_bytes(data)
    os.rename(folder / "lu2412abc.tmp", folder / "notes.txt")
    os.unlink(folder / ".~lock.notes.txt#")


def libreoffice_with_backup(folder, data):
    """The new file is there, empty, before it is written; the old one is kept until the end."""
    (folder / ".~lock.notes.txt#").write_bytes(LOCK)
    (folder / "lu2412gx5s0k.tmp").touch()
    (folder / "lu2412gx5s0k.tmp").write_bytes(data)
    os.rename(folder / "notes.txt", folder / "lu2412gx5s0m.tmp")
    os.rename(folder / "lu2412gx5s0k.tmp", folder / "notes.txt")
    os.unlink(folder / "lu2412gx5s0m.tmp")
    os.unlink(folder / ".~lock.notes.txt#")


def kate(folder, data):
    """A swap file while it is edited; QSaveFile: a new file, synced, its mode set, renamed."""
    (folder / ".notes.txt.kate-swp").write_bytes(b"Kate Swap File 2.0")
    fd = os.open(folder / "notes.txt.AbCdEf", os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
    os.write(fd, data)
    os.fsync(fd)
    os.fchmod(fd, os.stat(folder / "notes.txt").st_mode & 0o777)
    os.close(fd)
    os.rename(folder / "notes.txt.AbCdEf", folder / "notes.txt")
    os.unlink(folder / ".notes.txt.kate-swp")


def in_place(folder, data):
    """nano, most editors without backups."""
    (folder / "notes.txt").write_bytes(data)


def write_then_cut(folder, data):
    """
    Overwrite, then cut to the new length: emacs on some systems, many languages' stream classes.
    """
    fd = os.open(folder / "notes.txt", os.O_WRONLY)
    os.write(fd, data)
    os.ftruncate(fd, len(data))
    os.close(fd)


def delete_then_new(folder, data):
    os.unlink(folder / "notes.txt")
    (folder / "notes.txt").write_bytes(data)


def copy_then_in_place(folder, data):
    """Backup by copy, then in place, then the backup goes (vim backupcopy=yes)."""
    shutil.copy2(folder / "notes.txt", folder / "notes.txt~")
    (folder / "notes.txt").write_bytes(data)
    os.unlink(folder / "notes.txt~")


def probe_then_rename(folder, data):
    """vim looks whether it may create files here before it decides how to save."""
    os.close(os.open(folder / "4913", os.O_CREAT | os.O_WRONLY | os.O_EXCL, 0o644))
    os.unlink(folder / "4913")
    tmp_and_rename(folder, data)


SAVES = [
    tmp_and_rename,
    fsynced_tmp_and_rename,
    glib,
    backup_then_new,
    office,
    libreoffice,
    libreoffice_with_backup,
    kate,
    in_place,
    write_then_cut,
    delete_then_new,
    copy_then_in_place,
    probe_then_rename,
]


@pytest.mark.parametrize("size", [500, 20_000], ids=["small", "usual"])
@pytest.mark.parametrize("save", SAVES, ids=lambda f: f.__name__)
def test_a_save_is_new_bytes_for_the_same_attachment(drive, system, save, size):
    m = drive(poll=0)
    before = m.emulator.files()
    m.emulator.reset()
    data = random_bytes(size, save.__name__)
    save(m / "users/Ada Byron", data)
    saved(m, before, data)


@pytest.mark.parametrize("save", SAVES, ids=lambda f: f.__name__)
def test_saving_while_the_server_is_slow_and_again(drive, save):
    m = drive(poll=0, settle=0)
    before = m.emulator.files()
    m.emulator.faults(latency_ms=150)
    for i in range(3):
        data = random_bytes(3000 + i, save.__name__)
        save(m / "users/Ada Byron", data)
        assert (m / PATH).read_bytes() == data
        time.sleep(0.2)
    m.emulator.heal()
    assert (m / PATH).read_bytes() == data
    m.sync()
    assert m.emulator.bytes_of(PATH) == data
    assert set(m.emulator.files()) == set(before)


def slowly_backup_then_new(folder, new):
    os.rename(folder / "notes.txt", folder / "notes.txt~")
    new()
    os.unlink(folder / "notes.txt~")


def slowly_delete_then_new(folder, new):
    os.unlink(folder / "notes.txt")
    new()


def slowly_libreoffice(folder, new):
    os.rename(folder / "notes.txt", folder / "lu2412gx5s0m.tmp")
    new()
    os.unlink(folder / "lu2412gx5s0m.tmp")


@pytest.mark.parametrize(
    "save", [slowly_backup_then_new, slowly_delete_then_new, slowly_libreoffice]
)
def test_a_save_that_takes_its_time_is_one_replace(drive, system, save):
    """
    A large file, or a slow program: names settle sooner than contents, but the old file's not while
    a new one is being written in its place.
    """
    m = drive(poll=0, settle=30)
    folder = m / "users/Ada Byron"
    for attempt in range(5):
        m.sync()
        before = m.emulator.files()
        m.emulator.reset()
        began = time.monotonic()
        opened = []
        data = random_bytes(20_000, attempt)

        def new():
            with open(folder / "notes.txt", "wb", buffering=0) as f:
                opened.append(time.monotonic())
                for at in range(0, len(data), 5000):
                    f.write(data[at : at + 5000])
                    time.sleep(0.15)
            time.sleep(0.3)

        save(folder, new)
        if opened[0] - began < 0.1:  # sooner than a name settles
            break
    else:
        raise AssertionError("the machine is too slow for this")
    saved(m, before, data)


def test_what_offices_write_beside_a_document_leaves_no_trace(drive):
    m = drive(poll=0, settle=0)
    os.listdir(m / "users/Ada Byron")
    m.emulator.reset()
    for name in (".~lock.notes.txt#", "lu2412gx5s0k.tmp", "~$notes.txt", "~WRL0001.tmp"):
        (m / "users/Ada Byron" / name).write_bytes(b"")
        m.sync()
        (m / "users/Ada Byron" / name).write_bytes(b"not for the server" * 100)
        m.sync()
        os.unlink(m / "users/Ada Byron" / name)
    m.sync()
    assert m.emulator.calls() == {}


def test_a_kept_backup_is_a_file_of_its_own(drive):
    m = drive(poll=0)
    before = m.emulator.bytes_of(PATH)
    os.rename(m / PATH, m / (PATH + "~"))
    (m / PATH).write_bytes(b"new text\n" * 300)
    m.sync()
    assert m.emulator.bytes_of(PATH) == b"new text\n" * 300
    assert m.emulator.bytes_of(PATH + "~") == before


@pytest.mark.parametrize(
    "settings",
    [
        "backupcopy=no",
        "backupcopy=yes",
        "backupcopy=auto",
        "backupcopy=no nowritebackup",
        "backupcopy=no noswapfile",
        "backupcopy=auto fsync",
    ],
)
def test_vim_saves(drive, settings):
    m = drive(poll=0)
    before = m.emulator.files()
    old = m.emulator.bytes_of(PATH)
    m.emulator.reset()
    run(
        "vim",
        "-u",
        "NONE",
        "-N",
        "-es",
        "-c",
        "set backupskip=",  # the default skips what lies below /tmp
        "-c",
        f"set swapfile writebackup {settings}",
        "-c",
        "normal! Goa last line",
        "-c",
        "wq",
        m / PATH,
    )
    saved(m, before, old + b"a last line\n")


def test_vim_keeps_a_backup_when_told_so(drive):
    m = drive(poll=0)
    old = m.emulator.bytes_of(PATH)
    run(
        "vim",
        "-u",
        "NONE",
        "-N",
        "-es",
        "-c",
        "set backupskip=",  # the default skips what lies below /tmp
        "-c",
        "set backup backupdir=. backupcopy=no",
        "-c",
        "normal! ggddGox",
        "-c",
        "wq",
        "notes.txt",
        cwd=m / "users/Ada Byron",
    )
    m.sync()
    assert m.emulator.bytes_of(PATH + "~") == old
    assert m.emulator.bytes_of(PATH) == old.split(b"\n", 1)[1] + b"x\n"


def test_vim_makes_a_new_file(drive):
    m = drive(poll=0)
    run(
        "vim",
        "-u",
        "NONE",
        "-N",
        "-es",
        "-c",
        "set backupskip=",  # the default skips what lies below /tmp
        "-c",
        "normal! ihello from vim",
        "-c",
        "wq",
        m / "users/Nobody/letter.txt",
    )
    m.sync()
    assert m.emulator.bytes_of("users/Nobody/letter.txt") == b"hello from vim\n"
    assert list(m.emulator.folder("users/Nobody")) == ["letter.txt"]


def test_sed_in_place_keeps_the_attachment(drive):
    m = drive(poll=0)
    before = m.emulator.files()
    old = m.emulator.bytes_of(PATH)
    m.emulator.reset()
    run("sed", "-i", "s/line/row/", m / PATH)
    saved(m, before, old.replace(b"line", b"row"))


def test_rsync_over_an_existing_file_keeps_the_attachment(drive, scratch):
    m = drive(poll=0)
    before = m.emulator.files()
    m.emulator.reset()
    data = random_bytes(6000, "rsync")
    (scratch / "notes.txt").write_bytes(data)
    run("rsync", "-a", scratch / "notes.txt", m / "users/Ada Byron/")
    saved(m, before, data)


class Terminal:
    """
    A program on a terminal of its own: what it shows is read, keys are typed when it shows what it
    should.
    """

    def __init__(self, *argv):
        self.near, far = pty.openpty()
        env = {**os.environ, "TERM": "xterm", "LC_ALL": "C.UTF-8", "LINES": "24", "COLUMNS": "80"}
        self.process = subprocess.Popen(
            [str(a) for a in argv],
            stdin=far,
            stdout=far,
            stderr=far,
            env=env,
            start_new_session=True,
        )
        os.close(far)
        self.shown = b""

    def wait_for(self, text: bytes) -> None:
        deadline = time.monotonic() + 20 * SLOW
        while text not in self.shown:
            assert time.monotonic() < deadline, f"{text!r} never shown: {self.shown[-2000:]!r}"
            if select.select([self.near], [], [], 0.1)[0]:
                try:
                    self.shown += os.read(self.near, 65536)
                except OSError:
                    break
        self.shown = b""

    def type(self, keys: bytes) -> None:
        os.write(self.near, keys)

    def end(self) -> int:
        deadline = time.monotonic() + 20 * SLOW
        while self.process.poll() is None and time.monotonic() < deadline:
            if select.select([self.near], [], [], 0.05)[0]:
                try:
                    os.read(self.near, 65536)
                except OSError:
                    break
        status = self.process.wait(20 * SLOW)
        os.close(self.near)
        return status


@pytest.mark.parametrize("flags", [[], ["--backup"]], ids=["plain", "backup"])
def test_nano_saves(drive, flags):
    m = drive(poll=0)
    before = m.emulator.files()
    old = m.emulator.bytes_of(PATH)
    m.emulator.reset()
    t = Terminal("nano", "--ignorercfiles", *flags, m / PATH)
    t.wait_for(b"notes.txt")
    t.type(b"typed in nano ")
    t.wait_for(b"Modified")
    t.type(b"\x0f")  # ^O
    t.wait_for(b"Write")
    t.type(b"\r")
    t.wait_for(b"Wrote")
    t.type(b"\x18")  # ^X
    assert t.end() == 0
    if flags:
        m.sync()
        assert m.emulator.bytes_of(PATH + "~") == old
        assert m.emulator.bytes_of(PATH) == b"typed in nano " + old
        assert set(m.emulator.files()) == {*before, PATH + "~"}
        if m.system.replace_keeps_id:
            assert m.emulator.file(PATH)["id"] == before[PATH]["id"]
    else:
        saved(m, before, b"typed in nano " + old)


def test_vims_swap_file_stays_here(drive):
    m = drive(poll=0, settle=0)
    before = set(m.emulator.files())
    t = Terminal("vim", "-u", "NONE", "-N", m / PATH)
    t.wait_for(b"line 0 of the notes")
    wait_until(lambda: (m / "users/Ada Byron/.notes.txt.swp").exists(), "the swap file")
    t.type(b"Goanother line\x1b:w\r")
    t.wait_for(b"written")
    m.sync()
    assert set(m.emulator.files()) == before
    assert m.emulator.bytes_of(PATH).endswith(b"another line\n")
    t.type(b":q\r")
    assert t.end() == 0
