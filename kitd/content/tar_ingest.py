"""Packing a tar: its members are written as they are read, and two threads share the work."""

from collections import deque
from collections.abc import Callable
from functools import partial

from kitd.content.ingest import Commit, LayerResult
from kitd.content.intake import Intake
from kitd.content.unfinished import SLICE
from kitd.content.workers import Workers
from kitd.content.writer import BlobWriter, Sealed
from kitd.layer.tar import TRAILER, Member, encode_header, padding
from kitd.spec.digest import Buffer, Digest


class _Files:
    """Whole files that become objects; several threads may write them at the same time."""

    def __init__(self, writer: BlobWriter) -> None:
        self._writer = writer
        self._waiting: deque[tuple[int, memoryview]] = deque()
        self._digests: dict[int, Digest] = {}
        self._count = 0

    def __bool__(self) -> bool:
        return bool(self._waiting)

    def add(self, view: memoryview) -> Callable[[memoryview], None]:
        """One more; what is answered makes it the next object of the blob, once it is written."""
        number = self._count
        self._count += 1
        self._waiting.append((number, view))
        return lambda view: self._writer.refer(self._digests.pop(number), len(view))

    def write(self) -> None:
        """Writes all that no other thread has begun with; OSError."""
        while self._waiting:
            try:
                number, view = self._waiting.popleft()
            except IndexError:  # another thread had it
                return
            self._digests[number] = self._writer.keep(view)


class TarIngest:
    """A plain tar written here, member by member, from files as they are read.

    `begin` and `data` only note what comes next, `write` and `commit` do it. `write` belongs in a worker thread.
    """

    def __init__(self, intake: Intake, workers: Workers, commit: Commit) -> None:
        self._intake = intake
        self._writer = intake.writer
        self._workers = workers
        self._commit = commit
        self._noted: list[memoryview] = []
        self._steps: list[Callable[[], None]] = []
        """What makes the noted bytes literals and objects, in order."""
        self._files = _Files(intake.writer)
        self._begins = 0
        """The size of a member none of whose bytes is noted yet."""
        self._wanted = 0
        """Bytes that the member still takes."""
        self._padding = 0

    def begin(self, member: Member) -> None:
        """The next member; the data of the one before is complete."""
        self._end_member(encode_header(member))
        self._begins = self._wanted = member.size
        self._padding = padding(member.size)

    def data(self, data: Buffer) -> None:
        """The next bytes of the member's file; they stay what they are until they are written."""
        view = memoryview(data)
        if len(view) > self._wanted:
            raise ValueError(f"{len(view)} bytes for a member that takes {self._wanted}")
        begins, self._begins = self._begins, 0
        self._wanted -= len(view)
        if len(view) == begins <= SLICE:
            self._note(view, self._files.add(view))
            return
        if begins:
            self._steps.append(partial(self._writer.begin, begins))
        for start in range(0, len(view), SLICE):
            self._note(view[start : start + SLICE], self._writer.data)

    def write(self) -> None:
        """Everything noted becomes part of the archive.

        Raises:
            OSError: of the disk.
        """
        noted, self._noted = self._noted, []
        if self._files:
            self._intake.hash_while(noted, self._files.write, share=self._files.write)
            self._take_steps()
        else:
            self._intake.hash_while(noted, self._take_steps)

    def _take_steps(self) -> None:
        steps, self._steps = self._steps, []
        for step in steps:
            step()

    def _note(self, view: memoryview, take: Callable[[memoryview], None]) -> None:
        self._noted.append(view)
        self._steps.append(partial(take, view))

    def _end_member(self, then: bytes) -> None:
        if self._wanted:
            raise ValueError(f"a member lacks {self._wanted} bytes")
        self._note(memoryview(bytes(self._padding) + then), self._writer.literal)
        self._padding = 0

    def _seal(self) -> Sealed:
        self._end_member(TRAILER)
        self.write()
        return self._intake.seal(None, None)

    async def commit(self) -> LayerResult:
        """Ends the archive and makes the layer visible, durably.

        Raises:
            NoSpace: the disk is full.
            StorageIo: it failed.
        """
        sealed = await self._workers.work(self._seal)
        new = await self._commit(sealed)
        return LayerResult(sealed.digest, sealed.size, already_present=not new)
