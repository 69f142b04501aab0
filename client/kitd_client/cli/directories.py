"""`kitctl pack`, `kitctl unpack` and `kitctl path`: verbs that end in a directory of the user."""

import sys
from pathlib import Path

from kitd_client.api.errors import KitfileInvalid, KitfileNotFound, TargetUnwritable
from kitd_client.api.kits import PathAnswer
from kitd_client.cli.arguments import Options, Parser, declare_filters, declare_network, declare_rate, network
from kitd_client.cli.console import tell, tell_json
from kitd_client.cli.following import following, names, summary_of, tell_result

_KITFILE_LIMIT = 1 << 20


def _declare_pack(parser: Parser) -> None:
    parser.add_argument("directory", help="what the paths in the Kitfile are relative to")
    parser.add_argument("-f", "--file", default="", metavar="FILE", help="the Kitfile; - is standard input")
    parser.add_argument(
        "-t", "--tag", action="append", default=[], metavar="REF", help="registry/repository:tag[,tag...]"
    )
    parser.add_argument(
        "--compression", choices=["none", "gzip", "gzip-fastest", "zstd"], default="none", help="of layers"
    )
    parser.add_argument(
        "--layer-format", choices=["tar", "raw"], default="tar", help="raw: an entry's one file is its layer"
    )
    declare_network(parser)


def _declare_unpack(parser: Parser) -> None:
    _declare_files(parser)
    parser.add_argument("-d", "--dir", default=".", metavar="DIR", help="where to (default: here)")
    parser.add_argument("-o", "--overwrite", action="store_true", help="replace files that exist")
    parser.add_argument(
        "-i", "--ignore-existing", action="store_true", help="leave files that exist as they are"
    )


def _declare_files(parser: Parser) -> None:
    parser.add_argument("reference", help="the kit; it is pulled if it is not here")
    declare_filters(parser)
    declare_rate(parser)
    declare_network(parser)


def _pack(options: Options) -> int:
    kitfile = _read_kitfile(options.file, options.directory) if options.file else None
    with following(options, f"pack {options.directory}") as follower:
        result = follower.client.pack(
            options.directory,
            tags=options.tag,
            kitfile=kitfile,
            compression=options.compression,
            layer_format=options.layer_format,
            network=network(options),
            on_event=follower.on_event,
        )
    return tell_result(options, result, names(result), summary_of(result, follower.seconds))


def _unpack(options: Options) -> int:
    _refuse_dangling(options.dir)
    with following(options, f"unpack {options.reference}") as follower:
        result = follower.client.unpack(
            options.reference,
            options.dir,
            filters=options.filter,
            overwrite=options.overwrite,
            ignore_existing=options.ignore_existing,
            network=network(options),
            limit_rate=options.limit_rate,
            on_event=follower.on_event,
            on_job=follower.on_job,
        )
    return tell_result(options, result, [], f"{summary_of(result, follower.seconds)}, into {options.dir}")


def _refuse_dangling(directory: str) -> None:
    """Nothing can be made where a link leads nowhere, and the kernel's own word for it is "file exists"."""
    for path in (Path(directory), *Path(directory).parents):
        if path.is_symlink() and not path.exists():
            raise TargetUnwritable(
                f"cannot unpack into {directory}: {path} is a link to {path.readlink()}, which does not exist",
                hint="make that directory, or name another one with -d",
                path=directory,
            )


def _path(options: Options) -> int:
    with following(options, f"path {options.reference}") as follower:
        path = follower.client.path(
            options.reference,
            filters=options.filter,
            network=network(options),
            limit_rate=options.limit_rate,
            on_event=follower.on_event,
            on_job=follower.on_job,
        )
    if options.format == "json":
        tell_json(PathAnswer(str(path)))
    else:
        tell(str(path))
    return 0


def _read_kitfile(path: str, directory: str) -> str:
    """Found as every command finds a file; what is not there is looked for in the directory, as kit does."""
    inside = Path(directory, path)
    if path != "-" and not Path(path).exists() and inside.exists():
        path = str(inside)
    try:
        if path == "-":
            data = sys.stdin.buffer.read(_KITFILE_LIMIT + 1)
        else:
            with Path(path).open("rb") as file:
                data = file.read(_KITFILE_LIMIT + 1)
    except OSError as error:
        raise KitfileNotFound(f"the Kitfile {path} cannot be read: {error.strerror}", path=path) from error
    if len(data) > _KITFILE_LIMIT:
        raise KitfileInvalid(f"the Kitfile {path} is larger than {_KITFILE_LIMIT} bytes", path=path)
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        raise KitfileInvalid(f"the Kitfile {path} is no UTF-8: {error.reason}", path=path) from error


COMMANDS = {
    "pack": (_declare_pack, _pack),
    "unpack": (_declare_unpack, _unpack),
    "path": (_declare_files, _path),
}
