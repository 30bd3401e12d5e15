"""Cases of the rules of a merge, in a MergeJob and in a pipeline."""

from typing import Any

from tests.api.case import Case
from tests.api.documents import ABSENT, DIGEST

MERGED = {
    "spec.merges": [
        {
            "name": "slerp",
            "method": "slerp",
            "parents": [{"stage": "cpt"}, {"stage": "pretrain"}],
            "t": [{"filter": "self_attn", "value": [0, 0.5, 1]}, {"value": [0.5]}],
            "controls": ["linear"],
        }
    ]
}
MERGE = "spec.merges.0"
INPUTS = "spec.inputs"
OF_TASKS: dict[str, Any] = {f"{INPUTS}.t": ABSENT, f"{INPUTS}.base": DIGEST}
NEEDS_T, TWO_PARENTS = "slerp and nuslerp need t", "t interpolates between exactly two parents"
T_OR_WEIGHTS = "linear needs exactly one of t and weights"
T_ONLY = "t belongs to linear, slerp and nuslerp"
WEIGHTS_ONLY = "weights belong to linear, taskArithmetic, ties and dareTies"
WEIGHT_EACH = "weights needs one number for each parent"
WEIGHTS_SUM = "weights of a linear merge must not be negative, and not all 0"
ONE_DEFAULT = "t needs one entry without filter, as the last"
DENSITY_ONLY = "density belongs to ties and dareTies, and only there"
LAMBDA_ONLY = "lambda belongs to taskArithmetic, ties and dareTies"
BASE_ONLY = "base belongs to space taskVectors and to taskArithmetic, ties and dareTies, and only there"
ONE_PARENT = "a parent needs exactly one of stage and base: true"

MERGE_CASES = (
    Case("a_merge_is_accepted", kind="MergeJob"),
    Case("slerp_without_t_is_refused", NEEDS_T, {f"{INPUTS}.t": ABSENT}, "MergeJob"),
    Case(
        "linear_without_t_and_weights_is_refused",
        T_OR_WEIGHTS,
        {f"{INPUTS}.method": "linear", f"{INPUTS}.t": ABSENT},
        "MergeJob",
    ),
    Case(
        "linear_with_t_and_weights_is_refused",
        T_OR_WEIGHTS,
        {f"{INPUTS}.method": "linear", f"{INPUTS}.weights": [1, 1]},
        "MergeJob",
    ),
    Case(
        "linear_by_weights_is_accepted",
        "",
        {
            f"{INPUTS}.method": "linear",
            f"{INPUTS}.t": ABSENT,
            f"{INPUTS}.parents": [DIGEST] * 3,
            f"{INPUTS}.weights": [1, 0.5, 0],
        },
        "MergeJob",
    ),
    Case("linear_by_t_is_accepted", "", {f"{INPUTS}.method": "linear"}, "MergeJob"),
    Case(
        "t_of_ties_is_refused",
        T_ONLY,
        {f"{INPUTS}.method": "ties", f"{INPUTS}.density": 0.5, f"{INPUTS}.base": DIGEST},
        "MergeJob",
    ),
    Case("weights_of_slerp_are_refused", WEIGHTS_ONLY, {f"{INPUTS}.weights": [1, 1]}, "MergeJob"),
    Case("slerp_of_three_parents_is_refused", TWO_PARENTS, {f"{INPUTS}.parents": [DIGEST] * 3}, "MergeJob"),
    Case(
        "two_weights_of_three_parents_are_refused",
        WEIGHT_EACH,
        {
            **OF_TASKS,
            f"{INPUTS}.method": "taskArithmetic",
            f"{INPUTS}.parents": [DIGEST] * 3,
            f"{INPUTS}.weights": [1, 1],
        },
        "MergeJob",
    ),
    Case(
        "a_negative_weight_of_linear_is_refused",
        WEIGHTS_SUM,
        {f"{INPUTS}.method": "linear", f"{INPUTS}.t": ABSENT, f"{INPUTS}.weights": [2, -1]},
        "MergeJob",
    ),
    Case(
        "weights_of_nothing_are_refused",
        WEIGHTS_SUM,
        {f"{INPUTS}.method": "linear", f"{INPUTS}.t": ABSENT, f"{INPUTS}.weights": [0, 0]},
        "MergeJob",
    ),
    Case(
        "a_negative_task_is_accepted",
        "",
        {**OF_TASKS, f"{INPUTS}.method": "taskArithmetic", f"{INPUTS}.weights": [1, -1]},
        "MergeJob",
    ),
    Case(
        "t_without_a_default_is_refused", ONE_DEFAULT, {f"{INPUTS}.t": [{"filter": "mlp", "value": [0.5]}]}, "MergeJob"
    ),
    Case(
        "a_default_that_hides_a_filter_is_refused",
        ONE_DEFAULT,
        {f"{INPUTS}.t": [{"value": [0.5]}, {"filter": "mlp", "value": [0.5]}]},
        "MergeJob",
    ),
    Case("ties_without_density_is_refused", DENSITY_ONLY, {**OF_TASKS, f"{INPUTS}.method": "ties"}, "MergeJob"),
    Case("density_of_slerp_is_refused", DENSITY_ONLY, {f"{INPUTS}.density": 0.5}, "MergeJob"),
    Case(
        "dareTies_is_accepted",
        "",
        {**OF_TASKS, f"{INPUTS}.method": "dareTies", f"{INPUTS}.density": 0.5, f"{INPUTS}.lambda": 1.5},
        "MergeJob",
    ),
    Case("lambda_of_slerp_is_refused", LAMBDA_ONLY, {f"{INPUTS}.lambda": 1}, "MergeJob"),
    Case(
        "granularity_of_slerp_is_refused",
        "granularity belongs to nuslerp",
        {f"{INPUTS}.granularity": "row"},
        "MergeJob",
    ),
    Case(
        "nuslerp_by_rows_is_accepted", "", {f"{INPUTS}.method": "nuslerp", f"{INPUTS}.granularity": "row"}, "MergeJob"
    ),
    Case("task_vectors_without_a_base_are_refused", BASE_ONLY, {f"{INPUTS}.space": "taskVectors"}, "MergeJob"),
    Case("a_base_of_weights_is_refused", BASE_ONLY, {f"{INPUTS}.base": DIGEST}, "MergeJob"),
    Case(
        "slerp_of_task_vectors_is_accepted",
        "",
        {f"{INPUTS}.space": "taskVectors", f"{INPUTS}.base": DIGEST},
        "MergeJob",
    ),
    Case("a_pipeline_with_a_merge_is_accepted", "", MERGED),
    Case("a_merge_of_a_pipeline_without_t_is_refused", NEEDS_T, {**MERGED, f"{MERGE}.t": ABSENT}),
    Case("a_parent_of_nothing_is_refused", ONE_PARENT, {**MERGED, f"{MERGE}.parents.0": {}}),
    Case("a_parent_that_is_two_is_refused", ONE_PARENT, {**MERGED, f"{MERGE}.parents.0.base": True}),
    Case("the_base_as_a_parent_is_accepted", "", {**MERGED, f"{MERGE}.parents.0": {"base": True}}),
    Case(
        "a_control_of_linear_is_refused", "a linear merge is its own control", {**MERGED, f"{MERGE}.method": "linear"}
    ),
    Case(
        "a_long_name_with_a_control_is_refused",
        "the name of a merge with controls has at most 33 characters",
        {**MERGED, f"{MERGE}.name": "m" * 34},
    ),
    Case(
        "a_long_name_without_a_control_is_accepted",
        "",
        {**MERGED, f"{MERGE}.name": "m" * 40, f"{MERGE}.controls": ABSENT},
    ),
    Case(
        "held_out_text_without_t_is_refused",
        "heldOut is measured along t; it belongs to a merge that has one",
        {
            **MERGED,
            f"{MERGE}.method": "taskArithmetic",
            f"{MERGE}.base": {"base": True},
            f"{MERGE}.t": ABSENT,
            f"{MERGE}.heldOut": "poems",
        },
    ),
    Case("held_out_text_is_accepted", "", {**MERGED, f"{MERGE}.heldOut": "poems"}),
)
