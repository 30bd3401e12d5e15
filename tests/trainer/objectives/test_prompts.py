"""Where a sampled answer ends: at the end of text, and at what the chat template of its prompt closes a turn with."""

import json
import shutil
from pathlib import Path

from tokenizers import AddedToken, Tokenizer

from bessemer_trainer.chat import FILE, NAMED
from bessemer_trainer.reinforce import answer_ends
from bessemer_trainer.token_cache import load_vocabulary
from tests.trainer.support import make_tokenizer, store_in


def test_answers_end_where_the_template_ends_a_turn(tmp_path: Path) -> None:
    store = store_in(tmp_path)
    folder, mixture = tmp_path / "model", tmp_path / "mixture"
    shutil.copytree(store.fetch(make_tokenizer(store, tmp_path)), folder)
    mixture.mkdir()
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.add_special_tokens([AddedToken(text, special=True) for text in ("<|im_start|>", "<|im_end|>")])
    tokenizer.save(str(folder / "tokenizer.json"))
    (folder / "config.json").write_text(json.dumps({"eos_token_id": None}))
    vocabulary = load_vocabulary(folder)
    assert json.loads((folder / "tokenizer_config.json").read_text())["eos_token"] != "<|im_end|>"
    assert answer_ends(mixture, folder, vocabulary) == (vocabulary.end,)
    (folder / "config.json").write_text(json.dumps({"eos_token_id": [vocabulary.end, 7]}))
    assert answer_ends(mixture, folder, vocabulary) == tuple(sorted((vocabulary.end, 7)))
    (mixture / FILE).write_text(NAMED["chatml"])
    turn = tokenizer.token_to_id("<|im_end|>")
    assert answer_ends(mixture, folder, vocabulary) == tuple(sorted((vocabulary.end, 7, turn)))
