"""What people read: bytes, rates, durations, and texts of strangers."""

_UNITS = ("B", "KiB", "MiB", "GiB", "TiB", "PiB")


def size_text(count: float, whole: float | None = None) -> str:
    """Bytes in the form of `kit list`: `512 B`, `1.4 GiB`, rounded down to a tenth.

    Args:
        count: bytes.
        whole: what they are a part of and stand beside: its unit is theirs, so that the two compare at sight.
    """
    value, rest = float(count), float(count if whole is None else whole)
    power = 0
    while rest >= 1024 and power < len(_UNITS) - 1:  # noqa: PLR2004 -- the unit itself
        value, rest = value / 1024, rest / 1024
        power += 1
    return f"{int(value * 10) / 10:.1f} {_UNITS[power]}" if power else f"{count:.0f} B"


def duration_text(seconds: float) -> str:
    """Seconds as `42s`, `3m05s` or `2h07m`."""
    minutes, rest = divmod(round(seconds), 60)
    if minutes == 0:
        return f"{rest}s"
    hours, minutes = divmod(minutes, 60)
    return f"{hours}h{minutes:02}m" if hours else f"{minutes}m{rest:02}s"


def printable(text: str, *, lines: bool = False) -> str:
    """A text that others chose, with everything escaped that a terminal would obey instead of showing it.

    Args:
        text: a name, a reference, a message.
        lines: line ends stay.
    """
    if text.isprintable():
        return text
    return "".join(
        each
        if each.isprintable() or (lines and each == "\n")
        else each.encode("unicode_escape", "surrogatepass").decode()
        for each in text
    )
