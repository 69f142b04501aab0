"""Settings become collaborators, collaborators become routes, routes get their sockets."""

import logging
import os
import signal
from collections.abc import Awaitable, Callable, MutableMapping
from contextlib import AsyncExitStack
from functools import partial
from pathlib import Path
from time import monotonic

import anyio
from aiohttp import web

from kitd import __version__
from kitd.config.settings import Settings
from kitd.content.store import ContentStore
from kitd.daemon.faces import Faces
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
from kitd.server.app import route_table
from kitd.server.jobs import JobRoutes
from kitd.server.kits import KitRoutes
from kitd.server.middleware import Activity
from kitd.server.state import StateRoutes
from kitd.server.upgrade import UpgradeRoutes
from kitd.server.verbs import Verbs
from kitd.systemd import Notifier
from kitd.transfer.window import Window
from kitd.workspace import DescriptorBudget
from kitd_client.api import API_VERSION
from kitd_client.api.jobs import RegistryCheck
from kitd_client.api.kits import Status, Version

_log = logging.getLogger(__name__)

_DRAIN_SECONDS = 7.0
"""For running jobs; with the two seconds that requests have after that, an end takes less than ten."""


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
    faces = Faces(settings, environ)
    address = faces.api_address
    with single_error():
        async with AsyncExitStack() as stack:
            store = await stack.enter_async_context(ContentStore.opened(settings.cache.dir, socket=address))
            transport = await stack.enter_async_context(Transport.opened(_transport_settings(settings)))
            jobs = await stack.enter_async_context(Jobs())
            activity = Activity()
            budget = DescriptorBudget()
            stack.callback(budget.close)
            verbs = _verbs(settings, store, transport)
            status = partial(_status, settings, faces, store, jobs, monotonic())
            # Whoever reaches a socket may send a signal: from before there is one.
            signals = stack.enter_context(
                anyio.open_signal_receiver(signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
            )
            registry = await stack.enter_async_context(faces.registry(store, activity))
            routes = _routes(verbs, jobs, budget, status)
            own, api = await stack.enter_async_context(faces.api(routes, activity))
            life = Life(settings, own, jobs, activity, notifier)
            reload = partial(life.reload, load, partial(_set_rate, transport))
            tasks = await stack.enter_async_context(anyio.create_task_group())
            tasks.start_soon(life.obey_signals, signals, reload)
            tasks.start_soon(life.end_without_name)
            tasks.start_soon(life.end_when_idle)
            if notifier.is_heard:
                tasks.start_soon(life.tell_systemd, partial(_probe, store))
            tasks.start_soon(life.reload_on_change, files, reload)
            _log.info("kitd %s serves %s at %s", __version__, settings.cache.dir, address)
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


def _set_rate(transport: Transport, bytes_per_second: int) -> None:
    transport.rate.bytes_per_second = bytes_per_second


def _transport_settings(settings: Settings) -> TransportSettings:
    return TransportSettings(
        connections_per_host=settings.transfer.connections_per_host,
        stall_timeout=settings.transfer.stall_timeout,
        limit_rate=settings.transfer.rate_limit,
        trusted_realms=settings.transfer.trusted_realms,
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
        remove_all=lambda force: catalog.remove_all(store, force=force),
        check_registry=check_registry,
    )


def _routes(
    verbs: Verbs, jobs: Jobs, budget: DescriptorBudget, status: Callable[[], Awaitable[Status]]
) -> list[web.RouteDef]:
    version = Version(version=__version__, api=int(API_VERSION), pid=os.getpid())
    return route_table(
        StateRoutes(verbs, version, status),
        KitRoutes(verbs),
        JobRoutes(verbs, jobs),
        UpgradeRoutes(verbs, jobs, budget),
    )


async def _status(
    settings: Settings, faces: Faces, store: ContentStore, jobs: Jobs, started: float
) -> Status:
    usage = await store.usage()
    return Status(
        version=__version__,
        pid=os.getpid(),
        uid=os.geteuid(),
        mode=settings.mode,
        socket=faces.api_address,
        store=str(settings.cache.dir),
        registry_listen=faces.registry_address,
        uptime_seconds=int(monotonic() - started),
        jobs_running=jobs.running,
        kits=usage.kits,
        store_bytes=usage.store_bytes,
        free_bytes=usage.free_bytes,
    )


async def _probe(store: ContentStore) -> None:
    """Comes back while the store's threads do."""
    await store.work(os.getpid)
