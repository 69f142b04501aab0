"""Stores and forgets logins, in kit's credentials file: `kit` and `kitctl` share them."""

import base64
import os
import secrets
from collections.abc import Mapping
from pathlib import Path

import msgspec

from kitd_client import paths
from kitd_client.api.errors import ConfigurationInvalid
from kitd_client.api.jobs import Credential
from kitd_client.credential_helpers import erase_from_helper, store_in_helper
from kitd_client.credentials import CredentialFile, named_file, read_file, server_key

_Json = dict[str, object]


def login_file(environ: Mapping[str, str], authfile: str = "") -> Path:
    """The file that a login goes to: the one that was named, else kit's."""
    return named_file(environ, authfile) or Path(paths.kit_home(environ), "credentials.json")


def store_login(path: Path, registry: str, credential: Credential, environ: Mapping[str, str]) -> str:
    """Stores a credential, in the file or in the helper that the file names; returns where.

    The file is replaced by a rename, is readable by its owner alone, and keeps everything else that it holds.

    Raises:
        ConfigurationInvalid: the file is damaged or cannot be written, or its helper fails.
    """
    server = server_key(registry)
    helper = _helper(path, server, registry)
    if helper:
        store_in_helper(helper, server, credential, environ)
        return f"docker-credential-{helper}"
    content = _read(path)
    auths = _auths(content)
    if credential.identity_token:
        auths[server] = {"identitytoken": credential.identity_token}
    else:
        pair = f"{credential.username}:{credential.password}".encode()
        auths[server] = {"auth": base64.b64encode(pair).decode()}
    _write(path, content)
    return str(path)


def forget_login(path: Path, registry: str, environ: Mapping[str, str]) -> bool:
    """Forgets a registry's credential; false if there was none.

    Raises:
        ConfigurationInvalid: as of `store_login`.
    """
    server = server_key(registry)
    helper = _helper(path, server, registry)
    forgotten = bool(helper) and erase_from_helper(helper, server, environ)
    content = _read(path)
    if _auths(content).pop(server, None) is not None:
        _write(path, content)
        return True
    return forgotten


def _helper(path: Path, server: str, registry: str) -> str:
    try:
        file = read_file(path)
    except FileNotFoundError:
        file = CredentialFile()
    return file.helpers.get(server) or file.helpers.get(registry) or file.store


def _read(path: Path) -> _Json:
    try:
        return msgspec.json.decode(path.read_bytes(), type=_Json)
    except FileNotFoundError:
        return {}


def _auths(content: _Json) -> _Json:
    """The entries, as a part of the content: a change of the one is a change of the other."""
    auths: _Json = msgspec.convert(content.get("auths", {}), _Json)
    content["auths"] = auths
    return auths


def _write(path: Path, content: _Json) -> None:
    # A link into someone's collection of dot files stays a link.
    path = path.resolve()
    scratch = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    data = msgspec.json.format(msgspec.json.encode(content), indent=2)
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor = os.open(scratch, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            with open(descriptor, "wb") as file:  # noqa: PTH123 -- a descriptor, not a path
                file.write(data + b"\n")
                file.flush()
                os.fsync(descriptor)
            scratch.replace(path)
        except BaseException:
            scratch.unlink(missing_ok=True)
            raise
    except OSError as error:
        raise ConfigurationInvalid(
            f"the credentials file {path} cannot be written: {error.strerror}", path=str(path)
        ) from error
