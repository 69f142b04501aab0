"""Who is at the other end of a Unix socket, who may be there, and how often."""

import asyncio
import socket
import struct
from collections import Counter
from functools import partial
from typing import cast

from kitd.config.settings import Mode
from kitd.server.connections import CountedConnection, Factory, Leave
from kitd_client.api.errors import Busy, PermissionDenied

CONNECTIONS = 1024
"""Of one user. Beyond, requests are refused; beyond twice as many, connections are dropped."""

_UNMAPPED = 65534
"""The uid the kernel shows for a user that this user namespace does not know: it may be anybody."""
_CREDENTIALS = struct.Struct("3i")


def peer_credentials(sock: socket.socket) -> tuple[int, int]:
    """Process and user at the other end, as the kernel knew them when it connected (SO_PEERCRED, unix(7))."""
    pid, uid, _ = _CREDENTIALS.unpack(
        sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    )
    return pid, uid


def transport_uid(transport: asyncio.BaseTransport) -> int:
    """The user at the other end of a connection."""
    return peer_credentials(cast("socket.socket", transport.get_extra_info("socket")))[1]


class Door:
    """Who comes in: knows the connections of each user.

    Args:
        mode: a user's own daemon serves him and root; the machine's serves whom its socket's group lets in.
        own_uid: the user the daemon runs as.
    """

    def __init__(self, mode: Mode, own_uid: int) -> None:
        self._mode = mode
        self._own_uid = own_uid
        self._inside: Counter[int] = Counter()

    def check(self, uid: int) -> None:
        """Raises `PermissionDenied` for whom this daemon does not serve, `Busy` for whom it serves enough."""
        if uid == _UNMAPPED or (self._mode == "user" and uid not in {0, self._own_uid}):
            raise PermissionDenied(
                f"this is the daemon of uid {self._own_uid}; uid {uid} may not use it",
                hint="run kitctl without --socket and KITD_SOCKET to use a daemon of your own",
            )
        if self._inside[uid] > CONNECTIONS:
            raise Busy(
                f"uid {uid} has more than {CONNECTIONS} connections", hint="close some, then try again"
            )

    def enter(self, uid: int) -> bool:
        """Counts a connection; false: there is no room for it at all."""
        if self._inside[uid] >= 2 * CONNECTIONS:
            return False
        self._inside[uid] += 1
        return True

    def leave(self, uid: int) -> None:
        """Ends what `enter` began."""
        self._inside[uid] -= 1
        if not self._inside[uid]:
            del self._inside[uid]

    def guarding(self, factory: Factory) -> Factory:
        """A protocol factory whose connections are counted."""
        return lambda: CountedConnection(self._admit, factory())

    def _admit(self, transport: asyncio.Transport) -> Leave | None:
        uid = transport_uid(transport)
        if self.enter(uid):
            return partial(self.leave, uid)
        transport.abort()
        return None
