"""What running jobs need, and what is about to go. In memory: leases die with the daemon."""

import threading
from collections import Counter
from collections.abc import Iterable
from types import TracebackType
from typing import Self

from kitd.spec.digest import Digest


class Leases:
    """Every blob that somebody holds, and every blob that the collector has condemned.

    Both under one lock: a blob that a job holds before it asks whether it is here is never condemned
    afterwards.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._held: Counter[Digest] = Counter()
        self._condemned: set[Digest] = set()

    def hold(self, digest: Digest) -> None:
        with self._lock:
            self._held[digest] += 1

    def release(self, digests: Iterable[Digest]) -> None:
        with self._lock:
            for digest in digests:
                self._held[digest] -= 1
                if not self._held[digest]:
                    del self._held[digest]

    def has_let_go(self, digests: set[Digest]) -> bool:
        """Whether there is one among them that nobody holds."""
        with self._lock:
            return not digests <= self._held.keys()

    def held(self) -> set[Digest]:
        with self._lock:
            return set(self._held)

    def condemn(self, digests: set[Digest]) -> set[Digest]:
        """Those of `digests` that nobody holds; from now on they count as gone."""
        with self._lock:
            self._condemned = digests - self._held.keys()
            return set(self._condemned)

    def condemned(self, digest: Digest) -> bool:
        with self._lock:
            return digest in self._condemned

    def spare(self) -> None:
        """Nothing is condemned any more."""
        with self._lock:
            self._condemned = set()


class Lease:
    """What one job holds, blob by blob, until the context ends.

    Hold a blob before you ask whether it is here: then it stays.
    """

    def __init__(self, leases: Leases) -> None:
        self._leases = leases
        self._held: set[Digest] = set()

    def hold(self, digest: Digest) -> None:
        """Spares a blob (and the files of a layer) from collection."""
        if digest not in self._held:
            self._held.add(digest)
            self._leases.hold(digest)

    def release(self) -> None:
        """Lets go of everything."""
        self._leases.release(self._held)
        self._held.clear()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()
