"""The user's directory, as the daemon sees it: requests that the client fulfils with its own rights."""

import os
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from functools import partial
from typing import Final

import anyio

from kitd.workspace.budget import DescriptorBudget
from kitd.workspace.rows import (
    CheckReply,
    Cutter,
    FileToRead,
    Listing,
    MemberToWrite,
    entry,
    file_row,
    frames,
    member_row,
)
from kitd.workspace.turns import Turns, out_of_turn
from kitd_client.api.errors import (
    KitdError,
    SourceChanged,
    SourceUnreadable,
    SourceUnsuitable,
    TargetExists,
    TargetUnsafe,
    WorkspaceBroken,
)
from kitd_client.api.jobs import Event, Terminal
from kitd_client.api.workspace import (
    BATCH_DESCRIPTORS,
    SILENCE_SECONDS,
    Check,
    Checked,
    FileRow,
    ListingRow,
    Listings,
    MemberRow,
    ObstacleRow,
    ProblemRow,
    Publish,
    Published,
    Read,
    ReadEnd,
    ReadSmall,
    Run,
    Scan,
    Small,
    Write,
    Written,
    display_path,
    encode_path,
)

ENTRIES_LIMIT: Final = 1_000_000
"""Entries of all directories scanned over one connection."""
NAMED: Final = 10
"""How many paths an error names."""
_SOURCE_ERRORS: Final = {
    "changed": SourceChanged,
    "unreadable": SourceUnreadable,
    "unsuitable": SourceUnsuitable,
}


class Batch:
    """Members to be made next, with what is open for them.

    Args:
        rows: the members.
        give_back: ends the reservation of the descriptors.
    """

    def __init__(self, rows: list[MemberRow], give_back: Callable[["Batch"], None]) -> None:
        self.rows = rows
        self.descriptors: list[int] = []
        self.sent = False
        self._give_back: Callable[[Batch], None] | None = give_back

    def fill(self, descriptors: Iterable[int]) -> None:
        """Takes over one descriptor for each lent member; ValueError if they are not as many."""
        self.descriptors += descriptors
        lent = sum(row.is_lent for row in self.rows)
        if len(self.descriptors) != lent:
            raise ValueError(f"{len(self.descriptors)} descriptors for {lent} members")

    def close_descriptors(self) -> None:
        """They are the client's now, or nobody's."""
        while self.descriptors:
            os.close(self.descriptors.pop())

    def close(self) -> None:
        """Ends everything; safe to call twice."""
        self.close_descriptors()
        if self._give_back is not None:
            give_back, self._give_back = self._give_back, None
            give_back(self)


class Workspace:
    """One upgraded connection of pack or unpack.

    Every method but `event`, `finish`, `gone` and `aclose` is a turn, or several. They raise what the client
    refused with (`source_*`, `target_*`) and `WorkspaceBroken` when the client is gone, silent or does not
    keep to the protocol; after that only `finish` makes sense.

    Args:
        sock: the connected Unix socket; the workspace owns it from now on.
        budget: the daemon's descriptors.
        silence: seconds without a sign of life after which a client that is due is gone.
    """

    def __init__(
        self, sock: socket.socket, budget: DescriptorBudget, *, silence: float = SILENCE_SECONDS
    ) -> None:
        self._turns = Turns(sock, silence=silence)
        self._budget = budget
        self._entries = 0
        self._lent = 0
        """Batches that have a reservation."""
        self._lent_less = anyio.Event()

    # -- pack ------------------------------------------------------------------------------------

    async def scan(self, directories: Sequence[str]) -> list[Listing]:
        """What these directories hold; `""` is the workspace's own. An unreadable one has an error.

        Raises:
            SourceUnsuitable: there are more entries than `ENTRIES_LIMIT`.
        """
        listings: list[Listing] = []
        for batch in frames([encode_path(directory) for directory in directories]):
            async with self._turns.turn():
                await self._turns.ask(Scan(batch))
                names = directories[len(listings) : len(listings) + len(batch)]
                listings += await self._listings(names)
        return listings

    async def _listings(self, names: Sequence[str]) -> list[Listing]:
        found: list[Listing] = []
        last = False
        while not last:
            answer = await self._turns.answer(Listings)
            for row in answer.listings:
                self._merge(found, names, row)
            last = answer.last
        if len(found) != len(names):
            raise WorkspaceBroken(f"the client listed {len(found)} of {len(names)} directories")
        return found

    def _merge(self, found: list[Listing], names: Sequence[str], row: ListingRow) -> None:
        """Each row says something new: it opens the next directory, or goes on with the last one."""
        entries = [entry(each) for each in row.entries]
        self._entries += len(entries)
        if self._entries > ENTRIES_LIMIT:
            raise SourceUnsuitable(f"the directory has more than {ENTRIES_LIMIT} entries")
        if row.index == len(found) < len(names):
            found.append(Listing(names[row.index], entries, row.error))
        elif found and row.index == len(found) - 1 and entries:
            before = found[-1]
            before.entries.extend(entries)
            found[-1] = Listing(before.directory, before.entries, row.error)
        else:
            raise WorkspaceBroken("the client listed a directory that was not asked for")

    async def read_small(self, path: str, limit: int) -> bytes | None:
        """The bytes of a small file; none if there is no such file.

        Raises:
            SourceUnsuitable: it is larger than `limit`, or no regular file.
            SourceUnreadable: the user may not read it.
        """
        async with self._turns.turn():
            await self._turns.ask(ReadSmall(encode_path(path), limit))
            answer = await self._turns.answer(Small)
            if answer.size is None:
                return None
            if answer.size > limit:
                raise WorkspaceBroken(f"the client announced {answer.size} bytes where {limit} were allowed")
            data = bytearray()
            while len(data) < answer.size:
                data += await self._turns.channel.chunk(answer.size - len(data))
            return bytes(data)

    async def read(
        self, files: Sequence[FileToRead], *, item: str = "", done: int = 0
    ) -> AsyncIterator[list[tuple[int, memoryview]]]:
        """The bytes of these files, in order: lists of (index of the file, part), 512 KiB and more at a time.

        The views are valid until the next iteration. A file was read whole and unchanged only if the
        iteration ends without an error: whoever keeps the bytes keeps them under no name before that.

        Args:
            files: as scanned; an empty file is opened too, and has no part.
            item: what the bytes count for; the client tells its user of it while it sends.
            done: bytes of that item done before.

        Raises:
            SourceChanged: a file was written to while it was read, or since it was scanned.
            SourceUnreadable: the user may not read it, or it cannot be read.
            SourceUnsuitable: it is no regular file, or its path leads over a link.
        """
        first = 0
        for batch in frames(map(file_row, files)):
            async with self._turns.turn():
                await self._turns.ask(Read(batch, item, done))
                async for parts in self._runs(batch, first):
                    yield parts
            first += len(batch)
            done += sum(file.size for file in batch)

    async def _runs(
        self, batch: Sequence[FileRow], first: int
    ) -> AsyncIterator[list[tuple[int, memoryview]]]:
        cutter = Cutter(batch, first)
        left = sum(file.size for file in batch)
        while left:
            answer = await self._turns.any_answer()
            if isinstance(answer, ReadEnd):
                raise _source_error(batch, answer.problems)
            if not isinstance(answer, Run):
                raise out_of_turn(answer)
            if answer.length > left:
                raise WorkspaceBroken(f"the client announced {answer.length} bytes where {left} were due")
            run = answer.length
            left -= run
            while run:
                view = await self._turns.channel.chunk(run)
                run -= len(view)
                yield cutter.cut(view)
        end = await self._turns.answer(ReadEnd)
        if end.problems:
            raise _source_error(batch, end.problems)

    # -- unpack ----------------------------------------------------------------------------------

    async def check(self, members: Sequence[MemberToWrite]) -> CheckReply:
        """Looks for everything in the directory that stands in the way, before the first write.

        Raises:
            TargetExists: files are there already, and the user asked neither to overwrite nor to skip them.
            TargetUnsafe: a link, another kind of file or another file system is in the way.
            TargetBusy: another unpack into this directory is under way.
            TargetUnwritable: the user may not write there.
        """
        skipped: set[int] = set()
        obstacles: list[tuple[str, ObstacleRow]] = []
        count = first = 0
        for batch in frames(map(member_row, members)):
            async with self._turns.turn():
                await self._turns.ask(Check(batch))
                answer = await self._turns.answer(Checked)
                for index in (*answer.skipped, *(row.index for row in answer.obstacles)):
                    if index >= len(batch):
                        raise WorkspaceBroken("the client spoke of a member that was not asked for")
            skipped.update(first + index for index in answer.skipped)
            count += len(answer.obstacles)
            obstacles += [
                (display_path(batch[row.index].path), row)
                for row in answer.obstacles[: max(NAMED - len(obstacles), 0)]
            ]
            first += len(batch)
        if obstacles:
            raise _target_error(obstacles, count)
        return CheckReply(frozenset(skipped))

    async def lend(
        self, members: Sequence[MemberToWrite], open_all: Callable[[], Awaitable[Iterable[int]]]
    ) -> Batch:
        """Opens what is behind the next batch of members; while one batch is written, the next may be opened.

        Args:
            members: at most `BATCH_DESCRIPTORS` of them lent, at most `ROWS_LIMIT` in all.
            open_all: opens a read-only descriptor for each lent member, in order. It is called when the daemon
                has descriptors to spare; they are closed with the batch.

        Returns:
            What `write` takes; whoever does not come to that closes it.

        Raises:
            Busy: the daemon had no descriptors to spare for a minute.
        """
        rows = [member_row(member) for member in members]
        count = sum(row.is_lent for row in rows)
        if count > BATCH_DESCRIPTORS:
            raise ValueError(f"{count} descriptors in one batch")
        uid = self._turns.uid
        while self._lent and not self._budget.has_room(count, uid):
            await self._lent_less.wait()  # one's own batch is what takes the room
        await self._budget.reserve(count, uid)
        self._lent += 1
        batch = Batch(rows, partial(self._give_back, count))
        try:
            if count:
                batch.fill(await open_all())
        except BaseException:
            batch.close()
            raise
        return batch

    def _give_back(self, count: int, batch: Batch) -> None:
        self._budget.give_back(count, self._turns.uid, self._turns.channel.sock if batch.sent else None)
        self._lent -= 1
        self._lent_less.set()
        self._lent_less = anyio.Event()

    async def write(self, batch: Batch, *, item: str = "", done: int = 0) -> None:
        """Makes one batch of members under a staging name; returns when the client has copied all of it.

        Args:
            batch: what `lend` gave; it is closed in any case.
            item: what the bytes count for; the client tells its user of it while it copies.
            done: bytes of that item done before.

        Raises:
            TargetUnwritable: the user's disk is full, his quota reached, or the write failed.
        """
        turns = self._turns
        try:
            async with turns.turn():
                await turns.ask(Write(batch.rows, item, done))
                if batch.descriptors:
                    batch.sent = True
                    await turns.channel.send_descriptors(batch.descriptors)
                batch.close_descriptors()
                await turns.answer(Written)
        finally:
            batch.close()

    async def publish(self) -> Published:
        """Puts all that was written in place; when it returns, it is safe on disk under its final names.

        Raises:
            TargetExists: something appeared since the check; the error says what is in place already.
            TargetUnsafe, TargetUnwritable: the same for other obstacles.
        """
        async with self._turns.turn():
            await self._turns.ask(Publish())
            return await self._turns.answer(Published)

    # -- at any time -----------------------------------------------------------------------------

    async def event(self, event: Event) -> None:
        """Tells the client what the job says; waits for the turn under way to end."""
        await self._turns.event(event)

    async def finish(self, terminal: Terminal) -> None:
        """Tells the client how the job ended, and closes the connection; if it is gone, only that."""
        await self._turns.finish(terminal)

    async def gone(self) -> None:
        """Returns when the client hangs up between turns: its end cancels the job."""
        await self._turns.gone()

    async def aclose(self) -> None:
        """Ends the connection at once; safe to call twice."""
        await self._turns.aclose()


def _source_error(files: Sequence[FileRow], problems: Sequence[ProblemRow]) -> KitdError:
    if not problems or any(problem.index >= len(files) for problem in problems):
        return WorkspaceBroken("the client ended a read before all bytes were sent")
    lines = [f"{display_path(files[each.index].path)}: {each.reason}" for each in problems[:NAMED]]
    more = f" (and {len(problems) - NAMED} more)" if len(problems) > NAMED else ""
    kind = _SOURCE_ERRORS[problems[0].kind]
    hint = "pack again when nothing writes to the directory" if kind is SourceChanged else None
    return kind("; ".join(lines) + more, hint=hint, path=display_path(files[problems[0].index].path))


def _target_error(obstacles: Sequence[tuple[str, ObstacleRow]], count: int) -> KitdError:
    unsafe = any(row.kind == "unsafe" for _, row in obstacles)
    lines = [f"{path} {row.reason}" for path, row in obstacles]
    more = f" (and {count - len(lines)} more)" if count > len(lines) else ""
    kept = "nothing was written"
    if unsafe:
        hint = "move what is in the way, or unpack into another directory"
        return TargetUnsafe("; ".join(lines) + more, kept=kept, hint=hint)
    hint = "-o replaces existing files, -i leaves them as they are"
    return TargetExists("; ".join(lines) + more, kept=kept, hint=hint)
