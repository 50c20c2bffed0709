# SPDX-License-Identifier: MIT
"""
What regular files in a flat directory do, one small case each, as an outcome that can be compared:
run in two directories (a local one and a record of a mount) the outcomes must be equal.

    behaviour.py DIR OTHER        prints the outcomes in DIR (OTHER: a second directory beside it) as JSON
    behaviour.py --compare DIR OTHER LOCAL    compares with LOCAL, a directory of a local filesystem

As root, the cases about rights run as nobody; the mount needs allow_other for that.
"""

import ctypes
import errno
import faulthandler
import fcntl
import json
import mmap
import os
import resource
import select
import signal
import socket
import stat
import struct
import subprocess
import sys
import tempfile
import time
from pathlib import Path

libc = ctypes.CDLL(None, use_errno=True)
AT_FDCWD = -100
NOW, OMIT = (1 << 30) - 1, (1 << 30) - 2
CASES = []
KEPT = set()  # names that were there before
NOBODY = 65534


def case(f):
    CASES.append(f)
    return f


def call(name, *args):
    """A function of libc, as the number it returns or an OSError."""
    ctypes.set_errno(0)
    f = getattr(libc, name)
    f.restype = ctypes.c_long
    r = f(*args)
    if r in (-1, 0xFFFFFFFF):  # of those that return an int, only half is set
        raise OSError(ctypes.get_errno(), name)
    return r


def c64(n):
    return ctypes.c_int64(n)


def b(path):
    return os.fsencode(path)


def what(f, *args, **more):
    """What a call gives: its value, or the name of its error."""
    try:
        r = f(*args, **more)
    except OSError as e:
        return errno.errorcode.get(e.errno, str(e.errno))
    if r is None or isinstance(r, (int, str, list, bool)):
        return r
    return r.hex() if isinstance(r, bytes) and len(r) < 40 else str(type(r).__name__)


def opens(path, flags, mode=0o644):
    """What open() gives, closed again."""

    def attempt():
        os.close(os.open(path, flags, mode))
        return "ok"

    return what(attempt)


def put(path, data=b"some bytes\n", mode=0o644):
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o666)
    os.write(fd, data)
    os.fchmod(fd, mode)
    os.close(fd)
    return path


def get(path):
    with open(path, "rb") as f:
        return f.read()


def times(path):
    st = os.stat(path, follow_symlinks=False) if not isinstance(path, int) else os.fstat(path)
    return st.st_atime_ns, st.st_mtime_ns, st.st_ctime_ns


def moved(path, action):
    """Which times of @path move by @action, and what it gives."""
    before = times(path)
    time.sleep(0.012)
    r = what(action)
    after = times(path)
    return [r] + [n for n, x, y in zip(("mtime", "ctime"), before[1:], after[1:]) if x != y]


def as_nobody(f):
    """@f's outcome in a process without rights."""
    if os.getuid():
        return "not root"
    r, w = os.pipe()
    pid = os.fork()
    if not pid:
        try:
            os.setgroups([])
            os.setresgid(NOBODY, NOBODY, NOBODY)
            os.setresuid(NOBODY, NOBODY, NOBODY)
            os.umask(0o022)
            said = json.dumps(f())
        except BaseException as e:  # told to the parent
            said = json.dumps(f"failed: {e!r}")
        os.write(w, said.encode())
        os._exit(0)
    os.close(w)
    with os.fdopen(r, "rb") as f2:
        said = f2.read()
    os.waitpid(pid, 0)
    return json.loads(said)


def in_child(f):
    """@f's outcome in a process of its own: what it returns, or the signal it died of."""
    r, w = os.pipe()
    pid = os.fork()
    if not pid:
        faulthandler.disable()  # a signal is what some are to die of
        try:
            said = json.dumps(f())
        except BaseException as e:
            said = json.dumps(f"failed: {e!r}")
        os.write(w, said.encode())
        os._exit(0)
    os.close(w)
    with os.fdopen(r, "rb") as f2:
        said = f2.read()
    status = os.waitpid(pid, 0)[1]
    if os.WIFSIGNALED(status):
        return signal.Signals(os.WTERMSIG(status)).name
    return json.loads(said)


# ---- open


@case
def open_of_what_is_not_there(d):
    p = d / "none"
    return [opens(p, f) for f in (os.O_RDONLY, os.O_WRONLY, os.O_RDWR | os.O_TRUNC, os.O_PATH)]


@case
def open_creates_with_the_mode_and_the_umask(d):
    seen = []
    for umask in (0, 0o022, 0o077, 0o777):
        for mode in (0, 0o400, 0o222, 0o666, 0o777, 0o4755, 0o2755, 0o1755, 0o7777):
            old = os.umask(umask)
            p = d / "made"
            fd = os.open(p, os.O_CREAT | os.O_EXCL | os.O_RDWR, mode)
            os.umask(old)
            os.write(fd, b"x")  # a mode without a right to write does not matter
            seen.append(oct(os.fstat(fd).st_mode))
            os.close(fd)
            os.unlink(p)
    return seen


@case
def open_excl_and_existing(d):
    p = put(d / "f")
    st = os.stat(p)
    seen = [opens(p, os.O_CREAT | os.O_EXCL | os.O_RDWR), opens(d, os.O_CREAT | os.O_EXCL | os.O_RDWR)]
    seen += [opens(p, os.O_CREAT | os.O_RDWR, 0o777), oct(os.stat(p).st_mode)]
    return seen + [os.stat(p).st_ino == st.st_ino, get(p).hex()]


@case
def open_of_directories(d):
    flags = (os.O_RDONLY, os.O_WRONLY, os.O_RDWR, os.O_RDONLY | os.O_CREAT, os.O_RDONLY | os.O_TRUNC)
    flags += (os.O_RDWR | os.O_CREAT, os.O_RDONLY | os.O_DIRECTORY, os.O_PATH, os.O_APPEND | os.O_WRONLY)
    return [opens(d, f) for f in flags] + [opens(str(d) + "/.", f) for f in flags]


@case
def open_directory_flag_on_files(d):
    p = put(d / "f")
    return [opens(p, os.O_DIRECTORY), opens(p, os.O_DIRECTORY | os.O_WRONLY), opens(p, os.O_NOFOLLOW)] + [
        opens(d / "none", os.O_DIRECTORY),
        opens(str(p) + "/", os.O_RDONLY),
        opens(str(d / "new") + "/", os.O_CREAT | os.O_WRONLY),
        opens(str(p) + "/.", os.O_RDONLY),
        opens(str(p) + "/..", os.O_RDONLY),
        os.path.lexists(d / "new"),
    ]


@case
def a_file_is_no_directory(d):
    p = put(d / "f")
    q = p / "below"
    acts = [
        lambda: os.stat(q),
        lambda: os.lstat(q),
        lambda: os.open(q, os.O_RDONLY),
        lambda: os.open(q, os.O_CREAT | os.O_WRONLY),
        lambda: os.unlink(q),
        lambda: os.rename(q, d / "x"),
        lambda: os.rename(p, q),
        lambda: os.truncate(q, 1),
        lambda: os.chmod(q, 0o600),
        lambda: os.chown(q, 0, 0),
        lambda: os.utime(q),
        lambda: os.mkdir(q),
        lambda: os.rmdir(q),
        lambda: os.symlink("x", q),
        lambda: os.link(q, d / "x"),
        lambda: os.link(p, q),
        lambda: os.mknod(q, 0o100644),
        lambda: os.mkfifo(q),
        lambda: os.readlink(q),
        lambda: os.listdir(p),
        lambda: os.chdir(p),
        lambda: os.statvfs(q),
        lambda: os.getxattr(q, "user.x"),
        lambda: os.access(q, os.F_OK),
        lambda: os.rmdir(p),
        lambda: os.readlink(p),
    ]
    return [what(a) for a in acts]


@case
def what_is_not_there(d):
    q = d / "none"
    acts = [
        lambda: os.stat(q),
        lambda: os.unlink(q),
        lambda: os.rename(q, d / "x"),
        lambda: os.truncate(q, 1),
        lambda: os.chmod(q, 0o600),
        lambda: os.chown(q, 0, 0),
        lambda: os.utime(q),
        lambda: os.rmdir(q),
        lambda: os.link(q, d / "x"),
        lambda: os.readlink(q),
        lambda: os.listdir(q),
        lambda: os.getxattr(q, "user.x"),
        lambda: os.listxattr(q),
        lambda: os.statvfs(q),
        lambda: os.open(q / "deeper", os.O_CREAT | os.O_RDWR),
        lambda: os.rename(put(d / "a"), q / "deeper"),
        lambda: os.unlink(q / "deeper"),
        lambda: os.mkdir(q / "deeper"),
    ]
    return [what(a) for a in acts]


@case
def names_that_are_long(d):
    seen = []
    for name in ("n" * 255, "\u00e4" * 127, "n" * 256, "\u00e4" * 128, "n" * 5000):
        p = d / name
        seen.append(
            [
                what(lambda: len(put(p).name)),
                what(lambda: os.stat(p).st_size),
                what(lambda: os.open(p, os.O_CREAT | os.O_EXCL | os.O_RDWR)),
                what(lambda: os.truncate(p, 3)),
                what(lambda: os.chmod(p, 0o600)),
                what(lambda: os.rename(p, d / "short")),
                what(lambda: os.rename(put(d / "short"), p)),
                what(lambda: os.utime(p, (1, 1))),
                what(lambda: os.unlink(p)),
                what(lambda: os.unlink(p)),
            ]
        )
    deep = str(d) + "/" + "./" * 2100 + "x"
    return seen + [what(os.stat, deep), what(os.open, deep, os.O_CREAT), what(os.unlink, deep)]


@case
def odd_names(d):
    names = [b"-", b"--", b" a", b"a ", b"a\nb", b"a\tb", b"a\rb", b"?", b"*", b"a\\b", b"'\"`", b"%2F", b"%"]
    names += [b"...", b"..a", b".a", b"~", b"\xff\xfe", b"\x01", b"\x7f", "nai\u0308ve".encode(), b"a:b", b"C", b"c"]
    names += [b"a%", b"%41", b"%zz", b"NUL", b"a.", b"a;b", b"a,b", b"a&b=c", b"<x>", b"(1)", b"a (2).txt", b"a#b?c"]
    base = b(d)
    seen = []
    for n in names:
        p, q = os.path.join(base, n), os.path.join(base, b"x" + n)
        seen.append(
            f"{n!r}: "
            + " ".join(
                str(what(act))
                for act in (
                    lambda: put(p, n) and None,
                    lambda: n in os.listdir(base),
                    lambda: get(p) == n,
                    lambda: os.rename(p, q),
                    lambda: os.unlink(q),
                )
            )
        )
    return seen + [len(os.listdir(base))]


@case
def open_truncates(d):
    p = put(d / "f", b"x" * 5000)
    seen = [moved(p, lambda: os.close(os.open(p, os.O_RDONLY | os.O_TRUNC))), os.stat(p).st_size]
    put(p, b"x" * 5000)
    seen += [moved(p, lambda: os.close(os.open(p, os.O_WRONLY | os.O_TRUNC))), os.stat(p).st_size]
    seen += [moved(p, lambda: os.close(os.open(p, os.O_WRONLY | os.O_TRUNC)))]
    seen += [moved(p, lambda: os.close(os.open(p, os.O_WRONLY | os.O_CREAT)))]
    seen += [moved(p, lambda: os.close(os.open(p, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)))]
    seen += [moved(d, lambda: os.close(os.open(p, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)))]
    return seen


@case
def open_moves_the_directory_when_it_makes_a_file(d):
    return [
        moved(d, lambda: os.close(os.open(d / "a", os.O_CREAT | os.O_WRONLY))),
        moved(d, lambda: os.close(os.open(d / "a", os.O_CREAT | os.O_WRONLY))),
        moved(d, lambda: os.close(os.open(d / "a", os.O_CREAT | os.O_EXCL | os.O_WRONLY))),
        moved(d, lambda: os.mknod(d / "b", 0o100644)),
        moved(d, lambda: os.mknod(d / "b", 0o100644)),
        moved(d, lambda: os.rename(d / "a", d / "c")),
        moved(d, lambda: os.rename(d / "b", d / "c")),
        moved(d, lambda: os.rename(d / "none", d / "c")),
        moved(d, lambda: os.unlink(d / "c")),
        moved(d, lambda: os.unlink(d / "c")),
        moved(d, lambda: put(d / "a") and None),
        moved(d, lambda: put(d / "a") and None),
        moved(d, lambda: os.chmod(d / "a", 0o600)),
    ]


@case
def new_files_have_the_time_of_now(d):
    before = time.time() - 0.02
    p = put(d / "f")
    st = os.stat(p)
    return [before <= t <= time.time() + 0.02 for t in (st.st_atime, st.st_mtime, st.st_ctime)]


@case
def o_path(d):
    p = put(d / "f", b"x" * 100)
    fd = os.open(p, os.O_PATH)
    seen = [
        what(os.read, fd, 1),
        what(os.write, fd, b"x"),
        os.fstat(fd).st_size,
        what(os.fchmod, fd, 0o600),
        what(os.ftruncate, fd, 1),
        what(os.fsync, fd),
        what(os.utime, f"/proc/self/fd/{fd}", (5, 5)),
        what(os.chmod, f"/proc/self/fd/{fd}", 0o600),
        opens(f"/proc/self/fd/{fd}", os.O_RDWR),
    ]
    os.close(fd)
    return seen


@case
def o_tmpfile_is_there_or_not_supported(d):
    try:
        fd = os.open(d, os.O_TMPFILE | os.O_RDWR, 0o600)
    except OSError as e:
        return e.errno in (errno.EOPNOTSUPP, errno.EISDIR)
    os.write(fd, b"x")
    os.close(fd)
    return True


@case
def running_programs_are_busy(d):
    run = d / "program"
    put(run, Path("/bin/sleep").read_bytes(), 0o755)
    p = subprocess.Popen([str(run), "60"])
    try:
        deadline = time.time() + 10
        while os.readlink(f"/proc/{p.pid}/exe") != str(run) and time.time() < deadline:
            time.sleep(0.01)
        seen = [opens(run, os.O_WRONLY), opens(run, os.O_RDWR | os.O_TRUNC), what(os.truncate, run, 1)]
        seen += [what(os.unlink, run)]
    finally:
        p.kill()
        p.wait()
    return seen


@case
def written_files_cannot_be_run(d):
    run = put(d / "program", Path("/bin/true").read_bytes(), 0o755)
    fd = os.open(run, os.O_WRONLY)
    try:
        return [what(lambda: subprocess.run([str(run)], check=True) and "ran")]
    finally:
        os.close(fd)


# ---- reading and writing


@case
def read_and_write_on_the_wrong_handle(d):
    p = put(d / "f", b"x" * 100)
    r, w, dirfd = os.open(p, os.O_RDONLY), os.open(p, os.O_WRONLY), os.open(d, os.O_RDONLY)
    seen = [
        what(os.write, r, b"x"),
        what(os.pwrite, r, b"x", 0),
        what(os.read, w, 1),
        what(os.pread, w, 1, 0),
        what(os.read, dirfd, 10),
        what(os.pread, dirfd, 10, 0),
        what(os.write, dirfd, b"x"),
        what(os.ftruncate, r, 1),
        what(os.ftruncate, dirfd, 1),
        what(os.fsync, r),
        what(os.fdatasync, r),
        what(os.fsync, dirfd),
        what(os.fdatasync, dirfd),
        what(call, "fallocate64", r, 0, c64(0), c64(10)),
        what(call, "fallocate64", w, 0, c64(0), c64(0)),
        what(call, "fallocate64", w, 0, c64(-1), c64(10)),
        what(call, "fallocate64", w, 0, c64(0), c64(-1)),
        what(call, "fallocate64", w, 0, c64((1 << 63) - 10), c64(20)),
        what(call, "fallocate64", dirfd, 0, c64(0), c64(10)) in ("EBADF", "ENODEV", "EISDIR"),
        what(os.posix_fadvise, r, 0, 0, os.POSIX_FADV_WILLNEED),
        what(os.posix_fadvise, r, 0, 0, os.POSIX_FADV_DONTNEED),
        what(os.posix_fadvise, r, 0, 0, 77),
        what(call, "readahead", r, c64(0), ctypes.c_size_t(100)),
        what(call, "sync_file_range", w, c64(0), c64(0), 7),
        what(call, "syncfs", r),
        what(lambda: select.select([r], [], [], 0)[0] == [r]),
    ]
    for fd in (r, w, dirfd):
        os.close(fd)
    return seen


@case
def positions(d):
    p = put(d / "f", bytes(range(100)))
    fd = os.open(p, os.O_RDWR)
    seen = [
        what(os.lseek, fd, -1, os.SEEK_SET),
        what(os.lseek, fd, -101, os.SEEK_END),
        what(os.lseek, fd, 1000, os.SEEK_SET),
        what(os.read, fd, 10),
        what(os.lseek, fd, 0, os.SEEK_CUR),
        what(os.lseek, fd, 0, 99),
        what(os.lseek, fd, 95, os.SEEK_SET),
        what(os.read, fd, 10),
        what(os.lseek, fd, 0, os.SEEK_CUR),
        what(os.pread, fd, 10, -1),
        what(os.pwrite, fd, b"x", -1),
        what(os.pread, fd, 10, 98),
        what(os.pread, fd, 10, 100),
        what(os.pread, fd, 0, 0),
        what(os.lseek, fd, 0, os.SEEK_END),
        what(os.write, fd, b""),
        os.fstat(fd).st_size,
        what(os.lseek, fd, 200, os.SEEK_SET),
        what(os.write, fd, b""),
        os.fstat(fd).st_size,
        what(os.write, fd, b"end"),
        os.fstat(fd).st_size,
        what(os.lseek, fd, (1 << 63) - 1, os.SEEK_SET) in ((1 << 63) - 1, "EINVAL"),
    ]
    os.close(fd)
    return seen + [get(p) == bytes(range(100)) + bytes(100) + b"end"]


@case
def data_and_holes(d):
    p = put(d / "f", b"x" * 100)
    fd = os.open(p, os.O_RDWR)
    seek = lambda off, whence: what(os.lseek, fd, off, whence)
    seen = [seek(0, os.SEEK_DATA), seek(50, os.SEEK_DATA), seek(0, os.SEEK_HOLE), seek(99, os.SEEK_HOLE)]
    seen += [seek(o, w) for o in (100, 101, 1 << 40, -1) for w in (os.SEEK_DATA, os.SEEK_HOLE)]
    os.ftruncate(fd, 0)
    seen += [seek(0, os.SEEK_DATA), seek(0, os.SEEK_HOLE)]
    os.close(fd)
    return seen


@case
def appending(d):
    p = put(d / "f", b"start")
    fd = os.open(p, os.O_RDWR | os.O_APPEND)
    os.lseek(fd, 0, os.SEEK_SET)
    seen = [os.write(fd, b"one"), os.lseek(fd, 0, os.SEEK_CUR), os.pwrite(fd, b"two", 0)]
    os.ftruncate(fd, 2)
    seen += [os.write(fd, b"three"), get(p).decode(), os.pread(fd, 3, 0).decode()]
    fcntl.fcntl(fd, fcntl.F_SETFL, 0)
    seen += [os.pwrite(fd, b"S", 0), get(p).decode()]
    fcntl.fcntl(fd, fcntl.F_SETFL, os.O_APPEND)
    seen += [os.write(fd, b"!"), get(p).decode()]
    other = os.open(p, os.O_WRONLY | os.O_APPEND)
    for i in range(5):
        os.write(fd, b"a%d" % i)
        os.write(other, b"b%d" % i)
    seen.append(get(p).decode())
    os.close(fd)
    os.close(other)
    return seen


@case
def many_at_once(d):
    p = put(d / "f", b"")
    fd = os.open(p, os.O_RDWR)
    seen = [what(os.writev, fd, [b"abc", b"", b"defg"]), what(os.pwritev, fd, [b"X", b"Y"], 2)]
    bufs = [bytearray(3), bytearray(10)]
    seen += [what(os.preadv, fd, bufs, 0), bufs[0].decode(), bufs[1].hex()]
    seen += [what(os.pwritev, fd, [b"sync"], 20, os.RWF_SYNC), what(os.pwritev, fd, [b"ds"], 24, os.RWF_DSYNC)]
    seen += [what(os.pwritev, fd, [b"ap"], 0, os.RWF_APPEND), what(os.pwritev, fd, [b"x"], 0, 0x4000)]
    os.close(fd)
    return seen + [get(p).hex()]


@case
def limits_of_size(d):
    p = put(d / "f", b"x" * 100)

    def attempt():
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (1000, resource.RLIM_INFINITY))
        fd = os.open(p, os.O_RDWR)
        seen = [what(os.ftruncate, fd, 1001), what(os.truncate, p, 1001), what(os.pwrite, fd, b"x", 1000)]
        seen += [what(os.pwrite, fd, b"x" * 100, 950), what(os.ftruncate, fd, 1000)]
        seen += [what(call, "fallocate64", fd, 0, c64(0), c64(2000)), os.fstat(fd).st_size]
        return seen

    def signalled():
        resource.setrlimit(resource.RLIMIT_FSIZE, (1000, resource.RLIM_INFINITY))
        signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
        os.truncate(p, 2000)

    return [in_child(attempt), in_child(signalled), os.stat(p).st_size]


@case
def writing_moves_times(d):
    p = put(d / "f", b"x" * 100)
    fd = os.open(p, os.O_RDWR)
    seen = [
        moved(p, lambda: os.pwrite(fd, b"y", 0)),
        moved(p, lambda: os.pwrite(fd, b"", 0)),
        moved(p, lambda: os.pread(fd, 10, 0)),
        moved(p, lambda: os.fsync(fd)),
        moved(p, lambda: os.ftruncate(fd, 50)),
        moved(p, lambda: os.ftruncate(fd, 50)),
        moved(p, lambda: os.ftruncate(fd, 150)),
        moved(p, lambda: os.truncate(p, 150)),
        moved(p, lambda: os.truncate(p, 10)),
        moved(p, lambda: os.truncate(p, -1)),
        moved(p, lambda: call("fallocate64", fd, 0, c64(0), c64(500))),
        moved(p, lambda: os.chmod(p, 0o600)),
        moved(p, lambda: os.chmod(p, 0o600)),
        moved(p, lambda: os.fchmod(fd, 0o644)),
        moved(p, lambda: os.chown(p, -1, -1)),
        moved(p, lambda: os.chown(p, os.getuid(), os.getgid())),
        moved(p, lambda: os.setxattr(p, "user.x", b"1")),
        moved(p, lambda: os.getxattr(p, "user.x")),
        moved(p, lambda: os.removexattr(p, "user.x")),
        moved(p, lambda: os.rename(p, d / "g") or os.rename(d / "g", p))[:1],
        moved(p, lambda: os.utime(p, (1, 1))),
        moved(p, lambda: os.utime(p, (1, 1)))[:1],
        moved(p, lambda: os.access(p, os.R_OK)),
        moved(p, lambda: os.close(os.open(p, os.O_RDWR))),
        moved(p, lambda: get(p) and None),
        moved(fd, lambda: os.unlink(p)),
        moved(fd, lambda: os.write(fd, b"x")),
        moved(fd, lambda: os.ftruncate(fd, 7)),
        moved(fd, lambda: os.fchmod(fd, 0o640)),
    ]
    os.close(fd)
    return seen


@case
def truncating(d):
    p = put(d / "f", b"abc" * 1000)
    seen = []
    for size in (0, 1, 4095, 4096, 4097, 100000, 3, 1 << 20, 1 << 26, 5):
        os.truncate(p, size)
        st = os.stat(p)
        seen.append([st.st_size, os.stat(p).st_blocks * 512 <= st.st_size + 8192])
        with open(p, "rb") as f:
            seen.append([f.read(10).hex(), f.seek(max(0, size - 5)), f.read(10).hex()])
    os.truncate(p, 0)
    os.truncate(p, 10)
    seen += [get(p).hex(), what(os.truncate, d, 0), what(os.truncate, p, -1), what(os.truncate, str(p) + "/", 0)]
    return seen


@case
def blocks_and_numbers_of_stat(d):
    p = put(d / "f", b"x" * 100000)
    st = os.stat(p)
    os.sync()
    other = os.stat(put(d / "g"))
    return [
        st.st_nlink,
        stat.S_ISREG(st.st_mode),
        st.st_dev == os.stat(d).st_dev == other.st_dev,
        st.st_ino != other.st_ino and st.st_ino != os.stat(d).st_ino,
        st.st_blksize >= 512,
        st.st_blocks * 512 >= 100000,
        os.stat(put(d / "empty", b"")).st_blocks,
        st.st_uid == os.getuid() and st.st_gid == os.getgid(),
        st.st_rdev,
        stat.S_ISDIR(os.stat(d).st_mode),
        os.stat(d).st_nlink >= 1,
        os.stat(d / "..").st_ino == os.stat(Path(d).parent).st_ino,
        os.stat(str(d) + "/.").st_ino == os.stat(d).st_ino,
    ]


@case
def statvfs_makes_sense(d):
    v = os.statvfs(d)
    return [
        v.f_namemax,
        v.f_bsize >= 512,
        v.f_frsize >= 512,
        v.f_blocks > 0,
        v.f_bavail <= v.f_bfree <= v.f_blocks,
        v.f_ffree <= v.f_files,
        what(lambda: os.statvfs(put(d / "f")).f_namemax),
    ]


# ---- reaching files in other ways


@case
def mappings(d):
    p = put(d / "f", b"x" * 10000)
    fd, ro, wo = os.open(p, os.O_RDWR), os.open(p, os.O_RDONLY), os.open(p, os.O_WRONLY)
    seen = [
        what(lambda: mmap.mmap(ro, 100, mmap.MAP_SHARED, mmap.PROT_READ | mmap.PROT_WRITE)),
        what(lambda: mmap.mmap(ro, 100, mmap.MAP_PRIVATE, mmap.PROT_READ | mmap.PROT_WRITE)),
        what(lambda: mmap.mmap(wo, 100, mmap.MAP_SHARED, mmap.PROT_WRITE)),
    ]
    m = mmap.mmap(fd, 10000)
    m[5000:5003] = b"map"
    seen += [os.pread(fd, 5, 4999).hex()]
    os.pwrite(fd, b"write", 100)
    seen += [m[98:107].hex(), moved(p, lambda: m.flush())[0]]
    m[9999:] = b"!"
    private = mmap.mmap(fd, 10000, mmap.MAP_PRIVATE)
    private[:3] = b"own"
    seen += [os.pread(fd, 3, 0).hex()]
    os.ftruncate(fd, 20000)
    seen += [m[9999:10000].hex(), what(lambda: m.size())]
    os.unlink(p)
    m[0:2] = b"ab"
    m.flush()
    seen += [os.pread(fd, 3, 0).hex()]
    m.close()
    private.close()

    def beyond():
        os.ftruncate(fd, 8192)
        m2 = mmap.mmap(fd, 8192)
        os.ftruncate(fd, 0)
        return m2[5000]

    seen += [in_child(beyond)]
    for f in (fd, ro, wo):
        os.close(f)
    return seen


@case
def a_mapping_moves_mtime(d):
    p = put(d / "f", b"x" * 10000)
    fd = os.open(p, os.O_RDWR)
    m = mmap.mmap(fd, 10000)

    def write():
        m[0:1] = b"y"
        m.flush()

    seen = moved(p, write)
    m.close()
    os.close(fd)
    return seen + [get(p)[:2].hex()]


@case
def a_mapping_outlives_its_handle(d):
    p = put(d / "f", b"x" * 10000)
    fd = os.open(p, os.O_RDWR)
    m = mmap.mmap(fd, 10000)
    os.close(fd)
    m[10:13] = b"abc"
    m.close()
    return get(p)[8:15].hex()


@case
def copying_ranges(d):
    src, dst = put(d / "a", bytes(range(256)) * 100), put(d / "b", b"")
    a, w = os.open(src, os.O_RDWR), os.open(dst, os.O_RDWR)
    ap, dirfd = os.open(dst, os.O_WRONLY | os.O_APPEND), os.open(d, os.O_RDONLY)
    ro = os.open(dst, os.O_RDONLY)
    seen = [
        what(os.copy_file_range, a, w, 1000, 0, 0),
        what(os.copy_file_range, a, w, 1000, 25590, 5),
        what(os.copy_file_range, a, w, 1000, 25600, 0),
        what(os.copy_file_range, a, w, 1000, 99999, 0),
        what(os.copy_file_range, a, a, 100, 0, 50),
        what(os.copy_file_range, a, a, 100, 0, 200),
        what(os.copy_file_range, a, ap, 10),
        what(os.copy_file_range, a, ro, 10),
        what(os.copy_file_range, ap, w, 10),
        what(os.copy_file_range, dirfd, w, 10),
        what(os.copy_file_range, a, dirfd, 10) in ("EISDIR", "EBADF"),
        what(os.copy_file_range, a, w, 0, 0, 0),
        os.fstat(w).st_size,
        moved(dst, lambda: os.copy_file_range(a, w, 10, 0, 0)),
    ]
    seen += [os.pread(w, 20, 990).hex(), what(os.sendfile, w, a, 0, 100), what(os.lseek, w, 0, os.SEEK_CUR)]
    for f in (a, w, ap, dirfd, ro):
        os.close(f)
    return seen


@case
def splicing(d):
    p = put(d / "f", b"0123456789" * 1000)
    fd = os.open(p, os.O_RDWR)
    r, w = os.pipe()
    seen = [os.splice(fd, w, 100, offset_src=5), os.read(r, 100).hex()[:20]]
    os.write(w, b"through a pipe")
    seen += [os.splice(r, fd, 14, offset_dst=3), os.pread(fd, 20, 0).hex()]
    for f in (fd, r, w):
        os.close(f)
    return seen


@case
def direct_io(d):
    p = d / "f"
    fd = os.open(p, os.O_RDWR | os.O_CREAT | os.O_DIRECT)
    buf = mmap.mmap(-1, 8192)
    buf[:] = b"direct!!" * 1024
    seen = [os.pwritev(fd, [buf], 0), os.fstat(fd).st_size]
    back = mmap.mmap(-1, 8192)
    seen += [os.preadv(fd, [back], 4096), back[:4096] == buf[4096:], os.preadv(fd, [back], 8192)]
    other = os.open(p, os.O_RDWR)
    os.pwrite(other, b"buffered", 0)
    seen += [os.preadv(fd, [back], 0), back[:16].decode()]
    seen += [os.pwritev(fd, [buf], 4096), os.pread(other, 8, 4096).decode(), os.fstat(other).st_size]
    os.close(fd)
    os.close(other)
    return seen


@case
def files_that_were_removed(d):
    p = put(d / "f", b"abc")
    fd = os.open(p, os.O_RDWR)
    os.unlink(p)
    seen = [os.fstat(fd).st_nlink, os.fstat(fd).st_size, os.path.lexists(p), os.listdir(d)]
    seen += [what(os.write, fd, b"ABCD"), os.pread(fd, 10, 0).decode(), what(os.ftruncate, fd, 2)]
    seen += [what(os.fchmod, fd, 0o600), oct(os.fstat(fd).st_mode), what(os.fchown, fd, -1, -1)]
    seen += [what(os.utime, fd, (7, 8)), os.fstat(fd).st_mtime, what(os.fsync, fd)]
    seen += [what(os.setxattr, fd, "user.a", b"1"), what(os.getxattr, fd, "user.a"), what(lambda: mine(fd))]
    seen += [opens(f"/proc/self/fd/{fd}", os.O_RDWR), what(os.readlink, f"/proc/self/fd/{fd}")[-10:]]
    put(p, b"another")
    seen += [os.fstat(fd).st_nlink, os.pread(fd, 10, 0).decode(), get(p).decode()]
    seen += [os.fstat(fd).st_ino != os.stat(p).st_ino, what(os.pwrite, fd, b"x" * 70000, 5000)]
    seen += [os.fstat(fd).st_size, what(call, "fallocate64", fd, 0, c64(0), c64(100000)), os.fstat(fd).st_size]
    m = mmap.mmap(fd, 100)
    m[:5] = b"12345"
    m.close()
    seen.append(os.pread(fd, 6, 0).hex())
    os.close(fd)
    return seen + [get(p).decode()]


@case
def files_that_were_renamed_over(d):
    p, q = put(d / "f", b"old"), put(d / "g", b"new")
    fd, gd = os.open(p, os.O_RDWR), os.open(q, os.O_RDWR)
    ino = os.stat(q).st_ino
    os.rename(q, p)
    seen = [os.fstat(fd).st_nlink, os.fstat(gd).st_nlink, os.pread(fd, 5, 0).decode(), os.pread(gd, 5, 0).decode()]
    seen += [os.stat(p).st_ino == ino, os.path.lexists(q), os.write(fd, b"OLD"), os.write(gd, b"NEW")]
    seen += [get(p).decode(), os.pread(fd, 5, 0).decode(), what(os.readlink, f"/proc/self/fd/{gd}")[-2:]]
    os.close(fd)
    os.close(gd)
    return seen + [os.listdir(d)]


# ---- names


@case
def renaming(d):
    p, q = put(d / "a", b"a"), put(d / "b", b"b")
    ino = os.stat(p).st_ino
    r2 = lambda x, y, f: call("renameat2", AT_FDCWD, b(x), AT_FDCWD, b(y), ctypes.c_uint(f))
    seen = [
        what(os.rename, p, p),
        what(os.rename, p, d),
        what(os.rename, d, p),
        what(os.rename, p, str(d) + "/"),
        what(os.rename, p, str(d / "new") + "/"),
        what(os.rename, str(p) + "/", d / "new"),
        what(os.rename, p, str(q) + "/"),
        what(os.rename, p, str(d) + "/."),
        what(os.rename, p, str(d) + "/.."),
        what(os.rename, str(d) + "/.", d / "x"),
        what(os.rename, d / "none", p),
        what(os.rename, p, d / "none" / "x"),
        what(os.rename, p, ""),
        what(os.rename, "", p),
        what(r2, p, q, 1),
        what(r2, p, p, 1),
        what(r2, p, d / "none", 2),
        what(r2, d / "none", p, 2),
        what(r2, p, q, 3),
        what(r2, p, q, 8),
        what(r2, p, q, 2),
        get(p).decode() + get(q).decode(),
        os.stat(q).st_ino == ino,
        what(r2, p, d / "c", 1),
        sorted(os.listdir(d)),
        what(r2, q, d / "c", 0),
        get(d / "c").decode(),
        os.stat(d / "c").st_ino == ino,
        sorted(os.listdir(d)),
    ]
    return seen


@case
def renaming_to_another_directory(d):
    other = d.other
    p = put(d / "moves", b"m" * 3000)
    fd = os.open(p, os.O_RDWR)
    ino = os.stat(p).st_ino
    os.chmod(p, 0o640)
    os.utime(p, ns=(5_000_000_001, 6_000_000_002))
    os.setxattr(p, "user.k", b"v")
    seen = [moved(other, lambda: os.rename(p, other / "moved")), os.path.lexists(p)]
    st = os.stat(other / "moved")
    seen += [st.st_ino == ino, oct(st.st_mode), st.st_mtime_ns, os.getxattr(other / "moved", "user.k").decode()]
    os.pwrite(fd, b"still", 0)
    seen += [get(other / "moved")[:7].decode(), sorted(os.listdir(d)), os.fstat(fd).st_nlink]
    put(p, b"again")
    seen += [what(os.rename, other / "moved", p), get(p)[:5].decode(), os.listdir(other)]
    put(other / "x", b"x")
    r2 = lambda x, y, f: call("renameat2", AT_FDCWD, b(x), AT_FDCWD, b(y), ctypes.c_uint(f))
    seen += [what(r2, p, other / "x", 2), get(p).decode(), get(other / "x")[:5].decode(), what(r2, p, other / "x", 1)]
    os.unlink(other / "x")
    os.close(fd)
    return seen


@case
def removing(d):
    p = put(d / "f")
    fd = os.open(d, os.O_RDONLY)
    seen = [
        what(os.unlink, d),
        what(os.unlink, str(p) + "/"),
        what(os.unlink, str(d) + "/."),
        what(os.unlink, str(d) + "/.."),
        what(os.rmdir, p),
        what(os.rmdir, str(d) + "/."),
        what(call, "unlinkat", fd, b"f", 0x200),
        what(call, "unlinkat", fd, b"f", 0x4000),
        what(call, "unlinkat", fd, b"f", 0),
        what(call, "unlinkat", fd, b"f", 0),
        what(os.unlink, p),
        what(os.unlink, ""),
    ]
    os.close(fd)
    return seen


@case
def making_what_exists(d):
    p = put(d / "f")
    s = socket.socket(socket.AF_UNIX)
    here = os.open(".", os.O_RDONLY)
    os.chdir(d)
    try:
        bound = what(s.bind, "f")
    finally:
        os.fchdir(here)
        os.close(here)
        s.close()
    return [
        what(os.mkdir, p),
        what(os.mkdir, d),
        what(os.symlink, "x", p),
        what(os.link, p, p),
        what(os.mknod, p, 0o100644),
        what(os.mkfifo, p),
        what(os.mknod, p, 0o020644, 259),
        bound,
        get(p).hex(),
    ]


@case
def mknod_of_regular_files(d):
    old = os.umask(0o027)
    seen = [what(os.mknod, d / "a", 0o100666), what(os.mknod, d / "b", 0o644), what(os.mknod, d / "c", 0o104755)]
    os.umask(old)
    seen += [oct(os.stat(d / n).st_mode) for n in ("a", "b", "c")]
    return seen + [os.stat(d / "a").st_size, what(os.mknod, d / "a", 0o100666), get(put(d / "a")).hex()]


@case
def listing_with_positions(d):
    names = [f"file-{i:04d}" for i in range(300)]
    for n in names:
        os.close(os.open(d / n, os.O_CREAT | os.O_WRONLY))
    seen = [sorted(os.listdir(d)) == names]
    with os.scandir(d) as it:
        seen.append(all(e.is_file() and e.inode() == os.stat(e.path).st_ino for e in it))
    dirs = Stream(d)
    places = {}
    while True:
        at = dirs.tell()
        n = dirs.read()
        if n is None:
            break
        places[n] = at
    seen += [sorted(places) == sorted([".", ".."] + names), len(set(places.values())) == len(places)]
    again = True
    for n in list(places)[::17]:
        dirs.seek(places[n])
        again = again and dirs.read() == n
    seen.append(again)
    dirs.rewind()
    # removed while it is read: nothing twice, nothing that stays left out
    got = []
    while (n := dirs.read()) is not None:
        got.append(n)
        if n not in (".", ".."):
            os.unlink(d / n)
    seen += [len(got) == len(set(got)), os.listdir(d)]
    put(d / "new")
    dirs.rewind()
    seen.append(sorted(iter(dirs.read, None)))
    dirs.close()
    return seen


class Stream:
    """opendir() and what follows."""

    class Entry(ctypes.Structure):
        _fields_ = [
            ("ino", ctypes.c_uint64),
            ("off", ctypes.c_int64),
            ("reclen", ctypes.c_ushort),
            ("type", ctypes.c_ubyte),
            ("name", ctypes.c_char * 256),
        ]

    def __init__(self, path):
        libc.opendir.restype = ctypes.c_void_p
        libc.readdir64.restype = ctypes.POINTER(self.Entry)
        libc.telldir.restype = ctypes.c_long
        self.dir = ctypes.c_void_p(libc.opendir(b(path)))

    def read(self):
        while e := libc.readdir64(self.dir):
            name = os.fsdecode(e.contents.name)
            if name not in KEPT:
                return name
        return None

    def tell(self):
        return libc.telldir(self.dir)

    def seek(self, at):
        libc.seekdir(self.dir, ctypes.c_long(at))

    def rewind(self):
        libc.rewinddir(self.dir)

    def close(self):
        libc.closedir(self.dir)


# ---- attributes


@case
def modes(d):
    p = put(d / "f")
    seen = []
    for mode in (0, 0o400, 0o644, 0o755, 0o777, 0o1644, 0o2755, 0o2644, 0o4755, 0o4644, 0o6755, 0o7777, 0o600):
        seen += [what(os.chmod, p, mode), oct(os.stat(p).st_mode)]
    fd = os.open(p, os.O_RDONLY)
    seen += [what(os.fchmod, fd, 0o2700), oct(os.fstat(fd).st_mode), what(os.chmod, str(p) + "/", 0o600)]
    os.close(fd)
    os.chmod(d, 0o1777)
    seen.append(oct(os.stat(d).st_mode))
    os.chmod(d, 0o755)
    return seen


@case
def set_user_bits_go_when_they_must(d):
    seen = []
    for mode in (0o6755, 0o4755, 0o2755, 0o2745, 0o6711, 0o6644):
        p = put(d / "f", b"x" * 10, mode)
        for act in (
            lambda: os.chown(p, os.getuid(), os.getgid()),
            lambda: os.chown(p, -1, -1),
            lambda: os.truncate(p, 5),
            lambda: put_at(p, b"y"),
            lambda: os.utime(p, (1, 1)),
            lambda: fallocate(p, 50),
        ):
            os.chmod(p, mode)
            act()
            seen.append(oct(os.stat(p).st_mode))
    return seen


def put_at(p, data, at=0):
    fd = os.open(p, os.O_WRONLY)
    os.pwrite(fd, data, at)
    os.close(fd)


def fallocate(p, n):
    fd = os.open(p, os.O_WRONLY)
    call("fallocate64", fd, 0, c64(0), c64(n))
    os.close(fd)


@case
def owners(d):
    p = put(d / "f")
    me, group = os.getuid(), os.getgid()
    fd = os.open(p, os.O_RDWR)
    seen = [
        what(os.chown, p, me, group),
        what(os.chown, p, -1, group),
        what(os.chown, p, me, -1),
        what(os.chown, p, -1, -1),
        what(os.lchown, p, me, group),
        what(os.fchown, fd, me, group),
        what(os.chown, str(p) + "/", me, group),
    ]
    os.close(fd)
    return seen


class Spec(ctypes.Structure):
    _fields_ = [("sec", ctypes.c_long), ("nsec", ctypes.c_long)]


def utimens(path, a, m, flags=0):
    return call("utimensat", AT_FDCWD, b(path), (Spec * 2)(Spec(*a), Spec(*m)), flags)


@case
def times_are_kept(d):
    p = put(d / "f")
    seen = []
    for a, m in (
        ((1, 1), (2, 2)),
        ((0, 0), (0, 0)),
        ((1_000_000_000, 999_999_999), (1_999_999_999, 123_456_789)),
        ((2**31, 5), (2**31 + 1, 6)),
        ((2**32 + 7, 1), (2**32 + 8, 2)),
        ((-1, 0), (-1, 500_000_000)),
        ((-(2**31), 0), (-5, 7)),
        ((9, OMIT), (9, 9)),
        ((8, 8), (8, OMIT)),
        ((7, OMIT), (7, OMIT)),
        ((1, 1_000_000_000), (1, 1)),
        ((1, 1), (1, -1)),
    ):
        seen += [what(utimens, p, a, m), *times(p)[:2]]
    before = time.time_ns() - 20_000_000
    seen += [what(utimens, p, (5, 5), (0, NOW)), times(p)[0], times(p)[1] >= before]
    seen += [what(utimens, p, (0, NOW), (6, 6)), times(p)[1], times(p)[0] >= before]
    seen += [what(utimens, p, (0, NOW), (0, NOW)), abs(times(p)[0] - times(p)[1]) < 10_000_000]
    fd = os.open(p, os.O_RDONLY)
    seen += [what(os.utime, fd, ns=(11, 12)), times(p)[:2], what(utimens, str(p) + "/", (1, 1), (1, 1))]
    os.close(fd)
    put(p, b"more")
    seen += [times(p)[0], times(p)[1] > before]
    return seen


@case
def times_survive_close_and_rename(d):
    p = d / "f"
    fd = os.open(p, os.O_CREAT | os.O_RDWR)
    os.write(fd, b"x" * 3000)
    os.utime(fd, ns=(1_000_000_001, 2_000_000_002))
    os.close(fd)
    seen = [times(p)[:2]]
    os.rename(p, d / "g")
    seen.append(times(d / "g")[:2])
    put(p, b"to be replaced")
    os.rename(d / "g", p)
    seen.append(times(p)[:2])
    os.chmod(p, 0o600)
    seen.append(times(p)[:2])
    os.close(os.open(p, os.O_RDWR))
    return seen + [times(p)[:2]]


def mine(f):
    """The attributes of a file but those that a mount adds."""
    return sorted(n for n in os.listxattr(f) if not n.startswith("user.attachfs."))


@case
def attributes(d):
    p = put(d / "f")
    fd = os.open(p, os.O_RDWR)
    seen = []
    for f in (p, fd, d):
        seen += [
            what(os.getxattr, f, "user.a"),
            what(os.setxattr, f, "user.a", b"one"),
            what(os.getxattr, f, "user.a"),
            what(os.setxattr, f, "user.a", b"two", os.XATTR_CREATE),
            what(os.setxattr, f, "user.b", b"two", os.XATTR_REPLACE),
            what(os.setxattr, f, "user.a", b"", os.XATTR_REPLACE),
            what(os.getxattr, f, "user.a"),
            what(os.setxattr, f, "user.b", b"\0\xff" * 10, os.XATTR_CREATE),
            what(lambda: mine(f)),
            what(os.removexattr, f, "user.a"),
            what(os.removexattr, f, "user.a"),
            what(os.setxattr, f, "user." + "n" * 250, b"x"),
            what(os.removexattr, f, "user." + "n" * 250),
            what(os.setxattr, f, "user." + "n" * 251, b"x"),
            what(os.setxattr, f, "user.big", b"x" * 65537),
            what(os.setxattr, f, "user.x", b"x", 77),
            what(os.setxattr, f, "nonsense", b"x"),
            what(os.setxattr, f, "nonsense.x", b"x"),
            what(os.getxattr, f, "nonsense.x"),
            what(os.setxattr, f, "", b"x"),
            what(os.setxattr, f, "user.", b"x"),
            what(os.removexattr, f, "user.b"),
            what(lambda: mine(f)),
        ]
    os.close(fd)
    os.setxattr(p, "user.v", b"0123456789")
    buf = ctypes.create_string_buffer(1000)
    seen += [
        what(call, "getxattr", b(p), b"user.v", buf, ctypes.c_size_t(0)),
        what(call, "getxattr", b(p), b"user.v", buf, ctypes.c_size_t(5)),
        what(call, "getxattr", b(p), b"user.v", buf, ctypes.c_size_t(10)),
        what(call, "listxattr", b(p), buf, ctypes.c_size_t(0)) >= 7,
        what(call, "listxattr", b(p), buf, ctypes.c_size_t(3)),
        what(call, "listxattr", b(p), buf, ctypes.c_size_t(1000)) >= 7,
        what(os.getxattr, d / "none", "user.v"),
        what(os.setxattr, d / "none", "user.v", b""),
    ]
    return seen


@case
def access_as_root_or_owner(d):
    seen = []
    for mode in (0, 0o111, 0o222, 0o444, 0o777):
        p = put(d / "f", b"", mode)
        seen += [os.access(p, m) for m in (os.F_OK, os.R_OK, os.W_OK, os.X_OK, os.R_OK | os.W_OK)]
        os.unlink(p)
    return seen + [os.access(d / "none", os.F_OK)]


# ---- rights of others


@case
def rights_of_others(d):
    if os.getuid():
        return "not root"
    mine = put(d / "roots", b"root's", 0o640)
    shown = put(d / "shown", b"for all", 0o644)
    os.chmod(d, 0o755)

    def closed():
        return [
            opens(mine, os.O_RDONLY),
            opens(mine, os.O_WRONLY),
            opens(shown, os.O_RDONLY),
            opens(shown, os.O_WRONLY),
            opens(shown, os.O_RDONLY | os.O_TRUNC),
            opens(shown, os.O_CREAT | os.O_RDWR),
            opens(d / "new", os.O_CREAT | os.O_RDWR),
            what(os.unlink, shown),
            what(os.rename, shown, d / "x"),
            what(os.truncate, shown, 0),
            what(os.chmod, shown, 0o777),
            what(os.chown, shown, NOBODY, NOBODY),
            what(os.chown, shown, -1, -1),
            what(os.utime, shown),
            what(os.utime, shown, (1, 1)),
            what(os.setxattr, shown, "user.x", b"1"),
            what(os.removexattr, shown, "user.x"),
            what(os.getxattr, mine, "user.x"),
            what(os.mknod, d / "new", 0o100644),
            [os.access(shown, m) for m in (os.R_OK, os.W_OK, os.X_OK)],
            [os.access(d, m) for m in (os.R_OK, os.W_OK, os.X_OK)],
            what(lambda: len(os.listdir(d))),
            what(os.chmod, d, 0o777),
        ]

    seen = [as_nobody(closed)]
    os.chmod(d, 0o700)
    seen.append(as_nobody(lambda: [opens(shown, os.O_RDONLY), what(os.stat, shown), what(os.listdir, d)]))
    os.chmod(d, 0o711)
    seen.append(as_nobody(lambda: [opens(shown, os.O_RDONLY), what(os.listdir, d), opens(d / "n", os.O_CREAT)]))
    os.chmod(d, 0o744)
    seen.append(as_nobody(lambda: [opens(shown, os.O_RDONLY), what(lambda: len(os.listdir(d)))]))
    os.chmod(d, 0o777)

    def own():
        p = d / "own"
        seen = [opens(p, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600)]
        st = os.stat(p)
        seen += [st.st_uid, st.st_gid, oct(st.st_mode)]
        for mode in (0, 0o200, 0o400, 0o100, 0o077):
            os.chmod(p, mode)
            seen += [opens(p, f) for f in (os.O_RDONLY, os.O_WRONLY, os.O_RDWR, os.O_WRONLY | os.O_TRUNC)]
            seen += [os.access(p, m) for m in (os.R_OK, os.W_OK, os.X_OK)]
        fd = os.open(d / "ro", os.O_CREAT | os.O_WRONLY, 0o400)
        seen += [os.write(fd, b"written"), what(os.ftruncate, fd, 3)]
        os.close(fd)
        seen += [opens(d / "ro", os.O_WRONLY), opens(d / "ro", os.O_WRONLY | os.O_CREAT, 0o400)]
        seen += [what(os.unlink, d / "ro")]
        os.chmod(p, 0o6777)
        seen += [oct(os.stat(p).st_mode)]
        put_at(p, b"bits go")
        seen += [oct(os.stat(p).st_mode)]
        os.chmod(p, 0o6777)
        os.truncate(p, 2)
        seen += [oct(os.stat(p).st_mode)]
        os.chmod(p, 0o2767)
        put_at(p, b"x")
        seen += [oct(os.stat(p).st_mode)]
        os.chmod(p, 0o6777)
        seen += [what(os.chown, p, NOBODY, NOBODY), oct(os.stat(p).st_mode)]
        seen += [what(os.chown, p, 0, -1), what(os.chown, p, -1, 0), what(os.chmod, p, 0o1644)]
        seen += [oct(os.stat(p).st_mode), what(os.rename, shown, d / "taken"), what(os.rename, d / "taken", shown)]
        return seen

    seen.append(as_nobody(own))
    os.chmod(d, 0o1777)
    put(d / "own", b"nobody's")
    seen.append(
        as_nobody(
            lambda: [
                what(os.unlink, shown),
                what(os.rename, shown, d / "x"),
                what(os.rename, d / "own", shown),
                what(os.rename, d / "own", d / "own2"),
                what(os.unlink, d / "own2"),
            ]
        )
    )
    os.chmod(d, 0o755)
    p = put(d / "given", b"x" * 10, 0o6755)
    seen += [what(os.chown, p, NOBODY, NOBODY), oct(os.stat(p).st_mode), os.stat(p).st_uid, os.stat(p).st_gid]
    seen += [what(os.chown, p, -1, 12345), os.stat(p).st_uid, os.stat(p).st_gid]
    seen.append(as_nobody(lambda: [what(os.chmod, p, 0o2755), oct(os.stat(p).st_mode), what(os.chown, p, -1, NOBODY)]))
    return seen


@case
def a_directorys_group_goes_to_its_files(d):
    if os.getuid():
        return "not root"
    if what(os.chown, d, -1, 4321) is not None:
        return "cannot"
    os.chmod(d, 0o2777)
    put(d / "a", b"", 0o644)
    os.mknod(d / "b", 0o100644)
    seen = [os.stat(d / n).st_gid for n in "ab"]
    seen += [as_nobody(lambda: [opens(d / "c", os.O_CREAT | os.O_WRONLY, 0o2775), os.stat(d / "c").st_gid])]
    seen += [oct(os.stat(d / "c").st_mode)]
    os.chmod(d, 0o755)
    os.chown(d, -1, os.getgid())
    return seen


# ---- what the kernel keeps


@case
def locks(d):
    p = put(d / "f", b"x" * 100)
    fd = os.open(p, os.O_RDWR)
    ro = os.open(p, os.O_RDONLY)

    def other(f):
        def attempt():
            mine = os.open(p, os.O_RDWR)
            return f(mine)

        return in_child(lambda: what(attempt))

    seen = [what(fcntl.flock, fd, fcntl.LOCK_EX | fcntl.LOCK_NB)]
    seen += [other(lambda x: fcntl.flock(x, fcntl.LOCK_SH | fcntl.LOCK_NB)), what(fcntl.flock, ro, fcntl.LOCK_SH | fcntl.LOCK_NB)]
    seen += [what(fcntl.flock, fd, fcntl.LOCK_SH), what(fcntl.flock, ro, fcntl.LOCK_SH | fcntl.LOCK_NB)]
    seen += [what(fcntl.flock, fd, fcntl.LOCK_UN), what(fcntl.flock, ro, fcntl.LOCK_UN)]
    seen += [what(fcntl.lockf, fd, fcntl.LOCK_EX | fcntl.LOCK_NB, 10, 0)]
    seen += [other(lambda x: fcntl.lockf(x, fcntl.LOCK_EX | fcntl.LOCK_NB, 10, 5))]
    seen += [other(lambda x: fcntl.lockf(x, fcntl.LOCK_EX | fcntl.LOCK_NB, 10, 10))]
    seen += [what(fcntl.lockf, ro, fcntl.LOCK_EX | fcntl.LOCK_NB)]
    seen += [other(lambda x: struct.unpack("hhqqi4x", fcntl.fcntl(x, fcntl.F_GETLK, struct.pack("hhqqi4x", 1, 0, 0, 0, 0)))[:4] and None)]
    seen += [what(fcntl.lockf, fd, fcntl.LOCK_UN)]
    ofd = struct.pack("hhqqi4x", fcntl.F_WRLCK, 0, 0, 10, 0)
    seen += [what(lambda: fcntl.fcntl(fd, 37, ofd) and None)]
    second = os.open(p, os.O_RDWR)
    seen += [what(lambda: fcntl.fcntl(second, 37, ofd) and None)]
    for f in (fd, ro, second):
        os.close(f)
    return seen


@case
def watches(d):
    n = call("inotify_init1", os.O_NONBLOCK)
    names = {1: "access", 2: "modify", 4: "attrib", 8: "close_write", 0x10: "close", 0x20: "open"}
    names.update({0x40: "from", 0x80: "to", 0x100: "create", 0x200: "delete"})
    call("inotify_add_watch", n, b(d), 0x2CE | 0x100)
    put(d / "f", b"one")
    os.rename(d / "f", d / "g")
    os.truncate(d / "g", 1)
    os.chmod(d / "g", 0o600)
    os.unlink(d / "g")
    seen = []
    data = os.read(n, 65536)
    while data:
        _, mask, _, length = struct.unpack("iIII", data[:16])
        seen.append(f"{names.get(mask, mask)} {data[16:16+length].rstrip(chr(0).encode()).decode()}")
        data = data[16 + length :]
    os.close(n)
    return seen


@case
def odd_ioctls(d):
    fd = os.open(put(d / "f"), os.O_RDWR)
    buf = bytearray(8)
    seen = [what(lambda: fcntl.ioctl(fd, 0x5401, bytearray(100)) and None)]  # TCGETS: isatty()
    seen += [os.isatty(fd), what(lambda: fcntl.ioctl(fd, 0xC0085EEF, buf) and None)]
    os.close(fd)
    return seen


@case
def several_handles_agree(d):
    p = d / "f"
    fds = [os.open(p, os.O_CREAT | os.O_RDWR) for _ in range(5)]
    for i, fd in enumerate(fds):
        os.pwrite(fd, b"%d" % i * 1000, i * 500)
    seen = [os.pread(fd, 10000, 0) == os.pread(fds[0], 10000, 0) for fd in fds]
    seen += [os.fstat(fd).st_size for fd in fds]
    os.close(fds[0])
    os.ftruncate(fds[1], 10)
    seen += [os.pread(fd, 100, 0).decode() for fd in fds[1:]]
    os.pwrite(fds[2], b"end", 100)
    for fd in fds[1:]:
        os.close(fd)
    return seen + [get(p).hex()]


@case
def temporary_files(d):
    with tempfile.NamedTemporaryFile(dir=d) as f:
        f.write(b"x" * 5000)
        f.flush()
        seen = [len(get(f.name)), oct(os.stat(f.name).st_mode)]
    with tempfile.TemporaryFile(dir=d) as f:
        f.write(b"x" * 5000)
        f.seek(0)
        seen.append(len(f.read()))
    return seen + [os.listdir(d)]


@case
def holes_read_as_zeros(d):
    p = d / "f"
    fd = os.open(p, os.O_CREAT | os.O_RDWR)
    os.pwrite(fd, b"end", 1_000_000)
    seen = [os.fstat(fd).st_size, any(os.pread(fd, 1_000_000, 0))]
    os.pwrite(fd, b"middle", 500_000)
    seen += [os.pread(fd, 8, 499_999).hex(), call("fallocate64", fd, 1, c64(2_000_000), c64(100)), os.fstat(fd).st_size]
    os.ftruncate(fd, 500_003)
    os.ftruncate(fd, 1_000_010)
    seen += [any(os.pread(fd, 600_000, 500_003)), os.pread(fd, 6, 500_000).hex()]
    os.close(fd)
    return seen


class Folder(type(Path())):
    """A directory with the one beside it."""

    other = None


def outcomes(folder, other, only=None):
    """Case -> outcome; the directory is emptied after each, but for what was there before."""
    global KEPT
    kept = KEPT = set(os.listdir(folder)) | set(os.listdir(other))
    seen = {}
    for f in CASES:
        if only and only not in f.__name__:
            continue
        d = Folder(folder)
        d.other = Path(other)
        # the cases talk of an empty directory
        listdir = os.listdir
        os.listdir = lambda p=".": [n for n in listdir(p) if os.fsdecode(n) not in kept]
        try:
            seen[f.__name__] = json.loads(json.dumps(f(d)))
        except Exception as e:
            line = e.__traceback__
            while line.tb_next:
                line = line.tb_next
            seen[f.__name__] = f"failed: {e!r} in line {line.tb_lineno}"
        finally:
            os.listdir = listdir
        os.chmod(folder, 0o755)
        for where in (folder, other):
            for n in set(os.listdir(where)) - kept:
                os.unlink(Path(where) / n)
    return seen


def differences(here, there, path=""):
    """Where two outcomes differ, as (place, here, there)."""
    if isinstance(here, list) and isinstance(there, list) and len(here) == len(there):
        for i, (x, y) in enumerate(zip(here, there)):
            yield from differences(x, y, f"{path}[{i}]")
    elif here != there:
        yield path, here, there


def compare(folder, other, local, only=None):
    """Lines that say where @folder behaves in another way than a local directory."""
    near = Path(tempfile.mkdtemp(dir=local))
    (near / "a").mkdir()
    (near / "b").mkdir()
    near.chmod(0o755)
    theirs = outcomes(near / "a", near / "b", only)
    ours = outcomes(folder, other, only)
    for name, expected in theirs.items():
        for place, e, got in differences(expected, ours[name]):
            yield f"{name}{place}: {got!r} instead of {e!r}"
    subprocess.run(["rm", "-rf", str(near)], check=False)


def main(argv):
    os.umask(0o022)
    if argv[0] == "--compare":
        lines = list(compare(*argv[1:]))
        print("\n".join(lines))
        return 1 if lines else 0
    print(json.dumps(outcomes(*argv), indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
