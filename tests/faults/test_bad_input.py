"""What a user can get wrong, through the command line: one clear line, an exit code that tells, no traceback.

Nothing that was there before is lost: after the mistake is mended the same command goes on.
"""

import json
import os
import subprocess
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from bessemer_operator.cli.problems import EXIT_GATE, EXIT_INVALID, EXIT_OK, EXIT_STAGE
from tests.api.documents import ABSENT
from tests.conftest import LocalStory
from tests.support.localrun import COMMAND, TRACEBACK, Runner, conditions_of, outputs_of
from tests.support.mini import write_mini

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]

ONLY_DATA: Mapping[str, Any] = {
    "spec.stages": [],
    "spec.gates": ABSENT,
    "spec.promotion": ABSENT,
    "spec.evaluation": ABSENT,
    "spec.data.texts.prepare": ABSENT,
}
"""A pipeline that only prepares its data: seconds."""

BROKEN_LINE = 7


@dataclass(frozen=True)
class Case:
    """A mistake: edits of the pipeline, or of its text; what the last words about it are."""

    id: str
    code: int
    said: str
    edits: Mapping[str, Any] = field(default_factory=dict)
    text: Callable[[str], str] = str
    data: Callable[[Path], object] = Path.touch


def replaced(old: str, new: str) -> Callable[[str], str]:
    def change(text: str) -> str:
        assert old in text
        return text.replace(old, new, 1)

    return change


def break_row(path: Path) -> None:
    lines = path.read_text().splitlines(keepends=True)
    lines[BROKEN_LINE - 1] = '{"id": "torn", "text": "no end\n'
    path.write_text("".join(lines))


def empty(path: Path) -> None:
    path.write_bytes(b"")


CASES = [
    Case(
        "malformed_yaml_is_told_with_its_line",
        EXIT_INVALID,
        "pipeline.yaml:4: error: this is no YAML",
        text=replaced("metadata: {name: mini}", "metadata: {name: mini"),
    ),
    Case(
        "an_unknown_field_is_told_with_its_place",
        EXIT_INVALID,
        "spec.stages[1].train.learningrate: ",
        {"spec.stages.1.train.learningrate": 0.1},
    ),
    Case(
        "an_unknown_method_is_told_with_those_that_there_are",
        EXIT_INVALID,
        "tokenizer",
        {"spec.stages.2.method": "distil"},
    ),
    Case(
        "stages_that_start_from_each_other_are_named",
        EXIT_INVALID,
        "pre -> cpt -> pre",
        {"spec.stages.1.from": "cpt"},
    ),
    Case(
        "a_data_file_that_is_not_there_is_named",
        EXIT_STAGE,
        "SourceMissing: ",
        ONLY_DATA,
        data=Path.unlink,
    ),
    Case("data_without_a_document_is_no_data", EXIT_STAGE, "data-texts: NoDocuments: ", ONLY_DATA, data=empty),
    Case(
        "a_broken_row_fails_where_that_was_asked_for",
        EXIT_STAGE,
        f"texts.jsonl:{BROKEN_LINE}: ",
        {**ONLY_DATA, "spec.data.texts.prepare": {"onBadRow": "fail"}},
        data=break_row,
    ),
]


def made(folder: Path, case: Case) -> Runner:
    mini = write_mini(folder, case.edits)
    mini.file.write_text(case.text(mini.file.read_text()))
    case.data(folder / "texts.jsonl")
    return Runner(mini.file)


def pod_logs(runner: Runner) -> str:
    return "".join(path.read_text() for path in (runner.state / "node" / "pods").glob("*/*.log"))


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.id)
def test_a_mistake_is_told_in_one_line_and_ends_with_its_code(tmp_path: Path, case: Case) -> None:
    runner = made(tmp_path, case)
    ended = runner.run()
    is_in_file = case.code == EXIT_INVALID
    told = [line for line in (ended.errors if is_in_file else ended.output).splitlines() if case.said in line]
    assert (ended.code, len(told[-1:]), ended.output if is_in_file else "") == (case.code, 1, "")
    assert told[-1].startswith(f"{runner.file}:" if is_in_file else ("StageFailed: ", case.said))
    assert TRACEBACK not in pod_logs(runner)
    assert runner.left_over() == []


def test_a_broken_row_is_set_aside_with_its_line_and_the_rest_is_kept(tmp_path: Path) -> None:
    runner = made(tmp_path, Case("", EXIT_OK, "", ONLY_DATA, data=break_row))
    rows = len((tmp_path / "texts.jsonl").read_text().splitlines())
    assert runner.run().code == EXIT_OK
    digest = str(outputs_of(runner.pipeline())["data-texts"])
    folder = tmp_path / "store" / "artifacts" / digest.replace(":", "-")
    [rejected] = [json.loads(line) for line in (folder / "rejected.jsonl").read_text().splitlines()]
    assert (rejected["row"], rejected["reason"].partition(":")[0]) == (BROKEN_LINE, "badRow")
    assert len((folder / "documents.jsonl").read_text().splitlines()) == rows - 1


def test_mended_data_goes_on_where_the_mistake_stopped_it(tmp_path: Path) -> None:
    runner = made(tmp_path, Case("", EXIT_STAGE, "", ONLY_DATA, data=Path.unlink))
    assert runner.run().code == EXIT_STAGE
    write_mini(tmp_path, ONLY_DATA)
    assert runner.run().code == EXIT_OK


def test_a_loss_that_is_no_number_ends_training_at_once_and_publishes_nothing(
    local_story: LocalStory, tmp_path: Path
) -> None:
    """Weight decay 10 at rate 10 multiplies each weight by -99 a step. In the store of the undisturbed run, so that
    everything before it is found there."""
    diverging = {f"spec.stages.2.train.{name}": value for name, value in DIVERGING.items()}
    file = local_story.mini.write(diverging, file=str(tmp_path / "pipeline.yaml"))
    runner = Runner(file)
    ended = runner.run()
    assert ended.code == EXIT_STAGE
    assert any(line.startswith("StageFailed: cpt: NonFiniteLoss: ") for line in ended.output.splitlines())
    pipeline = runner.pipeline()
    rows = {
        row["name"]: (row["phase"], row["attempt"], row.get("reused", False)) for row in pipeline["status"]["stages"]
    }
    assert rows["cpt"] == ("Failed", 1, False)
    assert {name: row for name, row in rows.items() if row != ("Succeeded", 1, True)} == {"cpt": rows["cpt"]}
    assert outputs_of(pipeline)["cpt"] is None
    assert TRACEBACK not in pod_logs(runner)


DIVERGING = {"learningRate": 10, "weightDecay": 10, "schedule": "constant", "warmupRatio": 0}


def test_a_refused_promotion_has_its_own_code_and_condition(local_story: LocalStory) -> None:
    step = local_story.edited
    assert step.ended.code == EXIT_GATE
    assert any(line.startswith("GateFailed: gate release: ") for line in step.ended.output.splitlines())
    assert conditions_of(step.pipeline)["Stalled"] == ("True", "GateFailed")


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 48 KiB."""
    if os.geteuid() != 0:
        pytest.skip("only root may mount the small file system that this test fills")
    folder = tmp_path / "disk"
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=48k", "tmpfs", str(folder)], check=True)
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


def test_a_full_disk_is_told_and_after_it_was_enlarged_a_retry_completes(small_disk: Path, tmp_path: Path) -> None:
    store = {"spec.store": f"file://{small_disk}/store"}
    mini = write_mini(tmp_path, {**ONLY_DATA, **store})
    runner = Runner(mini.file)
    ended = runner.run()
    assert ended.code == EXIT_STAGE
    assert any(line.startswith("StageFailed: ") and "DiskFull" in line for line in ended.output.splitlines())
    assert TRACEBACK not in pod_logs(runner)
    subprocess.run(["mount", "-o", "remount,size=16m", str(small_disk)], check=True)
    subprocess.run([*COMMAND, "retry", str(mini.file)], check=True, capture_output=True)
    assert runner.run().code == EXIT_OK
