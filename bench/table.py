"""What a row of the benchmark found, as text."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from measure import GIB, MIB, Cost, Results, median, ratio


@dataclass(frozen=True)
class Target:
    """`case` may take at most `most` times what `base` takes."""

    what: str
    case: str
    base: str
    most: float
    of: Callable[[Cost], float]


def wall(cost: Cost) -> float:
    return cost.wall


def cpu(cost: Cost) -> float:
    return cost.cpu


def show(title: str, results: Results, targets: Sequence[Target], *, size: int = 0) -> None:
    """Prints one row: every contender, its ratio to the peer, and each target with what was measured.

    Args:
        title: what was done.
        results: by contender.
        targets: those for which both sides ran.
        size: bytes of the work, for processor seconds per GiB.
    """
    rounds = max(map(len, results.values()))
    print(f"\n## {title} (medians of {rounds})\n")
    unit = "CPU s/GiB" if size else "CPU s"
    base = next((target.base for target in targets if target.base in results), next(iter(results)))
    print(f"{'':34}{'wall s':>9}{unit:>11}{'read GiB':>10}{'RSS MiB':>9}   {'wall, CPU x ' + base}")
    for name, costs in results.items():
        seconds = median(costs, cpu) * (GIB / size if size else 1)
        print(
            f"{name:34}{median(costs, wall):9.2f}{seconds:11.2f}"
            f"{median(costs, lambda cost: cost.read) / GIB:10.2f}{max(c.peak for c in costs) / MIB:9.0f}"
            f"{ratio(costs, results[base], wall):9.2f}{ratio(costs, results[base], cpu):7.2f}"
        )
    for target in targets:
        if target.case in results and target.base in results:
            measured = ratio(results[target.case], results[target.base], target.of)
            verdict(f"{target.what}: {target.case} / {target.base}", measured, target.most, "x")


def verdict(what: str, measured: float, most: float, unit: str) -> None:
    """Prints whether a figure is at most what it should be."""
    print(f"  {'ok    ' if measured <= most else 'MISSED'} {what}: {measured:.2f} {unit}, at most {most:g}")
