"""`kitctl version` and `kitctl status`; the first one without structs and parsers, as it is often asked."""

import json

from kitd_client import __version__
from kitd_client.cli.console import note, tell, tell_json
from kitd_client.transport import Transport

TYPE_CHECKING = False
if TYPE_CHECKING:
    from kitd_client.cli.arguments import Options, Parser


def show_version(transport: Transport | None = None, *, as_json: bool = False) -> int:
    """Prints the client's version, and the daemon's if one runs; starts none."""
    transport = transport or Transport()
    absent = ""
    daemon: dict[str, object] | None = None
    try:
        daemon = json.loads(transport.call("GET", "/v1/version", start=False))
    except ValueError as error:
        raise transport.undecodable(error) from error
    except Exception as error:
        from kitd_client.api.errors import DaemonUnreachable  # noqa: PLC0415 -- start-up time

        if not isinstance(error, DaemonUnreachable):
            # A daemon of another release, or none of ours: that is just when versions are asked for.
            _print_versions(None, as_json=as_json)
            raise
        absent = error.message
    _print_versions(daemon, as_json=as_json)
    if absent and not as_json:
        note(absent)
    return 0


def _print_versions(daemon: dict[str, object] | None, *, as_json: bool) -> None:
    if as_json:
        tell(json.dumps({"client": {"version": __version__}, "daemon": daemon}))
        return
    tell(f"kitctl {__version__}")
    if daemon is not None:
        tell(f"kitd {daemon.get('version')} (API {daemon.get('api')}, pid {daemon.get('pid')})")


def _show_status(options: "Options") -> int:
    from kitd_client.client import Client  # noqa: PLC0415 -- not for `version`
    from kitd_client.figures import duration_text, size_text  # noqa: PLC0415 -- not for `version`

    with Client(options.socket) as client:
        status = client.status()
    if options.format == "json":
        tell_json(status)
        return 0
    lines = {
        "version": status.version,
        "process": f"pid {status.pid}, uid {status.uid}, up {duration_text(status.uptime_seconds)}",
        "mode": status.mode,
        "socket": status.socket,
        "registry": status.registry_listen or "off",
        "store": status.store,
        "kits": f"{status.kits}, {size_text(status.store_bytes)} stored, {size_text(status.free_bytes)} free",
        "jobs": f"{status.jobs_running} running",
    }
    tell("\n".join(f"{name:10}{value}" for name, value in lines.items()))
    return 0


def _run_version(options: "Options") -> int:
    return show_version(Transport(options.socket), as_json=options.format == "json")


def declare_nothing(_parser: "Parser") -> None:
    """Has only the flags that every command has."""


COMMANDS = {"version": (declare_nothing, _run_version), "status": (declare_nothing, _show_status)}
