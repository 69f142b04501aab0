"""Files that may change while kitd runs."""

from collections.abc import AsyncGenerator, Collection, Mapping
from pathlib import Path
from typing import TypeAlias

import anyio
import anyio.to_thread
from watchfiles import awatch

_QUIET_SECONDS = 0.3
"""An editor writes a file in several steps; after so long without one it is done."""
_LONGEST = 10
"""Times that is waited for; a file that never comes to rest is told of even so."""

_Stamps: TypeAlias = Mapping[Path, tuple[int, ...]]


async def changes(files: Collection[Path], stop: anyio.Event) -> AsyncGenerator[set[Path], None]:
    """Yields the files that were written, made, replaced or removed, once they have come to rest.

    Their directories are watched, so a file may be missing now; not so its directory. The thread that waits ends a
    tenth of a second after `stop` is set; one that is only cancelled, after a second.
    """
    directories = {file.parent for file in files if file.parent.is_dir()}
    if not directories:
        return
    seen = await anyio.to_thread.run_sync(_stamps, files)
    async for _ in awatch(
        *directories, recursive=False, debounce=400, step=100, rust_timeout=1000, stop_event=stop
    ):
        now = await _rest(files)
        changed = {file for file in files if now[file] != seen[file]}
        seen = now
        if changed:
            yield changed


async def _rest(files: Collection[Path]) -> _Stamps:
    stamps = await anyio.to_thread.run_sync(_stamps, files)
    for _ in range(_LONGEST):
        before = stamps
        await anyio.sleep(_QUIET_SECONDS)
        stamps = await anyio.to_thread.run_sync(_stamps, files)
        if stamps == before:
            break
    return stamps


def _stamps(files: Collection[Path]) -> _Stamps:
    """What is different when a file is another one; empty for one that is not there."""
    stamps: dict[Path, tuple[int, ...]] = {}
    for file in files:
        try:
            status = file.stat()
        except OSError:
            stamps[file] = ()
        else:
            stamps[file] = (status.st_ino, status.st_size, status.st_mtime_ns)
    return stamps
