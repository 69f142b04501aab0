"""Putting what was staged in place: whole trees by one rename, into existing directories file by file."""

import errno
import os
import stat
from typing import Final

from kitd_client.api.errors import KitdError, TargetExists, TargetUnsafe, TargetUnwritable
from kitd_client.api.workspace import Published, display_path
from kitd_client.directory import kernel
from kitd_client.directory.checking import Policy
from kitd_client.directory.openat2 import DIRECTORY, NOT_A_WAY, open_beneath, reason, text
from kitd_client.directory.staging import Staging

_NAMED: Final = 10
_NO_NOREPLACE: Final = (errno.ENOSYS, errno.EINVAL, errno.EPERM)
_NO_LINKS: Final = (errno.EPERM, errno.EOPNOTSUPP, errno.EMLINK)


class Publisher:
    """One publication; what it has put in place stays there whatever happens next."""

    def __init__(self, root: int, staging: Staging, policy: Policy) -> None:
        self._root = root
        self._staging = staging
        self._policy = policy
        self._placed = 0
        self._named: list[str] = []
        self._skipped = 0
        self._merged: set[bytes] = set()

    def publish(self) -> Published:
        """Returns when everything is safe under its final name.

        Raises:
            TargetExists, TargetUnsafe, TargetUnwritable: something appeared since the check; `kept` says what
                is in place.
        """
        current = b""
        try:
            pending = [b""]
            while pending:
                current = pending.pop()
                self._merged.add(current)
                pending += self._merge(current)
            self._set_modes()
        except KitdError as error:
            error.kept = self._kept()
            raise
        except OSError as error:
            where = display_path(current) or "the directory"
            why = reason(self._root, current, error) if current else text(error)
            kind = TargetUnsafe if error.errno in NOT_A_WAY else TargetUnwritable
            raise kind(f"cannot put files in place in {where}: {why}", kept=self._kept()) from error
        return Published(self._staging.files - self._skipped, self._skipped)

    def _merge(self, directory: bytes) -> list[bytes]:
        """Puts the entries of one directory in place; answers those that are directories on both sides."""
        staged = open_beneath(self._staging.descriptor, directory, DIRECTORY)
        try:
            target = open_beneath(self._root, directory, DIRECTORY)
            try:
                with os.scandir(staged) as entries:
                    names = sorted(os.fsencode(entry.name) for entry in entries)
                below = []
                for name in names:
                    path = directory + b"/" + name if directory else name
                    if self._place(staged, target, name, path):
                        below.append(path)
                os.fsync(target)
                return below
            finally:
                os.close(target)
        finally:
            os.close(staged)

    def _place(self, staged: int, target: int, name: bytes, path: bytes) -> bool:
        """True: it is a directory on both sides, and its entries are to be placed one by one."""
        try:
            _rename_noreplace(staged, target, name)
        except FileExistsError:
            there = os.lstat(name, dir_fd=target).st_mode
        else:
            self._tell(path)
            return False
        if stat.S_ISDIR(os.lstat(name, dir_fd=staged).st_mode):
            if stat.S_ISDIR(there):
                return True
            raise TargetUnsafe(f"{display_path(path)} exists and is not a directory")
        if self._policy.ignore_existing:
            self._skipped += 1
            return False
        if not self._policy.overwrite:
            raise TargetExists(f"{display_path(path)} appeared while the kit was unpacked")
        if not stat.S_ISREG(there):
            raise TargetUnsafe(f"{display_path(path)} exists and is not a regular file")
        os.rename(name, name, src_dir_fd=staged, dst_dir_fd=target)
        self._tell(path)
        return False

    def _tell(self, path: bytes) -> None:
        self._placed += 1
        if len(self._named) < _NAMED:
            self._named.append(display_path(path))

    def _kept(self) -> str:
        if not self._placed:
            return "nothing was put in place"
        more = self._placed - len(self._named)
        return f"in place already: {', '.join(self._named)}" + (f" (and {more} more)" if more else "")

    def _set_modes(self) -> None:
        for path in sorted(self._staging.modes, reverse=True):
            if path in self._merged:
                continue
            descriptor = open_beneath(self._root, path, DIRECTORY)
            try:
                os.fchmod(descriptor, self._staging.modes[path])
                os.fsync(descriptor)
            finally:
                os.close(descriptor)


def _rename_noreplace(source: int, target: int, name: bytes) -> None:
    try:
        kernel.rename_noreplace(source, name, target, name)
    except OSError as error:
        if error.errno not in _NO_NOREPLACE:
            raise
    else:
        return
    if stat.S_ISDIR(os.lstat(name, dir_fd=source).st_mode):
        _refuse_existing(target, name)
    else:
        try:
            os.link(name, name, src_dir_fd=source, dst_dir_fd=target, follow_symlinks=False)
        except OSError as error:
            if error.errno not in _NO_LINKS:
                raise
            _refuse_existing(target, name)
        else:
            os.unlink(name, dir_fd=source)
            return
    os.rename(name, name, src_dir_fd=source, dst_dir_fd=target)


def _refuse_existing(target: int, name: bytes) -> None:
    try:
        os.lstat(name, dir_fd=target)
    except FileNotFoundError:
        return
    raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST))
