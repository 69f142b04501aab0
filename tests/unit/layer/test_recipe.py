import mmap
import random
import struct
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kitd.layer.recipe import Literal, ObjectSlice, Recipe, RecipeBuilder
from kitd.layer.tar import Member, encode_header, padding
from kitd.spec.digest import Digest, digest_of
from kitd_client.api.errors import ObjectDamaged

Part = tuple[bool, bytes]
FRAME = 256 * 1024


class Building(RecipeBuilder):
    """Keeps what is spilled."""

    def __init__(self) -> None:
        self.spilled: list[bytes] = []
        super().__init__(self.spilled.append)

    def whole(self) -> bytes:
        before, after = self.finish()
        return b"".join((before, *self.spilled, after))


def build(parts: list[Part]) -> tuple[Recipe, bytes, dict[Digest, bytes]]:
    """A recipe of literal and referred parts, the blob it stands for, and its objects."""
    builder = Building()
    objects = {}
    for is_literal, data in parts:
        if is_literal:
            builder.literal(data)
        else:
            objects[digest_of(data)] = data
            builder.reference(digest_of(data), len(data))
    return Recipe(builder.whole()), b"".join(data for _, data in parts), objects


def read(recipe: Recipe, objects: dict[Digest, bytes], start: int = 0, stop: int | None = None) -> bytes:
    pieces = []
    for segment in recipe.segments(start, stop):
        if isinstance(segment, Literal):
            assert 0 < len(segment.data) <= FRAME
            pieces.append(bytes(segment.data))
        else:
            whole = objects[segment.digest]
            assert segment.size == len(whole)
            assert segment.length > 0
            pieces.append(whole[segment.offset : segment.offset + segment.length])
    return b"".join(pieces)


parts = st.lists(
    st.tuples(st.just(True), st.binary(max_size=40))
    | st.tuples(st.just(False), st.binary(min_size=1, max_size=40)),
    max_size=12,
)


@given(parts, st.integers(0, 600), st.integers(0, 600))
def test_any_range_of_the_blob_comes_back(pieces: list[Part], start: int, stop: int) -> None:
    recipe, blob, objects = build(pieces)
    assert recipe.size == len(blob)
    assert read(recipe, objects) == blob
    assert read(recipe, objects, start, stop) == blob[start:stop]
    expected = [(digest_of(data), len(data)) for is_literal, data in pieces if not is_literal]
    assert list(recipe.objects()) == expected


def test_literals_larger_than_a_frame_come_back_at_any_offset() -> None:
    dice = random.Random(7)
    recipe, blob, objects = build(
        [
            (True, dice.randbytes(3 * FRAME + 5)),
            (False, b"object"),
            (True, dice.randbytes(FRAME - 5)),
            (True, b"e"),
        ]
    )
    assert read(recipe, objects) == blob
    for start in (0, 1, FRAME - 1, FRAME, 3 * FRAME, 3 * FRAME + 4, 3 * FRAME + 8, len(blob) - 1):
        assert read(recipe, objects, start, start + FRAME) == blob[start : start + FRAME]


def test_a_range_within_one_object_says_where_in_it() -> None:
    recipe, _, _ = build([(True, b"head"), (False, b"0123456789"), (True, b"tail")])
    assert list(recipe.segments(6, 9)) == [ObjectSlice(digest_of(b"0123456789"), 2, 3, 10)]


def test_a_recipe_can_be_mapped_and_let_go(tmp_path: Path) -> None:
    builder = Building()
    builder.literal(b"head")
    builder.reference(digest_of(b"x"), 1)
    path = tmp_path / "recipe"
    path.write_bytes(builder.whole())
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as mapped:
        recipe = Recipe(mapped)
        assert recipe.size == 5
        assert len(list(recipe.segments())) == 2
        recipe.close()  # a view left open would make the mapping's own close fail


def test_a_reference_to_nothing_is_a_mistake_of_the_caller() -> None:
    with pytest.raises(ValueError, match="a reference to 0 bytes"):
        Building().reference(digest_of(b""), 0)


def test_a_recipe_of_many_small_files_is_small() -> None:
    builder = Building()
    count = 20_000
    for number in range(count):
        size = 1 + number * 7919 % 20_000
        builder.literal(
            encode_header(Member(f"data/{number % 256:02x}/{number:06d}.bin", False, 0o644, size))
        )
        builder.reference(digest_of(b"%d" % number), size)
        builder.literal(bytes(padding(size)))
    assert len(builder.whole()) < count * 70


def whole_recipe() -> bytes:
    builder = Building()
    builder.literal(b"head")
    builder.reference(digest_of(b"object"), 6)
    builder.literal(b"tail")
    return builder.whole()


def test_a_bad_recipe_lets_its_mapping_go(tmp_path: Path) -> None:
    path = tmp_path / "recipe"
    path.write_bytes(whole_recipe()[:-1] + b"?")
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as mapped:
        recipe = Recipe(mapped)
        with pytest.raises(ObjectDamaged, match="literals cannot be read"):
            list(recipe.segments())
        recipe.close()
    path.write_bytes(whole_recipe()[:-1])
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as mapped:
        try:
            Recipe(mapped)
        except ObjectDamaged:
            mapped.close()
        assert mapped.closed


@pytest.mark.parametrize("length", [0, 1, 39, 40, 100, -1])
def test_a_cut_off_recipe_is_damaged(length: int) -> None:
    with pytest.raises(ObjectDamaged, match="the recipe of a layer is damaged"):
        Recipe(whole_recipe()[:length])


def test_anything_else_is_no_recipe() -> None:
    with pytest.raises(ObjectDamaged, match="does not begin like one"):
        Recipe(b"\0" * 1000)


@given(st.integers(0, 1000), st.integers(1, 255))
def test_a_changed_byte_never_leads_to_other_literals_or_a_crash(at: int, change: int) -> None:
    data = bytearray(whole_recipe())
    data[at % len(data)] ^= change
    try:
        segments = list(Recipe(data).segments())
    except ObjectDamaged:
        return
    literals = [bytes(segment.data) for segment in segments if isinstance(segment, Literal)]
    assert b"".join(literals) in {b"headtail", b"headtai", b"head"}


@pytest.mark.parametrize(("at", "value"), [(56, 5), (72, 8), (72, 0)])
def test_tables_of_several_objects_that_do_not_add_up_are_damage(at: int, value: int) -> None:
    builder = Building()
    builder.reference(digest_of(b"one"), 3)
    builder.literal(b"head")
    builder.reference(digest_of(b"two"), 3)
    data = bytearray(builder.whole())
    struct.pack_into("=Q", data, at, value)
    with pytest.raises(ObjectDamaged, match="do not add up"):
        list(Recipe(data).segments())


@pytest.mark.parametrize("value", [0, 2**40, 2**64 - 1])
@pytest.mark.parametrize("at", [8, 16, 24, 32, 40, 48, 56, 64, 72, 80])
def test_wild_numbers_are_damage(at: int, value: int) -> None:
    data = bytearray(whole_recipe())
    if struct.unpack_from("=Q", data, at)[0] == value:
        return
    struct.pack_into("=Q", data, at, value)
    with pytest.raises(ObjectDamaged):
        list(Recipe(data).segments())
