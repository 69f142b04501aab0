"""Counting connections before HTTP begins, so that no face takes more than it can serve."""

import asyncio
from collections.abc import Callable
from typing import TypeAlias, cast

CONNECTIONS = 256
"""Of a TCP face, all clients together: eight nodes that pull with all their connections."""

_FULL = (
    b"HTTP/1.1 503 Service Unavailable\r\nRetry-After: 1\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
)

Factory: TypeAlias = Callable[[], asyncio.Protocol]
Leave: TypeAlias = Callable[[], None]


class ConnectionLimit:
    """A face that takes so many connections, whoever makes them; who comes after them is told to come again."""

    def __init__(self, limit: int = CONNECTIONS) -> None:
        self._limit = limit
        self._inside = 0

    def guarding(self, factory: Factory) -> Factory:
        """A protocol factory whose connections are counted."""
        return lambda: CountedConnection(self._enter, factory())

    def _enter(self, transport: asyncio.Transport) -> Leave | None:
        if self._inside >= self._limit:
            transport.write(_FULL)
            transport.close()
            return None
        self._inside += 1
        return self._leave

    def _leave(self) -> None:
        self._inside -= 1


class CountedConnection(asyncio.Protocol):
    """Stands before the HTTP protocol of one connection.

    Args:
        enter: lets the connection in and returns what ends its stay; or ends it, and returns none.
        inner: the protocol of those that come in.
    """

    def __init__(self, enter: Callable[[asyncio.Transport], Leave | None], inner: asyncio.Protocol) -> None:
        self._enter = enter
        self._inner = inner
        self._leave: Leave | None = None
        self.data_received = inner.data_received  # type: ignore[method-assign]
        self.eof_received = inner.eof_received  # type: ignore[method-assign]
        self.pause_writing = inner.pause_writing  # type: ignore[method-assign]
        self.resume_writing = inner.resume_writing  # type: ignore[method-assign]

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._leave = self._enter(cast("asyncio.Transport", transport))
        if self._leave is not None:
            self._inner.connection_made(transport)

    def connection_lost(self, exc: Exception | None) -> None:
        if self._leave is not None:
            self._leave()
            self._inner.connection_lost(exc)
