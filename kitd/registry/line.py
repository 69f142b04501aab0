"""A line: the live connections of one route, and its gate."""

import contextlib
import socket
import ssl
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Final, TypeAlias

import aiohttp
import msgspec
from yarl import URL

from kitd.registry.failures import AddressBlockedError, translate
from kitd.registry.gate import Gate
from kitd.registry.redirect import Reach, blocked_address, literal_reach, reach_of
from kitd.registry.route import Route
from kitd.registry.settings import TransportSettings

Body: TypeAlias = bytes | Callable[[], AsyncIterator[bytes]]
"""Of a request: bytes, or what makes a fresh run of pieces each time it is sent."""

_SMALL_CONNECTIONS = 8
_PATIENCE = 4
"""Of small requests, in times of the longest silence: they end, however little comes at a time."""
_NEAR = 5.0
"""Seconds to connect on this machine: long for TLS, short for a server that knows no TLS and just waits."""
_IDLE = 30.0
"""Seconds that an unused connection is kept."""

_READ_AHEAD: Final = 16 << 10
"""Bytes of a body before the HTTP client stops reading: those of a long one are received past it."""


class Call(msgspec.Struct, frozen=True):
    """One request."""

    method: str
    url: URL
    headers: dict[str, str] = {}
    body: Body | None = None
    bulk: bool = False
    """Blob bytes move. All else has connections of its own, so blobs never starve it."""
    expect: bool = False
    """Ask before the body is sent (`Expect: 100-continue`)."""
    patience: float = 0.0
    """Seconds until the answer begins; 0: the stall limit."""


class Line:
    """The live connections of one route: few for small requests, many for blobs."""

    def __init__(
        self, route: Route, gate: Gate, settings: TransportSettings, tls: ssl.SSLContext | None
    ) -> None:
        self.route = route
        self.gate = gate
        self.takes_expect = True
        """Until it turns out that `Expect: 100-continue` is not understood there."""
        self._settings = settings
        self._users = 0
        self._reach: Reach | None = literal_reach(route.host) if route.proxy else None
        self._small = self._session(tls, min(_SMALL_CONNECTIONS, settings.connections_per_host))
        self._bulk = self._session(tls, settings.connections_per_host)

    @property
    def reach(self) -> Reach:
        """How near the host is: the furthest of all addresses dialled, so a name cannot feign nearness."""
        return Reach.PUBLIC if self._reach is None else self._reach

    @property
    def idle(self) -> bool:
        return self._users == 0

    @contextlib.contextmanager
    def used(self) -> Iterator[None]:
        """While this is open the line is not closed."""
        self._users += 1
        try:
            yield
        finally:
            self._users -= 1

    async def send(self, call: Call, authorization: str | None) -> aiohttp.ClientResponse:
        """Send one request once. The body of the answer is the caller's to read and release.

        Raises:
            KitdError: as `failures.translate` says.
        """
        headers = call.headers if authorization is None else call.headers | {"Authorization": authorization}
        session = self._bulk if call.bulk else self._small
        try:
            return await session.request(
                call.method,
                call.url,
                headers=headers,
                data=call.body() if callable(call.body) else call.body,
                allow_redirects=False,
                expect100=call.expect,
                timeout=self._timeout(call),
            )
        except (aiohttp.ClientError, OSError, ValueError) as error:
            raise translate(error, self.route) from error

    async def close(self) -> None:
        await self._small.close()
        await self._bulk.close()

    def _timeout(self, call: Call) -> aiohttp.ClientTimeout:
        silence = call.patience or self._settings.stall_timeout
        total = None if call.bulk else silence * _PATIENCE
        connect = self._settings.connect_timeout
        if literal_reach(self.route.host) is Reach.LOOPBACK:
            connect = min(connect, _NEAR)
        return aiohttp.ClientTimeout(total=total, sock_connect=connect, sock_read=silence)

    def _session(self, tls: ssl.SSLContext | None, connections: int) -> aiohttp.ClientSession:
        connector = aiohttp.TCPConnector(
            limit=connections,
            keepalive_timeout=_IDLE,
            ssl=True if tls is None else tls,
            resolver=aiohttp.ThreadedResolver(),
            socket_factory=self._dial,
        )
        return aiohttp.ClientSession(
            connector=connector,
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=False,
            trust_env=False,
            read_bufsize=_READ_AHEAD,
            proxy=self.route.proxy or None,
            headers={"Accept-Encoding": "identity", "User-Agent": self._settings.user_agent},
            middlewares=(_one_attempt,),
        )

    def _dial(self, info: aiohttp.AddrInfoType) -> socket.socket:
        """Make the socket for one address, unless it is too near for this route."""
        family, kind, protocol, _, address = info
        if not self.route.proxy:
            reach = reach_of(str(address[0]))
            if reach > self.route.limit:
                raise AddressBlockedError(blocked_address("a registry", self.route.name, reach))
            self._reach = reach if self._reach is None else min(self._reach, reach)
        made = socket.socket(family, kind, protocol)
        made.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        made.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, int(self._settings.stall_timeout * 2000))
        return made


async def _one_attempt(
    request: aiohttp.ClientRequest, handler: aiohttp.ClientHandlerType
) -> aiohttp.ClientResponse:
    """Keeps aiohttp from asking again by itself on a broken connection: attempts are counted in one place."""
    try:
        return await handler(request)
    except aiohttp.ClientConnectorError:
        raise
    except (aiohttp.ClientOSError, aiohttp.ServerDisconnectedError) as error:
        raise aiohttp.ClientConnectionError(str(error)) from error
