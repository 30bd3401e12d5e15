"""The training loop of every method: inputs -> engine -> resume -> steps -> what is measured -> artifact.

A method brings its objective, its batches and what it measures (`Task`); the checkpoint protocol, exact resuming,
preemption and the agreement of all ranks on every error are the same for all and stand here.
"""

import shutil
import signal
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from types import FrameType
from typing import Any, Protocol

import torch
from torch import nn

from bessemer_api.v1alpha1.stage import FORMATS, StageInputs
from bessemer_api.v1alpha1.train import Train
from bessemer_trainer.artifacts import copy_chat_template, copy_tokenizer, write_checkpoint
from bessemer_trainer.backends import disk_errors
from bessemer_trainer.checkpoint import Checkpoints
from bessemer_trainer.context import Context, Outcome
from bessemer_trainer.dist import Gang, zero_stage
from bessemer_trainer.engine import Engine
from bessemer_trainer.errors import PermanentError, Preempted
from bessemer_trainer.lora import add_lora, merged
from bessemer_trainer.loss_log import LossLog, StepRecord
from bessemer_trainer.model import load_model
from bessemer_trainer.schedule import RunPlan, learning_rate, plan_run
from bessemer_trainer.shards import Batch
from bessemer_trainer.store import Manifest, Store, run_key


@dataclass(frozen=True, slots=True)
class Inputs:
    """What is trained on, from where, and how. Folders hold verified files; nobody writes there."""

    stage: StageInputs
    train: Train
    start_folder: Path
    data_folder: Path
    sequence_length: int
    end_tokens: tuple[int, ...] = ()
    """Tokens that close an answer in the data: where the trained model has to stop."""


@dataclass(frozen=True, slots=True)
class StepSize:
    """A global batch over all ranks. `divisor`: what the sum of its losses is divided by."""

    divisor: float
    tokens: int
    targets: int


class Task(Protocol):
    """What a method brings beside its objective. All ranks call every method of it together, in the same order."""

    def start(self, engine: Engine, gang: Gang) -> None:
        """Called once, before anything is resumed or trained: the weights are those that training starts from."""

    def batches(self, step: int, engine: Engine, gang: Gang) -> Iterable[Batch]:
        """Micro batches of this rank in `step` (counted from 0), as many as the plan accumulates."""

    def size(self, step: int) -> StepSize:
        """Of the global batch of `step`; asked after `batches`."""

    def told(self, step: int) -> Mapping[str, float]:
        """What the log shows of `step` beside the objective's metrics; asked after its batches were trained."""

    def measure(self, engine: Engine, gang: Gang) -> Mapping[str, float]:
        """After the last step, for the report: held-out figures."""


@dataclass(frozen=True, slots=True)
class Run:
    """One attempt, after everything was read and built."""

    context: Context
    inputs: Inputs
    gang: Gang
    plan: RunPlan
    task: Task
    engine: Engine
    metrics: tuple[str, ...]
    checkpoints: Checkpoints
    log: LossLog
    parameters: float
    """Of the model that is trained; for metrics."""


@dataclass(frozen=True, slots=True)
class Done:
    """How far a run is."""

    steps: int = 0
    tokens: int = 0
    targets: int = 0


class StopSignal:
    """SIGTERM as a flag that is looked at between steps."""

    def __init__(self) -> None:
        self.is_set = False
        signal.signal(signal.SIGTERM, self._set)

    def _set(self, _signal: int, _frame: FrameType | None) -> None:
        self.is_set = True


# --- inputs -----------------------------------------------------------------------------------------------------


def read_inputs(context: Context, gang: Gang) -> Inputs:
    """Fetch and verify the inputs, once a node. Raises PermanentError(TokenizerMismatch | SpecInvalid | ...)."""
    stage = context.spec.stage
    if stage is None or stage.train is None or stage.data is None or stage.start_from is None:
        raise PermanentError("SpecInvalid", "stage.train, stage.data, stage.startFrom: training needs all three")
    data, source = stage.data, stage.start_from
    gang.agree(lambda: _check_kinds(context.store, stage))
    data_folder = fetch(context, gang, data)
    start_folder = fetch(context, gang, source)
    meta = context.store.manifest(data).meta
    ends = tuple(int(token) for token in meta.get("endTokens", ()))
    return Inputs(stage, stage.train, start_folder, data_folder, int(meta["sequenceLength"]), ends)


def fetch(context: Context, gang: Gang, digest: str) -> Path:
    """Folder of an artifact. Only the first rank of a node reads and hashes all files; the others use what it found."""
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
    found, wanted = data.meta.get("format", "text"), FORMATS[stage.method]
    if found != wanted:
        raise PermanentError(
            "WrongKind", f"stage.data {stage.data} is a mixture of {found}; {stage.method} needs one of {wanted}"
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


def plan_of(context: Context, inputs: Inputs, gang: Gang, examples: int) -> RunPlan:
    """The plan of a run over so many sequences, pairs or prompts. All ranks raise the same error."""
    micro, seed = context.spec.deepspeed.micro_batch_size, inputs.stage.seed
    return gang.agree(lambda: plan_run(inputs.train, examples, inputs.sequence_length, gang.world_size, micro, seed))


def starting_model(inputs: Inputs) -> Any:  # noqa: ANN401 - transformers is untyped
    """The model that training starts from, in fp32."""
    model: Any = load_model(inputs.start_folder)
    require_positions(model, inputs.sequence_length)
    return model


def require_positions(model: Any, length: int) -> None:  # noqa: ANN401 - transformers is untyped
    """PermanentError(SequenceTooLong) unless the model is made for sequences of `length`."""
    longest = model.config.max_position_embeddings
    if length > longest:
        raise PermanentError("SequenceTooLong", f"sequenceLength {length}; the model is made for {longest} positions")


# --- training ---------------------------------------------------------------------------------------------------


def train(context: Context, gang: Gang, inputs: Inputs, plan: RunPlan, objective: nn.Module, task: Task) -> Outcome:
    """Train and publish the checkpoint. Raises TrainerError, or Preempted after the state was saved.

    `objective`: see Engine.
    """
    run = _build(context, gang, inputs, plan, objective, task)
    task.start(run.engine, gang)
    stop = StopSignal()
    done = _resume(run)
    run.context.progress.update(done.steps, plan.steps, "training", parameters=run.parameters)
    while done.steps < plan.steps:
        record = train_step(run, done)
        done = Done(record.step, record.tokens, record.targets)
        _after_step(run, record, stop)
    return _finish(run, done)


def _build(context: Context, gang: Gang, inputs: Inputs, plan: RunPlan, objective: nn.Module, task: Task) -> Run:
    spec, lora = context.spec, inputs.train.lora
    if lora is not None:
        gang.agree(lambda: add_lora(objective.model, lora, inputs.stage.seed))
    # Any randomness in training itself (noise, dropout) differs by rank and is saved with the state.
    torch.manual_seed(inputs.stage.seed + gang.rank)
    parameters = float(sum(item.numel() for item in objective.parameters()))  # before ZeRO shares them out
    engine = Engine(objective, plan, inputs.train, spec.deepspeed, gang)
    key = run_key(spec.input_digest)
    owner = gang.first(lambda: spec.run_uid.partition("/")[0])  # the rest of it names the attempt
    checkpoints = Checkpoints(context.store, key, owner, gang, context.scratch)
    metrics = tuple(getattr(objective, "metrics", ()))
    log = LossLog(context.store, f"{key}/metrics.jsonl")
    return Run(context, inputs, gang, plan, task, engine, metrics, checkpoints, log, parameters)


def _state_meta(run: Run) -> dict[str, Any]:
    """What a checkpoint must agree with to be resumed from."""
    spec = run.context.spec
    return {
        "run": spec.input_digest,
        "zeroStage": zero_stage(run.inputs.train, spec.deepspeed),
        "startFrom": run.inputs.stage.start_from,
        "data": run.inputs.stage.data,
    }


def _resume(run: Run) -> Done:
    """Continue from the newest verified checkpoint."""
    found = run.checkpoints.newest(_state_meta(run))
    if found is None:
        return Done()
    run.engine.load(found.folder)
    if run.gang.is_first:
        run.log.resume_at(found.step)
        run.context.progress.update(found.step, run.plan.steps, f"resumed at step {found.step}")
    tokens = found.meta.get("tokens", found.step * run.plan.tokens_per_step)
    return Done(found.step, int(tokens), int(found.meta.get("targets", 0)))


def train_step(run: Run, done: Done) -> StepRecord:
    """One optimizer step. Raises PermanentError(NonFiniteLoss) on all ranks when any rank saw NaN or infinity."""
    began = time.monotonic()
    step, plan = done.steps, run.plan
    batches = run.task.batches(step, run.engine, run.gang)
    size = run.task.size(step)
    sums = []
    for index, batch in enumerate(batches):
        if index:
            run.engine.advance()
        sums.append(run.engine.train(batch, size.divisor))
    totals = torch.stack(sums)
    mine = [float(totals[:, column].sum()) for column in range(totals.shape[1])]
    loss, *metrics = (value / max(1, size.divisor) for value in run.gang.sum(mine))
    require_finite("loss", loss, step)
    rate = learning_rate(run.inputs.train, step, plan.steps)
    norm = run.engine.step(rate)
    require_finite("norm of the gradient", norm, step)
    seconds = time.monotonic() - began
    more = {**dict(zip(run.metrics, metrics, strict=True)), **run.task.told(step)}
    tokens, targets = done.tokens + size.tokens, done.targets + size.targets
    return StepRecord(step + 1, tokens, targets, loss, rate, norm, seconds, size.tokens / seconds, more)


def require_finite(what: str, value: float, step: int) -> None:
    """PermanentError(NonFiniteLoss) for NaN and infinities."""
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
        _save(run, record)
    if is_stopping:
        raise Preempted(f"asked to stop by SIGTERM; saved at step {record.step} of {run.plan.steps}")


def _save(run: Run, record: StepRecord) -> None:
    began = time.monotonic()
    spec, step = run.context.spec, record.step
    versions = {name: version(name) for name in ("torch", "deepspeed", "transformers", "bessemer-trainer")}
    run.gang.first(run.log.flush)  # before the save: an attempt that resumes here must find the lines up to here
    meta = {**_state_meta(run), "tokens": record.tokens, "targets": record.targets, "versions": versions}
    run.checkpoints.save(step, spec.attempt, run.engine.save, meta)
    run.checkpoints.retain(spec.checkpoint.keep_last)
    if run.gang.is_first:
        stall = time.monotonic() - began
        run.context.progress.update(step, run.plan.steps, f"saved at step {step}", checkpoint_stall_seconds=stall)


# --- the result -------------------------------------------------------------------------------------------------


def _finish(run: Run, done: Done) -> Outcome:
    """Measure, gather the weights, publish."""
    gang = run.gang
    scratch = run.context.scratch / f"rank-{gang.rank}"
    measured = run.task.measure(run.engine, gang)
    weights: Mapping[str, torch.Tensor] = run.engine.weights()
    if run.inputs.train.lora is not None:
        weights = merged(weights, run.inputs.train.lora)
    digest, parameters = gang.first(lambda: _publish(run, done, weights, scratch))
    gang.first(run.log.flush)
    targets = {"targets": float(done.targets)} if is_aligned(run.inputs) else {}
    metrics = {**run.log.final(), **measured, **targets, "parameters": float(parameters)}
    return Outcome(digest, done.steps, done.tokens, metrics)


def is_aligned(inputs: Inputs) -> bool:
    """Whether the method trains on examples, pairs or prompts, and not on plain text."""
    return FORMATS[inputs.stage.method] != "text"


def stop_at(model: Any, ends: tuple[int, ...]) -> None:  # noqa: ANN401 - transformers is untyped
    """Generation ends at what closed the answers in training as well as at the model's own end of text."""
    own = model.config.eos_token_id
    known = own if isinstance(own, list) else [] if own is None else [own]
    stops = [*known, *(token for token in ends if token not in known)]
    if stops != known:
        model.config.eos_token_id = stops if len(stops) > 1 else stops[0]


def _publish(run: Run, done: Done, weights: Mapping[str, torch.Tensor], scratch: Path) -> tuple[str, int]:
    """Digest and number of parameters of the final artifact."""
    inputs, folder = run.inputs, scratch / "checkpoint"
    dtype = torch.float32 if inputs.train.precision == "fp32" else torch.bfloat16
    with disk_errors(str(folder)):
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        stop_at(run.engine.model, inputs.end_tokens)
        parameters = write_checkpoint(folder, run.engine.model, weights, dtype)
        copy_tokenizer(inputs.start_folder, folder)
        copy_chat_template(inputs.data_folder, folder)
        meta = {
            "method": inputs.stage.method,
            "inputDigest": run.context.spec.input_digest,
            "startFrom": inputs.stage.start_from,
            "data": inputs.stage.data,
            "steps": done.steps,
            "tokens": done.tokens,
            "parameters": parameters,
        }
        if is_aligned(inputs):  # a key more would change the digest of every model that was pretrained before
            meta["targets"] = done.targets
        digest = run.context.store.publish(folder, "reward" if inputs.stage.method == "reward" else "checkpoint", meta)
        shutil.rmtree(folder)
    return digest, parameters
