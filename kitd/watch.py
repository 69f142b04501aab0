"""Files that may change while kitd runs."""

from collections.abc import AsyncGenerator, Collection
from pathlib import Path

import anyio
from watchfiles import awatch


async def changes(files: Collection[Path], stop: anyio.Event) -> AsyncGenerator[set[Path], None]:
    """Yields the files that were written, made, replaced or removed; several changes at once count as one.

    Their directories are watched, so a file may be missing now; not so its directory. The thread that waits ends a
    tenth of a second after `stop` is set; one that is only cancelled, after a second.
    """
    directories = {file.parent for file in files if file.parent.is_dir()}
    if not directories:
        return
    async for batch in awatch(
        *directories, recursive=False, debounce=400, step=100, rust_timeout=1000, stop_event=stop
    ):
        changed = {Path(path) for _, path in batch} & set(files)
        if changed:
            yield changed
