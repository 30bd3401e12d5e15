"""What a run tells: the outcome with its exit code, the news, the board. From a status alone."""

import io
import json
from typing import Any

import pytest
from rich.console import Console

from bessemer_api.v1alpha1.pipeline import AdaptationPipeline
from bessemer_operator.cli.board import board
from bessemer_operator.cli.problems import printable_json
from bessemer_operator.cli.story import news, outcome, span, summary
from tests.api.documents import DIGEST, PIPELINE, edited

NOW = "2026-01-31T12:00:00Z"
RELEASE = {
    "name": "release",
    "verdict": "Passed",
    "reason": "GatePassed",
    "look": 1,
    "tries": 1,
    "message": "1 of 1 won.",
}
AXIS = {"name": "loss", "n": 200, "delta": 0.1, "standardError": 0.01, "interval": [0.08, 0.12], "state": "Won"}
PROD = {"name": "prod", "digest": DIGEST, "record": 3, "at": NOW}


def row(name: str, phase: str, **fields: Any) -> dict[str, Any]:
    return {"name": name, "method": "cpt", "phase": phase, **fields}


def pipeline(
    status: dict[str, Any] | None = None, conditions: dict[str, tuple[str, str]] | None = None
) -> AdaptationPipeline:
    """The pipeline of the tests with a status; conditions as {type: (status, reason)}."""
    told = [
        {"type": kind, "status": held, "reason": reason, "message": "why", "lastTransitionTime": NOW}
        for kind, (held, reason) in (conditions or {}).items()
    ]
    document = edited(PIPELINE, {"status": {"observedGeneration": 1, "conditions": told, **(status or {})}})
    return AdaptationPipeline.model_validate(edited(document, {"metadata.generation": 1}))


@pytest.mark.parametrize(
    ("conditions", "status", "code", "sentence"),
    [
        ({"Ready": ("True", "Finished")}, {"channels": [PROD]}, 0, f"Channel prod holds {DIGEST} (record 3)."),
        ({"Ready": ("True", "Finished")}, {}, 0, "Everything that was declared is done."),
        ({"Stalled": ("True", "InvalidSpec")}, {}, 3, "InvalidSpec: why"),
        ({"Stalled": ("True", "InvalidAnnotation")}, {}, 3, "InvalidAnnotation: why"),
        ({"Stalled": ("True", "GateFailed")}, {}, 4, "GateFailed: why"),
        ({"Stalled": ("True", "GateInconclusive")}, {}, 4, "GateInconclusive: why"),
        ({"Stalled": ("True", "GateInvalid")}, {}, 4, "GateInvalid: why"),
        ({"Stalled": ("True", "Held")}, {}, 4, "Held: why"),
        ({"Stalled": ("True", "GateError")}, {}, 5, "GateError: why"),
        ({"Stalled": ("True", "StageFailed")}, {}, 5, "StageFailed: why"),
        ({"Stalled": ("True", "SomethingNew")}, {}, 5, "SomethingNew: why"),
        (
            {"Suspended": ("True", "Suspended"), "Ready": ("False", "Suspended")},
            {},
            130,
            "Suspended; `bessemer resume`",
        ),
        ({"Ready": ("False", "Working"), "Stalled": ("False", "Working")}, {}, 130, "Not finished"),
        ({"Ready": ("True", "Finished")}, {"observedGeneration": 0}, 130, "Not looked at yet."),
        ({}, {}, 130, "Not finished"),
    ],
)
def test_the_outcome_has_an_exit_code(
    conditions: dict[str, tuple[str, str]], status: dict[str, Any], code: int, sentence: str
) -> None:
    found = outcome(pipeline(status, conditions))
    assert (found.code, found.sentence[: len(sentence)]) == (code, sentence)


def test_only_a_ready_pipeline_ends_well() -> None:
    """Whatever the conditions are, 0 needs Ready and nothing that stalls."""
    for ready in ("True", "False", "Unknown"):
        for stalled in ("True", "False", "Unknown"):
            found = outcome(pipeline(conditions={"Ready": (ready, "X"), "Stalled": (stalled, "X")}))
            assert (found.code == 0) == (ready == "True" and stalled != "True")


NEWS: tuple[tuple[str, dict[str, Any] | None, dict[str, Any], list[str]], ...] = (
    ("nothing_new", {"stages": [row("cpt", "Running")]}, {"stages": [row("cpt", "Running")]}, []),
    ("a_stage_that_waits_is_no_news", None, {"stages": [row("cpt", "Pending")]}, []),
    ("a_start", {"stages": [row("cpt", "Pending")]}, {"stages": [row("cpt", "Running")]}, ["cpt: running, 0 %"]),
    (
        "progress_in_steps_of_ten",
        {"stages": [row("cpt", "Running", progressPercentage=19)]},
        {"stages": [row("cpt", "Running", progressPercentage=20, estimatedRemainingSeconds=130)]},
        ["cpt: running, 20 %, 2m 10s left, loss 2.500"],
    ),
    (
        "progress_within_a_step_is_no_news",
        {"stages": [row("cpt", "Running", progressPercentage=20)]},
        {"stages": [row("cpt", "Running", progressPercentage=29)]},
        [],
    ),
    ("a_reuse", None, {"stages": [row("cpt", "Succeeded", reused=True)]}, ["cpt: reused"]),
    (
        "a_failure_with_its_message",
        {"stages": [row("cpt", "Running", attempt=1)]},
        {"stages": [row("cpt", "Failed", attempt=3, message="OutOfMemory: use fewer")]},
        ["cpt: failed, attempt 3, OutOfMemory: use fewer"],
    ),
    (
        "another_attempt",
        {"stages": [row("cpt", "Running", attempt=1)]},
        {"stages": [row("cpt", "Running", attempt=2)]},
        ["cpt: running, 0 %, loss 2.500, attempt 2"],
    ),
    (
        "a_verdict",
        {"gates": [{**RELEASE, "verdict": "Pending", "look": 0}]},
        {"gates": [RELEASE]},
        ["Gate release: Passed at look 1. 1 of 1 won."],
    ),
    (
        "a_gate_that_waits_is_no_news",
        None,
        {"gates": [{"name": "release", "verdict": "Pending", "reason": "Waiting"}]},
        [],
    ),
    ("a_promotion", {"channels": [{"name": "prod"}]}, {"channels": [PROD]}, [f"Channel prod: record 3 is {DIGEST}"]),
    ("the_channel_as_it_was", {"channels": [PROD]}, {"channels": [PROD]}, []),
)


@pytest.mark.parametrize(("before", "after", "lines"), [case[1:] for case in NEWS], ids=[case[0] for case in NEWS])
def test_news(before: dict[str, Any] | None, after: dict[str, Any], lines: list[str]) -> None:
    losses = {"cpt": 2.5} if any("loss" in line for line in lines) else {}
    old = pipeline(before).status if before is not None else None
    assert news(old, pipeline(after).status, losses) == lines


def test_the_summary_has_verdict_outcome_and_report() -> None:
    status = {"gates": [RELEASE], "channels": [PROD], "report": "file:///store/reports/poems/0.html"}
    assert summary(pipeline(status, {"Ready": ("True", "Finished")})) == [
        "Gate release: Passed at look 1. 1 of 1 won.",
        f"Channel prod holds {DIGEST} (record 3).",
        "Report: file:///store/reports/poems/0.html",
    ]


def shown(subject: AdaptationPipeline, losses: dict[str, float] | None = None) -> str:
    console = Console(width=120, force_terminal=False, record=True, file=io.StringIO())
    console.print(board(subject, losses))
    return console.export_text()


def test_the_board_shows_everything() -> None:
    status = {
        "stages": [
            row("data-poems", "Succeeded", reused=True),
            row("pretrain", "Succeeded"),
            row("cpt", "Running", progressPercentage=42, estimatedRemainingSeconds=200),
            row("side", "Pending", message="waits for a node"),
            row("tail", "Suspended"),
        ],
        "gates": [{**RELEASE, "axes": [AXIS]}],
        "channels": [PROD, {"name": "empty"}],
        "report": "file:///r.html",
    }
    lines = [" ".join(line.split()) for line in shown(pipeline(status), {"cpt": 2.5}).splitlines()]
    assert [line.replace("━", "").replace("╸", "").replace("╺", "").replace("  ", " ") for line in lines] == [
        "default/poems",
        "✓ data-poems cpt reused",
        "✓ pretrain cpt succeeded",
        "▶ cpt cpt running, 42 %, 3m 20s left, loss 2.500",
        "· side cpt pending, waits for a node",
        "‖ tail cpt suspended",
        "Gate release: Passed at look 1, try 1. 1 of 1 won.",
        "loss n 200 +0.1000 [+0.0800, +0.1200] Won",
        f"Channel prod: record 3, {DIGEST}, {NOW}",
        "Channel empty: empty",
        "Not finished; the same command goes on from here.",
        "Report: file:///r.html",
    ]


@pytest.mark.parametrize("message", ["[red]x[/red]", "[/]", "\x1b[2J", "\u202egnp", "a\rb", "\x9b2J"])
def test_text_of_pods_can_not_steer_the_terminal(message: str) -> None:
    rows = [row(f"cpt{message}", "Failed", message=message)]
    subject = pipeline({"stages": rows, "gates": [{**RELEASE, "message": message}], "report": f"file:///{message}"})
    text = "\n".join([shown(subject), *summary(subject), *news(None, subject.status), printable_json({"a": message})])
    assert not {"\x1b", "\u202e", "\r", "\x9b"} & set(text)
    assert "[red]x[/red]" in text or "[red]" not in message


def test_a_document_stays_the_same_document_when_it_is_printed() -> None:
    document = {"a": ["Gr\u00fc\u00dfe", "\x1b[2J", "\x9b", "\u202e", "\U000e0001", 'a "quote"\n']}
    assert json.loads(printable_json(document)) == document
    assert "Gr\u00fc\u00dfe" in printable_json(document)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0s"),
        (59, "59s"),
        (60, "1m 0s"),
        (299, "4m 59s"),
        (300, "5m"),
        (3599, "59m"),
        (3600, "1h 0m"),
        (90_000, "1d 1h"),
    ],
)
def test_a_span_is_told_as_people_do(seconds: int, text: str) -> None:
    assert span(seconds) == text
