"""How a stage trains: model shape, tokenizer, hyper-parameters, checkpoints, DeepSpeed, limits."""

from typing import Annotated, ClassVar, Literal, Self

from pydantic import Field, model_validator

from bessemer_api.base import Model
from bessemer_api.fields import Duration, Fraction

Method = Literal["tokenizer", "pretrain", "cpt", "sft", "dpo", "orpo", "kto", "reward", "grpo"]
"""Methods that a pipeline can name."""

LossOn = Literal["completion", "assistant", "all"]
"""Which tokens an example teaches: the last answer, every turn of the assistant, or all."""

ChatTemplate = Literal["none", "fromModel", "chatml", "roles"]
"""How messages become text: joined as they are, by the checkpoint's own template, or by a template known by name."""


class ModelShape(Model):
    """Shape of a Llama-architecture model that is pretrained from scratch."""

    hidden_size: int = Field(ge=8, le=65_536, description="Width of the residual stream.")
    intermediate_size: int = Field(ge=8, le=262_144, description="Width of the feed-forward layers.")
    layers: int = Field(ge=1, le=512, description="Number of transformer layers.")
    heads: int = Field(ge=1, le=512, description="Number of attention heads; must divide hiddenSize.")
    key_value_heads: int | None = Field(None, ge=1, le=512, description="Number of key-value heads; default: heads.")
    max_positions: int = Field(2048, ge=8, le=10_485_760, description="Longest sequence the model is made for.")
    rope_theta: float = Field(10_000.0, gt=0, description="Base of the rotary position embedding.")
    tie_embeddings: bool = Field(True, description="Input and output embeddings share their weights.")
    cel: ClassVar[tuple[tuple[str, str], ...]] = (
        ("self.hiddenSize % self.heads == 0", "heads must divide hiddenSize"),
        ("!has(self.keyValueHeads) || self.heads % self.keyValueHeads == 0", "keyValueHeads must divide heads"),
    )

    @model_validator(mode="after")
    def _divisible(self) -> Self:
        if self.hidden_size % self.heads:
            raise ValueError("heads must divide hiddenSize")
        if self.key_value_heads is not None and self.heads % self.key_value_heads:
            raise ValueError("keyValueHeads must divide heads")
        return self


class BaseShape(ModelShape):
    """Shape of a Llama-architecture model that is there already."""

    vocabulary_size: int = Field(ge=8, le=2_097_152, description="Rows of its embedding.")


class TokenizerTraining(Model):
    """How a byte-level BPE tokenizer is trained from the stage's data."""

    vocabulary_size: int = Field(32_768, ge=260, le=1_048_576, description="Tokens, special tokens included.")
    min_frequency: int = Field(2, ge=1, le=1_000_000, description="Pairs seen less often are not merged.")
    extend: int | None = Field(
        None,
        ge=1,
        le=262_144,
        description="Add at most so many tokens to the tokenizer of the checkpoint that the stage starts from, instead "
        "of training a new one; the result is a checkpoint. vocabularySize has no effect then.",
    )


class Lora(Model):
    """Train low-rank updates of the linear layers instead of all weights; they are merged into the result."""

    r: int = Field(16, ge=1, le=4096, description="Rank of an update.")
    alpha: Annotated[float, Field(gt=0, le=65_536)] = Field(32.0, description="An update is scaled by alpha / r.")
    dropout: Annotated[float, Field(ge=0, lt=1)] = Field(0.0, description="Dropout before an update, in training.")
    targets: list[Annotated[str, Field(pattern=r"^[A-Za-z0-9_.]+$", max_length=64)]] = Field(
        default_factory=list,
        max_length=32,
        description="Names of the linear layers, for example q_proj; none: all but the output embedding.",
    )


class Grpo(Model):
    """How grpo samples and learns (Shao et al. 2024). Rewards come from the stage's `reward`, else from verifiers."""

    samples: int = Field(8, ge=2, le=1024, description="Answers that are sampled for a prompt and compared.")
    max_new_tokens: int = Field(256, ge=1, le=65_536, description="Longest answer.")
    temperature: Annotated[float, Field(gt=0, le=10)] = Field(1.0, description="Temperature of sampling.")
    clip: Annotated[float, Field(gt=0, le=1)] = Field(0.2, description="Clip of the ratio to the sampling policy.")


class Train(Model):
    """Hyper-parameters. Each one that differs from its default is part of the stage's input digest."""

    learning_rate: Annotated[float, Field(ge=0, le=10)] = Field(2e-5, description="Peak learning rate.")
    schedule: Literal["cosine", "linear", "constant", "wsd"] = Field(
        "cosine", description="Learning rate over steps, after the warm-up."
    )
    warmup_ratio: Fraction = Field(0.1, description="Share of the steps in which the learning rate rises linearly.")
    min_learning_rate_ratio: Fraction = Field(0.1, description="Last learning rate as a share of the peak.")
    epochs: Annotated[float, Field(gt=0, le=1000)] | None = Field(
        None, description="Passes over the mixture. Exactly one of epochs, maxSteps and maxTokens."
    )
    max_steps: int | None = Field(None, ge=1, le=100_000_000, description="Optimizer steps.")
    max_tokens: int | None = Field(None, ge=1, le=10**15, description="Tokens trained on.")
    global_batch_tokens: int = Field(
        65_536, ge=8, le=2**31, description="Tokens in one optimizer step over all ranks; a multiple of sequenceLength."
    )
    weight_decay: Annotated[float, Field(ge=0, le=10)] = Field(0.1, description="AdamW weight decay.")
    adam_beta1: Annotated[float, Field(ge=0, lt=1)] = Field(0.9, description="AdamW beta 1.")
    adam_beta2: Annotated[float, Field(ge=0, lt=1)] = Field(0.95, description="AdamW beta 2.")
    gradient_clip: Annotated[float, Field(gt=0, le=1e6)] = Field(1.0, description="Largest norm of the gradient.")
    precision: Literal["bf16", "fp32"] = Field("bf16", description="Number format of weights in forward and backward.")
    gradient_checkpointing: bool = Field(False, description="Recompute activations in backward to save memory.")
    global_batch_examples: int | None = Field(
        None,
        ge=1,
        le=2**24,
        description="Batch in pairs, prompts or unpacked examples, instead of globalBatchTokens / sequenceLength.",
    )
    loss_on: LossOn = Field(
        "completion", description="Which tokens are trained (sft); the likelihood of orpo covers the prompt with all."
    )
    neftune_alpha: Annotated[float, Field(ge=0, le=1000)] = Field(
        0.0, description="Noise on the input embeddings in training (sft; Jain et al. 2023); 0: none."
    )
    beta: Annotated[float, Field(ge=0, le=1000)] = Field(
        0.1,
        description="Temperature of dpo and kto, weight of the odds-ratio term of orpo, weight of the KL term of grpo.",
    )
    loss_type: Literal["sigmoid", "ipo", "hinge", "sigmoidNorm"] = Field(
        "sigmoid", description="Loss of dpo; sigmoidNorm is normalised by length."
    )
    lora: Lora | None = Field(None, description="Train low-rank updates; absent: all weights.")
    grpo: Grpo | None = Field(None, description="Settings of grpo; absent: its defaults.")
    cel: ClassVar[tuple[tuple[str, str], ...]] = (
        (
            "(has(self.epochs) ? 1 : 0) + (has(self.maxSteps) ? 1 : 0) + (has(self.maxTokens) ? 1 : 0) == 1",
            "train needs exactly one of epochs, maxSteps and maxTokens",
        ),
    )

    @model_validator(mode="after")
    def _one_length(self) -> Self:
        if sum(length is not None for length in (self.epochs, self.max_steps, self.max_tokens)) != 1:
            raise ValueError("train needs exactly one of epochs, maxSteps and maxTokens")
        return self


class Checkpoint(Model):
    """When a running stage saves, and what it keeps inside its run folder. Not part of the input digest."""

    every_steps: int = Field(500, ge=1, le=10_000_000, description="Optimizer steps between two saves.")
    keep_last: int = Field(2, ge=1, le=1000, description="Verified checkpoints that are kept for resuming.")


class DeepSpeed(Model):
    """How DeepSpeed spreads the work. Not part of the input digest: the global batch fixes the mathematics."""

    zero_stage: Literal[0, 1, 2, 3] = Field(2, description="ZeRO stage.")
    micro_batch_size: int = Field(
        1, ge=1, le=65_536, description="Sequences in one forward pass of one rank; must divide the global batch."
    )


class Limits(Model):
    """When to give up. Not part of the input digest."""

    max_attempts: int = Field(3, ge=1, le=100, description="Attempts that may fail before the stage fails.")
    max_preemptions: int = Field(20, ge=0, le=10_000, description="Preemptions are counted apart from attempts.")
    deadline: Duration = Field("48h", description="An attempt that runs longer is ended and counted as failed.")
