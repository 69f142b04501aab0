"""The store as an OCI registry (distribution specification 1.1), for pull and push on this machine.

`/v2/NAME` is the local kit NAME; with `?ns=HOST`, as a mirror is asked, it is `HOST/NAME`, read-only.
"""

import re
from urllib.parse import quote

import anyio
import msgspec
from aiohttp import web

from kitd.content.reader import BlobReader
from kitd.content.store import ContentStore, KitRecord
from kitd.server.byte_ranges import parse_range
from kitd.server.middleware import Activity, counting
from kitd.server.refusal import Refusal, refusals
from kitd.server.uploads import Uploads
from kitd.spec.digest import Digest, digest_of, parse_digest
from kitd.spec.kitfile import parse_config
from kitd.spec.media_types import MANIFEST
from kitd.spec.modelkit import Kit, join
from kitd.spec.oci import Manifest, parse_manifest
from kitd.spec.reference import Reference, parse_reference
from kitd_client.api.errors import InvalidReference

_MANIFEST_LIMIT = 4 << 20
_CONFIG_LIMIT = 1 << 20
_PIECE = 1 << 20
_BODY_SECONDS = 60.0
_DEAF_SECONDS = 60.0
"""A client that takes nothing for so long is let go: it holds a blob open."""
_NAME = "{name:.+}"


class _MediaType(msgspec.Struct, rename="camel"):
    media_type: str = MANIFEST


class Distribution:
    """The handlers. They see the store, and nothing of verbs and of other registries."""

    def __init__(self, store: ContentStore, uploads: Uploads) -> None:
        self._store = store
        self._uploads = uploads

    def routes(self) -> list[web.RouteDef]:
        """Every route of this face."""
        uploads = f"/v2/{_NAME}/blobs/uploads/"
        return [
            web.get("/v2/", self.base),
            web.get(f"/v2/{_NAME}/tags/list", self.list_tags, allow_head=False),
            web.get(f"/v2/{_NAME}/manifests/{{reference}}", self.get_manifest),
            web.put(f"/v2/{_NAME}/manifests/{{reference}}", self.put_manifest),
            web.post(uploads, self.begin_upload),
            web.get(uploads + "{upload}", self.show_upload, allow_head=False),
            web.patch(uploads + "{upload}", self.append_upload),
            web.put(uploads + "{upload}", self.end_upload),
            web.delete(uploads + "{upload}", self.drop_upload),
            web.get(f"/v2/{_NAME}/blobs/{{digest}}", self.get_blob),
        ]

    async def base(self, _request: web.Request) -> web.Response:
        """GET /v2/: this is a registry, and it asks for no credentials."""
        return web.json_response({}, headers={"Docker-Distribution-Api-Version": "registry/2.0"})

    # -- manifests and tags ----------------------------------------------------------------------

    async def get_manifest(self, request: web.Request) -> web.Response:
        """GET and HEAD: the very bytes that were stored."""
        record = await self._store.resolve(_reference(request, request.match_info["reference"]))
        if record is None:
            raise Refusal(
                404, "MANIFEST_UNKNOWN", f"there is no manifest {request.match_info['reference']} here"
            )
        data = await self._store.read(record.manifest, _MANIFEST_LIMIT)
        return web.Response(
            body=data,
            headers={
                "Content-Type": msgspec.json.decode(data, type=_MediaType).media_type or MANIFEST,
                "Docker-Content-Digest": record.manifest,
                "ETag": f'"{record.manifest}"',
            },
        )

    async def put_manifest(self, request: web.Request) -> web.Response:
        """PUT: every blob it names must be here; then the name is written."""
        reference = _own_reference(request, request.match_info["reference"])
        data = await _small_body(request, _MANIFEST_LIMIT)
        digest = digest_of(data)
        if reference.digest not in {None, digest}:
            raise Refusal(400, "DIGEST_INVALID", f"the manifest has the digest {digest}")
        manifest = parse_manifest(data)
        if manifest.media_type not in {None, "", request.content_type}:
            raise Refusal(
                400,
                "MANIFEST_INVALID",
                f"it says it is {manifest.media_type}, the request {request.content_type}",
            )
        with self._store.lease() as lease:
            for blob in (digest, manifest.config.digest, *(layer.digest for layer in manifest.layers)):
                lease.hold(blob)
            kit = await self._complete_kit(manifest)
            await self._store.add(data, digest)
            await self._store.tag(reference, await self._record(digest, kit))
        return web.Response(
            status=201,
            headers={
                "Location": f"/v2/{request.match_info['name']}/manifests/{digest}",
                "Docker-Content-Digest": digest,
            },
        )

    async def _complete_kit(self, manifest: Manifest) -> Kit:
        for descriptor in (manifest.config, *manifest.layers):
            if not await self._store.has(descriptor.digest):
                raise Refusal(400, "MANIFEST_BLOB_UNKNOWN", f"blob {descriptor.digest} is not here")
            size = await self._store.size(descriptor.digest)
            if size != descriptor.size:
                raise Refusal(
                    400,
                    "MANIFEST_INVALID",
                    f"blob {descriptor.digest} has {size} bytes, not {descriptor.size}",
                )
        return join(manifest, parse_config(await self._store.read(manifest.config.digest, _CONFIG_LIMIT)))

    async def _record(self, digest: Digest, kit: Kit) -> KitRecord:
        """A parent counts as resolved if it is here: from here nothing is fetched."""
        parent = await self._store.resolve(parse_reference(kit.parent)) if kit.parent else None
        return KitRecord(
            manifest=digest,
            selected=tuple(layer.descriptor.digest for layer in kit.layers),
            complete=True,
            parents=() if parent is None else (parent.manifest, *parent.parents),
        )

    async def list_tags(self, request: web.Request) -> web.Response:
        """GET /v2/NAME/tags/list?n=&last=: in lexical order, in pages."""
        name = _reference(request, "latest").name
        rows = [row for row in await self._store.tags() if row.name == name]
        if not rows:
            raise Refusal(404, "NAME_UNKNOWN", f"there is no repository {name} here")
        last, count = request.query.get("last", ""), request.query.get("n", "")
        if count and not re.fullmatch(r"[0-9]{1,9}", count):
            raise Refusal(400, "PAGINATION_NUMBER_INVALID", f"n is a number, not {count!r}")
        tags = sorted(row.tag for row in rows if row.tag is not None and row.tag > last)
        page = tags[: int(count)] if count else tags
        headers = {}
        if page and len(page) < len(tags):
            rest = f"n={count}&last={quote(page[-1])}"
            headers["Link"] = f'</v2/{request.match_info["name"]}/tags/list?{rest}>; rel="next"'
        return web.json_response({"name": request.match_info["name"], "tags": page}, headers=headers)

    # -- blobs -----------------------------------------------------------------------------------

    async def get_blob(self, request: web.Request) -> web.StreamResponse:
        """GET and HEAD, whole or one range of it."""
        _reference(request, "latest")
        digest = parse_digest(request.match_info["digest"])
        reader = await self._store.open(digest)
        try:
            return await self._send(request, reader, digest)
        finally:
            await self._store.work(reader.close)

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
        except BaseException:
            if request.transport is not None:
                request.transport.abort()
            raise

    # -- uploads ---------------------------------------------------------------------------------

    async def begin_upload(self, request: web.Request) -> web.Response:
        """POST: a session; with `digest` the whole blob at once; with `mount` none, if the blob is here."""
        name = _own_name(request)
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
        async with self._uploads.session(_own_name(request), request.match_info["upload"]) as upload:
            return web.Response(status=204, headers=upload.headers)

    async def append_upload(self, request: web.Request) -> web.Response:
        """PATCH: the next chunk, or the whole blob as a stream."""
        async with self._uploads.session(_own_name(request), request.match_info["upload"]) as upload:
            await self._uploads.append(
                upload, request.content, request.headers.get("Content-Range"), request.content_length
            )
            return web.Response(status=202, headers=upload.headers)

    async def end_upload(self, request: web.Request) -> web.Response:
        """PUT: the last chunk, if there is one, and the digest that all of it must have."""
        name = _own_name(request)
        digest = parse_digest(request.query.get("digest", ""))
        async with self._uploads.session(name, request.match_info["upload"]) as upload:
            await self._uploads.append(
                upload, request.content, request.headers.get("Content-Range"), request.content_length
            )
            await self._uploads.commit(upload, digest)
        return _created(name, digest)

    async def drop_upload(self, request: web.Request) -> web.Response:
        """DELETE: the session is over."""
        async with self._uploads.session(_own_name(request), request.match_info["upload"]) as upload:
            await self._uploads.discard(upload)
        return web.Response(status=204)


def make_registry(distribution: Distribution, activity: Activity) -> web.Application:
    """The registry face as an application."""
    app = web.Application(middlewares=[counting(activity), refusals])
    app.add_routes(distribution.routes())
    return app


def _reference(request: web.Request, name_or_digest: str) -> Reference:
    """What a request speaks of: a local kit, or one of the registry that `ns` names."""
    mark = "@" if ":" in name_or_digest else ":"
    name, space = request.match_info["name"], request.query.get("ns")
    if space is None:
        reference = parse_reference(f"{name}{mark}{name_or_digest}")
        if not reference.is_local or reference.repository != name:
            raise InvalidReference(f"{name} is no name of this registry: it begins like a host's")
        return reference
    reference = parse_reference(f"{space}/{name}{mark}{name_or_digest}")
    if reference.registry != space:
        raise InvalidReference(f"ns={space} is no registry")
    return reference


def _own_reference(request: web.Request, name_or_digest: str) -> Reference:
    """The same where something is written: what is said to be another registry's comes from there."""
    if "ns" in request.query:
        raise Refusal(405, "UNSUPPORTED", "what belongs to another registry is read here, not written")
    return _reference(request, name_or_digest)


def _own_name(request: web.Request) -> str:
    return _own_reference(request, "latest").repository


def _created(name: str, digest: Digest) -> web.Response:
    return web.Response(
        status=201,
        headers={"Location": f"/v2/{name}/blobs/{digest}", "Docker-Content-Digest": digest},
    )


async def _small_body(request: web.Request, limit: int) -> bytes:
    pieces: list[bytes] = []
    try:
        with anyio.fail_after(_BODY_SECONDS):
            while piece := await request.content.readany():
                pieces.append(piece)
                if sum(map(len, pieces)) > limit:
                    raise Refusal(413, "MANIFEST_INVALID", f"a manifest has at most {limit} bytes")
    except TimeoutError:
        raise Refusal(408, "MANIFEST_INVALID", f"it did not come within {_BODY_SECONDS:g} s") from None
    return b"".join(pieces)
