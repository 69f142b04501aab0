"""What may be wrong between client and daemon, in words; imported when it happens."""

import grp
import stat
from collections.abc import Mapping
from pathlib import Path
from shlex import quote

import msgspec

from kitd_client.api.errors import DaemonUnreachable, KitdError, PermissionDenied, ProtocolError, from_problem
from kitd_client.api.problem import Problem
from kitd_client.paths import SYSTEM_SOCKET, daemon_log, user_socket
from kitd_client.wire import Answer, GarbledError

_SAME_VERSION = "use kitctl and kitd of one installation"

_decode_problem = msgspec.json.Decoder(Problem).decode


def absent(places: tuple[str, ...]) -> KitdError:
    """Nobody listens at any of these sockets."""
    command = "kitd"
    if places == (SYSTEM_SOCKET,):
        command = "sudo systemctl start kitd.socket"
    elif len(places) == 1:
        command = f"KITD_SOCKET={quote(places[0])} kitd"
    return DaemonUnreachable(
        f"no daemon answers at {' or '.join(places)}", hint=f"start it with '{command}'", socket=places[0]
    )


def unusable(path: str, error: OSError) -> KitdError:
    """The socket is there and cannot be used."""
    if isinstance(error, PermissionError):
        hint = f"only its owner may use {path}; name another daemon with --socket"
        group = _group(path)
        if group:
            hint = (
                f"run 'sudo usermod -aG {group} $USER' and log in again, or name another daemon with --socket"
            )
        return PermissionDenied(f"permission denied on {path}", hint=hint, socket=path)
    return DaemonUnreachable(f"{path} cannot be connected to: {error.strerror or error}", socket=path)


def _group(path: str) -> str:
    """The group that may use a socket; empty: none, or one that nobody is asked to join."""
    if path == SYSTEM_SOCKET:
        return "kitd"
    try:
        status = Path(path).stat()
        group = grp.getgrgid(status.st_gid).gr_name
    except (OSError, KeyError):
        return ""
    return group if status.st_mode & stat.S_IWGRP and status.st_gid else ""


def silent(path: str, environ: Mapping[str, str]) -> KitdError:
    """The daemon hung up twice without an answer."""
    return DaemonUnreachable(
        f"the daemon at {path} ended the connection without an answer, twice",
        hint=f"look into {_log_of(path, environ)}, then try again",
        socket=path,
    )


def _log_of(path: str, environ: Mapping[str, str]) -> str:
    """The log of the daemon at a socket, as far as one can know from outside."""
    log = Path(daemon_log(environ))
    if path == SYSTEM_SOCKET:
        return "its log (journalctl -u kitd)"
    return f"its log {log}" if path == user_socket(environ) and log.is_file() else "its log"


def gone(what: str, hint: str) -> KitdError:
    """The stream of a running job or workspace ended without its last word."""
    return DaemonUnreachable(
        f"the daemon went away during {what}", kept="what it had made durable by then", hint=hint
    )


def garbled(path: str, reason: str) -> KitdError:
    """The answer is not what the wire contract says."""
    return ProtocolError(
        f"the daemon at {path} cannot be understood: {reason}", hint=_SAME_VERSION, socket=path
    )


def refused(path: str, answer: Answer, version: str) -> KitdError:
    """The answer is an error, of another version, or of something that is no kitd."""
    try:
        body = answer.read()
    except GarbledError as error:
        return garbled(path, str(error))
    theirs = answer.headers.get("kitd-api-version")
    if theirs is None:
        return ProtocolError(
            f"what answers at {path} is no kitd", hint="name kitd's socket with --socket", socket=path
        )
    if theirs != version:
        return ProtocolError(
            f"the daemon at {path} speaks version {theirs} of the API, this client version {version}",
            hint=_SAME_VERSION,
            socket=path,
        )
    try:
        return from_problem(_decode_problem(body))
    except msgspec.MsgspecError as error:
        return garbled(path, f"status {answer.status} with no problem that can be read: {error}")
