"""The verb `mixture`: prepared data sets, tokenised, drawn by their weights (see mixing), in the format of a method.

Text is cut into training sequences: each document ends with the tokenizer's end-of-text token. Examples, pairs and
prompts are made of rows as formats.py says; a row that can not be used is kept beside the result with its reason.
Sizes are counted in tokens of the tokenizer that training starts from.
"""

import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy.typing as npt

from bessemer_api.v1alpha1.data import DataKind
from bessemer_api.v1alpha1.stage import MixtureInputs, MixturePart
from bessemer_trainer.chat import FILE as TEMPLATE_FILE
from bessemer_trainer.chat import load_template
from bessemer_trainer.context import Context, Outcome
from bessemer_trainer.data import JsonLines, kind_of, read_lines, write_lines
from bessemer_trainer.errors import PermanentError
from bessemer_trainer.examples import RowReader
from bessemer_trainer.formats import FORMATS, Encoded, Format, Refused, RowCache
from bessemer_trainer.mixing import Draw, draw, drawn_rows, metrics, shares
from bessemer_trainer.packing import SequenceWriter
from bessemer_trainer.records import joined_text
from bessemer_trainer.token_cache import TokenisedPart, Vocabulary, load_vocabulary, tokenise


def run(context: Context) -> Outcome:
    """Publish the mixture artifact. Raises PermanentError(SpecInvalid | TokenizerInvalid | Template... | NoRows)."""
    stage = context.spec.stage
    inputs = stage.mixture if stage else None
    if stage is None or inputs is None or inputs.tokenizer is None:
        raise PermanentError("SpecInvalid", "stage.mixture, stage.mixture.tokenizer: the method mixture needs both")
    tokenizer = context.store.fetch(inputs.tokenizer)
    folder = _empty(context.scratch / "mixture")
    if inputs.format == "text":
        meta = _text(context, inputs, load_vocabulary(tokenizer), folder)
        told = metrics(meta, ("sequences", "tokens", "padding", "holdout"))
    else:
        meta = _rows(context, inputs, tokenizer, folder)
        totals = ("sequences", "pairs", "prompts", "tokens", "targets", "padding", "truncated", "refused", "holdout")
        told = metrics(meta, [name for name in totals if name in meta])
    return Outcome(context.store.publish(folder, "mixture", meta), tokens=meta["tokens"], metrics=told)


def _empty(folder: Path) -> Path:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    return folder


# --- text -------------------------------------------------------------------------------------------------------


def _text(context: Context, inputs: MixtureInputs, vocabulary: Vocabulary, folder: Path) -> dict[str, Any]:
    seed = _seed(context)
    parts = _tokenise_parts(context, inputs, vocabulary, _empty(context.scratch / "tokens"))
    draws = draw([part.lengths for part in parts], [part.weight for part in inputs.parts], seed)
    writer = SequenceWriter(
        folder,
        inputs.sequence_length,
        largest_token=vocabulary.largest,
        padding=vocabulary.padding,
        packing=inputs.packing,
    )
    with writer:
        for document in _drawn_documents(context, parts, draws, seed):
            writer.add(document)
    held = write_lines(folder / "holdout.jsonl", _holdout(context, inputs))
    return {
        "tokenizer": inputs.tokenizer,
        "sequenceLength": inputs.sequence_length,
        "packing": inputs.packing,
        "sequences": writer.sequences,
        "tokens": writer.tokens,
        "padding": writer.sequences * inputs.sequence_length - writer.tokens,
        "holdout": held,
        "parts": shares(inputs, [part.lengths for part in parts], draws),
    }


def _seed(context: Context) -> int:
    return context.spec.stage.seed if context.spec.stage else 0


def _tokenise_parts(
    context: Context, inputs: MixtureInputs, vocabulary: Vocabulary, scratch: Path
) -> list[TokenisedPart]:
    totals = [context.store.manifest(part.digest).meta["documents"] for part in inputs.parts]
    done = 0
    parts = []
    for number, part in enumerate(inputs.parts):

        def tell(count: int, before: int = done, name: str = part.name) -> None:
            context.progress.update(before + count, 2 * sum(totals), f"documents tokenised, now {name}")

        kind = kind_of(context.store, part.digest)
        documents = read_lines(context.store.fetch(part.digest) / "documents.jsonl")
        texts = (joined_text(document, kind) for document in documents)
        parts.append(tokenise(texts, vocabulary, scratch / f"{number}.tokens", tell))
        done += totals[number]
    return parts


def _drawn_documents(
    context: Context, parts: Sequence[TokenisedPart], draws: Sequence[Draw], seed: int
) -> Iterator[npt.NDArray[Any]]:
    """All drawn documents in one shuffled order."""
    count = sum(len(drawn.documents) for drawn in draws)
    for done, (part, number) in enumerate(drawn_rows(draws, seed), start=1):
        yield parts[part].document(number)
        if done % 1024 == 0:
            context.progress.update(count + done, 2 * count, "documents packed")


def _holdout(context: Context, inputs: MixtureInputs) -> Iterator[dict[str, str]]:
    """The documents that were set aside, with the name of their part; never trained on."""
    for part in inputs.parts:
        kind = kind_of(context.store, part.digest)
        for row in read_lines(context.store.fetch(part.digest) / "holdout.jsonl"):
            yield {"id": f"{part.name}/{row['id']}", "part": part.name, "text": joined_text(row, kind)}


# --- examples, pairs, prompts -----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Work:
    """What making rows needs."""

    context: Context
    inputs: MixtureInputs
    form: Format
    refused: Refused
    largest: int
    scratch: Path


def _rows(context: Context, inputs: MixtureInputs, tokenizer: Path, folder: Path) -> dict[str, Any]:
    vocabulary = load_vocabulary(tokenizer)
    reader = RowReader(vocabulary, load_template(inputs.chat_template, tokenizer))
    form = FORMATS[inputs.format](inputs, vocabulary, reader)
    with JsonLines(folder / "rejected.jsonl") as lines:
        scratch = _empty(context.scratch / "tokens")
        work = _Work(context, inputs, form, Refused(lines), vocabulary.largest, scratch)
        caches = [_part(work, place, part) for place, part in enumerate(inputs.parts)]
        held = RowCache(scratch / "holdout", vocabulary.largest, _held(work))
    lengths = [cache.lengths for cache in caches]
    draws = draw(lengths, [part.weight for part in inputs.parts], _seed(context))
    counts = form.write(folder, "", (caches[part].row(row) for part, row in drawn_rows(draws, _seed(context))))
    form.write(folder, "holdout-", (held.row(number) for number in range(len(held.lengths))))
    write_lines(folder / "holdout.jsonl", _holdout(context, inputs))
    return {
        **counts,
        **_template(reader, folder),
        "format": inputs.format,
        "tokenizer": inputs.tokenizer,
        "sequenceLength": inputs.sequence_length,
        "packing": inputs.packing,
        "truncated": sum(cache.truncated for cache in caches),
        "refused": work.refused.counts.total(),
        "refusedBy": dict(sorted(work.refused.counts.items())),
        "holdout": len(held.lengths),
        "endTokens": sorted(reader.ends),
        "parts": shares(inputs, lengths, draws),
    }


def _template(reader: RowReader, folder: Path) -> dict[str, Any]:
    """What the meta says of the template, which checkpoints carry as transformers' standard file."""
    template = reader.template
    if template is None:
        return {"chatTemplate": "none"}
    (folder / TEMPLATE_FILE).write_text(template.source, encoding="utf-8")
    return {"chatTemplate": template.name, "chatTemplateDigest": template.digest}


def _part(work: _Work, place: int, part: MixturePart) -> RowCache:
    """The usable rows of one part; PermanentError(NoRows | WrongKind) when there is none."""
    path = work.scratch / str(place)
    cache = RowCache(path, work.largest, _usable(work, part, "documents.jsonl"))
    if not len(cache.lengths):
        counts = dict(work.refused.counts)
        raise PermanentError("NoRows", f"data set {part.name}: no row can be used in {work.inputs.format}: {counts}")
    return cache


def _held(work: _Work) -> Iterator[Encoded]:
    """Rows that were set aside, in the same format; never trained on."""
    for part in work.inputs.parts:
        yield from _usable(work, part, "holdout.jsonl")


def _usable(work: _Work, part: MixturePart, name: str) -> Iterator[Encoded]:
    store = work.context.store
    kind: DataKind = kind_of(store, part.digest)
    if kind not in work.form.kinds:
        wanted = " or ".join(work.form.kinds)
        raise PermanentError("WrongKind", f"data set {part.name}: expected rows of kind {wanted}, found {kind}")
    total = max(1, store.manifest(part.digest).meta["documents"])
    for done, row in enumerate(read_lines(store.fetch(part.digest) / name), start=1):
        if done % 256 == 0:
            work.context.progress.update(min(done, total), total, f"rows tokenised, now {part.name}")
        made = work.refused.encode(part.name, row, partial(work.form.encode, row, kind))
        if made is not None:
            yield made
