"""Lint rules about promotion: candidates, channels, approval, and what a choice between candidates needs."""

from collections.abc import Iterator, Mapping

from bessemer_api.v1alpha1.gate import Gate
from bessemer_api.v1alpha1.pipeline import PipelineSpec
from bessemer_api.v1alpha1.promotion import Promotion
from bessemer_operator.core.findings import Finding, Path, error, unknown, warning
from bessemer_operator.core.lineage import BASE
from bessemer_operator.core.lint_gates import bank_for, checkpoint_names
from bessemer_operator.core.profile import Profile

PATH: Path = ("spec", "promotion")


def promotion_findings(spec: PipelineSpec) -> list[Finding]:
    """All findings about the promotion, and about gates that only a promotion can follow."""
    found = list(_asks_nobody(spec))
    promotion = spec.promotion
    if promotion is None:
        return found
    found += [*_candidates(spec, promotion), *_twice(promotion), *_one_scalar_twice(promotion)]
    gates = {gate.name: gate for gate in spec.gates}
    gate = gates.get(promotion.gate)
    if gate is None:
        return [*found, unknown((*PATH, "gate"), "gate", promotion.gate, gates, "declare it in spec.gates")]
    return [*found, *_release_gate(gate, promotion), *_dev_items(spec, gate, promotion)]


def _candidates(spec: PipelineSpec, promotion: Promotion) -> Iterator[Finding]:
    known = [*checkpoint_names(spec), *([BASE] if spec.base else [])]
    for index, name in enumerate(promotion.candidates):
        if name not in known:
            fix = "name a stage that trains a model, or a merge"
            yield unknown((*PATH, "candidates", index), "candidate", name, known, fix)


def _twice(promotion: Promotion) -> Iterator[Finding]:
    channels = [channel.name for channel in promotion.channels]
    for where, names in (("candidates", promotion.candidates), ("channels", channels)):
        for index, name in enumerate(names):
            if name in names[:index]:
                path: Path = (*PATH, where, index, "name") if where == "channels" else (*PATH, where, index)
                yield error(path, "DuplicateName", f'"{name}" is here twice', "remove one")


def _one_scalar_twice(promotion: Promotion) -> Iterator[Finding]:
    """Two channels in one scalar would overwrite each other for ever."""
    seen: dict[tuple[str, ...], str] = {}
    for index, channel in enumerate(promotion.channels):
        git = channel.git
        if git is None:
            continue
        place = (git.repository, git.branch, git.path, git.key)
        if place in seen:
            message = f"channels {seen[place]} and {channel.name} write the same scalar, {git.key} in {git.path}"
            yield error((*PATH, "channels", index, "git"), "SharedScalar", message, "give each its branch, file or key")
        seen.setdefault(place, channel.name)


def git_findings(spec: PipelineSpec, profiles: Mapping[str, Profile]) -> Iterator[Finding]:
    """Whether the profile of promotions may reach the repositories."""
    profile = profiles.get(spec.profiles.promote)
    if spec.promotion is None or profile is None:
        return
    for index, channel in enumerate(spec.promotion.channels):
        if channel.git is not None and not profile.allows(channel.git.repository):
            allowed = ", ".join(profile.git_repositories)
            message = f"profile {spec.profiles.promote} is not for {channel.git.repository}; it is for {allowed}"
            fix = "ask the administrator to add it to gitRepositories of the profile"
            yield error((*PATH, "channels", index, "git", "repository"), "RepositoryNotAllowed", message, fix)


def _release_gate(gate: Gate, promotion: Promotion) -> Iterator[Finding]:
    if gate.mode == "observe":
        message = f"gate {gate.name} only observes; nothing is promoted without a gate that decides"
        yield error((*PATH, "gate"), "GateObserves", message, "set its mode to enforce")
    last = promotion.channels[-1].name
    if gate.baseline.channel != last:
        message = f"gate {gate.name} does not compare with what channel {last} holds"
        fix = f"set its baseline to {{channel: {last}, orElse: ...}}"
        yield warning((*PATH, "gate"), "IncumbentNotCompared", message, fix)


def _dev_items(spec: PipelineSpec, gate: Gate, promotion: Promotion) -> Iterator[Finding]:
    """Several candidates are chosen between on dev items, on every axis of the gate."""
    bank = bank_for(spec, gate)
    if len(promotion.candidates) < 2 or bank is None or bank.dev > 0:
        return
    index = spec.evaluation.banks.index(bank)
    message = f"{len(promotion.candidates)} candidates are chosen between on dev items, but bank {bank.name} has none"
    fix = "set its `dev` (as many as for gating is a good number), or name one candidate"
    yield error(("spec", "evaluation", "banks", index, "dev"), "NoDevItems", message, fix)


def _asks_nobody(spec: PipelineSpec) -> Iterator[Finding]:
    """Only what is promoted can be approved."""
    release = spec.promotion.gate if spec.promotion else None
    for index, gate in enumerate(spec.gates):
        if gate.name != release and gate.on_inconclusive.then == "requireApproval":
            path: Path = ("spec", "gates", index, "onInconclusive", "then")
            message = f"gate {gate.name} is not the gate of the promotion, so nobody can approve what it can not show"
            yield error(path, "NothingToApprove", message, "remove onInconclusive")
