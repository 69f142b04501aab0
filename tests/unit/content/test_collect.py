"""What goes, and what stays, when a name is taken away."""

import gzip
import json
import os
from collections.abc import Callable
from pathlib import Path

import anyio
import anyio.lowlevel
import pytest
from fakes.stores import TAR, ingest, names_in, noise, opened, plain_tar, put, read_all

from kitd.content import disposal
from kitd.content.disposal import Disposal, Freeing, at_once
from kitd.content.leases import Lease
from kitd.content.store import ContentStore, KitRecord, TreeEntry, _step
from kitd.spec.digest import Digest, digest_of
from kitd.spec.media_types import LayerType
from kitd.spec.reference import Reference, parse_reference
from kitd_client.api.errors import InUse, KitdError, NotFound

A = plain_tar({"own": noise(9000, 1), "shared": noise(5000, 2)})
B = plain_tar({"own": noise(8000, 3), "shared": noise(5000, 2)})
RAW = noise(7000, 4)
GZIP = LayerType("code", "tar", "gzip")


def manifest_of(config: bytes, *layers: bytes) -> bytes:
    return json.dumps(
        {
            "config": {"digest": digest_of(config)},
            "layers": [{"digest": digest_of(layer)} for layer in layers],
        }
    ).encode()


async def keep(store: ContentStore, name: str, *layers: bytes, parents: tuple[Digest, ...] = ()) -> Reference:
    """A whole kit under a name."""
    reference = parse_reference(name)
    config = f"config of {name}".encode()
    manifest = manifest_of(config, *layers)
    for data in (config, manifest):
        await store.add(data, digest_of(data))
    for layer in layers:
        await put(store, layer, split=layer is not RAW)
    record = KitRecord(
        manifest=digest_of(manifest),
        selected=tuple(digest_of(layer) for layer in layers),
        complete=True,
        parents=parents,
    )
    await store.tag(reference, record)
    return reference


async def until(so: Callable[[], bool]) -> None:
    with anyio.fail_after(10):
        while not so():  # noqa: ASYNC110 - there is no event to wait for
            await anyio.sleep(0.01)


def files(root: Path) -> set[str]:
    """Objects and recipes, by name."""
    return {
        path.name
        for folder in ("objects", "recipes")
        for path in (root / folder).rglob("*")
        if path.is_file()
    }


async def test_the_last_name_takes_everything_along(store: ContentStore, root: Path) -> None:
    reference = await keep(store, "kit:v1", A, RAW)
    expected = sum(path.stat().st_size for path in (root / "objects").rglob("*") if path.is_file())
    removal = await store.untag(reference, force=False)
    assert removal.names == ("kit:v1",)
    assert removal.freed == expected
    assert files(root) == set()
    assert (await store.usage()).store_bytes == 0
    with pytest.raises(NotFound):
        await store.untag(reference, force=False)


async def test_what_another_kit_needs_stays(store: ContentStore, root: Path) -> None:
    one = await keep(store, "one:v1", A, RAW)
    await keep(store, "two:v1", B, RAW)
    before = files(root)
    await store.untag(one, force=False)
    assert await read_all(store, digest_of(B)) == B
    assert await read_all(store, digest_of(RAW)) == RAW
    assert not await store.has(digest_of(A))
    config = b"config of one:v1"
    gone = {digest_of(data)[7:] for data in (noise(9000, 1), config, manifest_of(config, A, RAW), A)}
    assert before - files(root) == gone


async def test_a_second_name_keeps_it(store: ContentStore) -> None:
    one = await keep(store, "kit:v1", A)
    record = await store.resolve(one)
    assert record is not None
    await store.tag(parse_reference("kit:v2"), record)
    assert (await store.untag(one, force=False)).freed == 0
    assert await read_all(store, digest_of(A)) == A
    removal = await store.untag(parse_reference(f"kit@{record.manifest}"), force=False)
    assert removal.names == ("kit:v2",)
    assert not await store.has(digest_of(A))


async def test_parents_stay_with_their_child(store: ContentStore) -> None:
    parent = await keep(store, "parent:v1", A)
    record = await store.resolve(parent)
    assert record is not None
    child = await keep(store, "child:v1", B, parents=(record.manifest,))
    await store.untag(parent, force=False)
    assert await read_all(store, digest_of(A)) == A
    await store.untag(child, force=False)
    assert not await store.has(digest_of(A))


async def test_leases_and_readers_hold(store: ContentStore, root: Path) -> None:
    reference = await keep(store, "kit:v1", A, RAW)
    with store.lease() as lease:
        lease.hold(digest_of(A))
        reader = await store.open(digest_of(RAW))
        await store.untag(reference, force=False)
        assert await read_all(store, digest_of(A)) == A
        assert reader.read(0, 10_000) == RAW
        assert await store.has(digest_of(RAW))
        reader.close()
    await keep(store, "next:v1")
    await store.untag(parse_reference("next:v1"), force=False)
    assert files(root) == set()


async def test_a_kit_handed_out_is_in_use(store: ContentStore, root: Path) -> None:
    reference = await keep(store, "kit:v1", A)
    record = await store.resolve(reference)
    assert record is not None
    entry = TreeEntry("own", is_dir=False, mode=0o644, size=9000, digest=digest_of(noise(9000, 1)))
    path = await store.snapshot(record.manifest, "key", [entry])
    await store.tag(parse_reference("kit:v2"), record)
    await store.untag(reference, force=False)
    with pytest.raises(InUse) as caught:
        await store.untag(parse_reference("kit:v2"), force=False)
    assert str(path) in caught.value.message
    assert await store.resolve(parse_reference("kit:v2")) == record
    assert (path / "own").read_bytes() == noise(9000, 1)
    await store.untag(parse_reference("kit:v2"), force=True)
    assert not path.exists()
    assert files(root) == set()
    assert await store.find_snapshot(record.manifest, "key") is None


async def begun(store: ContentStore, name: str) -> Reference:
    """A pull that was stopped after one layer and a half."""
    reference = parse_reference(name)
    manifest = manifest_of(b"config", A, B)
    await store.add(b"config", digest_of(b"config"))
    await store.add(manifest, digest_of(manifest))
    await store.begin_pull(reference, digest_of(manifest))
    await put(store, A)
    async with ingest(store, digest_of(B), len(B)) as blob:
        assert blob is not None
        await store.work(blob.append, [B[:9000]])
    return reference


async def test_a_stopped_pull_keeps_its_bytes_until_it_is_removed(store: ContentStore, root: Path) -> None:
    other = await keep(store, "other:v1", RAW)
    reference = await begun(store, "kit:v1")
    await store.untag(other, force=False)
    assert await read_all(store, digest_of(A)) == A
    assert await store.kept(digest_of(B)) > 9000
    assert await store.tags() == []
    removal = await store.untag(reference, force=False)
    assert (removal.names, removal.manifest) == ((), None)
    assert removal.freed > 9000
    assert await store.kept(digest_of(B)) == 0
    assert files(root) == set()
    assert list((root / "ingest").iterdir()) == []


async def test_a_finished_pull_is_no_pull_any_more(store: ContentStore, root: Path) -> None:
    reference = await begun(store, "kit:v1")
    await keep(store, "kit:v1", RAW)
    await store.untag(reference, force=False)
    assert files(root) == set()


async def test_bytes_that_a_job_writes_stay(store: ContentStore) -> None:
    other = await keep(store, "other:v1", RAW)
    async with ingest(store, digest_of(A), len(A)) as blob:
        assert blob is not None
        await store.work(blob.append, [A[:12_000]])
        await store.untag(other, force=False)
        await store.work(blob.append, [A[12_000:]])
        await blob.commit()
        assert await read_all(store, digest_of(A)) == A


async def test_an_ingest_keeps_the_objects_it_found(store: ContentStore) -> None:
    other = await keep(store, "other:v1", A)
    async with ingest(store, digest_of(B), len(B)) as blob:
        assert blob is not None
        await store.work(blob.append, [B[:15_000]])
        await store.untag(other, force=False)
        await store.work(blob.append, [B[15_000:]])
        await blob.commit()
    assert await read_all(store, digest_of(B)) == B


async def test_a_damaged_kit_can_be_removed(store: ContentStore, root: Path) -> None:
    reference = await keep(store, "kit:v1", A)
    for path in [path for folder in ("objects", "recipes") for path in (root / folder).rglob("*")]:
        if path.is_file():
            path.chmod(0o600)
            path.write_bytes(b"?")
    await store.untag(reference, force=False)
    assert files(root) == set()


async def test_a_collection_cut_short_is_finished_at_the_next_start(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with opened(root) as store:
        reference = await keep(store, "kit:v1", A, RAW)
        await keep(store, "two:v1", B)
        with monkeypatch.context() as patch:
            patch.setattr(Disposal, "steps", broken)
            with pytest.raises(KitdError):
                await store.untag(reference, force=False)
        assert not await store.has(digest_of(A))
    async with opened(root) as store:
        assert await read_all(store, digest_of(B)) == B
        config = b"config of two:v1"
        needed = (B, noise(8000, 3), noise(5000, 2), config, manifest_of(config, B))
        assert files(root) == {digest_of(data)[7:] for data in needed}


def broken(*_: object) -> int:
    raise OSError(5, "broken")


async def test_what_a_cut_commit_linked_goes_with_its_directory(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A commit that ended between its links and the database leaves nothing, once the bytes are given up."""
    for known in (True, False):
        async with opened(root) as store:
            other = await keep(store, "other:v1", RAW)
            with monkeypatch.context() as patch:
                patch.setattr(store._database, "publish", broken)
                if known:
                    with pytest.raises(KitdError):
                        await put(store, A)
                else:
                    patch.setattr(store._trash, "put", lambda _path: True)
                    with pytest.raises(KitdError):
                        async with store.new_tar() as tar:
                            await tar.commit()
        assert len(list((root / "ingest").iterdir())) == 1
        async with opened(root) as store:
            await store.untag(other, force=False)
            assert files(root) == set()
            assert list((root / "ingest").iterdir()) == []


async def test_a_commit_waits_for_one_step_of_a_collection_at_most(
    store: ContentStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(disposal, "_MOVED", 1)
    reference = await keep(store, "kit:v1", plain_tar({f"{n}": noise(40, n) for n in range(300)}))
    moved: list[str | Path] = []
    moved_when_stored: list[int] = []
    trash = store._trash.put

    def put_aside(path: str | Path) -> None:
        moved.append(path)
        trash(path)

    monkeypatch.setattr(store._trash, "put", put_aside)

    async def meanwhile() -> None:
        while not moved:
            await anyio.lowlevel.checkpoint()
        await store.add(b"meanwhile", digest_of(b"meanwhile"))
        moved_when_stored.append(len(moved))

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(meanwhile)
        await store.untag(reference, force=False)
    assert moved_when_stored[0] < 150
    assert len(moved) >= 300


async def step(store: ContentStore, steps: Freeing) -> bool:
    """One step of a collection; whether it was not the last."""

    def forward() -> bool:
        return next(steps, "the end") is None

    return await store._workers.commit(forward)


@pytest.mark.parametrize("data", [A, B, RAW, noise(9000, 1)], ids=["the same", "akin", "raw", "one file"])
async def test_what_is_published_during_a_collection_is_whole(
    root: Path, monkeypatch: pytest.MonkeyPatch, data: bytes
) -> None:
    """Whatever has gone when it comes, and whatever is about to go."""
    monkeypatch.setattr(disposal, "_MOVED", 1)
    monkeypatch.setattr(disposal, "_MARKED", 1)
    for before in range(100):
        async with opened(root / str(before)) as store:
            reference = await keep(store, "kit:v1", A, RAW)
            await keep(store, "other:v1", plain_tar({"other": noise(100, 9)}))
            await store._workers.commit(store._collector.untag, reference, force=False)
            steps = store._collector.collect()
            going = all([await step(store, steps) for _ in range(before)])
            with store.lease() as lease:
                lease.hold(digest_of(data))
                digest = await put(store, data, split=data in {A, B})
                assert await store.has(digest)
                while await step(store, steps):
                    pass
                assert await store.has(digest)
                assert await read_all(store, digest) == data
            await store._take_away(store._collector.collect())
            assert not await store.has(digest)
            assert len(files(root / str(before))) == 4
        if not going:
            break
    assert 5 < before < 99


async def test_trees_of_a_cut_life_go_at_the_start(root: Path) -> None:
    async with opened(root) as store:
        reference = await keep(store, "kit:v1", A)
        record = await store.resolve(reference)
        assert record is not None
        path = await store.snapshot(record.manifest, "key", [])
    (root / "snapshots" / "0123.new" / "sub").mkdir(parents=True)
    (root / "snapshots" / "0123.new" / "sub").chmod(0o555)
    (root / "snapshots" / "4567").mkdir(mode=0o555)
    async with opened(root) as store:
        assert names_in(root / "snapshots") == [path.name]
        path.rmdir()
    async with opened(root) as store:
        assert await store.find_snapshot(record.manifest, "key") is None
        await store.untag(reference, force=False)


async def test_a_decoded_layer_goes_with_its_layer(store: ContentStore, root: Path) -> None:
    reference = await keep(store, "kit:v1", A)
    await store.files(digest_of(A), TAR, diff_id=None)
    await store.untag(reference, force=False)
    assert files(root) == set()


async def test_what_a_held_layer_decodes_to_makes_no_work_and_goes_with_it(
    store: ContentStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    packed = gzip.compress(A, mtime=0)
    rounds = 0
    collect = store._collector.collect

    def counted() -> Freeing:
        nonlocal rounds
        rounds += 1
        return collect()

    with store.lease() as lease:
        lease.hold(digest_of(packed))
        await store.add(packed, digest_of(packed))
        await store.files(digest_of(packed), GZIP, diff_id=None)
        monkeypatch.setattr(store._collector, "collect", counted)
        store.sweep()
        await until(lambda: rounds > 0)
        for _ in range(20):
            await store.size(digest_of(packed))
        assert rounds <= 2
        assert await store.has(digest_of(A))
    await store.usage()
    await until(lambda: not store._database.visible())


async def test_a_layer_that_comes_back_meanwhile_is_still_decoded(
    store: ContentStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(disposal, "_MOVED", 1)
    packed = gzip.compress(A, mtime=0)

    async def bring(lease: Lease) -> None:
        lease.hold(digest_of(packed))
        await store.add(packed, digest_of(packed))
        await store.files(digest_of(packed), GZIP, diff_id=None)

    with store.lease() as lease:
        await bring(lease)
    steps = store._collector.collect()
    await store._workers.commit(_step, steps)
    with store.lease() as lease:
        await bring(lease)
        await store._workers.commit(at_once, steps)
        await store._workers.commit(at_once, store._collector.collect())
        assert await store.has(digest_of(A))


async def test_a_blob_whose_recipe_was_bad_and_came_again_keeps_its_objects(
    store: ContentStore, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(disposal, "_MOVED", 1)
    dead = plain_tar({"shared": noise(5000, 2), **{str(n): noise(99, n) for n in range(30)}})
    live = plain_tar({"live": noise(5000, 2)})
    await put(store, dead)
    with store.lease() as lease:
        lease.hold(digest_of(live))
        await put(store, live)
        recipe = root / "recipes" / "sha256" / digest_of(live)[7:9] / digest_of(live)[7:]
        recipe.chmod(0o600)
        os.utime(recipe)
        store._database.hide([digest_of(dead)])
        steps = store._collector._disposal.steps([digest_of(dead)])
        while await store._workers.commit(_step, steps) is None:
            await put(store, live)
        assert await read_all(store, digest_of(live)) == live
