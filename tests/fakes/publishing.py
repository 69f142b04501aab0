"""A process of its own that brings one tar into a store, for a trace of its system calls.

    python -m fakes.publishing ROOT FILES [STEP]

`STEP` leaves one step of the commit out: `data`, `link`, `directories` or `database`.
"""

import os
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import anyio
from fakes.stores import noise, opened, plain_tar, put

from kitd.content import sync
from kitd.content.objects import Objects
from kitd.content.store import ContentStore

ANSWERED = "/answered"
"""The trace has a link of this, which fails, where the commit has been answered."""


def leave_out(store: ContentStore, step: str) -> None:
    if step == "data":
        put_in_place(sync, "sync_data", lambda _paths, _size, _root: None)
    elif step == "directories":
        put_in_place(sync, "sync_directories", lambda _paths: None)
    elif step == "database":
        store._database._connection.execute("PRAGMA synchronous = OFF")
    elif step == "link":
        put_in_place(
            Objects, "place", lambda self, _source, digest: str(Path(self._layout.object(digest)).parent)
        )
        put_in_place(Objects, "require", lambda _self, _digest: None)  # it would refuse to go on


def put_in_place(owner: object, name: str, what: Callable[..., object]) -> None:
    setattr(owner, name, what)


async def main(root: Path, files: int, step: str) -> None:
    put_in_place(sync, "dirty_bytes", lambda: 0)  # the choice of flush must not depend on what else runs here
    async with opened(root) as store:
        leave_out(store, step)
        await put(store, plain_tar({f"f/{number}": noise(3000, number) for number in range(files)}))
        with suppress(OSError):
            os.link(ANSWERED, ANSWERED)


if __name__ == "__main__":
    anyio.run(main, Path(sys.argv[1]), int(sys.argv[2]), "".join(sys.argv[3:]))
