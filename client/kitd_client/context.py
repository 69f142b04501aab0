"""What a request brings along of its caller's world: credentials, certificates, proxy."""

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

import msgspec

from kitd_client.api.errors import ConfigurationInvalid
from kitd_client.api.jobs import Context, Credential
from kitd_client.credentials import CredentialFiles
from kitd_client.proxies import proxy_for
from kitd_client.references import Name
from kitd_client.transport import ignore

_PEM_LIMIT = 4 << 20


class Network(msgspec.Struct, frozen=True, kw_only=True):
    """How registries are to be reached, as the network flags of `kit` say it."""

    plain_http: bool = False
    """Speak http. On loopback the daemon finds out by itself."""
    tls_verify: bool = True
    ca_files: tuple[str, ...] = ()
    """PEM files of certificate authorities to trust beside the system's."""
    certificate: str = ""
    """PEM file of a client certificate; `KITOPS_CLIENT_CERT` goes before it, as with kit."""
    key: str = ""
    """PEM file of its key; `KITOPS_CLIENT_KEY` goes before it, as with kit."""
    proxy: str = ""
    """URL of a proxy; given here it is used for every registry, whatever `NO_PROXY` says."""
    authfile: str = ""
    """The one file to read credentials from."""


def make_context(
    names: Iterable[Name],
    network: Network,
    *,
    environ: Mapping[str, str],
    notice: Callable[[str], None] = ignore,
    credentials: dict[str, Credential] | None = None,
) -> Context:
    """Collects what the daemon needs to act for this caller.

    Args:
        names: the repositories whose credentials are looked up; the first with a registry chooses the proxy.
        network: the flags.
        environ: the environment.
        notice: takes warnings about credential files and helpers that do not work.
        credentials: those to send; none: they are looked up.

    Raises:
        ConfigurationInvalid: a file that was named cannot be used.
    """
    remote = [name for name in names if name.registry]
    if credentials is None:
        credentials = find_credentials(remote, network, environ=environ, notice=notice)
    proxy = network.proxy
    if remote and not proxy:
        proxy = proxy_for(remote[0].registry, environ, plain_http=network.plain_http)
    return Context(
        credentials=credentials,
        plain_http=network.plain_http,
        tls_verify=network.tls_verify,
        ca_pem="".join(_read_pem(path, "CERTIFICATE") for path in network.ca_files),
        client_certificate_pem=_client_certificate(network, environ),
        proxy=proxy,
    )


def find_credentials(
    names: Iterable[Name],
    network: Network,
    *,
    environ: Mapping[str, str],
    notice: Callable[[str], None] = ignore,
) -> dict[str, Credential]:
    """The credentials of these repositories, by registry; those that have none are left out.

    Raises:
        ConfigurationInvalid: the file that was named cannot be used.
    """
    files = CredentialFiles(environ, authfile=network.authfile, notice=notice)
    found = {name.registry: files.find(name.registry, name.repository) for name in names if name.registry}
    return {registry: credential for registry, credential in found.items() if credential is not None}


def source_date_epoch(environ: Mapping[str, str]) -> int | None:
    """The time that a kit packed here is to bear, seconds; none: now.

    Raises:
        ConfigurationInvalid: `SOURCE_DATE_EPOCH` is no number.
    """
    text = environ.get("SOURCE_DATE_EPOCH")
    if not text:
        return None
    try:
        return int(text)
    except ValueError:
        raise ConfigurationInvalid(f"SOURCE_DATE_EPOCH is {text!r}, which is no number of seconds") from None


def _client_certificate(network: Network, environ: Mapping[str, str]) -> str:
    certificate = environ.get("KITOPS_CLIENT_CERT") or network.certificate
    key = environ.get("KITOPS_CLIENT_KEY") or network.key
    if not certificate and not key:
        return ""
    if not certificate or not key:
        raise ConfigurationInvalid(
            "a client certificate needs both its certificate and its key",
            hint="give --cert and --key, or KITOPS_CLIENT_CERT and KITOPS_CLIENT_KEY",
        )
    private = _read_pem(key, "PRIVATE KEY")
    if "ENCRYPTED" in private:
        raise ConfigurationInvalid(
            f"the key {key} is encrypted", hint="give one without a passphrase", path=key
        )
    return _read_pem(certificate, "CERTIFICATE") + private


def _read_pem(path: str, kind: str) -> str:
    try:
        with Path(path).open("rb") as file:
            text = file.read(_PEM_LIMIT).decode("ascii", "replace")
    except OSError as error:
        raise ConfigurationInvalid(f"{path} cannot be read: {error.strerror}", path=path) from error
    if f"{kind}-----" not in text:
        raise ConfigurationInvalid(f"{path} has no PEM block '{kind}'", path=path)
    return text if text.endswith("\n") else f"{text}\n"
