"""Blob uploads, by the specification and with the manners of real registries."""

import dataclasses
import hashlib
import re

from fakes.exchange import Ask, Body, Reply, error
from multidict import CIMultiDict

_CONTENT_RANGE = re.compile(r"(\d+)-(\d+)\Z")


@dataclasses.dataclass
class UploadQuirks:
    """What real registries do otherwise; the default is the specification."""

    early_201: bool = False
    """A first PATCH is answered 201 as if all were done (ECR); the session is gone."""
    stale_range: bool = False
    """`Range` always tells the end of the first chunk (ECR), though the rest is stored."""
    short_range: int = 0
    """`Range` after a PATCH tells so many bytes less, and only those before are kept (zot)."""
    out_of_order: bool = False
    """Content-Range is not looked at: any chunk is appended (distribution 2.8)."""
    keep_partial: bool = False
    """What arrived of a broken PATCH is kept, and the session can go on from there."""
    chunk_limit: int | None = None
    """A larger PATCH is 416 with GHCR's text."""
    too_large: int | None = None
    """A larger body (PATCH or PUT) is 413."""
    no_chunks: bool = False
    """PATCH is 405 (GAR)."""
    chunk_min: int | None = None
    """OCI-Chunk-Min-Length; a smaller PATCH is 416 (the last bytes come with the PUT or may be short)."""
    relative: bool = False
    """Location without scheme and host."""
    location_base: str = ""
    """Location on this origin (`{other}`: the second one), which takes the upload without Authorization."""
    state: bool = True
    """Location carries a state that changes with each request; an old one is 404 (distribution)."""
    mount: int = 201
    """201: mounted when the source has the blob, else a session; any other status: always that one."""


@dataclasses.dataclass
class _Session:
    repository: str
    data: bytearray = dataclasses.field(default_factory=bytearray)
    first_end: int = 0
    turn: int = 0


class Uploads:
    """The sessions of one registry."""

    def __init__(self, quirks: UploadQuirks) -> None:
        self.quirks = quirks
        self.other_base = ""
        self._sessions: dict[str, _Session] = {}
        self._opened = 0

    def forget(self) -> None:
        """All sessions are gone: the next request to one is 404 BLOB_UPLOAD_UNKNOWN."""
        self._sessions.clear()

    @property
    def open_sessions(self) -> int:
        return len(self._sessions)

    def start(self, ask: Ask, repository: str) -> Reply:
        self._opened += 1
        name = f"session-{self._opened}"
        self._sessions[name] = _Session(repository)
        return self._accepted(ask, name, 202)

    def serve(self, ask: Ask, repository: str, name: str) -> Reply | tuple[str, Body]:
        """A reply, or the digest and the bytes of a blob that is complete now."""
        session = self._sessions.get(name)
        if session is None or session.repository != repository:
            return error(404, "BLOB_UPLOAD_UNKNOWN")
        if self.quirks.state and ask.first("_state") != str(session.turn):
            return error(404, "BLOB_UPLOAD_INVALID", "this is not the latest Location")
        if self.quirks.too_large is not None and len(ask.body) > self.quirks.too_large:
            return error(413, "SIZE_INVALID")
        match ask.method:
            case "GET":
                found: Reply | tuple[str, Body] = self._accepted(ask, name, 204)
            case "DELETE":
                del self._sessions[name]
                found = Reply(204)
            case "PATCH":
                found = self._patch(ask, name, session)
            case "PUT":
                found = self._put(ask, name, session)
            case _:
                found = error(405, "UNSUPPORTED")
        return found

    def _patch(self, ask: Ask, name: str, session: _Session) -> Reply:
        refused = self._chunk_refused(ask, session)
        if refused is not None:
            return refused
        if not ask.whole:
            session.data += ask.body if self.quirks.keep_partial else b""
            return error(400, "BLOB_UPLOAD_INVALID", "body ended early")
        if self.quirks.early_201:
            del self._sessions[name]
            return Reply(201, CIMultiDict({"Content-Length": "0"}))
        session.data += ask.body
        if self.quirks.short_range:
            del session.data[-self.quirks.short_range :]
        session.first_end = session.first_end or len(session.data)
        session.turn += 1
        return self._accepted(ask, name, 202)

    def _chunk_refused(self, ask: Ask, session: _Session) -> Reply | None:
        quirks = self.quirks
        if quirks.no_chunks:
            return error(405, "UNSUPPORTED")
        if quirks.chunk_limit is not None and len(ask.body) > quirks.chunk_limit:
            told = f"chunk exceeds the maximum permissible limit of {quirks.chunk_limit / 2**20:.2f}MiB"
            return error(416, "RANGE_INVALID", told)
        if quirks.chunk_min is not None and ask.whole and len(ask.body) < quirks.chunk_min:
            return error(416, "RANGE_INVALID", "chunk is below OCI-Chunk-Min-Length")
        return None if quirks.out_of_order else _misplaced(ask, len(session.data))

    def _put(self, ask: Ask, name: str, session: _Session) -> Reply | tuple[str, Body]:
        if not ask.whole:
            return error(400, "BLOB_UPLOAD_INVALID", "body ended early")
        digest = ask.first("digest")
        data = bytes(session.data) + ask.body
        if digest != "sha256:" + hashlib.sha256(data).hexdigest():
            del self._sessions[name]
            return error(400, "DIGEST_INVALID")
        del self._sessions[name]
        return digest, data

    def _accepted(self, ask: Ask, name: str, status: int) -> Reply:
        session, quirks = self._sessions[name], self.quirks
        path = f"/v2/{session.repository}/blobs/uploads/{name}"
        query = f"?_state={session.turn}" if quirks.state else ""
        base = quirks.location_base.replace("{other}", self.other_base) or ask.base
        end = session.first_end if quirks.stale_range else len(session.data)
        headers = CIMultiDict(
            {
                "Location": ("" if quirks.relative else base) + path + query,
                "Range": _told(end),
                "Docker-Upload-UUID": name,
                "Content-Length": "0",
            }
        )
        if quirks.chunk_min is not None:
            headers["OCI-Chunk-Min-Length"] = str(quirks.chunk_min)
        return Reply(status, headers)


def _told(size: int) -> str:
    """How registries tell what they have; nothing and one byte look the same."""
    return f"0-{max(size - 1, 0)}"


def _misplaced(ask: Ask, size: int) -> Reply | None:
    """A chunk whose Content-Range does not go on where the session ends, or does not fit its body."""
    text = ask.headers.get("Content-Range")
    if text is None:
        return None
    match = _CONTENT_RANGE.fullmatch(text)
    if match is None:
        return error(400, "BLOB_UPLOAD_INVALID", f"Content-Range {text!r}")
    first, last = int(match[1]), int(match[2])
    if first != size:
        return error(416, "RANGE_INVALID", Range=_told(size))
    if ask.whole and last - first + 1 != len(ask.body):
        return error(400, "SIZE_INVALID", "Content-Range does not fit the body")
    return None
