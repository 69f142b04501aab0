"""The command `kitd`: flags, the process's own set-up, exit status."""

import argparse
import ctypes
import logging
import os
import resource
import signal
import sys
from collections.abc import Sequence
from functools import partial
from typing import NoReturn

import anyio

from kitd import __version__
from kitd.config.load import FLAGS, config_files, load_settings, unknown_variables
from kitd.config.logs import set_up_logging
from kitd.config.settings import default_mode
from kitd.daemon.compose import serve
from kitd_client.api.errors import KitdError

_HELP = {
    "config": ("FILE", "read this configuration file alone"),
    "daemon.socket": ("PATH", "where clients find this daemon"),
    "cache.dir": ("DIR", "the store"),
    "daemon.idle": ("TIME", "end after this long without work, like 15m (a user's own daemon only)"),
    "idle_default": (
        "TIME",
        "the same, where the configuration says nothing of it; kitctl starts daemons so",
    ),
    "registry.listen": ("ADDRESS", "serve the store as an OCI registry there, like 127.0.0.1:5000"),
    "log.level": ("LEVEL", "debug, info, warning or error"),
}
_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_THRESHOLD = -1, -2, -3
"""Of mallopt(3)."""
_SWITCH_SECONDS = 0.0005
"""A thread that hashes or writes asks for the interpreter some thousand times in a GiB; with the usual 5 ms each
of these waits out a busy loop, and two cores have the work of one."""


def main() -> NoReturn:
    """Runs the daemon in the foreground and exits."""
    sys.exit(run(sys.argv[1:]))


def run(arguments: Sequence[str]) -> int:
    """The same, with the exit status as its value: 0, or that of the error (69 locked, 78 configuration)."""
    parser = argparse.ArgumentParser(
        prog="kitd",
        description="Distributes ModelKits on this machine. Runs in the foreground.",
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"kitd {__version__}")
    for key, flag in FLAGS.items():
        metavar, text = _HELP[key]
        parser.add_argument(flag, dest=key, metavar=metavar, help=text)
    given = {key: value for key, value in vars(parser.parse_args(arguments)).items() if value is not None}
    uid = os.geteuid()
    load = partial(load_settings, os.environ, given, uid=uid)
    try:
        settings = load()
        set_up_logging(settings.log, os.environ)
        for warning in unknown_variables(os.environ):
            logging.getLogger("kitd").warning(warning)
        _prepare_process()
        files = config_files(os.environ, given, default_mode(uid))
        anyio.run(serve, settings, load, files, os.environ, backend_options={"use_uvloop": True})
    except KitdError as error:
        lines = [f"kitd: {error.message}", *([f"  hint: {error.hint}"] if error.hint else [])]
        sys.stderr.write("\n".join(lines) + "\n")
        return error.exit_code
    except KeyboardInterrupt:
        return 128 + signal.SIGINT
    except Exception:
        logging.getLogger("kitd").exception("kitd ends: internal error")
        return 1
    return 0


def _prepare_process() -> None:
    os.umask(0o022)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    sys.setswitchinterval(_SWITCH_SECONDS)
    _keep_memory()


def _keep_memory() -> None:
    """Has glibc keep the pieces of 1 MiB that come and go: giving each back doubles the CPU time.

    Other C libraries have no mallopt, or do not care.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):
        return
    mallopt(_M_MMAP_THRESHOLD, 32 << 20)
    mallopt(_M_TRIM_THRESHOLD, 256 << 20)
    mallopt(_M_TOP_PAD, 16 << 20)


if __name__ == "__main__":
    main()
