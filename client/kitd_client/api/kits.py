"""Kits and the daemon's state on the wire."""

from typing import Literal

import msgspec


class KitSummary(msgspec.Struct, frozen=True, kw_only=True):
    """One row of `kitctl list`: one manifest in one repository."""

    repository: str
    """`registry/repository`, or the repository alone for a kit that is only local."""
    tags: list[str]
    digest: str
    model_name: str
    author: str
    size: int
    """Bytes of all layers of the kit."""
    complete: bool
    """Every layer is here."""


class KitList(msgspec.Struct, frozen=True):
    kits: list[KitSummary]


class Inspection(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """What `kit inspect` prints: manifest and config stay the bytes they are."""

    digest: str
    cli_version: str
    kitfile: msgspec.Raw
    manifest: msgspec.Raw


class Info(msgspec.Struct, frozen=True):
    kitfile: str
    """The Kitfile as YAML."""


class Tagged(msgspec.Struct, frozen=True):
    reference: str
    digest: str


class Removed(msgspec.Struct, frozen=True, kw_only=True):
    untagged: list[str]
    digest: str = ""
    freed: int = 0
    """Bytes of stored objects that nothing needs any more."""


class RemovedAll(msgspec.Struct, frozen=True, kw_only=True):
    removed: list[str]
    """References of the kits that are gone, by digest."""
    in_use: list[str] = []
    """Kits that stay, because their files were handed out by `path`."""
    freed: int = 0
    """Bytes of stored objects that nothing needs any more."""


class PathAnswer(msgspec.Struct, frozen=True):
    path: str
    """A read-only directory inside the store."""


class Version(msgspec.Struct, frozen=True, kw_only=True):
    version: str
    api: int
    pid: int


class Status(msgspec.Struct, frozen=True, kw_only=True):
    version: str
    pid: int
    uid: int
    mode: Literal["user", "system"]
    socket: str
    store: str
    registry_listen: str
    uptime_seconds: int
    jobs_running: int
    kits: int
    store_bytes: int
    """Bytes of all blobs named by the store."""
    free_bytes: int
    """Free bytes of the store's file system."""
