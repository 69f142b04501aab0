"""The little a client must know of references; the daemon parses and judges them."""

import msgspec


class Name(msgspec.Struct, frozen=True):
    """The repository a reference names; `registry` is empty for one that is only local."""

    registry: str
    repository: str


def name_of(reference: str) -> Name:
    """Registry and repository of a reference, by kit's rule: a first part with `.` or `:` is a registry."""
    text = reference.removeprefix("kit://").removeprefix("oci://").partition(",")[0]
    first, slash, rest = text.partition("/")
    registry = ""
    if slash and (":" in first or "." in first):
        registry, text = first, rest
    return Name(registry, text.partition("@")[0].partition(":")[0])


def split_tags(reference: str) -> list[str]:
    """`registry/repository:t1,t2` as one reference a tag."""
    first, *more = reference.split(",")
    stem, colon, _ = first.rpartition(":")
    if not more or not colon or "/" in first[len(stem) :]:
        stem = first
    return [first, *(f"{stem}:{tag}" for tag in more)]
