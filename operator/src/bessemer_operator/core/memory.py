"""Memory of a training stage on one GPU and in one pod, as an estimate made of its parts. Pure numbers; no pipeline.

Model states are counted as DeepSpeed's own estimators count them (a test compares the two to the byte). Activations
are what autograd keeps in the forward pass of transformers' Llama under SDPA with the mask of packed documents
(a test counts the tensors that it really keeps); no estimator knows fragmentation, so HEADROOM is left free.
"""

from dataclasses import dataclass
from typing import Literal

from bessemer_operator.core.shapes import Shape

Offload = Literal["none", "optimizer", "all"]

HEADROOM = 0.10
"""Share of the memory that is left for CUDA, NCCL and fragmentation."""
LOGITS_AT_ONCE = 1 << 27
"""Positions x vocabulary that the trainer holds at once; more are made in chunks."""
BUCKET_ELEMENTS = 50_000_000
"""Elements of each communication bucket that the trainer asks DeepSpeed for, on a GPU."""
HOST_BUFFER = 1.5
"""DeepSpeed's own factor for what the host needs beside the states."""


@dataclass(frozen=True, slots=True)
class Layout:
    """How a stage is spread. `rows`: sequences in one forward pass; `trained`: parameters that get gradients (None:
    all); `copies`: frozen models of this size that every rank holds whole beside it (of a reference, a reward);
    `value_bytes`: 2 for bf16, 4 for fp32.
    """

    ranks: int
    ranks_per_node: int
    zero: int
    rows: int
    length: int
    value_bytes: int = 2
    checkpointing: bool = False
    trained: int | None = None
    copies: int = 0
    offload: Offload = "none"

    @property
    def nodes(self) -> int:
        """Pods of the stage."""
        return max(1, self.ranks // self.ranks_per_node)


@dataclass(frozen=True, slots=True)
class Memory:
    """Bytes on one GPU by what they are for, and `host` bytes in one pod."""

    parameters: float
    gradients: float
    optimizer: float
    gathered: float
    copies: float
    activations: float
    logits: float
    buckets: float
    host: float

    @property
    def states(self) -> float:
        """What DeepSpeed calls model states: no batch can make it smaller."""
        return self.parameters + self.gradients + self.optimizer + self.gathered

    @property
    def total(self) -> float:
        """All of it."""
        return self.states + self.copies + self.activations + self.logits + self.buckets


def estimate_memory(shape: Shape, layout: Layout) -> Memory:
    """Memory of one rank. Bytes, decimal."""
    parameters, gradients, optimizer = _states(shape, layout)
    tokens = layout.rows * layout.length
    return Memory(
        parameters=parameters,
        gradients=gradients,
        optimizer=optimizer,
        gathered=4 * shape.largest_module if layout.zero == 3 else 0,
        copies=layout.copies * layout.value_bytes * shape.parameters,
        activations=tokens * activation_bytes(shape, layout),
        logits=logit_bytes(shape, tokens),
        buckets=2 * BUCKET_ELEMENTS * layout.value_bytes if layout.ranks > 1 else 0,
        host=host_bytes(shape, layout),
    )


def _states(shape: Shape, layout: Layout) -> tuple[float, float, float]:
    """Parameters, gradients and optimizer (master weights and Adam's two moments) of one rank.

    DeepSpeed counts 18 bytes a parameter beside the bf16 weights: gradients 2 + 4, master 4, moments 8. ZeRO-1 spreads
    the last 12 over the ranks, ZeRO-2 all 18; in ZeRO-3 they are 18 with the weights (Rajbhandari et al. 2020).
    """
    trained = shape.parameters if layout.trained is None else layout.trained
    frozen = shape.parameters if layout.trained is not None else 0
    width = layout.value_bytes
    kept = width * (trained + frozen)
    # In fp32 a gradient is its own sum; without ZeRO the weights are their own master.
    gradient = 6 if width == 2 else 4
    adam = 8 if width == 4 and layout.zero == 0 else 12
    share = layout.ranks
    if layout.zero == 3:
        own = 0 if layout.offload == "all" else kept / share
        if layout.offload != "none":
            return own, 0.0, 0.0
        # DeepSpeed's 18: the bf16 gradients live in the buffer of the bf16 weights' gather.
        return own, (gradient - 2 if width == 2 else gradient) * trained / share, adam * trained / share
    if layout.offload != "none" and layout.zero == 2:
        return kept, 0.0, 0.0
    gradients = gradient * trained / (share if layout.zero == 2 else 1)
    return kept, gradients, adam * trained / (1 if layout.zero == 0 else share)


def activation_bytes(shape: Shape, layout: Layout) -> float:
    """Bytes that the forward pass keeps for each token until backward, without the logits.

    A layer keeps, in bf16: two norms (their input in fp32, two outputs), q, k, v and the output of attention at full
    width, four vectors of the feed-forward part, and its copy of the mask of packed documents.
    """
    scale = layout.value_bytes / 2
    heads = 4 * shape.heads + 8  # logsumexp of attention, and the norms' deviations; always fp32
    wide = 8 * shape.intermediate + 16 * shape.hidden + 2 * layout.length
    layer = scale * wide + 8 * shape.hidden + heads
    last = scale * 4 * shape.hidden + 4 * shape.hidden
    if layout.checkpointing:
        return shape.layers * layout.value_bytes * shape.hidden + layer + last
    return shape.layers * layer + last


def logit_bytes(shape: Shape, tokens: int) -> float:
    """At the peak: logits in bf16 and fp32, and their gradient in fp32, of as many positions as are held at once."""
    return 10.0 * min(tokens * shape.vocabulary, max(LOGITS_AT_ONCE, shape.vocabulary))


def host_bytes(shape: Shape, layout: Layout) -> float:
    """Memory of one pod, by DeepSpeed's formulas: every rank first loads the whole model in fp32, then states stay
    there that are offloaded.
    """
    trained = shape.parameters if layout.trained is None else layout.trained
    per_rank = 4 * layout.ranks_per_node
    if layout.offload == "none" or layout.zero < 2:
        return shape.parameters * per_rank * HOST_BUFFER
    if layout.zero == 2:
        return trained * max(4 * layout.ranks, 16) * HOST_BUFFER
    states = 18 if layout.offload == "all" else 16
    return shape.parameters * max(per_rank, states / layout.nodes) * HOST_BUFFER
