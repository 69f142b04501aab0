"""Blobs being written, as the rest of the daemon sees them."""

from collections.abc import Awaitable, Callable, Sequence

import msgspec

from kitd.content.flight import Flight
from kitd.content.intake import Intake
from kitd.content.workers import Workers
from kitd.content.writer import Sealed
from kitd.spec.digest import Buffer, Digest
from kitd_client.api.errors import SizeMismatch

Commit = Callable[[Sealed], Awaitable[bool]]
"""Makes a sealed blob visible; False: it was visible already."""


class LayerResult(msgspec.Struct, frozen=True):
    """A blob that was written here and is visible now."""

    digest: Digest
    size: int
    already_present: bool
    """The store had it before."""


class BlobIngest:
    """A blob that this caller writes, from `offset` on.

    `append` belongs in a worker thread, one call at a time; everything else on the event loop.
    """

    def __init__(
        self,
        intake: Intake,
        workers: Workers,
        commit: Commit,
        *,
        digest: Digest | None,
        size: int | None,
        flight: Flight,
    ) -> None:
        self._intake = intake
        self._workers = workers
        self._commit = commit
        self._digest = digest
        self._size = size
        self._flight = flight
        self.committed = False

    @property
    def offset(self) -> int:
        """Bytes that are here and hashed; the next byte to append is that one."""
        return self._intake.offset

    def append(self, pieces: Sequence[Buffer]) -> None:
        """The next bytes of the blob. When this returns they survive the death of the daemon.

        Raises:
            SizeMismatch: they are more than the descriptor says.
            OSError: of the disk; what was appended before is kept.
        """
        coming = sum(len(piece) for piece in pieces)
        if self._size is not None and self.offset + coming > self._size:
            raise SizeMismatch(
                f"blob {self._digest}: more bytes came than the {self._size} of its descriptor",
                kept="the bytes that came before",
                digest=self._digest or "",
            )
        self._intake.append(pieces)

    def hand_over_wanted(self) -> bool:
        """Whether somebody waits who could go on now; he does as soon as the context is left."""
        return self._flight.hand_over_wanted()

    def when_somebody_waits(self, call: Callable[[], None]) -> None:
        """From now on, until the context is left, `call` is called whenever somebody begins to wait."""
        self._flight.arrival = call

    def moved(self, host: str, count: int) -> None:
        """Tells those who wait that `count` more bytes came from `host`."""
        self._flight.moved(host, count)

    async def restart(self) -> None:
        """Drops every byte: the next to append is the first."""
        await self._workers.work(self._intake.restart)
        self._flight.restarted()

    async def commit(self, expected: Digest | None = None) -> LayerResult:
        """Verifies the blob and makes it visible, durably.

        Args:
            expected: the digest, if it was not known when the ingest was opened.

        Raises:
            SizeMismatch: bytes are missing.
            DigestMismatch: they are others.
            NoSpace: the disk is full.
            StorageIo: it failed.
        """
        sealed = await self._workers.work(self._intake.seal, expected or self._digest, self._size)
        # Whatever comes of it, this intake writes no more: a failed flush takes its directory away.
        self._intake.broken = True
        new = await self._commit(sealed)
        self.committed = True
        return LayerResult(sealed.digest, sealed.size, already_present=not new)
