"""What can be set about the registry client."""

from collections.abc import Mapping

import msgspec

from kitd import __version__
from kitd.registry.retry import Backoff


class UploadSettings(msgspec.Struct, frozen=True):
    """When blobs go up in one piece, and how large the pieces are otherwise. All in bytes."""

    monolithic_max: int = 5 * 2**30
    """A larger blob goes up in chunks, where the registry takes them."""
    chunk: int = 64 * 2**20
    ask_above: int = 64 * 2**20
    """A larger body is announced first (`Expect: 100-continue`), so a refusal comes before the bytes."""
    piece: int = 2**22
    """Read and written at once, at most: every piece is a hop into a worker thread and back."""


class TransportSettings(msgspec.Struct, frozen=True):
    """Times in seconds."""

    connections_per_host: int = 32
    connect_timeout: float = 10.0
    stall_timeout: float = 30.0
    """Of silence, or of less than 1 KiB/s: then a connection is given up."""
    commit_timeout: float = 600.0
    """Until a registry has checked and stored what it was sent."""
    limit_rate: int = 0
    """Bytes per second of all transfers together; 0: no limit."""
    trusted_realms: Mapping[str, tuple[str, ...]] = {}
    """By registry host: token services on other hosts that may see its credentials."""
    user_agent: str = f"kitd/{__version__}"
    backoff: Backoff = Backoff()
    upload: UploadSettings = UploadSettings()
