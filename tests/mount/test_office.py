# SPDX-License-Identifier: MIT
"""
Programs that are too large for every run: with ATTACHFS_TEST_DESKTOP=1 LibreOffice converts and
saves documents on the drive, and KDE's tools copy there. What is missing is installed. How
LibreOffice saves is tested in every run, by a recording (test_saves.py).
"""

import os
import shutil
import subprocess
import zipfile
from pathlib import Path

import pytest

from harness import PERSCOM, SLOW, random_bytes, run

ROOT = Path(__file__).resolve().parents[2]

pytestmark = [
    pytest.mark.skipif(
        not os.environ.get("ATTACHFS_TEST_DESKTOP"), reason="ATTACHFS_TEST_DESKTOP is not set"
    ),
    pytest.mark.limit(300),
]


@pytest.fixture
def system():
    return PERSCOM


def install(program, *packages):
    if not shutil.which(program):
        script = 'cd "$1" && . scripts/packages && shift && install_missing "$@"'
        run("bash", "-c", script, "bash", ROOT, *packages, timeout=1200)
    assert shutil.which(program), f"apt-get install {' '.join(packages)}"


@pytest.fixture
def office(base):
    install("soffice", "libreoffice-writer-nogui", "python3-uno")

    def convert(kind, source, folder, *more):
        told = run(
            "soffice", "--headless", f"-env:UserInstallation=file://{base}/profile", *more,
            "--convert-to", kind, "--outdir", folder, source, cwd=base, timeout=120,
        )  # fmt: skip
        # its exit status says nothing
        assert "Error:" not in told.stderr, told.stderr

    return convert


def text_of(document):
    return zipfile.ZipFile(document).read("content.xml").decode()


def test_libreoffice_converts_in_place(drive, office):
    m = drive(settle=600)
    folder = m / "users/Ada Byron"
    office("odt:writer8", folder / "notes.txt", folder, "--infilter=Text")
    assert "line 399 of the notes" in text_of(folder / "notes.odt")
    office("pdf", folder / "notes.odt", folder)
    assert (folder / "notes.pdf").read_bytes().startswith(b"%PDF")
    ident = m.emulator.file("users/Ada Byron/notes.txt")["id"]
    office("txt", folder / "notes.odt", folder)  # over what is there
    m.sync()
    server = m.emulator.folder("users/Ada Byron")
    assert set(server) == {
        "notes.txt", "notes.odt", "notes.pdf", "logo.png", "empty.txt", "tiny.txt", "large.bin"
    }  # fmt: skip
    assert server["notes.txt"]["id"] == ident
    for name in ("notes.txt", "notes.odt", "notes.pdf"):
        assert m.emulator.bytes_of(f"users/Ada Byron/{name}") == (folder / name).read_bytes()


def test_libreoffice_saves_what_it_has_open(drive, office, base):
    m = drive(settle=600)
    folder = m / "users/Ada Byron"
    office("odt:writer8", folder / "notes.txt", folder, "--infilter=Text")
    m.sync()
    before = m.emulator.files()
    m.emulator.reset()
    source = (ROOT / "tests/mount/saves/record").read_text()
    driver = source.split('UNO = """')[1].split('"""')[0]
    server = subprocess.Popen(
        ["soffice", "--headless", "--norestore", "--nologo", "--accept=pipe,name=attachfs-record;urp",
         f"-env:UserInstallation=file://{base}/profile"], cwd=base,
    )  # fmt: skip
    try:
        run("/usr/bin/python3", "-c", driver, folder / "notes.odt", timeout=120)
        server.wait(60 * SLOW)
    finally:
        server.poll() is None and server.kill()
    assert "Another line." in text_of(folder / "notes.odt")
    m.sync()
    after = m.emulator.files()
    assert set(after) == set(before)
    assert after["users/Ada Byron/notes.odt"]["id"] == before["users/Ada Byron/notes.odt"]["id"]
    assert m.emulator.uploaded() == 1, m.emulator.calls()
    assert m.emulator.bytes_of("users/Ada Byron/notes.odt") == (folder / "notes.odt").read_bytes()


@pytest.fixture
def kio(base):
    """What Dolphin copies with, without a screen."""
    install("kioclient5", "kde-cli-tools", "kio")
    (base / "run").mkdir(mode=0o700)
    env = {
        **os.environ, "HOME": str(base), "XDG_RUNTIME_DIR": str(base / "run"), "LC_ALL": "C.UTF-8",
        "QT_QPA_PLATFORM": "offscreen", "XDG_CACHE_HOME": str(base / "kde-cache"),
    }  # fmt: skip

    def call(*argv):
        return run("dbus-run-session", "kioclient5", "--noninteractive", *argv, env=env, timeout=120)

    return call


def test_kio_copies_in_out_and_over(drive, kio, scratch):
    m = drive(settle=600)
    data = random_bytes(300_000, "in")
    (scratch / "in.bin").write_bytes(data)
    kio("copy", scratch / "in.bin", m / "users/Nobody/in.bin")
    kio("copy", m / "users/Ada Byron/large.bin", scratch / "out.bin")
    assert (scratch / "out.bin").read_bytes() == random_bytes(600_000, "large")
    kio("copy", m / "users/Ada Byron", scratch / "all")
    assert sorted(os.listdir(scratch / "all")) == sorted(os.listdir(m / "users/Ada Byron"))
    ident = m.emulator.file("users/Ada Byron/notes.txt")["id"]
    kio("--overwrite", "copy", scratch / "in.bin", m / "users/Ada Byron/notes.txt")
    kio("move", m / "users/Ada Byron/logo.png", m / "users/Nobody/logo.png")
    kio("remove", m / "users/Ada Byron/empty.txt")
    m.sync()
    assert m.emulator.bytes_of("users/Nobody/in.bin") == data
    assert m.emulator.bytes_of("users/Ada Byron/notes.txt") == data
    assert m.emulator.file("users/Ada Byron/notes.txt")["id"] == ident, "the same attachment"
    server = set(m.emulator.files())
    assert "users/Nobody/logo.png" in server
    assert not {"users/Ada Byron/empty.txt", "users/Ada Byron/logo.png"} & server
    assert not [n for n in server if n.endswith(".part")]
