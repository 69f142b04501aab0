"""Going on with a blob where an earlier life of the daemon stopped.

Nothing is believed: every byte is read and hashed again, in the order of the blob, and what does not fit is
dropped with all that follows it.
"""

import hashlib
import os
from collections.abc import Generator
from typing import Final

from kitd.content import journal
from kitd.content.intake import REFUSALS, Intake, remove_all_but
from kitd.content.journal import Written
from kitd.content.objects import seal_file
from kitd.content.unfinished import SLICE, tail_name
from kitd.content.workers import Steps
from kitd.spec.digest import Digest, digest_hex

_STEP: Final = 32 << 20
"""Bytes read again in one go."""


class _Misfit(Exception):
    """The journal tells what cannot be."""


def resume(intake: Intake, digest: Digest) -> Steps:
    """Takes up what is in the intake's directory; at the end `intake.offset` says how much that was."""
    resumption = _Resumption(intake)
    try:
        if intake.split:
            yield from resumption.split()
        else:
            yield from resumption.whole(digest)
    except _Misfit:
        intake.restart()
    else:
        remove_all_but(intake.directory, resumption.kept)
        if intake.writer.wanted == 0:
            intake.writer.complete()


class _Resumption:
    def __init__(self, intake: Intake) -> None:
        self._intake = intake
        self._writer = intake.writer
        self._rest_is_here = False
        self.kept: set[str] = set()

    def whole(self, digest: Digest) -> Steps:
        name = digest_hex(digest)
        complete = self._intake.directory / name
        # Only a blob that was verified gets its name, and it may have been linked into the store already:
        # it must never be opened for writing.
        if complete.exists() and (yield from self._hash_again(str(complete), complete.stat().st_size, name)):
            self.kept.add(name)
        else:
            yield from self._tail(None)

    def split(self) -> Steps:
        self.kept.add(journal.NAME)
        written = self._writer.journal
        if written is not None:
            for position, records in written.frames():
                if not (yield from self._frame(records)):
                    written.cut(position)
                    written.flush()
                    break
        parser = self._intake.parser
        if parser is None:
            if not self._rest_is_here:
                yield from self._tail(None)
        elif parser.remaining:
            yield from self._tail(parser.remaining)

    def _frame(self, records: list[Written]) -> Generator[None, None, bool]:
        """Whether all records of a frame hold; those before the first that does not count again."""
        for record in records:
            if record.kind == "literal":
                self._literal(record.data)
            elif record.kind == "rest":
                self._intake.parser = None
                self._writer.note_rest()
            elif not (yield from self._object(record)):
                return False
        return True

    def _literal(self, data: bytes) -> None:
        parser = self._intake.parser
        if parser is None:
            raise _Misfit
        view = memoryview(data)
        try:
            while view:
                if parser.remaining:
                    raise _Misfit
                view = view[parser.next(view).consumed :]
        except REFUSALS as error:
            raise _Misfit from error
        self._writer.hash(data)
        self._writer.literal(data)

    def _object(self, record: Written) -> Generator[None, None, bool]:
        parser = self._intake.parser
        if parser is not None and parser.remaining != record.size:
            raise _Misfit
        name = digest_hex(record.digest)
        path = self._intake.directory / name
        tail = self._intake.directory / tail_name(self._writer.position)
        if not path.exists() and tail.exists():
            tail.rename(path)
        if not (yield from self._hash_again(str(path), record.size, name)):
            return False
        self.kept.add(name)
        self._writer.refer(record.digest, record.size)
        if parser is None:
            self._rest_is_here = True
        else:
            parser.skip(record.size)
        return True

    def _hash_again(self, path: str, size: int, name: str) -> Generator[None, None, bool]:
        """Whether a file is the object `name`; then its bytes count as the next of the blob."""
        writer = self._writer
        before, start = writer.hasher.copy(), writer.offset
        hasher = hashlib.sha256()
        try:
            descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            return False
        try:
            while piece := os.pread(descriptor, SLICE, writer.offset - start):
                hasher.update(piece)
                writer.hash(piece)
                if (writer.offset - start) % _STEP == 0:
                    yield
            if writer.offset - start == size and hasher.hexdigest() == name:
                seal_file(descriptor)
                return True
        finally:
            os.close(descriptor)
        writer.hasher, writer.offset = before, start
        return False

    def _tail(self, size: int | None) -> Steps:
        writer = self._writer
        name = tail_name(writer.position)
        self.kept.add(name)
        if not (self._intake.directory / name).exists():
            writer.begin(size)
            return
        descriptor = writer.take_up(size)
        end = os.fstat(descriptor).st_size
        if size is not None:
            end = min(end, size)
        # Also where it has that size: a daemon that was killed left the room that it took ahead.
        os.ftruncate(descriptor, end)
        offset = 0
        while offset < end:
            piece = os.pread(descriptor, SLICE, offset)
            writer.read_again(piece)
            offset += len(piece)
            if offset % _STEP == 0:
                yield
        if self._intake.parser is not None:
            self._intake.parser.skip(offset)
