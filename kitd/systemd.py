"""What systemd and kitd tell each other: passed sockets, state, watchdog (sd_listen_fds(3), sd_notify(3))."""

import fcntl
import os
import socket
from collections.abc import Mapping, MutableMapping

_FIRST = 3
"""SD_LISTEN_FDS_START."""


def take_listen_sockets(environ: MutableMapping[str, str]) -> dict[str, socket.socket]:
    """The listening sockets that systemd passed to this very process, by name; the caller owns them.

    The variables are taken out of `environ`, so that no child believes it was meant. Without names
    (LISTEN_FDNAMES) a socket is called `unknown`, as systemd itself does.
    """
    pid, count, names = (environ.pop(f"LISTEN_{name}", "") for name in ("PID", "FDS", "FDNAMES"))
    if pid != str(os.getpid()) or not count.isdecimal():
        return {}
    named = names.split(":")
    sockets: dict[str, socket.socket] = {}
    for index in range(int(count)):
        descriptor = _FIRST + index
        flags = fcntl.fcntl(descriptor, fcntl.F_GETFD)
        fcntl.fcntl(descriptor, fcntl.F_SETFD, flags | fcntl.FD_CLOEXEC)
        name = named[index] if index < len(named) and named[index] else "unknown"
        sockets[name] = socket.socket(fileno=descriptor)
        sockets[name].setblocking(False)
    return sockets


class Notifier:
    """Tells systemd how the daemon is; says nothing where nobody listens (no NOTIFY_SOCKET)."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        address = environ.get("NOTIFY_SOCKET", "")
        self._address = "\0" + address[1:] if address.startswith("@") else address
        own = environ.get("WATCHDOG_PID", str(os.getpid())) == str(os.getpid())
        usec = environ.get("WATCHDOG_USEC", "")
        self.watchdog = int(usec) / 1e6 if own and usec.isdecimal() else 0.0
        """Seconds in which systemd wants a sign of life; 0: it does not."""

    @property
    def is_heard(self) -> bool:
        """Whether systemd listens."""
        return bool(self._address)

    def send(self, *assignments: str) -> None:
        """Sends `READY=1`, `STATUS=...` and the like. What cannot be sent is let go: it is news, not work."""
        if not self._address:
            return
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sender:
            sender.setblocking(False)
            try:
                sender.connect(self._address)
                sender.send("\n".join(assignments).encode())
            except OSError:
                return
