"""Taking a store into possession: one owner, one daemon, a version and a file system that will do."""

import fcntl
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from kitd.content import sync
from kitd.content.layout import FORMAT, Layout
from kitd_client.api.errors import StorageIo, StoreLocked, StoreRefused

_PRIVATE: Final = 0o700
_PASSABLE: Final = 0o711
"""Others may pass through to a snapshot whose random name they were told, and list nothing."""

_SETTING: Final = (
    "set KITD_CACHE_DIR, or cache.dir in the configuration, to a directory on a disk of this machine"
)
_CACHE_TAG: Final = (
    "Signature: 8a477f597d28d172789f06886806bc55\n"
    "# The ModelKit store of kitd (https://bford.info/cachedir/). Backups may skip it: all of it can be\n"
    "# pulled again, except kits that were packed here and never pushed.\n"
)
_REMOTE: Final = {
    0x6969: "NFS",
    0x517B: "SMB",
    0xFF534D42: "CIFS",
    0xFE534D42: "SMB2",
    0x65735546: "FUSE",
    0x00C36400: "Ceph",
    0x01021997: "9P",
    0x0BD00BD0: "Lustre",
    0x5346414F: "AFS",
    0x47504653: "GPFS",
    0x19830326: "BeeGFS",
    0x7461636F: "OCFS2",
    0x01161970: "GFS2",
    0xAAD7AAEA: "PanFS",
    0x013111A8: "IBRIX",
}


@contextmanager
def claimed(root: Path, *, socket: str) -> Iterator[Layout]:
    """Owns the store at `root`, which is made if it is not there, until the context ends.

    The lock is the kernel's: it goes with the process, however that ends.

    Args:
        root: where the store is.
        socket: where this daemon is reached; the lock file tells it to whoever comes second.

    Raises:
        StoreLocked: another daemon has it; the message names its pid and its socket.
        StoreRefused: another user's, made by a newer version, on a network file system, or no store at all.
        StorageIo: it can neither be made nor read.
    """
    try:
        layout = Layout(_own_root(root))
        descriptor = os.open(layout.lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise StorageIo(f"the store {root} cannot be opened: {error.strerror}", hint=_SETTING) from error
    try:
        _lock(descriptor, layout, socket)
        try:
            _check_version(layout)
            _make(layout)
            yield layout
        finally:
            os.ftruncate(descriptor, 0)
    finally:
        os.close(descriptor)


def _own_root(path: Path) -> Path:
    path.mkdir(parents=True, exist_ok=True, mode=_PASSABLE)
    root = path.resolve()
    status = root.stat()
    if not stat.S_ISDIR(status.st_mode):
        raise StoreRefused(f"the store {root} is no directory", hint=_SETTING)
    if status.st_uid != os.geteuid():
        raise StoreRefused(
            f"the store {root} belongs to user {status.st_uid}, and kitd runs as user {os.geteuid()}",
            hint=f"run kitd as its owner (not with sudo), or {_SETTING}",
            owner=status.st_uid,
        )
    remote = _REMOTE.get(sync.file_system_type(str(root)))
    if remote is not None:
        raise StoreRefused(f"the store {root} is on a network or FUSE file system ({remote})", hint=_SETTING)
    layout = Layout(root)
    foreign = {entry.name for entry in root.iterdir()} - _own_names(layout) - {"lost+found"}
    if foreign and not layout.version.exists():
        raise StoreRefused(
            f"the directory {root} is no store of kitd, and it is not empty ({min(foreign)})",
            hint="name an empty directory, or one that does not exist",
        )
    root.chmod(_PASSABLE)
    return root


def _own_names(layout: Layout) -> set[str]:
    own = (layout.lock, layout.version, _new_version(layout), layout.cache_tag, layout.database)
    folders = (layout.objects.parent, layout.recipes.parent, layout.ingest, layout.snapshots, layout.trash)
    return {path.name for path in (*own, *folders)}


def _lock(descriptor: int, layout: Layout, socket: str) -> None:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        pid, _, other = os.pread(descriptor, 4096, 0).decode(errors="replace").strip().partition("\n")
        raise StoreLocked(
            f"the store {layout.root} is in use by the kitd with pid {pid or '?'} on socket {other or '?'}",
            hint="talk to that daemon, stop it, or give this one another store (KITD_CACHE_DIR)",
            pid=pid,
            socket=other,
        ) from error
    os.ftruncate(descriptor, 0)
    os.pwrite(descriptor, f"{os.getpid()}\n{socket}\n".encode(), 0)


def _check_version(layout: Layout) -> None:
    if not layout.version.exists():
        return
    text = layout.version.read_text(encoding="utf-8", errors="replace").strip()
    if text != str(FORMAT):
        raise StoreRefused(
            f"the store {layout.root} has format {text[:20]!r}, and this kitd knows format {FORMAT}",
            kept="everything: nothing was touched",
            hint="run the kitd that made it, or a newer one",
        )


def _new_version(layout: Layout) -> Path:
    return layout.version.with_suffix(".new")


def _make(layout: Layout) -> None:
    for folder in (layout.ingest, layout.trash, layout.snapshots):
        folder.mkdir(exist_ok=True, mode=_PRIVATE)
    layout.snapshots.chmod(_PASSABLE)
    # The database holds what users pulled: private from its first moment.
    os.close(os.open(layout.database, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
    if layout.version.exists():
        return
    for folder in (layout.objects, layout.recipes):
        folder.parent.mkdir(exist_ok=True, mode=_PRIVATE)
        folder.mkdir(exist_ok=True, mode=_PRIVATE)
        for number in range(256):
            (folder / f"{number:02x}").mkdir(exist_ok=True, mode=_PRIVATE)
        sync.sync_directories([str(folder), str(folder.parent)])
    layout.cache_tag.write_text(_CACHE_TAG, encoding="ascii")
    new = _new_version(layout)
    new.write_text(f"{FORMAT}\n", encoding="ascii")
    new.rename(layout.version)
    sync.sync_directory(str(layout.root))
