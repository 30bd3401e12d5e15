"""Whether checkpoints can be merged, asked before anything is merged; each refusal names the parent and what differs.

mergekit merges nearly anything that has tensors of equal names and shapes, and says that it succeeded. What is asked
here are the ways in which such a merge is known to be broken. Reads headers and JSON files; the numbers themselves are
read once, by geometry.py, which finds NaN and infinity on its way.
"""

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bessemer_trainer.errors import PermanentError
from bessemer_trainer.merging.tensors import TensorFile, open_tensors
from bessemer_trainer.store import Store
from bessemer_trainer.tokenizer_files import TOKENIZER_FILES

_NO_MATTER = {
    "_name_or_path", "transformers_version", "dtype", "torch_dtype", "use_cache", "initializer_range",
    "attention_dropout", "pad_token_id", "bos_token_id", "pretraining_tp", "chunk_size_feed_forward",
}  # fmt: skip
"""Keys of a configuration that change no output, or that are looked at on their own (the number format)."""
_WORDS = {
    "architectures": "architecture",
    "model_type": "architecture",
    "num_hidden_layers": "number of layers",
    "hidden_size": "hidden size",
    "intermediate_size": "feed-forward size",
    "num_attention_heads": "number of attention heads",
    "num_key_value_heads": "number of key-value heads",
    "vocab_size": "vocabulary size",
    "tie_word_embeddings": "tie between embeddings and head",
    "eos_token_id": "end-of-text token",
}
"""What people call the keys that are asked about first, in this order."""


@dataclass(frozen=True, slots=True)
class Parent:
    """A verified checkpoint: its name for people, its folder, its configuration and its tensors."""

    name: str
    folder: Path
    config: Mapping[str, Any]
    weights: TensorFile

    @property
    def layers(self) -> int:
        """Number of layers, from the model's own configuration."""
        return int(self.config["num_hidden_layers"])

    @property
    def dtype(self) -> str:
        """Number format of its weights, as safetensors names it."""
        return next(tensor.dtype for name, tensor in self.weights.tensors.items() if self.weights.is_float(name))

    def json(self, name: str) -> Any:  # noqa: ANN401 - any JSON document
        """A file of the checkpoint as JSON; None where there is none."""
        return _read_json(self.folder / name, self.name)


def refused(name: str, problem: str) -> PermanentError:
    """The error that refuses a parent."""
    return PermanentError("ParentRefused", f"parent {name}: {problem}")


def open_parent(store: Store, name: str, digest: str) -> Parent:
    """A parent whose files were verified. Raises PermanentError(ParentRefused)."""
    try:
        kind = store.manifest(digest).kind
        if kind != "checkpoint":
            raise refused(name, f"{digest} is an artifact of kind {kind}; expected a checkpoint")
        folder = store.fetch(digest)
        weights = open_tensors(folder)
    except PermanentError as error:
        raise error if error.reason == "ParentRefused" else refused(name, f"{error.reason}: {error.message}") from None
    config = _read_json(folder / "config.json", name)
    if not isinstance(config, dict) or not isinstance(config.get("num_hidden_layers"), int):
        raise refused(name, "config.json is missing or does not say num_hidden_layers")
    if not any(weights.is_float(tensor) for tensor in weights.tensors):
        raise refused(name, f"{weights.path.name} holds no floating-point tensor")
    return Parent(name, folder, config, weights)


def _read_json(path: Path, name: str) -> Any:  # noqa: ANN401 - any JSON document
    if not path.is_file():
        return None
    try:
        return json.loads(path.read_bytes())
    except ValueError as error:
        raise refused(name, f"{path.name} is no JSON: {error}") from None


def require_mergeable(first: Parent, other: Parent) -> None:
    """Raises PermanentError(ParentRefused) that names `other` and the first thing in which it differs from `first`."""
    for difference in _differences(first, other):
        raise refused(other.name, difference)


def require_one_format(parents: list[Parent]) -> None:
    """For methods that round once at the end: all tensors have one number format."""
    for parent in parents:
        formats = sorted({item.dtype for name, item in parent.weights.tensors.items() if parent.weights.is_float(name)})
        if len(formats) > 1:
            raise refused(
                parent.name, f"its tensors have the number formats {' and '.join(formats)}; this method needs one"
            )


def _differences(first: Parent, other: Parent) -> Iterator[str]:
    checks: tuple[Callable[[Parent, Parent], Iterator[str]], ...] = (
        _config, _vocabulary, _tokenizer, _end, _template, _keys, _shapes,
    )  # fmt: skip
    for check in checks:
        yield from check(first, other)


def _config(first: Parent, other: Parent) -> Iterator[str]:
    keys = (first.config.keys() | other.config.keys()) - _NO_MATTER
    for key in sorted(keys, key=lambda key: (list(_WORDS).index(key) if key in _WORDS else len(_WORDS), key)):
        ours, theirs = other.config.get(key), first.config.get(key)
        if ours != theirs and not (key == "architectures" and None in (ours, theirs)):  # model_type says it too
            what = f"its {_WORDS[key]} ({key})" if key in _WORDS else f"config.json: {key}"
            yield f"{what} is {_short(ours)}, that of {first.name} is {_short(theirs)}"


def _short(value: object) -> str:
    text = json.dumps(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _vocabulary(first: Parent, other: Parent) -> Iterator[str]:
    """Token by token: two vocabularies of one size in another order give a merge that speaks neither."""
    theirs, ours = (_tokens(parent) for parent in (first, other))
    for number in sorted(theirs.keys() | ours.keys()):
        if theirs.get(number) != ours.get(number):
            found = [f"{mine!r}" if (mine := item.get(number)) is not None else "missing" for item in (ours, theirs)]
            yield f"its tokenizer has another vocabulary: token {number} is {found[0]}, in {first.name} {found[1]}"


def _tokens(parent: Parent) -> dict[int, str]:
    document = parent.json("tokenizer.json") or {}
    vocabulary = (document.get("model") or {}).get("vocab") or {}
    if isinstance(vocabulary, list):  # Unigram: pairs of a piece and its score, in order
        tokens = {number: str(item[0]) for number, item in enumerate(vocabulary)}
    else:
        tokens = {int(number): token for token, number in vocabulary.items()}
    return tokens | {int(item["id"]): str(item["content"]) for item in document.get("added_tokens") or []}


def _tokenizer(first: Parent, other: Parent) -> Iterator[str]:
    """The files that split text; how special tokens and templates are named is asked for on its own."""
    own = {"tokenizer_config.json", "special_tokens_map.json", "chat_template.jinja"}
    for name in TOKENIZER_FILES:
        if name in own:
            continue
        theirs, ours = (item.folder / name for item in (first, other))
        if theirs.is_file() != ours.is_file():
            yield f"its tokenizer {'has' if ours.is_file() else 'lacks'} {name}, unlike that of {first.name}"
        elif ours.is_file() and not _same_file(first, other, name):
            yield f"its tokenizer differs from that of {first.name} in {name}"


def _same_file(first: Parent, other: Parent, name: str) -> bool:
    if name.endswith(".json"):
        return bool(first.json(name) == other.json(name))
    return (first.folder / name).read_bytes() == (other.folder / name).read_bytes()


def _end(first: Parent, other: Parent) -> Iterator[str]:
    for words, ends in (
        ("tokenizer_config.json", [_end_token(item) for item in (other, first)]),
        (
            "generation_config.json",
            [(item.json("generation_config.json") or {}).get("eos_token_id") for item in (other, first)],
        ),
    ):
        if ends[0] != ends[1]:
            yield f"its end-of-text token ({words}) is {_short(ends[0])}, that of {first.name} is {_short(ends[1])}"


def _end_token(parent: Parent) -> object:
    token = (parent.json("tokenizer_config.json") or {}).get("eos_token")
    return token.get("content") if isinstance(token, dict) else token


def template_of(folder: Path) -> str:
    """The chat template of a checkpoint; empty when it has none."""
    file = folder / "chat_template.jinja"
    if file.is_file():
        return file.read_text(encoding="utf-8")
    config = folder / "tokenizer_config.json"
    found = json.loads(config.read_bytes()).get("chat_template") if config.is_file() else None
    return found if isinstance(found, str) else json.dumps(found) if found else ""


def _template(first: Parent, other: Parent) -> Iterator[str]:
    theirs, ours = template_of(first.folder), template_of(other.folder)
    if theirs == ours:
        return
    if not theirs or not ours:
        yield f"it has {'a' if ours else 'no'} chat template, unlike {first.name}"
    else:
        place = next(
            (i for i, (a, b) in enumerate(zip(theirs, ours, strict=False)) if a != b), min(len(theirs), len(ours))
        )
        yield f"its chat template differs from that of {first.name}, from character {place + 1} on"


def _keys(first: Parent, other: Parent) -> Iterator[str]:
    """A tensor that only one parent has would go through unmerged."""
    theirs, ours = set(first.weights.tensors), set(other.weights.tensors)
    for name in sorted(theirs - ours):
        yield f"it lacks the tensor {name}, which {first.name} has"
    for name in sorted(ours - theirs):
        yield f"it has the tensor {name}, which {first.name} lacks"


def _shapes(first: Parent, other: Parent) -> Iterator[str]:
    for name, theirs in first.weights.tensors.items():
        ours = other.weights.tensors[name]
        if ours.shape != theirs.shape:
            yield f"{name} has the shape {list(ours.shape)}, in {first.name} {list(theirs.shape)}"
        if ours.dtype != theirs.dtype:
            yield f"{name} has the number format {ours.dtype}, in {first.name} {theirs.dtype}"
