"""The body of a blob, watched while it comes."""

from collections.abc import Sequence

import aiohttp

from kitd.registry.clock import Clock
from kitd.registry.rate import RateLimit
from kitd.registry.receiver import Receiver
from kitd.spec.digest import Buffer
from kitd_client.api.errors import RegistryUnavailable, SizeMismatch

_SLOWEST = 1024
"""Bytes per second; less, over the stall limit, is a stall."""


class BodyInterrupted(RegistryUnavailable):
    """A body ended early, or came too slowly. What was handed out is good: go on from there."""


class Body:
    """An iterator of exactly `length` bytes, in pieces as they come from the socket.

    Silence is noticed by the connection's own timer; this counts a trickle. Only time spent waiting for the
    peer counts, never time that the reader or a rate limit takes.
    """

    def __init__(
        self,
        response: aiohttp.ClientResponse,
        length: int,
        what: str,
        stall_timeout: float,
        rates: Sequence[RateLimit],
        clock: Clock,
    ) -> None:
        self._response = response
        self._left = length
        self._what = what
        self._stall_timeout = stall_timeout
        self._rates = rates
        self._clock = clock
        self._waited = 0.0
        self._trickled = 0
        self._begun = False
        self._receiver: Receiver | None = None

    def __aiter__(self) -> "Body":
        return self

    async def __anext__(self) -> Buffer:
        """The next piece.

        Raises:
            BodyInterrupted: the body ended early, stalled or trickled; the connection is closed.
            SizeMismatch: it is longer than it should be.
        """
        if self._left == 0:
            await self._end()
            raise StopAsyncIteration
        piece = await self._read()
        if not piece:
            raise self._interrupted("ended early")
        self._left -= len(piece)
        if self._left < 0:
            raise self._too_long()
        for rate in self._rates:
            await rate.take(len(piece))
        return piece

    async def _read(self) -> Buffer:
        began = self._clock.now()
        try:
            piece = await self._next()
        except TimeoutError as error:
            raise self._interrupted(f"stalled for {self._stall_timeout:g} s") from error
        except (aiohttp.ClientError, OSError) as error:
            raise self._interrupted("broke off") from error
        self._waited += self._clock.now() - began
        self._trickled += len(piece)
        if self._waited >= self._stall_timeout:
            if self._trickled < _SLOWEST * self._stall_timeout:
                raise self._interrupted(f"came with less than 1 KiB/s for {self._stall_timeout:g} s")
            self._waited, self._trickled = 0.0, 0
        return piece

    async def _next(self) -> Buffer:
        if not self._begun:
            self._begun = True
            self._receiver = Receiver.taking_over(self._response, self._left, self._stall_timeout)
        return await (self._receiver or self._response.content).readany()

    async def _end(self) -> None:
        """All bytes are here; see the end too, so that the connection can be used again."""
        if self._receiver is not None:
            self._receiver.give_back()
            return
        content = self._response.content
        if content.at_eof():
            return
        try:
            surplus = await content.readany()
        except (aiohttp.ClientError, OSError):
            self._response.close()
            return
        if surplus:
            raise self._too_long()

    def _interrupted(self, how: str) -> BodyInterrupted:
        self._response.close()
        return BodyInterrupted(f"{self._what}: the transfer {how}, {self._left} bytes before its end")

    def _too_long(self) -> SizeMismatch:
        self._response.close()
        return SizeMismatch(f"{self._what}: more bytes came than were asked for")
