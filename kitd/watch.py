"""Files that may change while kitd runs."""

from collections.abc import AsyncGenerator, Collection
from pathlib import Path

from watchfiles import awatch


async def changes(files: Collection[Path]) -> AsyncGenerator[set[Path], None]:
    """Yields the files that were written, made, replaced or removed; several changes at once count as one.

    Their directories are watched, so a file may be missing now; not so its directory.
    """
    directories = {file.parent for file in files if file.parent.is_dir()}
    if not directories:
        return
    async for batch in awatch(*directories, recursive=False, debounce=400, step=100):
        changed = {Path(path) for _, path in batch} & set(files)
        if changed:
            yield changed
