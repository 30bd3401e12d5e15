"""How the report names and writes things: digests, numbers, verdicts, units. One place, so that a page speaks alike."""

from collections.abc import Mapping
from typing import Any

from bessemer_api.v1alpha1.gate import Gate
from bessemer_trainer.reporting.facts import Facts

TONES = {"Passed": "good", "Failed": "bad", "Invalid": "bad", "Error": "bad", "Inconclusive": "open", "Pending": "open"}
PHASES = {"Succeeded": "good", "Failed": "bad"}
STATES = {
    "Won": "shown to be better",
    "Holds": "shown not to be worse",
    "Worse": "shown to be worse",
    "NotShown": "nothing was shown",
}
STATE_TONES = {"Won": "good", "Holds": "good", "Worse": "bad"}
VERDICTS = {
    "Passed": "What the gate asks was shown.",
    "Failed": "What the gate asks was not shown, or the opposite was. Do not use the candidate on this evidence.",
    "Inconclusive": "Neither good nor bad was shown. More items, or a named person, must decide.",
    "Invalid": "What was measured is no evidence in either direction: mend the measurement and run it again.",
    "Error": "Something broke while measuring. This says nothing about the candidate: run it again.",
    "Pending": "The gate has not decided yet.",
}


def short_digest(digest: str | None) -> str:
    """The first 12 digits, as people name an artifact."""
    return digest.removeprefix("sha256:")[:12] if digest else "—"


def short_number(value: float) -> str:
    """Three digits, with k, M, B from 10,000 on: 0.125, 9,183, 40.1k, 1.23M; a true minus sign."""
    for limit, unit, divisor in ((1e9, "B", 1e9), (1e6, "M", 1e6), (1e4, "k", 1e3)):
        if abs(value) >= limit:
            return f"{value / divisor:.3g}{unit}".replace("-", "−")
    return (f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}").replace("-", "−")


def signed(value: float) -> str:
    """With its sign and three decimals: +0.550, −0.012."""
    return f"{value:+.3f}".replace("-", "−")


def interval(low: float, high: float) -> str:
    """An interval in words."""
    return f"{signed(low)} to {signed(high)}"


def duration(seconds: float) -> str:
    """In the two largest units: 3 d 4 h, 5 h 12 min, 7 min 5 s, 12 s."""
    for size, unit, small, name in ((86400, "d", 3600, "h"), (3600, "h", 60, "min"), (60, "min", 1, "s")):
        if seconds >= size:
            rest = round(seconds % size / small)
            return f"{int(seconds // size)} {unit}" + (f" {rest} {name}" if rest else "")
    return f"{seconds:.0f} s"


def p_value(p: float) -> str:
    """Two digits; what is smaller than any use is said to be so."""
    return "< 0.0001" if p < 1e-4 else f"{p:.2g}"


FILTERS: Mapping[str, Any] = {
    "short": short_digest,
    "number": short_number,
    "signed": signed,
    "mean": lambda value: f"{value:.3f}",
    "digits": lambda value: f"{value:.4g}",
    "p_value": p_value,
    "count": lambda value: f"{value:,}",
    "percent": lambda share: f"{100 * share:.1f} %",
    "duration": duration,
}


def artifact_names(facts: Facts) -> dict[str, str]:
    """A name that people know for each artifact digest."""
    names = {channel.digest: f"incumbent of {channel.name}" for channel in facts.channels if channel.digest}
    return names | {row.output_digest: row.name for row in facts.rows if row.output_digest}


def named(digest: str | None, names: Mapping[str, str]) -> str:
    """Name and short digest."""
    if digest is None:
        return "nothing yet"
    return f"{names[digest]} ({short_digest(digest)})" if digest in names else short_digest(digest)


def rule_in_words(gate: Gate) -> str:
    """What a gate asks, for people who never read its YAML."""
    winnable = [axis for axis in gate.axes if axis.win_by is not None]
    parts = []
    if gate.compose.at_least:
        parts.append(f"at least {gate.compose.at_least} of {len(winnable)} axes are shown to be better")
    parts.append(f"all {len(gate.axes)} axes are shown not to be worse than their margin")
    veto = f", and no veto fires ({', '.join(gate.vetoes)})" if gate.vetoes else ""
    observe = " It is observed only: its verdict stops nothing." if gate.mode == "observe" else ""
    return (
        f"It passes when {' and '.join(parts)}{veto}. A candidate that should not pass does so with probability "
        f"at most {gate.alpha:g}, over all looks and tries.{observe}"
    )


def listed(words: list[str]) -> str:
    """a, b and c."""
    return " and ".join([", ".join(words[:-1]), words[-1]] if len(words) > 1 else words)
