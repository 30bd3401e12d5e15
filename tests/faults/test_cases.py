"""Faults between the operator and its API server, one by one: cases.py says what goes wrong, oracles.py what must hold.

The control plane and the operator are real; pods are played (tests/support/played.py), so that a case is a whole
pipeline with gate and promotion. The summary of the run prints case, seed and result.
"""

import os
import random
from collections.abc import Iterator
from typing import Any

import pytest

from tests.faults.bench import Bench, Run, bench
from tests.faults.cases import CASES, Case

pytestmark = [pytest.mark.e2e, pytest.mark.slow]

SEED = int(os.environ.get("BESSEMER_FAULT_SEED", "1"))


@pytest.fixture(scope="module")
def ready(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    with bench(tmp_path_factory.mktemp("faults")) as made:
        yield made


@pytest.mark.parametrize(
    "case",
    [pytest.param(case, id=case.id, marks=[] if case.is_frequent else pytest.mark.faults) for case in CASES],
)
def test_case(ready: Bench, case: Case, record_property: Any) -> None:
    record_property("fault", f"case {case.number:2}, seed {SEED}: {case.title}")
    ready.mend()
    run = Run(ready, f"case-{CASES.index(case):02}-{case.number:02}", random.Random(f"{SEED}/{case.id}"))
    try:
        case.play(run)
    finally:
        ready.mend()
    run.assert_oracles(is_equal=case.is_equal)
    ready.plane.kubectl(["delete", "namespace", run.space, "--wait=false"])
