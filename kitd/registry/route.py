"""Routes: what must be equal for two requests to share connections, waits and memory."""

import re
from dataclasses import dataclass

from yarl import URL

from kitd.registry.redirect import Reach, http_url, literal_reach
from kitd_client.api.errors import InvalidReference, InvalidRequest
from kitd_client.api.jobs import Context, Credential

_REGISTRY = re.compile(r"(?:[A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\])(?::\d{1,5})?")
_HUB = "registry-1.docker.io"
_HUB_NAMES = ("docker.io", "index.docker.io", _HUB, "https://index.docker.io/v1/")


@dataclass(frozen=True, slots=True, repr=False)
class Trust:
    """Whom TLS believes, and as whom we come. Has a key in it, so it does not show itself."""

    ca_pem: str = ""
    """Certificates believed beside those of the system."""
    client_certificate_pem: str = ""
    verify: bool = True


@dataclass(frozen=True, slots=True, repr=False)
class Route:
    """One way to one origin. May have the credentials of a proxy in it, so it does not show itself."""

    scheme: str
    host: str
    port: int
    proxy: str
    """URL, with credentials if it needs some; empty: none."""
    trust: Trust
    limit: Reach
    """No connection is made to an address nearer than this; a proxy looks up names itself, so there only
    addresses that stand in the URL are judged."""

    @property
    def origin(self) -> URL:
        return URL.build(scheme=self.scheme, host=self.host, port=self.port)

    @property
    def needs_tls(self) -> bool:
        """Whether TLS is spoken on it, with the host or with the proxy."""
        return self.scheme == "https" or self.proxy[:6].lower() == "https:"

    @property
    def name(self) -> str:
        """The host for people, with its port where that is not the usual one."""
        return self.origin.host_port_subcomponent or self.host


def api_host(registry: str) -> str:
    """The `host[:port]` that answers for a registry: its name, but for Docker Hub."""
    return _HUB if registry in _HUB_NAMES else registry


def credential_for(registry: str, context: Context) -> Credential | None:
    """What the caller brought along for a registry; Docker Hub has several names."""
    names = _HUB_NAMES if registry in _HUB_NAMES else (registry,)
    return next((context.credentials[name] for name in names if name in context.credentials), None)


def is_loopback(registry: str) -> bool:
    """Whether a registry's name says that it is on this machine."""
    host = URL.build(scheme="http", authority=registry).host
    return host is not None and literal_reach(host) is Reach.LOOPBACK


def own_route(registry: str, context: Context, scheme: str) -> Route:
    """The route to a registry that the user named.

    Raises:
        InvalidReference: the registry is no `host[:port]`.
        InvalidRequest: the proxy is no http or https URL.
    """
    url = http_url(f"{scheme}://{api_host(registry)}") if _REGISTRY.fullmatch(registry) else None
    if url is None:
        raise InvalidReference(f"registry {registry!r} is no host or host:port")
    trust = Trust(context.ca_pem, context.client_certificate_pem, context.tls_verify)
    return Route(
        scheme, url.raw_host or "", url.port or 0, _checked_proxy(context.proxy), trust, Reach.ANYWHERE
    )


def foreign_route(own: Route, url: URL, limit: Reach) -> Route:
    """The route to a place that a registry sends us to: same proxy and authorities, no client certificate."""
    host, port = url.raw_host or "", url.port or 0
    certificate = own.trust.client_certificate_pem if host == own.host else ""
    trust = Trust(own.trust.ca_pem, certificate, own.trust.verify)
    return Route(url.scheme, host, port, own.proxy, trust, own.limit if host == own.host else limit)


def _checked_proxy(proxy: str) -> str:
    if not proxy:
        return ""
    try:
        url = URL(proxy)
        usable = url.scheme in {"http", "https"} and bool(url.host)
    except ValueError:
        usable = False
    if not usable:
        raise InvalidRequest("the proxy is no http or https URL", hint="socks proxies are not supported")
    return proxy
