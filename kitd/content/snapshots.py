"""Read-only trees of hard links: `path` hands out the one copy on disk."""

# Paths come by the hundred thousand here: they stay plain strings.
# ruff: noqa: PTH101, PTH102, PTH116

import errno
import os
from collections.abc import Iterable, Sequence
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


class TreeEntry(msgspec.Struct, frozen=True):
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

    def build(self, path: Path, entries: Sequence[TreeEntry]) -> Steps:
        """Builds a tree beside its final name `path`, safe on the disk.

        Raises:
            ObjectDamaged: an object of it cannot be used.
            ArchiveInvalid: a path leads out of the tree.
        """
        made = path.with_suffix(_UNDER_WAY)
        made.mkdir(mode=0o700)
        directories = {"": str(made)}
        for count, entry in enumerate(entries, 1):
            parts = check_name(entry.path)
            inner = parts if entry.is_dir else parts[:-1]
            for depth in range(1, len(inner) + 1):
                name = "/".join(inner[:depth])
                if name not in directories:
                    directories[name] = f"{made}/{name}"
                    os.mkdir(directories[name], 0o700)
            if not entry.is_dir:
                self._file(f"{made}/{entry.path}", entry)
            if count % _STEP == 0:
                yield
        made_directories = list(directories.values())
        for directory in reversed(made_directories):
            os.chmod(directory, _DIRECTORY)
            os.utime(directory, ns=(0, 0))
        yield
        sync.sync_data(made_directories, 0, str(made))

    def _file(self, path: str, entry: TreeEntry) -> None:
        executable = bool(entry.mode & _EXECUTE)
        mode = _EXECUTABLE if executable else READ_ONLY
        if entry.digest is None:
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
            os.fchmod(descriptor, mode)
            os.utime(descriptor, ns=(0, 0))
            os.close(descriptor)
            return
        if not executable and self._objects.borrow(entry.digest, entry.size, path):
            return
        source = self._objects.open(entry.digest, entry.size)
        try:
            if executable:
                os.link(self._objects.executable(entry.digest, entry.size), path)
            else:
                os.link(self._layout.object(entry.digest), path)
        except OSError as error:
            if error.errno != errno.EMLINK:
                raise
            self._objects.copy(source, path, mode)
        finally:
            os.close(source)

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


def _untouched(root: str) -> bool:
    """Whether every modification time below is still 0: a written file and a changed directory lose it.

    One directory is open at a time, however deep the tree is.
    """
    left = [root]
    try:
        while left:
            directory = left.pop()
            if os.stat(directory).st_mtime_ns:
                return False
            with os.scandir(directory) as entries:
                for entry in entries:
                    if entry.is_dir(follow_symlinks=False):
                        left.append(entry.path)
                    elif entry.stat(follow_symlinks=False).st_mtime_ns:
                        return False
    except FileNotFoundError:
        return False
    return True
