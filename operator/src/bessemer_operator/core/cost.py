"""Arithmetic and time of training and of evaluating, as estimates. Pure numbers; it knows no pipeline.

Operations are counted as the field counts them for MFU (Chowdhery et al. 2022, PaLM, appendix B): 6 for each parameter
that a token is multiplied with, and 12 x layers x width x length for attention without regard to the causal mask.
torchtitan's Llama-3.1-8B numbers on H100 are reproduced by a test.
"""

from dataclasses import dataclass

from bessemer_operator.core.accelerators import Device
from bessemer_operator.core.shapes import Shape

SECONDS_PER_HOUR = 3600.0
READING_UTILISATION = 0.10
"""Share of the peak that evaluation reaches: short prompts, small batches. Assumed."""
DECODING_UTILISATION = 0.02
"""Share of the peak that generating reaches, a token at a time. Assumed."""


@dataclass(frozen=True, slots=True)
class Passes:
    """What one trained token costs: 2 operations a parameter for forward, 2 for the gradient of activations, 2 for that
    of weights; once more forward where activations are recomputed; forward in a frozen reference model.
    """

    weights: bool = True
    recompute: bool = False
    reference: bool = False

    @property
    def per_parameter(self) -> int:
        """Operations for each parameter that a token is multiplied with."""
        return 4 + 2 * self.weights + 2 * self.recompute + 2 * self.reference


def operations_per_token(shape: Shape, length: int, passes: Passes) -> float:
    """Floating-point operations of one trained token in a sequence of `length`."""
    forwards = 3 + passes.recompute + passes.reference  # attention has no weights of its own: backward is two forwards
    attention = 4 * shape.layers * shape.hidden * length * forwards
    return passes.per_parameter * shape.multiplied + attention


def reading_operations(shape: Shape, length: int) -> float:
    """Operations of one token that is only read."""
    return 2 * shape.multiplied + 4 * shape.layers * shape.hidden * length


def training_seconds(operations: float, ranks: int, device: Device) -> float | None:
    """Time of so many operations on all ranks; None where the device's speed is not known."""
    return None if device.reached is None else operations / (device.reached * ranks)


def reading_seconds(operations: float, ranks: int, device: Device, *, decoding: bool = False) -> float | None:
    """The same without training, at what reading or generating reaches of the peak."""
    share = DECODING_UTILISATION if decoding else READING_UTILISATION
    return None if device.flops is None else operations / (device.flops * share * ranks)
