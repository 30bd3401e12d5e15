"""The tokenizer: trained the same every time, loaded by transformers, nothing lost."""

import os
import random
import subprocess
import sys
from pathlib import Path

import pytest
from tokenizers import Tokenizer

from bessemer_api.v1alpha1.train import TokenizerTraining
from bessemer_trainer.stages.tokenizer import END, PAD, train
from bessemer_trainer.token_cache import load_vocabulary
from tests.trainer.data.world import Data, World, document


@pytest.fixture
def data(world: World) -> Data:
    dice = random.Random(3)
    return world.prepare([world.write("a.jsonl", [{"text": document(dice)} for _ in range(100)])], holdout=0.1)


@pytest.fixture
def folder(world: World, data: Data) -> Path:
    return world.folder(train_in(world, data, 400))


def train_in(world: World, data: Data, size: int):  # type: ignore[no-untyped-def]
    parts = [{"name": "a", "digest": data.outcome.output_digest}]
    return world.run("stage", "tokenizer", tokenizer={"vocabularySize": size}, mixture={"parts": parts})


TEXTS = [
    "The river follows the valley.",
    " spaces  and\n\nlines\t",
    "日本語 Ünïcode 🙂",
    "\x00\x01",
    "",
    f"a{END}b{PAD}c",
]


@pytest.mark.parametrize("text", TEXTS)
def test_text_comes_back_as_it_was(folder: Path, text: str) -> None:
    vocabulary = load_vocabulary(folder)
    ids = vocabulary.tokenizer.encode(text).ids
    assert vocabulary.tokenizer.decode(ids, skip_special_tokens=False) == text
    assert not {vocabulary.end, vocabulary.padding} & set(ids)


def test_transformers_loads_the_artifact_and_agrees(folder: Path) -> None:
    from transformers import AutoTokenizer

    loaded = AutoTokenizer.from_pretrained(str(folder))
    assert (loaded.eos_token, loaded.pad_token, loaded.bos_token, loaded.unk_token) == (END, PAD, None, None)
    assert loaded.eos_token_id != loaded.pad_token_id
    ours = Tokenizer.from_file(str(folder / "tokenizer.json"))
    for text in TEXTS[:-1]:
        assert loaded(text).input_ids == ours.encode(text).ids
        assert loaded.decode(loaded(text).input_ids) == text
    assert len(loaded) == 400


def test_vocabulary_has_the_size_asked_for_where_the_corpus_fills_it(world: World, data: Data) -> None:
    assert train_in(world, data, 300).metrics["vocabularySize"] == 300
    assert 300 < train_in(world, data, 100_000).metrics["vocabularySize"] < 100_000


def test_smallest_vocabulary_knows_every_byte(world: World, data: Data) -> None:
    vocabulary = load_vocabulary(world.folder(train_in(world, data, 260)))
    assert vocabulary.tokenizer.decode(vocabulary.tokenizer.encode("ÿ🙂").ids) == "ÿ🙂"


def test_documents_of_the_holdout_are_not_looked_at(world: World) -> None:
    dice = random.Random(4)
    texts = [document(dice, 2) for _ in range(100)]
    data = world.prepare([world.write("a.jsonl", [{"text": text} for text in texts])], holdout=0.4)
    direct = train(iter(data.texts), TokenizerTraining(vocabulary_size=500, min_frequency=2))
    assert (world.folder(train_in(world, data, 500)) / "tokenizer.json").read_text() == direct.to_str(pretty=True)


_TRAIN = """
import random, sys
from bessemer_api.v1alpha1.train import TokenizerTraining
from bessemer_trainer.stages.tokenizer import train
from tests.trainer.data.world import document
dice = random.Random(5)
texts = (document(dice) for _ in range(200))
sys.stdout.write(train(texts, TokenizerTraining(vocabulary_size=700, min_frequency=2)).to_str())
"""


def test_equal_text_gives_a_byte_equal_tokenizer_in_other_processes_and_on_other_threads() -> None:
    made = {
        subprocess.run(
            [sys.executable, "-c", _TRAIN],
            env=os.environ | {"PYTHONHASHSEED": seed, "RAYON_NUM_THREADS": seed},
            capture_output=True,
            check=True,
            cwd=Path(__file__).parents[3],
        ).stdout
        for seed in ("1", "2", "3")
    }
    assert len(made) == 1
