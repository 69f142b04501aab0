"""The client of a command that shows no progress."""

from kitd_client.cli.arguments import Options
from kitd_client.cli.console import notes
from kitd_client.client import Client


def client_of(options: Options, *, autostart: bool = True) -> Client:
    """As the flags of the command say; `autostart` is for commands that a daemon just started could answer."""
    return Client(
        options.socket,
        autostart=autostart and not options.no_autostart,
        notice=notes(quiet=options.quiet),
    )
