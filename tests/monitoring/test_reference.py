"""docs/metrics.md names every metric and every alert, with its labels, and no other."""

import re
from pathlib import Path

from prometheus_client.metrics import MetricWrapperBase

from bessemer_operator.core.profile import Profile
from bessemer_operator.reconcile.cache import Cache
from bessemer_operator.reconcile.gauges import Objects
from bessemer_operator.reconcile.metrics import Metrics
from bessemer_trainer.loss_log import StepRecord
from tests.monitoring.test_dashboards import FILES, panels_of
from tests.monitoring.test_rules import RULES
from tests.support.world import utc_start

PAGE = (Path(__file__).parents[2] / "docs/metrics.md").read_text()


def rows(heading: str) -> list[list[str]]:
    """Cells of the table under a heading."""
    section = PAGE.split(f"## {heading}\n", 1)[1].split("\n## ", 1)[0]
    lines = [line for line in section.splitlines() if line.startswith("| `")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


def told(heading: str) -> dict[str, list[str]]:
    return {re.findall(r"`(\w+)`", cells[0])[0]: cells[1:] for cells in rows(heading)}


def metrics_of_the_operator() -> dict[str, tuple[str, set[str]]]:
    """Type and labels by name, from the registry itself."""
    metrics = Metrics(Objects(Cache(), {"default": Profile(image="x")}, utc_start), "1")
    metrics.watch_queue(lambda: 0.0)
    metrics.watch_lease(lambda: True)
    found = {}
    for collector in metrics.registry._collector_to_names:
        if isinstance(collector, MetricWrapperBase):
            name = f"{collector._name}_total" if collector._type == "counter" else collector._name
            found[name] = (collector._type, set(collector._labelnames))
        else:
            for family in collector.collect():
                found[family.name] = (family.type, set(family._labelnames))  # type: ignore[attr-defined]
    return found


def test_every_metric_of_the_operator_is_told() -> None:
    page = {name: (cells[0], set(filter(None, cells[1].split(", ")))) for name, cells in told("The operator").items()}
    assert page == metrics_of_the_operator()


def test_every_metric_of_a_training_step_is_told() -> None:
    names = {f"bessemer_train_{name}" for name in StepRecord(1, 1, 1, 1.0, 1.0, 1.0, 1.0, 1.0).metrics()}
    more = {"bessemer_train_progress_ratio", "bessemer_train_parameters", "bessemer_train_checkpoint_stall_seconds"}
    assert told("Pods").keys() == names | more


def test_every_alert_is_told_with_its_severity() -> None:
    assert {name: cells[0] for name, cells in told("Alerts").items()} == {
        rule["alert"]: rule["labels"]["severity"] for rule in RULES
    }


def test_dashboards_and_alerts_ask_for_metrics_that_there_are() -> None:
    known = told("The operator").keys() | told("Pods").keys() | {"bessemer_evaluate_progress_ratio"}
    known |= {f"{name}_{end}" for name in known for end in ("bucket", "sum", "count")}
    asked = [target["expr"] for file in FILES for panel in panels_of(file) for target in panel["targets"]]
    asked += [rule["expr"] for rule in RULES]
    assert set(re.findall(r"bessemer_\w+", " ".join(asked))) <= known
    dcgm = set(re.findall(r"DCGM_\w+", PAGE))
    assert set(re.findall(r"DCGM_\w+", " ".join(asked))) == dcgm
