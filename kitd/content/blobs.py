"""Blobs that are here: which, how large, and their bytes."""

import os
from collections.abc import Sequence

from kitd.content.database import Blob, Database
from kitd.content.leases import Lease, Leases
from kitd.content.objects import Objects
from kitd.content.reader import BlobReader
from kitd.spec.digest import Digest, digest_of
from kitd_client.api.errors import ConfigInvalid, NotFound, SizeMismatch


class Blobs:
    """The visible blobs. For worker threads."""

    def __init__(self, database: Database, objects: Objects, leases: Leases) -> None:
        self._database = database
        self._objects = objects
        self._leases = leases

    def visible(self, digest: Digest) -> Blob | None:
        """The row of a blob, if it is here and stays as long as somebody holds it."""
        return None if self._leases.condemned(digest) else self._database.blob(digest)

    def get(self, digest: Digest) -> Blob:
        """The same, or `NotFound`."""
        blob = self.visible(digest)
        if blob is None:
            raise NotFound(f"blob {digest} is not in the store", digest=digest)
        return blob

    def has(self, digest: Digest, size: int) -> bool:
        """Whether a blob is here; `SizeMismatch` if it is, with another size."""
        blob = self.visible(digest)
        if blob is not None and blob.size != size:
            raise SizeMismatch(
                f"blob {digest} has {blob.size} bytes, its descriptor says {size}", digest=digest
            )
        return blob is not None

    def adopt(self, digest: Digest, size: int) -> bool:
        """Makes an object a visible blob, if it is here as a file of some layer. In the committing thread.

        `size` is what some manifest claims: where it is another, the claim is wrong, not the object.
        """
        if self._objects.size(digest) != size or not self._objects.holds(digest, size):
            return False
        self._database.publish([Blob(digest, size, recipe=False)])
        return True

    def open(self, digest: Digest) -> BlobReader:
        """A reader, which holds the blob until it is closed."""
        lease = Lease(self._leases)
        lease.hold(digest)
        try:
            return BlobReader(self.get(digest), self._objects, lease.release)
        except BaseException:
            lease.release()
            raise

    def read(self, digest: Digest, limit: int) -> bytes:
        """All bytes of a small blob, hashed again."""
        with self.open(digest) as reader:
            if reader.size > limit:
                raise ConfigInvalid(
                    f"blob {digest} has {reader.size} bytes, and a document at most {limit}", digest=digest
                )
            data = reader.read(0, reader.size)
        if digest_of(data) != digest:
            raise self._objects.damaged(digest)
        return data

    def open_objects(self, digests: Sequence[Digest]) -> list[int]:
        """Descriptors of objects: all of them, or an error and none."""
        descriptors: list[int] = []
        try:
            for digest in digests:
                descriptors.append(self._objects.open(digest))  # noqa: PERF401 (those opened so far must be closed)
        except BaseException:
            for descriptor in descriptors:
                os.close(descriptor)
            raise
        return descriptors
