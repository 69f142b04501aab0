"""TLS contexts of routes."""

import os
import ssl

from kitd.registry.route import Trust
from kitd_client.api.errors import InvalidRequest


def tls_context(trust: Trust) -> ssl.SSLContext:
    """A TLS client context; takes some 20 ms, so make it in a thread and share it.

    Raises:
        InvalidRequest: a certificate or key cannot be read.
    """
    context = ssl.create_default_context()
    if not trust.verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    try:
        if trust.ca_pem:
            context.load_verify_locations(cadata=trust.ca_pem)
    except (ssl.SSLError, ValueError) as error:
        raise InvalidRequest("the certificates given as authorities are no PEM certificates") from error
    try:
        if trust.client_certificate_pem:
            _load_client_certificate(context, trust.client_certificate_pem)
    except (ssl.SSLError, OSError) as error:
        raise InvalidRequest(
            "the client certificate and its key are no matching, unencrypted PEM pair"
        ) from error
    return context


def _load_client_certificate(context: ssl.SSLContext, pem: str) -> None:
    """OpenSSL reads files only; this one lives in memory and has no name."""
    descriptor = os.memfd_create("client-certificate", os.MFD_CLOEXEC)
    with os.fdopen(descriptor, "wb") as file:
        file.write(pem.encode())
        file.flush()
        context.load_cert_chain(f"/proc/self/fd/{descriptor}", password=lambda: "")
