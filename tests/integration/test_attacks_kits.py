"""Attacks on the verbs: names that move under them, kits that lie, values out of range."""

from collections.abc import AsyncIterator
from pathlib import Path

import anyio
import msgspec
import pytest
from fakes.figures import Figures
from fakes.kits import FakeKit, FakeLayer, make_kit, put_kit, small_kit, some_bytes
from fakes.node import Node, node
from fakes.registry import ScriptedRegistry
from fakes.stores import read_all

from kitd.content.store import ContentStore
from kitd.jobs.news import News
from kitd.kits import catalog, load, pack, tree
from kitd.kits.path import path
from kitd.layer.tar import Member
from kitd.spec.digest import Digest
from kitd.spec.reference import parse_reference
from kitd_client.api.errors import InvalidRequest, KitdError, NoSpace, NotFound
from kitd_client.api.jobs import Failed, PathRequest, TagRequest

SUITE = "attacks on the verbs"


@pytest.fixture
async def here(anyio_backend: object, store_root: Path, figures: Figures) -> AsyncIterator[Node]:
    figures.tried(SUITE)
    async with node(store_root) as opened:
        yield opened


def child_of(parent: str) -> FakeKit:
    return make_kit([FakeLayer("code", "src", {"src/main.py": b"print('child')\n"})], parent=parent)


def base() -> FakeKit:
    files = {"weights/a.bin": some_bytes(200_000, 5)}
    return make_kit([FakeLayer("model", "weights", files, compression="gzip")])


async def test_a_parent_stays_while_a_verb_needs_it(
    here: Node, registry: ScriptedRegistry, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The kit loses its last name while `path` decodes: its layers stay, and so do its parents'."""
    put_kit(registry, base(), "team/base")
    put_kit(registry, child_of(f"{registry.host}/team/base:v1"), "team/child")
    child = f"{registry.host}/team/child:v1"
    await here.pull(child)
    require, removed = load.require, False

    async def removing(store: ContentStore, *args: object) -> None:
        nonlocal removed
        await require(store, *args)  # type: ignore[arg-type]
        if not removed:
            removed = True
            await catalog.remove(store, child, force=False)

    monkeypatch.setattr(load, "require", removing)
    with pytest.raises(NotFound, match="removed meanwhile"):
        await path(here.store, PathRequest(reference=child))
    assert removed
    with anyio.fail_after(10):  # what the remove had to leave to the verb goes when that ends
        while await here.store.has(Digest(base().layer_digests[0])):  # noqa: ASYNC110 - there is no event
            await anyio.sleep(0.01)
    assert (await here.store.usage()).store_bytes == 0


async def test_a_name_is_not_given_to_half_a_kit(
    here: Node, registry: ScriptedRegistry, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Invariant 2. A kit without layers is removed while it gets another name: its config stays, or no name."""
    put_kit(registry, make_kit([]), "team/bare")
    source = f"{registry.host}/team/bare:v1"
    await here.pull(source)
    tag = here.store.tag

    async def late(*args: object) -> None:
        await catalog.remove(here.store, source, force=False)
        await tag(*args)  # type: ignore[arg-type]

    monkeypatch.setattr(here.store, "tag", late)
    await catalog.tag(here.store, TagRequest(source=source, destination="other:v1"))
    assert (await catalog.info(here.store, "other:v1")).kitfile


async def test_a_kit_that_lies_about_a_size_harms_no_other(here: Node, registry: ScriptedRegistry) -> None:
    """A manifest names a file of another kit's layer, with a wrong size; the other kit stays whole."""
    victim = small_kit()
    put_kit(registry, victim, "team/victim")
    await here.pull(f"{registry.host}/team/victim:v1")
    data = b"# demo\n"
    liar = make_kit([FakeLayer("docs", "README.md", {"README.md": data}, format="raw")])
    size = b'"size":%d' % len(data)
    assert liar.manifest.count(size) == 1
    liar = FakeKit(liar.manifest.replace(size, b'"size":3'), liar.config, liar.layers, liar.files)
    put_kit(registry, liar, "mallory/liar")
    with pytest.raises(KitdError):
        await here.pull(f"{registry.host}/mallory/liar:v1")
    for digest, layer in zip(victim.layer_digests, victim.layers, strict=True):
        assert await read_all(here.store, Digest(digest)) == layer


async def test_a_full_disk_is_no_unreachable_parent(
    here: Node, registry: ScriptedRegistry, monkeypatch: pytest.MonkeyPatch
) -> None:
    put_kit(registry, base(), "team/base")
    put_kit(registry, child_of(f"{registry.host}/team/base:v1"), "team/child")
    add = here.store.add

    async def full(data: bytes, digest: Digest) -> None:
        if data == base().config:
            raise NoSpace("no space left")
        await add(data, digest)

    monkeypatch.setattr(here.store, "add", full)
    with pytest.raises(NoSpace):
        await here.pull(f"{registry.host}/team/child:v1")
    assert await here.store.resolve(parse_reference(f"{registry.host}/team/child:v1")) is None


def test_every_error_can_be_sent() -> None:
    """Invariant 9. A member's name that is no UTF-8 must not cost the job its terminal event."""
    plan = tree.TreePlan()
    member = Member("bad\udcff", is_dir=False, mode=0o644, size=1)
    with pytest.raises(KitdError) as caught:
        plan.add("layer", [(member, None), (member, None)])
    for encode in (msgspec.json.encode, msgspec.msgpack.encode):
        assert b"bad" in encode(Failed(problem=caught.value.problem()))


@pytest.mark.parametrize("epoch", [-1, -(10**12), 253_402_300_800, 10**15, 10**30, 10**4000])
def test_an_epoch_that_is_no_moment(epoch: int) -> None:
    with pytest.raises(InvalidRequest, match="SOURCE_DATE_EPOCH"):
        pack._created(epoch)


def test_the_last_epoch() -> None:
    assert pack._created(0) == "1970-01-01T00:00:00Z"
    assert pack._created(253_402_300_799) == "9999-12-31T23:59:59Z"


def test_counts_of_a_job_are_kept_not_summed() -> None:
    """`GET /v1/jobs` asks every job; a job may have ten thousand items, which may begin anew."""
    news = News()
    for number in range(3):
        news.began(f"item {number}", 100, 10)
        news.moved(f"item {number}", "host", 20)
    news.began("item 1", 50, 0)
    news.moved("item 1", "local", 5)
    assert (news.total, news.done) == (250, 65)
