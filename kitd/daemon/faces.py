"""Where the daemon can be reached: sockets of its own, or those that systemd passed."""

import ipaddress
import os
import socket
from collections.abc import AsyncIterator, MutableMapping
from contextlib import asynccontextmanager

from aiohttp import web

from kitd.config.settings import Settings
from kitd.content.store import ContentStore
from kitd.server.app import make_api, refuse
from kitd.server.connections import ConnectionLimit
from kitd.server.distribution import refusal
from kitd.server.distribution.app import make_registry
from kitd.server.distribution.uploads import Uploads
from kitd.server.listening import Listener, bind_loopback, listening
from kitd.server.middleware import Activity
from kitd.server.peers import Door
from kitd.server.sockets import ApiSocket
from kitd.systemd import take_listen_sockets
from kitd_client.api.errors import ConfigurationInvalid

_API, _REGISTRY = "api", "registry"


class Faces:
    """The sockets that are to be used: the settings', where systemd passed none.

    Raises:
        ConfigurationInvalid: systemd passed one that cannot be used.
    """

    def __init__(self, settings: Settings, environ: MutableMapping[str, str]) -> None:
        self._settings = settings
        passed = take_listen_sockets(environ)
        self._api = passed.pop(_API, None)
        self._registry = passed.pop(_REGISTRY, None)
        for name in passed:
            raise ConfigurationInvalid(
                f"systemd passed a socket named {name}; kitd knows the names api and registry",
                hint="set FileDescriptorName= in the socket unit",
            )
        if self._registry is not None and not _is_local(self._registry):
            raise ConfigurationInvalid(
                f"systemd passed a registry socket at {self._registry.getsockname()[0]}; it has no rules",
                hint="let the socket unit listen at 127.0.0.1 or [::1]",
            )

    @property
    def api_address(self) -> str:
        """The path of the API's socket."""
        return str(self._settings.daemon.socket if self._api is None else self._api.getsockname())

    @property
    def registry_address(self) -> str:
        """The address of the registry face; empty: there is none."""
        if self._registry is not None:
            return ":".join(map(str, self._registry.getsockname()[:2]))
        return str(self._settings.registry.listen or "")

    @asynccontextmanager
    async def api(
        self, routes: list[web.RouteDef], activity: Activity
    ) -> AsyncIterator[tuple[ApiSocket | None, Listener]]:
        """Serves the API; with its own socket, if it has one, whose name is removed at the end.

        Raises:
            StoreLocked: another daemon answers there.
            ConfigurationInvalid: the socket cannot be had.
        """
        door = Door(self._settings.mode, os.geteuid())
        app = make_api(routes, door, activity)
        if self._api is not None:
            async with listening(app, self._api, door.guarding, refuse) as listener:
                yield None, listener
            return
        daemon = self._settings.daemon
        own = ApiSocket.bind(daemon.socket, daemon.socket_mode, daemon.socket_group)
        try:
            async with listening(app, own.socket, door.guarding, refuse) as listener:
                yield own, listener
        finally:
            own.close()

    @asynccontextmanager
    async def registry(self, store: ContentStore, activity: Activity) -> AsyncIterator[Listener | None]:
        """Serves the store as a registry, where that is wanted.

        Raises:
            ConfigurationInvalid: the address cannot be had.
        """
        sock, address = self._registry, self._settings.registry.listen
        if sock is None and address is not None:
            sock = bind_loopback(address)
        if sock is None:
            yield None
            return
        async with (
            Uploads(store) as uploads,
            listening(
                make_registry(store, uploads, activity), sock, ConnectionLimit().guarding, refusal.refuse
            ) as listener,
        ):
            yield listener


def _is_local(sock: socket.socket) -> bool:
    return sock.family == socket.AF_UNIX or ipaddress.ip_address(sock.getsockname()[0]).is_loopback
