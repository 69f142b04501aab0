"""The routes about the daemon itself."""

from collections.abc import Awaitable, Callable

from aiohttp import web

from kitd.server.middleware import UID, answer, read_body
from kitd.server.verbs import Verbs
from kitd_client.api.jobs import RegistryCheck
from kitd_client.api.kits import Status, Version


class StateRoutes:
    """What this daemon is, and how it is doing."""

    def __init__(self, verbs: Verbs, version: Version, status: Callable[[], Awaitable[Status]]) -> None:
        self._verbs = verbs
        self._version = version
        self._status = status

    async def version(self, _request: web.Request) -> web.Response:
        """GET /v1/version."""
        return answer(self._version)

    async def status(self, _request: web.Request) -> web.Response:
        """GET /v1/status."""
        return answer(await self._status())

    async def healthz(self, _request: web.Request) -> web.Response:
        """GET /v1/healthz: the loop answers."""
        return web.Response(text="ok\n")

    async def check_registry(self, request: web.Request) -> web.Response:
        """POST /v1/check-registry: asks a registry with the credential that came along; stores nothing."""
        await self._verbs.check_registry(await read_body(request, RegistryCheck), request[UID])
        return web.Response(status=204)
