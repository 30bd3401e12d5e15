"""The shell of `bessemer plan`: reads the file and what earlier runs left, prints the plan."""

import json

from bessemer_api.v1alpha1.merge import MergeJob
from bessemer_api.v1alpha1.pipeline import PipelineSpec
from bessemer_api.v1alpha1.stage import TrainingStage
from bessemer_operator.cli.lintfile import check
from bessemer_operator.cli.plan import as_lines, make_steps, power_line
from bessemer_operator.cli.problems import EXIT_USAGE, UserError
from bessemer_operator.cli.target import KIND, Place, Target, opened
from bessemer_operator.cli.yamlfile import read_pipeline
from bessemer_operator.cluster.protocol import Ref
from bessemer_operator.local import local_profiles


async def show_plan(file: str, place: Place, effect: float | None, output: str) -> None:
    """Print what `bessemer run FILE` would do, and with `effect` how likely its gates are to pass."""
    pipeline, document = read_pipeline(file)
    profiles = local_profiles(pipeline.spec)
    for problem in check(document, profiles):
        print(problem)
    target = Target(Ref(KIND, pipeline.metadata.name, pipeline.metadata.namespace), place, file)
    steps = make_steps(pipeline.spec, await _known_work(target), profiles)
    power = _power(pipeline.spec, effect)
    if output == "json":
        print(json.dumps({"steps": [step.wire() for step in steps], "power": power}, indent=2))
    else:
        print("\n".join([*as_lines(steps), *power]))


def _power(spec: PipelineSpec, effect: float | None) -> list[str]:
    if effect is None:
        return []
    try:
        return [power_line(gate, effect) for gate in spec.gates]
    except ValueError as error:
        raise UserError(f"--effect {effect:g}: {error}", EXIT_USAGE) from None


async def _known_work(target: Target) -> list[TrainingStage | MergeJob]:
    if target.run is None or not (target.run.state / "cluster").is_dir():
        return []
    async with opened(target) as cluster:
        stages = await cluster.list("TrainingStage", target.ref.namespace)
        merges = await cluster.list("MergeJob", target.ref.namespace)
    return [
        *(TrainingStage.model_validate(item) for item in stages.items),
        *(MergeJob.model_validate(item) for item in merges.items),
    ]
