"""Errors as a person, or with `--format json` a program, reads them on standard error."""

from collections.abc import Sequence
from itertools import pairwise

import msgspec

from kitd_client.api.errors import Cancelled, KitdError
from kitd_client.cli.console import mention
from kitd_client.figures import printable


def complain(error: Exception, words: Sequence[str]) -> int:
    """Reports an error and returns the exit status that goes with it; what is a bug is raised again."""
    if isinstance(error, KitdError):
        report(error, as_json=_wants_json(words))
        return error.exit_code
    if isinstance(error, OSError):
        mention(f"kitctl: {error}")
        return 1
    raise error


def interrupted(title: str) -> Cancelled:
    """The error for a person who ended a verb that no job carries out."""
    return Cancelled(f"{title} was interrupted", kept="nothing half-done is left behind", hint="run it again")


def report(error: KitdError, *, as_json: bool) -> None:
    """Writes an error: the title, what was kept, what to do next."""
    if as_json:
        mention(msgspec.json.encode(error.problem()).decode())
        return
    for name, text in (("kitctl", error.message), ("kept", error.kept), ("hint", error.hint)):
        if text:
            mention(f"{name}: {printable(text, lines=True)}")


def _wants_json(words: Sequence[str]) -> bool:
    return "--format=json" in words or ("--format", "json") in pairwise(words)
