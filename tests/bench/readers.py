# SPDX-License-Identifier: MIT
"""
Who takes part in scripts/bench reads, all over the same files: a plain directory, the same behind FUSE with
nothing else (mirror.c), curl, attachfs, and its peers. See contenders.py and peers.py.
"""

import os
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Callable, Optional

from common import digest, expect
from contenders import FILE_BYTES, MANY_SLOTS, PARALLEL, SLOTS, Attachfs, AttachfsServiceMax
from contenders import AttachfsTuned, Contender, Curl, Stopped, free_port, run_limited
from harness import PERSCOM, SERVICEMAX, Emulator, binary, is_mounted, lazy_unmount, wait_until
from peers import Davfs, Rclone, RcloneS3, RcloneTuned, S3fs, S3fsTuned, Sshfs, SshfsTuned

BLOB_HOST = "127.0.0.2"


@dataclass
class Reading:
    """
    @command makes argv from the directory of the files, @transfers what curl is told instead: of (name, URL)
    the lines of each transfer, @parallel: many at once. The directory is a record; of a @whole tree, in which
    nobody has looked before, that of all records.
    """

    title: str
    files: Path  # what server and directory hold; the last part of the path is the directory's name
    command: Callable[[Path], list]
    transfers: Optional[Callable] = None
    parallel: bool = False
    partly: bool = False  # not all of the file is read
    warm: bool = False  # read as a whole before, then the page cache is dropped
    again: bool = False  # the same was done before
    whole: bool = False
    # what the emulator makes instead, which has a descriptor for each file it is given; only counted afterwards
    generated: str = ""
    peers: bool = True
    size: int = FILE_BYTES
    before: int = 0

    @property
    def data(self) -> Path:
        """The directory of collections."""
        return self.files.parent if self.whole else self.files.parents[1]

    @property
    def local(self) -> bool:
        """What is here already is not asked for."""
        return self.warm or self.again


def files_below(root: Path) -> list:
    return [os.path.join(d, name) for d, _, names in os.walk(root) for name in names]


def sizes_below(root: Path) -> list:
    return sorted((os.path.relpath(p, root), os.stat(p).st_size) for p in files_below(root))


def pieces(path: Path) -> list:
    """From the beginning, the middle and the end."""
    size, some = path.stat().st_size, 1 << 16
    with open(path, "rb") as f:
        return [os.pread(f.fileno(), some, at) for at in (0, size // 2, size - some)]


def drop_page_cache() -> None:
    os.sync()
    with open("/proc/sys/vm/drop_caches", "w") as f:
        f.write("1")


class Reader(Contender):
    """What readers have in common: a warm start, and what they should have read."""

    def ready(self) -> None:
        most = 4 * self.bench.limit
        try:
            with self.near():
                if self.work.again:
                    run_limited(self.work.command(self.directory), most)
                for path in sorted(self.directory.iterdir()) if self.work.warm else ():
                    run_limited(["dd", f"if={path}", "of=/dev/null", "bs=1M"], most)
        except Stopped as e:
            self.stopped = True
            raise AssertionError(f"the first time was not over after {most:.0f} s") from e
        if self.work.warm:
            time.sleep(1)  # hashes and rows are written
            drop_page_cache()
        self.reset()

    def check(self) -> None:
        if self.work.generated:
            there, here = (len(files_below(d)) for d in (self.directory, self.work.files))
            expect(there, here, "files")
            return
        if self.work.whole:
            there, here = (sizes_below(d) for d in (self.directory, self.work.files))
            expect(there, here, "names and sizes")
            return
        if self.work.partly:
            for there, here in zip(*(sorted(d.iterdir()) for d in (self.directory, self.work.files))):
                expect(pieces(there) == pieces(here), True, "the same bytes here and there")
            return
        found = {p.name: digest(p) for p in self.directory.iterdir()}
        expect(found, self.bench.wanted(self.work), "contents")


class ReadExt4(Reader):
    name = "ext4"
    networked = False

    def start(self) -> None:
        self.directory = self.bench.on_disk(self.work)
        self.ready()


class Mirror(Reader):
    name = "FUSE alone"
    networked = False
    process = None

    def start(self) -> None:
        self.directory.mkdir()
        source = self.bench.on_disk(self.work)
        self.process = subprocess.Popen([binary("bench-mirror"), str(source), self.directory])
        wait_until(lambda: is_mounted(self.directory), "bench-mirror to be mounted")
        self.pid = self.process.pid
        self.ready()

    def stop(self) -> None:
        if is_mounted(self.directory):
            lazy_unmount(self.directory)
        if self.process:
            self.process.terminate()
            self.process.wait()
        super().stop()


class FromEmulator:
    """The addresses of bytes lead through the same latency as those of calls."""

    def start_emulator(self) -> None:
        self.emulator = None
        more = []
        if self.system is PERSCOM:
            port = free_port()
            host, near = BLOB_HOST, port
            if self.latency:
                host, near = "127.0.0.1", self.port(BLOB_HOST, port)
            self.blob_url = f"http://{host}:{near}"
            more = ["--blob-port", port, "--blob-url", self.blob_url]
        files = {"data": self.work.data}
        if self.work.generated:
            files = {"generate": [self.work.generated]}
        self.emulator = Emulator(self.shm / "emulator", self.system, more=more, **files)
        self.api = self.through(self.emulator.api)

    def counts(self) -> tuple:
        n = self.emulator.summary()
        return n["total"], n["bytes_out"]


class ReadAttachfs(FromEmulator, Reader, Attachfs):
    def start(self) -> None:
        Attachfs.start(self)
        self.ready()

    def reset(self) -> None:
        self.emulator.reset()


class ReadAttachfsTuned(AttachfsTuned, ReadAttachfs):
    """See AttachfsTuned."""


class ReadAttachfsServiceMax(AttachfsServiceMax, ReadAttachfs):
    """See AttachfsServiceMax."""


class ReadCurl(FromEmulator, Reader, Curl):
    """To files, where a whole is read, else to nowhere."""

    def url_of(self, attachment: dict) -> str:
        return f"{self.blob_url}/tenant{self.tenant}/{attachment['path']}"

    def calls_that_list(self) -> list:
        """A call for the names, and for each size a byte."""
        search = "users/search?include=attachments&limit=1000"
        body = ('request = "POST"', 'header = "Content-Type: application/json"', 'data = "{}"')
        probe = ['output = "/dev/null"', 'range = "0-0"']
        probes = [[f'url = "{self.url_of(a)}"', *probe] for a in self.emulator.attachments()]
        return [self.request(search, *body), *probes]

    def transfers(self) -> list:
        self.tenant = self.emulator.ask_json("GET", "/set").get("tenancy")
        if self.work.whole:
            made = self.calls_that_list()
        else:
            made = []
            for a in sorted(self.emulator.attachments(), key=lambda a: a["name"]):
                made += self.work.transfers(a["name"], self.url_of(a), self.base)
        return [[*lines, *self.more()] for lines in made]

    def more(self) -> list:
        return ["fail", "silent", "show-error"]

    def start(self) -> None:
        Curl.start(self)
        self.ready()

    def ready(self) -> None:
        self.reset()

    def reset(self) -> None:
        self.emulator.reset()

    def do(self, seconds: float) -> None:
        argv = ["curl", "-q", "-K", self.config]
        if self.work.parallel:
            argv += [*PARALLEL, str(self.slots)]
        run_limited(argv, seconds)

    def check(self) -> None:
        """curl's exit status told."""


class ReadCurlMany(ReadCurl):
    name = f"curl, {MANY_SLOTS} at once"
    slots = MANY_SLOTS


class ReadCurlServiceMax(ReadCurl):
    name = "curl, ServiceMax"
    system = SERVICEMAX

    def url_of(self, attachment: dict) -> str:
        return f"{self.api}/document/{attachment['remote_id']}/latest"

    def calls_that_list(self) -> list:
        return [self.request("users?limit=1000&offset=0"), self.request("users/attachments")]

    def more(self) -> list:
        return [*super().more(), f'header = "Authorization: Bearer {self.emulator.token}"']


class FromOrigin:
    """The files as they are; what counts is what was read."""

    sent = 2

    def fill_origin(self) -> None:
        if self.work.whole:
            self.held = self.held.with_name("users")
        self.held.symlink_to(self.work.files)

    def start(self) -> None:
        super().start()
        self.ready()


class ReadRclone(FromOrigin, Reader, Rclone):
    mode = "full"


READ_FLAGS = (
    f"--transfers={SLOTS}",
    "--dir-cache-time=24h",
    "--attr-timeout=60s",
    "--vfs-cache-max-age=720h",
    "--vfs-fast-fingerprint",
    "--vfs-read-chunk-size=4M",
    "--buffer-size=4M",
    "--max-read-ahead=1M",
    "--poll-interval=0",
)


class ReadRcloneTuned(ReadRclone):
    name = RcloneTuned.name
    flags = READ_FLAGS


class ReadRcloneS3(FromOrigin, Reader, RcloneS3):
    mode = "full"
    flags = (*READ_FLAGS, "--s3-no-head", "--s3-no-check-bucket", "--s3-disable-checksum")


class ReadDavfs(FromOrigin, Reader, Davfs):
    """See Davfs."""


class ReadS3fs(FromOrigin, Reader, S3fs):
    """See S3fs."""


class ReadS3fsTuned(FromOrigin, Reader, S3fsTuned):
    """See S3fsTuned."""


class ReadSshfs(FromOrigin, Reader, Sshfs):
    """See Sshfs."""


class ReadSshfsTuned(FromOrigin, Reader, SshfsTuned):
    """See SshfsTuned."""
