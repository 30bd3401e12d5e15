"""What a duration means, and that whatever a CRD lets through can be counted with."""

from datetime import UTC, datetime, timedelta

import pytest

from bessemer_operator.core.durations import parse_duration


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        pytest.param("90s", timedelta(seconds=90), id="seconds"),
        pytest.param("1d12h", timedelta(hours=36), id="days and hours"),
        pytest.param("1d2h3m4s", timedelta(days=1, hours=2, minutes=3, seconds=4), id="everything"),
    ],
)
def test_what_a_duration_means(text: str, expected: timedelta) -> None:
    assert parse_duration(text) == expected


@pytest.mark.parametrize(
    "text", ["", "5", "1w", "1h1d", "-1h", "99999999999999d", "100000s", "\N{ARABIC-INDIC DIGIT ONE}h"]
)
def test_what_is_no_duration_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="is no duration"):
        parse_duration(text)


def test_the_longest_duration_leads_to_a_time() -> None:
    longest = parse_duration("99999d99999h99999m99999s")
    assert (datetime(2026, 1, 1, tzinfo=UTC) + longest).year == 2311
