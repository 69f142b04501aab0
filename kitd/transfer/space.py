"""Whether the store's disk has room, asked before anything is moved."""

from kitd.content.store import ContentStore
from kitd_client.api.errors import NoSpace

RESERVE = 64 << 20
"""Bytes of the file system that stay free: the database and a person's shell need some."""


async def require_space(store: ContentStore, needed: int, what: str) -> None:
    """Raises `NoSpace`, with the numbers, if `needed` bytes more would not fit.

    Args:
        store: whose file system it is.
        needed: bytes that will be written.
        what: what needs them, in the plural.
    """
    free = (await store.usage()).free_bytes
    if needed and needed + RESERVE > free:
        raise NoSpace(
            f"{what} need {needed >> 20} MiB, and the file system of the store has {free >> 20} MiB free",
            kept="everything that is here",
            hint="free some space (`kitctl remove REF`), or move the store (KITD_CACHE_DIR)",
            needed=needed,
            free=free,
        )
