"""The workspace on the wire: what daemon and client say to each other about the user's directory.

After the upgrade the socket carries frames: a length (u32, big endian), a msgpack body, then raw bytes or
descriptors where the body announces them. The daemon speaks first. Turns are strict: the daemon sends one
request and sends nothing more until the client has answered it in full; `EventFrame` and `End` have no
answer. Paths are bytes, relative to the directory, with `/` between components; the directory itself is the
empty path.
"""

from typing import Annotated, Literal

import msgspec

from kitd_client.api.jobs import Event, Terminal
from kitd_client.api.problem import Problem

VERSION = 1
"""Of this protocol; both ends say theirs and must agree."""
LENGTH_BYTES = 4
REQUEST_LIMIT = 4 << 20
"""Bytes of one body from the daemon."""
ANSWER_LIMIT = (1 << 20) - LENGTH_BYTES
"""Bytes of one body from the client: a frame fits the one buffer that the daemon gives a connection."""
ROWS_LIMIT = 2048
"""Rows in one frame; with the longest names they stay far below the limits of a body."""
SMALL_LIMIT = 1 << 20
"""Bytes of a file that is read whole (Kitfile, .kitignore) or travels inside a request."""
RUN_LIMIT = 64 << 20
"""Bytes announced at once: as much padding as a broken file can cost."""
BATCH_DESCRIPTORS = 64
"""Descriptors in one batch; Linux passes at most 253 in one message."""
SILENCE_SECONDS = 30.0
"""A client that owes an answer and gives no sign of life for so long is gone."""
PULSE_SECONDS = 5.0
"""How often a client says `Alive` while it works."""
STAGING_PREFIX = b".kitd-unpack-"
"""Names in a directory that belong to an unpack under way, or to one that was killed."""

Count = Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)]
Mode = Annotated[int, msgspec.Meta(ge=0, le=0o7777)]
Path = Annotated[bytes, msgspec.Meta(max_length=4096)]
Name = Annotated[bytes, msgspec.Meta(min_length=1, max_length=255)]
Reason = Annotated[str, msgspec.Meta(max_length=1000)]


# -- rows ----------------------------------------------------------------------------------------


class EntryRow(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """One entry of a directory, not followed if it is a link."""

    name: Name
    kind: Literal["file", "dir", "symlink", "other"]
    mode: Mode
    size: Count
    error: Reason = ""
    """Why nothing is known of it; it matters only if the entry is wanted."""


class ListingRow(msgspec.Struct, frozen=True, array_like=True):
    """A directory, or a part of one: a big one comes in several."""

    index: Count
    """Which of the directories asked for."""
    entries: Annotated[list[EntryRow], msgspec.Meta(max_length=ROWS_LIMIT)]
    error: Reason = ""


class FileRow(msgspec.Struct, frozen=True, array_like=True, gc=False):
    path: Path
    size: Count


class MemberRow(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """What is to be made in the directory."""

    path: Path
    is_dir: bool
    mode: Mode
    size: Count
    data: Annotated[bytes, msgspec.Meta(max_length=SMALL_LIMIT)] | None = None
    """The bytes themselves, of a file that no object has (the Kitfile): it may be there already, if it is
    identical."""

    @property
    def is_lent(self) -> bool:
        """A descriptor goes with it."""
        return not self.is_dir and self.data is None and self.size > 0


class ProblemRow(msgspec.Struct, frozen=True, array_like=True):
    """A file that could not be read as announced."""

    index: Count
    kind: Literal["changed", "unreadable", "unsuitable"]
    reason: Reason


class ObstacleRow(msgspec.Struct, frozen=True, array_like=True):
    """A member that cannot be made."""

    index: Count
    kind: Literal["exists", "unsafe"]
    reason: Reason


# -- the daemon asks -----------------------------------------------------------------------------


class Hello(msgspec.Struct, frozen=True, tag="hello"):
    """Answer: `Ready`."""

    version: Count


class Scan(msgspec.Struct, frozen=True, tag="scan"):
    """Answer: `Listings`, until one says that it is the last."""

    directories: list[Path]


class ReadSmall(msgspec.Struct, frozen=True, tag="read-small"):
    """Answer: `Small`, then its bytes."""

    path: Path
    limit: Annotated[int, msgspec.Meta(ge=0, le=SMALL_LIMIT)]


class Read(msgspec.Struct, frozen=True, tag="read"):
    """Answer: `Run`s, each with its bytes, of all files one after the other; then `ReadEnd`."""

    files: list[FileRow]
    item: str = ""
    """The item of the job's progress that these bytes count for: the client tells of it itself while it
    sends."""
    done: Count = 0
    """Bytes of the item done before."""


class Check(msgspec.Struct, frozen=True, tag="check"):
    """Answer: `Checked`."""

    members: list[MemberRow]


class Write(msgspec.Struct, frozen=True, tag="write"):
    """Answer: `Written`. If members are lent, one byte follows with their descriptors, in order."""

    members: list[MemberRow]
    item: str = ""
    done: Count = 0


class Publish(msgspec.Struct, frozen=True, tag="publish"):
    """Answer: `Published`, when all members are safe on disk under their final names."""


class EventFrame(msgspec.Struct, frozen=True, tag="event"):
    event: Event


class End(msgspec.Struct, frozen=True, tag="end"):
    """The last frame; it may come in the middle of a turn, then what was asked is void."""

    terminal: Terminal


Request = Hello | Scan | ReadSmall | Read | Check | Write | Publish | EventFrame | End


# -- the client answers --------------------------------------------------------------------------


class Ready(msgspec.Struct, frozen=True, tag="ready"):
    version: Count


class Listings(msgspec.Struct, frozen=True, tag="listings"):
    listings: Annotated[list[ListingRow], msgspec.Meta(max_length=ROWS_LIMIT)]
    last: bool


class Small(msgspec.Struct, frozen=True, tag="small"):
    size: Annotated[int, msgspec.Meta(ge=0, le=SMALL_LIMIT)] | None
    """Bytes that follow; none: there is no such file."""


class Run(msgspec.Struct, frozen=True, tag="run"):
    length: Annotated[int, msgspec.Meta(ge=1, le=RUN_LIMIT)]
    """Raw bytes that follow."""


class ReadEnd(msgspec.Struct, frozen=True, tag="read-end"):
    problems: Annotated[list[ProblemRow], msgspec.Meta(max_length=ROWS_LIMIT)]
    """Files whose bytes must not be used. If there are any, the rest may not have been sent."""


class Checked(msgspec.Struct, frozen=True, tag="checked"):
    skipped: Annotated[list[Count], msgspec.Meta(max_length=ROWS_LIMIT)]
    """Indexes of the members that are there already and stay."""
    obstacles: Annotated[list[ObstacleRow], msgspec.Meta(max_length=ROWS_LIMIT)]


class Written(msgspec.Struct, frozen=True, tag="written"):
    pass


class Published(msgspec.Struct, frozen=True, tag="published"):
    files: Count
    """Files put in place."""
    skipped: Count
    """Files that had appeared meanwhile and stay (`--ignore-existing`)."""


class Alive(msgspec.Struct, frozen=True, tag="alive"):
    """The client works on; the answer comes later."""


class Refused(msgspec.Struct, frozen=True, tag="refused"):
    """The answer to a request that failed at the client."""

    problem: Problem


Answer = Ready | Listings | Small | Run | ReadEnd | Checked | Written | Published | Alive | Refused


# -- bytes ---------------------------------------------------------------------------------------

_encoder = msgspec.msgpack.Encoder()
_requests: msgspec.msgpack.Decoder[Request] = msgspec.msgpack.Decoder(Request)
_answers: msgspec.msgpack.Decoder[Answer] = msgspec.msgpack.Decoder(Answer)


def encode_frame(frame: Request | Answer) -> bytearray:
    """The frame with its length."""
    buffer = bytearray(LENGTH_BYTES)
    _encoder.encode_into(frame, buffer, LENGTH_BYTES)
    buffer[:LENGTH_BYTES] = (len(buffer) - LENGTH_BYTES).to_bytes(LENGTH_BYTES, "big")
    return buffer


def decode_request(body: bytes | bytearray | memoryview) -> Request:
    """A body from the daemon.

    Raises:
        msgspec.MsgspecError: it is not one.
    """
    return _requests.decode(body)


def decode_answer(body: bytes | bytearray | memoryview) -> Answer:
    """A body from the client.

    Raises:
        msgspec.MsgspecError: it is not one.
    """
    return _answers.decode(body)


def encode_path(path: str) -> bytes:
    """A path as it travels; names that are no UTF-8 are held by surrogate escapes inside the daemon."""
    return path.encode("utf-8", "surrogateescape")


def decode_path(path: bytes) -> str:
    return path.decode("utf-8", "surrogateescape")


def display_path(path: bytes) -> str:
    """A path for people: what a terminal would obey or could not show is escaped."""
    text = path.decode("utf-8", "backslashreplace")
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
