"""What a real run handed over: a folder that transformers loads, with a card, that a deploy repository can name.

The model was trained and promoted by `bessemer run`. Then it goes on to another channel, with a signature, through git.
"""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from huggingface_hub import ModelCard

from bessemer_api.job import SIGNING_ENV, PromoteTask
from bessemer_trainer.stages import promote
from bessemer_trainer.store import artifact_key, open_store
from tests.conftest import LocalStory
from tests.support.keys import write_keys
from tests.support.localrun import last_record
from tests.trainer.git.bare import Bare

pytestmark = [pytest.mark.slow, pytest.mark.timeout(7200)]
SERVICE = Path(__file__).parents[2] / "examples/gitops/deploy/service.yaml"
FILE, KEY = "specialist/service.yaml", "spec.predictor.model.storageUri"


@pytest.fixture(scope="module")
def store(local_story: LocalStory, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the store: other tests look at the same runs."""
    return Path(shutil.copytree(local_story.mini.store, tmp_path_factory.mktemp("copy") / "store"))


def released(store: Path, release: str) -> Path:
    return store / artifact_key(release)


def answer(folder: Path) -> str:
    """What a server of the Hugging Face kind does with the folder, and nothing of ours."""
    code = (
        "import sys; from transformers import AutoModelForCausalLM as M, AutoTokenizer as T; f = sys.argv[1]\n"
        "t = T.from_pretrained(f); ids = t('cat dog', return_tensors='pt').input_ids\n"
        "print(t.decode(M.from_pretrained(f).generate(ids, max_new_tokens=8, do_sample=False)[0]))"
    )
    done = subprocess.run([sys.executable, "-c", code, str(folder)], check=True, capture_output=True, text=True)
    return done.stdout.strip()


def test_the_folder_is_loaded_as_it_is_and_its_card_tells_of_this_run(local_story: LocalStory, store: Path) -> None:
    (channel,) = local_story.first.pipeline["status"]["channels"]
    folder = released(store, channel["release"])
    assert answer(folder).startswith("cat dog") and len(answer(folder)) > len("cat dog")
    card = ModelCard.load(folder / "README.md")
    (gate,) = local_story.first.pipeline["status"]["gates"]
    (result,) = card.data.eval_results or []
    assert card.data.datasets == ["texts"] and card.data.base_model is None, "trained from scratch"
    assert (result.dataset_name, result.metric_value > 0) == ("generalLoss", True)
    for told in (channel["digest"], gate["baseline"], gate["evidenceDigest"], "learningRate 0.01", "texts.jsonl"):
        assert told in card.text, told


def test_a_signed_release_reaches_the_manifest_of_kserve_by_digest(
    store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    keys = write_keys(tmp_path / "keys")
    monkeypatch.setenv(SIGNING_ENV, str(keys))
    bare = Bare.make(tmp_path / "git")
    bare.write(SERVICE.read_text(), "what is served", FILE)
    known = last_record(store, "prod")
    fields = {name: known[name] for name in ("gate", "evidence", "wins", "pipeline", "by")}
    target = {"repository": bare.url, "path": FILE, "key": KEY}
    task = PromoteTask.model_validate(
        {**fields, "channel": "served", "candidate": known["digest"], "record": 0, "git": target}
    )
    place = open_store(f"file://{store}", tmp_path / "scratch")
    done = promote.promote(place, task, known["at"], tmp_path / "scratch")
    assert done.outcome == "Promoted" and done.release not in {None, known["release"]}, (
        "its card says that it is signed"
    )

    before, after = SERVICE.read_text().splitlines(), bare.show(FILE).splitlines()
    assert [line for line in after if line not in before] == [
        f"      storageUri: file://{released(store, done.release or '')}      # a folder by digest, from the first "
        "promotion on"
    ]
    uri = yaml.safe_load(bare.show(FILE))["spec"]["predictor"]["model"]["storageUri"]
    folder = Path(uri.removeprefix("file://"))
    assert answer(folder) == answer(released(store, known["release"])), "the same weights"
    verify = [sys.executable, "-m", "model_signing", "verify", "key", str(folder)]
    files = ["--signature", str(folder / "model.sig"), "--public_key", str(keys / "public.pem")]
    subprocess.run([*verify, *files], check=True, capture_output=True)
