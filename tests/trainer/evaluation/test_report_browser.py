"""The report in a real Chromium: on a phone, on a desk, in the dark and on paper; by axe-core; no requests."""

import importlib.util
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from bessemer_trainer.stages import report
from tests.support.chromium import CHROMIUM, Page, browser
from tests.trainer.evaluation.reported import report_task
from tests.trainer.evaluation.tiny import World

pytestmark = pytest.mark.skipif(
    CHROMIUM is None, reason="no chromium on this machine: `make tools` installs it (Debian, as root)"
)

VIEWS = [("phone", 375, "light"), ("phone", 375, "dark"), ("desk", 1200, "light"), ("desk", 1200, "dark")]

LAYOUT = """(() => {
  const r = document.documentElement;
  return {
    width: r.clientWidth, scroll: r.scrollWidth, text: document.body.innerText.length,
    over: [...document.querySelectorAll("body *")].filter(x => x.getBoundingClientRect().right > r.clientWidth + 0.5)
      .map(x => x.tagName + " " + x.className).slice(0, 5),
    headings: [...document.querySelectorAll("h1,h2,h3,h4")].map(x => +x.tagName[1]),
    unnamed: [...document.querySelectorAll("svg")].filter(x => !x.getAttribute("aria-label")).length,
    broken: [...document.querySelectorAll("nav a")].filter(x => !document.querySelector(x.getAttribute("href"))).length,
    paper: getComputedStyle(document.body).backgroundColor,
  };
})()"""

AXE = """axe.run(document, {resultTypes: ["violations"]}).then(found => found.violations.map(
  v => v.id + ": " + v.nodes.slice(0, 3).map(n => n.target.join(" ") + " " + n.failureSummary).join(" | ")))"""


def axe_source() -> str:
    """axe-core as a package of the lock file carries it; nothing of that package is run."""
    spec = importlib.util.find_spec("axe_playwright_python")
    assert spec is not None, "uv sync --all-groups installs axe-playwright-python"
    assert spec.submodule_search_locations is not None
    return (Path(spec.submodule_search_locations[0]) / "axe.min.js").read_text()


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    with browser(tmp_path_factory.mktemp("chromium")) as opened:
        yield opened


@pytest.fixture(scope="module")
def address(world: World, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The report as a file, the way it is passed on; every text that people write is hostile in it."""
    task = report_task(world)
    evil = "<script>alert(1)</script><img src='https://example.org/x' onerror='alert(2)'>"
    status = task["pipeline"]["status"]
    status["conditions"][0]["message"] = status["gates"][0]["message"] = evil
    status["stages"][2]["name"] = "x\"><svg onload=alert(3)><a href='javascript:alert(4)'>"
    status["gates"][0]["axes"][0]["state"] = "NotShown"  # so that the page has every section
    outcome = report.run(world.context(verb="report", report=task))
    data = world.store().read(outcome.url.removeprefix(world.store_url + "/"))
    assert data is not None
    path = tmp_path_factory.mktemp("page") / "report.html"
    path.write_bytes(data)
    return path.as_uri()


@pytest.mark.parametrize(("name", "width", "scheme"), VIEWS, ids=[f"{v[0]} {v[2]}" for v in VIEWS])
def test_it_fits_asks_for_nothing_complains_of_nothing_and_is_accessible(
    page: Page, address: str, tmp_path: Path, name: str, width: int, scheme: str
) -> None:
    page.show(width, 812, scheme=scheme)
    page.open(address)
    seen: dict[str, Any] = page.evaluate(LAYOUT)
    assert (seen["scroll"], seen["over"]) == (seen["width"], []), "nothing scrolls sideways"
    assert (seen["unnamed"], seen["broken"]) == (0, 0)
    assert seen["text"] > 4000
    steps = [b - a for a, b in zip(seen["headings"], seen["headings"][1:], strict=False)]
    assert (seen["headings"][0], max(steps)) == (1, 1), "headings go down one level at a time"
    page.screenshot(tmp_path / f"{name}-{scheme}.png")
    assert (tmp_path / f"{name}-{scheme}.png").stat().st_size > 50_000
    assert page.requests() == [address]
    assert page.complaints() == []
    page.evaluate(axe_source() + "; 0")
    assert page.evaluate(AXE) == []


def test_axe_finds_a_fault_where_there_is_one(page: Page, address: str) -> None:
    page.show(1200, 812)
    page.open(address)
    page.evaluate("document.querySelector('.soft').style.color = '#eee'; document.documentElement.lang = ''; 0")
    page.evaluate(axe_source() + "; 0")
    assert {found.partition(":")[0] for found in page.evaluate(AXE)} == {"color-contrast", "html-has-lang"}


def test_dark_and_light_differ_and_paper_is_always_light(page: Page, address: str) -> None:
    page.open(address)
    papers = {}
    for scheme, media in (("light", "screen"), ("dark", "screen"), ("dark", "print")):
        page.show(1200, 812, scheme=scheme, media=media)
        papers[scheme, media] = page.evaluate(LAYOUT)["paper"]
    assert papers["light", "screen"] == papers["dark", "print"] == "rgb(255, 255, 255)"
    assert papers["dark", "screen"] != papers["light", "screen"]


def test_it_prints_on_paper(page: Page, address: str, tmp_path: Path) -> None:
    page.show(1200, 812)
    page.open(address)
    page.pdf(tmp_path / "report.pdf")
    data = (tmp_path / "report.pdf").read_bytes()
    assert data.startswith(b"%PDF-")
    assert 5 <= len(re.findall(rb"/Type\s*/Page\b", data)) <= 30


def test_no_script_of_anybody_runs(page: Page, address: str) -> None:
    page.show(1200, 812)
    page.open(address)
    page.evaluate("document.querySelectorAll('a, th, h1').forEach(x => x.click()); 0")
    assert [event for event in page.events if event["method"] == "Page.javascriptDialogOpening"] == []
    assert page.evaluate("document.scripts.length") == 0
