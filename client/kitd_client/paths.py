"""Where things are: sockets, the store of a user's daemon, its log, kit's home (XDG base directories)."""

import os
from collections.abc import Mapping

SYSTEM_SOCKET = "/run/kitd/kitd.sock"


def named_socket(environ: Mapping[str, str], flag: str | None = None) -> str | None:
    """The socket that was asked for by flag or `KITD_SOCKET`; a path or `unix://` and a path."""
    named = flag or environ.get("KITD_SOCKET") or None
    return named.removeprefix("unix://") if named else None


def user_socket(environ: Mapping[str, str]) -> str:
    """Where the daemon of this user listens. Relative XDG paths are ignored, as their specification says."""
    runtime = environ.get("XDG_RUNTIME_DIR", "")
    if runtime.startswith("/"):
        return f"{runtime}/kitd/kitd.sock"
    return f"{_base(environ, 'XDG_CACHE_HOME', '.cache')}/kitd/run/kitd.sock"


def sockets(environ: Mapping[str, str]) -> tuple[str, ...]:
    """Where a daemon may listen when no socket was named, the nearest first."""
    return user_socket(environ), SYSTEM_SOCKET


def user_store(environ: Mapping[str, str]) -> str:
    """The store of this user's daemon."""
    return environ.get("KITD_CACHE_DIR") or f"{_base(environ, 'XDG_CACHE_HOME', '.cache')}/kitd"


def daemon_log(environ: Mapping[str, str]) -> str:
    """Where a daemon that the client started writes to."""
    return f"{_base(environ, 'XDG_STATE_HOME', '.local/state')}/kitd/kitd.log"


def kit_home(environ: Mapping[str, str]) -> str:
    """The home of the `kit` command, whose credentials file is shared."""
    return environ.get("KITOPS_HOME") or f"{_base(environ, 'XDG_DATA_HOME', '.local/share')}/kitops"


def config_home(environ: Mapping[str, str]) -> str:
    """The base directory of the user's configuration files."""
    return _base(environ, "XDG_CONFIG_HOME", ".config")


def home(environ: Mapping[str, str]) -> str:
    """The user's home directory."""
    return environ.get("HOME") or os.path.expanduser("~")  # noqa: PTH111 -- pathlib doubles the start-up time


def _base(environ: Mapping[str, str], variable: str, fallback: str) -> str:
    value = environ.get(variable, "")
    return value if value.startswith("/") else f"{home(environ)}/{fallback}"
