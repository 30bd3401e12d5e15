"""sft beside TRL: the same loss on the same batch, and traps of the libraries that ours does not have."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from bessemer_api.v1alpha1.train import DeepSpeed, Train
from bessemer_trainer.dist import deepspeed_config
from bessemer_trainer.model import load_model
from bessemer_trainer.objectives.likelihood import Likelihood
from bessemer_trainer.packing import ExampleWriter, SequenceWriter
from bessemer_trainer.schedule import plan_run
from bessemer_trainer.shards import Shards, open_shards
from tests.trainer.talk import LENGTH, Talk, make_talk
from tests.trainer.zygote import Zygote

pytestmark = pytest.mark.filterwarnings("default")  # TRL and its libraries warn about themselves


@pytest.fixture(scope="module")
def talk(zygote: Zygote, tmp_path_factory: pytest.TempPathFactory) -> Talk:
    return make_talk(tmp_path_factory.mktemp("peer"), zygote)


@pytest.fixture(scope="module")
def shards(talk: Talk) -> Shards:
    """Three examples a sequence, of which parts are targets."""
    return open_shards(talk.store.fetch(talk.examples("qa", lossOn="assistant")), LENGTH)


def _rows(shards: Shards) -> list[dict[str, list[int]]]:
    """Each example alone, as TRL takes it."""
    rows = []
    assert shards.targets is not None
    for tokens, documents, targets in zip(shards.tokens, shards.documents, shards.targets, strict=True):
        for number in sorted(set(documents.tolist()) - {0}):
            place = documents == number
            rows.append({"input_ids": tokens[place].tolist(), "completion_mask": targets[place].tolist()})
    return rows


def _peer(talk: Talk, rows: list[dict[str, Any]], folder: Path, **config: Any) -> Any:
    from datasets import Dataset
    from transformers import AutoTokenizer
    from trl import SFTConfig, SFTTrainer

    start = talk.store.fetch(talk.start)
    settings = {"bf16": False, "gradient_checkpointing": False, "use_cpu": True, "report_to": [], "max_length": None}
    arguments = SFTConfig(
        output_dir=str(folder),
        per_device_train_batch_size=len(rows),
        completion_only_loss=True,
        **{**settings, **config},
    )
    return SFTTrainer(
        model=load_model(start),
        args=arguments,
        train_dataset=Dataset.from_list(rows),
        processing_class=AutoTokenizer.from_pretrained(start),
    )


def test_the_loss_and_its_gradient_are_those_of_trl(talk: Talk, shards: Shards, tmp_path: Path) -> None:
    """TRL: every example padded in a row of its own. Ours: packed."""
    trainer = _peer(talk, _rows(shards), tmp_path)
    batch = next(iter(trainer.get_train_dataloader()))
    theirs = trainer.compute_loss(trainer.model, batch)
    theirs.backward()
    ours = Likelihood(load_model(talk.store.fetch(talk.start)))
    everything = np.arange(shards.sequences)
    tensors = {name: torch.from_numpy(np.ascontiguousarray(value)) for name, value in shards.rows(everything).items()}
    loss = ours(tensors) / shards.targets_in(everything)
    loss.backward()
    assert float(loss.detach()) == pytest.approx(float(theirs.detach()), abs=1e-5)
    peers = dict(trainer.model.named_parameters())
    for name, parameter in ours.model.named_parameters():
        torch.testing.assert_close(parameter.grad, peers[name].grad, atol=1e-5, rtol=1e-3)


def test_a_batch_of_parts_weighs_every_token_alike(talk: Talk, shards: Shards) -> None:
    """A mean of means would give an example of few targets more weight; ours divides by all targets of the batch."""
    ours = Likelihood(load_model(talk.store.fetch(talk.start))).eval()
    everything = np.arange(shards.sequences)
    tensors = [
        {name: torch.from_numpy(np.ascontiguousarray(value)) for name, value in shards.rows(np.array([row])).items()}
        for row in everything
    ]
    with torch.no_grad():
        parts = [float(ours(part)) for part in tensors]
    whole = {name: torch.cat([part[name] for part in tensors]) for name in tensors[0]}
    assert sum(parts) == pytest.approx(float(ours(whole).detach()), rel=1e-6)


def test_packing_loses_no_token_where_trls_default_does(tmp_path: Path) -> None:
    """Best-fit packing cuts off what is longer than a sequence; a mixture of text goes on in the next sequence."""
    from datasets import Dataset
    from trl import pack_dataset

    document = np.arange(20, dtype=np.uint16)
    packed = pack_dataset(Dataset.from_list([{"input_ids": document.tolist()}]), 8, strategy="bfd")
    assert sum(map(len, packed["input_ids"])) == 8
    with SequenceWriter(tmp_path, 8, largest_token=20, padding=0, packing=True) as writer:
        writer.add(document)
    shards = open_shards(tmp_path, 8)
    assert np.array_equal(shards.tokens[shards.documents != 0], document)


def test_packed_examples_see_no_other_whatever_the_padding(talk: Talk, tmp_path: Path) -> None:
    """TRL's documents are apart only while there is no attention mask. Ours: other neighbours change no loss."""
    ours = Likelihood(load_model(talk.store.fetch(talk.start))).eval()
    dice = np.random.Generator(np.random.PCG64(0))
    example, others = dice.integers(5, 200, 9), [dice.integers(5, 200, 11) for _ in range(2)]
    losses = []
    for number, other in enumerate(others):
        folder = tmp_path / str(number)
        folder.mkdir()
        with ExampleWriter(folder, 24, largest_token=299, padding=number, packing=True) as writer:
            writer.add(other.astype(np.uint16), np.zeros(11, np.uint8))
            writer.add(example.astype(np.uint16), np.array([0] + [1] * 8, np.uint8))
        shards = open_shards(folder, 24)
        assert shards.sequences == 1
        batch = {name: torch.from_numpy(value) for name, value in shards.rows(np.array([0])).items()}
        losses.append(float(ours(batch).detach()))
    assert losses[0] == losses[1]


def test_precision_and_recomputation_are_what_the_stage_says(tmp_path: Path) -> None:
    """TRL's defaults are bf16 and gradient checkpointing, whatever the machine."""
    from trl import SFTConfig

    theirs = SFTConfig(output_dir=str(tmp_path), use_cpu=True)
    assert (theirs.bf16, theirs.gradient_checkpointing) == (True, True)
    plain = Train.model_validate({"maxSteps": 1, "globalBatchTokens": 8})
    assert (plain.precision, plain.gradient_checkpointing) == ("bf16", False)
    for precision in ("bf16", "fp32"):
        train = plain.model_copy(update={"precision": precision})
        plan = plan_run(train, 1, 8, 1, 1, 0)
        config = deepspeed_config(plan, train, DeepSpeed.model_validate({}), on_gpu=False)
        assert config["bf16"]["enabled"] is (precision == "bf16")
