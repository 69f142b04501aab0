"""Manifests and tags of the registry face."""

import re
from urllib.parse import quote

import anyio
import msgspec
from aiohttp import web

from kitd.content.store import ContentStore, KitRecord
from kitd.server.distribution.naming import ANY_TAG, own_reference, reference_of
from kitd.server.distribution.refusal import Refusal
from kitd.spec.digest import Digest, digest_of
from kitd.spec.kitfile import CONFIG_LIMIT, parse_config
from kitd.spec.media_types import MANIFEST
from kitd.spec.modelkit import Kit, join
from kitd.spec.oci import MANIFEST_LIMIT, Manifest, parse_manifest

_BODY_SECONDS = 60.0


class _MediaType(msgspec.Struct, rename="camel"):
    media_type: str | None = None


class ManifestRoutes:
    """A manifest that is pushed names a kit; whatever it speaks of must be here."""

    def __init__(self, store: ContentStore) -> None:
        self._store = store

    async def get(self, request: web.Request) -> web.Response:
        """GET and HEAD: the very bytes that were stored."""
        record = await self._store.resolve(reference_of(request, request.match_info["reference"]))
        if record is None:
            raise Refusal(
                404, "MANIFEST_UNKNOWN", f"there is no manifest {request.match_info['reference']} here"
            )
        data = await self._store.read(record.manifest, MANIFEST_LIMIT)
        return web.Response(
            body=data,
            headers={
                "Content-Type": msgspec.json.decode(data, type=_MediaType).media_type or MANIFEST,
                "Docker-Content-Digest": record.manifest,
                "ETag": f'"{record.manifest}"',
            },
        )

    async def put(self, request: web.Request) -> web.Response:
        """PUT: every blob it names must be here; then the name is written."""
        reference = own_reference(request, request.match_info["reference"])
        data = await _small_body(request, MANIFEST_LIMIT)
        digest = digest_of(data)
        if reference.digest not in {None, digest}:
            raise Refusal(400, "DIGEST_INVALID", f"the manifest has the digest {digest}")
        manifest = await self._store.work(parse_manifest, data)
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
        config = await self._store.read(manifest.config.digest, CONFIG_LIMIT)
        return await self._store.work(lambda: join(manifest, parse_config(config)))

    async def _record(self, digest: Digest, kit: Kit) -> KitRecord:
        """A parent counts as resolved if it is here: from here nothing is fetched."""
        parent = await self._store.resolve(kit.parent) if kit.parent else None
        return KitRecord(
            manifest=digest,
            selected=tuple(layer.descriptor.digest for layer in kit.layers),
            complete=True,
            parents=() if parent is None else (parent.manifest, *parent.parents),
        )

    async def list_tags(self, request: web.Request) -> web.Response:
        """GET /v2/NAME/tags/list?n=&last=: in lexical order, in pages."""
        name = reference_of(request, ANY_TAG).name
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


async def _small_body(request: web.Request, limit: int) -> bytes:
    body = bytearray()
    try:
        with anyio.fail_after(_BODY_SECONDS):
            while piece := await request.content.readany():
                body += piece
                if len(body) > limit:
                    raise Refusal(413, "MANIFEST_INVALID", f"a manifest has at most {limit} bytes")
    except TimeoutError:
        raise Refusal(408, "MANIFEST_INVALID", f"it did not come within {_BODY_SECONDS:g} s") from None
    return bytes(body)
