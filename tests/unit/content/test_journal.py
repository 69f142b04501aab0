from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kitd.content.journal import NAME, Journal, Written
from kitd.spec.digest import Digest, digest_of

ONE = digest_of(b"1")
NONE = Digest("")


def replay(directory: Path) -> list[list[Written]]:
    journal = Journal(str(directory))
    frames = [records for _, records in journal.frames()]
    journal.close()
    return frames


def written(directory: Path) -> bytes:
    journal = Journal(str(directory))
    journal.literal(b"head")
    journal.object(ONE, 7)
    journal.flush()
    journal.flush()
    journal.literal(b"")
    journal.rest()
    journal.flush()
    journal.literal(b"never flushed")
    journal.close()
    return (directory / NAME).read_bytes()


def test_frames_come_back(tmp_path: Path) -> None:
    written(tmp_path)
    assert replay(tmp_path) == [
        [Written("literal", b"head", NONE, 4), Written("object", b"", ONE, 7)],
        [Written("literal", b"", NONE, 0), Written("rest", b"", NONE, 0)],
    ]


def test_it_is_appended_to_after_it_was_read(tmp_path: Path) -> None:
    written(tmp_path)
    journal = Journal(str(tmp_path))
    assert len(list(journal.frames())) == 2
    journal.object(ONE, 9)
    journal.flush()
    journal.close()
    assert [record.size for record in replay(tmp_path)[2]] == [9]


def test_a_dropped_frame_takes_the_later_ones_along(tmp_path: Path) -> None:
    written(tmp_path)
    journal = Journal(str(tmp_path))
    for position, records in journal.frames():
        journal.literal(records[0].data)
        journal.cut(position)
        journal.flush()
        break
    journal.close()
    assert [[record.kind for record in frame] for frame in replay(tmp_path)] == [["literal"]]


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_cut_off_or_garbled_it_yields_whole_frames_only(
    data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    directory = tmp_path_factory.mktemp("journal")
    whole = written(directory)
    good = replay(directory)
    garbled = bytearray(whole)
    if data.draw(st.booleans()):
        garbled[data.draw(st.integers(0, len(whole) - 1))] ^= data.draw(st.integers(1, 255))
    del garbled[data.draw(st.integers(0, len(whole))) :]
    (directory / NAME).write_bytes(garbled)
    found = replay(directory)
    assert found == good[: len(found)]
    assert len((directory / NAME).read_bytes()) <= len(garbled)
    assert replay(directory) == found
