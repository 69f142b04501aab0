"""YAML as a tree of nodes: the only module that knows the YAML library.

The tree is composed here, from the parser's events, so that every bound holds while it grows: size, depth,
and what aliases multiply ("billion laughs").
"""

from typing import TypeAlias, cast

import msgspec
import yaml
from yaml.cyaml import CBaseLoader

from kitd.spec import go_yaml, go_yaml_text

_DEPTH = 64
_REPAIRS = 50
"""Each one reads the text again."""
_ALIASED = 2**20
_TAGS = "tag:yaml.org,2002:"


class Scalar(msgspec.Struct):
    text: str
    tag: str
    """By yaml.v3's rules, as `int`; `merge` for the key `<<`."""
    value: go_yaml.Scalar
    line: int


class Sequence(msgspec.Struct):
    items: list["Node"]
    line: int


class Mapping(msgspec.Struct):
    members: list[tuple[Scalar, "Node"]]
    line: int


Node: TypeAlias = Scalar | Sequence | Mapping


class YamlError(ValueError):
    """The text is no YAML that is taken: the message says where and why."""


def read_yaml(data: bytes, *, limit: int) -> Node | None:
    """The first document of a YAML text in UTF-8; None when there is none.

    Bounded: `limit` bytes, 64 levels, aliases that stand for at most 1 MiB of text and nodes. A key that
    stands twice in one mapping and a key that is no scalar are errors.

    Raises:
        YamlError: it cannot be read, or is out of bounds.
    """
    if len(data) > limit:
        raise YamlError(f"{len(data)} bytes, more than the {limit} that are read")
    try:
        # libyaml does not count the mark in the places it names.
        text = data.decode().removeprefix("\ufeff")
        go_yaml_text.refuse_text(text)
    except UnicodeDecodeError as error:
        raise YamlError(f"not UTF-8 at byte {error.start}") from None
    except ValueError as error:
        raise YamlError(str(error)) from None
    for _ in range(_REPAIRS):
        try:
            return _read(text)
        except yaml.MarkedYAMLError as error:
            repaired = go_yaml_text.repaired(text, error)
            if repaired is None:
                mark = error.problem_mark or error.context_mark
                where = f"line {mark.line + 1}: " if mark else ""
                raise YamlError(f"{where}{error.problem or error.context}") from None
            text = repaired
        except yaml.reader.ReaderError as error:
            raise YamlError(f"{error.reason} at character {error.position}") from None
    raise YamlError("there are too many comments behind tabs and escaped apostrophes")


def _read(text: str) -> Node | None:
    parser = CBaseLoader(text)
    try:
        return _compose(parser, text)
    finally:
        parser.dispose()


class _Built(msgspec.Struct):
    """A node with what it costs to use it once more."""

    node: Node
    weight: int
    height: int


class _Open(msgspec.Struct):
    """A collection whose end has not been seen."""

    node: Sequence | Mapping
    anchor: str | None
    in_flow: bool
    """It is written in `[]` or `{}`."""
    weight: int = 1
    height: int = 1
    key: Scalar | None = None
    keys: set[str] = msgspec.field(default_factory=set)

    def add(self, built: _Built, line: int) -> None:
        """Take the next item, key or value."""
        self.weight += built.weight
        self.height = max(self.height, built.height + 1)
        if isinstance(self.node, Sequence):
            self.node.items.append(built.node)
        elif self.key is not None:
            self.node.members.append((self.key, built.node))
            self.key = None
        elif not isinstance(built.node, Scalar):
            raise YamlError(f"line {line}: a key must be text")
        elif built.node.text in self.keys:
            raise YamlError(f"line {line}: the key {built.node.text[:100]!r} stands twice in one mapping")
        else:
            self.key = built.node
            self.keys.add(built.node.text)


def _compose(parser: CBaseLoader, text: str) -> Node | None:
    """The first document, from the events of the parser, without recursion."""
    anchors: dict[str, _Built] = {}
    open_nodes: list[_Open] = []
    aliased = 0
    root: Node | None = None
    while True:
        event = cast("yaml.Event", parser.get_event())
        if isinstance(event, yaml.DocumentEndEvent):
            go_yaml_text.look_ahead(parser, event)
            return root
        if isinstance(event, yaml.StreamEndEvent):
            return root
        line = cast("yaml.Mark", event.start_mark).line + 1
        _check(event, text, line, in_flow=bool(open_nodes) and open_nodes[-1].in_flow)
        if isinstance(event, yaml.StreamStartEvent | yaml.DocumentStartEvent):
            continue
        if isinstance(event, yaml.CollectionStartEvent):
            open_nodes.append(_opened(event, line))
            _check_depth(len(open_nodes), line)
            continue
        built = _built(event, line, anchors, open_nodes)
        if isinstance(event, yaml.AliasEvent):
            aliased += built.weight
            if aliased > _ALIASED:
                raise YamlError(f"line {line}: aliases stand for too much")
        _check_depth(len(open_nodes) + built.height, line)
        if open_nodes:
            open_nodes[-1].add(built, line)
        else:
            root = built.node


def _opened(event: yaml.CollectionStartEvent, line: int) -> _Open:
    if isinstance(event, yaml.MappingStartEvent):
        return _Open(Mapping([], line), event.anchor, in_flow=bool(event.flow_style))
    return _Open(Sequence([], line), event.anchor, in_flow=bool(event.flow_style))


def _built(event: yaml.Event, line: int, anchors: dict[str, _Built], open_nodes: list[_Open]) -> _Built:
    """The node that an event completes."""
    if isinstance(event, yaml.AliasEvent):
        if event.anchor not in anchors:
            raise YamlError(f"line {line}: unknown anchor {event.anchor!r}")
        return anchors[event.anchor]
    if isinstance(event, yaml.ScalarEvent):
        anchor = event.anchor
        built = _Built(_scalar(event, line), 1 + len(event.value), 0)
    else:
        done = open_nodes.pop()
        anchor = done.anchor
        built = _Built(done.node, done.weight, done.height)
    if anchor is not None:
        anchors[anchor] = built
    return built


def _scalar(event: yaml.ScalarEvent, line: int) -> Scalar:
    text = event.value
    if event.tag not in {None, "!"}:
        try:
            tag, value = go_yaml.resolve_tagged(event.tag.removeprefix(_TAGS), text)
        except ValueError as error:
            raise YamlError(f"line {line}: {error}") from None
    elif event.style is not None and event.style != "":
        tag, value = "str", text
    elif text == "<<":
        tag, value = "merge", text
    else:
        tag, value = go_yaml.resolve(text)
    return Scalar(text, tag, value, line)


def _check(event: yaml.Event, text: str, line: int, *, in_flow: bool) -> None:
    """What kit's parser refuses is refused here too."""
    try:
        if isinstance(event, yaml.DocumentStartEvent):
            go_yaml_text.refuse_document(event)
        elif isinstance(event, yaml.ScalarEvent):
            go_yaml_text.refuse_scalar(event, text, in_flow=in_flow)
    except ValueError as error:
        raise YamlError(f"line {line}: {error}") from None


def _check_depth(depth: int, line: int) -> None:
    if depth > _DEPTH:
        raise YamlError(f"line {line}: more than {_DEPTH} levels")
