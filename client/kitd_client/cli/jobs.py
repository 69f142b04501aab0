"""`kitctl jobs`, `attach` and `cancel`."""

import sys

from kitd_client.api.jobs import JobInfo, Unpacked
from kitd_client.cli import INTERRUPTED
from kitd_client.cli.arguments import Options, Parser
from kitd_client.cli.console import note, table, tell, tell_json
from kitd_client.cli.following import names, summary_of, tell_result
from kitd_client.cli.reaching import client_of
from kitd_client.cli.service import declare_nothing
from kitd_client.figures import size_text
from kitd_client.progress import Progress

_HEAD = ("JOB", "VERB", "REFERENCE", "STATE", "DONE", "STARTED", "ERROR")
_SHORT = 80


def _declare_job(parser: Parser) -> None:
    parser.add_argument("job", help="its identifier, as 'kitctl jobs' shows it")


def _jobs(options: Options) -> int:
    with client_of(options, autostart=False) as client:
        jobs = client.jobs()
    if options.format == "json":
        tell_json(jobs)
    else:
        tell(table([_HEAD, *(_row(job) for job in jobs)]))
    return 0


def _row(job: JobInfo) -> tuple[str, ...]:
    done = f"{size_text(job.done, job.total)} of {size_text(job.total)}"
    error = "" if job.problem is None else f"{job.problem.code}: {_short(job.problem.title)}"
    return job.id, job.verb, job.reference, job.state, done, job.started, error


def _short(title: str) -> str:
    """An error as a table has room for it; 'kitctl attach' and JSON have it whole."""
    return title if len(title) <= _SHORT else f"{title[:_SHORT].rstrip()}..."


def _attach(options: Options) -> int:
    with client_of(options, autostart=False) as client:
        job = client.job(options.job)
        progress = Progress(
            sys.stderr, f"{job.verb} {job.reference}", "none" if options.quiet else options.progress
        )
        try:
            result = client.wait(options.job, on_event=progress.event)
        except KeyboardInterrupt:
            progress.close()
            note(f"detached; '{job.verb} {job.reference}' goes on in the daemon")
            note(f"'kitctl attach {job.id}' comes back to it, 'kitctl cancel {job.id}' ends it")
            return INTERRUPTED
        finally:
            progress.close()
    references = [] if isinstance(result, Unpacked) else names(result)
    return tell_result(options, result, references, summary_of(result))


def _cancel(options: Options) -> int:
    with client_of(options, autostart=False) as client:
        job = client.cancel(options.job)
    if options.format == "json":
        tell_json(job)
    if not options.quiet:
        note(f"job {options.job} is being cancelled; what it fetched is kept")
    return 0


COMMANDS = {
    "jobs": (declare_nothing, _jobs),
    "attach": (_declare_job, _attach),
    "cancel": (_declare_job, _cancel),
}
