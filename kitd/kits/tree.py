"""The tree that a selection of layers unpacks to, decided before anything is written."""

from collections.abc import Iterable

from kitd.content.snapshots import TreeEntry
from kitd.layer.tar import Member, check_name
from kitd.spec.digest import Digest
from kitd.spec.modelkit import Layer
from kitd_client.api.errors import ArchiveInvalid


class TreePlan:
    """Collects the members of layers into one tree; strict, because what it lets through is written.

    Modes are masked with 0777. A directory may come again (layers repeat their ancestors); its first mode
    stands. Missing parent directories are left to the writer.
    """

    def __init__(self) -> None:
        self._entries: dict[tuple[str, ...], TreeEntry] = {}
        self._inner: set[tuple[str, ...]] = set()
        self.masked = 0
        """Members whose setuid, setgid or sticky bit was taken off."""

    def add(self, label: str, files: Iterable[tuple[Member, Digest | None]]) -> None:
        """Adds the members of one layer.

        Raises:
            ArchiveInvalid: a name that must not be unpacked, a file that comes twice, a file that is a directory
                elsewhere.
        """
        for member, digest in files:
            parts = check_name(member.name)
            if not parts:
                continue
            self._add(label, parts, member, digest)

    def add_file(self, layer: Layer, files: Iterable[tuple[Member, Digest | None]]) -> None:
        """Adds the one file of a raw layer, which has its name and its mode from the manifest.

        Raises:
            ArchiveInvalid: as `add` does.
        """
        for member, digest in files:
            mode = member.mode if layer.mode is None else layer.mode
            self.add(
                layer.label, [(Member(layer.file_path, is_dir=False, mode=mode, size=member.size), digest)]
            )

    def _add(self, label: str, parts: tuple[str, ...], member: Member, digest: Digest | None) -> None:
        known = self._entries.get(parts)
        if known is not None and not (known.is_dir and member.is_dir):
            raise ArchiveInvalid(f"layer {label}: {member.name!r} comes twice", member=member.name)
        if not member.is_dir and parts in self._inner:
            raise ArchiveInvalid(
                f"layer {label}: {member.name!r} is a file here and a directory elsewhere", member=member.name
            )
        self._check_parents(label, parts, member)
        if member.mode & 0o7000:
            self.masked += 1
        if known is None:
            self._entries[parts] = TreeEntry(
                "/".join(parts), member.is_dir, member.mode & 0o777, member.size, digest
            )

    def _check_parents(self, label: str, parts: tuple[str, ...], member: Member) -> None:
        parent = parts[:-1]
        while parent and parent not in self._inner:
            above = self._entries.get(parent)
            if above is not None and not above.is_dir:
                raise ArchiveInvalid(
                    f"layer {label}: {member.name!r} lies below the file {above.path!r}", member=member.name
                )
            self._inner.add(parent)
            parent = parent[:-1]

    def entries(self) -> list[TreeEntry]:
        """The tree, every directory before what lies in it."""
        return sorted(self._entries.values(), key=lambda entry: entry.path.split("/"))
