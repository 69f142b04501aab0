"""How unpack treats a directory, thousands of files, and an interruption."""

import json
import os
import signal
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from fakes.daemon import Daemon, StartDaemon
from fakes.kits import FakeKit, FakeLayer, make_kit, put_kit, some_bytes, tar_header
from fakes.registry import ScriptedRegistry
from fakes.tools import need_tool
from interop.trees import contents_of, make_tree, tree_of

from kitd_client.api.errors import (
    TargetBusy,
    TargetExists,
    TargetUnsafe,
)
from kitd_client.client import Client

KITFILE = "manifestVersion: 1.0.0\nmodel: {name: m, path: model}\ncode: [{path: src}]\n"
FILES: dict[str, bytes | str] = {
    "Kitfile": KITFILE,
    "model/a.bin": some_bytes(5000),
    "model/b.bin": some_bytes(6000),
    "src/main.py": "print('hi')\n",
}
STAGING = ".kitd-"


@pytest.fixture(scope="module")
def kit(shared: Daemon, tmp_path_factory: pytest.TempPathFactory) -> str:
    """A kit of three files, packed."""
    tree = make_tree(tmp_path_factory.mktemp("kit") / "tree", FILES)
    shared.kitctl("pack", tree, "-t", "manners/kit:v1")
    return "manners/kit:v1"


# -- what is there already -----------------------------------------------------------------------


def test_every_collision_is_told_before_the_first_write(shared: Daemon, kit: str, out: Path) -> None:
    make_tree(out, {"model/a.bin": "mine", "src/main.py": "mine too", "other": "not in the kit"})
    before = tree_of(out)
    failed = shared.kitctl("unpack", kit, "-d", out, check=False)
    assert failed.returncode == TargetExists.exit_code == 73
    assert "model/a.bin" in failed.stderr
    assert "src/main.py" in failed.stderr
    assert "model/b.bin" not in failed.stderr
    assert tree_of(out) == before


def test_overwrite_replaces_by_a_rename(client: Client, kit: str, out: Path) -> None:
    make_tree(out, {"model/a.bin": "mine", "Kitfile": "mine"})
    (out / "model" / "a.bin").chmod(0o600)
    (out / "kept").hardlink_to(out / "model" / "a.bin")
    client.unpack(kit, out, overwrite=True)
    assert (out / "model" / "a.bin").read_bytes() == FILES["model/a.bin"]
    assert (out / "model" / "a.bin").stat().st_mode & 0o777 == 0o644
    assert (out / "kept").read_text() == "mine"
    assert contents_of(out).keys() == {*FILES, "kept"}


def test_ignored_files_stay_as_they_are_and_the_kitfile_is_no_such_file(
    client: Client, kit: str, out: Path
) -> None:
    make_tree(out, {"model/a.bin": "mine", "Kitfile": "mine"})
    before = tree_of(out)
    with pytest.raises(TargetExists, match="Kitfile"):
        client.unpack(kit, out, ignore_existing=True)
    assert tree_of(out) == before
    (out / "Kitfile").unlink()
    result = client.unpack(kit, out, ignore_existing=True)
    assert (result.files, result.skipped) == (3, 1)
    assert (out / "model" / "a.bin").read_text() == "mine"
    assert (out / "model" / "b.bin").read_bytes() == FILES["model/b.bin"]
    # Twice: all is there, and the Kitfile holds the same bytes.
    assert client.unpack(kit, out, ignore_existing=True).files == 0


def test_links_in_the_target_are_never_followed(client: Client, kit: str, out: Path, tmp_path: Path) -> None:
    aside = make_tree(tmp_path / "aside", {"b.bin": "not yours"})
    out.mkdir()
    (out / "model").symlink_to(aside)
    for overwrite in (False, True):
        with pytest.raises(TargetUnsafe, match="model"):
            client.unpack(kit, out, overwrite=overwrite)
    (out / "model").unlink()
    make_tree(out, {"model/keep": "x"})
    (out / "model" / "a.bin").symlink_to(tmp_path / "dangling")
    with pytest.raises(TargetUnsafe, match=r"model/a\.bin"):
        client.unpack(kit, out, overwrite=True)
    (out / "model" / "a.bin").unlink()
    (out / "model" / "a.bin").mkdir()
    with pytest.raises(TargetUnsafe, match=r"model/a\.bin"):
        client.unpack(kit, out, overwrite=True)
    assert contents_of(aside) == {"b.bin": b"not yours"}
    assert not (tmp_path / "dangling").exists()
    assert contents_of(out) == {"model/keep": b"x"}


# -- what is made --------------------------------------------------------------------------------


def test_the_directory_is_here_or_where_it_is_said_and_made(shared: Daemon, kit: str, tmp_path: Path) -> None:
    here = tmp_path / "here"
    here.mkdir()
    shared.kitctl("unpack", kit, cwd=here)
    shared.kitctl("unpack", kit, "-d", "deep/er", cwd=here)
    assert contents_of(here / "deep" / "er").keys() == FILES.keys()
    assert {path.name for path in here.iterdir()} == {"Kitfile", "model", "src", "deep"}


@pytest.mark.parametrize(
    ("umask", "file", "executable", "directory"),
    [
        (0o022, 0o644, 0o755, 0o755),
        (0o077, 0o600, 0o700, 0o700),
        (0o002, 0o664, 0o775, 0o775),
        (0o000, 0o666, 0o777, 0o777),
    ],
)
def test_the_umask_is_the_callers(
    umask: int, file: int, executable: int, directory: int, shared: Daemon, shelf: ScriptedRegistry, out: Path
) -> None:
    modes = {"d": 0o2777, "d/file": 0o666, "d/setuid": 0o4777, "d/sticky": 0o1777, "d/none": 0o000}
    files = {name: b"x" for name in modes if name != "d"}
    put_kit(shelf, make_kit([FakeLayer("code", "d", files, modes=modes)]), "manners/modes")
    under = ("sh", "-c", f'umask {umask:o}; exec "$@"', "sh")
    done = shared.kitctl("unpack", f"{shelf.host}/manners/modes:v1", "-d", out, wrapper=under)
    assert {path: found.mode for path, found in tree_of(out, without="Kitfile").items()} == {
        "d": directory,
        "d/file": file,
        "d/setuid": executable,
        "d/sticky": executable,
        "d/none": 0,
    }
    assert "3 file(s) have a setuid, setgid or sticky bit" in done.stderr


def test_missing_parents_are_made(client: Client, shelf: ScriptedRegistry, out: Path) -> None:
    blob = tar_header("a/b/c.txt", size=1) + b"x".ljust(512, b"\0") + tar_header("a/d", mode=0o700, kind=b"5")
    blob += bytes(1024)
    put_kit(shelf, make_kit([FakeLayer("code", "a", {}, blob=blob)]), "manners/parents")
    client.unpack(f"{shelf.host}/manners/parents:v1", out)
    assert {path: found.mode for path, found in tree_of(out, without="Kitfile").items()} == {
        "a": 0o755,
        "a/b": 0o755,
        "a/b/c.txt": 0o644,
        "a/d": 0o700,
    }


# -- many ----------------------------------------------------------------------------------------

FEW_DESCRIPTORS = ("prlimit", "--nofile=1024:1024")


def _many(count: int, content: Callable[[int], bytes]) -> FakeKit:
    """One layer of `count` files, 1000 a directory."""
    pieces = [tar_header("d", mode=0o755, kind=b"5")]
    for number in range(count):
        if number % 1000 == 0:
            pieces.append(tar_header(f"d/{number // 1000:03}", mode=0o755, kind=b"5"))
        data = content(number)
        pieces += [tar_header(f"d/{number // 1000:03}/{number}", size=len(data)), data.ljust(512, b"\0")]
    blob = b"".join([*pieces, bytes(1024)])
    return make_kit([FakeLayer("dataset", "d", {}, blob=blob, name="many")])


@pytest.mark.slow
@pytest.mark.timeout(150)
def test_200_000_files_in_one_layer_need_few_descriptors(
    start_daemon: StartDaemon, shelf: ScriptedRegistry, out: Path
) -> None:
    need_tool("prlimit")
    put_kit(shelf, _many(200_000, lambda number: b"%d" % (number % 2000)), "manners/many")
    daemon = start_daemon(wrapper=FEW_DESCRIPTORS)
    reference = f"{shelf.host}/manners/many:v1"
    done = daemon.kitctl(
        "unpack", reference, "-d", out, "--format", "json", wrapper=FEW_DESCRIPTORS, within=120
    )
    shelf.repository("manners/many").blobs.clear()
    assert json.loads(done.stdout)["files"] == 200_001
    found = 0
    for number, directory in enumerate(sorted(path for path in (out / "d").iterdir())):
        with os.scandir(directory) as entries:
            names = {entry.name for entry in entries}
        assert names == {str(number * 1000 + index) for index in range(1000)}
        found += len(names)
    assert found == 200_000
    assert (out / "d" / "123" / "123456").read_bytes() == b"1456"


@pytest.mark.slow
@pytest.mark.timeout(150)
def test_65_001_files_of_one_content(start_daemon: StartDaemon, shelf: ScriptedRegistry, out: Path) -> None:
    """ext4 takes 65 000 hard links of a file: `path` needs more."""
    put_kit(shelf, _many(65_001, lambda _: b"the same"), "manners/same")
    daemon = start_daemon()
    reference = f"{shelf.host}/manners/same:v1"
    daemon.kitctl("pull", reference)
    shelf.repository("manners/same").blobs.clear()
    trees = [Path(daemon.kitctl("path", reference, within=120).stdout.strip()), out]
    daemon.kitctl("unpack", reference, "-d", out, within=120)
    for tree in trees:
        files = [path for path in (tree / "d").rglob("*") if path.is_file()]
        assert len(files) == 65_001
        assert {path.read_bytes() for path in files[::500]} == {b"the same"}
    assert (trees[0] / "d" / "065" / "65000").read_bytes() == b"the same"


# -- interrupted ---------------------------------------------------------------------------------


@pytest.fixture
def long_kit(client: Client, shelf: ScriptedRegistry) -> tuple[str, dict[str, bytes]]:
    """A kit here that takes a while to unpack, and its files."""
    files = {f"d/{number:05}": b"%d" % number * 500 for number in range(16_000)}
    put_kit(shelf, make_kit([FakeLayer("dataset", "d", files)]), "manners/long")
    client.pull(f"{shelf.host}/manners/long:v1")
    return f"{shelf.host}/manners/long:v1", files


@contextmanager
def _in_the_middle(daemon: Daemon, reference: str, out: Path) -> Iterator[subprocess.Popen[str]]:
    """A kitctl that unpacks and has just said that bytes were written; it is killed in the end."""
    command = daemon.kitctl_command("unpack", reference, "-d", out, "--progress", "json")
    with subprocess.Popen(command, env=daemon.environment, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        try:
            for line in process.stderr:
                event = json.loads(line)
                if event["event"] == "moved" and event["done"]:
                    break
            else:
                raise AssertionError("it ended at once")
            yield process
        finally:
            process.kill()


def test_a_killed_unpack_leaves_nothing_under_a_final_name(
    shared: Daemon, client: Client, long_kit: tuple[str, dict[str, bytes]], out: Path
) -> None:
    reference, files = long_kit
    with _in_the_middle(shared, reference, out) as process:
        process.kill()
    (stale,) = out.iterdir()
    assert stale.name.startswith(STAGING)
    assert 0 < len(contents_of(stale)) < len(files)
    # The next one removes what is stale, and what it writes is whole.
    result = client.unpack(reference, out)
    assert result.files == len(files) + 1
    assert contents_of(out, without="Kitfile") == files
    assert {path.name for path in out.iterdir()} == {"d", "Kitfile"}


def test_two_unpacks_do_not_share_a_directory(
    shared: Daemon, client: Client, long_kit: tuple[str, dict[str, bytes]], out: Path
) -> None:
    reference, files = long_kit
    with _in_the_middle(shared, reference, out) as process:
        process.send_signal(signal.SIGSTOP)
        with pytest.raises(TargetBusy) as caught:
            client.unpack(reference, out)
        process.send_signal(signal.SIGCONT)
        process.communicate(timeout=30)
        assert process.returncode == 0
    assert caught.value.exit_code == 75
    assert contents_of(out, without="Kitfile") == files


def test_an_interrupted_unpack_cleans_up(
    shared: Daemon, long_kit: tuple[str, dict[str, bytes]], out: Path
) -> None:
    with _in_the_middle(shared, long_kit[0], out) as process:
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=30)
    assert process.returncode == 130
    assert "interrupted" in said
    # The directory was made for this unpack, so it goes too.
    assert not out.exists()
