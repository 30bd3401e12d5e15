"""Preparation by several processes, in pieces, and after an interruption: the same bytes as by one in one go."""

import gzip
import json
import lzma
import os
import random
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard

from bessemer_trainer import pieces
from bessemer_trainer.errors import PermanentError
from bessemer_trainer.pieces import WORKERS_ENV
from tests.trainer.data.world import World, document, items

RULES: dict[str, Any] = {
    "dedupe": {"minhash": {}},
    "filters": [{"name": "gopherQuality", "thresholds": {"minWords": 55}}, {"name": "c4", "mode": "report"}],
    "decontaminate": {"against": ["bank"]},
}


@pytest.fixture
def mixed(world: World) -> tuple[list[str], str]:
    """A folder of every format, with duplicates across files, contaminated and bad rows; and a bank."""
    dice = random.Random(11)
    bank = items(30, dice)
    texts = [document(dice, dice.randrange(3, 9)) for _ in range(400)]
    texts += texts[50:90] + [f"{text} Or so." for text in texts[120:150]]
    texts += [f"{document(dice, 6)} {item['prompt']} {item['choices'][item['answer']]}" for item in bank]
    dice.shuffle(texts)
    lines = [json.dumps({"text": text}) for text in texts]
    lines[100] = "{"
    world.write("set/a.jsonl", lines[:180])
    world.write_bytes("set/b.jsonl.gz", gzip.compress("\n".join(lines[180:240]).encode()))
    world.write_bytes("set/c.jsonl.xz", lzma.compress("\n".join(lines[240:300]).encode()))
    packed = b"".join(zstandard.compress("\n".join(part).encode() + b"\n") for part in (lines[300:330], lines[330:360]))
    world.write_bytes("set/d.jsonl.zst", packed)
    for number, text in enumerate(texts[360:380]):
        world.write_bytes(f"set/e/{number}.txt", text.encode())
    table = pa.table({"text": texts[380:], "other": list(range(len(texts) - 380))})
    pq.write_table(table, world.root / "sources" / "set" / "f.parquet", row_group_size=17)
    digest = world.bank(world.write("bank.jsonl", bank), 10, 20).output_digest
    assert digest
    return [str(world.root / "sources" / "set")], digest


def test_any_number_of_processes_gives_the_same_bytes(
    world: World, mixed: tuple[list[str], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    uris, bank = mixed
    monkeypatch.setenv(WORKERS_ENV, "1")
    whole = world.prepare(uris, RULES, banks=[bank], holdout=0.1)
    assert len(whole.documents) > 300
    assert {reason.partition(":")[0].partition(".")[0] for reason in whole.reasons} == {
        "badRow",
        "contaminated",
        "exactDuplicate",
        "gopherQuality",
        "nearDuplicate",
    }
    planned = pieces.plan_pieces
    monkeypatch.setattr("bessemer_trainer.stages.prepare.plan_pieces", lambda task: planned(task, 20_000))
    for workers in ("1", "2", "3"):
        monkeypatch.setenv(WORKERS_ENV, workers)
        assert world.prepare(uris, RULES, banks=[bank], holdout=0.1).outcome == whole.outcome


def test_work_is_cut_in_many_pieces_and_every_row_keeps_its_number(world: World, mixed: tuple[list[str], str]) -> None:
    uris, _ = mixed
    from bessemer_api.v1alpha1.data import Prepare, Source
    from bessemer_trainer.rows import read_span

    sources = (Source.model_validate({"uri": uris[0]}),)
    task = pieces.Task(sources, "text", Prepare.model_validate({}), ())
    small, large = pieces.plan_pieces(task, 10_000), pieces.plan_pieces(task, 1 << 30)
    assert (len(small) > 15, len(large)) == (True, 1)
    assert len({piece.name for piece in small + large}) == len(small) + 1

    def rows(plan: list[pieces.Piece]) -> list[Any]:
        return [row for piece in plan for span in piece.spans for row in read_span(span, sources[0], "text")]

    assert rows(small) == rows(large)
    assert [row.row for row in rows(small) if row.source == "0/a.jsonl"] == list(range(1, 181))
    assert [row.row for row in rows(small) if row.source == "0/f.parquet"] == list(range(1, 1 + 500 - 380))


def test_an_interrupted_preparation_goes_on_from_its_finished_pieces(
    world: World, mixed: tuple[list[str], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    uris, bank = mixed
    whole = world.prepare(uris, RULES, banks=[bank], holdout=0.1)
    planned, examine = pieces.plan_pieces, pieces._examine
    monkeypatch.setattr("bessemer_trainer.stages.prepare.plan_pieces", lambda task: planned(task, 20_000))
    done: list[str] = []

    def fail_at_the_fifth(task: Any, examiner: Any, piece: Any, path: Path) -> None:
        if len(done) == 5:
            path.write_bytes(b"half of a piece")
            raise KeyboardInterrupt
        examine(task, examiner, piece, path)
        done.append(piece.name)

    monkeypatch.setenv(WORKERS_ENV, "1")
    monkeypatch.setattr(pieces, "_examine", fail_at_the_fifth)
    with pytest.raises(KeyboardInterrupt):
        world.prepare(uris, RULES, banks=[bank], holdout=0.1)
    kept = sorted(path.name for path in (world.root / "store" / "runs").rglob("pieces/*") if path.name[0] != ".")
    assert kept == sorted(done)
    damaged = next((world.root / "store" / "runs").rglob(f"pieces/{done[2]}"))
    damaged.write_bytes(damaged.read_bytes()[:-40] + b"x" * 40)
    first, done[:] = list(done), []

    def examine_and_tell(task: Any, examiner: Any, piece: Any, path: Path) -> None:
        examine(task, examiner, piece, path)
        done.append(piece.name)

    monkeypatch.setattr(pieces, "_examine", examine_and_tell)
    again = world.prepare(uris, RULES, banks=[bank], holdout=0.1)
    assert again.outcome == whole.outcome
    assert set(done) & set(first) == {first[2]}
    assert not list((world.root / "store" / "runs").rglob("pieces/*"))


def test_a_bad_row_of_any_process_is_the_first_one_of_the_sources(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    planned = pieces.plan_pieces
    monkeypatch.setattr("bessemer_trainer.stages.prepare.plan_pieces", lambda task: planned(task, 1000))
    monkeypatch.setenv(WORKERS_ENV, "2")
    lines = [json.dumps({"text": f"row {number} {'x' * 90}"}) for number in range(100)]
    lines[40] = lines[80] = "{"
    uri = world.write("a.jsonl", lines)
    with pytest.raises(PermanentError, match=r"a\.jsonl:41: not JSON") as refused:
        world.prepare([uri], {"onBadRow": "fail"})
    assert refused.value.reason == "BadRow"


SLOW = """
import sys, time
from concurrent.futures import ProcessPoolExecutor
from bessemer_api.v1alpha1.data import Prepare
from bessemer_trainer import pieces
if __name__ == "__main__":
    with pieces._pool(pieces.Task((), "text", Prepare.model_validate({}), ()), 2) as pool:
        futures = [pool.submit(time.sleep, 300) for _ in range(2)]
        children = pieces.multiprocessing.active_children()
        print(*[child.pid for child in children], flush=True)
        futures[0].result()
"""


@pytest.mark.parametrize("killed_by", [signal.SIGKILL, signal.SIGTERM])
def test_no_process_outlives_the_one_that_started_it(tmp_path: Path, killed_by: signal.Signals) -> None:
    script = tmp_path / "slow.py"
    script.write_text(SLOW)
    parent = subprocess.Popen([sys.executable, str(script)], stdout=subprocess.PIPE, text=True)
    assert parent.stdout
    with parent.stdout:
        children = [int(number) for number in parent.stdout.readline().split()]
    parent.send_signal(killed_by)
    parent.wait(timeout=60)
    assert len(children) >= 1
    for child in children:
        descriptor = None
        try:
            descriptor = os.pidfd_open(child)
        except ProcessLookupError:
            continue
        try:
            import select

            assert select.select([descriptor], [], [], 30)[0]
        finally:
            os.close(descriptor)


NAMES = {"gz": "gzip", "zst": "zstandard", "xz": "xz"}


@pytest.mark.parametrize("suffix", ["gz", "zst", "xz"])
@pytest.mark.parametrize("how", ["cut off", "damaged", "something else"])
def test_packed_file_that_is_not_whole_is_named(world: World, suffix: str, how: str) -> None:
    data = b"".join(b'{"text": "%d"}\n' % number for number in range(20_000))
    packed = {"gz": gzip.compress, "zst": zstandard.compress, "xz": lzma.compress}[suffix](data)
    middle = len(packed) // 2
    broken = {"cut off": packed[:middle], "damaged": packed[:middle] + b"x" * 99, "something else": b"text"}[how]
    with pytest.raises(PermanentError, match=rf"a\.jsonl\.{suffix}: not a complete {NAMES[suffix]} file") as refused:
        world.prepare([world.write_bytes(f"a.jsonl.{suffix}", broken)])
    assert refused.value.reason == "SourceInvalid"


def parquet(world: World, table: dict[str, list[Any]]) -> str:
    path = world.root / "sources" / "a.parquet"
    path.parent.mkdir(exist_ok=True)
    pq.write_table(pa.table(table), path)
    return str(path)


def test_parquet_columns_hold_rows_of_any_kind(world: World) -> None:
    chat = [[{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}]]
    assert world.prepare([parquet(world, {"messages": chat})], kind="messages").documents == [
        {"id": "0/a.parquet:1", "messages": chat[0]}
    ]
    columns = {"prompt": ["1 + 1"], "answer": [2], "why": [None]}
    assert world.prepare([parquet(world, columns)], kind="prompts").documents == [
        {"id": "0/a.parquet:1", "prompt": "1 + 1", "answer": 2, "why": None}
    ]


def test_what_is_wrong_with_a_parquet_file_is_told(world: World) -> None:
    with pytest.raises(PermanentError, match=r"column 'text': no such column; the columns are 'body'"):
        world.prepare([parquet(world, {"body": ["a"]})])
    rows = world.prepare([parquet(world, {"text": ["a", None, "b"]})])
    assert (rows.texts, rows.reasons) == (["a", "b"], ["badRow: field 'text': expected a string, found no such field"])
    with pytest.raises(PermanentError, match=r"a\.parquet: not a Parquet file"):
        world.prepare([world.write_bytes("a.parquet", b"PAR1 but no more")])
