"""Unpacking: check, write, publish."""

import errno
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

from kitd_client.api.errors import ProtocolError, TargetUnwritable
from kitd_client.api.workspace import Checked, MemberRow, Published, display_path
from kitd_client.directory.checking import Checker, Policy
from kitd_client.directory.openat2 import split_path, text
from kitd_client.directory.publishing import Publisher
from kitd_client.directory.staging import Staging

_FULL: Final = (errno.ENOSPC, errno.EDQUOT)


class Target:
    """The directory that a kit is unpacked into.

    Args:
        root: its descriptor.
        policy: what the user said about files that exist; the daemon has no say in it.
    """

    def __init__(self, root: int, policy: Policy) -> None:
        self._root = root
        self._policy = policy
        self._checker = Checker(root, policy)
        self._staging: Staging | None = None
        self.published = False

    def check(self, members: Sequence[MemberRow]) -> Checked:
        """Raises `TargetBusy` or `TargetUnwritable`; what is in the way is part of the answer."""
        self._stage()
        return self._checker.check(members)

    def write(self, members: Sequence[MemberRow], lent: Sequence[int], copied: Callable[[int], None]) -> None:
        """Makes the members under the staging name; `lent` are descriptors of those that have one.

        Raises:
            ProtocolError: the daemon lent something else than it said.
            TargetUnwritable: a member cannot be made, or not in full.
        """
        staging = self._stage()
        sources = iter(lent)
        for member in members:
            split_path(member.path)
            try:
                staging.add(member, next(sources) if member.is_lent else None, copied)
            except OSError as error:
                raise _failed(f"cannot write {display_path(member.path)}", error) from error

    def publish(self) -> Published:
        """Raises what `Publisher.publish` does, and `TargetUnwritable` when something cannot be made safe."""
        staging = self._stage()
        try:
            staging.sync()
        except OSError as error:
            raise _failed("cannot write the files to the disk", error) from error
        self.published = True
        return Publisher(self._root, staging, self._policy).publish()

    def close(self) -> None:
        """Removes what was not published."""
        self._checker.close()
        if self._staging is not None:
            self._staging.close()
            self._staging = None

    def _stage(self) -> Staging:
        if self.published:
            raise ProtocolError("the daemon goes on after it has published")
        if self._staging is None:
            try:
                self._staging = Staging(self._root)
            except OSError as error:
                raise _failed(f"cannot write to {_name(self._root)}", error) from error
        return self._staging


def _name(directory: int) -> str:
    """Where an open directory is, for people."""
    try:
        return display_path(bytes(Path(f"/proc/self/fd/{directory}").readlink()))
    except OSError:
        return "the directory"


def _failed(what: str, error: OSError) -> TargetUnwritable:
    hint = "free space, or raise the quota, and unpack again" if error.errno in _FULL else None
    return TargetUnwritable(f"{what}: {text(error)}", kept="nothing was put in place", hint=hint)


def close_all(descriptors: Sequence[int]) -> None:
    for descriptor in descriptors:
        os.close(descriptor)
