# SPDX-License-Identifier: MIT
"""
The 15 points of what makes a mount feel like a real filesystem, in their order; what other files of
the suite cover (mapping, readdir offsets, fallocate) is only touched here.
"""

import errno
import fcntl
import os
import resource
import shutil
import signal
import socket
import stat
import subprocess
import sys
import threading
import time

import pytest

from harness import (
    KEEP,
    SLOW,
    UTIME_NOW,
    UTIME_OMIT,
    numbered,
    one_record,
    raises_errno,
    random_bytes,
    run,
    sha256,
    utimensat,
    wait_until,
)

FILE = "users/Ada Byron/notes.txt"
FOLDER = "users/Ada Byron"


# 1


@pytest.mark.parametrize("folder", ["", "users", "users/Ada Byron"])
def test_1_what_does_not_exist_here_is_eperm(drive, folder):
    m = drive()
    for attempt in (
        lambda p: os.mkdir(p),
        lambda p: os.symlink("target", p),
        lambda p: os.link(m / FILE, p),
        lambda p: os.mkfifo(p),
    ):
        with raises_errno(errno.EPERM):
            attempt(m / folder / "new")
    with raises_errno(errno.EPERM):
        s = socket.socket(socket.AF_UNIX)
        os.chdir(m / folder)
        try:
            s.bind("new")
        finally:
            os.chdir("/")
            s.close()
    if os.getuid() == 0:
        with raises_errno(errno.EPERM):
            os.mknod(m / folder / "new", stat.S_IFCHR | 0o600, os.makedev(1, 3))
    assert not os.path.lexists(m / folder / "new")


def test_1_rmdir_is_eperm(drive):
    m = drive()
    for folder in ("users", "users/Ada Byron", "users/Nobody"):
        with raises_errno(errno.EPERM):
            os.rmdir(m / folder)
        assert (m / folder).is_dir()


def test_1_regular_files_by_mknod_work(drive):
    m = drive()
    os.mknod(m / FOLDER / "made", stat.S_IFREG | 0o644)
    (m / FOLDER / "made").write_bytes(b"x" * 2000)
    m.sync()
    assert m.emulator.bytes_of(f"{FOLDER}/made") == b"x" * 2000


# 2


def test_2_acls_and_foreign_xattrs_are_eopnotsupp(drive):
    m = drive()
    acl = bytes.fromhex("0200000001000600ffffffff04000400ffffffff20000400ffffffff")
    for name in ("system.posix_acl_access", "system.nonsense"):
        with raises_errno(errno.EOPNOTSUPP):
            os.setxattr(m / FILE, name, acl)
    if os.getuid() == 0:
        for name in ("trusted.x", "security.x"):
            with raises_errno(errno.EOPNOTSUPP):
                os.setxattr(m / FILE, name, b"x")
    for path in ("", "users", FOLDER, FILE, ".attachfs", ".attachfs/status"):
        os.listxattr(m / path)
        with raises_errno(errno.ENODATA, errno.EOPNOTSUPP):
            os.getxattr(m / path, "system.posix_acl_access")
        with raises_errno(errno.ENODATA):
            os.getxattr(m / path, "user.nothing")


def test_2_cp_a_cp_p_install_and_mv_from_elsewhere_work(drive, scratch):
    m = drive()
    for name in ("a", "b", "c", "d"):
        (scratch / name).write_bytes(name.encode() * 3000)
    told = run("cp", "-a", scratch / "a", m / "users/Nobody/a").stderr
    told += run("cp", "-p", scratch / "b", m / "users/Nobody/b").stderr
    told += run("install", "-m", "755", scratch / "c", m / "users/Nobody/c").stderr
    told += run("mv", scratch / "d", m / "users/Nobody/d").stderr
    assert told == ""
    assert os.stat(m / "users/Nobody/c").st_mode & 0o777 == 0o755
    m.sync()
    for name in ("a", "b", "c", "d"):
        assert m.emulator.bytes_of(f"users/Nobody/{name}") == name.encode() * 3000


# 3


def test_3_new_files_have_the_mode_given_without_the_umask(drive):
    m = drive()
    old = os.umask(0o027)
    try:
        os.close(os.open(m / FOLDER / "a", os.O_CREAT | os.O_WRONLY, 0o666))
        os.close(os.open(m / FOLDER / "b", os.O_CREAT | os.O_WRONLY, 0o777))
        os.close(os.open(m / FOLDER / "c", os.O_CREAT | os.O_WRONLY, 0o400))
    finally:
        os.umask(old)
    modes = [os.stat(m / FOLDER / n).st_mode & 0o7777 for n in "abc"]
    assert modes == [0o640, 0o750, 0o400]
    assert (os.stat(m / FOLDER / "a").st_uid, os.stat(m / FOLDER / "a").st_gid) == (
        os.getuid(),
        os.getgid(),
    )


def test_3_chown_to_oneself_works_and_to_others_does_not(drive):
    m = drive()
    os.chown(m / FILE, os.getuid(), os.getgid())
    os.chown(m / FILE, -1, -1)
    with raises_errno(errno.EPERM):
        os.chown(m / FILE, os.getuid() + 1234, -1)


def test_3_directories_keep_mode_and_times(drive):
    m = drive()
    os.chmod(m / FOLDER, 0o750)
    os.utime(m / FOLDER, (1_234_567_890, 1_234_567_891))
    for _ in range(2):
        st = os.stat(m / FOLDER)
        assert st.st_mode & 0o7777 == 0o750
        assert st.st_mtime == 1_234_567_891
        m.remount()


@pytest.mark.skipif(os.getuid() != 0, reason="only root can be somebody else")
def test_3_other_users_see_nothing_without_allow_other_and_their_rights_with_it(drive):
    def as_nobody(*argv):
        return subprocess.run(
            [str(a) for a in argv],
            user=65534,
            group=65534,
            extra_groups=[],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            timeout=30 * SLOW,
        )

    m = drive()
    assert "Permission denied" in as_nobody("ls", m.path).stderr
    m.remount(allow_other=True)
    os.chmod(m / "users/Grace Hopper/readme", 0o600)
    os.chmod(m / FILE, 0o644)
    assert as_nobody("cat", m / FILE).returncode == 0
    assert "Permission denied" in as_nobody("cat", m / "users/Grace Hopper/readme").stderr
    assert "Permission denied" in as_nobody("sh", "-c", f"echo x >> '{m / FILE}'").stderr
    assert "denied" in as_nobody("rm", "-f", m / FILE).stderr or (m / FILE).exists()
    os.chmod(m / "users/Nobody", 0o777)
    assert as_nobody("sh", "-c", f"echo mine > '{m / 'users/Nobody/mine.txt'}'").returncode == 0
    st = os.stat(m / "users/Nobody/mine.txt")
    assert (st.st_uid, st.st_gid) == (65534, 65534)


# 4


def test_4_times_have_nanoseconds_and_are_set_separately(drive):
    m = drive()
    path = m / FILE
    utimensat(path, (1_000_000_001, 111_111_111), (1_000_000_002, 222_222_222))
    st = os.stat(path)
    assert (st.st_atime_ns, st.st_mtime_ns) == (
        1_000_000_001_111_111_111,
        1_000_000_002_222_222_222,
    )
    utimensat(path, (0, UTIME_OMIT), (1_000_000_003, 5))
    st = os.stat(path)
    assert (st.st_atime_ns, st.st_mtime_ns) == (
        1_000_000_001_111_111_111,
        1_000_000_003_000_000_005,
    )
    utimensat(path, (1_000_000_004, 7), (0, UTIME_OMIT))
    st = os.stat(path)
    assert (st.st_atime_ns, st.st_mtime_ns) == (
        1_000_000_004_000_000_007,
        1_000_000_003_000_000_005,
    )
    before = time.time()
    utimensat(path, (0, UTIME_OMIT), (0, UTIME_NOW))
    assert os.stat(path).st_mtime >= before - 2
    assert os.stat(path).st_atime_ns == 1_000_000_004_000_000_007
    utimensat(path, (0, UTIME_OMIT), (0, UTIME_OMIT))


def changes(path, action, fields):
    """@action moves the named time fields of @path, forward."""
    old = 1_000_000_000_000_000_000
    os.utime(path, ns=(old, old))
    before = os.stat(path)
    time.sleep(0.02)
    action()
    after = os.stat(path)
    for field in ("st_mtime_ns", "st_ctime_ns"):
        if field in fields:
            assert getattr(after, field) > getattr(before, field), field
        elif field == "st_mtime_ns":
            assert after.st_mtime_ns == before.st_mtime_ns, field


def test_4_mtime_and_ctime_move_as_programs_expect(drive):
    m = drive(settle=0)
    path = m / FILE
    both = {"st_mtime_ns", "st_ctime_ns"}

    def write():
        with open(path, "r+b") as f:
            f.write(b"x")

    def through_fd():
        fd = os.open(path, os.O_RDWR)
        os.ftruncate(fd, 3)
        os.close(fd)

    changes(path, write, both)
    changes(path, lambda: os.truncate(path, 100), both)
    changes(path, lambda: os.truncate(path, 50_000), both)
    changes(path, through_fd, both)
    changes(path, lambda: os.chmod(path, 0o600), {"st_ctime_ns"})
    changes(path, lambda: os.chown(path, os.getuid(), os.getgid()), {"st_ctime_ns"})
    changes(path, lambda: path.read_bytes(), set())
    changes(path, lambda: m.sync(), set())


def test_4_ctime_moves_on_rename(drive):
    m = drive()
    before = os.stat(m / FILE)
    time.sleep(0.02)
    os.rename(m / FILE, m / FOLDER / "other")
    after = os.stat(m / FOLDER / "other")
    assert after.st_ctime_ns > before.st_ctime_ns
    assert after.st_mtime_ns == before.st_mtime_ns


def test_4_directories_change_when_entries_do(drive):
    m = drive()
    for action in (
        lambda: (m / FOLDER / "new").write_bytes(b"x"),
        lambda: os.rename(m / FOLDER / "new", m / FOLDER / "newer"),
        lambda: os.unlink(m / FOLDER / "newer"),
    ):
        before = os.stat(m / FOLDER).st_mtime_ns
        time.sleep(0.02)
        action()
        assert os.stat(m / FOLDER).st_mtime_ns > before


def test_4_mtime_does_not_jump_when_the_upload_ends(drive):
    m = drive(settle=0)
    (m / FOLDER / "new").write_bytes(b"x" * 3000)
    before = os.stat(m / FOLDER / "new").st_mtime_ns
    m.sync()
    assert os.stat(m / FOLDER / "new").st_mtime_ns == before
    m.remount()
    assert os.stat(m / FOLDER / "new").st_mtime_ns == before


def test_4_make_notices_what_is_newer(drive, scratch):
    m = drive()
    (scratch / "Makefile").write_text(f"VPATH = {str(m / 'users/Nobody')}\nout: in\n\tcp $< $@\n")
    (m / "users/Nobody/in").write_bytes(b"1\n")
    os.chmod(m / "users/Nobody/in", 0o644)
    if shutil.which("make"):
        run("make", "-C", scratch)
        assert "up to date" in run("make", "-C", scratch).stdout
        time.sleep(0.05)
        (m / "users/Nobody/in").write_bytes(b"2\n")
        run("make", "-C", scratch)
        assert (scratch / "out").read_bytes() == b"2\n"


# 5


def test_5_an_unlinked_open_file_goes_on_living(drive):
    m = drive(settle=0)
    fd = os.open(m / "users/Nobody/tmp", os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
    os.write(fd, b"before")
    os.unlink(m / "users/Nobody/tmp")
    assert os.fstat(fd).st_nlink == 0
    os.write(fd, b" after")
    assert os.pread(fd, 100, 0) == b"before after"
    os.ftruncate(fd, 3)
    assert os.fstat(fd).st_size == 3
    os.fchmod(fd, 0o644)
    os.utime(fd, (1, 2))
    os.fsync(fd)
    other = os.open(f"/proc/self/fd/{fd}", os.O_RDONLY) if os.path.exists("/proc/self/fd") else -1
    if other >= 0:
        assert os.read(other, 10) == b"bef"
        os.close(other)
    assert m.names("users/Nobody") == []
    m.sync()
    os.close(fd)
    m.sync()
    assert not m.emulator.folder("users/Nobody")


def test_5_a_file_renamed_over_goes_on_living_for_those_who_have_it_open(drive):
    m = drive(settle=0)
    old = m.emulator.bytes_of(FILE)
    fd = os.open(m / FILE, os.O_RDWR)
    (m / FOLDER / "tmp").write_bytes(b"new" * 1000)
    os.rename(m / FOLDER / "tmp", m / FILE)
    assert os.fstat(fd).st_nlink == 0
    assert os.pread(fd, len(old) + 1, 0) == old
    os.pwrite(fd, b"into the void", 0)
    m.sync()
    assert os.pread(fd, 13, 0) == b"into the void"
    os.close(fd)
    m.sync()
    assert (m / FILE).read_bytes() == b"new" * 1000
    assert m.emulator.bytes_of(FILE) == b"new" * 1000


def test_5_temporary_files_work(drive):
    m = drive(settle=0)
    program = (
        "import tempfile, sys\n"
        "with tempfile.NamedTemporaryFile(dir=sys.argv[1]) as f:\n"
        "    f.write(b'x' * 5000); f.flush(); assert open(f.name).read()\n"
        "with tempfile.TemporaryFile(dir=sys.argv[1]) as f:\n"
        "    f.write(b'x' * 5000); f.seek(0); assert len(f.read()) == 5000\n"
    )
    run(sys.executable, "-c", program, m / "users/Nobody")
    m.sync()
    assert m.names("users/Nobody") == []
    assert not m.emulator.folder("users/Nobody")


# 6


def test_6_a_huge_truncate_is_refused_or_works(drive):
    m = drive()
    path = m / "users/Nobody/huge"
    path.write_bytes(b"head" * 500)
    try:
        os.truncate(path, 999_999_999_999_999)
    except OSError as e:
        assert e.errno in (errno.EFBIG, errno.EINVAL)
        assert path.stat().st_size == 2000
    else:
        assert path.stat().st_size == 999_999_999_999_999
        os.truncate(path, 2000)
    assert path.read_bytes() == b"head" * 500
    fd = os.open(path, os.O_RDWR)
    with raises_errno(errno.EFBIG, errno.EINVAL):
        os.pwrite(fd, b"x", (1 << 63) - 1)
    with raises_errno(errno.EINVAL):
        os.ftruncate(fd, -1)
    os.close(fd)


def test_6_four_writers_appending_lose_nothing(drive):
    m = drive(settle=0)
    path = m / "users/Nobody/log"
    path.write_bytes(b"")
    program = (
        "import os, sys; fd = os.open(sys.argv[1], os.O_WRONLY | os.O_APPEND)\n"
        "for i in range(200): os.write(fd, b'%s line %03d\\n' % (sys.argv[2].encode(), i))"
    )
    writers = [
        subprocess.Popen([sys.executable, "-c", program, str(path), f"writer-{w}"])
        for w in range(4)
    ]
    assert [w.wait(60 * SLOW) for w in writers] == [0] * 4
    lines = path.read_bytes().splitlines()
    assert sorted(lines) == sorted(
        b"writer-%d line %03d" % (w, i) for w in range(4) for i in range(200)
    )
    m.sync()
    assert m.emulator.bytes_of("users/Nobody/log").splitlines() == lines


@pytest.mark.parametrize("flag", ["O_SYNC", "O_DSYNC", "O_NOATIME", "O_NONBLOCK"])
def test_6_flags_of_open_work(drive, flag):
    m = drive()
    fd = os.open(m / "users/Nobody/f", os.O_RDWR | os.O_CREAT | getattr(os, flag), 0o644)
    os.write(fd, b"x" * 5000)
    assert os.pread(fd, 5001, 0) == b"x" * 5000
    os.close(fd)
    m.sync()
    assert m.emulator.bytes_of("users/Nobody/f") == b"x" * 5000


def test_6_o_direct_works(drive):
    import mmap

    m = drive()
    buffer = mmap.mmap(-1, 8192)
    buffer[:] = random_bytes(8192)
    fd = os.open(m / "users/Nobody/f", os.O_RDWR | os.O_CREAT | os.O_DIRECT, 0o644)
    assert os.pwritev(fd, [buffer], 0) == 8192
    back = mmap.mmap(-1, 8192)
    assert os.preadv(fd, [back], 0) == 8192
    assert back[:] == buffer[:]
    os.close(fd)
    m.sync()
    assert m.emulator.bytes_of("users/Nobody/f") == buffer[:]


def test_6_rwf_flags_work(drive):
    m = drive()
    fd = os.open(m / "users/Nobody/f", os.O_RDWR | os.O_CREAT, 0o644)
    os.pwritev(fd, [b"abc" * 1000], 0, os.RWF_SYNC)
    os.pwritev(fd, [b"def"], 3000, os.RWF_DSYNC)
    if hasattr(os, "RWF_APPEND"):
        os.pwritev(fd, [b"end"], 0, os.RWF_APPEND)
    expected = b"abc" * 1000 + b"def" + (b"end" if hasattr(os, "RWF_APPEND") else b"")
    assert os.pread(fd, 4000, 0) == expected
    os.close(fd)
    m.sync()
    assert m.emulator.bytes_of("users/Nobody/f") == expected


def test_6_seek_data_and_hole(drive):
    m = drive()
    fd = os.open(m / "users/Nobody/sparse", os.O_RDWR | os.O_CREAT, 0o644)
    os.pwrite(fd, b"x" * 4096, 1 << 20)
    os.ftruncate(fd, 2 << 20)
    assert os.lseek(fd, 0, os.SEEK_HOLE) == 0 or os.lseek(fd, 0, os.SEEK_HOLE) == 2 << 20
    assert os.lseek(fd, 0, os.SEEK_DATA) <= 1 << 20
    assert 1 << 20 <= os.lseek(fd, 1 << 20, os.SEEK_DATA) < (1 << 20) + 4096
    assert (1 << 20) + 4096 <= os.lseek(fd, 1 << 20, os.SEEK_HOLE) <= 2 << 20
    with raises_errno(errno.ENXIO):
        os.lseek(fd, 2 << 20, os.SEEK_DATA)
    os.close(fd)
    run("cp", "--sparse=always", m / "users/Nobody/sparse", m / "users/Nobody/copy")
    m.sync()
    assert m.emulator.bytes_of("users/Nobody/copy") == bytes(1 << 20) + b"x" * 4096 + bytes(
        (1 << 20) - 4096
    )


# 7


def test_7_shared_writable_mapping_of_a_new_file(drive):
    m = drive()
    program = (
        "import mmap, os, sys; fd = os.open(sys.argv[1], os.O_RDWR | os.O_CREAT)\n"
        "os.ftruncate(fd, 100000)\n"
        "m = mmap.mmap(fd, 100000); m[99990:] = b'0123456789'\n"
        "other = os.open(sys.argv[1], os.O_RDONLY)\n"
        "assert os.pread(other, 10, 99990) == b'0123456789'\n"
        "os.pwrite(fd, b'abc', 0); assert m[:3] == b'abc'"
    )
    run(sys.executable, "-c", program, m / "users/Nobody/mapped")
    m.sync()
    assert m.emulator.bytes_of("users/Nobody/mapped") == b"abc" + bytes(99_987) + b"0123456789"


# 8


def test_8_flock_and_record_locks_work_and_a_waiter_can_be_killed(drive):
    m = drive()
    with open(m / FILE, "r+b") as f:
        fcntl.flock(f, fcntl.LOCK_EX)
        told = run("flock", "-n", "-x", m / FILE, "true", ok=False)
        assert told.returncode == 1
        waiter = subprocess.Popen(["flock", "-x", str(m / FILE), "true"])
        time.sleep(0.1)
        assert waiter.poll() is None
        waiter.kill()
        assert waiter.wait(20 * SLOW) == -signal.SIGKILL
        fcntl.flock(f, fcntl.LOCK_UN)
        run("flock", "-n", "-x", m / FILE, "true")
        fcntl.lockf(f, fcntl.LOCK_EX, 10, 5)
        program = (
            "import fcntl, sys; f = open(sys.argv[1], 'r+b')\n"
            "try: fcntl.lockf(f, fcntl.LOCK_EX | fcntl.LOCK_NB, 10, 5)\n"
            "except BlockingIOError: print('taken')\n"
            "fcntl.lockf(f, fcntl.LOCK_EX | fcntl.LOCK_NB, 5, 100); print('free')"
        )
        assert run(sys.executable, "-c", program, m / FILE).stdout.split() == ["taken", "free"]


# 10


def test_10_appending_to_a_file_not_cached_through_a_write_only_handle(drive):
    m = drive()
    before = m.emulator.bytes_of("users/Ada Byron/large.bin")
    fd = os.open(m / "users/Ada Byron/large.bin", os.O_WRONLY | os.O_APPEND)
    os.write(fd, b"end")
    os.close(fd)
    m.sync()
    assert m.emulator.bytes_of("users/Ada Byron/large.bin") == before + b"end"


# 11


def test_11_what_close_reports_is_meant(drive):
    m = drive(write="through")
    m.same_at_end = False
    m.allow_errors("422|refused|parked")
    words = m.system.refusal("The file is not wanted.")
    m.emulator.faults({**m.system.upload, "status": 422, "body": words})
    fd = os.open(m / "users/Nobody/unwanted.txt", os.O_WRONLY | os.O_CREAT, 0o644)
    os.write(fd, b"x" * 3000)
    with raises_errno(errno.EINVAL, errno.EIO, errno.EFBIG, errno.EACCES):
        os.close(fd)
    assert run("cp", "/etc/passwd", m / "users/Nobody/copy", ok=False).stderr != ""
    m.emulator.heal()
    m.command("retry", ok=None)
    m.sync()
    m.same_as_server()


# 12


@pytest.mark.parametrize("noexec", [False, True], ids=["exec", "noexec"])
def test_12_programs_run_from_the_mount_unless_noexec(drive, noexec):
    m = drive(noexec=noexec or None)
    (m / "users/Nobody/script.sh").write_bytes(b"#!/bin/sh\necho it runs\n")
    os.chmod(m / "users/Nobody/script.sh", 0o755)
    run("cp", "/bin/true", m / "users/Nobody/program")
    run("cp", "-p", "/bin/true", m / "users/Nobody/program")
    if noexec:
        for name in ("script.sh", "program"):
            with raises_errno(errno.EACCES):
                subprocess.run([str(m / "users/Nobody" / name)], check=False)
    else:
        assert run(m / "users/Nobody/script.sh").stdout == "it runs\n"
        run(m / "users/Nobody/program")
        m.remount()
        assert run(m / "users/Nobody/script.sh").stdout == "it runs\n"


def test_12_setuid_and_devices_are_off(drive):
    m = drive()
    with open("/proc/self/mountinfo") as f:
        line = next(line for line in f if f" {m.path} " in line)
    assert "nosuid" in line and "nodev" in line


# 13


NAMES = [
    b"-",
    b"--help",
    b"-rf *",
    b"quote'\"`$",
    b"new\nline",
    b"tab\tand \x01 control",
    "nai\u0308ve".encode(),
    "na\u00efve".encode(),
    b"caf\xe9 latin1",
    b"x" * 255,
    "\u00e4".encode() * 127,
    b"a  b",
    b" leading",
    b"trailing ",
    b"trailing dot.",
    b"%41%2F",
    b"...",
    b"~",
    b"CON",
    b"a:b",
    b"a\\b",
    "\u200bzero width".encode(),
    b"UPPER",
    b"upper",
    b"Upper",
]


def test_13_names_are_kept_byte_for_byte(drive, system):
    """... but for those that the server cannot be told: nobody can make such files."""
    m = drive()
    bad = os.fsencode(system.bad_in_names)
    names = [n for n in NAMES if not any(c in bad for c in n)]
    folder = os.fsencode(m / "users/Nobody")
    for name in (n for n in NAMES if any(c in bad for c in n)):
        with raises_errno(errno.EINVAL):
            os.close(os.open(os.path.join(folder, name), os.O_WRONLY | os.O_CREAT, 0o644))
    for i, name in enumerate(names):
        with open(os.path.join(folder, name), "wb") as f:
            f.write(b"file %d " % i * 300)
    for _ in range(2):
        assert sorted(set(os.listdir(folder)) - {os.fsencode(KEEP)}) == sorted(names)
        for i, name in enumerate(names):
            with open(os.path.join(folder, name), "rb") as f:
                assert f.read() == b"file %d " % i * 300, name
        m.sync()
        m.remount()
    m.same_at_end = False  # names no server can hold are spelled otherwise there
    stored = m.emulator.folder("users/Nobody").values()
    assert sorted(a["sha256"] for a in stored) == sorted(
        sha256(b"file %d " % i * 300) for i in range(len(names))
    )


def test_13_a_name_of_256_bytes_is_enametoolong(drive):
    m = drive()
    for attempt in (lambda p: os.stat(p), lambda p: p.write_bytes(b"x"), lambda p: os.unlink(p)):
        with raises_errno(errno.ENAMETOOLONG):
            attempt(m / "users/Nobody" / ("x" * 256))


def test_13_case_matters(drive):
    m = drive()
    with raises_errno(errno.ENOENT):
        os.stat(m / "users/Ada Byron/NOTES.txt")
    (m / "users/Ada Byron/NOTES.txt").write_bytes(b"other" * 500)
    m.sync()
    assert m.emulator.bytes_of("users/Ada Byron/NOTES.txt") == b"other" * 500
    assert m.emulator.bytes_of(FILE) != b"other" * 500


# 14


@pytest.mark.limit(150)
def test_14_10000_files_open_at_once(mount, emulator):
    m = mount(emulator(tree=one_record()), start=False, poll=0)
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    assert hard == resource.RLIM_INFINITY or hard >= 11_000, f"hard limit of open files is {hard}"
    m.start(limits=lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (1024, hard)))
    program = """
import os, resource, sys
hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
resource.setrlimit(resource.RLIMIT_NOFILE, (11000, hard))
os.chdir(sys.argv[1])
fds = [os.open(f"{i}.part", os.O_RDWR | os.O_CREAT, 0o644) for i in range(10000)]
for i, fd in enumerate(fds): os.write(fd, b"%d" % i)
for i, fd in enumerate(fds): assert os.pread(fd, 10, 0) == b"%d" % i
assert len([n for n in os.listdir(".") if n.endswith(".part")]) == 10000
for i, fd in enumerate(fds): os.unlink(f"{i}.part")
for i, fd in enumerate(fds): assert os.pread(fd, 10, 0) == b"%d" % i
"""
    run(sys.executable, "-c", program, m / "users/Ada Byron", timeout=140)
    assert m.names("users/Ada Byron") == []


# 15


def test_15_every_change_is_seen_by_everybody_at_once_however_slow_the_server(drive):
    m = drive(settle=0)
    folder, far = m / "users/Ada Byron", m / m.system.far_record
    os.listdir(folder)
    m.emulator.faults(latency_ms=400)
    for i in range(3):
        (folder / "new.txt").write_bytes(b"version %d" % i)
        assert run("cat", folder / "new.txt").stdout == f"version {i}"
        assert "new.txt" in run("ls", folder).stdout.split("\n")
        os.rename(folder / "new.txt", folder / "newer.txt")
        assert run("ls", folder / "new.txt", ok=False).returncode
        assert run("cat", folder / "newer.txt").stdout == f"version {i}"
        os.rename(folder / "newer.txt", far / "moved.txt")
        assert "newer.txt" not in run("ls", folder).stdout.split("\n")
        assert run("cat", far / "moved.txt").stdout == f"version {i}"
        run("rm", far / "moved.txt")
        assert not (far / "moved.txt").exists()
        assert "moved.txt" not in run("ls", far).stdout.split("\n")
    m.emulator.heal()


def test_15_writers_and_readers_in_many_threads_agree(drive):
    m = drive(settle=0.1)
    folder = m / "users/Nobody"
    wrong = []

    def work(n):
        try:
            for i in range(25):
                path = folder / f"{n}.txt"
                path.write_bytes(b"%d %d\n" % (n, i) * 200)
                if path.read_bytes() != b"%d %d\n" % (n, i) * 200:
                    wrong.append((n, i, "read"))
                os.rename(path, folder / f"{n}-renamed.txt")
                if path.exists() or f"{n}-renamed.txt" not in os.listdir(folder):
                    wrong.append((n, i, "renamed"))
                os.unlink(folder / f"{n}-renamed.txt")
            path.write_bytes(b"end %d" % n)
        except OSError as e:
            wrong.append((n, str(e)))

    threads = [threading.Thread(target=work, args=(n,)) for n in range(8)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert wrong == []
    m.sync()
    stored = m.emulator.folder("users/Nobody")
    assert {name: m.emulator.blob(a["id"]) for name, a in stored.items()} == {f"{n}.txt": b"end %d" % n for n in range(8)}


def test_numbers_of_a_hundred_small_files_add_up(drive):
    m = drive(settle=0)
    for name, data in numbered(100, 1200).items():
        (m / "users/Nobody" / name).write_bytes(data)
    m.sync()
    wait_until(m.idle, "nothing pending")
    status = m.status()
    assert (
        status["failed"] in (0, [])
        and status["cache"]["dirty"] == 0
        and status["pending"]["bytes"] == 0
    )
