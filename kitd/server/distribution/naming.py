"""What a request speaks of: `/v2/NAME` is the local kit NAME; with `?ns=HOST`, read-only, `HOST/NAME`."""

from aiohttp import web

from kitd.server.distribution.refusal import Refusal
from kitd.spec.reference import Reference, parse_reference
from kitd_client.api.errors import InvalidReference

ANY_TAG = "latest"
"""Where only the repository counts."""


def reference_of(request: web.Request, name_or_digest: str) -> Reference:
    """A local kit, or one of the registry that `ns` names (a mirror is asked so); or `InvalidReference`."""
    mark = "@" if ":" in name_or_digest else ":"
    name, space = request.match_info["name"], request.query.get("ns")
    if space is None:
        reference = parse_reference(f"{name}{mark}{name_or_digest}")
        if not reference.is_local or reference.repository != name:
            raise InvalidReference(f"{name} is no name of this registry: it begins like a host's")
        return reference
    reference = parse_reference(f"{space}/{name}{mark}{name_or_digest}")
    if reference.registry != space:
        raise InvalidReference(f"ns={space} is no registry")
    return reference


def own_reference(request: web.Request, name_or_digest: str) -> Reference:
    """The same where something is written: what is said to be another registry's comes from there."""
    if "ns" in request.query:
        raise Refusal(405, "UNSUPPORTED", "what belongs to another registry is read here, not written")
    return reference_of(request, name_or_digest)


def own_name(request: web.Request) -> str:
    """The repository that a request writes to."""
    return own_reference(request, ANY_TAG).repository
