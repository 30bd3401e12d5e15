"""The HTML report of a pipeline with really measured evidence: what it says, that nothing can be injected, and that a
real browser shows it without loading anything else and without scrolling sideways on a phone.
"""

import functools
import html
import json
import re
import shutil
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from bessemer_api.job import ReportTask
from bessemer_trainer import plots
from bessemer_trainer.errors import PermanentError
from bessemer_trainer.stages import report
from tests.trainer.evaluation.reported import report_task, write_page
from tests.trainer.evaluation.tiny import World

CHROMIUM = next(
    (path for name in ("chromium", "chromium-browser", "google-chrome") if (path := shutil.which(name))), None
)


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
    page = page_of(world, task)
    assert "<script" not in page
    assert "<img" not in page
    assert "<svg onload" not in page
    assert html.escape(evil, quote=False).split("&lt;img")[0] in page


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
    assert plots.ticks(low, high) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.125, "0.125"), (-0.05, "−0.05"), (9183.0, "9,183"), (40_112.0, "40.1k"), (1_228_800.0, "1.23M"), (-2e9, "−2B")],
)
def test_short_numbers_are_written_as_people_write_them(value: float, text: str) -> None:
    assert plots.short_number(value) == text


def test_thinning_keeps_both_ends_and_the_moving_mean_has_as_many_points() -> None:
    points = [(float(i), float(i % 7)) for i in range(1000)]
    thin = plots.thin_out(points, 50)
    assert (len(thin), thin[0], thin[-1]) == (50, points[0], points[-1])
    assert plots.moving_mean([(0, 2.0), (1, 4.0), (2, 9.0)], 2) == [(0, 2.0), (1, 3.0), (2, 6.5)]


# --- in a real browser --------------------------------------------------------------------------------------------

WRAPPER = """<!doctype html><title>probe</title>
<iframe id="f" src="report.html" style="width:375px;height:800px;border:0"></iframe><pre id="out"></pre><script>
document.getElementById("f").onload = e => {
  const w = e.target.contentWindow, d = w.document, r = d.documentElement;
  document.getElementById("out").textContent = JSON.stringify({
    width: r.clientWidth, scroll: r.scrollWidth, loaded: w.performance.getEntriesByType("resource").length,
    over: [...d.querySelectorAll("body *")].filter(x => x.getBoundingClientRect().right > r.clientWidth + 0.5)
      .map(x => x.tagName + " " + x.className).slice(0, 5),
    headings: [...d.querySelectorAll("h1,h2,h3,h4")].map(x => +x.tagName[1]),
    unnamed: [...d.querySelectorAll("svg")].filter(x => !x.getAttribute("aria-label")).length,
    text: d.body.innerText.length,
  });
};</script>"""


@contextmanager
def served(folder: Path) -> Iterator[tuple[str, list[str]]]:
    """A web server on this machine, and the paths that were asked for."""
    paths: list[str] = []

    class Handler(SimpleHTTPRequestHandler):
        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the name is http.server's
            paths.append(self.path)

    server = ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Handler, directory=str(folder)))
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", paths
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.mark.skipif(CHROMIUM is None, reason="no chromium on this machine: apt-get install chromium runs this test")
def test_a_browser_shows_it_on_a_phone_without_loading_anything_or_scrolling_sideways(
    world: World, tmp_path: Path
) -> None:
    assert CHROMIUM is not None
    write_page(world, tmp_path / "report.html")
    (tmp_path / "probe.html").write_text(WRAPPER)
    with served(tmp_path) as (url, paths):
        command = [
            CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-extensions",
            f"--user-data-dir={tmp_path}/profile", "--virtual-time-budget=5000", "--dump-dom", f"{url}/probe.html",
        ]  # fmt: skip
        done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    found = re.search(r'<pre id="out">(.+?)</pre>', done.stdout, re.DOTALL)
    assert found is not None, done.stderr
    seen = json.loads(html.unescape(found[1]))
    assert (seen["scroll"], seen["over"]) == (seen["width"], [])
    assert seen["loaded"] == 0
    assert sorted(set(paths) - {"/favicon.ico"}) == ["/probe.html", "/report.html"]
    assert seen["unnamed"] == 0
    assert seen["text"] > 2000
    steps = [b - a for a, b in zip(seen["headings"], seen["headings"][1:], strict=False)]
    assert seen["headings"][0] == 1
    assert max(steps) == 1, "headings go down one level at a time"
