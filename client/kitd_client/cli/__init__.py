"""`kitctl`: finds the command's module and runs it.

Everything is imported when it is needed: most of the time of a short command is the start of the interpreter.
"""

import os
import sys
from collections.abc import Sequence

COMMANDS = {
    "pack": ("directories", "pack a directory into a kit of the store"),
    "push": ("transfers", "push a kit to a registry"),
    "pull": ("transfers", "pull a kit into the store"),
    "unpack": ("directories", "write the files of a kit into a directory"),
    "path": ("directories", "print a read-only directory with the files of a kit"),
    "tag": ("kits", "give a kit one more name"),
    "list": ("listing", "list the kits of the store"),
    "remove": ("kits", "remove names of a kit, and what nothing needs any more"),
    "inspect": ("kits", "print manifest and config of a kit"),
    "info": ("kits", "print the Kitfile of a kit"),
    "login": ("logins", "store a credential for a registry"),
    "logout": ("logins", "forget the credential of a registry"),
    "jobs": ("jobs", "list transfers that run or ended lately"),
    "attach": ("jobs", "follow a job"),
    "cancel": ("jobs", "cancel a job; what it fetched is kept"),
    "status": ("service", "tell how the daemon is doing"),
    "version": ("service", "print the versions of kitctl and kitd"),
}
"""By name: the module, and the line of the overview."""

_WITH_VALUE = {"--socket", "--progress", "--format"}
"""Flags that may stand before the command, with a value after a blank."""

INTERRUPTED = 130
_BROKEN_PIPE = 141


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs a command and returns its exit status.

    0 done, 1 other failure, 2 usage, 65 content is damaged or invalid, 66 not found or not readable, 69 no
    daemon, 73 cannot write, 75 try again later, 77 no access, 78 configuration, 130 interrupted, 141 the reader
    of standard output has gone.
    """
    words = list(sys.argv[1:] if arguments is None else arguments)
    _stand_in()
    try:
        return _run(words)
    except KeyboardInterrupt:
        return INTERRUPTED
    except BrokenPipeError:
        # The reader has seen enough; the interpreter shall not stumble over it once more when it ends.
        _silence()
        return _BROKEN_PIPE
    except Exception as error:  # noqa: BLE001 -- what is not ours is raised again in there
        try:
            sys.stdout.flush()
        except OSError:
            _silence()
        from kitd_client.cli.complaints import complain  # noqa: PLC0415 -- start-up time

        return complain(error, words)


def _stand_in() -> None:
    """Standard streams that the caller has closed lead nowhere: no file that is opened later gets their number."""
    if None not in {sys.stdin, sys.stdout, sys.stderr}:
        return
    while (descriptor := os.open(os.devnull, os.O_RDWR)) < 3:  # noqa: PLR2004 -- the standard streams
        pass
    os.close(descriptor)
    sys.stdin = sys.stdin or open(0, encoding="utf-8")  # noqa: SIM115 -- as long as the process
    sys.stdout = sys.stdout or open(1, "w", encoding="utf-8")  # noqa: SIM115
    sys.stderr = sys.stderr or open(2, "w", encoding="utf-8")  # noqa: SIM115


def _silence() -> None:
    """What standard output still holds goes nowhere: the interpreter shall not stumble over it at its end."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)


def _run(words: list[str]) -> int:
    if words == ["version"]:
        from kitd_client.cli.service import show_version  # noqa: PLC0415 -- start-up time

        return show_version()
    if words == ["list"]:
        from kitd_client.cli.listing import show_kits  # noqa: PLC0415 -- start-up time

        return show_kits()
    if words[:1] == ["path"] and len(words) == 2 and _is_plain(words[1]):  # noqa: PLR2004 -- no flags
        from kitd_client.cli.path import show_path  # noqa: PLC0415 -- start-up time

        shown = show_path(words[1])
        if shown is not None:
            return shown
    from kitd_client.cli.arguments import parse  # noqa: PLC0415 -- start-up time

    return parse(words)


def _is_plain(word: str) -> bool:
    """No flag, and a text that can be sent."""
    return word[:1] not in {"", "-"} and word.isascii()


def command_at(words: Sequence[str]) -> int | None:
    """The index of the command among the words, or none if there are only flags."""
    index = 0
    while index < len(words):
        if not words[index].startswith("-"):
            return index
        index += 2 if words[index] in _WITH_VALUE else 1
    return None
