"""More tokens for a trained model: what it knew stays as it was, new rows are means, and new text gets shorter."""

import random
from collections import Counter
from typing import Any

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer

from bessemer_api.v1alpha1.train import TokenizerTraining
from bessemer_trainer.bpe import count_words, extend, extended_file
from bessemer_trainer.errors import PermanentError
from bessemer_trainer.stages.tokenizer import train
from tests.trainer.support import MixtureOptions, Pod, make_mixture, texts, weights_of
from tests.trainer.talk import Talk, make_talk
from tests.trainer.zygote import Zygote

NEW = [f"electrolyte {n} oxidises perovskite; électrode № {n}" for n in range(40)]
ADDED = 30


@pytest.fixture(scope="module", params=[True, False], ids=["tied", "untied"])
def talk(request: pytest.FixtureRequest, zygote: Zygote, tmp_path_factory: pytest.TempPathFactory) -> Talk:
    return make_talk(tmp_path_factory.mktemp("extend"), zygote, tieEmbeddings=request.param)


@pytest.fixture(scope="module")
def extended(talk: Talk) -> Pod:
    data = talk.data("papers", [{"text": text} for text in NEW], "text")
    pod = talk.pod("extended", "tokenizer", data)
    pod.document["stage"] = {
        "method": "tokenizer",
        "tokenizer": {"extend": ADDED},
        "mixture": {"parts": [{"name": "papers", "digest": data}]},
        "startFrom": talk.start,
    }
    code, stderr = pod.run(talk.zygote)
    assert code == 0, stderr
    return pod


def _both(talk: Talk, extended: Pod) -> Any:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    for digest in (talk.start, str(extended.report().output_digest)):
        folder = talk.store.fetch(digest)
        yield AutoTokenizer.from_pretrained(folder), AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)


def test_old_text_has_the_tokens_and_logits_that_it_had(talk: Talk, extended: Pod) -> None:
    (old, model), (new, other) = _both(talk, extended)
    size = len(old)
    assert len(new) == size + ADDED == other.config.vocab_size
    for text in texts(5, seed=3):
        ids = old(text, return_tensors="pt").input_ids
        assert torch.equal(ids, new(text, return_tensors="pt").input_ids)
        with torch.no_grad():
            before, after = model(ids).logits, other(ids).logits
        assert torch.equal(before, after[..., :size])
        if not model.config.tie_word_embeddings:
            assert not after[..., size:].any()


def test_a_new_row_is_the_mean_of_the_old_rows_that_it_stands_for(talk: Talk, extended: Pod) -> None:
    (old, model), (new, other) = _both(talk, extended)
    table, before = other.get_input_embeddings().weight, model.get_input_embeddings().weight
    plain = Tokenizer.from_str(old.backend_tokenizer.to_str())
    for number in range(len(old), len(new)):
        parts = [plain.token_to_id(token.value) for token in plain.model.tokenize(new.convert_ids_to_tokens(number))]
        torch.testing.assert_close(table[number], before[parts].mean(dim=0), atol=1e-6, rtol=1e-5)
        assert len(parts) > 1
    head = other.get_output_embeddings().weight
    assert torch.equal(head, table) if model.config.tie_word_embeddings else not head[len(old) :].any()


def test_new_text_is_shorter_and_reads_as_before(talk: Talk, extended: Pod) -> None:
    (old, _), (new, _) = _both(talk, extended)
    before, after = (sum(len(tokenizer(text).input_ids) for text in NEW) for tokenizer in (old, new))
    assert after < 0.6 * before
    metrics = extended.report().metrics
    assert (metrics["tokensBefore"], metrics["tokensAfter"]) == (before, after)
    assert metrics["added"] == ADDED
    for text in [*NEW, *texts(3)]:
        assert new.decode(new(text).input_ids) == text
    assert (new.eos_token_id, new.pad_token_id) == (old.eos_token_id, old.pad_token_id)


def test_training_goes_on_from_it(talk: Talk, extended: Pod) -> None:
    start = str(extended.report().output_digest)
    mixture = make_mixture(talk.store, talk.folder, start, NEW, MixtureOptions(name="new"))
    pod = talk.run("continued", "cpt", mixture, stage={"startFrom": start}, train={"maxSteps": 2})
    before, after = (weights_of(talk.store, digest) for digest in (start, str(pod.report().output_digest)))
    rows = slice(-ADDED, None)
    assert not np.array_equal(before["model.embed_tokens.weight"][rows], after["model.embed_tokens.weight"][rows])


# --- byte-pair encoding -----------------------------------------------------------------------------------------


def _tokenizer(documents: list[str], size: int) -> Tokenizer:
    return train(iter(documents), TokenizerTraining.model_validate({"vocabularySize": size, "minFrequency": 1}))


def _documents(seed: int) -> list[str]:
    dice = random.Random(seed)
    stems = ["".join(dice.choices("abcdefgh", k=dice.randint(2, 7))) for _ in range(60)]
    return [" ".join(dice.choices(stems, k=40)) for _ in range(30)]


@pytest.mark.parametrize("seed", range(5))
def test_going_on_is_as_good_as_having_trained_for_longer(seed: int) -> None:
    documents = _documents(seed)
    short, long = _tokenizer(documents, 290), _tokenizer(documents, 340)
    found = extend(short, count_words(short, documents), 50, 1)
    file = extended_file(short.to_str(), found, short.get_vocab_size())
    longer = Tokenizer.from_str(file)
    lengths = [sum(len(t.encode(text).ids) for text in documents) for t in (short, long, longer)]
    assert lengths[2] <= 1.01 * lengths[1] < lengths[0]
    assert all(longer.decode(longer.encode(text).ids) == text for text in documents)


def test_the_most_frequent_pair_comes_first_and_rare_ones_never() -> None:
    tokenizer = Tokenizer.from_str(_tokenizer(["a b c d e"], 260).to_str())
    found = extend(tokenizer, Counter({"xyxy": 5, "zw": 3, "qr": 1}), 100, 2)
    assert found.merges == (("x", "y"), ("xy", "xy"), ("z", "w"))
    assert found.parts == {"xy": ("x", "y"), "xyxy": ("x", "y", "x", "y"), "zw": ("z", "w")}


def test_tokens_that_stand_beside_the_vocabulary_keep_their_numbers() -> None:
    tokenizer = _tokenizer(["the river and the river"], 262)
    tokenizer.add_special_tokens(["<|turn|>"])
    turn = tokenizer.token_to_id("<|turn|>")
    found = extend(tokenizer, Counter({"copper": 9}), 3, 1)
    longer = Tokenizer.from_str(extended_file(tokenizer.to_str(), found, turn + 1))
    assert longer.token_to_id("<|turn|>") == turn
    assert [longer.token_to_id(token) for token in found.parts] == [turn + 1, turn + 2, turn + 3]
    assert longer.encode("copper<|turn|>").ids[-1] == turn


def test_a_tokenizer_that_is_no_bpe_is_refused() -> None:
    from tokenizers import models

    with pytest.raises(PermanentError) as caught:
        extend(Tokenizer(models.WordLevel({"a": 0}, "a")), {}, 1, 1)
    assert caught.value.reason == "TokenizerInvalid"
    assert "WordLevel" in caught.value.message
