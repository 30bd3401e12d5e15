"""What the diagnostics found: alarms first, then what stayed quiet and what could not be measured."""

from typing import Any

from bessemer_trainer.reporting.facts import Facts

_ORDER = {"Alarm": 0, "NotMeasured": 1, "Quiet": 2}
_TONES = {"Alarm": "bad", "NotMeasured": "open", "Quiet": "good"}
_WORDS = {"Alarm": "alarm", "NotMeasured": "not measured", "Quiet": "quiet"}


def view(facts: Facts) -> dict[str, Any]:
    """Findings with alarms first, and the tables of figures that a run stored (retrieval, angles, slices)."""
    findings = sorted(facts.diagnostics, key=lambda item: (_ORDER[item.state], item.subject, item.name))
    tables = [
        {"title": f"{table.get('title', name)}: {diagnosis.subject}", **table, "digest": diagnosis.digest}
        for diagnosis in facts.diagnoses
        for name, table in sorted(diagnosis.figures.items())
        if isinstance(table, dict) and table.get("rows")
    ]
    return {
        "asked": [item.name for item in facts.spec.evaluation.diagnostics],
        "findings": [{"d": item, "tone": _TONES[item.state], "word": _WORDS[item.state]} for item in findings],
        "alarms": sum(item.state == "Alarm" for item in findings),
        "tables": tables,
    }
