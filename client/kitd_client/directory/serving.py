"""One directory, and the requests about it that a daemon may make."""

import os
import socket
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from kitd_client.api.errors import KitdError, ProtocolError, SourceUnreadable, TargetUnwritable
from kitd_client.api.jobs import Event, Moved, Terminal
from kitd_client.api.workspace import (
    VERSION,
    Check,
    End,
    EventFrame,
    Hello,
    Publish,
    Read,
    ReadSmall,
    Ready,
    Refused,
    Request,
    Scan,
    Write,
    Written,
)
from kitd_client.directory.checking import Policy
from kitd_client.directory.framing import Connection, HungUp
from kitd_client.directory.listing import scan
from kitd_client.directory.openat2 import DIRECTORY, text
from kitd_client.directory.reading import Reader, read_small
from kitd_client.directory.target import Target, close_all

_TELL_SECONDS: Final = 0.25


class Directory:
    """A directory to pack, or to unpack into; a context manager.

    The daemon on the other end of `serve` is not trusted: it cannot make this touch anything outside the
    directory, write to one that is packed, read one that is unpacked into, or replace files unasked.

    Args:
        path: may itself lead over links: the user named it.
        create: it is unpacked into, and made if it is missing, parents included; else it is packed.
        overwrite: files that exist may be replaced.
        ignore_existing: files that exist stay, and count as unpacked.

    Raises:
        SourceUnreadable: there is no such directory, or it may not be read.
        TargetUnwritable: it cannot be made or opened.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        create: bool = False,
        overwrite: bool = False,
        ignore_existing: bool = False,
    ) -> None:
        self._create = create
        self._policy = Policy(overwrite, ignore_existing)
        self._made: list[Path] = []
        try:
            if create:
                self._made = _make_directories(Path(path))
            self._root = os.open(path, DIRECTORY | os.O_CLOEXEC)
        except OSError as error:
            kind = TargetUnwritable if create else SourceUnreadable
            raise kind(f"cannot open directory {os.fspath(path)}: {text(error)}") from error

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Closes it; directories that were made for an unpack and got nothing are removed again."""
        if self._root >= 0:
            os.close(self._root)
            self._root = -1
        for path in reversed(self._made):
            try:
                path.rmdir()
            except OSError:
                break
        self._made.clear()

    def serve(self, sock: socket.socket, on_event: Callable[[Event], None] | None = None) -> Terminal:
        """Does what the daemon asks until the job ends, and says how it ended.

        Whatever happens, an exception of `on_event` included, nothing half-written stays under a final
        name, and nothing at all under a staging name.

        Args:
            sock: connected and upgraded; the caller closes it.
            on_event: told everything the job says but the terminal event.

        Raises:
            DaemonUnreachable: the connection ended before the job.
            ProtocolError: the daemon asked for something that no daemon of ours asks for.
        """
        target = Target(self._root, self._policy)
        try:
            with Connection(sock) as connection:
                tell = on_event or _ignore
                return _Service(connection, self._root, target, tell, unpacks=self._create).run()
        finally:
            target.close()


class _Service:
    """One connection."""

    def __init__(
        self,
        connection: Connection,
        root: int,
        target: Target,
        on_event: Callable[[Event], None],
        *,
        unpacks: bool,
    ) -> None:
        self._connection = connection
        self._root = root
        self._target = target
        self._on_event = on_event
        self._answer = self._unpack if unpacks else self._pack
        self._reader = Reader(connection, root)
        self._deaf = False

    def run(self) -> Terminal:
        while True:
            request = self._connection.receive()
            if isinstance(request, End):
                return request.terminal
            if isinstance(request, EventFrame):
                self._on_event(request.event)
            elif not self._deaf:
                self._turn(request)

    def _turn(self, request: Request) -> None:
        try:
            if isinstance(request, Hello):
                self._connection.send(Ready(VERSION))
                return
            try:
                self._answer(request)
            except ProtocolError:
                raise
            except KitdError as error:
                self._connection.send(Refused(error.problem()))
        except HungUp:
            # it has ended the job in the middle of the turn: its last word is still to come
            self._deaf = True

    def _pack(self, request: Request) -> None:
        if isinstance(request, Scan):
            with self._connection.working():
                scan(self._connection, self._root, request.directories)
        elif isinstance(request, ReadSmall):
            read_small(self._connection, self._root, request.path, request.limit)
        elif isinstance(request, Read):
            self._reader.read(request.files, self._teller(request.item, request.done, "workspace"))
        else:
            raise ProtocolError("the daemon wants to write to a directory that is packed")

    def _unpack(self, request: Request) -> None:
        if isinstance(request, Check):
            with self._connection.working():
                checked = self._target.check(request.members)
            self._connection.send(checked)
        elif isinstance(request, Write):
            self._write(request)
        elif isinstance(request, Publish):
            with self._connection.working():
                published = self._target.publish()
            self._connection.send(published)
        else:
            raise ProtocolError("the daemon wants to read a directory that is unpacked into")

    def _write(self, request: Write) -> None:
        count = sum(member.is_lent for member in request.members)
        lent = self._connection.receive_descriptors(count) if count else []
        try:
            with self._connection.working():
                self._target.write(request.members, lent, self._teller(request.item, request.done, "local"))
        finally:
            close_all(lent)
        self._connection.send(Written())

    def _teller(self, item: str, done: int, source: str) -> Callable[[int], None]:
        """Tells of bytes as they move: the daemon cannot, in the middle of a turn."""
        last = time.monotonic()

        def tell(count: int) -> None:
            nonlocal done, last
            done += count
            now = time.monotonic()
            if item and now - last >= _TELL_SECONDS:
                last = now
                self._on_event(Moved(item, source, done))

        return tell


def _ignore(_: Event) -> None:
    """For callers that ask for no events."""


def _make_directories(path: Path) -> list[Path]:
    """Makes what is missing of a path, safely on disk; answers what was made, outermost first."""
    missing: list[Path] = []
    head = path.absolute()
    while not head.exists():
        missing.append(head)
        head = head.parent
    missing.reverse()
    for each in missing:
        each.mkdir(0o755)
        parent = os.open(each.parent, DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(parent)
        finally:
            os.close(parent)
    return missing
