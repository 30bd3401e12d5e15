"""Rules of the lint about methods: what each reads, how messages become text, and unusual settings.

They run only when all references hold and nothing waits for itself.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping

from bessemer_api.v1alpha1.pipeline import PipelineSpec, Stage
from bessemer_operator.core.findings import Finding, Path, error, unknown, warning
from bessemer_operator.core.lineage import BASE

KINDS: Mapping[str, frozenset[str]] = {
    "tokenizer": frozenset({"text", "messages", "promptCompletion"}),
    "pretrain": frozenset({"text"}),
    "cpt": frozenset({"text"}),
    "sft": frozenset({"text", "messages", "promptCompletion"}),
    "dpo": frozenset({"preference"}),
    "orpo": frozenset({"preference"}),
    "kto": frozenset({"preference"}),
    "reward": frozenset({"preference"}),
    "grpo": frozenset({"prompts"}),
}
"""Kinds of data sets that each method can read."""

BETAS: Mapping[tuple[str, str], tuple[float, float]] = {
    ("dpo", "sigmoid"): (0.01, 0.5),
    ("dpo", "hinge"): (0.01, 0.5),
    ("dpo", "ipo"): (0.01, 1.0),
    ("dpo", "sigmoidNorm"): (1.0, 10.0),
    ("kto", "sigmoid"): (0.01, 0.5),
    ("orpo", "sigmoid"): (0.01, 1.0),
    ("grpo", "sigmoid"): (0.0, 0.2),
}
"""Range of beta that published recipes use, by method and type of loss."""

Chain = Callable[[str], list[str]]
"""A name and everything that it descends from, nearest first."""


def method_findings(spec: PipelineSpec, chain: Chain) -> list[Finding]:
    """What is wrong or dubious about the methods of the stages."""
    found: list[Finding] = []
    for index, stage in enumerate(spec.stages):
        path: Path = ("spec", "stages", index)
        found += _data_kinds(spec, path, stage)
        found += _beside(spec, path, stage)
        found += _settings(path, stage)
        found += _templates(spec, path, stage, chain)
        found += _repeated_nll(spec, path, stage, chain)
    return found


def _data_kinds(spec: PipelineSpec, path: Path, stage: Stage) -> Iterator[Finding]:
    wanted = KINDS[stage.method]
    for index, entry in enumerate(stage.data.mixture):
        kind = spec.data[entry.ref].kind
        if kind not in wanted:
            message = f'{stage.method} can not read data set "{entry.ref}" of kind {kind}'
            fix = f"name a data set of kind {' or '.join(sorted(wanted))}"
            yield error((*path, "data", "mixture", index, "ref"), "WrongDataKind", message, fix)
    kinds = {spec.data[entry.ref].kind for entry in stage.data.mixture}
    if stage.method == "sft" and kinds == {"text"}:
        message = "sft reads examples, and every data set here is text (text beside examples is replay)"
        fix = "name a data set of kind messages or promptCompletion, or use cpt"
        yield error((*path, "data", "mixture"), "WrongDataKind", message, fix)


def _beside(spec: PipelineSpec, path: Path, stage: Stage) -> Iterator[Finding]:
    """What a stage reads beside its origin: a reward model, a reference policy."""
    methods = {item.name: item.method for item in spec.stages}
    rewards = [name for name, method in methods.items() if method == "reward"]
    if stage.reward is not None and stage.reward not in rewards:
        yield unknown((*path, "reward"), "reward stage", stage.reward, rewards, "name a stage of method reward")
    policies = [name for name, method in methods.items() if method not in {"reward", "tokenizer"}]
    policies += [BASE] if spec.base else []
    if stage.reference is not None and stage.reference not in policies:
        yield unknown((*path, "reference"), "stage", stage.reference, policies, "name a stage that trains a model")


def _settings(path: Path, stage: Stage) -> Iterator[Finding]:
    train = stage.train
    if train is None:
        return
    low, high = BETAS.get((stage.method, train.loss_type), (0.0, float("inf")))
    if not low <= train.beta <= high:
        how = stage.method if train.loss_type == "sigmoid" else f"{stage.method} with lossType {train.loss_type}"
        message = f"beta {train.beta:g} is unusual for {how}; published recipes use {low:g} to {high:g}"
        yield warning((*path, "train", "beta"), "UnusualBeta", message, "look at it again")
    if train.loss_on != "completion" and stage.method not in {"sft", "orpo"}:
        yield warning((*path, "train", "lossOn"), "NoEffect", f"lossOn has no effect on {stage.method}", "remove it")


def _templates(spec: PipelineSpec, path: Path, stage: Stage, chain: Chain) -> Iterator[Finding]:
    """Messages need a template: one that a stage names, or the model's own where there may be one."""
    if not any(spec.data[entry.ref].kind == "messages" for entry in stage.data.mixture):
        return
    named = [item.chat_template for item in _line(spec, chain(stage.name)) if item.chat_template]
    template = next((name for name in named if name != "fromModel"), spec.base and spec.base.chat_template)
    here, fix = (*path, "chatTemplate"), "set chatTemplate, for example chatml"
    if template == "none":
        yield warning(here, "NoChatTemplate", "without a template a model can not tell who speaks", fix)
    elif template is None:
        yield error(here, "NoChatTemplate", "the data are messages, and no stage before names a template", fix)
    elif template == "fromModel" and spec.base is not None and spec.base.kind == "base":
        yield warning(here, "NoChatTemplate", "the data are messages, and a base model may have no template", fix)


def _repeated_nll(spec: PipelineSpec, path: Path, stage: Stage, chain: Chain) -> Iterator[Finding]:
    before = _line(spec, chain(stage.name)[1:])
    if stage.method == "orpo" and any(item.method == "sft" for item in before):
        message = (
            "orpo after sft: its loss holds the likelihood of the chosen answers too, which sft has trained already"
        )
        fix = "nothing to do where that is meant; else leave sft out, or use dpo"
        yield warning((*path, "method"), "RepeatsLikelihood", message, fix)


def _line(spec: PipelineSpec, names: Iterable[str]) -> list[Stage]:
    stages = {item.name: item for item in spec.stages}
    return [stages[name] for name in names if name in stages]
