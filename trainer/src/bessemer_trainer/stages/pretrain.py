"""The verbs `pretrain` and `cpt`: train a model on a mixture, from a shape or from a checkpoint.

One readable path: inputs -> engine -> resume -> steps -> holdout -> artifact. All ranks run it together and agree on
every error, on when to stop, and on which checkpoint to resume from.
"""

import shutil
import signal
import time
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from types import FrameType
from typing import Any

import torch

from bessemer_api.v1alpha1.stage import StageInputs
from bessemer_api.v1alpha1.train import Train
from bessemer_trainer.artifacts import copy_tokenizer, write_checkpoint
from bessemer_trainer.backends import disk_errors
from bessemer_trainer.checkpoint import Checkpoints
from bessemer_trainer.context import Context, Outcome
from bessemer_trainer.dist import Gang, start, zero_stage
from bessemer_trainer.engine import Engine
from bessemer_trainer.errors import PermanentError, Preempted
from bessemer_trainer.holdout import measure_holdout, pack_holdout
from bessemer_trainer.loss_log import LossLog, StepRecord
from bessemer_trainer.model import fresh_model, load_model
from bessemer_trainer.schedule import RunPlan, global_batch, learning_rate, micro_batch, plan_run
from bessemer_trainer.shards import Shards, open_shards
from bessemer_trainer.store import Manifest, Store, run_key


@dataclass(frozen=True, slots=True)
class Inputs:
    """What is trained on, from where, and how. Folders hold verified files; nobody writes there."""

    stage: StageInputs
    train: Train
    start_folder: Path
    data_folder: Path
    shards: Shards


@dataclass(frozen=True, slots=True)
class Run:
    """One attempt, after everything was read and built."""

    context: Context
    inputs: Inputs
    gang: Gang
    plan: RunPlan
    engine: Engine
    checkpoints: Checkpoints
    log: LossLog


class StopSignal:
    """SIGTERM as a flag that is looked at between steps."""

    def __init__(self) -> None:
        self.is_set = False
        signal.signal(signal.SIGTERM, self._set)

    def _set(self, _signal: int, _frame: FrameType | None) -> None:
        self.is_set = True


def run(context: Context) -> Outcome:
    """Publish the trained checkpoint. Raises TrainerError, or Preempted after the state was saved."""
    gang = start(context.spec.world_size)
    inputs = read_inputs(context, gang)
    run = _build(context, inputs, gang)
    stop = StopSignal()
    first_step = _resume(run)
    for step in range(first_step, run.plan.steps):
        record = train_step(run, step)
        _after_step(run, record, stop)
    return _finish(run)


def read_inputs(context: Context, gang: Gang) -> Inputs:
    """Fetch and verify the inputs, once a node. Raises PermanentError(TokenizerMismatch | SpecInvalid | ...)."""
    stage = context.spec.stage
    if stage is None or stage.train is None or stage.data is None or stage.start_from is None:
        raise PermanentError("SpecInvalid", "stage.train, stage.data, stage.startFrom: training needs all three")
    data, source = stage.data, stage.start_from
    gang.agree(lambda: _check_kinds(context.store, stage))
    data_folder = _fetch(context, gang, data)
    start_folder = _fetch(context, gang, source)
    length = int(context.store.manifest(data).meta["sequenceLength"])
    return Inputs(stage, stage.train, start_folder, data_folder, open_shards(data_folder, length))


def _fetch(context: Context, gang: Gang, digest: str) -> Path:
    """Only the first rank of a node reads and hashes all files; the others use what it found good."""
    return gang.on_node(lambda: context.store.fetch(digest))


def _check_kinds(store: Store, stage: StageInputs) -> None:
    data, source = store.manifest(str(stage.data)), store.manifest(str(stage.start_from))
    expected = "tokenizer" if stage.method == "pretrain" else "checkpoint"
    if data.kind != "mixture":
        raise PermanentError("WrongKind", f"stage.data {stage.data} is a {data.kind}; expected a mixture")
    if source.kind != expected:
        raise PermanentError(
            "WrongKind", f"stage.startFrom {stage.start_from} is a {source.kind}; expected a {expected}"
        )
    made_by = str(data.meta.get("tokenizer"))
    if made_by != stage.start_from and _tokenizer_hash(store.manifest(made_by)) != _tokenizer_hash(source):
        raise PermanentError(
            "TokenizerMismatch",
            f"mixture {stage.data} was made with the tokenizer of {made_by}, which differs from that of "
            f"{stage.start_from}; make the mixture with the tokenizer of the artifact that training starts from",
        )


def _tokenizer_hash(manifest: Manifest) -> str | None:
    return next((entry.sha256 for entry in manifest.files if entry.path == "tokenizer.json"), None)


def _build(context: Context, inputs: Inputs, gang: Gang) -> Run:
    spec, shards = context.spec, inputs.shards
    plan = gang.agree(
        lambda: plan_run(
            inputs.train,
            shards.sequences,
            shards.sequence_length,
            gang.world_size,
            spec.deepspeed.micro_batch_size,
            inputs.stage.seed,
        )
    )
    model = gang.agree(lambda: _model(inputs))
    # Any randomness in training itself (dropout of an imported model) differs by rank and is saved with the state.
    torch.manual_seed(inputs.stage.seed + gang.rank)
    engine = Engine(model, plan, inputs.train, spec.deepspeed, gang)
    key = run_key(spec.input_digest)
    owner = gang.first(lambda: spec.run_uid.partition("/")[0])  # the rest of it names the attempt
    checkpoints = Checkpoints(context.store, key, owner, gang, context.scratch)
    return Run(context, inputs, gang, plan, engine, checkpoints, LossLog(context.store, f"{key}/metrics.jsonl"))


def _model(inputs: Inputs) -> Any:  # noqa: ANN401 - transformers is untyped
    stage = inputs.stage
    if stage.method == "cpt":
        model: Any = load_model(inputs.start_folder)
    elif stage.model is None:
        raise PermanentError("SpecInvalid", "stage.model: pretrain needs the model's shape")
    else:
        model = fresh_model(stage.model, inputs.start_folder, stage.seed)
    longest = model.config.max_position_embeddings
    if inputs.shards.sequence_length > longest:
        raise PermanentError(
            "SequenceTooLong",
            f"sequenceLength {inputs.shards.sequence_length}; the model is made for {longest} positions",
        )
    return model


def _state_meta(run: Run) -> dict[str, Any]:
    """What a checkpoint must agree with to be resumed from."""
    spec = run.context.spec
    return {
        "run": spec.input_digest,
        "zeroStage": zero_stage(run.inputs.train, spec.deepspeed),
        "startFrom": run.inputs.stage.start_from,
        "data": run.inputs.stage.data,
    }


def _resume(run: Run) -> int:
    """Continue from the newest verified checkpoint; the number of steps done."""
    found = run.checkpoints.newest(_state_meta(run))
    if found is None:
        return 0
    run.engine.load(found.folder)
    if run.gang.is_first:
        run.log.resume_at(found.step)
        run.context.progress.update(found.step, run.plan.steps, f"resumed at step {found.step}")
    return found.step


def train_step(run: Run, step: int) -> StepRecord:
    """One optimizer step. Raises PermanentError(NonFiniteLoss) on all ranks when any rank saw NaN or infinity."""
    began = time.monotonic()
    plan, shards = run.plan, run.inputs.shards
    targets = shards.targets_in(global_batch(plan, step))
    losses = []
    for index in range(plan.accumulation):
        if index:
            run.engine.advance()
        tokens, documents = shards.rows(micro_batch(plan, step, run.gang.rank, index))
        losses.append(run.engine.train(tokens, documents, targets))
    loss = run.gang.sum([float(torch.stack(losses).sum())])[0] / max(1, targets)
    _require_finite("loss", loss, step)
    rate = learning_rate(run.inputs.train, step, plan.steps)
    norm = run.engine.step(rate)
    _require_finite("norm of the gradient", norm, step)
    seconds = time.monotonic() - began
    done, rate_per_second = (step + 1) * plan.tokens_per_step, plan.tokens_per_step / seconds
    return StepRecord(step + 1, done, loss, rate, norm, seconds, rate_per_second)


def _require_finite(what: str, value: float, step: int) -> None:
    if not -float("inf") < value < float("inf"):
        raise PermanentError(
            "NonFiniteLoss",
            f"the {what} became {value} in step {step + 1}; nothing was saved after the step before it; "
            "lower the learning rate or look for damaged data",
        )


def _after_step(run: Run, record: StepRecord, stop: StopSignal) -> None:
    """Log; save when it is time, at the end (what comes then may fail), or when any rank was asked to stop."""
    is_last = record.step == run.plan.steps
    is_stopping = run.gang.sum([float(stop.is_set)])[0] > 0 and not is_last
    if run.gang.is_first:
        run.log.append(record)
        run.context.progress.update(record.step, run.plan.steps, "", **record.metrics())
    if is_stopping or is_last or record.step % run.context.spec.checkpoint.every_steps == 0:
        _save(run, record.step)
    if is_stopping:
        raise Preempted(f"asked to stop by SIGTERM; saved at step {record.step} of {run.plan.steps}")


def _save(run: Run, step: int) -> None:
    began = time.monotonic()
    spec = run.context.spec
    versions = {name: version(name) for name in ("torch", "deepspeed", "transformers", "bessemer-trainer")}
    run.gang.first(run.log.flush)  # before the save: an attempt that resumes here must find the lines up to here
    run.checkpoints.save(step, spec.attempt, run.engine.save, {**_state_meta(run), "versions": versions})
    run.checkpoints.retain(spec.checkpoint.keep_last)
    if run.gang.is_first:
        stall = time.monotonic() - began
        run.context.progress.update(step, run.plan.steps, f"saved at step {step}", checkpoint_stall_seconds=stall)


def _finish(run: Run) -> Outcome:
    """Measure the holdout, gather the weights, publish."""
    inputs, gang = run.inputs, run.gang
    scratch = run.context.scratch / f"rank-{gang.rank}"
    held = gang.on_node(lambda: pack_holdout(inputs.data_folder, inputs.start_folder, run.plan, run.context.scratch))
    holdout = measure_holdout(run.engine, gang, run.plan, held)
    weights = run.engine.weights()
    digest, parameters = gang.first(lambda: _publish(run, weights, scratch))
    gang.first(run.log.flush)
    metrics = {**run.log.final(), **holdout, "parameters": float(parameters)}
    return Outcome(digest, run.plan.steps, run.plan.steps * run.plan.tokens_per_step, metrics)


def _publish(run: Run, weights: Mapping[str, torch.Tensor], scratch: Path) -> tuple[str, int]:
    """Digest and number of parameters of the final artifact."""
    inputs, folder = run.inputs, scratch / "checkpoint"
    dtype = torch.float32 if inputs.train.precision == "fp32" else torch.bfloat16
    with disk_errors(str(folder)):
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        parameters = write_checkpoint(folder, run.engine.model, weights, dtype)
        copy_tokenizer(inputs.start_folder, folder)
        meta = {
            "method": inputs.stage.method,
            "inputDigest": run.context.spec.input_digest,
            "startFrom": inputs.stage.start_from,
            "data": inputs.stage.data,
            "steps": run.plan.steps,
            "tokens": run.plan.steps * run.plan.tokens_per_step,
            "parameters": parameters,
        }
        digest = run.context.store.publish(folder, "checkpoint", meta)
        shutil.rmtree(folder)
    return digest, parameters
