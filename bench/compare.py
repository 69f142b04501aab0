#!/usr/bin/env python3
"""kitd beside curl, oras and kit on this machine, in one run. See README.md in this directory."""

import argparse
import os
import platform
import shutil
import signal
import sys
import tempfile
from pathlib import Path
from types import FrameType

import local
import transfers

ROWS = {
    "pull": transfers.pull,
    "pull-unpack": transfers.pull_unpack,
    "slow": transfers.slow,
    "unpack": local.unpack,
    "push": transfers.push,
    "pack": local.pack,
    "pack-files": local.pack_files,
    "clients": transfers.clients,
    "memory": transfers.memory,
    "start": local.start,
}
_NEED_ROOT = {"pull-unpack", "unpack", "pack-files"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("rows", nargs="*", metavar="ROW", help=f"which: {', '.join(ROWS)} (default: all)")
    parser.add_argument("--quick", action="store_true", help="a quarter of the sizes")
    parser.add_argument("--rounds", type=int, default=3, help="runs of each contender (default 3)")
    parser.add_argument("--dir", help="where to work, with 20 GiB free (default: the temporary directory)")
    options = parser.parse_args()
    unknown = set(options.rows) - set(ROWS)
    if unknown:
        parser.error(f"no such row: {', '.join(sorted(unknown))}")
    signal.signal(signal.SIGTERM, _end)
    peers = [name for name in ("curl", "oras", "kit", "registry", "docker-registry") if shutil.which(name)]
    print(f"{os.cpu_count()} cores, Linux {platform.release()}, Python {platform.python_version()}; {peers}")
    with tempfile.TemporaryDirectory(prefix="kitd-bench-", dir=options.dir) as home:
        for name in options.rows or ROWS:
            if name in _NEED_ROOT and os.geteuid() != 0:
                print(f"\n## {name}: needs root, to mount fresh file systems")
                continue
            ROWS[name](transfers.Bench(Path(home), options.rounds, options.quick))
            sys.stdout.flush()


def _end(_number: int, _frame: FrameType | None) -> None:
    sys.exit("ended")


if __name__ == "__main__":
    main()
