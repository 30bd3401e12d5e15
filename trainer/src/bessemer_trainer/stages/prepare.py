"""The verb `prepare`: one data set, cleaned, without duplicates and without evaluation items.

Rows are examined in pieces, by several processes; then one pass over the pieces, in the order of the sources, finds the
duplicates and writes the result. What is rejected is kept beside it with its reason. It decides about rows, never
changes them, and knows no tokenizer.
"""

import contextlib
import json
import shutil
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from bessemer_api.v1alpha1.data import Dedupe
from bessemer_api.v1alpha1.stage import PrepareInputs
from bessemer_trainer.blocks import read_blocks, write_blocks
from bessemer_trainer.context import Context, Outcome
from bessemer_trainer.data import pin_sources, read_lines, require_unchanged
from bessemer_trainer.dedupe import NearDuplicates, Seen
from bessemer_trainer.derive import derived_rows
from bessemer_trainer.errors import PermanentError
from bessemer_trainer.evals.formats import item_text
from bessemer_trainer.examine import HELD, Block, rejection
from bessemer_trainer.pieces import Shelf, Task, count_workers, examined, plan_pieces
from bessemer_trainer.records import joined_text
from bessemer_trainer.store import Store, run_key


def run(context: Context) -> Outcome:
    """Publish the data artifact. Raises PermanentError(SourceChanged | BadRow | NoDocuments | SpecInvalid)."""
    inputs = context.spec.stage.prepare if context.spec.stage else None
    if inputs is None:
        raise PermanentError("SpecInvalid", "stage.prepare: missing; the method prepare needs it")
    task = Task(tuple(inputs.sources), inputs.kind, inputs.rules, _items(context.store, inputs))
    folder = _empty(context.scratch / "prepare")
    shelf = Shelf(context.store, run_key(context.spec.input_digest), context.scratch)
    with Output(folder, inputs) as output:
        pieces = _derived(context, inputs, task) if inputs.derive else _read(context, inputs, task, shelf)
        for path in pieces:
            for block in read_blocks(path):
                output.write(block)
    if not output.counts["documents"]:
        rules = dict(sorted(output.rules.items())) or "no rows"
        raise PermanentError("NoDocuments", f"no document was kept: {rules}")
    digest = context.store.publish(folder, "data", output.meta())
    shelf.clear()
    return Outcome(digest, metrics=_metrics(output.meta()))


def _empty(folder: Path) -> Path:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    return folder


def _items(store: Store, inputs: PrepareInputs) -> tuple[str, ...]:
    if inputs.rules.decontaminate is None:
        return ()
    if not inputs.banks:
        raise PermanentError("SpecInvalid", "prepare.banks: empty; decontaminate needs at least one bank artifact")
    return tuple(item_text(item) for bank in inputs.banks for item in _bank_items(store, bank))


def _bank_items(store: Store, bank: str) -> Iterator[dict[str, Any]]:
    folder = store.fetch(bank)
    for entry in store.manifest(bank).files:
        if entry.path.endswith(".jsonl"):
            yield from read_lines(folder / entry.path)


def _read(context: Context, inputs: PrepareInputs, task: Task, shelf: Shelf) -> Iterator[Path]:
    """The sources, examined, as long as they are what was pinned."""
    require_unchanged("sources", pin_sources(inputs.sources), inputs.content)
    pieces = plan_pieces(task)
    total, done = sum(piece.size for piece in pieces), 0
    for piece, path in examined(task, pieces, shelf, count_workers()):
        yield path
        done += piece.size
        context.progress.update(done, total, "bytes examined")
    if plan_pieces(task) != pieces:
        raise PermanentError("SourceChanged", "a source changed while it was read; run the stage again when it rests")


def _derived(context: Context, inputs: PrepareInputs, task: Task) -> Iterator[Path]:
    """Rows that are made of another set, examined. The set is an artifact, so there is nothing that could change."""
    seed = context.spec.stage.seed if context.spec.stage else 0
    path = context.scratch / "derived"
    write_blocks(path, task.examiner().blocks(derived_rows(context.store, inputs, seed)))
    yield path


class Output:
    """The files of a data artifact. Remembers by key what it has seen, so that the first of equal rows stays."""

    def __init__(self, folder: Path, inputs: PrepareInputs) -> None:
        self._folder = folder
        self._inputs = inputs
        self._duplicates = Duplicates(inputs.rules.dedupe)
        self._open = contextlib.ExitStack()
        self._files: dict[str, BinaryIO] = {}
        self.counts: Counter[str] = Counter()
        self.rules: Counter[str] = Counter()
        self._reported: Counter[str] = Counter()
        self._bytes = 0

    def __enter__(self) -> "Output":
        for name in ("documents", "holdout", "rejected"):
            self._files[name] = self._open.enter_context((self._folder / f"{name}.jsonl").open("wb"))
        return self

    def __exit__(self, *_: object) -> None:
        self._open.close()

    def write(self, block: Block) -> None:
        """Write each row to the file where it belongs. The key of its group decides about the holdout: nothing else."""
        reasons = self._duplicates.reasons(block)
        is_held = (block.groups < np.uint64(int(self._inputs.holdout * 2**64))) | (block.groups == HELD)
        for place, line in enumerate(block.lines):
            if reason := reasons[place]:
                self.rules[reason.partition(":")[0]] += 1
                self._put("rejected", line if place in block.early else self._rejected(block, place, reason))
            else:
                self._put("holdout" if is_held[place] else "documents", line)
                self._bytes += 0 if is_held[place] else int(block.sizes[place])
        self._reported.update(block.reported)

    def _put(self, name: str, line: bytes) -> None:
        self._files[name].write(line + b"\n")
        self.counts[name] += 1

    def _rejected(self, block: Block, place: int, reason: str) -> bytes:
        """A row that would have been kept, as it is written down when it is not."""
        row, number = json.loads(block.lines[place]), int(block.numbers[place])
        source = row["id"].rpartition(":")[0] if number else row["id"]
        entry = rejection(row["id"], source, number, joined_text(row, self._inputs.kind)) | {"reason": reason}
        return json.dumps(entry, ensure_ascii=False, sort_keys=True, separators=(",", ":")).encode()

    def meta(self) -> dict[str, Any]:
        """Counts; equal inputs give equal ones."""
        meta: dict[str, Any] = {name: self.counts[name] for name in ("documents", "holdout", "rejected")}
        meta |= {"rules": dict(sorted(self.rules.items())), "bytes": self._bytes}
        meta |= {"reported": dict(sorted(self._reported.items()))}
        return meta if self._inputs.kind == "text" else meta | {"kind": self._inputs.kind}


class Duplicates:
    """Rows that equal, or nearly equal, an earlier one that was not rejected before."""

    def __init__(self, rules: Dedupe) -> None:
        self._exact = Seen() if rules.exact else None
        self._near = NearDuplicates(rules.minhash) if rules.minhash else None

    def reasons(self, block: Block) -> list[str]:
        """A reason for each row; empty for a row that is kept."""
        reasons = [block.early.get(place, "") for place in range(len(block.lines))]
        for name, seen, keys in (
            ("exactDuplicate", self._exact, block.keys),
            ("nearDuplicate", self._near, block.bands),
        ):
            kept = np.array([place for place, reason in enumerate(reasons) if not reason], dtype=np.int64)
            for place in kept[seen.add(keys[kept])] if seen is not None else ():
                reasons[place] = name
        return [reason or block.late.get(place, "") for place, reason in enumerate(reasons)]


def _metrics(meta: dict[str, Any]) -> dict[str, float]:
    """For the report: totals, and counts by rule without their thresholds."""
    totals = {name: float(meta[name]) for name in ("documents", "holdout", "rejected", "bytes")}
    by_rule: Counter[str] = Counter()
    for kind in ("rules", "reported"):
        for reason, count in meta[kind].items():
            by_rule[f"{'rejected' if kind == 'rules' else kind}.{reason.partition('.')[0]}"] += count
    return totals | {name: float(count) for name, count in sorted(by_rule.items())}
