"""Ways into a registry: Basic, bearer tokens, and who sees which secret."""

import base64
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import anyio
import msgspec
import pytest
from fakes import faults
from fakes.clock import StillClock
from fakes.exchange import Gate
from fakes.kits import put_kit, small_kit
from fakes.registry import ScriptedRegistry
from fakes.tokens import Basic, Bearer
from yarl import URL

from kitd.registry.auth import merge_scopes
from kitd.registry.challenge import Challenge
from kitd.registry.redirect import Reach
from kitd.registry.repository import Repository
from kitd.registry.settings import TransportSettings
from kitd.registry.token import KNOWN_REALMS, judge_realm
from kitd.registry.transport import Access, Transport
from kitd.spec.digest import parse_digest
from kitd.spec.oci import Descriptor
from kitd_client.api.errors import (
    Denied,
    KitdError,
    RealmUntrusted,
    RegistryProtocol,
    RegistryUnavailable,
    Unauthorized,
)
from kitd_client.api.jobs import Context, Credential

_NAME = "team/kit"
_KIT = small_kit()
_DIGEST = parse_digest(_KIT.digest)
_USER = Credential("alice", "open sesame")
_USERS = {"alice": "open sesame"}


@asynccontextmanager
async def _guarded(access: Basic | Bearer) -> AsyncIterator[ScriptedRegistry]:
    async with ScriptedRegistry(access=access) as registry:
        put_kit(registry, _KIT, _NAME)
        yield registry


def _repository(
    transport: Transport, registry: ScriptedRegistry, credential: Credential | None = _USER, uid: int = 1000
) -> Repository:
    credentials = {} if credential is None else {registry.host: credential}
    return transport.repository(registry.host, _NAME, Access(uid, Context(credentials=credentials)))


def _statuses(registry: ScriptedRegistry, path: str = "/v2/") -> list[int]:
    return [exchange.status for exchange in registry.select(None, path)]


# -- Basic ---------------------------------------------------------------------------------------


async def test_basic_is_sent_after_the_first_challenge_only(transport: Transport) -> None:
    async with _guarded(Basic(_USERS)) as registry:
        for _ in range(3):
            assert await _repository(transport, registry).fetch_manifest(_DIGEST) == _KIT.manifest
        assert _statuses(registry) == [401, 200, 200, 200]


@pytest.mark.parametrize(
    "credential", [None, Credential("alice", "wrong"), Credential(registry_token="wrong")], ids=str
)
async def test_who_is_not_let_in_learns_where_to_log_in(
    transport: Transport, credential: Credential | None
) -> None:
    async with _guarded(Basic(_USERS)) as registry:
        with pytest.raises(Unauthorized) as caught:
            await _repository(transport, registry, credential).fetch_manifest(_DIGEST)
        assert caught.value.hint == f"kitctl login {registry.host}"
        assert registry.host in caught.value.message
        assert "wrong" not in caught.value.message
        assert registry.count() <= 2


async def test_names_and_passwords_are_utf_8(transport: Transport) -> None:
    async with _guarded(Basic({"jörg": "pässwörd:x"})) as registry:
        await _repository(transport, registry, Credential("jörg", "pässwörd:x")).fetch_manifest(_DIGEST)
        sent = registry.journal.exchanges[-1].authorization.removeprefix("Basic ")
        assert base64.b64decode(sent).decode() == "jörg:pässwörd:x"


# -- bearer tokens -------------------------------------------------------------------------------


@pytest.mark.parametrize("field", ["token", "access_token"])
async def test_a_token_is_fetched_once_and_used_by_all_jobs_of_a_user(
    transport: Transport, field: str
) -> None:
    access = Bearer(users=_USERS, field=field)
    async with _guarded(access) as registry:
        for _ in range(3):
            assert await _repository(transport, registry).fetch_manifest(_DIGEST) == _KIT.manifest
        assert access.issued == 1
        assert _statuses(registry) == [401, 200, 200, 200]
        (asked,) = registry.select(None, "/token")
        assert asked.query == f"service=scripted&scope=repository:{_NAME}:pull&client_id=kitd"


async def test_everyone_may_have_a_token_where_everyone_may_pull(transport: Transport) -> None:
    async with _guarded(Bearer()) as registry:
        await _repository(transport, registry, None).fetch_manifest(_DIGEST)
        (asked,) = registry.select(None, "/token")
        assert asked.authorization == ""


async def test_users_share_no_tokens(transport: Transport) -> None:
    access = Bearer(users=_USERS | {"bob": "hi"})
    async with _guarded(access) as registry:
        await _repository(transport, registry, uid=1).fetch_manifest(_DIGEST)
        await _repository(transport, registry, uid=2).fetch_manifest(_DIGEST)
        await _repository(transport, registry, Credential("bob", "hi"), uid=2).fetch_manifest(_DIGEST)
        with pytest.raises(Unauthorized):
            await _repository(transport, registry, None, uid=1).fetch_manifest(_DIGEST)
        assert access.issued == 3


async def test_a_token_that_ends_mid_way_is_renewed_once_and_the_request_sent_again(
    transport: Transport,
) -> None:
    access = Bearer(users=_USERS, uses=2)
    async with _guarded(access) as registry:
        repository = _repository(transport, registry)
        for _ in range(6):
            await repository.fetch_manifest(_DIGEST)
        assert access.issued == 3
        assert _statuses(registry) == [401, 200, 200, 401, 200, 200, 401, 200, 200]


async def test_a_fresh_token_that_is_refused_is_the_end(transport: Transport) -> None:
    access = Bearer(users=_USERS, grant=lambda _: set())
    async with _guarded(access) as registry:
        with pytest.raises(Unauthorized, match="UNAUTHORIZED"):
            await _repository(transport, registry).fetch_manifest(_DIGEST)
        assert access.issued == 1
        assert _statuses(registry) == [401, 401]


async def test_an_old_token_that_is_refused_is_renewed_before_it_is_the_end(transport: Transport) -> None:
    access = Bearer(users=_USERS)
    async with _guarded(access) as registry:
        repository = _repository(transport, registry)
        await repository.fetch_manifest(_DIGEST)
        access.grant = lambda _: set()
        access.revoke()
        with pytest.raises(Unauthorized):
            await repository.fetch_manifest(_DIGEST)
        assert _statuses(registry) == [401, 200, 401, 401]


@pytest.mark.parametrize(("expires_in", "renewed_after"), [(300, 240), (1000, 800), (None, 48), (0, 48)])
async def test_a_token_is_renewed_at_four_fifths_of_its_life(
    transport: Transport, clock: StillClock, expires_in: int | None, renewed_after: int
) -> None:
    access = Bearer(users=_USERS, expires_in=expires_in)
    async with _guarded(access) as registry:
        repository = _repository(transport, registry)
        await repository.fetch_manifest(_DIGEST)
        clock.time += renewed_after - 1
        await repository.fetch_manifest(_DIGEST)
        assert access.issued == 1
        clock.time += 1
        await repository.fetch_manifest(_DIGEST)
        assert access.issued == 2
        assert 401 not in _statuses(registry)[1:]


async def test_many_requests_renew_a_token_once(transport: Transport) -> None:
    access = Bearer(users=_USERS)
    async with _guarded(access) as registry:
        await _repository(transport, registry).fetch_manifest(_DIGEST)
        access.revoke()
        async with anyio.create_task_group() as group:
            for _ in range(20):
                group.start_soon(_repository(transport, registry).fetch_manifest, _DIGEST)
        assert access.issued == 2


async def test_many_requests_share_one_refusal(transport: Transport) -> None:
    async with _guarded(Bearer(users=_USERS)) as registry:
        refused = []

        async def fetch() -> None:
            try:
                await _repository(transport, registry, Credential("alice", "wrong")).fetch_manifest(_DIGEST)
            except Unauthorized as error:
                refused.append(error)

        async with anyio.create_task_group() as group:
            for _ in range(20):
                group.start_soon(fetch)
        assert len(refused) == 20
        assert registry.count(None, "/token") == 1


async def test_who_waits_for_a_token_goes_on_when_the_one_who_asks_is_cancelled(transport: Transport) -> None:
    gate = Gate()
    access = Bearer(users=_USERS)
    async with _guarded(access) as registry:
        registry.script(faults.stall(gate), path="/token")
        async with anyio.create_task_group() as second, anyio.create_task_group() as first:
            first.start_soon(_repository(transport, registry).fetch_manifest, _DIGEST)
            await gate.until_held()
            second.start_soon(_repository(transport, registry).fetch_manifest, _DIGEST)
            await anyio.wait_all_tasks_blocked()
            first.cancel_scope.cancel()
        assert _statuses(registry) == [401, 200]
        assert registry.count(None, "/token") == 2


async def test_a_token_service_that_fails_is_asked_again(transport: Transport) -> None:
    async with _guarded(Bearer(users=_USERS)) as registry:
        registry.script(faults.status(503), path="/token", times=2)
        await _repository(transport, registry).fetch_manifest(_DIGEST)
        assert registry.count(None, "/token") == 3


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{}",
        b"[]",
        b"<html>",
        b'{"token": 5}',
        b'{"token": "a\\r\\nX: y"}',
        b"[" * 50_000,
        b'{"token":""}',
    ],
    ids=lambda body: repr(body[:20]),
)
async def test_what_is_no_token_is_said_so(transport: Transport, body: bytes) -> None:
    async with _guarded(Bearer(users=_USERS)) as registry:
        registry.script(faults.body(body), path="/token", times=None)
        with pytest.raises(RegistryProtocol, match="token"):
            await _repository(transport, registry).fetch_manifest(_DIGEST)


async def test_a_huge_token_is_given_up_at_its_limit(transport: Transport) -> None:
    async with _guarded(Bearer(users=_USERS)) as registry:
        registry.script(faults.body(b'{"token": "' + b"x" * 10_000_000), path="/token")
        with pytest.raises(RegistryProtocol, match="131072"):
            await _repository(transport, registry).fetch_manifest(_DIGEST)


async def test_a_token_service_that_says_no_is_quoted(transport: Transport) -> None:
    async with _guarded(Bearer(users=_USERS)) as registry:
        registry.script(faults.status(403, oci_code="DENIED", message="account is locked"), path="/token")
        with pytest.raises(Unauthorized, match="account is locked"):
            await _repository(transport, registry).fetch_manifest(_DIGEST)


async def test_denied_is_not_asked_again_with_another_token(transport: Transport) -> None:
    access = Bearer(users=_USERS)
    async with _guarded(access) as registry:
        registry.script(faults.status(403, oci_code="DENIED"), path="/manifests/", skip=1)
        with pytest.raises(Denied):
            await _repository(transport, registry).fetch_manifest(_DIGEST)
        assert access.issued == 1


# -- identity and registry tokens ----------------------------------------------------------------


async def test_an_identity_token_is_exchanged(transport: Transport) -> None:
    access = Bearer(users=_USERS, identity={"refresh me": "alice"})
    async with _guarded(access) as registry:
        await _repository(transport, registry, Credential(identity_token="refresh me")).fetch_manifest(
            _DIGEST
        )
        (asked,) = registry.select(None, "/token")
        assert asked.method == "POST"
        assert asked.query == ""
        assert asked.authorization == ""


@pytest.mark.parametrize("status", [400, 401, 404, 405])
async def test_a_service_without_oauth_gets_the_identity_token_as_a_password(
    transport: Transport, status: int
) -> None:
    access = Bearer(users={"<id>": "refresh me"})
    async with _guarded(access) as registry:
        registry.script(faults.status(status), method="POST", path="/token")
        credential = Credential(username="<id>", identity_token="refresh me")
        await _repository(transport, registry, credential).fetch_manifest(_DIGEST)
        assert [asked.method for asked in registry.select(None, "/token")] == ["POST", "GET"]


@pytest.mark.parametrize("status", [404, 405])
async def test_a_service_that_takes_posts_only_gets_the_password_so(
    transport: Transport, status: int
) -> None:
    async with _guarded(Bearer(users=_USERS)) as registry:
        registry.script(faults.status(status), method="GET", path="/token")
        await _repository(transport, registry).fetch_manifest(_DIGEST)
        assert [asked.method for asked in registry.select(None, "/token")] == ["GET", "POST"]


async def test_a_service_that_takes_neither_gives_no_token(transport: Transport) -> None:
    async with _guarded(Bearer(users=_USERS)) as registry:
        registry.script(faults.status(405), path="/token", times=None)
        with pytest.raises(Unauthorized, match="no token"):
            await _repository(transport, registry).fetch_manifest(_DIGEST)


async def test_a_registry_token_is_used_as_it_is(transport: Transport) -> None:
    access = Bearer(users=_USERS)
    async with _guarded(access) as registry:
        await _repository(transport, registry).fetch_manifest(_DIGEST)
        token = Credential(registry_token="token-1")
        await _repository(transport, registry, token).fetch_manifest(_DIGEST)
        assert access.issued == 1
        access.revoke()
        with pytest.raises(Unauthorized):
            await _repository(transport, registry, token).fetch_manifest(_DIGEST)
        assert access.issued == 1


# -- who may see credentials ---------------------------------------------------------------------


async def test_credentials_go_to_the_registry_alone(transport: Transport) -> None:
    async with _guarded(Bearer(users=_USERS)) as registry:
        registry.redirect_blobs()
        data = b"bytes of a blob"
        blob = Descriptor("x", parse_digest(registry.put_blob(_NAME, data)), len(data))
        assert await _repository(transport, registry).fetch_bytes(blob, 100) == data
        (asked,) = registry.select(origin="other")
        assert asked.authorization == ""


def _foreign(registry: ScriptedRegistry) -> str:
    """The token service on another host name: the same machine, but the rules go by names."""
    return registry.other_url.replace("127.0.0.1", "localhost") + "/token"


async def test_a_foreign_token_service_gives_tokens_for_everyone(transport: Transport) -> None:
    access = Bearer(users=_USERS, anonymous=True)
    async with _guarded(access) as registry:
        access.realm = _foreign(registry)
        await _repository(transport, registry).fetch_manifest(_DIGEST)
        (asked,) = registry.select(origin="other")
        assert asked.authorization == ""


@pytest.mark.parametrize(
    "credential", [_USER, Credential(identity_token="refresh me")], ids=["password", "identity"]
)
async def test_a_foreign_token_service_never_sees_credentials(
    transport: Transport, credential: Credential
) -> None:
    access = Bearer(users=_USERS, identity={"refresh me": "alice"})
    async with _guarded(access) as registry:
        access.realm = _foreign(registry)
        with pytest.raises(RealmUntrusted, match="localhost") as caught:
            await _repository(transport, registry, credential).fetch_manifest(_DIGEST)
        assert "trusted_realms" in (caught.value.hint or "")
        (asked,) = registry.select(origin="other")
        assert (asked.method, asked.authorization) == ("GET", "")


async def test_an_anonymous_token_that_does_not_do_is_said_to_be_one(transport: Transport) -> None:
    access = Bearer(users=_USERS, anonymous=True, anonymous_actions=())
    async with _guarded(access) as registry:
        access.realm = _foreign(registry)
        with pytest.raises(RealmUntrusted):
            await _repository(transport, registry).fetch_manifest(_DIGEST)


@pytest.mark.parametrize(
    ("realm", "error"),
    [
        ("http://169.254.169.254/latest/meta-data/iam", RealmUntrusted),
        ("http://user:secret@127.0.0.1/token", RealmUntrusted),
        ("file:///etc/passwd", RegistryProtocol),
        ("not a url", RegistryProtocol),
    ],
)
async def test_a_realm_that_nobody_should_ask_is_not_asked(
    transport: Transport, realm: str, error: type[KitdError]
) -> None:
    async with _guarded(Bearer(users=_USERS, realm=realm)) as registry:
        with pytest.raises(error) as caught:
            await _repository(transport, registry).fetch_manifest(_DIGEST)
        assert "secret" not in caught.value.message
        assert registry.count() == 1


_REGISTRY = URL("https://registry.example/v2/x/manifests/y")


@pytest.mark.parametrize(
    ("registry", "realm", "trusted"),
    [
        ("https://registry.example/v2/", "https://registry.example/token", True),
        ("https://registry.example:5000/v2/", "https://registry.example/token", True),
        ("https://registry.example/v2/", "https://auth.registry.example/token", False),
        ("https://registry.example/v2/", "https://evil.example/token?x=registry.example", False),
        ("https://registry-1.docker.io/v2/", "https://auth.docker.io/token", True),
        ("https://registry.gitlab.com/v2/", "https://gitlab.com/jwt/auth", True),
        ("https://nvcr.io/v2/", "https://authn.nvidia.com/token", True),
        ("https://evil.example/v2/", "https://auth.docker.io/token", False),
        ("http://registry.lan:5000/v2/", "http://registry.lan:5001/token", True),
        ("http://registry-1.docker.io/v2/", "http://auth.docker.io/token", False),
        ("https://mine.example/v2/", "https://sso.mine.example/token", True),
    ],
)
def test_which_token_services_may_see_credentials(registry: str, realm: str, *, trusted: bool) -> None:
    known = {**KNOWN_REALMS, "mine.example": ("sso.mine.example",)}
    challenge = Challenge("bearer", {"realm": realm, "service": "s"})
    found = judge_realm(challenge, URL(registry), Reach.PUBLIC, known)
    assert (found.trusted, found.service, str(found.url)) == (trusted, "s", realm)


@pytest.mark.parametrize(
    ("realm", "error"),
    [
        ("http://registry.example/token", RealmUntrusted),
        ("https://127.0.0.1/token", RealmUntrusted),
        ("https://localhost/token", RealmUntrusted),
        ("https://[::1]/token", RealmUntrusted),
        ("https://10.0.0.1/token", RealmUntrusted),
        ("https://169.254.169.254/token", RealmUntrusted),
        ("https://user:secret@registry.example/token", RealmUntrusted),
        ("", RegistryProtocol),
        ("/token", RegistryProtocol),
        ("ldap://registry.example/", RegistryProtocol),
    ],
)
def test_which_token_services_are_never_asked(realm: str, error: type[KitdError]) -> None:
    with pytest.raises(error):
        judge_realm(Challenge("bearer", {"realm": realm}), _REGISTRY, Reach.PUBLIC, KNOWN_REALMS)


async def test_a_realm_listed_by_the_owner_of_the_node_sees_credentials(
    settings: TransportSettings, clock: StillClock
) -> None:
    access = Bearer(users=_USERS)
    async with ScriptedRegistry(access=access, tls=True) as registry:
        put_kit(registry, _KIT, _NAME)
        access.realm = _foreign(registry)
        listed = msgspec.structs.replace(settings, trusted_realms={"127.0.0.1": ("localhost",)})
        context = Context(credentials={registry.host: _USER}, ca_pem=registry.ca_pem)
        async with Transport.opened(listed, clock=clock) as transport:
            repository = transport.repository(registry.host, _NAME, Access(1, context))
            assert await repository.fetch_manifest(_DIGEST) == _KIT.manifest
        (asked,) = registry.select(origin="other")
        assert asked.authorization.startswith("Basic ")


# -- odd challenges ------------------------------------------------------------------------------


@pytest.mark.parametrize("header", [{}, {"WWW-Authenticate": "Negotiate"}, {"WWW-Authenticate": "Bearer"}])
async def test_a_challenge_that_cannot_be_met_is_a_broken_protocol(
    transport: Transport, registry: ScriptedRegistry, header: dict[str, str]
) -> None:
    registry.script(faults.status(401, headers=header), times=None)
    with pytest.raises(RegistryProtocol, match="127"):
        await _repository(transport, registry).fetch_manifest(_DIGEST)
    assert registry.count() == 1


async def test_a_registry_that_changes_its_way_in_is_followed(transport: Transport) -> None:
    async with _guarded(Basic(_USERS)) as registry:
        await _repository(transport, registry).fetch_manifest(_DIGEST)
        registry.access = Bearer(users=_USERS)
        await _repository(transport, registry).fetch_manifest(_DIGEST)
        registry.access = Basic(_USERS)
        await _repository(transport, registry).fetch_manifest(_DIGEST)
        assert _statuses(registry) == [401, 200, 401, 200, 401, 200]


# -- login ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("access", [Basic(_USERS), Bearer(users=_USERS)], ids=["basic", "bearer"])
async def test_a_login_is_checked(transport: Transport, access: Basic | Bearer) -> None:
    async with _guarded(access) as registry:
        right = Context(credentials={registry.host: _USER})
        wrong = Context(credentials={registry.host: Credential("alice", "wrong")})
        with pytest.raises(Unauthorized):
            await transport.check(registry.host, Access(1, wrong))
        await transport.check(registry.host, Access(1, right))
        with pytest.raises(Unauthorized):
            await transport.check(registry.host, Access(1, wrong))


@pytest.mark.parametrize(
    ("status", "error"), [(404, RegistryProtocol), (403, Denied), (500, RegistryUnavailable)]
)
async def test_a_login_at_what_is_no_registry_says_so(
    transport: Transport, registry: ScriptedRegistry, status: int, error: type[KitdError]
) -> None:
    registry.script(faults.status(status), times=None)
    with pytest.raises(error):
        await transport.check(registry.host, Access(1))


# -- scopes --------------------------------------------------------------------------------------


def test_scopes_of_both_sides_become_one_per_resource() -> None:
    assert merge_scopes(
        ("repository:a/b:pull",), ["repository:a/b:push,pull", "repository:c:pull", "nonsense", ""]
    ) == ("repository:a/b:pull,push", "repository:c:pull")
    assert merge_scopes((), []) == ()


async def test_nothing_blocks_the_loop_and_no_secret_is_in_an_error(
    transport: Transport, no_blocking: object
) -> None:
    access = Bearer(users=_USERS)
    async with ScriptedRegistry(access=access, tls=True) as registry:
        put_kit(registry, _KIT, _NAME)
        context = Context(credentials={registry.host: _USER}, ca_pem=registry.ca_pem)
        repository = transport.repository(registry.host, _NAME, Access(1, context))
        assert await repository.fetch_manifest(_DIGEST) == _KIT.manifest
        registry.script(
            faults.status(403, message=f"not with {registry.journal.exchanges[-1].authorization}"), times=None
        )
        with pytest.raises(Denied) as caught:
            await repository.fetch_manifest(_DIGEST)
        assert "token-1" not in str(caught.value.problem())
