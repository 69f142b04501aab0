"""How long the daemon lives: signals, idle time, a socket that is gone, systemd's watchdog; and reloading."""

import logging
import os
import signal
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import NoReturn

import anyio
import anyio.to_thread

from kitd.config.logs import set_up_logging
from kitd.config.settings import Settings
from kitd.jobs.jobs import Jobs
from kitd.server.middleware import Activity
from kitd.server.sockets import ApiSocket
from kitd.systemd import Notifier
from kitd.watch import changes
from kitd_client.api.errors import KitdError

_log = logging.getLogger(__name__)

_LOOK_SECONDS = 2.0
"""Between two looks at the socket's name."""
_BACKLOG_SECONDS = 0.2
"""A client that found the name just before it was taken away has sent its request by then."""
_STATUS_SECONDS = 5.0
_LIVE = {"log", "daemon.idle", "transfer.rate_limit"}


class Life:
    """Ends once, for one reason.

    Args:
        settings: the daemon's; a reload changes them here.
        socket: the daemon's own socket; none if systemd passed it.
        jobs: whether there is work.
        activity: the same.
        notifier: systemd.
    """

    def __init__(
        self, settings: Settings, socket: ApiSocket | None, jobs: Jobs, activity: Activity, notifier: Notifier
    ) -> None:
        self.settings = settings
        self._socket = socket
        self._jobs = jobs
        self._activity = activity
        self._notifier = notifier
        self._over = anyio.Event()

    async def wait(self) -> None:
        """Until the daemon is to end."""
        await self._over.wait()

    def end(self, reason: str) -> None:
        """Ends it, in order."""
        if not self._over.is_set():
            _log.info("kitd ends: %s", reason)
            self._over.set()

    async def obey_signals(
        self, signals: AsyncIterator[signal.Signals], reload: Callable[[], Awaitable[None]]
    ) -> None:
        """SIGTERM and SIGINT end the daemon in order, a second one at once; SIGHUP reloads."""
        async for number in signals:
            if number == signal.SIGHUP:
                await reload()
            elif self._over.is_set():
                self._die(number)
            else:
                self.end(f"{number.name} came")

    def _die(self, number: signal.Signals) -> NoReturn:
        if self._socket is not None:
            self._socket.close()
        os._exit(128 + number)

    async def end_without_name(self) -> None:
        """Ends the daemon when no client can find it any more: its socket's name is gone, or is another's."""
        while self._socket is not None:
            await anyio.sleep(_LOOK_SECONDS)
            if not self._socket.is_there:
                self.end(f"its socket {self._socket.path} is gone")

    async def end_when_idle(self) -> None:
        """Ends a user's daemon that has had nothing to do for as long as the settings say."""
        while True:
            limit = self.settings.daemon.idle
            if self._jobs.running:
                self._activity.note()
            left = limit - self._activity.idle_seconds if limit else _LOOK_SECONDS
            if left <= 0 and await self._is_unwanted():
                self.end(f"nothing to do for {limit:g} s")
                return
            await anyio.sleep(min(_LOOK_SECONDS, max(left, _BACKLOG_SECONDS)))

    async def _is_unwanted(self) -> bool:
        """Takes the name away and looks whether anyone came in at the last moment."""
        if self._socket is None:
            return True
        self._socket.withdraw()
        await anyio.sleep(_BACKLOG_SECONDS)
        if self._activity.idle_seconds < self.settings.daemon.idle or self._jobs.running:
            self._socket.restore()
            return False
        return True

    async def tell_systemd(self, probe: Callable[[], Awaitable[None]]) -> None:
        """Signs of life as often as systemd wants them, after `probe` has come back; and what goes on."""
        pause = min(_STATUS_SECONDS, self._notifier.watchdog / 2 or _STATUS_SECONDS)
        while True:
            await probe()
            running = self._jobs.running
            self._notifier.send("WATCHDOG=1", f"STATUS=ready, {running} job{'s' * (running != 1)} running")
            await anyio.sleep(pause)

    async def reload_on_change(self, files: list[Path], reload: Callable[[], Awaitable[None]]) -> None:
        """Reloads when a configuration file was changed."""
        async for changed in changes(files, self._over):
            _log.info("%s changed", ", ".join(sorted(map(str, changed))))
            await reload()

    async def reload(self, load: Callable[[], Settings], set_rate: Callable[[int], None]) -> None:
        """Reads the configuration again; a bad one is rejected and everything stays as it is."""
        self._notifier.send("RELOADING=1")
        try:
            new = await anyio.to_thread.run_sync(load)
        except KitdError as error:
            _log.error("the configuration is rejected, the old one stays: %s", error.message)
        except Exception:  # noqa: BLE001 - whatever stands in a file, running jobs do not end for it
            _log.exception("the configuration cannot be read, the old one stays")
        else:
            set_up_logging(new.log, os.environ)
            set_rate(new.transfer.rate_limit)
            later = [key for key in _changed(self.settings, new) if key not in _LIVE]
            if later:
                _log.warning("these settings take effect at the next start: %s", ", ".join(later))
            _log.info("the configuration was read again")
            self.settings = new
        finally:
            self._notifier.send("READY=1")


def _changed(old: Settings, new: Settings) -> list[str]:
    """The keys that differ; of the log, where all is live, only the section."""
    keys = [
        f"{section}.{key}"
        for section in ("daemon", "cache", "transfer", "registry")
        for key in getattr(old, section).__struct_fields__
        if getattr(getattr(old, section), key) != getattr(getattr(new, section), key)
    ]
    return keys + ["log"] * (old.log != new.log)
