"""One blob being written into its ingest directory: literals, objects, and at the end its recipe.

    journal         what is written, in order (split blobs of a known digest)
    <hex>           a complete object: a member of a tar, or the whole of a blob that is not split
    tail-<offset>   the bytes from `offset` of the blob on, of an object that is not complete yet
    <hex>.recipe    made when the blob is complete and verified

Each byte is written once, and in order. Objects are 0444 with modification time 0 as soon as they are
complete.
"""

# Paths come by the hundred thousand here: they stay plain strings.
# ruff: noqa: PTH104, PTH108, PTH110

import hashlib
import os
from contextlib import suppress

import msgspec

from kitd.content.journal import Journal
from kitd.content.layout import RECIPE
from kitd.content.objects import Objects, append_file, seal_file
from kitd.content.sync import open_directory
from kitd.content.unfinished import SLICE, Unfinished, tail_name, write_all
from kitd.layer.recipe import RecipeBuilder
from kitd.spec.digest import Buffer, Digest, digest_hex


class Sealed(msgspec.Struct, frozen=True):
    """A complete, verified blob in its ingest directory; nothing of it is safe yet."""

    digest: Digest
    size: int
    directory: str
    since: int
    """A descriptor of the directory that is older than its files; the writer closes it."""
    recipe: bool
    """It is re-created from its recipe; else it is one object."""


class BlobWriter:
    """Writes one blob, or goes on writing it.

    Callers `hash` the next bytes of the blob, and say what they are in slices of at most `SLICE`. Both may go on
    at the same time.

    Args:
        directory: the ingest directory, which exists.
        objects: what the store has already is linked from there instead of written.
        whole: the blob becomes one object; else literals and objects.
        journaled: an earlier life left a journal, or a later one may need it.
    """

    def __init__(self, directory: str, objects: Objects, *, whole: bool, journaled: bool) -> None:
        self.directory = directory
        self.offset = 0
        """Bytes hashed so far."""
        self.hasher = hashlib.sha256()
        self.literal_bytes = 0
        self._objects = objects
        self._whole = whole
        self.position = 0
        """Where the unfinished object begins, or the next literal: all before it is recorded."""
        self._builder = RecipeBuilder(self._spill)
        self._spilled = -1
        """The literals so far, but for the last: a file without a name."""
        self._first: Digest | None = None
        self.journal = Journal(directory) if journaled and not whole else None
        self.unfinished: Unfinished | None = None
        self.small = 0
        """Bytes in small files since the disk was put to work on them; about, for several threads count."""
        self.since = open_directory(directory)
        """Older than every object here: a flush through it is told of all errors since."""

    def hash(self, data: Buffer) -> None:
        """These bytes of the blob come next."""
        self.hasher.update(data)
        self.offset += len(data)

    def literal(self, data: Buffer) -> None:
        """Bytes that belong to no object."""
        self._builder.literal(data)
        self.literal_bytes += len(data)
        self.position += len(data)
        if self.journal is not None:
            self.journal.literal(data)

    def object(self, data: Buffer) -> None:
        """A complete object, all in one piece."""
        self.refer(self.keep(data), len(data))

    def keep(self, data: Buffer) -> Digest:
        """Writes a complete object, which gets its place in the blob later; several threads may do so at a time."""
        digest = Digest("sha256:" + hashlib.sha256(data).hexdigest())
        self._keep(digest, data)
        return digest

    def begin(self, size: int | None) -> None:
        """An object of `size` bytes (None: the rest of the blob) begins; `data` brings them."""
        self.unfinished = Unfinished(self.position, size, shares_hash=self._whole)
        if size is None or size > SLICE:
            self.unfinished.open(self.directory)

    def take_up(self, size: int | None) -> int:
        """Goes on with the tail file of an earlier life, see `begin`; its descriptor, to be read again."""
        self.unfinished = Unfinished(self.position, size, shares_hash=self._whole)
        self.unfinished.go_on(f"{self.directory}/{tail_name(self.position)}")
        return self.unfinished.descriptor

    def read_again(self, data: Buffer) -> None:
        """Bytes that are in the tail file already, from its start on."""
        if self.unfinished is not None:
            self.hash(data)
            self.unfinished.read_again(data)

    def begin_rest(self) -> None:
        """From here on the blob is one object, whatever it is."""
        self.note_rest()
        self.begin(None)

    def note_rest(self) -> None:
        if self.journal is not None:
            self.journal.rest()

    @property
    def wanted(self) -> int | None:
        """Bytes the unfinished object still takes; 0: there is none, None: all that come."""
        if self.unfinished is None:
            return 0
        if self.unfinished.size is None:
            return None
        return self.unfinished.size - self.unfinished.received

    def data(self, data: Buffer) -> None:
        """The next bytes of the unfinished object, at most `SLICE`."""
        member = self.unfinished
        if member is None:
            raise ValueError("no object is under way")
        if member.buffer is not None and len(data) == member.size:
            self.unfinished = None
            self.object(data)
            return
        member.add(data)
        if self.wanted == 0:
            self.complete()

    def refer(self, digest: Digest, size: int) -> None:
        """The object is written, and comes next in the blob."""
        self._builder.reference(digest, size)
        self.position += size
        if self._first is None:
            self._first = digest
        if self.journal is not None:
            self.journal.object(digest, size)

    def flush(self) -> None:
        """All bytes so far are in files; `kill -9` does not lose them any more."""
        if self.unfinished is not None and self.unfinished.buffer is not None:
            self.unfinished.open(self.directory)
        if self.journal is not None:
            self.journal.flush()

    def complete(self) -> None:
        """The unfinished object gets its name."""
        member, self.unfinished = self.unfinished, None
        if member is None:
            return
        if not member.received and not self._whole:
            member.close()  # the blob ends before the object's first byte
            return
        if member.buffer is not None:
            self.object(member.buffer)
            return
        try:
            digest = Digest("sha256:" + (member.hasher or self.hasher).hexdigest())
            if member.received:
                self.refer(digest, member.received)
            if self.journal is not None:
                self.journal.flush()
            self._name_tail(member, digest)
        finally:
            member.close()

    def _name_tail(self, member: Unfinished, digest: Digest) -> None:
        tail = f"{self.directory}/{tail_name(member.start)}"
        path = f"{self.directory}/{digest_hex(digest)}"
        if os.path.exists(path) or self._objects.borrow(digest, member.received, path):
            os.unlink(tail)
        else:
            member.trim()
            seal_file(member.descriptor)
            os.rename(tail, path)

    def _keep(self, digest: Digest, data: Buffer) -> None:
        path = f"{self.directory}/{digest_hex(digest)}"
        try:
            if self._objects.borrow(digest, len(data), path):
                return
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        except FileExistsError:
            return
        try:
            write_all(descriptor, data)
            seal_file(descriptor)
            self.small += len(data)
        except BaseException:
            os.unlink(path)
            raise
        finally:
            os.close(descriptor)

    def digest(self) -> Digest:
        """The digest of all bytes so far."""
        return Digest("sha256:" + self.hasher.hexdigest())

    def seal(self) -> Sealed:
        """The blob is complete and its digest is right: the last object gets its name, the recipe is made."""
        self.complete()
        digest = self.digest()
        # An object with the blob's own digest is all of it: the parser refused the very first bytes.
        recipe = not self._whole and self._first != digest
        if recipe:
            descriptor = os.open(
                f"{self.directory}/{digest_hex(digest)}{RECIPE}",
                os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC,
                0o600,
            )
            try:
                before, after = self._builder.finish()
                write_all(descriptor, before)
                if self._spilled >= 0:
                    append_file(self._spilled, descriptor)
                write_all(descriptor, after)
                seal_file(descriptor)
            finally:
                os.close(descriptor)
        return Sealed(digest, self.offset, self.directory, self.since, recipe)

    def _spill(self, frame: bytes) -> None:
        """Literals do not stay in memory: a hostile archive has as many as `intake.LITERALS` allows."""
        if self._spilled < 0:
            path = f"{self.directory}/literals"
            self._spilled = os.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
            os.unlink(path)
        write_all(self._spilled, frame)

    def close(self) -> None:
        """Gives up the descriptors; what is written stays."""
        if self.since >= 0:
            os.close(self.since)
            self.since = -1
        if self._spilled >= 0:
            os.close(self._spilled)
            self._spilled = -1
        if self.unfinished is not None:
            with suppress(OSError):  # it only costs room
                self.unfinished.trim()
            self.unfinished.close()
        if self.journal is not None:
            self.journal.close()
            self.journal = None
