"""Bearer tokens from a registry's token service (distribution's token specification; RFC 6749, 4.3 and 6)."""

import base64
import contextlib
import urllib.parse
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import aiohttp
import msgspec
from yarl import URL

from kitd.registry.answer import read_limited, read_refusal
from kitd.registry.challenge import Challenge
from kitd.registry.line import Call
from kitd.registry.redirect import Reach, http_url, literal_reach, shown
from kitd.registry.route import Route
from kitd_client.api.errors import RealmUntrusted, RegistryProtocol, Unauthorized
from kitd_client.api.jobs import Credential

_LIMIT = 128 * 2**10
_CLIENT = "kitd"
_DEFAULT_LIFE = 60.0
_LONGEST_LIFE = 86_400.0
_NOT_OFFERED = frozenset({404, 405})
_NO_OAUTH = frozenset({400, 401, 404, 405})
"""What token services without (or with half an) OAuth2 endpoint answer to a POST."""
_REFUSED = frozenset({400, 401, 403})
_OK = 200

KNOWN_REALMS: Mapping[str, tuple[str, ...]] = {
    "registry-1.docker.io": ("auth.docker.io",),
    "registry.gitlab.com": ("gitlab.com",),
    "nvcr.io": ("authn.nvidia.com",),
}
"""Token services on other hosts than their registry's, which credentials may be sent to."""

Ask = Callable[[Call], contextlib.AbstractAsyncContextManager[tuple[aiohttp.ClientResponse, Route]]]
"""Carries a request to a token service."""


class Realm(msgspec.Struct, frozen=True):
    """A token service, as a challenge names it."""

    url: URL
    service: str
    trusted: bool
    """Credentials may be sent there."""


@dataclass(frozen=True, slots=True, repr=False)
class Token:
    """A bearer token. Does not show itself."""

    text: str
    life: float
    """Seconds from its receipt: wall clocks differ, so `issued_at` is not looked at."""


class _Answer(msgspec.Struct, frozen=True):
    token: str = ""
    access_token: str = ""
    expires_in: float | None = None


def judge_realm(
    challenge: Challenge, registry: URL, reach: Reach, known: Mapping[str, tuple[str, ...]]
) -> Realm:
    """The token service of a Bearer challenge, and whether it may see credentials.

    Args:
        challenge: of the registry.
        registry: the URL that was asked.
        reach: how near the registry is.
        known: token services that may see credentials, by registry host.

    Raises:
        RegistryProtocol: the challenge names no realm, or something that is no URL.
        RealmUntrusted: nothing may be sent there: http where the registry speaks https, or an address of this
            machine or network where the registry is not.
    """
    host = registry.raw_host or ""
    text = challenge.parameters.get("realm", "")
    url = http_url(text)
    if url is None:
        raise RegistryProtocol(f"{host} asks for a token and names no token service", host=host)
    if url.raw_user is not None or url.raw_password is not None:
        raise RealmUntrusted(f"{host} names a token service with credentials in its URL", host=host)
    same_host = url.raw_host == registry.raw_host
    if url.scheme == "http" and registry.scheme == "https":
        raise RealmUntrusted(f"{host} names a token service without TLS: {shown(url)}", host=host)
    near = literal_reach(url.raw_host or "")
    if near is not None and near > reach and not same_host:
        raise RealmUntrusted(
            f"{host} names a token service at the {near.name.lower()} address {url.raw_host}",
            host=host,
        )
    listed = url.scheme == "https" and url.raw_host in known.get(host, ())
    return Realm(url, challenge.parameters.get("service", ""), trusted=same_host or listed)


async def fetch_token(
    ask: Ask, realm: Realm, scopes: tuple[str, ...], credential: Credential | None
) -> Token:
    """A token for `scopes` (`repository:team/kit:pull`), with a credential or for everyone.

    Raises:
        Unauthorized: the token service refuses.
        RegistryProtocol: what it answers is no token.
        RegistryUnavailable: it does not answer.
    """
    if credential is not None and credential.identity_token:
        token = await _post(
            ask, realm, scopes, {"grant_type": "refresh_token", "refresh_token": credential.identity_token}
        )
        return token or await _get(ask, realm, scopes, credential.username, credential.identity_token)
    if credential is None or not (credential.username or credential.password):
        return await _get(ask, realm, scopes, "", "")
    return await _get(ask, realm, scopes, credential.username, credential.password)


async def _get(ask: Ask, realm: Realm, scopes: tuple[str, ...], username: str, password: str) -> Token:
    query = [("service", realm.service)] if realm.service else []
    query += [("scope", scope) for scope in scopes] + [("client_id", _CLIENT)]
    headers = {"Authorization": basic(username, password)} if username or password else {}
    url = _with_query(realm.url, query)
    async with ask(Call("GET", url, headers)) as (response, route):
        if response.status == _OK:
            return await _read(response, route)
        refused = response.status
        if not (password and refused in _NOT_OFFERED):
            raise await _refusal(response, route)
    form = {"grant_type": "password", "username": username, "password": password}
    token = await _post(ask, realm, scopes, form)
    if token is None:
        raise Unauthorized(f"the token service {realm.url.host} gave no token", host=realm.url.host or "")
    return token


async def _post(ask: Ask, realm: Realm, scopes: tuple[str, ...], grant: dict[str, str]) -> Token | None:
    """A token by OAuth2; None when the service does not take the grant this way."""
    form = grant | {"service": realm.service, "client_id": _CLIENT, "scope": " ".join(scopes)}
    headers = {"Content-Type": "application/x-www-form-urlencoded"}
    async with ask(Call("POST", realm.url, headers, urllib.parse.urlencode(form).encode())) as (
        response,
        route,
    ):
        if response.status == _OK:
            return await _read(response, route)
        if response.status in _NO_OAUTH:
            return None
        raise await _refusal(response, route)


async def _refusal(response: aiohttp.ClientResponse, route: Route) -> Exception:
    refusal = await read_refusal(response, route)
    if response.status in _REFUSED:
        return Unauthorized(f"the token service {route.name} answered {refusal.words}", host=route.name)
    return refusal.error("token")


async def _read(response: aiohttp.ClientResponse, route: Route) -> Token:
    body = await read_limited(response, _LIMIT, "token", route)
    try:
        answer = msgspec.json.decode(body, type=_Answer)
    except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError):
        raise RegistryProtocol(f"the token service {route.name} sent no token", host=route.name) from None
    text = answer.token or answer.access_token
    if not text or not text.isascii() or not text.isprintable():
        raise RegistryProtocol(f"the token service {route.name} sent no token", host=route.name)
    life = answer.expires_in if answer.expires_in and answer.expires_in > 0 else _DEFAULT_LIFE
    return Token(text, min(life, _LONGEST_LIFE))


def basic(username: str, password: str) -> str:
    """An `Authorization` value (RFC 7617, UTF-8)."""
    return "Basic " + base64.b64encode(f"{username}:{password}".encode()).decode()


def _with_query(url: URL, query: list[tuple[str, str]]) -> URL:
    """Append to the query as it stands; a realm may have one of its own."""
    added = urllib.parse.urlencode(query, safe=":/,")
    joined = f"{url.raw_query_string}&{added}" if url.raw_query_string else added
    return URL(f"{url.with_query(None).with_fragment(None)}?{joined}", encoded=True)
