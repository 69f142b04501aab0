"""What an answer says: bodies with a cap, and refusals as errors for people."""

import re
from collections.abc import Mapping

import aiohttp
import msgspec

from kitd.registry.body import BodyInterrupted
from kitd.registry.route import Route
from kitd_client.api.errors import (
    Denied,
    DigestMismatch,
    KitdError,
    NotFound,
    PushRejected,
    RateLimited,
    RegistryProtocol,
    RegistryUnavailable,
    Unauthorized,
)

_ERROR_LIMIT = 64 * 2**10
_SHOWN_ERRORS = 3
_SHOWN = 200
_QUERY = re.compile(r"(https?://)(?:[^\s/@?]*@)?([^\s?\"'<>]*)(?:\?[^\s\"'<>]*)?")
_SECRET = re.compile(
    r"(?i)\b(bearer|basic)\s+[\w.~+/=-]+|\b((?:access_|refresh_)?token|password|secret|sig(?:nature)?)([=:]\s*)[^\s,;&]+"
)
_UNPRINTABLE = re.compile(r"[^\x20-\x7e\xa0-\uffff]+")


class Complaint(msgspec.Struct, frozen=True):
    """One error of a registry's error body (OCI distribution specification, "Error codes")."""

    code: str = ""
    message: str = ""


class _Complaints(msgspec.Struct, frozen=True):
    errors: list[Complaint] = []


class Refusal(msgspec.Struct, frozen=True):
    """An answer that is not what was asked for, read to its end."""

    status: int
    host: str
    complaints: tuple[Complaint, ...]

    def has(self, code: str) -> bool:
        return any(complaint.code == code for complaint in self.complaints)

    @property
    def words(self) -> str:
        """Status and the registry's own words, bounded and without secrets."""
        said = "; ".join(_words(complaint) for complaint in self.complaints[:_SHOWN_ERRORS])
        return f"{self.status} ({said})" if said else str(self.status)

    def error(self, what: str) -> KitdError:
        """The error for a refusal of `what` (`manifest latest of registry/team/kit`)."""
        kind = _KINDS.get(self.status)
        if kind is None:
            kind = RegistryUnavailable if self.status >= 500 else RegistryProtocol  # noqa: PLR2004 - HTTP's border
        return kind(
            f"{what}: {self.host} answered {self.words}",
            hint=_HINTS.get(kind),
            host=self.host,
            status=self.status,
        )

    def rejection(self, what: str) -> KitdError:
        """The error for a part of a push that was refused."""
        if self.status in _NOT_ABOUT_CONTENT or self.status >= 500:  # noqa: PLR2004 - HTTP's border
            return self.error(what)
        return PushRejected(f"{what}: {self.host} answered {self.words}", host=self.host, status=self.status)


_KINDS: Mapping[int, type[KitdError]] = {
    401: Unauthorized,
    403: Denied,
    404: NotFound,
    408: RegistryUnavailable,
    410: NotFound,
    429: RateLimited,
}


_HINTS: Mapping[type[KitdError], str] = {
    Denied: "the account may not do this: ask its owner, or log in as another one",
    RateLimited: "ask again later; many registries allow more to users who log in",
    RegistryUnavailable: "ask again later: what arrived is kept",
}
_NOT_ABOUT_CONTENT = frozenset({401, 403, 408, 429})


async def read_limited(response: aiohttp.ClientResponse, limit: int, what: str, route: Route) -> bytes:
    """The body of an answer.

    Raises:
        RegistryProtocol: it is longer than `limit` bytes, or encoded though that was not asked for.
        BodyInterrupted: it broke off or stalled.
    """
    if response.headers.get("Content-Encoding", "identity").lower() != "identity":
        raise RegistryProtocol(f"{what}: {route.name} sent it compressed, unasked", host=route.name)
    pieces: list[bytes] = []
    left = limit
    try:
        while piece := await response.content.readany():
            pieces.append(piece)
            left -= len(piece)
            if left < 0:
                raise RegistryProtocol(
                    f"{what}: {route.name} sent more than the {limit} bytes that this may be", host=route.name
                )
    except (aiohttp.ClientError, OSError) as error:
        raise BodyInterrupted(f"{what}: the answer of {route.name} broke off", host=route.name) from error
    return b"".join(pieces)


async def read_refusal(response: aiohttp.ClientResponse, route: Route) -> Refusal:
    """Read an unwanted answer; whatever its body is, this succeeds."""
    try:
        body = await read_limited(response, _ERROR_LIMIT, "error", route)
        complaints = tuple(msgspec.json.decode(body, type=_Complaints).errors)
    except (KitdError, msgspec.MsgspecError, RecursionError, UnicodeDecodeError):
        complaints = ()
    return Refusal(response.status, route.name, complaints)


def redacted(text: str) -> str:
    """Foreign words for people and logs: one bounded line, no queries of URLs, nothing like a secret."""
    line = _UNPRINTABLE.sub(" ", text)
    line = _QUERY.sub(r"\1\2", line)
    line = _SECRET.sub(_hidden, line).strip()
    return line if len(line) <= _SHOWN else line[:_SHOWN] + "..."


def _hidden(match: re.Match[str]) -> str:
    return f"{match[1]} ***" if match[1] else f"{match[2]}{match[3]}***"


def _words(complaint: Complaint) -> str:
    return ": ".join(word for word in (redacted(complaint.code), redacted(complaint.message)) if word)


def other_bytes(what: str, expected: str | None, found: str | None) -> DigestMismatch:
    """The error for bytes that are not the ones asked for."""
    return DigestMismatch(
        f"{what}: other bytes came, {found}", kept="nothing", expected=expected or "", found=found or ""
    )
