"""A clock that does not wait, and a transport with short settings."""

from collections.abc import AsyncIterator

import pytest
from fakes.clock import StillClock

from kitd.registry.retry import Backoff
from kitd.registry.settings import TransportSettings, UploadSettings
from kitd.registry.transport import Transport


@pytest.fixture
def clock() -> StillClock:
    return StillClock()


@pytest.fixture
def settings() -> TransportSettings:
    """No randomness in waits, and small pieces, so that a few hundred KiB are several chunks."""
    upload = UploadSettings(monolithic_max=2**20, chunk=2**18, ask_above=2**21, piece=2**17)
    return TransportSettings(backoff=Backoff(random=lambda: 1.0), stall_timeout=5.0, upload=upload)


@pytest.fixture
async def transport(
    anyio_backend: object, settings: TransportSettings, clock: StillClock
) -> AsyncIterator[Transport]:
    async with Transport.opened(settings, clock=clock) as opened:
        yield opened
