"""Bodies that stand still or trickle; here time is real and limits are short."""

from collections.abc import AsyncIterator

import anyio
import msgspec
import pytest
from fakes import faults
from fakes.exchange import Gate
from fakes.kits import some_bytes
from fakes.registry import ScriptedRegistry

from kitd.registry.body import BodyInterrupted
from kitd.registry.repository import Repository
from kitd.registry.retry import Backoff
from kitd.registry.settings import TransportSettings
from kitd.registry.transport import Access, Transport
from kitd.spec.digest import parse_digest
from kitd.spec.oci import Descriptor
from kitd_client.api.errors import RegistryUnavailable

_DATA = some_bytes(50_000)


@pytest.fixture
async def repository(registry: ScriptedRegistry, settings: TransportSettings) -> AsyncIterator[Repository]:
    short = msgspec.structs.replace(
        settings, stall_timeout=0.3, backoff=Backoff(attempts=2, random=lambda: 0.0)
    )
    async with Transport.opened(short) as transport:
        yield transport.repository(registry.host, "kit", Access(1))


@pytest.fixture
def blob(registry: ScriptedRegistry) -> Descriptor:
    return Descriptor("x", parse_digest(registry.put_blob("kit", _DATA)), len(_DATA))


async def test_a_body_that_stands_still_is_given_up_and_what_came_is_good(
    registry: ScriptedRegistry, repository: Repository, blob: Descriptor
) -> None:
    registry.script(faults.stall(Gate(), 10_000))
    got = b""
    async with repository.open_blob(blob, 0, 40_000) as remote:
        with pytest.raises(BodyInterrupted, match="stalled"):  # noqa: PT012 - what came before it counts
            while True:
                got += await anext(remote.body)
    assert got == _DATA[:10_000]
    async with repository.open_blob(blob, 10_000, 40_000) as remote:
        assert b"".join([piece async for piece in remote.body]) == _DATA[10_000:40_000]


async def test_a_trickle_is_a_stall(
    registry: ScriptedRegistry, repository: Repository, blob: Descriptor
) -> None:
    registry.script(faults.drip(5, 0.05))
    async with repository.open_blob(blob, 0, 40_000) as remote:
        with pytest.raises(BodyInterrupted, match="1 KiB/s"):  # noqa: PT012 - what came before it counts
            while True:
                await anext(remote.body)


async def test_a_slow_but_steady_body_is_taken(
    registry: ScriptedRegistry, repository: Repository, blob: Descriptor
) -> None:
    registry.script(faults.drip(5_000, 0.1))
    async with repository.open_blob(blob, 0, 40_000) as remote:
        assert b"".join([piece async for piece in remote.body]) == _DATA[:40_000]


async def test_a_reader_that_takes_its_time_is_no_stall(
    registry: ScriptedRegistry, repository: Repository, blob: Descriptor
) -> None:
    got = b""
    async with repository.open_blob(blob, 0, 40_000) as remote:
        async for piece in remote.body:
            await anyio.sleep(0.4)
            got += piece
    assert got == _DATA[:40_000]


async def test_an_answer_that_never_begins_is_asked_for_again(
    registry: ScriptedRegistry, repository: Repository, blob: Descriptor
) -> None:
    registry.script(faults.stall(Gate()))
    assert await repository.fetch_bytes(blob, 10**6) == _DATA
    assert registry.count() == 2


async def test_a_manifest_that_trickles_is_given_up(
    registry: ScriptedRegistry, repository: Repository
) -> None:
    digest = parse_digest(registry.put_manifest("kit", _DATA))
    registry.script(faults.drip(5, 0.05), times=None)
    with pytest.raises(BodyInterrupted):
        await repository.fetch_manifest(digest)
    assert registry.count() == 2


async def test_a_host_that_never_answers_is_given_up(
    registry: ScriptedRegistry, repository: Repository, blob: Descriptor
) -> None:
    registry.script(faults.stall(Gate()), times=None)
    with pytest.raises(RegistryUnavailable, match="did not answer in time"):
        await repository.fetch_bytes(blob, 10**6)
    assert registry.count() == 2
