"""A directory that is packed: the client sends what the daemon asks for, whole or with a reason."""

import array
import fcntl
import os
import socket
import termios
import threading
from pathlib import Path

import pytest
from unit.workspace.scripted import Served, client_end, open_descriptors

from kitd_client.api.errors import SourceUnreadable
from kitd_client.api.jobs import CancelledEvent, Moved, Warned
from kitd_client.api.workspace import (
    VERSION,
    EntryRow,
    EventFrame,
    FileRow,
    Hello,
    ListingRow,
    Listings,
    ProblemRow,
    Read,
    ReadEnd,
    ReadSmall,
    Ready,
    Refused,
    Run,
    Scan,
    Small,
)
from kitd_client.directory import Directory, kernel

MIB = 1 << 20


def listings(served: Served, *directories: bytes) -> list[ListingRow]:
    served.daemon.send(Scan(list(directories)))
    rows: list[ListingRow] = []
    while True:
        answer = served.daemon.answer(Listings)
        rows += answer.listings
        if answer.last:
            return rows


@pytest.fixture(params=["openat2", "component by component"])
def way_to_open(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if request.param == "openat2":
        if not kernel.has_openat2():
            pytest.skip("this kernel has no openat2")
    else:
        monkeypatch.setattr(kernel, "has_openat2", lambda: False)


def test_the_client_says_its_version(tmp_path: Path) -> None:
    with client_end(tmp_path) as served:
        assert served.daemon.ask(Hello(VERSION), Ready).version == VERSION
        assert served.end(CancelledEvent("x")) == CancelledEvent("x")


def test_a_listing_says_what_things_are_and_follows_no_link(tmp_path: Path, way_to_open: None) -> None:
    (tmp_path / "dir").mkdir(0o750)
    (tmp_path / "dir" / "tool").write_bytes(b"12345")
    (tmp_path / "dir" / "tool").chmod(0o4755)
    (tmp_path / "dir" / os.fsdecode(b"caf\xe9")).touch(0o600)
    (tmp_path / "dir" / "link").symlink_to("/etc")
    os.mkfifo(tmp_path / "dir" / "fifo")
    (tmp_path / "away").symlink_to("/etc")
    with client_end(tmp_path) as served:
        root, inside, missing, link, below = listings(
            served, b"", b"dir", b"missing", b"away", b"dir/link/ssl"
        )
    assert {(row.name, row.kind) for row in root.entries} == {(b"dir", "dir"), (b"away", "symlink")}
    assert {row.name: row for row in inside.entries} == {
        b"tool": EntryRow(b"tool", "file", 0o4755, 5),
        b"caf\xe9": EntryRow(b"caf\xe9", "file", 0o600, 0),
        b"link": EntryRow(b"link", "symlink", 0o777, 4),
        b"fifo": EntryRow(b"fifo", "other", 0o644, 0),
    }
    assert (missing.index, missing.entries, missing.error) == (2, [], "no such file or directory")
    assert (link.entries, link.error) == ([], "away is a symbolic link")
    assert (below.entries, below.error) == ([], "dir/link is a symbolic link")


def test_a_big_directory_comes_in_parts(tmp_path: Path) -> None:
    for number in range(5000):
        (tmp_path / f"{number}").touch()
    with client_end(tmp_path) as served:
        rows = listings(served, b"", b"")
    assert [row.index for row in rows] == [0, 0, 0, 1, 1, 1]
    assert len({entry.name for row in rows[:3] for entry in row.entries}) == 5000


def test_what_an_unpack_left_behind_is_no_content(tmp_path: Path) -> None:
    (tmp_path / ".kitd-unpack-0123").mkdir()
    (tmp_path / ".kitd-unpacked").touch()
    with client_end(tmp_path) as served:
        (root,) = listings(served, b"")
    assert [row.name for row in root.entries] == [b".kitd-unpacked"]


def test_small_files_come_whole(tmp_path: Path, way_to_open: None) -> None:
    (tmp_path / "Kitfile").write_bytes(b"manifestVersion: 1.0.0\n")
    with client_end(tmp_path) as served:
        small = served.daemon.ask(ReadSmall(b"Kitfile", 23), Small)
        assert served.daemon.take(small.size or 0) == b"manifestVersion: 1.0.0\n"
        assert served.daemon.ask(ReadSmall(b".kitignore", 10), Small).size is None
        refused = served.daemon.ask(ReadSmall(b"Kitfile", 22), Refused)
        assert (refused.problem.code, refused.problem.title) == (
            "source_unsuitable",
            "Kitfile is larger than 22 bytes",
        )


@pytest.mark.parametrize("kind", ["link", "directory", "fifo"])
def test_a_small_file_of_another_kind_is_refused(tmp_path: Path, kind: str, way_to_open: None) -> None:
    if kind == "link":
        (tmp_path / "Kitfile").symlink_to("/etc/hostname")
    elif kind == "fifo":
        os.mkfifo(tmp_path / "Kitfile")
    else:
        (tmp_path / "Kitfile").mkdir()
    with client_end(tmp_path) as served:
        problem = served.daemon.ask(ReadSmall(b"Kitfile", 10), Refused).problem
    assert problem.code == "source_unsuitable"
    assert "Kitfile is" in problem.title


def test_the_bytes_of_all_files_are_one_stream(tmp_path: Path, way_to_open: None) -> None:
    contents = {"a": b"", "dir/b": b"x" * (2 * MIB + 1), "dir/c": b"yz", "d": b"w" * 100_000}
    (tmp_path / "dir").mkdir()
    for name, content in contents.items():
        (tmp_path / name).write_bytes(content)
    files = [FileRow(name.encode(), len(content)) for name, content in contents.items()]
    with client_end(tmp_path) as served:
        assert served.daemon.read(Read(files)) == (b"".join(contents.values()), ReadEnd([]))
        assert served.daemon.read(Read(files[2:3])) == (b"yz", ReadEnd([]))
        assert served.daemon.read(Read([])) == (b"", ReadEnd([]))


def test_files_that_cannot_be_read_as_announced_are_padded_and_named(
    tmp_path: Path, way_to_open: None
) -> None:
    for name in ("short", "grown", "fine", "last"):
        (tmp_path / name).write_bytes(b"12345")
    (tmp_path / "link").symlink_to("fine")
    (tmp_path / "dir").mkdir()
    os.mkfifo(tmp_path / "fifo")
    names = [b"short", b"fine", b"grown", b"link", b"dir", b"fifo", b"gone", b"fine/x", b"last"]
    sizes = [9, 5, 3, 5, 5, 5, 5, 5, 5]
    with client_end(tmp_path) as served:
        data, end = served.daemon.read(Read([FileRow(*pair) for pair in zip(names, sizes, strict=True)]))
    assert data == bytes(9) + b"12345" + bytes(28) + b"12345"
    assert end.problems == [
        ProblemRow(0, "changed", "had 9 bytes when it was listed and has 5 now"),
        ProblemRow(2, "changed", "had 3 bytes when it was listed and has 5 now"),
        ProblemRow(3, "unsuitable", "link is a symbolic link"),
        ProblemRow(4, "unsuitable", "is not a regular file"),
        ProblemRow(5, "unsuitable", "is not a regular file"),
        ProblemRow(6, "changed", "is no longer there"),
        ProblemRow(7, "unsuitable", "fine is not a directory"),
    ]


def test_a_problem_with_a_huge_file_does_not_cost_its_size(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"123")
    with client_end(tmp_path) as served:
        data, end = served.daemon.read(Read([FileRow(b"a", 3), FileRow(b"gone", 1 << 50), FileRow(b"a", 3)]))
    assert data.strip(b"\0") == b"123"
    assert len(data) <= 64 * MIB
    assert [row.index for row in end.problems] == [1]


@pytest.mark.parametrize("change", ["shrinks", "grows", "is written to"])
def test_a_file_that_changes_while_it_is_read_is_told(tmp_path: Path, change: str) -> None:
    size = 8 * MIB
    path = tmp_path / "file"
    path.write_bytes(b"a" * size)
    with client_end(tmp_path) as served:
        served.daemon.send(Read([FileRow(b"file", size)]))
        run = served.daemon.answer(Run)
        assert run.length == size
        head = served.daemon.take(1)  # the client has begun, and cannot be done: nobody reads
        if change == "shrinks":
            os.truncate(path, 5 * MIB)
        elif change == "grows":
            with path.open("ab") as file:
                file.write(b"b")
        else:
            with path.open("r+b") as file:
                file.seek(size - 1)
                file.write(b"b")
        data = head + served.daemon.take(size - 1)
        end = served.daemon.answer(ReadEnd)
    assert len(data) == size
    assert [(row.index, row.kind) for row in end.problems] == [(0, "changed")]


def test_what_was_sent_does_not_change_behind_its_back(tmp_path: Path) -> None:
    """The bytes in the socket are a copy: a later write to the file is too late to be packed."""
    path = tmp_path / "file"
    path.write_bytes(b"a" * 50_000)
    with client_end(tmp_path) as served:
        served.daemon.send(Read([FileRow(b"file", 50_000)]))
        waiting = array.array("i", [0])
        whole = 50_000 + 4 + len(b"run")
        while waiting[0] < whole:
            fcntl.ioctl(served.daemon.sock, termios.FIONREAD, waiting)
        with path.open("r+b") as file:
            file.write(b"b" * 50_000)
        data, end = served.daemon.rest()
    assert b"b" not in data
    assert len(data) == 50_000
    assert len(end.problems) <= 1


def test_the_client_tells_of_bytes_it_sends_for_an_item(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("kitd_client.directory.serving._TELL_SECONDS", 0)
    (tmp_path / "file").write_bytes(b"a" * (2 * MIB))
    with client_end(tmp_path) as served:
        served.daemon.read(Read([FileRow(b"file", 2 * MIB)], "model weights", 10))
        served.daemon.read(Read([FileRow(b"file", 2 * MIB)]))
        served.end()
    assert served.events == [
        Moved("model weights", "workspace", 10 + MIB),
        Moved("model weights", "workspace", 10 + 2 * MIB),
    ]


def test_a_job_that_ends_in_the_middle_of_a_read_ends_at_the_client_too(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"a" * (8 * MIB))
    with client_end(tmp_path) as served:
        served.daemon.send(Read([FileRow(b"file", 8 * MIB)]))
        served.daemon.answer(Run)
        served.daemon.sock.shutdown(socket.SHUT_RD)
        assert served.end(CancelledEvent("as asked")) == CancelledEvent("as asked")


def test_descriptors_are_closed_after_everything(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"123")
    (tmp_path / "d").mkdir()
    before = open_descriptors()
    with client_end(tmp_path) as served:
        listings(served, b"", b"d", b"x")
        served.daemon.read(Read([FileRow(b"a", 3), FileRow(b"a", 4), FileRow(b"d", 0), FileRow(b"x", 1)]))
        served.daemon.ask(ReadSmall(b"d", 4), Refused)
        served.end()
    assert open_descriptors() == before
    assert "kitd-pulse" not in {thread.name for thread in threading.enumerate()}


def test_a_directory_that_is_not_there_cannot_be_packed(tmp_path: Path) -> None:
    with pytest.raises(SourceUnreadable, match="no such file or directory"):
        Directory(tmp_path / "missing")
    (tmp_path / "file").touch()
    with pytest.raises(SourceUnreadable, match="not a directory"):
        Directory(tmp_path / "file")


def test_an_interrupt_leaves_at_once(tmp_path: Path) -> None:
    def interrupt(_: object) -> None:
        raise KeyboardInterrupt

    with client_end(tmp_path, on_event=interrupt) as served:
        served.daemon.send(EventFrame(Warned("x")))
        assert isinstance(served.join(), KeyboardInterrupt)
