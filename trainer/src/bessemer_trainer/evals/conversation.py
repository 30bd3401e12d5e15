"""Conversations: the model answers turn by turn, and reads its own answers. For `handoff` and `sessionCost`."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from bessemer_api.v1alpha1.evaluation import Axis
from bessemer_trainer.evals.answering import Answer, ask
from bessemer_trainer.evals.items import Item
from bessemer_trainer.evals.prompts import turns_of
from bessemer_trainer.evals.subject import Subject


@dataclass(frozen=True, slots=True)
class Dialogue:
    """What was said, as messages, the model's answers, and how many tokens it read before each of them."""

    messages: list[dict[str, str]]
    answers: list[Answer] = field(default_factory=list)
    read: list[int] = field(default_factory=list)


def converse(subject: Subject, items: Sequence[Item], axis: Axis, progress: Callable[[int], None]) -> list[Dialogue]:
    """All turns of all items. A prompt that leaves less room than maxNewTokens gets what room there is."""
    turns = [turns_of(item, axis) for item in items]
    system = [item.fields.get("system") for item in items]
    found = [Dialogue([{"role": "system", "content": str(text)}] if text else []) for text in system]
    most = max(map(len, turns))
    for number in range(most):
        going = [i for i, said in enumerate(turns) if number < len(said)]
        for i in going:
            found[i].messages.append({"role": "user", "content": turns[i][number]})
        asked = [(items[i], list(found[i].messages)) for i in going]
        for i, (item, messages), (answer,) in zip(
            going, asked, ask(subject, asked, axis, _ignore, cap=True), strict=True
        ):
            found[i].read.append(len(subject.prompt_tokens(messages, axis, item)))
            found[i].answers.append(answer)
            found[i].messages.append({"role": "assistant", "content": answer.text})
        progress((number + 1) * len(items) // most)
    return found


def _ignore(_: int) -> None:
    """A turn's own progress is told by turns."""
