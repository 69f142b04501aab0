"""The proofs that cannot be skipped: resume, single flight, no deadlock, each with the real store and client."""

from collections.abc import AsyncIterator
from pathlib import Path

import anyio
import pytest
from fakes import faults
from fakes.exchange import Gate
from fakes.figures import Figures
from fakes.kits import FakeKit, large_kit, put_kit
from fakes.node import KIB, LARGEST_REQUEST, RANGE, Node, node
from fakes.registry import ScriptedRegistry
from fakes.stores import read_all
from fakes.tokens import Bearer

from kitd.jobs.news import News
from kitd.spec.digest import Digest
from kitd_client.api.errors import KitdError, Unauthorized
from kitd_client.api.jobs import Context, Credential, Pulled

LAYER = 2048 * KIB
SUITE = "resume and sharing"


@pytest.fixture
def kit() -> FakeKit:
    return large_kit(LAYER)


@pytest.fixture
def reference(registry: ScriptedRegistry, kit: FakeKit) -> str:
    put_kit(registry, kit, "team/kit")
    return f"{registry.host}/team/kit:v1"


@pytest.fixture
async def pulling(anyio_backend: object, store_root: Path) -> AsyncIterator[Node]:
    async with node(store_root) as opened:
        yield opened


def layer_path(kit: FakeKit, index: int = 0) -> str:
    return f"/blobs/{kit.layer_digests[index]}"


async def assert_layers(node: Node, kit: FakeKit) -> None:
    for digest, data in zip(kit.layer_digests, kit.layers, strict=True):
        assert await read_all(node.store, Digest(digest)) == data


@pytest.mark.parametrize("share", [0.3, 0.6, 0.9])
async def test_a_cancelled_pull_goes_on_in_another_life(
    store_root: Path, registry: ScriptedRegistry, kit: FakeKit, reference: str, share: float, figures: Figures
) -> None:
    """What was appended is not fetched again; the ranges asked for and not appended are all that is."""
    size = len(kit.layers[0])
    memory = 1024 * KIB
    gate = Gate()
    registry.script(faults.stall(gate), path=layer_path(kit), covers=int(size * share) // RANGE * RANGE)
    async with node(store_root, memory=memory, stall_timeout=60) as first, anyio.create_task_group() as tasks:
        tasks.start_soon(first.pull, reference)
        await gate.until_held()
        await registry.until(lambda: registry.sent(layer_path(kit)) >= size * share - LARGEST_REQUEST)
        tasks.cancel_scope.cancel()
    before = registry.sent(layer_path(kit))
    registry.drop_script()
    news = News()
    async with node(store_root, memory=memory) as second:
        result = await second.pull(reference, news=news)
        await assert_layers(second, kit)
    fetched = registry.sent(layer_path(kit)) - before
    allowed = size * (1 - share) + memory
    figures.tried(SUITE)
    figures.note(SUITE, f"cancelled at {share:.0%}: {fetched / size:.0%} of the layer fetched afterwards")
    assert fetched <= allowed
    assert result.present >= size * share - memory
    assert news.done == news.total == size


async def test_fifty_clients_cause_one_transfer(
    pulling: Node, registry: ScriptedRegistry, reference: str, kit: FakeKit, figures: Figures
) -> None:
    """Each range once, whoever asks; every client sees the blob grow to its end."""
    results: list[Pulled] = []
    newses = [News() for _ in range(50)]

    async def one(news: News) -> None:
        results.append(await pulling.pull(reference, news=news))

    with anyio.fail_after(30):
        async with anyio.create_task_group() as tasks:
            for news in newses:
                tasks.start_soon(one, news)
    asked = [exchange.range for exchange in registry.select("GET", layer_path(kit))]
    assert len(asked) == len(set(asked))
    assert registry.sent(layer_path(kit)) == len(kit.layers[0])
    assert sum(sum(result.fetched.values()) for result in results) == len(kit.layers[0])
    assert all(news.done == news.total for news in newses)
    figures.tried(SUITE, 50)


async def test_the_first_of_fifty_is_cancelled_and_the_others_succeed(
    pulling: Node, registry: ScriptedRegistry, reference: str, kit: FakeKit, figures: Figures
) -> None:
    """The open blob passes in memory: what was appended is not asked for again."""
    gate = Gate()
    size = len(kit.layers[0])
    registry.script(faults.stall(gate), path=layer_path(kit), covers=size // 2)
    done = 0

    async def one() -> None:
        nonlocal done
        await pulling.pull(reference)
        done += 1

    with anyio.fail_after(30):
        async with anyio.create_task_group() as tasks:
            first = anyio.CancelScope()

            async def leader() -> None:
                with first:
                    await pulling.pull(reference)

            tasks.start_soon(leader)
            await gate.until_held()
            for _ in range(49):
                tasks.start_soon(one)
            await registry.until(lambda: registry.count("GET", "/manifests/sha256") >= 50)
            first.cancel()
            gate.open()
    assert done == 49
    again = registry.sent(layer_path(kit)) - size
    assert again <= 1024 * KIB
    figures.tried(SUITE, 50)
    figures.note(SUITE, f"first of 50 cancelled at 50 %: {again // KIB} KiB sent again")


async def test_one_whose_token_is_void_does_not_fail_the_others(store_root: Path, kit: FakeKit) -> None:
    """Nothing but the open blob is shared: each job has its own credentials and its own error."""
    access = Bearer(users={"ann": "secret"})
    async with ScriptedRegistry(access=access) as registry, node(store_root) as pulling:
        put_kit(registry, kit, "team/kit")
        reference = f"{registry.host}/team/kit:v1"
        good = Context(credentials={registry.host: Credential(username="ann", password="secret")})
        bad = Context(credentials={registry.host: Credential(username="ann", password="void")})
        outcomes: list[str] = []

        async def one(context: Context, uid: int) -> None:
            try:
                await pulling.pull(reference, context=context, uid=uid)
            except Unauthorized as error:
                outcomes.append(error.code)
            else:
                outcomes.append("ok")

        with anyio.fail_after(30):
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(one, bad, 1)
                for uid in range(2, 12):
                    tasks.start_soon(one, good, uid)
        assert sorted(outcomes) == ["ok"] * 10 + ["unauthorized"]
        await assert_layers(pulling, kit)


async def test_a_job_held_back_lets_another_go_on(store_root: Path, kit: FakeKit) -> None:
    """While one registry asks to wait, the same blob comes from the other one; then both jobs are done."""
    async with ScriptedRegistry() as slow, ScriptedRegistry() as quick:
        for registry in (slow, quick):
            put_kit(registry, kit, "team/kit")
        size = len(kit.layers[0])
        slow.script(faults.too_many("500"), path=layer_path(kit), skip=4, times=None)
        async with node(store_root, real_time=True) as pulling:
            with anyio.fail_after(30):
                async with anyio.create_task_group() as tasks:
                    tasks.start_soon(pulling.pull, f"{slow.host}/team/kit:v1")
                    await slow.until(lambda: slow.count("GET", layer_path(kit)) > 4)
                    tasks.start_soon(pulling.pull, f"{quick.host}/team/kit:v1")
            assert await pulling.has(f"{slow.host}/team/kit:v1")
            assert await pulling.has(f"{quick.host}/team/kit:v1")
            await assert_layers(pulling, kit)
        assert slow.sent(layer_path(kit)) < size
        assert quick.sent(layer_path(kit)) <= size


async def test_forty_layers_of_failing_ranges_end(store_root: Path, figures: Figures) -> None:
    """40 layers, 16 streams, 5 % failing ranges, a budget of 16 MiB, 32 connections: no deadlock, no wrong byte."""
    kit = large_kit(1200 * KIB, layers=40)
    async with ScriptedRegistry() as registry:
        put_kit(registry, kit, "team/kit")
        registry.script(faults.drop(20_000), path="/blobs/", every=20, times=None)
        async with node(store_root, memory=16 << 20, per_host=32, connections=16) as pulling:
            with anyio.fail_after(50):
                await pulling.pull(f"{registry.host}/team/kit:v1")
            await assert_layers(pulling, kit)
        broken = sum(1 for exchange in registry.select(path="/blobs/") if exchange.fault)
    assert broken > 20
    figures.tried(SUITE, 40)
    figures.note(SUITE, f"40 layers x 16 streams: {broken} broken ranges, no deadlock")


async def test_a_filtered_pull_grows_to_a_whole_one(pulling: Node, registry: ScriptedRegistry) -> None:
    """For one digest what was selected only grows (invariant 2)."""
    kit = large_kit(300 * KIB, layers=3)
    put_kit(registry, kit, "team/kit")
    reference = f"{registry.host}/team/kit:v1"
    some = await pulling.pull(reference, filters=("model:shard-1.bin",))
    assert not some.complete
    assert [registry.count("GET", layer_path(kit, index)) > 0 for index in range(3)] == [False, True, False]
    everything = await pulling.pull(reference)
    assert everything.complete
    assert everything.present == len(kit.layers[1])
    again = await pulling.pull(reference, filters=("model:shard-1.bin",))
    assert again.fetched == {}
    rows = await pulling.store.tags()
    assert [row.record.complete for row in rows] == [True]


async def test_a_push_sends_what_is_missing_and_nothing_twice(
    pulling: Node, registry: ScriptedRegistry
) -> None:
    kit = large_kit(300 * KIB, layers=3)
    put_kit(registry, kit, "team/kit")
    await pulling.pull(f"{registry.host}/team/kit:v1")
    async with ScriptedRegistry() as target:
        destination = f"{target.host}/other/kit:v2"
        first = await pulling.push(f"{registry.host}/team/kit:v1", destination)
        assert first.sent == sum(map(len, kit.layers)) + len(kit.config)
        assert target.repository("other/kit").tags["v2"] == kit.digest
        second = await pulling.push(f"{registry.host}/team/kit:v1", destination)
        assert second.sent == 0


async def test_a_registry_that_lost_a_blob_gets_it_again(pulling: Node, registry: ScriptedRegistry) -> None:
    """R23: MANIFEST_BLOB_UNKNOWN is answered by looking again, once."""
    kit = large_kit(100 * KIB, layers=2)
    put_kit(registry, kit, "team/kit")
    await pulling.pull(f"{registry.host}/team/kit:v1")
    async with ScriptedRegistry() as target:
        lost = kit.layer_digests[1]
        target.script(
            faults.then(lambda: target.repository("other/kit").blobs.pop(lost, None)),
            method="PUT",
            path="/blobs/uploads/",
            skip=2,
        )
        await pulling.push(f"{registry.host}/team/kit:v1", f"{target.host}/other/kit:v2")
        assert lost in target.repository("other/kit").blobs
        assert target.repository("other/kit").tags["v2"] == kit.digest


async def test_errors_of_one_layer_end_the_job_with_that_error(
    pulling: Node, registry: ScriptedRegistry
) -> None:
    """An expected failure never arrives as a group."""
    kit = large_kit(300 * KIB, layers=4)
    put_kit(registry, kit, "team/kit")
    registry.script(faults.status(403), path=layer_path(kit, 2), times=None)
    with pytest.raises(KitdError) as caught:
        await pulling.pull(f"{registry.host}/team/kit:v1")
    assert caught.value.code == "denied"
