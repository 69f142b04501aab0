"""`kitctl list`, without structs and parsers: it is called from scripts and prompts, often."""

import json

from kitd_client.cli.console import note, notes, table, tell
from kitd_client.figures import size_text
from kitd_client.transport import Transport

TYPE_CHECKING = False
if TYPE_CHECKING:
    from kitd_client.cli.arguments import Options, Parser

_HEAD = ("REPOSITORY", "TAG", "MAINTAINER", "NAME", "SIZE", "DIGEST")
_NONE = "<none>"
_Row = tuple[str, str, list[str], str, int, str, bool]


def show_kits(transport: Transport | None = None, repository: str = "", *, as_json: bool = False) -> int:
    """Prints the kits of the store, in kit's columns or with kit's JSON fields."""
    transport = transport or Transport(notice=note)
    target = "/v1/kits"
    if repository:
        from urllib.parse import quote  # noqa: PLC0415 -- start-up time

        target += f"?repository={quote(repository, safe='')}"
    body = transport.call("GET", target)
    try:
        kits = [_row(kit) for kit in json.loads(body)["kits"]]
    except (ValueError, TypeError, KeyError) as error:
        raise transport.undecodable(error) from error
    if as_json:
        tell(json.dumps([_kit_json(kit) for kit in kits], indent=2, ensure_ascii=False))
        return 0
    rows = [
        (repository, tag, author, name, f"{size_text(size)}{'' if complete else ' (partial)'}", digest)
        for repository, digest, tags, name, size, author, complete in kits
        for tag in tags or [_NONE]
    ]
    tell(table([_HEAD, *rows]))
    return 0


def _row(kit: dict[str, object]) -> _Row:
    tags, size = kit["tags"], kit["size"]
    if not isinstance(tags, list) or not isinstance(size, int):
        raise TypeError("a kit has no tags or no size")
    return (
        str(kit["repository"]) or _NONE,
        str(kit["digest"]),
        [str(tag) for tag in tags],
        str(kit["model_name"]) or _NONE,
        size,
        str(kit["author"]) or _NONE,
        bool(kit["complete"]),
    )


def _kit_json(kit: _Row) -> dict[str, object]:
    """The fields of `kit list --format json`, and two of ours: kit's size is a text for people."""
    repository, digest, tags, name, size, author, complete = kit
    return {
        "repo": repository,
        "digest": digest,
        "tags": tags,
        "modelName": name,
        "size": size_text(size),
        "author": author,
        "bytes": size,
        "complete": complete,
    }


def _declare(parser: "Parser") -> None:
    parser.add_argument("repository", nargs="?", default="", help="only kits of this repository of the store")


def _run(options: "Options") -> int:
    transport = Transport(
        options.socket, autostart=not options.no_autostart, notice=notes(quiet=options.quiet)
    )
    return show_kits(transport, options.repository, as_json=options.format == "json")


COMMANDS = {"list": (_declare, _run)}
