"""Lineage: data, stages, merges, gates and channels as one graph and one table, with the digest of everything."""

import re
from collections.abc import Iterator, Mapping
from typing import Any

from pydantic import BaseModel

from bessemer_api.fields import DIGEST_PATTERN
from bessemer_api.v1alpha1.pipeline import GateSummary, StageSummary
from bessemer_trainer.reporting.facts import Facts, Work
from bessemer_trainer.reporting.graph import Node, draw, in_order
from bessemer_trainer.reporting.words import PHASES, TONES, artifact_names, short_digest

_DATA = frozenset({"bank", "prepare", "import"})
_MERGES = frozenset({"linear", "slerp", "nuslerp", "taskArithmetic", "ties", "dareTies", "merge"})


def digests_in(inputs: BaseModel) -> list[str]:
    """Every digest that stands in the inputs of a piece of work, in the order of its fields, each once."""
    return list(dict.fromkeys(_digests(inputs.model_dump(mode="json"))))


def _digests(value: Any) -> Iterator[str]:  # noqa: ANN401 - any JSON value
    if isinstance(value, str) and re.fullmatch(DIGEST_PATTERN, value):
        yield value
    for item in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        yield from _digests(item)


def view(facts: Facts) -> dict[str, Any]:
    """The figure and the rows of the table."""
    names = artifact_names(facts)
    nodes = in_order([*_work_nodes(facts), *_gate_nodes(facts), *_channel_nodes(facts)])
    return {
        "graph": draw(nodes) if nodes else None,
        "rows": [_row_view(row, work_of(row, facts), names) for row in facts.rows],
    }


def work_of(row: StageSummary, facts: Facts) -> Work | None:
    """The work behind a row of the status."""
    return next((work for work in facts.works if row.object and work.object == row.object), None)


def sources_of(work: Work | None, names: Mapping[str, str]) -> list[str]:
    """Names of the artifacts that a piece of work was made from, as far as this pipeline knows them."""
    found = digests_in(work.inputs) if work else []
    return list(dict.fromkeys(names[digest] for digest in found if digest in names))


def _row_view(row: StageSummary, work: Work | None, names: Mapping[str, str]) -> dict[str, Any]:
    return {
        "row": row,
        "sources": sources_of(work, names),
        "attempts": len(work.status.attempts) if work else 0,
        "reused": row.reused or (work is not None and work.status.reused),
        "tone": PHASES.get(row.phase, "open"),
    }


def _work_nodes(facts: Facts) -> list[Node]:
    """A node a row, without mixtures: what they were made from leads straight to the stage that reads them."""
    names = artifact_names(facts)
    hidden = {row.name: sources_of(work_of(row, facts), names) for row in facts.rows if row.method == "mixture"}
    own = {row.name for row in facts.rows}
    nodes = []
    for row in facts.rows:
        if row.method == "mixture":
            continue
        through = [hidden.get(name, [name]) for name in sources_of(work_of(row, facts), names)]
        sources = tuple(dict.fromkeys(name for part in through for name in part if name in own and name != row.name))
        nodes.append(Node(row.name, row.name, _note(row), _kind(row.method), PHASES.get(row.phase, "open"), sources))
    return nodes


def _note(row: StageSummary) -> str:
    digest = f" · {short_digest(row.output_digest)}" if row.output_digest else ""
    return f"{row.method}{digest}{'' if row.phase == 'Succeeded' else f' · {row.phase}'}"


def _kind(method: str) -> str:
    return "data" if method in _DATA else "merge" if method in _MERGES else "stage"


def _gate_nodes(facts: Facts) -> list[Node]:
    """Each gate below what it compared; what is compared but was not made here stands as a node of its own."""
    names = {row.output_digest: row.name for row in facts.rows if row.output_digest}
    others = artifact_names(facts)
    nodes: list[Node] = []
    for gate in facts.gates:
        digests = [digest for digest in (gate.candidate, gate.baseline, _bank_of(gate, facts)) if digest]
        for digest in digests:
            if digest not in names:
                names[digest] = digest
                nodes.append(Node(digest, others.get(digest, "checkpoint"), short_digest(digest), "stage", "open"))
        sources = tuple(dict.fromkeys(names[digest] for digest in digests))
        evidence = f" · {short_digest(gate.evidence_digest)}" if gate.evidence_digest else ""
        note = f"gate · {gate.verdict}{evidence}"
        nodes.append(Node(f"gate {gate.name}", gate.name, note, "gate", TONES[gate.verdict], sources))
    return nodes


def _bank_of(gate: GateSummary, facts: Facts) -> str | None:
    return next((c.task.bank for c in facts.comparisons if c.task.gate == gate.name), None)


def _channel_nodes(facts: Facts) -> list[Node]:
    """Channels below the gate that let their checkpoint through, where it was in this run."""
    nodes = []
    for channel in facts.channels:
        gate = next((g for g in facts.gates if channel.digest and g.candidate == channel.digest), None)
        sources = (f"gate {gate.name}",) if gate else ()
        note = f"channel · record {channel.record} · {short_digest(channel.digest)}"
        nodes.append(
            Node(f"channel {channel.name}", channel.name, note, "channel", "good" if gate else "open", sources)
        )
    return nodes
