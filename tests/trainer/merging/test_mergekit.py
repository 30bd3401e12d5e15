"""What mergekit makes of our documents, against formulas that are computed here on their own, in double precision."""

import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from bessemer_api.v1alpha1.merge import MergeInputs
from bessemer_trainer.merging.document import build_document
from bessemer_trainer.merging.engine import run_mergekit
from bessemer_trainer.merging.schedule import factor_of
from bessemer_trainer.stages.merge import _link
from tests.trainer.merging.world import Family, Weights, numbers

SCHEDULE = [{"filter": "self_attn", "value": [0, 0.5, 1]}, {"filter": "mlp", "value": [1, 0.25]}, {"value": [0.3]}]
Array = npt.NDArray[np.float64]


@pytest.fixture(scope="module")
def workshop(family: Family, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder in which mergekit finds the parents and the ancestor."""
    folder = tmp_path_factory.mktemp("workshop")
    for name, digest in (("parent-0", family.left), ("parent-1", family.right), ("base", family.base)):
        _link(family.store().fetch(digest), folder / name)
    from bessemer_trainer.merging.engine import name_architecture

    for path in folder.glob("*/config.json"):
        name_architecture(path)
    before = Path.cwd()
    os.chdir(folder)
    yield folder
    os.chdir(before)


def merged(folder: Path, inputs: MergeInputs, seed: int = 0) -> Weights:
    from mergekit.io.tasks import LoaderCache
    from safetensors.torch import load_file

    LoaderCache().loaders.clear()  # by relative names, which mean other files in other tests
    out = folder / f"out-{len(list(folder.iterdir()))}"
    run_mergekit(build_document(inputs, 3, "F32"), out, seed)
    return load_file(out / "model.safetensors")


def sphere(a: Array, b: Array, t: float) -> Array:
    """Shoemake's formula over the flattened tensors."""
    cosine = float(a.ravel() @ b.ravel() / (np.linalg.norm(a) * np.linalg.norm(b)))
    if abs(cosine) > 0.9995:
        return (1 - t) * a + t * b
    angle = np.arccos(cosine)
    return (np.sin((1 - t) * angle) * a + np.sin(t * angle) * b) / np.sin(angle)


def assert_close(found: Weights, expected: dict[str, Array], limit: float = 1e-6) -> None:
    assert found.keys() == expected.keys()
    worst = {name: float(np.abs(numbers(found[name]) - value).max()) for name, value in expected.items()}
    assert max(worst.values()) < limit, worst


@pytest.mark.parametrize("method", ["slerp", "linear"])
@pytest.mark.parametrize("t", [0, 1])
def test_the_ends_reproduce_the_parents_bit_for_bit(family: Family, workshop: Path, method: str, t: int) -> None:
    found = merged(workshop, family.inputs(method, t=[{"value": [t]}]))
    parent = family.weights([family.left, family.right][t])
    assert found.keys() == parent.keys()
    assert [name for name in parent if found[name].numpy().tobytes() != parent[name].numpy().tobytes()] == []


def test_slerp_is_the_formula_with_the_factor_of_each_tensor(family: Family, workshop: Path) -> None:
    inputs = family.inputs(t=SCHEDULE)
    left, right = family.weights(family.left), family.weights(family.right)
    factors = {name: factor_of(name, inputs.t or [], 3) for name in left}
    assert {factors[f"model.layers.{n}.self_attn.q_proj.weight"] for n in range(3)} == {0, 0.5, 1}
    assert [factors[f"model.layers.{n}.mlp.up_proj.weight"] for n in range(3)] == [1, 0.625, 0.25]
    assert {factors["model.embed_tokens.weight"], factors["model.norm.weight"]} == {0.3}
    expected = {name: sphere(numbers(left[name]), numbers(right[name]), factors[name]) for name in left}
    assert_close(merged(workshop, inputs), expected)


def test_linear_by_t_is_the_mean_with_the_factor_of_each_tensor(family: Family, workshop: Path) -> None:
    inputs = family.inputs("linear", t=SCHEDULE)
    left, right = family.weights(family.left), family.weights(family.right)
    factors = {name: factor_of(name, inputs.t or [], 3) for name in left}
    expected = {name: (1 - t) * numbers(left[name]) + t * numbers(right[name]) for name, t in factors.items()}
    assert_close(merged(workshop, inputs), expected)


def test_linear_by_weights_is_the_weighted_mean(family: Family, workshop: Path) -> None:
    found = merged(workshop, family.inputs("linear", t=None, weights=[3, 1]))
    left, right = family.weights(family.left), family.weights(family.right)
    assert_close(found, {name: 0.75 * numbers(left[name]) + 0.25 * numbers(right[name]) for name in left})


@pytest.mark.parametrize("method", ["slerp", "nuslerp"])
def test_task_vectors_are_interpolated_on_the_sphere(family: Family, workshop: Path, method: str) -> None:
    inputs = family.inputs(method, space="taskVectors", base=family.base, t=[{"value": [0.4]}])
    base, left, right = (family.weights(digest) for digest in (family.base, family.left, family.right))
    expected = {}
    for name in base:
        a, b = (numbers(side[name]) - numbers(base[name]) for side in (left, right))
        cosine = a.ravel() @ b.ravel() / (np.linalg.norm(a) * np.linalg.norm(b))
        angle = np.arccos(np.clip(cosine, -1, 1))
        expected[name] = numbers(base[name]) + (np.sin(0.6 * angle) * a + np.sin(0.4 * angle) * b) / np.sin(angle)
    assert_close(merged(workshop, inputs), expected)


def test_nuslerp_by_rows_turns_each_row(family: Family, workshop: Path) -> None:
    found = merged(workshop, family.inputs("nuslerp", granularity="row", t=[{"value": [0.4]}]))
    left, right = family.weights(family.left), family.weights(family.right)
    name = "model.layers.0.mlp.up_proj.weight"
    a, b = numbers(left[name]), numbers(right[name])
    cosines = (a * b).sum(1) / (np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1))
    angles = np.arccos(cosines)[:, None]
    expected = (np.sin(0.6 * angles) * a + np.sin(0.4 * angles) * b) / np.sin(angles)
    assert np.abs(numbers(found[name]) - expected).max() < 1e-5


def test_task_arithmetic_adds_weighted_differences(family: Family, workshop: Path) -> None:
    inputs = family.inputs("taskArithmetic", base=family.base, weights=[0.7, -0.2], **{"lambda": 1.5})
    base, left, right = (family.weights(digest) for digest in (family.base, family.left, family.right))
    expected = {}
    for name in base:
        origin, a, b = (numbers(item[name]) for item in (base, left, right))
        expected[name] = origin + 1.5 * (0.7 * (a - origin) - 0.2 * (b - origin))
    assert_close(merged(workshop, inputs), expected)


def test_ties_keeps_the_largest_differences_and_the_sign_of_most(family: Family, workshop: Path) -> None:
    found = merged(workshop, family.inputs("ties", base=family.base, density=0.4))
    base, left, right = (family.weights(digest) for digest in (family.base, family.left, family.right))
    name = "model.layers.1.mlp.down_proj.weight"
    origin = numbers(base[name])
    kept = []
    for side in (left, right):
        change = (side[name] - base[name]).double().numpy()
        count = int(0.4 * change.size)
        limit = np.sort(np.abs(change).ravel())[::-1][count - 1]
        kept.append(np.where(np.abs(change) >= limit, change, 0))
    sign = np.where(kept[0] + kept[1] >= 0, 1, -1)
    agree = [np.sign(change) == sign for change in kept]
    total = np.maximum(agree[0].astype(float) + agree[1].astype(float), 1)
    expected = origin + sum(change * same for change, same in zip(kept, agree, strict=True)) / total
    assert np.abs(numbers(found[name]) - expected).max() < 1e-6


def test_dare_drops_at_random_by_its_seed_and_keeps_the_size_of_the_change(family: Family, workshop: Path) -> None:
    inputs = family.inputs("dareTies", base=family.base, density=0.5)
    once, again, other = (merged(workshop, inputs, seed) for seed in (1, 1, 2))
    assert {name: value.numpy().tobytes() for name, value in once.items()} == {
        name: value.numpy().tobytes() for name, value in again.items()
    }
    name = "model.layers.1.mlp.down_proj.weight"
    assert not np.array_equal(numbers(once[name]), numbers(other[name]))
    origin = numbers(family.weights(family.base)[name])
    unchanged = (numbers(once[name]) == origin).mean()
    assert 0.15 < unchanged < 0.35  # both differences dropped: a quarter of the places


def test_the_layers_of_the_document_are_those_of_the_model(family: Family) -> None:
    document = build_document(family.inputs(), 24, "BF16")
    assert [source["layer_range"] for source in document["slices"][0]["sources"]] == [[0, 24], [0, 24]]
    assert build_document(family.inputs("ties", base=family.base, density=0.5), 24, "BF16")["out_dtype"] == "bfloat16"
