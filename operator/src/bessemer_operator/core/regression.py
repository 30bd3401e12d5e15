"""Regression suites: a bank of cases that is never split nor decontaminated against, and its measurement. Pure."""

from bessemer_api.v1alpha1.evaluation import Axis, BankTask, EvaluationInputs, PipelineEvaluation
from bessemer_api.v1alpha1.stage import BankInputs, StageInputs
from bessemer_api.v1alpha1.tasks import TaskName

SUITES = "regression"
"""Name of their bank; no bank of a pipeline may have it."""

_TASK: TaskName = "verified"
_MOST_CASES = 1_000_000


def suite_tasks(evaluation: PipelineEvaluation) -> dict[str, BankTask]:
    """The files of the suites by the name of the axis that measures them."""
    suites = enumerate(evaluation.regression)
    return {f"suite-{number}": BankTask(uri=suite.uri, sha256=suite.sha256) for number, suite in suites}


def suite_axes(evaluation: PipelineEvaluation) -> tuple[Axis, ...]:
    """One axis a suite; every case carries its verifier."""
    suites = zip(suite_tasks(evaluation), evaluation.regression, strict=True)
    return tuple(
        Axis(name=name, task=_TASK, prompt=suite.prompt, max_new_tokens=suite.max_new_tokens) for name, suite in suites
    )


def suite_stage(evaluation: PipelineEvaluation, content: str) -> StageInputs:
    """The stage that checks the cases and puts them into the store."""
    tasks = suite_tasks(evaluation)
    inputs = BankInputs(tasks=tasks, content=content, dev=0, gate=1, measures=dict.fromkeys(tasks, _TASK), whole=True)
    return StageInputs(method="bank", bank=inputs)


def suite_measurement(checkpoint: str, bank: str, axes: tuple[Axis, ...]) -> EvaluationInputs:
    """The measurement of a checkpoint on every case."""
    return EvaluationInputs(checkpoint=checkpoint, bank=bank, axes=list(axes), part="all", start=0, end=_MOST_CASES)
