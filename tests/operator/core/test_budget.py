"""A pipeline over its budget does not start: in golden situations with GPUs, expected tokens, a budget."""

from datetime import datetime
from typing import Any

from bessemer_api.v1alpha1.pipeline import AdaptationPipeline
from bessemer_api.v1alpha1.stage import TrainingStage
from bessemer_operator.core.pipeline import reconcile
from bessemer_operator.core.plan import Observed, Plan
from bessemer_operator.core.profile import Profile
from tests.api.documents import edited
from tests.operator.core.golden import FOLDER, load

GPUS = {"gpus": 8, "memory": "64Gi", "accelerator": {"kind": "h100-80gb"}}


def plan_of(case: str, gpu_hours: float | None, tokens: int = 10**12) -> Plan:
    """What reconcile wants in the situation of a golden pair, when its data are `tokens` large."""
    seen = load(FOLDER / case / "in.yaml")
    edits: dict[str, Any] = {"spec.data.poems.expectedTokens": tokens}
    if gpu_hours is not None:
        edits["spec.budget"] = {"gpuHours": gpu_hours}
    observed = Observed(
        profiles=dict.fromkeys(seen["profiles"], Profile.model_validate(GPUS)),
        stages=tuple(TrainingStage.model_validate(item) for item in seen.get("stages", [])),
        jobs=tuple(seen.get("jobs", [])),
        pods=tuple(seen.get("pods", [])),
    )
    pipeline = AdaptationPipeline.model_validate(edited(seen["object"], edits))
    return reconcile(pipeline, observed, datetime.fromisoformat(seen["now"]))


def stalled(plan: Plan) -> tuple[str, str, str]:
    found = next(item for item in plan.status["conditions"] if item["type"] == "Stalled")
    return found["status"], found["reason"], found["message"]


def test_a_pipeline_over_its_budget_does_not_start_and_says_what_is_dear() -> None:
    plan = plan_of("pipeline_waits_for_its_bank", 0.1)
    status, reason, message = stalled(plan)
    assert (status, reason) == ("True", "BudgetExceeded")
    assert message.startswith("what is still to run takes about 10.6 GPU hours") and "budget.gpuHours is 0.1" in message
    assert "the most is stage pretrain" in message
    assert (plan.create, plan.apply) == ((), ())
    assert [event.reason for event in plan.events] == ["BudgetExceeded"]


def test_a_budget_that_is_raised_lets_it_go_on_as_if_there_were_none() -> None:
    within, without = plan_of("pipeline_waits_for_its_bank", 10**6), plan_of("pipeline_waits_for_its_bank", None)
    assert within == without
    assert stalled(within)[0] == "False"


def test_before_sources_are_read_nothing_is_refused_because_all_of_it_may_be_there_already() -> None:
    plan = plan_of("pipeline_is_new", 0.1)
    assert stalled(plan)[0] == "False"
    assert len(plan.create) > 0


def test_what_is_done_costs_nothing_any_more() -> None:
    assert stalled(plan_of("pipeline_is_promoted", 0.0001))[0] == "False"
