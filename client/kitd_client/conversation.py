"""How a verb is carried out at the daemon: structs for bytes, jobs followed to their end, workspaces."""

import _thread
import socket as sockets
import weakref
from collections.abc import Callable, Generator, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Literal, TypeVar
from urllib.parse import quote

import msgspec

from kitd_client.advice import advise
from kitd_client.api import WORKSPACE_PROTOCOL
from kitd_client.api.errors import InvalidRequest, KitdError, Unauthorized
from kitd_client.api.jobs import (
    Context,
    Credential,
    Event,
    JobInfo,
    JobStarted,
    Packed,
    PackRequest,
    Pulled,
    PullRequest,
    Pushed,
    PushRequest,
    RegistryCheck,
    Terminal,
    Unpacked,
    UnpackRequest,
)
from kitd_client.context import Network, find_credentials, make_context
from kitd_client.failures import gone
from kitd_client.figures import printable
from kitd_client.references import Name
from kitd_client.stream import OnEvent, decode_events, last_word, verdict
from kitd_client.transport import Transport

if TYPE_CHECKING:
    from kitd_client.directory import Directory

OnJob = Callable[[str | None], None]
_T = TypeVar("_T")
_R = TypeVar("_R", Pulled, Pushed, Packed, Unpacked)

_learning = _thread.allocate_lock()
"""msgspec learns a struct at its first use; threads that do so at the same time crash the process."""


class Conversation:
    """What a client says to its daemon.

    Args:
        transport: reaches it.
    """

    def __init__(self, transport: Transport) -> None:
        self._transport = transport
        self._streams: weakref.WeakSet[Generator[Event, None, None]] = weakref.WeakSet()

    def close(self) -> None:
        """Ends the streams of events that are still open."""
        for stream in list(self._streams):
            stream.close()

    def get(self, target: str, kind: type[_T], *, start: bool = True) -> _T:
        """Asks for a struct; `start`: with a daemon of one's own if there is none."""
        return self._decode(self._transport.call("GET", target, start=start), kind)

    def post(self, target: str, request: msgspec.Struct, kind: type[_T]) -> _T:
        """Sends a struct and returns the one that is answered."""
        return self._decode(self._transport.call("POST", target, _encoded(request)), kind)

    def delete(self, target: str, kind: type[_T], *, start: bool = True) -> _T:
        """Removes something and returns what is said of it; `start` as of `get`."""
        return self._decode(self._transport.call("DELETE", target, start=start), kind)

    def context(self, names: Sequence[Name], network: Network) -> Context:
        """What the daemon needs to act for this caller at these repositories' registries."""
        return make_context(names, network, environ=self._transport.environ, notice=self._transport.notice)

    def as_caller(self, names: Sequence[Name], network: Network, attempt: Callable[[Context], _T]) -> _T:
        """Attempts something as the caller; again for each registry nobody foresaw that wants credentials.

        Args:
            names: the repositories that are foreseen.
            network: how to reach registries.
            attempt: what to do with the context.
        """
        context = self.context(names, network)
        while True:
            try:
                return attempt(context)
            except Unauthorized as error:
                registry = str(error.detail.get("host", ""))
                if not registry or registry in context.credentials:
                    raise
                found = find_credentials([Name(registry, "")], network, environ=self._transport.environ)
                if not found:
                    raise
            self._transport.notice(f"{registry} wants credentials: asking again with those found for it")
            context = msgspec.structs.replace(context, credentials={**context.credentials, **found})

    def check_registry(self, registry: str, credential: Credential, network: Network) -> None:
        """Has a credential tried."""
        context = make_context(
            [Name(registry, "")],
            network,
            environ=self._transport.environ,
            credentials={registry: credential},
        )
        request = RegistryCheck(registry=registry, context=context)
        try:
            self._transport.call("POST", "/v1/check-registry", _encoded(request))
        except KitdError as error:
            advise(error, context, "ask again")
            raise

    def start_job(self, verb: Literal["pull", "push"], request: PullRequest | PushRequest) -> str:
        """Starts a job and returns its identifier."""
        return self.post(f"/v1/{verb}", request, JobStarted).id

    def events(self, job_id: str) -> Generator[Event, None, None]:
        """The events of a job, from its start up to the terminal one, or to the end of the connection."""
        stream = self._events(job_id)
        self._streams.add(stream)
        return stream

    def cancel(self, job_id: str) -> JobInfo:
        """Has a job cancelled; returns it as it stands, most often still running."""
        return self.delete(job_target(job_id), JobInfo, start=False)

    def run_job(
        self,
        verb: Literal["pull", "push"],
        words: str,
        request: PullRequest | PushRequest,
        kind: type[_R],
        on_event: OnEvent | None,
        on_job: OnJob | None,
    ) -> _R:
        """Starts a job and follows it to its end; an exception in the caller cancels it.

        Args:
            verb: what to do.
            words: what to do it with, as one says it to `kitctl`.
            request: the same for the daemon.
            kind: of the result.
            on_event: takes each event.
            on_job: takes the identifier when the job starts, and none when it has ended.
        """
        job_id = self.start_job(verb, request)
        try:
            if on_job is not None:
                on_job(job_id)
            terminal = last_word(self.events(job_id), on_event)
        except BaseException:
            with suppress(KitdError):
                self.cancel(job_id)
            raise
        finally:
            if on_job is not None:
                on_job(None)
        advice = (
            f"'kitctl {verb} {words}' goes on from there, 'kitctl {verb} --detach {words}' in the background"
        )
        return self._result(terminal, f"{verb} {words}", kind, request.context, advice)

    def run_workspace(
        self,
        verb: Literal["pack", "unpack"],
        subject: str,
        request: PackRequest | UnpackRequest,
        directory: "Directory",
        kind: type[_R],
        on_event: OnEvent | None,
    ) -> _R:
        """Serves a directory to the daemon until the verb is done; the end of the connection cancels it."""
        body = _encoded(request)
        answer = self._transport.ask("POST", f"/v1/{verb}", body, upgrade=WORKSPACE_PROTOCOL)
        with sockets.socket(fileno=answer.take_socket()) as sock:
            terminal = directory.serve(sock, on_event)
        if on_event is not None:
            on_event(terminal)
        context = request.context if isinstance(request, PackRequest) else Context()
        advice = f"run 'kitctl {verb}' again"
        return self._result(terminal, f"{verb} {subject}", kind, context, advice)

    def _result(
        self, terminal: Terminal | None, what: str, kind: type[_R], context: Context, advice: str
    ) -> _R:
        if terminal is None:
            raise gone(what, advice)
        try:
            result = verdict(terminal, what)
        except KitdError as error:
            advise(error, context, advice)
            raise
        if not isinstance(result, kind):
            raise self._transport.undecodable(f"{what} came to a result of another verb")
        return result

    def _events(self, job_id: str) -> Generator[Event, None, None]:
        try:
            yield from decode_events(self._transport.lines(f"{job_target(job_id)}/events"))
        except msgspec.MsgspecError as error:
            raise self._transport.undecodable(error) from error

    def _decode(self, body: bytes, kind: type[_T]) -> _T:
        with _learning:
            decoder = msgspec.json.Decoder(kind)
        try:
            return decoder.decode(body)
        except msgspec.MsgspecError as error:
            raise self._transport.undecodable(error) from error


def job_target(job_id: str) -> str:
    """The path of a job."""
    return f"/v1/jobs/{_quoted(job_id)}"


def kit_target(reference: str) -> str:
    """The path of a kit."""
    return f"/v1/kits/{_quoted(reference)}"


def _encoded(request: msgspec.Struct) -> bytes:
    try:
        return msgspec.json.encode(request)
    except UnicodeEncodeError as error:
        raise _unsendable(error) from None


def _quoted(text: str) -> str:
    try:
        return quote(text, safe="")
    except UnicodeEncodeError as error:
        raise _unsendable(error) from None


def _unsendable(error: UnicodeEncodeError) -> InvalidRequest:
    """For words of a command line that are no UTF-8: Python has surrogates for their bytes."""
    return InvalidRequest(f"{printable(error.object)} is no text in UTF-8", hint="names of kits are ASCII")
