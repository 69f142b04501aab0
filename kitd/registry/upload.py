"""Pushing: blobs first, manifests last, their bytes as they are."""

from collections.abc import Awaitable, Callable, Sequence
from http import HTTPStatus
from urllib.parse import quote

from kitd.registry.answer import read_refusal
from kitd.registry.chunks import Chunks, UploadLostError
from kitd.registry.line import Call
from kitd.registry.pieces import BlobSource, Feed, Work
from kitd.registry.repository import Repository
from kitd.registry.retry import RETRYABLE
from kitd.registry.session import UploadSession, open_session
from kitd.registry.upload_rules import monolithic_only
from kitd.spec.digest import digest_of
from kitd.spec.oci import Descriptor
from kitd_client.api.errors import DigestMismatch, PushRejected, RegistryUnavailable

__all__ = ["BlobSource", "BlobsMissing", "Work", "push_blob", "push_manifest"]

_DONE = frozenset({HTTPStatus.OK, HTTPStatus.CREATED, HTTPStatus.NO_CONTENT})
_TOO_LONG = frozenset({408, 413, 500, 502, 503, 504})
"""What proxies in front of a registry answer to a body that is too large or takes too long."""
_MISSING = ("MANIFEST_BLOB_UNKNOWN", "BLOB_UNKNOWN")


class BlobsMissing(PushRejected):
    """The registry lacks blobs of the manifest, whatever it said before: push them again, once."""


async def push_blob(
    repository: Repository,
    descriptor: Descriptor,
    reader: BlobSource,
    *,
    work: Work,
    mount_from: Sequence[str],
    turn: Callable[[], Awaitable[None]],
    sent: Callable[[int], None],
) -> None:
    """Make a blob be in a repository: it is there, or it is mounted from another one, or it is sent.

    In one piece; in chunks where that is better and the registry takes them. After a failure chunks go on
    behind the last one acknowledged.

    Args:
        repository: where to.
        descriptor: the blob.
        reader: its bytes.
        work: runs `reader.read` in a worker thread.
        mount_from: repositories of the same registry that may have it.
        turn: waits until bytes may go out; awaited with the upload open, again for each new attempt.
        sent: told how many bytes went out; each byte counts once, however often it is sent.

    Raises:
        Unauthorized, Denied, RealmUntrusted: the registry does not let us push.
        PushRejected: it does not take the blob.
        RateLimited, RegistryUnavailable, TlsFailed, RedirectBlocked, RegistryProtocol: as for every request.
    """
    if await _is_there(repository, descriptor):
        return
    feed = Feed(reader, work, repository.settings.upload.piece, repository.rates, sent)
    upload = _Upload(repository, descriptor, feed, turn)
    await upload.run([name for name in mount_from if name != repository.name])


async def push_manifest(repository: Repository, reference: str, data: bytes, media_type: str) -> None:
    """Store a manifest under a tag or its digest, byte for byte.

    Raises:
        BlobsMissing: the registry lacks blobs of it.
        PushRejected: it does not take the manifest.
        DigestMismatch: it says that it stored other bytes.
        Unauthorized, Denied, RealmUntrusted: it does not let us push.
        RateLimited, RegistryUnavailable, TlsFailed, RegistryProtocol: as for every request.
    """
    what = f"manifest {reference} of {repository.source}"
    call = Call(
        "PUT",
        repository.url(f"manifests/{quote(reference, safe=':')}"),
        {"Content-Type": media_type},
        data,
        patience=repository.settings.commit_timeout,
    )
    async with repository.endpoint.asked(call, repository.push_scopes) as answer:
        if answer.response.status not in _DONE:
            refusal = await read_refusal(answer.response, answer.route)
            if any(map(refusal.has, _MISSING)):
                raise BlobsMissing(
                    f"{what}: {refusal.host} lacks blobs of it, {refusal.words}", host=refusal.host
                )
            raise refusal.rejection(what)
        stored = answer.response.headers.get("Docker-Content-Digest", "")
        digest = digest_of(data)
        if stored.startswith("sha256:") and stored != digest:
            raise DigestMismatch(
                f"{what}: {answer.route.name} stored {stored}, not {digest}", expected=digest, found=stored
            )


async def _is_there(repository: Repository, descriptor: Descriptor) -> bool:
    call = Call("HEAD", repository.url(f"blobs/{descriptor.digest}"))
    async with repository.endpoint.asked(call, repository.push_scopes) as answer:
        if answer.response.status in RETRYABLE:
            refusal = await read_refusal(answer.response, answer.route)
            raise refusal.error(f"blob {descriptor.digest} of {repository.source}")
        return answer.response.status < HTTPStatus.BAD_REQUEST


class _Upload:
    """One blob, through as many sessions as it takes."""

    def __init__(
        self,
        repository: Repository,
        descriptor: Descriptor,
        feed: Feed,
        turn: Callable[[], Awaitable[None]],
    ) -> None:
        self._repository = repository
        self._descriptor = descriptor
        self._feed = feed
        self._turn = turn
        self._settings = repository.settings.upload
        self._takes_chunks = not monolithic_only(repository.endpoint.route.host)
        self._chunked = self._takes_chunks and descriptor.size > self._settings.monolithic_max

    async def run(self, mount_from: list[str]) -> None:
        backoff, clock = self._repository.settings.backoff, self._repository.clock
        failures = 0
        while True:
            session = await open_session(self._repository, self._descriptor.digest, mount_from)
            if session is None:
                return
            try:
                await self._turn()
                await self._through(session)
            except UploadLostError as lost:
                await session.abandon()
                failures += 1
                if failures >= backoff.attempts:
                    raise lost.error from lost
                self._takes_chunks = self._takes_chunks and lost.chunks
            except BaseException:
                await session.abandon()
                raise
            else:
                return
            await clock.sleep(backoff.delay(failures))
            if await _is_there(self._repository, self._descriptor):
                return
            mount_from = []

    async def _through(self, session: UploadSession) -> None:
        if self._chunked and self._takes_chunks:
            await self._in_chunks(session)
        else:
            await self._in_one_piece(session)

    async def _in_one_piece(self, session: UploadSession) -> None:
        try:
            said = await session.put(self._descriptor.digest, self._feed, 0)
        except RegistryUnavailable as error:
            self._prefer_chunks()
            raise UploadLostError(error, chunks=True) from error
        if said.status in _DONE:
            return
        refused = said.refusal.rejection(self._what)
        too_large = said.status == HTTPStatus.REQUEST_ENTITY_TOO_LARGE and self._takes_chunks
        if said.status in _TOO_LONG:
            self._prefer_chunks()
        if said.status in RETRYABLE or said.status == HTTPStatus.NOT_FOUND or (too_large and self._chunked):
            raise UploadLostError(refused, chunks=True)
        raise refused

    async def _in_chunks(self, session: UploadSession) -> None:
        chunks = Chunks(session, self._feed, self._settings.chunk, self._repository)
        await chunks.send()
        try:
            said = await session.put(self._descriptor.digest, self._feed, self._feed.size)
        except RegistryUnavailable as error:
            raise UploadLostError(error, chunks=True) from error
        if said.status in _DONE:
            return
        refused = said.refusal.rejection(self._what)
        if said.status in RETRYABLE or said.status == HTTPStatus.NOT_FOUND:
            raise UploadLostError(refused, chunks=True)
        if said.status == HTTPStatus.BAD_REQUEST and chunks.doubtful:
            raise UploadLostError(refused, chunks=False)
        raise refused

    def _prefer_chunks(self) -> None:
        """So that the next failure costs a chunk only."""
        self._chunked = self._descriptor.size > self._settings.chunk

    @property
    def _what(self) -> str:
        return f"blob {self._descriptor.digest} of {self._repository.source}"
