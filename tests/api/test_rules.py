"""pydantic's side of the table of cases; tests/e2e/test_crds.py asks the API server about the same documents."""

import pytest
from pydantic import BaseModel, ValidationError

from bessemer_api.base import Model
from bessemer_api.v1alpha1 import KINDS
from tests.api.case import Case
from tests.api.cases import BOUNDS, CASES

MODELS: dict[str, type[BaseModel]] = {kind.__name__: kind for kind in KINDS}


@pytest.mark.parametrize("case", [*CASES, *BOUNDS], ids=lambda case: case.id)
def test_pydantic_decides_as_the_table_says(case: Case) -> None:
    model = MODELS[case.kind]
    if not case.refused and case in CASES:
        model.model_validate(case.document, strict=True)
        return
    with pytest.raises(ValidationError) as refusal:
        model.model_validate(case.document, strict=True)
    assert case.refused in str(refusal.value)


def models_with_rules() -> list[type[Model]]:
    found, waiting = set(), [Model]
    while waiting:
        model = waiting.pop()
        found.add(model)
        waiting += model.__subclasses__()
    return sorted((model for model in found if model.cel), key=lambda model: model.__name__)


@pytest.mark.parametrize("model", models_with_rules(), ids=lambda model: model.__name__)
def test_every_rule_has_a_case_that_it_refuses(model: type[Model]) -> None:
    asked = {case.refused for case in CASES}
    assert {message for _, message in model.cel} <= asked


def test_the_names_of_cases_are_unique() -> None:
    names = [case.id for case in (*CASES, *BOUNDS)]
    assert len(names) == len(set(names))
