"""The HTML report of a pipeline with really measured evidence: what it says, and that nothing can be injected.

`test_report_browser.py` opens it in a real browser.
"""

import html
import json
import re
from typing import Any

import pytest

from bessemer_api.job import ReportTask
from bessemer_trainer.errors import PermanentError
from bessemer_trainer.reporting import curves, svg, words
from bessemer_trainer.stages import report
from tests.trainer.evaluation.reported import GATE_ONLY, dev_bank, report_task
from tests.trainer.evaluation.tiny import World, write_jsonl


def page_of(world: World, task: dict[str, Any]) -> str:
    outcome = report.run(world.context(verb="report", report=task))
    data = world.store().read(outcome.url.removeprefix(world.store_url + "/"))
    assert data is not None
    return data.decode()


@pytest.fixture(scope="module")
def good_page(world: World) -> str:
    return page_of(world, report_task(world))


def text_of(page: str) -> str:
    """What a reader sees, as one line."""
    without = re.sub(r"<(style|svg)\b.*?</\1>", " ", page, flags=re.DOTALL)
    return " ".join(html.unescape(re.sub(r"<[^>]*>", " ", without)).split())


@pytest.mark.parametrize(
    "words",
    [
        "Passed, promoted",
        "It passes when at least 1 of 1 axes are shown to be better and all 2 axes are shown not to be worse",
        "knowledge shown to be better",
        "generalLoss shown not to be worse",
        "(smaller is better)",
        "none fired of contamination, nonFiniteWeights, tokenizerEquality",
        "both arms were measured alike",
        "Every look at gate release",
        "Every try on these items for channel prod",
        "11,804 documents (9.41M bytes) to train on, 231 held out, 342 rejected",
        "gopherQuality.meanWordLength 31",
        "c4.curlyBracket (reported) 12",
        "papers prepare Succeeded , reused release-bank",
        "600 steps, 1.23M tokens",
        "What the gate asks was shown.",
        "1 diagnostic raised an alarm: generalLoss of facts.",
        "facts 1.000 0.195 nominee",
        "approach tokenizer (tokenizer) → general (pretrain) → facts (cpt)",
        "general text costs 0.21 bits per byte more than before the stage",
        "slerp: slerp in the space of weights Parents: general",
        "synergy on knowledge none shown",
        "knowledge: better on 41, worse on 0 of 60 dev items",
        "right ivory candidate ivory (score 1) baseline silver (score 0)",
        "stages and merges took 1 h on nodes in all, 0 failed attempts included",
        "holdoutLoss 4.61",
        "facts is record 1 of channel prod",
        "train.learningRate 0.003",
        "The seed of the pipeline is 17",
    ],
)
def test_the_report_says(good_page: str, words: str) -> None:
    assert words in text_of(good_page)


def test_the_report_names_every_artifact_in_full(world: World, good_page: str) -> None:
    task = report_task(world)
    digests = [item["status"]["outputDigest"] for item in task["stages"]]
    digests += [item["outputDigest"] for item in task["comparisons"]]
    assert [digest for digest in digests if f">{digest}<" not in good_page] == []


def test_a_worse_candidate_reads_as_failed(world: World) -> None:
    words = text_of(page_of(world, report_task(world, swap=True)))
    assert "Failed, not promoted" in words
    assert "knowledge shown to be worse" in words


def test_what_was_not_shown_comes_with_the_items_that_it_takes(world: World) -> None:
    task = report_task(world)
    gate = task["pipeline"]["status"]["gates"][0]
    gate["axes"][0]["state"] = "NotShown"
    words = text_of(page_of(world, task))
    assert "What could not be shown, and how many items it would take" in words
    assert re.search(r"knowledge better by more than 0 \d+ 120 120 items are enough", words)


def test_no_item_that_judges_is_in_the_report(world: World, good_page: str) -> None:
    assert GATE_ONLY not in good_page
    gate = [item["spec"]["inputs"] for item in report_task(world)["evaluations"]]
    assert {part["part"] for part in gate} == {"gate", "dev"}, "both kinds of results were there to be read"
    assert "item dev-k100" in text_of(good_page)
    assert re.findall(r"item k\d+", text_of(good_page)) == []


def test_without_results_on_dev_items_it_says_that_there_is_nothing_to_show(world: World) -> None:
    task = report_task(world)
    task["evaluations"] = [item for item in task["evaluations"] if item["spec"]["inputs"]["part"] == "gate"]
    words = text_of(page_of(world, task))
    assert "No two checkpoints of this gate were measured on dev items" in words
    assert "so no synergy can be stated" in words


def test_equal_facts_give_an_equal_page(world: World) -> None:
    assert page_of(world, report_task(world)) == page_of(world, report_task(world))


def test_nothing_that_a_user_wrote_becomes_markup(world: World) -> None:
    task = report_task(world)
    evil = '<script>alert(1)</script><img src=x onerror="alert(2)">'
    status = task["pipeline"]["status"]
    status["conditions"][0]["message"] = evil
    status["gates"][0]["message"] = evil
    status["stages"][1]["message"] = evil
    status["stages"][2]["name"] = '"><svg onload=alert(3)>'
    status["diagnostics"][0]["message"] = evil
    poison_dev_items(world, task, evil)
    page = page_of(world, task)
    assert "<script" not in page
    assert "<img" not in page
    assert "<svg onload" not in page
    assert html.escape(evil, quote=False).split("&lt;img")[0] in page


def poison_dev_items(world: World, task: dict[str, Any], evil: str) -> None:
    """The report then reads its dev items from a bank in which every text is hostile."""
    folder = world.root / "made" / "evil-bank"
    folder.mkdir(parents=True, exist_ok=True)
    bank = world.store().fetch(dev_bank(world))
    for path in bank.glob("*.dev.jsonl"):
        items = [json.loads(line) for line in path.read_text().splitlines()]
        write_jsonl(
            folder / path.name, [item | {"prompt": evil, "text": evil, "choices": [evil] * 4} for item in items]
        )
    digest = world.store().publish(folder, "bank", {})
    for item in task["evaluations"]:
        if item["spec"]["inputs"]["part"] == "dev":
            item["spec"]["inputs"]["bank"] = digest


def test_a_report_of_a_pipeline_that_has_done_nothing_says_so(world: World) -> None:
    task = report_task(world)
    document = task["pipeline"] | {"status": {}}
    words = text_of(page_of(world, {"pipeline": document}))
    for sentence in ("No gate was judged", "No stage has run.", "No training was logged.", "No data set was prepared."):
        assert sentence in words


def test_evidence_that_is_gone_is_said_to_be_gone(world: World) -> None:
    task = report_task(world)
    task["comparisons"] = [item | {"outputDigest": "sha256:" + "5" * 64} for item in task["comparisons"]]
    assert "No evidence is stored for this verdict." in text_of(page_of(world, task))


def test_a_pipeline_that_can_not_be_read_is_an_error_without_a_traceback(world: World) -> None:
    task = report_task(world)
    task["pipeline"]["spec"]["gates"] = [{"name": "?"}]
    with pytest.raises(PermanentError) as caught:
        report.run(world.context(verb="report", report=ReportTask.model_validate(task).wire()))
    assert caught.value.reason == "TaskInvalid"


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [
        pytest.param(0.0, 1.0, [0.0, 0.2, 0.4, 0.6, 0.8, 1.0], id="unit"),
        pytest.param(-0.13, 0.09, [-0.1, -0.05, 0.0, 0.05], id="around zero"),
        pytest.param(3.0, 3.0, [3.0], id="one value"),
        pytest.param(0.0, 1_228_800.0, [0.0, 250_000.0, 500_000.0, 750_000.0, 1_000_000.0], id="tokens"),
    ],
)
def test_ticks_are_round_numbers_inside_the_range(low: float, high: float, expected: list[float]) -> None:
    assert svg.ticks(low, high) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.125, "0.125"), (-0.05, "−0.05"), (9183.0, "9,183"), (40_112.0, "40.1k"), (1_228_800.0, "1.23M"), (-2e9, "−2B")],
)
def test_short_numbers_are_written_as_people_write_them(value: float, text: str) -> None:
    assert words.short_number(value) == text


def test_thinning_keeps_both_ends_and_the_moving_mean_has_as_many_points() -> None:
    points = [(float(i), float(i % 7)) for i in range(1000)]
    thin = curves.thin_out(points, 50)
    assert (len(thin), thin[0], thin[-1]) == (50, points[0], points[-1])
    assert curves.moving_mean([(0, 2.0), (1, 4.0), (2, 9.0)], 2) == [(0, 2.0), (1, 3.0), (2, 6.5)]
