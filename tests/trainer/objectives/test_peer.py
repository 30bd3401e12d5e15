"""Our losses against TRL's trainers: the same weights, the very batch that TRL's collator made, the same loss to 1e-5.

TRL is the peer, never the runtime. Its trainers are real here, with real data sets; only the training is left out.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from bessemer_trainer.objectives.dpo import dpo_losses
from bessemer_trainer.objectives.grpo import Rollout, grpo_losses
from bessemer_trainer.objectives.kto import kl_estimate, kto_losses
from bessemer_trainer.objectives.logprobs import Duo, token_log_probs
from bessemer_trainer.objectives.orpo import orpo_losses
from bessemer_trainer.objectives.reward import reward_losses, reward_scores
from tests.trainer.support import make_tokenizer, store_in, texts

pytestmark = pytest.mark.filterwarnings("default")  # TRL and its libraries warn about themselves

CLOSE = {"rel": 1e-5, "abs": 1e-6}


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Any:
    from transformers import AutoTokenizer

    folder: Path = tmp_path_factory.mktemp("peer")
    store = store_in(folder)
    return AutoTokenizer.from_pretrained(store.fetch(make_tokenizer(store, folder)))


def model(seed: int, labels: int = 0) -> Any:
    """A tiny Llama whose log-probabilities differ a lot between tokens."""
    from transformers import LlamaConfig, LlamaForCausalLM, LlamaForSequenceClassification

    config = LlamaConfig(
        vocab_size=300,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=256,
        initializer_range=0.2,
        bos_token_id=None,
        eos_token_id=0,
        pad_token_id=1,
        **({"num_labels": labels} if labels else {}),
    )
    torch.manual_seed(seed)
    return (LlamaForSequenceClassification if labels else LlamaForCausalLM)(config)


def rows() -> list[dict[str, str]]:
    """Six pairs whose prompts and answers have many lengths."""
    documents = texts(18, seed=3)
    return [
        {"prompt": documents[n], "chosen": " " + documents[n + 6][: 20 + 9 * n], "rejected": " " + documents[n + 12]}
        for n in range(6)
    ]


def settings(folder: Path) -> dict[str, Any]:
    return {
        "output_dir": str(folder),
        "per_device_train_batch_size": 6,
        "bf16": False,
        "use_cpu": True,
        "activation_checkpointing": False,
        "report_to": "none",
        "max_length": None,
    }


def first_batch(trainer: Any) -> dict[str, Tensor]:
    return next(iter(trainer.get_train_dataloader()))


def sums(of: Any, tokens: Tensor, mask: Tensor) -> Tensor:
    wanted = mask.bool().clone()
    wanted[:, 0] = False
    return token_log_probs(of, tokens, wanted).sum(dim=1)


@pytest.mark.parametrize(
    ("ours", "theirs", "beta"),
    [("sigmoid", "sigmoid", 0.1), ("hinge", "hinge", 0.05), ("ipo", "ipo", 0.2), ("sigmoidNorm", "sigmoid_norm", 5.0)],
)
def test_dpo(ours: str, theirs: str, beta: float, tokenizer: Any, tmp_path: Path) -> None:
    from datasets import Dataset
    from trl import DPOConfig, DPOTrainer

    policy, reference = model(1), model(2)
    args = DPOConfig(**settings(tmp_path), loss_type=[theirs], beta=beta)
    trainer = DPOTrainer(policy, reference, args, train_dataset=Dataset.from_list(rows()), processing_class=tokenizer)
    batch = first_batch(trainer)
    expected = trainer.compute_loss(policy, dict(batch))

    tokens, mask = batch["input_ids"], batch["completion_mask"]
    logps = [Duo.halves(sums(each, tokens, mask)) for each in (policy, reference)]
    losses, rewards = dpo_losses(*logps, Duo.halves(mask.sum(dim=1)), beta, ours)
    assert losses.mean().item() == pytest.approx(expected.item(), **CLOSE)
    if ours not in ("ipo", "sigmoidNorm"):
        told = trainer._metrics["train"]
        assert rewards.margin.mean().item() == pytest.approx(told["rewards/margins"][0], rel=1e-4)
        assert logps[0].chosen.mean().item() == pytest.approx(told["logps/chosen"][0], **CLOSE)


def test_orpo_where_the_likelihood_covers_what_trl_covers_and_where_it_covers_the_completion(
    tokenizer: Any, tmp_path: Path
) -> None:
    """One pair at a time: TRL means its likelihood over all tokens of a batch, ours is that of a pair."""
    from datasets import Dataset
    from trl.experimental.orpo import ORPOConfig, ORPOTrainer

    policy = model(1)
    args = ORPOConfig(**settings(tmp_path) | {"per_device_train_batch_size": 1, "max_length": 256}, beta=0.1)
    trainer = ORPOTrainer(policy, args, train_dataset=Dataset.from_list(rows()), processing_class=tokenizer)
    for batch in _unshuffled(trainer):
        expected, told = trainer.get_batch_loss_metrics(policy, dict(batch))
        losses = {scope: _our_orpo(policy, batch, scope) for scope in ("all", "completion")}
        assert losses["all"] == pytest.approx(expected.item(), **CLOSE)
        only_answer = expected.item() - told["nll_loss"] - told["logps/chosen"]
        assert losses["completion"] == pytest.approx(only_answer, **CLOSE)
        assert abs(losses["all"] - losses["completion"]) > 1e-3, "the scope of the likelihood matters"


def _unshuffled(trainer: Any) -> Iterator[dict[str, Tensor]]:
    for n in range(6):
        yield trainer.data_collator([trainer.train_dataset[n]])


def _our_orpo(policy: Any, batch: dict[str, Tensor], scope: str) -> float:
    means = []
    for side in ("chosen", "rejected"):
        tokens, labels = batch[f"{side}_input_ids"], batch[f"{side}_labels"]
        means.append(sums(policy, tokens, labels != -100) / (labels[:, 1:] != -100).sum())
    tokens, mask = batch["chosen_input_ids"], batch["chosen_attention_mask"]
    whole = -sums(policy, tokens, mask) / (mask.sum() - 1)
    losses, _ = orpo_losses(Duo(*means), whole if scope == "all" else -means[0], 0.1)
    return losses.item()


def test_kto(tokenizer: Any, tmp_path: Path) -> None:
    from datasets import Dataset
    from trl import KTOConfig, KTOTrainer

    policy, reference = model(1), model(2)
    examples = [
        {"prompt": row["prompt"], "completion": row[side], "label": side == "chosen"}
        for row in rows()[:3]
        for side in ("chosen", "rejected")
    ]
    args = KTOConfig(**settings(tmp_path), beta=0.1, precompute_ref_log_probs=False)
    trainer = KTOTrainer(policy, reference, args, train_dataset=Dataset.from_list(examples), processing_class=tokenizer)
    batch = trainer.data_collator([trainer.train_dataset[n] for n in range(6)])
    expected = trainer.compute_loss(policy, dict(batch))

    labels = torch.as_tensor(batch["label"], dtype=torch.bool)
    logps = [sums(each, batch["input_ids"], batch["completion_mask"]) for each in (policy, reference)]
    mismatched = [sums(each, batch["KL_input_ids"], batch["KL_completion_mask"]) for each in (policy, reference)]
    kl = kl_estimate((mismatched[0] - mismatched[1]).sum().item(), 6)
    losses, _ = kto_losses(*(Duo(each[labels], each[~labels]) for each in logps), torch.tensor(kl), 0.1)
    assert trainer._metrics["train"]["kl"][0] == pytest.approx(kl, **CLOSE)
    assert losses.mean().item() == pytest.approx(expected.item(), **CLOSE)


def test_reward(tokenizer: Any, tmp_path: Path) -> None:
    from datasets import Dataset
    from trl import RewardConfig, RewardTrainer

    scorer = model(1, labels=1)
    args = RewardConfig(**settings(tmp_path))
    trainer = RewardTrainer(scorer, args, train_dataset=Dataset.from_list(rows()), processing_class=tokenizer)
    batch = first_batch(trainer)
    expected = trainer.compute_loss(scorer, dict(batch))
    scores = reward_scores(scorer, batch["input_ids"], batch["attention_mask"].sum(dim=1))
    assert reward_losses(Duo.halves(scores)).mean().item() == pytest.approx(expected.item(), **CLOSE)


@pytest.mark.parametrize("beta", [0.0, 0.04])
def test_grpo(beta: float, tokenizer: Any, tmp_path: Path) -> None:
    from datasets import Dataset
    from trl import GRPOConfig, GRPOTrainer

    policy, old, reference = model(1), model(2), model(3)
    kept = {key: value for key, value in settings(tmp_path).items() if key != "max_length"}
    # TRL multiplies the KL by the ratio unless told otherwise; equation 3 of the paper does not.
    args = GRPOConfig(**kept, num_generations=6, beta=0.0, epsilon=0.2, loss_type="grpo", use_bias_correction_kl=False)
    prompts = Dataset.from_list([{"prompt": row["prompt"]} for row in rows()])
    trainer = GRPOTrainer(policy, lambda completions, **_: [0.0] * len(completions), args, prompts, None, tokenizer)
    trainer.beta = beta
    trainer.current_gradient_accumulation_steps = 1
    torch.manual_seed(0)
    tokens, mask = torch.randint(2, 300, (6, 12)), torch.ones(6, 8, dtype=torch.long)
    mask[1, 5:] = 0
    mask[4, 1:] = 0
    wanted = torch.cat([torch.zeros(6, 4), mask], dim=1).bool()
    advantages = torch.randn(6)
    behind = {name: token_log_probs(each, tokens, wanted) for name, each in (("old", old), ("ref", reference))}
    inputs = {
        "prompt_ids": tokens[:, :4],
        "prompt_mask": torch.ones(6, 4, dtype=torch.long),
        "completion_ids": tokens[:, 4:],
        "completion_mask": mask,
        "advantages": advantages,
        "old_per_token_logps": behind["old"][:, 4:].detach(),
        "ref_per_token_logps": behind["ref"][:, 4:].detach(),
        "num_items_in_batch": mask.sum(),
    }
    expected = trainer._compute_loss(policy, inputs)
    rollout = Rollout(behind["old"].detach(), behind["ref"].detach() if beta else None, advantages)
    losses, _ = grpo_losses(token_log_probs(policy, tokens, wanted), wanted, rollout, 0.2, beta)
    assert losses.mean().item() == pytest.approx(expected.item(), **CLOSE)


def test_the_padding_of_a_row_never_matters_not_even_when_it_is_the_end_of_text_token(tokenizer: Any) -> None:
    """TRL falls back to EOS as padding and masks by position; who masked by id would never teach a model to stop."""
    policy = model(1)
    tokens = torch.randint(2, 300, (2, 12), generator=torch.Generator().manual_seed(0))
    tokens[:, 7] = tokenizer.eos_token_id
    wanted = torch.zeros(2, 12, dtype=torch.bool)
    wanted[:, 4:8] = True
    found = []
    for padding in (tokenizer.eos_token_id, 5):
        tokens[:, 8:] = padding
        found.append(token_log_probs(policy, tokens, wanted))
    assert json.dumps(found[0].tolist()) == json.dumps(found[1].tolist())
    assert (found[0][:, 7] < 0).all(), "the end of text is a target"
