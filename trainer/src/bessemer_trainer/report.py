"""What the HTML report says: the pipeline, its stages and the evidence of its gates as a view for the template.

Pure: documents in, a view and HTML out; `stages/report.py` reads the store. It repeats verdicts, it gives none, and
shows every number as it was stored. Unknown or missing evidence is said to be missing, never guessed.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from bessemer_api.job import CompareReport, CompareTask, HoldEvidence
from bessemer_api.v1alpha1.evaluation import WorkStatus
from bessemer_api.v1alpha1.gate import Gate, GateAxis
from bessemer_api.v1alpha1.pipeline import ChannelSummary, GateSummary, PipelineSpec, StageSummary
from bessemer_api.v1alpha1.stage import StageInputs
from bessemer_trainer import plots

TONES = {"Passed": "good", "Failed": "bad", "Invalid": "bad", "Error": "bad", "Inconclusive": "open", "Pending": "open"}
STATES = {
    "Won": "shown to be better",
    "Holds": "shown not to be worse",
    "Worse": "shown to be worse",
    "NotShown": "nothing was shown",
}


@dataclass(frozen=True, slots=True)
class Comparison:
    """One look of a gate as it was stored."""

    digest: str
    task: CompareTask
    report: CompareReport


@dataclass(frozen=True, slots=True)
class Work:
    """One stage of the pipeline with what it was made from and what came of it; `meta` is its artifact's."""

    name: str
    object: str
    input_digest: str
    inputs: StageInputs
    status: WorkStatus
    meta: Mapping[str, Any] = field(default_factory=dict)
    losses: Sequence[plots.Point] = ()


@dataclass(frozen=True, slots=True)
class Facts:
    """Everything that a report is made of."""

    name: str
    namespace: str
    spec: PipelineSpec
    rows: Sequence[StageSummary]
    gates: Sequence[GateSummary]
    channels: Sequence[ChannelSummary]
    conditions: Sequence[Mapping[str, Any]]
    works: Sequence[Work]
    comparisons: Sequence[Comparison]
    evaluations: Sequence[Mapping[str, Any]]
    tries: Mapping[str, Sequence[Mapping[str, Any]]] = field(default_factory=dict)


def render(facts: Facts) -> str:
    """The report: one HTML document that loads nothing."""
    loader = FileSystemLoader(Path(__file__).parent / "templates")
    environment = Environment(
        loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters.update(
        short=short_digest,
        number=plots.short_number,
        signed=plots.signed,
        mean=lambda value: f"{value:.3f}",
        digits=lambda value: f"{value:.4g}",
        p_value=lambda p: "< 0.0001" if p < 1e-4 else f"{p:.2g}",
        count=lambda value: f"{value:,}",
        percent=lambda share: f"{100 * share:.1f} %",
    )
    return environment.get_template("report.html.j2").render(view=build_view(facts))


def short_digest(digest: str | None) -> str:
    """The first 12 digits, as people name an artifact."""
    return digest.removeprefix("sha256:")[:12] if digest else "—"


def build_view(facts: Facts) -> dict[str, Any]:
    """All that the template shows, section by section."""
    names = artifact_names(facts)
    return {
        "name": facts.name,
        "namespace": facts.namespace,
        "store": facts.spec.store,
        "seed": facts.spec.seed,
        "headline": headline(facts, names),
        "gates": [gate_view(gate, facts, names) for gate in facts.gates],
        "channels": facts.channels,
        "rows": [_row_view(row, facts, names) for row in facts.rows],
        "flow": _flow(facts, names),
        "curves": [curve for work in facts.works if (curve := _curve(work))],
        "data": [_data_view(work) for work in facts.works if work.inputs.method == "prepare" and work.meta],
        "mixtures": [_mixture_view(work) for work in facts.works if work.inputs.method == "mixture" and work.meta],
        "conditions": facts.conditions,
        "works": [_work_view(work) for work in facts.works],
        "evaluations": facts.evaluations,
        "names": names,
    }


def artifact_names(facts: Facts) -> dict[str, str]:
    """A name that people know for each artifact digest."""
    names = {channel.digest: f"incumbent of {channel.name}" for channel in facts.channels if channel.digest}
    return names | {row.output_digest: row.name for row in facts.rows if row.output_digest}


# --- verdicts ---------------------------------------------------------------------------------------------------


def headline(facts: Facts, names: Mapping[str, str]) -> dict[str, str]:
    """The one sentence that a reader with no time needs."""
    wanted = facts.spec.promotion.gate if facts.spec.promotion else None
    gate = next((gate for gate in facts.gates if gate.name == wanted), facts.gates[-1] if facts.gates else None)
    promoted = next((item for item in facts.conditions if item["type"] == "Promoted"), None)
    if gate is None:
        return {"tone": "open", "title": "No gate was judged", "text": "This pipeline has given no verdict."}
    text = f"Gate {gate.name} compared {_named(gate.candidate, names)} with {_named(gate.baseline, names)}."
    if promoted is None:
        return {"tone": TONES[gate.verdict], "title": gate.verdict, "text": text}
    title = f"{gate.verdict}, {'promoted' if promoted['status'] == 'True' else 'not promoted'}"
    return {"tone": TONES[gate.verdict], "title": title, "text": f"{text} {promoted.get('message', '')}".strip()}


def _named(digest: str | None, names: Mapping[str, str]) -> str:
    if digest is None:
        return "nothing yet"
    return f"{names[digest]} ({short_digest(digest)})" if digest in names else short_digest(digest)


def gate_view(summary: GateSummary, facts: Facts, names: Mapping[str, str]) -> dict[str, Any]:
    """A gate: what it asked, what it saw look by look, and its verdict."""
    gate = next((gate for gate in facts.spec.gates if gate.name == summary.name), None)
    looks = sorted(
        (
            c
            for c in facts.comparisons
            if c.task.gate == summary.name and c.task.candidate.checkpoint == summary.candidate
        ),
        key=lambda c: c.task.look,
    )
    last = looks[-1] if looks else None
    return {
        "summary": summary,
        "tone": TONES[summary.verdict],
        "rule": rule_in_words(gate) if gate else "",
        "candidate": _named(summary.candidate, names),
        "baseline": _named(summary.baseline, names),
        "axes": [_axis_view(e, last.task, summary) for e in last.report.axes] if last else [],
        "anchors": [_axis_view(e, last.task, None) for e in last.report.anchors] if last else [],
        "looks": [_look_view(comparison) for comparison in looks],
        "report": last.report if last else None,
        "task": last.task if last else None,
        "tries": [
            {**item, "name": _named(item.get("candidate"), names)}
            for item in (facts.tries.get(last.digest, ()) if last else ())
        ],
    }


def rule_in_words(gate: Gate) -> str:
    """What a gate asks, for people who never read its YAML."""
    winnable = [axis for axis in gate.axes if axis.win_by is not None]
    parts = []
    if gate.compose.at_least:
        parts.append(f"at least {gate.compose.at_least} of {len(winnable)} axes are shown to be better")
    parts.append(f"all {len(gate.axes)} axes are shown not to be worse than their margin")
    veto = f", and no veto fires ({', '.join(gate.vetoes)})" if gate.vetoes else ""
    observe = " It is observed only: its verdict stops nothing." if gate.mode == "observe" else ""
    return (
        f"It passes when {' and '.join(parts)}{veto}. A candidate that should not pass does so with probability "
        f"at most {gate.alpha:g}, over all looks and tries.{observe}"
    )


def _axis_view(evidence: HoldEvidence, task: CompareTask, summary: GateSummary | None) -> dict[str, Any]:
    axis: GateAxis = next(axis for axis in task.axes if axis.name == evidence.name)
    measure = next(measure for measure in task.measures if measure.name == evidence.name)
    state = next((a.state for a in (summary.axes if summary else ()) if a.name == evidence.name), "")
    sign = 1 if measure.measure.larger_is_better else -1
    tone = {"Won": "good", "Holds": "good", "Worse": "bad"}.get(state, "open")
    return {
        "evidence": evidence,
        "axis": axis,
        "unit": measure.measure.unit,
        "smaller_is_better": sign < 0,
        "baseline": sign * evidence.baseline_mean,
        "candidate": sign * evidence.candidate_mean,
        "state": STATES.get(state, ""),
        "tone": tone,
        "plot": plots.interval_plot(evidence, axis, tone, measure.measure.unit),
    }


def _look_view(comparison: Comparison) -> dict[str, Any]:
    return {
        "look": comparison.task.look,
        "items": comparison.task.looks[comparison.task.look - 1],
        "tries": comparison.report.tries,
        "digest": comparison.digest,
        "axes": [
            {"e": e, "winnable": any(a.name == e.name and a.win_by is not None for a in comparison.task.axes)}
            for e in comparison.report.axes
        ],
    }


# --- lineage, data, training ------------------------------------------------------------------------------------


def inputs_of(inputs: StageInputs) -> list[str]:
    """Digests of the artifacts that a stage reads, in the order of its fields."""
    found = list(inputs.prepare.banks) if inputs.prepare else []
    if inputs.mixture:
        found += [part.digest for part in inputs.mixture.parts]
        found += [inputs.mixture.tokenizer] if inputs.mixture.tokenizer else []
    return [*found, *(digest for digest in (inputs.start_from, inputs.data) if digest)]


def _sources(work: Work, names: Mapping[str, str]) -> list[str]:
    return list(dict.fromkeys(names.get(digest, short_digest(digest)) for digest in inputs_of(work.inputs)))


def _work_of(row: StageSummary, facts: Facts) -> Work | None:
    return next((work for work in facts.works if row.object and work.object == row.object), None)


def _row_view(row: StageSummary, facts: Facts, names: Mapping[str, str]) -> dict[str, Any]:
    work = _work_of(row, facts)
    return {
        "row": row,
        "sources": _sources(work, names) if work else [],
        "attempts": len(work.status.attempts) if work else 0,
        "reused": row.reused or (work is not None and work.status.reused),
        "tone": {"Succeeded": "good", "Failed": "bad"}.get(row.phase, "open"),
    }


def _flow(facts: Facts, names: Mapping[str, str]) -> Markup | None:
    """Stages in an order in which every stage stands below what it reads."""
    works = {row.name: work for row in facts.rows if (work := _work_of(row, facts))}
    sources = {name: _sources(work, names) for name, work in works.items()}
    depth: dict[str, int] = {}

    def deep(name: str, seen: tuple[str, ...] = ()) -> int:
        if name not in depth:
            known = [source for source in sources.get(name, ()) if source in works and source not in seen]
            depth[name] = 1 + max((deep(source, (*seen, name)) for source in known), default=-1)
        return depth[name]

    order = sorted(facts.rows, key=lambda row: deep(row.name))
    tones = {"Succeeded": "good", "Failed": "bad"}
    nodes = [(row.name, row.method, tones.get(row.phase, "open")) for row in order]
    return plots.flow_diagram(nodes, sources) if nodes else None


def _curve(work: Work) -> dict[str, Any] | None:
    if len(work.losses) < 2:
        return None
    return {
        "name": work.name,
        "chart": plots.loss_chart(work.name, work.losses),
        "steps": len(work.losses),
        "tokens": work.losses[-1][0],
        "last": work.losses[-1][1],
        "metrics": {k: v for k, v in sorted(work.status.metrics.items()) if k.startswith("holdout")},
    }


def _data_view(work: Work) -> dict[str, Any]:
    """Counts of a prepared data set, by the reason of rejection; what a rule would have rejected beside it."""
    meta = work.meta
    kept, held, rejected = (int(meta.get(key, 0)) for key in ("documents", "holdout", "rejected"))
    total = kept + held + rejected
    return {
        "name": work.name,
        "kept": kept,
        "held": held,
        "rejected": rejected,
        "bytes": int(meta.get("bytes", 0)),
        "stayed": (kept + held) / total if total else 0.0,
        "rules": sorted(meta.get("rules", {}).items(), key=lambda item: (-item[1], item[0])),
        "reported": sorted(meta.get("reported", {}).items(), key=lambda item: (-item[1], item[0])),
    }


def _mixture_view(work: Work) -> dict[str, Any]:
    parts = [
        {**part, "bar": plots.bar(float(part["share"]), f"{part['name']}: {part['share']:.1%} of the tokens")}
        for part in work.meta.get("parts", [])
    ]
    return {"name": work.name, "meta": work.meta, "parts": parts}


def _work_view(work: Work) -> dict[str, Any]:
    """How a stage was obtained: every setting that differs from its default, as it stands in its identity."""
    settings = work.inputs.model_dump(mode="json", by_alias=True, exclude_defaults=True)
    return {"work": work, "settings": list(_flatten(settings, ""))}


def _flatten(value: Any, path: str) -> list[tuple[str, str]]:  # noqa: ANN401 - any JSON value
    if isinstance(value, dict) and value:
        return [pair for key, item in value.items() for pair in _flatten(item, f"{path}.{key}".strip("."))]
    if isinstance(value, list) and value:
        return [pair for i, item in enumerate(value) for pair in _flatten(item, f"{path}[{i}]")]
    return [(path, str(value))]
