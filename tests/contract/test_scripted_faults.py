"""The scripted registry breaks the protocol exactly as the script says."""

import aiohttp
import pytest
from fakes import faults
from fakes.bare import get, ranged
from fakes.exchange import Gate
from fakes.kits import put_kit, small_kit, some_bytes
from fakes.registry import ScriptedRegistry
from fakes.shelves import digest_of

DATA = some_bytes(300_000)
BLOB = f"/v2/a/b/blobs/{digest_of(DATA)}"


@pytest.fixture(autouse=True)
def blob(registry: ScriptedRegistry) -> str:
    return registry.put_blob("a/b", DATA)


async def test_a_rule_acts_on_the_requests_it_names(
    registry: ScriptedRegistry, http: aiohttp.ClientSession
) -> None:
    registry.script(faults.status(503), method="GET", path="/blobs/", skip=1, times=2)
    registry.script(faults.too_many("7"), covers=150_000)
    got = [(await get(http, BLOB))[0] for _ in range(4)]
    assert got == [200, 503, 503, 200]
    got = [(await get(http, BLOB, **ranged(first, first + 99_999)))[0] for first in (0, 100_000, 200_000)]
    assert got == [206, 429, 206]
    assert registry.select(status=429)[0].fault == "status 429"


async def test_every_nth_request(registry: ScriptedRegistry, http: aiohttp.ClientSession) -> None:
    registry.script(faults.status(500), every=3, times=None)
    assert [(await get(http, BLOB))[0] for _ in range(7)] == [200, 200, 500, 200, 200, 500, 200]


@pytest.mark.parametrize("reset", [False, True])
async def test_a_connection_drops_after_so_many_bytes(
    registry: ScriptedRegistry, http: aiohttp.ClientSession, *, reset: bool
) -> None:
    registry.script(faults.drop(1000, reset=reset))
    with pytest.raises(aiohttp.ClientError):
        await get(http, BLOB)
    assert registry.sent() == 1000
    assert await get(http, BLOB) == (200, DATA)


@pytest.mark.parametrize(
    "action",
    [
        faults.hang_up(),
        faults.lose_reply(),
        faults.chunked(cut=500),
        faults.length_claimed(5),
        faults.two_lengths(),
    ],
)
async def test_truncations_that_http_sees(
    registry: ScriptedRegistry, http: aiohttp.ClientSession, action: faults.Action
) -> None:
    registry.script(action, times=2)  # aiohttp asks once more by itself when not one byte came back
    with pytest.raises(aiohttp.ClientError):
        await get(http, BLOB)


async def test_truncations_that_http_does_not_see(
    registry: ScriptedRegistry, http: aiohttp.ClientSession
) -> None:
    registry.script(faults.close_delimited(cut=777))
    registry.script(faults.length_claimed(-100))
    assert await get(http, BLOB) == (200, DATA[:777])
    assert await get(http, BLOB) == (200, DATA[:-100])


async def test_a_stalled_reply_goes_on_when_the_gate_opens(
    registry: ScriptedRegistry, http: aiohttp.ClientSession
) -> None:
    gate = Gate()
    registry.script(faults.stall(gate, after=70_000))
    async with http.get(BLOB) as answer:
        got = await answer.content.readexactly(70_000)
        await gate.until_held()
        assert registry.sent() == 70_000
        gate.open()
        assert got + await answer.read() == DATA


async def test_a_client_that_leaves_a_stalled_reply_is_let_go(
    registry: ScriptedRegistry, http: aiohttp.ClientSession
) -> None:
    gate = Gate()
    registry.script(faults.stall(gate))
    with pytest.raises(TimeoutError):
        await http.get(BLOB, timeout=aiohttp.ClientTimeout(0.1))
    await registry.until(lambda: registry.select()[0].finished)
    assert (gate.held, registry.select()[0].status) == (1, 0)


async def test_drip_and_wrong_byte(registry: ScriptedRegistry, http: aiohttp.ClientSession) -> None:
    registry.script(faults.drip(4, 0.001))
    registry.script(faults.wrong_byte(-1))
    async with http.get(BLOB, headers=ranged(0, 19)) as answer:
        pieces = [piece async for piece in answer.content.iter_any()]
    assert (b"".join(pieces), len(pieces) > 1) == (DATA[:20], True)
    _, spoiled = await get(http, BLOB)
    assert (spoiled[:-1], spoiled[-1] ^ 0xFF) == (DATA[:-1], DATA[-1])


@pytest.mark.parametrize(
    ("action", "status", "content_range", "length"),
    [
        (faults.ignore_range(), 200, None, 300_000),
        (faults.partial_as_200(), 200, "bytes 100-199/300000", 100),
        (faults.content_range(None), 206, None, 100),
        (faults.content_range("bytes 0-99/7"), 206, "bytes 0-99/7", 100),
        (faults.shifted_range(50), 206, "bytes 150-249/300000", 100),
        (faults.unsatisfiable(5), 416, "bytes */5", None),
        (faults.multipart(), 206, None, None),
    ],
)
async def test_ranges_gone_wrong(
    registry: ScriptedRegistry,
    http: aiohttp.ClientSession,
    action: faults.Action,
    status: int,
    content_range: str | None,
    length: int | None,
) -> None:
    registry.script(action)
    async with http.get(BLOB, headers=ranged(100, 199)) as answer:
        data = await answer.read()
        assert (answer.status, answer.headers.get("Content-Range")) == (status, content_range)
        assert length is None or len(data) == length
        assert "multipart" not in action.name or answer.content_type == "multipart/byteranges"


async def test_answers_and_headers(registry: ScriptedRegistry, http: aiohttp.ClientSession) -> None:
    registry.script(faults.without("Docker-Content-Digest"), method="HEAD")
    registry.script(faults.status(405), method="HEAD")
    registry.script(faults.redirect("http://169.254.169.254/latest"), method="GET")
    registry.script(faults.redirect(""), method="GET")
    registry.script(faults.body(b"other"), method="GET")
    async with http.head(BLOB) as answer:
        assert (answer.status, "Docker-Content-Digest" in answer.headers) == (200, False)
    async with http.head(BLOB) as answer:
        assert answer.status == 405
    async with http.get(BLOB, allow_redirects=False) as answer:
        assert answer.headers["Location"] == "http://169.254.169.254/latest"
    async with http.get(BLOB, allow_redirects=False) as answer:
        assert answer.headers["Location"] == registry.url + BLOB
    assert await get(http, BLOB) == (200, b"other")


async def test_a_tag_moves_behind_a_request(registry: ScriptedRegistry, http: aiohttp.ClientSession) -> None:
    one, two = small_kit(1), small_kit(2)
    put_kit(registry, two, "a/b")
    put_kit(registry, one, "a/b")
    registry.script(faults.then(lambda: registry.move_tag("a/b", "v1", two.digest)), path="/manifests/v1")
    assert [(await get(http, "/v2/a/b/manifests/v1"))[1] for _ in range(2)] == [one.manifest, two.manifest]
