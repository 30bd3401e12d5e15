"""The verb `mixture`: prepared data sets, tokenised, drawn by their weights, and cut into training sequences.

Definition: the first part is drawn exactly once. Part i gives tokens(first) * weight(i) / weight(first) tokens, to the
nearest whole document: it is repeated, shuffled anew each time, or cut short. All drawn documents are shuffled.
Each ends with the tokenizer's end-of-text token. Sizes are counted in tokens of this tokenizer.
"""

import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from bessemer_api.v1alpha1.stage import MixtureInputs
from bessemer_trainer.context import Context, Outcome
from bessemer_trainer.data import read_lines, write_lines
from bessemer_trainer.errors import PermanentError
from bessemer_trainer.packing import SequenceWriter
from bessemer_trainer.token_cache import TokenisedPart, Vocabulary, load_vocabulary, tokenise

I64 = npt.NDArray[np.int64]
_METRICS = 24


def run(context: Context) -> Outcome:
    """Publish the mixture artifact. Raises PermanentError(SpecInvalid | TokenizerInvalid)."""
    stage = context.spec.stage
    inputs = stage.mixture if stage else None
    if stage is None or inputs is None or inputs.tokenizer is None:
        raise PermanentError("SpecInvalid", "stage.mixture, stage.mixture.tokenizer: the method mixture needs both")
    vocabulary = load_vocabulary(context.store.fetch(inputs.tokenizer))
    scratch, folder = _empty(context.scratch / "tokens"), _empty(context.scratch / "mixture")
    parts = _tokenise_parts(context, inputs, vocabulary, scratch)
    draws = draw([part.lengths for part in parts], [part.weight for part in inputs.parts], stage.seed)
    writer = SequenceWriter(
        folder,
        inputs.sequence_length,
        largest_token=vocabulary.largest,
        padding=vocabulary.padding,
        packing=inputs.packing,
    )
    with writer:
        for document in _drawn_documents(context, parts, draws, stage.seed):
            writer.add(document)
    held = write_lines(folder / "holdout.jsonl", _holdout(context, inputs))
    meta = {
        "tokenizer": inputs.tokenizer,
        "sequenceLength": inputs.sequence_length,
        "packing": inputs.packing,
        "sequences": writer.sequences,
        "tokens": writer.tokens,
        "padding": writer.sequences * inputs.sequence_length - writer.tokens,
        "holdout": held,
        "parts": _shares(inputs, parts, draws),
    }
    digest = context.store.publish(folder, "mixture", meta)
    return Outcome(digest, tokens=writer.tokens, metrics=_metrics(meta))


def _empty(folder: Path) -> Path:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    return folder


def _tokenise_parts(
    context: Context, inputs: MixtureInputs, vocabulary: Vocabulary, scratch: Path
) -> list[TokenisedPart]:
    totals = [context.store.manifest(part.digest).meta["documents"] for part in inputs.parts]
    done = 0
    parts = []
    for number, part in enumerate(inputs.parts):

        def tell(count: int, before: int = done, name: str = part.name) -> None:
            context.progress.update(before + count, 2 * sum(totals), f"documents tokenised, now {name}")

        documents = read_lines(context.store.fetch(part.digest) / "documents.jsonl")
        texts = (str(document["text"]) for document in documents)
        parts.append(tokenise(texts, vocabulary, scratch / f"{number}.tokens", tell))
        done += totals[number]
    return parts


@dataclass(frozen=True, slots=True)
class Draw:
    """Documents that one part gives, in the order drawn: numbers within the part."""

    documents: I64
    tokens: int


def draw(lengths: Sequence[I64], weights: Sequence[float], seed: int) -> list[Draw]:
    """What each part gives. `lengths` are tokens of each document, by part; `weights` are relative shares of tokens."""
    first = int(lengths[0].sum())
    targets = [round(first * weight / weights[0]) for weight in weights]
    return [
        _draw_part(part, target, seed, number)
        for number, (part, target) in enumerate(zip(lengths, targets, strict=True))
    ]


def _draw_part(lengths: I64, target: int, seed: int, number: int) -> Draw:
    """Whole passes, then the start of one more, to the document where the sum is nearest to `target`; at least one."""
    random = np.random.Generator(np.random.PCG64([seed, number]))
    passes, rest = divmod(target, int(lengths.sum()))
    orders = [random.permutation(len(lengths)) for _ in range(passes + 1)]
    sums = np.concatenate([[0], np.cumsum(lengths[orders[-1]])])
    nearest = int(np.abs(sums - rest).argmin())
    orders[-1] = orders[-1][: nearest or int(passes == 0)]
    documents = np.concatenate(orders)
    return Draw(documents, int(lengths[documents].sum()))


def _drawn_documents(
    context: Context, parts: Sequence[TokenisedPart], draws: Sequence[Draw], seed: int
) -> Iterator[npt.NDArray[Any]]:
    """All drawn documents in one shuffled order."""
    owners = np.repeat(np.arange(len(draws)), [len(drawn.documents) for drawn in draws])
    numbers = np.concatenate([drawn.documents for drawn in draws])
    order = np.random.Generator(np.random.PCG64([seed, len(draws)])).permutation(len(numbers))
    for done, place in enumerate(order, start=1):
        yield parts[owners[place]].document(int(numbers[place]))
        if done % 1024 == 0:
            context.progress.update(len(order) + done, 2 * len(order), "documents packed")


def _holdout(context: Context, inputs: MixtureInputs) -> Iterator[dict[str, str]]:
    """The documents that were set aside, with the name of their part; never trained on."""
    for part in inputs.parts:
        for document in read_lines(context.store.fetch(part.digest) / "holdout.jsonl"):
            yield {"id": f"{part.name}/{document['id']}", "part": part.name, "text": document["text"]}


def _shares(inputs: MixtureInputs, parts: Sequence[TokenisedPart], draws: Sequence[Draw]) -> list[dict[str, Any]]:
    """What each part really gave."""
    total = sum(drawn.tokens for drawn in draws)
    return [
        {
            "name": declared.name,
            "digest": declared.digest,
            "weight": declared.weight,
            "documents": len(part.lengths),
            "rows": len(drawn.documents),
            "tokens": drawn.tokens,
            "repeats": round(drawn.tokens / int(part.lengths.sum()), 6),
            "share": round(drawn.tokens / total, 6),
        }
        for declared, part, drawn in zip(inputs.parts, parts, draws, strict=True)
    ]


def _metrics(meta: dict[str, Any]) -> dict[str, float]:
    """Totals, then share, repeats, tokens and rows by part as far as a report holds them; the rest is in the meta."""
    totals = {name: float(meta[name]) for name in ("sequences", "tokens", "padding", "holdout")}
    by_part = {
        f"{figure}.{part['name']}": float(part[figure])
        for figure in ("share", "repeats", "tokens", "rows")
        for part in meta["parts"]
    }
    return dict(list((totals | by_part).items())[:_METRICS])
