"""A second thread for work on bytes that another thread works on at the same time."""

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Final

from kitd.content.ahead import Ahead

_SHARE: Final = 2
"""One thread beside for so many cores: the others do the work that these stand beside."""


class Beside:
    """Threads that hash an archive while its files are hashed and written: one large layer keeps two cores busy.

    Where the cores are busy with other layers nobody waits for these threads: the caller does both himself.
    """

    def __init__(self) -> None:
        threads = max(1, (os.cpu_count() or 1) // _SHARE)
        self._threads = ThreadPoolExecutor(threads, thread_name_prefix="kitd-beside")
        self.ahead = Ahead()
        """Works beside them too, on the disk."""

    def both(self, beside: Callable[[], None], here: Callable[[], None]) -> None:
        """Does both, at the same time if a thread is free; returns, or raises, when neither is under way."""
        future = self._threads.submit(beside)
        try:
            here()
        except BaseException:
            if not future.cancel():
                future.exception()
            raise
        if future.cancel():
            beside()
        else:
            future.result()

    def close(self) -> None:
        """Ends the threads; nobody may be in `both`."""
        self._threads.shutdown()
        self.ahead.close()
