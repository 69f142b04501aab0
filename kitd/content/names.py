"""Names of kits: tags, the records behind them, and references that are being pulled."""

import sqlite3
from collections.abc import Iterable
from typing import Final

import msgspec

from kitd.content.database import Database
from kitd.spec.digest import Digest
from kitd.spec.reference import Reference
from kitd_client.api.errors import KitIncomplete

_decode: Final = msgspec.json.Decoder(tuple[Digest, ...]).decode


class KitRecord(msgspec.Struct, frozen=True, kw_only=True):
    """What the store keeps of one manifest in one repository."""

    manifest: Digest
    selected: tuple[Digest, ...]
    """The layers that were asked for; all of them are here."""
    complete: bool
    """They are all layers of the kit."""
    parents: tuple[Digest, ...]
    """The manifests of its parents as they were resolved, the nearest first."""


class TagRow(msgspec.Struct, frozen=True, kw_only=True):
    """One name of the store."""

    name: str
    """`registry/repository`; the repository alone for local kits."""
    tag: str | None
    """None: the manifest is kept without a tag."""
    record: KitRecord
    used: int
    """Grows with every use of any kit: the smallest was not used for longest."""


class Untagged(msgspec.Struct, frozen=True, kw_only=True):
    """What `Names.untag` took away."""

    tags: tuple[str, ...]
    manifest: Digest | None
    """None: only an unfinished pull had the name."""


class Names:
    """The tables of names. Uses are counted in memory, and written with the next name."""

    def __init__(self, database: Database) -> None:
        self._database = database
        found = database.rows("SELECT ifnull(max(used), 0) FROM record")
        self._counter = int(found[0][0])
        self._used: dict[tuple[str, Digest], int] = {}

    def tag(self, reference: Reference, record: KitRecord) -> None:
        """Writes a name; with a reference by digest only the record. For one manifest `selected` only grows.

        What is so already is not written again: of many who pull one kit, only the first waits for the disk.

        Raises:
            KitIncomplete: something that the record speaks of is not here (any more); nothing was written.
        """
        with self._database.transaction() as connection:
            _require(connection, (record.manifest, *record.selected, *record.parents))
            known = _record(connection, reference.name, record.manifest)
            if known is not None:
                record = _grown(known, record)
            tagged = reference.tag is None or _tagged(connection, reference) == record.manifest
            if record == known and tagged:
                self._note(reference.name, record.manifest)
            else:
                self._write(connection, reference.name, record)
            if not tagged:
                connection.execute(
                    "INSERT OR REPLACE INTO tag VALUES (?, ?, ?)",
                    (reference.name, reference.tag, record.manifest),
                )
            end_pull(connection, reference)

    def _write(self, connection: sqlite3.Connection, name: str, record: KitRecord) -> None:
        self._note(name, record.manifest)
        connection.execute(
            "INSERT OR REPLACE INTO record VALUES (?, ?, ?, ?, ?, 0)",
            (name, record.manifest, _encode(record.selected), _encode(record.parents), record.complete),
        )
        connection.executemany(
            "UPDATE record SET used = ? WHERE name = ? AND manifest = ?",
            [(used, *key) for key, used in self._used.items()],
        )
        self._used.clear()

    def _note(self, name: str, manifest: Digest) -> None:
        self._counter += 1
        self._used[name, manifest] = self._counter

    def resolve(self, reference: Reference) -> KitRecord | None:
        """The record of a tag, or of a digest in that repository; counts as a use."""
        with self._database.reading() as connection:
            manifest = reference.digest or _tagged(connection, reference)
            record = None if manifest is None else _record(connection, reference.name, manifest)
            if record is not None:
                self._note(reference.name, record.manifest)
        return record

    def begin_pull(self, reference: Reference, manifest: Digest) -> None:
        """Notes that `reference` is being pulled, and that `manifest` belongs to it."""
        with self._database.transaction() as connection:
            connection.execute("INSERT OR IGNORE INTO pull VALUES (?, ?, ?)", (*_target(reference), manifest))

    def rows(self) -> list[TagRow]:
        """Every tag, and every record that has none."""
        found = self._database.rows(
            "SELECT name, tag, manifest, selected, parents, complete, used"
            " FROM record LEFT JOIN tag USING (name, manifest) ORDER BY name, tag"
        )
        rows = []
        for name, tag, manifest, selected, parents, complete, used in found:
            record = KitRecord(
                manifest=Digest(manifest),
                selected=_decode(selected),
                complete=bool(complete),
                parents=_decode(parents),
            )
            rows.append(
                TagRow(
                    name=name, tag=tag, record=record, used=self._used.get((name, record.manifest), int(used))
                )
            )
        return rows

    def pulls(self) -> list[Digest]:
        """The manifests of all references that are being pulled."""
        return [Digest(row[0]) for row in self._database.rows("SELECT DISTINCT manifest FROM pull")]

    def count(self) -> int:
        """How many kits have a record."""
        return int(self._database.rows("SELECT count(DISTINCT manifest) FROM record")[0][0])

    def untag(self, connection: sqlite3.Connection, reference: Reference) -> Untagged | None:
        """Takes a name away, as part of a transaction.

        By tag: that one, and with its last one the record. By digest: the record and all its tags.
        None: nothing has that name.
        """
        pulls = end_pull(connection, reference)
        manifest = reference.digest or _tagged(connection, reference)
        if manifest is None or _record(connection, reference.name, manifest) is None:
            return Untagged(tags=(), manifest=None) if pulls else None
        tags = _tags_of(connection, reference.name, manifest)
        going = [tag for tag in tags if reference.digest is not None or tag == reference.tag]
        connection.executemany(
            "DELETE FROM tag WHERE name = ? AND tag = ?", [(reference.name, tag) for tag in going]
        )
        if len(going) == len(tags):
            connection.execute(
                "DELETE FROM record WHERE name = ? AND manifest = ?", (reference.name, manifest)
            )
            self._used.pop((reference.name, manifest), None)
        return Untagged(tags=tuple(going), manifest=manifest)


def end_pull(connection: sqlite3.Connection, reference: Reference) -> bool:
    """Whether the reference was being pulled; it is not any more."""
    return (
        connection.execute("DELETE FROM pull WHERE name = ? AND target = ?", _target(reference)).rowcount > 0
    )


def is_named(connection: sqlite3.Connection, manifest: Digest) -> bool:
    """Whether a record in any repository has this manifest."""
    query = "SELECT 1 FROM record WHERE manifest = ?"
    return connection.execute(query, (manifest,)).fetchone() is not None


def _target(reference: Reference) -> tuple[str, str]:
    return reference.name, reference.digest or reference.tag or ""


def _tagged(connection: sqlite3.Connection, reference: Reference) -> Digest | None:
    query = "SELECT manifest FROM tag WHERE name = ? AND tag = ?"
    row = connection.execute(query, (reference.name, reference.tag or "")).fetchone()
    return None if row is None else Digest(row[0])


def _tags_of(connection: sqlite3.Connection, name: str, manifest: Digest) -> list[str]:
    query = "SELECT tag FROM tag WHERE name = ? AND manifest = ? ORDER BY tag"
    return [row[0] for row in connection.execute(query, (name, manifest))]


def _record(connection: sqlite3.Connection, name: str, manifest: Digest) -> KitRecord | None:
    query = "SELECT selected, parents, complete FROM record WHERE name = ? AND manifest = ?"
    row = connection.execute(query, (name, manifest)).fetchone()
    if row is None:
        return None
    return KitRecord(
        manifest=manifest, selected=_decode(row[0]), parents=_decode(row[1]), complete=bool(row[2])
    )


def _grown(known: KitRecord, new: KitRecord) -> KitRecord:
    return KitRecord(
        manifest=new.manifest,
        selected=tuple(dict.fromkeys((*known.selected, *new.selected))),
        complete=known.complete or new.complete,
        parents=new.parents or known.parents,
    )


def _require(connection: sqlite3.Connection, digests: Iterable[Digest]) -> None:
    for digest in digests:
        query = "SELECT 1 FROM blob WHERE digest = ? AND visible"
        if connection.execute(query, (digest,)).fetchone() is None:
            raise KitIncomplete(
                f"{digest} is not in the store (any more), so no name can be given to what needs it",
                hint="pull again: what is here is not fetched twice",
                digest=digest,
            )


def _encode(digests: tuple[Digest, ...]) -> str:
    return msgspec.json.encode(digests).decode()
