"""The main job of kitd, shown: pack, push, pull, a daemon killed half-way, resume, unpack, verify."""

import argparse
import contextlib
import hashlib
import json
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

from kitd_client.figures import size_text

REFERENCE = "demo/support-bot:v1"
MIB = 1 << 20
BOLD, DIM, GREEN, OFF = ("\033[1m", "\033[2m", "\033[32m", "\033[0m") if sys.stdout.isatty() else ("",) * 4


def say(text: str = "") -> None:
    print(text, flush=True)


def step(number: int, text: str) -> None:
    say(f"\n{BOLD}{number}. {text}{OFF}")


class Daemon:
    """One kitd with a store and a socket of its own."""

    def __init__(self, name: str, home: Path, *, listen: str = "") -> None:
        self.name = name
        self.home = home / name
        self.home.mkdir()
        self.socket = self.home / "kitd.sock"
        self.store = self.home / "store"
        self.environment = {
            "PATH": os.environ["PATH"],
            "HOME": str(self.home),
            "KITD_SOCKET": str(self.socket),
            "KITD_CACHE_DIR": str(self.store),
        }
        if listen:
            self.environment["KITD_REGISTRY__LISTEN"] = listen
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Starts the daemon and waits until it says READY, as a service manager would."""
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notify:
            address = self.home / "notify"
            with contextlib.suppress(FileNotFoundError):
                address.unlink()
            notify.bind(str(address))
            notify.settimeout(20)
            with (self.home / "kitd.log").open("ab") as log:
                self.process = subprocess.Popen(
                    [sys.executable, "-m", "kitd"],
                    env=self.environment | {"NOTIFY_SOCKET": str(address)},
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    start_new_session=True,
                )
            while b"READY=1" not in notify.recv(4096):
                pass

    def kill(self) -> None:
        assert self.process is not None
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()

    def stop(self) -> None:
        if self.process is not None and self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(15)
            except subprocess.TimeoutExpired:
                self.kill()

    def command(self, *arguments: str) -> list[str]:
        return [str(Path(sys.executable).with_name("kitctl")), *arguments]

    def kitctl(self, *arguments: str, quiet: bool = False) -> str:
        """Runs one kitctl against this daemon, shows it, and returns what it printed."""
        if not quiet:
            say(f"{DIM}[{self.name}]{OFF} $ kitctl {' '.join(arguments)}")
        run = subprocess.run(
            self.command(*arguments), env=self.environment, stdout=subprocess.PIPE, text=True, check=False
        )
        if run.stdout and not quiet:
            say("   " + run.stdout.rstrip().replace("\n", "\n   "))
        if run.returncode:
            raise SystemExit(
                f"kitctl {arguments[0]} ended with {run.returncode}; log: {self.home / 'kitd.log'}"
            )
        return run.stdout

    def disk(self) -> int:
        """Bytes of all files of the store, each inode once."""
        seen: dict[tuple[int, int], int] = {}
        for directory, _, names in os.walk(self.store):
            for name in names:
                status = (Path(directory) / name).lstat()
                seen[status.st_dev, status.st_ino] = status.st_size
        return sum(seen.values())


def make_tree(root: Path, size: int) -> int:
    """A kit as teams have them: weights, a JSONL dataset, a directory of many small files, code, a model card."""
    numbers = random.Random(2026)
    weights = root / "weights"
    weights.mkdir(parents=True)
    block = numbers.randbytes(8 * MIB)
    for shard in (1, 2):
        with (weights / f"model-0000{shard}-of-00002.safetensors").open("wb") as file:
            header = json.dumps({"__metadata__": {"format": "pt", "shard": str(shard)}}).encode()
            file.write(len(header).to_bytes(8, "little") + header)
            for part in range(max(1, size // 2 // len(block))):
                file.write(hashlib.sha256(bytes([shard, part % 256])).digest())
                file.write(block)
    (root / "data" / "images").mkdir(parents=True)
    with (root / "data" / "tickets.jsonl").open("w") as file:
        for number in range(60_000):
            file.write(
                json.dumps({"id": number, "text": f"ticket {number}: {numbers.random():.12f} " * 4}) + "\n"
            )
    for number in range(3_000):
        (root / "data" / "images" / f"{number:05}.jpg").write_bytes(numbers.randbytes(10_240))
    (root / "src").mkdir()
    (root / "src" / "serve.py").write_text("print('serving')\n")
    (root / "README.md").write_text("# support-bot\n\nA model card.\n")
    (root / "Kitfile").write_text(
        """manifestVersion: 1.0.0
package: {name: support-bot, version: 1.0.0, authors: [Data Team], license: Apache-2.0}
model:
  name: support-bot
  path: weights/model-00001-of-00002.safetensors
  framework: pytorch
  parts:
    - {name: shard-2, path: weights/model-00002-of-00002.safetensors}
  parameters: {context: 8192, temperature: 0.7}
datasets:
  - {name: tickets, path: data/tickets.jsonl}
  - {name: images, path: data/images}
code:
  - {path: src}
docs:
  - {path: README.md}
"""
    )
    return sum(path.stat().st_size for path in root.rglob("*") if path.is_file())


def digests(root: Path) -> dict[str, str]:
    found = {}
    for path in sorted(root.rglob("*")):
        if path.is_file() and path.name != "Kitfile":
            with path.open("rb") as file:
                found[str(path.relative_to(root))] = hashlib.file_digest(file, "sha256").hexdigest()
    return found


def pull_until(node: Daemon, reference: str, rate: str, share: float) -> float:
    """Starts a pull and kills the daemon once more than `share` of the kit is here. Returns the true share."""
    arguments = ("pull", reference, "--limit-rate", rate, "--progress", "json")
    say(f"{DIM}[{node.name}]{OFF} $ kitctl {' '.join(arguments[:-2])}")
    client = subprocess.Popen(
        node.command(*arguments),
        env=node.environment,
        stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        text=True,
    )
    assert client.stderr is not None
    totals: dict[str, int] = {}
    done: dict[str, int] = {}
    reached, shown = 0.0, -1
    for line in client.stderr:
        event = json.loads(line) if line.startswith("{") else {}
        if event.get("event") == "began":
            totals[event["item"]] = event["total"]
        if event.get("event") in ("began", "moved"):
            done[event["item"]] = event["done"]
        if len(totals) >= 6:
            reached = sum(done.values()) / max(1, sum(totals.values()))
            if int(reached * 10) > shown:
                shown = int(reached * 10)
                whole = sum(totals.values())
                say(f"   {reached:4.0%}  {size_text(sum(done.values()), whole)} of {size_text(whole)}")
            if reached > share:
                break
    node.kill()
    say(f"   {BOLD}kill -9{OFF} of the node's daemon at {reached:.0%}")
    client.stderr.close()
    client.wait()
    return reached


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return int(probe.getsockname()[1])


@contextlib.contextmanager
def daemons(home: Path, listen: str) -> Iterator[tuple[Daemon, Daemon, Daemon]]:
    three = (Daemon("builder", home), Daemon("registry", home, listen=listen), Daemon("node", home))
    try:
        starts = [threading.Thread(target=daemon.start) for daemon in three]
        for thread in starts:
            thread.start()
        for thread in starts:
            thread.join()
        yield three
    finally:
        for daemon in three:
            daemon.stop()


def pack_and_push(builder: Daemon, tree: Path, reference: str, total: int) -> None:
    started = time.monotonic()
    builder.kitctl("pack", str(tree), "-t", reference)
    took = time.monotonic() - started
    disk = size_text(builder.disk())
    say(f"   packed in {took:.1f} s; the builder's store: {disk} for a kit of {size_text(total)} (one copy)")
    started = time.monotonic()
    builder.kitctl("push", reference)
    say(f"   pushed in {time.monotonic() - started:.1f} s; the registry is a kitd too")


def pull(node: Daemon, reference: str) -> tuple[int, int]:
    """Pulls to the end. Returns the bytes moved and the bytes of the kit."""
    say(f"{DIM}[{node.name}]{OFF} $ kitctl pull {reference}")
    answer = json.loads(node.kitctl("pull", reference, "--format", "json", quiet=True))
    return sum(answer["fetched"].values()), answer["size"]


def unpack_and_verify(node: Daemon, reference: str, tree: Path, out: Path) -> None:
    started = time.monotonic()
    node.kitctl("unpack", reference, "-d", str(out))
    took = time.monotonic() - started
    wrong = digests(tree).items() ^ digests(out).items()
    if wrong:
        raise SystemExit(f"files differ: {sorted({name for name, _ in wrong})}")
    say(f"   {GREEN}all {len(digests(out))} files are what was packed{OFF} ({took:.1f} s, durable)")
    say("   the Kitfile beside them is written anew from what the kit says of itself")
    path = node.kitctl("path", reference).strip()
    names = (Path(path) / "data/tickets.jsonl").stat().st_nlink
    say(f"   `path` needs no second copy: the store's own inode, {names} names")


def show(home: Path, size: int, rate: str) -> None:
    listen = f"127.0.0.1:{free_port()}"
    reference = f"{listen}/{REFERENCE}"
    tree = home / "tree"
    say(f"{BOLD}kitd: the main job, with three daemons on loopback{OFF}  (everything is in {home})")
    step(1, "A kit as teams have them")
    total = make_tree(tree, size)
    say(f"   {len(digests(tree))} files and a Kitfile, {size_text(total)}:")
    say("   two weight shards, JSONL, 3000 images, code, docs")
    with daemons(home, listen) as (builder, _, node):
        step(2, "Pack and push")
        pack_and_push(builder, tree, reference, total)
        step(3, "Pull on the node at a limited rate, and kill its daemon in the middle")
        reached = pull_until(node, reference, rate, 0.4)
        step(4, "Start it again and ask again: it goes on where it was")
        node.start()
        started = time.monotonic()
        refetched, kit_size = pull(node, reference)
        took = time.monotonic() - started
        part, twice = size_text(refetched, kit_size), max(0, round(refetched - kit_size * (1 - reached)))
        say(f"   fetched after the kill: {part} of {size_text(kit_size)} in {took:.1f} s")
        say("   (what had come and was still in memory died with the daemon, so it is fetched once more)")
        step(5, "Unpack, and verify every file")
        unpack_and_verify(node, reference, tree, home / "out")
        step(6, "Pull again: nothing moves")
        moved, _ = pull(node, reference)
        say(f"   moved: {size_text(moved)}")
        say(f"\n{BOLD}In figures{OFF}")
        for name, value in (
            ("kit", size_text(kit_size)),
            ("had come when the daemon was killed", f"{reached:.0%}"),
            ("fetched after the kill", f"{part} ({refetched / kit_size:.0%})"),
            ("so it came twice (was in memory)", f"{size_text(twice)} ({twice / kit_size:.0%})"),
            ("node's store on disk", f"{size_text(node.disk())} ({node.disk() / kit_size:.1%} of the kit)"),
            ("moved by the second pull", size_text(moved)),
        ):
            say(f"   {name:38}{value}")
        if refetched > kit_size * (1 - reached) + 64 * MIB or moved:
            raise SystemExit("more was fetched than was missing")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--size", type=int, default=256, metavar="MIB", help="size of the weights (%(default)s)"
    )
    parser.add_argument("--rate", default="60MiB/s", help="rate of the first pull (%(default)s)")
    parser.add_argument("--keep", action="store_true", help="leave the temporary directory")
    options = parser.parse_args()
    home = Path(tempfile.mkdtemp(prefix="kitd-demo-"))
    try:
        show(home, options.size * MIB, options.rate)
    finally:
        if options.keep:
            say(f"kept: {home}")
        else:
            for directory, names, _ in os.walk(home):
                for name in names:
                    with contextlib.suppress(OSError):
                        (Path(directory) / name).chmod(0o700)
            shutil.rmtree(home, ignore_errors=True)


if __name__ == "__main__":
    main()
