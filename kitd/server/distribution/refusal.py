"""How the registry face says no: the error codes and bodies of the distribution specification."""

import ipaddress
import logging
import secrets
from collections.abc import Mapping

import msgspec
from aiohttp import web
from aiohttp.typedefs import Handler

from kitd_client.api.errors import KitdError

_log = logging.getLogger(__name__)

_CODES: Mapping[str, tuple[int, str]] = {
    "invalid_reference": (400, "NAME_INVALID"),
    "invalid_digest": (400, "DIGEST_INVALID"),
    "digest_mismatch": (400, "DIGEST_INVALID"),
    "size_mismatch": (400, "SIZE_INVALID"),
    "manifest_invalid": (400, "MANIFEST_INVALID"),
    "config_invalid": (400, "MANIFEST_INVALID"),
    "unsupported": (400, "UNSUPPORTED"),
    "kit_incomplete": (400, "MANIFEST_BLOB_UNKNOWN"),
    "not_found": (404, "BLOB_UNKNOWN"),
    "object_damaged": (404, "BLOB_UNKNOWN"),
    "busy": (429, "TOOMANYREQUESTS"),
    "daemon_stopping": (503, "UNAVAILABLE"),
}
"""By our code: status and code of the specification. What is not here keeps its status and is UNKNOWN."""


class Refusal(Exception):
    """An answer that is an error, as clients of registries read it."""

    def __init__(
        self, status: int, code: str, message: str, headers: Mapping[str, str] | None = None
    ) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.message = message
        self.headers = headers or {}


@web.middleware
async def refusals(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Whatever fails is answered with a body of the specification, also unknown methods and paths."""
    try:
        _check_host(request)
        return await handler(request)
    except Refusal as error:
        return _answer(request.method, error)
    except KitdError as error:
        status, code = _CODES.get(error.code, (error.status, "UNKNOWN"))
        return _answer(request.method, Refusal(status, code, error.message))
    except web.HTTPException as error:
        code = "UNSUPPORTED" if isinstance(error, web.HTTPMethodNotAllowed | web.HTTPNotFound) else "UNKNOWN"
        allow = {"Allow": error.headers["Allow"]} if "Allow" in error.headers else None
        return _answer(request.method, Refusal(error.status, code, error.reason.lower(), allow))
    except ConnectionError:
        raise
    except Exception:  # noqa: BLE001 - the last net: a trace must reach the log, and never the client
        trace = secrets.token_hex(4)
        _log.exception("%s %s failed, trace %s", request.method, request.path, trace)
        return _answer(request.method, Refusal(500, "UNKNOWN", f"internal error, trace {trace}"))


def _answer(method: str, refusal: Refusal) -> web.Response:
    body = {"errors": [{"code": refusal.code, "message": refusal.message, "detail": {}}]}
    return web.Response(
        status=refusal.status,
        body=b"" if method == "HEAD" else msgspec.json.encode(body),
        content_type="application/json",
        headers=refusal.headers,
    )


def refuse(status: int, reason: str) -> web.Response:
    """The answer to what is no HTTP, and so never comes to the application."""
    return _answer("GET", Refusal(status, "UNKNOWN", f"this is no request that can be read: {reason}"))


def _check_host(request: web.Request) -> None:
    """A web page can make a browser ask us under its own name (DNS rebinding): only loopback is ours."""
    try:
        host = request.url.host or ""
        loopback = host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        loopback = False
    if not loopback:
        raise Refusal(403, "DENIED", f"this registry has no name {request.host!r}: it answers to localhost")
