"""An application at a socket, for as long as it is wanted."""

import asyncio
import errno
import os
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from typing import TypeAlias

from aiohttp import web

from kitd.config.settings import Address
from kitd.server.connections import Factory
from kitd_client.api.errors import ConfigurationInvalid

_PARTING_SECONDS = 2.0
"""What is left to requests under way when the daemon ends."""
_BACKLOG = 128

_KEEPALIVE_SECONDS = 15.0
_READ_AHEAD = 1 << 20

Refuse: TypeAlias = Callable[[int, str], web.Response]
"""How a face answers, with a status and why, what is no HTTP."""


class Listener:
    """One application that takes connections. Made by `listening`."""

    def __init__(self, server: asyncio.Server) -> None:
        self._server = server

    def close(self) -> None:
        """Takes no more connections; those there are go on."""
        self._server.close()


@asynccontextmanager
async def listening(
    app: web.Application,
    sock: socket.socket,
    guarding: Callable[[Factory], Factory],
    refuse: Refuse,
) -> AsyncIterator[Listener]:
    """Serves `app` at a socket, which is closed at the end.

    Bodies are passed as they come, never decompressed. At the end requests under way have two seconds.

    Args:
        app: what answers.
        sock: bound, Unix or TCP.
        guarding: wraps the factory of connections.
        refuse: answers what the application never sees.
    """
    runner = web.AppRunner(app, shutdown_timeout=_PARTING_SECONDS)
    await runner.setup()
    try:
        factory = guarding(partial(_Connection, _made(runner), refuse))
        loop = asyncio.get_running_loop()
        start = loop.create_unix_server if sock.family == socket.AF_UNIX else loop.create_server
        listener = Listener(await start(factory, sock=sock, backlog=_BACKLOG))
        try:
            yield listener
        finally:
            listener.close()
    finally:
        await runner.cleanup()


def bind_loopback(address: Address) -> socket.socket:
    """A bound TCP socket; raises `ConfigurationInvalid`."""
    family = socket.AF_INET6 if ":" in address.host else socket.AF_INET
    sock = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind((address.host, address.port))
    except OSError as error:
        sock.close()
        hint = "another program listens there" if error.errno == errno.EADDRINUSE else None
        reason = os.strerror(error.errno or 0).lower()
        raise ConfigurationInvalid(
            f"cannot serve the registry at {address}: {reason}", hint=hint, listen=str(address)
        ) from error
    return sock


def _made(runner: web.AppRunner) -> web.Server:
    server = runner.server
    if server is None:
        raise RuntimeError("the runner is not set up")
    return server


class _Connection(web.RequestHandler):
    """One connection of a face. What is no HTTP is answered in that face's own form, too."""

    __slots__ = ("_refuse",)

    def __init__(self, server: web.Server, refuse: Refuse) -> None:
        super().__init__(
            server,
            loop=asyncio.get_running_loop(),
            access_log=None,  # type: ignore[arg-type]  # the documented way to have none
            keepalive_timeout=_KEEPALIVE_SECONDS,
            auto_decompress=False,
            read_bufsize=_READ_AHEAD,
        )
        self._refuse = refuse

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        super().handle_error(request, status, exc, message)  # which logs it
        reason = (message or "internal error").partition("\n")[0].rstrip(": ")
        answer = self._refuse(status, reason)
        answer.force_close()
        return answer
