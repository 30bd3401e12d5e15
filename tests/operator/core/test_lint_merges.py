"""The rules about merges: each case is a pipeline with a merge and one edit, and every finding that it gives."""

from dataclasses import dataclass, field
from typing import Any

import pytest

from bessemer_operator.core.lint import lint
from bessemer_operator.core.profile import Profile
from tests.api.documents import ABSENT
from tests.operator.core.test_merges import MERGE, MERGED, SLERP, STAGES, spec_of

SMALL = "[SmallModel at spec.merges[0].method]"
LARGE = {"hiddenSize": 4096, "intermediateSize": 14336, "layers": 32, "heads": 32, "keyValueHeads": 8}
BASE = {"spec.base": {"model": "s3://hub/SmolLM2-135M-Instruct"}}
ON_BASE = {"name": "b-cpt", "method": "cpt", "from": "base", "data": STAGES[2]["data"], "train": STAGES[2]["train"]}


@dataclass(frozen=True)
class Case:
    """An edit of the pipeline with a merge, and all that is found: `rule at path`, warnings in brackets."""

    id: str
    edits: dict[str, Any]
    found: tuple[str, ...] = (SMALL,)
    message: str = ""
    profiles: dict[str, Profile] | None = field(default=None, hash=False)


LINT = (
    Case("a_merge_of_two_stages_is_clean_but_small", {}, message="81920 parameters"),
    Case("a_large_model_is_not_small", {"spec.stages.1.model": LARGE}, ()),
    Case("a_linear_merge_is_not_spherical", {f"{MERGE}.method": "linear", f"{MERGE}.controls": ABSENT}, ()),
    Case(
        "the_size_of_a_base_is_read_from_its_name",
        {
            **BASE,
            "spec.stages": [*STAGES, ON_BASE],
            f"{MERGE}.parents": [{"stage": "b-cpt"}, {"base": True}],
            "spec.gates.1.baseline.orElse": {"stage": "cpt"},
        },
        (SMALL,),
        "135.0 million",
    ),
    Case(
        "an_unknown_parent_is_named_with_the_nearest",
        {f"{MERGE}.parents.0.stage": "ctp"},
        ("UnknownStage at spec.merges[0].parents[0].stage",),
        'did you mean "cpt"?',
    ),
    Case(
        "a_tokenizer_is_no_parent",
        {f"{MERGE}.parents.0.stage": "words"},
        ("NoCheckpoint at spec.merges[0].parents[0].stage",),
    ),
    Case(
        "the_base_needs_a_base", {f"{MERGE}.parents.1": {"base": True}}, ("NoBase at spec.merges[0].parents[1].base",)
    ),
    Case(
        "the_ancestor_needs_a_base",
        {f"{MERGE}.space": "taskVectors", f"{MERGE}.base": {"base": True}},
        ("NoBase at spec.merges[0].base.base",),
    ),
    Case(
        "an_unknown_data_set_is_no_held_out_text",
        {f"{MERGE}.heldOut": "poem"},
        ("UnknownDataSet at spec.merges[0].heldOut",),
    ),
    Case(
        "a_data_set_that_holds_nothing_out_is_no_held_out_text",
        {f"{MERGE}.heldOut": "poems"},
        ("NothingHeldOut at spec.merges[0].heldOut",),
    ),
    Case("held_out_text_is_fine", {f"{MERGE}.heldOut": "poems", "spec.data.poems.holdout": 0.1}),
    Case(
        "two_merges_of_one_name_are_an_error",
        {"spec.merges": [SLERP, SLERP]},
        ("DuplicateName at spec.merges[1].name",),
    ),
    Case(
        "a_merge_named_like_a_stage_is_an_error",
        {
            f"{MERGE}.name": "cpt",
            "spec.promotion.candidates": ["cpt"],
            f"{MERGE}.parents": [{"stage": "pretrain"}, {"stage": "pretrain"}],
        },
        ("NameTaken at spec.merges[0].name",),
    ),
    Case(
        "a_merge_named_like_a_control_is_an_error",
        {"spec.merges": [SLERP, {**SLERP, "name": "slerp-linear", "controls": None}]},
        ("NameTaken at spec.merges[1].name",),
        "the control of merge slerp",
    ),
    Case(
        "a_stage_named_like_a_control_is_an_error",
        {"spec.stages.2.name": "slerp-linear", f"{MERGE}.parents.0.stage": "pretrain"},
        ("NameTaken at spec.stages[2].name",),
    ),
    Case(
        "merges_of_each_other_are_a_cycle",
        {
            "spec.merges": [
                {**SLERP, "parents": [{"stage": "other"}, {"stage": "cpt"}]},
                {**SLERP, "name": "other", "parents": [{"stage": "slerp"}, {"stage": "cpt"}], "controls": None},
            ]
        },
        ("Cycle at spec.stages",),
        "slerp -> other -> slerp",
    ),
    Case(
        "a_merge_of_itself_is_unknown",
        {f"{MERGE}.parents.0.stage": "slerp"},
        ("UnknownStage at spec.merges[0].parents[0].stage",),
    ),
    Case(
        "a_stage_that_starts_from_the_merge_of_itself_is_a_cycle",
        {"spec.stages.2.from": "slerp"},
        ("Cycle at spec.stages",),
    ),
    Case(
        "a_parent_twice_has_no_effect",
        {f"{MERGE}.parents.1.stage": "cpt"},
        ("[NoEffect at spec.merges[0].parents[1]]", SMALL),
    ),
    Case(
        "parents_of_another_number_format_are_an_error",
        {"spec.stages.2.train.precision": "fp32"},
        ("OtherDtype at spec.merges[0].parents", SMALL),
        '"cpt" has fp32, "pretrain" has bf16',
    ),
    Case(
        "parents_of_another_shape_are_an_error",
        {
            "spec.stages": [*STAGES, {**STAGES[1], "name": "wide", "from": "words", "model": LARGE}],
            f"{MERGE}.parents.1.stage": "wide",
        },
        ("OtherShape at spec.merges[0].parents", SMALL),
        "32 layers",
    ),
    Case(
        "parents_of_another_tokenizer_are_an_error",
        {
            "spec.stages": [*STAGES, {**STAGES[0], "name": "other"}, {**STAGES[1], "name": "p2"}],
            f"{MERGE}.parents.1.stage": "p2",
        },
        ("OtherVocabulary at spec.merges[0].parents", SMALL),
        'that of stage "other"',
    ),
    Case(
        "a_stage_and_the_base_model_are_strangers",
        {**BASE, f"{MERGE}.parents.1": {"base": True}},
        ("OtherShape at spec.merges[0].parents", "OtherVocabulary at spec.merges[0].parents", SMALL),
    ),
    Case(
        "a_merge_that_nothing_uses_is_dubious",
        {"spec.promotion.candidates": ["cpt"]},
        ("[Unused at spec.merges[0]]", SMALL),
    ),
    Case(
        "a_control_can_be_the_candidate",
        {"spec.promotion.candidates": ["slerp-linear"]},
        ("[Unused at spec.merges[0]]", SMALL),
    ),
    Case(
        "a_merge_can_be_what_is_compared_with",
        {"spec.promotion.candidates": ["cpt"], "spec.gates.1.baseline.orElse.stage": "slerp"},
    ),
    Case(
        "the_input_of_a_merge_is_several",
        {"spec.gates.1.baseline": {"stageInput": True}},
        ("NoCheckpoint at spec.gates[1].baseline.stageInput", "[IncumbentNotCompared at spec.promotion.gate]", SMALL),
    ),
    Case(
        "pretrain_does_not_start_from_a_merge",
        {"spec.stages": [*STAGES, {**STAGES[1], "name": "p2", "from": "slerp"}]},
        ("NeedsTokenizer at spec.stages[3].from", "[Unused at spec.stages[3]]", SMALL),
        'merge "slerp"',
    ),
    Case(
        "profiles_of_merges_are_checked",
        {"spec.profiles": {"merge": "big"}, f"{MERGE}.profile": "bigger"},
        ("UnknownProfile at spec.merges[0].profile", "UnknownProfile at spec.profiles.merge"),
        profiles={"default": Profile.model_validate({})},
    ),
)


@pytest.mark.parametrize("case", LINT, ids=lambda case: case.id)
def test_lint_finds_exactly_what_is_wrong(case: Case) -> None:
    found = lint(spec_of({**MERGED, **case.edits}), case.profiles)
    told = [str(item) for item in found]
    words = [f"{item.rule} at {item.field}" for item in found]
    brackets = [f"[{word}]" if item.severity == "warning" else word for word, item in zip(words, found, strict=True)]
    assert sorted(brackets) == sorted(case.found)
    assert case.message in " ".join(told)
