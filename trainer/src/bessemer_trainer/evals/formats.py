"""What an item of each task must have. One bad item fails a bank, with one clear sentence. Pure; no torch.

docs/evaluation.md describes the same formats in words; keep the two together.
"""

from collections.abc import Callable, Mapping
from typing import Any

from bessemer_api.v1alpha1.tasks import TaskName
from bessemer_trainer.evals import constraints, verifiers
from bessemer_trainer.evals.prompts import check_messages
from bessemer_trainer.records import require_encodable

Fields = Mapping[str, Any]


def check_item(fields: Fields, task: TaskName | None) -> None:
    """ValueError says which field is wrong and what was expected. Without a task the item tells which of two it is."""
    text(fields, "id")
    if task is None:
        if "choices" not in fields and "text" not in fields:
            raise ValueError("neither 'choices' (multipleChoice: id, prompt, choices, answer) nor 'text' (bitsPerByte)")
        task = "multipleChoice" if "choices" in fields else "bitsPerByte"
    _CHECKS[task](fields)
    require_all_encodable(fields)


def text(fields: Fields, name: str) -> None:
    """ValueError unless the field is a text that is not blank."""
    if not isinstance(fields.get(name), str) or not fields[name].strip():
        raise ValueError(f"field {name!r}: expected a string that is not blank, found {fields.get(name)!r:.80}")


def require_all_encodable(value: object, name: str = "") -> None:
    """ValueError when a text anywhere in it holds half a surrogate pair."""
    if isinstance(value, str):
        require_encodable(value, name)
    elif isinstance(value, Mapping):
        for key, part in value.items():
            require_all_encodable(part, name or str(key))
    elif isinstance(value, list):
        for part in value:
            require_all_encodable(part, name)


def _prompt(fields: Fields) -> None:
    if isinstance(fields.get("prompt"), list):
        check_messages(fields["prompt"])
    else:
        text(fields, "prompt")
    stop = fields.get("stop", [])
    if not isinstance(stop, list) or not all(isinstance(s, str) and s for s in stop):
        raise ValueError(f"field 'stop': expected a list of texts at which an answer is cut, found {stop!r:.80}")
    if "toolResult" in fields:
        text(fields, "toolResult")


def _choices(fields: Fields) -> None:
    _prompt(fields)
    choices, answer = fields.get("choices"), fields.get("answer")
    if not isinstance(choices, list) or len(choices) < 2:
        raise ValueError("field 'choices': expected a list of at least 2 strings")
    if not all(isinstance(choice, str) and choice.strip() for choice in choices):
        raise ValueError("field 'choices': expected strings that are not blank")
    if len(set(choices)) < len(choices):
        raise ValueError("field 'choices': two choices are equal")
    if not isinstance(answer, int) or isinstance(answer, bool) or not 0 <= answer < len(choices):
        raise ValueError(f"field 'answer': expected an index from 0 to {len(choices) - 1}, found {answer!r:.80}")


def _answers(fields: Fields) -> None:
    _prompt(fields)
    verifiers.check({"kind": "exactMatch", "answers": fields.get("answers")})


def _json(fields: Fields) -> None:
    _prompt(fields)
    verifiers.check({"kind": "json", "answer": fields.get("answer")})


def _tool(fields: Fields) -> None:
    _prompt(fields)
    verifiers.check({"kind": "toolCall", "tool": fields.get("tool")})


def _constraints(fields: Fields) -> None:
    _prompt(fields)
    constraints.check(fields.get("constraints"))


def _verified(fields: Fields) -> None:
    _prompt(fields)
    verifiers.verifier_of(fields)


def _brief(fields: Fields) -> None:
    _prompt(fields)
    if "constraints" not in fields and "verifier" not in fields:
        raise ValueError("neither 'constraints' nor a 'verifier': nothing says what makes an answer valid")
    if "constraints" in fields:
        constraints.check(fields["constraints"])
    if "verifier" in fields:
        verifiers.check(fields["verifier"])


def _turns(fields: Fields) -> None:
    turns = fields.get("turns")
    if not isinstance(turns, list) or not turns or not all(isinstance(t, str) and t.strip() for t in turns):
        raise ValueError(f"field 'turns': expected a list of what the user says, turn by turn, found {turns!r:.80}")
    if "system" in fields:
        text(fields, "system")


def _handoff(fields: Fields) -> None:
    _turns(fields)
    if len(fields["turns"]) < 2:
        raise ValueError("field 'turns': a hand-off has at least 2: the facts, and the question for them")
    if not isinstance(fields.get("payload"), dict) or not fields["payload"]:
        raise ValueError(f"field 'payload': expected a JSON object that is not empty, found {fields.get('payload')!r}")


def _session(fields: Fields) -> None:
    _turns(fields)
    price = fields.get("price", {})
    is_price = isinstance(price, dict) and price.keys() <= {"input", "output"}
    if not is_price or not all(isinstance(v, int | float) and 0 < v < 1e9 for v in price.values()):
        raise ValueError(f"field 'price': expected {{'input': number, 'output': number}} above 0, found {price!r:.80}")


def _harness(fields: Fields) -> None:
    if not isinstance(fields.get("doc"), dict):
        raise ValueError("field 'doc': expected the document of lm-evaluation-harness; make the bank with lmEval.task")


_CHECKS: Mapping[TaskName, Callable[[Fields], None]] = {
    "multipleChoice": _choices,
    "bitsPerByte": lambda fields: text(fields, "text"),
    "exactMatch": _answers,
    "jsonAnswer": _json,
    "reasoningGym": _verified,
    "verifiableConstraints": _constraints,
    "distinctValidNovel": _brief,
    "toolCall": _tool,
    "handoff": _handoff,
    "verified": _verified,
    "firstTokenLatency": _prompt,
    "sessionCost": _session,
    "lmEval": _harness,
}


def item_text(fields: Fields) -> str:
    """What must not be in training data: a text, or what is asked with its right answer.

    An item whose right answers can not be written down (constraints, a verifier) stands for its prompt.
    """
    if "text" in fields:
        return str(fields["text"])
    if "turns" in fields:
        return " ".join(map(str, fields["turns"]))
    asked = fields["prompt"]
    if not isinstance(asked, str):
        asked = " ".join(str(message["content"]) for message in asked)
    return f"{asked} {_right_answer(fields)}".rstrip()


def _right_answer(fields: Fields) -> str:
    if "choices" in fields:
        return str(fields["choices"][fields["answer"]])
    if fields.get("answers"):
        return str(fields["answers"][0])
    answer = fields.get("answer", "")
    return " ".join(map(str, answer.values())) if isinstance(answer, dict) else str(answer)
