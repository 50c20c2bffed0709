# SPDX-License-Identifier: MIT
"""
.record.json: the fields of a record as a text that can be edited. What differs is sent, many records
in one call; what the server refuses is kept and told.
"""

import errno
import json
import os

import pytest

from harness import (
    ENTERPRISE_TESTER,
    PERSCOM,
    RILLSOFT,
    SERVICEMAX,
    raises_errno,
    run,
    small_tree,
    wait_until,
)

EVENT = "events/Live fire"


@pytest.fixture
def system():
    return PERSCOM


def fields(m, record=EVENT) -> dict:
    return json.loads((m / record / ".record.json").read_text())


def write(m, text, record=EVENT) -> None:
    (m / record / ".record.json").write_text(text)


def set_fields(m, record=EVENT, **values) -> None:
    write(m, json.dumps({**fields(m, record), **values}, indent=2), record)


def on_server(m, name="Live fire", collection="events") -> dict:
    ident = m.emulator.record_id(collection, name)
    for r in m.emulator.state()["records"]:
        if r["collection"] == collection and r["id"] == ident:
            return r["fields"] if "fields" in r else r
    raise AssertionError("no such record")


def patches(m) -> list:
    return m.emulator.requests(endpoint=m.system.batch_rename_record)


def failed(m) -> list:
    return [json.loads(line) for line in (m / ".attachfs/failed").read_text().splitlines()]


def has_error(path) -> bool:
    return "user.attachfs.error" in os.listxattr(path)


def test_a_changed_field_is_sent(drive):
    m = drive()
    set_fields(m, description="Bring ear plugs")
    assert fields(m)["description"] == "Bring ear plugs"
    m.sync()
    assert on_server(m)["description"] == "Bring ear plugs"
    assert fields(m)["description"] == "Bring ear plugs"
    assert len(patches(m)) == 1


def test_only_what_differs_is_sent(drive):
    m = drive()
    before = fields(m)
    write(m, json.dumps(before))
    m.sync()
    assert patches(m) == []
    write(m, '{"content": "All day"}')
    m.sync()
    after = fields(m)
    assert after["content"] == "All day"
    assert {k for k in after if after[k] != before.get(k)} <= {"content", "updated_at"}


def test_many_records_go_in_one_call(drive):
    tree = {"users": {}, "events": {f"Event {i}": {} for i in range(20)}}
    m = drive(tree)
    for i in range(20):
        set_fields(m, f"events/Event {i}", description=f"number {i}")
    m.sync()
    assert len(patches(m)) <= 3
    for i in range(20):
        assert on_server(m, f"Event {i}")["description"] == f"number {i}"


def test_a_new_name_renames_the_directory(drive):
    m = drive()
    set_fields(m, name="Cold fire")
    m.sync()
    wait_until(lambda: "Cold fire" in os.listdir(m / "events"), "the directory to follow")
    assert "Live fire" not in os.listdir(m / "events")
    assert fields(m, "events/Cold fire")["name"] == "Cold fire"
    assert (m / "events/Cold fire/range-card.txt").read_bytes().startswith(b"Range 4")


def test_a_name_and_a_rename_go_together(drive):
    m = drive()
    set_fields(m, description="moved")
    os.rename(m / EVENT, m / "events/Dry fire")
    m.sync()
    assert len(patches(m)) == 1
    assert on_server(m, "Dry fire")["description"] == "moved"


def test_a_refused_field_waits_for_the_user(drive):
    m = drive()
    before = fields(m)["name"]
    set_fields(m, name="x" * 300)
    m.sync(ok=False)
    (item,) = failed(m)
    assert item["path"] == EVENT
    assert "name" in item["message"]
    for path in (m / EVENT, m / EVENT / ".record.json"):
        assert "name" in os.getxattr(path, "user.attachfs.error").decode()
        assert has_error(path)
    assert not has_error(m / "events/Winter camp")
    assert not has_error(m / "events/Winter camp/.record.json")
    assert "name" in m.log().split("waits for you")[1].splitlines()[0]
    m.command("retry", ok=None)
    m.sync(ok=False)
    assert len(failed(m)) == 1
    # another wish takes its place
    set_fields(m, name="Better")
    m.sync()
    assert failed(m) == []
    assert before != "Better"
    wait_until(lambda: "Better" in os.listdir(m / "events"), "the directory to follow")
    assert not has_error(m / "events/Better")


def test_writing_the_servers_values_gives_a_refused_wish_up(drive):
    m = drive()
    before = fields(m)
    set_fields(m, name="x" * 300)
    m.sync(ok=False)
    assert len(failed(m)) == 1
    write(m, json.dumps(before))
    m.sync()
    assert failed(m) == [] and m.idle()
    assert not has_error(m / EVENT)


def test_dates_that_the_server_fails_at_are_refused(drive):
    """P-25: a PATCH of starts or ends is a 500, however often it is sent."""
    m = drive()
    before = fields(m)["starts"]
    set_fields(m, starts="2027-01-01T10:00:00.000000Z")
    set_fields(m, "events/Winter camp", description="cold")
    m.sync(ok=False)
    (item,) = failed(m)
    assert item["path"] == EVENT
    assert "starts" in item["message"]
    assert on_server(m, "Winter camp")["description"] == "cold"
    write(m, json.dumps({**fields(m), "starts": before}))
    m.sync()
    assert failed(m) == []


def test_no_json_is_refused_at_close(drive):
    m = drive()
    path = m / EVENT / ".record.json"
    for text in ("{", "[1, 2]", "plain", '{"description": }'):
        fd = os.open(path, os.O_WRONLY | os.O_TRUNC)
        os.write(fd, text.encode())
        with raises_errno(errno.EINVAL):
            os.fsync(fd)
        with raises_errno(errno.EINVAL):
            os.close(fd)
    m.sync()
    assert patches(m) == []
    assert "no JSON object" in m.log()
    json.loads(path.read_text())


def test_shell_redirections(drive):
    m = drive()
    path = m / EVENT / ".record.json"
    script = 'echo \'{"description": "by hand"}\' > "$1"'
    run("sh", "-c", script, "sh", path)
    assert fields(m)["description"] == "by hand"
    script = 'sed "s/by hand/by foot/" "$1" > "$2" && cat "$2" > "$1"'
    run("sh", "-c", script, "sh", path, m.base / "copy")
    m.sync()
    assert on_server(m)["description"] == "by foot"


def test_writing_in_the_middle_and_at_the_end(drive):
    m = drive()
    path = m / EVENT / ".record.json"
    set_fields(m, description="abc")
    text = path.read_bytes()
    at = text.index(b'"abc"') + 1
    with open(path, "r+b", buffering=0) as f:
        f.seek(at)
        f.write(b"xyz")
    assert fields(m)["description"] == "xyz"
    with open(path, "ab", buffering=0) as f:
        f.write(b"\n\n")
    assert fields(m)["description"] == "xyz"
    m.sync()
    assert on_server(m)["description"] == "xyz"


def test_editors_save_by_renaming(drive):
    m = drive()
    path = m / EVENT / ".record.json"
    for i in range(3):
        temporary = m / EVENT / f".record.json.{i}.tmp"
        temporary.write_text(json.dumps({**fields(m), "description": f"save {i}"}))
        os.rename(temporary, path)
        assert fields(m)["description"] == f"save {i}"
        assert not temporary.exists()
        assert sorted(os.listdir(m / EVENT)) == ["map.jpg", "range-card.txt"]
    m.sync()
    assert on_server(m)["description"] == "save 2"
    bad = m / EVENT / "bad.tmp"
    bad.write_text("{")
    with raises_errno(errno.EINVAL):
        os.rename(bad, path)
    assert bad.read_text() == "{"
    bad.unlink()
    m.sync()


@pytest.mark.parametrize("editor", ["vim", "sed -i", "cp"])
def test_programs_save_it(drive, editor):
    m = drive()
    path = m / EVENT / ".record.json"
    copy = m.base / "copy"
    set_fields(m, description="before")
    if editor == "vim":
        argv = ["vim", "-u", "NONE", "-N", "-i", "NONE", "-es"]
        argv += ["-c", "%s/before/after/", "-c", "wq", str(path)]
    elif editor == "sed -i":
        argv = ["sed", "-i", "s/before/after/", str(path)]
    else:
        copy.write_text(path.read_text().replace("before", "after"))
        argv = ["cp", str(copy), str(path)]
    run(*argv)
    assert fields(m)["description"] == "after"
    assert sorted(os.listdir(m / EVENT)) == ["map.jpg", "range-card.txt"]
    m.sync()
    assert on_server(m)["description"] == "after"


def test_a_kill_loses_no_field(drive):
    m = drive()
    set_fields(m, description="kept")
    m.kill9()
    m.start()
    m.sync()
    assert on_server(m)["description"] == "kept"


def test_offline_fields_are_read_and_queued(emulator, mount, gate):
    server = emulator(tree=small_tree())
    g = gate(server)
    m = mount(server, source=server.system.source(g.url))
    os.listdir(m / "events")
    before = fields(m)
    g.shut()
    assert fields(m) == before
    set_fields(m, description="later")
    assert fields(m)["description"] == "later"
    # nothing was ever read of this one: all that is written is the wish
    write(m, '{"description": "unseen"}', "events/Winter camp")
    assert [json.loads(x)["what"] for x in (m / ".attachfs/pending").read_text().splitlines()] == [
        "record fields"
    ] * 2
    g.open()
    m.sync()
    assert on_server(m)["description"] == "later"
    assert on_server(m, "Winter camp")["description"] == "unseen"


def test_write_through_tells_the_servers_answer(drive):
    m = drive(write="through")
    set_fields(m, description="now")
    assert on_server(m)["description"] == "now"
    with raises_errno(errno.EINVAL, errno.ENAMETOOLONG):
        set_fields(m, name="x" * 300)
    set_fields(m, name="Live fire")


def test_fields_cannot_be_written_in_a_read_only_mount(drive):
    m = drive(ro=True)
    with raises_errno(errno.EROFS, errno.EACCES):
        write(m, "{}")
    assert fields(m)["name"] == "Live fire"


# Other servers


@pytest.mark.parametrize("system", [SERVICEMAX, RILLSOFT], ids=lambda s: s.name)
def test_fields_are_read_only_where_the_server_takes_none(drive, system):
    m = drive()
    path = m / EVENT / ".record.json"
    assert "Live fire" in path.read_text()
    assert isinstance(fields(m), dict)
    assert path.stat().st_mode & 0o777 == 0o444
    m.emulator.reset()
    with raises_errno(errno.EACCES, errno.EPERM):
        write(m, '{"name": "other"}')
    (m / EVENT / "tmp").write_text('{"name": "other"}')
    with raises_errno(errno.EACCES, errno.EPERM, errno.EEXIST):
        os.rename(m / EVENT / "tmp", path)
    (m / EVENT / "tmp").unlink()
    m.sync()
    assert "Live fire" in path.read_text()


@pytest.mark.parametrize("system", [ENTERPRISE_TESTER], ids=lambda s: s.name)
def test_fields_of_requirements_are_sent_and_of_incidents_told(drive, system):
    m = drive()
    user = "users/Ada Byron"
    set_fields(m, user, Name="Augusta Byron")
    m.sync()
    wait_until(lambda: "Augusta Byron" in os.listdir(m / "users"), "the directory to follow")
    assert fields(m, "users/Augusta Byron")["Name"] == "Augusta Byron"
    assert m.emulator.record_id("users", "Augusta Byron")
    before = fields(m)
    set_fields(m, Summary="Dead fire")
    m.sync(ok=False)
    (item,) = failed(m)
    assert "cannot change incidents" in item["message"]
    write(m, json.dumps(before))
    m.sync()
    assert failed(m) == [] and fields(m) == before
    # it is known now
    with raises_errno(errno.EACCES, errno.EPERM):
        set_fields(m, Summary="Dead fire")
    set_fields(m, "users/Grace Hopper", Name="Rear Admiral")
    m.sync()
    assert m.emulator.record_id("users", "Rear Admiral")
    wait_until(lambda: "Rear Admiral" in os.listdir(m / "users"), "the directory to follow")
