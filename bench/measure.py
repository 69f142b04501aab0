"""Measuring commands: wall time, processor time of the command and of a daemon that works for it, memory."""

import os
import statistics
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path

MIB = 1 << 20
GIB = 1 << 30
_TICKS = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True)
class Cost:
    """Of one run: seconds, processor seconds (daemon included), bytes read by the commands, the daemon's peak RSS."""

    wall: float
    cpu: float
    read: int
    peak: int


@dataclass(frozen=True)
class Job:
    """What is timed: commands, one after the other, and the daemon that does the work, if one does."""

    commands: Sequence[Sequence[str]]
    environment: Mapping[str, str] = field(default_factory=dict)
    daemon: int = 0


@dataclass(frozen=True)
class Case:
    """One contender. `setting` prepares a run in an empty directory and clears up after it."""

    name: str
    setting: Callable[[Path], AbstractContextManager[Job]]


Results = dict[str, list[Cost]]


def daemon_cpu(pid: int) -> float:
    """Processor seconds that a process has used so far."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS


def peak_rss(pid: int) -> int:
    """The most memory a process ever had resident, in bytes (VmHWM)."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) << 10
    return 0


def timed(job: Job) -> Cost:
    """Runs the commands of a job; ends the whole benchmark if one of them fails."""
    used = daemon_cpu(job.daemon) if job.daemon else 0.0
    cpu, read = 0.0, 0
    began = time.monotonic()
    for command in job.commands:
        seconds, count = _run(command, job.environment)
        cpu, read = cpu + seconds, read + count
    wall = time.monotonic() - began
    if job.daemon:
        cpu += daemon_cpu(job.daemon) - used
    return Cost(wall, cpu, read, peak_rss(job.daemon) if job.daemon else 0)


def _run(command: Sequence[str], environment: Mapping[str, str]) -> tuple[float, int]:
    with subprocess.Popen(
        command,
        env=os.environ | environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    ) as process:
        output = process.stdout.read() if process.stdout else b""
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
        read = _bytes_read(process.pid)
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"{' '.join(command)}\nended with {process.returncode}: {output.decode()[-2000:]}")
    return usage.ru_utime + usage.ru_stime, read


def _bytes_read(pid: int) -> int:
    try:
        return int(Path(f"/proc/{pid}/io").read_text().split()[1])
    except OSError:
        return 0


def interleave(cases: Sequence[Case], rounds: int, place: Path) -> Results:
    """Runs every case once a round, each round in another order, so that drift hits all alike."""
    results: Results = {case.name: [] for case in cases}
    for number in range(rounds):
        turn = number % len(cases)
        for case in (*cases[turn:], *cases[:turn]):
            with case.setting(place) as job:
                os.sync()
                results[case.name].append(timed(job))
    return results


def median(costs: Sequence[Cost], of: Callable[[Cost], float]) -> float:
    return statistics.median(map(of, costs))


def ratio(costs: Sequence[Cost], base: Sequence[Cost], of: Callable[[Cost], float]) -> float:
    """The median of the ratios of each round."""
    return statistics.median(of(one) / of(other) for one, other in zip(costs, base, strict=True))
