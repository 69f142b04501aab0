"""What is not needed any more: moved aside at once, unlinked later and in small steps."""

# Paths come by the hundred thousand here: they stay plain strings.
# ruff: noqa: PTH101, PTH104, PTH106, PTH108

import os
from contextlib import suppress
from itertools import islice
from pathlib import Path
from typing import Final

from kitd.content.layout import Layout

STEP: Final = 500
"""Files unlinked without a look around: ext4 with `discard` takes 0.3 ms for one."""


class Trash:
    """The directory `trash/`. What is in it after a crash is unlinked like the rest."""

    def __init__(self, layout: Layout) -> None:
        self._layout = layout
        self.pending = False
        """Something was put here since the last look."""

    def put(self, path: str | Path) -> None:
        """Moves a file or a directory here, if there is one."""
        try:
            os.rename(path, self._layout.fresh_trash())
        except FileNotFoundError:
            return
        except PermissionError:
            # The `..` of a directory that moves must be writable, and a snapshot's is not.
            os.chmod(path, 0o700)
            os.rename(path, self._layout.fresh_trash())
        self.pending = True

    def unlink_some(self) -> bool:
        """Unlinks up to `STEP` files; whether there may be more."""
        return _unlink(self._layout.trash, STEP) == 0


def _unlink(directory: str | Path, budget: int) -> int:
    """Unlinks up to `budget` entries below a directory; what is left of the budget.

    One directory is open at a time, however deep the tree is.
    """
    with os.scandir(directory) as entries:
        some = list(islice(entries, budget))
    for entry in some:
        if budget == 0:
            break
        if entry.is_dir(follow_symlinks=False):
            os.chmod(entry.path, 0o700)
            budget = _unlink(entry.path, budget)
            with suppress(OSError):
                os.rmdir(entry.path)
        else:
            os.unlink(entry.path)
        budget = max(0, budget - 1)
    return budget
