"""Turns: the daemon asks, the client answers in full, and nothing else is under way meanwhile."""

import socket
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final, TypeVar

import anyio
from anyio.lowlevel import checkpoint

from kitd.workspace.framing import Channel
from kitd_client.api.errors import (
    BY_CODE,
    KitdError,
    SourceChanged,
    SourceUnreadable,
    SourceUnsuitable,
    TargetBusy,
    TargetExists,
    TargetUnsafe,
    TargetUnwritable,
    WorkspaceBroken,
)
from kitd_client.api.jobs import Event, Terminal
from kitd_client.api.problem import Problem
from kitd_client.api.workspace import (
    SILENCE_SECONDS,
    VERSION,
    Alive,
    Answer,
    End,
    EventFrame,
    Hello,
    Ready,
    Refused,
    Request,
)

AnswerT = TypeVar("AnswerT", bound=Answer)

FINISH_SECONDS: Final = 10.0
_SPEAKERS_STEPS: Final = 3
"""Steps of the event loop that a speaker needs from news to the turn: to wake up, to take it, to begin."""
_PULSES_AT_ONCE: Final = 10
"""A client says `Alive` every few seconds: more than one a second, after these, is a flood."""
_TEXT_LIMIT: Final = 8000
_REFUSALS: Final = (
    SourceChanged,
    SourceUnreadable,
    SourceUnsuitable,
    TargetBusy,
    TargetExists,
    TargetUnsafe,
    TargetUnwritable,
)


def peer_uid(sock: socket.socket) -> int:
    """Who is at the other end, as the kernel recorded it (`unix(7)`, SO_PEERCRED)."""
    _, uid, _ = struct.unpack("3i", sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
    return int(uid)


class Turns:
    """One connection with its order of speech; owns the socket."""

    def __init__(self, sock: socket.socket, *, silence: float = SILENCE_SECONDS) -> None:
        self.uid = peer_uid(sock)
        self.channel = Channel(sock, silence=silence)
        self._over: anyio.Event | None = None
        self._owed = False
        self._greeted = False

    @asynccontextmanager
    async def turn(self) -> AsyncIterator[None]:
        """A request and its answer.

        Left by an error other than the client's own refusal, it leaves a client that may still be answering:
        only `finish` makes sense then.
        """
        # What the job has just said goes first: in the middle of a turn, which may last, nobody hears it.
        for _ in range(_SPEAKERS_STEPS if self._greeted else 0):
            await checkpoint()
        await self._begin()
        try:
            if self._owed:
                raise WorkspaceBroken("the client still owes the answer of an earlier request")
            self._owed = True
            if not self._greeted:
                await self._greet()
            yield
            self._owed = False
        finally:
            self._end()

    async def ask(self, request: Request) -> None:
        await self.channel.send(request)

    async def answer(self, kind: type[AnswerT]) -> AnswerT:
        """The next answer, which must be of this kind.

        Raises:
            KitdError: the client refuses, with its reason.
            WorkspaceBroken: it answers something else, or not at all.
        """
        answer = await self.any_answer()
        if not isinstance(answer, kind):
            raise out_of_turn(answer)
        return answer

    async def any_answer(self) -> Answer:
        """The next answer of any kind; raises the same errors."""
        began = anyio.current_time()
        pulses = 0
        while isinstance(answer := await self.channel.receive(), Alive):
            pulses += 1
            if pulses > _PULSES_AT_ONCE + (anyio.current_time() - began):
                raise WorkspaceBroken("the client gives signs of life instead of an answer")
        if isinstance(answer, Refused):
            self._owed = False
            raise _refusal(answer.problem)
        return answer

    async def event(self, event: Event) -> None:
        """Tells the client, between turns; dropped once it has failed, for the terminal event says it all."""
        await self._begin()
        try:
            if not self._owed:
                await self.channel.send(EventFrame(event))
        finally:
            self._end()

    async def finish(self, terminal: Terminal) -> None:
        """Tells how the job ended, in whatever state the client is, and closes; if it is gone, only that."""
        try:
            with anyio.move_on_after(FINISH_SECONDS, shield=True):
                self.channel.refuse_more()
                if not self.channel.sending:
                    await self.channel.send(End(terminal))
        except WorkspaceBroken:
            return
        finally:
            await self.aclose()

    async def gone(self) -> None:
        """Returns when the client hangs up while no turn is under way, or says something out of turn."""
        while self._over is not None or not self.channel.stirred:
            await (self._over.wait() if self._over is not None else self.channel.news())

    async def aclose(self) -> None:
        """Ends the connection; safe to call twice."""
        self.channel.close()
        await checkpoint()

    async def _begin(self) -> None:
        await checkpoint()
        while self._over is not None:
            await self._over.wait()
        self._over = anyio.Event()

    def _end(self) -> None:
        if self._over is not None:
            self._over.set()
        self._over = None

    async def _greet(self) -> None:
        await self.ask(Hello(VERSION))
        ready = await self.answer(Ready)
        if ready.version != VERSION:
            raise WorkspaceBroken(
                f"the client speaks version {ready.version} of the workspace protocol, this daemon {VERSION}",
                hint="use a client and a daemon of the same release",
            )
        self._greeted = True


def out_of_turn(answer: Answer) -> WorkspaceBroken:
    return WorkspaceBroken(f"the client answered {type(answer).__name__} out of turn")


def _refusal(problem: Problem) -> KitdError:
    """The client's own error, as far as it may have one: texts bounded, no values taken over."""
    kind = BY_CODE.get(problem.code)
    if kind not in _REFUSALS:
        return WorkspaceBroken(
            f"the client failed with {problem.code[:100]!r}: {problem.title[:_TEXT_LIMIT]}"
        )
    return kind(
        problem.title[:_TEXT_LIMIT],
        kept=problem.kept and problem.kept[:_TEXT_LIMIT],
        hint=problem.hint and problem.hint[:_TEXT_LIMIT],
    )
