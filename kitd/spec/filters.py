"""Filters: which parts of a kit somebody wants (kit's `--filter`).

    filter := type *("," type) [":" field *("," field)]

Types are those of `FILTER_TYPES`; a field is the name or the path of an entry exactly as the Kitfile has
it. Several filters add up; none at all means everything.
"""

from collections.abc import Sequence

import msgspec

from kitd_client.api.errors import InvalidFilter

FILTER_TYPES = ("kitfile", "model", "datasets", "code", "prompts", "docs", "mcpservers")


class Filter(msgspec.Struct, frozen=True):
    """One filter."""

    types: tuple[str, ...]
    fields: tuple[str, ...] | None
    """Names and paths; None takes everything of the types."""

    def takes(self, kind: str, fields: Sequence[str]) -> bool:
        """Whether an entry of a filter type, known by `fields`, is wanted."""
        return kind in self.types and (self.fields is None or any(field in self.fields for field in fields))


def parse_filters(texts: Sequence[str]) -> tuple[Filter, ...]:
    """The filters that `texts` are.

    Raises:
        InvalidFilter: an unknown type, or more than one colon.
    """
    return tuple(_parse(text) for text in texts)


def narrow_to_model(filters: tuple[Filter, ...]) -> tuple[Filter, ...] | None:
    """What these filters want of a parent kit, of which only the model counts; None: skip the parent."""
    if not filters:
        return (Filter(("model",), None),)
    narrowed = tuple(Filter(("model",), each.fields) for each in filters if "model" in each.types)
    return narrowed or None


def _parse(text: str) -> Filter:
    head, colon, tail = text.partition(":")
    if ":" in tail:
        raise InvalidFilter(
            f"filter {text[:200]!r} has more than one colon",
            hint="write types, or types:names, as in datasets:train,test",
        )
    types = tuple(head.split(","))
    for kind in types:
        if kind not in FILTER_TYPES:
            raise InvalidFilter(
                f"filter {text[:200]!r}: there is no type {kind[:100]!r}",
                hint=f"types are {', '.join(FILTER_TYPES)}",
            )
    return Filter(types, tuple(tail.split(",")) if colon else None)
