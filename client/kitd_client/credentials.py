"""Finds the credential of a registry in the files and helpers that kit, podman, docker and systemd know.

The order of the files is podman's with kit's own file in front (containers-auth.json(5)); within a file a
credential helper for the host goes before the entries, and the general store comes last.
"""

import base64
import binascii
import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import msgspec

from kitd_client import paths
from kitd_client.api.errors import ConfigurationInvalid, KitdError
from kitd_client.api.jobs import Credential
from kitd_client.transport import ignore

_FILE_LIMIT = 4 << 20
_HUB = ("docker.io", "index.docker.io", "registry-1.docker.io")
_HUB_SERVER = "https://index.docker.io/v1/"


class Entry(msgspec.Struct, frozen=True):
    """One entry of `auths`."""

    auth: str = ""
    username: str = ""
    password: str = ""
    identitytoken: str = ""
    registrytoken: str = ""


class CredentialFile(msgspec.Struct, frozen=True, rename={"helpers": "credHelpers", "store": "credsStore"}):
    """What is read of a `config.json`, `auth.json` or `credentials.json`."""

    auths: dict[str, Entry] = {}
    helpers: dict[str, str] = {}
    store: str = ""


# Made here, once: msgspec learns a struct at its first use, and threads that do so together crash the process.
_decode_entries = msgspec.json.Decoder(dict[str, Entry]).decode
_decode_file = msgspec.json.Decoder(CredentialFile).decode


class CredentialFiles:
    """All places where this user's credentials may be, read once.

    Args:
        environ: the environment.
        authfile: the one file to read; else `KITD_AUTH_FILE` or `REGISTRY_AUTH_FILE` may name it.
        notice: takes warnings about files and helpers that do not work; a public kit can be had without them.
    """

    def __init__(
        self, environ: Mapping[str, str], *, authfile: str = "", notice: Callable[[str], None] = ignore
    ) -> None:
        self._environ = environ
        self._notice = notice
        self._named = named_file(environ, authfile)
        self._files: list[tuple[Path, CredentialFile]] | None = None

    def find(self, registry: str, repository: str = "") -> Credential | None:
        """The credential for a repository, of the first file that has one.

        Raises:
            ConfigurationInvalid: the file that was named cannot be read.
        """
        if self._files is None:
            self._files = list(self._read_all())
        for path, file in self._files:
            credential = self._find_in(path, file, registry, repository)
            if credential is not None:
                return credential
        return None

    def _find_in(self, path: Path, file: CredentialFile, registry: str, repository: str) -> Credential | None:
        hosts = _HUB if registry in _HUB else (registry,)
        server = server_key(registry)
        for host in (server, *hosts):
            if host in file.helpers:
                return self._ask(path, file.helpers[host], server)
        for key in (*_keys(hosts, repository), *_legacy_keys(file, hosts)):
            credential = self._decode(path, key, file.auths.get(key))
            if credential is not None:
                return credential
        return self._ask(path, file.store, server) if file.store else None

    def _ask(self, path: Path, suffix: str, server: str) -> Credential | None:
        from kitd_client.credential_helpers import ask_helper  # noqa: PLC0415 -- few need it and its imports

        try:
            return ask_helper(suffix, server, self._environ)
        except KitdError as error:
            self._notice(f"warning: {error.message} (named in {path})")
            return None

    def _decode(self, path: Path, key: str, entry: Entry | None) -> Credential | None:
        if entry is None:
            return None
        username, password = entry.username, entry.password
        if entry.auth:
            try:
                pair = base64.b64decode(entry.auth, validate=True).decode()
            except (binascii.Error, UnicodeDecodeError):
                self._notice(f"warning: the entry {key} of {path} is damaged")
                return None
            username, _, password = pair.partition(":")
            password = password.rstrip("\0")
        credential = Credential(username, password, entry.identitytoken, entry.registrytoken)
        return None if credential == Credential() else credential

    def _read_all(self) -> Iterator[tuple[Path, CredentialFile]]:
        if self._named is not None:
            try:
                yield self._named, read_file(self._named)
            except FileNotFoundError as error:
                raise ConfigurationInvalid(
                    f"the credentials file {self._named} does not exist", path=str(self._named)
                ) from error
            return
        for path in _usual_files(self._environ, self._notice):
            try:
                yield path, read_file(path)
            except FileNotFoundError:
                continue
            except ConfigurationInvalid as error:
                self._notice(f"warning: {error.message}; going on without it")


def named_file(environ: Mapping[str, str], authfile: str = "") -> Path | None:
    """The credentials file that flag or environment name, if one does: then it is the only one."""
    named = authfile or environ.get("KITD_AUTH_FILE") or environ.get("REGISTRY_AUTH_FILE")
    return Path(named) if named else None


def server_key(registry: str) -> str:
    """What a registry is called in files and by helpers; Docker Hub's name is historical."""
    return _HUB_SERVER if registry in _HUB else registry


def read_file(path: Path) -> CredentialFile:
    """Reads one credentials file.

    Raises:
        FileNotFoundError: there is none.
        ConfigurationInvalid: it cannot be read, or is damaged.
    """
    try:
        with path.open("rb") as file:
            data = file.read(_FILE_LIMIT)
        if path.name == ".dockercfg":
            return CredentialFile(auths=_decode_entries(data))
        return _decode_file(data)
    except FileNotFoundError:
        raise
    except OSError as error:
        raise ConfigurationInvalid(
            f"the credentials file {path} cannot be read: {error.strerror}", path=str(path)
        ) from error
    except msgspec.MsgspecError as error:
        raise ConfigurationInvalid(
            f"the credentials file {path} is damaged: {error}", path=str(path)
        ) from error


def _usual_files(environ: Mapping[str, str], notice: Callable[[str], None]) -> Iterator[Path]:
    if environ.get("CREDENTIALS_DIRECTORY"):
        yield Path(environ["CREDENTIALS_DIRECTORY"], "registry-auth.json")
    yield Path(paths.kit_home(environ), "credentials.json")
    runtime = environ.get("XDG_RUNTIME_DIR")
    if runtime and not Path(runtime).is_dir():
        notice(f"warning: XDG_RUNTIME_DIR is {runtime}, which is no directory")
    yield Path(runtime or f"/run/containers/{os.getuid()}", "containers" if runtime else "", "auth.json")
    yield Path(paths.config_home(environ), "containers", "auth.json")
    yield Path(environ.get("DOCKER_CONFIG") or f"{paths.home(environ)}/.docker", "config.json")
    yield Path(paths.home(environ), ".dockercfg")


def _keys(hosts: tuple[str, ...], repository: str) -> Iterator[str]:
    """The longest prefix first: `host/team/kit`, `host/team`, `host`."""
    parts = repository.split("/") if repository else []
    for count in range(len(parts), -1, -1):
        for host in hosts:
            yield "/".join([host, *parts[:count]])


def _legacy_keys(file: CredentialFile, hosts: tuple[str, ...]) -> Iterator[str]:
    """Keys with a scheme, or with the path of an old API: `https://host/v1/`."""
    for key in file.auths:
        bare = key.removeprefix("https://").removeprefix("http://")
        host, _, path = bare.partition("/")
        if host in hosts and (bare != key or path.strip("/") in {"v1", "v2"}):
            yield key
