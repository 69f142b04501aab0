"""Reading files for a pack: small ones whole, many in one stream."""

import os
import stat
from collections.abc import Callable, Sequence
from typing import Final

from kitd_client.api.errors import SourceUnreadable, SourceUnsuitable
from kitd_client.api.workspace import RUN_LIMIT, FileRow, ProblemRow, ReadEnd, Run, Small, display_path
from kitd_client.directory.framing import Connection
from kitd_client.directory.openat2 import NOT_A_WAY, open_beneath, reason, split_path, text

_BUFFER_BYTES: Final = 1 << 20
_PROBLEMS_LIMIT: Final = 100
_FILE: Final = os.O_RDONLY | os.O_NONBLOCK
"""Without blocking: opening a FIFO must not wait for its writer."""


def read_small(connection: Connection, root: int, path: bytes, limit: int) -> None:
    """Sends a small file whole.

    Raises:
        SourceUnsuitable: it is larger than `limit`, or no regular file.
        SourceUnreadable: it cannot be read.
    """
    split_path(path)
    shown = display_path(path)
    try:
        descriptor = open_beneath(root, path, _FILE)
    except FileNotFoundError:
        connection.send(Small(None))
        return
    except OSError as error:
        kind = SourceUnsuitable if error.errno in NOT_A_WAY else SourceUnreadable
        raise kind(f"cannot read {shown}: {reason(root, path, error)}") from error
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise SourceUnsuitable(f"{shown} is not a regular file")
        data = _read_up_to(descriptor, limit + 1)
    except OSError as error:
        raise SourceUnreadable(f"cannot read {shown}: {text(error)}") from error
    finally:
        os.close(descriptor)
    if len(data) > limit:
        raise SourceUnsuitable(f"{shown} is larger than {limit} bytes")
    connection.send(Small(len(data)))
    connection.send_raw(memoryview(data))


def _read_up_to(descriptor: int, limit: int) -> bytes:
    data = b""
    while len(data) < limit and (piece := os.read(descriptor, limit - len(data))):
        data += piece
    return data


class Reader:
    """Sends the bytes of many files, in runs.

    The bytes are copied, not spliced: with sendfile the socket holds the very pages of the file, and a write
    to the file *after* it was found unchanged would still change what the daemon receives.
    """

    def __init__(self, connection: Connection, root: int) -> None:
        self._connection = connection
        self._root = root
        self._buffer = memoryview(bytearray(_BUFFER_BYTES))
        self._filled = 0
        self._announced = 0
        self._left = 0
        self._sent: Callable[[int], None] = lambda _: None

    def read(self, files: Sequence[FileRow], sent: Callable[[int], None]) -> None:
        """Answers one request; after a problem the rest is read only as far as that stays cheap.

        Args:
            files: what the daemon asks for.
            sent: told how many more bytes are sent.
        """
        for file in files:
            split_path(file.path)
        self._left = sum(file.size for file in files)
        self._sent = sent
        problems: list[ProblemRow] = []
        for index, file in enumerate(files):
            goal = self._left - self._filled - file.size
            problem = self._file(index, file)
            if problem is not None:
                problems.append(problem)
                missing = self._left - self._filled - goal
                if missing > RUN_LIMIT or len(problems) == _PROBLEMS_LIMIT:
                    break
                self._zeros(missing)
        self._flush()
        self._zeros(self._announced)
        self._flush()
        self._connection.send(ReadEnd(problems))

    def _file(self, index: int, file: FileRow) -> ProblemRow | None:
        try:
            descriptor = open_beneath(self._root, file.path, _FILE)
        except OSError as error:
            return _cannot_open(index, self._root, file.path, error)
        try:
            before = os.fstat(descriptor)
            if not stat.S_ISREG(before.st_mode):
                return ProblemRow(index, "unsuitable", "is not a regular file")
            got = self._content(descriptor, file.size) if before.st_size == file.size else before.st_size
            after = os.fstat(descriptor)
        except OSError as error:
            return ProblemRow(index, "unreadable", text(error))
        finally:
            os.close(descriptor)
        if got != file.size or after.st_size != file.size:
            now = after.st_size if after.st_size != file.size else got
            return ProblemRow(index, "changed", f"had {file.size} bytes when it was listed and has {now} now")
        if (before.st_mtime_ns, before.st_ctime_ns) != (after.st_mtime_ns, after.st_ctime_ns):
            return ProblemRow(index, "changed", "was written to while it was read")
        return None

    def _content(self, descriptor: int, size: int) -> int:
        got = 0
        while got < size:
            room = self._buffer[self._filled : self._filled + size - got]
            count = os.readv(descriptor, [room])
            if not count:
                break
            got += count
            self._filled += count
            if self._filled == len(self._buffer):
                self._flush()
        return got

    def _zeros(self, count: int) -> None:
        while count:
            room = self._buffer[self._filled : self._filled + count]
            room[:] = bytes(len(room))
            count -= len(room)
            self._filled += len(room)
            if self._filled == len(self._buffer):
                self._flush()

    def _flush(self) -> None:
        view = self._buffer[: self._filled]
        while view:
            if not self._announced:
                self._announced = min(RUN_LIMIT, self._left)
                self._connection.send(Run(self._announced))
            part = view[: self._announced]
            self._connection.send_raw(part)
            self._announced -= len(part)
            self._left -= len(part)
            view = view[len(part) :]
        if self._filled:
            self._sent(self._filled)
        self._filled = 0


def _cannot_open(index: int, root: int, path: bytes, error: OSError) -> ProblemRow:
    why = reason(root, path, error)
    if error.errno in NOT_A_WAY:
        return ProblemRow(index, "unsuitable", why)
    if isinstance(error, FileNotFoundError):
        return ProblemRow(index, "changed", "is no longer there")
    return ProblemRow(index, "unreadable", why)
