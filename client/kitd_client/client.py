"""The daemon as a Python object: one method a verb, blocking, with iterators and callbacks of events."""

from collections.abc import Callable, Generator, Iterable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Literal, Self, TypeVar
from urllib.parse import quote

from kitd_client.api.errors import KitIncomplete, NotFound
from kitd_client.api.jobs import (
    Context,
    Credential,
    Event,
    JobInfo,
    JobList,
    Packed,
    PackRequest,
    PathRequest,
    Pulled,
    PullRequest,
    Pushed,
    PushRequest,
    Result,
    TagRequest,
    Unpacked,
    UnpackRequest,
)
from kitd_client.api.kits import (
    Info,
    Inspection,
    KitList,
    KitSummary,
    PathAnswer,
    Removed,
    RemovedAll,
    Status,
    Tagged,
    Version,
)
from kitd_client.context import Network, source_date_epoch
from kitd_client.conversation import Conversation, OnJob, job_target, kit_target
from kitd_client.failures import gone
from kitd_client.references import name_of, split_tags
from kitd_client.stream import OnEvent, last_word, verdict
from kitd_client.transport import Transport, ignore

_T = TypeVar("_T")
_DIRECT = Network()


class Client:
    """A client of one daemon. Cheap: each request has a connection of its own.

    Args:
        socket: path of the daemon's socket (or `unix://` and the path); none: `KITD_SOCKET`, then the usual
            places.
        autostart: starts a daemon for this user where none is found; never for a socket that was named.
        notice: takes one-line notes for a person: a daemon was started, a credential helper failed.

    Methods raise `kitd_client.api.errors.KitdError`, by its subclasses: what the daemon answered, or
    `DaemonUnreachable`, `PermissionDenied` and `ProtocolError` when it could not be asked.
    """

    def __init__(
        self, socket: str | None = None, *, autostart: bool = True, notice: Callable[[str], None] = ignore
    ) -> None:
        self._transport = Transport(socket, autostart=autostart, notice=notice)
        self._daemon = Conversation(self._transport)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Ends the streams of events that are still open; jobs go on in the daemon."""
        self._daemon.close()

    # -- transfers ---------------------------------------------------------------------------------

    def pull(
        self,
        reference: str,
        *,
        filters: Sequence[str] = (),
        network: Network = _DIRECT,
        limit_rate: int = 0,
        on_event: OnEvent | None = None,
        on_job: OnJob | None = None,
    ) -> Pulled:
        """Pulls a kit into the daemon's store and waits for it.

        A registry that was not foreseen (a parent kit's) and wants credentials is looked up, and the pull is
        asked for again. An exception in the caller (`KeyboardInterrupt` too) cancels the job; what it
        fetched stays.

        Args:
            reference: `registry/repository:tag` or `@digest`.
            filters: kit's filter grammar; empty: every layer.
            network: how to reach the registry.
            limit_rate: bytes per second; 0: as the daemon is configured.
            on_event: takes each event as it comes.
            on_job: takes the job's identifier when it starts, and none when it has ended.
        """
        return self._daemon.as_caller(
            [name_of(reference)],
            network,
            lambda context: self._daemon.run_job(
                "pull", reference, _pull(reference, filters, context, limit_rate), Pulled, on_event, on_job
            ),
        )

    def start_pull(
        self,
        reference: str,
        *,
        filters: Sequence[str] = (),
        network: Network = _DIRECT,
        limit_rate: int = 0,
    ) -> str:
        """Starts a pull and returns its job's identifier at once; arguments as of `pull`."""
        context = self._daemon.context([name_of(reference)], network)
        return self._daemon.start_job("pull", _pull(reference, filters, context, limit_rate))

    def push(
        self,
        source: str,
        destination: str = "",
        *,
        network: Network = _DIRECT,
        limit_rate: int = 0,
        on_event: OnEvent | None = None,
        on_job: OnJob | None = None,
    ) -> Pushed:
        """Pushes a kit of the store to a registry and waits for it.

        Args:
            source: the kit, by a reference of the store.
            destination: the reference to push to; empty: where the source's name points to.
            network: how to reach the registry.
            limit_rate: bytes per second; 0: as the daemon is configured.
            on_event: takes each event as it comes.
            on_job: takes the job's identifier when it starts, and none when it has ended.
        """
        return self._daemon.as_caller(
            [name_of(destination or source)],
            network,
            lambda context: self._daemon.run_job(
                "push",
                f"{source} {destination}".strip(),
                _push(source, destination, context, limit_rate),
                Pushed,
                on_event,
                on_job,
            ),
        )

    def start_push(
        self, source: str, destination: str = "", *, network: Network = _DIRECT, limit_rate: int = 0
    ) -> str:
        """Starts a push and returns its job's identifier at once; arguments as of `push`."""
        context = self._daemon.context([name_of(destination or source)], network)
        return self._daemon.start_job("push", _push(source, destination, context, limit_rate))

    # -- the user's directories --------------------------------------------------------------------

    def pack(
        self,
        directory: str | Path,
        *,
        tags: Iterable[str] = (),
        kitfile: str | None = None,
        compression: Literal["none", "gzip", "gzip-fastest", "zstd"] = "none",
        layer_format: Literal["tar", "raw"] = "tar",
        network: Network = _DIRECT,
        on_event: OnEvent | None = None,
    ) -> Packed:
        """Packs a directory into a kit of the store. `SOURCE_DATE_EPOCH` is honoured.

        Args:
            directory: what the Kitfile's paths are relative to.
            tags: the kit's names, each `registry/repository:tag` or with more tags after commas.
            kitfile: the text of a Kitfile; none: the directory has one.
            compression: of the layers.
            layer_format: `raw`: the one file of each entry is its layer.
            network: how to reach the registry of a parent kit.
            on_event: takes each event as it comes.
        """
        from kitd_client.directory import Directory  # noqa: PLC0415 -- start-up time of the other verbs

        references = [reference for tag in tags for reference in split_tags(tag)]
        epoch = source_date_epoch(self._transport.environ)
        with Directory(directory) as workspace:
            return self._daemon.as_caller(
                [name_of(reference) for reference in references],
                network,
                lambda context: self._daemon.run_workspace(
                    "pack",
                    str(directory),
                    PackRequest(
                        tags=references,
                        kitfile=kitfile,
                        compression=compression,
                        layer_format=layer_format,
                        source_date_epoch=epoch,
                        context=context,
                    ),
                    workspace,
                    Packed,
                    on_event,
                ),
            )

    def unpack(
        self,
        reference: str,
        directory: str | Path,
        *,
        filters: Sequence[str] = (),
        overwrite: bool = False,
        ignore_existing: bool = False,
        network: Network = _DIRECT,
        limit_rate: int = 0,
        on_event: OnEvent | None = None,
        on_job: OnJob | None = None,
    ) -> Unpacked:
        """Writes the files of a kit into a directory; a kit that is not here, or not whole, is pulled first.

        Args:
            reference: the kit.
            directory: where to; it is made if it is not there.
            filters: kit's filter grammar; empty: everything.
            overwrite: replaces files that exist.
            ignore_existing: leaves files that exist as they are.
            network: how to reach the registry, should a pull be needed.
            limit_rate: bytes per second of such a pull; 0: as the daemon is configured.
            on_event: takes each event as it comes, of a pull too.
            on_job: takes the identifier of such a pull when it starts, and none when it has ended.
        """
        from kitd_client.directory import Directory  # noqa: PLC0415 -- start-up time of the other verbs

        request = UnpackRequest(reference=reference, filters=list(filters))

        def unpack() -> Unpacked:
            with Directory(
                directory, create=True, overwrite=overwrite, ignore_existing=ignore_existing
            ) as workspace:
                return self._daemon.run_workspace("unpack", reference, request, workspace, Unpacked, on_event)

        return self._with_kit(reference, unpack, filters, network, limit_rate, on_event, on_job)

    def path(
        self,
        reference: str,
        *,
        filters: Sequence[str] = (),
        network: Network = _DIRECT,
        limit_rate: int = 0,
        on_event: OnEvent | None = None,
        on_job: OnJob | None = None,
    ) -> Path:
        """A read-only directory of the store with a kit's files, no copy; arguments as of `unpack`."""
        request = PathRequest(reference=reference, filters=list(filters))
        answer = self._with_kit(
            reference,
            lambda: self._daemon.post("/v1/path", request, PathAnswer),
            filters,
            network,
            limit_rate,
            on_event,
            on_job,
        )
        return Path(answer.path)

    # -- kits --------------------------------------------------------------------------------------

    def tag(self, source: str, destination: str) -> Tagged:
        """Gives a kit of the store one more name."""
        return self._daemon.post("/v1/tag", TagRequest(source=source, destination=destination), Tagged)

    def remove(self, reference: str, *, force: bool = False) -> Removed:
        """Removes names of a kit, and what nothing needs any more.

        Args:
            reference: `registry/repository:tag`, with more tags after commas, or `@digest`.
            force: removes all its tags, and the directory that `path` gave out.
        """
        query = "?force=1" if force else ""
        return self._daemon.delete(f"{kit_target(reference)}{query}", Removed)

    def remove_all(self, *, force: bool = False) -> RemovedAll:
        """Removes every kit without a tag; with `force` every kit, and the directories that `path` gave out."""
        return self._daemon.delete(f"/v1/kits{'?force=1' if force else ''}", RemovedAll)

    def inspect(self, reference: str) -> Inspection:
        """Manifest and config of a kit of the store, byte for byte."""
        return self._daemon.get(kit_target(reference), Inspection)

    def info(self, reference: str) -> str:
        """The Kitfile of a kit of the store, as YAML."""
        return self._daemon.get(f"{kit_target(reference)}/info", Info).kitfile

    def list(self, repository: str = "") -> Sequence[KitSummary]:
        """The kits of the store, of one repository or of all."""
        query = f"?repository={quote(repository, safe='')}" if repository else ""
        return self._daemon.get(f"/v1/kits{query}", KitList).kits

    # -- jobs --------------------------------------------------------------------------------------

    def jobs(self) -> Sequence[JobInfo]:
        """This user's jobs in the daemon: those that run, and those that ended lately."""
        return self._daemon.get("/v1/jobs", JobList, start=False).jobs

    def job(self, job_id: str) -> JobInfo:
        """One job as it stands."""
        return self._daemon.get(job_target(job_id), JobInfo, start=False)

    def attach(self, job_id: str) -> Generator[Event, None, None]:
        """The events of a job, from its start and as they come; the last one is its terminal event.

        A stream that ends without a terminal event is a failure: the daemon is gone.
        """
        return self._daemon.events(job_id)

    def wait(self, job_id: str, *, on_event: OnEvent | None = None) -> Result:
        """Follows a job to its end and returns its result; leaving early does not end the job."""
        terminal = last_word(self._daemon.events(job_id), on_event)
        if terminal is None:
            raise gone(f"job {job_id}", "'kitctl jobs' shows what runs; asking for the same again goes on")
        return verdict(terminal, f"job {job_id}")

    def cancel(self, job_id: str) -> JobInfo:
        """Cancels a job and returns it as it stands; its stream ends with what was kept."""
        return self._daemon.cancel(job_id)

    # -- the daemon --------------------------------------------------------------------------------

    def status(self) -> Status:
        """How the daemon is doing. Starts none."""
        return self._daemon.get("/v1/status", Status, start=False)

    def version(self) -> Version:
        """Which daemon answers. Starts none."""
        return self._daemon.get("/v1/version", Version, start=False)

    def check_registry(self, registry: str, credential: Credential, network: Network = _DIRECT) -> None:
        """Has the daemon try a credential at a registry, storing nothing."""
        self._daemon.check_registry(registry, credential, network)

    def _with_kit(
        self,
        reference: str,
        use: Callable[[], _T],
        filters: Sequence[str],
        network: Network,
        limit_rate: int,
        on_event: OnEvent | None,
        on_job: OnJob | None,
    ) -> _T:
        try:
            return use()
        except (NotFound, KitIncomplete):
            if not name_of(reference).registry:
                raise
        self._transport.notice(f"{reference} is not wholly here: pulling it first")
        self.pull(
            reference,
            filters=filters,
            network=network,
            limit_rate=limit_rate,
            on_event=on_event,
            on_job=on_job,
        )
        return use()


def _pull(reference: str, filters: Sequence[str], context: Context, limit_rate: int) -> PullRequest:
    return PullRequest(reference=reference, filters=list(filters), context=context, limit_rate=limit_rate)


def _push(source: str, destination: str, context: Context, limit_rate: int) -> PushRequest:
    return PushRequest(source=source, destination=destination, context=context, limit_rate=limit_rate)
