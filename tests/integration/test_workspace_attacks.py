"""Attacks on a workspace from either side, with real processes of three users.

The daemon runs as one uid in a mount namespace where the user's tree is empty; the user's client as another;
a stranger as a third, who may write into a directory that the user shares.
"""

import fcntl
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path

import pytest
from integration.workspace_scene import (
    DAEMON,
    MIB,
    PACK,
    STRANGER,
    USER,
    Client,
    Scene,
    as_user,
    code,
    hammer,
    opened,
    unpack,
)
from unit.workspace.scripted import ClientPeer

from kitd_client.api.jobs import Failed, Succeeded
from kitd_client.api.workspace import (
    Alive,
    Check,
    Checked,
    End,
    EntryRow,
    ListingRow,
    Listings,
    Read,
    ReadEnd,
    Run,
    Scan,
    Write,
    encode_frame,
)

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(os.geteuid() != 0, reason="changes users and mounts: run as root"),
]


@pytest.fixture(scope="module")
def scene() -> Iterator[Scene]:
    with opened() as scene:
        yield scene


@pytest.fixture(autouse=True)
def clean(scene: Scene) -> Iterator[None]:
    before = scene.status()
    yield
    after = scene.status()
    deadline = time.monotonic() + 10
    while after["descriptors"] != before["descriptors"] and time.monotonic() < deadline:
        after = scene.status()  # the daemon may still be clearing up after a client that went
    assert after["descriptors"] == before["descriptors"]
    assert after["lent"] == 0
    for path in scene.tree.iterdir():
        shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()


# -- the honest case, without which no attack proves anything ------------------------------------


def test_pack_and_unpack_work_though_the_daemon_sees_nothing_of_the_tree(scene: Scene) -> None:
    scene.put("a", b"x" * (3 * MIB))
    scene.put("b", b"y")
    ended = scene.run(PACK)
    assert ended["result"]["digest"] == sha256(b"x" * (3 * MIB) + b"y").hexdigest()
    ended = scene.run(unpack(*(f"out/{number}" for number in range(200))))
    assert ended["result"]["files"] == 200
    assert (scene.tree / "out" / "199").read_bytes() == b"content" * 1000
    assert (scene.tree / "out" / "199").stat().st_uid == USER
    status = scene.status()
    assert (status["seen"], status["uid"]) == ([], DAEMON)


# -- the tree changes under a pack ---------------------------------------------------------------


@contextmanager
def packing(scene: Scene) -> Iterator[Client]:
    """A pack that has seen the tree, and will read it when told."""
    with scene.client(PACK, "step") as client:
        client.until("scanned")
        yield client


def plant_link_to_a_file(scene: Scene) -> None:
    (scene.tree / "a").unlink()
    (scene.tree / "a").symlink_to(scene.private / "secret")


def plant_link_to_a_directory(scene: Scene) -> None:
    shutil.rmtree(scene.tree / "d")
    (scene.tree / "d").symlink_to(scene.private)


def plant_fifo(scene: Scene) -> None:
    (scene.tree / "a").unlink()
    os.mkfifo(scene.tree / "a", 0o666)


def plant_device(scene: Scene) -> None:
    (scene.tree / "a").unlink()
    os.mknod(scene.tree / "a", 0o666 | 0o020000, os.makedev(1, 5))


def plant_socket(scene: Scene) -> None:
    (scene.tree / "a").unlink()
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(str(scene.tree / "a"))


def shrink(scene: Scene) -> None:
    os.truncate(scene.tree / "a", 3)


def grow(scene: Scene) -> None:
    with (scene.tree / "a").open("ab") as file:
        file.write(b"more")


def take_away(scene: Scene) -> None:
    (scene.tree / "a").unlink()


def lock_up(scene: Scene) -> None:
    os.chown(scene.tree / "a", STRANGER, STRANGER)
    (scene.tree / "a").chmod(0o600)


@pytest.mark.parametrize(
    ("attack", "expected"),
    [
        (plant_link_to_a_file, "source_unsuitable"),
        (plant_link_to_a_directory, "source_unsuitable"),
        (plant_fifo, "source_unsuitable"),
        (plant_device, "source_unsuitable"),
        (plant_socket, "source_unreadable"),
        (shrink, "source_changed"),
        (grow, "source_changed"),
        (take_away, "source_changed"),
        (lock_up, "source_unreadable"),
    ],
)
def test_a_tree_that_changes_between_scan_and_read(
    scene: Scene, attack: Callable[[Scene], None], expected: str
) -> None:
    scene.put("a", b"the public text!!")  # as long as the secret
    (scene.tree / "d").mkdir(mode=0o777)
    (scene.tree / "d" / "secret").write_bytes(b"the public text!!")
    with packing(scene) as client:
        attack(scene)
        client.go_on()
        assert code(client.last()) == expected


def test_links_in_the_tree_are_never_followed(scene: Scene) -> None:
    scene.put("a", b"text")
    (scene.tree / "file").symlink_to(scene.private / "secret")
    (scene.tree / "dir").symlink_to(scene.private)
    (scene.tree / "up").symlink_to("..")
    (scene.tree / "proc").symlink_to("/proc/self/fd")
    assert scene.run(PACK)["result"]["references"] == ["a"]
    assert code(scene.run({"verb": "pack", "all": True})) == "source_unsuitable"


def test_a_link_swapped_in_a_thousand_times_gives_no_secret_away(scene: Scene) -> None:
    """The stranger swaps a file of the shared tree for a link to what only the user may read."""
    public = b"the public text!!"
    scene.put("a", public)
    swap = (
        "import os, sys\n"
        "tree, secret = sys.argv[1:]\n"
        "while True:\n"
        "    os.symlink(secret, tree + '/.link'); os.rename(tree + '/.link', tree + '/a')\n"
        "    with open(tree + '/.file', 'wb') as f: f.write(b'the public text!!')\n"
        "    os.rename(tree + '/.file', tree + '/a')\n"
    )
    attacker = hammer(STRANGER, swap, scene.tree, scene.private / "secret")
    secret = sha256(b"the user's secret").hexdigest()
    with attacker:
        try:
            with scene.client(PACK, "times=400") as client:
                ends = [client.line() for _ in range(400)]
        finally:
            attacker.kill()
    assert {end["event"] for end in ends} <= {"failed", "succeeded"}
    assert secret not in {end["result"]["digest"] for end in ends if end["event"] == "succeeded"}
    assert any(end["event"] == "failed" for end in ends)


# -- the target changes under an unpack ----------------------------------------------------------


@pytest.mark.parametrize("step", ["checked", "written"])
@pytest.mark.parametrize("policy", ["", "overwrite", "ignore"])
def test_a_link_planted_between_the_steps_leads_nowhere(scene: Scene, step: str, policy: str) -> None:
    before = scene.names(scene.private)
    with scene.client(unpack("d/secret", "d/sub/x", "leaf"), "step", policy) as client:
        client.until("checked")
        if step == "written":
            client.go_on()
            client.until("written")
        (scene.tree / "d").symlink_to(scene.private)
        (scene.tree / "leaf").symlink_to(scene.private / "made")
        client.go_on()
        ended = client.last()
    assert code(ended) in ("target_unsafe", "target_exists")
    assert scene.names(scene.private) == before
    assert (scene.private / "secret").read_bytes() == b"the user's secret"
    assert scene.names() == {"d", "leaf"}


def test_a_link_swapped_in_ten_thousand_times_leads_nowhere(scene: Scene) -> None:
    """The stranger swaps a directory of the shared tree for a link into the user's private one, all the
    time."""
    (scene.tree / "d").mkdir(mode=0o777)
    os.chown(scene.tree / "d", STRANGER, STRANGER)
    (scene.tree / "d").chmod(0o777)
    swap = (
        "import ctypes, os, sys\n"
        "tree, private = map(os.fsencode, sys.argv[1:])\n"
        "libc = ctypes.CDLL(None)\n"
        "os.symlink(private, tree + b'/link')\n"
        "for swaps in range(1, 1 << 60):\n"
        "    libc.renameat2(-100, tree + b'/d', -100, tree + b'/link', 2)\n"  # RENAME_EXCHANGE
        "    if swaps % 10000 == 0: open(tree + b'/swaps', 'w').write(str(swaps))\n"
    )
    before = scene.names(scene.private)
    attacker = hammer(STRANGER, swap, scene.tree, scene.private)
    with attacker:
        try:
            request = unpack(*(f"d/{number}" for number in range(20)))
            with scene.client(request, "overwrite", "times=150") as client:
                ends = [client.line() for _ in range(150)]
        finally:
            attacker.kill()
    assert int((scene.tree / "swaps").read_text()) >= 10_000
    assert scene.names(scene.private) == before
    assert (scene.private / "secret").read_bytes() == b"the user's secret"
    failed = {code(end) for end in ends if end["event"] == "failed"}
    assert failed <= {"target_unsafe", "target_exists", "target_unwritable"}
    assert any(end["event"] == "succeeded" for end in ends)


def test_staging_names_planted_by_a_stranger_are_left_alone(scene: Scene) -> None:
    (scene.tree / ".kitd-unpack-link").symlink_to(scene.private)
    planted = scene.tree / ".kitd-unpack-mine"
    planted.mkdir(mode=0o777)
    os.chown(planted, STRANGER, STRANGER)
    descriptor = os.open(planted, os.O_RDONLY)
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    try:
        assert scene.run(unpack("x"))["event"] == "succeeded"
    finally:
        os.close(descriptor)
    assert scene.names() == {"x", ".kitd-unpack-link", ".kitd-unpack-mine"}
    assert (scene.private / "secret").exists()


def test_a_staging_directory_taken_away_by_a_stranger(scene: Scene) -> None:
    """He may rename what lies in the shared tree, but not look into it; and it stays what the client writes
    to."""
    take = "import os, sys; os.rename(sys.argv[1], sys.argv[2]); os.symlink(sys.argv[3], sys.argv[1])"
    with scene.client(unpack("x", "d/y"), "step") as client:
        client.until("checked")
        (staging,) = scene.tree.glob(".kitd-unpack-*")
        moved = scene.tree / "moved"
        subprocess.run(
            as_user(STRANGER, sys.executable, "-c", take, staging, moved, scene.private), check=True
        )
        look = as_user(STRANGER, sys.executable, "-c", "import os, sys; os.listdir(sys.argv[1])", moved)
        assert subprocess.run(look, check=False, capture_output=True).returncode
        client.go_on()
        assert client.last()["event"] == "succeeded"
    assert {"x", "d", "d/y"} <= scene.names()
    assert scene.names(scene.private) == {"secret"}


def test_two_unpacks_into_one_directory(scene: Scene) -> None:
    with scene.client(unpack("x"), "step") as first:
        first.until("checked")
        assert code(scene.run(unpack("y"))) == "target_busy"
        first.go_on()
        assert first.last()["event"] == "succeeded"
    assert scene.names() == {"x"}


def test_a_client_that_is_killed_leaves_only_what_the_next_one_removes(scene: Scene) -> None:
    with scene.client(unpack("x"), "step") as client:
        client.until("checked")
        client.go_on()
        client.until("written")
        client.process.send_signal(signal.SIGKILL)
        client.process.wait()
    (staging,) = scene.names() - {name for name in scene.names() if "/" in name}
    assert staging.startswith(".kitd-unpack-")
    assert scene.run(unpack("y"))["event"] == "succeeded"
    assert scene.names() == {"y"}


def test_a_directory_that_the_user_may_not_write_to_is_told_before_the_first_write(scene: Scene) -> None:
    (scene.tree / "locked").mkdir(mode=0o755)
    ended = scene.run(unpack("a", "locked/x"))
    assert code(ended) == "target_unwritable"
    assert "locked may not be written to" in ended["problem"]["title"]
    assert scene.names() == {"locked"}


def test_another_file_system_inside_the_target_is_told_before_the_first_write(scene: Scene) -> None:
    mounted = scene.tree / "mounted"
    mounted.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "mode=777", "none", mounted], check=True)
    try:
        assert code(scene.run(unpack("a", "mounted/x"))) == "target_unsafe"
    finally:
        subprocess.run(["umount", mounted], check=True)
    assert scene.names() == {"mounted"}


def test_a_full_file_system_leaves_nothing(scene: Scene) -> None:
    small = scene.home / "small"
    small.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "mode=777,size=64k", "none", small], check=True)
    try:
        ended = scene.run(unpack(*(f"{number}" for number in range(64))), target=small)
        assert code(ended) == "target_unwritable"
        assert "no space left on device" in ended["problem"]["title"]
        assert scene.names(small) == set()
    finally:
        subprocess.run(["umount", small], check=True)
        small.rmdir()


# -- a hostile daemon ----------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["../x", "/tmp/kitd-attack", "a/../../x", ".", "a//b", "d/.."])
@pytest.mark.parametrize("first", ["check", "write"])
def test_names_that_no_daemon_should_say(scene: Scene, name: str, first: str) -> None:
    home = scene.names(scene.home)
    ended = scene.run(unpack("fine", name, unchecked=first == "write"))
    assert code(ended) == "protocol_error"
    assert scene.names(scene.home) == home
    assert not Path("/tmp/kitd-attack").exists()


# -- a hostile client ----------------------------------------------------------------------------


def ended(peer: ClientPeer) -> str:
    terminal = peer.asked(End).terminal
    assert isinstance(terminal, Failed)
    return terminal.problem.code


def begin_reading(peer: ClientPeer, size: int) -> None:
    peer.greet()
    peer.asked(Scan)
    peer.send(Listings([ListingRow(0, [EntryRow(b"f", "file", 0o644, size)])], last=True))
    peer.body()  # the warning
    peer.asked(Read)


def test_giant_frames_are_refused_unread(scene: Scene) -> None:
    before = scene.status()["peak"]
    for length in (2**20, 2**31, 2**32 - 1):
        with scene.raw(STRANGER, PACK) as peer:
            peer.greet()
            peer.asked(Scan)
            peer.raw(length.to_bytes(4, "big"))
            assert ended(peer) == "workspace_broken"
    assert scene.status()["peak"] - before < 10 * 1024


@pytest.mark.parametrize("size", [10, 10 * MIB])
def test_more_bytes_than_said(scene: Scene, size: int) -> None:
    with scene.raw(STRANGER, PACK) as peer:
        begin_reading(peer, size)
        peer.send(Run(size))
        peer.raw(bytes(size))
        peer.send(Run(1))
        peer.raw(b"x")
        assert ended(peer) == "workspace_broken"


def test_fewer_bytes_than_said(scene: Scene) -> None:
    with scene.raw(STRANGER, PACK) as peer:
        begin_reading(peer, 10)
        peer.send(Run(9))
        peer.raw(bytes(9))
        peer.send(ReadEnd([]))
        assert ended(peer) == "workspace_broken"


@pytest.mark.parametrize("after", ["nothing", "half a frame", "half the bytes"])
def test_silence_ends_the_connection_and_no_other(scene: Scene, after: str) -> None:
    scene.put("a", b"text")
    with scene.raw(STRANGER, PACK) as peer:
        if after == "half a frame":
            peer.greet()
            peer.raw(bytes(encode_frame(Alive()))[:7])
            peer.body()
        elif after == "half the bytes":
            begin_reading(peer, 10)
            peer.send(Run(10))
            peer.raw(bytes(5))
        else:
            peer.body()
        assert scene.run(PACK)["event"] == "succeeded"
        assert ended(peer) == "workspace_broken"


def test_a_client_that_only_says_that_it_lives_cannot_keep_the_daemon_busy(scene: Scene) -> None:
    with scene.raw(STRANGER, PACK) as peer:
        peer.greet()
        peer.asked(Scan)
        peer.raw(bytes(encode_frame(Alive())) * 100)
        assert ended(peer) == "workspace_broken"


def test_descriptors_sent_to_the_daemon_are_dropped(scene: Scene) -> None:
    before = scene.status()["descriptors"]
    with scene.raw(STRANGER, PACK) as peer:
        begin_reading(peer, 100)
        run = bytes(encode_frame(Run(100)))
        socket.send_fds(peer.sock, [run], [0] * 200)
        for _ in range(99):
            socket.send_fds(peer.sock, [b"x"], [0] * 200)
        assert scene.status()["descriptors"] == before + 1
        peer.raw(b"x")
        peer.send(ReadEnd([]))
        assert isinstance(peer.asked(End).terminal, Succeeded)


def accept_batch(peer: ClientPeer, count: int) -> None:
    peer.greet()
    assert len(peer.asked(Check).members) == count
    peer.send(Checked([], []))
    peer.body()
    peer.asked(Write)


REOPEN = """
import errno, os, sys
def refused(attempt):
    try: attempt()
    except OSError as error: return errno.errorcode[error.errno]
    return "allowed"
path = "/proc/self/fd/0"
print(*(refused(attempt) for attempt in (
    lambda: os.open(path, os.O_RDWR), lambda: os.open(path, os.O_WRONLY), lambda: os.truncate(path, 0),
    lambda: os.write(0, b"x"), lambda: os.ftruncate(0, 0), lambda: os.fchmod(0, 0o666),
    lambda: os.utime(0), lambda: os.setxattr(0, "user.x", b"x"), lambda: os.link(path,
    "/tmp/kitd-attack-link"),
)), os.pread(0, 7, 0).decode())
"""


@pytest.mark.parametrize("uid", [USER, STRANGER])
def test_a_lent_descriptor_cannot_be_made_to_write(scene: Scene, uid: int) -> None:
    before = (scene.store / "object").stat()
    with scene.raw(uid, unpack("x")) as peer:
        accept_batch(peer, 1)
        _, (descriptor,), _, _ = socket.recv_fds(peer.sock, 1, 64)
        try:
            attempt = subprocess.run(
                as_user(uid, sys.executable, "-c", REOPEN),
                stdin=descriptor,
                capture_output=True,
                text=True,
                check=True,
            )
        finally:
            os.close(descriptor)
    *refusals, content = attempt.stdout.split()
    assert content == "content"
    assert len(refusals) == 9
    assert "allowed" not in refusals
    after = (scene.store / "object").stat()
    assert (after.st_mtime_ns, after.st_mode, after.st_size) == (
        before.st_mtime_ns,
        before.st_mode,
        before.st_size,
    )


def test_unread_descriptors_of_one_user_do_not_stop_another(scene: Scene) -> None:
    """64 in each of many sockets would be over what the kernel allows the daemon's uid: it never gets
    there."""
    many = unpack(*(f"f{number}" for number in range(64)))
    failures = len(scene.status()["failures"])
    peers: list[ClientPeer] = []
    connections = [scene.raw(STRANGER, many) for _ in range(20)]
    try:
        for connection in connections:
            peer = connection.__enter__()
            peers.append(peer)
            peer.greet()
            peer.asked(Check)
            peer.send(Checked([], []))
            peer.body()
        assert scene.status()["lent"] == 128
        assert scene.run(unpack(*(f"a/{number}" for number in range(200))))["event"] == "succeeded"
        while len(scene.status()["failures"]) < failures + 2:
            scene.run(PACK)
        # two jobs have ended in silence, and their descriptors are still in the sockets
        assert scene.status()["lent"] == 128
        assert scene.run(unpack(*(f"b/{number}" for number in range(200))))["event"] == "succeeded"
    finally:
        for connection in connections:
            connection.__exit__(None, None, None)


def test_a_client_killed_in_the_middle_costs_nothing(scene: Scene) -> None:
    with scene.raw(STRANGER, unpack("x", "y")) as peer:
        accept_batch(peer, 2)
    with scene.raw(STRANGER, PACK) as peer:
        begin_reading(peer, 100 * MIB)
        peer.send(Run(50 * MIB))
        peer.raw(bytes(20 * MIB))
    # `clean` sees that descriptors and budget are as before
