"""Where everything of a store lies. Every path is absolute."""

import secrets
from pathlib import Path
from typing import Final

from kitd.spec.digest import Digest, digest_hex

FORMAT: Final = 1
"""The version of this layout."""

RECIPE: Final = ".recipe"
"""How the name of a recipe ends while it lies in an ingest directory."""

_EXECUTABLE: Final = ".x"
_FRESH: Final = "new-"


class Layout:
    """The paths of the store at `root`.

    Objects and recipes are asked for by the hundred thousand, so their paths are plain strings.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self.lock = root / "lock"
        self.version = root / "VERSION"
        self.cache_tag = root / "CACHEDIR.TAG"
        self.database = root / "kitd.db"
        self.objects = root / "objects" / "sha256"
        self.recipes = root / "recipes" / "sha256"
        self.ingest = root / "ingest"
        self.snapshots = root / "snapshots"
        self.trash = root / "trash"
        self._objects = f"{self.objects}/"
        self._recipes = f"{self.recipes}/"

    def object(self, digest: Digest) -> str:
        """The bytes of a file, of a raw or compressed layer, of a manifest or a config."""
        name = digest_hex(digest)
        return f"{self._objects}{name[:2]}/{name}"

    def executable(self, digest: Digest) -> str:
        """The same bytes under an inode of their own that has the execute bits."""
        return self.object(digest) + _EXECUTABLE

    def recipe(self, digest: Digest) -> str:
        """How the blob `digest` is re-created."""
        name = digest_hex(digest)
        return f"{self._recipes}{name[:2]}/{name}"

    def ingest_of(self, digest: Digest) -> Path:
        """Where the blob `digest` is written."""
        return self.ingest / digest_hex(digest)

    def fresh_ingest(self) -> Path:
        """Where a blob is written whose digest nobody knows yet."""
        return self.ingest / f"{_FRESH}{secrets.token_hex(16)}"

    def fresh_trash(self) -> Path:
        """A name in the trash that nothing has."""
        return self.trash / secrets.token_hex(16)

    def fresh_snapshot(self) -> Path:
        """A directory that other users find only if they are told its name: 128 random bits."""
        return self.snapshots / secrets.token_hex(16)


def is_fresh(name: str) -> bool:
    """Whether an ingest directory is one that nobody can go on with after a restart."""
    return name.startswith(_FRESH)
