"""Figures of suites that try many points (faults, kill points, hostile archives), told at the end of the run.

    def test_kill_points(figures: Figures) -> None:
        for point in ...:
            figures.tried("kill points")
            if ...:
                figures.violated("kill points", f"{point}: tag without its layer")
        # the fixture fails the test if it has violations

The lines travel as user properties of the test's report, so they also arrive from xdist's workers.
"""

import dataclasses
from collections import Counter
from collections.abc import Iterator
from typing import Literal, cast

import pytest

_KEY = "kitd figures"
_TOTALS = pytest.StashKey["Totals"]()


@dataclasses.dataclass
class Totals:
    points: Counter[str] = dataclasses.field(default_factory=Counter)
    violations: list[tuple[str, str]] = dataclasses.field(default_factory=list)
    notes: list[tuple[str, str]] = dataclasses.field(default_factory=list)


class Figures:
    """What one test reports."""

    def __init__(self) -> None:
        self._lines: list[tuple[str, str, int | str]] = []

    def tried(self, suite: str, points: int = 1) -> None:
        self._lines.append(("tried", suite, points))

    def violated(self, suite: str, what: str) -> None:
        """A promise was broken at one point; the test goes on and fails at its end."""
        self._lines.append(("violated", suite, what))

    def note(self, suite: str, text: str) -> None:
        """A measured figure: `bytes fetched again after kill -9 at 60 %: 16777216`."""
        self._lines.append(("note", suite, text))

    @property
    def violations(self) -> list[str]:
        return [f"{suite}: {text}" for kind, suite, text in self._lines if kind == "violated"]

    @property
    def lines(self) -> list[tuple[str, str, int | str]]:
        return self._lines


@pytest.fixture
def figures(request: pytest.FixtureRequest) -> Iterator[Figures]:
    found = Figures()
    yield found
    request.node.user_properties.append((_KEY, found.lines))
    if found.violations:
        pytest.fail("\n".join(found.violations), pytrace=False)


class _Plugin:
    """Sums up the reports; in xdist's controller all of them pass here."""

    def __init__(self) -> None:
        self.totals = Totals()

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.when != "teardown":
            return
        for name, lines in report.user_properties:
            if name != _KEY:
                continue
            for kind, suite, value in cast(
                "list[tuple[Literal['tried', 'violated', 'note'], str, object]]", lines
            ):
                if kind == "tried":
                    self.totals.points[suite] += cast("int", value)
                elif kind == "violated":
                    self.totals.violations.append((suite, str(value)))
                else:
                    self.totals.notes.append((suite, str(value)))

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        totals = self.totals
        if not (totals.points or totals.violations or totals.notes):
            return
        terminalreporter.section("figures")
        suites = sorted({*totals.points, *(suite for suite, _ in totals.violations + totals.notes)})
        for suite in suites:
            broken = [text for name, text in totals.violations if name == suite]
            terminalreporter.write_line(
                f"{suite}: {totals.points[suite]} points tried, {len(broken)} violations"
            )
            notes = [text for name, text in totals.notes if name == suite]
            for text in [*broken, *sorted(notes)]:
                terminalreporter.write_line(f"    {text}")


def pytest_configure(config: pytest.Config) -> None:
    config.pluginmanager.register(_Plugin(), "kitd-figures")
