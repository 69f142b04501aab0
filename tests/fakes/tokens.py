"""Who may come in: nobody is asked, Basic, or bearer tokens of a token service."""

import base64
import dataclasses
import json
from collections.abc import Callable
from typing import Protocol
from urllib.parse import parse_qs

from fakes.exchange import Ask, Reply, error
from multidict import CIMultiDict

Users = dict[str, str]


class Access(Protocol):
    """What a registry asks before it serves."""

    def refuse(self, ask: Ask, scopes: list[str]) -> Reply | None:
        """A 401 or 403, or None: come in. `scopes` as the token specification writes them."""

    def serve(self, ask: Ask) -> Reply | None:
        """The answer of the token service, if this request is for one."""


class Open:
    """Anyone."""

    def refuse(self, ask: Ask, scopes: list[str]) -> Reply | None:
        return None

    def serve(self, ask: Ask) -> Reply | None:
        return None


def _basic(authorization: str) -> tuple[str, str] | None:
    scheme, _, value = authorization.partition(" ")
    if scheme.lower() != "basic":
        return None
    name, _, password = base64.b64decode(value).decode().partition(":")
    return name, password


@dataclasses.dataclass
class Basic:
    """HTTP Basic (RFC 7617)."""

    users: Users
    realm: str = "scripted registry"

    def refuse(self, ask: Ask, scopes: list[str]) -> Reply | None:
        found = _basic(ask.headers.get("Authorization", ""))
        if found is not None and self.users.get(found[0]) == found[1]:
            return None
        return error(401, "UNAUTHORIZED", WWW_Authenticate=f'Basic realm="{self.realm}", charset="UTF-8"')

    def serve(self, ask: Ask) -> Reply | None:
        return None


@dataclasses.dataclass
class _Token:
    scopes: set[str]
    """One action each: `repository:name:pull`."""
    uses: int | None


def _single(scopes: list[str]) -> set[str]:
    """`repository:a/b:pull,push` is two."""
    found: set[str] = set()
    for scope in scopes:
        resource, _, actions = scope.rpartition(":")
        found.update(f"{resource}:{action}" for action in actions.split(","))
    return found


@dataclasses.dataclass
class Bearer:
    """A token service as distribution describes it, and the registry's side of it.

    Tokens end after a number of uses or when a test says so, never by the clock.
    """

    users: Users = dataclasses.field(default_factory=dict)
    """Name and password; empty: everyone may have a token."""
    identity: dict[str, str] = dataclasses.field(default_factory=dict)
    """Refresh tokens and the user each stands for (POST, grant_type=refresh_token)."""
    anonymous: bool = False
    """With users: a token without credentials is given too, for `anonymous_actions` only."""
    anonymous_actions: tuple[str, ...] = ("pull",)
    uses: int | None = None
    """How many requests a token is good for."""
    expires_in: int | None = 300
    """What the answer says; None: it says nothing."""
    field: str = "token"
    """Or `access_token`."""
    post: bool = True
    """False: POST is answered 405, as by older services."""
    realm: str = ""
    """Anywhere; empty: `/token` of this registry. `{other}` stands for the second origin."""
    service: str = "scripted"
    grant: Callable[[set[str]], set[str]] = lambda scopes: scopes
    """What of the wanted single-action scopes is silently granted."""
    issued: int = 0
    other_base: str = ""
    """Set by the registry."""
    _tokens: dict[str, _Token] = dataclasses.field(default_factory=dict)

    def revoke(self) -> None:
        """Every token so far is void from now on."""
        self._tokens.clear()

    def refuse(self, ask: Ask, scopes: list[str]) -> Reply | None:
        scheme, _, value = ask.headers.get("Authorization", "").partition(" ")
        if scheme.lower() != "bearer":
            return self._challenge(ask, scopes, "")
        token = self._tokens.get(value)
        if token is None or token.uses == 0:
            return self._challenge(ask, scopes, "invalid_token")
        if not _single(scopes) <= token.scopes:
            return self._challenge(ask, scopes, "insufficient_scope")
        if token.uses is not None:
            token.uses -= 1
        return None

    def serve(self, ask: Ask) -> Reply | None:
        if ask.path != "/token":
            return None
        if ask.method == "POST":
            return self._post(ask)
        if ask.method != "GET":
            return error(405, "UNSUPPORTED")
        user = _basic(ask.headers.get("Authorization", ""))
        if user is None:
            return self._anonymous(ask.query.get("scope", []))
        if self.users and self.users.get(user[0]) != user[1]:
            return error(401, "UNAUTHORIZED")
        return self._give(ask.query.get("scope", []))

    def _post(self, ask: Ask) -> Reply:
        if not self.post:
            return error(405, "UNSUPPORTED")
        form = {name: values[0] for name, values in parse_qs(ask.body.decode()).items()}
        scopes = form.get("scope", "").split()
        if form.get("grant_type") == "refresh_token" and form.get("refresh_token", "") in self.identity:
            return self._give(scopes)
        if form.get("grant_type") == "password" and self.users.get(form["username"]) == form["password"]:
            return self._give(scopes)
        return error(401, "UNAUTHORIZED")

    def _anonymous(self, scopes: list[str]) -> Reply:
        if not self.users:
            return self._give(scopes)
        if not self.anonymous:
            return error(401, "UNAUTHORIZED")
        wanted = _single(scopes)
        allowed = {scope for scope in wanted if scope.rpartition(":")[2] in self.anonymous_actions}
        return self._give(sorted(allowed))

    def _give(self, scopes: list[str]) -> Reply:
        self.issued += 1
        name = f"token-{self.issued}"
        self._tokens[name] = _Token(self.grant(_single(scopes)), self.uses)
        answer: dict[str, str | int] = {self.field: name}
        if self.expires_in is not None:
            answer["expires_in"] = self.expires_in
        return Reply(200, CIMultiDict({"Content-Type": "application/json"}), json.dumps(answer).encode())

    def _challenge(self, ask: Ask, scopes: list[str], problem: str) -> Reply:
        realm = self.realm.replace("{other}", self.other_base) or f"{ask.base}/token"
        text = f'Bearer realm="{realm}",service="{self.service}"'
        if scopes:
            text += f',scope="{" ".join(scopes)}"'
        if problem:
            text += f',error="{problem}"'
        return error(401, "UNAUTHORIZED", WWW_Authenticate=text)
