"""How tests make a tiny model that is really trained: a byte-level BPE, a small Llama, plain torch on one thread.

Nothing is mocked. What is taught is the caller's.
"""

import json
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import numpy as np
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import LlamaConfig, LlamaForCausalLM

END = "<|endoftext|>"
IGNORED = -100
Batch = tuple[torch.Tensor, torch.Tensor]
"""Tokens and labels, a row an example."""


def train_tokenizer(texts: Iterable[str], size: int, min_frequency: int = 0) -> Tokenizer:
    """A byte-level BPE with one special token, END, whose id is 0."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=size, special_tokens=[END], initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False, min_frequency=min_frequency,
    )  # fmt: skip
    tokenizer.train_from_iterator(texts, trainer)
    return tokenizer


def llama(
    tokenizer: Tokenizer, width: int = 64, layers: int = 2, positions: int = 64, spread: float = 0.02
) -> LlamaForCausalLM:
    """A Llama with random weights, always the same ones. `spread`: their standard deviation."""
    torch.manual_seed(0)
    torch.set_num_threads(1)
    config = LlamaConfig(
        vocab_size=tokenizer.get_vocab_size(), hidden_size=width, intermediate_size=2 * width,
        num_hidden_layers=layers, num_attention_heads=4, num_key_value_heads=2, max_position_embeddings=positions,
        tie_word_embeddings=True, bos_token_id=None, eos_token_id=0, pad_token_id=None, initializer_range=spread,
    )  # fmt: skip
    return LlamaForCausalLM(config)


def batch_of(rows: Sequence[tuple[list[int], list[int]]]) -> Batch:
    """Prompts with what is learned after them, padded to one width."""
    width = max(len(prompt) + len(learned) for prompt, learned in rows)

    def padded(fill: int, parts: Iterable[list[int]]) -> torch.Tensor:
        return torch.tensor([part + [fill] * (width - len(part)) for part in parts])

    labels = ([IGNORED] * len(prompt) + learned for prompt, learned in rows)
    return padded(0, (prompt + learned for prompt, learned in rows)), padded(IGNORED, labels)


def learn(
    model: LlamaForCausalLM, batches: Iterable[Batch], optimizer: torch.optim.Optimizer,
    after: Callable[[], None] = lambda: None,
) -> LlamaForCausalLM:  # fmt: skip
    """A step for each batch; the same model, ready to be asked."""
    for tokens, labels in batches:
        optimizer.zero_grad()
        model(input_ids=tokens, labels=labels).loss.backward()
        optimizer.step()
        after()
    return model.eval()


def learn_answers(
    model: LlamaForCausalLM, tokenizer: Tokenizer, lessons: Iterable[tuple[str, str]], steps: int,
    *, rate: float = 4e-3, ends: bool = True,
) -> LlamaForCausalLM:  # fmt: skip
    """Learn the second text of each lesson after the first; without `ends`, never that an answer is over."""
    end = [0] if ends else []
    encoded = [(tokenizer.encode(a).ids, [*tokenizer.encode(b).ids, *end]) for a, b in lessons]
    encoded.sort(key=lambda pair: len(pair[0]) + len(pair[1]))
    batches = [batch_of(encoded[i : i + 32]) for i in range(0, len(encoded), 32)]
    optimizer = torch.optim.AdamW(model.parameters(), lr=rate, weight_decay=0.0)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda k: min(1.0, k / 20) * (1 - k / (steps + 1)))
    random = np.random.Generator(np.random.PCG64(1))
    rounds = (random.permutation(len(batches)) for _ in range(-(-steps // len(batches))))
    order = [place for places in rounds for place in places][:steps]
    return learn(model, (batches[place] for place in order), optimizer, schedule.step)


def learn_lines(model: LlamaForCausalLM, tokenizer: Tokenizer, lines: Sequence[str], steps: int) -> LlamaForCausalLM:
    """Learn all lines by heart, in one batch."""
    batch = batch_of([([], [*tokenizer.encode(line).ids, 0]) for line in lines])
    return learn(model, [batch] * steps, torch.optim.AdamW(model.parameters(), lr=3e-3))


def save_tokenizer(folder: Path, tokenizer: Tokenizer, **config: str) -> None:
    """The tokenizer's two files; `config` goes into the second."""
    tokenizer.save(str(folder / "tokenizer.json"))
    document = {"eos_token": END, "tokenizer_class": "PreTrainedTokenizerFast", **config}
    (folder / "tokenizer_config.json").write_text(json.dumps(document))


def save_checkpoint(folder: Path, model: LlamaForCausalLM, tokenizer: Tokenizer) -> None:
    """As transformers writes a model, with its tokenizer."""
    model.save_pretrained(folder)
    save_tokenizer(folder, tokenizer)
