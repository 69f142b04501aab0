"""Who may come in at the scripted registry."""

import aiohttp
from fakes.bare import bare_session, get
from fakes.kits import some_bytes
from fakes.registry import ScriptedRegistry
from fakes.shelves import digest_of
from fakes.tokens import Basic, Bearer

DATA = some_bytes(300_000)
BLOB = f"/v2/a/b/blobs/{digest_of(DATA)}"


async def test_basic() -> None:
    async with ScriptedRegistry(access=Basic({"u": "p"})) as registry, bare_session(registry) as http:
        async with http.get("/v2/") as answer:
            assert (answer.status, answer.headers["WWW-Authenticate"][:5]) == (401, "Basic")
        async with http.get("/v2/", headers={"Authorization": aiohttp.encode_basic_auth("u", "p")}) as answer:
            assert answer.status == 200


async def _token(http: aiohttp.ClientSession, registry: ScriptedRegistry, *scopes: str) -> dict[str, str]:
    params = [("scope", scope) for scope in scopes]
    async with http.get(
        "/token", params=params, headers={"Authorization": aiohttp.encode_basic_auth("u", "p")}
    ) as answer:
        return {"Authorization": f"Bearer {(await answer.json())['token']}"}


async def test_bearer_tokens_have_scopes_and_an_end() -> None:
    access = Bearer(users={"u": "p"}, uses=2)
    async with ScriptedRegistry(access=access) as registry, bare_session(registry) as http:
        registry.put_blob("a/b", DATA)
        async with http.get(BLOB) as answer:
            challenge = answer.headers["WWW-Authenticate"]
            assert (answer.status, 'scope="repository:a/b:pull"' in challenge) == (401, True)
            assert f'realm="{registry.url}/token"' in challenge
        token = await _token(http, registry, "repository:a/b:pull")
        assert [(await get(http, BLOB, **token))[0] for _ in range(3)] == [200, 200, 401]
        token = await _token(http, registry, "repository:a/b:pull")
        async with http.post("/v2/a/b/blobs/uploads/", headers=token) as answer:
            assert "insufficient_scope" in answer.headers["WWW-Authenticate"]
        async with http.post("/v2/a/b/blobs/uploads/?mount=x&from=c/d", headers=token) as answer:
            wanted = 'scope="repository:a/b:pull,push repository:c/d:pull"'
            assert wanted in answer.headers["WWW-Authenticate"]
        access.revoke()
        assert (await get(http, BLOB, **token))[0] == 401
        assert access.issued == registry.count(path="/token") == 2


async def test_refresh_tokens_and_anonymous_ones() -> None:
    access = Bearer(users={"u": "p"}, identity={"r": "u"}, anonymous=True, realm="{other}/token")
    async with ScriptedRegistry(access=access) as registry, bare_session(registry) as http:
        registry.put_blob("a/b", DATA)
        async with http.get(BLOB) as answer:
            assert f'realm="{registry.other_url}/token"' in answer.headers["WWW-Authenticate"]
        form = {"grant_type": "refresh_token", "refresh_token": "r", "scope": "repository:a/b:pull,push"}
        async with http.post(f"{registry.other_url}/token", data=form) as answer:
            full = {"Authorization": f"Bearer {(await answer.json())['token']}"}
        async with http.get(f"{registry.other_url}/token?scope=repository:a/b:pull,push") as answer:
            thin = {"Authorization": f"Bearer {(await answer.json())['token']}"}
        for token, status in ((full, 202), (thin, 401)):
            assert (await get(http, BLOB, **token))[0] == 200
            async with http.post("/v2/a/b/blobs/uploads/", headers=token) as answer:
                assert answer.status == status
        access.post = False
        async with http.post(f"{registry.other_url}/token", data=form) as answer:
            assert answer.status == 405
