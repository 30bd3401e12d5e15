"""Low-rank updates: what is published is a plain model, whatever number of ranks and ZeRO stage trained them."""

import numpy as np
import pytest
import torch

from bessemer_api.v1alpha1.train import Lora
from bessemer_trainer.errors import PermanentError
from bessemer_trainer.lora import add_lora, merged
from bessemer_trainer.model import load_model
from tests.trainer.support import Pod, weights_of
from tests.trainer.talk import LENGTH, Talk, make_talk
from tests.trainer.zygote import Zygote

ATTENTION = {"r": 4, "alpha": 8, "targets": ["q_proj", "v_proj"]}


@pytest.fixture(scope="module")
def talk(zygote: Zygote, tmp_path_factory: pytest.TempPathFactory) -> Talk:
    return make_talk(tmp_path_factory.mktemp("lora"), zygote)


def _cpt(talk: Talk, name: str, stage: int, ranks: int) -> Pod:
    train = {"maxSteps": 4, "lora": ATTENTION, "globalBatchTokens": 4 * LENGTH}
    return talk.run(name, "cpt", talk.inputs.mixture, ranks, train=train, deepspeed={"zeroStage": stage})


@pytest.fixture(scope="module")
def alone(talk: Talk) -> dict[str, np.ndarray]:
    return weights_of(talk.store, str(_cpt(talk, "alone", 0, 1).report().output_digest))


def test_only_the_named_layers_change_and_all_keep_their_names(talk: Talk, alone: dict[str, np.ndarray]) -> None:
    start = weights_of(talk.store, talk.start)
    assert {name: value.shape for name, value in alone.items()} == {name: v.shape for name, v in start.items()}
    changed = {name for name in start if not np.array_equal(start[name], alone[name])}
    assert changed == {name for name in start if ".q_proj." in name or ".v_proj." in name}


@pytest.mark.parametrize("stage", [1, 2, 3])
def test_every_zero_stage_agrees_with_one_rank(talk: Talk, alone: dict[str, np.ndarray], stage: int) -> None:
    pod = _cpt(talk, f"zero-{stage}", stage, 2)
    found = weights_of(talk.store, str(pod.report().output_digest))
    assert max(float(np.abs(found[name] - alone[name]).max()) for name in alone) < 1e-5


def _model(talk: Talk) -> torch.nn.Module:
    return load_model(talk.store.fetch(talk.start))


def test_merged_weights_compute_what_the_updates_computed(talk: Talk) -> None:
    lora = Lora.model_validate({"r": 4, "alpha": 6})
    model, plain = _model(talk), _model(talk)
    tokens = torch.arange(24).reshape(2, 12)
    add_lora(model, lora, seed=3)
    with torch.no_grad():
        torch.testing.assert_close(model(tokens).logits, plain(tokens).logits)  # nothing changes before training
        for name, parameter in model.named_parameters():
            if ".lora_B." in name:
                parameter.normal_(generator=torch.Generator().manual_seed(len(name)))
        wanted = model.eval()(tokens).logits
        before = plain(tokens).logits
        parameters = dict(model.named_parameters())
        missing = plain.load_state_dict(merged(parameters, lora), strict=False).missing_keys
        assert missing in ([], ["lm_head.weight"])
        torch.testing.assert_close(plain(tokens).logits, wanted, atol=1e-4, rtol=1e-4)
    assert float((wanted - before).abs().max()) > 0.1


def test_by_default_all_linear_layers_but_the_output_are_trained_and_the_seed_makes_them(talk: Talk) -> None:
    models = [_model(talk) for _ in range(3)]
    for model, seed in zip(models, (1, 1, 2), strict=True):
        add_lora(model, Lora.model_validate({}), seed)
    trained = [{n: p for n, p in model.named_parameters() if p.requires_grad} for model in models]
    assert {name.split(".lora_")[0].rpartition(".")[2] for name in trained[0]} == {
        "q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj",
    }  # fmt: skip
    one, same, other = trained
    assert all(torch.equal(one[name], same[name]) for name in one)
    assert any(not torch.equal(one[name], other[name]) for name in one)


def test_a_layer_that_is_not_there_is_refused(talk: Talk) -> None:
    with pytest.raises(PermanentError) as caught:
        add_lora(_model(talk), Lora.model_validate({"targets": ["q_proj", "query"]}), 0)
    assert caught.value.reason == "SpecInvalid"
    assert "no linear layer 'query'; there are ['down_proj'" in caught.value.message
