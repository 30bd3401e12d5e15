"""The verb `tokenizer` with `extend`: a checkpoint with more tokens, for text that it would cut into many.

The new input row of a token is the mean of the rows of the old tokens that it stands for (Hewitt 2021; Gee et al.
2022, arXiv 2305.02531); its output row is 0, or with tied embeddings that same mean. So nothing that the model knew
changes: a text in which no new token occurs has the tokens and the logits that it had.
"""

import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from tokenizers import Tokenizer
from torch import Tensor
from transformers import AutoConfig, AutoModelForCausalLM

from bessemer_api.v1alpha1.stage import StageInputs
from bessemer_trainer.artifacts import CHAT_TEMPLATE, write_checkpoint
from bessemer_trainer.backends import disk_errors
from bessemer_trainer.bpe import Extension, count_words, extend, extended_file
from bessemer_trainer.context import Context, Outcome
from bessemer_trainer.data import kind_of, read_lines
from bessemer_trainer.errors import PermanentError
from bessemer_trainer.records import joined_text
from bessemer_trainer.token_cache import load_vocabulary

_KEPT = ("tokenizer_config.json", "special_tokens_map.json", CHAT_TEMPLATE)
"""Files of the tokenizer that stay true; vocab.json, merges.txt and tokenizer.model would not."""


def run(context: Context) -> Outcome:
    """Publish the extended checkpoint. Raises PermanentError(SpecInvalid | WrongKind | TokenizerInvalid)."""
    stage = context.spec.stage
    if stage is None or stage.tokenizer is None or stage.mixture is None or stage.start_from is None:
        raise PermanentError("SpecInvalid", "stage.tokenizer, stage.mixture, stage.startFrom: an extension needs all")
    start = context.store.manifest(stage.start_from)
    if start.kind != "checkpoint":
        raise PermanentError("WrongKind", f"stage.startFrom is a {start.kind}; expected a checkpoint")
    source = context.store.fetch(stage.start_from)
    vocabulary = load_vocabulary(source)
    words = count_words(vocabulary.tokenizer, _texts(context, stage))
    found = extend(vocabulary.tokenizer, words, stage.tokenizer.extend or 0, stage.tokenizer.min_frequency)
    folder = context.scratch / "extended"
    with disk_errors(str(folder)):
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        parameters = _write(source, folder, found, vocabulary.largest + 1)
        after = Tokenizer.from_file(str(folder / "tokenizer.json"))
        meta = {
            "method": "tokenizer",
            "inputDigest": context.spec.input_digest,
            "startFrom": stage.start_from,
            "added": len(found.merges),
            "parameters": parameters,
        }
        digest = context.store.publish(folder, "checkpoint", meta)
        shutil.rmtree(folder)
    figures = {"added": len(found.merges), "vocabularySize": after.get_vocab_size(), "parameters": parameters}
    shorter = {"tokensBefore": _length(vocabulary.tokenizer, words), "tokensAfter": _length(after, words)}
    return Outcome(digest, metrics={name: float(value) for name, value in {**figures, **shorter}.items()})


def _texts(context: Context, stage: StageInputs) -> Iterator[str]:
    """All documents, without what is held out; the weights of the mixture do not matter here."""
    parts = stage.mixture.parts if stage.mixture else []
    total = sum(context.store.manifest(part.digest).meta["documents"] for part in parts)
    done = 0
    for part in parts:
        kind = kind_of(context.store, part.digest)
        for document in read_lines(context.store.fetch(part.digest) / "documents.jsonl"):
            yield joined_text(document, kind)
            done += 1
            if done % 256 == 0 or done == total:
                context.progress.update(done, total, f"documents read, now {part.name}")


def _length(tokenizer: Tokenizer, words: Mapping[str, int]) -> int:
    return sum(count * len(tokenizer.model.tokenize(word)) for word, count in words.items())


def _write(source: Path, folder: Path, found: Extension, first: int) -> int:
    """The files of the extended checkpoint; its number of parameters."""
    for name in _KEPT:
        if (source / name).is_file():
            shutil.copyfile(source / name, folder / name)
    text = extended_file((source / "tokenizer.json").read_text(encoding="utf-8"), found, first)
    (folder / "tokenizer.json").write_text(text, encoding="utf-8")
    config = AutoConfig.from_pretrained(source, local_files_only=True, trust_remote_code=False)
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config, trust_remote_code=False)
    weights = load_file(source / "model.safetensors")
    ids = Tokenizer.from_file(str(source / "tokenizer.json")).get_vocab(with_added_tokens=True)
    rows = [[ids[token] for token in parts] for parts in found.parts.values()]
    weights = extended_weights(model, weights, rows, first)
    model.config.vocab_size = len(weights[embedding_names(model)[0]])
    return write_checkpoint(folder, model, weights, None)


def embedding_names(model: Any) -> tuple[str, str | None]:  # noqa: ANN401 - transformers is untyped
    """Names of the input and of the output embedding in a file of weights; no output where it is tied."""
    modules = {id(module): name for name, module in model.named_modules()}
    head = model.get_output_embeddings()
    own = f"{modules[id(model.get_input_embeddings())]}.weight"
    is_tied = model.config.tie_word_embeddings or head is None
    return own, None if is_tied else f"{modules[id(head)]}.weight"


def extended_weights(
    model: Any,  # noqa: ANN401 - transformers is untyped
    weights: Mapping[str, Tensor],
    rows: list[list[int]],
    first: int,
) -> dict[str, Tensor]:
    """The weights with a row for each new token, numbered from `first`: see the module."""
    own, head = embedding_names(model)
    means = [weights[own][old].float().mean(dim=0) for old in rows]
    extended = {**weights, own: _with_rows(weights[own], means, first)}
    if head is not None:
        zeros = [torch.zeros(weights[head].shape[1]) for _ in rows]
        extended[head] = _with_rows(weights[head], zeros, first)
        bias = head.removesuffix("weight") + "bias"
        if bias in weights:
            extended[bias] = _with_rows(weights[bias].unsqueeze(1), [torch.zeros(1) for _ in rows], first).squeeze(1)
    return extended


def _with_rows(table: Tensor, rows: list[Tensor], first: int) -> Tensor:
    """A table may have more rows than there were tokens: those are used first."""
    size = max(len(table), first + len(rows))
    result = torch.zeros((size, table.shape[1]), dtype=table.dtype)
    result[: len(table)] = table
    if rows:
        result[first : first + len(rows)] = torch.stack(rows).to(table.dtype)
    return result
