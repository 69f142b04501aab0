import os
import resource
import stat
import subprocess
from pathlib import Path

import anyio
import anyio.lowlevel
import pytest
from fakes.stores import emptied, names_in, noise, plain_tar, put

from kitd.content import snapshots
from kitd.content.layout import Layout
from kitd.content.objects import Objects
from kitd.content.store import ContentStore, KitRecord, TreeEntry
from kitd.spec.digest import Digest, digest_of
from kitd.spec.reference import parse_reference
from kitd_client.api.errors import ArchiveInvalid, NotFound, ObjectDamaged

SMALL = noise(100, 1)
LARGE = noise(300_000, 2)
MANIFEST = digest_of(b"manifest")
ENTRIES = [
    TreeEntry("data", is_dir=True, mode=0o755, size=0, digest=None),
    TreeEntry("data/small", is_dir=False, mode=0o600, size=100, digest=digest_of(SMALL)),
    TreeEntry("data/empty", is_dir=False, mode=0o755, size=0, digest=None),
    TreeEntry("run", is_dir=False, mode=0o755, size=100, digest=digest_of(SMALL)),
    TreeEntry("deep/er/large", is_dir=False, mode=0o644, size=300_000, digest=digest_of(LARGE)),
]


@pytest.fixture
async def filled(store: ContentStore) -> ContentStore:
    await put(store, plain_tar({"small": SMALL, "large": LARGE}))
    for name, manifest in (("kit:v1", b"manifest"), ("kit:v2", b"other")):
        await store.add(manifest, digest_of(manifest))
        record = KitRecord(manifest=digest_of(manifest), selected=(), complete=True, parents=())
        await store.tag(parse_reference(name), record)
    return store


def object_path(store: ContentStore, data: bytes) -> Path:
    return Path(Layout(store.root).object(digest_of(data)))


def tree(path: Path) -> dict[str, tuple[int, bytes | None]]:
    return {
        str(found.relative_to(path)): (
            stat.S_IMODE(found.stat().st_mode),
            found.read_bytes() if found.is_file() else None,
        )
        for found in path.rglob("*")
    }


def free_descriptors() -> list[int]:
    used = {int(path.name) for path in Path("/proc/self/fd").iterdir()}
    return [number for number in range(1024) if number not in used]


async def test_deep_trees_need_few_descriptors(filled: ContentStore) -> None:
    """Two at once, as deep as archives may be: made, looked through, and taken away."""
    deep = "/".join(["d"] * 255)
    entries = [TreeEntry(f"{deep}/small", is_dir=False, mode=0o644, size=100, digest=digest_of(SMALL))]
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (free_descriptors()[40], before[1]))
    try:
        paths: dict[str, Path] = {}

        async def make(key: str) -> None:
            paths[key] = await filled.snapshot(MANIFEST, key, entries)

        for _ in range(2):  # made, then found
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(make, "one")
                tasks.start_soon(make, "two")
        assert {(path / deep / "small").read_bytes() for path in paths.values()} == {SMALL}
        await filled.untag(parse_reference("kit:v1"), force=True)
        await emptied(filled.root)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)
    assert names_in(filled.root / "snapshots") == []


async def test_a_read_only_tree_without_a_second_copy(filled: ContentStore) -> None:
    path = await filled.snapshot(MANIFEST, "all", ENTRIES)
    assert tree(path) == {
        "data": (0o555, None),
        "data/small": (0o444, SMALL),
        "data/empty": (0o555, b""),
        "run": (0o555, SMALL),
        "deep": (0o555, None),
        "deep/er": (0o555, None),
        "deep/er/large": (0o444, LARGE),
    }
    assert path.stat().st_mode & 0o777 == 0o555
    assert path.parent == filled.root / "snapshots"
    assert len(path.name) == 32
    assert (path / "data/small").samefile(object_path(filled, SMALL))
    assert (path / "deep/er/large").samefile(object_path(filled, LARGE))
    assert not (path / "run").samefile(object_path(filled, SMALL))


async def test_the_same_tree_every_time(filled: ContentStore) -> None:
    assert await filled.find_snapshot(MANIFEST, "all") is None
    paths: set[Path] = set()

    async def build() -> None:
        paths.add(await filled.snapshot(MANIFEST, "all", ENTRIES))

    async with anyio.create_task_group() as tasks:
        for _ in range(5):
            tasks.start_soon(build)
    assert paths == {await filled.find_snapshot(MANIFEST, "all")}
    other = await filled.snapshot(MANIFEST, "part", ENTRIES[:2])
    assert other not in paths
    assert (await filled.snapshot(digest_of(b"other"), "all", ENTRIES)) not in paths
    executables = list((filled.root / "objects").rglob("*.x"))
    assert [path.stat().st_nlink for path in executables] == [3]


@pytest.mark.root
async def test_another_user_reaches_it_by_its_name_only(filled: ContentStore, tmp_path: Path) -> None:
    path = await filled.snapshot(MANIFEST, "all", ENTRIES)
    for parent in [tmp_path, *tmp_path.parents]:
        if not parent.stat().st_mode & 0o001:
            parent.chmod(parent.stat().st_mode | 0o011)

    def as_another(*command: str) -> int:
        return subprocess.run(
            ["setpriv", "--reuid=12345", "--regid=12345", "--clear-groups", *command],
            check=False,
            capture_output=True,
        ).returncode

    assert as_another("cat", str(path / "deep/er/large")) == 0
    assert as_another("ls", str(path)) == 0
    assert as_another("ls", str(path.parent)) != 0
    assert as_another("ls", str(filled.root)) != 0
    assert as_another("cat", str(object_path(filled, SMALL))) != 0
    assert as_another("cat", str(filled.root / "kitd.db")) != 0
    assert as_another("cat", str(filled.root / "lock")) != 0
    assert as_another("touch", str(path / "data/new")) != 0


async def test_a_touched_tree_is_built_anew(filled: ContentStore) -> None:
    first = await filled.snapshot(MANIFEST, "all", ENTRIES)
    (first / "data").chmod(0o755)
    (first / "data/small").unlink()
    assert await filled.find_snapshot(MANIFEST, "all") is None
    second = await filled.snapshot(MANIFEST, "all", ENTRIES)
    assert second != first
    assert not first.exists()
    assert (second / "data/small").read_bytes() == SMALL


async def test_a_file_written_to_in_the_tree_is_noticed(filled: ContentStore) -> None:
    path = await filled.snapshot(MANIFEST, "all", ENTRIES)
    os.chmod(path / "deep/er/large", 0o644)  # noqa: PTH101 (as root in a job would)
    with (path / "deep/er/large").open("r+b") as file:
        file.write(b"!")
    assert await filled.find_snapshot(MANIFEST, "all") is None
    with pytest.raises(ObjectDamaged):
        await filled.snapshot(MANIFEST, "all", ENTRIES)
    assert names_in(filled.root / "snapshots") == []


async def test_an_executable_written_to_is_made_anew(filled: ContentStore) -> None:
    path = await filled.snapshot(MANIFEST, "all", ENTRIES)
    (path / "run").chmod(0o755)
    (path / "run").write_bytes(b"#!/bin/evil")
    path = await filled.snapshot(MANIFEST, "all", ENTRIES)
    assert (path / "run").read_bytes() == SMALL
    assert stat.S_IMODE((path / "run").stat().st_mode) == 0o555


async def test_executables_that_threads_meet_at_the_same_time_are_made_once(
    filled: ContentStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And a bad one is put aside once: no thread links what another has just taken away."""
    first = await filled.snapshot(MANIFEST, "one", ENTRIES)
    (first / "run").chmod(0o755)
    (first / "run").write_bytes(b"#!/bin/evil")
    monkeypatch.setattr(snapshots, "_STEP", 1)
    copies = 0
    copy = Objects.copy

    def counted(self: Objects, source: int, target: str, mode: int) -> None:
        nonlocal copies
        copies += 1
        copy(self, source, target, mode)

    monkeypatch.setattr(Objects, "copy", counted)
    entries = [
        TreeEntry(f"{number}/run", is_dir=False, mode=0o755, size=100, digest=digest_of(SMALL))
        for number in range(100)
    ]
    path = await filled.snapshot(MANIFEST, "many", entries)
    assert copies == 1
    assert {(path / entry.path).read_bytes() for entry in entries} == {SMALL}
    assert len({(path / entry.path).stat().st_ino for entry in entries}) == 1


async def test_a_kit_without_a_name_is_not_handed_out(filled: ContentStore) -> None:
    with pytest.raises(NotFound):
        await filled.snapshot(digest_of(b"removed meanwhile"), "all", ENTRIES)
    assert names_in(filled.root / "snapshots") == []


@pytest.mark.parametrize("name", ["../out", "/abs", "a/../../b", "a//b", ""])
async def test_no_path_leads_out(filled: ContentStore, name: str) -> None:
    with pytest.raises(ArchiveInvalid):
        await filled.snapshot(
            MANIFEST, "bad", [TreeEntry(name, is_dir=False, mode=0o644, size=0, digest=None)]
        )
    assert names_in(filled.root / "snapshots") == []


async def test_cancelled_it_leaves_nothing(filled: ContentStore) -> None:
    for steps in range(1, 18):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(filled.snapshot, MANIFEST, f"key {steps}", ENTRIES)
            for _ in range(steps):
                await anyio.lowlevel.checkpoint()
            tasks.cancel_scope.cancel()
        left = set(names_in(filled.root / "snapshots"))
        known = {str(row[0]) for row in filled._database.rows("SELECT path FROM snapshot")}
        assert left == known


async def test_where_no_more_links_are_possible_a_copy_is_made(
    filled: ContentStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    link = os.link
    copied: list[str] = []
    copy = Objects.copy

    def full(source: str, target: str) -> None:
        if target.endswith("large"):
            raise OSError(31, "Too many links")
        link(source, target)

    def counted(self: Objects, source: int, target: str, mode: int) -> None:
        copied.append(target)
        copy(self, source, target, mode)

    monkeypatch.setattr(os, "link", full)
    monkeypatch.setattr(Objects, "copy", counted)
    path = await filled.snapshot(MANIFEST, "all", ENTRIES)
    assert (path / "deep/er/large").read_bytes() == LARGE
    assert len([target for target in copied if target.endswith("large")]) == 1
    assert await filled.find_snapshot(MANIFEST, "all") == path


@pytest.mark.slow
@pytest.mark.timeout(300)
async def test_sixty_five_thousand_and_one_files_of_one_content(filled: ContentStore) -> None:
    entries = [
        TreeEntry(f"{number % 100}/{number}", is_dir=False, mode=0o644, size=100, digest=digest_of(SMALL))
        for number in range(65_001)
    ]
    path = await filled.snapshot(MANIFEST, "many", entries)
    assert {(path / entry.path).read_bytes() for entry in entries[::1000] + entries[-3:]} == {SMALL}
    assert len({(path / entry.path).stat().st_ino for entry in entries}) > 1


async def test_a_missing_object_is_damage(filled: ContentStore) -> None:
    absent = TreeEntry("a", is_dir=False, mode=0o644, size=3, digest=Digest(digest_of(b"abs")))
    with pytest.raises(ObjectDamaged):
        await filled.snapshot(MANIFEST, "absent", [absent])
