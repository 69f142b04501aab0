"""The API of the Unix socket: one table says what there is."""

from http import HTTPStatus

import msgspec
from aiohttp import web

from kitd.server.jobs import JobRoutes
from kitd.server.kits import KitRoutes
from kitd.server.middleware import (
    BODY_LIMIT,
    Activity,
    admitting,
    counting,
    mark_version,
    problems,
)
from kitd.server.peers import Door
from kitd.server.state import StateRoutes
from kitd.server.upgrade import UpgradeRoutes
from kitd_client.api import API_VERSION
from kitd_client.api.errors import Internal, InvalidRequest


def route_table(
    state: StateRoutes, kits: KitRoutes, jobs: JobRoutes, upgrades: UpgradeRoutes
) -> list[web.RouteDef]:
    """Every route of the API. A reference in a path is quoted whole."""
    return [
        web.get("/v1/version", state.version),
        web.get("/v1/status", state.status),
        web.get("/v1/healthz", state.healthz),
        web.post("/v1/check-registry", state.check_registry),
        web.post("/v1/pull", jobs.pull),
        web.post("/v1/push", jobs.push),
        web.get("/v1/jobs", jobs.list_jobs),
        web.get("/v1/jobs/{id}", jobs.show),
        web.get("/v1/jobs/{id}/events", jobs.events),
        web.delete("/v1/jobs/{id}", jobs.cancel),
        web.post("/v1/pack", upgrades.pack),
        web.post("/v1/unpack", upgrades.unpack),
        web.get("/v1/kits", kits.list_kits),
        web.delete("/v1/kits", kits.remove_all),
        web.get("/v1/kits/{reference}", kits.inspect),
        web.get("/v1/kits/{reference}/info", kits.info),
        web.delete("/v1/kits/{reference}", kits.remove),
        web.post("/v1/tag", kits.tag),
        web.post("/v1/path", kits.path),
    ]


def make_api(routes: list[web.RouteDef], door: Door, activity: Activity) -> web.Application:
    """The API as an application: its routes behind what holds for all of them."""
    app = web.Application(
        middlewares=[counting(activity), problems, admitting(door)], client_max_size=BODY_LIMIT
    )
    app.add_routes(routes)
    app.on_response_prepare.append(mark_version)
    return app


def refuse(status: int, reason: str) -> web.Response:
    """The answer to what is no HTTP, and so never comes to the application."""
    ours = InvalidRequest if status < HTTPStatus.INTERNAL_SERVER_ERROR else Internal
    problem = ours(f"this is no request that can be read: {reason}").problem()
    return web.Response(
        body=msgspec.json.encode(msgspec.structs.replace(problem, status=status)),
        status=status,
        content_type="application/problem+json",
        headers={"Kitd-Api-Version": API_VERSION},
    )
