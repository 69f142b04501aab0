"""How one caller gets into one registry."""

from collections.abc import Mapping
from dataclasses import dataclass

import anyio
from yarl import URL

from kitd.registry.challenge import Challenge, parse_challenges
from kitd.registry.clock import Clock
from kitd.registry.redirect import Reach
from kitd.registry.token import Ask, Realm, basic, fetch_token, judge_realm
from kitd_client.api.errors import KitdError, RealmUntrusted, RegistryProtocol, Unauthorized
from kitd_client.api.jobs import Credential

_RENEWED_AT = 0.8
"""Of a token's life: later use asks for a new one first."""
_SHARED_FAILURE = 1.0
"""Seconds: requests of one moment share a refusal, a wrong password is not tried once for each of them."""


@dataclass(frozen=True, slots=True, repr=False)
class Grant:
    """An `Authorization` value. Does not show itself."""

    header: str
    fresh: bool
    """No other one can be had by asking again now."""


@dataclass(frozen=True, slots=True, repr=False)
class _Held:
    header: str
    fresh_until: float


class _Turn:
    """One scope's turn to ask for a token: one asks, all others take what came of it."""

    def __init__(self) -> None:
        self.lock = anyio.Lock()
        self.failure: KitdError | None = None
        self.failed_at = float("-inf")


class Authority:
    """What one caller knows about getting into one registry: the way it wants, tokens by scope.

    The first request goes out without credentials; the registry's challenge says what it wants, and from
    then on each request carries it. Kept per route, uid and credential; never shared between two of them.
    """

    def __init__(
        self, registry: str, credential: Credential | None, known: Mapping[str, tuple[str, ...]], clock: Clock
    ) -> None:
        self._registry = registry
        self._credential = credential
        self._known = known
        self._clock = clock
        self._realm: Realm | None = None
        self._basic = False
        self._wanted: dict[tuple[str, ...], tuple[str, ...]] = {}
        self._held: dict[tuple[str, ...], _Held] = {}
        self._turns: dict[tuple[str, ...], _Turn] = {}

    async def authorization(self, scopes: tuple[str, ...], ask: Ask) -> Grant | None:
        """What to send along; None: nothing is known yet, or nothing is wanted.

        Raises:
            Unauthorized, RealmUntrusted, RegistryProtocol, RegistryUnavailable: no token can be had.
        """
        if self._credential is not None and self._credential.registry_token:
            return Grant(f"Bearer {self._credential.registry_token}", fresh=False)
        if self._basic:
            return self._by_password(fresh=False)
        if self._realm is None:
            return None
        return await self._token(self._realm, scopes, None, ask)

    async def challenged(
        self,
        values: list[str],
        url: URL,
        reach: Reach,
        scopes: tuple[str, ...],
        rejected: str | None,
        ask: Ask,
    ) -> Grant:
        """Another value than `rejected`, by what a 401 of `url` asks for.

        Raises:
            Unauthorized: there is none.
            RealmUntrusted, RegistryProtocol, RegistryUnavailable: it cannot be had.
        """
        challenges = {challenge.scheme: challenge for challenge in reversed(parse_challenges(values))}
        if "bearer" in challenges:
            return await self._by_token(challenges["bearer"], url, reach, scopes, rejected, ask)
        if "basic" in challenges:
            self._basic, self._realm = True, None
            grant = self._by_password(fresh=True)
            if grant is None or grant.header == rejected:
                raise self.refused()
            return grant
        if not challenges:
            raise RegistryProtocol(
                f"{self._registry} answered 401 and does not say what it wants", host=self._registry
            )
        raise RegistryProtocol(
            f"{self._registry} wants {', '.join(sorted(challenges))} authentication, not Bearer or Basic",
            host=self._registry,
        )

    def refused(self, words: str = "") -> Unauthorized | RealmUntrusted:
        """The error for a registry that does not let us in with all that we may show it."""
        if self._credential is not None and self._realm is not None and not self._realm.trusted:
            return self._untrusted(self._realm)
        what = "wants credentials" if self._credential is None else "does not accept the credentials"
        said = f" ({words})" if words else ""
        return Unauthorized(
            f"{self._registry} {what}{said}", hint=f"kitctl login {self._registry}", host=self._registry
        )

    async def _by_token(
        self,
        challenge: Challenge,
        url: URL,
        reach: Reach,
        scopes: tuple[str, ...],
        rejected: str | None,
        ask: Ask,
    ) -> Grant:
        if self._credential is not None and self._credential.registry_token:
            raise self.refused()
        self._realm, self._basic = judge_realm(challenge, url, reach, self._known), False
        self._wanted[scopes] = merge_scopes(scopes, challenge.parameters.get("scope", "").split())
        return await self._token(self._realm, scopes, rejected, ask)

    def _by_password(self, *, fresh: bool) -> Grant | None:
        credential = self._credential
        if credential is None or not (credential.username or credential.password):
            return None
        return Grant(basic(credential.username, credential.password), fresh=fresh)

    async def _token(self, realm: Realm, scopes: tuple[str, ...], rejected: str | None, ask: Ask) -> Grant:
        held = self._usable(scopes, rejected)
        if held is not None:
            return Grant(held.header, fresh=False)
        turn = self._turns.setdefault(scopes, _Turn())
        async with turn.lock:
            held = self._usable(scopes, rejected)
            if held is not None:
                return Grant(held.header, fresh=True)
            if turn.failure is not None and self._clock.now() - turn.failed_at < _SHARED_FAILURE:
                raise turn.failure
            try:
                held = await self._fetch(realm, scopes, ask)
            except KitdError as error:
                turn.failure, turn.failed_at = error, self._clock.now()
                raise
            self._held[scopes] = held
            return Grant(held.header, fresh=True)

    def _usable(self, scopes: tuple[str, ...], rejected: str | None) -> _Held | None:
        held = self._held.get(scopes)
        if held is None or held.header == rejected or self._clock.now() >= held.fresh_until:
            return None
        return held

    async def _fetch(self, realm: Realm, scopes: tuple[str, ...], ask: Ask) -> _Held:
        credential = self._credential if realm.trusted else None
        wanted = self._wanted.get(scopes) or merge_scopes(scopes, [])
        asked_at = self._clock.now()
        try:
            token = await fetch_token(ask, realm, wanted, credential)
        except Unauthorized as error:
            raise self.refused(error.message) from error
        return _Held(f"Bearer {token.text}", asked_at + token.life * _RENEWED_AT)

    def _untrusted(self, realm: Realm) -> RealmUntrusted:
        service = realm.url.host or ""
        return RealmUntrusted(
            f"{self._registry} sends its users to the token service {service}, which may not see credentials"
            f" for {self._registry}",
            hint=f"if {service} belongs to the registry, add it to trusted_realms in the configuration",
            host=self._registry,
            realm=service,
        )


def merge_scopes(ours: tuple[str, ...], asked: list[str]) -> tuple[str, ...]:
    """Scopes of both, one per resource, actions sorted: what a token service is asked for."""
    actions: dict[str, set[str]] = {}
    for scope in (*ours, *asked):
        resource, _, verbs = scope.rpartition(":")
        if resource:
            actions.setdefault(resource, set()).update(verbs.split(","))
    return tuple(f"{resource}:{','.join(sorted(verbs))}" for resource, verbs in sorted(actions.items()))
