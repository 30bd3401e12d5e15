"""Mixtures: shares follow the weights, every token is there, documents stay apart."""

import json
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bessemer_trainer.context import Outcome
from bessemer_trainer.errors import PermanentError
from bessemer_trainer.mixing import draw
from bessemer_trainer.stages.tokenizer import END
from bessemer_trainer.store import open_store
from bessemer_trainer.token_cache import load_vocabulary
from tests.trainer.data.world import Data, World, document


@pytest.fixture
def parts(world: World) -> dict[str, Data]:
    """A large and a small data set."""
    dice = random.Random(6)
    large = [{"text": document(dice, dice.randrange(1, 12))} for _ in range(200)]
    small = [{"text": document(dice, 1)} for _ in range(30)]
    return {
        "large": world.prepare([world.write("large.jsonl", large)], holdout=0.1),
        "small": world.prepare([world.write("small.jsonl", small)], holdout=0.1),
    }


@pytest.fixture
def tokenizer(world: World, parts: dict[str, Data]) -> str:
    outcome = world.run("stage", "tokenizer", tokenizer={"vocabularySize": 500}, mixture={"parts": named(parts)})
    assert outcome.output_digest
    return outcome.output_digest


def named(parts: dict[str, Data], **weights: float) -> list[dict[str, Any]]:
    return [
        {"name": name, "digest": data.outcome.output_digest, "weight": weights.get(name, 1.0)}
        for name, data in parts.items()
    ]


def mix(world: World, tokenizer: str, parts: list[dict[str, Any]], seed: int = 0, **options: Any) -> Outcome:
    inputs = {"parts": parts, "sequenceLength": 64, "tokenizer": tokenizer, **options}
    return world.run("stage", "mixture", seed=seed, mixture=inputs)


def documents_of(world: World, outcome: Outcome, tokenizer: str) -> list[str]:
    """The texts that are trained on, read back from the shards."""
    folder = world.folder(outcome)
    tokens, numbers = (np.fromfile(folder / f"{name}.u16", dtype="<u2") for name in ("tokens", "documents"))
    vocabulary = load_vocabulary(open_store(world.url, world.root / "fetched").fetch(tokenizer))
    text = vocabulary.tokenizer.decode(tokens[numbers > 0].tolist(), skip_special_tokens=False)
    assert text.endswith(END)
    return text.removesuffix(END).split(END)


@pytest.mark.parametrize("packing", [True, False])
def test_each_document_of_one_part_is_trained_on_exactly_once(
    world: World, parts: dict[str, Data], tokenizer: str, packing: bool
) -> None:
    outcome = mix(world, tokenizer, named({"large": parts["large"]}), packing=packing)
    texts = documents_of(world, outcome, tokenizer)
    assert sorted(texts) == sorted(parts["large"].texts)
    assert texts != parts["large"].texts


def test_tokens_of_the_report_are_those_of_the_shards_and_of_the_texts(
    world: World, parts: dict[str, Data], tokenizer: str
) -> None:
    outcome = mix(world, tokenizer, named(parts))
    folder, meta = world.folder(outcome), world.meta(outcome)
    numbers = np.fromfile(folder / "documents.u16", dtype="<u2")
    encode = load_vocabulary(open_store(world.url, world.root / "fetched").fetch(tokenizer)).tokenizer.encode
    expected = sum(len(encode(text).ids) + 1 for text in documents_of(world, outcome, tokenizer))
    assert outcome.tokens == meta["tokens"] == np.count_nonzero(numbers) == expected
    assert meta["tokens"] == sum(part["tokens"] for part in meta["parts"])
    assert meta["padding"] == np.count_nonzero(numbers == 0) < 64
    assert meta["sequences"] * 64 == len(numbers)


@pytest.mark.parametrize(
    ("order", "weights"),
    [
        pytest.param(("large", "small"), (1, 1), id="half replay: the small part is repeated"),
        pytest.param(("large", "small"), (19, 1), id="a small share: the small part is cut short"),
        pytest.param(("small", "large"), (1, 1), id="the large part is cut short"),
        pytest.param(("small", "large"), (1, 3), id="three to one"),
        pytest.param(("large", "small"), (0.5, 0.5), id="weights are relative"),
    ],
)
def test_shares_of_the_tokens_follow_the_weights_and_the_first_part_comes_once(
    world: World, parts: dict[str, Data], tokenizer: str, order: tuple[str, str], weights: tuple[float, float]
) -> None:
    chosen = named({name: parts[name] for name in order}, **dict(zip(order, weights, strict=True)))
    outcome = mix(world, tokenizer, chosen)
    first, second = world.meta(outcome)["parts"]
    longest = 400
    assert (first["repeats"], first["rows"]) == (1.0, len(parts[order[0]].texts))
    assert abs(second["tokens"] - first["tokens"] * weights[1] / weights[0]) <= longest
    texts = documents_of(world, outcome, tokenizer)
    assert sum(text in set(parts[order[1]].texts) for text in texts) == second["rows"]
    assert outcome.metrics[f"share.{order[1]}"] == second["share"]


def test_repeats_are_whole_passes_before_any_document_comes_again(world: World) -> None:
    lengths = [np.full(1000, 10), np.full(7, 10)]
    drawn = draw(lengths, [1000, 24], seed=3)[1].documents
    assert len(drawn) == 24
    passes = [sorted(drawn[start : start + 7].tolist()) for start in (0, 7, 14)]
    assert passes == [list(range(7))] * 3
    assert len(set(drawn[21:].tolist())) == 3
    assert drawn[:7].tolist() != drawn[7:14].tolist()


@pytest.mark.parametrize(
    ("target", "rows"), [(5, 1), (14, 1), (15, 1), (16, 2), (20, 2), (40, 4), (44, 4), (46, 5), (80, 8), (0.1, 1)]
)
def test_share_is_met_to_the_nearest_document_and_never_empty(target: float, rows: int) -> None:
    drawn = draw([np.array([1000]), np.full(4, 10)], [1000, target], seed=0)[1]
    assert (len(drawn.documents), drawn.tokens) == (rows, rows * 10)


def test_equal_inputs_give_a_byte_equal_mixture_and_another_seed_another_order(
    world: World, parts: dict[str, Data], tokenizer: str
) -> None:
    first, again = mix(world, tokenizer, named(parts)), mix(world, tokenizer, named(parts))
    other = mix(world, tokenizer, named(parts), seed=1)
    assert first == again
    assert first.output_digest != other.output_digest
    assert sorted(documents_of(world, first, tokenizer)) != documents_of(world, first, tokenizer)


def test_holdout_of_every_part_is_passed_on_and_never_trained_on(
    world: World, parts: dict[str, Data], tokenizer: str
) -> None:
    outcome = mix(world, tokenizer, named(parts))
    rows = [json.loads(line) for line in (world.folder(outcome) / "holdout.jsonl").read_text().splitlines()]
    held = [(name, entry["text"]) for name, data in parts.items() for entry in data.holdout]
    assert [(row["part"], row["text"]) for row in rows] == held
    assert len({row["id"] for row in rows}) == len(rows) > 2
    assert not {text for _, text in held} & set(documents_of(world, outcome, tokenizer))


def test_text_that_spells_a_special_token_stays_text(world: World, tokenizer: str) -> None:
    data = world.prepare([world.write("a.jsonl", [{"text": f"one{END}two"}])])
    folder = world.folder(mix(world, tokenizer, named({"a": data})))
    tokens = np.fromfile(folder / "tokens.u16", dtype="<u2")[np.fromfile(folder / "documents.u16", dtype="<u2") > 0]
    assert np.count_nonzero(tokens == 0) == 1


def write_tokenizer(folder: Path, config: str, tokenizer: str) -> str:
    folder.mkdir()
    (folder / "tokenizer_config.json").write_text(config)
    (folder / "tokenizer.json").write_text(tokenizer)
    return str(folder)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        pytest.param("{", "tokenizer_config.json", id="no JSON"),
        pytest.param("{}", "eos_token: no token", id="no end-of-text token"),
        pytest.param('{"eos_token": "<none>"}', "eos_token: no token", id="an end-of-text token that it does not know"),
        pytest.param('{"eos_token": {"content": "<|endoftext|>"}}', None, id="a token given as an object"),
    ],
)
def test_tokenizer_must_name_its_end_of_text_token(
    world: World, tokenizer: str, config: str, message: str | None
) -> None:
    made = (open_store(world.url, world.root / "fetched").fetch(tokenizer) / "tokenizer.json").read_text()
    folder = world.root / "tokenizer"
    write_tokenizer(folder, config, made)
    if message is None:
        assert load_vocabulary(folder).end == 0
        return
    with pytest.raises(PermanentError, match=message):
        load_vocabulary(folder)


def test_damaged_tokenizer_is_named(tmp_path: Path) -> None:
    with pytest.raises(PermanentError, match=r"tokenizer\.json"):
        load_vocabulary(Path(write_tokenizer(tmp_path / "t", "{}", "{}")))


def test_bos_of_the_tokenizer_starts_each_document(world: World, parts: dict[str, Data], tokenizer: str) -> None:
    """As Llama 3 does it: a post-processor adds a token, which training must see too."""
    from tokenizers import Tokenizer, processors

    source = open_store(world.url, world.root / "fetched").fetch(tokenizer)
    changed = Tokenizer.from_file(str(source / "tokenizer.json"))
    changed.post_processor = processors.TemplateProcessing(single="<|pad|> $A", special_tokens=[("<|pad|>", 1)])
    folder = world.root / "with-bos"
    write_tokenizer(folder, (source / "tokenizer_config.json").read_text(), changed.to_str())
    digest = open_store(world.url, world.root / "fetched").publish(folder, "tokenizer", {})
    outcome = mix(world, digest, named({"small": parts["small"]}), packing=False)
    tokens = np.fromfile(world.folder(outcome) / "tokens.u16", dtype="<u2").reshape(-1, 64)
    assert (tokens[:, 0] == 1).all()
