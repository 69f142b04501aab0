"""The bytes of one blob, in order, on their way into the store.

A plain tar is cut into literals and objects as it comes. The parser has no say in whether a blob is taken
(its digest has): from the first thing it refuses on, the rest of the blob becomes one object.
"""

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Final

from kitd.content import journal
from kitd.content.ahead import STEP
from kitd.content.beside import Beside
from kitd.content.objects import Objects
from kitd.content.unfinished import SLICE, tail_name
from kitd.content.writer import BlobWriter, Sealed
from kitd.layer.tar import TarParser
from kitd.spec.digest import Buffer, Digest
from kitd_client.api.errors import (
    ArchiveInvalid,
    ArchiveTooLarge,
    DigestMismatch,
    KitdError,
    SizeMismatch,
    UnsupportedEntry,
)

LITERALS: Final = 16 << 30
"""Literal bytes of a blob before its rest becomes one object: 3 KiB for each member that an archive may have,
which is a header, padding and a long name. They wait on the disk, compressed."""

_WORTH_A_THREAD: Final = 128 << 10
"""Bytes whose hash takes longer than to wake another thread for it."""

REFUSALS: Final = (ArchiveInvalid, UnsupportedEntry, ArchiveTooLarge)


class Intake:
    """One open blob; one worker thread at a time.

    Args:
        directory: the ingest directory, made if it is not there. What it holds of an earlier life is of no
            account until `resume` (in its own module), except that it decides over `split`.
        objects: where objects are that need not be written again.
        beside: where the blob is hashed while its parts are written.
        split: the blob is a plain tar.
        journaled: a later life may go on with it.
    """

    def __init__(
        self, directory: Path, objects: Objects, beside: Beside, *, split: bool, journaled: bool = True
    ) -> None:
        directory.mkdir(mode=0o700, exist_ok=True)
        if (directory / journal.NAME).exists():
            split = True
        elif (directory / tail_name(0)).exists():
            split = False
        self.split = split
        """Literals and objects; else the whole blob is one object."""
        self.broken = False
        """A write failed: memory is ahead of the disk, and only the disk counts."""
        self.sealed = False
        """It is complete, and somebody may have begun to link its files into the store."""
        self.directory = directory
        self._objects = objects
        self._beside = beside
        self._journaled = journaled
        self._open()

    def _open(self) -> None:
        self.refusal: KitdError | None = None
        """Why the rest of the blob became one object, if that was in this life."""
        self.parser = TarParser() if self.split else None
        """None: what comes belongs to one object, to the end of the blob."""
        self.writer = BlobWriter(
            str(self.directory), self._objects, whole=not self.split, journaled=self._journaled
        )

    @property
    def offset(self) -> int:
        """Bytes of the blob that are here."""
        return self.writer.offset

    def begin(self) -> None:
        """Starts with byte 0; nothing of an earlier life may be there."""
        if not self.split:
            self.writer.begin(None)

    def restart(self) -> None:
        """Drops every byte and starts again with byte 0."""
        self.writer.close()
        remove_all_but(self.directory, set())
        self._open()
        self.begin()
        self.broken = False

    def append(self, pieces: Sequence[Buffer]) -> None:
        """The next bytes of the blob. When this returns, `kill -9` does not lose them any more.

        Raises:
            SizeMismatch: the blob was complete.
            OSError: the disk; the intake is broken then.
        """
        self.broken = True
        slices = [
            memoryview(piece)[start : start + SLICE]
            for piece in pieces
            for start in range(0, len(piece), SLICE)
        ]
        self.hash_while(slices, partial(self._take_all, slices))
        self.writer.flush()
        self.broken = False

    def hash_while(
        self,
        slices: Sequence[memoryview],
        take: Callable[[], None],
        *,
        share: Callable[[], None] | None = None,
    ) -> None:
        """Hashes the next bytes of the blob, and lets `take` write them at the same time if that is worth it.

        Args:
            slices: the bytes.
            take: may go on beside the hashing.
            share: what the hashing thread goes on with when it has done that.
        """

        def hash_all() -> None:
            for part in slices:
                self.writer.hash(part)
            if share is not None:
                share()

        if sum(map(len, slices)) < _WORTH_A_THREAD:
            hash_all()
            take()
        else:
            self._beside.both(hash_all, take)
        if self.writer.small >= STEP:
            self.writer.small = 0
            self._beside.ahead.flush(self.writer.since)

    def _take_all(self, slices: Sequence[memoryview]) -> None:
        for part in slices:
            self._take(part)

    def _take(self, view: memoryview) -> None:
        writer = self.writer
        while view:
            if writer.unfinished is None:
                view = self._frame(view)
                continue
            part = view[: writer.wanted]
            writer.data(part)
            if self.parser is not None:
                self.parser.skip(len(part))
            view = view[len(part) :]

    def _frame(self, view: memoryview) -> memoryview:
        """Takes framing, and a member if all of it is in `view`; what is left."""
        parser = self.parser
        if parser is None:
            raise SizeMismatch(f"{self.directory.name}: more bytes came than the blob has")
        writer = self.writer
        try:
            consumed = parser.next(view).consumed
        except REFUSALS as error:
            consumed = 0
            self.refusal = error
        writer.literal(view[:consumed])
        if writer.literal_bytes > LITERALS:
            self.refusal = ArchiveTooLarge(f"the archive has more than {LITERALS} bytes of headers")
        if self.refusal is not None:
            self.parser = None
            writer.begin_rest()
            return view[consumed:]
        size = parser.remaining
        end = consumed + size
        if size == 0 or end > len(view):
            if size:
                writer.begin(size)
            return view[consumed:]
        writer.object(view[consumed:end])
        parser.skip(size)
        return view[end:]

    def seal(self, expected: Digest | None, size: int | None) -> Sealed:
        """The blob is complete: its size and its digest are what they must be, if that is known.

        Raises:
            SizeMismatch: it has another size; its bytes stay.
            DigestMismatch: it has another digest: `restart`, or drop it.
        """
        if size is not None and self.offset != size:
            raise SizeMismatch(
                f"blob {expected}: {self.offset} bytes came, its descriptor says {size}",
                kept="the bytes that came",
                digest=expected or "",
            )
        found = self.writer.digest()
        if expected is not None and found != expected:
            raise DigestMismatch(
                f"blob {expected}: the bytes that came have the digest {found}",
                kept="nothing of this blob",
                hint="the registry, or something before it, sends other bytes than it was given",
                digest=expected,
            )
        self.broken = True
        sealed = self.writer.seal()
        self.broken = False
        self.sealed = True
        return sealed

    def close(self) -> None:
        """Gives up the descriptors; what is written stays."""
        self.writer.close()


def remove_all_but(directory: Path, names: set[str]) -> None:
    """Unlinks what nobody vouches for."""
    for path in directory.iterdir():
        if path.name not in names:
            path.unlink()
