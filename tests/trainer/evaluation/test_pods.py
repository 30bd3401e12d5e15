"""Evaluate, compare and promote as pods run them: a RunSpec file in, a termination message and an exit code out."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from bessemer_api.digest import canonical_json, input_digest, sha256_digest
from bessemer_api.job import MAX_REPORT_BYTES, RunReport, RunSpec
from tests.trainer.evaluation.test_compare import task
from tests.trainer.evaluation.tiny import World


def pod(world: World, folder: Path, verb: str, document: dict[str, Any], digest: str) -> tuple[int, RunReport, str]:
    """Exit code, report and log of one pod."""
    folder.mkdir()
    (folder / "scratch").mkdir()
    spec = RunSpec.model_validate(
        {"runUid": folder.name, "verb": verb, "store": world.store_url, "inputDigest": digest, verb: document}
    )
    (folder / "run.json").write_text(json.dumps(spec.wire()))
    environment = os.environ | {
        "BESSEMER_RUN_SPEC": str(folder / "run.json"),
        "BESSEMER_TERMINATION_LOG": str(folder / "report.json"),
        "BESSEMER_SCRATCH": str(folder / "scratch"),
        "OMP_NUM_THREADS": "1",
    }
    command = [sys.executable, "-m", "bessemer_trainer"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300, check=False)
    written = (folder / "report.json").read_bytes()
    assert len(written) <= MAX_REPORT_BYTES
    return done.returncode, RunReport.model_validate_json(written), done.stderr


def test_a_pod_measures_and_a_pod_that_runs_again_finds_the_result(world: World, tmp_path: Path) -> None:
    inputs = world.inputs(world.good, 10, 30)
    code, first, log = pod(world, tmp_path / "one", "evaluate", inputs.wire(), input_digest(inputs))
    assert (code, first.output_digest) == (0, world.evaluate(world.good, 10, 30)), log
    assert world.means(world.evaluate(world.good, 10, 30))["knowledge"] > 0.8
    code, second, log = pod(world, tmp_path / "two", "evaluate", inputs.wire(), input_digest(inputs))
    assert (code, second) == (0, first.model_copy(update={"run_uid": "two", "reused": True})), log
    assert list((tmp_path / "two" / "scratch").iterdir()) == [], "the second pod measured nothing"


def test_a_pod_that_is_asked_for_too_many_items_says_so_in_one_line(world: World, tmp_path: Path) -> None:
    inputs = world.inputs(world.good, 0, 500)
    code, report, log = pod(world, tmp_path / "pod", "evaluate", inputs.wire(), input_digest(inputs))
    assert (code, report.error and report.error.reason) == (64, "TooFewItems")
    assert log.splitlines()[-1].startswith("error: TooFewItems: knowledge.gate.jsonl has 120 items")
    assert "Traceback" not in log


def test_pods_compare_and_promote(world: World, tmp_path: Path) -> None:
    document = task(world, channel="pods", vetoes=["contamination", "nonFiniteWeights", "tokenizerEquality"])
    code, compared, log = pod(world, tmp_path / "c", "compare", document, sha256_digest(canonical_json(document)))
    assert code == 0, log
    assert compared.compare is not None
    assert compared.compare.vetoes == []
    promotion = {
        "channel": "pods", "candidate": world.good, "record": 0, "gate": "release",
        "evidence": compared.output_digest, "pipeline": "demo",
    }  # fmt: skip
    for name in ("first", "again"):
        digest = sha256_digest(canonical_json(promotion))
        code, promoted, log = pod(world, tmp_path / name, "promote", promotion, digest)
        assert (code, promoted.promote and promoted.promote.outcome) == (0, "Promoted"), log
    assert world.store().list("channels/pods")[0] == "channels/pods/00000001.json"
