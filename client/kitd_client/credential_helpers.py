"""Credential helpers: programs that keep secrets (the protocol of docker-credential-helpers)."""

import subprocess
from collections.abc import Mapping

import msgspec

from kitd_client.api.errors import ConfigurationInvalid
from kitd_client.api.jobs import Credential

_NOT_FOUND = "credentials not found in native keychain"
_TOKEN_USER = "<token>"  # noqa: S105 -- the name that says "the secret is an identity token"
_TIMEOUT = 10.0


class _Answer(msgspec.Struct, frozen=True, rename="pascal"):
    username: str = ""
    secret: str = ""


class _Entry(
    msgspec.Struct, frozen=True, rename={"server": "ServerURL", "username": "Username", "secret": "Secret"}
):
    server: str
    username: str
    secret: str


_decode_answer = msgspec.json.Decoder(_Answer).decode


def ask_helper(suffix: str, server: str, environ: Mapping[str, str]) -> Credential | None:
    """Asks `docker-credential-<suffix>` for a server's credential; none if it has none.

    Raises:
        ConfigurationInvalid: the helper is not there, fails, takes over 10 s or cannot be understood.
    """
    done = _run(suffix, "get", server.encode(), environ)
    if done.returncode != 0:
        said = done.stdout.decode(errors="replace").strip()
        if said == _NOT_FOUND:
            return None
        raise _failed(suffix, "get", said or done.stderr.decode(errors="replace").strip())
    try:
        answer = _decode_answer(done.stdout)
    except msgspec.MsgspecError as error:
        raise _failed(suffix, "get", f"its answer is no credential ({error})") from error
    if not answer.secret:
        return None
    if answer.username == _TOKEN_USER:
        return Credential(identity_token=answer.secret)
    return Credential(username=answer.username, password=answer.secret)


def store_in_helper(suffix: str, server: str, credential: Credential, environ: Mapping[str, str]) -> None:
    """Gives a credential to a helper to keep.

    Raises:
        ConfigurationInvalid: as of `ask_helper`.
    """
    entry = _Entry(server, credential.username, credential.password)
    if credential.identity_token:
        entry = _Entry(server, _TOKEN_USER, credential.identity_token)
    done = _run(suffix, "store", msgspec.json.encode(entry), environ)
    if done.returncode != 0:
        raise _failed(suffix, "store", (done.stdout or done.stderr).decode(errors="replace").strip())


def erase_from_helper(suffix: str, server: str, environ: Mapping[str, str]) -> bool:
    """Has a helper forget a server; false if it knew none.

    Raises:
        ConfigurationInvalid: as of `ask_helper`.
    """
    done = _run(suffix, "erase", server.encode(), environ)
    said = (done.stdout or done.stderr).decode(errors="replace").strip()
    if done.returncode != 0 and said != _NOT_FOUND:
        raise _failed(suffix, "erase", said)
    return done.returncode == 0


def _run(
    suffix: str, verb: str, data: bytes, environ: Mapping[str, str]
) -> subprocess.CompletedProcess[bytes]:
    program = f"docker-credential-{suffix}"
    if "/" in suffix:
        raise ConfigurationInvalid(f"{program} is no name of a credential helper")
    try:
        return subprocess.run(
            [program, verb], input=data, capture_output=True, timeout=_TIMEOUT, check=False, env=dict(environ)
        )
    except FileNotFoundError as error:
        raise ConfigurationInvalid(
            f"the credential helper {program} is not on PATH ({environ.get('PATH', 'not set')})",
            hint="install it or add its directory to PATH",
        ) from error
    except (OSError, subprocess.TimeoutExpired) as error:
        raise _failed(suffix, verb, str(error)) from error


def _failed(suffix: str, verb: str, reason: str) -> ConfigurationInvalid:
    reason = reason or "it gave no reason"
    return ConfigurationInvalid(
        f"the credential helper docker-credential-{suffix} failed at '{verb}': {reason}"
    )
