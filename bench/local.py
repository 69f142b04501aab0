"""Rows about this machine alone: pack, unpack, path, process start."""

import contextlib
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import inputs
from measure import GIB, Case, Job, Results, interleave, timed
from stage import KITCTL, Kitd, empty, file_system, kitd
from table import Target, show, verdict, wall
from transfers import KIT, KITD, Bench, if_here, large, timed_kit, until_safe

_FILE = 50 << 10
_PATH, _PATH_AGAIN = "kitd, path, first", "kitd, path, again"


def pack(bench: Bench) -> None:
    trees = empty(bench.home / "trees")
    for layers, title in ((1, "one layer"), (8, "8 layers")):
        tree = inputs.weights(trees / title, bench.size, layers)
        _pack(bench, tree, bench.place, f"{large(bench.size)} in {title}", bench.size)
    shutil.rmtree(trees)


def pack_files(bench: Bench) -> None:
    count = 4000 if bench.quick else 20_000
    tree = inputs.small_files(empty(bench.home / "trees") / "files", count, _FILE)
    with file_system("ext4", bench.home, 4 * count * _FILE + GIB) as mount:
        _pack(bench, tree, mount / "run", f"{count} files of 50 KiB, store on fresh ext4", count * _FILE)
    shutil.rmtree(tree.parent)


def _pack(bench: Bench, tree: Path, place: Path, title: str, size: int) -> None:
    results = interleave(_pack_cases(tree), bench.rounds, place)
    show(f"pack {title}, until safe", results, [Target("wall", KITD, KIT, 1.0, wall)], size=size)
    read = max(cost.read for cost in results[KITD]) / size
    verdict("bytes read by the client, in trees", read, 1.05, "x")
    empty(place)


def _pack_cases(tree: Path) -> list[Case]:
    @contextlib.contextmanager
    def by_kit(place: Path) -> Iterator[Job]:
        empty(place)
        yield Job([timed_kit(place, "pack", str(tree), "-t", "bench/bench:v1"), until_safe(place)])

    @contextlib.contextmanager
    def by_kitd(place: Path) -> Iterator[Job]:
        with kitd(empty(place) / "kitd") as daemon:
            command = [KITCTL, "pack", str(tree), "-t", "bench/bench:v1"]
            yield Job([command], daemon.environment, daemon.pid)

    return [*if_here(KIT, by_kit), Case(KITD, by_kitd)]


def unpack(bench: Bench) -> None:
    count = 3000 if bench.quick else 15_000
    tree = inputs.small_files(empty(bench.home / "tree") / "files", count, _FILE)
    for kind, most in (("ext4", 0.8), ("xfs", 0.6)):
        with file_system(kind, bench.home, 5 * count * _FILE + GIB) as mount, kitd(mount / "kitd") as daemon:
            results = _unpack_on(bench, mount, tree, daemon)
        targets = [
            Target("unpack", KITD, KIT, most, wall),
            Target("path, first", _PATH, KIT, 0.2, wall),
            Target("path, again", _PATH_AGAIN, KIT, 0.05, wall),
        ]
        show(f"unpack {count} files of 50 KiB on fresh {kind}, until safe", results, targets)
    shutil.rmtree(bench.home / "tree")


def _unpack_on(bench: Bench, mount: Path, tree: Path, daemon: Kitd) -> Results:
    # A snapshot is made once a kit: one more version, with the same files, for each round.
    references = [f"bench/bench:v{number}" for number in range(bench.rounds)]
    for number, reference in enumerate(references):
        inputs.rename(tree, f"1.0.{number}")
        daemon.do("pack", str(tree), "-t", reference)
    if shutil.which("kit"):
        timed(Job([timed_kit(mount, "pack", str(tree), "-t", "bench/bench:v0")]))
    fresh = iter(references)

    @contextlib.contextmanager
    def by_kit(place: Path) -> Iterator[Job]:
        empty(place)
        command = timed_kit(mount, "unpack", "bench/bench:v0", "-d", str(place / "out"))
        yield Job([command, until_safe(place)])
        shutil.rmtree(place)

    @contextlib.contextmanager
    def by_kitd(place: Path) -> Iterator[Job]:
        empty(place)
        command = [KITCTL, "unpack", references[0], "-d", str(place / "out")]
        yield Job([command], daemon.environment, daemon.pid)
        shutil.rmtree(place)

    @contextlib.contextmanager
    def by_path(_: Path) -> Iterator[Job]:
        yield Job([[KITCTL, "path", next(fresh)]], daemon.environment, daemon.pid)

    @contextlib.contextmanager
    def by_path_again(_: Path) -> Iterator[Job]:
        daemon.do("path", references[0])
        yield Job([[KITCTL, "path", references[0]]], daemon.environment, daemon.pid)

    cases = [
        *if_here(KIT, by_kit),
        Case(KITD, by_kitd),
        Case(_PATH, by_path),
        Case(_PATH_AGAIN, by_path_again),
    ]
    return interleave(cases, bench.rounds, mount / "run")


def start(bench: Bench) -> None:
    python, version, listing = "python -c pass", "kitctl version", "kitctl list"
    with kitd(empty(bench.place) / "kitd") as daemon:

        def case(name: str, command: list[str]) -> Case:
            @contextlib.contextmanager
            def setting(_: Path) -> Iterator[Job]:
                yield Job([command], daemon.environment)

            return Case(name, setting)

        results = interleave(
            [
                case(python, [sys.executable, "-c", "pass"]),
                case(version, [KITCTL, "version"]),
                case(listing, [KITCTL, "list"]),
            ],
            7 * bench.rounds,
            bench.place,
        )
    targets = [Target("wall", version, python, 2.2, wall), Target("wall", listing, python, 4.0, wall)]
    show("start of a process, with a daemon running", results, targets)
