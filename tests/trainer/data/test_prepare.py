"""Prepare: what is kept, what is rejected and why, what is set aside; the same bytes every time."""

import gzip
import json
import random
from pathlib import Path
from typing import Any

import pytest

from bessemer_trainer import pieces
from bessemer_trainer.errors import PermanentError
from tests.trainer.data.world import World, document, items, sentence

MINHASH: dict[str, Any] = {"dedupe": {"minhash": {}}}


@pytest.fixture
def dice() -> random.Random:
    return random.Random(7)


def rows(texts: list[str]) -> list[dict[str, Any] | str]:
    return [{"text": text} for text in texts]


def test_documents_are_kept_as_they_are_in_their_order(world: World, dice: random.Random) -> None:
    texts = [document(dice) for _ in range(600)] + ["  Ünïcode\n\n\twith “quotes”  ", "e" * 70_000]
    data = world.prepare([world.write("a.jsonl", rows(texts))])
    assert data.texts == texts
    assert (data.holdout, data.rejected) == ([], [])
    assert data.documents[1]["id"] == "0/a.jsonl:2"


def test_all_formats_and_folders_are_read(world: World) -> None:
    world.write("set/b.jsonl", rows(["from jsonl"]))
    world.write_bytes("set/c.json.gz", gzip.compress(b'{"text": "from gzip"}\n'))
    world.write_bytes("set/a.txt", "\ufefffrom\ntext".encode())
    world.write_bytes("set/d/e.txt.gz", gzip.compress(b"from gzipped text"))
    data = world.prepare([str(world.root / "sources" / "set")])
    found = {entry["id"]: entry["text"] for entry in data.documents}
    assert found == {
        "0/a.txt": "from\ntext",
        "0/b.jsonl:1": "from jsonl",
        "0/c.json.gz:1": "from gzip",
        "0/d/e.txt.gz": "from gzipped text",
    }


def test_text_field_is_the_one_that_the_source_names(world: World) -> None:
    sources = [{"uri": world.write("a.jsonl", [{"abstract": "found", "text": "not this"}]), "textField": "abstract"}]
    content = world.resolve(data={"set": sources}).contents["data/set"]
    outcome = world.run("stage", "prepare", prepare={"sources": sources, "content": content, "rules": {}})
    assert json.loads((world.folder(outcome) / "documents.jsonl").read_text())["text"] == "found"


def test_two_runs_give_byte_equal_artifacts(world: World, dice: random.Random) -> None:
    texts = [document(dice) for _ in range(300)]
    uri = world.write("a.jsonl", [*rows(texts + texts[:50]), "{"])
    rules = MINHASH | {"filters": [{"name": "gopherQuality"}, {"name": "gopherRepetition", "mode": "report"}]}
    first, second = (world.prepare([uri], rules, holdout=0.1) for _ in range(2))
    assert first.outcome == second.outcome


BAD_ROWS = [
    pytest.param(b"{", "not JSON: Expecting property name", id="JSON cut short"),
    pytest.param(b"[1]", "expected a JSON object, found list", id="no object"),
    pytest.param(b'{"txt": "a"}', "field 'text': expected a string, found no such field", id="no text field"),
    pytest.param(b'{"text": 5}', "field 'text': expected a string, found int", id="a text that is a number"),
    pytest.param(b'{"text": "\xff\xfe"}', "not UTF-8 at byte 10", id="another encoding"),
    pytest.param(b'{"text": "\\ud800"}', "half a surrogate pair at character 0", id="half a surrogate pair"),
    pytest.param(b"[" * 100_000, "nesting too deep", id="deep nesting"),
    pytest.param(b'{"text": ' + b"1" * 10_000 + b"}", "number is too long", id="a number of 10,000 digits"),
    pytest.param(b"\x00", "not JSON", id="a zero byte"),
]


@pytest.mark.parametrize(("line", "message"), BAD_ROWS)
def test_bad_row_is_kept_beside_the_result_with_its_reason(world: World, line: bytes, message: str) -> None:
    data = world.prepare([world.write_bytes("a.jsonl", b'{"text": "good"}\n' + line + b'\n{"text": "fine"}\n')])
    assert data.texts == ["good", "fine"]
    (rejected,) = data.rejected
    assert (rejected["source"], rejected["row"]) == ("0/a.jsonl", 2)
    assert rejected["reason"].startswith("badRow: ")
    assert message in rejected["reason"]
    assert data.outcome.metrics["rejected.badRow"] == 1


@pytest.mark.parametrize(("line", "message"), BAD_ROWS)
def test_bad_row_fails_the_stage_with_file_and_line_where_asked(world: World, line: bytes, message: str) -> None:
    uri = world.write_bytes("a.jsonl", b'{"text": "good"}\n' + line + b"\n")
    with pytest.raises(PermanentError, match=message) as refused:
        world.prepare([uri], {"onBadRow": "fail"})
    assert refused.value.reason == "BadRow"
    assert refused.value.message.startswith(f"{uri}:2: ")


def test_text_file_in_another_encoding_is_a_bad_row_with_its_line(world: World) -> None:
    world.write_bytes("set/a.txt", b"good\n" + "Müller".encode("latin-1"))
    world.write_bytes("set/b.txt", b"fine")
    data = world.prepare([str(world.root / "sources" / "set")])
    assert data.texts == ["fine"]
    assert (data.rejected[0]["row"], data.reasons) == (2, ["badRow: not UTF-8 at byte 6 (line 2)"])


@pytest.mark.parametrize(
    ("content", "counts"),
    [
        pytest.param(b"", "no rows", id="an empty file"),
        pytest.param(b"\n\n", "no rows", id="empty lines"),
        pytest.param(b'{"text": " "}\n', "{'minCharacters': 1}", id="a blank document"),
        pytest.param(b"x\ny\n", "{'badRow': 2}", id="bad rows alone"),
    ],
)
def test_data_without_any_document_is_refused_with_counts(world: World, content: bytes, counts: str) -> None:
    with pytest.raises(PermanentError) as refused:
        world.prepare([world.write_bytes("a.jsonl", content)])
    assert (refused.value.reason, refused.value.message) == ("NoDocuments", f"no document was kept: {counts}")


def test_sources_that_changed_since_they_were_resolved_are_refused(world: World) -> None:
    sources = [{"uri": world.write("a.jsonl", rows(["old"]))}]
    content = world.resolve(data={"set": sources}).contents["data/set"]
    world.write("a.jsonl", rows(["new"]))
    with pytest.raises(PermanentError, match=f"but {content} was found when the pipeline was resolved") as refused:
        world.run("stage", "prepare", prepare={"sources": sources, "content": content, "rules": {}})
    assert refused.value.reason == "SourceChanged"


def test_source_that_changes_while_it_is_read_is_refused(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    uri = world.write("a.jsonl", rows(["old"]))

    def read_and_append(*task: Any) -> Any:
        yield from pieces.examined(*task)
        world.write("a.jsonl", rows(["old", "new"]))

    monkeypatch.setattr("bessemer_trainer.stages.prepare.examined", read_and_append)
    with pytest.raises(PermanentError, match="changed while it was read"):
        world.prepare([uri])


def test_equal_documents_are_dropped_but_the_first(world: World, dice: random.Random) -> None:
    texts = [document(dice) for _ in range(600)]
    again = ["  " + text.replace(" ", "\n", 2) for text in texts[:100]]
    data = world.prepare([world.write("a.jsonl", rows(texts + again))])
    assert data.texts == texts
    assert data.reasons == ["exactDuplicate"] * 100


@pytest.mark.parametrize("pair", [("a - b", "a + b"), ("!!!", "???"), ("US", "us"), ("x = 1.5", "x = 15")])
def test_documents_that_differ_in_more_than_white_space_are_no_exact_duplicates(
    world: World, pair: tuple[str, str]
) -> None:
    assert world.prepare([world.write("a.jsonl", rows(list(pair)))]).texts == list(pair)


def test_exact_duplicates_stay_where_the_rule_is_off(world: World) -> None:
    data = world.prepare([world.write("a.jsonl", rows(["same", "same"]))], {"dedupe": {"exact": False}})
    assert data.texts == ["same", "same"]


def near(text: str, dice: random.Random) -> str:
    """The same document with one word of some 140 changed: Jaccard similarity over 5-grams of about 0.93."""
    words = text.split()
    words[dice.randrange(len(words))] = "altered"
    return " ".join(words)


def test_planted_near_duplicates_are_found_and_nothing_else(world: World, dice: random.Random) -> None:
    originals = [document(dice) for _ in range(1000)]
    planted = [near(text, dice) for text in originals[:500]]
    mixed = [(text, True) for text in planted] + [(document(dice), False) for _ in range(500)]
    dice.shuffle(mixed)
    data = world.prepare([world.write("a.jsonl", rows(originals + [text for text, _ in mixed]))], MINHASH)
    dropped = {entry["text"] for entry in data.rejected if entry["reason"] == "nearDuplicate"}
    found = len(dropped.intersection(planted))
    recall, precision = found / len(planted), found / len(dropped)
    assert (recall >= 0.99, precision >= 0.99) == (True, True), (recall, precision)


def test_documents_without_words_are_no_near_duplicates(world: World) -> None:
    texts = ["!!!", "???", "one word", "another word"]
    assert world.prepare([world.write("a.jsonl", rows(texts))], MINHASH).texts == texts


@pytest.fixture
def bank(world: World) -> tuple[str, list[dict[str, Any]]]:
    """A bank of long and short items; all of them are in it."""
    dice = random.Random(8)
    long = items(20, dice)
    short = [item | {"id": f"s{place}", "prompt": f"Term{place} denotes"} for place, item in enumerate(items(20, dice))]
    outcome = world.bank(world.write("bank.jsonl", long + short), 10, 30)
    assert outcome.output_digest
    return outcome.output_digest, long + short


def test_documents_that_hold_an_item_are_rejected_and_others_kept(
    world: World, bank: tuple[str, list[dict[str, Any]]], dice: random.Random
) -> None:
    digest, all_items = bank
    golds = [f"{item['prompt']}: {item['choices'][item['answer']].upper()}." for item in all_items]
    planted = [f"{sentence(dice)} {gold} {sentence(dice)}" for gold in golds] + golds
    clean = [document(dice, 3) for _ in range(200)]
    wrong = [
        f"{item['prompt']} {item['choices'][(item['answer'] + 1) % 4]}" for item in all_items if len(item["id"]) < 4
    ]
    rules = {"decontaminate": {"against": ["bank"]}}
    data = world.prepare([world.write("a.jsonl", rows(planted + clean + wrong))], rules, banks=[digest])
    assert [entry["text"] for entry in data.rejected] == planted
    assert set(data.reasons) == {"contaminated"}
    assert data.texts == clean + wrong


@pytest.mark.parametrize("kind", ["short", "long"])
def test_an_item_is_found_in_a_document_of_any_length(world: World, dice: random.Random, kind: str) -> None:
    """Far below maxHitRatio: one item among 5,000 words."""
    text = "Term denotes it follows 7 rivers" if kind == "short" else document(dice, 4)
    digest = str(world.bank(world.write("b.jsonl", [{"id": "1", "text": text}]), 0, 1).output_digest)
    texts = [f"{document(dice, 200)} {text.upper()} {document(dice, 200)}", document(dice, 400)]
    for rule in ({}, {"maxHitRatio": 1}, {"ngram": 64}):
        rules = {"decontaminate": {"against": ["bank"], **rule}}
        data = world.prepare([world.write("a.jsonl", rows(texts))], rules, banks=[digest])
        assert ([entry["text"] for entry in data.rejected], data.texts) == (texts[:1], texts[1:])


def test_little_of_an_item_is_judged_by_the_share_of_the_document(world: World, dice: random.Random) -> None:
    item = document(dice, 20)
    digest = str(world.bank(world.write("b.jsonl", [{"id": "1", "text": item}]), 0, 1).output_digest)
    part = " ".join(item.split()[:20])
    uri = world.write("a.jsonl", rows([f"{document(dice, 40)} {part}"]))
    kept, dropped = ({"decontaminate": {"against": ["bank"], "maxHitRatio": ratio}} for ratio in (0.02, 0))
    assert len(world.prepare([uri], kept, banks=[digest]).documents) == 1
    with pytest.raises(PermanentError, match="contaminated"):
        world.prepare([uri], dropped, banks=[digest])


def test_decontamination_without_a_bank_is_refused(world: World) -> None:
    with pytest.raises(PermanentError, match="decontaminate needs at least one bank"):
        world.prepare([world.write("a.jsonl", rows(["a"]))], {"decontaminate": {"against": ["bank"]}})


def test_short_documents_are_rejected(world: World) -> None:
    data = world.prepare([world.write("a.jsonl", rows([" four ", "fives"]))], {"minCharacters": 5})
    assert (data.texts, data.reasons) == (["fives"], ["minCharacters"])


def test_rule_in_report_mode_counts_and_keeps(world: World, dice: random.Random) -> None:
    uri = world.write("a.jsonl", rows(["too short", document(dice)]))
    enforced = world.prepare([uri], {"filters": [{"name": "gopherQuality"}]})
    reported = world.prepare([uri], {"filters": [{"name": "gopherQuality", "mode": "report"}]})
    assert (enforced.reasons, len(enforced.documents)) == (["gopherQuality.minWords"], 1)
    assert (reported.reasons, len(reported.documents)) == ([], 2)
    assert enforced.outcome.metrics["rejected.gopherQuality"] == reported.outcome.metrics["reported.gopherQuality"] == 1


def test_holdout_is_disjoint_and_of_the_size_asked_for(world: World, dice: random.Random) -> None:
    texts = [document(dice, 2) for _ in range(2000)]
    data = world.prepare([world.write("a.jsonl", rows(texts + texts))], holdout=0.1)
    held = [entry["text"] for entry in data.holdout]
    assert not set(held) & set(data.texts)
    assert sorted(held + data.texts) == sorted(texts)
    assert 0.08 < len(held) / len(texts) < 0.12


def test_holdout_of_a_document_does_not_depend_on_other_documents(world: World, dice: random.Random) -> None:
    texts = [document(dice, 2) for _ in range(500)]
    more = [document(dice, 2) for _ in range(500)]
    few = world.prepare([world.write("a.jsonl", rows(texts))], holdout=0.2)
    many = world.prepare([world.write("b.jsonl", rows(more + texts[::-1]))], holdout=0.2)
    held = {entry["text"] for entry in many.holdout}
    assert [text for text in texts if text in held] == [entry["text"] for entry in few.holdout]


def test_counts_agree_with_the_files(world: World, dice: random.Random) -> None:
    texts = [document(dice, 2) for _ in range(300)]
    uri = world.write("a.jsonl", [*rows(texts + texts[:30]), "{", *rows(["x"])])
    data = world.prepare([uri], {"minCharacters": 2}, holdout=0.1)
    meta = world.meta(data.outcome)
    assert meta["rules"] == {"badRow": 1, "exactDuplicate": 30, "minCharacters": 1}
    assert (meta["documents"], meta["holdout"], meta["rejected"]) == (len(data.texts), len(data.holdout), 32)
    assert meta["bytes"] == sum(len(text.encode()) for text in data.texts)


def test_memory_does_not_grow_with_the_text(tmp_path: Path) -> None:
    """7 MB more of text: the peak of all allocations (Python's and numpy's) hardly grows."""
    import tracemalloc

    def peak(name: str, count: int) -> int:
        world = World(tmp_path / name)
        uri = world.write("a.jsonl", rows([f"{number} {padding}" for number in range(count)]))
        world.prepare([uri])
        tracemalloc.start()
        world.prepare([uri])
        largest = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return largest

    padding = "word " * 400
    small, large = peak("small", 500), peak("large", 4000)
    assert large - small < 2_000_000
