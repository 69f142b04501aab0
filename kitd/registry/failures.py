"""What the HTTP client raises, as errors of ours."""

import os
import ssl

import aiohttp

from kitd.registry.redirect import Reach, literal_reach
from kitd.registry.route import Route
from kitd_client.api.errors import (
    KitdError,
    RedirectBlocked,
    RegistryProtocol,
    RegistryUnavailable,
    TlsFailed,
)

_NO_TLS = frozenset(
    {
        "HTTP_REQUEST",
        "PACKET_LENGTH_TOO_LONG",
        "RECORD_LAYER_FAILURE",
        "UNKNOWN_PROTOCOL",
        "UNSUPPORTED_PROTOCOL",
        "WRONG_VERSION_NUMBER",
    }
)
"""What OpenSSL says of an answer that is no TLS record; a peer that speaks TLS and refuses sends an alert."""


_CERTIFICATE_WANTED = "if the registry wants a client certificate, give it with --cert and --key"
"""TLS 1.3 tells so after the handshake, when all that is seen is an end."""


class Unreachable(RegistryUnavailable):
    """There was no connection: nothing was sent."""


class PeerSpeaksNoTls(TlsFailed):
    """The peer answered a TLS hello with something else."""


class AddressBlockedError(OSError):
    """The connector was about to connect to an address that a redirect may not reach."""


def translate(error: Exception, route: Route) -> KitdError:
    """The error that a failed request stands for; `RegistryUnavailable` ones may be tried again."""
    match error:
        case aiohttp.ClientConnectorCertificateError():
            found: KitdError = _untrusted(error.certificate_error, route)
        case aiohttp.ClientConnectorSSLError():
            found = _no_handshake(error.os_error, route)
        case aiohttp.ClientConnectorError():
            found = _no_connection(error, route)
        case aiohttp.ClientHttpProxyError():
            found = RegistryUnavailable(f"the proxy answered {error.status} to a connection to {route.name}")
        case aiohttp.ConnectionTimeoutError():
            found = _no_handshake_begun(f"{route.name} took no connection in time", route)
        case TimeoutError():
            found = RegistryUnavailable(f"{route.name} did not answer in time", host=route.name)
        case aiohttp.ClientConnectionError() | OSError():
            anonymous = route.scheme == "https" and not route.trust.client_certificate_pem
            found = RegistryUnavailable(
                f"{route.name} closed the connection before it answered",
                hint=_CERTIFICATE_WANTED if anonymous else None,
                host=route.name,
            )
        case aiohttp.ClientResponseError():
            found = RegistryProtocol(f"{route.name} sent what is no HTTP", host=route.name)
        case _:
            found = RegistryProtocol(f"{route.name} cannot be asked: {type(error).__name__}", host=route.name)
    return found


def _no_connection(error: aiohttp.ClientConnectorError, route: Route) -> KitdError:
    cause = error.os_error
    if isinstance(cause, AddressBlockedError):
        return RedirectBlocked(str(cause), host=route.name)
    if isinstance(error, aiohttp.ClientProxyConnectionError):
        return Unreachable("the proxy cannot be reached", hint="check --proxy and the proxy variables")
    if isinstance(error, aiohttp.ClientConnectorDNSError):
        return Unreachable(
            f"{route.name}: no such host is known, or the name service does not answer", host=route.name
        )
    if isinstance(cause, ConnectionError) and not isinstance(cause, ConnectionRefusedError):
        return _no_handshake_begun(f"{route.name} closed the connection before it was up", route)
    reason = (os.strerror(cause.errno) if cause.errno else str(cause)).lower()
    return Unreachable(f"{route.name} cannot be reached: {reason}", host=route.name)


def _untrusted(error: Exception, route: Route) -> KitdError:
    reason = error.verify_message if isinstance(error, ssl.SSLCertVerificationError) else str(error)
    return TlsFailed(
        f"{route.name}: its certificate is not accepted: {reason}",
        hint="name its authority with --ca-file, or accept any certificate with --tls-verify=false",
        host=route.name,
    )


def _no_handshake(error: OSError, route: Route) -> KitdError:
    reason = getattr(error, "reason", None) or ""
    if isinstance(error, ssl.SSLEOFError) or reason == "UNEXPECTED_EOF_WHILE_READING":
        return _no_handshake_begun(f"{route.name} closed the connection before it was up", route)
    if reason in _NO_TLS:
        return PeerSpeaksNoTls(
            f"{route.name} does not speak TLS",
            hint="if it is meant to be so, use --plain-http",
            host=route.name,
        )
    words = reason.replace("_", " ").lower() or "the handshake failed"
    return TlsFailed(f"{route.name}: no TLS connection: {words}", hint=_CERTIFICATE_WANTED, host=route.name)


def _no_handshake_begun(message: str, route: Route) -> KitdError:
    """On this machine, where TLS is only a guess, a server that hangs up or waits at a TLS hello speaks none."""
    if route.scheme == "https" and literal_reach(route.host) is Reach.LOOPBACK:
        return PeerSpeaksNoTls(message, host=route.name)
    return Unreachable(message, host=route.name)
