"""A short trial of a merge: its loss on a few sentences and on what its parents write, how it ends a text, and
whether it generates at all.

Small or narrow models find any sentence strange, but not what they write themselves: so each parent continues the
beginning of the text, and the merge is asked how likely that is. It judges no quality; evaluations do.
"""

from pathlib import Path
from typing import Any

import torch

from bessemer_trainer.model import load_model
from bessemer_trainer.token_cache import load_vocabulary

TEXT = (
    "Water boils at a lower temperature on a mountain, because the air is thinner there. "
    "The cook therefore waits longer until the beans are soft."
)
NEW_TOKENS = 12


@torch.inference_mode()
def probe(merged: Path, parents: list[Path]) -> dict[str, Any]:
    """Figures of the merge and of each parent; `generated` counts tokens of the merge alone. Nats a token."""
    vocabulary = load_vocabulary(parents[0])
    tokens = vocabulary.tokenizer.encode(TEXT, add_special_tokens=False).ids
    found, texts = [], []
    for folder in parents:
        parent: Any = load_model(folder)
        found.append(_figures(parent, tokens, vocabulary.end))
        texts.append(_continue(parent, tokens))
    model: Any = load_model(_with_config(merged, parents[0]))
    own: dict[str, Any] = _figures(model, tokens, vocabulary.end)
    own["written"] = [_loss(model, row, start) for row, start in texts]
    row, start = _continue(model, tokens)
    return {"merge": own, "parents": found, "vocabulary": vocabulary.largest + 1, "generated": len(row) - start}


def _with_config(merged: Path, parent: Path) -> Path:
    """The configuration of the first parent is what the artifact will have; mergekit writes one of its own."""
    (merged / "config.json").write_bytes((parent / "config.json").read_bytes())
    return merged


def _figures(model: Any, tokens: list[int], end: int) -> dict[str, float]:  # noqa: ANN401 - transformers is untyped
    """Mean loss of the tokens after the first, and log-probability of the end-of-text token after the last."""
    row = torch.tensor([tokens[: int(model.config.max_position_embeddings)]])
    logs = model(input_ids=row, use_cache=False).logits.float().log_softmax(-1)[0]
    chosen = logs[:-1].gather(-1, row[0, 1:].unsqueeze(-1))
    return {"loss": -float(chosen.mean()), "end": float(logs[-1, end])}


def _loss(model: Any, tokens: list[int], start: int) -> float:  # noqa: ANN401 - transformers is untyped
    """Mean loss of the tokens from `start` on."""
    row = torch.tensor([tokens])
    logs = model(input_ids=row, use_cache=False).logits.float().log_softmax(-1)[0]
    return -float(logs[start - 1 : -1].gather(-1, row[0, start:].unsqueeze(-1)).mean())


def _continue(model: Any, tokens: list[int]) -> tuple[list[int], int]:  # noqa: ANN401 - transformers is untyped
    """The beginning of the text with the likeliest tokens after it, and where these begin."""
    longest = int(model.config.max_position_embeddings)
    row = torch.tensor([tokens[: max(1, min(len(tokens) // 2, longest - NEW_TOKENS))]])
    out = model.generate(
        input_ids=row,
        attention_mask=torch.ones_like(row),
        max_new_tokens=NEW_TOKENS,
        do_sample=False,
        pad_token_id=0,
    )
    return out[0].tolist(), int(row.shape[1])
