"""`kitctl tag`, `remove`, `inspect` and `info`: what is done with kits of the store."""

import json
import sys

import msgspec

from kitd_client.cli.arguments import Options, Parser
from kitd_client.cli.console import note, notes
from kitd_client.client import Client
from kitd_client.figures import size_text


def _client(options: Options) -> Client:
    return Client(options.socket, autostart=not options.no_autostart, notice=notes(quiet=options.quiet))


def _declare_tag(parser: Parser) -> None:
    parser.add_argument("source", help="a kit of the store")
    parser.add_argument("destination", help="its new name")


def _tag(options: Options) -> int:
    with _client(options) as client:
        tagged = client.tag(options.source, options.destination)
    if options.format == "json":
        print(msgspec.json.encode(tagged).decode())
    if not options.quiet:
        note(f"{tagged.reference} is {tagged.digest}")
    return 0


def _declare_remove(parser: Parser) -> None:
    parser.add_argument("reference", help="registry/repository:tag[,tag...] or @digest")
    parser.add_argument(
        "-f", "--force", action="store_true", help="remove all its tags, and what 'kitctl path' gave out"
    )


def _remove(options: Options) -> int:
    with _client(options) as client:
        removed = client.remove(options.reference, force=options.force)
    if options.format == "json":
        print(msgspec.json.encode(removed).decode())
    if not options.quiet:
        begun = f"what was fetched of {options.reference}"
        for name in removed.untagged or [removed.digest or begun]:
            note(f"removed {name}")
        note(f"{size_text(removed.freed)} freed")
    return 0


def _declare_reference(parser: Parser) -> None:
    parser.add_argument("reference", help="a kit of the store")


def _inspect(options: Options) -> int:
    with _client(options) as client:
        inspection = client.inspect(options.reference)
    # Formatted, never parsed: keys keep their order and numbers their digits.
    sys.stdout.write(msgspec.json.format(msgspec.json.encode(inspection), indent=2).decode() + "\n")
    return 0


def _info(options: Options) -> int:
    with _client(options) as client:
        kitfile = client.info(options.reference)
    sys.stdout.write(json.dumps({"kitfile": kitfile}) + "\n" if options.format == "json" else kitfile)
    return 0


COMMANDS = {
    "tag": (_declare_tag, _tag),
    "remove": (_declare_remove, _remove),
    "inspect": (_declare_reference, _inspect),
    "info": (_declare_reference, _info),
}
