"""A bare HTTP client at a scripted registry: for tests of the double itself."""

from collections.abc import AsyncIterator

import aiohttp
import pytest
from fakes.registry import ScriptedRegistry
from fakes.shelves import MANIFEST


def bare_session(registry: ScriptedRegistry) -> aiohttp.ClientSession:
    """The manners a strict registry wants, and nothing else."""
    return aiohttp.ClientSession(
        base_url=registry.url,
        headers={"Accept-Encoding": "identity", "Accept": MANIFEST},
        requote_redirect_url=False,
        timeout=aiohttp.ClientTimeout(20),
    )


@pytest.fixture
async def http(registry: ScriptedRegistry) -> AsyncIterator[aiohttp.ClientSession]:
    async with bare_session(registry) as opened:
        yield opened


async def get(http: aiohttp.ClientSession, url: str, **headers: str) -> tuple[int, bytes]:
    async with http.get(url, headers=headers, allow_redirects=False) as answer:
        return answer.status, await answer.read()


def ranged(first: int, last: int) -> dict[str, str]:
    return {"Range": f"bytes={first}-{last}"}
