"""From a sealed ingest to a visible blob. The order is the promise that a digest never lies.

    1 data synced      the bytes of every file are safe
    2 linked           names in objects/ and recipes/
    3 directories      those names are safe
    4 one transaction  the blob is visible
    5 ingest directory to the trash

A crash between two steps leaves files that nothing names, and an ingest directory that tells which.
"""

import os
import sqlite3
from collections.abc import Sequence
from contextlib import suppress
from typing import Final

import anyio

from kitd.content import sync
from kitd.content.database import Blob, Database
from kitd.content.layout import RECIPE
from kitd.content.objects import Objects, object_name
from kitd.content.trash import Trash
from kitd.content.workers import Workers
from kitd.content.writer import Sealed
from kitd.spec.digest import digest_hex
from kitd_client.api.errors import KitdError

_LINKED: Final = 2
"""A file with that many names was linked from an object: its data is safe already."""


class _Request:
    def __init__(self, sealed: Sealed) -> None:
        self.sealed = sealed
        self.done = False
        self.error: Exception | None = None


class Publisher:
    """Publishes sealed ingests; those that come meanwhile go together, in one transaction."""

    def __init__(self, objects: Objects, database: Database, trash: Trash, workers: Workers) -> None:
        self._objects = objects
        self._database = database
        self._trash = trash
        self._workers = workers
        self._turn = anyio.Lock()
        self._requests: list[_Request] = []

    async def publish(self, sealed: Sealed) -> None:
        """Makes a blob durable and visible.

        After a failed flush the ingest directory is in the trash: what the disk still shows of it proves
        nothing.

        Raises:
            NoSpace: the disk is full.
            StorageIo: it failed.
        """
        try:
            await self._workers.flush(_sync_files, sealed)
        except Exception:  # not a cancellation: that comes before the flush begins, and the bytes stay
            await self._workers.finish(self._trash.put, sealed.directory)
            raise
        # From here on a half-done step would be redone by the next life only: it is short, so it is finished.
        with anyio.CancelScope(shield=True):
            await self._together(_Request(sealed))

    async def _together(self, request: _Request) -> None:
        self._requests.append(request)
        async with self._turn:
            if not request.done:
                batch, self._requests = self._requests, []
                await self._publish_all(batch)
        if request.error is not None:
            raise request.error

    async def _publish_all(self, batch: Sequence[_Request]) -> None:
        try:
            alone = await self._workers.commit(self._publish, batch)
        except Exception as error:  # noqa: BLE001 (each of the batch raises it in its own task)
            alone = []
            for request in batch:
                request.error = error
        for request in alone:
            await self._publish_all([request])
        for request in batch:
            request.done = True

    def _publish(self, batch: Sequence[_Request]) -> list[_Request]:
        """Publishes a batch, but for those of it that cannot be linked: alone, they raise why.

        After a failed flush nothing is tried again: the next flush would prove nothing.
        """
        linked: list[_Request] = []
        touched: set[str] = set()
        with self._objects.turn:  # what is judged bad meanwhile is judged again after this
            for request in batch:
                try:
                    touched |= self._link(request.sealed)
                except (OSError, sqlite3.Error, KitdError):
                    if len(batch) == 1:
                        raise
                else:
                    linked.append(request)
            sync.sync_directories(sorted(touched))
            self._database.publish(
                [
                    Blob(request.sealed.digest, request.sealed.size, request.sealed.recipe)
                    for request in linked
                ]
            )
        for request in linked:
            with suppress(OSError):  # it is visible: what cannot be put aside now is, at the next start
                self._trash.put(request.sealed.directory)
        return [request for request in batch if request not in linked]

    def _link(self, sealed: Sealed) -> set[str]:
        touched = set()
        with os.scandir(sealed.directory) as entries:
            for entry in entries:
                digest = object_name(entry.name)
                if digest is not None:
                    touched.add(self._objects.place(entry.path, digest))
        if sealed.recipe:
            source = f"{sealed.directory}/{digest_hex(sealed.digest)}{RECIPE}"
            touched.add(self._objects.place_recipe(source, sealed.digest))
            self._objects.require(sealed.digest)
        return touched


def _sync_files(sealed: Sealed) -> None:
    paths: list[str] = []
    size = 0
    with os.scandir(sealed.directory) as entries:
        for entry in entries:
            if object_name(entry.name) is not None or entry.name.endswith(RECIPE):
                status = entry.stat(follow_symlinks=False)
                if status.st_nlink < _LINKED:
                    paths.append(entry.path)
                    size += status.st_size
    sync.sync_data(paths, size, sealed.since)
