"""N-grams: what counts as the same words, and hashes that never change."""

import random
from pathlib import Path

import numpy as np
import pytest

from bessemer_trainer.ngram_index import IndexWriter, open_index
from bessemer_trainer.ngrams import count_hits, hash_words, item_text, ngrams, normalise, text_ngrams
from tests.trainer.data.world import document, sentence

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


HITS = [
    pytest.param("{item}", 1, id="the item itself"),
    pytest.param("{filler} {item} {filler}", 1, id="the item inside a document"),
    pytest.param("{filler} {shouted}!!! {filler}", 1, id="the item in other case and punctuation"),
    pytest.param("{filler}", 0, id="another text"),
]


@pytest.mark.parametrize("length", [5, 12, 13])
@pytest.mark.parametrize(("template", "expected"), HITS)
def test_item_is_found(template: str, expected: int, length: int) -> None:
    item = " ".join(f"term{i}" for i in range(length))
    filler = sentence(random.Random(4))
    text = template.format(item=item, shouted=item.upper().replace(" ", ", "), filler=filler)
    hits, _ = count_hits(hash_words([normalise(text)]).hashes, text_ngrams(item), [length] if length < 13 else [], 13)
    assert hits.tolist() == [expected]


def test_item_of_four_words_is_a_common_phrase_inside_a_document_and_found_only_as_one() -> None:
    index = text_ngrams("is it not so")
    texts = ["Is it not so?", "And is it not so that it rains"]
    hits, _ = count_hits(hash_words([normalise(text) for text in texts]).hashes, index, [4], 13)
    assert hits.tolist() == [1, 0]


def test_item_text_is_the_prompt_with_its_right_choice() -> None:
    assert item_text({"prompt": "Water is", "choices": ["dry", "wet"], "answer": 1}) == "Water is wet"
    assert item_text({"text": "Water is wet"}) == "Water is wet"


def test_index_is_sorted_and_unique_whatever_was_added(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bessemer_trainer.ngram_index._BUFFERED", 100)
    random_hashes = np.random.Generator(np.random.PCG64(0)).integers(0, 2**64, 1000, dtype=np.uint64)
    edges = np.array([0, 2**58 - 1, 2**58, 2**63, 2**64 - 1], dtype=np.uint64)
    hashes = np.concatenate([random_hashes, random_hashes[:500], edges])
    (tmp_path / "scratch").mkdir()
    writer = IndexWriter(tmp_path / "scratch")
    for part in np.array_split(hashes, 40):
        writer.add(part)
    assert writer.finish(tmp_path / "ngrams.u64") == len(np.unique(hashes))
    assert np.array_equal(open_index(tmp_path / "ngrams.u64"), np.unique(hashes))


def test_empty_index_opens(tmp_path: Path) -> None:
    assert IndexWriter(tmp_path).finish(tmp_path / "ngrams.u64") == 0
    assert len(open_index(tmp_path / "ngrams.u64")) == 0
