"""The second origin: signed URLs as a CDN or an object store gives them."""

import dataclasses
from urllib.parse import quote

from fakes.exchange import Ask, Body, Reply, error
from multidict import CIMultiDict


@dataclasses.dataclass
class Redirects:
    """How a registry sends blob requests away, and how the other side answers.

    A signature holds characters that must be sent back as they came: re-quoting the URL breaks it (403). A
    request with Authorization is answered 400, as S3 does. URLs end after `uses` requests or on `expire()`.
    """

    status: int = 307
    uses: int | None = None
    """So many GETs per URL."""
    ranged_only: bool = False
    """Redirect range requests only."""
    base: str = ""
    """Set by the registry: the second origin."""
    issued: int = 0
    _live: dict[str, int | None] = dataclasses.field(default_factory=dict)

    def expire(self) -> None:
        """Every URL so far answers 403 from now on."""
        self._live.clear()

    def sign(self, digest: str) -> str:
        """A fresh URL for a blob."""
        self.issued += 1
        signature = quote(f"a/b+c=={self.issued}", safe="")
        target = f"/signed/{quote(digest, safe='')}?X-Expires=600&X-Signature={signature}"
        self._live[target] = self.uses
        return self.base + target

    def send_away(self, ask: Ask, digest: str) -> Reply | None:
        if self.ranged_only and "Range" not in ask.headers:
            return None
        return Reply(self.status, CIMultiDict(Location=self.sign(digest)))

    def refuse(self, ask: Ask) -> Reply | None:
        """A 400 or 403 of the second origin, or None: serve the blob."""
        if "Authorization" in ask.headers:
            return error(400, "INVALIDREQUEST", "only one auth mechanism allowed")
        target = f"{ask.path}?{ask.query_string}"
        left = self._live.get(target, 0)
        if left == 0:
            return error(403, "ACCESSDENIED", "signature does not match, or it has expired")
        if left is not None:
            self._live[target] = left - 1
        return None


def serve_range(ask: Ask, data: Body, headers: CIMultiDict[str]) -> Reply:
    """A blob or the range of it that was asked for (RFC 9110, section 14), as distribution answers."""
    headers = CIMultiDict(headers)
    headers["Accept-Ranges"] = "bytes"
    if "Range" not in ask.headers:
        return Reply(200, headers, data)
    if ask.range is None:
        return error(416, "RANGE_INVALID", Content_Range=f"bytes */{len(data)}")
    first, last = ask.range
    stop = len(data) if last is None else min(last + 1, len(data))
    if first >= stop:
        return error(416, "RANGE_INVALID", Content_Range=f"bytes */{len(data)}")
    headers["Content-Range"] = f"bytes {first}-{stop - 1}/{len(data)}"
    return Reply(206, headers, memoryview(data)[first:stop])
