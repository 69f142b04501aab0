"""The one table of errors is total, unique and documented."""

import importlib
import pkgutil
import re
from collections import Counter
from collections.abc import Callable, Iterator

import kitd
import kitd_client
from kitd_client.api.errors import BY_CODE, KitdError, from_problem
from kitd_client.api.problem import Problem

EXIT_CODES = {
    1: "general failure",
    2: "usage: what was asked is malformed",
    65: "content is invalid or not supported, or a registry does not keep to the protocol",
    66: "not found, or not readable: a kit, a name, a Kitfile, a file to pack",
    69: "no daemon, or not this one",
    73: "cannot write, no space, or the disk of the store failed",
    75: "temporary: try again later",
    77: "not allowed or not trusted: credentials, rights, TLS, another host",
    78: "the configuration is wrong",
    130: "interrupted",
    141: "the reader of standard output has gone",
}


def every_class() -> Iterator[type[KitdError]]:
    """All subclasses, those of modules that only the daemon loads too."""
    for package in (kitd, kitd_client):
        for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
            if not module.name.endswith("__main__"):
                importlib.import_module(module.name)
    waiting = [KitdError]
    while waiting:
        found = waiting.pop()
        waiting += ours(found)
        yield found


def ours(parent: type[KitdError]) -> list[type[KitdError]]:
    """Its subclasses, without those that tests define."""
    return [found for found in parent.__subclasses__() if found.__module__.startswith("kitd")]


def test_every_class_has_a_row() -> None:
    for found in every_class():
        if found is KitdError:
            continue
        assert issubclass(found, BY_CODE[found.code]), f"{found} has the code of another error"


def test_codes_are_unique_and_well_formed() -> None:
    rows = ours(KitdError)
    assert {code: count for code, count in Counter(row.code for row in rows).items() if count > 1} == {}
    for row in rows:
        assert re.fullmatch(r"[a-z]+(_[a-z]+)*", row.code)
        assert 400 <= row.status <= 599
        assert row.exit_code in EXIT_CODES
        assert row.retryable or row.exit_code != 75, f"{row.code}: 75 says try again"


def test_every_error_survives_the_wire() -> None:
    for row in BY_CODE.values():
        sent = row("what failed", kept="what was kept", hint="what to do", host="example.com", size=7)
        got = from_problem(sent.problem())
        assert type(got) is row
        assert (got.message, got.kept, got.hint, got.detail) == (
            sent.message,
            sent.kept,
            sent.hint,
            sent.detail,
        )
    strange = from_problem(Problem(code="from_the_future", title="what failed", status=500))
    assert type(strange) is KitdError


def test_the_table_is_documented(hold_golden: Callable[[str, str], None]) -> None:
    lines = [
        "# Errors and exit codes",
        "",
        "Every error is problem+json on the wire (RFC 9457); in Python, a class of `kitd_client.api.errors`.",
        "This page is made from that table (see `tests/packaging/conftest.py`).",
        "",
        "| exit code | meaning |",
        "|---|---|",
        "| 0 | done |",
        *(f"| {number} | {meaning} |" for number, meaning in EXIT_CODES.items()),
        "",
        "| code | class | HTTP | exit | try again | meaning |",
        "|---|---|---|---|---|---|",
    ]
    for code, row in sorted(BY_CODE.items()):
        meaning = " ".join((row.__doc__ or "").split())
        again = "yes" if row.retryable else "no"
        lines.append(
            f"| `{code}` | `{row.__name__}` | {row.status} | {row.exit_code} | {again} | {meaning} |"
        )
    hold_golden("docs/errors.md", "\n".join(lines) + "\n")
