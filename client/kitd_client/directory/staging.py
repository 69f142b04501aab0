"""The directory inside the target where members grow until they are published."""

import fcntl
import os
import secrets
import shutil
from collections import OrderedDict
from collections.abc import Callable
from typing import Final

from kitd_client.api.errors import TargetBusy, TargetUnwritable
from kitd_client.api.workspace import STAGING_PREFIX, MemberRow, display_path
from kitd_client.directory.copying import Copier
from kitd_client.directory.openat2 import DIRECTORY, PLACE, open_beneath
from kitd_client.directory.syncing import LARGE_BYTES, Syncer

_OWN: Final = DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_FILE: Final = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_PLACES: Final = 64
_ATTEMPTS: Final = 8
_WORKABLE: Final = 0o700
"""What a directory of ours needs while it is filled."""


class Staging:
    """Flocked while it lives: one whose lock can be had was left behind, and the next unpack removes it.

    Everything goes through its descriptor, so whoever renames it meanwhile gains nothing. Others of the same
    user count; those of other users cannot be opened, and are theirs.

    Args:
        root: a descriptor of the target directory.

    Raises:
        TargetBusy: another unpack of this user into the same directory is under way.
        OSError: nothing can be made there.
    """

    def __init__(self, root: int) -> None:
        self._root = root
        self._name, self.descriptor = _make(root)
        self._places: OrderedDict[bytes, int] = OrderedDict()
        self._directories: list[bytes] = []
        self._copier = Copier()
        self._syncer = Syncer(root)
        self.files = 0
        self.modes: dict[bytes, int] = {}
        """Final modes of directories that are given more rights until they are in place."""
        try:
            _remove_stale(root, self._name)
            self._allowed = self._probe()
        except BaseException:
            self.close()
            raise

    def _probe(self) -> int:
        """The mode bits that umask and default access lists leave of 0777."""
        os.mkdir(b"probe", 0o777, dir_fd=self.descriptor)
        mode = os.lstat(b"probe", dir_fd=self.descriptor).st_mode
        os.rmdir(b"probe", dir_fd=self.descriptor)
        return mode & 0o777

    def add(self, member: MemberRow, source: int | None, copied: Callable[[int], None]) -> None:
        """Makes one member, with the bytes behind `source` if it is lent.

        Raises:
            OSError: it cannot be made, or not in full.
        """
        parent, _, name = member.path.rpartition(b"/")
        place = self._place(parent)
        if member.is_dir:
            self._add_directory(place, name, member)
            return
        target = os.open(name, _FILE, member.mode & 0o777, dir_fd=place)
        try:
            self._fill(target, source, member, copied)
            self._syncer.wrote(target, member.size)
        finally:
            os.close(target)
        self.files += 1

    def _fill(
        self, target: int, source: int | None, member: MemberRow, copied: Callable[[int], None]
    ) -> None:
        if source is None:
            left = memoryview(member.data or b"")
            while left:
                left = left[os.write(target, left) :]
            return

        def moved(count: int) -> None:
            if member.size >= LARGE_BYTES:
                self._syncer.writing(target, count)
            copied(count)

        self._copier.copy(source, target, member.size, moved)

    def _add_directory(self, place: int, name: bytes, member: MemberRow) -> None:
        mode = member.mode & self._allowed
        try:
            os.mkdir(name, mode | _WORKABLE, dir_fd=place)
            self._made(member.path)
        except FileExistsError:
            # it was made as the parent of an earlier member
            descriptor = os.open(name, _OWN, dir_fd=place)
            try:
                os.fchmod(descriptor, mode | _WORKABLE)
            finally:
                os.close(descriptor)
        if mode & _WORKABLE != _WORKABLE:
            self.modes[member.path] = mode

    def _place(self, path: bytes) -> int:
        """The directory `path` of the tree; missing ones are made."""
        if not path:
            return self.descriptor
        if path in self._places:
            self._places.move_to_end(path)
            return self._places[path]
        parent, _, name = path.rpartition(b"/")
        above = self._place(parent)
        try:
            os.mkdir(name, 0o755 & self._allowed | _WORKABLE, dir_fd=above)
            self._made(path)
        except FileExistsError:
            pass
        place = os.open(name, PLACE | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=above)
        self._places[path] = place
        if len(self._places) > _PLACES:
            os.close(self._places.popitem(last=False)[1])
        return place

    def _made(self, path: bytes) -> None:
        self._syncer.made_directory()
        if not self._syncer.as_a_whole:
            self._directories.append(path)

    def sync(self) -> None:
        """Returns when all members are safe on disk, under the staging name. Raises OSError."""
        opened: list[int] = []
        try:
            if not self._syncer.as_a_whole:
                opened = [open_beneath(self.descriptor, path, DIRECTORY) for path in self._directories]
            self._syncer.wait(opened)
        finally:
            for descriptor in opened:
                os.close(descriptor)

    def close(self) -> None:
        """Removes what was not published, and gives the lock back."""
        self._syncer.close()
        for place in self._places.values():
            os.close(place)
        self._places.clear()
        _empty(self.descriptor)
        try:
            os.rmdir(self._name, dir_fd=self._root)
        except OSError:
            # renamed away by someone else: it is empty and unlocked there
            pass
        finally:
            os.close(self.descriptor)


def _make(root: int) -> tuple[bytes, int]:
    for _ in range(_ATTEMPTS):
        name = STAGING_PREFIX + secrets.token_hex(8).encode()
        os.mkdir(name, _WORKABLE, dir_fd=root)
        descriptor = os.open(name, _OWN, dir_fd=root)
        if _lock(descriptor) and os.fstat(descriptor).st_uid == os.geteuid():
            return name, descriptor
        # another unpack took it for a stale one in the instant before it was locked
        os.close(descriptor)
    raise TargetUnwritable("the directory changes too fast to unpack into it")


def _lock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return os.fstat(descriptor).st_nlink > 0


def _remove_stale(root: int, own: bytes) -> None:
    with os.scandir(root) as entries:
        names = [name for entry in entries if (name := os.fsencode(entry.name)).startswith(STAGING_PREFIX)]
    for name in names:
        if name == own:
            continue
        try:
            descriptor = os.open(name, _OWN, dir_fd=root)
        except OSError:
            continue
        try:
            if os.fstat(descriptor).st_uid != os.geteuid():
                continue
            if not _lock(descriptor):
                raise TargetBusy(
                    f"another unpack into this directory is under way ({display_path(name)})",
                    kept="nothing was written",
                    hint="wait until it is done, or unpack into another directory",
                )
            _empty(descriptor)
            os.rmdir(name, dir_fd=root)
        finally:
            os.close(descriptor)


def _empty(directory: int) -> None:
    """Removes what is in it, following no link; what cannot be removed stays."""
    with os.scandir(directory) as entries:
        found = [(os.fsencode(entry.name), entry.is_dir(follow_symlinks=False)) for entry in entries]
    for name, is_dir in found:
        if is_dir:
            shutil.rmtree(name, ignore_errors=True, dir_fd=directory)
        else:
            try:
                os.unlink(name, dir_fd=directory)
            except OSError:
                continue
