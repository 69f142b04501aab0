"""The rows of the store: what is visible under a digest, what is named, what is handed out.

SQLite in WAL mode with synchronous=FULL: a transaction that returned survives power loss (with NORMAL it does
not: sqlite.org/pragma.html#pragma_synchronous). Files have no rows: a name in `objects/` exists only when its data is
safe, and the recipes are the edges.
"""

import sqlite3
import threading
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import msgspec

from kitd.spec.digest import Digest
from kitd_client.api.errors import StoreRefused

_SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS blob (
    digest TEXT PRIMARY KEY,
    size INTEGER NOT NULL,
    recipe INTEGER NOT NULL,   -- 1: re-created from its recipe, 0: an object
    visible INTEGER NOT NULL   -- 0: about to be collected, or damaged
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS decoded (
    layer TEXT PRIMARY KEY,
    diff_id TEXT NOT NULL      -- as computed here
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS record (
    name TEXT NOT NULL,
    manifest TEXT NOT NULL,
    selected TEXT NOT NULL,    -- JSON lists of digests
    parents TEXT NOT NULL,
    complete INTEGER NOT NULL,
    used INTEGER NOT NULL,     -- a counter, no clock
    PRIMARY KEY (name, manifest)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS tag (
    name TEXT NOT NULL,
    tag TEXT NOT NULL,
    manifest TEXT NOT NULL,
    PRIMARY KEY (name, tag)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS pull (
    name TEXT NOT NULL,
    target TEXT NOT NULL,      -- a tag, or a digest
    manifest TEXT NOT NULL,
    PRIMARY KEY (name, target, manifest)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS snapshot (
    path TEXT PRIMARY KEY,     -- the name of its directory
    manifest TEXT NOT NULL,
    key TEXT NOT NULL,
    UNIQUE (manifest, key)
) WITHOUT ROWID;
"""


_UNDECODE: Final = (
    "DELETE FROM decoded WHERE NOT"
    " (layer IN (SELECT digest FROM blob) AND diff_id IN (SELECT digest FROM blob))"
)
"""A layer that came back, and was decoded again, before its rows were dropped is still decoded."""


class Blob(msgspec.Struct, frozen=True):
    """One row: a blob that the store has."""

    digest: Digest
    size: int
    recipe: bool
    """Re-created from its recipe; else it is an object."""


class Database:
    """The connection, one user at a time; any thread, never the event loop."""

    def __init__(self, path: Path) -> None:
        self.publications = 0
        """How often `publish` was called: work in steps sees by it whether blobs have come since."""
        self._lock = threading.RLock()
        try:
            self._connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
            self._connection.execute("PRAGMA journal_mode = WAL")
            self._connection.execute("PRAGMA synchronous = FULL")
            self._connection.executescript(_SCHEMA)
        except sqlite3.DatabaseError as error:
            raise StoreRefused(
                f"the database of the store ({path}) cannot be read: {error}",
                kept="the stored objects",
                hint=f"move {path} and its -wal and -shm files away, then pull again",
            ) from error

    def close(self) -> None:
        """Writes the log back into the database and closes it."""
        with self._lock:
            self._connection.close()

    @contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """All of what is done inside, durably at the end, or nothing of it."""
        with self._lock:
            self._connection.execute("BEGIN IMMEDIATE")
            try:
                yield self._connection
                self._connection.execute("COMMIT")
            finally:
                if self._connection.in_transaction:
                    self._connection.execute("ROLLBACK")

    @contextmanager
    def reading(self) -> Iterator[sqlite3.Connection]:
        """Queries that see one state."""
        with self._lock:
            yield self._connection

    def rows(self, query: str, *values: str | int) -> list[tuple[str, ...]]:
        """The rows that a query of text columns finds."""
        with self._lock:
            return self._connection.execute(query, values).fetchall()

    def blob(self, digest: Digest) -> Blob | None:
        """The visible blob `digest`."""
        with self._lock:
            row = self._connection.execute(
                "SELECT size, recipe FROM blob WHERE digest = ? AND visible", (digest,)
            ).fetchone()
        return None if row is None else Blob(digest, row[0], bool(row[1]))

    def blobs(self) -> list[Blob]:
        """Every row, whether visible or not."""
        with self._lock:
            found = self._connection.execute("SELECT digest, size, recipe FROM blob").fetchall()
        return [Blob(Digest(digest), size, bool(recipe)) for digest, size, recipe in found]

    def visible(self) -> set[Digest]:
        """Every visible blob."""
        return {Digest(row[0]) for row in self.rows("SELECT digest FROM blob WHERE visible")}

    def publish(self, blobs: Iterable[Blob], decoded: Iterable[tuple[Digest, Digest]] = ()) -> None:
        """Makes blobs visible, and notes to which diffIDs layers were decoded."""
        with self.transaction() as connection:
            connection.executemany(
                "INSERT INTO blob VALUES (?, ?, ?, 1) ON CONFLICT (digest) "
                "DO UPDATE SET size = excluded.size, recipe = excluded.recipe, visible = 1",
                [(blob.digest, blob.size, blob.recipe) for blob in blobs],
            )
            connection.executemany("INSERT OR REPLACE INTO decoded VALUES (?, ?)", decoded)
        self.publications += 1

    def hide(self, digests: Iterable[Digest]) -> None:
        """Makes blobs invisible: they are damaged, or about to be collected."""
        with self.transaction() as connection:
            connection.executemany(
                "UPDATE blob SET visible = 0 WHERE digest = ?", [(digest,) for digest in digests]
            )

    def forget(self, digests: Sequence[Digest]) -> None:
        """Drops the rows of blobs that are gone."""
        with self.transaction() as connection:
            gone = [(digest,) for digest in digests]
            connection.executemany("DELETE FROM blob WHERE digest = ? AND NOT visible", gone)
            connection.executemany(f"{_UNDECODE} AND layer = ?", gone)
            connection.executemany(f"{_UNDECODE} AND diff_id = ?", gone)

    def diff_id(self, layer: Digest) -> Digest | None:
        """What `layer` decodes to, if that was found out and is still here."""
        found = self.rows(
            "SELECT diff_id FROM decoded JOIN blob ON blob.digest = diff_id AND visible WHERE layer = ?",
            layer,
        )
        return Digest(found[0][0]) if found else None

    def decoded(self) -> dict[Digest, Digest]:
        """The diffID of every layer that was decoded."""
        return {Digest(layer): Digest(diff_id) for layer, diff_id in self.rows("SELECT * FROM decoded")}

    def size(self) -> int:
        """Bytes of all visible blobs."""
        with self._lock:
            return int(self._connection.execute("SELECT total(size) FROM blob WHERE visible").fetchone()[0])
