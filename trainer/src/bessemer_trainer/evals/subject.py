"""What is measured: a model with its tokenizer, and how a prompt becomes the tokens that it reads."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch

from bessemer_api.v1alpha1.evaluation import Axis
from bessemer_trainer.chat import RowError, load_template
from bessemer_trainer.evals.common import Sample, TextEncoder, load_encoder, load_model
from bessemer_trainer.evals.items import Item
from bessemer_trainer.evals.similarity import Documents
from bessemer_trainer.examples import RowReader

Prompt = str | Sequence[Mapping[str, str]]
"""A text, or messages with `role` and `content`."""


@dataclass(frozen=True)
class Subject:
    """A checkpoint that is measured. `training`: documents that its outputs must be novel against."""

    model: torch.nn.Module
    encoder: TextEncoder
    folder: Path
    seed: int = 0
    training: Sequence[Documents] = ()

    def prompt_tokens(self, prompt: Prompt, axis: Axis, item: Item) -> list[int]:
        """Tokens of a prompt, up to where the answer begins. Raises PermanentError(BadItem | TemplateMissing)."""
        if axis.prompt != "chat":
            return self.encoder.encode(plain_text(prompt))
        try:
            return self._reader.prompt({"prompt": prompt})
        except RowError as error:
            raise item.error(f"its prompt does not fit the chat template: {error}", "see prompt: plain") from None

    @cached_property
    def _reader(self) -> RowReader:
        return RowReader(self.encoder.vocabulary, load_template("fromModel", self.folder))

    def decode(self, tokens: Sequence[int]) -> str:
        """The text of generated tokens, special tokens left out."""
        return str(self.encoder.vocabulary.tokenizer.decode(list(tokens), skip_special_tokens=True))

    def ends_of(self, axis: Axis) -> frozenset[int]:
        """Tokens that end an answer; of a chat also the one that closes the assistant's turn in the template."""
        return self.ends | self._chat_ends if axis.prompt == "chat" else self.ends

    @cached_property
    def _chat_ends(self) -> frozenset[int]:
        return frozenset([self._reader.pair({"prompt": "a", "chosen": "b", "rejected": "c"}).chosen[-1]])

    @cached_property
    def ends(self) -> frozenset[int]:
        """Tokens that end an answer: the tokenizer's end of text, and those that the checkpoint's own files name."""
        found = {self.encoder.vocabulary.end}
        for name in ("config.json", "generation_config.json"):
            told = _read(self.folder / name).get("eos_token_id")
            found |= {int(token) for token in (told if isinstance(told, list) else [told]) if token is not None}
        return frozenset(found)


Measure = Callable[[Subject, Sequence[Item], Axis, Callable[[int], None]], list[Sample]]
"""measure(subject, items, axis, progress) -> samples in the order of the items; progress(items done)."""


def load_subject(folder: Path, precision: str, seed: int = 0, training: Sequence[Documents] = ()) -> Subject:
    """The checkpoint in `folder`. Raises PermanentError(TokenizerInvalid | CheckpointInvalid)."""
    encoder = load_encoder(folder)
    return Subject(load_model(folder, precision), encoder, folder, seed, tuple(training))


def plain_text(prompt: Prompt) -> str:
    """A prompt as plain text: messages one after the other, a line each."""
    return prompt if isinstance(prompt, str) else "".join(message["content"] + "\n" for message in prompt)


def _read(path: Path) -> dict[str, Any]:
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return document if isinstance(document, dict) else {}
