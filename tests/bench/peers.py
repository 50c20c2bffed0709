# SPDX-License-Identifier: MIT
"""
Whom attachfs is measured beside: rclone mount and davfs2 over nginx with WebDAV, rclone and s3fs over
bench-s3, sshfs over an sshd of its own; each origin on a memory filesystem and on loopback.
"""

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import time
from pathlib import Path
from urllib.request import urlopen

from common import digest, expect
from contenders import FILE_BYTES, SLOTS, Contender, Stopped, end, free_port
from harness import binary, is_mounted, lazy_unmount, random_bytes, wait_until

NGINX = """
daemon off;
{user}
worker_processes 2;
pid {shm}/nginx.pid;
error_log {shm}/error.log error;
load_module /usr/lib/nginx/modules/ngx_http_dav_ext_module.so;
events {{ worker_connections 1024; }}
http {{
    log_format counted '$request_method $status $request_length $bytes_sent $request_uri';
    access_log {shm}/access.log counted;
    sendfile on;
    tcp_nodelay on;
    keepalive_requests 1000000;
    keepalive_timeout 300;
    client_max_body_size 0;
    client_body_temp_path {shm}/body;
    proxy_temp_path {shm}/proxy;
    fastcgi_temp_path {shm}/fastcgi;
    uwsgi_temp_path {shm}/uwsgi;
    scgi_temp_path {shm}/scgi;
    dav_ext_lock_zone zone=locks:8m;
    server {{
        listen 127.0.0.1:{port} backlog=1024;
        root {root};
        location / {{
            dav_methods PUT DELETE MKCOL COPY MOVE;
            dav_ext_methods PROPFIND OPTIONS LOCK UNLOCK;
            dav_ext_lock zone=locks;
            dav_access user:rw;
            create_full_put_path on;
        }}
    }}
}}
"""


class Peer(Contender):
    """
    What they have in common: an origin, a mount of it, and looking at what the origin holds. Each implements
    serve(), mount_it() and daemon(), and counted(), where its origin counts.
    """

    programs: tuple = ()
    origin = None  # its process
    process = None  # the mount's
    output = None  # the file that has what it said

    @classmethod
    def absent(cls) -> str:
        missing = [p for p in cls.programs if not shutil.which(p, path=f"{os.environ['PATH']}:/usr/sbin:/sbin")]
        return f"no {', '.join(missing)} here" if missing else ""

    def serve(self, root: Path) -> int:
        """Start an origin over @root: its port."""
        raise NotImplementedError

    def mount_it(self) -> None:
        """Until the process is there."""
        raise NotImplementedError

    def daemon(self) -> int:
        return self.process.pid

    def counted(self) -> tuple:
        """Requests, bytes to the origin, bytes from there; None where nobody counts."""
        return None, None, None

    def fill_origin(self) -> None:
        self.held.mkdir()
        for i in range(self.work.before):
            (self.held / f"file-{i:04d}.dat").write_bytes(random_bytes(FILE_BYTES, i))

    def start_origin(self) -> None:
        root = self.shm / "root"
        root.mkdir()
        self.held = root / "record"
        self.fill_origin()
        self.at = self.port("127.0.0.1", self.serve(root))
        (self.base / "root").mkdir()
        self.cache = self.base / "cache"
        self.cache.mkdir()
        self.directory = self.base / "root" / self.held.name

    def start(self) -> None:
        self.start_origin()
        self.mount_and_wait()
        self.look()
        self.reset()

    def mount_and_wait(self) -> None:
        began = time.monotonic()
        self.mount_it()
        there = lambda: is_mounted(self.base / "root") or (self.process and self.process.poll() is not None)
        wait_until(there, f"{self.name} to be mounted", 20)
        assert is_mounted(self.base / "root"), f"it ended: {self.said[-150:]}"
        os.stat(self.base / "root")
        self.mounted_s = time.monotonic() - began
        self.pid = self.daemon()

    def is_there(self) -> bool:
        return is_mounted(self.base / "root")

    @property
    def said(self) -> str:
        return self.output.read_text(errors="replace") if self.output else ""

    def remount(self) -> None:
        self.unmount()
        self.mount_and_wait()
        self.look()

    def reset(self) -> None:
        self.skip = self.counted()

    sent = 1  # of counted(): bytes sent by the mount

    def counts(self) -> tuple:
        now = self.counted()
        if now[0] is None:
            return None, None
        return now[0] - self.skip[0], now[self.sent] - self.skip[self.sent]

    def there(self) -> dict:
        with os.scandir(self.held) as entries:
            sizes = {}
            for e in entries:
                with contextlib.suppress(FileNotFoundError):
                    sizes[e.name] = e.stat().st_size
            return sizes

    def settle(self, deadline: float) -> None:
        wanted = dict.fromkeys(self.work.after, self.work.size)
        while self.there() != wanted:
            if time.monotonic() > deadline:
                raise Stopped
            time.sleep(0.01)

    def check(self) -> None:
        found = {p.name: digest(p) for p in self.held.iterdir()}
        expect(sorted(found), sorted(self.work.after), "names on the server")
        expect(found, self.work.after, "contents on the server")

    def unmount(self) -> None:
        """One that was stopped is not asked: it would go on sending."""
        for _ in range(0 if self.stopped else 20):
            if not is_mounted(self.base / "root"):
                break
            with contextlib.suppress(subprocess.TimeoutExpired):
                quiet = subprocess.DEVNULL
                subprocess.run(
                    ["umount", "-i", self.base / "root"], stdout=quiet, stderr=quiet, timeout=2
                )
            time.sleep(0.05)
        self.kill()
        if is_mounted(self.base / "root"):
            lazy_unmount(self.base / "root")

    def stop(self) -> None:
        self.unmount()
        end(self.origin)
        super().stop()

    def kill(self) -> None:
        end(self.process, 3)

    def spawn(self, argv: list, where: str) -> subprocess.Popen:
        """In the foreground, what it says kept."""
        self.output = self.base / where
        with open(self.output, "ab") as out:
            return subprocess.Popen(
                [str(a) for a in argv],
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
                env=plain_environment(),
            )


class OverWebDav(Peer):
    def serve(self, root: Path) -> int:
        port = free_port()
        config = self.shm / "nginx.conf"
        user = "user root;" if os.geteuid() == 0 else ""
        config.write_text(NGINX.format(shm=self.shm, root=root, port=port, user=user))
        argv = ["/usr/sbin/nginx", "-e", self.shm / "error.log", "-c", config]
        self.origin = self.spawn(argv, "nginx.out")
        wait_until(lambda: answers(port), "nginx to answer")
        return port

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.at}/"

    def counted(self) -> tuple:
        # a request is logged when it is over, which is after its file was seen; who was stopped goes on
        log, size = self.shm / "access.log", -1
        for _ in range(1 if self.stopped else 20):
            if size == log.stat().st_size:
                break
            size = log.stat().st_size
            time.sleep(0.1)
        lines = [line.split(b" ") for line in log.read_bytes().split(b"\n")[:-1]]
        return len(lines), sum(int(l[2]) for l in lines), sum(int(l[3]) for l in lines)


def plain_environment() -> dict:
    """Without what would lead elsewhere: proxies, and what belongs to another S3."""
    return {
        k: v
        for k, v in os.environ.items()
        if not k.lower().endswith("_proxy") and not k.startswith(("AWS_", "RCLONE_"))
    }


def answers(port: int) -> bool:
    with socket.socket() as s:
        return s.connect_ex(("127.0.0.1", port)) == 0


class Rclone(OverWebDav):
    name = "rclone"
    programs = ("rclone", "nginx")
    mode = "writes"
    flags: tuple = ()

    def remote(self) -> str:
        """What the config file says of it."""
        return f"type = webdav\nurl = {self.url}\nvendor = other\n"

    directory_there = ""

    def mount_it(self) -> None:
        config = self.base / "rclone.conf"
        config.write_text(f"[origin]\n{self.remote()}")
        argv = ["rclone", "mount", f"origin:{self.directory_there}", self.base / "root"]
        argv += ["--config", config, "--cache-dir", self.cache, "--vfs-cache-mode", self.mode]
        self.process = self.spawn([*argv, *self.flags], "rclone.out")


class RcloneTuned(Rclone):
    """A write-back of 0 would be shorter still, but rsync's renames then lose files."""

    name = "rclone tuned"
    flags = (
        "--vfs-write-back=1s",
        f"--transfers={SLOTS}",
        "--dir-cache-time=24h",
        "--attr-timeout=60s",
        "--vfs-fast-fingerprint",
        "--poll-interval=0",
    )


class Davfs(OverWebDav):
    """Uploads at once; the unmount waits for them. With its default buf_size newer kernels fail in readdir."""

    name = "davfs2"
    programs = ("mount.davfs", "nginx")
    umount = None

    @classmethod
    def absent(cls) -> str:
        return super().absent() or ("" if os.geteuid() == 0 else "only root mounts it")

    def mount_it(self) -> None:
        self.cache.chmod(0o777)
        config = self.base / "davfs2.conf"
        config.write_text(
            f"ignore_dav_header 1\nuse_locks 0\nask_auth 0\ncache_dir {self.cache}\n"
            "delay_upload 0\ngui_optimize 1\nprecheck 0\nbuf_size 1024\ntable_size 16384\n"
            "cache_size 4096\ndir_refresh 3600\nfile_refresh 3600\n"
        )
        self.before = self.pids()
        argv = ["mount.davfs", self.url, self.base / "root", "-o", f"conf={config},rw"]
        said = subprocess.run(
            argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
        )
        assert said.returncode == 0, f"mount.davfs: {said.stdout[-300:]!r}"

    def daemon(self) -> int:
        """The number is written when it is mounted, or a moment later."""
        return wait_until(lambda: self.pids() - self.before, "the number of davfs2's process").pop()

    @staticmethod
    def pids() -> set:
        """Of all mounts of davfs2; a file may be there before its number."""
        found = set()
        for path in Path("/var/run/mount.davfs").glob("*.pid"):
            with contextlib.suppress(OSError, ValueError):
                found.add(int(path.read_text()))
        return found

    def settle(self, deadline: float) -> None:
        quiet = subprocess.DEVNULL
        argv = ["umount.davfs", self.base / "root"]
        self.umount = subprocess.Popen(argv, stdin=quiet, stdout=quiet, stderr=quiet)
        super().settle(deadline)

    def kill(self) -> None:
        end(self.umount, 5)
        if self.pid:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, signal.SIGKILL)
        self.pid = 0


class OverS3(Peer):
    def serve(self, root: Path) -> int:
        spare = self.shm / "spare"
        spare.mkdir()
        self.origin = subprocess.Popen(
            [binary("bench-s3"), root, spare],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.far = int(self.origin.stdout.readline())
        return self.far

    def counted(self) -> tuple:
        with urlopen(f"http://127.0.0.1:{self.far}/counts") as told:
            return tuple(int(n) for n in told.read().split())

    def stop(self) -> None:
        super().stop()
        if self.origin:
            self.origin.stdout.close()


class RcloneS3(OverS3, RcloneTuned):
    name = "rclone tuned, S3"
    programs = ("rclone",)
    directory_there = "bucket"
    flags = (
        *RcloneTuned.flags,
        "--s3-no-head",
        "--s3-no-check-bucket",
        "--s3-disable-checksum",
        "--s3-upload-cutoff=5G",
    )

    def remote(self) -> str:
        return (
            "type = s3\nprovider = Minio\naccess_key_id = nobody\nsecret_access_key = nothing\n"
            f"endpoint = http://127.0.0.1:{self.at}\nforce_path_style = true\nregion = us-east-1\n"
        )


class S3fs(OverS3):
    name = "s3fs"
    programs = ("s3fs",)
    options: tuple = ()

    def mount_it(self) -> None:
        secret = self.base / "s3.password"
        secret.write_text("nobody:nothing\n")
        secret.chmod(0o600)
        options = [
            f"url=http://127.0.0.1:{self.at}",
            "use_path_request_style",
            f"passwd_file={secret}",
            f"use_cache={self.cache}",
            f"tmpdir={self.cache}",
            *self.options,
        ]
        argv = ["s3fs", "bucket", self.base / "root", "-f", "-o", ",".join(options)]
        self.process = self.spawn(argv, "s3fs.out")


class S3fsTuned(S3fs):
    name = "s3fs tuned"
    options = (
        f"parallel_count={SLOTS}",
        "multireq_max=64",
        "multipart_size=32",
        "max_stat_cache_size=200000",
        "stat_cache_expire=3600",
        "enable_noobj_cache",
        "notsup_compat_dir",
        "kernel_cache",
        "max_dirty_data=-1",
    )


SSHD = """
Port {port}
ListenAddress 127.0.0.1
HostKey {keys}/host
AuthorizedKeysFile {keys}/user.pub
StrictModes no
PermitRootLogin yes
PasswordAuthentication no
KbdInteractiveAuthentication no
UsePAM no
PidFile none
MaxStartups 100
Subsystem sftp internal-sftp
"""


class Sshfs(Peer):
    """Of an sshd that knows one key, made for it, and no other way in."""

    name = "sshfs"
    programs = ("sshfs", "sshd", "ssh", "ssh-keygen")
    options: tuple = ()

    def serve(self, root: Path) -> int:
        keys = self.shm / "keys"
        keys.mkdir(mode=0o700)
        for name in ("host", "user"):
            argv = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", keys / name]
            subprocess.run(argv, check=True)
        port = free_port()
        config = self.shm / "sshd.conf"
        config.write_text(SSHD.format(port=port, keys=keys))
        if os.geteuid() == 0:
            Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)  # sshd goes nowhere without
        self.root = root
        self.keys = keys
        self.origin = self.spawn(["/usr/sbin/sshd", "-D", "-e", "-f", config], "sshd.out")
        wait_until(lambda: answers(port), "sshd to answer")
        return port

    def mount_it(self) -> None:
        options = [
            f"IdentityFile={self.keys}/user",
            "IdentitiesOnly=yes",
            "StrictHostKeyChecking=no",
            "UserKnownHostsFile=/dev/null",
            "LogLevel=ERROR",
            "follow_symlinks",
            *self.options,
        ]
        user = "root" if os.geteuid() == 0 else os.environ.get("USER", "")
        argv = ["sshfs", "-f", "-F", "/dev/null", "-p", self.at, "-o", ",".join(options)]
        argv += [f"{user}@127.0.0.1:{self.root}", self.base / "root"]
        self.process = self.spawn(argv, "sshfs.out")


class SshfsTuned(Sshfs):
    name = "sshfs tuned"
    options = (
        "max_conns=8",
        "dcache_timeout=3600",
        "dcache_max_size=1000000",
        "kernel_cache",
        "entry_timeout=3600",
        "attr_timeout=3600",
        "Ciphers=aes128-gcm@openssh.com",
        "compression=no",
    )
