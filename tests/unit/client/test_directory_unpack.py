"""A directory that is unpacked into: everything, or a clear refusal; nothing half-written, nothing
unasked."""

import errno
import fcntl
import os
import socket
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from unit.workspace.scripted import Served, client_end, open_descriptors

from kitd_client.api.errors import TargetUnwritable
from kitd_client.api.jobs import Moved, Warned
from kitd_client.api.problem import Problem
from kitd_client.api.workspace import (
    Check,
    Checked,
    EventFrame,
    MemberRow,
    Publish,
    Published,
    Refused,
    Write,
    Written,
)
from kitd_client.directory import Directory, kernel
from kitd_client.directory.copying import Copier

MIB = 1 << 20


def file(path: str, content: bytes = b"x", mode: int = 0o644) -> MemberRow:
    return MemberRow(path.encode(), False, mode, len(content))


def directory(path: str, mode: int = 0o755) -> MemberRow:
    return MemberRow(path.encode(), True, mode, 0)


def write(served: Served, members: list[MemberRow], contents: dict[bytes, bytes], store: Path) -> None:
    """One batch, with objects that the daemon would have."""
    send(served, members, contents, store)
    served.daemon.answer(Written)


def send(served: Served, members: list[MemberRow], contents: dict[bytes, bytes], store: Path) -> None:
    lent = []
    for row in members:
        if row.is_lent:
            (store / "object").write_bytes(contents.get(row.path, b"x" * row.size))
            lent.append(os.open(store / "object", os.O_RDONLY))
            (store / "object").unlink()
    served.daemon.send(Write(members, "files", 100))
    if lent:
        socket.send_fds(served.daemon.sock, [b"\0"], lent)
    for descriptor in lent:
        os.close(descriptor)


def check(served: Served, members: list[MemberRow]) -> Checked:
    return served.daemon.ask(Check(members), Checked)


def unpack(
    target: Path,
    store: Path,
    members: list[MemberRow],
    *,
    overwrite: bool = False,
    ignore_existing: bool = False,
) -> Published:
    with client_end(target, create=True, overwrite=overwrite, ignore_existing=ignore_existing) as served:
        checked = check(served, members)
        assert not checked.obstacles
        left = [row for index, row in enumerate(members) if index not in checked.skipped]
        write(served, left, {}, store)
        published = served.daemon.ask(Publish(), Published)
        served.end()
    return published


def names(target: Path) -> set[str]:
    return {str(path.relative_to(target)) for path in target.rglob("*")}


def mode(path: Path) -> int:
    return stat.S_IMODE(path.lstat().st_mode)


@pytest.fixture
def target(tmp_path: Path) -> Path:
    (tmp_path / "target").mkdir()
    return tmp_path / "target"


@pytest.fixture
def store(tmp_path: Path) -> Path:
    (tmp_path / "store").mkdir()
    return tmp_path / "store"


@contextmanager
def umask(mask: int) -> Iterator[None]:
    before = os.umask(mask)
    try:
        yield
    finally:
        os.umask(before)


# -- what is made ------------------------------------------------------------------------------


@pytest.mark.parametrize("way", ["modern", "old kernel", "another file system"])
def test_everything_is_made_as_said(
    target: Path, store: Path, way: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def absent(*_: object) -> None:
        raise OSError(errno.ENOSYS, "not here")

    def across(*_: object) -> None:
        raise OSError(errno.EXDEV, "not here")

    if way == "old kernel":
        monkeypatch.setattr(kernel, "has_openat2", lambda: False)
        monkeypatch.setattr(kernel, "rename_noreplace", absent)
    if way == "another file system":
        monkeypatch.setattr(os, "copy_file_range", across)
    big = os.urandom(9 * MIB + 3)
    members = [
        directory("model", 0o700),
        file("model/weights.bin", big),
        file("model/run.sh", b"#!/bin/sh\n", 0o4755),
        file("model/empty", b"", 0o600),
        file("missing/parents/leaf", b"leaf", 0o666),
        directory("empty"),
        MemberRow(os.fsencode("caf\udce9"), False, 0o644, 1),
        MemberRow(b"Kitfile", False, 0o644, 8, b"kitfile\n"),
    ]
    contents = {
        b"model/weights.bin": big,
        b"model/run.sh": b"#!/bin/sh\n",
        b"missing/parents/leaf": b"leaf",
    }
    with umask(0o027), client_end(target, create=True) as served:
        assert check(served, members) == Checked([], [])
        write(served, members, contents, store)
        assert names(target) & {"model", "Kitfile"} == set()  # nothing under a final name yet
        assert served.daemon.ask(Publish(), Published) == Published(6, 0)
        served.end()
    assert names(target) == {
        "model",
        "model/weights.bin",
        "model/run.sh",
        "model/empty",
        "missing",
        "missing/parents",
        "missing/parents/leaf",
        "empty",
        "caf\udce9",
        "Kitfile",
    }
    assert (target / "model/weights.bin").read_bytes() == big
    assert (target / "missing/parents/leaf").read_bytes() == b"leaf"
    assert (target / "Kitfile").read_bytes() == b"kitfile\n"
    assert mode(target / "model") == 0o700
    assert mode(target / "model/run.sh") == 0o750
    assert mode(target / "model/empty") == 0o600
    assert mode(target / "missing") == 0o750
    assert mode(target / "missing/parents/leaf") == 0o640


def test_directories_without_rights_are_filled_and_then_closed(target: Path, store: Path) -> None:
    members = [directory("a", 0o555), directory("a/b", 0), file("a/b/c"), file("a/d"), directory("e", 0o500)]
    unpack(target, store, members)
    assert [mode(target / name) for name in ("a", "a/b", "e")] == [0o555, 0, 0o500]


def test_a_directory_gets_its_mode_even_when_a_file_in_it_came_first(target: Path, store: Path) -> None:
    unpack(target, store, [file("a/b"), directory("a", 0o711)])
    assert mode(target / "a") == 0o711


def test_a_directory_that_exists_keeps_its_mode_and_its_files(target: Path, store: Path) -> None:
    (target / "a").mkdir(0o775)
    (target / "a").chmod(0o775)
    (target / "a" / "old").write_text("old")
    unpack(target, store, [directory("a", 0o500), file("a/new"), directory("a/sub", 0o555)])
    assert mode(target / "a") == 0o775
    assert names(target) == {"a", "a/old", "a/new", "a/sub"}


def test_a_deep_tree_with_more_directories_than_are_held_open(target: Path, store: Path) -> None:
    deep = "/".join(["d"] * 200)
    members = [file(f"{deep}/{number}/f") for number in range(40)] + [file(f"wide/{n}/f") for n in range(24)]
    assert unpack(target, store, members) == Published(64, 0)
    assert len(list(target.rglob("f"))) == 64


def test_many_batches(target: Path, store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kitd_client.directory.syncing._EAGER_BYTES", 100)
    with client_end(target, create=True) as served:
        for batch in range(5):
            members = [file(f"{batch}/{number}", b"12345") for number in range(64)]
            check(served, members)
            write(served, members, {}, store)
        assert served.daemon.ask(Publish(), Published) == Published(320, 0)
        served.end()
    assert len([path for path in target.rglob("*") if path.is_file()]) == 320


def test_large_files_are_synced_by_themselves_and_ahead(
    target: Path, store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("kitd_client.directory.syncing._EAGER_BYTES", MIB)
    monkeypatch.setattr(kernel, "syncfs", lambda _: pytest.fail("two files are not the file system"))
    content = os.urandom(20 * MIB)
    members = [file("a", content), file("b", content[: 5 * MIB])]
    with client_end(target, create=True) as served:
        write(served, members, {b"a": content, b"b": content[: 5 * MIB]}, store)
        assert served.daemon.ask(Publish(), Published) == Published(2, 0)
        served.end()
    assert (target / "a").read_bytes() == content


def test_missing_directories_up_to_the_target_are_made(tmp_path: Path, store: Path) -> None:
    with umask(0o022):
        unpack(tmp_path / "a" / "b", store, [file("f")])
    assert mode(tmp_path / "a") == 0o755
    assert names(tmp_path / "a") == {"b", "b/f"}


def test_a_target_that_was_made_for_nothing_goes_again(tmp_path: Path) -> None:
    with client_end(tmp_path / "a" / "b", create=True) as served:
        check(served, [file("f")])
        assert (tmp_path / "a" / "b").is_dir()
        served.end()
    assert not (tmp_path / "a").exists()


def test_a_target_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(TargetUnwritable, match="not a directory"):
        Directory(tmp_path / "file" / "x", create=True)


def test_the_named_directory_may_be_a_link(target: Path, tmp_path: Path, store: Path) -> None:
    (tmp_path / "link").symlink_to(target)
    unpack(tmp_path / "link", store, [file("f")])
    assert names(target) == {"f"}


def test_an_unpack_of_nothing_succeeds(target: Path, store: Path) -> None:
    with client_end(target, create=True) as served:
        assert served.daemon.ask(Publish(), Published) == Published(0, 0)
        served.end()
    assert names(target) == set()


# -- what is in the way ------------------------------------------------------------------------


def obstacles(
    target: Path, members: list[MemberRow], *, overwrite: bool = False, ignore_existing: bool = False
) -> list[tuple[int, str, str]]:
    with client_end(target, create=True, overwrite=overwrite, ignore_existing=ignore_existing) as served:
        checked = check(served, members)
        served.end()
    assert not [name for name in names(target) if name.startswith(".kitd")]
    return [(row.index, row.kind, row.reason) for row in checked.obstacles]


def test_files_that_exist_are_an_error_unless_asked_for(target: Path) -> None:
    (target / "a").mkdir()
    (target / "a" / "f").write_text("mine")
    (target / "a" / "link").symlink_to("f")
    members = [directory("a"), file("a/f"), file("a/new"), file("a/link")]
    assert obstacles(target, members) == [
        (1, "exists", "already exists"),
        (3, "exists", "already exists"),
    ]
    assert obstacles(target, members, overwrite=True) == [(3, "unsafe", "exists and is not a regular file")]
    assert obstacles(target, members, ignore_existing=True) == []


def test_links_and_files_where_directories_must_be_are_unsafe(target: Path, tmp_path: Path) -> None:
    (tmp_path / "outside").mkdir()
    (target / "link").symlink_to(tmp_path / "outside")
    (target / "dangling").symlink_to("nowhere")
    (target / "file").touch()
    members = [file("link/f"), file("dangling/a/f"), file("file/f"), directory("link"), directory("file")]
    found = obstacles(target, members, overwrite=True, ignore_existing=True)
    assert found == [
        (0, "unsafe", "cannot be made: link is a symbolic link"),
        (1, "unsafe", "cannot be made: dangling is a symbolic link"),
        (2, "unsafe", "cannot be made: file is not a directory"),
        (3, "unsafe", "exists and is not a directory"),
        (4, "unsafe", "exists and is not a directory"),
    ]
    assert names(tmp_path / "outside") == set()


def test_a_directory_where_a_file_must_be(target: Path) -> None:
    (target / "f").mkdir()
    assert obstacles(target, [file("f")]) == [(0, "exists", "already exists")]
    assert obstacles(target, [file("f")], overwrite=True) == [
        (0, "unsafe", "exists and is not a regular file")
    ]


def test_the_names_of_unpacks_under_way_are_taken(target: Path) -> None:
    found = obstacles(target, [file(".kitd-unpack-1/f"), file("a/.kitd-unpack-1")])
    assert [(index, kind) for index, kind, _ in found] == [(0, "unsafe")]


def test_an_identical_kitfile_may_be_there(target: Path, store: Path) -> None:
    (target / "Kitfile").write_bytes(b"same\n")
    same = MemberRow(b"Kitfile", False, 0o644, 5, b"same\n")
    other = MemberRow(b"Kitfile", False, 0o644, 5, b"else\n")
    assert obstacles(target, [same]) == []
    assert obstacles(target, [other]) == [(0, "exists", "already exists and differs")]
    assert obstacles(target, [other], ignore_existing=True) == [(0, "exists", "already exists and differs")]
    assert unpack(target, store, [same]) == Published(0, 0)
    assert unpack(target, store, [other], overwrite=True) == Published(1, 0)
    assert (target / "Kitfile").read_bytes() == b"else\n"


def test_more_directories_than_are_held_open_are_checked(target: Path) -> None:
    for number in range(100):
        (target / f"{number}").mkdir()
        (target / f"{number}" / "f").touch()
    members = [file(f"{number}/{name}") for name in "fg" for number in range(100)]
    assert [index for index, _, _ in obstacles(target, members)] == list(range(100))


def test_overwrite_replaces_by_rename_and_skip_leaves_alone(target: Path, store: Path) -> None:
    (target / "a").mkdir()
    (target / "a" / "f").write_text("mine")
    with (target / "a" / "f").open() as reader:
        members = [directory("a"), file("a/f", b"12"), file("b", b"34")]
        assert unpack(target, store, members, ignore_existing=True) == Published(1, 0)
        assert (target / "a" / "f").read_text() == "mine"
        assert unpack(target, store, members, overwrite=True) == Published(2, 0)
        assert (target / "a" / "f").read_text() == "xx"
        assert reader.read() == "mine"


# -- what happens between check and publish ----------------------------------------------------


def published_after(
    target: Path,
    store: Path,
    members: list[MemberRow],
    change: str,
    *,
    overwrite: bool = False,
    ignore_existing: bool = False,
) -> Published | Problem:
    """Unpacks `members`, with something planted at `f` after the check."""
    with client_end(target, create=True, overwrite=overwrite, ignore_existing=ignore_existing) as served:
        assert check(served, members) == Checked([], [])
        write(served, members, {}, store)
        if change == "file":
            (target / "f").write_text("mine")
        elif change == "link":
            (target / "f").symlink_to("/etc")
        else:
            (target / "f").mkdir()
        served.daemon.send(Publish())
        answer = served.daemon.any_answer()
        served.end()
    assert not [name for name in names(target) if name.startswith(".kitd")]
    assert isinstance(answer, Published | Refused)
    return answer.problem if isinstance(answer, Refused) else answer


def test_what_appeared_meanwhile_is_not_replaced(target: Path, store: Path) -> None:
    problem = published_after(target, store, [file("e"), file("f"), file("g")], "file")
    assert isinstance(problem, Problem)
    assert problem.code == "target_exists"
    assert problem.kept == "in place already: e"
    assert (target / "f").read_text() == "mine"
    assert not (target / "g").exists()


def test_what_appeared_meanwhile_is_skipped_or_replaced_when_asked(target: Path, store: Path) -> None:
    assert published_after(target, store, [file("f"), file("g")], "file", ignore_existing=True) == Published(
        1, 1
    )
    assert (target / "f").read_text() == "mine"
    (target / "f").unlink()
    (target / "g").unlink()
    assert published_after(target, store, [file("f"), file("g")], "file", overwrite=True) == Published(2, 0)
    assert (target / "f").read_text() == "x"


@pytest.mark.parametrize("change", ["link", "directory"])
def test_nothing_but_a_file_is_replaced(target: Path, store: Path, change: str) -> None:
    problem = published_after(target, store, [file("f")], change, overwrite=True)
    assert isinstance(problem, Problem)
    assert (problem.code, problem.kept) == ("target_unsafe", "nothing was put in place")


@pytest.mark.parametrize("change", ["link", "file"])
def test_a_tree_goes_into_no_link_and_no_file(target: Path, store: Path, change: str) -> None:
    problem = published_after(target, store, [file("f/x"), file("f/y")], change, overwrite=True)
    assert isinstance(problem, Problem)
    assert problem.code == "target_unsafe"


def test_a_tree_goes_into_a_directory_that_appeared(target: Path, store: Path) -> None:
    assert published_after(target, store, [file("f/x"), file("f/y")], "directory") == Published(2, 0)
    assert names(target) == {"f", "f/x", "f/y"}


def test_without_renameat2_nothing_is_replaced_either(
    target: Path, store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def absent(*_: object) -> None:
        raise OSError(errno.EINVAL, "not here")

    monkeypatch.setattr(kernel, "rename_noreplace", absent)
    problem = published_after(target, store, [file("f")], "file")
    assert isinstance(problem, Problem)
    assert problem.code == "target_exists"
    (target / "f").unlink()
    assert published_after(target, store, [file("f/x")], "directory") == Published(1, 0)

    def no_links(*_: object, **__: object) -> None:
        raise OSError(errno.EPERM, "not here")

    monkeypatch.setattr(os, "link", no_links)
    (target / "f" / "x").unlink()
    (target / "f").rmdir()
    problem = published_after(target, store, [file("f")], "file")
    assert isinstance(problem, Problem)
    assert problem.code == "target_exists"
    assert unpack(target, store, [file("g")]) == Published(1, 0)


# -- staging -----------------------------------------------------------------------------------


def test_a_stale_staging_directory_is_removed(target: Path, store: Path) -> None:
    stale = target / ".kitd-unpack-dead"
    (stale / "a" / "b").mkdir(parents=True)
    (stale / "a" / "b" / "f").touch()
    (stale / "f").touch()
    unpack(target, store, [file("f")])
    assert names(target) == {"f"}


def test_a_live_one_means_busy_and_stays(target: Path) -> None:
    live = target / ".kitd-unpack-live"
    live.mkdir()
    (live / "f").touch()
    descriptor = os.open(live, os.O_RDONLY)
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    try:
        with client_end(target, create=True) as served:
            problem = served.daemon.ask(Check([file("f")]), Refused).problem
            served.end()
    finally:
        os.close(descriptor)
    assert problem.code == "target_busy"
    assert names(target) == {".kitd-unpack-live", ".kitd-unpack-live/f"}


def test_planted_staging_names_lead_nowhere(target: Path, tmp_path: Path, store: Path) -> None:
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "precious").touch()
    (target / ".kitd-unpack-link").symlink_to(tmp_path / "outside")
    (target / ".kitd-unpack-file").touch()
    stale = target / ".kitd-unpack-stale"
    stale.mkdir()
    (stale / "link").symlink_to(tmp_path / "outside")
    unpack(target, store, [file("f")])
    assert names(tmp_path / "outside") == {"precious"}
    assert names(target) == {"f", ".kitd-unpack-link", ".kitd-unpack-file"}


def test_a_staging_directory_that_is_moved_away_gains_nothing(
    target: Path, tmp_path: Path, store: Path
) -> None:
    (tmp_path / "outside").mkdir()
    with client_end(target, create=True) as served:
        check(served, [file("f")])
        (staging,) = target.glob(".kitd-unpack-*")
        staging.rename(tmp_path / "moved")
        (target / staging.name).symlink_to(tmp_path / "outside")
        write(served, [file("f"), file("d/g")], {}, store)
        assert served.daemon.ask(Publish(), Published) == Published(2, 0)
        served.end()
    assert names(tmp_path / "outside") == set()
    assert names(target) == {"f", "d", "d/g", staging.name}


# -- failures ----------------------------------------------------------------------------------


def test_a_full_disk_leaves_nothing(target: Path, store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    copy = Copier.copy

    def full(self: Copier, source: int, to: int, size: int, copied: object) -> None:
        if size == 2:
            raise OSError(errno.ENOSPC, "full")
        copy(self, source, to, size, copied)  # type: ignore[arg-type]

    monkeypatch.setattr(Copier, "copy", full)
    with client_end(target, create=True) as served:
        members = [file("a/f"), file("a/g", b"12"), file("a/h")]
        check(served, members)
        send(served, members, {}, store)
        problem = served.daemon.answer(Refused).problem
        served.end()
    assert problem.code == "target_unwritable"
    assert problem.title == "cannot write a/g: no space left on device"
    assert problem.kept == "nothing was put in place"
    assert "space" in str(problem.hint)
    assert names(target) == set()


def test_a_failed_sync_puts_nothing_in_place(
    target: Path, store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(descriptor: int) -> None:
        raise OSError(errno.EIO, "broken")

    monkeypatch.setattr(os, "fdatasync", broken)
    with client_end(target, create=True) as served:
        write(served, [file("f")], {}, store)
        problem = served.daemon.ask(Publish(), Refused).problem
        served.end()
    assert (problem.code, problem.kept) == ("target_unwritable", "nothing was put in place")
    assert "input/output error" in problem.title
    assert names(target) == set()


def test_everything_is_synced_before_it_gets_its_name_and_the_name_after(
    target: Path, store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[str] = []

    def record(owner: object, name: str) -> None:
        real = getattr(owner, name)

        def wrapped(*arguments: object) -> object:
            result = real(*arguments)
            calls.append(name)
            return result

        monkeypatch.setattr(owner, name, wrapped)

    for owner, name in ((os, "fdatasync"), (os, "fsync"), (kernel, "syncfs"), (kernel, "rename_noreplace")):
        record(owner, name)
    unpack(target, store, [directory("d"), file("d/f"), file("g")])
    assert calls == ["fdatasync", "fdatasync", "fsync", "rename_noreplace", "rename_noreplace", "fsync"]
    calls.clear()
    with client_end(target, create=True) as served:
        for batch in range(2):
            write(served, [file(f"many/{batch}-{number}") for number in range(64)], {}, store)
        served.daemon.ask(Publish(), Published)
        served.end()
    assert [call for call in calls if call != "fdatasync"] == ["syncfs", "rename_noreplace", "fsync"]
    assert calls[-3:] == ["syncfs", "rename_noreplace", "fsync"]


@pytest.mark.parametrize("how", ["the daemon dies", "the job fails", "an interrupt"])
def test_an_interrupted_unpack_leaves_nothing(target: Path, store: Path, how: str) -> None:
    def interrupt(event: object) -> None:
        if isinstance(event, Warned):
            raise KeyboardInterrupt

    with client_end(target, create=True, on_event=interrupt) as served:
        check(served, [file("a/f")])
        write(served, [file("a/f")], {}, store)
        assert len(names(target)) == 3
        if how == "the daemon dies":
            served.daemon.sock.close()
        elif how == "an interrupt":
            served.daemon.send(EventFrame(Warned("now")))
        else:
            served.end()
        served.join()
    assert names(target) == set()


def test_the_client_tells_of_bytes_it_writes(
    target: Path, store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("kitd_client.directory.serving._TELL_SECONDS", 0)
    with client_end(target, create=True) as served:
        write(served, [file("f", b"12"), file("g", b"345")], {}, store)
        served.end()
    assert served.events == [Moved("files", "local", 102), Moved("files", "local", 105)]


def test_descriptors_are_closed_after_everything(target: Path, store: Path) -> None:
    (target / "f").touch()
    before = open_descriptors()
    with client_end(target, create=True) as served:
        check(served, [file("f"), file("d/g"), directory("e")])
        write(served, [file("f"), file("d/g"), directory("e", 0o500), file("e/h")], {}, store)
        served.daemon.ask(Publish(), Refused)
        served.end()
    assert open_descriptors() == before
