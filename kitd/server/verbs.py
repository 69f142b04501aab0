"""What the API can do, as the routes see it: the verbs, bound to this daemon's collaborators."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from kitd.progress import Progress
from kitd.workspace import Workspace
from kitd_client.api.jobs import (
    Packed,
    PackRequest,
    PathRequest,
    Pulled,
    PullRequest,
    Pushed,
    PushRequest,
    RegistryCheck,
    TagRequest,
    Unpacked,
    UnpackRequest,
)
from kitd_client.api.kits import Info, Inspection, KitList, PathAnswer, Removed, RemovedAll, Tagged


@dataclass(frozen=True, kw_only=True)
class Verbs:
    """One callable per verb; the number is the uid of the user who asks."""

    pull: Callable[[PullRequest, int, Progress], Awaitable[Pulled]]
    push: Callable[[PushRequest, int, Progress], Awaitable[Pushed]]
    pack: Callable[[Workspace, PackRequest, int, Progress], Awaitable[Packed]]
    unpack: Callable[[Workspace, UnpackRequest, Progress], Awaitable[Unpacked]]
    path: Callable[[PathRequest], Awaitable[PathAnswer]]
    list_kits: Callable[[str], Awaitable[KitList]]
    inspect: Callable[[str], Awaitable[Inspection]]
    info: Callable[[str], Awaitable[Info]]
    tag: Callable[[TagRequest], Awaitable[Tagged]]
    remove: Callable[[str, bool], Awaitable[Removed]]
    remove_all: Callable[[bool], Awaitable[RemovedAll]]
    check_registry: Callable[[RegistryCheck, int], Awaitable[None]]
