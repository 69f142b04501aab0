from pathlib import Path

from fakes.stores import opened

from kitd.content.store import ContentStore, KitRecord
from kitd.spec.digest import Digest, digest_of
from kitd.spec.reference import parse_reference


async def document(store: ContentStore, text: str) -> Digest:
    data = text.encode()
    await store.add(data, digest_of(data))
    return digest_of(data)


def record(
    manifest: Digest, *selected: Digest, complete: bool = False, parents: tuple[Digest, ...] = ()
) -> KitRecord:
    return KitRecord(manifest=manifest, selected=selected, complete=complete, parents=parents)


V1 = parse_reference("registry.example/team/kit:v1")
V2 = parse_reference("registry.example/team/kit:v2")


async def test_of_one_manifest_ever_more_is_here(store: ContentStore) -> None:
    manifest, a, b, parent = [await document(store, text) for text in ("m", "a", "b", "p")]
    await store.tag(V1, record(manifest, a, parents=(parent,)))
    await store.tag(V1, record(manifest, b, complete=True))
    await store.tag(V1, record(manifest, a))
    assert await store.resolve(V1) == record(manifest, a, b, complete=True, parents=(parent,))


async def test_a_tag_moves_and_the_kit_before_stays_without_one(store: ContentStore) -> None:
    old, new = await document(store, "old"), await document(store, "new")
    await store.tag(V1, record(old))
    await store.tag(V1, record(new))
    assert await store.resolve(V1) == record(new)
    by_digest = parse_reference(f"registry.example/team/kit@{old}")
    assert await store.resolve(by_digest) == record(old)
    assert [(row.tag, row.record.manifest) for row in await store.tags()] == [(None, old), ("v1", new)]


async def test_a_digest_is_known_in_its_repository_only(store: ContentStore) -> None:
    manifest = await document(store, "m")
    await store.tag(V1, record(manifest))
    assert await store.resolve(parse_reference(f"registry.example/other/kit@{manifest}")) is None
    assert await store.resolve(parse_reference(f"registry.example/team/kit@{manifest}")) == record(manifest)
    assert await store.resolve(V2) is None


async def test_a_kit_without_a_name(store: ContentStore) -> None:
    manifest = await document(store, "m")
    reference = parse_reference(manifest)
    await store.tag(reference, record(manifest))
    assert await store.resolve(reference) == record(manifest)
    (row,) = await store.tags()
    assert (row.name, row.tag) == ("_", None)
    assert (await store.untag(reference, force=False)).manifest == manifest
    assert await store.tags() == []


async def test_uses_are_counted_and_survive_with_the_next_name(root: Path) -> None:
    async with opened(root) as store:
        manifests = [await document(store, text) for text in "abc"]
        references = [parse_reference(f"kit:{text}") for text in "abc"]
        for reference, manifest in zip(references, manifests, strict=True):
            await store.tag(reference, record(manifest))
        await store.resolve(references[0])
        assert [row.tag for row in sorted(await store.tags(), key=lambda row: row.used)] == ["b", "c", "a"]
        await store.tag(parse_reference("kit:d"), record(manifests[1]))
    async with opened(root) as store:
        order = [row.tag for row in sorted(await store.tags(), key=lambda row: (row.used, row.tag or ""))]
        assert order == ["c", "a", "b", "d"]
        await store.resolve(references[2])
        assert max(await store.tags(), key=lambda row: row.used).tag == "c"


async def test_of_many_pulls_of_one_kit_only_the_first_writes(store: ContentStore, root: Path) -> None:
    manifest, layer = await document(store, "m"), await document(store, "a")
    await store.begin_pull(V1, manifest)
    await store.tag(V1, record(manifest, layer, complete=True))
    log = root / "kitd.db-wal"
    written = log.read_bytes()
    await store.tag(V1, record(manifest, layer, complete=True))
    assert log.read_bytes() == written
    await store.tag(V2, record(manifest, layer, complete=True))
    assert log.read_bytes() != written
    assert await store.resolve(V2) == record(manifest, layer, complete=True)
