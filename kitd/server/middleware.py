"""What holds for every request of the API: who asks, what is said of failures, what counts as work."""

import logging
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from time import monotonic
from typing import TypeVar

import anyio
import msgspec
from aiohttp import web
from aiohttp.typedefs import Handler, Middleware

from kitd.errors import log_place
from kitd.server.peers import Door, transport_uid
from kitd_client.api import API_VERSION
from kitd_client.api.errors import Internal, InvalidRequest, KitdError, NotFound
from kitd_client.api.problem import Problem

_log = logging.getLogger(__name__)

BODY_LIMIT = 1 << 20
_BODY_SECONDS = 10.0
UID = web.RequestKey("uid", int)
"""Who asks."""

_S = TypeVar("_S", bound=msgspec.Struct)


class Activity:
    """Whether anything is asked of the daemon, and since when not."""

    def __init__(self) -> None:
        self._running = 0
        self._last = monotonic()

    @contextmanager
    def request(self) -> Iterator[None]:
        """Around each request."""
        self._running += 1
        try:
            yield
        finally:
            self._running -= 1
            self._last = monotonic()

    def note(self) -> None:
        """Something else than a request was under way just now."""
        self._last = monotonic()

    @property
    def idle_seconds(self) -> float:
        """Seconds since the last request ended; 0 while one runs."""
        return 0.0 if self._running else monotonic() - self._last


def counting(activity: Activity) -> Middleware:
    """Requests are work."""

    @web.middleware
    async def counted(request: web.Request, handler: Handler) -> web.StreamResponse:
        with activity.request():
            return await handler(request)

    return counted


def admitting(door: Door) -> Middleware:
    """Only those come in whom this daemon serves; from here on a request knows who asks."""

    @web.middleware
    async def admitted(request: web.Request, handler: Handler) -> web.StreamResponse:
        if request.transport is None:
            raise ConnectionResetError("the client is gone")
        request[UID] = transport_uid(request.transport)
        door.check(request[UID])
        return await handler(request)

    return admitted


@web.middleware
async def problems(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Whatever fails is answered as problem+json (RFC 9457); a bug of ours leaves its trace in the log."""
    try:
        return await handler(request)
    except KitdError as error:
        return _answer(error.problem())
    except web.HTTPException as error:
        return _http_problem(request, error)
    except ConnectionError:
        raise
    except Exception:  # noqa: BLE001 - the last net: a trace must reach the log, and never the user
        trace = secrets.token_hex(4)
        _log.exception("%s %s failed, trace %s", request.method, request.path, trace)
        bug = Internal(
            f"internal error while kitd answered {request.method} {request.path}",
            hint=f"{log_place()} has the trace: look for {trace}",
            trace=trace,
        )
        return _answer(bug.problem())


async def mark_version(_request: web.Request, response: web.StreamResponse) -> None:
    """Every answer says which API it is of."""
    response.headers["Kitd-Api-Version"] = API_VERSION


async def read_body(request: web.Request, kind: type[_S]) -> _S:
    """The request's JSON body as a struct.

    Raises:
        InvalidRequest: it is none, naming the path of what is wrong; or it did not come in time.
    """
    try:
        with anyio.fail_after(_BODY_SECONDS):
            data = await request.read()
        return msgspec.json.decode(data, type=kind)
    except TimeoutError as error:
        raise InvalidRequest(f"the request's body did not come within {_BODY_SECONDS:g} s") from error
    except msgspec.MsgspecError as error:
        raise InvalidRequest(f"the request's body: {_uncapitalized(str(error))}") from error
    except UnicodeDecodeError as error:
        raise InvalidRequest("the request's body is no UTF-8") from error


def answer(value: msgspec.Struct, status: int = 200) -> web.Response:
    """A struct as an answer."""
    return web.Response(body=msgspec.json.encode(value), status=status, content_type="application/json")


def _uncapitalized(sentence: str) -> str:
    """To go on with after a colon; an abbreviation stays as it is."""
    return sentence if sentence[:2].isupper() else f"{sentence[:1].lower()}{sentence[1:]}"


def _answer(problem: Problem) -> web.Response:
    return web.Response(
        body=msgspec.json.encode(problem), status=problem.status, content_type="application/problem+json"
    )


def _http_problem(request: web.Request, error: web.HTTPException) -> web.StreamResponse:
    """What aiohttp refuses by itself, in the words of the table; its own status stands."""
    match error:
        case web.HTTPNotFound():
            ours: KitdError = NotFound(f"the API has no {request.path}")
        case web.HTTPMethodNotAllowed():
            ours = InvalidRequest(f"{request.path} takes {', '.join(sorted(error.allowed_methods))}")
        case web.HTTPRequestEntityTooLarge():
            ours = InvalidRequest(f"the request's body is larger than {BODY_LIMIT} bytes")
        case _:
            ours = InvalidRequest(f"{request.method} {request.path}: {error.reason}")
    response = _answer(msgspec.structs.replace(ours.problem(), status=error.status))
    if "Allow" in error.headers:
        response.headers["Allow"] = error.headers["Allow"]
    return response
