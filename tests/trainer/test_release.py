"""The release: one artifact with the checkpoint's files, a card that the hub's own library reads, and results.

What is promoted are small files; the card and the store are real.
The card of a model that was trained: tests/e2e/test_release.py.
"""

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from huggingface_hub import ModelCard, parse_eval_result_entries
from markdown_it import MarkdownIt

from bessemer_api.job import PromoteTask
from bessemer_trainer.backends import MANIFEST
from bessemer_trainer.errors import PermanentError
from bessemer_trainer.markdown import escape
from bessemer_trainer.release import publish_release
from bessemer_trainer.store import Store, open_store
from tests.support.s3 import S3Server
from tests.trainer.git.test_promote import AXIS, BANK, BASELINE, Place, judged

CONTENT = "sha256:" + "c" * 64
HOSTILE = "file:///data/[x](http://evil)|<img/src=x>`*_~www.evil.org---\\"
TRAIN = {"learningRate": 0.5, "maxSteps": 3}


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


def lineage(place: Place, uri: str = "s3://data/facts.jsonl") -> list[dict[str, Any]]:
    data, mixture, base = ("sha256:" + digit * 64 for digit in "def")
    inputs: list[tuple[str, str, dict[str, Any]]] = [
        ("base", base, {"method": "import", "base": {"source": {"uri": uri}, "content": CONTENT}}),
        ("data-facts", data,
         {"method": "prepare", "prepare": {"sources": [{"uri": uri}], "content": CONTENT, "rules": {}}}),
        ("cpt-data", mixture, {"method": "mixture", "mixture": {"parts": [{"name": "facts", "digest": data}]}}),
        ("cpt", place.first, {"method": "cpt", "train": TRAIN, "startFrom": base, "data": mixture}),
    ]  # fmt: skip
    return [{"name": name, "output": output, "stage": stage} for name, output, stage in inputs]


def promotion(place: Place, **more: Any) -> PromoteTask:
    return place.promotion(place.first, 0, **{"git": None, "lineage": lineage(place), "pipeline": "team/demo"} | more)


def publish(place: Place, **more: Any) -> Path:
    return place.store.fetch(publish_release(place.store, promotion(place, **more), place.root / "scratch"))


def rows(folder: Path) -> list[list[str]]:
    """Cells of every row of every table of the card."""
    lines = (folder / "README.md").read_text().splitlines()
    return [[cell.strip() for cell in line.split(" | ")] for line in lines if line.startswith("| ")]


def test_the_hub_s_library_reads_base_data_and_results_from_the_card(place: Place) -> None:
    folder = publish(place)
    data = ModelCard.load(folder / "README.md").data
    assert (data.base_model, data.base_model_relation) == ("s3://data/facts.jsonl", "finetune")
    assert (data.datasets, data.library_name, data.model_name) == (["facts"], "transformers", "demo")
    [result] = data.eval_results or []
    assert (result.dataset_name, result.metric_type, result.metric_value) == ("loss", "bitsPerByte", 0.75)
    assert result.dataset_revision == BANK
    [entry] = parse_eval_result_entries(yaml.safe_load((folder / ".eval_results/loss.yaml").read_text()))
    assert (entry.dataset_id, entry.task_id, entry.value, entry.dataset_revision) == ("loss", "bitsPerByte", 0.75, BANK)


def test_the_card_says_what_was_judged_how_it_was_made_and_what_was_not_shown(place: Place) -> None:
    folder = publish(place)
    text = (folder / "README.md").read_text()
    told = rows(folder)
    loss = [
        "| loss",
        "bits per byte \\(smaller is better\\)",
        "20",
        "1",
        "0.75",
        "0.25",
        "0.05 to 0.45",
        "0",
        "0.1",
        "won |",
    ]
    assert loss in told
    assert ["| cpt", "cpt", "base, cpt-data", f"`{place.first}` |"] in told
    assert ["| data-facts", "s3\\://data/facts.jsonl", f"`{CONTENT}` |"] in told
    assert ["| cpt", "learningRate 0.5, maxSteps 3 |"] in told
    assert f"Compared with `{BASELINE}`" in text
    assert "look 2 of 2; try 3 of this channel on these items, which have judged 4 in all." in text
    assert "although the gate was not passed" not in text
    shown = text.split("could not be shown\n")[1].split("## ")[0].strip().splitlines()
    assert shown == ["- Anything that these axes do not measure. Nothing else was judged."]


def test_an_override_says_what_the_person_promoted_without(place: Place) -> None:
    weak = {**AXIS, "low": -0.2, "delta": 0.01}
    found = {"axes": [weak], "vetoes": ["refusalDrift"], "vetoDetail": "3 | 4", "settingsAgree": False}
    evidence = place.evidence(place.first, **found)
    text = (publish(place, override=True, wins=[], evidence=evidence) / "README.md").read_text()
    assert "**A person promoted it although the gate was not passed.**" in text
    assert "- loss\\: that it is better by more than 0; the difference is 0.01, between -0.2 and 0.45." in text
    assert "- loss\\: at 95 %, that it is not worse by 0.1;" in text
    assert "- That the veto refusalDrift does not apply\\: 3 \\| 4" in text
    assert "the settings of the evaluations differ" in text


def test_a_hostile_name_stays_text_in_markdown_and_in_yaml(place: Place) -> None:
    clean, hostile = publish(place), publish(place, lineage=lineage(place, HOSTILE))
    assert ModelCard.load(hostile / "README.md").data.base_model == HOSTILE
    body = (hostile / "README.md").read_text().split("\n---\n", 1)[1]
    inner = [token for line in MarkdownIt("commonmark").enable("table").parse(body) for token in line.children or []]
    assert not {"link_open", "image", "html_inline", "em_open"} & {token.type for token in inner}
    assert [token.content for token in inner].count(HOSTILE) == 2, "base and data set, each a text of its own"
    assert [len(row) for row in rows(hostile)] == [len(row) for row in rows(clean)], "no cell more"
    assert escape("a\n\n# b\0c") == "a \\# b c"


def test_the_same_promotion_is_the_same_folder_in_any_channel_and_namespace(place: Place) -> None:
    other = {"channel": "lab", "pipeline": "other/demo", "by": "bo"}
    assert publish(place) == publish(place, **other)
    assert publish(place) != publish(place, override=True, wins=[])


def test_the_weights_are_in_the_store_once_and_the_checkpoint_stays_as_it_was(place: Place) -> None:
    folder, checkpoint = publish(place), place.store.fetch(place.first)
    assert (folder / "model.safetensors").samefile(checkpoint / "model.safetensors")
    assert sorted(path.name for path in checkpoint.iterdir()) == [MANIFEST, "model.safetensors"]
    manifest = place.store.manifest("sha256:" + folder.name.removeprefix("sha256-"))
    assert manifest.kind == "release"
    assert manifest.meta == {"checkpoint": place.first, "evidence": place.evidence(place.first)}
    assert [entry.path for entry in manifest.files] == [".eval_results/loss.yaml", "README.md", "model.safetensors"]


def test_a_file_system_without_second_names_gets_copies(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.link

    def refused(source: Path, target: Path) -> None:
        if source.name == "model.safetensors":
            raise PermissionError(1, "Operation not permitted")
        real(source, target)

    monkeypatch.setattr(os, "link", refused)
    folder = publish(place)
    assert (folder / "model.safetensors").read_text() == "first"
    assert not (folder / "model.safetensors").samefile(place.store.fetch(place.first) / "model.safetensors")


def test_evidence_that_no_comparison_wrote_fails_the_promotion_closed(place: Place) -> None:
    folder = place.root / "forged"
    folder.mkdir()
    (folder / "evidence.json").write_text(json.dumps({**judged(place.first), "task": {}}))
    forged = place.store.publish(folder, "comparison", {"gate": "release", "candidate": place.first})
    with pytest.raises(PermanentError) as found:
        place.promote(promotion(place, evidence=forged))
    assert found.value.reason == "EvidenceInvalid"
    assert place.records() == []


@pytest.fixture(scope="module")
def server() -> Iterator[S3Server]:
    with S3Server.start("releases") as running:
        yield running


@pytest.mark.e2e
@pytest.mark.parametrize("limit", [pytest.param(5 << 30, id="copied by the server"), pytest.param(0, id="too large")])
def test_in_s3_the_release_is_whole_in_one_prefix(
    server: S3Server, place: Place, monkeypatch: pytest.MonkeyPatch, limit: int
) -> None:
    for name, value in server.environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr("bessemer_trainer.objects._LARGEST_COPY", limit)
    url = f"s3://releases/{'large' if limit == 0 else 'small'}"
    store = open_store(url, place.root / "scratch")
    for folder, kind, meta in (
        ("first", "checkpoint", {}),
        (f"evidence-{place.first[7:19]}", "comparison", {"gate": "release", "candidate": place.first}),
    ):
        place.evidence(place.first)
        store.publish(place.root / folder, kind, meta)
    release = publish_release(store, promotion(place), place.root / "scratch")
    fresh: Store = open_store(url, place.root / "fresh")
    assert (fresh.fetch(release) / "model.safetensors").read_text() == "first"
    assert (fresh.fetch(release) / "README.md").read_bytes() == (publish(place) / "README.md").read_bytes()
