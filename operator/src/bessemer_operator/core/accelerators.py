"""What GPUs can do, for estimates: memory and peak arithmetic by kind, with the sources. Knows no pipeline.

Peaks are of dense bf16 tensor operations: data sheets often print twice as much, "with sparsity", which no training
uses. Memory is what the driver reports, in GiB, less than the name of the card says. All of it can be overridden by
the fields of a profile.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from bessemer_operator.core.profile import AcceleratorKind, Profile

GIB = 1024**3
DEFAULT_UTILISATION = 0.35
"""Share of the peak that training reaches. torchtitan, Llama-3.1-8B on H100: 0.34 as is, 0.39 compiled."""


@dataclass(frozen=True, slots=True)
class Device:
    """One GPU. `memory` in bytes, `flops` a second at peak, `utilisation` the share of it that training reaches."""

    name: str
    memory: float | None
    flops: float | None
    utilisation: float

    @property
    def reached(self) -> float | None:
        """Operations a second that training reaches."""
        return None if self.flops is None else self.flops * self.utilisation


KINDS: Mapping[AcceleratorKind, tuple[float, float]] = {
    "a10g-24gb": (22.5, 70.0),
    "l4-24gb": (22.5, 121.0),
    "rtx4090-24gb": (24.0, 165.2),
    "l40s-48gb": (45.0, 362.0),
    "a100-40gb": (40.0, 312.0),
    "a100-80gb": (80.0, 312.0),
    "h100-pcie-80gb": (79.6, 756.0),
    "h100-80gb": (79.6, 989.4),
    "h200-141gb": (140.4, 989.4),
    "b200-180gb": (179.1, 2250.0),
    "mi300x-192gb": (191.7, 1307.4),
}
"""GiB and teraflops by kind. Sources: the vendors' data sheets (docs/plan.md lists them)."""


def device_of(profile: Profile) -> Device | None:
    """What a process of this profile computes on; None where the profile does not say."""
    said = profile.accelerator
    if said is None:
        return None
    memory, teraflops = KINDS[said.kind] if said.kind else (None, None)
    memory, teraflops = said.memory_gib or memory, said.teraflops or teraflops
    return Device(
        name=said.kind or "accelerator",
        memory=None if memory is None else memory * GIB,
        flops=None if teraflops is None else teraflops * 1e12,
        utilisation=said.utilisation or DEFAULT_UTILISATION,
    )
