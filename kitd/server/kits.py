"""The routes about kits in the store: list, inspect, info, tag, remove, path."""

from aiohttp import web

from kitd.server.middleware import answer, read_body
from kitd.server.verbs import Verbs
from kitd_client.api.errors import InvalidRequest
from kitd_client.api.jobs import PathRequest, TagRequest


class KitRoutes:
    """Each answers at once."""

    def __init__(self, verbs: Verbs) -> None:
        self._verbs = verbs

    async def list_kits(self, request: web.Request) -> web.Response:
        """GET /v1/kits?repository=NAME: every kit, or those of one repository."""
        return answer(await self._verbs.list_kits(request.query.get("repository", "")))

    async def inspect(self, request: web.Request) -> web.Response:
        """GET /v1/kits/{reference}."""
        return answer(await self._verbs.inspect(request.match_info["reference"]))

    async def info(self, request: web.Request) -> web.Response:
        """GET /v1/kits/{reference}/info."""
        return answer(await self._verbs.info(request.match_info["reference"]))

    async def remove(self, request: web.Request) -> web.Response:
        """DELETE /v1/kits/{reference}?force=1."""
        return answer(await self._verbs.remove(request.match_info["reference"], _force(request)))

    async def remove_all(self, request: web.Request) -> web.Response:
        """DELETE /v1/kits?force=1: the kits without a tag; by force all of them."""
        return answer(await self._verbs.remove_all(_force(request)))

    async def tag(self, request: web.Request) -> web.Response:
        """POST /v1/tag."""
        return answer(await self._verbs.tag(await read_body(request, TagRequest)))

    async def path(self, request: web.Request) -> web.Response:
        """POST /v1/path."""
        return answer(await self._verbs.path(await read_body(request, PathRequest)))


def _force(request: web.Request) -> bool:
    force = request.query.get("force", "0")
    if force not in {"0", "1"}:
        raise InvalidRequest(f"force is 0 or 1, not {force!r}")
    return force == "1"
