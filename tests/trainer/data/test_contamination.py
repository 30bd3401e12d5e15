"""Which items stand in which documents: short ones and long ones, whole or in part, alone or inside."""

import random
from collections.abc import Sequence

import pytest

from bessemer_trainer.contamination import find_items, index_items
from bessemer_trainer.ngrams import hash_words, normalise
from tests.trainer.data.world import document, sentence


def find(documents: Sequence[str], items: Sequence[str]) -> list[tuple[int, int]]:
    """(document, item), sorted."""
    found = find_items(hash_words([normalise(text) for text in documents]).hashes, index_items(items))
    return sorted(zip(*(part.tolist() for part in found), strict=True))


def words(count: int, name: str = "term") -> str:
    return " ".join(f"{name}{number}" for number in range(count))


TEMPLATES = [
    pytest.param("{item}", True, id="the item itself"),
    pytest.param("{filler} {item} {filler}", True, id="the item inside a document"),
    pytest.param("{long} {item} {long}", True, id="the item inside a long document"),
    pytest.param("{filler} {shouted}!!! {filler}", True, id="the item in other case and punctuation"),
    pytest.param("{filler}", False, id="another text"),
    pytest.param("", False, id="an empty text"),
]


@pytest.mark.parametrize("length", [5, 7, 12, 13, 14, 60])
@pytest.mark.parametrize(("template", "expected"), TEMPLATES)
def test_an_item_is_found_word_for_word(template: str, expected: bool, length: int) -> None:
    dice = random.Random(4)
    item, filler = words(length), sentence(dice)
    shouted = item.upper().replace(" ", ", ")
    text = template.format(item=item, shouted=shouted, filler=filler, long=document(dice, 200))
    assert find([filler, text, ""], ["another item of seven words or so", item]) == ([(1, 1)] if expected else [])


@pytest.mark.parametrize("length", [5, 7, 12])
def test_a_short_item_that_lacks_a_word_is_not_found(length: int) -> None:
    item = words(length)
    cut, split = item.rpartition(" ")[0], item.replace("term2", "well term2")
    assert find([f"so {cut} so", f"so {split} so"], [item]) == []


def test_an_item_of_four_words_is_found_only_as_a_document() -> None:
    assert find(["Is it not so?", "And is it not so that it rains"], ["is it not so"]) == [(0, 0)]


@pytest.mark.parametrize(
    ("kept", "expected"),
    [
        pytest.param(36, True, id="24 of 48 n-grams, a half"),
        pytest.param(35, False, id="23 of 48 n-grams, less than a half"),
    ],
)
def test_half_of_a_long_item_is_enough_however_long_the_document(kept: int, expected: bool) -> None:
    item = words(60)
    part = " ".join(item.split()[:kept])
    for filler in ("", document(random.Random(5), 400)):
        assert find([f"{filler} {part} {filler}"], [item]) == ([(0, 0)] if expected else [])


def test_halves_in_two_documents_do_not_add_up() -> None:
    item = words(60).split()
    parts = [" ".join(item[start : start + 30]) for start in (0, 15, 30)]
    assert find(parts, [" ".join(item)]) == []


def test_an_item_that_repeats_itself_counts_each_run_once() -> None:
    item = f"{words(13)} " * 5
    assert find([f"{words(13)} and {words(13)} again and again"], [item]) == []
    assert find([item], [item]) == [(0, 0)]


def test_each_of_two_items_with_the_same_words_is_found() -> None:
    shared = words(40)
    items = [f"{shared} one", f"{shared} two", "six words that are short indeed"]
    assert find(["nothing at all", f"He said {shared}"], items) == [(1, 0), (1, 1)]


def test_no_item_and_no_document_give_nothing() -> None:
    assert find([], ["an item of six words only"]) == find(["a document"], []) == find([], []) == []
