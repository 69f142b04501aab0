"""Pack, as the daemon sees it: what an honest client sends arrives whole, anything else is an error."""

import anyio
import pytest
from unit.workspace.scripted import ClientPeer, daemon_end

from kitd.workspace import FileToRead, ScannedEntry, Workspace
from kitd.workspace import workspace as module
from kitd_client.api.errors import (
    KitdError,
    SourceChanged,
    SourceUnreadable,
    SourceUnsuitable,
    WorkspaceBroken,
)
from kitd_client.api.jobs import Warned
from kitd_client.api.workspace import (
    EntryRow,
    EventFrame,
    ListingRow,
    Listings,
    ProblemRow,
    Read,
    ReadEnd,
    ReadSmall,
    Run,
    Scan,
    Small,
)

MIB = 1 << 20


async def read_all(workspace: Workspace, files: list[FileToRead]) -> list[bytes]:
    contents = [b""] * len(files)
    async for parts in workspace.read(files):
        assert sum(len(view) for _, view in parts) <= MIB
        for index, view in parts:
            contents[index] += view
    return contents


async def test_directories_come_in_parts_and_are_put_together() -> None:
    def script(peer: ClientPeer) -> None:
        peer.greet()
        assert peer.asked(Scan).directories == [b"", b"data\xff"]
        first = EntryRow(b"caf\xe9", "file", 0o644, 5)
        peer.send(Listings([ListingRow(0, [first])], last=False))
        peer.send(Listings([ListingRow(0, [EntryRow(b"b", "dir", 0o755, 0)])], last=False))
        peer.send(Listings([ListingRow(1, [], "permission denied")], last=True))

    async with daemon_end(script) as workspace:
        root, data = await workspace.scan(["", "data\udcff"])
    assert root.entries == [
        ScannedEntry("caf\udce9", "file", 0o644, 5),
        ScannedEntry("b", "dir", 0o755, 0),
    ]
    assert (data.directory, data.entries, data.error) == ("data\udcff", [], "permission denied")


@pytest.mark.parametrize(
    "rows",
    [
        pytest.param([ListingRow(1, [])], id="another directory first"),
        pytest.param([ListingRow(0, []), ListingRow(1, [])], id="one more than asked for"),
        pytest.param([ListingRow(0, []), ListingRow(0, [])], id="the same again without news"),
        pytest.param([], id="nothing"),
    ],
)
async def test_a_listing_that_was_not_asked_for_is_an_error(rows: list[ListingRow]) -> None:
    def script(peer: ClientPeer) -> None:
        peer.greet()
        peer.asked(Scan)
        peer.send(Listings(rows, last=True))

    async with daemon_end(script) as workspace:
        with pytest.raises(WorkspaceBroken):
            await workspace.scan([""])


async def test_a_directory_without_end_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "ENTRIES_LIMIT", 3000)

    def script(peer: ClientPeer) -> None:
        peer.greet()
        peer.asked(Scan)
        entries = [EntryRow(b"%d" % number, "file", 0o644, 1) for number in range(2000)]
        for _ in range(2):
            peer.send(Listings([ListingRow(0, entries)], last=False))

    async with daemon_end(script) as workspace:
        with pytest.raises(SourceUnsuitable, match="more than 3000"):
            await workspace.scan([""])


async def test_a_small_file_comes_whole_and_a_missing_one_is_none() -> None:
    def script(peer: ClientPeer) -> None:
        peer.greet()
        assert peer.asked(ReadSmall) == ReadSmall(b"Kitfile", MIB)
        peer.send(Small(MIB))
        peer.raw(b"k" * MIB)
        peer.asked(ReadSmall)
        peer.send(Small(None))

    async with daemon_end(script) as workspace:
        assert await workspace.read_small("Kitfile", MIB) == b"k" * MIB
        assert await workspace.read_small(".kitignore", MIB) is None


async def test_a_small_file_over_its_limit_is_not_received() -> None:
    def script(peer: ClientPeer) -> None:
        peer.greet()
        peer.asked(ReadSmall)
        peer.send(Small(11))

    async with daemon_end(script) as workspace:
        with pytest.raises(WorkspaceBroken):
            await workspace.read_small("Kitfile", 10)


async def test_bytes_are_cut_at_the_borders_of_files_wherever_runs_begin() -> None:
    sizes = [5, 0, 3 * MIB + 7, 0, 1, 2 * MIB]
    contents = [bytes([65 + index]) * size for index, size in enumerate(sizes)]

    def script(peer: ClientPeer) -> None:
        peer.greet()
        peer.asked(Read)
        stream = b"".join(contents)
        for begin in range(0, len(stream), 700_001):
            run = stream[begin : begin + 700_001]
            peer.send(Run(len(run)))
            peer.raw(run)
        peer.send(ReadEnd([]))

    async with daemon_end(script) as workspace:
        files = [FileToRead(f"f{index}", size) for index, size in enumerate(sizes)]
        assert await read_all(workspace, files) == contents


async def test_more_files_than_a_frame_holds_are_one_stream_for_the_reader() -> None:
    def script(peer: ClientPeer) -> None:
        peer.greet()
        for _ in range(3):
            files = peer.asked(Read).files
            peer.send(Run(sum(file.size for file in files)))
            peer.raw(b"".join(file.path[-2:] for file in files))
            peer.send(ReadEnd([]))

    async with daemon_end(script) as workspace:
        files = [FileToRead(f"n{number:05}", 2) for number in range(5000)]
        assert await read_all(workspace, files) == [b"%02d" % (number % 100) for number in range(5000)]


@pytest.mark.parametrize(
    ("kind", "error"),
    [("changed", SourceChanged), ("unreadable", SourceUnreadable), ("unsuitable", SourceUnsuitable)],
)
async def test_a_problem_ends_the_read_with_the_name_of_the_file(kind: str, error: type[KitdError]) -> None:
    def script(peer: ClientPeer) -> None:
        peer.greet()
        peer.asked(Read)
        peer.send(Run(4))
        peer.raw(bytes(4))
        peer.send(ReadEnd([ProblemRow(1, kind, "has a reason")]))  # type: ignore[arg-type]

    async with daemon_end(script) as workspace:
        with pytest.raises(error, match="b\\\\x1b: has a reason") as caught:
            await read_all(workspace, [FileToRead("a", 2), FileToRead("b\x1b", 2)])
    assert caught.value.detail == {"path": "b\\x1b"}


@pytest.mark.parametrize(
    "answers",
    [
        pytest.param([Run(11)], id="more than announced"),
        pytest.param([ReadEnd([])], id="less, without a reason"),
        pytest.param([ReadEnd([ProblemRow(7, "changed", "")])], id="a problem of no file"),
        pytest.param([Small(3)], id="another answer"),
    ],
)
async def test_a_stream_that_is_not_what_was_asked_for_is_an_error(answers: list[Run | ReadEnd]) -> None:
    def script(peer: ClientPeer) -> None:
        peer.greet()
        peer.asked(Read)
        for answer in answers:
            peer.send(answer)

    async with daemon_end(script) as workspace:
        with pytest.raises(WorkspaceBroken):
            await read_all(workspace, [FileToRead("a", 10)])


async def test_an_event_waits_for_the_turn_and_comes_before_the_next() -> None:
    def script(peer: ClientPeer) -> None:
        peer.greet()
        peer.asked(Read)
        peer.send(Run(1))
        peer.raw(b"x")
        peer.send(ReadEnd([]))
        assert peer.asked(EventFrame).event == Warned("in the middle")
        peer.asked(ReadSmall)
        peer.send(Small(None))

    async with daemon_end(script) as workspace, anyio.create_task_group() as group:
        async for _ in workspace.read([FileToRead("a", 1)]):
            group.start_soon(workspace.event, Warned("in the middle"))
            await anyio.wait_all_tasks_blocked()
        await workspace.read_small("Kitfile", 1)
