"""The registry client of the daemon: what all jobs share."""

import contextlib
from collections.abc import AsyncIterator
from http import HTTPStatus

from kitd.registry.answer import read_refusal
from kitd.registry.clock import Clock, SystemClock
from kitd.registry.endpoint import Access, Endpoint
from kitd.registry.gate import Waiting
from kitd.registry.line import Call
from kitd.registry.lines import Lines
from kitd.registry.rate import RateLimit
from kitd.registry.repository import Repository
from kitd.registry.settings import TransportSettings
from kitd_client.api.errors import RegistryProtocol

__all__ = ["Access", "RateLimit", "Transport", "TransportSettings"]

_DEFAULTS = TransportSettings()


class Transport:
    """Connections, gates, tokens and the rate limit of the whole daemon.

    Nothing of it leaks between contexts: connections and gates are kept per route (origin, proxy,
    authorities, client certificate), tokens also per user and credential.
    """

    def __init__(self, lines: Lines) -> None:
        self.rate = RateLimit(lines.settings.limit_rate, lines.clock)
        """Of all transfers; `bytes_per_second` may be set at any time."""
        self._lines = lines

    @classmethod
    @contextlib.asynccontextmanager
    async def opened(
        cls, settings: TransportSettings = _DEFAULTS, *, clock: Clock | None = None
    ) -> AsyncIterator["Transport"]:
        """A transport for the life of the daemon; its connections are closed in the end."""
        lines = Lines(settings, clock or SystemClock())
        try:
            yield cls(lines)
        finally:
            await lines.close()

    def repository(
        self,
        registry: str,
        name: str,
        access: Access,
        *,
        limit_rate: int | RateLimit = 0,
        waiting: Waiting | None = None,
    ) -> Repository:
        """A repository for one job.

        Args:
            registry: as in the reference.
            name: the repository's.
            access: who asks, with what.
            limit_rate: bytes per second of the job; 0: only the daemon's limit counts. A job with several
                repositories makes one `limit` and gives it to all.
            waiting: told why and for how many seconds requests are held back.

        Raises:
            InvalidReference: `registry` is no host or host:port.
            InvalidRequest: the proxy is no http or https URL.
        """
        limit = self.limit(limit_rate) if isinstance(limit_rate, int) else limit_rate
        return Repository(
            self._lines, Endpoint(self._lines, registry, access, waiting), name, (self.rate, limit)
        )

    def limit(self, bytes_per_second: int) -> RateLimit:
        """A limit for the transfers of one job; 0: none."""
        return RateLimit(bytes_per_second, self._lines.clock)

    async def check(self, registry: str, access: Access) -> None:
        """Ask whether a registry is there and takes what `access` brings: what `login` wants to know.

        Raises:
            Unauthorized, Denied, RealmUntrusted: it does not let us in.
            RegistryProtocol: it is no registry.
            RegistryUnavailable, RateLimited, TlsFailed: it cannot be asked.
        """
        endpoint = Endpoint(self._lines, registry, access, None)
        async with endpoint.followed(Call("GET", endpoint.url("/v2/")), ()) as answer:
            if answer.response.status == HTTPStatus.NOT_FOUND:
                raise RegistryProtocol(f"{answer.route.name} is no registry: it has no /v2/", host=registry)
            if answer.response.status != HTTPStatus.OK:
                raise (await read_refusal(answer.response, answer.route)).error(registry)
