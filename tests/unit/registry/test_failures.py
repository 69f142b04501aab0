import errno
import ssl

import aiohttp
import pytest
from aiohttp.client_reqrep import ConnectionKey

from kitd.registry.failures import AddressBlockedError, PeerSpeaksNoTls, Unreachable, translate
from kitd.registry.redirect import Reach
from kitd.registry.route import Route, Trust
from kitd_client.api.errors import (
    KitdError,
    RedirectBlocked,
    RegistryProtocol,
    RegistryUnavailable,
    TlsFailed,
)

_FAR = Route("https", "registry.example", 443, "", Trust(), Reach.ANYWHERE)
_HERE = Route("https", "127.0.0.1", 5000, "", Trust(), Reach.ANYWHERE)
_KEY = ConnectionKey("registry.example", 443, True, True, None, None, None, None)


def _tls(reason: str) -> aiohttp.ClientConnectorSSLError:
    error = ssl.SSLError(1, reason)
    error.reason = reason
    return aiohttp.ClientConnectorSSLError(_KEY, error)


@pytest.mark.parametrize(
    ("error", "kind", "words"),
    [
        (_tls("WRONG_VERSION_NUMBER"), PeerSpeaksNoTls, "does not speak TLS"),
        (_tls("HTTP_REQUEST"), PeerSpeaksNoTls, "does not speak TLS"),
        (_tls("TLSV13_ALERT_CERTIFICATE_REQUIRED"), TlsFailed, "tlsv13 alert certificate required"),
        (_tls("SSLV3_ALERT_HANDSHAKE_FAILURE"), TlsFailed, "handshake failure"),
        (_tls("UNEXPECTED_EOF_WHILE_READING"), Unreachable, "before it was up"),
        (aiohttp.ClientConnectorSSLError(_KEY, ssl.SSLError(1, "odd")), TlsFailed, "handshake failed"),
        (
            aiohttp.ClientConnectorError(_KEY, ConnectionResetError(errno.ECONNRESET, "x")),
            Unreachable,
            "before it was up",
        ),
        (
            aiohttp.ClientConnectorError(_KEY, ConnectionRefusedError(errno.ECONNREFUSED, "x")),
            Unreachable,
            "connection refused",
        ),
        (aiohttp.ClientConnectorError(_KEY, OSError("Multiple exceptions")), Unreachable, "multiple"),
        (aiohttp.ClientConnectorError(_KEY, AddressBlockedError("a to b")), RedirectBlocked, "a to b"),
        (aiohttp.ConnectionTimeoutError("x"), Unreachable, "no connection in time"),
        (aiohttp.SocketTimeoutError("x"), RegistryUnavailable, "did not answer in time"),
        (aiohttp.ServerDisconnectedError(), RegistryUnavailable, "closed the connection"),
        (aiohttp.ClientOSError(errno.EPIPE, "x"), RegistryUnavailable, "closed the connection"),
        (aiohttp.InvalidURL("x"), RegistryProtocol, "InvalidURL"),
        (ValueError("x"), RegistryProtocol, "cannot be asked"),
    ],
)
def test_what_the_http_client_raises_becomes_ours(
    error: Exception, kind: type[KitdError], words: str
) -> None:
    found = translate(error, _FAR)
    assert type(found) is kind
    assert words in found.message
    if kind is not RedirectBlocked:
        assert "registry.example" in found.message


def test_on_this_machine_a_cut_handshake_means_no_tls() -> None:
    assert type(translate(_tls("UNEXPECTED_EOF_WHILE_READING"), _HERE)) is PeerSpeaksNoTls


def test_only_what_may_go_better_may_be_retried() -> None:
    assert translate(_tls("UNEXPECTED_EOF_WHILE_READING"), _FAR).retryable
    assert not translate(_tls("SSLV3_ALERT_HANDSHAKE_FAILURE"), _FAR).retryable
