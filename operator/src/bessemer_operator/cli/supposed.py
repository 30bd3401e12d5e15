"""What a user supposes for a plan: words of the command line as numbers. Pure."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from bessemer_api.v1alpha1.evaluation import Axis
from bessemer_api.v1alpha1.pipeline import PipelineSpec
from bessemer_api.v1alpha1.tasks import TASKS
from bessemer_operator.cli.problems import EXIT_USAGE, UserError
from bessemer_operator.core.power import Truth

DEFAULT_SPREAD = 0.15
"""Deviation of an item's difference on an axis whose items are not right or wrong, where the user supposes none.

Two related models on one text differ by about that many bits per byte in the quickstart.
"""
_KEYS = ("shape", "tokens", "try", "discordance", "anchor", "also", "spread")


@dataclass(frozen=True, slots=True)
class Supposed:
    """Words by what they are about: `effects` as they were given, the others by key and name."""

    effects: tuple[str, ...] = ()
    words: Mapping[tuple[str, str], str] = field(default_factory=dict)

    @property
    def shape(self) -> str:
        """Name or folder; empty when nothing is supposed."""
        return self.words.get(("shape", ""), "")

    def of(self, key: str, names: Iterable[str]) -> dict[str, float]:
        """Numbers by name, for `key.name=number`. Raises UserError for unknown names."""
        words = [f"{name}={text}" for (kind, name), text in self.words.items() if kind == key]
        return numbers(f"--suppose {key}.", words, names)

    def number(self, key: str, default: float, least: float, most: float) -> float:
        """A single number between bounds. Raises UserError."""
        text = self.words.get((key, ""))
        if text is None:
            return default
        value = numbers(f"--suppose {key}=", [text], [key])[key]
        if not least <= value <= most:
            raise UserError(f"--suppose {key}={text}: expected a number from {least:g} to {most:g}", EXIT_USAGE)
        return value

    def truth(self, spec: PipelineSpec) -> Truth:
        """What the power of gates is computed for. Raises UserError for unknown axes and impossible numbers."""
        axes = {axis.name for gate in spec.gates for axis in gate.axes}
        graded = {axis.name for axis in spec.evaluation.axes if _is_graded(axis)} & axes
        others = {
            f"{other}.{name}" for gate in spec.gates for other, names in gate.also_against.items() for name in names
        }
        try:
            return Truth(
                effects=numbers("--effect ", self.effects, sorted(axes)),
                anchors=self.of("anchor", axes),
                others=self.of("also", others),
                spreads=dict.fromkeys(sorted(graded), DEFAULT_SPREAD) | self.of("spread", axes),
                discordance=self.number("discordance", 0.2, 0.001, 1.0),
                tries=round(self.number("try", 1, 1, 10_000)),
            )
        except ValueError as error:
            raise UserError(f"--effect: {error}; suppose another with --suppose discordance=", EXIT_USAGE) from None


def _is_graded(axis: Axis) -> bool:
    """Whether differences have no natural unit of one item: losses, and ratios on a log scale.

    Scores between 0 and 1 are counted as right or wrong, which makes their spread as large as it can be.
    """
    metric = TASKS[axis.task].metrics[axis.metric or TASKS[axis.task].default_metric]
    return axis.task == "bitsPerByte" or metric.is_ratio


def read_supposed(effects: Iterable[str], words: Iterable[str]) -> Supposed:
    """The options of a command line. Raises UserError for words that say nothing that a plan can suppose."""
    found: dict[tuple[str, str], str] = {}
    for word in words:
        what, mark, value = word.partition("=")
        key, _, name = what.partition(".")
        if key not in _KEYS or not mark or not value:
            known = "shape=, tokens.DATASET=, try=, discordance=, anchor.AXIS=, also.OTHER.AXIS=, spread.AXIS="
            raise UserError(f"--suppose {word}: expected one of {known}", EXIT_USAGE)
        found[key, name] = value
    return Supposed(tuple(effects), found)


def numbers(option: str, words: Iterable[str], names: Iterable[str]) -> dict[str, float]:
    """`name=number` words as a map; a lone number is that of every name. Raises UserError."""
    known = list(names)
    found: dict[str, float] = {}
    for word in words:
        name, mark, text = word.rpartition("=")
        try:
            value = float(text)
        except ValueError:
            raise UserError(f"{option}{word}: expected NAME=NUMBER", EXIT_USAGE) from None
        if mark and name not in known:
            raise UserError(f"{option}{word}: there is no {name}; known: {', '.join(sorted(known))}", EXIT_USAGE)
        found.update({name: value} if mark else dict.fromkeys(known, value))
    return found
