"""Paths of a Kitfile, compared as kit compares them. Nothing here touches a file."""

import posixpath
from collections.abc import Set as AbstractSet

_LONGEST = 4096
"""PATH_MAX: no longer path names anything."""


def clean_path(path: str) -> str:
    """The shortest path that means the same, as Go's `filepath.Clean`; the empty path is `.`."""
    cleaned = posixpath.normpath(path)
    return cleaned[1:] if cleaned.startswith("//") else cleaned


def lies_below(path: str, directories: AbstractSet[str]) -> bool:
    """Whether a cleaned path lies in one of the cleaned directories; being one of them is not enough."""
    if path == "." or leaves_directory(path):
        return False
    if "." in directories:
        return True
    end = path.find("/")
    while 0 <= end < _LONGEST:
        if path[:end] in directories:
            return True
        end = path.find("/", end + 1)
    return False


def leaves_directory(path: str) -> bool:
    """Whether a cleaned path leads out of the directory it starts in."""
    return path == ".." or path.startswith("../")
