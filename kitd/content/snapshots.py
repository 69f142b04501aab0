"""Read-only trees of hard links: `path` hands out the one copy on disk."""

# Paths come by the hundred thousand here: they stay plain strings.
# ruff: noqa: PTH101, PTH102

import errno
import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Final

import msgspec

from kitd.content import sync
from kitd.content.database import Database
from kitd.content.layout import Layout
from kitd.content.names import is_named
from kitd.content.objects import READ_ONLY, Objects
from kitd.content.trash import Trash
from kitd.content.workers import Steps
from kitd.layer.tar import check_name
from kitd.spec.digest import Digest
from kitd_client.api.errors import NotFound

_DIRECTORY: Final = 0o555
_EXECUTE: Final = 0o111
_EXECUTABLE: Final = 0o555
_UNDER_WAY: Final = ".new"
_STEP: Final = 1000
"""Entries made in one go."""


class TreeEntry(msgspec.Struct, frozen=True, gc=False):
    """One path of a tree."""

    path: str
    """Relative, `/` between components."""
    is_dir: bool
    mode: int
    """Permission bits; of a snapshot's file only whether there is an execute bit among them counts."""
    size: int
    digest: Digest | None
    """The object with the bytes; none for directories and empty files."""


class Snapshots:
    """The directory `snapshots/`. For worker threads."""

    def __init__(self, layout: Layout, database: Database, objects: Objects, trash: Trash) -> None:
        self._layout = layout
        self._database = database
        self._objects = objects
        self._trash = trash

    def find(self, manifest: Digest, key: str) -> Path | None:
        """The snapshot that is there already, if nobody touched a file of it; else it is put aside."""
        query = "SELECT path FROM snapshot WHERE manifest = ? AND key = ?"
        found = self._database.rows(query, manifest, key)
        if not found:
            return None
        path = self._layout.snapshots / found[0][0]
        if _untouched(str(path)):
            return path
        with self._database.transaction() as connection:
            connection.execute("DELETE FROM snapshot WHERE path = ?", (path.name,))
        self._trash.put(path)
        return None

    def tree(self, path: Path, entries: Sequence[TreeEntry]) -> "Tree":
        """A tree to be built beside its final name `path`."""
        return Tree(path.with_suffix(_UNDER_WAY), entries, self._objects)

    def publish(self, path: Path, manifest: Digest, key: str) -> None:
        """Gives a built tree its name, durably, and notes it.

        Raises:
            NotFound: the kit has no name any more, so nobody could ever remove the tree.
        """
        made = path.with_suffix(_UNDER_WAY)
        made.rename(path)
        sync.sync_directory(str(self._layout.snapshots))
        with self._database.transaction() as connection:
            if not is_named(connection, manifest):
                raise NotFound(f"kit {manifest} was removed meanwhile", hint="pull it again", digest=manifest)
            connection.execute("INSERT INTO snapshot VALUES (?, ?, ?)", (path.name, manifest, key))

    def drop(self, path: Path) -> None:
        """Puts a tree aside that is unfinished, or was not noted."""
        self._trash.put(path.with_suffix(_UNDER_WAY))
        self._trash.put(path)

    def put_aside(self, names: Iterable[str]) -> None:
        """Puts trees aside whose rows are gone."""
        for name in names:
            self._trash.put(self._layout.snapshots / name)

    def sweep(self) -> None:
        """After a crash: trees without a row go, and rows without a tree."""
        rows = {row[0] for row in self._database.rows("SELECT path FROM snapshot")}
        there = {path.name for path in self._layout.snapshots.iterdir()}
        self.put_aside(there - rows)
        with self._database.transaction() as connection:
            connection.executemany(
                "DELETE FROM snapshot WHERE path = ?", [(name,) for name in sorted(rows - there)]
            )


class Tree:
    """A tree that is being built: `lay_out`, then every one of `parts` to `fill`, then `seal`."""

    def __init__(self, made: Path, entries: Sequence[TreeEntry], objects: Objects) -> None:
        self._made = str(made)
        self._entries = entries
        self._objects = objects
        self._directories = {"": self._made}

    def lay_out(self) -> Steps:
        """Makes the directories.

        Raises:
            ArchiveInvalid: a path leads out of the tree.
        """
        os.mkdir(self._made, 0o700)
        for count, entry in enumerate(self._entries, 1):
            parts = check_name(entry.path)
            self._make(parts if entry.is_dir else parts[:-1])
            if count % _STEP == 0:
                yield

    def _make(self, parts: tuple[str, ...]) -> None:
        missing = len(parts)
        while missing and "/".join(parts[:missing]) not in self._directories:
            missing -= 1
        for depth in range(missing + 1, len(parts) + 1):
            name = "/".join(parts[:depth])
            self._directories[name] = f"{self._made}/{name}"
            os.mkdir(self._directories[name], 0o700)

    def parts(self) -> Iterator[Sequence[TreeEntry]]:
        """The entries in pieces, which may be filled in any order and at the same time."""
        return (self._entries[start : start + _STEP] for start in range(0, len(self._entries), _STEP))

    def fill(self, entries: Sequence[TreeEntry]) -> None:
        """Makes the files among some entries.

        Raises:
            ObjectDamaged: an object of them cannot be used.
        """
        for entry in entries:
            if not entry.is_dir:
                self._file(f"{self._made}/{entry.path}", entry)

    def _file(self, path: str, entry: TreeEntry) -> None:
        executable = bool(entry.mode & _EXECUTE)
        mode = _EXECUTABLE if executable else READ_ONLY
        if entry.digest is None:
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
            os.fchmod(descriptor, mode)
            os.utime(descriptor, ns=(0, 0))
            os.close(descriptor)
        elif executable:
            self._executable(path, entry.digest, entry.size)
        elif not self._objects.link(entry.digest, entry.size, path):
            self._copy(path, entry.digest, entry.size, mode)

    def _executable(self, path: str, digest: Digest, size: int) -> None:
        try:
            os.link(self._objects.executable(digest, size), path)
        except OSError as error:
            if error.errno != errno.EMLINK:
                raise
            self._copy(path, digest, size, _EXECUTABLE)

    def _copy(self, path: str, digest: Digest, size: int, mode: int) -> None:
        """For an object with as many links as a file may have; one that is damaged raises here."""
        source = self._objects.open(digest, size)
        try:
            self._objects.copy(source, path, mode)
        finally:
            os.close(source)

    def seal(self) -> None:
        """Makes the tree read-only, marks it as untouched, and makes it safe on the disk."""
        directories = list(self._directories.values())
        for directory in reversed(directories):
            os.chmod(directory, _DIRECTORY)
            os.utime(directory, ns=(0, 0))
        with sync.opened_directory(self._made) as descriptor:
            sync.sync_data(directories, 0, descriptor)


def _untouched(root: str) -> bool:
    """Whether every modification time below is still 0: a written file and a changed directory lose it.

    One directory is open at a time, however deep the tree is. Looked at from there, and not from the root of
    all file systems, a file costs three quarters of the time.
    """
    left = [root]
    try:
        while left:
            path = left.pop()
            directory = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                if os.fstat(directory).st_mtime_ns:
                    return False
                with os.scandir(directory) as entries:
                    for entry in entries:
                        if entry.is_dir(follow_symlinks=False):
                            left.append(f"{path}/{entry.name}")
                        elif entry.stat(follow_symlinks=False).st_mtime_ns:
                            return False
            finally:
                os.close(directory)
    except FileNotFoundError:
        return False
    return True
