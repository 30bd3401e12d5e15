"""Lint rules about alignment: continued pretraining does not replace it, and may lose what an instruct model had.

They run only where references hold and nothing waits for itself. Whether it was really lost is a question for a gate.
"""

from collections.abc import Callable, Iterator

from bessemer_api.v1alpha1.gate import Gate
from bessemer_api.v1alpha1.pipeline import PipelineSpec
from bessemer_operator.core.findings import Finding, warning
from bessemer_operator.core.merges import all_merges

Chain = Callable[[str], list[str]]
"""A name and everything that it descends from, nearest first."""
ALIGNING = frozenset({"sft", "dpo", "orpo", "kto", "grpo"})
WATCHED = ("instruct", "refus")
"""Words in the names of axes that measure what alignment gave."""


def alignment_findings(spec: PipelineSpec, chain: Chain) -> list[Finding]:
    """What may be lost where an instruct model is pretrained further."""
    if spec.base is None or spec.base.kind != "instruct":
        return []
    return [*_not_gated(spec), *_not_restored(spec, chain)]


def _not_gated(spec: PipelineSpec) -> Iterator[Finding]:
    """No gate compares instruction following (or refusals) with the model from before."""
    if any(_watches(gate) for gate in spec.gates):
        return
    for index, stage in enumerate(spec.stages):
        if stage.method == "cpt":
            message = "continued pretraining of an instruct model may lose its alignment, and no gate would see it"
            fix = "add a gate with baseline {base: true} and an axis `instruction` that measures following instructions"
            yield warning(("spec", "stages", index, "method"), "AlignmentNotGated", message, fix)
            return


def _watches(gate: Gate) -> bool:
    names = [axis.name for axis in gate.axes] if gate.baseline.base or gate.baseline.stage_input else []
    names += gate.also_against.get("base", [])
    return any(word in name.lower() for name in names for word in WATCHED)


def _not_restored(spec: PipelineSpec, chain: Chain) -> Iterator[Finding]:
    """A candidate that descends from continued pretraining with neither alignment nor a merge after it."""
    methods = {stage.name: stage.method for stage in spec.stages}
    restoring = {merge.name for merge in all_merges(spec)} | {n for n, method in methods.items() if method in ALIGNING}
    for index, name in enumerate(spec.promotion.candidates if spec.promotion else []):
        line = chain(name)
        pretrained = next((at for at, item in enumerate(line) if methods.get(item) == "cpt"), None)
        if pretrained is not None and not restoring & set(line[:pretrained]):
            message = (
                f'candidate "{name}" comes from an instruct model by continued pretraining, and neither alignment '
            )
            message += "nor a merge follows it; continued pretraining does not replace alignment"
            fix = "add a stage of method sft, dpo, orpo, kto or grpo after it, or merge it with the base model"
            yield warning(("spec", "promotion", "candidates", index), "NotRealigned", message, fix)
