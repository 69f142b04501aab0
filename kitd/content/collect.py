"""Garbage collection: what no root needs goes to the trash.

Roots are records (every tag has one), snapshots, references being pulled, leases, and blobs under way. Blobs
are marked all (rows are few); objects are marked only among those that a dead recipe refers to, by going
through the live recipes one by one. Rows turn invisible first, files go next (in `disposal`), rows last: a crash
between two steps leaves rows that the next collection finds, and never a visible blob without its files.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Final

import msgspec

from kitd.content import sync
from kitd.content.database import Blob, Database
from kitd.content.disposal import Disposal, Freeing, at_once
from kitd.content.layout import RECIPE, Layout, is_fresh
from kitd.content.leases import Leases
from kitd.content.names import Names, is_named
from kitd.content.objects import Objects, object_name
from kitd.content.reader import BlobReader
from kitd.content.snapshots import Snapshots
from kitd.content.trash import Trash
from kitd.spec.digest import Digest, parse_digest
from kitd.spec.oci import MANIFEST_LIMIT
from kitd.spec.reference import Reference
from kitd_client.api.errors import InUse, InvalidDigest, NotFound, ObjectDamaged, Unsupported

_FORGOTTEN: Final = 2000
"""Rows dropped in one step."""


class _Named(msgspec.Struct):
    digest: str = ""


class _Document(msgspec.Struct):
    """What any manifest or index names; more lenient than the parser that kits go through."""

    config: _Named | None = None
    layers: list[_Named] | None = None
    manifests: list[_Named] | None = None


_decode: Final = msgspec.json.Decoder(_Document).decode


class Removal(msgspec.Struct, frozen=True, kw_only=True):
    """What `untag` did."""

    names: tuple[str, ...]
    """The names that are gone, as references."""
    manifest: Digest | None
    """None: there was only an unfinished pull."""
    freed: int
    """Bytes of files that nothing needs any more; they go after the name."""


class Collector:
    """Takes away. Only ever in the one thread that publishes; what may take long, in steps.

    Args:
        under_way: the blobs that somebody writes now.
    """

    def __init__(
        self,
        layout: Layout,
        database: Database,
        names: Names,
        objects: Objects,
        snapshots: Snapshots,
        trash: Trash,
        leases: Leases,
        under_way: Callable[[], set[Digest]],
    ) -> None:
        self._layout = layout
        self._database = database
        self._names = names
        self._objects = objects
        self._snapshots = snapshots
        self._trash = trash
        self._leases = leases
        self._under_way = under_way
        self._disposal = Disposal(layout, database, objects, trash)
        self.due = False
        """Something lost what spared it, other than by a lease that ended. Set on the event loop."""
        self._replaced: list[Blob] = []
        self._spared: set[Digest] = set()
        """Blobs that the last collection left only because a job held them."""

    def untag(self, reference: Reference, *, force: bool) -> Removal:
        """Takes a name away; `collect` comes next.

        Raises:
            NotFound: nothing has that name.
            InUse: it is the last name of a kit that has a snapshot; with `force` that goes too.
        """
        with self._database.transaction() as connection:
            gone = self._names.untag(connection, reference)
            if gone is None:
                raise NotFound(f"{reference} is not here", reference=str(reference))
            trees: list[str] = []
            if gone.manifest is not None and not is_named(connection, gone.manifest):
                query = "SELECT path FROM snapshot WHERE manifest = ?"
                trees = [row[0] for row in connection.execute(query, (gone.manifest,))]
                if trees and not force:
                    path = self._layout.snapshots / trees[0]
                    raise InUse(
                        f"{reference} was handed out as {path}",
                        kept="everything",
                        hint="when nobody uses that directory any more, remove with force (-f)",
                        path=str(path),
                    )
                connection.execute("DELETE FROM snapshot WHERE manifest = ?", (gone.manifest,))
        self._snapshots.put_aside(trees)
        references = [f"{reference.name}:{tag}" for tag in gone.tags]
        return Removal(names=tuple(references), manifest=gone.manifest, freed=0)

    def collect(self) -> Freeing:
        """Takes away what no root needs, in steps; bytes of the files that went."""
        rooted = self._with_decoded(self._rooted())
        unneeded = {blob.digest for blob in self._database.blobs()} - rooted
        held = self._leases.held()
        # What a held layer decodes to goes with that layer, which is among the spared ones.
        beside = self._with_decoded(held) - held
        dead = self._leases.condemn(unneeded - held - beside)
        self._spared = unneeded - dead - beside
        try:
            self._database.hide(dead)
        finally:
            self._leases.spare()
        freed = yield from self._disposal.steps(dead)
        rows = sorted(dead)
        for start in range(0, len(rows), _FORGOTTEN):
            self._database.forget(rows[start : start + _FORGOTTEN])
            yield
        return freed

    def _rooted(self) -> set[Digest]:
        live = self._under_way()
        manifests = set(self._names.pulls())
        for row in self._names.rows():
            manifests |= {row.record.manifest, *row.record.parents}
            live |= set(row.record.selected)
        manifests |= {Digest(row[0]) for row in self._database.rows("SELECT manifest FROM snapshot")}
        for manifest in manifests:
            live |= {manifest, *self._children(manifest)}
        return live

    def _with_decoded(self, layers: set[Digest]) -> set[Digest]:
        decoded = self._database.decoded()
        return layers | {diff_id for layer, diff_id in decoded.items() if layer in layers}

    def _children(self, manifest: Digest) -> list[Digest]:
        """The blobs that a manifest names; none if it is not here."""
        blob = self._database.blob(manifest)
        if blob is None:
            return []
        try:
            with BlobReader.of_object(manifest, blob.size, self._objects) as reader:
                document = _decode(reader.read(0, MANIFEST_LIMIT))
        except (ObjectDamaged, msgspec.DecodeError):
            return []
        named = [*(document.layers or ()), *(document.manifests or ())]
        if document.config is not None:
            named.append(document.config)
        return [digest for other in named if (digest := _digest(other.digest)) is not None]

    def replaced(self, before: Blob) -> None:
        """Notes what a blob was kept as, after it was published in the other way: it goes once nobody reads it.

        After a restart what was left goes with the blob.
        """
        self._replaced.append(before)

    @property
    def has_rubbish(self) -> bool:
        """Whether `drop_unheld` has something to do. Also for the event loop."""
        waiting = {*self._spared, *(blob.digest for blob in self._replaced)}
        return self.due or (bool(waiting) and self._leases.has_let_go(waiting))

    def drop_unheld(self) -> Freeing:
        """Does what had to wait, in steps: jobs have let go of some blobs since, or something is `due`."""
        wanted = self.due or bool(self._spared)
        self.due, self._spared = False, set()
        freed = yield from self._drop_replaced()
        if wanted:
            freed += yield from self.collect()
        return freed

    def _drop_replaced(self) -> Freeing:
        """Trashes what blobs were kept as that nobody holds any more."""
        held = self._leases.held()
        due = [blob for blob in self._replaced if blob.digest not in held]
        self._replaced = [blob for blob in self._replaced if blob.digest in held]
        freed = 0
        for before in due:
            freed += yield from self._disposal.replaced(before)
        return freed

    # -- ingest directories ----------------------------------------------------------------------

    def abandoned(self) -> list[Digest]:
        """Blobs that were begun and that no pull and no job needs."""
        needed = self._leases.held()
        for manifest in self._names.pulls():
            needed |= {manifest, *self._children(manifest)}
        names = [path.name for path in self._layout.ingest.iterdir()]
        begun = {digest for name in names if (digest := object_name(name)) is not None}
        return sorted(begun - needed)

    def drop_ingest(self, directory: Path) -> int:
        """Trashes an ingest directory, and what a commit that was cut short has linked; bytes it had."""
        freed = 0
        linked: set[Digest] = set()
        recipes: set[Digest] = set()
        if directory.is_dir():
            for path in directory.iterdir():
                digest = object_name(path.name.removesuffix(RECIPE))
                if digest is None:
                    continue
                if path.name.endswith(RECIPE):
                    recipes.add(digest)
                elif path.stat().st_nlink > 1:
                    linked.add(digest)
                else:
                    freed += path.stat().st_size
        recipes = {digest for digest in recipes if self._database.blob(digest) is None}
        self._trash.put(directory)
        return freed + (at_once(self._disposal.steps(recipes, linked)) if linked or recipes else 0)

    def recover(self) -> None:
        """After a start: finishes or undoes what the last life left half done."""
        left = list(self._layout.ingest.iterdir())
        if left:
            # A commit may have been cut between its links and their flush; later ones rely on what they find.
            with sync.opened_directory(str(self._layout.root)) as descriptor:
                sync.sync_file_system(descriptor)
        for path in left:
            digest = object_name(path.name)
            if is_fresh(path.name) or (digest is not None and self._database.blob(digest) is not None):
                self.drop_ingest(path)
        self._snapshots.sweep()
        at_once(self.collect())


def _digest(text: str) -> Digest | None:
    try:
        return parse_digest(text)
    except (InvalidDigest, Unsupported):
        return None
