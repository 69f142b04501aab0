"""Kits on a parent that is named without a registry: a kit of this store, never a host called localhost."""

import resource
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from fakes.kits import FakeKit, FakeLayer, make_kit, put_kit, some_bytes
from fakes.node import Node, node
from fakes.registry import ScriptedRegistry
from fakes.stores import read_all

from kitd.jobs.news import News
from kitd.kits.source import find_parents
from kitd.registry.transport import Access
from kitd.spec.digest import Digest
from kitd.spec.reference import parse_reference
from kitd_client.api.errors import KitdError, NotFound, ParentUnreachable
from kitd_client.api.jobs import Context

BASE = make_kit(
    [
        FakeLayer("model", "weights", {"weights/a.bin": some_bytes(9000, 5)}),
        FakeLayer("docs", "BASE.md", {"BASE.md": b"# base\n"}),
    ]
)


@pytest.fixture
async def pulling(anyio_backend: object, store_root: Path) -> AsyncIterator[Node]:
    async with node(store_root) as opened:
        yield opened


def child_of(parent: str) -> FakeKit:
    return make_kit([FakeLayer("modelpart", "lora.bin", {"lora.bin": b"lora"})], parent=parent)


@pytest.fixture
def child(registry: ScriptedRegistry) -> str:
    put_kit(registry, child_of("base:v1"), "team/child")
    return f"{registry.host}/team/child:v1"


async def name_base(
    pulling: Node, registry: ScriptedRegistry, *, filters: tuple[str, ...] = (), kit: FakeKit = BASE
) -> None:
    """The store has the base kit, under a name of its own alone."""
    put_kit(registry, kit, "elsewhere/base")
    reference = f"{registry.host}/elsewhere/base:v1"
    await pulling.pull(reference, filters=filters)
    record = await pulling.store.resolve(parse_reference(reference))
    assert record is not None
    await pulling.store.tag(parse_reference("base:v1"), record)
    await pulling.store.untag(parse_reference(reference), force=False)
    registry.repository("elsewhere/base").manifests.clear()


async def test_a_local_parent_is_found_in_the_store(
    pulling: Node, registry: ScriptedRegistry, child: str
) -> None:
    await name_base(pulling, registry)
    before = registry.count()
    pulled = await pulling.pull(child)
    assert registry.count() - before == len(registry.select(path="/team/child/")) > 0
    record = await pulling.store.resolve(parse_reference(child))
    assert record is not None
    assert record.parents == (Digest(BASE.digest),)
    assert pulled.fetched == {registry.host: child_of("base:v1").size}
    assert pulled.present == len(BASE.layers[0])  # of a parent only the model counts
    # It stays with its child.
    await pulling.store.untag(parse_reference("base:v1"), force=False)
    assert await read_all(pulling.store, Digest(BASE.layer_digests[0])) == BASE.layers[0]


async def test_a_local_parent_that_is_not_here_is_named(
    pulling: Node, registry: ScriptedRegistry, child: str
) -> None:
    with pytest.raises(
        ParentUnreachable, match=r"parent base:v1 of .* names no registry, and no kit"
    ) as caught:
        await pulling.pull(child)
    assert caught.value.detail == {"parent": "base:v1"}
    assert "kitctl tag" in str(caught.value.hint)
    assert pulling.clock.slept == []  # nobody was waited for: no host was asked
    assert not await pulling.has(child)
    # Not even to build on it.
    access = Access(uid=1000, context=Context())
    with pulling.store.lease() as lease, pytest.raises(NotFound, match="base:v1"):
        await find_parents(
            pulling.store, pulling.transport, access, parse_reference("base:v1"), News(), lease
        )


async def test_a_local_parent_that_lacks_a_layer_is_named_before_anything_moves(
    pulling: Node, registry: ScriptedRegistry, child: str
) -> None:
    await name_base(pulling, registry, filters=("docs",))
    with pytest.raises(ParentUnreachable, match=r"parent base:v1 .* without layer model weights"):
        await pulling.pull(child)
    lora = child_of("base:v1").layer_digests[0]
    assert registry.count("GET", f"/blobs/{lora}") == 0
    # What of the parent does not count may be missing.
    await pulling.pull(child, filters=("docs",))


async def test_a_local_parents_own_parent_is_fetched(pulling: Node, registry: ScriptedRegistry) -> None:
    put_kit(registry, BASE, "team/grand")
    middle = child_of(f"{registry.host}/team/grand:v1")
    await name_base(pulling, registry, kit=middle)
    youngest = make_kit([FakeLayer("modelpart", "own.bin", {"own.bin": b"own"})], parent="base:v1")
    put_kit(registry, youngest, "team/youngest")
    await pulling.pull(f"{registry.host}/team/youngest:v1")
    record = await pulling.store.resolve(parse_reference(f"{registry.host}/team/youngest:v1"))
    assert record is not None
    assert record.parents == (Digest(middle.digest), Digest(BASE.digest))


async def test_a_kit_of_many_layers_needs_few_descriptors(pulling: Node, registry: ScriptedRegistry) -> None:
    parts = [FakeLayer("modelpart", f"{n}.bin", {f"{n}.bin": b"%d" % n}) for n in range(300)]
    kit = make_kit([FakeLayer("model", "m.bin", {"m.bin": b"m"}), *parts])
    put_kit(registry, kit, "team/many")
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (256, hard))
    try:
        pulled = await pulling.pull(f"{registry.host}/team/many:v1")
    except KitdError as error:
        pytest.fail(error.message)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert sum(pulled.fetched.values()) == kit.size
