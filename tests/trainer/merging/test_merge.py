"""The whole verb: what is published, what is measured, that it is deterministic, and that it can be stopped."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from bessemer_trainer.context import Outcome
from bessemer_trainer.errors import PermanentError
from bessemer_trainer.merging import geometry, result
from bessemer_trainer.merging.barrier import interpolate, measure
from bessemer_trainer.merging.faults import find_fault
from bessemer_trainer.merging.parents import open_parent
from bessemer_trainer.merging.probe import probe
from bessemer_trainer.merging.result import require_whole
from bessemer_trainer.stages.merge import MEASURES
from tests.trainer.merging.test_mergekit import SCHEDULE, sphere
from tests.trainer.merging.world import Family, Weights, edit_json, edit_weights, numbers

NAMES = ["left", "right"]
MADE = pytest.StashKey[dict[str, Outcome]]()


@pytest.fixture
def merged(family: Family, request: pytest.FixtureRequest) -> Outcome:
    """A spherical merge with a schedule and a barrier on held-out text, made once."""
    known: dict[str, Outcome] = request.config.stash.setdefault(MADE, {})
    if "slerp" not in known:
        known["slerp"] = family.merge(family.inputs(t=SCHEDULE, heldOut=family.held_out), NAMES)
    return known["slerp"]


def measures(family: Family, outcome: Outcome) -> dict[str, object]:
    found: dict[str, object] = json.loads((family.store().fetch(outcome.output_digest or "") / MEASURES).read_bytes())
    return found


def test_a_merge_is_a_checkpoint_with_the_text_of_its_first_parent(family: Family, merged: Outcome) -> None:
    store = family.store()
    manifest = store.manifest(merged.output_digest or "")
    left = store.manifest(family.left)
    assert manifest.kind == "checkpoint"
    own = {entry.path: entry.sha256 for entry in manifest.files if entry.path not in {"model.safetensors", MEASURES}}
    assert own == {entry.path: entry.sha256 for entry in left.files if entry.path != "model.safetensors"}
    assert manifest.meta["merge"]["parents"] == [family.left, family.right]
    assert (manifest.meta["merge"]["method"], manifest.meta["parameters"]) == ("slerp", left.meta["parameters"])
    assert open_parent(store, "merged", merged.output_digest or "").layers == 3


def test_the_published_weights_are_those_of_the_formula(family: Family, merged: Outcome) -> None:
    left, right, found = (family.weights(d) for d in (family.left, family.right, merged.output_digest or ""))
    for row in measures(family, merged)["tensors"]:  # type: ignore[attr-defined]
        expected = sphere(numbers(left[row["name"]]), numbers(right[row["name"]]), row["t"])
        assert np.abs(numbers(found[row["name"]]) - expected).max() < 1e-6


def test_norms_angles_and_linear_fallbacks_are_told_for_every_tensor(family: Family, merged: Outcome) -> None:
    left, right = family.weights(family.left), family.weights(family.right)
    rows = {row["name"]: row for row in measures(family, merged)["tensors"]}  # type: ignore[attr-defined]
    assert rows.keys() == left.keys()
    for name, row in rows.items():
        a, b = numbers(left[name]).ravel(), numbers(right[name]).ravel()
        cosine = a @ b / (np.linalg.norm(a) * np.linalg.norm(b))
        assert row["norms"] == pytest.approx([np.linalg.norm(a), np.linalg.norm(b)], rel=1e-5)
        assert row["angles"][0] == pytest.approx(np.degrees(np.arccos(min(1.0, cosine))), abs=0.02)
        assert row.get("linear", False) == (cosine > 0.9995)
    fallbacks = [row for row in rows.values() if row.get("linear")]
    assert 0 < len(fallbacks) < len(rows)  # norms hardly move in so short a training, matrices do
    assert merged.metrics["linearFallbacks"] == len(fallbacks)
    assert merged.metrics["meanAngle"] > 1


def test_the_barrier_is_the_excess_over_the_line_between_the_parents(family: Family, merged: Outcome) -> None:
    found: dict[str, list[float]] = measures(family, merged)["barrier"]  # type: ignore[assignment]
    losses = found["losses"]
    line = [losses[0] + t * (losses[-1] - losses[0]) for t in found["points"]]
    assert found["barrier"] == pytest.approx(max(0, *(a - b for a, b in zip(losses, line, strict=True))), abs=1e-4)
    assert merged.metrics["barrier"] == found["barrier"]
    assert min(losses) > 0


def test_between_two_trainings_from_nothing_there_is_a_barrier_and_between_a_model_and_itself_none(
    family: Family, tmp_path: Path
) -> None:
    def permute(weights: Weights) -> None:
        """The same function with its hidden units in another order: no loss differs, and the middle is broken."""
        for layer in range(3):
            order = torch.randperm(64, generator=torch.Generator().manual_seed(layer))
            for name, axis in (("gate_proj", 0), ("up_proj", 0), ("down_proj", 1)):
                key = f"model.layers.{layer}.mlp.{name}.weight"
                weights[key] = weights[key].index_select(axis, order).contiguous()

    store = family.store()
    left = store.fetch(family.left)
    texts = store.fetch(family.held_out) / "holdout.jsonl"
    other = store.fetch(family.poisoned("permuted", edit_weights(permute), family.left))
    apart, same = (measure([left, folder], None, "linear", texts) for folder in (other, left))
    assert apart["losses"][0] == pytest.approx(apart["losses"][-1], abs=1e-4)
    assert apart["barrier"] > 0.05
    assert same["barrier"] < 1e-5


def test_the_same_inputs_give_the_same_artifact_and_a_merge_can_be_merged_again(
    family: Family, merged: Outcome
) -> None:
    inputs = family.inputs(
        "dareTies",
        parents=[merged.output_digest, family.left],
        base=family.base,
        density=0.5,
        weights=[0.5, 0.5],
        seed=4,
    )
    first, again = (family.merge(inputs, ["merged", "left", "base"]) for _ in range(2))
    assert first.output_digest == again.output_digest
    assert first.metrics["linearFallbacks"] == 0


def test_one_checkpoint_twice_is_itself(family: Family) -> None:
    outcome = family.merge(family.inputs(parents=[family.left, family.left]), ["left", "twin"])
    found, left = family.weights(outcome.output_digest or ""), family.weights(family.left)
    assert all(torch.allclose(found[name], left[name], rtol=1e-6, atol=0) for name in left)
    assert (outcome.metrics["largestAngle"], outcome.metrics["linearShare"]) == (0, 1)


def test_the_interpolation_of_the_barrier_is_the_formula() -> None:
    generator = torch.Generator().manual_seed(0)
    a, b = (torch.randn(5, 7, generator=generator) for _ in range(2))
    for t in (0.0, 0.3, 1.0):
        assert np.abs(interpolate(a, b, t, spherical=True).numpy() - sphere(numbers(a), numbers(b), t)).max() < 1e-12
        straight = (1 - t) * numbers(a) + t * numbers(b)
        assert np.abs(interpolate(a, b, t, spherical=False).numpy() - straight).max() < 1e-12


@pytest.mark.parametrize("space", ["weights", "taskVectors"])
def test_small_angles_keep_their_digits(family: Family, space: str) -> None:
    """Two vectors that differ by a thousandth: the cosine alone would give an angle of one digit."""
    store = family.store()
    near = family.poisoned(f"near-{space}", edit_weights(lambda w: w.update({n: v * 1.0 for n, v in w.items()})))
    turned = family.poisoned(f"turned-{space}", edit_weights(turn))
    opened = [open_parent(store, name, digest) for name, digest in (("near", near), ("turned", turned))]
    base = open_parent(store, "base", family.base) if space == "taskVectors" else None
    inputs = family.inputs(parents=[near, turned], space=space, **({"base": family.base} if base else {}))
    row = next(
        row
        for row in geometry.measure(inputs, opened, base, lambda done: None)
        if row.name.endswith("embed_tokens.weight")
    )
    a, b = (numbers(family.weights(digest)["model.embed_tokens.weight"]).ravel() for digest in (near, turned))
    if base:
        a, b = (side - numbers(family.weights(family.base)["model.embed_tokens.weight"]).ravel() for side in (a, b))
    exact = np.degrees(2 * np.arcsin(np.linalg.norm(a / np.linalg.norm(a) - b / np.linalg.norm(b)) / 2))
    assert row.angles[0] == pytest.approx(exact, rel=1e-3)
    assert 0.001 < exact < 10


def turn(weights: Weights) -> None:
    name = "model.embed_tokens.weight"
    noise = torch.randn(weights[name].shape, generator=torch.Generator().manual_seed(1))
    weights[name] += 1e-3 * noise * weights[name].std()


# --- what mergekit may leave behind -----------------------------------------------------------------------------


def drop(weights: Weights) -> None:
    del weights["model.norm.weight"]


def poison(weights: Weights) -> None:
    weights["model.layers.0.mlp.up_proj.weight"][0, 0] = float("nan")


def widen(weights: Weights) -> None:
    weights["model.layers.0.mlp.up_proj.weight"] = torch.zeros(65, 32)


def round_off(weights: Weights) -> None:
    weights["model.norm.weight"] = weights["model.norm.weight"].half()


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (edit_weights(drop), "the merge lacks the tensor model.norm.weight"),
        (edit_weights(poison), "model.layers.0.mlp.up_proj.weight of the merge holds NaN or infinity"),
        (edit_weights(widen), "the merge has the shape [65, 32], in its parents [64, 32]"),
        (edit_weights(round_off), "of the merge has the number format F16, in its parents F32"),
        (edit_json("tokenizer_config.json", chat_template="{{ 1 }}"), "tokenizer_config.json of the merge is not"),
        (edit_json("config.json", vocab_size=7), "config.json of the merge is not that of its first parent"),
        (lambda folder: (folder / "tokenizer.json").unlink(), "tokenizer.json of the merge is not that of"),
    ],
    ids=["missing_key", "nan", "shape", "format", "template", "config", "tokenizer"],
)  # fmt: skip
def test_a_broken_result_is_not_published(
    family: Family, request: pytest.FixtureRequest, change: object, problem: str
) -> None:
    name = f"result-{request.node.callspec.id}"
    folder = family.store().fetch(family.poisoned(name, change, family.left))  # type: ignore[arg-type]
    with pytest.raises(PermanentError) as refusal:
        require_whole(folder, open_parent(family.store(), "left", family.left))
    assert refusal.value.reason == "MergeBroken"
    assert problem in refusal.value.message


def test_nothing_from_mergekit_is_an_error_of_its_own(family: Family, tmp_path: Path) -> None:
    with pytest.raises(PermanentError, match=r"mergekit left no model.safetensors"):
        result.complete(tmp_path, tmp_path / "out", open_parent(family.store(), "left", family.left))


def turn_signs(weights: Weights) -> None:
    """What was likely becomes unlikely: every number is finite, and every loss is terrible."""
    weights["model.norm.weight"] *= -1


def mute(weights: Weights) -> None:
    """The end-of-text token's row points away from everything that the model says at an end."""
    weights["model.embed_tokens.weight"][0] *= -40


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (turn_signs, "what its parents write is less likely to it than a guess"),
        (mute, "it does not end a text"),
        (None, ""),
    ],
    ids=["turned_signs", "a_lost_end", "a_healthy_merge"],
)
def test_a_merge_that_does_not_work_is_found_by_trying_it(
    family: Family, tmp_path: Path, change: object, problem: str
) -> None:
    store = family.store()
    poison = edit_weights(change or (lambda weights: None))  # type: ignore[arg-type]
    digest = family.poisoned(f"trial-{getattr(change, '__name__', 'none')}", poison)
    folder = tmp_path / "merged"
    folder.mkdir()
    (folder / "model.safetensors").write_bytes((store.fetch(digest) / "model.safetensors").read_bytes())
    (folder / "tokenizer.json").write_bytes((store.fetch(digest) / "tokenizer.json").read_bytes())
    fault = find_fault(probe(folder, [store.fetch(family.left), store.fetch(family.right)]))
    assert fault.startswith(problem) and bool(fault) == bool(problem)
