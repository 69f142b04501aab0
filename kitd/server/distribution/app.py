"""The registry face as an application: one table says what there is."""

from aiohttp import web

from kitd.content.store import ContentStore
from kitd.server.distribution.blobs import BlobRoutes
from kitd.server.distribution.manifests import ManifestRoutes
from kitd.server.distribution.refusal import refusals
from kitd.server.distribution.uploads import Uploads
from kitd.server.middleware import Activity, counting

_NAME = "/v2/{name:.+}"
_UPLOADS = f"{_NAME}/blobs/uploads/"


def make_registry(store: ContentStore, uploads: Uploads, activity: Activity) -> web.Application:
    """Serves the store; what is pushed comes in through `uploads`."""
    manifests, blobs = ManifestRoutes(store), BlobRoutes(store, uploads)
    app = web.Application(middlewares=[counting(activity), refusals])
    app.add_routes(
        [
            web.get("/v2/", _base),
            web.get(f"{_NAME}/tags/list", manifests.list_tags, allow_head=False),
            web.get(f"{_NAME}/manifests/{{reference}}", manifests.get),
            web.put(f"{_NAME}/manifests/{{reference}}", manifests.put),
            web.post(_UPLOADS, blobs.begin_upload),
            web.get(f"{_UPLOADS}{{upload}}", blobs.show_upload, allow_head=False),
            web.patch(f"{_UPLOADS}{{upload}}", blobs.append_upload),
            web.put(f"{_UPLOADS}{{upload}}", blobs.end_upload),
            web.delete(f"{_UPLOADS}{{upload}}", blobs.drop_upload),
            web.get(f"{_NAME}/blobs/{{digest}}", blobs.get),
        ]
    )
    return app


async def _base(_request: web.Request) -> web.Response:
    """GET /v2/: this is a registry, and it asks for no credentials."""
    return web.json_response({}, headers={"Docker-Distribution-Api-Version": "registry/2.0"})
