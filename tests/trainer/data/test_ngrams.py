"""N-grams: what counts as the same words, and hashes that never change."""

import random

import numpy as np
import pytest

from bessemer_trainer.evals.formats import item_text
from bessemer_trainer.ngrams import count_hits, hash_words, ngrams, normalise, text_ngrams
from tests.trainer.data.world import document

WORDS = [
    pytest.param("Aspirin, (500 mg)!", b"aspirin 500 mg", id="case and punctuation do not count"),
    pytest.param("don't a_b", b"don t a_b", id="an apostrophe ends a word, an underscore does not"),
    pytest.param("ﬁne ①", b"fine 1", id="compatibility characters are what they stand for"),
    pytest.param("Straße — “Ärzte”", "strasse ärzte".encode(), id="letters outside of ASCII are letters"),
    pytest.param("東京 abc", "東 京 abc".encode(), id="an ideograph is a word"),
    pytest.param(" \n\t…", b"", id="a text may have no words"),
]


@pytest.mark.parametrize(("text", "words"), WORDS)
def test_words(text: str, words: bytes) -> None:
    assert b" ".join(normalise(text).split()) == words


def test_ascii_takes_a_short_cut_to_the_same_words() -> None:
    everything = " ".join(f"{chr(code)}a{chr(code)}" for code in range(128))
    assert normalise(everything).split() == normalise(everything + " ä").split()[:-1]


def test_hashes_are_the_same_for_ever() -> None:
    assert text_ngrams("The quick brown fox").tolist() == [11486158583093520860]
    assert text_ngrams("one two three four", 3).tolist() == [5339920544948878058, 6286474943436834637]


def test_batch_gives_what_each_text_gives_alone() -> None:
    dice = random.Random(2)
    texts = [document(dice, dice.randrange(4)) for _ in range(50)] + ["", "one", "…", "日本 語"]
    for n in (1, 2, 5, 13):
        batch = ngrams(hash_words([normalise(text) for text in texts]).hashes, n)
        for place, text in enumerate(texts):
            assert np.array_equal(np.unique(batch.of(place)), text_ngrams(text, n))


@pytest.mark.parametrize(
    ("words", "n", "count"), [(20, 13, 8), (13, 13, 1), (12, 13, 1), (1, 13, 1), (0, 13, 0), (5, 1, 5)]
)
def test_number_of_ngrams(words: int, n: int, count: int) -> None:
    assert len(text_ngrams(" ".join(f"w{i}" for i in range(words)), n)) == count


def test_no_two_ngrams_of_a_large_corpus_have_the_same_hash() -> None:
    dice = random.Random(3)
    texts = [document(dice, 8) for _ in range(1000)]
    words = [normalise(text).split() for text in texts]
    distinct = {tuple(text[start : start + 5]) for text in words for start in range(len(text) - 4)}
    hashes = ngrams(hash_words([normalise(text) for text in texts]).hashes, 5)
    assert len(np.unique(hashes.values)) == len(distinct)


def test_word_lengths_are_bytes() -> None:
    assert hash_words([normalise("ab äb")]).lengths.tolist() == [2, 3]


def test_item_text_is_the_prompt_with_its_right_choice() -> None:
    assert item_text({"prompt": "Water is", "choices": ["dry", "wet"], "answer": 1}) == "Water is wet"
    assert item_text({"text": "Water is wet"}) == "Water is wet"


def test_hits_are_counted_by_document() -> None:
    texts = ["a b c d e", "x a b c", "a b", "", "x y z"]
    hits, counts = count_hits(hash_words([normalise(text) for text in texts]).hashes, text_ngrams("a b c d", 3), 3)
    assert (hits.tolist(), counts.tolist()) == ([2, 1, 0, 0, 0], [3, 2, 1, 0, 1])
