"""Flags: what every command has, what groups of commands share, and the parser of one command."""

import argparse
from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from typing import TYPE_CHECKING

from kitd_client import __version__
from kitd_client.cli import COMMANDS, command_at
from kitd_client.cli.console import mention, tell

if TYPE_CHECKING:
    from kitd_client.context import Network

Options = argparse.Namespace

_UNITS = {"": 1, "k": 1000, "m": 1000**2, "g": 1000**3, "ki": 1 << 10, "mi": 1 << 20, "gi": 1 << 30}


class Parser(argparse.ArgumentParser):
    """The parser of one command; its help shows that the value of `--tls-verify` is part of the word."""

    def format_help(self) -> str:
        """The help, ready to be printed."""
        return _joined(super().format_help())

    def format_usage(self) -> str:
        """The usage, ready to be printed."""
        return _joined(super().format_usage())

    def print_help(self, file: object = None) -> None:
        """Prints the help, as the data it is; `file` is standard output."""
        del file
        tell(self.format_help(), end="")


def _joined(text: str) -> str:
    return text.replace("--tls-verify [=BOOL]]", "--tls-verify[=BOOL]]").replace(
        "--tls-verify [=BOOL] ", "--tls-verify[=BOOL]  "
    )


Command = tuple[Callable[[Parser], None], Callable[[Options], int]]
"""What a module of commands offers for one: how its flags are declared, and how it is run."""


def parse(words: Sequence[str]) -> int:
    """Parses a command line and runs its command; returns the exit status."""
    at = command_at(words)
    if at is None:
        return _without_command(words)
    name = words[at]
    if name == "help":
        return _without_command(["--help"])
    if name not in COMMANDS:
        return _unknown(name)
    module, summary = COMMANDS[name]
    commands: Mapping[str, Command] = import_module(f"kitd_client.cli.{module}").COMMANDS
    parser = Parser(
        prog=f"kitctl {name}", description=f"{summary[0].upper()}{summary[1:]}.", allow_abbrev=False
    )
    declare, run = commands[name]
    declare(parser)
    _declare_common(parser)
    rest = [*words[:at], *words[at + 1 :]]
    # As with kit, the bare flag means true and takes no word after it.
    rest = ["--tls-verify=true" if word == "--tls-verify" else word for word in rest]
    return run(parser.parse_intermixed_args(rest))


def declare_network(parser: Parser) -> None:
    """The network flags of kit."""
    group = parser.add_argument_group("registry")
    group.add_argument("--plain-http", action="store_true", help="speak http (on loopback this is found out)")
    group.add_argument(
        "--tls-verify",
        type=_boolean,
        default=True,
        metavar="[=BOOL]",
        help="verify certificates (default true)",
    )
    group.add_argument(
        "--tls-cert",
        "--ca-file",
        action="append",
        default=[],
        metavar="FILE",
        help="trust these certificate authorities too",
    )
    group.add_argument(
        "--cert", default="", metavar="FILE", help="client certificate; KITOPS_CLIENT_CERT goes before it"
    )
    group.add_argument("--key", default="", metavar="FILE", help="its key; KITOPS_CLIENT_KEY goes before it")
    group.add_argument(
        "--proxy", default="", metavar="URL", help="use this proxy, whatever the environment says"
    )
    declare_authfile(parser)


def declare_authfile(parser: Parser) -> None:
    """The flag that names a credentials file."""
    parser.add_argument(
        "--authfile",
        default="",
        metavar="FILE",
        help="the one credentials file to use (also REGISTRY_AUTH_FILE)",
    )


def declare_rate(parser: Parser) -> None:
    """The flag that limits a transfer."""
    parser.add_argument(
        "--limit-rate",
        type=_rate,
        default=0,
        metavar="RATE",
        help="at most so much a second: 40MiB, 500k, 1G",
    )


def declare_filters(parser: Parser) -> None:
    """The flag that selects layers."""
    parser.add_argument(
        "-f",
        "--filter",
        action="append",
        default=[],
        metavar="TYPES[:NAMES]",
        help="only these: kitfile, model, datasets, code, docs, prompts, mcpservers; repeat for more",
    )


def network(options: Options) -> "Network":
    """The network flags as they were given."""
    from kitd_client.context import Network  # noqa: PLC0415 -- `list` has none

    return Network(
        plain_http=options.plain_http,
        tls_verify=options.tls_verify,
        ca_files=tuple(options.tls_cert),
        certificate=options.cert,
        key=options.key,
        proxy=options.proxy,
        authfile=options.authfile,
    )


def _declare_common(parser: Parser) -> None:
    group = parser.add_argument_group("everywhere")
    group.add_argument("--socket", metavar="PATH", help="the daemon's socket (also KITD_SOCKET)")
    group.add_argument("--no-autostart", action="store_true", help="start no daemon if none is running")
    group.add_argument("--format", choices=["table", "json"], default="table", help="of what is printed")
    group.add_argument(
        "--progress",
        choices=["auto", "none", "plain", "fancy", "json"],
        default="auto",
        help="bars on a terminal and lines elsewhere, or one of these",
    )
    group.add_argument("-q", "--quiet", action="store_true", help="no progress and no notes")


def _without_command(words: Sequence[str]) -> int:
    if "--version" in words:
        tell(f"kitctl {__version__}")
        return 0
    lines = ["usage: kitctl COMMAND [flags] ...", ""]
    lines += [f"  {name:10}{summary}" for name, (_, summary) in COMMANDS.items()]
    lines += ["", "'kitctl COMMAND --help' tells more."]
    wanted = "--help" in words or "-h" in words
    (tell if wanted else mention)("\n".join(lines))
    return 0 if wanted else 2


def _unknown(name: str) -> int:
    from difflib import get_close_matches  # noqa: PLC0415 -- only for a mistyped command

    near = get_close_matches(name, COMMANDS, 1)
    mention(f"kitctl: there is no command {name!r}")
    mention(f"hint: {f'did you mean {near[0]!r}?' if near else 'see kitctl --help'}")
    return 2


def _boolean(text: str) -> bool:
    if text.lower() in {"true", "1", "t"}:
        return True
    if text.lower() in {"false", "0", "f"}:
        return False
    raise argparse.ArgumentTypeError(f"{text!r} is neither true nor false")


def _rate(text: str) -> int:
    figure = text.lower().removesuffix("/s").removesuffix("b")
    digits = figure.rstrip("kmgi")
    unit = figure[len(digits) :]
    try:
        rate = int(float(digits) * _UNITS[unit])
    except (ValueError, KeyError, OverflowError):
        rate = -1
    if rate < 0:
        raise argparse.ArgumentTypeError(f"{text!r} is no rate such as 40MiB, 500k or 1G")
    return rate
