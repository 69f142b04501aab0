"""Objects and recipes on the disk: are they there, and are they what they were?

An object that was never touched has modification time 0 and its size. Every write moves the time, also one
through a hard link, a descriptor that was reopened, or a root shell; then the bytes are hashed again before
they are used.
"""

# Paths come by the hundred thousand here: they stay plain strings.
# ruff: noqa: PTH104, PTH108, PTH116, PTH120

import errno
import hashlib
import mmap
import os
import stat
import threading
from contextlib import suppress
from typing import Final

from kitd.content.database import Database
from kitd.content.layout import Layout
from kitd.content.trash import Trash
from kitd.layer.recipe import Recipe
from kitd.spec.digest import Digest, digest_hex
from kitd_client.api.errors import ObjectDamaged

READ_ONLY: Final = 0o444
_EXECUTABLE: Final = 0o555
_OVER: Final = ".over"
"""How the second name of a recipe ends that is about to replace another."""
_PIECE: Final = 1 << 18
_HEX_DIGITS: Final = 64
_NO_OBJECT: Final = (errno.ENOENT, errno.ELOOP)
"""Nothing has the name, or a symbolic link has it: we make none."""
_Identity = tuple[int, int] | None
"""Which file has a name: device and inode; none: there is no such name."""


def seal_file(descriptor: int, mode: int = READ_ONLY) -> None:
    """Gives a complete file what marks it as untouched; before its data is synced."""
    os.fchmod(descriptor, mode)
    os.utime(descriptor, ns=(0, 0))


def hash_file(descriptor: int) -> str:
    """The sha256 of a file from its beginning, as hexadecimal digits."""
    hasher = hashlib.sha256()
    offset = 0
    while piece := os.pread(descriptor, _PIECE, offset):
        hasher.update(piece)
        offset += len(piece)
    return hasher.hexdigest()


def object_name(name: str) -> Digest | None:
    """The digest of the object that a file of an ingest directory is, if it is one."""
    return Digest(f"sha256:{name}") if len(name) == _HEX_DIGITS else None


class StoredRecipe:
    """A recipe, mapped into memory."""

    def __init__(self, descriptor: int) -> None:
        self._map = mmap.mmap(descriptor, 0, access=mmap.ACCESS_READ)
        try:
            self.recipe = Recipe(self._map)
        except ObjectDamaged:
            # Its half-made views may hold the mapping; then that goes with them.
            with suppress(BufferError):
                self._map.close()
            raise

    def close(self) -> None:
        self.recipe.close()
        self._map.close()


class Objects:
    """The directories `objects/` and `recipes/`. For worker threads."""

    def __init__(self, layout: Layout, database: Database, trash: Trash) -> None:
        self._layout = layout
        self._database = database
        self._trash = trash
        self.turn = threading.RLock()
        """Held while blobs are published, and while something bad is put aside."""
        self._second = threading.Lock()
        """Held while a second inode is looked at and made: of two at once one would put the other's aside."""

    def size(self, digest: Digest) -> int | None:
        """Bytes of the object, whatever is in it; none: it is not here."""
        try:
            return os.stat(self._layout.object(digest), follow_symlinks=False).st_size
        except FileNotFoundError:
            return None

    def open(self, digest: Digest, size: int | None = None) -> int:
        """A read-only descriptor of an object that nobody has touched.

        Raises:
            ObjectDamaged: its bytes are not its digest's, or it is gone. It is put aside, and every blob that
                needs it lost its row.
        """
        path = self._layout.object(digest)
        try:
            descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
        except OSError as error:
            if error.errno not in _NO_OBJECT:
                raise
            self._put_aside(digest, None if error.errno == errno.ENOENT else _identity(path))
            raise _damaged(digest, "is missing") from None
        sound = False
        try:
            sound = _is_sound(descriptor, digest, size)
            if not sound:
                status = os.fstat(descriptor)
                self._put_aside(digest, (status.st_dev, status.st_ino))
        finally:
            if not sound:
                os.close(descriptor)
        if not sound:
            raise _damaged(digest, "was changed by someone else")
        return descriptor

    def holds(self, digest: Digest, size: int) -> bool:
        """Whether the object is here and sound; a bad one is put aside."""
        if not os.path.lexists(self._layout.object(digest)):
            return False
        try:
            os.close(self.open(digest, size))
        except ObjectDamaged:
            return False
        return True

    def borrow(self, digest: Digest, size: int, target: str) -> bool:
        """Links an object to `target` if it is here already; False: there is none, or no sound one.

        With a link of its own an ingest keeps the bytes even if the object is collected meanwhile.
        """
        # That it is not here is the usual case, and an exception costs more than a look.
        return os.access(self._layout.object(digest), os.F_OK) and self.link(digest, size, target)

    def link(self, digest: Digest, size: int, target: str) -> bool:
        """Links an object to `target`; False: there is no sound one, or it takes no more links."""
        try:
            os.link(self._layout.object(digest), target)
        except FileNotFoundError:
            return False
        except OSError as error:
            if error.errno == errno.EMLINK:
                return False
            raise
        status = os.stat(target)
        if status.st_mtime_ns == 0 and status.st_size == size:
            return True
        if self.holds(digest, size):
            return True
        os.unlink(target)
        return False

    def place(self, source: str, digest: Digest) -> str:
        """Links a file whose data is safe into `objects/`; an existing object stays if it is sound.

        Returns:
            The directory whose new name is not safe yet.
        """
        target = self._layout.object(digest)
        try:
            os.link(source, target)
        except FileExistsError:
            if not self.holds(digest, os.stat(source).st_size):
                os.link(source, target)
        return os.path.dirname(target)

    def place_recipe(self, source: str, digest: Digest) -> str:
        """Links a recipe whose data is safe into `recipes/`, over one that is there already: in one step.

        Returns:
            The directory whose new name is not safe yet.
        """
        target = self._layout.recipe(digest)
        over = f"{source}{_OVER}"
        with suppress(FileNotFoundError):
            os.unlink(over)
        os.link(source, over)
        os.rename(over, target)
        return os.path.dirname(target)

    def open_recipe(self, digest: Digest) -> StoredRecipe:
        """The recipe of a blob.

        Raises:
            ObjectDamaged: it was touched, or is gone; the blob lost its row.
        """
        try:
            descriptor = os.open(self._layout.recipe(digest), os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
        except FileNotFoundError:
            self._drop_recipe(digest, None)
            raise _damaged(digest, "has no recipe any more") from None
        stored = None
        try:
            status = os.fstat(descriptor)
            with suppress(ObjectDamaged, ValueError):
                stored = StoredRecipe(descriptor) if status.st_mtime_ns == 0 else None
            if stored is None:
                self._drop_recipe(digest, (status.st_dev, status.st_ino))
        finally:
            os.close(descriptor)
        if stored is None:
            raise _damaged(digest, "has a recipe that was changed by someone else")
        return stored

    def require(self, digest: Digest) -> None:
        """Raises OSError unless every object that a recipe refers to has its name: nothing is visible in part."""
        stored = self.open_recipe(digest)
        try:
            for other, _ in stored.recipe.objects():
                path = self._layout.object(other)
                if not os.access(path, os.F_OK):
                    raise OSError(errno.ENOENT, os.strerror(errno.ENOENT), path)
        finally:
            stored.close()

    def drop_recipe(self, digest: Digest) -> None:
        """Puts a bad recipe aside; its blob loses its row."""
        self._drop_recipe(digest, _identity(self._layout.recipe(digest)))

    def _drop_recipe(self, digest: Digest, judged: _Identity) -> None:
        path = self._layout.recipe(digest)
        with self.turn:
            if _identity(path) != judged:
                return  # another has the name by now
            blob = self._database.blob(digest)
            if blob is not None and blob.recipe:
                self._database.hide([digest])
            self._trash.put(path)

    def damaged(self, digest: Digest) -> ObjectDamaged:
        """Puts an object aside that turned out bad in use; the error to raise."""
        self.put_aside(digest)
        return _damaged(digest, "has other bytes than it should")

    def put_aside(self, digest: Digest) -> None:
        """Puts a bad object aside; every blob that needs it loses its row, so the next pull fetches it."""
        self._put_aside(digest, _identity(self._layout.object(digest)))

    def _put_aside(self, digest: Digest, judged: _Identity) -> None:
        """The same, unless the name leads to another file than the one that was judged: a good one came."""
        path = self._layout.object(digest)
        with self.turn:
            if _identity(path) != judged:
                return
            needing = self._blobs_with(digest)
            blob = self._database.blob(digest)
            if blob is not None and not blob.recipe:
                needing.append(digest)
            self._database.hide(needing)
            self._trash.put(path)
            self._trash.put(self._layout.executable(digest))

    def _blobs_with(self, digest: Digest) -> list[Digest]:
        found = []
        for blob in self._database.blobs():
            if blob.recipe:
                stored = self._stored_recipe(blob.digest)
                if stored is not None:
                    if any(other == digest for other, _ in stored.recipe.objects()):
                        found.append(blob.digest)
                    stored.close()
        return found

    def _stored_recipe(self, digest: Digest) -> StoredRecipe | None:
        try:
            return self.open_recipe(digest)
        except ObjectDamaged:
            return None

    def executable(self, digest: Digest, size: int) -> str:
        """The path of the object's second inode, which has the execute bits; made when first needed.

        Raises:
            ObjectDamaged: the object cannot be used.
        """
        path = self._layout.executable(digest)
        with self._second:
            if not self._has_executable(path, digest, size):
                source = self.open(digest, size)
                try:
                    self.copy(source, path, _EXECUTABLE)
                finally:
                    os.close(source)
        return path

    def _has_executable(self, path: str, digest: Digest, size: int) -> bool:
        """Whether it is here and sound; a bad one is put aside."""
        try:
            descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
        except FileNotFoundError:
            return False
        with os.fdopen(descriptor, "rb"):
            if _is_sound(descriptor, digest, size, mode=_EXECUTABLE):
                return True
        self._trash.put(path)
        return False

    def copy(self, source: int, target: str, mode: int) -> None:
        """A new file with the bytes of an open object; `target` gets its name when its data is safe."""
        made = self._layout.fresh_ingest()
        descriptor = os.open(made, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            append_file(source, descriptor)
            seal_file(descriptor, mode)
            os.fdatasync(descriptor)
            os.rename(made, target)
        except BaseException:
            os.unlink(made)
            raise
        finally:
            os.close(descriptor)


def append_file(source: int, target: int) -> None:
    """Writes all of an open file at the position of another one, on the same file system; OSError."""
    size = os.fstat(source).st_size
    offset = 0
    while offset < size:
        copied = os.copy_file_range(source, target, size - offset, offset)
        if copied == 0:
            raise OSError(errno.EIO, "the file became shorter while it was copied")
        offset += copied


def _is_sound(descriptor: int, digest: Digest, size: int | None, mode: int = READ_ONLY) -> bool:
    status = os.fstat(descriptor)
    if not stat.S_ISREG(status.st_mode) or (size is not None and status.st_size != size):
        return False
    if status.st_mtime_ns == 0:
        return True
    if hash_file(descriptor) != digest_hex(digest):
        return False
    seal_file(descriptor, mode)
    return True


def _identity(path: str) -> _Identity:
    try:
        status = os.stat(path, follow_symlinks=False)
    except FileNotFoundError:
        return None
    return status.st_dev, status.st_ino


def _damaged(digest: Digest, what: str) -> ObjectDamaged:
    return ObjectDamaged(
        f"object {digest} {what}",
        kept="everything else",
        hint="pull the kit again: only what is missing is fetched",
        digest=digest,
    )
