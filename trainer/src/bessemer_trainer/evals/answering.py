"""Tasks that are answered by generating: ask, verify, score. One path for all of them; each task says what it asks.

A stored sample keeps what was said (`outputs`), whether it ended by itself (`ended`) and what the verifier found, so
that a person can check any score by reading.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from bessemer_api.v1alpha1.evaluation import Axis
from bessemer_trainer.evals.common import Sample, longest_input, sample_of
from bessemer_trainer.evals.generate import Decoding, Request, generate
from bessemer_trainer.evals.items import Item
from bessemer_trainer.evals.prompts import prompt_of, stop_of
from bessemer_trainer.evals.subject import Prompt, Subject
from bessemer_trainer.evals.verifiers import Verdict, verify

KEPT_CHARACTERS = 2000
"""Of an output in a stored sample; scores are of the whole."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What was said, cut at the item's `stop`; how many tokens; whether an end-of-text token came."""

    text: str
    tokens: int
    ended: bool


Ask = tuple[Item, Prompt]
Judge = Callable[[Item, str], Verdict]
Score = Callable[[Verdict, Answer], float]


def measure_by(
    subject: Subject,
    items: Sequence[Item],
    axis: Axis,
    progress: Callable[[int], None],
    rules: tuple[Judge, Score],
) -> list[Sample]:
    """Samples of items that a verifier judges; the score of several answers is the mean of their scores."""
    judge, score = rules
    answers = ask(subject, [(item, prompt_of(item, axis)) for item in items], axis, progress)
    return [_sample(item, axis, given, [judge(item, a.text) for a in given], score)
            for item, given in zip(items, answers, strict=True)]  # fmt: skip


def _sample(item: Item, axis: Axis, answers: Sequence[Answer], verdicts: Sequence[Verdict], score: Score) -> Sample:
    scores = [score(verdict, answer) for verdict, answer in zip(verdicts, answers, strict=True)]
    detail: dict[str, Any] = {"verdicts": [{"score": v.score, **v.detail} for v in verdicts]}
    if len(scores) > 1:
        detail |= {"scores": scores, "best": max(scores)}
    return sample_of(item, axis, sum(scores) / len(scores), told(answers) | detail)


def told(answers: Sequence[Answer]) -> dict[str, Any]:
    """What a sample keeps of its answers."""
    return {
        "outputs": [answer.text[:KEPT_CHARACTERS] for answer in answers],
        "ended": [answer.ended for answer in answers],
        "tokens": [answer.tokens for answer in answers],
    }


def by_verifier(verifier_of: Callable[[Mapping[str, Any]], Mapping[str, Any]]) -> Judge:
    """Judge by the verifier that `verifier_of` reads from the fields of an item. PermanentError(BadItem) names it."""

    def judge(item: Item, output: str) -> Verdict:
        try:
            return verify(verifier_of(item.fields), output)
        except ValueError as error:
            raise item.error(str(error), "see docs/evaluation.md for the fields of an item") from None

    return judge


def ask(
    subject: Subject, questions: Sequence[Ask], axis: Axis, progress: Callable[[int], None], *, cap: bool = False
) -> list[list[Answer]]:
    """Answers to each question. `cap`: a prompt that leaves less room than maxNewTokens gets what room there is."""
    requests = [_request(subject, item, prompt, axis, cap) for item, prompt in questions]
    decoding = Decoding(subject.ends_of(axis), axis.heat, subject.seed, subject.decode)
    outputs = generate(subject.model, requests, decoding, progress)
    return [
        [_answer(subject, output.tokens, output.ended, request.stop) for output in found]
        for request, found in zip(requests, outputs, strict=True)
    ]


def _request(subject: Subject, item: Item, prompt: Prompt, axis: Axis, cap: bool) -> Request:
    tokens = subject.prompt_tokens(prompt, axis, item)
    room = longest_input(subject.model) - len(tokens)
    needed = 1 if cap else axis.answer_tokens
    if room < needed:
        raise item.error(
            f"its prompt has {len(tokens)} tokens and an answer may have {needed}, the model takes "
            f"{longest_input(subject.model)}",
            "shorten the prompt, or lower maxNewTokens of the axis",
        )
    return Request(item.id, tokens, min(axis.answer_tokens, room), axis.answers, stop_of(item))


def _answer(subject: Subject, tokens: Sequence[int], ended: bool, stop: Sequence[str]) -> Answer:
    text = subject.decode(tokens)
    places = [place for place in map(text.find, stop) if place >= 0]
    return Answer(text[: min(places)] if places else text, len(tokens) + ended, ended)
