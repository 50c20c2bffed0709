# SPDX-License-Identifier: MIT
"""
How a program saves, as strace saw it on a drive, and the same calls made again without the program.

A recording (saves/*.save) is text, a call a line: what it is about, and the error it got, if any.

    program  emacs 28.2: emacs -Q --batch ...     for the reader
    file     notes.txt 8690                       what was saved over, and its size before
    open     5 notes.txt WRONLY|CREAT|TRUNC 644   5 is the descriptor
    write    5 8700                               so many bytes; which ones is made up, see data_of()
    symlink  .#notes.txt = EPERM

Paths are relative to the directory of the file, percent-encoded. saves/record makes recordings.
"""

import errno
import fcntl
import os
from pathlib import Path
from typing import Iterator, NamedTuple, Optional
from urllib.parse import unquote

from harness import random_bytes

SAVES = Path(__file__).resolve().parent / "saves"


class Call(NamedTuple):
    name: str
    args: tuple
    error: Optional[str]


class Recording(NamedTuple):
    name: str
    program: str
    file: str
    size: int
    calls: list


def recordings() -> Iterator[Recording]:
    for path in sorted(SAVES.glob("*.save")):
        yield read_recording(path)


def read_recording(path: Path) -> Recording:
    said, calls = {}, []
    for line in path.read_text().splitlines():
        if not line or line.startswith("#"):
            continue
        words, _, error = line.partition(" = ")
        name, *args = words.split()
        if name in ("program", "file"):
            said[name] = line.split(None, 1)[1]
        else:
            calls.append(Call(name, tuple(map(unquote, args)), error or None))
    file, size = said["file"].rsplit(" ", 1)
    return Recording(path.stem, said["program"], unquote(file), int(size), calls)


def data_of(nth: int, size: int) -> bytes:
    """The bytes of the n-th call that writes."""
    return random_bytes(size, f"saved {nth}")


class Replay:
    """
    The calls of a recording in a directory. On the drive each must get the error it got when it was
    recorded; elsewhere those that failed are left out: what remains shows which bytes must be there
    at the end.
    """

    def __init__(self, folder: Path, recording: Recording, on_the_drive: bool):
        self.folder, self.recording, self.on_the_drive = folder, recording, on_the_drive
        self.fds, self.written = {}, 0

    def run(self) -> None:
        try:
            for call in self.recording.calls:
                if call.error and not self.on_the_drive:
                    continue
                self.one(call)
        finally:
            for fd in self.fds.values():
                os.close(fd)

    def one(self, call: Call) -> None:
        got = 0
        try:
            getattr(self, f"do_{call.name}")(*call.args)
        except OSError as e:
            got = e.errno
        wanted = getattr(errno, call.error) if call.error else 0
        assert got == wanted, f"{self.recording.name}: {call}: {os.strerror(got)}"

    def at(self, path: str) -> Path:
        return self.folder / path

    def data(self, size: str) -> bytes:
        self.written += 1
        return data_of(self.written, int(size))

    # one method for each call there is in a recording

    def do_open(self, number, path, flags, mode="0"):
        bits = 0
        for flag in flags.split("|"):
            bits |= getattr(os, f"O_{flag}")
        fd = os.open(self.at(path), bits | os.O_CLOEXEC, int(mode, 8))
        self.do_close(number)
        self.fds[number] = fd

    def do_close(self, number):
        if number in self.fds:
            os.close(self.fds.pop(number))

    def do_dup(self, old, new):
        fd = os.dup(self.fds[old])
        self.do_close(new)
        self.fds[new] = fd

    def do_read(self, number, size):
        os.read(self.fds[number], int(size))

    def do_pread(self, number, size, at):
        os.pread(self.fds[number], int(size), int(at))

    def do_write(self, number, size):
        data = self.data(size)
        assert os.write(self.fds[number], data) == len(data)

    def do_pwrite(self, number, size, at):
        data = self.data(size)
        assert os.pwrite(self.fds[number], data, int(at)) == len(data)

    def do_seek(self, number, at):
        os.lseek(self.fds[number], int(at), os.SEEK_SET)

    def do_copy(self, source, target, size):
        os.copy_file_range(self.fds[source], self.fds[target], int(size))

    def do_fsync(self, number):
        os.fsync(self.fds[number])

    def do_fdatasync(self, number):
        os.fdatasync(self.fds[number])

    def do_ftruncate(self, number, size):
        os.ftruncate(self.fds[number], int(size))

    def do_lock(self, number, kind):
        kinds = {"WRLCK": fcntl.LOCK_EX, "RDLCK": fcntl.LOCK_SH, "UNLCK": fcntl.LOCK_UN}
        bits = kinds[kind]
        fcntl.lockf(self.fds[number], bits if bits == fcntl.LOCK_UN else bits | fcntl.LOCK_NB)

    def do_list(self, number):
        os.listdir(self.fds[number])

    def do_fstat(self, number):
        os.fstat(self.fds[number])

    def do_fchmod(self, number, mode):
        os.fchmod(self.fds[number], int(mode, 8))

    def do_fchown(self, number):
        os.fchown(self.fds[number], os.getuid(), os.getgid())

    def do_futimens(self, number):
        os.utime(self.fds[number])

    def do_stat(self, path):
        os.stat(self.at(path), follow_symlinks=False)

    def do_access(self, path, mode):
        if not os.access(self.at(path), int(mode)):
            os.stat(self.at(path))
            raise PermissionError(errno.EACCES, path)

    def do_readlink(self, path):
        os.readlink(self.at(path))

    def do_getxattr(self, path, name):
        os.getxattr(self.at(path), name)

    def do_listxattr(self, path):
        os.listxattr(self.at(path))

    def do_rename(self, old, new):
        os.rename(self.at(old), self.at(new))

    def do_link(self, old, new):
        os.link(self.at(old), self.at(new))

    def do_symlink(self, path):
        os.symlink("somebody@somewhere.1", self.at(path))

    def do_unlink(self, path):
        os.unlink(self.at(path))

    def do_mkdir(self, path, mode):
        os.mkdir(self.at(path), int(mode, 8))

    def do_rmdir(self, path):
        os.rmdir(self.at(path))

    def do_chmod(self, path, mode):
        os.chmod(self.at(path), int(mode, 8))

    def do_chown(self, path):
        os.chown(self.at(path), os.getuid(), os.getgid())

    def do_utimens(self, path):
        os.utime(self.at(path))
