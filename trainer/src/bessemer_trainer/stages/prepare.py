"""The verb `prepare`: one data set, cleaned, without duplicates and without evaluation items.

One pass over the sources in their order, in bounded memory. What is rejected is kept beside the result with its
reason. It decides about documents, never changes them, and knows no tokenizer.
"""

import contextlib
import shutil
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from bessemer_api.v1alpha1.data import Filter, Prepare
from bessemer_api.v1alpha1.stage import PrepareInputs
from bessemer_trainer.contamination import Items, find_items, index_items
from bessemer_trainer.context import Context, Outcome
from bessemer_trainer.data import JsonLines, Row, pin_sources, read_lines, read_rows, require_unchanged
from bessemer_trainer.dedupe import NearDuplicates, Seen, text_keys
from bessemer_trainer.document import Document
from bessemer_trainer.errors import PermanentError
from bessemer_trainer.evals.formats import item_text
from bessemer_trainer.filters import Rule, build_rule
from bessemer_trainer.ngrams import U64, Words, count_hits, hash_words, ngrams, normalise, sorted_unique
from bessemer_trainer.sources import SourceFile, list_files
from bessemer_trainer.store import Store

_BATCH_ROWS = 256
_BATCH_CHARACTERS = 1 << 20


def run(context: Context) -> Outcome:
    """Publish the data artifact. Raises PermanentError(SourceChanged | BadRow | NoDocuments | SpecInvalid)."""
    inputs = context.spec.stage.prepare if context.spec.stage else None
    if inputs is None:
        raise PermanentError("SpecInvalid", "stage.prepare: missing; the method prepare needs it")
    require_unchanged("sources", pin_sources(inputs.sources), inputs.content)
    before = _files(inputs)
    folder = _empty(context.scratch / "prepare")
    judge = Judge(inputs.rules, _bank_index(context.store, inputs))
    with Output(folder, inputs.holdout) as output:
        _prepare(context, inputs, judge, output)
    if _files(inputs) != before:
        raise PermanentError("SourceChanged", "a source changed while it was read; run the stage again when it rests")
    if not output.documents.count:
        raise PermanentError("NoDocuments", f"no document was kept: {dict(sorted(output.counts.items())) or 'no rows'}")
    meta = output.meta() | {"reported": dict(sorted(judge.reported.items()))}
    if inputs.kind != "text":
        meta["kind"] = inputs.kind
    return Outcome(context.store.publish(folder, "data", meta), metrics=_metrics(meta))


def _files(inputs: PrepareInputs) -> list[list[SourceFile]]:
    return [list_files(source.uri) for source in inputs.sources]


def _empty(folder: Path) -> Path:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    return folder


def _prepare(context: Context, inputs: PrepareInputs, judge: "Judge", output: "Output") -> None:
    total = sum(file.size for files in _files(inputs) for file in files)
    done = 0
    for batch in _batches(read_rows(inputs.sources, inputs.kind)):
        _fail_on_bad_row(batch, inputs.rules)
        words = hash_words([normalise(row.text) for row in batch])
        keys = text_keys([row.text for row in batch])
        groups = keys if inputs.kind == "text" else text_keys([row.group for row in batch])
        output.write(batch, judge.reasons(batch, words, keys), groups)
        done += sum(len(row.text) for row in batch)
        context.progress.update(min(done, total), total, f"{output.documents.count} documents kept")


def _batches(rows: Iterator[Row]) -> Iterator[list[Row]]:
    batch: list[Row] = []
    size = 0
    for row in rows:
        batch.append(row)
        size += len(row.text)
        if len(batch) == _BATCH_ROWS or size >= _BATCH_CHARACTERS:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


def _fail_on_bad_row(batch: Sequence[Row], rules: Prepare) -> None:
    bad = next((row for row in batch if row.error), None)
    if bad is not None and rules.on_bad_row == "fail":
        hint = "mend it, or set onBadRow: reject to keep it beside the result"
        raise PermanentError("BadRow", f"{bad.where}: {bad.error}; {hint}")


@dataclass(frozen=True, slots=True)
class BankIndex:
    """What must not be trained on: the items themselves, and their sorted n-gram hashes for maxHitRatio."""

    items: Items
    hashes: U64


def _bank_index(store: Store, inputs: PrepareInputs) -> BankIndex | None:
    rule = inputs.rules.decontaminate
    if rule is None:
        return None
    if not inputs.banks:
        raise PermanentError("SpecInvalid", "prepare.banks: empty; decontaminate needs at least one bank artifact")
    texts = [item_text(item) for bank in inputs.banks for item in _items(store, bank)]
    words = hash_words([normalise(text) for text in texts]).hashes
    return BankIndex(index_items(texts), sorted_unique(ngrams(words, rule.ngram).values))


def _items(store: Store, bank: str) -> Iterator[dict[str, Any]]:
    folder = store.fetch(bank)
    for entry in store.manifest(bank).files:
        if entry.path.endswith(".jsonl"):
            yield from read_lines(folder / entry.path)


class Judge:
    """Says of each document why it is rejected, rule by rule in the declared order. Remembers what it has seen."""

    def __init__(self, rules: Prepare, bank: BankIndex | None) -> None:
        self._rules = rules
        self._filters: list[tuple[Filter, Rule]] = [(declared, build_rule(declared)) for declared in rules.filters]
        self._bank = bank
        self._exact = Seen()
        self._near = NearDuplicates(rules.dedupe.minhash) if rules.dedupe.minhash else None
        self.reported: Counter[str] = Counter()

    def reasons(self, batch: Sequence[Row], words: Words, keys: U64) -> list[str]:
        """A reason for each row; empty for a document that is kept."""
        reasons = [f"badRow: {row.error}" if row.error else "" for row in batch]
        if self._filters:
            self._filter(batch, words, reasons)
        if self._rules.dedupe.exact:
            kept = _kept(reasons)
            _reject(reasons, kept[self._exact.add(keys[kept])], "exactDuplicate")
        if self._near:
            kept = _kept(reasons)
            _reject(reasons, kept[self._near.add(words.hashes.take(kept))], "nearDuplicate")
        if self._bank:
            self._decontaminate(words, self._bank, reasons)
        shortest = max(1, self._rules.min_characters)
        short = [place for place, row in enumerate(batch) if len(row.text.strip()) < shortest]
        _reject(reasons, np.array(short, dtype=np.int64), "minCharacters")
        return reasons

    def _filter(self, batch: Sequence[Row], words: Words, reasons: list[str]) -> None:
        offsets = words.hashes.offsets
        for place, row in enumerate(batch):
            if not reasons[place]:
                lengths = words.lengths[offsets[place] : offsets[place + 1]]
                reasons[place] = self._problem(Document(row.text, words.hashes.of(place), lengths))

    def _problem(self, document: Document) -> str:
        for declared, rule in self._filters:
            problem = rule.problem(document)
            if problem and declared.mode == "enforce":
                return f"{declared.name}.{problem}"
            if problem:
                self.reported[f"{declared.name}.{problem}"] += 1
        return ""

    def _decontaminate(self, words: Words, bank: BankIndex, reasons: list[str]) -> None:
        rule = self._rules.decontaminate
        if rule is not None:
            _reject(reasons, find_items(words.hashes, bank.items)[0], "contaminated")
            hits, counts = count_hits(words.hashes, bank.hashes, rule.ngram)
            _reject(reasons, np.flatnonzero(hits > rule.max_hit_ratio * counts), "contaminated")


def _kept(reasons: Sequence[str]) -> Any:  # noqa: ANN401 - an integer index array
    return np.array([place for place, reason in enumerate(reasons) if not reason], dtype=np.int64)


def _reject(reasons: list[str], places: Any, why: str) -> None:  # noqa: ANN401 - an integer index array
    for place in places:
        reasons[place] = reasons[place] or why


class Output:
    """The files of a data artifact."""

    def __init__(self, folder: Path, holdout: float) -> None:
        self._holdout = holdout
        self._files = contextlib.ExitStack()
        self.documents = JsonLines(folder / "documents.jsonl")
        self.holdout = JsonLines(folder / "holdout.jsonl")
        self.rejected = JsonLines(folder / "rejected.jsonl")
        self.counts: Counter[str] = Counter()
        self.bytes = 0

    def __enter__(self) -> "Output":
        for file in (self.documents, self.holdout, self.rejected):
            self._files.enter_context(file)
        return self

    def __exit__(self, *_: object) -> None:
        self._files.close()

    def write(self, batch: Sequence[Row], reasons: Sequence[str], groups: U64) -> None:
        """Write each row to the file where it belongs. The key of its group decides about the holdout: nothing else."""
        is_held = groups < np.uint64(int(self._holdout * 2**64))
        for place, row in enumerate(batch):
            if reasons[place]:
                self._reject(row, reasons[place])
            elif is_held[place]:
                self.holdout.write({**row.fields, "id": row.id})
            else:
                self.bytes += len(row.text.encode())
                self.documents.write({**row.fields, "id": row.id})

    def _reject(self, row: Row, reason: str) -> None:
        self.counts[reason.partition(":")[0]] += 1
        entry = {"id": row.id, "source": row.source, "row": row.row, "reason": reason, "text": row.text}
        self.rejected.write(entry)

    def meta(self) -> dict[str, Any]:
        return {
            "documents": self.documents.count,
            "holdout": self.holdout.count,
            "rejected": self.rejected.count,
            "rules": dict(sorted(self.counts.items())),
            "bytes": self.bytes,
        }


def _metrics(meta: dict[str, Any]) -> dict[str, float]:
    """For the report: totals, and counts by rule without their thresholds."""
    totals = {name: float(meta[name]) for name in ("documents", "holdout", "rejected", "bytes")}
    by_rule: Counter[str] = Counter()
    for kind in ("rules", "reported"):
        for reason, count in meta[kind].items():
            by_rule[f"{'rejected' if kind == 'rules' else kind}.{reason.partition('.')[0]}"] += count
    return totals | {name: float(count) for name, count in sorted(by_rule.items())}
