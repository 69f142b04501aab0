"""Blobs on their way into the store through the registry face: one session each, in memory."""

import math
import secrets
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager
from time import monotonic
from typing import Self

import anyio
from aiohttp import ClientPayloadError, StreamReader, web

from kitd.content.ingest import BlobIngest
from kitd.content.store import ContentStore
from kitd.server.distribution.byte_ranges import parse_content_range
from kitd.server.distribution.refusal import Refusal
from kitd.spec.digest import Digest

_BATCH = 1 << 20
_SILENCE_SECONDS = 60.0
"""A client that sends nothing for so long is gone; what it sent stays with the session."""
_KEPT_SECONDS = 3600.0
"""A session without a request, and a blob without a manifest, are kept for an hour."""
_SWEEP_SECONDS = 60.0
_SESSIONS = 256


class Upload:
    """One session: a blob that grows."""

    def __init__(self, name: str, ingest: BlobIngest, stack: AsyncExitStack) -> None:
        self.id = secrets.token_hex(16)
        self.name = name
        self.ingest = ingest
        self.stack = stack
        self.touched = monotonic()
        self.lock = anyio.Lock()

    @property
    def headers(self) -> dict[str, str]:
        """Where to go on, and from which byte."""
        return {
            "Location": f"/v2/{self.name}/blobs/uploads/{self.id}",
            "Range": f"0-{max(0, self.ingest.offset - 1)}",
            "Docker-Upload-UUID": self.id,
        }


class Uploads:
    """Owns every session, and the leases of blobs that no manifest names yet."""

    def __init__(self, store: ContentStore) -> None:
        self._store = store
        self._sessions: dict[str, Upload] = {}
        self._leases: dict[Digest, tuple[ExitStack, float]] = {}
        self._owned = AsyncExitStack()

    async def __aenter__(self) -> Self:
        tasks = await self._owned.enter_async_context(anyio.create_task_group())
        self._owned.callback(tasks.cancel_scope.cancel)
        tasks.start_soon(self._sweep)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._owned.aclose()
        await self._expire(-math.inf)

    async def begin(self, name: str) -> Upload:
        """Opens a session; raises `Refusal` when there are too many."""
        if len(self._sessions) >= _SESSIONS:
            raise Refusal(429, "TOOMANYREQUESTS", f"there are {_SESSIONS} uploads under way")
        stack = AsyncExitStack()
        upload = Upload(name, await stack.enter_async_context(self._store.new_blob()), stack)
        self._sessions[upload.id] = upload
        return upload

    @asynccontextmanager
    async def session(self, name: str, upload_id: str) -> AsyncIterator[Upload]:
        """The session of that id, for one request at a time; raises `Refusal`."""
        upload = self._sessions.get(upload_id)
        if upload is None or upload.name != name:
            raise Refusal(404, "BLOB_UPLOAD_UNKNOWN", "there is no such upload, or not any more")
        try:
            upload.lock.acquire_nowait()
        except anyio.WouldBlock:
            raise Refusal(409, "BLOB_UPLOAD_INVALID", "another request of this upload is under way") from None
        try:
            yield upload
        finally:
            upload.touched = monotonic()
            upload.lock.release()

    async def append(
        self, upload: Upload, content: StreamReader, content_range: str | None, length: int | None
    ) -> None:
        """Appends a request's body. What had come when it breaks off stays.

        Raises:
            Refusal: the chunk does not begin where the session is (416), or says another length than it has.
        """
        if content_range is not None:
            _check_chunk(upload, content_range, length)
        batch: list[bytes] = []
        gathered = 0
        while True:
            piece, broken = await _next_piece(content)
            batch.append(piece)
            gathered += len(piece)
            if gathered >= _BATCH or (gathered and not piece):
                await self._store.work(upload.ingest.append, batch)
                batch, gathered = [], 0
            if broken is not None:
                raise broken
            if not piece:
                return

    async def commit(self, upload: Upload, digest: Digest) -> None:
        """Ends a session: its blob is in the store, leased. A wrong digest ends it too.

        Raises:
            DigestMismatch: the bytes have another digest.
        """
        known = digest in self._leases
        self._hold(digest)
        try:
            await upload.ingest.commit(digest)
        except BaseException:
            if not known:
                self._release(digest)
            raise
        finally:
            await self.discard(upload)

    async def mount(self, digest: Digest) -> bool:
        """Whether a blob is here already; then it is leased too."""
        known = digest in self._leases
        self._hold(digest)
        if await self._store.has(digest):
            return True
        if not known:
            self._release(digest)
        return False

    async def discard(self, upload: Upload) -> None:
        """Ends a session; what was not committed is forgotten."""
        self._sessions.pop(upload.id, None)
        await upload.stack.aclose()

    def _hold(self, digest: Digest) -> None:
        """Spares a blob from collection until its manifest comes: an hour, or until the daemon ends."""
        stack, _ = self._leases.get(digest) or (ExitStack(), 0.0)
        if digest not in self._leases:
            stack.enter_context(self._store.lease()).hold(digest)
        self._leases[digest] = stack, monotonic()

    def _release(self, digest: Digest) -> None:
        stack, _ = self._leases.pop(digest)
        stack.close()

    async def _sweep(self) -> None:
        while True:
            await anyio.sleep(_SWEEP_SECONDS)
            await self._expire(_KEPT_SECONDS)

    async def _expire(self, age: float) -> None:
        before = monotonic() - age
        for upload in list(self._sessions.values()):
            if upload.touched < before and (not upload.lock.locked() or age < 0):
                await self.discard(upload)
        expired = [digest for digest, (_, since) in self._leases.items() if since < before]
        for digest in expired:
            self._release(digest)
        if expired:
            self._store.sweep()  # no manifest may ever have named them


async def _next_piece(content: StreamReader) -> tuple[bytes, Refusal | None]:
    """What comes next; nothing at the end, and why if that is too early."""
    try:
        with anyio.fail_after(_SILENCE_SECONDS):
            return await content.readany(), None
    except TimeoutError:
        return b"", Refusal(408, "BLOB_UPLOAD_INVALID", f"no byte came for {_SILENCE_SECONDS:g} s")
    except (web.RequestPayloadError, ClientPayloadError, ConnectionError):
        return b"", Refusal(400, "BLOB_UPLOAD_INVALID", "the body broke off")


def _check_chunk(upload: Upload, content_range: str, length: int | None) -> None:
    try:
        chunk = parse_content_range(content_range)
    except ValueError as error:
        raise Refusal(400, "BLOB_UPLOAD_INVALID", f"Content-Range: {error}") from None
    if chunk.start != upload.ingest.offset:
        raise Refusal(
            416,
            "BLOB_UPLOAD_INVALID",
            f"the chunk begins at {chunk.start}, the upload goes on at {upload.ingest.offset}",
            upload.headers,
        )
    if length is not None and length != len(chunk):
        raise Refusal(400, "SIZE_INVALID", f"Content-Range says {len(chunk)} bytes, Content-Length {length}")
