"""How kitd logs: one handler on stderr, in the form its reader understands. No line ever carries a secret."""

import logging
import os
import sys
from collections.abc import Mapping
from datetime import UTC, datetime

import msgspec

from kitd.config.settings import LogSettings

_PRIORITIES = {logging.DEBUG: 7, logging.INFO: 6, logging.WARNING: 4, logging.ERROR: 3, logging.CRITICAL: 2}


class _Json(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        line = {
            "ts": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "msg": record.getMessage(),
        }
        if record.exc_info:
            line["trace"] = self.formatException(record.exc_info)
        return msgspec.json.encode(line).decode()


class _Journal(logging.Formatter):
    """The prefix journald reads on a service's stderr; every line of a trace needs its own."""

    def format(self, record: logging.LogRecord) -> str:
        prefix = f"<{_PRIORITIES.get(record.levelno, 6)}>"
        return "\n".join(prefix + line for line in super().format(record).splitlines())


_TEXT = logging.Formatter("%(asctime)s %(levelname)-7s %(message)s", datefmt="%H:%M:%S")


def set_up_logging(settings: LogSettings, environ: Mapping[str, str]) -> None:
    """Sends every logger to stderr as the settings say; replaces what an earlier call set up."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(formatter(settings, environ))
    logging.basicConfig(handlers=[handler], level=settings.level.upper(), force=True)
    # What these say of themselves is nothing for whoever runs kitd.
    for name in ("aiohttp", "watchfiles"):
        logging.getLogger(name).setLevel(logging.WARNING)
    # It complains of what clients do wrong, with a trace. What we do wrong never gets that far.
    complaints = logging.DEBUG if settings.level == "debug" else logging.CRITICAL
    logging.getLogger("aiohttp.server").setLevel(complaints)


def formatter(settings: LogSettings, environ: Mapping[str, str]) -> logging.Formatter:
    """The form of the lines: as set, or by what stderr is."""
    kind = settings.format
    if kind == "auto":
        kind = "journal" if _is_journal(environ) else "text" if sys.stderr.isatty() else "json"
    match kind:
        case "journal":
            return _Journal("%(message)s")
        case "json":
            return _Json()
        case "text":
            return _TEXT


def _is_journal(environ: Mapping[str, str]) -> bool:
    """Whether stderr is the very stream that systemd says it connected (device and inode)."""
    stream = environ.get("JOURNAL_STREAM", "")
    try:
        status = os.fstat(sys.stderr.fileno())
    except (OSError, ValueError):
        return False
    return stream == f"{status.st_dev}:{status.st_ino}"
