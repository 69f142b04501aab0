"""What a workspace speaks of, and how much of it goes into one frame."""

from collections.abc import Iterable, Iterator, Sequence
from typing import Literal, NamedTuple, TypeVar

import msgspec

from kitd_client.api.workspace import ROWS_LIMIT, EntryRow, FileRow, MemberRow, decode_path, encode_path

FRAME_BYTES = 1 << 20
"""Paths and data in one request; far below the limit of a frame, so that the encoding always fits."""

Row = TypeVar("Row", bytes, FileRow, MemberRow)


class ScannedEntry(msgspec.Struct, frozen=True, gc=False):
    """One entry of a directory; a link is not followed."""

    name: str
    kind: Literal["file", "dir", "symlink", "other"]
    mode: int
    size: int
    error: str = ""
    """Why nothing more is known of it."""


class Listing(msgspec.Struct, frozen=True):
    """What a directory holds, in no order."""

    directory: str
    entries: list[ScannedEntry]
    error: str = ""
    """Why it could not be listed, or not to its end."""


class FileToRead(NamedTuple):
    """A file by its path in the directory, and its size as scanned."""

    path: str
    size: int


class MemberToWrite(NamedTuple):
    """A directory or a file to make; directories come before what is in them."""

    path: str
    is_dir: bool
    mode: int
    size: int
    data: bytes | None = None
    """The content itself, at most 1 MiB, for a file that no object has: identical in the directory, it may
    stay."""

    @property
    def is_lent(self) -> bool:
        """Its content comes by a descriptor."""
        return not self.is_dir and self.data is None and self.size > 0


class CheckReply(msgspec.Struct, frozen=True):
    skipped: frozenset[int]
    """Indexes of members that are there already and stay as they are: not to be written."""


def entry(row: EntryRow) -> ScannedEntry:
    return ScannedEntry(decode_path(row.name), row.kind, row.mode, row.size, row.error)


def file_row(file: FileToRead) -> FileRow:
    return FileRow(encode_path(file.path), file.size)


def member_row(member: MemberToWrite) -> MemberRow:
    return MemberRow(encode_path(member.path), member.is_dir, member.mode & 0o7777, member.size, member.data)


def _weight(row: bytes | FileRow | MemberRow) -> int:
    if isinstance(row, bytes):
        return len(row)
    data = row.data if isinstance(row, MemberRow) else None
    return len(row.path) + len(data or b"")


def frames(rows: Iterable[Row]) -> Iterator[list[Row]]:
    """The rows in lists that fit one frame each."""
    batch: list[Row] = []
    weight = 0
    for row in rows:
        if batch and (len(batch) == ROWS_LIMIT or weight + _weight(row) > FRAME_BYTES):
            yield batch
            batch, weight = [], 0
        batch.append(row)
        weight += _weight(row)
    if batch:
        yield batch


class Cutter:
    """Cuts a stream of files, one after the other, at their borders."""

    def __init__(self, files: Sequence[FileRow], first: int) -> None:
        self._files = files
        self._first = first
        self._index = 0
        self._left = files[0].size if files else 0

    def cut(self, view: memoryview) -> list[tuple[int, memoryview]]:
        """The parts of `view` with the indexes of their files; empty files have none."""
        parts: list[tuple[int, memoryview]] = []
        while view:
            while not self._left:
                self._index += 1
                self._left = self._files[self._index].size
            part = view[: self._left]
            parts.append((self._first + self._index, part))
            self._left -= len(part)
            view = view[len(part) :]
        return parts
