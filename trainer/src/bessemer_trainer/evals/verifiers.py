r"""Verifiers: does an output meet what an item asks? For evaluation, regression cases and rewards of training.

A verifier is a document with a `kind`; it stands in the field `verifier` of an item or of a row of prompts:

    {"kind": "exactMatch", "answers": ["amber"]}                    the output, or its first line, is one of them
    {"kind": "contains", "answers": ["amber"]}                      one of them stands in it, as whole words
    {"kind": "json", "answer": {"colour": "amber"}}                 its first JSON object; score: share of right fields
    {"kind": "toolCall", "tool": {"name": "f", "arguments": {}}}    score: share of right arguments, 0 for another tool
    {"kind": "constraints", "constraints": [{"type": "json"}]}      score: share that it satisfies
    {"kind": "relation", "pattern": "(\w+) is (\w+)", "rows": [["tin", "soft"]], "atLeast": 1}
    {"kind": "matches", "pattern": "^[0-9]+$"}
    {"kind": "reasoningGym", "generator": "chain_sum", "entry": {"question", "answer", "metadata"}}
    {"kind": "all", "verifiers": [...]}                             score: the smallest
    {"kind": "not", "verifier": {...}}                              score: 1 unless that one is fully met

Every score is from 0 to 1, and 1 means that all is met. Nothing here knows a model, a tokenizer or a file. Scores are
deterministic. Outputs are untrusted text: nothing in them is run.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

from bessemer_trainer.evals import constraints
from bessemer_trainer.evals.answers import contains_one, equals_one, find_json, share_of_fields

Verifier = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a verifier found: `score` from 0 to 1, and details for the stored sample."""

    score: float
    detail: Mapping[str, Any] = field(default_factory=dict)

    @property
    def is_met(self) -> bool:
        """Whether everything that was asked for is there."""
        return self.score >= 1.0


def verify(verifier: Verifier, output: str) -> Verdict:
    """The verdict on an output. Raises ValueError for a verifier that `check` would refuse."""
    return _KINDS[_kind(verifier)].verify(verifier, output)


def check(verifier: object) -> None:
    """ValueError that says what is wrong with a verifier, and what was expected."""
    if not isinstance(verifier, dict):
        raise ValueError(f"field 'verifier': expected an object with a 'kind', found {verifier!r:.80}")
    _KINDS[_kind(verifier)].check(verifier)


def reward(row: Mapping[str, Any], output: str) -> float:
    """The score of an output to a row of prompts (see `verifier_of`): the reward of training by verifiers."""
    return verify(verifier_of(row), output).score


def verifier_of(row: Mapping[str, Any]) -> Verifier:
    """The verifier of an item or row: its field `verifier`, or what its other fields stand for.

    `constraints` -> constraints; `tool` -> toolCall; `answers` -> exactMatch; `answer` -> json for an object, else
    exactMatch. Raises ValueError where there is none of them.
    """
    if "verifier" in row:
        check(row["verifier"])
        return row["verifier"]  # type: ignore[no-any-return]  # check has seen that it is an object
    found: dict[str, Any] | None = None
    if "constraints" in row:
        found = {"kind": "constraints", "constraints": row["constraints"]}
    elif "tool" in row:
        found = {"kind": "toolCall", "tool": row["tool"]}
    elif isinstance(row.get("answer"), dict):
        found = {"kind": "json", "answer": row["answer"]}
    elif "answers" in row or "answer" in row:
        found = {"kind": "exactMatch", "answers": row.get("answers", [row.get("answer")])}
    if found is None:
        raise ValueError("no field 'verifier', and none of 'constraints', 'tool', 'answers' and 'answer'")
    check(found)
    return found


def _kind(verifier: Verifier) -> str:
    kind = verifier.get("kind")
    if kind not in _KINDS:
        raise ValueError(f"verifier of kind {kind!r}: expected one of {', '.join(_KINDS)}")
    return str(kind)


# --- short answers ----------------------------------------------------------------------------------------------


def _check_answers(verifier: Verifier) -> None:
    answers = verifier.get("answers")
    is_list = isinstance(answers, list) and bool(answers)
    if not is_list or not all(isinstance(a, str) and a.strip() for a in answers or []):
        raise ValueError(f"field 'answers': expected a list of texts that are not blank, found {answers!r:.80}")


def _exact(verifier: Verifier, output: str) -> Verdict:
    return Verdict(float(equals_one(output, verifier["answers"])))


def _contains(verifier: Verifier, output: str) -> Verdict:
    return Verdict(float(contains_one(output, verifier["answers"])))


# --- JSON and tools ---------------------------------------------------------------------------------------------


def _check_json(verifier: Verifier) -> None:
    if not isinstance(verifier.get("answer"), dict) or not verifier["answer"]:
        raise ValueError(f"field 'answer': expected a JSON object that is not empty, found {verifier.get('answer')!r}")


def _json(verifier: Verifier, output: str) -> Verdict:
    found = find_json(output)
    if found is None:
        return Verdict(0.0, {"validJson": False})
    return Verdict(share_of_fields(verifier["answer"], found), {"validJson": True})


def _check_tool(verifier: Verifier) -> None:
    tool = verifier.get("tool")
    is_call = isinstance(tool, dict) and isinstance(tool.get("name"), str) and bool(tool["name"])
    if not is_call or not isinstance((tool or {}).get("arguments"), dict):
        raise ValueError(f"field 'tool': expected {{'name': text, 'arguments': object}}, found {tool!r:.80}")


def _tool(verifier: Verifier, output: str) -> Verdict:
    call = find_json(output)
    if call is None:
        return Verdict(0.0, {"validJson": False, "rightTool": False})
    inner = call["function"] if isinstance(call.get("function"), dict) else call
    arguments = inner.get("arguments")
    if isinstance(arguments, str):  # some formats write the arguments as JSON inside a text
        arguments = find_json(arguments)
    is_right = inner.get("name") == verifier["tool"]["name"] and isinstance(arguments, dict)
    score = share_of_fields(verifier["tool"]["arguments"], arguments) if is_right and arguments is not None else 0.0
    return Verdict(score, {"validJson": True, "rightTool": inner.get("name") == verifier["tool"]["name"]})


# --- constraints and domains ------------------------------------------------------------------------------------


def _check_constraints(verifier: Verifier) -> None:
    constraints.check(verifier.get("constraints"))


def _constraints(verifier: Verifier, output: str) -> Verdict:
    met = constraints.satisfied(verifier["constraints"], output)
    return Verdict(sum(met) / len(met), {"satisfied": met})


def _check_pattern(verifier: Verifier) -> None:
    try:
        re.compile(verifier["pattern"])
    except (KeyError, TypeError, re.error) as error:
        raise ValueError(f"field 'pattern': expected a regular expression ({error})") from None


def _matches(verifier: Verifier, output: str) -> Verdict:
    return Verdict(float(re.search(verifier["pattern"], output) is not None))


def _check_relation(verifier: Verifier) -> None:
    _check_pattern(verifier)
    rows, groups = verifier.get("rows"), re.compile(verifier["pattern"]).groups
    if not isinstance(rows, list) or not rows or not groups:
        raise ValueError("a relation needs a 'pattern' with groups and 'rows', a list of lists of texts")
    if any(not isinstance(row, list) or len(row) != groups or not all(isinstance(x, str) for x in row) for row in rows):
        raise ValueError(f"field 'rows': expected lists of {groups} texts, one for each group of the pattern")


def _relation(verifier: Verifier, output: str) -> Verdict:
    """What the pattern finds must be true: each finding is a row of the table, and there are enough of them."""
    rows = {tuple(value.casefold() for value in row) for row in verifier["rows"]}
    found = [tuple((v or "").casefold() for v in m.groups()) for m in re.finditer(verifier["pattern"], output)]
    true = len({finding for finding in found if finding in rows})
    enough = true >= verifier.get("atLeast", 1) and all(finding in rows for finding in found)
    return Verdict(float(enough), {"claims": len(found), "true": true})


# --- reasoning-gym ----------------------------------------------------------------------------------------------

_EVALUATING = frozenset(
    [
        "binary_matrix",
        "countdown",
        "intermediate_integration",
        "n_queens",
        "number_sorting",
        "polynomial_multiplication",
        "puzzle24",
        "simple_integration",
        "spiral_matrix",
        "string_insertion",
    ]
)
"""Generators whose verifiers evaluate the answer as an expression: they see only what can be nothing but one."""

_CODE = re.compile(r"__|\.\s*[A-Za-z_]|\b(?:import|lambda|exec|eval|open|for|while)\b")
_CALL = re.compile(r"([A-Za-z_]\w*)\s*\(")
_MATHEMATICS = frozenset(
    ["sin", "cos", "tan", "exp", "log", "ln", "sqrt", "abs", "asin", "acos", "atan", "sinh", "cosh"]
)
_TAGGED = re.compile(r"<answer>\s*(.*?)\s*</answer>", re.DOTALL)


def _check_gym(verifier: Verifier) -> None:
    entry = verifier.get("entry")
    if not isinstance(verifier.get("generator"), str) or not isinstance(entry, dict) or "metadata" not in entry:
        raise ValueError("a verifier of reasoningGym needs 'generator' and 'entry' (question, answer, metadata)")


def _gym(verifier: Verifier, output: str) -> Verdict:
    tagged = _TAGGED.findall(output)
    answer = tagged[-1] if tagged else output.strip()
    if verifier["generator"] in _EVALUATING and is_code(answer):
        return Verdict(0.0, {"refused": "no plain expression"})
    score = generator(verifier["generator"]).score_answer(answer, dict(verifier["entry"]))
    return Verdict(min(1.0, max(0.0, float(score))))


def is_code(answer: str) -> bool:
    """Whether an answer is more than an expression: attributes, keywords, calls of anything but mathematics."""
    calls = {name.casefold() for name in _CALL.findall(answer)}
    return len(answer) > 2000 or _CODE.search(answer) is not None or not calls <= _MATHEMATICS


@lru_cache(maxsize=128)
def generator(name: str) -> Any:  # noqa: ANN401 - the package is untyped
    """The generator's verifier. Raises ValueError for a name that the package does not have."""
    from bessemer_trainer.evals.gym import create  # noqa: PLC0415 - seconds of import, for its users alone

    return create(name, seed=0, size=1, settings={})


# --- verifiers of verifiers -------------------------------------------------------------------------------------


def _check_all(verifier: Verifier) -> None:
    inner = verifier.get("verifiers")
    if not isinstance(inner, list) or not 1 <= len(inner) <= 16:
        raise ValueError("field 'verifiers': expected a list of 1 to 16 verifiers")
    for one in inner:
        check(one)


def _all(verifier: Verifier, output: str) -> Verdict:
    verdicts = [verify(one, output) for one in verifier["verifiers"]]
    return Verdict(min(v.score for v in verdicts), {"scores": [v.score for v in verdicts]})


def _check_not(verifier: Verifier) -> None:
    check(verifier.get("verifier"))


def _not(verifier: Verifier, output: str) -> Verdict:
    return Verdict(float(not verify(verifier["verifier"], output).is_met))


@dataclass(frozen=True, slots=True)
class _Kind:
    verify: Callable[[Verifier, str], Verdict]
    check: Callable[[Verifier], None]


_KINDS: Mapping[str, _Kind] = {
    "exactMatch": _Kind(_exact, _check_answers),
    "contains": _Kind(_contains, _check_answers),
    "json": _Kind(_json, _check_json),
    "toolCall": _Kind(_tool, _check_tool),
    "constraints": _Kind(_constraints, _check_constraints),
    "relation": _Kind(_relation, _check_relation),
    "matches": _Kind(_matches, _check_pattern),
    "reasoningGym": _Kind(_gym, _check_gym),
    "all": _Kind(_all, _check_all),
    "not": _Kind(_not, _check_not),
}
KINDS = tuple(_KINDS)
