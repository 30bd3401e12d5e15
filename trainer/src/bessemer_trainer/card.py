"""The model card of a release, and its results in the two forms that the Hugging Face hub reads. Opens no store.

All of it derives from the task, the stored evidence and the manifest of the candidate, so that the same promotion gives
the same bytes: no time, host or channel stands in it. The metadata is written by huggingface_hub.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from huggingface_hub import EvalResult, EvalResultEntry, ModelCardData, eval_result_entries_to_yaml
from ruamel.yaml import YAML

from bessemer_api.base import Model
from bessemer_api.digest import canonical_json
from bessemer_api.job import CompareReport, CompareTask, HoldEvidence, Made, PromoteTask
from bessemer_api.v1alpha1.data import Source
from bessemer_api.v1alpha1.tasks import Metric
from bessemer_trainer.markdown import environment

TEMPLATES = Path(__file__).parent / "templates"
RESULTS = ".eval_results"
_TASK_TYPE = "text-generation"


@dataclass(frozen=True, slots=True)
class Facts:
    """What a card is made from."""

    task: PromoteTask
    asked: CompareTask
    found: CompareReport
    meta: Mapping[str, Any]
    """Of the candidate's manifest."""
    is_signed: bool = False

    @property
    def name(self) -> str:
        """The pipeline, without its namespace: the same pipeline elsewhere makes the same card."""
        return self.task.pipeline.rpartition("/")[2]

    @property
    def lineage(self) -> Sequence[Made]:
        """All that the candidate was made by."""
        return self.task.lineage or ()

    @property
    def maker(self) -> Made | None:
        """What made the candidate; None where nothing was told."""
        return next((made for made in reversed(self.lineage) if made.output == self.task.candidate), None)


def write_card(folder: Path, facts: Facts) -> None:
    """Write README.md and a file of results for each axis."""
    data = _metadata(facts).to_yaml(line_break="\n")
    body = environment(str(TEMPLATES)).get_template("card.md.j2").render(card=_view(facts))
    (folder / "README.md").write_text(f"---\n{data}\n---\n\n{body}", encoding="utf-8")
    (folder / RESULTS).mkdir()
    yaml = YAML(typ="safe")
    yaml.default_flow_style = False
    for axis in facts.found.axes:
        with (folder / RESULTS / f"{axis.name}.yaml").open("w", encoding="utf-8") as file:
            yaml.dump(eval_result_entries_to_yaml([_entry(facts, axis)]), file)


# --- metadata ---------------------------------------------------------------------------------------------------


def _metadata(facts: Facts) -> ModelCardData:
    bases = [base["uri"] for base in _bases(facts.lineage)]
    relation = "merge" if facts.maker is not None and facts.maker.merge is not None else "finetune"
    return ModelCardData(
        base_model=bases[0] if len(bases) == 1 else bases or None,
        base_model_relation=relation if bases else None,
        datasets=_data_sets(facts.lineage) or None,
        library_name="transformers",
        pipeline_tag=_TASK_TYPE,
        tags=["bessemer"],
        model_name=facts.name,
        eval_results=[_result(facts, axis) for axis in facts.found.axes],
    )


def _bases(lineage: Sequence[Made]) -> list[dict[str, str]]:
    stages = [made.stage.base for made in lineage if made.stage is not None and made.stage.base is not None]
    return [{"uri": base.source.uri, "content": base.content} for base in stages]


def _data_sets(lineage: Sequence[Made]) -> list[str]:
    """Names of the data sets that were trained on."""
    mixtures = [made.stage.mixture for made in lineage if made.stage is not None and made.stage.mixture is not None]
    return list(dict.fromkeys(part.name for mixture in mixtures for part in mixture.parts))


def _result(facts: Facts, axis: HoldEvidence) -> EvalResult:
    return EvalResult(
        task_type=_TASK_TYPE,
        dataset_type=axis.name,
        dataset_name=axis.name,
        dataset_revision=facts.asked.bank,
        metric_type=_measure(facts, axis.name),
        metric_name=f"{_words_of(facts, axis.name)}, {axis.n} gate items",
        metric_value=_as_measured(facts, axis.name, axis.candidate_mean),
    )


def _entry(facts: Facts, axis: HoldEvidence) -> EvalResultEntry:
    baseline = _as_measured(facts, axis.name, axis.baseline_mean)
    against = f"baseline {baseline:.5g}, better by {axis.delta:.5g}, 95 %: {axis.low:.5g} to {axis.high:.5g}"
    return EvalResultEntry(
        dataset_id=axis.name,
        task_id=_measure(facts, axis.name),
        dataset_revision=facts.asked.bank,
        value=_as_measured(facts, axis.name, axis.candidate_mean),
        notes=f"{_words_of(facts, axis.name)}, {axis.n} gate items; {against}",
    )


def _measure(facts: Facts, axis: str) -> str:
    return next((measure.task for measure in facts.asked.measures if measure.name == axis), axis)


def _metric(facts: Facts, axis: str) -> Metric | None:
    return next((measure.measure for measure in facts.asked.measures if measure.name == axis), None)


def _words_of(facts: Facts, axis: str) -> str:
    """What a number of the axis is."""
    metric = _metric(facts, axis)
    if metric is None:
        return axis
    kind = "" if metric.quantile is None else f", {metric.quantile:.0%} quantile"
    return metric.unit + kind + ("" if metric.larger_is_better else " (smaller is better)")


def _as_measured(facts: Facts, axis: str, value: float) -> float:
    """A mean as it was measured: evidence turns it so that larger is better, and takes logarithms of ratios."""
    metric = _metric(facts, axis)
    turned = value if metric is None or metric.larger_is_better else -value
    return round(math.exp(turned), 6) if metric is not None and metric.is_ratio else turned


# --- the text ---------------------------------------------------------------------------------------------------


def _view(facts: Facts) -> dict[str, Any]:
    task, asked = facts.task, facts.asked
    return {
        "name": facts.name,
        "gate": task.gate,
        "is_override": bool(task.override),
        "checkpoint": task.candidate,
        "method": _method(facts.maker) if facts.maker is not None else facts.meta.get("method", "unknown"),
        "parameters": facts.meta.get("parameters"),
        "bases": _bases(facts.lineage),
        "evidence": task.evidence,
        "baseline": asked.baseline.checkpoint,
        "bank": asked.bank,
        "look": asked.look,
        "looks": len(asked.looks),
        "tried": _tried(facts.found) if asked.channel else "",
        "axes": [_axis(facts, axis) for axis in facts.found.axes],
        "others": list(_others(facts)),
        "is_signed": facts.is_signed,
        "not_shown": list(_not_shown(facts)),
        "steps": [_step(made, facts.lineage) for made in facts.lineage],
        "sources": [row for made in facts.lineage for row in _sources(made)],
        "settings": [row for made in facts.lineage for row in _settings(made)],
    }


def _tried(found: CompareReport) -> str:
    """How often these items were asked before: who tries often enough passes by chance."""
    return f"; try {found.tries} of this channel on these items, which have judged {found.bank_uses} in all"


def _method(made: Made) -> str:
    return f"merge ({made.merge.method})" if made.merge is not None else made.stage.method if made.stage else ""


def _axis(facts: Facts, axis: HoldEvidence) -> dict[str, Any]:
    asked = _asked(facts, axis.name)
    won = axis.name in facts.task.wins
    return {
        "name": axis.name,
        "task": _words_of(facts, axis.name),
        "n": axis.n,
        "baseline": _as_measured(facts, axis.name, axis.baseline_mean),
        "candidate": _as_measured(facts, axis.name, axis.candidate_mean),
        "delta": axis.delta,
        "low": axis.low,
        "high": axis.high,
        "win_by": asked[0],
        "margin": asked[1],
        "result": "won" if won else "not decided" if facts.task.override else "holds",
    }


def _asked(facts: Facts, name: str) -> tuple[float | None, float | None]:
    """What the gate asks of an axis: by how much it must win, by how much it must not be worse."""
    axis = next((axis for axis in facts.asked.axes if axis.name == name), None)
    return (axis.win_by, axis.not_worse_than) if axis is not None else (None, None)


def _others(facts: Facts) -> Iterator[dict[str, Any]]:
    """Further comparisons in which the candidate had to hold."""
    if facts.found.anchors:
        words = "the last release that won on the axis (the anchor)"
        yield {"words": words, "axes": [_axis(facts, axis) for axis in facts.found.anchors]}
    for name, axes in (facts.found.also or {}).items():
        yield {"words": name, "axes": [_axis(facts, axis) for axis in axes]}


def _not_shown(facts: Facts) -> Iterator[str]:
    for axis in facts.found.axes:
        win_by, margin = _asked(facts, axis.name)
        between = f"the difference is {axis.delta:.5g}, between {axis.low:.5g} and {axis.high:.5g}"
        if win_by is not None and axis.name not in facts.task.wins:
            yield f"{axis.name}: that it is better by more than {win_by:g}; {between}."
        if margin is not None and axis.low <= -margin:
            yield f"{axis.name}: at 95 %, that it is not worse by {margin:g}; {between}."
    for veto in facts.found.vetoes:
        yield f"That the veto {veto} does not apply: {facts.found.veto_detail}"
    if not facts.found.settings_agree:
        yield "That both were measured alike: the settings of the evaluations differ."


def _step(made: Made, lineage: Sequence[Made]) -> dict[str, Any]:
    inputs = made.stage or made.merge
    text = canonical_json(inputs.wire()).decode() if inputs is not None else ""
    sources = [other.name for other in lineage if other.output in text and other.name != made.name]
    return {"name": made.name, "method": _method(made), "sources": sources, "output": made.output}


def _sources(made: Made) -> Iterator[dict[str, str]]:
    """What was read from outside of the store; one content digest covers all sources of a step."""
    stage = made.stage
    if stage is None:
        return
    found: list[tuple[Sequence[Source], str]] = []
    if stage.base is not None:
        found.append(([stage.base.source], stage.base.content))
    if stage.prepare is not None:
        found.append((stage.prepare.sources, stage.prepare.content))
    if stage.bank is not None:
        uris = [Source(uri=task.uri) for _, task in sorted(stage.bank.tasks.items()) if task.uri]
        found.append((uris, stage.bank.content))
    for sources, content in found:
        yield from ({"name": made.name, "uri": source.uri, "content": content} for source in sources)


def _settings(made: Made) -> Iterator[dict[str, str]]:
    if made.merge is not None:
        yield {"name": made.name, "text": _words(made.merge, {"parents", "base", "held_out"})}
    elif made.stage is not None and made.stage.train is not None:
        yield {"name": made.name, "text": _words(made.stage.train)}


def _words(inputs: Model, left_out: set[str] | None = None) -> str:
    """`name value, name value` of what is not the default."""
    document = inputs.model_dump(mode="json", by_alias=True, exclude_defaults=True, exclude=left_out)
    return ", ".join(f"{key} {canonical_json(value).decode()}" for key, value in document.items())
