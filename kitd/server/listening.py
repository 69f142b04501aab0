"""An application at a socket, for as long as it is wanted."""

import asyncio
import errno
import os
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from aiohttp import web

from kitd.config.settings import Address
from kitd_client.api.errors import ConfigurationInvalid

_KEEPALIVE_SECONDS = 15.0
_PARTING_SECONDS = 2.0
"""What is left to requests under way when the daemon ends."""
_BACKLOG = 128
_READ_AHEAD = 1 << 20

ProtocolFactory = Callable[[], asyncio.Protocol]


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
    guarding: Callable[[ProtocolFactory], ProtocolFactory] = lambda factory: factory,
) -> AsyncIterator[Listener]:
    """Serves `app` at a socket, which is closed at the end.

    Bodies are passed as they come, never decompressed. At the end requests under way have two seconds.

    Args:
        app: what answers.
        sock: bound, Unix or TCP.
        guarding: wraps the factory of connections.
    """
    runner = web.AppRunner(
        app,
        access_log=None,
        keepalive_timeout=_KEEPALIVE_SECONDS,
        shutdown_timeout=_PARTING_SECONDS,
        auto_decompress=False,
        read_bufsize=_READ_AHEAD,
    )
    await runner.setup()
    try:
        factory = guarding(_made(runner))
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


def _made(runner: web.AppRunner) -> ProtocolFactory:
    server = runner.server
    if server is None:
        raise RuntimeError("the runner is not set up")
    return server
