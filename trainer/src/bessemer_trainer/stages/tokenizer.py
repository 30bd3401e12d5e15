"""The verb `tokenizer`: trains a byte-level BPE tokenizer on the documents of prepared data sets.

Every document of every part counts once; the weights of the mixture do not matter here. Equal input gives a
byte-equal tokenizer. The end-of-text token separates documents; the padding token is never the end-of-text token.
"""

import json
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from bessemer_api.v1alpha1.stage import MixturePart
from bessemer_api.v1alpha1.train import TokenizerTraining
from bessemer_trainer.context import Context, Outcome
from bessemer_trainer.data import kind_of, read_lines
from bessemer_trainer.errors import PermanentError
from bessemer_trainer.records import joined_text
from bessemer_trainer.store import Store

END = "<|endoftext|>"
PAD = "<|pad|>"


def run(context: Context) -> Outcome:
    """Publish the tokenizer artifact; transformers' AutoTokenizer loads its folder."""
    stage = context.spec.stage
    if stage is None or stage.tokenizer is None or stage.mixture is None:
        raise PermanentError("SpecInvalid", "stage.tokenizer, stage.mixture: the method tokenizer needs both")
    parts = stage.mixture.parts
    total = sum(context.store.manifest(part.digest).meta["documents"] for part in parts)
    tokenizer = train(_texts(context, parts, total), stage.tokenizer)
    folder = context.scratch / "tokenizer"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    save(tokenizer, folder)
    size = tokenizer.get_vocab_size()
    digest = context.store.publish(folder, "tokenizer", {"vocabularySize": size})
    return Outcome(digest, metrics={"vocabularySize": float(size), "documents": float(total)})


def _texts(context: Context, parts: Sequence[MixturePart], total: int) -> Iterator[str]:
    done = 0
    for part in parts:
        for text in part_texts(context.store, part.digest):
            yield text
            done += 1
            if done % 256 == 0 or done == total:
                context.progress.update(done, total, f"documents read, now {part.name}")


def part_texts(store: Store, digest: str) -> Iterator[str]:
    """The documents of a prepared data set, without its holdout."""
    kind = kind_of(store, digest)
    return (joined_text(document, kind) for document in read_lines(store.fetch(digest) / "documents.jsonl"))


def train(texts: Iterator[str], options: TokenizerTraining) -> Tokenizer:
    """A byte-level BPE tokenizer (Radford et al. 2019). A small corpus may fill less than the vocabulary asked for."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=options.vocabulary_size,
        min_frequency=options.min_frequency,
        special_tokens=[END, PAD],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return tokenizer


def save(tokenizer: Tokenizer, folder: Path) -> None:
    """The files that transformers expects of a tokenizer."""
    specials = {"eos_token": END, "pad_token": PAD}
    config = {
        **specials,
        "tokenizer_class": "PreTrainedTokenizerFast",
        "model_max_length": 10**12,
        "clean_up_tokenization_spaces": False,
    }
    tokenizer.save(str(folder / "tokenizer.json"), pretty=True)
    _write_json(folder / "tokenizer_config.json", config)
    _write_json(folder / "special_tokens_map.json", specials)


def _write_json(path: Path, document: dict[str, Any]) -> None:
    path.write_text(json.dumps(document, indent=2, sort_keys=True, ensure_ascii=False) + "\n", encoding="utf-8")
