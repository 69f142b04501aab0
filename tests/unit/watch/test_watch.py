from contextlib import aclosing
from pathlib import Path

import anyio

from kitd.watch import changes


async def test_a_file_that_is_written_made_or_replaced_is_told_and_its_neighbours_are_not(
    tmp_path: Path,
) -> None:
    config, other = tmp_path / "kitd.toml", tmp_path / "other"
    told: list[set[Path]] = []

    async def listen(started: anyio.Event) -> None:
        async with aclosing(changes([config, tmp_path / "missing" / "x.toml"], anyio.Event())) as stream:
            started.set()
            async for files in stream:
                told.append(files)
                return

    with anyio.fail_after(20):
        async with anyio.create_task_group() as tasks:
            started = anyio.Event()
            tasks.start_soon(listen, started)
            await started.wait()
            while not told:
                other.write_text("x")
                (tmp_path / "new").write_text("y")
                (tmp_path / "new").rename(config)
                await anyio.sleep(0.1)
    assert told == [{config}]


async def test_a_file_that_is_written_in_steps_is_told_once(tmp_path: Path) -> None:
    config = tmp_path / "kitd.toml"
    stop = anyio.Event()
    told: list[str] = []

    async def listen() -> None:
        async for files in changes([config], stop):
            assert files == {config}
            told.append(config.read_text())

    with anyio.fail_after(20):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(listen)
            while not told:
                config.write_text("ready")
                await anyio.sleep(0.5)
            await anyio.sleep(0.5)
            told.clear()
            for count in range(1, 6):
                config.write_text("x" * count)
                await anyio.sleep(0.15)
            await anyio.sleep(0.7)
            stop.set()
    assert told == ["xxxxx"]


async def test_nothing_to_watch_ends_at_once(tmp_path: Path) -> None:
    assert [files async for files in changes([tmp_path / "missing" / "x.toml"], anyio.Event())] == []


async def test_it_ends_soon_after_it_is_told_to(tmp_path: Path) -> None:
    stop = anyio.Event()

    async def tell() -> None:
        await anyio.sleep(0.05)
        stop.set()

    with anyio.fail_after(0.9):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(tell)
            assert [files async for files in changes([tmp_path / "kitd.toml"], stop)] == []
