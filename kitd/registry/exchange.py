"""One request until it is answered: the host's gate, retries, waits."""

import contextlib
from collections.abc import AsyncIterator

import aiohttp

from kitd.registry.clock import Clock
from kitd.registry.failures import Unreachable
from kitd.registry.gate import WORTH_TELLING, Waiting
from kitd.registry.line import Call, Line
from kitd.registry.retry import RETRYABLE, Backoff, parse_retry_after
from kitd_client.api.errors import RegistryUnavailable

_TOO_MANY_REQUESTS = 429
_PAUSES = frozenset({_TOO_MANY_REQUESTS, 503})


class Courier:
    """Carries requests of one job: tries again what may go better, tells when it waits."""

    def __init__(self, clock: Clock, backoff: Backoff, waiting: Waiting | None) -> None:
        self.clock = clock
        self.backoff = backoff
        self.waiting = waiting

    @contextlib.asynccontextmanager
    async def carried(
        self, line: Line, call: Call, authorization: str | None, *, again: bool = True
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        """The answer to a request, whatever its status; released in the end.

        With `again`, connections that fail and the statuses of `RETRYABLE` are tried again, up to the
        attempts of the backoff; the last answer comes back even so. Without, it goes out once.

        Raises:
            RegistryUnavailable: no answer, after all attempts.
            TlsFailed, RedirectBlocked, RegistryProtocol: no attempt can succeed.
        """
        with line.used():
            response = await self._answer(line, call, authorization, self.backoff.attempts if again else 1)
            try:
                yield response
            finally:
                response.release()

    async def _answer(
        self, line: Line, call: Call, authorization: str | None, attempts: int
    ) -> aiohttp.ClientResponse:
        failures = 0
        while True:
            entered = await line.gate.passed(self.waiting)
            try:
                response = await line.send(call, authorization)
            except Unreachable:
                failures += 1
                line.gate.unreachable(entered)
                if failures >= attempts or line.gate.failures >= self.backoff.attempts:
                    raise
                continue
            except RegistryUnavailable as error:
                failures += 1
                if failures >= attempts:
                    raise
                await self._pause(failures, error.message)
                continue
            line.gate.answered()
            if response.status not in RETRYABLE:
                return response
            failures += 1
            held = self._hold(line, response, failures)
            if failures >= attempts:
                return response
            response.release()
            if not held:
                await self._pause(failures, f"{line.route.name} answered {response.status}")

    def _hold(self, line: Line, response: aiohttp.ClientResponse, failures: int) -> bool:
        """Shut the gate when the host asks everyone to wait."""
        if response.status not in _PAUSES:
            return False
        seconds = parse_retry_after(response.headers.get("Retry-After"), self.clock.wall())
        if seconds is None and response.status != _TOO_MANY_REQUESTS:
            return False
        line.gate.hold(
            self.backoff.delay(failures) if seconds is None else seconds, f"asks to wait ({response.status})"
        )
        return True

    async def _pause(self, failures: int, reason: str) -> None:
        seconds = self.backoff.delay(failures)
        if self.waiting is not None and seconds >= WORTH_TELLING:
            self.waiting(reason, seconds)
        await self.clock.sleep(seconds)
