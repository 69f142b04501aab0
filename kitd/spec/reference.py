"""References: how people and Kitfiles name a kit.

The grammar is kit's, to the letter (its `ParseReference`, with the checks of oras-go behind it): what kit
takes for a reference decides what a path of a Kitfile means.
"""

import re

import msgspec

from kitd.spec.digest import Digest, parse_digest
from kitd.spec.go_url import is_url_host
from kitd_client.api.errors import InvalidDigest, InvalidReference, Unsupported

LOCAL_REGISTRY = "localhost"
"""The registry of names that belong to no registry: they are neither pulled nor pushed."""

UNNAMED_REPOSITORY = "_"
"""The repository of kits packed without a name, and of bare digests."""

_SCHEMES = ("kit://", "oci://")
_LIMIT = 4096
_SHOWN = 100
_REPOSITORY = re.compile(
    r"[a-z0-9]++(?:(?:[._]|__|-++)[a-z0-9]++)*+(?:/[a-z0-9]++(?:(?:[._]|__|-++)[a-z0-9]++)*+)*+"
)
_TAG = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}")


class Reference(msgspec.Struct, frozen=True):
    """A kit in a repository, by tag, by digest, or (with neither) the repository itself."""

    registry: str
    """A host, with a port where one was given; `localhost` alone stands for "no registry"."""
    repository: str
    tag: str | None
    digest: Digest | None

    @property
    def is_local(self) -> bool:
        """Whether no registry holds it."""
        return self.registry == LOCAL_REGISTRY

    @property
    def name(self) -> str:
        """`registry/repository`; the repository alone for a local name."""
        return self.repository if self.is_local else f"{self.registry}/{self.repository}"

    def __str__(self) -> str:
        """As a person writes it; `parse_reference` reads it back as the same."""
        if self.digest is not None:
            unnamed = self.is_local and self.repository == UNNAMED_REPOSITORY
            return self.digest if unnamed else f"{self.name}@{self.digest}"
        return self.name if self.tag is None else f"{self.name}:{self.tag}"


def parse_reference(text: str, *, default_tag: str | None = "latest") -> Reference:
    """The kit that `[registry/]repository[:tag][@digest]` names; with a digest the tag is dropped.

    The first component is the registry if it has a `.` or a `:`; else the whole is a local name. A bare
    digest is a kit without a name. `kit://` and `oci://` before it are taken off.

    Raises:
        InvalidReference: it is none.
        Unsupported: its digest is not of SHA-256.
    """
    registry, repository, tag, digest = _parse(_without_scheme(text))
    if tag is None and digest is None:
        tag = default_tag
    return Reference(registry, repository, tag, None if digest is None else parse_digest(digest))


def parse_tags(text: str) -> tuple[Reference, ...]:
    """The references of `registry/repository:tag,tag...`, each once, in order; no tag means `latest`.

    Raises:
        InvalidReference: one of them is none.
        Unsupported: its digest is not of SHA-256.
    """
    first, *others = _without_scheme(text).split(",")
    reference = parse_reference(first)
    if others and reference.digest is not None:
        raise InvalidReference(f"reference {_shown(text)}: tags cannot follow a digest")
    references = [reference]
    for tag in others:
        _check_tag(tag)
        references.append(Reference(reference.registry, reference.repository, tag, None))
    return tuple(dict.fromkeys(references))


def is_kit_reference(text: str) -> bool:
    """Whether kit takes this text, found where a path may stand, for the name of another kit."""
    if ":" not in text and "@" not in text:
        return False
    try:
        _parse(text.partition(",")[0])
    except InvalidReference:
        return False
    return True


def _parse(text: str) -> tuple[str, str, str | None, str | None]:
    """Registry, repository, tag and digest (of any algorithm) of one reference without a scheme."""
    if len(text) > _LIMIT:
        raise InvalidReference(f"reference {_shown(text)} is longer than {_LIMIT} characters")
    if _is_digest(text):
        return LOCAL_REGISTRY, UNNAMED_REPOSITORY, None, text
    first, slash, rest = text.partition("/")
    registry = LOCAL_REGISTRY
    if slash and (":" in first or "." in first):
        registry, text = first, rest
    name, at, digest = text.partition("@")
    repository, colon, tag = name.partition(":")
    if not is_url_host(registry):
        raise InvalidReference(f"{_shown(registry)} is no host name of a registry", hint="write host[:port]")
    if repository.lower() != repository:
        raise InvalidReference(f"repository {_shown(repository)}: the name must be lower case")
    if not _REPOSITORY.fullmatch(repository):
        raise InvalidReference(
            f"repository {_shown(repository)} is no repository name",
            hint="write [registry/]repository[:tag] or [registry/]repository@digest",
        )
    if at:
        if not _is_digest(digest):
            raise InvalidReference(f"{_shown(digest)} is no digest")
        return registry, repository, None, digest
    if colon:
        _check_tag(tag)
        return registry, repository, tag, None
    return registry, repository, None, None


def _is_digest(text: str) -> bool:
    try:
        parse_digest(text)
    except InvalidDigest:
        return False
    except Unsupported:
        return True
    return True


def _check_tag(tag: str) -> None:
    if not _TAG.fullmatch(tag):
        raise InvalidReference(
            f"{_shown(tag)} is no tag", hint="a tag has 1 to 128 letters, digits, '_', '.' and '-'"
        )


def _without_scheme(text: str) -> str:
    for scheme in _SCHEMES:
        if text.startswith(scheme):
            return text.removeprefix(scheme)
    if "://" in text:
        raise InvalidReference(
            f"reference {_shown(text)} looks like a URL",
            hint="write registry/repository:tag, without https://",
        )
    return text


def _shown(text: str) -> str:
    return repr(text if len(text) <= _SHOWN else text[:_SHOWN] + "...")
