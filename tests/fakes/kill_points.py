"""kill -9 at every call that changes the store, in a process that may fork because it has no threads of its own.

    python -m fakes.kill_points DIRECTORY EVERY [careless]

Each point is a fresh store, on which one life is killed before, or right after, its N-th changing call; the next life
recovers and finishes the work. `careless` makes blobs visible before they are linked, to see the checks bite. Prints,
as JSON, how many points were tried and what was wrong.
"""

import json
import os
import shutil
import signal
import sys
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

import anyio
from fakes.stores import TAR, emptied, ingest, names_in, noise, opened, plain_tar, read_all

from kitd.content import sync
from kitd.content.database import Blob, Database
from kitd.content.publish import Publisher, _Request
from kitd.content.store import ContentStore, KitRecord, TreeEntry
from kitd.layer.tar import Member
from kitd.spec.digest import digest_of
from kitd.spec.reference import parse_reference

CALLS: Final = (
    "write",
    "pwritev",
    "link",
    "rename",
    "unlink",
    "rmdir",
    "mkdir",
    "utime",
    "fchmod",
    "chmod",
    "fsync",
)
MORE_CALLS: Final = ("fdatasync", "ftruncate", "copy_file_range")
SHARED: Final = noise(4000, 1)
FIRST: Final = plain_tar({"shared": SHARED, "d": None, "own": noise(3000, 2), "large": noise(700_000, 3)})
SECOND: Final = plain_tar({"shared": SHARED, "other": noise(2000, 4)}) + b"refused"
RAW: Final = noise(600_000, 5)
PACKED: Final = {"p/a": noise(300_000, 6), "p/b": b"", "p/c": SHARED}
BLOBS: Final = {"first": FIRST, "second": SECOND, "raw": RAW, "packed": plain_tar(PACKED)}
MANIFEST: Final = json.dumps({"layers": [{"digest": digest_of(data)} for data in BLOBS.values()]}).encode()
OLD: Final = plain_tar({"shared": SHARED, "gone": noise(5000, 7)})
OLD_MANIFEST: Final = json.dumps({"layers": [{"digest": digest_of(OLD)}]}).encode()
NEW_KIT: Final = parse_reference("kit:new")
OLD_KIT: Final = parse_reference("kit:old")


async def pull(store: ContentStore, name: str, *, split: bool) -> None:
    data = BLOBS.get(name, OLD)
    async with ingest(store, digest_of(data), len(data), split=split) as blob:
        if blob is not None:
            for start in range(blob.offset, len(data), 150_000):
                await store.work(blob.append, [data[start : start + 150_000]])
            await blob.commit()


async def keep(store: ContentStore, manifest: bytes, *layers: bytes) -> None:
    record = KitRecord(
        manifest=digest_of(manifest),
        selected=tuple(digest_of(layer) for layer in layers),
        complete=True,
        parents=(),
    )
    await store.tag(NEW_KIT if manifest is MANIFEST else OLD_KIT, record)


async def prepare(root: Path) -> None:
    async with opened(root) as store:
        await store.add(OLD_MANIFEST, digest_of(OLD_MANIFEST))
        await pull(store, "old", split=True)
        await keep(store, OLD_MANIFEST, OLD)


async def live(root: Path, done: Callable[[str], None]) -> None:
    """One life: pulls, packs, names, hands out and removes. What is done already is not done again."""
    async with opened(root) as store:
        with store.lease() as lease:
            for data in (MANIFEST, *BLOBS.values()):
                lease.hold(digest_of(data))
            await store.add(MANIFEST, digest_of(MANIFEST))
            await store.begin_pull(NEW_KIT, digest_of(MANIFEST))
            for name in ("first", "second", "raw"):
                await pull(store, name, split=name != "raw")
                done(name)
            async with store.new_tar() as tar:
                for member, data in PACKED.items():
                    await store.work(tar.begin, Member(member, is_dir=False, mode=0o644, size=len(data)))
                    if data:
                        await store.work(tar.data, data)
                await tar.commit()
            done("packed")
            await keep(store, MANIFEST, *BLOBS.values())
            done("named")
            await store.snapshot(
                digest_of(MANIFEST),
                "key",
                [TreeEntry("d/run", is_dir=False, mode=0o755, size=len(SHARED), digest=digest_of(SHARED))],
            )
            done("handed out")
            if await store.resolve(OLD_KIT) is not None:
                await store.untag(OLD_KIT, force=False)
            done("removed")


async def inspect(root: Path, answered: set[str]) -> list[str]:
    """What is wrong after a crash: nothing that was answered may be lost, nothing visible may be false."""
    wrong: list[str] = []
    async with opened(root) as store:
        for name, data in {**BLOBS, "old": OLD, "manifest": MANIFEST, "old manifest": OLD_MANIFEST}.items():
            if await store.has(digest_of(data)):
                if await read_all(store, digest_of(data)) != data:
                    wrong.append(f"{name} has other bytes")
            elif name in answered:
                wrong.append(f"{name} was answered and is lost")
        record = await store.resolve(NEW_KIT)
        if record is None and "named" in answered:
            wrong.append("the name was answered and is lost")
        if record is not None and not all([await store.has(digest) for digest in record.selected]):
            wrong.append("a name without what it names")
        tree = await store.find_snapshot(digest_of(MANIFEST), "key")
        if tree is None and "handed out" in answered:
            wrong.append("a tree was handed out and is lost")
        if tree is not None and (tree / "d/run").read_bytes() != SHARED:
            wrong.append("a tree has other bytes")
        old = await store.resolve(OLD_KIT)
        if old is not None and ("removed" in answered or not await store.has(digest_of(OLD))):
            wrong.append("a name was removed and is there, or is there without its kit")
    return wrong


async def finish(root: Path, expected: set[str]) -> list[str]:
    """The work is done to its end by a second life; afterwards exactly what is needed is on the disk."""
    wrong: list[str] = []
    await live(root, lambda _step: None)
    async with opened(root) as store:
        for name, data in BLOBS.items():
            if await read_all(store, digest_of(data)) != data:
                wrong.append(f"{name} is wrong at the end")
        files = await store.files(digest_of(FIRST), TAR, diff_id=None)
        if len(list(files)) != 4:
            wrong.append("files are missing at the end")
        await emptied(root)
    found = contents(root)
    if found != expected:
        wrong.append(f"left over: {sorted(found - expected)}, missing: {sorted(expected - found)}")
    return wrong


def contents(root: Path) -> set[str]:
    """Every file except those with random names, and the database."""
    found = {
        f"{folder}/{path.name}"
        for folder in ("objects", "recipes", "ingest")
        for path in (root / folder).rglob("*")
        if path.is_file() or folder == "ingest"
    }
    return found | {f"{len(names_in(root / 'snapshots'))} trees"}


class Killer:
    """Counts the calls that change something, and kills this process at one of them."""

    def __init__(self, at: int, *, after: bool) -> None:
        self.at = at
        self.after = after
        self.count = 0

    def install(self) -> None:
        for name in (*CALLS, *MORE_CALLS):
            setattr(os, name, self.wrapped(getattr(os, name)))
        plain, creating = os.open, self.wrapped(os.open)
        os.open = lambda path, flags, *rest, **options: (creating if flags & os.O_CREAT else plain)(  # type: ignore[assignment]
            path, flags, *rest, **options
        )
        setattr(sync, "sync_file_system", self.wrapped(sync.sync_file_system))  # noqa: B010 (see CALLS)
        connect = Database.__init__

        def connected(database: Database, path: Path) -> None:
            connect(database, path)
            database._connection.set_trace_callback(self.statement)

        setattr(Database, "__init__", connected)  # noqa: B010 (not by its type)

    def wrapped(self, call: Callable[..., object]) -> Callable[..., object]:
        def changing(*args: object, **options: object) -> object:
            self.count += 1
            mine = self.count == self.at
            if mine and not self.after:
                os.kill(os.getpid(), signal.SIGKILL)
            result = call(*args, **options)
            if mine:
                os.kill(os.getpid(), signal.SIGKILL)
            return result

        return changing

    def statement(self, text: str) -> None:
        if text.startswith("COMMIT"):
            self.count += 1
            if self.count == self.at:
                os.kill(os.getpid(), signal.SIGKILL)


def in_child(work: Callable[[int], None]) -> tuple[int, str]:
    """Runs `work` with the writing end of a pipe in a process of its own; how that ended, and what it wrote."""
    receiving, sending = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(receiving)
        try:
            work(sending)
        except BaseException:  # noqa: BLE001 (the parent is told)
            os.writev(sending, [traceback.format_exc().encode()])
            os._exit(1)
        os._exit(0)
    os.close(sending)
    with os.fdopen(receiving) as pipe:
        said = pipe.read()
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), said


def kill_at(root: Path, at: int, *, after: bool) -> tuple[int, str]:
    def work(sending: int) -> None:
        killer = Killer(at, after=after)
        killer.install()

        def answered(step: str) -> None:
            os.writev(sending, [f"{step}\n".encode()])

        anyio.run(live, root, answered)
        os.writev(sending, [f"{killer.count}\n".encode()])

    return in_child(work)


def checked(root: Path, answered: set[str], expected: set[str]) -> list[str]:
    def work(sending: int) -> None:
        wrong = anyio.run(inspect, root, answered) + anyio.run(finish, root, expected)
        os.writev(sending, [json.dumps(wrong).encode()])

    status, said = in_child(work)
    found: list[str] = json.loads(said) if status == 0 else [said[-2000:]]
    return found


def be_careless() -> None:
    careful = Publisher._publish

    def careless(self: Publisher, batch: Sequence[_Request]) -> list[_Request]:
        self._database.publish(
            Blob(each.sealed.digest, each.sealed.size, each.sealed.recipe) for each in batch
        )
        return careful(self, batch)

    Publisher._publish = careless  # type: ignore[method-assign]


def main(directory: Path, every: int, *, careless: bool) -> None:
    if careless:
        be_careless()
    template, root = directory / "template", directory / "store"
    in_child(lambda _sending: anyio.run(prepare, template))
    shutil.copytree(template, root)
    status, said = kill_at(root, 0, after=False)
    assert status == 0, said
    calls = int(said.split()[-1])
    # What is there after an undisturbed life is what has to be there after every other.
    expected = contents(root)
    tried = 0
    wrong: list[str] = []
    for at in range(1, calls + 1, every):
        for after in (False, True):
            shutil.rmtree(root)
            shutil.copytree(template, root)
            status, said = kill_at(root, at, after=after)
            tried += status == -signal.SIGKILL
            answered = set(said.splitlines())
            wrong += [f"call {at}: {problem}" for problem in checked(root, answered, expected)]
    print(json.dumps({"calls": calls, "points": tried, "wrong": wrong}))  # noqa: T201 (a program)


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), careless="careless" in sys.argv)
