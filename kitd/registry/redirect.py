"""Where a registry may send us. Pure rules; the connector holds to them at connect, so no name rebinds."""

import ipaddress
import re
from enum import IntEnum
from typing import TypeAlias

from yarl import URL

from kitd_client.api.errors import RedirectBlocked

MAXIMUM_HOPS = 5

_PRINTABLE = re.compile(r"[\x21-\x7e]{1,8000}")
_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")
_METADATA = frozenset({ipaddress.IPv6Address("fd00:ec2::254"), ipaddress.IPv4Address("100.100.100.200")})
"""Metadata services of clouds that are not link-local."""

_Address: TypeAlias = ipaddress.IPv4Address | ipaddress.IPv6Address


class Reach(IntEnum):
    """How near an address is. A host may send us as near as it is itself, and no nearer."""

    PUBLIC = 0
    PRIVATE = 1
    LOOPBACK = 2
    LINK_LOCAL = 3
    """Where clouds keep their metadata services."""
    ANYWHERE = 4
    """As a limit: what the user named himself."""


def reach_of(address: str) -> Reach:
    """How near an IP address is; embedded IPv4 addresses count (mapped, 6to4, NAT64)."""
    return _reach(ipaddress.ip_address(address.partition("%")[0]))


def literal_reach(host: str) -> Reach | None:
    """How near a host is that says so itself: an IP address, a name of this machine. None: look it up."""
    name = host.rstrip(".").lower()
    if name == "localhost" or name.endswith(".localhost"):
        return Reach.LOOPBACK
    try:
        return reach_of(host)
    except ValueError:
        return None


def _reach(address: _Address) -> Reach:
    embedded = _embedded(address)
    if embedded is not None:
        return _reach(embedded)
    if address.is_link_local or address.is_multicast or address in _METADATA:
        return Reach.LINK_LOCAL
    if address.is_loopback or address.is_unspecified:
        return Reach.LOOPBACK
    site_local = isinstance(address, ipaddress.IPv6Address) and address.is_site_local
    return Reach.PUBLIC if address.is_global and not site_local else Reach.PRIVATE


def _embedded(address: _Address) -> ipaddress.IPv4Address | None:
    if isinstance(address, ipaddress.IPv4Address):
        return None
    if address in _NAT64:
        return ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
    return address.ipv4_mapped or address.sixtofour


def same_origin(one: URL, other: URL) -> bool:
    """Scheme, host and port are the same: what a credential may be sent to (RFC 6454)."""
    return one.origin() == other.origin()


def shown(url: URL) -> str:
    """A URL for people: without its query, which may be a signature, and without credentials."""
    return str(url.with_user(None).with_query(None).with_fragment(None))


def resolve_location(base: URL, location: str, limit: Reach) -> URL:
    """The URL that a `Location` header of `base` names, byte for byte as it stands there (it may be signed).

    Raises:
        RedirectBlocked: it is no http(s) URL, has credentials in it, leaves https for http, or names an
            address that is nearer than `limit`.
    """
    sender = base.host or ""
    url = http_url(location, base)
    if url is None:
        raise RedirectBlocked(f"{sender} redirects to what is no http or https URL", host=sender)
    host = url.raw_host or ""
    if url.raw_user is not None or url.raw_password is not None:
        raise RedirectBlocked(f"{sender} redirects to a URL with credentials in it, at {host}", host=sender)
    if base.scheme == "https" and url.scheme == "http":
        raise RedirectBlocked(
            f"{sender} redirects from https to {shown(url)}",
            hint="a registry behind a TLS proxy must be told so (X-Forwarded-Proto, or its external URL)",
            host=sender,
        )
    reach = literal_reach(host)
    if reach is not None and reach > limit and host != base.raw_host:
        raise RedirectBlocked(blocked_address(sender, host, reach), host=sender)
    return url


def http_url(text: str, base: URL | None = None) -> URL | None:
    """An absolute http or https URL, byte for byte as it stands; None: it is none."""
    if not _PRINTABLE.fullmatch(text):
        return None
    try:
        url = URL(text, encoded=True)
        url = url if base is None or (url.absolute and url.scheme) else base.join(url)
        usable = url.scheme in {"http", "https"} and bool(url.raw_host) and url.port is not None
    except ValueError:
        return None
    return url if usable else None


def blocked_address(sender: str, host: str, reach: Reach) -> str:
    """The message for a redirect to an address that is too near."""
    kind = reach.name.lower().replace("_", "-")
    return f"{sender} redirects to {host}, a {kind} address, and is not there itself"
