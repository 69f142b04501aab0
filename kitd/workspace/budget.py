"""How many lent descriptors may be under way.

Unread ones count against the uid of the daemon, whoever leaves them unread. Linux refuses every further
descriptor of a uid (ETOOMANYREFS) once as many are in sockets, unread, as one process may have open; root is
exempt. They stay counted when the lender closes its socket, until the *peer* reads them or closes its own. So
a connection that ended with descriptors unread keeps its share here until the kernel has dropped them.
"""

import fcntl
import resource
import socket
import struct
import termios
from collections import Counter, deque
from typing import NamedTuple

import anyio

from kitd_client.api.errors import Busy
from kitd_client.api.workspace import BATCH_DESCRIPTORS

WAIT_SECONDS = 60.0
_SWEEP_SECONDS = 1.0


class _Waiter(NamedTuple):
    wanted: int
    uid: int
    granted: anyio.Event


class _Abandoned(NamedTuple):
    lent: int
    uid: int
    sock: socket.socket


def unread_bytes(sock: socket.socket) -> int:
    """What the peer of a Unix socket has not taken yet, as the kernel accounts it (`unix(7)`, SIOCOUTQ)."""
    (count,) = struct.unpack("i", fcntl.ioctl(sock.fileno(), termios.TIOCOUTQ, bytes(4)))
    return int(count)


class DescriptorBudget:
    """Daemon-wide; one uid has at most half of it, so that nobody can stall the others.

    Args:
        limit: descriptors in all; none: a quarter of RLIMIT_NOFILE.
    """

    def __init__(self, limit: int | None = None) -> None:
        allowed = resource.getrlimit(resource.RLIMIT_NOFILE)[0] // 4 if limit is None else limit
        self._limit = max(allowed, BATCH_DESCRIPTORS)
        self._share = max(self._limit // 2, BATCH_DESCRIPTORS)
        self._used: Counter[int] = Counter()
        self._waiters: deque[_Waiter] = deque()
        self._abandoned: list[_Abandoned] = []

    def lent(self) -> int:
        """Descriptors lent now, or still in the socket of a client that left them unread."""
        self._sweep()
        return self._used.total()

    def has_room(self, count: int, uid: int) -> bool:
        """Whether `reserve` would not wait."""
        self._sweep()
        return not self._waiters and self._fits(count, uid)

    def give_back(self, count: int, uid: int, sock: socket.socket | None) -> None:
        """Ends a reservation.

        Args:
            sock: over which the descriptors were sent, if they were: while the peer has not read them, their room
                stays taken until it has, or has gone.
        """
        if sock is not None and count and sock.fileno() >= 0 and unread_bytes(sock):
            self._abandoned.append(_Abandoned(count, uid, sock.dup()))
        else:
            self._release(count, uid)

    async def reserve(self, count: int, uid: int) -> None:
        """Waits for room for `count` descriptors, which is the caller's until he gives it back.

        Raises:
            Busy: no room came free in a minute.
        """
        waiter = _Waiter(count, uid, anyio.Event())
        self._waiters.append(waiter)
        self._sweep()
        self._grant()
        try:
            with anyio.fail_after(WAIT_SECONDS):
                while not waiter.granted.is_set():
                    self._sweep()
                    with anyio.move_on_after(_SWEEP_SECONDS if self._abandoned else WAIT_SECONDS):
                        await waiter.granted.wait()
        except BaseException as error:
            if waiter.granted.is_set():
                self._release(count, uid)
            else:
                self._waiters.remove(waiter)
            if isinstance(error, TimeoutError):
                raise Busy(
                    "too many files are being handed out at once",
                    hint="try again when other unpacks are done",
                ) from error
            raise

    def _release(self, count: int, uid: int) -> None:
        self._used[uid] -= count
        self._used += Counter()
        self._grant()

    def _grant(self) -> None:
        """First come, first served, among those whose uid has room."""
        for waiter in tuple(self._waiters):
            if self._used[waiter.uid] + waiter.wanted > self._share:
                continue
            if not self._fits(waiter.wanted, waiter.uid):
                return
            self._waiters.remove(waiter)
            self._used[waiter.uid] += waiter.wanted
            waiter.granted.set()

    def _fits(self, count: int, uid: int) -> bool:
        return self._used[uid] + count <= self._share and self._used.total() + count <= self._limit

    def _sweep(self) -> None:
        gone = [each for each in self._abandoned if not unread_bytes(each.sock)]
        self._abandoned = [each for each in self._abandoned if each not in gone]
        for each in gone:
            each.sock.close()
            self._release(each.lent, each.uid)

    def close(self) -> None:
        """Forgets the clients that left descriptors unread."""
        for each in self._abandoned:
            each.sock.close()
            self._used[each.uid] -= each.lent
        self._abandoned.clear()
