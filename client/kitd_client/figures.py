"""What people read: bytes, rates, durations, and texts of strangers."""

_UNITS = ("KiB", "MiB", "GiB", "TiB")


def size_text(count: float) -> str:
    """Bytes in the form of `kit list`: `512 B`, `1.4 GiB`, rounded down to a tenth."""
    if count < 1024:  # noqa: PLR2004 -- the unit itself
        return f"{count:.0f} B"
    value = float(count)
    for unit in _UNITS:
        value /= 1024
        if value < 1024:  # noqa: PLR2004 -- the unit itself
            return f"{int(value * 10) / 10:.1f} {unit}"
    return f"{value / 1024:.1f} PiB"


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
