"""Comparisons of two really trained checkpoints from their stored items: what holds, is refused, is counted."""

import json
import math
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bessemer_api.digest import sha256_digest
from bessemer_api.job import CompareReport
from bessemer_trainer import channels, vetoes
from bessemer_trainer.context import Outcome
from bessemer_trainer.errors import PermanentError
from bessemer_trainer.evals.formats import item_text
from bessemer_trainer.stages import compare
from tests.trainer.evaluation.tiny import AXES, ITEMS, World, multiple_choice_items, publish_bank, text_items

GATE_AXES = [
    {"name": "knowledge", "winBy": 0.0, "notWorseThan": 0.05},
    {"name": "generalLoss", "notWorseThan": 0.05},
]
GATE_DIGEST = "sha256:" + "7" * 64
DIGEST_OF_NOTHING = "sha256:" + "9" * 64


def task(world: World, **more: Any) -> dict[str, Any]:
    """Good against weak, one look at all items, in one range."""
    return {
        "gate": "release",
        "gateDigest": GATE_DIGEST,
        "axes": GATE_AXES,
        "measures": AXES,
        "looks": [ITEMS],
        "look": 1,
        "candidate": {"checkpoint": world.good, "results": [world.evaluate(world.good)]},
        "baseline": {"checkpoint": world.weak, "results": [world.evaluate(world.weak)]},
        "bank": world.bank,
    } | more


def run(world: World, document: dict[str, Any]) -> Outcome:
    return compare.run(world.context(verb="compare", compare=document))


def report(world: World, document: dict[str, Any]) -> CompareReport:
    found = run(world, document).compare
    assert found is not None
    return found


def refusal(world: World, document: dict[str, Any]) -> PermanentError:
    with pytest.raises(PermanentError) as caught:
        run(world, document)
    return caught.value


def test_the_better_model_wins_on_both_axes_and_the_numbers_are_those_of_the_samples(world: World) -> None:
    found = report(world, task(world))
    knowledge, loss = found.axes
    means = [world.means(world.evaluate(c)) for c in (world.good, world.weak)]
    assert knowledge.delta == pytest.approx(means[0]["knowledge"] - means[1]["knowledge"], abs=1e-5)
    assert loss.delta == pytest.approx(means[1]["generalLoss"] - means[0]["generalLoss"], abs=1e-4)
    assert (knowledge.n, knowledge.clusters, knowledge.binary, knowledge.chance) == (ITEMS, 60, True, 0.25)
    assert (loss.binary, loss.chance) == (False, None)
    assert max(knowledge.p_win, knowledge.p_hold, loss.p_hold) < 0.01
    assert 0 < knowledge.low < knowledge.delta < knowledge.high
    assert (found.tries, found.bank_uses, found.vetoes, found.settings_agree) == (1, 0, [], True)


def test_swapping_the_arms_flips_every_sign(world: World) -> None:
    forward = task(world)
    backward = forward | {"candidate": forward["baseline"], "baseline": forward["candidate"]}
    for one, other in zip(report(world, forward).axes, report(world, backward).axes, strict=True):
        assert other.delta == pytest.approx(-one.delta)
        assert (other.low, other.high) == pytest.approx((-one.high, -one.low), abs=1e-5)
        assert other.standard_error == pytest.approx(one.standard_error)
        assert (one.p_hold < 0.01, other.p_worse < 0.01) == (True, True)


def test_shuffled_gold_answers_show_no_difference(world: World, tmp_path: Path) -> None:
    items = multiple_choice_items()
    generator = np.random.Generator(np.random.PCG64(5))
    shuffled = [item | {"answer": int(generator.integers(4))} for item in items]
    bank = publish_bank(world.store(), tmp_path / "bank", shuffled, text_items())
    arms = {
        arm: {"checkpoint": c, "results": [world.evaluate(c, bank=bank)]}
        for arm, c in (("candidate", world.good), ("baseline", world.weak))
    }
    knowledge = report(world, task(world, bank=bank) | arms).axes[0]
    assert knowledge.p_win > 0.01
    assert abs(knowledge.candidate_mean - 0.25) < 0.12


def test_ranges_of_several_looks_give_the_same_evidence_as_one_range(world: World) -> None:
    def arm(checkpoint: str) -> dict[str, Any]:
        ranges = [world.evaluate(checkpoint, a, b) for a, b in ((0, 40), (40, 80), (80, ITEMS))]
        return {"checkpoint": checkpoint, "results": ranges}

    looks = {"looks": [40, 80, ITEMS], "look": 3}
    split = report(world, task(world, candidate=arm(world.good), baseline=arm(world.weak), **looks))
    whole = report(world, task(world))
    assert split.axes[0] == whole.axes[0]
    assert split.axes[1].delta == pytest.approx(whole.axes[1].delta, abs=1e-5)


def test_the_report_is_the_stored_evidence_and_is_the_same_each_time(world: World) -> None:
    first, second = run(world, task(world)), run(world, task(world))
    assert first.output_digest == second.output_digest
    assert first.output_digest is not None and first.compare is not None
    stored = json.loads((world.store().fetch(first.output_digest) / "evidence.json").read_bytes())
    assert stored["report"] == first.compare.wire()
    assert stored["artifacts"]["results"]["candidate"] == [world.evaluate(world.good)]


def test_anchors_are_compared_on_their_own_axis(world: World) -> None:
    anchor = {"checkpoint": world.good, "results": [world.evaluate(world.good)]}
    found = report(world, task(world, anchors={"generalLoss": anchor}))
    assert [(axis.name, axis.delta) for axis in found.anchors] == [("generalLoss", 0.0)]


def test_further_comparisons_are_reported_by_name_on_the_axes_that_were_asked(world: World) -> None:
    arm = {"checkpoint": world.good, "results": [world.evaluate(world.good)]}
    also = {"base": {"axes": ["generalLoss"], "arm": arm}, "sft": {"axes": ["knowledge", "generalLoss"], "arm": arm}}
    plain, found = run(world, task(world)), run(world, task(world, also=also))
    assert found.compare is not None and found.compare.also is not None and plain.compare is not None
    told = {name: [(axis.name, axis.delta) for axis in axes] for name, axes in found.compare.also.items()}
    assert told == {"base": [("generalLoss", 0.0)], "sft": [("knowledge", 0.0), ("generalLoss", 0.0)]}
    assert (found.compare.axes, plain.compare.also) == (plain.compare.axes, None)
    assert found.output_digest is not None
    stored = json.loads((world.store().fetch(found.output_digest) / "evidence.json").read_bytes())
    assert stored["artifacts"]["checkpoints"]["also/base"] == world.good


def test_a_further_comparison_shows_a_loss(world: World) -> None:
    forward = task(world)
    also = {
        "base": {"axes": ["generalLoss"], "arm": {"checkpoint": world.good, "results": [world.evaluate(world.good)]}}
    }
    found = report(world, forward | {"candidate": forward["baseline"], "also": also})
    assert found.also is not None
    assert found.also["base"][0].p_worse < 0.01 < found.axes[1].p_worse


def test_a_veto_that_this_trainer_can_not_check_is_an_error_and_no_pass(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delitem(vetoes._CHECKS, "nonFiniteWeights")  # type: ignore[arg-type]
    assert refusal(world, task(world, vetoes=["nonFiniteWeights"])).reason == "VetoUnknown"


# --- what is stored can not be changed, and arms must be measured alike ------------------------------------------


def copy_of(world: World, evaluation: str, change: dict[str, Any], folder: Path, edit: str = "") -> str:
    """A forged evaluation: other settings in its manifest, or an edited file, published under its own digest."""
    source = world.store().fetch(evaluation)
    folder.mkdir(parents=True)
    for path in source.glob("samples_*.jsonl"):
        lines = path.read_text().splitlines()
        if edit == "reorder":
            lines[0], lines[1] = lines[1], lines[0]
        if edit == "drop":
            lines.pop()
        if edit == "twice":
            lines[1] = lines[0]
        if edit in {"1e999", "NaN", '"high"'}:
            sample = json.loads(lines[3])
            lines[3] = json.dumps(sample).replace(f'"score": {sample["score"]}', f'"score": {edit}')
        (folder / path.name).write_text("\n".join(lines) + "\n")
    meta = dict(world.store().manifest(evaluation).meta)
    meta["settings"] = meta["settings"] | change
    return world.store().publish(folder, "evaluation", meta)


def test_editing_one_stored_item_fails_verification(world: World, tmp_path: Path) -> None:
    copy = copy_of(world, world.evaluate(world.good), {"seed": 7}, tmp_path / "copy")
    path = world.store().fetch(copy) / "samples_knowledge.jsonl"
    path.chmod(0o644)
    path.write_text(path.read_text().replace('"score":1.0', '"score":0.0', 1))
    error = refusal(world, task(world, candidate={"checkpoint": world.good, "results": [copy]}))
    assert error.reason == "ArtifactCorrupt"
    assert "samples_knowledge.jsonl" in error.message


@pytest.mark.parametrize(
    "change",
    [{"precision": "bf16"}, {"device": "tpu"}, {"recipe": 2}, {"seed": 3}],
    ids=["another precision", "another device class", "another evaluator", "another seed"],
)
def test_arms_that_were_measured_differently_do_not_agree(world: World, tmp_path: Path, change: dict[str, Any]) -> None:
    copy = copy_of(world, world.evaluate(world.weak), change, tmp_path / "copy")
    found = report(world, task(world, baseline={"checkpoint": world.weak, "results": [copy]}))
    assert found.settings_agree is False


@pytest.mark.parametrize(
    ("edit", "reason", "words"),
    [
        pytest.param("reorder", "ItemsDiffer", "expected the same items in one order", id="items in another order"),
        pytest.param("drop", "NoSamples", "119 results; expected 120", id="an item is missing"),
        pytest.param("twice", "ItemsDiffer", "k0", id="an item is there twice"),
        pytest.param("1e999", "BadSample", "line 4", id="an infinite score"),
        pytest.param("NaN", "BadSample", "line 4", id="a score that is not a number"),
        pytest.param('"high"', "BadSample", "line 4", id="a score that is a word"),
    ],
)
def test_results_that_can_not_be_paired_are_refused(
    world: World, tmp_path: Path, edit: str, reason: str, words: str
) -> None:
    copy = copy_of(world, world.evaluate(world.weak), {}, tmp_path / "copy", edit)
    error = refusal(world, task(world, baseline={"checkpoint": world.weak, "results": [copy]}))
    assert (error.reason, words in error.message) == (reason, True), error.message


def test_results_of_another_checkpoint_bank_part_or_range_are_refused(world: World) -> None:
    good, weak = world.evaluate(world.good), world.evaluate(world.weak)
    cases: list[tuple[dict[str, Any], str, str]] = [
        ({"baseline": {"checkpoint": world.weak, "results": [good]}}, "ResultsMismatch", "checkpoint"),
        ({"bank": DIGEST_OF_NOTHING}, "ResultsMismatch", "bank"),
        ({"baseline": {"checkpoint": world.weak, "results": [world.evaluate(world.weak, part="dev")]}},
         "ResultsMismatch", "part is dev"),
        ({"measures": [AXES[0] | {"clusterBy": "id"}, AXES[1]]}, "ResultsMismatch", "axis knowledge"),
        ({"baseline": {"checkpoint": world.weak, "results": [world.evaluate(world.weak, 0, 60)]}},
         "RangesMismatch", "0-60; expected 0 to 120"),
        ({"baseline": {"checkpoint": world.weak, "results": [weak, weak]}}, "RangesMismatch", "0-120, 0-120"),
        ({"looks": [60, ITEMS]}, "RangesMismatch", "expected 0 to 60"),
        ({"baseline": {"checkpoint": world.weak, "results": [world.weak]}}, "WrongKind", "expected evaluation"),
        ({"baseline": {"checkpoint": world.weak, "results": [DIGEST_OF_NOTHING]}}, "ArtifactMissing", "there is no"),
    ]  # fmt: skip
    for change, reason, words in cases:
        error = refusal(world, task(world) | change)
        assert (error.reason, words in error.message) == (reason, True), (change, str(error))


def test_evidence_that_does_not_fit_into_a_report_is_refused(world: World) -> None:
    axes = [{"name": "knowledge", "notWorseThan": 0.05}] * 12
    assert refusal(world, task(world, axes=axes)).reason == "EvidenceTooLarge"


# --- tries ------------------------------------------------------------------------------------------------------


def counts(world: World, channel: str, candidate: str, bank: str | None = None, **more: Any) -> tuple[int, int]:
    """(tries, uses of the items) of a candidate against the weak model."""
    bank = bank or world.bank
    arms = {
        arm: {"checkpoint": c, "results": [world.evaluate(c, bank=bank)]}
        for arm, c in (("candidate", candidate), ("baseline", world.weak))
    }
    found = report(world, task(world, channel=channel, bank=bank) | arms | more)
    return found.tries, found.bank_uses


def write_record(world: World, channel: str, number: int, kind: str) -> None:
    record = {"schema": 1, "record": number, "channel": channel, "digest": world.weak, "kind": kind}
    assert world.store().create(f"channels/{channel}/{number:08d}.json", json.dumps(record).encode())


def test_tries_count_nominees_and_the_same_nominee_keeps_its_place(world: World) -> None:
    assert counts(world, "tries-a", world.good) == (1, 1)
    assert counts(world, "tries-a", world.weak) == (2, 2)
    assert counts(world, "tries-a", world.good) == (1, 1)
    assert counts(world, "tries-b", world.weak) == (1, 1), "another channel counts for itself"


def test_tries_start_afresh_after_a_promotion_but_not_after_a_rollback(world: World) -> None:
    counts(world, "prod", world.good)
    write_record(world, "prod", 1, "promotion")
    assert counts(world, "prod", world.weak, record=1) == (1, 2)
    write_record(world, "prod", 2, "rollback")
    assert counts(world, "prod", world.good, record=2) == (2, 3)


def test_an_edited_gate_is_another_try_of_the_same_candidate(world: World) -> None:
    edits = ["sha256:" + f"{k:064x}" for k in range(3)]
    assert [counts(world, "edits", world.good, gateDigest=edit)[0] for edit in edits] == [1, 2, 3]
    assert counts(world, "edits", world.good, gateDigest=edits[1])[0] == 2, "the way back keeps its place too"


def other_bank(world: World, folder: Path, fresh: int, extra: int = 0, renamed: bool = False) -> str:
    """The bank of the world, `fresh` items of each axis exchanged, `extra` added, all under new ids where `renamed`."""
    choices, texts = multiple_choice_items(), text_items()
    for k in range(fresh):
        choices[k] = choices[k] | {"prompt": f"{choices[k]['prompt']}, once more {k},"}
        texts[k] = texts[k] | {"text": f"{texts[k]['text']} Once more {k}."}
    for k in range(extra):
        choices.append(choices[k] | {"id": f"extra{k}"})
        texts.append({"id": f"extra{k}", "text": f"Extra {k}."})
    if renamed:
        choices, texts = ([item | {"id": f"new-{item['id']}"} for item in items] for items in (choices, texts))
    return publish_bank(world.store(), folder, choices, texts)


@pytest.mark.parametrize(
    ("change", "tries"),
    [
        pytest.param({"fresh": 0, "extra": 1}, 2, id="one item more than the gate looks at"),
        pytest.param({"fresh": 60}, 2, id="half of the items exchanged"),
        pytest.param({"fresh": 0, "renamed": True}, 2, id="the same items under other ids"),
        pytest.param({"fresh": ITEMS}, 1, id="fresh items"),
    ],
)
def test_another_bank_starts_afresh_only_with_fresh_items(
    world: World, tmp_path: Path, change: dict[str, Any], tries: int
) -> None:
    channel = "bank-" + "-".join(f"{k}{v}".lower() for k, v in change.items())
    assert counts(world, channel, world.weak) == (1, 1)
    bank = other_bank(world, tmp_path / "bank", **change)
    assert counts(world, channel, world.good, bank) == (tries, tries)
    assert counts(world, channel, world.weak) == (1, 1)


def test_the_try_is_registered_before_any_result_is_read(world: World) -> None:
    arm = {"checkpoint": world.good, "results": [DIGEST_OF_NOTHING]}
    refusal(world, task(world, candidate=arm, channel="peek"))
    (key,) = world.store().list("channels/peek")
    assert key == "channels/peek/tries/00000001.json"
    found = json.loads(world.store().read(key) or b"")
    assert (found["candidate"], found["gateDigest"], found["bank"]) == (world.good, GATE_DIGEST, world.bank)


def test_a_bank_without_items_of_an_axis_registers_nothing(world: World) -> None:
    axes = [{"name": "manners", "notWorseThan": 0.05}]
    error = refusal(world, task(world, axes=axes, channel="manners"))
    assert (error.reason, "manners" in error.message) == ("NoItems", True)
    assert world.store().list("channels/manners") == []


@pytest.mark.parametrize("damage", ["", '"items": ""', '"items": "0123"', '"items": 5'])
def test_a_damaged_try_is_an_error_and_no_fresh_count(world: World, damage: str) -> None:
    channel = f"damaged{len(damage)}"
    counts(world, channel, world.good)
    (key,) = world.store().list(f"channels/{channel}")
    world.store().write(key, b'{"schema": 1, "record": 0, %s}' % damage.encode() if damage else b"{")
    error = refusal(world, task(world, channel=channel))
    assert (error.reason, key in error.message) == ("ChannelCorrupt", True)


def register(world: World, candidate: str, items: set[str]) -> tuple[int, int]:
    identity = {"candidate": candidate, "baseline": world.weak, "record": 0, "gateDigest": GATE_DIGEST}
    return channels.register_try(world.store(), "overlaps", identity, frozenset(map(channels.item_hash, items)))


def test_tries_count_together_that_share_more_than_a_tenth_of_the_smaller(world: World) -> None:
    def numbers(first: int, last: int) -> set[str]:
        return {f"item {k}" for k in range(first, last)}

    assert register(world, "a", numbers(0, 1000)) == (1, 1)
    assert register(world, "b", numbers(990, 1090)) == (1, 1), "ten of a hundred"
    assert register(world, "c", numbers(989, 1089)) == (3, 3), "eleven of a hundred, and 99 of b's"
    assert register(world, "d", numbers(5000, 5001)) == (1, 1)
    assert register(world, "e", {"ITEM  5000 ", *numbers(6000, 6005)}) == (2, 2), "d's only item, written otherwise"


def test_tries_that_are_registered_at_once_get_numbers_of_their_own(world: World) -> None:
    """Sixteen threads, each with a store object of its own, and every nominee twice."""
    with ThreadPoolExecutor(16) as pool:
        names = [f"race {k % 8}" for k in range(16)]
        found = list(pool.map(lambda name: register(world, name, {"the only item of the race"}), names))
    assert sorted(found) == sorted((k, k) for k in range(1, 9) for _ in range(2))
    assert all(found[k] == found[k + 8] for k in range(8))


# --- vetoes -----------------------------------------------------------------------------------------------------


def publish_data(world: World, folder: Path, text: str) -> str:
    folder.mkdir(parents=True)
    filler = "The story of the long river is told by nobody at all in these parts. " * 400
    rows = [{"id": "0", "text": filler}, {"id": "1", "text": f"{filler}{text} {filler}"}]
    (folder / "documents.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return world.store().publish(folder, "data", {"text": sha256_digest(text.encode())})


@pytest.mark.parametrize("words", ["lo mi ka va to se pi do ru ze ka", "lo"], ids=["long items", "items of 5 words"])
def test_contamination_is_found_inside_the_documents_of_the_training_data(
    world: World, tmp_path: Path, words: str
) -> None:
    items = [item | {"prompt": f"No {k} {words} {k}"} for k, item in enumerate(multiple_choice_items())]
    bank = publish_bank(world.store(), tmp_path / "bank", items, text_items())
    leaked = f"And so it went. {item_text(items[4])} And so on, and so forth, until the end of the story."
    harmless = "No 4 lo 4 mi ka va to se. The colour of the moon was never discussed by anybody at all, as we know."
    evidence = {
        name: publish_data(world, tmp_path / name, text) for name, text in (("leaked", leaked), ("harmless", harmless))
    }
    bank_arms = {
        arm: {"checkpoint": c, "results": [world.evaluate(c, bank=bank)]}
        for arm, c in (("candidate", world.good), ("baseline", world.weak))
    }
    base = task(world, bank=bank, vetoes=["contamination"]) | bank_arms
    fired = report(world, base | {"trainingData": [evidence["harmless"], evidence["leaked"]]})
    assert fired.vetoes == ["contamination"]
    assert "k4 (knowledge.gate.jsonl, line 5)" in fired.veto_detail
    assert report(world, base | {"trainingData": [evidence["harmless"]]}).vetoes == []


def broken_copy(world: World, folder: Path, change: str) -> str:
    import shutil

    from safetensors.torch import load_file, save_file

    shutil.copytree(world.store().fetch(world.good), folder, ignore=shutil.ignore_patterns("manifest.json"))
    if change == "nan":
        tensors = load_file(folder / "model.safetensors")
        tensors["model.embed_tokens.weight"][-1, 0] = math.inf
        save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    else:
        (folder / "special_tokens_map.json").write_text("{}")
    return world.store().publish(folder, "checkpoint", {"broken": change})


@pytest.mark.parametrize(
    ("change", "veto", "words"),
    [
        pytest.param("nan", "nonFiniteWeights", "model.embed_tokens.weight", id="an infinite weight"),
        pytest.param("tokenizer", "tokenizerEquality", "special_tokens_map.json", id="another tokenizer"),
    ],
)
def test_a_veto_fires_for_a_broken_candidate_only(
    world: World, tmp_path: Path, change: str, veto: str, words: str
) -> None:
    broken = broken_copy(world, tmp_path / "broken", change)
    results = copy_as(world, broken, tmp_path / "results")
    vetoes = ["nonFiniteWeights", "tokenizerEquality"]
    fired = report(world, task(world, vetoes=vetoes, candidate={"checkpoint": broken, "results": [results]}))
    assert (fired.vetoes, words in fired.veto_detail) == ([veto], True)
    assert report(world, task(world, vetoes=vetoes)).vetoes == []


def copy_as(world: World, checkpoint: str, folder: Path) -> str:
    """Results of the good model, said to be of `checkpoint`."""
    source = world.evaluate(world.good)
    folder.mkdir(parents=True)
    for path in world.store().fetch(source).glob("samples_*.jsonl"):
        (folder / path.name).write_bytes(path.read_bytes())
    meta = world.store().manifest(source).meta | {"checkpoint": checkpoint}
    return world.store().publish(folder, "evaluation", meta)
