"""Each golden pair holds: same sight, same plan, to the letter."""

import pytest

from tests.operator.core.golden import CASES, FOLDER, load, run


@pytest.mark.parametrize("case", CASES)
def test_what_is_seen_leads_to_what_is_wanted(case: str) -> None:
    assert run(case) == load(FOLDER / case / "out.yaml")
