"""A prepared data set as tokens in a scratch file, so that documents can be drawn in any order without holding them.

Reads the tokenizer of an artifact (a tokenizer or a checkpoint); decides nothing about shares.
"""

import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from tokenizers import Encoding, Tokenizer

from bessemer_trainer.errors import PermanentError
from bessemer_trainer.packing import smallest_type

_BATCH = 256
Array = npt.NDArray[Any]


@dataclass(frozen=True, slots=True)
class Vocabulary:
    """A tokenizer with the ids that ends and padding need."""

    tokenizer: Tokenizer
    largest: int
    end: int
    padding: int


@dataclass(frozen=True, slots=True)
class TokenisedPart:
    """Documents of one part: document d is tokens[offsets[d]:offsets[d + 1]], its end-of-text token included."""

    tokens: Array
    offsets: npt.NDArray[np.int64]

    @property
    def lengths(self) -> npt.NDArray[np.int64]:
        return np.diff(self.offsets)

    def document(self, number: int) -> Array:
        return self.tokens[self.offsets[number] : self.offsets[number + 1]]


def load_vocabulary(folder: Path) -> Vocabulary:
    """The tokenizer in `folder`. Raises PermanentError(TokenizerInvalid) that says what is missing.

    Text that spells a special token stays text. The end-of-text token is the one that tokenizer_config.json names;
    padding is never that token.
    """
    config = _read_config(folder)
    try:
        tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    except Exception as error:  # noqa: BLE001 - the library raises bare Exception for a file that it can not read
        raise PermanentError("TokenizerInvalid", f"{folder}/tokenizer.json: {error}") from None
    tokenizer.encode_special_tokens = True
    tokenizer.no_truncation()
    tokenizer.no_padding()
    end = _id_of(tokenizer, config, "eos_token")
    if end is None:
        raise PermanentError(
            "TokenizerInvalid", f"{folder}/tokenizer_config.json: eos_token: no token of the tokenizer"
        )
    padding = _id_of(tokenizer, config, "pad_token")
    largest = max(tokenizer.get_vocab(with_added_tokens=True).values())
    if padding is None or padding == end:
        padding = int(end == 0)  # its own number says nothing: document number 0 tells padding
    return Vocabulary(tokenizer, largest, end, padding)


def _read_config(folder: Path) -> dict[str, Any]:
    try:
        config = json.loads((folder / "tokenizer_config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise PermanentError("TokenizerInvalid", f"{folder}/tokenizer_config.json: {error}") from None
    return config if isinstance(config, dict) else {}


def _id_of(tokenizer: Tokenizer, config: dict[str, Any], name: str) -> int | None:
    """Id of a special token, which the file gives as a string or as an object with `content`."""
    token = config.get(name)
    content = token.get("content") if isinstance(token, dict) else token
    return tokenizer.token_to_id(content) if isinstance(content, str) else None


def tokenise(texts: Iterable[str], vocabulary: Vocabulary, path: Path, tell: Callable[[int], None]) -> TokenisedPart:
    """Tokenise documents into the file `path`; `tell` hears how many are done.

    Special tokens are added as the tokenizer's own post-processor says; an end-of-text token closes each document.
    """
    kind = smallest_type(vocabulary.largest)[1]
    lengths: list[int] = []
    with path.open("wb") as file:
        for encodings in _encoded(iter(texts), vocabulary.tokenizer):
            documents = [_closed(encoding.ids, vocabulary.end) for encoding in encodings]
            np.concatenate([np.array(ids, dtype=kind) for ids in documents]).tofile(file)
            lengths += map(len, documents)
            tell(len(lengths))
    offsets = np.concatenate([[0], np.cumsum(np.array(lengths, dtype=np.int64))])
    tokens = np.memmap(path, dtype=kind, mode="r") if lengths else np.zeros(0, dtype=kind)
    return TokenisedPart(tokens, offsets)


def _encoded(texts: Iterator[str], tokenizer: Tokenizer) -> Iterator[list[Encoding]]:
    while batch := list(islice(texts, _BATCH)):
        yield tokenizer.encode_batch_fast(batch)


def _closed(ids: list[int], end: int) -> list[int]:
    return ids if ids and ids[-1] == end else [*ids, end]
