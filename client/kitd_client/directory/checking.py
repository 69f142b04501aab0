"""Looking for everything that stands in the way of an unpack, before its first write."""

import os
import stat
from collections import OrderedDict
from collections.abc import Sequence
from typing import Final, NamedTuple

from kitd_client.api.errors import TargetUnwritable
from kitd_client.api.workspace import STAGING_PREFIX, Checked, MemberRow, ObstacleRow, display_path
from kitd_client.directory.openat2 import NOT_A_WAY, PLACE, blame, open_beneath, split_path, text

_PLACES: Final = 64


class Policy(NamedTuple):
    """What the user said about files that exist."""

    overwrite: bool
    ignore_existing: bool


class _Place(NamedTuple):
    """A parent directory: its descriptor, or why there is none."""

    descriptor: int | None
    obstacle: str = ""


class Checker:
    """Compares members with what is in the directory, following no link."""

    def __init__(self, root: int, policy: Policy) -> None:
        self._root = root
        self._policy = policy
        self._device = os.fstat(root).st_dev
        self._places: OrderedDict[bytes, _Place] = OrderedDict()

    def check(self, members: Sequence[MemberRow]) -> Checked:
        """Raises `TargetUnwritable` when a directory may not be written to or looked into."""
        skipped: list[int] = []
        obstacles: list[ObstacleRow] = []
        for index, member in enumerate(members):
            found = self._member(index, member)
            if found is True:
                skipped.append(index)
            elif found:
                obstacles.append(found)
        return Checked(skipped, obstacles)

    def _member(self, index: int, member: MemberRow) -> ObstacleRow | bool:
        """What is in the way; true: it is there and stays; false: nothing."""
        if split_path(member.path)[0].startswith(STAGING_PREFIX):
            return ObstacleRow(index, "unsafe", "has a name that only unpacks under way may have")
        parent, _, name = member.path.rpartition(b"/")
        place = self._place(parent)
        if place.obstacle:
            return ObstacleRow(index, "unsafe", f"cannot be made: {place.obstacle}")
        if place.descriptor is None:
            return False
        try:
            mode = os.lstat(name, dir_fd=place.descriptor).st_mode
        except FileNotFoundError:
            return False
        except OSError as error:
            raise _unwritable(member.path, error) from error
        if member.is_dir:
            return not stat.S_ISDIR(mode) and ObstacleRow(index, "unsafe", "exists and is not a directory")
        return self._existing(index, member, place.descriptor, mode)

    def _existing(self, index: int, member: MemberRow, place: int, mode: int) -> ObstacleRow | bool:
        if member.data is None and self._policy.ignore_existing:
            return True
        if member.data is not None and stat.S_ISREG(mode) and _holds(place, member):
            return True
        if not self._policy.overwrite:
            differs = " and differs" if member.data is not None else ""
            return ObstacleRow(index, "exists", f"already exists{differs}")
        return not stat.S_ISREG(mode) and ObstacleRow(index, "unsafe", "exists and is not a regular file")

    def _place(self, path: bytes) -> _Place:
        if path in self._places:
            self._places.move_to_end(path)
            return self._places[path]
        place = self._places[path] = self._open(path)
        if len(self._places) > _PLACES:
            self._forget(self._places.popitem(last=False)[1])
        return place

    def _open(self, path: bytes) -> _Place:
        try:
            descriptor = open_beneath(self._root, path, PLACE)
        except FileNotFoundError:
            return _Place(None)
        except OSError as error:
            if error.errno in NOT_A_WAY:
                return _Place(None, blame(self._root, path))
            raise _unwritable(path, error) from error
        place = _Place(descriptor)
        if os.fstat(descriptor).st_dev != self._device:
            place = _Place(descriptor, f"{display_path(path)} is on another file system than the directory")
        elif not os.access(b".", os.W_OK | os.X_OK, dir_fd=descriptor, effective_ids=True):
            self._forget(place)
            raise TargetUnwritable(
                f"directory {display_path(path) or '.'} may not be written to", kept="nothing was written"
            )
        return place

    def close(self) -> None:
        for place in self._places.values():
            self._forget(place)
        self._places.clear()

    @staticmethod
    def _forget(place: _Place) -> None:
        if place.descriptor is not None:
            os.close(place.descriptor)


def _holds(place: int, member: MemberRow) -> bool:
    """The file has exactly the bytes of the member already."""
    data = member.data or b""
    try:
        descriptor = open_beneath(place, member.path.rpartition(b"/")[2], os.O_RDONLY | os.O_NONBLOCK)
    except OSError:
        return False
    try:
        return os.fstat(descriptor).st_size == len(data) and os.pread(descriptor, len(data) + 1, 0) == data
    except OSError:
        return False
    finally:
        os.close(descriptor)


def _unwritable(path: bytes, error: OSError) -> TargetUnwritable:
    return TargetUnwritable(f"cannot look at {display_path(path)}: {text(error)}", kept="nothing was written")
