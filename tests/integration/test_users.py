"""One daemon for a group: what members, strangers and root may do with the real kitctl, each under a uid of its own."""

import dataclasses
import os
import re
import stat
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Literal

import msgspec
import pytest
from fakes import faults
from fakes.daemon import Daemon
from fakes.exchange import Gate
from fakes.kits import FakeKit, FakeLayer, make_kit, put_kit, small_kit, some_bytes, tar_of
from fakes.registry import ScriptedRegistry
from fakes.shelves import digest_of
from fakes.tools import need_root, need_tool

from kitd_client.api.jobs import JobInfo
from kitd_client.api.kits import Status

pytestmark = pytest.mark.root

DAEMON, MEMBER, OTHER, STRANGER, ROOT = 64001, 64002, 64003, 64004, 0
USERS = {"member": MEMBER, "other": OTHER, "stranger": STRANGER, "root": ROOT}
GROUP = 100
"""`users`, which every Debian has."""
SECRET = {"secret/key.txt": b"the member's alone\n" * 40}


def as_uid(uid: int, *, grouped: bool) -> list[str]:
    groups = f"--groups={GROUP}" if grouped else "--clear-groups"
    return ["setpriv", f"--reuid={uid}", f"--regid={uid}", groups, "--inh-caps=-all", "--bounding-set=-all"]


@dataclasses.dataclass
class Person:
    """Somebody with a home that is closed to all others, and the kitctl of this machine."""

    name: str
    home: Path
    daemon: Daemon

    @property
    def uid(self) -> int:
        return USERS[self.name]

    @property
    def wrapper(self) -> list[str]:
        if self.uid == ROOT:
            return []
        return as_uid(self.uid, grouped=self.name != "stranger")

    @property
    def environment(self) -> Mapping[str, str]:
        # A process of another user cannot write where coverage is collected.
        own = dict.fromkeys(("HOME", "XDG_RUNTIME_DIR", "XDG_CONFIG_HOME"), str(self.home))
        return self.daemon.environment | own | {"COVERAGE_PROCESS_START": ""}

    def run(self, *words: str | Path) -> "subprocess.CompletedProcess[bytes]":
        return subprocess.run(
            [*self.wrapper, *map(str, words)],
            cwd=self.home,
            env=self.environment,
            capture_output=True,
            timeout=40,
            check=False,
        )

    def kitctl(
        self, *words: str | Path, check: bool = True, stdin: str = "", umask: int = 0o022
    ) -> "subprocess.CompletedProcess[str]":
        return self.daemon.kitctl(
            *words,
            check=check,
            stdin=stdin,
            environment=self.environment,
            cwd=self.home,
            wrapper=["sh", "-c", f'umask {umask:o}; exec "$@"', "sh", *self.wrapper],
        )

    def fails(self, *words: str | Path, stdin: str = "") -> tuple[int, str]:
        """Exit status and what was said."""
        done = self.kitctl(*words, check=False, stdin=stdin)
        assert done.stdout == ""
        return done.returncode, done.stderr

    def make(self, files: Mapping[str, bytes]) -> Path:
        """A new directory of theirs, closed to all others."""
        top = Path(tempfile.mkdtemp(dir=self.home))
        for name, data in files.items():
            path = top / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
        for path in (top, *top.rglob("*")):
            os.chown(path, self.uid, self.uid)
        return top


@dataclasses.dataclass
class Scene:
    daemon: Daemon
    member: Person
    other: Person
    stranger: Person
    root: Person


@pytest.fixture(scope="module")
def scene() -> Iterator[Scene]:
    """A daemon of its own uid that serves the group `users`, and four people."""
    need_root()
    need_tool("setpriv")
    with ExitStack() as stack:
        # What is below pytest's own directories is closed to other users.
        top = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="kitd-users-")))
        top.chmod(0o755)
        home = top / "daemon"
        home.mkdir()
        (home / "kitd.toml").write_text("[daemon]\nsocket_group = 'users'\n")
        daemon = Daemon(
            home,
            arguments=["--config", str(home / "kitd.toml")],
            environment={"COVERAGE_PROCESS_START": ""},
            wrapper=as_uid(DAEMON, grouped=True),
        )
        for path in (home, daemon.socket.parent, home / "run", home / "cache", home / "config"):
            os.chown(path, DAEMON, DAEMON)
        daemon.socket.parent.chmod(0o755)
        people = {}
        for name, uid in USERS.items():
            people[name] = Person(name, top / name, daemon)
            people[name].home.mkdir(mode=0o700)
            os.chown(people[name].home, uid, uid)
        yield Scene(stack.enter_context(daemon), **people)


@pytest.fixture(scope="module")
def shelf() -> Iterator[ScriptedRegistry]:
    with ScriptedRegistry().in_thread() as registry:
        yield registry


def published(registry: ScriptedRegistry, name: str, kit: FakeKit) -> str:
    put_kit(registry, kit, name)
    return f"{registry.host}/{name}:v1"


# -- who comes in --------------------------------------------------------------------------------


def test_the_daemon_is_a_system_daemon_for_its_group(scene: Scene) -> None:
    for person in (scene.member, scene.other, scene.root):
        done = person.kitctl("status", "--format", "json")
        status = msgspec.json.decode(done.stdout, type=Status)
        assert (status.mode, status.uid) == ("system", DAEMON)
    found = scene.daemon.socket.stat()
    assert (stat.S_IMODE(found.st_mode), found.st_uid, found.st_gid) == (0o660, DAEMON, GROUP)


@pytest.mark.parametrize("words", [["list"], ["pull", "a.b/c:d"], ["status"], ["unpack", "a/b:c"]])
def test_a_stranger_is_refused_and_told_how_to_get_in(scene: Scene, words: list[str]) -> None:
    status, said = scene.stranger.fails(*words)
    assert status == 77
    assert said.startswith(f"kitctl: permission denied on {scene.daemon.socket}\nhint: ")
    assert "'sudo usermod -aG users $USER'" in said
    assert "and log in again" in said


# -- each with their own rights ------------------------------------------------------------------


def test_a_member_unpacks_with_their_own_rights_and_umask(scene: Scene, shelf: ScriptedRegistry) -> None:
    modes = {"bin": 0o755, "bin/tool": 0o755, "bin/data": 0o666}
    kit = make_kit([FakeLayer("code", "bin", {"bin/tool": b"#!", "bin/data": b"x"}, modes=modes)])
    reference = published(shelf, "users/rights", kit)
    target = scene.member.make({}) / "new" / "place"
    scene.member.kitctl("pull", reference, umask=0o027)
    done = scene.member.kitctl("unpack", reference, "-d", target, umask=0o027)
    assert "pulling it first" not in done.stderr
    found = {str(path.relative_to(target)): path.stat() for path in target.rglob("*")}
    assert {name: stat.S_IMODE(status.st_mode) for name, status in found.items()} == {
        "Kitfile": 0o640,
        "bin": 0o750,
        "bin/tool": 0o750,
        "bin/data": 0o640,
    }
    assert {(status.st_uid, status.st_gid) for status in found.values()} == {(MEMBER, MEMBER)}
    assert stat.S_IMODE(target.parent.stat().st_mode) == 0o750
    # The daemon has nothing in the member's home, and could not enter it.
    assert subprocess.run(
        [*as_uid(DAEMON, grouped=True), "ls", target], capture_output=True, check=False
    ).returncode


def test_what_a_member_packs_out_of_a_closed_directory_another_unpacks(scene: Scene) -> None:
    data = some_bytes(300_000, 3)
    tree = scene.member.make({"Kitfile": b"manifestVersion: 1.0.0\nmodel: {path: w}\n", "w/a.bin": data})
    (tree / "w" / "a.bin").chmod(0o600)
    scene.member.kitctl("pack", tree, "-t", "users/packed:v1")
    target = scene.other.make({})
    scene.other.kitctl("unpack", "users/packed:v1", "-d", target)
    assert (target / "w" / "a.bin").read_bytes() == data
    found = (target / "w" / "a.bin").stat()
    assert (found.st_uid, stat.S_IMODE(found.st_mode), found.st_nlink) == (OTHER, 0o600, 1)


def test_nobody_packs_what_they_cannot_read(scene: Scene) -> None:
    kitfile = "manifestVersion: 1.0.0\ncode: [{path: shadow}]\n"
    status, said = scene.member.fails("pack", "/etc", "-f", "-", "-t", "users/shadow:v1", stdin=kitfile)
    assert status == 66
    assert "shadow" in said
    closed = scene.other.make({"Kitfile": b"manifestVersion: 1.0.0\ncode: [{path: .}]\n", "diary": b"dear"})
    assert scene.member.fails("pack", closed, "-t", "users/diary:v1")[0] == 66
    tree = scene.member.make({"Kitfile": b"manifestVersion: 1.0.0\ncode: [{path: mine}]\n", "mine/a": b"a"})
    (tree / "mine" / "link").symlink_to("/etc/shadow")
    os.chown(tree / "mine" / "link", MEMBER, MEMBER, follow_symlinks=False)
    done = scene.member.kitctl("pack", tree, "-t", "users/link:v1")
    assert re.search(r"^kitctl: warning: .*mine/link", done.stderr, re.MULTILINE)
    (tree / "mine" / "empty").touch(mode=0o000)
    status, said = scene.member.fails("pack", tree, "-t", "users/empty:v1")
    assert (status, "mine/empty" in said) == (66, True)
    listed = scene.member.kitctl("list").stdout
    assert "users/link" in listed
    assert "users/empty" not in listed
    assert "users/shadow" not in listed
    assert "users/diary" not in listed


def test_nobody_unpacks_where_they_cannot_write(scene: Scene, shelf: ScriptedRegistry) -> None:
    reference = published(shelf, "users/target", small_kit(4))
    scene.member.kitctl("pull", reference)
    # Open to look at, not to write into.
    shown = scene.other.make({"README.md": b"mine"})
    scene.other.home.chmod(0o711)
    shown.chmod(0o755)
    try:
        for target in (shown, shown / "deeper" / "still", "/etc", scene.stranger.home):
            status, said = scene.member.fails("unpack", reference, "-d", target, "-o")
            assert (status, str(target) in said) == (73, True), said
        assert {path.name: path.read_bytes() for path in shown.iterdir()} == {"README.md": b"mine"}
    finally:
        scene.other.home.chmod(0o700)
    assert list(scene.stranger.home.iterdir()) == []


# -- jobs ----------------------------------------------------------------------------------------


def test_a_job_is_its_owners_and_roots(scene: Scene, shelf: ScriptedRegistry) -> None:
    kit = small_kit(5)
    reference = published(shelf, "users/job", kit)
    gate = Gate()
    shelf.script(faults.stall(gate), path=kit.layer_digests[0])
    job = scene.member.kitctl("pull", "--detach", "-q", reference).stdout.strip()
    gate.wait_held(1)

    def ids(person: Person) -> list[str]:
        done = person.kitctl("jobs", "--format", "json")
        return [each.id for each in msgspec.json.decode(done.stdout, type=list[JobInfo])]

    assert job in ids(scene.member)
    assert job in ids(scene.root)
    assert job not in ids(scene.other)
    for verb in ("attach", "cancel"):
        status, said = scene.other.fails(verb, job)
        assert (status, said) == (66, f"kitctl: job {job}: no such job\nhint: `kitctl jobs` lists yours\n")
    assert job in ids(scene.member)
    scene.root.kitctl("cancel", job)
    status, said = scene.member.fails("attach", job)
    assert status == 130
    assert re.search("^kept: ", said, re.MULTILINE)
    gate.open()
    assert scene.member.kitctl("pull", "-q", reference).stdout == f"{reference}@{kit.digest}\n"


def test_what_a_user_writes_reaches_roots_terminal_as_text(scene: Scene) -> None:
    scene.member.fails("pull", "evil.example/\x1b]0;owned\x07:v1")
    table = scene.root.kitctl("jobs").stdout
    assert r"evil.example/\x1b]0;owned\x07:v1" in table
    assert "\x1b" not in table


# -- bytes of others -----------------------------------------------------------------------------


def _claiming(plain: bytes, compression: Literal["gzip", "zstd"]) -> FakeKit:
    """A kit whose compressed layer claims to be `plain`, and is something else."""
    kit = make_kit([FakeLayer("model", "loot", {"loot/a": b"anything"}, compression=compression)])
    true = digest_of(tar_of({"loot/a": b"anything"})).encode()
    assert kit.config.count(true) == 1
    config = kit.config.replace(true, digest_of(plain).encode())
    manifest = kit.manifest.replace(digest_of(kit.config).encode(), digest_of(config).encode())
    return dataclasses.replace(kit, manifest=manifest, config=config)


@pytest.mark.parametrize("compression", ["gzip", "zstd"])
@pytest.mark.parametrize("verb", ["unpack", "path"])
def test_a_claim_on_anothers_layer_hands_out_nothing(
    scene: Scene, shelf: ScriptedRegistry, compression: Literal["gzip", "zstd"], verb: str
) -> None:
    secret = make_kit([FakeLayer("model", "secret", SECRET)])
    mine = published(shelf, "users/secret", secret)
    scene.member.kitctl("unpack", "-q", mine, "-d", scene.member.make({}))
    claim = published(shelf, f"users/claim-{compression}-{verb}", _claiming(secret.layers[0], compression))
    target = scene.other.make({})
    scene.other.kitctl("pull", claim)
    words = ["-d", str(target)] if verb == "unpack" else []
    for _ in range(2):
        status, said = scene.other.fails(verb, claim, *words)
        assert status == 65
        assert f"its kit claims {digest_of(secret.layers[0])}" in said
        assert list(target.iterdir()) == []
    again = scene.member.make({})
    scene.member.kitctl("unpack", mine, "-d", again)
    assert (again / "secret" / "key.txt").read_bytes() == SECRET["secret/key.txt"]


def test_a_snapshot_can_be_read_by_others_and_the_rest_of_the_store_cannot(
    scene: Scene, shelf: ScriptedRegistry
) -> None:
    kit = small_kit(6)
    reference = published(shelf, "users/path", kit)
    directory = Path(scene.member.kitctl("path", reference).stdout.strip())
    assert scene.other.kitctl("path", reference).stdout.strip() == str(directory)
    # It is the kernel that lets them read: also somebody who may not talk to the daemon, if told the name.
    for person in (scene.member, scene.stranger):
        for name, data in kit.files.items():
            done = person.run("cat", directory / name)
            assert (done.returncode, done.stdout) == (0, data)
        assert person.run("ls", directory).returncode == 0
        attempts: list[list[str | Path]] = [
            ["rm", "-f", directory / "README.md"],
            ["touch", directory / "new"],
            ["sh", "-c", 'echo >> "$0"', directory / "README.md"],
            ["chmod", "u+w", directory / "README.md"],
            ["ls", scene.daemon.store],
            ["ls", directory.parent],
        ]
        for attempt in attempts:
            assert person.run(*attempt).returncode != 0, attempt
        closed = [path for path in scene.daemon.store.iterdir() if path.name not in _OPEN]
        assert {"lock", "ingest", "trash"} <= {path.name for path in closed}
        for path in closed:
            assert person.run("ls" if path.is_dir() else "cat", path).returncode != 0, path
    assert {path: (directory / path).read_bytes() for path in kit.files} == kit.files


_OPEN = {"snapshots", "VERSION", "CACHEDIR.TAG"}
"""What may be passed through, and what says what this directory is."""
