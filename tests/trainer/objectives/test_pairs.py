"""Pairs as batches: what a row holds, what is refused, and how a global batch is split."""

import itertools
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from bessemer_trainer.errors import PermanentError
from bessemer_trainer.pairs import micro_batches, open_pairs, shares
from bessemer_trainer.schedule import RunPlan, global_batch
from tests.trainer.support import write_pairs

PAIRS = [([1, 2], [3], [4, 5, 6]), ([7], [8, 9], [10]), ([11, 12, 13], [14] * 8, [15])]


def test_a_batch_holds_the_chosen_rows_and_then_the_rejected_ones(tmp_path: Path) -> None:
    write_pairs(tmp_path, PAIRS)
    batch = open_pairs(tmp_path).batch(np.array([1, 0]))
    assert batch.tokens.tolist() == [
        [7, 8, 9, 0, 0, 0, 0, 0],
        [1, 2, 3, 0, 0, 0, 0, 0],
        [7, 10, 0, 0, 0, 0, 0, 0],
        [1, 2, 4, 5, 6, 0, 0, 0],
    ]
    assert batch.begins.tolist() == [1, 2, 1, 2]
    assert batch.ends.tolist() == [3, 3, 2, 5]


def test_a_mismatched_batch_has_the_completions_of_others_cut_at_the_longest_row(tmp_path: Path) -> None:
    write_pairs(tmp_path, PAIRS)
    batch = open_pairs(tmp_path).batch(np.array([1]), np.array([2]), longest=4)
    assert batch.tokens[:, :4].tolist() == [[7, 14, 14, 14], [7, 15, 0, 0]]
    assert batch.ends.tolist() == [4, 2]


def test_tokens_are_counted_as_the_mixture_counts_them(tmp_path: Path) -> None:
    write_pairs(tmp_path, PAIRS)
    pairs = open_pairs(tmp_path)
    assert pairs.trained_tokens(np.arange(3)) == (len(pairs.tokens), 4 + 3 + 9)


@pytest.mark.parametrize(
    ("pairs", "said"),
    [
        pytest.param([([1], [], [2])], "pair 0 has an empty prompt or completion", id="empty completion"),
        pytest.param([([1], [2], [3]), ([], [4], [5])], "pair 1 has an empty prompt", id="empty prompt"),
        pytest.param(
            [([1], [2], [3]), ([1], [4, 5], [4, 5])], "completions of pair 1 are equal", id="equal, as truncation makes"
        ),
    ],
)
def test_pairs_that_teach_nothing_are_refused(pairs: Sequence, said: str, tmp_path: Path) -> None:
    write_pairs(tmp_path, pairs)
    with pytest.raises(PermanentError, match=said):
        open_pairs(tmp_path)


def test_an_index_past_the_tokens_is_refused(tmp_path: Path) -> None:
    write_pairs(tmp_path, PAIRS)
    (tmp_path / "tokens.u16").write_bytes(b"\0\0" * 10)
    with pytest.raises(PermanentError, match="there are 10"):
        open_pairs(tmp_path)


def test_no_held_out_pairs_are_no_error(tmp_path: Path) -> None:
    write_pairs(tmp_path, PAIRS)
    assert len(open_pairs(tmp_path, held_out=True)) == 0


@pytest.mark.parametrize(("world", "micro"), [(1, 1), (1, 4), (2, 2), (4, 1)])
def test_a_global_batch_is_the_same_however_it_is_split_and_neighbours_have_like_lengths(
    world: int, micro: int
) -> None:
    lengths = np.random.default_rng(0).integers(5, 100, size=40)
    plan = RunPlan(40, 128, 8, micro, 8 // (world * micro), world, 5, 3)
    for step in range(5):
        parts = [part for rank in range(world) for part in micro_batches(plan, step, rank, lengths)]
        assert {len(part) for part in parts} == {micro}
        assert sorted(np.concatenate(parts)) == sorted(global_batch(plan, step))
        bounds = sorted((lengths[part].min(), lengths[part].max()) for part in parts)
        assert all(before[1] <= after[0] for before, after in itertools.pairwise(bounds))


@pytest.mark.parametrize("count", [1, 5, 12, 13])
def test_all_pairs_are_shared_out_once_and_every_rank_has_as_many_turns(count: int) -> None:
    dealt = [shares(np.arange(count)[::-1], 3, rank, 2) for rank in range(2)]
    assert len(dealt[0]) == len(dealt[1])
    assert sorted(np.concatenate(dealt[0] + dealt[1])) == list(range(count))
