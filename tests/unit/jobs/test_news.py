from collections.abc import Callable

import anyio
import pytest

from kitd.jobs import news as module
from kitd.jobs.news import News, Reader
from kitd_client.api.jobs import (
    Began,
    CancelledEvent,
    Event,
    Moved,
    Resolved,
    Succeeded,
    Terminal,
    Unpacked,
    Waiting,
    Warned,
)

Clock = Callable[[float], None]


@pytest.fixture
def advance(monkeypatch: pytest.MonkeyPatch) -> Clock:
    now = [100.0]
    monkeypatch.setattr(module, "monotonic", lambda: now[0])

    def step(seconds: float) -> None:
        now[0] += seconds

    return step


def _done() -> Terminal:
    return Succeeded(Unpacked(reference="r", digest="d", files=1, size=2))


async def _heard(news: News) -> list[Event]:
    return [event async for batch in Reader(news).batches(1) for event in batch]


async def test_a_late_reader_hears_the_state_and_not_the_history(advance: Clock) -> None:
    news = News()
    news.resolved("reg/x:1", "sha256:aa")
    news.began("model", 100, 10)
    for _ in range(50):
        news.moved("model", "reg", 1)
    news.waiting("reg asked to wait", 2.4)
    news.waiting("reg asked to wait longer", 5)
    news.warned("a link was left out")
    news.warned("a link was left out")
    assert Reader(news).take() == [
        Resolved(reference="reg/x:1", digest="sha256:aa"),
        Began(item="model", total=100, done=10),
        Moved(item="model", source="reg", done=60),
        Waiting(reason="reg asked to wait longer", seconds=5),
        Warned(message="a link was left out"),
    ]


def test_counts_come_at_most_four_times_a_second_and_nothing_is_lost(advance: Clock) -> None:
    news = News()
    reader = Reader(news)
    news.began("model", 1000, 0)
    moments: list[float] = []
    last = 0
    for tick in range(300):
        news.moved("model", "reg", 1)
        for event in reader.take():
            if isinstance(event, Moved):
                moments.append(tick / 100)
                last = event.done
        advance(0.01)
    news.end(_done())
    (final,) = reader.take()
    assert isinstance(final, Moved)
    assert (last, final.done) == (last, 300)
    moments.append(2.99)
    assert all(sum(1 for m in moments if start <= m < start + 1) <= 4 for start in moments)
    assert len(moments) >= 9


def test_a_beginning_is_not_held_back_by_the_cadence_of_counts(advance: Clock) -> None:
    news = News()
    reader = Reader(news)
    news.began("a", 10, 0)
    news.moved("a", "reg", 1)
    reader.take()
    news.moved("a", "reg", 1)
    news.began("b", 20, 5)
    assert reader.take() == [Began(item="b", total=20, done=5)]
    advance(0.5)
    assert reader.take() == [Moved(item="a", source="reg", done=2)]


def test_bytes_keep_their_source_when_they_are_told_together(advance: Clock) -> None:
    news = News()
    reader = Reader(news)
    news.began("model", 100, 0)
    reader.take()
    news.moved("model", "mirror", 10)
    news.moved("model", "registry", 5)
    news.moved("model", "mirror", 10)
    assert reader.take() == [
        Moved(item="model", source="mirror", done=20),
        Moved(item="model", source="registry", done=25),
    ]


def test_an_item_that_begins_again_counts_anew(advance: Clock) -> None:
    news = News()
    reader = Reader(news)
    news.began("model", 100, 0)
    news.moved("model", "reg", 70)
    reader.take()
    news.began("model", 100, 0)
    news.moved("model", "reg", 5)
    advance(1)
    assert reader.take() == [
        Began(item="model", total=100, done=0),
        Moved(item="model", source="reg", done=5),
    ]
    assert (news.total, news.done) == (100, 5)


def test_warnings_beyond_a_thousand_are_counted(advance: Clock) -> None:
    news = News()
    for number in range(1500):
        news.warned(f"file {number} was left out")
    told = Reader(news).take()
    assert len(told) == 1001
    assert told[-1] == Warned(message="... and 500 further warnings")


async def test_the_stream_ends_with_one_terminal_event_and_what_was_held_back_comes_before(
    advance: Clock,
) -> None:
    news = News()
    heard: list[Event] = []

    async def listen() -> None:
        heard.extend(await _heard(news))

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(listen)
        await anyio.wait_all_tasks_blocked()
        news.began("model", 10, 0)
        await anyio.wait_all_tasks_blocked()
        news.moved("model", "reg", 1)
        await anyio.wait_all_tasks_blocked()
        news.moved("model", "reg", 9)
        await anyio.wait_all_tasks_blocked()
        assert heard == []
        news.end(_done())
        news.end(CancelledEvent())
    assert heard == [
        Began(item="model", total=10, done=0),
        Moved(item="model", source="reg", done=1),
        Moved(item="model", source="reg", done=10),
        _done(),
    ]


async def test_silence_is_told_by_an_empty_batch() -> None:
    batches = Reader(News()).batches(0.01)
    assert await anext(batches) == []


async def test_a_reader_that_takes_its_time_costs_nothing_and_misses_nothing(advance: Clock) -> None:
    news = News()
    stream = Reader(news).batches(1)
    news.began("model", 100_000, 0)
    assert await anext(stream) == [Began(item="model", total=100_000, done=0)]
    for _ in range(100_000):
        news.moved("model", "reg", 1)
    advance(60)
    assert await anext(stream) == [Moved(item="model", source="reg", done=100_000)]


async def test_in_a_crowd_each_hears_of_counts_less_often(advance: Clock) -> None:
    news = News()
    stream = Reader(news, lambda: 200).batches(60)
    news.began("model", 10, 0)
    news.moved("model", "reg", 1)
    assert [type(event) for event in await anext(stream)] == [Began, Moved]
    news.moved("model", "reg", 1)
    advance(1.9)
    news.warned("of something")
    assert await anext(stream) == [Warned(message="of something")]
    advance(0.2)
    assert await anext(stream) == [Moved(item="model", source="reg", done=2)]
