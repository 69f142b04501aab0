"""Files that nothing needs any more go to the trash, in steps: whoever commits waits for one step at most.

Between two steps blobs may be published that need what was about to go. So before each step everything visible is
looked at that was not looked at before.
"""

# Paths come by the hundred thousand here: they stay plain strings.
# ruff: noqa: PTH110, PTH116, PTH208

import os
from collections.abc import Generator, Iterable, Iterator
from contextlib import suppress
from itertools import islice
from typing import Final, TypeAlias

from kitd.content.database import Blob, Database
from kitd.content.layout import Layout
from kitd.content.objects import Objects, object_name
from kitd.content.trash import Trash
from kitd.spec.digest import Digest
from kitd_client.api.errors import ObjectDamaged

Freeing: TypeAlias = Generator[None, None, int]
"""Work in steps of some 20 ms, in the thread that publishes; in the end, how many bytes of files it freed."""

_MARKED: Final = 20_000
"""References looked at in one step."""
_MOVED: Final = 500
"""Files moved in one step."""


class Disposal:
    """Takes files out of `objects/` and `recipes/`. One run at a time: two would spare for each other."""

    def __init__(self, layout: Layout, database: Database, objects: Objects, trash: Trash) -> None:
        self._layout = layout
        self._database = database
        self._objects = objects
        self._trash = trash

    def steps(self, dead: Iterable[Digest], candidates: Iterable[Digest] = ()) -> Freeing:
        """Trashes the recipes and objects of dead blobs, and `candidates`, unless something else needs them.

        Args:
            dead: blobs of which no visible row is left.
            candidates: more objects that may have lost their last use.
        """
        gone = set(dead)
        doomed = {*gone, *candidates}
        for digest in gone:
            for some in self._references(digest):
                doomed.update(some)
                yield
        lost = any(
            blob.recipe and not os.path.exists(self._layout.recipe(blob.digest))
            for blob in self._database.blobs()
            if blob.digest in gone
        )
        freed = yield from self._objects_of(gone, doomed)
        # Recipes last: whoever goes on after a crash finds the objects by them.
        for part in _parts(gone):
            for digest in part - self._database.visible():
                self._trash.put(self._layout.recipe(digest))
            yield
        if lost:
            freed += yield from self._orphans()
        return freed

    def replaced(self, before: Blob) -> Freeing:
        """Trashes what a blob was kept as, unless it is gone, or kept so again."""
        candidates = set() if before.recipe else {before.digest}
        if before.recipe:
            for some in self._references(before.digest):
                candidates.update(some)
                yield
        now = self._database.blob(before.digest)
        if now is None or now.recipe == before.recipe:
            return 0
        if before.recipe:
            self._trash.put(self._layout.recipe(before.digest))
        return (yield from self._objects_of(set(), candidates))

    def _objects_of(self, gone: set[Digest], doomed: set[Digest]) -> Freeing:
        """Trashes those of the doomed objects that no blob refers to, but for the ones that are gone."""
        freed = 0
        looked_at: set[Blob] = set()
        state = -1
        while doomed:
            while state != self._database.publications:
                state = self._database.publications
                back = gone & self._database.visible()
                for blob in self._database.blobs():
                    if blob in looked_at or (blob.digest in gone and blob.digest not in back):
                        continue
                    if (yield from self._spare(blob, doomed)):
                        looked_at.add(blob)
            # Nothing was published since: no step ended between the look and this.
            for _ in range(min(_MOVED, len(doomed))):
                freed += self._trash_object(doomed.pop())
            yield
        return freed

    def _spare(self, blob: Blob, doomed: set[Digest]) -> Generator[None, None, bool]:
        """False: its recipe could not be read. Should it be published again, it looks the same as before."""
        if not blob.recipe:
            doomed.discard(blob.digest)
            return True
        known = False
        for some in self._references(blob.digest):
            known = True
            doomed.difference_update(some)
            yield
        return known

    def _references(self, digest: Digest) -> Iterator[list[Digest]]:
        """What a blob's recipe refers to, a part at a time; nothing if there is none that can be read."""
        if not os.path.exists(self._layout.recipe(digest)):
            return
        with suppress(ObjectDamaged):
            stored = self._objects.open_recipe(digest)
            try:
                references = (other for other, _ in stored.recipe.objects())
                while some := list(islice(references, _MARKED)):
                    yield some
            finally:
                stored.close()

    def _orphans(self) -> Freeing:
        """A recipe was damaged: what it referred to is found by going through all objects, a part at a time."""
        freed = 0
        for folder in sorted(self._layout.objects.iterdir()):
            named = (object_name(name) for name in os.listdir(folder))
            freed += yield from self._objects_of(set(), {digest for digest in named if digest is not None})
        return freed

    def _trash_object(self, digest: Digest) -> int:
        freed = 0
        for path in (self._layout.object(digest), self._layout.executable(digest)):
            try:
                status = os.stat(path, follow_symlinks=False)
            except FileNotFoundError:
                continue
            # Trees that `path` made have more names of it; they are in the trash already, or it were alive.
            freed += status.st_size
            self._trash.put(path)
        return freed


def _parts(digests: set[Digest]) -> Iterator[set[Digest]]:
    left = iter(digests)
    while some := set(islice(left, _MOVED)):
        yield some


def at_once(steps: Freeing) -> int:
    """All steps without a pause, where nobody waits; the bytes freed."""
    while True:
        try:
            next(steps)
        except StopIteration as end:
            return int(end.value)
