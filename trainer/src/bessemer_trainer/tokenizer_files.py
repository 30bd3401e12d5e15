"""Which files of an artifact are its tokenizer. Imports nothing heavy."""

import shutil
from pathlib import Path

TOKENIZER_FILES = (
    "added_tokens.json",
    "chat_template.jinja",
    "merges.txt",
    "special_tokens_map.json",
    "tokenizer.json",
    "tokenizer.model",
    "tokenizer_config.json",
    "vocab.json",
)


def copy_tokenizer(source: Path, target: Path) -> None:
    """Copy the tokenizer's files from one artifact to the folder of another."""
    for name in TOKENIZER_FILES:
        if (source / name).is_file():
            shutil.copyfile(source / name, target / name)
