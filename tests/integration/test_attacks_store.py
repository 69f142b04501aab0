"""Attacks on the store: what strangers claim, what happens at the same moment, what fails half-way."""

import json
import os
import threading
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import anyio
import anyio.from_thread
import anyio.to_thread
import pytest
from fakes.figures import Figures
from fakes.stores import TAR, ingest, noise, opened, plain_tar, put, read_all, stored_bytes

from kitd.content import sync
from kitd.content.store import ContentStore, KitRecord, TreeEntry
from kitd.layer.tar import Member
from kitd.spec.digest import Digest, digest_of
from kitd.spec.media_types import LayerType
from kitd.spec.reference import parse_reference
from kitd_client.api.errors import KitdError, NoSpace, NotFound, ObjectDamaged, StorageIo

SUITE = "attacks on the store"
RAW = LayerType("dataset", "raw", "none")
MEMBER = b"A" * 1000
FILES: dict[str, bytes | None] = {"a": MEMBER, "b": noise(300_000)}
LAYER = plain_tar(FILES)


@pytest.fixture
async def store(anyio_backend: object, store_root: Path, figures: Figures) -> AsyncIterator[ContentStore]:
    figures.tried(SUITE)
    async with opened(store_root) as opened_store:
        yield opened_store


async def name_kit(store: ContentStore, reference: str, *layers: Digest) -> KitRecord:
    config = b'{"of": "%s"}' % reference.encode()
    named = {"config": {"digest": digest_of(config)}, "layers": [{"digest": layer} for layer in layers]}
    manifest = json.dumps(named).encode()
    record = KitRecord(manifest=digest_of(manifest), selected=layers, complete=True, parents=())
    with store.lease() as lease:
        for data in (config, manifest):
            lease.hold(digest_of(data))
            await store.add(data, digest_of(data))
        await store.tag(parse_reference(reference), record)
    return record


async def opens(store: ContentStore, digests: list[Digest]) -> None:
    for descriptor in await store.work(store.open_objects, digests):
        os.close(descriptor)


def tamper(path: Path) -> None:
    path.chmod(0o600)
    path.write_bytes(b"B" * len(MEMBER))


async def write_tar(store: ContentStore) -> None:
    async with store.new_tar() as tar:
        await store.work(tar.begin, Member("f", is_dir=False, mode=0o644, size=100_000))
        await store.work(tar.data, noise(100_000))
        await tar.commit()


# -- what strangers claim ------------------------------------------------------------------------


@pytest.mark.parametrize("size", [0, 7, 10**12])
async def test_a_claimed_size_costs_nobody_an_object(store: ContentStore, size: int) -> None:
    """Invariant 1. A manifest names a file of somebody's layer as a blob, with a wrong size."""
    layer = await put(store, LAYER)
    await name_kit(store, "victim/kit:v1", layer)
    async with ingest(store, digest_of(MEMBER), size, split=False) as blob:
        assert blob is not None
    assert await read_all(store, layer) == LAYER


async def test_one_layer_as_a_tar_and_raw_at_the_same_time(store: ContentStore, store_root: Path) -> None:
    """While one job reads the files of a layer, another's kit calls the same digest raw."""
    with store.lease() as reading, store.lease() as hostile:
        layer = digest_of(LAYER)
        reading.hold(layer)
        hostile.hold(layer)
        await put(store, LAYER)
        planned = await store.files(layer, TAR, diff_id=None)
        members = [digest for _, digest in await store.work(list, planned) if digest is not None]
        await store.files(layer, RAW, diff_id=None)
        await opens(store, members)
        assert len(await store.work(list, planned)) == len(FILES)
        await store.files(layer, TAR, diff_id=None)
        await store.files(layer, RAW, diff_id=None)
        assert await read_all(store, layer) == LAYER
    with anyio.fail_after(5):
        while stored_bytes(store_root) > 1.2 * len(LAYER):
            await store.has(layer)
            await anyio.sleep(0.01)
    assert await read_all(store, layer) == LAYER


# -- at the same moment --------------------------------------------------------------------------


async def test_a_whole_tar_is_split_while_somebody_opens_it(
    store: ContentStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The reader saw the row of an object; by the time it opens that, the layer is kept as a recipe."""
    layer = await put(store, LAYER, split=False)
    await name_kit(store, "victim/kit:v1", layer)
    get = store._blobs.get
    waiting, go_on = threading.Event(), threading.Event()

    def slow(digest: Digest) -> object:
        blob = get(digest)
        if not waiting.is_set():
            waiting.set()
            go_on.wait(10)
        return blob

    monkeypatch.setattr(store._blobs, "get", slow)
    found: list[bytes] = []

    async def read() -> None:
        found.append(await read_all(store, layer))

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(read)
        assert await anyio.to_thread.run_sync(waiting.wait, 10)
        await store.files(layer, TAR, diff_id=None)
        go_on.set()
    assert found == [LAYER]
    assert await read_all(store, layer) == LAYER


async def test_a_recipe_is_replaced_in_one_step(store: ContentStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """Invariant 2. Two commits of one layer: at no moment the visible blob lacks its recipe."""
    layer = await put(store, LAYER)
    await name_kit(store, "victim/kit:v1", layer)
    recipe = Path(store._layout.recipe(layer))
    seen: list[bool] = []
    for name in ("link", "rename", "unlink"):
        call: Callable[..., None] = getattr(os, name)

        def watched(*args: object, call: Callable[..., None] = call) -> None:
            call(*args)
            seen.append(recipe.exists())

        monkeypatch.setattr(os, name, watched)
    async with store._ingests.fresh(split=True) as fresh:
        await store.work(fresh.intake.append, [LAYER])
        sealed = await store.work(fresh.intake.seal, None, None)
        await store._ingests._publisher.publish(sealed)
    assert len(seen) > 1
    assert all(seen)
    assert await read_all(store, layer) == LAYER


@pytest.mark.parametrize("judged", ["missing", "changed"])
async def test_what_was_judged_bad_is_judged_again(
    store: ContentStore, monkeypatch: pytest.MonkeyPatch, judged: str
) -> None:
    """Invariant 6. A worker finds an object bad; before it acts, a pull has brought it and was answered ok."""
    if judged == "changed":
        await put(store, LAYER)
        await store.work(tamper, Path(store._layout.object(digest_of(MEMBER))))
    put_aside = store._objects._put_aside
    waiting, go_on = threading.Event(), threading.Event()

    def slow(digest: Digest, identity: tuple[int, int] | None) -> None:
        if not waiting.is_set():
            waiting.set()
            go_on.wait(10)
        put_aside(digest, identity)

    monkeypatch.setattr(store._objects, "_put_aside", slow)

    async def use() -> None:
        with pytest.raises(ObjectDamaged):
            await opens(store, [digest_of(MEMBER)])

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(use)
        assert await anyio.to_thread.run_sync(waiting.wait, 10)
        other = plain_tar({"other": MEMBER})
        layer = await put(store, other)
        await name_kit(store, "pulled/kit:v1", layer)
        go_on.set()
    assert await read_all(store, layer) == other


async def test_a_tree_of_a_kit_that_is_removed_meanwhile(store: ContentStore, store_root: Path) -> None:
    """Nothing could ever name it again: it must not be handed out and kept for ever."""
    with store.lease() as lease:
        layer = digest_of(LAYER)
        lease.hold(layer)
        await put(store, LAYER)
        record = await name_kit(store, "some/kit:v1", layer)
        lease.hold(record.manifest)
        await store.untag(parse_reference("some/kit:v1"), force=False)
        entry = TreeEntry("a", is_dir=False, mode=0o644, size=len(MEMBER), digest=digest_of(MEMBER))
        with pytest.raises(NotFound):
            await store.snapshot(record.manifest, "key", [entry])
    assert list((store_root / "snapshots").iterdir()) == []
    await name_kit(store, "other/kit:v1")
    await store.untag(parse_reference("other/kit:v1"), force=False)
    assert not await store.has(layer)


# -- half-way ------------------------------------------------------------------------------------


async def test_cancelled_before_the_flush_keeps_every_byte(
    store: ContentStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Resume: a cancellation between the last byte and the commit throws nothing away."""
    scope = anyio.CancelScope()
    visible = store._blobs.visible
    armed = False

    def cancelling(digest: Digest) -> object:
        if armed:
            anyio.from_thread.run_sync(scope.cancel)
        return visible(digest)

    monkeypatch.setattr(store._blobs, "visible", cancelling)
    layer = digest_of(LAYER)
    with scope:
        async with ingest(store, layer, len(LAYER)) as blob:
            assert blob is not None
            await store.work(blob.append, [LAYER])
            armed = True
            await blob.commit()
    armed = False
    assert scope.cancelled_caught
    async with ingest(store, layer, len(LAYER)) as blob:
        assert blob is not None
        assert blob.offset == len(LAYER)
        await blob.commit()
    assert await read_all(store, layer) == LAYER


async def test_a_publication_that_fails_leaves_no_orphans(
    store: ContentStore, store_root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A full disk must not become fuller with every try: what was linked already goes again."""

    def full(paths: object) -> None:
        raise OSError(28, os.strerror(28))

    with monkeypatch.context() as patch:
        patch.setattr(sync, "sync_directories", full)
        with pytest.raises(NoSpace):
            await write_tar(store)
    assert [path for path in (store_root / "objects").rglob("*") if path.is_file()] == []
    assert [path for path in (store_root / "recipes").rglob("*") if path.is_file()] == []


async def test_a_copy_that_fails_leaves_nothing(
    store: ContentStore, store_root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    blob = await put(store, LAYER, split=False)
    await name_kit(store, "some/kit:v1", blob)

    def full(*_: object) -> int:
        raise OSError(28, os.strerror(28))

    monkeypatch.setattr(os, "copy_file_range", full)
    entry = TreeEntry("run", is_dir=False, mode=0o755, size=len(LAYER), digest=blob)
    with pytest.raises(NoSpace):
        await store.snapshot(digest_of(b"any"), "key", [entry])
    assert list((store_root / "ingest").iterdir()) == []


async def test_an_error_of_close_does_not_hold_the_blob_for_ever(store: ContentStore) -> None:
    """The next who wants the blob gets his turn, whatever the disk says to the last."""
    layer = digest_of(LAYER)

    async def fail() -> None:
        async with ingest(store, layer, len(LAYER)) as blob:
            assert blob is not None
            await store.work(blob.append, [LAYER[:1000]])
            close = blob._intake.close

            def broken() -> None:
                close()
                raise OSError(5, os.strerror(5))

            blob._intake.close = broken  # type: ignore[method-assign]

    with pytest.raises(StorageIo):
        await fail()
    with anyio.fail_after(10):
        assert await put(store, LAYER) == layer


@pytest.mark.parametrize("split", [True, False])
async def test_an_empty_blob(store: ContentStore, *, split: bool) -> None:
    blob = await put(store, b"", split=split)
    assert await read_all(store, blob) == b""
    ((member, digest),) = await store.work(list, await store.files(blob, RAW, diff_id=None))
    assert (member.size, digest) == (0, None)
    with pytest.raises(KitdError, match="zero blocks"):
        await store.work(list, await store.files(blob, TAR, diff_id=None))
