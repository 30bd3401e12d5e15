"""A short trial of a merge: its loss on a few sentences, how it ends a text, and whether it generates at all.

Compared with its parents, because small or narrow models find any sentence strange. It judges no quality; that is
what evaluations are for.
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
    found = [_figures(load_model(folder), tokens, vocabulary.end) for folder in parents]
    model: Any = load_model(_with_config(merged, parents[0]))
    own = _figures(model, tokens, vocabulary.end)
    return {"merge": own, "parents": found, "vocabulary": vocabulary.largest + 1, "generated": _generate(model, tokens)}


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


def _generate(model: Any, tokens: list[int]) -> int:  # noqa: ANN401 - transformers is untyped
    """How many tokens the merge adds to the beginning of the text, the likeliest ones."""
    longest = int(model.config.max_position_embeddings)
    row = torch.tensor([tokens[: max(1, min(len(tokens) // 2, longest - NEW_TOKENS))]])
    out = model.generate(
        input_ids=row,
        attention_mask=torch.ones_like(row),
        max_new_tokens=NEW_TOKENS,
        do_sample=False,
        pad_token_id=0,
    )
    return int(out.shape[1] - row.shape[1])
