"""`kitctl pull` and `kitctl push`."""

from kitd_client.api.jobs import JobStarted
from kitd_client.cli.arguments import Options, Parser, declare_filters, declare_network, declare_rate, network
from kitd_client.cli.console import note, tell, tell_json
from kitd_client.cli.following import following, names, summary_of, tell_result
from kitd_client.cli.reaching import client_of


def _declare_pull(parser: Parser) -> None:
    parser.add_argument("reference", help="registry/repository:tag or @digest")
    declare_filters(parser)
    _declare_transfer(parser)


def _declare_push(parser: Parser) -> None:
    parser.add_argument("source", help="a kit of the store")
    parser.add_argument("destination", nargs="?", default="", help="where to, if its name does not say so")
    _declare_transfer(parser)


def _declare_transfer(parser: Parser) -> None:
    parser.add_argument("-d", "--detach", action="store_true", help="print the job's identifier and return")
    declare_rate(parser)
    declare_network(parser)


def _pull(options: Options) -> int:
    if options.detach:
        with client_of(options) as client:
            job_id = client.start_pull(
                options.reference,
                filters=options.filter,
                network=network(options),
                limit_rate=options.limit_rate,
            )
        return _tell_job(options, job_id)
    with following(options, f"pull {options.reference}") as follower:
        result = follower.client.pull(
            options.reference,
            filters=options.filter,
            network=network(options),
            limit_rate=options.limit_rate,
            on_event=follower.on_event,
            on_job=follower.on_job,
        )
    return tell_result(options, result, names(result), summary_of(result, follower.seconds))


def _push(options: Options) -> int:
    if options.detach:
        with client_of(options) as client:
            job_id = client.start_push(
                options.source,
                options.destination,
                network=network(options),
                limit_rate=options.limit_rate,
            )
        return _tell_job(options, job_id)
    with following(options, f"push {options.destination or options.source}") as follower:
        result = follower.client.push(
            options.source,
            options.destination,
            network=network(options),
            limit_rate=options.limit_rate,
            on_event=follower.on_event,
            on_job=follower.on_job,
        )
    return tell_result(options, result, names(result), summary_of(result, follower.seconds))


def _tell_job(options: Options, job_id: str) -> int:
    if options.format == "json":
        tell_json(JobStarted(job_id))
    else:
        tell(job_id)
    if not options.quiet:
        note(f"'kitctl attach {job_id}' follows it, 'kitctl cancel {job_id}' ends it")
    return 0


COMMANDS = {"pull": (_declare_pull, _pull), "push": (_declare_push, _push)}
