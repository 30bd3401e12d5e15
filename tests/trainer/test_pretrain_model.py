"""The model on packed sequences: documents do not see each other, and only what may be predicted is."""

from pathlib import Path

import numpy as np
import pytest
import torch

from bessemer_api.v1alpha1.train import ModelShape
from bessemer_trainer.errors import PermanentError
from bessemer_trainer.model import fresh_model, load_model, parameter_groups
from bessemer_trainer.objectives import likelihood
from bessemer_trainer.objectives.likelihood import IGNORE, Likelihood, positions_of, targets_of
from bessemer_trainer.shards import Shards, open_shards
from tests.trainer.support import SHAPE, Inputs


@pytest.fixture(scope="module")
def scorer(inputs: Inputs) -> Likelihood:
    return Likelihood(fresh_model(ModelShape.model_validate(SHAPE), inputs.store.fetch(inputs.tokenizer), 1))


def score(scorer: Likelihood, tokens: torch.Tensor, documents: torch.Tensor) -> torch.Tensor:
    loss: torch.Tensor = scorer({"tokens": tokens, "documents": documents})
    return loss


DOCUMENTS = torch.tensor([[1, 1, 1, 2, 2, 3, 0, 0], [1, 1, 1, 1, 1, 1, 1, 1], [1, 2, 3, 4, 4, 4, 4, 4]])


def test_positions_restart_at_each_document() -> None:
    assert positions_of(DOCUMENTS).tolist() == [
        [0, 1, 2, 0, 1, 0, 0, 1],
        [0, 1, 2, 3, 4, 5, 6, 7],
        [0, 0, 0, 0, 1, 2, 3, 4],
    ]


def test_no_prediction_crosses_a_border_or_reaches_padding() -> None:
    tokens = torch.arange(24).reshape(3, 8)
    x = IGNORE
    assert targets_of(tokens, DOCUMENTS).tolist() == [
        [1, 2, x, 4, x, x, x, x],
        [9, 10, 11, 12, 13, 14, 15, x],
        [x, x, x, 20, 21, 22, 23, x],
    ]


def test_targets_are_counted_as_they_are_predicted() -> None:
    shards = Shards(np.zeros((3, 8), np.uint16), DOCUMENTS.numpy().astype(np.uint16))
    assert [shards.targets_in(np.array([row])) for row in range(3)] == [3, 7, 4]


def test_packed_documents_score_as_each_one_alone(scorer: Likelihood) -> None:
    tokens = torch.randint(0, 280, DOCUMENTS.shape, generator=torch.Generator().manual_seed(0))
    alone = 0.0
    for row, documents in zip(tokens, DOCUMENTS, strict=True):
        for number in set(documents.tolist()) - {0}:
            one = row[documents == number][None]
            alone += float(score(scorer, one, torch.ones_like(one)).detach())
    assert float(score(scorer, tokens, DOCUMENTS).detach()) == pytest.approx(alone, abs=1e-4)


def test_padding_changes_nothing(scorer: Likelihood) -> None:
    tokens = torch.randint(0, 280, DOCUMENTS.shape, generator=torch.Generator().manual_seed(0))
    other = torch.where(DOCUMENTS == 0, 7, tokens)
    assert torch.equal(score(scorer, tokens, DOCUMENTS), score(scorer, other, DOCUMENTS))


def test_logits_in_chunks_give_the_same_loss_and_gradient(scorer: Likelihood, monkeypatch: pytest.MonkeyPatch) -> None:
    tokens = torch.randint(0, 280, DOCUMENTS.shape, generator=torch.Generator().manual_seed(0))
    results = []
    for at_once in (1 << 27, 300 * 5):
        monkeypatch.setattr(likelihood, "_LOGITS_AT_ONCE", at_once)
        scorer.zero_grad()
        loss = score(scorer, tokens, DOCUMENTS)
        loss.backward()
        results.append((loss.detach(), [parameter.grad.clone() for parameter in scorer.parameters()]))
    torch.testing.assert_close(results[0], results[1])


def test_only_matrices_decay(scorer: Likelihood) -> None:
    groups = parameter_groups(scorer, 0.1)
    assert [group["weight_decay"] for group in groups] == [0.1, 0.0]
    assert {parameter.ndim for parameter in groups[0]["params"]} == {2}
    assert {parameter.ndim for parameter in groups[1]["params"]} == {1}
    assert sum(len(group["params"]) for group in groups) == len(list(scorer.parameters()))


def test_the_seed_makes_the_weights(inputs: Inputs) -> None:
    shape, tokenizer = ModelShape.model_validate(SHAPE), inputs.store.fetch(inputs.tokenizer)
    one, same, other = (fresh_model(shape, tokenizer, seed).state_dict() for seed in (1, 1, 2))
    assert all(torch.equal(one[name], same[name]) for name in one)
    assert not all(torch.equal(one[name], other[name]) for name in one)


def test_a_folder_that_is_no_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(PermanentError) as caught:
        load_model(tmp_path)
    assert caught.value.reason == "CheckpointInvalid"


@pytest.mark.parametrize("files", [{}, {"tokens.u16": 64}, {"tokens.u16": 63, "documents.u16": 64}])
def test_broken_shards_are_refused(tmp_path: Path, files: dict[str, int]) -> None:
    for name, size in files.items():
        (tmp_path / name).write_bytes(b"\0" * size)
    with pytest.raises(PermanentError) as caught:
        open_shards(tmp_path, 8)
    assert caught.value.reason == "MixtureInvalid"
