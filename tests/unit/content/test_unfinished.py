import errno
import os
from pathlib import Path

import pytest
from fakes.stores import noise

from kitd.content import unfinished
from kitd.content.unfinished import SLICE, Unfinished, tail_name, write_all


@pytest.mark.parametrize("error", [None, errno.EOPNOTSUPP, errno.EINVAL])
def test_a_large_object_is_written_around_the_cache_where_that_works(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: int | None
) -> None:
    tried: list[int] = []

    def write_uncached(descriptor: int, data: bytes) -> int:
        tried.append(len(data))
        if error is not None:
            raise OSError(error, "no")
        return os.write(descriptor, data[:1000])

    monkeypatch.setattr(unfinished, "write_uncached", write_uncached)
    monkeypatch.setattr(unfinished, "_CACHED", 2 * SLICE)
    data = noise(4 * SLICE)
    member = Unfinished(0, None, shares_hash=False)
    member.open(str(tmp_path))
    for start in range(0, len(data), SLICE):
        member.add(data[start : start + SLICE])
    member.close()
    assert (tmp_path / tail_name(0)).read_bytes() == data
    assert len(tried) == (1 if error is not None else 2 * -(-SLICE // 1000))


def test_other_errors_are_the_disks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_descriptor: int, _data: bytes) -> int:
        raise OSError(errno.ENOSPC, "full")

    monkeypatch.setattr(unfinished, "write_uncached", full)
    monkeypatch.setattr(unfinished, "_CACHED", 0)
    member = Unfinished(0, None, shares_hash=False)
    member.open(str(tmp_path))
    with pytest.raises(OSError, match="full"):
        member.add(b"x")
    member.close()
    member.close()


def test_write_all_goes_on_after_a_short_write(monkeypatch: pytest.MonkeyPatch) -> None:
    out: list[bytes] = []

    def write(_descriptor: int, data: bytes) -> int:
        out.append(bytes(data[:3]))
        return min(3, len(data))

    monkeypatch.setattr(os, "write", write)
    write_all(9, b"abcdefgh")
    assert out == [b"abc", b"def", b"gh"]


def test_room_is_taken_ahead_but_not_for_all_that_is_claimed(tmp_path: Path) -> None:
    member = Unfinished(0, 1 << 50, shares_hash=False)
    member.open(str(tmp_path))
    for number in range(3):
        member.add(noise(SLICE, number))
    status = (tmp_path / tail_name(0)).stat()
    assert status.st_size == 3 * SLICE
    assert status.st_blocks * 512 < 1 << 30
    member.trim()
    status = (tmp_path / tail_name(0)).stat()
    member.close()
    assert status.st_size == 3 * SLICE
    assert status.st_blocks * 512 < 4 * SLICE
