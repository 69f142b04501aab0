"""A client that is hostile, slow or gone ends its own job, and costs the daemon nothing more."""

import threading

import anyio
import pytest
from unit.workspace.scripted import ClientPeer, daemon_end

from kitd.workspace import FileToRead, Workspace
from kitd_client.api.errors import WorkspaceBroken
from kitd_client.api.jobs import CancelledEvent, Warned
from kitd_client.api.workspace import (
    ANSWER_LIMIT,
    VERSION,
    Alive,
    End,
    EntryRow,
    EventFrame,
    Hello,
    ListingRow,
    Listings,
    Publish,
    Published,
    Read,
    Ready,
    Run,
    Scan,
    encode_frame,
)


async def publish_fails(workspace: Workspace, match: str) -> None:
    with pytest.raises(WorkspaceBroken, match=match):
        await workspace.publish()


@pytest.mark.parametrize(
    ("said", "match"),
    [
        pytest.param((ANSWER_LIMIT + 1).to_bytes(4, "big"), "the limit is", id="giant frame"),
        pytest.param(b"\xff\xff\xff\xff" + b"x" * 100_000, "the limit is", id="greatest frame"),
        pytest.param(b"\0\0\0\0", "no answer", id="empty frame"),
        pytest.param(b"\0\0\0\x05" + b"\xc1" * 5, "no answer", id="no msgpack"),
        pytest.param(b"\0\0\x75\x30" + b"\x91" * 30_000, "no answer", id="deep nesting"),
        pytest.param(b"\0\0\0\x06" + b"\xc6\xff\xff\xff\xff\x00", "no answer", id="bytes without end"),
        pytest.param(bytes(encode_frame(Run(5))), "out of turn", id="another answer"),
        pytest.param(bytes(encode_frame(Published(2**63 - 1, 0)))[:-9], "hung up", id="half a frame"),
        pytest.param(bytes(encode_frame(Alive())) * 5000, "signs of life", id="flood of signs of life"),
    ],
)
async def test_what_is_no_answer_ends_the_job(said: bytes, match: str) -> None:
    def script(peer: ClientPeer) -> None:
        peer.greet()
        peer.asked(Publish)
        try:
            peer.raw(said)
        except OSError:
            return

    async with daemon_end(script) as workspace:
        await publish_fails(workspace, match)


async def test_an_answer_in_single_bytes_is_an_answer() -> None:
    def script(peer: ClientPeer) -> None:
        peer.greet()
        peer.asked(Publish)
        for byte in encode_frame(Published(7, 1)):
            peer.raw(bytes([byte]))

    async with daemon_end(script) as workspace:
        published = await workspace.publish()
    assert (published.files, published.skipped) == (7, 1)


async def test_frames_survive_the_end_of_the_ring() -> None:
    """Answers of many lengths, so that frames begin and end everywhere in the buffer."""
    rows = [EntryRow(b"n%03d" % number + b"x" * 200, "file", 0o644, number) for number in range(2000)]

    def script(peer: ClientPeer) -> None:
        peer.greet()
        peer.asked(Scan)
        for begin in range(12):
            peer.send(Listings([ListingRow(0, rows[: 2000 - begin * 7])], last=begin == 11))

    async with daemon_end(script) as workspace:
        (listing,) = await workspace.scan([""])
    assert len(listing.entries) == 12 * 2000 - 7 * sum(range(12))
    assert {entry.name[:1] for entry in listing.entries} == {"n"}


async def test_another_version_is_told_so() -> None:
    def script(peer: ClientPeer) -> None:
        peer.asked(Hello)
        peer.send(Ready(VERSION + 1))

    async with daemon_end(script) as workspace:
        await publish_fails(workspace, "speaks version 2")


async def test_silence_ends_the_job_and_signs_of_life_extend_it() -> None:
    quiet = threading.Event()

    def script(peer: ClientPeer) -> None:
        peer.greet()
        peer.asked(Publish)
        for _ in range(5):
            quiet.wait(0.2)
            peer.send(Alive())
        peer.send(Published(1, 0))
        peer.asked(Publish)
        assert peer.at_end()

    async with daemon_end(script, silence=0.5) as workspace:
        began = anyio.current_time()
        await workspace.publish()
        assert anyio.current_time() - began >= 1
        await publish_fails(workspace, "did not answer for 0.5 s")


async def test_a_client_that_does_not_read_is_silent_too() -> None:
    done = threading.Event()

    def script(peer: ClientPeer) -> None:
        peer.greet()
        done.wait(10)

    async with daemon_end(script, silence=0.3) as workspace:
        try:
            with pytest.raises(WorkspaceBroken, match="did not take"):
                await _flood(workspace)
        finally:
            done.set()


async def _flood(workspace: Workspace) -> None:
    async with workspace._turns.turn():
        while True:
            await workspace._turns.ask(Publish())


async def test_a_client_that_hangs_up_between_turns_is_noticed() -> None:
    leave = threading.Event()

    def script(peer: ClientPeer) -> None:
        peer.greet()
        peer.asked(Publish)
        peer.send(Published(1, 0))
        leave.wait(10)

    async with daemon_end(script) as workspace, anyio.create_task_group() as group:
        gone = anyio.Event()

        async def watch() -> None:
            await workspace.gone()
            gone.set()

        group.start_soon(watch)
        await workspace.publish()
        await anyio.wait_all_tasks_blocked()
        assert not gone.is_set()
        leave.set()
        with anyio.fail_after(5):
            await gone.wait()


async def test_after_a_break_only_the_last_word_is_said() -> None:
    """The client is in the middle of a long answer: its sends fail, so it comes to read how the job ended."""

    def script(peer: ClientPeer) -> None:
        peer.greet()
        peer.asked(Read)
        peer.send(Run(60_000_000))
        with pytest.raises(OSError, match="Broken pipe"):
            peer.raw(bytes(60_000_000))
        assert peer.asked(End).terminal == CancelledEvent("nothing")
        assert peer.at_end()

    async with daemon_end(script) as workspace:
        async for _ in workspace.read([FileToRead("a", 60_000_000)]):
            break
        await workspace.event(Warned("nobody can hear this now"))
        with pytest.raises(WorkspaceBroken, match="still owes"):
            await workspace.publish()
        await workspace.finish(CancelledEvent("nothing"))


async def test_finish_says_the_last_word_even_when_the_job_was_cancelled() -> None:
    def script(peer: ClientPeer) -> None:
        peer.greet()
        peer.asked(Publish)
        peer.asked(End)

    async with daemon_end(script) as workspace:
        with anyio.CancelScope() as scope:
            try:
                async with anyio.create_task_group() as group:
                    group.start_soon(workspace.publish)
                    await anyio.wait_all_tasks_blocked()
                    scope.cancel()
            finally:
                await workspace.finish(CancelledEvent())


async def test_finish_forgives_a_client_that_is_gone() -> None:
    async with daemon_end(lambda _: None) as workspace:
        await workspace.gone()
        await workspace.finish(CancelledEvent())
        await workspace.aclose()


async def test_a_job_that_fails_before_its_first_question_ends_in_order() -> None:
    def script(peer: ClientPeer) -> None:
        assert peer.asked(EventFrame).event == Warned("w")
        peer.asked(End)
        assert peer.at_end()

    async with daemon_end(script) as workspace:
        await workspace.event(Warned("w"))
        await workspace.finish(CancelledEvent())


async def test_a_slow_worker_makes_the_client_wait_not_the_daemon_grow() -> None:
    """Nobody takes the bytes: the client can send what ring and socket hold, and no more."""
    size = 50_000_000
    sent = 0
    full = threading.Event()

    def script(peer: ClientPeer) -> None:
        nonlocal sent
        peer.greet()
        peer.asked(Read)
        peer.send(Run(size))
        peer.sock.settimeout(0.3)
        try:
            while True:
                sent += peer.sock.send(bytes(100_000))
        except TimeoutError:
            full.set()

    async with daemon_end(script) as workspace:
        async for _ in workspace.read([FileToRead("a", size)]):
            await anyio.to_thread.run_sync(full.wait, 20)
            break
    assert sent < 1 << 23
