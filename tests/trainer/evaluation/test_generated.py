"""Tasks that generate, on a model that was really taught to answer: it scores high, an untaught one does not."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from bessemer_api.v1alpha1.evaluation import Axis
from bessemer_trainer.errors import PermanentError
from bessemer_trainer.evals.answering import ask
from bessemer_trainer.evals.common import Sample
from bessemer_trainer.evals.generate import Decoding, Request, generate
from bessemer_trainer.evals.items import Item
from bessemer_trainer.evals.perturb import perturbed
from bessemer_trainer.evals.prompts import prompt_of
from bessemer_trainer.evals.subject import Subject
from bessemer_trainer.stages.evaluate import MEASURES
from tests.trainer.evaluation import taught as lessons
from tests.trainer.evaluation.taught import (
    BRIEF,
    CHAT,
    CHOICES,
    CLOZE,
    HANDOFFS,
    JSON,
    LISTS,
    NAMES,
    TOOLS,
    Taught,
    colour_of,
)  # fmt: skip


def axis(task: str, **fields: Any) -> Axis:
    return Axis.model_validate({"name": "axis", "task": task, **fields})


def items(documents: Sequence[dict[str, Any]]) -> list[Item]:
    return [Item(f"i{k}", document, "test") for k, document in enumerate(documents)]


def measured(subject: Subject, task: str, documents: Sequence[dict[str, Any]], **fields: Any) -> list[Sample]:
    return MEASURES[task](subject, items(documents), axis(task, **fields), lambda done: None)  # type: ignore[index]


def mean(samples: Sequence[Sample]) -> float:
    return sum(sample.score for sample in samples) / len(samples)


TASKS: dict[str, tuple[str, list[dict[str, Any]], dict[str, Any]]] = {
    "cloze": ("exactMatch", CLOZE, {}),
    "cloze in a chat": ("exactMatch", CHAT, {"prompt": "chat"}),
    "json": ("jsonAnswer", JSON, {"maxNewTokens": 64}),
    "tool calls": ("toolCall", TOOLS, {"maxNewTokens": 64, "metric": "call"}),
    "constraints": ("verifiableConstraints", LISTS, {"maxNewTokens": 40}),
    "hand-off": ("handoff", HANDOFFS, {"maxNewTokens": 40}),
    "log-likelihood": ("multipleChoice", CHOICES, {}),
}


@pytest.mark.parametrize(("task", "documents", "fields"), TASKS.values(), ids=TASKS)
def test_a_taught_model_scores_high_and_an_untaught_one_at_chance(
    taught: Taught, task: str, documents: list[dict[str, Any]], fields: dict[str, Any]
) -> None:
    assert mean(measured(taught.taught, task, documents, **fields)) >= 0.6
    assert mean(measured(taught.untaught, task, documents, **fields)) <= (0.5 if task == "multipleChoice" else 0.1)


def test_shuffled_gold_answers_give_chance(taught: Taught) -> None:
    wrong = [{**item, "answers": CLOZE[(k + 5) % len(CLOZE)]["answers"]} for k, item in enumerate(CLOZE)]
    assert mean(measured(taught.taught, "exactMatch", wrong)) <= 0.5


def test_what_a_model_knows_and_can_not_say_is_the_format_gap(taught: Taught) -> None:
    letters = measured(taught.taught, "multipleChoice", CHOICES, metric="letter")
    gaps = measured(taught.taught, "multipleChoice", CHOICES, metric="formatGap")
    known = mean(measured(taught.taught, "multipleChoice", CHOICES))
    assert mean(letters) <= 0.4, "it was never shown letters"
    assert mean(gaps) == pytest.approx(known - mean(letters))
    assert all("chance" not in sample.detail for sample in gaps)


def test_brier_and_margin_follow_what_the_model_knows(taught: Taught) -> None:
    for metric, better in (("brier", min), ("margin", max)):
        found = [mean(measured(s, "multipleChoice", CHOICES, metric=metric)) for s in (taught.taught, taught.untaught)]
        assert better(found) == found[0]
    uniform = [{**CHOICES[0], "choices": [" q", " q."]}]
    assert measured(taught.untaught, "multipleChoice", [{**uniform[0], "answer": 0}], metric="brier")[0].score < 2


# --- generation -------------------------------------------------------------------------------------------------


def requests(subject: Subject, samples: int) -> list[Request]:
    prompts = [f"{start} {name}{end}" for name in NAMES for start, end in (("List", ":"), ("The colour of", " is"))]
    return [Request(p, subject.encoder.encode(p), 24, samples) for p in [*prompts, "Design:"]]


@pytest.mark.parametrize("temperature", [0.0, 1.0], ids=["greedy", "sampled"])
def test_the_size_of_a_batch_changes_no_output(taught: Taught, temperature: float) -> None:
    subject = taught.taught
    decoding = Decoding(subject.ends, temperature, 3, subject.decode)
    wanted = requests(subject, 1 if temperature == 0 else 3)
    found = [
        generate(subject.model, wanted, decoding, lambda done: None, batch_tokens=size) for size in (1, 8 * 40, 10**6)
    ]
    assert found[0] == found[1] == found[2]


def test_samples_differ_from_each_other_and_follow_the_seed(taught: Taught) -> None:
    subject = taught.taught
    wanted = [Request("d", subject.encoder.encode("Design:"), 24, 8)]
    first, again, other = (
        generate(subject.model, wanted, Decoding(subject.ends, 1.0, seed), lambda done: None)[0] for seed in (1, 1, 2)
    )
    assert first == again != other
    assert len({output.tokens for output in first}) >= 4


def test_greedy_tokens_are_those_of_a_plain_loop(taught: Taught) -> None:
    import torch

    subject = taught.taught
    tokens = subject.encoder.encode("List " + NAMES[0] + ":")
    plain = list(tokens)
    for _ in range(24):
        with torch.no_grad():
            plain.append(int(subject.model(input_ids=torch.tensor([plain])).logits[0, -1].argmax()))
        if plain[-1] in subject.ends:
            break
    wanted = requests(subject, 1)
    found = generate(subject.model, wanted, Decoding(subject.ends), lambda done: None)[0][0]
    assert [*tokens, *found.tokens] == (plain[:-1] if found.ended else plain)
    assert found.ended == (plain[-1] in subject.ends)


def test_an_answer_that_was_cut_off_did_not_end(taught: Taught) -> None:
    whole = measured(taught.taught, "verifiableConstraints", LISTS, maxNewTokens=40, metric="validEos")
    cut = measured(taught.taught, "verifiableConstraints", LISTS, maxNewTokens=3, metric="validEos")
    assert (mean(whole) >= 0.9, mean(cut)) == (True, 0)
    assert all(sample.detail["tokens"] == [3] for sample in cut)


def test_an_answer_ends_at_the_stop_of_its_item(taught: Taught) -> None:
    stopped = items([{**item, "stop": ["\n- ", "End"]} for item in LISTS])
    short = axis("verified", maxNewTokens=40)
    found = ask(taught.taught, [(item, prompt_of(item, short)) for item in stopped], short, lambda done: None)
    assert all("- " not in answer.text and answer.tokens < 8 for (answer,) in found)


def test_a_prompt_that_leaves_no_room_is_an_error_that_names_the_item(taught: Taught) -> None:
    with pytest.raises(PermanentError, match=r"test: item i0: its prompt has \d+ tokens and an answer may have 32"):
        measured(taught.taught, "exactMatch", [{"prompt": "The colour of " * 40, "answers": ["x"]}])


# --- several answers --------------------------------------------------------------------------------------------


def test_designs_of_use_are_valid_novel_and_distinct(taught: Taught) -> None:
    (sample,) = measured(taught.taught, "distinctValidNovel", [BRIEF], maxNewTokens=24)
    assert sample.score == sum(sample.detail["counted"]) / 8 >= 0.25
    known = set(lessons.designs())
    for text, novel in zip(sample.detail["outputs"], sample.detail["novel"], strict=True):
        assert novel == (text.strip() not in known)
    assert 1 <= sample.detail["vendi"] <= 8
    (noise,) = measured(taught.untaught, "distinctValidNovel", [BRIEF], maxNewTokens=24)
    assert noise.score == 0, "noise is novel and distinct, but no design"


def test_a_brief_whose_answers_were_trained_on_scores_nothing(taught: Taught, tmp_path: Path) -> None:
    (sample,) = measured(taught.taught, "distinctValidNovel", [BRIEF], maxNewTokens=24)
    leak = tmp_path / "documents.jsonl"
    rows = [{"id": str(k), "text": f"Seen: {text}. And more."} for k, text in enumerate(sample.detail["outputs"])]
    leak.write_text("".join(json.dumps(row) + "\n" for row in rows))
    subject = taught.taught
    knowing = Subject(subject.model, subject.encoder, subject.folder, subject.seed, [(leak, "text")])
    (again,) = measured(knowing, "distinctValidNovel", [BRIEF], maxNewTokens=24)
    assert (again.detail["outputs"], again.score) == (sample.detail["outputs"], 0)


def test_the_score_of_several_answers_is_their_mean(taught: Taught) -> None:
    found = measured(taught.taught, "exactMatch", CLOZE[:3], samples=4, temperature=0.7)
    assert all(len(s.detail["scores"]) == 4 and s.score == sum(s.detail["scores"]) / 4 for s in found)


# --- damage, cost, latency --------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["asrNoise", "truncate", "toolTimeout"])
def test_damage_to_prompts_lowers_the_score_and_is_the_same_each_time(taught: Taught, kind: str) -> None:
    whole = mean(measured(taught.taught, "jsonAnswer", JSON, maxNewTokens=64))
    hurt, again = (measured(taught.taught, "jsonAnswer", JSON, maxNewTokens=64, perturb=[kind]) for _ in range(2))
    assert mean(hurt) < whole
    assert hurt == again


def test_damage_is_what_its_name_says() -> None:
    text = "Book room seven for four people on Monday, and tell the cook that two of them eat no meat at all."
    heard = perturbed(text, ["asrNoise"], "a")
    assert heard == heard.lower()
    assert not set(heard) & set(",.")
    assert heard != perturbed(text, ["asrNoise"], "b")
    cut = perturbed(text, ["truncate"], "a")
    assert text.startswith(cut)
    assert 0.6 <= len(cut.split()) / len(text.split()) <= 0.95
    item = Item("i", {"prompt": "When?", "toolResult": "Tuesday"}, "test")
    assert prompt_of(item, axis("exactMatch")) == "When?\nTuesday\n"
    assert "no result" in str(prompt_of(item, axis("exactMatch", perturb=["toolTimeout"])))


def test_the_cost_of_a_session_counts_what_was_read_and_written(taught: Taught) -> None:
    talk = {"turns": [f"Note {NAMES[0]} {colour_of(NAMES[0])}.", "Form?"]}
    plain, dear = measured(taught.taught, "sessionCost", [talk, {**talk, "price": {"input": 1, "output": 3}}])
    assert plain.score == plain.detail["read"] + plain.detail["written"]
    assert dear.score == plain.detail["read"] + 3 * plain.detail["written"]
    assert plain.detail["written"] == sum(plain.detail["tokens"])


def test_the_first_token_of_a_long_prompt_takes_longer(taught: Taught) -> None:
    prompts = [{"prompt": "a"}, {"prompt": "The colour of kalomi is amber. " * 8}]
    short, long = measured(taught.taught, "firstTokenLatency", prompts)
    assert short.score > 0
    assert min(short.detail["seconds"]) < min(long.detail["seconds"])
