"""A node in this process: a real store, the real registry client, the real verbs, and what they say."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from fakes.clock import StillClock

from kitd.content.store import ContentStore
from kitd.jobs.news import News
from kitd.kits.pull import pull
from kitd.kits.push import push
from kitd.registry.retry import Backoff
from kitd.registry.settings import TransportSettings, UploadSettings
from kitd.registry.transport import Transport
from kitd.spec.reference import parse_reference
from kitd.transfer.window import Window
from kitd_client.api.jobs import Context, Pulled, PullRequest, Pushed, PushRequest

KIB = 1 << 10
RANGE = 64 * KIB
CONNECTIONS = 4
LARGEST_REQUEST = CONNECTIONS * RANGE
"""A request asks for several ranges while the network is ahead of the disk; never for more than may be under way."""


class Node:
    """What one daemon would hold, without the daemon. Ranges are small, so that small kits have many."""

    def __init__(self, store: ContentStore, transport: Transport, window: Window, clock: StillClock) -> None:
        self.store = store
        self.transport = transport
        self.window = window
        self.clock = clock

    async def pull(
        self,
        reference: str,
        *,
        filters: tuple[str, ...] = (),
        context: Context | None = None,
        uid: int = 1000,
        news: News | None = None,
    ) -> Pulled:
        request = PullRequest(reference=reference, filters=list(filters), context=context or Context())
        return await pull(self.store, self.transport, self.window, request, uid, news or News())

    async def push(
        self, source: str, destination: str = "", *, context: Context | None = None, news: News | None = None
    ) -> Pushed:
        request = PushRequest(source=source, destination=destination, context=context or Context())
        return await push(self.store, self.transport, request, 1000, news or News())

    async def has(self, reference: str) -> bool:
        """Whether the store names it."""
        return await self.store.resolve(parse_reference(reference)) is not None


@asynccontextmanager
async def node(
    root: Path,
    *,
    memory: int = 1024 * KIB,
    per_host: int = 32,
    connections: int = CONNECTIONS,
    stall_timeout: float = 0.3,
    real_time: bool = False,
) -> AsyncIterator[Node]:
    """A node whose registry client does not really wait (unless in `real_time`), and is impatient with silence."""
    clock = StillClock()
    settings = TransportSettings(
        backoff=Backoff(random=lambda: 1.0),
        stall_timeout=stall_timeout,
        connections_per_host=per_host,
        upload=UploadSettings(monolithic_max=2**20, chunk=2**18, ask_above=2**21, piece=2**17),
    )
    window = Window(memory=memory, range_size=RANGE, connections=connections, per_host=per_host)
    async with (
        ContentStore.opened(root, socket="/run/kitd.sock") as store,
        Transport.opened(settings, clock=None if real_time else clock) as transport,
    ):
        yield Node(store, transport, window, clock)
