"""The files of a layer: what is in a tar, where each file's bytes are."""

from collections.abc import Iterator
from typing import Final, Literal

from kitd.content.intake import Intake
from kitd.content.objects import Objects
from kitd.content.reader import BlobReader
from kitd.content.workers import Steps
from kitd.layer import recipe
from kitd.layer.codec import Decoder
from kitd.layer.tar import Member, TarParser
from kitd.spec.digest import Digest
from kitd_client.api.errors import ArchiveTooLarge

LIMIT: Final = 1 << 40
"""Bytes that a compressed layer may become."""

_PIECE: Final = 1 << 20
_RAW_MODE: Final = 0o644


class LayerFiles:
    """The members of one layer, in its order: each with the object that has its bytes.

    Directories and empty files have none. Iteration is for a worker thread when the layer is large; each one
    reads the recipe anew. It raises what `TarParser` raises about the layer, and `ObjectDamaged`.

    A raw layer has one member without a name.
    """

    def __init__(self, objects: Objects, digest: Digest, size: int, *, raw: bool) -> None:
        self.digest = digest
        """The uncompressed layer."""
        self._objects = objects
        self._size = size
        self._raw = raw

    def totals(self) -> tuple[int, int]:
        """How many files that are not empty there are, and their bytes; read from the recipe alone."""
        if self._raw:
            return 1, self._size
        stored = self._objects.open_recipe(self.digest)
        try:
            sizes = [size for _, size in stored.recipe.objects()]
        finally:
            stored.close()
        return len(sizes), sum(sizes)

    def __iter__(self) -> Iterator[tuple[Member, Digest | None]]:
        if self._raw:
            member = Member(name="", is_dir=False, mode=_RAW_MODE, size=self._size)
            yield member, self.digest if self._size else None
            return
        stored = self._objects.open_recipe(self.digest)
        try:
            yield from _members(stored.recipe, self._objects)
        finally:
            stored.close()


def _members(layer: recipe.Recipe, objects: Objects) -> Iterator[tuple[Member, Digest | None]]:
    parser = TarParser()
    for segment in layer.segments():
        if isinstance(segment, recipe.Literal):
            view = segment.data
            while view:
                step = parser.next(view)
                view = view[step.consumed :]
                if step.kind == "member" and parser.member is not None and not parser.remaining:
                    yield parser.member, None
        elif parser.member is not None and parser.remaining == segment.size:
            yield parser.member, segment.digest
            parser.skip(segment.size)
        else:
            _refuse(parser, segment, objects)
    parser.finish()


def _refuse(parser: TarParser, segment: recipe.ObjectSlice, objects: Objects) -> None:
    """Raises what the parser has against an object that is no member: from it on the layer was not split.

    Without an error the object is the beginning of a file that is cut off; the parser's `finish` says that.
    """
    is_cut = bool(parser.remaining)
    with BlobReader.of_object(segment.digest, segment.size, objects) as reader:
        offset = 0
        while piece := reader.read(offset, _PIECE):
            offset += len(piece)
            view = memoryview(piece)
            while view:
                step = parser.next(view)
                if step.kind == "member" or (step.kind == "data" and not is_cut):
                    raise ArchiveTooLarge("the archive has more headers than can be kept")
                view = view[step.consumed :]


def refill(reader: BlobReader, intake: Intake, compression: Literal["none", "gzip", "zstd"]) -> Steps:
    """Writes a stored blob anew: decompressed, and split as the intake does it.

    Raises:
        ArchiveInvalid: also when the tar in it is refused.
        ArchiveTooLarge: it becomes too large.
        UnsupportedEntry: the tar has a member that kits never hold.
    """
    decoder = None if compression == "none" else Decoder(compression, limit=LIMIT)
    offset = 0
    while data := reader.read(offset, _PIECE):
        offset += len(data)
        for piece in (data,) if decoder is None else decoder.feed(data):
            intake.append([piece])
        if intake.refusal is not None:
            raise intake.refusal
        yield
    if decoder is not None:
        decoder.finish()
    if intake.parser is not None:
        intake.parser.finish()
