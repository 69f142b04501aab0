"""Which proxy a registry is reached through: the rules of Go's `http.ProxyFromEnvironment`, as of kit."""

import ipaddress
from collections.abc import Mapping

_IpAddress = ipaddress.IPv4Address | ipaddress.IPv6Address


def proxy_for(registry: str, environ: Mapping[str, str], *, plain_http: bool = False) -> str:
    """The proxy's URL for a registry (`host` or `host:port`), or an empty string for none.

    `HTTPS_PROXY`, for plain http `HTTP_PROXY`, then `ALL_PROXY`; upper case before lower case, except that a
    CGI program takes no `HTTP_PROXY` (a request header could have set it). `NO_PROXY` lists names (with their
    subdomains), `*.names` and `.names` (subdomains alone), addresses, CIDR blocks, names and addresses
    with an optional port, or `*`. Loopback is never reached through a proxy.
    """
    host, port = _split(registry)
    names = ["HTTP_PROXY", "http_proxy"] if plain_http else ["HTTPS_PROXY", "https_proxy"]
    if "REQUEST_METHOD" in environ and plain_http:
        names.remove("HTTP_PROXY")
    proxy = next((environ[name] for name in (*names, "ALL_PROXY", "all_proxy") if environ.get(name)), "")
    if not proxy or _is_loopback(host):
        return ""
    exceptions = environ.get("NO_PROXY") or environ.get("no_proxy") or ""
    port = port or ("80" if plain_http else "443")
    if any(_covers(entry.strip().lower(), host, port) for entry in exceptions.split(",")):
        return ""
    return proxy if "://" in proxy else f"http://{proxy}"


def _covers(entry: str, host: str, port: str) -> bool:
    if entry in {"", "*"}:
        return bool(entry)
    address = _address(host)
    if "/" in entry:
        return address is not None and _in_block(entry, address)
    name, wanted_port = _split(entry)
    if wanted_port and wanted_port != port:
        return False
    if address is not None:
        return _address(name) == address
    if name.startswith(("*.", ".")):
        return host.endswith(name.removeprefix("*"))
    return host == name or host.endswith(f".{name}")


def _split(registry: str) -> tuple[str, str]:
    """Host in lower case without brackets and final dot, and port."""
    text = registry.lower()
    if text.startswith("["):
        host, _, rest = text[1:].partition("]")
        return host, rest.removeprefix(":")
    if text.count(":") > 1:
        return text, ""
    host, _, port = text.partition(":")
    return host.rstrip("."), port


def _address(host: str) -> _IpAddress | None:
    try:
        return ipaddress.ip_address(host)
    except ValueError:
        return None


def _in_block(block: str, address: _IpAddress) -> bool:
    try:
        return address in ipaddress.ip_network(block, strict=False)
    except ValueError:
        return False


def _is_loopback(host: str) -> bool:
    address = _address(host)
    return host == "localhost" if address is None else address.is_loopback
