"""Mixtures of examples, pairs and prompts: what is learned, token by token, and what can not be used."""

import itertools
import json
import random
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tokenizers import AddedToken, Tokenizer

from bessemer_api.v1alpha1.train import TokenizerTraining
from bessemer_trainer.chat import ChatTemplate, load_template
from bessemer_trainer.context import Outcome
from bessemer_trainer.errors import PermanentError
from bessemer_trainer.examples import RowReader
from bessemer_trainer.stages.tokenizer import END, save, train
from bessemer_trainer.store import open_store
from bessemer_trainer.token_cache import load_vocabulary
from tests.trainer.data.world import World, document

START, STOP = "<|im_start|>", "<|im_end|>"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tokenizer with the tokens of chatml."""
    dice = random.Random(3)
    texts = [document(dice) for _ in range(60)] + ["Question: What is it? Answer: no user assistant system\n"] * 20
    tokenizer = train(iter(texts), TokenizerTraining.model_validate({"vocabularySize": 600}))
    tokenizer.add_special_tokens([AddedToken(START, special=True), AddedToken(STOP, special=True)])
    folder = tmp_path_factory.mktemp("tokenizer")
    save(tokenizer, folder)
    return folder


def reader(folder: Path, name: str) -> RowReader:
    return RowReader(load_vocabulary(folder), load_template(name, folder))


def shown(folder: Path, tokens: list[int], targets: list[bool]) -> list[tuple[str, bool]]:
    """Runs of tokens as text, with whether they are learned."""
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    runs: list[tuple[list[int], bool]] = []
    for token, learned in zip(tokens, targets, strict=True):
        if not runs or runs[-1][1] != learned:
            runs.append(([], learned))
        runs[-1][0].append(token)
    return [(tokenizer.decode(ids, skip_special_tokens=False), learned) for ids, learned in runs]


def turns(*texts: str) -> list[dict[str, str]]:
    return [{"role": ("user", "assistant")[place % 2], "content": text} for place, text in enumerate(texts)]


TALK = {"messages": [{"role": "system", "content": "Be kind."}, *turns("Hi", "Hello", "Who?", "Me.")]}
ASKED = {"prompt": "What is it?", "completion": "A river"}
HEAD = f"{START}system\nBe kind.{STOP}\n{START}user\nHi{STOP}\n{START}assistant\n"
MIDDLE = f"\n{START}user\nWho?{STOP}\n{START}assistant\n"
ASKED_HEAD = f"{START}user\nWhat is it?{STOP}\n{START}assistant\n"
MASKS = [
    ("chatml", "completion", TALK, [(f"{HEAD}Hello{STOP}{MIDDLE}", False), (f"Me.{STOP}", True)]),
    (
        "chatml",
        "assistant",
        TALK,
        [(HEAD, False), (f"Hello{STOP}", True), (MIDDLE, False), (f"Me.{STOP}", True)],
    ),
    ("chatml", "all", TALK, [(START, False), (f"{HEAD[len(START) :]}Hello{STOP}{MIDDLE}Me.{STOP}", True)]),
    (
        "chatml",
        "completion",
        ASKED,
        [(f"{START}user\nWhat is it?{STOP}\n{START}assistant\n", False), (f"A river{STOP}", True)],
    ),
    ("roles", "completion", ASKED, [("Question: What is it?\nAnswer:", False), (f" A river{END}", True)]),
    (
        "roles",
        "assistant",
        TALK,
        [
            ("Be kind.\n\nQuestion: Hi\nAnswer:", False),
            (f" Hello{END}", True),
            ("Question: Who?\nAnswer:", False),
            (f" Me.{END}", True),
        ],
    ),
    ("none", "completion", ASKED, [("What is it?", False), (f"A river{END}", True)]),
    ("none", "completion", {"prompt": "It is", "completion": " so"}, [("It is", False), (f" so{END}", True)]),
    ("none", "assistant", TALK, [("Be kind.\nHi\n", False), ("Hello", True), ("\nWho?\n", False), (f"Me.{END}", True)]),
    (
        "chatml",
        "completion",
        {"prompt": turns("a", "b", "c"), "completion": turns("", "d", "e", "f")[1:]},
        [
            (f"{START}user\na{STOP}\n{START}assistant\nb{STOP}\n{START}user\nc{STOP}\n{START}assistant\n", False),
            (f"d{STOP}", True),
            (f"\n{START}user\ne{STOP}\n{START}assistant\n", False),
            (f"f{STOP}", True),
        ],
    ),
]


@pytest.mark.parametrize(("template", "loss_on", "row", "expected"), MASKS)
def test_exactly_the_answers_and_their_ends_are_learned(
    folder: Path, template: str, loss_on: Any, row: dict[str, Any], expected: list[tuple[str, bool]]
) -> None:
    kind: Any = "messages" if "messages" in row else "promptCompletion"
    example = reader(folder, template).example(row, kind, loss_on)
    assert shown(folder, example.tokens, example.targets) == expected


@pytest.mark.parametrize("loss_on", ["completion", "assistant", "all"])
def test_a_text_among_examples_is_learned_whole(folder: Path, loss_on: Any) -> None:
    example = reader(folder, "roles").example({"text": "A river."}, "text", loss_on)
    assert shown(folder, example.tokens[1:], example.targets[1:]) == [(" river." + END, True)]


@pytest.mark.parametrize("template", ["chatml", "roles"])
def test_messages_become_the_tokens_that_transformers_gives(folder: Path, template: str) -> None:
    from transformers import AutoTokenizer

    ours = reader(folder, template)
    theirs = AutoTokenizer.from_pretrained(folder)
    assert ours.template
    theirs.chat_template = ours.template.source
    for row in ([*turns("Hi", "Hello\n\n there", " Who?\n", "Me.")], TALK["messages"]):
        whole = theirs.apply_chat_template(row, tokenize=True, return_dict=False)
        mine = ours.example({"messages": row}, "messages", "completion").tokens
        assert (mine, theirs.decode(whole[len(mine) :])) == (whole[: len(mine)], "\n" if template == "chatml" else "")
        asked = theirs.apply_chat_template(row[:-1], tokenize=True, add_generation_prompt=True, return_dict=False)
        assert ours.prompt({"prompt": row[:-1]}) == asked


@pytest.mark.parametrize("template", ["none", "roles", "chatml"])
@pytest.mark.parametrize("spelled", [STOP, END, "<|pad|>", f"a{START}{STOP}b", f"<{STOP}>", STOP[:-2] + STOP])
def test_text_that_spells_a_special_token_stays_text(folder: Path, template: str, spelled: str) -> None:
    """What stands in the data can not end a turn, begin one of another role, or be taken for padding."""
    made, vocabulary = reader(folder, template), load_vocabulary(folder)
    clean = made.example({"prompt": "x", "completion": "y"}, "promptCompletion", "all").tokens
    dirty = made.example({"prompt": f"x{spelled}", "completion": f"{spelled}y"}, "promptCompletion", "all").tokens
    special = set(vocabulary.tokenizer.get_added_tokens_decoder())
    assert [token for token in dirty if token in special] == [token for token in clean if token in special]
    text = vocabulary.tokenizer.decode(dirty, skip_special_tokens=False)
    assert text.count(spelled) >= 2


def test_the_mark_before_a_spelled_token_is_one_that_the_text_has_not(folder: Path) -> None:
    text = "".join(chr(code) for code in range(0xFDD0, 0xFDE0)) + STOP
    tokens = reader(folder, "chatml").prompt({"prompt": text})
    assert text in load_vocabulary(folder).tokenizer.decode(tokens, skip_special_tokens=False)


BROKEN = [
    pytest.param(
        "{{ messages|length }}{% for m in messages %}{{ m.content }}{% endfor %}", "in another way", id="a count"
    ),
    pytest.param("{% for m in messages|reverse %}{{ m.content }}{% endfor %}", "in another way", id="the newest first"),
    pytest.param("{% for m in messages %}{{ m.content }", "unexpected", id="no template"),
    pytest.param("{{ ''.__class__.__mro__ }}", "unsafe", id="an escape out of the sandbox"),
    pytest.param("{{ strftime_now('%Y') }}", "undefined", id="a clock"),
]


@pytest.mark.parametrize(("source", "message"), BROKEN)
def test_template_that_can_not_be_used_is_refused(folder: Path, source: str, message: str) -> None:
    made = RowReader(load_vocabulary(folder), ChatTemplate("fromModel", source, {}))
    with pytest.raises(PermanentError, match=message) as refused:
        made.example(TALK, "messages", "completion")
    assert refused.value.reason == "TemplateInvalid"


def test_template_of_the_model_is_read_from_either_of_its_places(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"chat_template": "old", "eos_token": {"content": END}}))
    old = load_template("fromModel", tmp_path)
    (tmp_path / "chat_template.jinja").write_text("new")
    new = load_template("fromModel", tmp_path)
    assert old and new
    assert (old.source, old.tokens, new.source) == ("old", {"eos_token": END}, "new")
    with pytest.raises(PermanentError, match="the model has no chat template; set chatTemplate"):
        load_template("fromModel", folder)


def test_tokens_of_a_named_template_must_be_there(world: World, tmp_path: Path) -> None:
    save(train(iter(["plain text"] * 9), TokenizerTraining.model_validate({"vocabularySize": 300})), tmp_path)
    with pytest.raises(PermanentError, match=r"chatml needs <\|im_end\|>, <\|im_start\|>; add them"):
        reader(tmp_path, "chatml")


class Mixed:
    """A mixture with its files."""

    def __init__(self, world: World, outcome: Outcome, length: int) -> None:
        self.outcome, self.meta, self.folder = outcome, world.meta(outcome), world.folder(outcome)
        self._length = length

    def numbers(self, name: str, kind: str = "<u2") -> Any:
        return np.fromfile(self.folder / name, dtype=kind)

    @cached_property
    def sequences(self) -> list[tuple[Any, Any, Any]]:
        """(tokens, documents, targets) of each sequence."""
        names = (("tokens.u16", "<u2"), ("documents.u16", "<u2"), ("targets.u8", "u1"))
        columns = [self.numbers(*name).reshape(-1, self._length) for name in names]
        return list(zip(*columns, strict=True))

    @property
    def rejected(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in (self.folder / "rejected.jsonl").read_text().splitlines()]


class Kitchen:
    """Makes mixtures of rows."""

    def __init__(self, world: World, folder: Path) -> None:
        self.world = world
        self.tokenizer = open_store(world.url, world.root / "fetched").publish(folder, "tokenizer", {})

    def data(self, kind: str, rows: list[dict[str, Any]], name: str = "a", **inputs: Any) -> dict[str, Any]:
        made = self.world.prepare([self.world.write(f"{name}.jsonl", rows)], kind=kind, **inputs)
        return {"name": name, "digest": made.outcome.output_digest}

    def mix(self, form: str, *parts: dict[str, Any], length: int = 64, **options: Any) -> Mixed:
        inputs = {
            "parts": list(parts),
            "sequenceLength": length,
            "tokenizer": self.tokenizer,
            "format": form,
            **options,
        }
        return Mixed(self.world, self.world.run("stage", "mixture", mixture=inputs | options), length)


@pytest.fixture
def kitchen(world: World, folder: Path) -> Kitchen:
    return Kitchen(world, folder)


def questions(count: int, seed: int = 1) -> list[dict[str, Any]]:
    dice = random.Random(seed)
    return [
        {"prompt": document(dice, 1), "completion": document(dice, 1)[: dice.randrange(5, 60)]} for _ in range(count)
    ]


@pytest.mark.parametrize("packing", [True, False])
def test_every_example_is_there_once_and_whole(kitchen: Kitchen, folder: Path, packing: bool) -> None:
    rows = questions(60)
    made = kitchen.mix(
        "examples", kitchen.data("promptCompletion", rows), packing=packing, chatTemplate="roles", length=128
    )
    found, per_sequence = [], []
    for tokens, documents, targets in made.sequences:
        per_sequence.append(int(documents.max()))
        for number in range(1, documents.max() + 1):
            places = documents == number
            runs = shown(folder, tokens[places].tolist(), (targets[places] == 1).tolist())
            found.append(runs)
    expected = [[(f"Question: {row['prompt']}\nAnswer:", False), (f" {row['completion']}{END}", True)] for row in rows]
    assert sorted(found) == sorted(expected)
    assert (max(per_sequence) > 1, set(per_sequence) == {1}) == (packing, not packing)
    assert made.meta["targets"] == sum(int(targets.sum()) for _, _, targets in made.sequences)
    assert made.meta["tokens"] == sum(int((documents > 0).sum()) for _, documents, _ in made.sequences)
    assert all((targets[documents == 0] == 0).all() for _, documents, targets in made.sequences)


def test_padding_is_another_token_than_the_end(kitchen: Kitchen, world: World, folder: Path, tmp_path: Path) -> None:
    """Also where the tokenizer names none, or names the end-of-text token."""
    for name, config in (("none", {"eos_token": END}), ("equal", {"eos_token": END, "pad_token": END})):
        source = tmp_path / name
        source.mkdir()
        (source / "tokenizer.json").write_text((folder / "tokenizer.json").read_text())
        (source / "tokenizer_config.json").write_text(json.dumps(config))
        vocabulary = load_vocabulary(source)
        assert vocabulary.padding != vocabulary.end


def test_long_examples_are_cut_at_the_end_and_counted_and_those_without_a_target_are_refused(
    kitchen: Kitchen, folder: Path
) -> None:
    long = {"prompt": "What?", "completion": "word " * 100}
    hopeless = {"prompt": "word " * 100, "completion": "end"}
    made = kitchen.mix("examples", kitchen.data("promptCompletion", [long, hopeless, ASKED]), chatTemplate="roles")
    assert (made.meta["truncated"], made.meta["refused"], made.meta["rows"]) == (1, 1, 2)
    assert made.rejected == [
        {"part": "a", "id": "0/a.jsonl:2", "reason": "noTarget: no target within 64 tokens"},
    ]
    assert made.outcome.metrics["truncated"] == made.outcome.metrics["refused"] == 1


def pair(prompt: str, chosen: str, rejected: str) -> dict[str, Any]:
    return {"prompt": prompt, "chosen": chosen, "rejected": rejected}


def test_pairs_lie_as_prompt_chosen_and_rejected(kitchen: Kitchen, folder: Path) -> None:
    rows = [pair(f"What is {n}?", f"The {n} river", f"No {n}") for n in range(20)]
    made = kitchen.mix("pairs", kitchen.data("preference", rows, holdout=0.3), chatTemplate="chatml")
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    found = {}
    for prefix in ("", "holdout-"):
        tokens, index = made.numbers(f"{prefix}tokens.u16"), made.numbers(f"{prefix}index.u32", "<u4").reshape(-1, 4)
        found[prefix] = []
        for offset, *lengths in index.tolist():
            cuts = np.cumsum([offset, *lengths])
            parts = [tokens[start:end].tolist() for start, end in itertools.pairwise(cuts)]
            found[prefix].append(tuple(tokenizer.decode(part, skip_special_tokens=False) for part in parts))
        assert len(tokens) == int(index[:, 1:].sum())
    expected = [
        (f"{START}user\n{row['prompt']}{STOP}\n{START}assistant\n", row["chosen"] + STOP, row["rejected"] + STOP)
        for row in rows
    ]
    assert sorted(found[""] + found["holdout-"]) == sorted(expected)
    assert (len(found[""]), len(found["holdout-"])) == (made.meta["pairs"], made.meta["holdout"])
    assert 0 < made.meta["holdout"] < 20


def test_pairs_that_teach_nothing_after_truncation_are_refused_with_their_ids(kitchen: Kitchen) -> None:
    same = "word " * 100
    rows = [pair("Q?", f"{same}a", f"{same}b"), pair(same, "a", "b"), pair("Q?", "a", "b"), pair("Q?", same, "b")]
    made = kitchen.mix("pairs", kitchen.data("preference", rows), chatTemplate="roles")
    assert [(row["id"], row["reason"].partition(":")[0]) for row in made.rejected] == [
        ("0/a.jsonl:1", "equalAnswers"),
        ("0/a.jsonl:2", "emptyAnswer"),
    ]
    assert (made.meta["pairs"], made.meta["truncated"]) == (2, 1)
    assert made.meta["refusedBy"] == {"emptyAnswer": 1, "equalAnswers": 1}


def test_prompts_keep_what_their_verifier_needs(kitchen: Kitchen, folder: Path) -> None:
    rows = [{"prompt": f"Add 1 and {n}", "answer": n + 1, "kind": {"type": "number"}, "id": "own"} for n in range(5)]
    made = kitchen.mix(
        "prompts", kitchen.data("prompts", [*rows, {"prompt": "word " * 100, "answer": 0}]), chatTemplate="roles"
    )
    found = [json.loads(line) for line in (made.folder / "prompts.jsonl").read_text().splitlines()]
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    for row in found:
        text = tokenizer.decode(row.pop("tokens"), skip_special_tokens=False)
        assert text == f"Question: {row['prompt']}\nAnswer:"
    assert sorted(found, key=lambda row: row["answer"]) == [
        row | {"id": f"0/a.jsonl:{place}"} for place, row in enumerate(rows, start=1)
    ]
    assert made.rejected[0]["reason"].startswith("tooLong: ")


def test_template_is_written_for_checkpoints_and_its_digest_told(kitchen: Kitchen) -> None:
    data = kitchen.data("promptCompletion", [ASKED])
    roles, chatml, none = (kitchen.mix("examples", data, chatTemplate=name) for name in ("roles", "chatml", "none"))
    assert "Question: " in (roles.folder / "chat_template.jinja").read_text()
    assert roles.meta["chatTemplateDigest"] != chatml.meta["chatTemplateDigest"]
    assert not (none.folder / "chat_template.jinja").exists()
    vocabulary = load_vocabulary(kitchen.world.folder(Outcome(kitchen.tokenizer)))
    assert [each.meta["endTokens"] for each in (roles, chatml)] == [
        [vocabulary.end],
        [vocabulary.tokenizer.token_to_id(STOP)],
    ]


@pytest.mark.parametrize(
    ("weights", "repeats"), [((1, 1), None), ((1, 3), None), ((2, 1), None)], ids=["equal", "three to one", "half"]
)
def test_shares_of_examples_follow_the_weights_in_tokens(kitchen: Kitchen, weights: Any, repeats: None) -> None:
    first = kitchen.data("promptCompletion", questions(80), "first") | {"weight": weights[0]}
    second = kitchen.data("promptCompletion", questions(25, 2), "second") | {"weight": weights[1]}
    made = kitchen.mix("examples", first, second, chatTemplate="roles", length=128)
    one, two = made.meta["parts"]
    assert (one["repeats"], one["rows"]) == (1.0, 80)
    assert abs(two["tokens"] - one["tokens"] * weights[1] / weights[0]) <= 128
    assert made.meta["tokens"] == one["tokens"] + two["tokens"]
    assert made.meta["rows"] == one["rows"] + two["rows"]
    assert made.outcome.metrics["rows.second"] == two["rows"]


def test_equal_inputs_give_equal_bytes_and_held_out_prompts_are_not_trained_on(kitchen: Kitchen) -> None:
    rows = questions(60)
    rows += [{**row, "completion": f"{row['completion']} or so"} for row in rows]
    data = kitchen.data("promptCompletion", rows, holdout=0.2)
    first, again = (kitchen.mix("examples", data, chatTemplate="roles", length=128) for _ in range(2))
    assert first.outcome == again.outcome
    held = {
        json.loads(line)["text"].split("\n")[0] for line in (first.folder / "holdout.jsonl").read_text().splitlines()
    }
    assert len(held) > 3
    tokens = first.numbers("tokens.u16")
    text = load_vocabulary(kitchen.world.folder(Outcome(kitchen.tokenizer))).tokenizer.decode(tokens.tolist())
    assert not any(prompt in text for prompt in held)
    assert first.numbers("holdout-targets.u8", "u1").sum() > 0


def test_rows_of_another_kind_are_refused(kitchen: Kitchen) -> None:
    with pytest.raises(PermanentError, match="data set a: expected rows of kind preference, found promptCompletion"):
        kitchen.mix("pairs", kitchen.data("promptCompletion", [ASKED]))


def test_a_part_of_which_no_row_can_be_used_is_refused(kitchen: Kitchen) -> None:
    with pytest.raises(PermanentError, match=r"no row can be used in pairs: \{'emptyAnswer': 1\}"):
        kitchen.mix("pairs", kitchen.data("preference", [pair("word " * 100, "a", "b")]))


def test_a_template_that_refuses_a_row_is_heard(kitchen: Kitchen, folder: Path, tmp_path: Path) -> None:
    """As many templates do: roles must alternate."""
    for path in folder.iterdir():
        (tmp_path / path.name).write_text(path.read_text())
    strict = "{% for m in messages %}{% if m.role == 'system' %}{{ raise_exception('no system') }}{% endif %}"
    (tmp_path / "chat_template.jinja").write_text(strict + "{{ m.role + m.content }}{% endfor %}")
    kitchen.tokenizer = open_store(kitchen.world.url, tmp_path / "f").publish(tmp_path, "tokenizer", {})
    rows = [TALK, {"messages": turns("a", "b")}]
    made = kitchen.mix("examples", kitchen.data("messages", rows), chatTemplate="fromModel")
    assert [row["reason"] for row in made.rejected] == ["refusedByTemplate: no system"]
