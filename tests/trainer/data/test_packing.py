"""Packing: every token of every document comes out once, in order, under the number of its document."""

import random
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from bessemer_trainer.packing import ExampleWriter, SequenceWriter

PADDING = 7
Sequences = list[list[int]]


def pack(folder: Path, documents: list[list[int]], length: int, *, packing: bool) -> tuple[Sequences, Sequences]:
    with SequenceWriter(folder, length, largest_token=999, padding=PADDING, packing=packing) as writer:
        for document in documents:
            writer.add(np.array(document, dtype=np.uint16))
    tokens, numbers = (np.fromfile(folder / f"{name}.u16", dtype="<u2") for name in ("tokens", "documents"))
    assert writer.sequences * length == len(tokens) == len(numbers)
    assert writer.tokens == np.count_nonzero(numbers) == sum(map(len, documents))
    return tokens.reshape(-1, length).tolist(), numbers.reshape(-1, length).tolist()


CASES = [
    pytest.param([[1, 2], [3]], True, [[1, 2, 3, 7]], [[1, 1, 2, 0]], id="what is left of the last one is padding"),
    pytest.param([[1, 2], [3, 4]], True, [[1, 2, 3, 4]], [[1, 1, 2, 2]], id="documents that fill a sequence"),
    pytest.param(
        [[1], [2, 3, 4, 5, 6], [8]],
        True,
        [[1, 2, 3, 4], [5, 6, 8, 7]],
        [[1, 2, 2, 2], [1, 1, 2, 0]],
        id="a document goes on in the next sequence as its first",
    ),
    pytest.param(
        [[1, 2, 3, 4], [5]], True, [[1, 2, 3, 4], [5, 7, 7, 7]], [[1] * 4, [1, 0, 0, 0]], id="a new one starts at 1"
    ),
    pytest.param(
        [[*range(8, 17)]],
        True,
        [[8, 9, 10, 11], [12, 13, 14, 15], [16, 7, 7, 7]],
        [[1] * 4, [1] * 4, [1, 0, 0, 0]],
        id="a long document",
    ),
    pytest.param([[1, 2], [3]], False, [[1, 2, 7, 7], [3, 7, 7, 7]], [[1, 1, 0, 0], [1, 0, 0, 0]], id="one a sequence"),
    pytest.param([[1, 2, 3, 4], [5]], False, [[1, 2, 3, 4], [5, 7, 7, 7]], [[1] * 4, [1, 0, 0, 0]], id="one that fits"),
    pytest.param(
        [[1, 2, 3, 4, 5], [6]],
        False,
        [[1, 2, 3, 4], [5, 7, 7, 7], [6, 7, 7, 7]],
        [[1] * 4, [1, 0, 0, 0], [1, 0, 0, 0]],
        id="pieces of a long one",
    ),
    pytest.param([], True, [], [], id="nothing"),
]


@pytest.mark.parametrize(("documents", "packing", "tokens", "numbers"), CASES)
def test_sequences(tmp_path: Path, documents: Sequences, packing: bool, tokens: Sequences, numbers: Sequences) -> None:
    assert pack(tmp_path, documents, 4, packing=packing) == (tokens, numbers)


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("packing", [True, False])
def test_documents_can_be_read_back(tmp_path: Path, seed: int, packing: bool) -> None:
    dice = random.Random(seed)
    documents = [[dice.randrange(8, 1000) for _ in range(dice.randrange(1, 40))] for _ in range(50)]
    tokens, numbers = pack(tmp_path, documents, dice.randrange(8, 20), packing=packing)
    kept = [
        token
        for row, which in zip(tokens, numbers, strict=True)
        for token, number in zip(row, which, strict=True)
        if number
    ]
    assert kept == [token for document in documents for token in document]
    for which in numbers:
        real: list[int] = [number for number in which if number]
        assert real == sorted(real) and set(real) == set(range(1, max(real) + 1))
        assert which[len(real) :] == [0] * (len(which) - len(real))


@pytest.mark.parametrize(
    ("largest", "length", "names"),
    [
        (65_535, 65_535, {"tokens.u16": "<u2", "documents.u16": "<u2"}),
        (65_536, 65_535, {"tokens.u32": "<u4", "documents.u16": "<u2"}),
        (65_535, 65_536, {"tokens.u16": "<u2", "documents.u32": "<u4"}),
    ],
)
def test_each_file_has_the_smallest_type_that_fits(
    tmp_path: Path, largest: int, length: int, names: dict[str, str]
) -> None:
    document: npt.NDArray[np.uint32] = np.array([largest], dtype=np.uint32)
    with SequenceWriter(tmp_path, length, largest_token=largest, padding=0, packing=True) as writer:
        writer.add(document)
    assert {path.name for path in tmp_path.iterdir()} == set(names)
    firsts = {name: int(np.fromfile(tmp_path / name, dtype=kind)[0]) for name, kind in names.items()}
    assert sorted(firsts.values()) == [1, largest]


def test_whole_examples_of_any_length_waste_little(tmp_path: Path) -> None:
    """Put one after the other as they come, they would waste a quarter."""
    dice = np.random.default_rng(5)
    lengths = dice.integers(5, 120, size=400)
    with ExampleWriter(tmp_path, 128, largest_token=500, padding=1, packing=True) as writer:
        for length in lengths:
            writer.add(np.full(length, length), np.ones(length))
    tokens, numbers = (np.fromfile(tmp_path / f"{name}.u16", "<u2") for name in ("tokens", "documents"))
    assert writer.tokens == lengths.sum() == np.count_nonzero(numbers)
    assert sorted(tokens[numbers > 0].tolist()) == sorted(np.repeat(lengths, lengths).tolist())
    assert len(tokens) - writer.tokens < 0.08 * writer.tokens
