"""How Go's net/url reads a URL: kit decides by it what a path or a registry is.

Only what those decisions need: whether it parses, its scheme, its host (RFC 3986, in Go's reading).
"""

import ipaddress
import re

_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*):")
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_ESCAPES = re.compile(r"(?:[^%]|%[0-9A-Fa-f]{2})*+")
_PORT = re.compile(r"(?::[0-9]*)?")
_HOST = re.compile(r"[A-Za-z0-9!\"$&'()*+,;<=>:\[\]_.~\-\u0080-\U0010ffff]*")
_USER = re.compile(r"[A-Za-z0-9\-._:~!$&'()*+,;=%@]*")


def url_scheme_and_host(text: str) -> tuple[str, str] | None:
    """Scheme (lower case) and host of a URL, "" for what it lacks; None where Go's `url.Parse` fails."""
    text, _, fragment = text.partition("#")
    match = _SCHEME.match(text)
    if _CONTROL.search(text) or text.startswith(":") or not _ESCAPES.fullmatch(fragment):
        return None
    scheme = match[1].lower() if match else ""
    rest = (text[match.end() :] if match else text).partition("?")[0]
    if not rest.startswith("/"):
        return _rootless(scheme, rest)
    host: str | None = ""
    if rest.startswith("//") and (scheme or not rest.startswith("///")):
        authority, slash, path = rest[2:].partition("/")
        host = _authority_host(authority)
        rest = slash + path
    return None if host is None or not _ESCAPES.fullmatch(rest) else (scheme, host)


def is_url_host(text: str) -> bool:
    """Whether `text` (without a slash) is a host, maybe with a port, that a URL can carry as it is."""
    return bool(text) and not _CONTROL.search(text) and "@" not in text and _host(text) == text


def _rootless(scheme: str, rest: str) -> tuple[str, str] | None:
    if scheme:
        return scheme, ""
    if ":" in rest.partition("/")[0] or not _ESCAPES.fullmatch(rest):
        return None
    return "", ""


def _authority_host(authority: str) -> str | None:
    user, _, host = authority.rpartition("@")
    if not _USER.fullmatch(user) or not _ESCAPES.fullmatch(user):
        return None
    return _host(host)


def _host(host: str) -> str | None:
    # An escape makes the host differ from its text: good enough for a yes or no, and never a registry.
    plain = re.sub(r"%(?:25|[89A-Fa-f][0-9A-Fa-f])", "\u0080", host)
    if "[" in host[1:] or not _HOST.fullmatch(plain):
        return None
    if host.startswith("["):
        address, bracket, port = host[1:].rpartition("]")
        return plain if bracket and _PORT.fullmatch(port) and _is_ipv6(address) else None
    _, colon, port = host.rpartition(":")
    return plain if _PORT.fullmatch(colon and ":" + port) else None


def _is_ipv6(text: str) -> bool:
    try:
        ipaddress.IPv6Address(text.replace("%25", "%", 1))
    except ValueError:
        return False
    return True
