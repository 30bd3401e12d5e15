"""The kind Evaluation, item banks and axes.

An Evaluation measures one checkpoint on one range of one bank. It is named by the digest of what it measures, so the
same measurement is never made twice; its result is immutable once written.
"""

from collections.abc import Iterable
from typing import Annotated, ClassVar, Literal, Self

from pydantic import Field, model_validator

from bessemer_api.base import Conditions, Metadata, Model
from bessemer_api.fields import (
    STORE_IS_IMMUTABLE,
    AxisName,
    Digest,
    Name,
    ShortText,
    StoreUrl,
    Text,
    Token,
    Uri,
    immutable,
)
from bessemer_api.v1alpha1.diagnostic import Diagnostic
from bessemer_api.v1alpha1.tasks import (
    TASKS,
    TASKS_THAT_GENERATE,
    TASKS_WITH_SAMPLES,
    TASKS_WITHOUT_PROMPT,
    Metric,
    MetricName,
    Perturbation,
    TaskName,
)
from bessemer_api.v1alpha1.train import Limits

Part = Literal["dev", "gate", "all"]
"""all: a regression suite, whole."""

GeneratorName = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]*$", max_length=64)]

GeneratorSettings = Annotated[
    dict[GeneratorName, Annotated[float, Field(ge=-1e9, le=1e9)]],
    Field(max_length=16, description="Values by field of the configuration; whole numbers are given as such."),
]


class ReasoningGym(Model):
    """Items made by generators of the package reasoning-gym with the bank's seed: another seed, fresh items."""

    generators: list[GeneratorName] = Field(
        min_length=1,
        max_length=32,
        description="Generators, each with the same number of items (give or take one).",
        json_schema_extra={"x-kubernetes-list-type": "set"},
    )
    settings: dict[GeneratorName, GeneratorSettings] = Field(
        default_factory=dict, max_length=32, description="Numbers of a generator's configuration, by its name."
    )


class LmEvalTask(Model):
    """A task of lm-evaluation-harness: YAML without code, and its data, in the folder `uri`."""

    task: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$", max_length=128)] = Field(
        description="Name of the task in the folder."
    )


class BankTask(Model):
    """Where the items of one axis come from."""

    uri: Uri | None = Field(
        None, description="JSONL file of items; its fields depend on the task of the axis of the same name."
    )
    sha256: Digest | None = Field(None, description="Expected digest of the file; a different content is refused.")
    reasoning_gym: ReasoningGym | None = Field(None, description="Make the items by generators, instead of uri.")
    lm_eval: LmEvalTask | None = Field(None, description="The folder `uri` holds a task of lm-evaluation-harness.")
    cel: ClassVar[tuple[tuple[str, str], ...]] = (
        ("has(self.uri) != has(self.reasoningGym)", "items need exactly one of uri and reasoningGym"),
        ("has(self.uri) || !(has(self.sha256) || has(self.lmEval))", "sha256 and lmEval belong to a uri"),
    )

    @model_validator(mode="after")
    def _one_origin(self) -> Self:
        if (self.uri is None) == (self.reasoning_gym is None):
            raise ValueError("items need exactly one of uri and reasoningGym")
        if self.uri is None and not (self.sha256 is None and self.lm_eval is None):
            raise ValueError("sha256 and lmEval belong to a uri")
        return self


class RegressionSuite(Model):
    """Cases of which every one must pass: one for each bug ever reported."""

    uri: Uri = Field(description="JSONL file of cases: prompt and verifier. Data is never decontaminated against them.")
    sha256: Digest | None = Field(None, description="Expected digest of the file; a different content is refused.")
    prompt: Literal["plain", "chat"] | None = Field(None, description="How cases are shown, as in evaluation.axes.")
    max_new_tokens: int | None = Field(None, ge=1, le=16384, description="Longest answer in tokens; default: 128.")


class Bank(Model):
    """A pool of items, pinned by digest when data is prepared: a part for choosing, a part for gating."""

    name: Name = Field(description="Name of the bank.")
    dev: int = Field(ge=0, le=1_000_000, description="Items per axis for choosing (epochs, candidates).")
    gate: int = Field(ge=1, le=1_000_000, description="Items per axis for gating.")
    seed: int = Field(0, ge=0, le=2**31, description="Seed of the order of items, fixed before the first gate run.")
    tasks: dict[AxisName, BankTask] = Field(
        min_length=1, max_length=16, description="Items by the name of the axis that they measure."
    )


def _quoted(names: Iterable[str]) -> str:
    return "[" + ", ".join(f"'{name}'" for name in names) + "]"


_METRIC_RULE = " || ".join(
    ["!has(self.metric)"]
    + [f"(self.task == '{name}' && self.metric in {_quoted(task.metrics)})" for name, task in TASKS.items()]
)
_METRIC_MESSAGE = "the task has no such metric"
_GENERATES_MESSAGE = "maxNewTokens belongs to tasks that generate"
_SAMPLES_MESSAGE = "samples and temperature belong to tasks that sample"
_PROMPT_MESSAGE = "perturb and prompt: chat belong to tasks whose items have a prompt"
_WITHOUT_ONE_PROMPT = sorted({*TASKS_WITHOUT_PROMPT, "handoff", "sessionCost"})
_PASSAGES_MESSAGE = "passages belongs to tasks whose items have one prompt"
_TEMPERATURE_MESSAGE = "several samples need a temperature above 0"


class Axis(Model):
    """One axis on which checkpoints are measured."""

    name: AxisName = Field(description="Name of the axis; the bank has items under the same name.")
    task: TaskName = Field(description="How items are measured; docs/evaluation.md describes every task and its items.")
    metric: MetricName | None = Field(
        None, description="Number of an item that counts, where a task has several; default: the task's first."
    )
    cluster_by: Annotated[str, Field(max_length=64)] | None = Field(
        None, description="Field of an item that names its cluster (a document, a fact): items in it are dependent."
    )
    stratify_by: Annotated[str, Field(max_length=64)] | None = Field(
        None, description="Field of an item that names its stratum (a generator, a family): slices, and smaller errors."
    )
    prompt: Literal["plain", "chat"] | None = Field(
        None,
        description="plain (default): the prompt as it is; chat: as the user's turn in the checkpoint's own template.",
    )
    samples: int | None = Field(
        None, ge=1, le=64, description="Answers to an item; its score is their mean (distinctValidNovel: of the set)."
    )
    max_new_tokens: int | None = Field(
        None, ge=1, le=16384, description="Longest answer in tokens; default: by the task."
    )
    temperature: Annotated[float, Field(ge=0, le=5)] | None = Field(
        None, description="0: the most likely token; default: 0 for one answer, 1 for several."
    )
    perturb: Annotated[list[Perturbation], Field(max_length=3)] | None = Field(
        None,
        description="Damage to every prompt, the same each time, in this order.",
        json_schema_extra={"x-kubernetes-list-type": "set"},
    )
    passages: bool | None = Field(
        None,
        description="Open book: the item's field `passage` stands before its prompt. An axis without it on the same "
        "items makes the table of retrieval: base or tuned, with or without passages.",
    )
    cel: ClassVar[tuple[tuple[str, str], ...]] = (
        (_METRIC_RULE, _METRIC_MESSAGE),
        (f"!has(self.maxNewTokens) || self.task in {_quoted(TASKS_THAT_GENERATE)}", _GENERATES_MESSAGE),
        (
            f"!(has(self.samples) || has(self.temperature)) || self.task in {_quoted(TASKS_WITH_SAMPLES)}",
            _SAMPLES_MESSAGE,
        ),
        (
            f"!(self.task in {_quoted(TASKS_WITHOUT_PROMPT)})"
            " || ((!has(self.prompt) || self.prompt == 'plain') && !has(self.perturb))",
            _PROMPT_MESSAGE,
        ),
        (f"!has(self.passages) || !(self.task in {_quoted(_WITHOUT_ONE_PROMPT)})", _PASSAGES_MESSAGE),
        (
            "!has(self.temperature) || self.temperature > 0.0 ||"
            " (has(self.samples) ? self.samples == 1 : self.task != 'distinctValidNovel')",
            _TEMPERATURE_MESSAGE,
        ),
    )

    @model_validator(mode="after")
    def _fields_of_the_task(self) -> Self:
        task = TASKS[self.task]
        if self.metric is not None and self.metric not in task.metrics:
            raise ValueError(_METRIC_MESSAGE)
        if self.max_new_tokens is not None and not task.max_new_tokens:
            raise ValueError(_GENERATES_MESSAGE)
        if not (self.samples is None and self.temperature is None) and not task.samples:
            raise ValueError(_SAMPLES_MESSAGE)
        if not task.has_prompt and (self.prompt == "chat" or self.perturb is not None):
            raise ValueError(_PROMPT_MESSAGE)
        if self.passages is not None and self.task in _WITHOUT_ONE_PROMPT:
            raise ValueError(_PASSAGES_MESSAGE)
        if self.temperature == 0 and self.answers > 1:
            raise ValueError(_TEMPERATURE_MESSAGE)
        return self

    @property
    def metric_name(self) -> MetricName:
        """The metric that counts."""
        return self.metric or TASKS[self.task].default_metric

    @property
    def measure(self) -> Metric:
        """Unit, direction and scale of an item's score."""
        return TASKS[self.task].metrics[self.metric_name]

    @property
    def answers(self) -> int:
        """Answers that are generated to an item."""
        return self.samples or TASKS[self.task].samples or 1

    @property
    def answer_tokens(self) -> int:
        """Longest answer in tokens."""
        return self.max_new_tokens or TASKS[self.task].max_new_tokens

    @property
    def heat(self) -> float:
        """Temperature of sampling; 0 is greedy."""
        default = 1.0 if self.answers > 1 else 0.0
        return default if self.temperature is None else self.temperature

    @property
    def needs_training_data(self) -> bool:
        """Whether a score depends on what was trained on."""
        return self.task == "distinctValidNovel"


class PipelineEvaluation(Model):
    """What is measured."""

    banks: list[Bank] = Field(
        default_factory=list,
        max_length=8,
        description="Item banks.",
        json_schema_extra={"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"]},
    )
    axes: list[Axis] = Field(
        default_factory=list,
        max_length=16,
        description="Axes.",
        json_schema_extra={"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"]},
    )
    diagnostics: list[Diagnostic] = Field(
        default_factory=list,
        max_length=16,
        description="Detectors of known failure modes, each run where it is cheapest.",
        json_schema_extra={"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"]},
    )
    regression: list[RegressionSuite] = Field(
        default_factory=list, max_length=16, description="Suites in which every case must pass (veto `regression`)."
    )
    cel: ClassVar[tuple[tuple[str, str], ...]] = (
        ("!has(self.banks) || self.banks.all(b, b.name != 'regression')", "no bank may be named regression"),
    )

    @model_validator(mode="after")
    def _free_name(self) -> Self:
        if any(bank.name == "regression" for bank in self.banks):
            raise ValueError("no bank may be named regression")
        return self


class EvaluationInputs(Model):
    """What determines the result; its digest names the object."""

    checkpoint: Digest = Field(description="Checkpoint artifact that is measured.")
    bank: Digest = Field(description="Bank artifact.")
    axes: list[Axis] = Field(min_length=1, max_length=16, description="Axes that are measured, in order.")
    part: Part = Field(description="Which part of the bank.")
    start: int = Field(ge=0, le=1_000_000, description="First item of each axis, counted from 0.")
    end: int = Field(ge=1, le=1_000_000, description="One past the last item of each axis; of `all` an upper limit.")
    precision: Literal["fp32", "bf16"] = Field("fp32", description="Number format of the forward pass.")
    seed: int = Field(0, ge=0, le=2**31, description="Seed of anything random.")
    recipe: int = Field(1, ge=1, le=1000, description="Version of the evaluator; a change of results changes it.")
    training_data: Annotated[list[Digest], Field(max_length=64)] | None = Field(
        None, description="Prepared data that outputs must be novel against (distinctValidNovel)."
    )
    cel: ClassVar[tuple[tuple[str, str], ...]] = (("self.end > self.start", "end must be larger than start"),)

    @model_validator(mode="after")
    def _some_items(self) -> Self:
        if self.end <= self.start:
            raise ValueError("end must be larger than start")
        return self


class EvaluationSpec(Model):
    """The measurement and how it is run. Only inputs determine the result."""

    store: StoreUrl = Field(
        description="Artifact store. Immutable.",
        json_schema_extra=immutable(STORE_IS_IMMUTABLE),
    )
    inputs: EvaluationInputs = Field(
        description="What determines the result. Immutable.",
        json_schema_extra=immutable("spec.inputs is immutable"),
    )
    input_digest: Digest = Field(
        description="Digest of inputs. Immutable.",
        json_schema_extra=immutable("spec.inputDigest is immutable"),
    )
    profile: Name = Field("default", description="Profile of the pods.")
    limits: Limits = Field(default_factory=lambda: Limits.model_validate({}), description="When to give up.")
    suspend: bool = Field(False, description="Stop after the running attempt has ended or saved.")
    retry: Token = Field("", description="Another value starts a fresh count of attempts.")


class Attempt(Model):
    """One attempt: one PyTorchJob or Job."""

    name: Annotated[str, Field(max_length=63)] = Field(description="Name of the PyTorchJob or Job.")
    number: int = Field(ge=1, le=100_000, description="Counted from 1, never reused.")
    outcome: Literal["Running", "Succeeded", "Failed", "Preempted"] = Field(description="How it went.")
    reason: Annotated[str, Field(max_length=64)] = Field("", description="One PascalCase word.")
    message: Text = Field("", description="What the pod said.")
    exit_code: int | None = Field(None, ge=0, le=255, description="Exit code that decided the outcome.")
    retry: Token = Field("", description="Value of spec.retry when it was made.")
    started_at: Annotated[str, Field(max_length=40)] = Field("", description="When it was made.")
    finished_at: Annotated[str, Field(max_length=40)] = Field("", description="When it ended.")
    admitted_at: Annotated[str, Field(max_length=40)] | None = Field(
        None, description="Since when its queue lets it run; empty while it waits, absent without a queue."
    )
    preemptions: int | None = Field(
        None,
        ge=0,
        description="How often its queue took its pods; its end included, if that was one more preemption.",
    )


class Progress(Model):
    """Progress of a running attempt; names of Kubeflow KEP-2779."""

    progress_percentage: int = Field(0, ge=0, le=100, description="Share of the work that is done.")
    estimated_remaining_seconds: int | None = Field(None, ge=0, description="Estimated time left.")
    metrics: dict[Annotated[str, Field(max_length=64)], float] = Field(
        default_factory=dict, max_length=16, description="Newest values, for example loss."
    )
    message: ShortText = Field("", description="What is going on.")


Phase = Literal["Pending", "Running", "Succeeded", "Failed", "Suspended"]


class WorkStatus(Model):
    """Status of anything that runs as attempts."""

    observed_generation: int = Field(0, ge=0, description="Generation that this status was decided for.")
    phase: Phase = Field("Pending", description="Where it is.")
    conditions: Conditions = Field(default_factory=list, description="Ready, Reconciling, Stalled.")
    attempts: list[Attempt] = Field(
        default_factory=list,
        max_length=200,
        description="All attempts, oldest first.",
        json_schema_extra={"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["number"]},
    )
    preemptions: int = Field(0, ge=0, description="Preemptions of all attempts; they cost no attempt.")
    output_digest: Digest | None = Field(None, description="Artifact that was made.")
    metrics: dict[Annotated[str, Field(max_length=64)], float] = Field(
        default_factory=dict, max_length=64, description="Final figures from the report of the pod."
    )
    reused: bool = Field(False, description="The result was already in the store; nothing was computed.")
    progress: Progress | None = Field(None, description="Progress of the running attempt.")


class Evaluation(Model):
    """Measures one checkpoint on one range of one bank; the same measurement is never made twice."""

    api_version: Literal["bessemer.dev/v1alpha1"] = "bessemer.dev/v1alpha1"
    kind: Literal["Evaluation"] = "Evaluation"
    metadata: Metadata
    spec: EvaluationSpec
    status: WorkStatus = Field(default_factory=lambda: WorkStatus.model_validate({}))
