"""Listing directories for a pack."""

import os
import stat
from collections.abc import Iterator, Sequence
from typing import Literal

from kitd_client.api.workspace import ROWS_LIMIT, STAGING_PREFIX, EntryRow, ListingRow, Listings
from kitd_client.directory.framing import Connection
from kitd_client.directory.openat2 import DIRECTORY, open_beneath, reason, split_path, text

Kind = Literal["file", "dir", "symlink", "other"]


def scan(connection: Connection, root: int, directories: Sequence[bytes]) -> None:
    """Lists the directories; what cannot be listed says why."""
    for directory in directories:
        if directory:
            split_path(directory)
    pending: list[ListingRow] = []
    rows = 0
    for index, directory in enumerate(directories):
        for listing in _listing(root, index, directory):
            if pending and (rows + len(listing.entries) > ROWS_LIMIT or len(pending) == ROWS_LIMIT):
                connection.send(Listings(pending, last=False))
                pending, rows = [], 0
            pending.append(listing)
            rows += len(listing.entries)
    connection.send(Listings(pending, last=True))


def _listing(root: int, index: int, directory: bytes) -> Iterator[ListingRow]:
    """The directory in parts; always at least one."""
    rows: list[EntryRow] = []
    said = False
    error = ""
    try:
        descriptor = open_beneath(root, directory, DIRECTORY)
        try:
            with os.scandir(descriptor) as entries:
                for entry in entries:
                    if os.fsencode(entry.name).startswith(STAGING_PREFIX):
                        continue
                    rows.append(_row(entry))
                    if len(rows) == ROWS_LIMIT:
                        yield ListingRow(index, rows)
                        rows, said = [], True
        finally:
            os.close(descriptor)
    except OSError as problem:
        error = reason(root, directory, problem)
    if rows or error or not said:
        yield ListingRow(index, rows, error)


def _row(entry: os.DirEntry[str]) -> EntryRow:
    name = os.fsencode(entry.name)
    try:
        status = entry.stat(follow_symlinks=False)
    except OSError as error:
        return EntryRow(name, "other", 0, 0, text(error))
    return EntryRow(name, _kind(status.st_mode), stat.S_IMODE(status.st_mode), status.st_size)


def _kind(mode: int) -> Kind:
    if stat.S_ISREG(mode):
        return "file"
    if stat.S_ISDIR(mode):
        return "dir"
    return "symlink" if stat.S_ISLNK(mode) else "other"
