"""Blobs of the registry face: out whole or in ranges, in by sessions."""

import logging

import anyio
from aiohttp import web

from kitd.content.reader import BlobReader
from kitd.content.store import ContentStore
from kitd.server.distribution.byte_ranges import parse_range
from kitd.server.distribution.naming import ANY_TAG, own_name, reference_of
from kitd.server.distribution.refusal import Refusal
from kitd.server.distribution.uploads import Uploads
from kitd.spec.digest import Digest, parse_digest
from kitd_client.api.errors import KitdError

_log = logging.getLogger(__name__)

_PIECE = 1 << 20
_DEAF_SECONDS = 60.0
"""A client that takes nothing for so long is let go: it holds a blob open."""


class BlobRoutes:
    """Whatever blob is here is given to whoever can ask: access rules come later, hence loopback only."""

    def __init__(self, store: ContentStore, uploads: Uploads) -> None:
        self._store = store
        self._uploads = uploads

    async def get(self, request: web.Request) -> web.StreamResponse:
        """GET and HEAD, whole or one range of it."""
        reference_of(request, ANY_TAG)
        digest = parse_digest(request.match_info["digest"])
        with await self._store.open(digest) as reader:
            return await self._send(request, reader, digest)

    async def _send(self, request: web.Request, reader: BlobReader, digest: Digest) -> web.StreamResponse:
        try:
            asked = parse_range(request.headers.get("Range"), reader.size)
        except ValueError as error:
            headers = {"Content-Range": f"bytes */{reader.size}"}
            raise Refusal(416, "RANGE_INVALID", str(error), headers) from None
        wanted = range(reader.size) if asked is None else asked
        response = web.StreamResponse(
            status=200 if asked is None else 206,
            headers={
                "Content-Type": "application/octet-stream",
                "Content-Length": str(len(wanted)),
                "Docker-Content-Digest": digest,
                "Accept-Ranges": "bytes",
                "ETag": f'"{digest}"',
            },
        )
        if asked is not None:
            response.headers["Content-Range"] = f"bytes {wanted.start}-{wanted.stop - 1}/{reader.size}"
        await response.prepare(request)
        if request.method == "GET":
            await self._pour(request, response, reader, wanted)
        return response

    async def _pour(
        self, request: web.Request, response: web.StreamResponse, reader: BlobReader, wanted: range
    ) -> None:
        """Once the first byte is out, a failure can only be told by breaking off."""
        try:
            for start in wanted[::_PIECE]:
                piece = await self._store.work(reader.read, start, min(_PIECE, wanted.stop - start))
                with anyio.fail_after(_DEAF_SECONDS):
                    await response.write(piece)
        except (KitdError, ConnectionError, TimeoutError) as error:
            if isinstance(error, KitdError):
                _log.warning("%s broke off: %s", request.path, error.message)
            if request.transport is not None:
                request.transport.abort()

    async def begin_upload(self, request: web.Request) -> web.Response:
        """POST: a session; with `digest` the whole blob at once; with `mount` none, if the blob is here."""
        name = own_name(request)
        mount = request.query.get("mount")
        if mount is not None and await self._uploads.mount(parse_digest(mount)):
            return _created(name, parse_digest(mount))
        digest = request.query.get("digest")
        wanted = None if digest is None else parse_digest(digest)
        upload = await self._uploads.begin(name)
        if wanted is None:
            return web.Response(status=202, headers=upload.headers)
        async with self._uploads.session(name, upload.id):
            try:
                await self._uploads.append(upload, request.content, None, request.content_length)
                await self._uploads.commit(upload, wanted)
            finally:
                await self._uploads.discard(upload)
        return _created(name, wanted)

    async def show_upload(self, request: web.Request) -> web.Response:
        """GET: how far the session is."""
        async with self._uploads.session(own_name(request), request.match_info["upload"]) as upload:
            return web.Response(status=204, headers=upload.headers)

    async def append_upload(self, request: web.Request) -> web.Response:
        """PATCH: the next chunk, or the whole blob as a stream."""
        async with self._uploads.session(own_name(request), request.match_info["upload"]) as upload:
            await self._uploads.append(
                upload, request.content, request.headers.get("Content-Range"), request.content_length
            )
            return web.Response(status=202, headers=upload.headers)

    async def end_upload(self, request: web.Request) -> web.Response:
        """PUT: the last chunk, if there is one, and the digest that all of it must have."""
        name = own_name(request)
        digest = parse_digest(request.query.get("digest", ""))
        async with self._uploads.session(name, request.match_info["upload"]) as upload:
            await self._uploads.append(
                upload, request.content, request.headers.get("Content-Range"), request.content_length
            )
            await self._uploads.commit(upload, digest)
        return _created(name, digest)

    async def drop_upload(self, request: web.Request) -> web.Response:
        """DELETE: the session is over."""
        async with self._uploads.session(own_name(request), request.match_info["upload"]) as upload:
            await self._uploads.discard(upload)
        return web.Response(status=204)


def _created(name: str, digest: Digest) -> web.Response:
    return web.Response(
        status=201,
        headers={"Location": f"/v2/{name}/blobs/{digest}", "Docker-Content-Digest": digest},
    )
