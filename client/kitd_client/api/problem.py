"""How an error travels."""

import msgspec


class Problem(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    """An error on the wire (RFC 9457 problem details)."""

    code: str
    """One of the codes of `kitd_client.api.errors`; the `type` of RFC 9457 is `about:blank`."""
    title: str
    """What failed, and where."""
    status: int
    """The HTTP status that goes with the code."""
    kept: str | None = None
    """What was kept, if anything had been done."""
    hint: str | None = None
    """What to do next."""
    retryable: bool = False
    detail: dict[str, str | int] = {}
    """The values the title speaks of, by name (host, digest, path, needed, free ...)."""
