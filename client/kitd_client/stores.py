"""Whether the daemon that answers has the store that the caller's environment names."""

# Paths stay plain strings: pathlib would be a tenth of the start of every command.
# ruff: noqa: PTH118, PTH123

import json
import os
from collections.abc import Mapping

from kitd_client.wire import GarbledError, SilentError, connect, exchange


def other_store(environ: Mapping[str, str], socket: str) -> str:
    """The warning for a `KITD_CACHE_DIR` that the daemon at `socket` knows nothing of; empty: there is none.

    The variable is for the daemon: one that runs already has its store, and goes on with it.
    """
    named = os.path.realpath(environ["KITD_CACHE_DIR"])
    if _owner_socket(named) == socket:
        return ""
    theirs = _store_at(socket)
    if not theirs or os.path.realpath(theirs) == named:
        return ""
    return (
        f"warning: KITD_CACHE_DIR is {named}, but the daemon at {socket} runs already, "
        f"and its store {theirs} is used"
    )


def _owner_socket(store: str) -> str:
    """What the lock of a store says about where its daemon listens."""
    try:
        with open(os.path.join(store, "lock"), errors="surrogateescape") as lock:
            return lock.read().partition("\n")[2].strip()
    except OSError:
        return ""


def _store_at(socket: str) -> str:
    """The store of the daemon there; empty if it does not tell: what is asked of it next says why."""
    try:
        return str(json.loads(exchange(connect(socket), "GET", "/v1/status").read())["store"])
    except (OSError, SilentError, GarbledError, ValueError, LookupError, TypeError):
        return ""
