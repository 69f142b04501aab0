"""Rows about registries: pull, pull and unpack, a slow link, push, many clients, memory."""

import contextlib
import json
import shutil
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import inputs
from measure import GIB, MIB, Case, Job, interleave, median, peak_rss, timed
from stage import KITCTL, StaticRegistry, empty, file_system, free_port, kitd, push_registry, registry
from table import Target, cpu, show, verdict, wall

KIT, KITD, CURL, ORAS = "kit", "kitd", "curl + openssl", "oras"
_MANY = Path(__file__).with_name("many_clients.py")


@dataclass(frozen=True)
class Bench:
    """The surroundings of all rows."""

    home: Path
    rounds: int
    quick: bool

    @property
    def size(self) -> int:
        """Bytes of large kits."""
        return 512 * MIB if self.quick else 2 * GIB

    @property
    def place(self) -> Path:
        """Where runs take place, one at a time."""
        return self.home / "run"


@dataclass(frozen=True)
class Remote:
    """A kit in the static registry."""

    name: str
    blobs: list[str]

    def at(self, host: str) -> str:
        return f"{host}/{self.name}:v1"


def large(size: int) -> str:
    return f"{size / GIB:g} GiB"


def timed_kit(home: Path, *arguments: str) -> list[str]:
    """A command line of kit with its storage below `home`."""
    return ["kit", *arguments, "--config", str(home / "kit"), "--progress", "none"]


def until_safe(place: Path) -> list[str]:
    return ["sync", "-f", str(place)]


def if_here(name: str, setting: Callable[[Path], contextlib.AbstractContextManager[Job]]) -> list[Case]:
    """The case of a peer, if it is installed."""
    return [Case(name, setting)] if shutil.which(name) else []


@contextlib.contextmanager
def static_registry(bench: Bench, *layers: int) -> Iterator[tuple[StaticRegistry, list[Remote]]]:
    """Kits of so many layers each, ready to be pulled."""
    static = StaticRegistry(empty(bench.home / "nginx"))
    remotes = []
    listen = f"127.0.0.1:{free_port()}"
    with kitd(empty(bench.home / "builder"), listen=listen) as builder:
        for count in layers:
            remote = f"bench/l{count}"
            tree = inputs.weights(bench.home / "tree", bench.size, count)
            builder.do("pack", str(tree), "-t", f"{remote}:v1")
            shutil.rmtree(tree)
            inspection = json.loads(builder.do("inspect", f"{remote}:v1"))
            manifest = inspection["manifest"]
            blobs = [layer["digest"] for layer in manifest["layers"]]
            static.publish(listen, remote, inspection["digest"], [manifest["config"]["digest"], *blobs])
            remotes.append(Remote(remote, blobs))
    shutil.rmtree(bench.home / "builder")
    with static.serving():
        yield static, remotes
    shutil.rmtree(bench.home / "nginx")


def curl_case(host: str, remote: Remote) -> Case:
    def digest(blob: str) -> list[str]:
        return ["openssl", "dgst", "-sha256", blob]

    @contextlib.contextmanager
    def setting(place: Path) -> Iterator[Job]:
        empty(place)
        commands = []
        for blob in remote.blobs:
            path = str(place / blob)
            commands += [
                ["curl", "-sS", "-o", path, f"http://{host}/v2/{remote.name}/blobs/{blob}"],
                digest(path),
            ]
        yield Job([*commands, until_safe(place)])

    return Case(CURL, setting)


def oras_case(host: str, remote: Remote) -> list[Case]:
    @contextlib.contextmanager
    def setting(place: Path) -> Iterator[Job]:
        empty(place)
        copy = ["oras", "copy", "--no-tty", "--from-plain-http", "--to-oci-layout"]
        yield Job([[*copy, remote.at(host), f"{place / 'layout'}:v1"], until_safe(place)])

    return if_here(ORAS, setting)


def kit_case(host: str, remote: Remote, *, unpack: bool = False) -> list[Case]:
    @contextlib.contextmanager
    def setting(place: Path) -> Iterator[Job]:
        empty(place)
        reference = remote.at(host)
        commands = [timed_kit(place, "pull", "--plain-http", reference)]
        if unpack:
            commands.append(timed_kit(place, "unpack", reference, "-d", str(place / "out")))
        yield Job([*commands, until_safe(place)])

    return if_here(KIT, setting)


def kitd_case(host: str, remote: Remote, *, name: str = KITD, then: str = "") -> Case:
    @contextlib.contextmanager
    def setting(place: Path) -> Iterator[Job]:
        with kitd(empty(place) / "kitd") as daemon:
            reference = remote.at(host)
            commands = [[KITCTL, "pull", "--plain-http", reference]]
            if then == "unpack":
                commands.append([KITCTL, "unpack", reference, "-d", str(place / "out")])
            elif then == "path":
                commands.append([KITCTL, "path", reference])
            yield Job(commands, daemon.environment, daemon.pid)

    return Case(name, setting)


def pull(bench: Bench) -> None:
    with static_registry(bench, 1, 8) as (static, remotes):
        for remote, shape in zip(remotes, ("one layer", "8 layers"), strict=True):
            host = static.host
            cases = [
                curl_case(host, remote),
                *oras_case(host, remote),
                *kit_case(host, remote),
                kitd_case(host, remote),
            ]
            targets = [Target("CPU", KITD, KIT, 1.3, cpu), Target("wall until safe", KITD, KIT, 0.8, wall)]
            results = interleave(cases, bench.rounds, bench.place)
            show(f"pull {large(bench.size)} in {shape}, until safe", results, targets, size=bench.size)


def pull_unpack(bench: Bench) -> None:
    with static_registry(bench, 1) as (static, (remote,)):
        _pull_unpack(bench, static.host, remote, bench.place, "ext4", 0.75)
        with file_system("xfs", bench.home, 4 * bench.size + GIB) as mount:
            _pull_unpack(bench, static.host, remote, mount / "run", "fresh XFS", 0.5)


def _pull_unpack(bench: Bench, host: str, remote: Remote, place: Path, where: str, most: float) -> None:
    cases = [
        *kit_case(host, remote, unpack=True),
        kitd_case(host, remote, then="unpack"),
        kitd_case(host, remote, name="kitd, path", then="path"),
    ]
    targets = [Target("unpack", KITD, KIT, most, wall), Target("path", "kitd, path", KIT, 0.55, wall)]
    results = interleave(cases, bench.rounds, place)
    show(f"pull, then unpack {large(bench.size)}, {where}, until safe", results, targets, size=bench.size)
    empty(place)


def slow(bench: Bench) -> None:
    with static_registry(bench, 1) as (static, (remote,)):
        host = static.slow_host
        cases = [*kit_case(host, remote), kitd_case(host, remote)]
        results = interleave(cases, 1 if bench.quick else bench.rounds, bench.place)
        targets = [Target("wall", KITD, KIT, 0.13, wall)]
        show(f"pull {large(bench.size)} at 40 MiB/s a connection", results, targets, size=bench.size)


def push(bench: Bench) -> None:
    if not push_registry():
        print("\n## push: no registry on PATH")
        return
    reference = "bench/l8:v1"
    stores = empty(bench.home / "stores")
    tree = inputs.weights(stores / "tree", bench.size, 8)
    if shutil.which("kit"):
        timed(Job([timed_kit(stores, "pack", str(tree), "-t", reference)]))
    with kitd(stores / "kitd") as daemon:
        daemon.do("pack", str(tree), "-t", reference)

        @contextlib.contextmanager
        def by_kit(place: Path) -> Iterator[Job]:
            with registry(empty(place)) as host:
                target = f"{host}/bench/l8:v1"
                timed(Job([timed_kit(stores, "tag", "bench/l8:v1", target)]))
                yield Job([timed_kit(stores, "push", "--plain-http", target)])

        @contextlib.contextmanager
        def by_kitd(place: Path) -> Iterator[Job]:
            with registry(empty(place)) as host:
                command = [KITCTL, "push", "--plain-http", reference, f"{host}/bench/l8:v1"]
                yield Job([command], daemon.environment, daemon.pid)

        results = interleave([*if_here(KIT, by_kit), Case(KITD, by_kitd)], bench.rounds, bench.place)
    title = f"push {large(bench.size)} in 8 layers to {Path(push_registry()).name}"
    show(title, results, [Target("wall", KITD, KIT, 0.9, wall)], size=bench.size)
    shutil.rmtree(stores)


def clients(bench: Bench) -> None:
    with static_registry(bench, 1) as (static, (remote,)):
        sent: dict[str, list[int]] = {}

        def case(count: int) -> Case:
            name = f"{count} client{'s' if count > 1 else ''}"

            @contextlib.contextmanager
            def setting(place: Path) -> Iterator[Job]:
                with kitd(empty(place) / "kitd") as daemon:
                    command = [sys.executable, str(_MANY), str(count), remote.at(static.host)]
                    static.bytes_sent()
                    yield Job([command], daemon.environment, daemon.pid)
                    sent.setdefault(name, []).append(static.bytes_sent())

            return Case(name, setting)

        results = interleave([case(1), case(100)], bench.rounds, bench.place)
        targets = [Target("slowest", "100 clients", "1 client", 1.2, wall)]
        show(f"clients that pull one kit of {large(bench.size)}", results, targets, size=bench.size)
        verdict("bytes sent by the registry, in kits", max(sent["100 clients"]) / bench.size, 1.01, "x")


def memory(bench: Bench) -> None:
    print("\n## daemon RSS (VmHWM of a fresh daemon for each)\n")
    with static_registry(bench, 1, 8) as (static, remotes):
        with kitd(empty(bench.place) / "kitd") as daemon:
            daemon.do("list")
            verdict("idle", peak_rss(daemon.pid) / MIB, 60, "MiB")
        for host, link in ((static.host, "loopback"), (static.slow_host, "40 MiB/s a connection")):
            for remote in remotes:
                case = kitd_case(host, remote)
                peaks = interleave([case], 1, bench.place)[KITD]
                name = f"pull {large(bench.size)}, {remote.name.removeprefix('bench/l')} layers, {link}"
                verdict(name, median(peaks, lambda cost: cost.peak) / MIB, 220, "MiB")
        remote = remotes[1]
        if not push_registry():
            return
        place = empty(bench.place)
        with kitd(place / "kitd") as daemon:
            daemon.do("pull", "--plain-http", remote.at(static.host))
        with kitd(place / "kitd") as daemon, registry(place) as host:
            daemon.do("push", "--plain-http", remote.at(static.host), remote.at(host))
            verdict("push, 8 layers", peak_rss(daemon.pid) / MIB, 220, "MiB")
