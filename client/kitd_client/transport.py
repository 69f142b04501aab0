"""Finds the daemon and asks it: discovery, start of a daemon of one's own, one more try, errors.

Modules that only a failure needs are imported when it happens: a whole `kitctl version` has the time of two
interpreter starts.
"""

import _socket
import os
from collections.abc import Callable, Iterator, Mapping

from kitd_client import paths
from kitd_client.api import API_VERSION
from kitd_client.wire import Answer, GarbledError, SilentError, connect, exchange


def ignore(_message: str) -> None:
    """Takes a notice that nobody wants to read."""


class Transport:
    """How one client reaches the daemon.

    Args:
        socket: path of the daemon's socket (or `unix://` and the path); none: `KITD_SOCKET`, then the usual
            places.
        autostart: starts a daemon for this user where none is found; never for a socket that was named.
        notice: takes one-line notes for a person.
        compares: warns of a store that was named and is not the daemon's, as soon as it is reached.
        environ: the environment; none: the process's own.
    """

    def __init__(
        self,
        socket: str | None = None,
        *,
        autostart: bool = True,
        notice: Callable[[str], None] = ignore,
        compares: bool = True,
        environ: Mapping[str, str] | None = None,
    ) -> None:
        self.environ = os.environ if environ is None else environ
        self.notice = notice
        self._named = paths.named_socket(self.environ, socket)
        self._autostart = autostart
        self._path = ""
        self._compares = compares

    def ask(
        self, method: str, target: str, body: bytes | None = None, *, upgrade: str = "", start: bool = True
    ) -> Answer:
        """Asks the daemon and returns its answer with the body still to be read.

        A connection that ends before one byte was answered (a daemon that was just ending for want of work)
        is tried once more.

        Args:
            method: the HTTP method.
            target: path and query, quoted.
            body: a JSON text, or none.
            upgrade: the protocol to change to; then only a 101 is a success.
            start: false: no daemon is started for this request.

        Raises:
            KitdError: the daemon's own error; `DaemonUnreachable`, `PermissionDenied` or `ProtocolError` of
                this client.
        """
        for _ in range(2):
            sock = self._connect(start=start)
            try:
                answer = exchange(sock, method, target, body, upgrade=upgrade)
            except SilentError:
                continue
            except GarbledError as error:
                from kitd_client.failures import garbled  # noqa: PLC0415 -- start-up time

                raise garbled(self._path, str(error)) from error
            self._judge(answer, upgrade)
            return answer
        from kitd_client.failures import silent  # noqa: PLC0415 -- start-up time

        raise silent(self._path, self.environ)

    def call(self, method: str, target: str, body: bytes | None = None, *, start: bool = True) -> bytes:
        """Asks the daemon and returns the whole body of its answer; arguments and errors as of `ask`."""
        answer = self.ask(method, target, body, start=start)
        try:
            return answer.read()
        except GarbledError as error:
            from kitd_client.failures import garbled  # noqa: PLC0415 -- start-up time

            raise garbled(self._path, str(error)) from error

    def lines(self, target: str) -> Iterator[bytes]:
        """Yields the lines of a stream as they come; a stream that breaks off simply ends."""
        answer = self.ask("GET", target, start=False)
        try:
            yield from answer.lines()
        except GarbledError:
            return

    def undecodable(self, reason: object) -> Exception:
        """The error for an answer that is not what the wire contract says."""
        from kitd_client.failures import garbled  # noqa: PLC0415 -- start-up time

        return garbled(self._path, str(reason))

    def _judge(self, answer: Answer, upgrade: str) -> None:
        expected = answer.status == 101 if upgrade else 200 <= answer.status < 300  # noqa: PLR2004 -- RFC 9110
        if expected and answer.headers.get("kitd-api-version") == API_VERSION:
            return
        from kitd_client.failures import refused  # noqa: PLC0415 -- start-up time

        raise refused(self._path, answer, API_VERSION)

    def _connect(self, *, start: bool) -> _socket.socket:
        places = (self._named,) if self._named else paths.sockets(self.environ)
        for self._path in places:
            try:
                sock = connect(self._path)
            except (FileNotFoundError, ConnectionRefusedError, NotADirectoryError):
                continue
            except OSError as error:
                from kitd_client.failures import unusable  # noqa: PLC0415 -- start-up time

                raise unusable(self._path, error) from error
            if self._compares:
                self._compares = False
                self.compare_stores()
            return sock
        found = None if self._named else self._search(start=start and self._autostart)
        if found is not None:
            return found
        from kitd_client.failures import absent  # noqa: PLC0415 -- start-up time

        raise absent(places)

    def compare_stores(self) -> None:
        """Warns of a store that was named and is not that of the daemon, which was reached before."""
        if not self.environ.get("KITD_CACHE_DIR"):
            return
        from kitd_client.stores import other_store  # noqa: PLC0415 -- start-up time

        warning = other_store(self.environ, self._path)
        if warning:
            self.notice(warning)

    def _search(self, *, start: bool) -> _socket.socket | None:
        """A daemon that has this user's store and listens elsewhere, or one that is started."""
        from kitd_client.autostart import find_daemon, start_daemon  # noqa: PLC0415 -- start-up time

        for _ in range(2):
            found = find_daemon(self.environ)
            if found is None and start:
                found = start_daemon(self.environ, self.notice)
            if found is None:
                break
            try:
                sock = connect(found)
            except (FileNotFoundError, ConnectionRefusedError):
                # It is ending this very moment.
                continue
            self._path = found
            return sock
        return None
