"""All lines of the daemon, and what it remembers about registries."""

import ssl
from collections import OrderedDict

import anyio

from kitd.registry.auth import Authority
from kitd.registry.clock import Clock
from kitd.registry.gate import Gate
from kitd.registry.line import Line
from kitd.registry.route import Route, Trust
from kitd.registry.settings import TransportSettings
from kitd.registry.tls import tls_context
from kitd.registry.token import KNOWN_REALMS
from kitd_client.api.jobs import Credential

_LIVE = 64
"""Lines, and TLS contexts, kept at once: each has connections or certificates in memory."""
_REMEMBERED = 256
"""Gates, authorities and plain-http peers kept: small, so more of them."""


class Lines:
    """One line per route, one authority per route, user and credential; the least used ones go first."""

    def __init__(self, settings: TransportSettings, clock: Clock) -> None:
        self.settings = settings
        self.clock = clock
        self._lines: OrderedDict[Route, Line] = OrderedDict()
        self._contexts: OrderedDict[Trust, ssl.SSLContext] = OrderedDict()
        self._authorities: OrderedDict[tuple[Route, int, Credential | None], Authority] = OrderedDict()
        self._gates: OrderedDict[Route, Gate] = OrderedDict()
        self._plain: set[Route] = set()
        self._making = anyio.Lock()

    async def line(self, route: Route) -> Line:
        """The line of a route.

        Raises:
            InvalidRequest: a certificate of the route cannot be read.
        """
        # Authorities take 20 ms to read: not where no TLS is spoken.
        context = await self._context(route.trust) if route.needs_tls else None
        line = self._lines.get(route)
        if line is None:
            line = self._lines[route] = Line(route, self.gate(route), self.settings, context)
        self._lines.move_to_end(route)
        await self._drop_idle()
        return line

    def gate(self, route: Route) -> Gate:
        """The gate of a route; it outlives the line."""
        gate = self._gates.get(route)
        if gate is None:
            gate = self._gates[route] = Gate(route.name, self.clock, self.settings.backoff)
            if len(self._gates) > _REMEMBERED:
                self._gates.popitem(last=False)
        self._gates.move_to_end(route)
        return gate

    def authority(self, registry: str, route: Route, uid: int, credential: Credential | None) -> Authority:
        """What a user knows about getting into a registry by this route, with this credential."""
        key = (route, uid, credential)
        authority = self._authorities.get(key)
        if authority is None:
            known = {**KNOWN_REALMS, **self.settings.trusted_realms}
            authority = self._authorities[key] = Authority(registry, credential, known, self.clock)
            if len(self._authorities) > _REMEMBERED:
                self._authorities.popitem(last=False)
        self._authorities.move_to_end(key)
        return authority

    def speaks_plain(self, tls_route: Route) -> bool:
        """Whether the peer of a route was found to speak no TLS."""
        return tls_route in self._plain

    def remember_plain(self, tls_route: Route) -> None:
        if len(self._plain) == _REMEMBERED:
            self._plain.clear()
        self._plain.add(tls_route)

    def forget_plain(self, tls_route: Route) -> None:
        """TLS is tried first again: the peer is gone, another one may come."""
        self._plain.discard(tls_route)

    async def close(self) -> None:
        while self._lines:
            _, line = self._lines.popitem()
            await line.close()

    async def _context(self, trust: Trust) -> ssl.SSLContext:
        async with self._making:
            context = self._contexts.get(trust)
            if context is None:
                context = self._contexts[trust] = await anyio.to_thread.run_sync(tls_context, trust)
                if len(self._contexts) > _LIVE:
                    self._contexts.popitem(last=False)
        self._contexts.move_to_end(trust)
        return context

    async def _drop_idle(self) -> None:
        surplus = len(self._lines) - _LIVE
        if surplus <= 0:
            return
        for route in [route for route, line in self._lines.items() if line.idle][:surplus]:
            await self._lines.pop(route).close()
