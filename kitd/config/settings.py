"""The settings as values: sections, keys, units, defaults."""

import pwd
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal, Self

import msgspec

Mode = Literal["user", "system"]

_UNITS = {"": 1, "B": 1, "kB": 10**3, "KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12} | {
    "KiB": 2**10,
    "MiB": 2**20,
    "GiB": 2**30,
    "TiB": 2**40,
}
_Connections = Annotated[int, msgspec.Meta(ge=1, le=1000)]
_SECONDS = {"ms": 0.001, "s": 1, "m": 60, "h": 3600, "d": 86400}


class Size(int):
    """Bytes. Written `128MiB` (KiB, MiB, GiB, TiB; kB, MB, GB, TB; none: bytes)."""

    @classmethod
    def parsed(cls, value: object) -> Self:
        """Reads a size as people write it; ValueError says what is wrong."""
        match = re.fullmatch(r"(\d{1,15}(?:\.\d{1,6})?) ?([A-Za-z]*)", str(value))
        if isinstance(value, bool) or match is None or match[2] not in _UNITS:
            raise ValueError(f"{value!r} is no size like 128MiB")
        return cls(float(match[1]) * _UNITS[match[2]])


class Rate(Size):
    """Bytes per second. Written `400MiB/s`; `0`: no limit."""

    @classmethod
    def parsed(cls, value: object) -> Self:
        """Reads a rate as people write it; ValueError says what is wrong."""
        try:
            return super().parsed(str(value).removesuffix("/s") if isinstance(value, str) else value)
        except ValueError:
            raise ValueError(f"{value!r} is no rate like 400MiB/s") from None


class Duration(float):
    """Seconds. Written `30s` (ms, s, m, h, d); `0`: off."""

    __slots__ = ()

    @classmethod
    def parsed(cls, value: object) -> Self:
        """Reads a duration as people write it; ValueError says what is wrong."""
        if str(value) == "0":
            return cls(0)
        match = re.fullmatch(r"(\d{1,9}(?:\.\d{1,3})?) ?(ms|s|m|h|d)", str(value))
        if match is None:
            raise ValueError(f"{value!r} is no duration like 30s or 15m")
        return cls(float(match[1]) * _SECONDS[match[2]])


class FileMode(int):
    """Permission bits. Written `0660`, in octal."""

    @classmethod
    def parsed(cls, value: object) -> Self:
        """Reads permission bits; ValueError says what is wrong."""
        if re.fullmatch(r"0?[0-7]{3}", str(value)) is None or not isinstance(value, str):
            raise ValueError(f'{value!r} is no mode like "0660"')
        return cls(value, 8)


class Address(msgspec.Struct, frozen=True):
    """A loopback address to listen on. Written `127.0.0.1:5000`."""

    host: str
    port: int

    @classmethod
    def parsed(cls, value: object) -> Self:
        """Reads an address; ValueError says what is wrong: only loopback is taken."""
        match = re.fullmatch(r"(localhost|127(?:\.\d{1,3}){3}|\[::1\]):(\d{1,5})", str(value))
        if match is None or int(match[2]) > 65535:  # noqa: PLR2004 - the last port there is
            raise ValueError(f"{value!r} is no loopback address like 127.0.0.1:5000")
        return cls({"localhost": "127.0.0.1", "[::1]": "::1"}.get(match[1], match[1]), int(match[2]))

    def __str__(self) -> str:
        """As it is written."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


class DaemonSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    socket: Path
    """Where clients find the daemon; ignored when systemd passes the socket."""
    socket_mode: FileMode
    socket_group: str
    """Who may connect beside the owner, in system mode; empty in user mode."""
    idle: Duration
    """A user's daemon ends after this long without work; 0: never."""


class CacheSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    dir: Path
    """The store."""


class TransferSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    connections: _Connections = 16
    """To fetch one blob."""
    connections_per_host: _Connections = 32
    memory: Size = Size(128 << 20)
    """Of all read-ahead together."""
    range_size: Size = Size(16 << 20)
    """Of one range, as wished (see `plan_range_size`); a request may ask for several."""
    rate_limit: Rate = Rate(0)
    """Of all transfers together, both directions."""
    stall_timeout: Duration = Duration(30)
    """A connection that brings nothing for so long is given up."""
    trusted_realms: dict[str, tuple[str, ...]] = {}
    """By registry host: token services on other hosts that may see its credentials."""


class RegistrySettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    listen: Address | None = None
    """Where the store is served as an OCI registry; none: nowhere."""


class LogSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    level: Literal["debug", "info", "warning", "error"] = "info"
    format: Literal["auto", "text", "json", "journal"] = "auto"
    """auto: journal under systemd, text on a terminal, json elsewhere."""


class Settings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    mode: Mode
    daemon: DaemonSettings
    cache: CacheSettings
    transfer: TransferSettings = TransferSettings()
    registry: RegistrySettings = RegistrySettings()
    log: LogSettings = LogSettings()


SECTIONS: Mapping[str, type[msgspec.Struct]] = {
    "daemon": DaemonSettings,
    "cache": CacheSettings,
    "transfer": TransferSettings,
    "registry": RegistrySettings,
    "log": LogSettings,
}


def default_mode(uid: int) -> Mode:
    """System for the user `kitd`, user for everyone else."""
    try:
        return "system" if pwd.getpwuid(uid).pw_name == "kitd" else "user"
    except KeyError:
        return "user"
