"""Random lives of a store against a model: a dictionary of what must be there, and nothing else on the disk."""

import json
import shutil
import tempfile
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path

import anyio.from_thread
import pytest
from fakes.stores import ingest, noise, opened, plain_tar, read_all
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from kitd.content.layout import Layout
from kitd.content.store import ContentStore, KitRecord, TreeEntry
from kitd.spec.digest import Digest, digest_hex, digest_of
from kitd.spec.reference import parse_reference
from kitd_client.api.errors import InUse, KitIncomplete, NotFound, ObjectDamaged

FILES = [noise(600, number) for number in range(4)]
LAYERS = [
    plain_tar({"a": FILES[0], "b": FILES[1]}),
    plain_tar({"b": FILES[1], "c": FILES[2]}),
    plain_tar({"d": FILES[3]}) + b"no tar any more",
    FILES[2],
]
INSIDE = [{0, 1}, {1, 2}, {3}, {2}]
"""Which files stand in which layer."""
KITS = [(0, 1), (1, 2), (2, 3), (0, 3)]
NAMES = ["x:1", "x:2", "y:1"]

kits = st.sampled_from(range(len(KITS)))
layers = st.sampled_from(range(len(LAYERS)))
names = st.sampled_from(NAMES)


def manifest_of(kit: int) -> bytes:
    return json.dumps({"layers": [{"digest": digest_of(LAYERS[layer])} for layer in KITS[kit]]}).encode()


class StoreMachine(RuleBasedStateMachine):
    """The model: which layers are visible, which name has which kit, which pulls are under way, what is handed out."""

    def __init__(self) -> None:
        super().__init__()
        self.root = Path(tempfile.mkdtemp(prefix="kitd-machine-"))
        self.portal = anyio.from_thread.start_blocking_portal("asyncio")
        self.run = self.portal.__enter__()
        self.visible: set[int] = set()
        self.manifests: set[int] = set()
        self.tags: dict[str, int] = {}
        self.records: set[tuple[str, int]] = set()
        self.pulls: set[tuple[str, int]] = set()
        self.trees: set[int] = set()
        self.begun: dict[int, int] = {}
        self.opening: AbstractAsyncContextManager[ContentStore]
        self.store: ContentStore
        self.open()

    def open(self) -> None:
        self.opening = self.run.wrap_async_context_manager(opened(self.root))  # type: ignore[assignment]
        self.store = self.opening.__enter__()  # type: ignore[attr-defined]

    def close(self) -> None:
        self.opening.__exit__(None, None, None)  # type: ignore[attr-defined]

    def teardown(self) -> None:
        self.close()
        self.portal.__exit__(None, None, None)
        shutil.rmtree(self.root)

    def do(self, work: Callable[[], Awaitable[object]]) -> object:
        return self.run.call(work)

    # -- what may happen -------------------------------------------------------------------------

    @rule(kit=kits, name=names)
    def begin_pull(self, kit: int, name: str) -> None:
        async def work() -> None:
            await self.store.add(manifest_of(kit), digest_of(manifest_of(kit)))
            await self.store.begin_pull(parse_reference(name), digest_of(manifest_of(kit)))

        self.do(work)
        self.manifests.add(kit)
        self.pulls.add((name, kit))

    @rule(layer=layers, part=st.floats(0, 1))
    def write(self, layer: int, part: float) -> None:
        data = LAYERS[layer]
        stop = int(part * len(data))

        async def work() -> int | None:
            async with ingest(self.store, digest_of(data), len(data), split=layer != 3) as blob:
                if blob is None:
                    return None
                offset = blob.offset
                await self.store.work(blob.append, [data[offset : max(offset, stop)]])
                if blob.offset == len(data):
                    await blob.commit()
                return offset

        offset = self.do(work)
        if offset is None:
            # A file of a visible layer becomes a blob of its own when somebody asks for it.
            assert layer in self.visible or (layer == 3 and 1 in self.visible)
            self.visible.add(layer)
            self.begun.pop(layer, None)
            return
        assert layer not in self.visible
        assert offset == self.begun.get(layer, 0)
        self.begun[layer] = max(self.begun.get(layer, 0), stop)
        if self.begun[layer] == len(data):
            del self.begun[layer]
            self.visible.add(layer)

    @rule(kit=kits, name=names)
    def tag(self, kit: int, name: str) -> None:
        reference = parse_reference(name)
        record = KitRecord(
            manifest=digest_of(manifest_of(kit)),
            selected=tuple(digest_of(LAYERS[layer]) for layer in KITS[kit]),
            complete=True,
            parents=(),
        )

        async def work() -> bool:
            try:
                await self.store.tag(reference, record)
            except KitIncomplete:
                return False
            return True

        expected = kit in self.manifests and set(KITS[kit]) <= self.visible
        assert self.do(work) == expected
        if expected:
            self.tags[name] = kit
            self.records.add((reference.name, kit))
            self.pulls = {pull for pull in self.pulls if pull[0] != name}

    @rule(name=names, force=st.booleans())
    def untag(self, name: str, *, force: bool) -> None:
        reference = parse_reference(name)
        kit = self.tags.get(name)
        others = {tag for tag, tagged in self.tags.items() if tagged == kit and tag != name}
        siblings = {tag for tag in others if parse_reference(tag).name == reference.name}
        last = kit is not None and not siblings and self.records_of(kit) == {reference.name}

        async def work() -> str:
            try:
                await self.store.untag(reference, force=force)
            except (NotFound, InUse) as error:
                return type(error).__name__
            return "gone"

        outcome = self.do(work)
        if kit is None and not any(pull[0] == name for pull in self.pulls):
            assert outcome == "NotFound"
            return
        if last and kit in self.trees and not force:
            assert outcome == "InUse"
            return
        assert outcome == "gone"
        self.pulls = {pull for pull in self.pulls if pull[0] != name}
        if kit is not None:
            del self.tags[name]
            if not siblings:
                self.records.discard((reference.name, kit))
            if last:
                self.trees.discard(kit)
        self.collect()
        needed = {layer for _, pulled in self.pulls if pulled in self.manifests for layer in KITS[pulled]}
        self.begun = {layer: offset for layer, offset in self.begun.items() if layer in needed}

    @rule(kit=kits)
    def hand_out(self, kit: int) -> None:
        if not self.records_of(kit):
            return
        files = sorted(set().union(*(INSIDE[layer] for layer in KITS[kit])))
        entries = [
            TreeEntry(f"f{file}", is_dir=False, mode=0o644, size=600, digest=digest_of(FILES[file]))
            for file in files
            if file != 3 or 2 not in KITS[kit]
        ]

        async def work() -> Path:
            return await self.store.snapshot(digest_of(manifest_of(kit)), "all", entries)

        path = self.do(work)
        assert isinstance(path, Path)
        for entry in entries:
            assert (path / entry.path).read_bytes() == FILES[int(entry.path[1:])]
        self.trees.add(kit)

    @precondition(lambda self: not self.trees)
    @rule(file=st.sampled_from([0, 1, 2]))
    def damage(self, file: int) -> None:
        path = Path(Layout(self.root).object(digest_of(FILES[file])))
        if not path.exists():
            return
        path.chmod(0o600)
        path.write_bytes(b"!" * 600)

        async def work() -> bool:
            try:
                await self.store.work(self.store.open_object, digest_of(FILES[file]))
            except ObjectDamaged:
                return True
            return False

        assert self.do(work)
        self.visible -= {layer for layer in self.visible if file in INSIDE[layer]}
        self.begun.clear()
        self.restart_without_ingests()

    def restart_without_ingests(self) -> None:
        """Damage reaches what was borrowed by half-written blobs: how much is another test's matter."""
        self.close()
        shutil.rmtree(self.root / "ingest")
        self.open()
        self.collect()

    @rule()
    def restart(self) -> None:
        self.close()
        self.open()
        self.collect()

    # -- what must be so -------------------------------------------------------------------------

    def records_of(self, kit: int) -> set[str]:
        return {name for name, recorded in self.records if recorded == kit}

    def collect(self) -> None:
        rooted = {kit for _, kit in self.records} | {kit for _, kit in self.pulls} | self.trees
        self.manifests &= rooted
        self.visible &= {layer for kit in rooted & self.manifests for layer in KITS[kit]}

    @invariant()
    def what_is_visible_is_right(self) -> None:
        async def work() -> None:
            for layer, data in enumerate(LAYERS):
                assert await self.store.has(digest_of(data)) == (layer in self.visible), layer
                if layer in self.visible:
                    assert await read_all(self.store, digest_of(data)) == data
            for name in NAMES:
                record = await self.store.resolve(parse_reference(name))
                kit = self.tags.get(name)
                assert (record.manifest if record else None) == (
                    None if kit is None else digest_of(manifest_of(kit))
                )

        self.do(work)

    @invariant()
    def nothing_else_is_on_the_disk(self) -> None:
        """Objects of visible blobs are there; after a collection nothing is that no blob needs."""
        there = {path.name for path in (self.root / "objects").rglob("*") if path.is_file()}
        assert {digest_hex(digest) for digest in self.needed()} <= there

    def needed(self) -> set[Digest]:
        digests = {digest_of(manifest_of(kit)) for kit in self.manifests}
        for layer in self.visible:
            digests |= {digest_of(FILES[file]) for file in INSIDE[layer]}
        return digests

    @rule()
    def remove_everything(self) -> None:
        """Afterwards the store is empty, whatever was done before."""
        for name in NAMES:
            if name in self.tags or any(pull[0] == name for pull in self.pulls):
                self.untag(name, force=True)

        async def work() -> None:
            for row in await self.store.tags():
                whole = parse_reference(f"{row.name}@{row.record.manifest}")
                await self.store.untag(whole, force=True)

        self.do(work)
        self.records.clear()
        self.trees.clear()
        if not self.visible and not self.manifests:
            return
        self.restart()
        assert (self.visible, self.manifests) == (set(), set())
        for folder in ("objects", "recipes", "snapshots"):
            assert [path for path in (self.root / folder).rglob("*") if path.is_file()] == []


class LongStoreMachine(StoreMachine):
    """The same, for a longer time."""


TestStoreMachine = StoreMachine.TestCase
TestStoreMachine.settings = settings(
    max_examples=5, stateful_step_count=20, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
TestLongStoreMachine = pytest.mark.slow(pytest.mark.timeout(1200)(LongStoreMachine.TestCase))
TestLongStoreMachine.settings = settings(
    max_examples=100, stateful_step_count=40, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
