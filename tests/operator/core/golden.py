"""Golden pairs: what a reconcile sees (in.yaml) and what it then wants (out.yaml), as people would read it.

After a change that is meant: `python -m tests.operator.core.golden`, and read the difference before it is committed.
"""

from datetime import datetime
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

from bessemer_api.v1alpha1.evaluation import Evaluation, Progress
from bessemer_api.v1alpha1.merge import MergeJob
from bessemer_api.v1alpha1.pipeline import AdaptationPipeline
from bessemer_api.v1alpha1.stage import TrainingStage
from bessemer_operator.core import evaluation, merge, pipeline, stage
from bessemer_operator.core.plan import Observed, Plan
from bessemer_operator.core.profile import Profile

FOLDER = Path(__file__).parent / "golden"
CASES = sorted(path.name for path in FOLDER.iterdir() if path.is_dir())

Document = dict[str, Any]


def load(path: Path) -> Any:
    return YAML(typ="safe").load(path)


def dump(document: Any, path: Path) -> None:
    yaml = YAML(typ="safe")
    yaml.default_flow_style = False
    yaml.width = 120
    with path.open("w") as stream:
        yaml.dump(document, stream)


def run(case: str) -> Document:
    """The plan for what the case's in.yaml shows."""
    seen = load(FOLDER / case / "in.yaml")
    now = datetime.fromisoformat(seen["now"])
    observed = Observed(
        profiles={name: Profile.model_validate(item) for name, item in seen["profiles"].items()},
        stages=tuple(TrainingStage.model_validate(item) for item in seen.get("stages", [])),
        merges=tuple(MergeJob.model_validate(item) for item in seen.get("merges", [])),
        evaluations=tuple(Evaluation.model_validate(item) for item in seen.get("evaluations", [])),
        jobs=tuple(seen.get("jobs", [])),
        pods=tuple(seen.get("pods", [])),
        progress={name: Progress.model_validate(item) for name, item in seen.get("progress", {}).items()},
    )
    obj = seen["object"]
    if obj["kind"] == "AdaptationPipeline":
        return told(pipeline.reconcile(AdaptationPipeline.model_validate(obj), observed, now))
    if obj["kind"] == "TrainingStage":
        return told(stage.reconcile(TrainingStage.model_validate(obj), observed, now))
    if obj["kind"] == "MergeJob":
        return told(merge.reconcile(MergeJob.model_validate(obj), observed, now))
    return told(evaluation.reconcile(Evaluation.model_validate(obj), observed, now))


def told(plan: Plan) -> Document:
    """A plan as a document."""
    return {
        "create": list(plan.create),
        "apply": list(plan.apply),
        "annotate": {f"{ref.kind} {ref.namespace}/{ref.name} {ref.uid}": dict(found) for ref, found in plan.annotate},
        "status": plan.status,
        "delete": [f"{ref.kind} {ref.namespace}/{ref.name} {ref.uid}" for ref in plan.delete],
        "events": [f"{event.type} {event.reason} {event.message}".strip() for event in plan.events],
        "requeueSeconds": plan.requeue.total_seconds() if plan.requeue else None,
    }


if __name__ == "__main__":
    for name in CASES:
        dump(run(name), FOLDER / name / "out.yaml")
