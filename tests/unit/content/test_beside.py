"""Two threads at one piece of work, and one where no other is free."""

import threading
from collections.abc import Iterator

import pytest

from kitd.content.beside import Beside


@pytest.fixture
def beside() -> Iterator[Beside]:
    made = Beside()
    yield made
    made.close()


def meet(barrier: threading.Barrier) -> None:
    barrier.wait(10)


def wait_for(event: threading.Event) -> None:
    event.wait(10)


def fail() -> None:
    raise OSError("the disk")


def test_both_are_under_way_at_once(beside: Beside) -> None:
    """Each can only end when the other has begun."""
    met = threading.Barrier(2)
    beside.both(lambda: meet(met), lambda: meet(met))


def test_with_no_thread_free_the_caller_does_both(beside: Beside) -> None:
    busy, over, taken = threading.Event(), threading.Event(), threading.Event()

    def occupy() -> None:
        busy.set()
        over.wait(10)

    def take_all() -> None:
        for _ in range(threads):
            beside.both(occupy, lambda: wait_for(over))

    threads = 64
    others = [threading.Thread(target=take_all) for _ in range(threads)]
    for other in others:
        other.start()
    assert busy.wait(10)
    done: list[str] = []
    try:
        beside.both(lambda: done.append(threading.current_thread().name), taken.set)
    finally:
        over.set()
        for other in others:
            other.join()
    assert done == [threading.current_thread().name]


def test_the_error_of_either_is_raised_when_neither_is_under_way(beside: Beside) -> None:
    begun, over, ended = threading.Event(), threading.Event(), threading.Event()

    def slow() -> None:
        begun.set()
        over.wait(10)
        ended.set()

    def fail_meanwhile() -> None:
        assert begun.wait(10)
        over.set()
        fail()

    with pytest.raises(OSError, match="the disk"):
        beside.both(slow, fail_meanwhile)
    assert ended.is_set()
    with pytest.raises(OSError, match="the disk"):
        beside.both(fail, lambda: None)
