"""`kitctl login` and `kitctl logout`."""

import os
import sys
from getpass import getpass

from kitd_client.api.errors import InvalidRequest, Unauthorized
from kitd_client.api.jobs import Credential
from kitd_client.cli.arguments import Options, Parser, declare_authfile, declare_network, network
from kitd_client.cli.console import note, tell_json
from kitd_client.cli.reaching import client_of
from kitd_client.client import Client
from kitd_client.logins import forget_login, login_file, store_login

_SECRET_LIMIT = 1 << 20


def _declare_login(parser: Parser) -> None:
    parser.add_argument("registry", help="host or host:port")
    parser.add_argument(
        "-u", "--username", default="", help="none with a password: that is an identity token"
    )
    parser.add_argument(
        "-p", "--password", default="", help="other users can see it: better --password-stdin"
    )
    parser.add_argument("--password-stdin", action="store_true", help="read the password from standard input")
    parser.add_argument("--no-verify", action="store_true", help="store it without asking the registry")
    declare_network(parser)


def _declare_logout(parser: Parser) -> None:
    parser.add_argument("registry", help="host or host:port")
    declare_authfile(parser)


def _login(options: Options) -> int:
    registry = _registry(options.registry)
    credential = _credential(options)
    if not options.no_verify:
        with client_of(options) as client:
            _check(client, registry, credential, options)
    where = store_login(login_file(os.environ, options.authfile), registry, credential, os.environ)
    if options.format == "json":
        tell_json({"registry": registry, "credential": where})
    if not options.quiet:
        note(f"logged in to {registry}; the credential is in {where}")
    return 0


def _check(client: Client, registry: str, credential: Credential, options: Options) -> None:
    """Whether the registry takes the credential; what the daemon advises whoever has none is not for us."""
    try:
        client.check_registry(registry, credential, network(options))
    except Unauthorized as error:
        error.kept = "the logins that were there; this one was not stored"
        error.hint = "check the user name and the password, then log in again"
        raise


def _logout(options: Options) -> int:
    registry = _registry(options.registry)
    path = login_file(os.environ, options.authfile)
    forgotten = forget_login(path, registry, os.environ)
    if options.format == "json":
        tell_json({"registry": registry, "credential": str(path), "forgotten": forgotten})
    if not options.quiet:
        note(f"logged out of {registry}" if forgotten else f"{path} has no credential for {registry}")
    return 0


def _registry(text: str) -> str:
    return text.removeprefix("https://").removeprefix("http://").strip("/")


def _credential(options: Options) -> Credential:
    username, password = options.username, options.password
    if password and options.password_stdin:
        raise InvalidRequest("--password and --password-stdin cannot be used together")
    if password:
        note("warning: a password on the command line is seen by others; use --password-stdin")
    if options.password_stdin:
        password = sys.stdin.read(_SECRET_LIMIT).strip()
        if not password:
            raise InvalidRequest("there is no password on standard input")
    if password:
        return Credential(username, password) if username else Credential(identity_token=password)
    if not sys.stdin.isatty():
        raise InvalidRequest("there is nobody to ask for a password", hint="use --password-stdin")
    if not username:
        print("Username: ", end="", file=sys.stderr, flush=True)
        username = sys.stdin.readline().strip()
    return Credential(username, getpass("Password: ", sys.stderr))


COMMANDS = {"login": (_declare_login, _login), "logout": (_declare_logout, _logout)}
