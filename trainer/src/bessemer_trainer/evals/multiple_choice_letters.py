"""The other way to ask a multiple-choice question: the choices are listed, and the model writes the letter of one.

The difference to the log-likelihood of the choices is the format gap: what a model knows and can not say.
"""

import re
from collections.abc import Callable, Sequence

from bessemer_api.v1alpha1.evaluation import Axis
from bessemer_trainer.evals.answering import Answer, ask
from bessemer_trainer.evals.items import Item
from bessemer_trainer.evals.prompts import prompt_of
from bessemer_trainer.evals.subject import Prompt, Subject, plain_text

LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
_LETTER = re.compile(r"(?<![A-Za-z])([A-Z])(?![A-Za-z])")


def ask_for_letters(
    subject: Subject, items: Sequence[Item], axis: Axis, progress: Callable[[int], None]
) -> list[tuple[int | None, Answer]]:
    """The choice that each answer names (None: none of them), and the answer."""
    answers = ask(subject, [(item, listed(item, prompt_of(item, axis))) for item in items], axis, progress)
    return [
        (chosen_letter(answer.text, len(item.fields["choices"])), answer)
        for item, (answer,) in zip(items, answers, strict=True)
    ]


def listed(item: Item, prompt: Prompt) -> Prompt:
    """The prompt with its choices below it, each behind its letter, and what the answer begins with."""
    choices = item.fields["choices"]
    if len(choices) > len(LETTERS):
        raise item.error(f"it has {len(choices)} choices", f"letters are for {len(LETTERS)} at most")
    lines = [f"{letter}. {choice.strip()}" for letter, choice in zip(LETTERS, choices, strict=False)]
    if isinstance(prompt, str):
        return "\n".join([prompt, *lines, "Answer:"])
    *before, last = prompt
    return [*before, {**last, "content": "\n".join([plain_text(last["content"]), *lines, "Answer with one letter."])}]


def chosen_letter(text: str, choices: int) -> int | None:
    """The first capital letter that stands alone and names a choice."""
    found = (LETTERS.index(match[1]) for match in _LETTER.finditer(text))
    return next((letter for letter in found if letter < choices), None)
