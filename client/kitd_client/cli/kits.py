"""`kitctl tag`, `remove`, `inspect` and `info`: what is done with kits of the store."""

import msgspec

from kitd_client.api.errors import InvalidRequest
from kitd_client.cli.arguments import Options, Parser
from kitd_client.cli.console import note, tell, tell_json
from kitd_client.cli.reaching import client_of
from kitd_client.figures import size_text


def _declare_tag(parser: Parser) -> None:
    parser.add_argument("source", help="a kit of the store")
    parser.add_argument("destination", help="its new name")


def _tag(options: Options) -> int:
    with client_of(options) as client:
        tagged = client.tag(options.source, options.destination)
    if options.format == "json":
        tell_json(tagged)
    if not options.quiet:
        note(f"{tagged.reference} is {tagged.digest}")
    return 0


def _declare_remove(parser: Parser) -> None:
    parser.add_argument("reference", nargs="?", help="registry/repository:tag[,tag...] or @digest")
    parser.add_argument(
        "-f", "--force", action="store_true", help="remove all its tags, and what 'kitctl path' gave out"
    )
    parser.add_argument(
        "-a",
        "--all",
        action="store_true",
        help="remove every kit without a tag; with --force every kit there is",
    )


def _remove(options: Options) -> int:
    if options.all == bool(options.reference):
        raise InvalidRequest(
            "--all takes no reference" if options.all else "a reference is needed, or --all",
            hint="'kitctl list' shows what there is; --all removes what has no tag",
        )
    return _remove_all(options) if options.all else _remove_one(options)


def _remove_one(options: Options) -> int:
    with client_of(options) as client:
        removed = client.remove(options.reference, force=options.force)
    if options.format == "json":
        tell_json(removed)
    if not options.quiet:
        begun = f"what was fetched of {options.reference}"
        for name in removed.untagged or [removed.digest or begun]:
            note(f"removed {name}")
        note(f"{size_text(removed.freed)} freed")
    return 0


def _remove_all(options: Options) -> int:
    with client_of(options) as client:
        removed = client.remove_all(force=options.force)
    if options.format == "json":
        tell_json(removed)
    if not options.quiet:
        for name in removed.removed:
            note(f"removed {name}")
        for name in removed.in_use:
            note(f"{name} stays: 'kitctl path' gave it out; --force removes it too")
        note(f"{size_text(removed.freed)} freed" if removed.removed else "there is nothing to remove")
    return 0


def _declare_reference(parser: Parser) -> None:
    parser.add_argument("reference", help="a kit of the store")


def _inspect(options: Options) -> int:
    with client_of(options) as client:
        inspection = client.inspect(options.reference)
    # Formatted, never parsed: keys keep their order and numbers their digits.
    tell(msgspec.json.format(msgspec.json.encode(inspection), indent=2).decode())
    return 0


def _info(options: Options) -> int:
    with client_of(options) as client:
        kitfile = client.info(options.reference)
    if options.format == "json":
        tell_json({"kitfile": kitfile})
    else:
        tell(kitfile, end="")
    return 0


COMMANDS = {
    "tag": (_declare_tag, _tag),
    "remove": (_declare_remove, _remove),
    "inspect": (_declare_reference, _inspect),
    "info": (_declare_reference, _info),
}
