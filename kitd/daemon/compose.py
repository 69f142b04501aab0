"""Settings become collaborators, collaborators become routes, routes get their sockets."""

import os
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, MutableMapping
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from pathlib import Path
from time import monotonic

import anyio
from aiohttp import web

from kitd import __version__
from kitd.config.settings import Settings
from kitd.content.store import ContentStore
from kitd.daemon.life import Life
from kitd.errors import single_error
from kitd.jobs.jobs import Jobs
from kitd.kits import catalog
from kitd.kits.pack import pack
from kitd.kits.path import path
from kitd.kits.pull import pull
from kitd.kits.push import push
from kitd.kits.unpack import unpack
from kitd.registry.transport import Access, Transport, TransportSettings
from kitd.server.app import make_api, route_table
from kitd.server.distribution import Distribution, make_registry
from kitd.server.jobs import JobRoutes
from kitd.server.kits import KitRoutes
from kitd.server.listening import Listener, bind_loopback, listening
from kitd.server.middleware import API_VERSION, Activity
from kitd.server.peers import Door
from kitd.server.sockets import ApiSocket
from kitd.server.state import StateRoutes
from kitd.server.upgrade import UpgradeRoutes
from kitd.server.uploads import Uploads
from kitd.server.verbs import Verbs
from kitd.systemd import Notifier, take_listen_sockets
from kitd.transfer.window import Window
from kitd.workspace import DescriptorBudget
from kitd_client.api.errors import ConfigurationInvalid
from kitd_client.api.jobs import RegistryCheck
from kitd_client.api.kits import Status, Version

_DRAIN_SECONDS = 7.0
"""For running jobs; with the two seconds that requests have after that, an end takes less than ten."""
_API, _REGISTRY = "api", "registry"


async def serve(
    settings: Settings,
    load: Callable[[], Settings],
    files: list[Path],
    environ: MutableMapping[str, str],
) -> None:
    """Runs the daemon until it is to end, then ends it in order.

    Args:
        settings: what to start with.
        load: reads the settings again.
        files: the configuration files, watched for changes.
        environ: the process's environment; what systemd put there is taken out.

    Raises:
        StoreLocked: another daemon has the store, or the socket.
        StoreRefused: the store cannot be used as it is.
        ConfigurationInvalid: a socket cannot be had where the settings want it.
    """
    notifier = Notifier(environ)
    passed = _passed_sockets(environ)
    address = str(passed[_API].getsockname()) if _API in passed else str(settings.daemon.socket)
    with single_error():
        async with AsyncExitStack() as stack:
            store = await stack.enter_async_context(ContentStore.opened(settings.cache.dir, socket=address))
            transport = await stack.enter_async_context(Transport.opened(_transport_settings(settings)))
            jobs = await stack.enter_async_context(Jobs())
            activity = Activity()
            verbs = _verbs(settings, store, transport)
            status = partial(_status, settings, address, store, jobs, monotonic())
            registry = await stack.enter_async_context(_registry(settings, passed, store, activity))
            own, api = await stack.enter_async_context(
                _api(settings, passed, _routes(verbs, jobs, status), activity)
            )
            life = Life(settings, own, jobs, activity, notifier)
            reload = partial(life.reload, load, partial(setattr, transport.rate, "bytes_per_second"))
            tasks = await stack.enter_async_context(anyio.create_task_group())
            tasks.start_soon(life.obey_signals, reload)
            tasks.start_soon(life.end_without_name)
            tasks.start_soon(life.end_when_idle)
            if notifier.is_heard:
                tasks.start_soon(life.tell_systemd, partial(_probe, store))
            tasks.start_soon(life.reload_on_change, files, reload)
            notifier.send("READY=1", f"STATUS=ready at {address}")
            await life.wait()
            notifier.send("STOPPING=1")
            if own is not None:
                own.remove()
            for listener in (api, registry):
                if listener is not None:
                    listener.close()
            await jobs.drain(_DRAIN_SECONDS)
            tasks.cancel_scope.cancel()


def _passed_sockets(environ: MutableMapping[str, str]) -> dict[str, socket.socket]:
    passed = take_listen_sockets(environ)
    for name, sock in passed.items():
        if name not in {_API, _REGISTRY}:
            raise ConfigurationInvalid(
                f"systemd passed a socket named {name}; kitd knows the names api and registry",
                hint="set FileDescriptorName= in the socket unit",
            )
        if name == _REGISTRY and sock.family != socket.AF_UNIX and not _is_loopback(sock):
            raise ConfigurationInvalid(
                f"systemd passed a registry socket at {sock.getsockname()[0]}; it has no access rules yet",
                hint="let the socket unit listen at 127.0.0.1 or [::1]",
            )
    return passed


def _is_loopback(sock: socket.socket) -> bool:
    host = str(sock.getsockname()[0])
    return host == "::1" or host.startswith("127.")


def _transport_settings(settings: Settings) -> TransportSettings:
    return TransportSettings(
        connections_per_host=settings.transfer.connections_per_host,
        stall_timeout=settings.transfer.stall_timeout,
        limit_rate=settings.transfer.rate_limit,
    )


def _verbs(settings: Settings, store: ContentStore, transport: Transport) -> Verbs:
    transfer = settings.transfer
    window = Window(
        memory=transfer.memory,
        range_size=transfer.range_size,
        connections=transfer.connections,
        per_host=transfer.connections_per_host,
    )

    async def check_registry(request: RegistryCheck, uid: int) -> None:
        await transport.check(request.registry, Access(uid=uid, context=request.context))

    return Verbs(
        pull=partial(pull, store, transport, window),
        push=partial(push, store, transport),
        pack=partial(pack, store, transport),
        unpack=partial(unpack, store),
        path=partial(path, store),
        list_kits=partial(catalog.list_kits, store),
        inspect=partial(catalog.inspect, store),
        info=partial(catalog.info, store),
        tag=partial(catalog.tag, store),
        remove=lambda reference, force: catalog.remove(store, reference, force=force),
        check_registry=check_registry,
    )


def _routes(verbs: Verbs, jobs: Jobs, status: Callable[[], Awaitable[Status]]) -> list[web.RouteDef]:
    version = Version(version=__version__, api=int(API_VERSION), pid=os.getpid())
    return route_table(
        StateRoutes(verbs, version, status),
        KitRoutes(verbs),
        JobRoutes(verbs, jobs),
        UpgradeRoutes(verbs, jobs, DescriptorBudget()),
    )


@asynccontextmanager
async def _api(
    settings: Settings, passed: dict[str, socket.socket], routes: list[web.RouteDef], activity: Activity
) -> AsyncIterator[tuple[ApiSocket | None, Listener]]:
    """The API at the passed socket, or at one of its own, whose name is removed at the end."""
    door = Door(settings.mode, os.geteuid())
    app = make_api(routes, door, activity)
    if _API in passed:
        async with listening(app, passed[_API], door.guarding) as listener:
            yield None, listener
        return
    daemon = settings.daemon
    own = ApiSocket.bind(daemon.socket, daemon.socket_mode, daemon.socket_group)
    try:
        async with listening(app, own.socket, door.guarding) as listener:
            yield own, listener
    finally:
        own.close()


@asynccontextmanager
async def _registry(
    settings: Settings, passed: dict[str, socket.socket], store: ContentStore, activity: Activity
) -> AsyncIterator[Listener | None]:
    """The store as a registry, where that is wanted."""
    sock, address = passed.get(_REGISTRY), settings.registry.listen
    if sock is None and address is not None:
        sock = bind_loopback(address)
    if sock is None:
        yield None
        return
    async with Uploads(store) as uploads:
        app = make_registry(Distribution(store, uploads), activity)
        async with listening(app, sock) as listener:
            yield listener


async def _status(
    settings: Settings, address: str, store: ContentStore, jobs: Jobs, started: float
) -> Status:
    usage = await store.usage()
    return Status(
        version=__version__,
        pid=os.getpid(),
        uid=os.geteuid(),
        mode=settings.mode,
        socket=address,
        store=str(settings.cache.dir),
        registry_listen=str(settings.registry.listen or ""),
        uptime_seconds=int(monotonic() - started),
        jobs_running=jobs.running,
        kits=usage.kits,
        store_bytes=usage.store_bytes,
        free_bytes=usage.free_bytes,
    )


async def _probe(store: ContentStore) -> None:
    """Comes back while the store's threads do."""
    await store.work(os.getpid)
