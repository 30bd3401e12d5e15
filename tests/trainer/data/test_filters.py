"""Quality filters: each threshold is missed by one document and met by its neighbour."""

import random
from typing import Any

import pytest

from bessemer_api.v1alpha1.data import Filter
from bessemer_trainer.document import Document
from bessemer_trainer.errors import PermanentError
from bessemer_trainer.filters import build_rule, count_sentences
from bessemer_trainer.ngrams import hash_words, normalise
from tests.trainer.data.world import document, sentence


def problem(name: str, text: str, **thresholds: float) -> str:
    words = hash_words([normalise(text)])
    rule = build_rule(Filter.model_validate({"name": name, "thresholds": thresholds}))
    return rule.problem(Document(text, words.hashes.of(0), words.lengths))


FINE = document(random.Random(9), 12)
FOUR = [sentence(random.Random(seed)) for seed in range(4)]
NAMES = ("gopherQuality", "gopherRepetition", "c4", "fineweb", "ocrDamage")


@pytest.mark.parametrize("name", NAMES)
def test_plain_prose_is_fine(name: str) -> None:
    assert problem(name, FINE) == ""


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("text", ["", " ", "\n\n", "…", "a", "\x00", "日本語", "🙂" * 100])
def test_no_text_breaks_a_rule(name: str, text: str) -> None:
    assert isinstance(problem(name, text), str)


def repeat(unit: str, times: int) -> str:
    return "\n".join([unit] * times)


MISSED = [
    ("gopherQuality", "minWords", "bees have the wings " * 12 + "it", "bees have the wings " * 13),
    ("gopherQuality", "maxWords", "bees have the wings " * 25_001, "bees have the wings " * 25_000),
    ("gopherQuality", "minMeanWordLength", "to be a " * 20, "then bees are " * 20 + "to be"),
    ("gopherQuality", "maxMeanWordLength", "the to " + "abcdefghijklm " * 60, "the to " + "abcdefghij " * 60),
    (
        "gopherQuality",
        "maxSymbolRatio",
        "the bees have # " * 20,
        "the bees have seen many flowers of all colours # " * 20,
    ),
    (
        "gopherQuality",
        "maxSymbolRatio",
        "the bees have… " * 20,
        "the bees have seen many… flowers of all colours here " * 20,
    ),
    ("gopherQuality", "maxBulletLines", repeat("- the bees have wings", 20), FINE + repeat("\n- the bees have", 8)),
    ("gopherQuality", "maxEllipsisLines", repeat("the bees " * 9 + "have seen…", 20), FINE + "\nyes\nno\nand…"),
    ("gopherQuality", "minAlphabeticWords", "the bees have 12345 " * 20, "the bees have seen more flowers 12 " * 20),
    ("gopherQuality", "minStopWords", "bees like flowers most " * 20, "the bees have flowers " * 20),
    ("gopherRepetition", "duplicateParagraphs", FINE + "\n\nyes" * 3, FINE + "\n\nyes\n\nno\n\nand"),
    (
        "gopherRepetition",
        "duplicateParagraphCharacters",
        "\n\n".join([*FOUR, *FOUR[:2], "so", "no"]),
        "\n\n".join([*FOUR, "so"]),
    ),
    ("gopherRepetition", "duplicateLines", FINE + "\nyes" * 3, FINE + "\nyes\nno\nand"),
    (
        "gopherRepetition",
        "duplicateLineCharacters",
        "\n".join([*FOUR, *FOUR[:2], "so", "no"]),
        "\n".join([*FOUR, "so"]),
    ),
    ("gopherRepetition", "top2Gram", f"{FINE} " + "great success " * 40, f"{FINE} " + "great success " * 3),
    ("c4", "minSentences", "One here now. Two here now. Three here now. Four here now.", FINE),
    ("c4", "minSentences", "Too short.\n" * 9, "Long enough now.\n" * 9),
    ("c4", "minSentences", f"{'x' * 1001} {FINE}", f"{'x' * 1000} {FINE}"),
    ("c4", "minSentences", f"Please enable JavaScript. {FINE}", f"Please enable it. {FINE}"),
    ("c4", "minSentences", f"See our Privacy Policy. {FINE}", f"See our private policy. {FINE}"),
    ("c4", "rejectLoremIpsum", f"{FINE}\nLorem ipsum dolor sit", f"{FINE}\nLorem dolor sit"),
    ("c4", "rejectCurlyBracket", f"{FINE}\nfunction run() {{", f"{FINE}\nfunction run() ["),
    ("fineweb", "minTerminalPunctuationLines", "\n".join(line[:-1] for line in FOUR), "\n".join(FOUR)),
    (
        "fineweb",
        "maxShortLines",
        f"{FINE}\nIt is.\nSo it is.\nYes.",
        f"{FINE}\nIt is.\nSo it is, as said and shown before.",
    ),
    ("fineweb", "maxDuplicateLineCharacters", f"{FINE}\nOn one hand.\nOn one hand.", f"{FINE}\nOn.\nOn.\n{FINE[:99]}"),
    (
        "fineweb",
        "maxNewlineRatio",
        "\n\n\n".join(["A line that is long enough.", *FOUR[:1]]) + "\n" * 12,
        FINE + "\n\n\nOne.",
    ),
    ("ocrDamage", "maxReplacementCharacters", FINE + "�" * 3, FINE + "�"),
    ("ocrDamage", "maxEqualRuns", FINE + " " + "." * 60, FINE + " ...." * 15),
    ("ocrDamage", "maxHyphenatedLines", repeat("the hos-\npital", 9), repeat("the hos-\npital\nwas\nfull", 9)),
    ("ocrDamage", "maxSingleLetterWords", "t h e patient was", "the p patient was"),
]


@pytest.mark.parametrize(
    ("name", "threshold", "bad", "good"), MISSED, ids=[f"{n}.{t}-{i}" for i, (n, t, _, _) in enumerate(MISSED)]
)
def test_threshold_is_missed_by_one_and_met_by_the_other(name: str, threshold: str, bad: str, good: str) -> None:
    assert (problem(name, bad), problem(name, good)) == (threshold, "")


@pytest.mark.parametrize("n", range(5, 11))
def test_repeats_of_n_words_are_found(n: int) -> None:
    dice = random.Random(n)
    phrase = " ".join(f"word{dice.randrange(10**9)}" for _ in range(n))
    fresh = (f"other{dice.randrange(10**9)}" for _ in iter(int, 1))
    text = " ".join(f"{phrase} {next(fresh)} {next(fresh)} {next(fresh)}" for _ in range(9))
    off = {f"top{m}Gram": 1.0 for m in (2, 3, 4)} | {f"duplicate{m}Grams": 1.0 for m in range(5, 11) if m != n}
    assert problem("gopherRepetition", text, **off) == f"duplicate{n}Grams"
    assert problem("gopherRepetition", text, **(off | {f"duplicate{n}Grams": 1.0})) == ""


def repeated_share(words: list[str], n: int) -> int:
    """Reference: characters of repeated n-grams, left to right, in plain Python."""
    seen, total, place = set(), 0, 0
    while place + n <= len(words):
        gram = tuple(words[place : place + n])
        total += sum(map(len, gram)) if gram in seen else 0
        place += n if gram in seen else 1
        seen.add(gram)
    return total


@pytest.mark.parametrize("seed", range(40))
def test_short_cut_of_the_repetition_rule_never_changes_a_decision(seed: int) -> None:
    dice = random.Random(seed)
    words = [f"w{dice.randrange(3 + seed)}" for _ in range(200)]
    text = " ".join(words)
    off = {f"top{m}Gram": 1e9 for m in (2, 3, 4)}
    limits = {5: 0.15, 6: 0.14, 7: 0.13, 8: 0.12, 9: 0.11, 10: 0.10}
    expected = [f"duplicate{n}Grams" for n, limit in limits.items() if repeated_share(words, n) > limit * len(text)]
    assert problem("gopherRepetition", text, **off) == (expected or [""])[0]


@pytest.mark.parametrize("seed", range(20))
def test_short_cut_of_the_top_ngram_rule_never_changes_a_decision(seed: int) -> None:
    dice = random.Random(seed)
    words = [f"w{dice.randrange(2 + seed // 2)}" for _ in range(120)]
    text = " ".join(words)
    off = {f"duplicate{n}Grams": 1e9 for n in range(5, 11)}

    def top(n: int) -> int:
        grams = [" ".join(words[place : place + n]) for place in range(len(words) - n + 1)]
        best = max(grams, key=lambda gram: (grams.count(gram), -grams.index(gram)))
        return len(best) * grams.count(best)

    limits = {2: 0.20, 3: 0.18, 4: 0.16}
    expected = [f"top{n}Gram" for n, limit in limits.items() if top(n) > limit * len(text)]
    assert problem("gopherRepetition", text, **off) == (expected or [""])[0]


OVERRIDES: list[Any] = [
    pytest.param("gopherQuality", {"minWords": 2, "minStopWords": 0}, "rare words", id="laxer"),
    pytest.param("c4", {"requireTerminalPunctuation": 1}, FINE + "\n" + FINE, id="stricter, still met"),
]


@pytest.mark.parametrize(("name", "thresholds", "text"), OVERRIDES)
def test_threshold_of_the_user_holds(name: str, thresholds: dict[str, float], text: str) -> None:
    assert problem(name, text, **thresholds) == ""


def test_stricter_threshold_of_the_user_rejects() -> None:
    assert problem("c4", FINE, minSentences=100) == "minSentences"
    assert problem("c4", (FINE[:-1] + "\n") * 9, requireTerminalPunctuation=1) == "minSentences"


def test_unknown_threshold_is_refused_with_the_known_ones() -> None:
    with pytest.raises(PermanentError, match=r"no threshold 'minWord'; expected one of minWords, maxWords"):
        problem("gopherQuality", FINE, minWord=1)


@pytest.mark.parametrize(
    ("line", "count"),
    [
        ("One. Two! Three?", 3),
        ("no end", 1),
        ("One. and more", 2),
        ("“Quoted.” She left.", 2),
        ("3.14 is near. e.g. pi", 3),
        ("它。是。", 2),
    ],
)
def test_sentences(line: str, count: int) -> None:
    assert count_sentences(line) == count
