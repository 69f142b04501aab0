"""A blob in chunks, in order, each acknowledged (OCI distribution specification, "Chunked upload")."""

from http import HTTPStatus

from kitd.registry.pieces import Feed
from kitd.registry.repository import Repository
from kitd.registry.retry import RETRYABLE
from kitd.registry.session import Said, UploadSession
from kitd.registry.upload_rules import chunk_size, says_too_large, smaller_chunk, told
from kitd_client.api.errors import KitdError, RegistryUnavailable

_TROUBLES = 10
"""Failures of one session in all; then a new one."""
_NO_CHUNKS = frozenset({405, 501})


class UploadLostError(Exception):
    """A session is of no more use; another one may do.

    Args:
        error: for the user, when no other session helps.
        chunks: whether chunks may be tried again.
    """

    def __init__(self, error: KitdError, *, chunks: bool) -> None:
        super().__init__(error.message)
        self.error = error
        self.chunks = chunks


class Chunks:
    """The chunks of one session.

    What the registry says it has counts, not what was sent. Some repeat the end of the first chunk for ever:
    then sending from there again is refused, and our own count is right.
    """

    def __init__(self, session: UploadSession, feed: Feed, wanted: int, repository: Repository) -> None:
        self.doubtful = False
        """Something went wrong on the way; if the digest does not fit in the end, that is why."""
        self._session = session
        self._feed = feed
        self._chunk = chunk_size(wanted, session.minimum)
        self._clock = repository.clock
        self._backoff = repository.settings.backoff
        self._offset = 0
        self._claimed: int | None = None
        self._own_count = False
        self._troubles = 0

    async def send(self) -> None:
        """Send all chunks; the session is then to be closed with an empty PUT.

        Raises:
            UploadLostError: this session cannot be finished.
            Denied, PushRejected: the registry refuses.
        """
        while self._offset < self._feed.size:
            stop = min(self._offset + self._chunk, self._feed.size)
            try:
                said = await self._session.patch(self._feed, self._offset, stop)
            except RegistryUnavailable as error:
                await self._go_on(error)
                continue
            if said.status == HTTPStatus.ACCEPTED:
                await self._accepted(said, stop)
            else:
                await self._refused(said)

    async def _accepted(self, said: Said, stop: int) -> None:
        has = told(said.range, stop)
        if has is not None and has != stop and not self._own_count:
            has = await self._session.status(stop)
        if has is None or has == stop or self._own_count:
            self._offset, self._claimed = stop, None
            return
        self.doubtful = True
        if has > stop:
            raise UploadLostError(said.refusal.rejection(self._session.what), chunks=True)
        self._claimed, self._offset = stop, has
        self._count(said.refusal.rejection(self._session.what))

    async def _refused(self, said: Said) -> None:
        error = said.refusal.rejection(self._session.what)
        if says_too_large(said.status, said.refusal.words):
            smaller = smaller_chunk(self._chunk, said.refusal.words)
            if smaller is None:
                raise UploadLostError(error, chunks=False)
            self._chunk = smaller
        elif said.status == HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE:
            await self._misplaced(error)
        elif said.status in RETRYABLE:
            await self._go_on(error)
        elif said.status == HTTPStatus.NOT_FOUND:
            raise UploadLostError(error, chunks=True)
        elif said.status in _NO_CHUNKS or said.status < HTTPStatus.MULTIPLE_CHOICES:
            raise UploadLostError(error, chunks=False)
        else:
            raise error

    async def _misplaced(self, error: KitdError) -> None:
        """416: the registry wants another offset; if we went back because it said so, it counts wrongly."""
        if self._claimed is not None:
            self._offset, self._claimed, self._own_count = self._claimed, None, True
            return
        await self._go_on(error)

    async def _go_on(self, error: KitdError) -> None:
        """After a failure: wait, ask what is there, go on from there."""
        self.doubtful = True
        self._count(error)
        await self._clock.sleep(self._backoff.delay(self._troubles))
        try:
            has = await self._session.status(self._offset)
        except RegistryUnavailable as gone:
            raise UploadLostError(gone, chunks=True) from error
        if has is None or has > self._feed.size:
            raise UploadLostError(error, chunks=True)
        self._offset = has

    def _count(self, error: KitdError) -> None:
        self._troubles += 1
        if self._troubles > _TROUBLES:
            raise UploadLostError(error, chunks=False)
