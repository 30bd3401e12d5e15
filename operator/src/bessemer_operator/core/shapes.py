"""Shapes of Llama-architecture models: how many parameters they have, and a few by name. Pure numbers; no pipeline.

Counts are those of transformers' LlamaForCausalLM (Mistral and SmolLM have the same layers); a test builds it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from bessemer_api.v1alpha1.train import BaseShape, ModelShape


@dataclass(frozen=True, slots=True)
class Shape:
    """Widths and counts, in numbers of elements."""

    hidden: int
    intermediate: int
    layers: int
    heads: int
    key_value_heads: int
    vocabulary: int
    tied: bool

    @property
    def key_value_width(self) -> int:
        """Width of keys, and of values, of one token."""
        return self.hidden // self.heads * self.key_value_heads

    @property
    def layer_parameters(self) -> int:
        """Four matrices of attention, three of the feed-forward part, two norms."""
        attention = 2 * self.hidden * (self.hidden + self.key_value_width)
        return attention + 3 * self.hidden * self.intermediate + 2 * self.hidden

    @property
    def parameters(self) -> int:
        """All of them; a tied head counts once."""
        embeddings = self.vocabulary * self.hidden * (1 if self.tied else 2)
        return self.layers * self.layer_parameters + embeddings + self.hidden

    @property
    def multiplied(self) -> int:
        """Parameters that every token is multiplied with: all but the input embedding, the head included."""
        return self.layers * self.layer_parameters + self.vocabulary * self.hidden + self.hidden

    @property
    def largest_module(self) -> int:
        """Parameters of the largest single module, which ZeRO-3 gathers whole."""
        return max(self.vocabulary, self.intermediate, self.hidden) * self.hidden

    def lora_parameters(self, rank: int, targets: Sequence[str]) -> int:
        """Of adapters of this rank in each layer; no targets mean every linear layer."""
        outputs = {
            "q_proj": self.hidden,
            "k_proj": self.key_value_width,
            "v_proj": self.key_value_width,
            "o_proj": self.hidden,
            "gate_proj": self.intermediate,
            "up_proj": self.intermediate,
            "down_proj": self.intermediate,
        }
        chosen = [width for name, width in outputs.items() if not targets or name in targets]
        return self.layers * sum(rank * (self.hidden + width) for width in chosen)


NAMED: Mapping[str, Shape] = {
    "smollm2-135m": Shape(576, 1536, 30, 9, 3, 49152, True),
    "smollm-1.7b": Shape(2048, 8192, 24, 32, 32, 49152, True),
    "mistral-7b": Shape(4096, 14336, 32, 32, 8, 32768, False),
    "llama-3.1-8b": Shape(4096, 14336, 32, 32, 8, 128256, False),
    "llama-3.1-70b": Shape(8192, 28672, 80, 64, 8, 128256, False),
}
"""From the config.json of HuggingFaceTB/SmolLM2-135M, HuggingFaceTB/SmolLM-1.7B, mistralai/Mistral-7B-v0.3,
meta-llama/Llama-3.1-8B and meta-llama/Llama-3.1-70B.
"""


def from_model_shape(shape: ModelShape, vocabulary: int) -> Shape:
    """The shape of a model that is pretrained with a tokenizer of `vocabulary` tokens."""
    return Shape(
        hidden=shape.hidden_size,
        intermediate=shape.intermediate_size,
        layers=shape.layers,
        heads=shape.heads,
        key_value_heads=shape.key_value_heads or shape.heads,
        vocabulary=vocabulary,
        tied=shape.tie_embeddings,
    )


def from_base_shape(shape: BaseShape) -> Shape:
    """The shape that a pipeline declares for its base model."""
    return from_model_shape(shape, shape.vocabulary_size)


def from_metrics(metrics: Mapping[str, float]) -> Shape | None:
    """The shape that an import reported; None where it reported none."""
    names = ("hiddenSize", "intermediateSize", "layers", "heads", "keyValueHeads", "vocabularySize", "tieEmbeddings")
    values = [metrics.get(f"shape.{name}") for name in names]
    if any(value is None for value in values):
        return None
    hidden, intermediate, layers, heads, key_value_heads, vocabulary, tied = (int(value or 0) for value in values)
    return Shape(hidden, intermediate, layers, heads, key_value_heads, vocabulary, bool(tied))


def from_config(config: Mapping[str, Any]) -> Shape | None:
    """The shape in a config.json of a Llama-architecture model; None for another architecture.

    Defaults are those of transformers' LlamaConfig.
    """
    names = ("hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "vocab_size")
    counts = [config.get(name) for name in names]
    if not all(isinstance(count, int) and count > 0 for count in counts):
        return None
    hidden, intermediate, layers, heads, vocabulary = (int(count or 0) for count in counts)
    key_value_heads = int(config.get("num_key_value_heads") or heads)
    return Shape(
        hidden, intermediate, layers, heads, key_value_heads, vocabulary, bool(config.get("tie_word_embeddings"))
    )
