"""Verifiers and constraints: a table of outputs that are accepted and outputs that are refused, kind by kind."""

from typing import Any

import pytest

from bessemer_trainer.evals import constraints, gym, verifiers

CONSTRAINTS: dict[str, tuple[dict[str, Any], str, str]] = {
    "words at most": ({"type": "length", "unit": "words", "max": 3}, "one two-fold three", "one two three four"),
    "words at least": ({"type": "length", "unit": "words", "min": 3}, "it's so good", "it's good"),
    "characters": ({"type": "length", "unit": "characters", "max": 4}, " four \n", "fiver"),
    "sentences": ({"type": "length", "unit": "sentences", "min": 2, "max": 2}, "One. Is it 3.14?", "One, 3.14."),
    "lines": ({"type": "length", "unit": "lines", "min": 2, "max": 2}, "a\n\nb", "a\nb\nc"),
    "paragraphs": ({"type": "length", "unit": "paragraphs", "min": 2}, "a\n\nb", "a\nb"),
    "keywords": ({"type": "keywords", "words": ["steel", "hot iron"]}, "Hot iron, then STEEL.", "hot irons and steel"),
    "some keywords": ({"type": "keywords", "words": ["a1", "b1", "c1"], "atLeast": 2}, "a1 c1", "a1 a1"),
    "keyword count": ({"type": "keywordCount", "word": "ore", "min": 2, "max": 2}, "Ore, ore; more", "ore"),
    "forbidden": ({"type": "forbidden", "words": ["red"]}, "a hundred", "Red."),
    "json": ({"type": "json", "keys": ["a"]}, '```json\n{"a": 1}\n```', '{"b": 1}'),
    "json alone": ({"type": "json"}, "[1, 2]", 'Here: {"a": 1}'),
    "json without NaN": ({"type": "json"}, '{"a": null}', '{"a": NaN}'),
    "upper case": ({"type": "case", "case": "upper"}, "ALL 3 OF THEM", "ALL of THEM"),
    "lower case": ({"type": "case", "case": "lower"}, "all 3", "All 3"),
    "title case": ({"type": "case", "case": "title"}, "A Steel Rod", "A steel Rod"),
    "bullets": ({"type": "bullets", "min": 2, "max": 2}, "- a\n* b", "- a\n-b\n-- c"),
    "numbers": ({"type": "bullets", "style": "numbers", "min": 2}, "1. a\n2) b", "- a\n- b"),
    "start": ({"type": "startsWith", "text": "Yes,"}, "yes, it does", "Oh yes, it does"),
    "ending": ({"type": "endsWith", "text": "Over."}, "Done. OVER.\n", "Over and out"),
    "script": ({"type": "charset", "script": "cyrillic"}, "Сталь 7", "Сталь steel"),
    "chinese": ({"type": "charset", "script": "cjk"}, "颜色。", "红 red"),
    "ascii": ({"type": "charset", "script": "ascii"}, "plain", "naïve"),
    "german": ({"type": "language", "language": "de"}, "Der Stahl ist nicht hart und die Form.", "The steel is hard."),
    "dutch": ({"type": "language", "language": "nl"}, "Het staal is niet van de fabriek.", "Der Stahl ist zu hart."),
    "options": ({"type": "oneOf", "options": ["yes", "no"]}, "Yes.", "Yes and no"),
    "pattern": ({"type": "matches", "pattern": r"^\d+ kg$"}, "12 kg", "12 kgs"),
}  # fmt: skip


@pytest.mark.parametrize(("constraint", "right", "wrong"), CONSTRAINTS.values(), ids=CONSTRAINTS)
def test_a_constraint_tells_right_from_wrong(constraint: dict[str, Any], right: str, wrong: str) -> None:
    constraints.check([constraint])
    assert constraints.satisfied([constraint], right) == [True]
    assert constraints.satisfied([constraint], wrong) == [False]


def test_every_type_of_constraint_has_a_case() -> None:
    assert {constraint["type"] for constraint, _, _ in CONSTRAINTS.values()} == set(constraints.TYPES)


def test_an_empty_answer_satisfies_nothing_not_even_a_prohibition() -> None:
    asked = [{"type": "forbidden", "words": ["red"]}, {"type": "length", "unit": "words", "max": 5}]
    assert constraints.satisfied(asked, " \n") == [False, False]


@pytest.mark.parametrize(
    ("bad", "words"),
    [
        ([], "1 to 16"),
        ([{"type": "rhyme"}], "type 'rhyme': expected one of length"),
        ([{"type": "length", "unit": "words"}], "needs 'min' or 'max'"),
        ([{"type": "length", "unit": "miles", "max": 1}], "'unit' is 'miles'"),
        ([{"type": "keywords"}], "needs the field 'words'"),
        ([{"type": "json"}, {"type": "json", "key": "a"}], "constraint 2: json has no field 'key'"),
        ([{"type": "matches", "pattern": "("}], "'pattern' is '('"),
        (["short"], "expected an object with a 'type'"),
    ],
    ids=str,
)
def test_a_bad_constraint_is_named(bad: Any, words: str) -> None:
    with pytest.raises(ValueError, match=r"field 'constraints'") as error:
        constraints.check(bad)
    assert words in str(error.value)


TOOL = {"name": "book", "arguments": {"room": 7, "day": "Monday"}}
RELATION = {"kind": "relation", "pattern": r"(\w+) is (soft|hard)", "rows": [["tin", "soft"], ["steel", "hard"]]}
VERDICTS: dict[str, tuple[dict[str, Any], str, float]] = {
    "an answer": ({"answers": ["Amber"]}, " amber.\nThe colour of", 1),
    "another answer": ({"answers": ["amber"]}, "amber and blue", 0),
    "an answer as a number": ({"answer": "12"}, "12", 1),
    "an answer within": ({"verifier": {"kind": "contains", "answers": ["amber"]}}, "It is amber, I say", 1),
    "an answer within a word": ({"verifier": {"kind": "contains", "answers": ["amber"]}}, "a chamber", 0),
    "json": ({"answer": {"a": 1, "b": ["x", "y"]}}, 'So: {"b": ["X", "y"], "a": 1.0} done', 1),
    "half of the json": ({"answer": {"a": 1, "b": 2}}, '{"a": 1, "b": 3}', 0.5),
    "a field too many": ({"answer": {"a": 1}}, '{"a": 1, "b": 3}', 0.5),
    "true is not one": ({"answer": {"a": 1}}, '{"a": true}', 0),
    "broken json": ({"answer": {"a": 1}}, '{"a": 1', 0),
    "json after a brace": ({"answer": {"a": 1}}, 'set {x}: {"a": 1}', 1),
    "a call": ({"tool": TOOL}, '{"name": "book", "arguments": {"room": 7, "day": "monday"}}', 1),
    "a call in a function": ({"tool": TOOL}, '{"function": {"name": "book", "arguments": "{\\"room\\": 7}"}}', 0.5),
    "a call of another tool": ({"tool": TOOL}, '{"name": "cancel", "arguments": {"room": 7, "day": "Monday"}}', 0),
    "a call with an argument too many": (
        {"tool": TOOL}, '{"name": "book", "arguments": {"room": 7, "day": "Monday", "x": 1}}', 2 / 3,
    ),
    "half of the constraints": (
        {"constraints": [{"type": "json"}, {"type": "case", "case": "lower"}]}, "no json", 0.5,
    ),
    "true claims": ({"verifier": RELATION}, "Tin is soft; steel is hard.", 1),
    "a false claim among true ones": ({"verifier": RELATION}, "Tin is soft; tin is hard.", 0),
    "no claim": ({"verifier": RELATION}, "Tin.", 0),
    "too few claims": ({"verifier": {**RELATION, "atLeast": 2}}, "Tin is soft. Tin is soft.", 0),
    "all of two": ({"verifier": {"kind": "all", "verifiers": [RELATION, {"kind": "matches", "pattern": "x"}]}}, "x", 0),
    "not": ({"verifier": {"kind": "not", "verifier": {"kind": "contains", "answers": ["sorry"]}}}, "Sorry, no.", 0),
}  # fmt: skip


@pytest.mark.parametrize(("row", "output", "score"), VERDICTS.values(), ids=VERDICTS)
def test_the_reward_of_an_output_is_what_its_row_asks(row: dict[str, Any], output: str, score: float) -> None:
    assert verifiers.reward(row, output) == pytest.approx(score)


@pytest.mark.parametrize(
    ("row", "words"),
    [
        ({}, "no field 'verifier'"),
        ({"verifier": {"kind": "judge"}}, "expected one of exactMatch"),
        ({"verifier": "exact"}, "expected an object"),
        ({"answers": []}, "expected a list of texts"),
        ({"answers": [" "]}, "expected a list of texts"),
        ({"answer": {}}, "not empty"),
        ({"tool": {"name": "f"}}, "'arguments': object"),
        ({"verifier": {**RELATION, "rows": [["tin"]]}}, "lists of 2 texts"),
        ({"verifier": {"kind": "all", "verifiers": [{"kind": "matches", "pattern": "("}]}}, "regular expression"),
    ],
    ids=str,
)
def test_a_bad_verifier_is_named(row: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError) as error:
        verifiers.verifier_of(row)
    assert words in str(error.value)


# --- reasoning-gym ----------------------------------------------------------------------------------------------

GENERATORS = ["chain_sum", "spell_backward", "countdown"]


def test_generated_items_take_turns_and_are_the_same_for_the_same_seed() -> None:
    settings = {"chain_sum": {"max_terms": 3, "max_digits": 2}}
    made, again, other = (list(gym.items(GENERATORS, settings, seed, 30)) for seed in (5, 5, 500))
    assert made == again
    assert not {item["prompt"] for item in made} & {item["prompt"] for item in other}
    assert [item["generator"] for item in made[:4]] == [*GENERATORS, "chain_sum"]
    assert len({item["prompt"] for item in made}) == 30


def test_the_verifier_of_a_generated_item_takes_its_answer_and_no_other() -> None:
    for item in gym.items(GENERATORS, {}, 1, 6):
        assert verifiers.reward(item, f"I think <answer>{item['answer']}</answer>") == 1
        assert verifiers.reward(item, "nothing") < 0.5


@pytest.mark.parametrize(
    ("answer", "expected"),
    [("(3 + 4) * 2", False), ("sqrt(2)*x**2", False), ("__import__('os')", True), ("x.real", True), ("open(1)", True)],
)
def test_an_answer_that_could_run_is_refused_before_it_is_evaluated(answer: str, expected: bool) -> None:
    assert verifiers.is_code(answer) is expected
    item = next(gym.items(["countdown"], {}, 1, 1))
    if expected:
        assert verifiers.verify(item["verifier"], answer).detail == {"refused": "no plain expression"}


@pytest.mark.parametrize(
    ("name", "settings", "words"),
    [
        ("no_such", {}, "has no generator 'no_such'"),
        ("chain_sum", {"min_terms": 5, "max_terms": 2}, "generator chain_sum"),
        ("chain_sum", {"terms": 5}, "unexpected keyword"),
        ("propositional_logic", {}, "can not be used"),
    ],
)
def test_a_generator_that_can_not_be_used_is_named(name: str, settings: dict[str, float], words: str) -> None:
    with pytest.raises(ValueError) as error:
        list(gym.items([name], {name: settings}, 1, 2))
    assert words in str(error.value)


def test_a_generator_that_repeats_itself_is_named() -> None:
    with pytest.raises(ValueError, match=r"generator chain_sum has only \d+ different items"):
        few = {"min_terms": 2, "max_terms": 2, "min_digits": 1, "max_digits": 1}
        list(gym.items(["chain_sum"], {"chain_sum": few}, 1, 2000))
