"""A release: the folder that is handed over. The checkpoint's files, its model card and results, in one artifact.

It depends on the candidate, its evidence and its lineage alone: every channel hands over the same folder, and a
promotion that runs again finds it. The weights are shared with the checkpoint, not stored twice where that can be.
"""

import importlib
import json
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from bessemer_api.job import CompareReport, CompareTask, PromoteTask
from bessemer_trainer.card import Facts, write_card
from bessemer_trainer.errors import PermanentError
from bessemer_trainer.keys import Keys
from bessemer_trainer.store import Store

KIND = "release"


def publish_release(store: Store, task: PromoteTask, scratch: Path) -> str:
    """Digest of the release, signed where the environment names keys.

    Raises PermanentError(EvidenceInvalid) for evidence that no comparison wrote, PermanentError(SigningKey...).
    """
    keys = Keys.find()
    asked, found = _evidence(store, task.evidence)
    scratch.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="release-", dir=scratch) as name:
        facts = Facts(task, asked, found, store.manifest(task.candidate).meta, is_signed=keys is not None)
        write_card(Path(name), facts)
        meta = {"checkpoint": task.candidate, "evidence": task.evidence}
        release = store.extend(task.candidate, Path(name), KIND, meta)
    if keys is not None:
        _signatures().sign(store, release, keys)
    return release


def require_signed(store: Store, digest: str) -> None:
    """The artifact was signed by one of the keys; nothing where there are none."""
    keys = Keys.find()
    if keys is not None:
        _signatures().require_signed(store, digest, keys)


def _signatures() -> Any:  # noqa: ANN401 - a module
    """Imported only where there are keys: its library takes a second."""
    return importlib.import_module("bessemer_trainer.signatures")


def require_trusted(store: Store, record: Mapping[str, Any]) -> None:
    """What a channel's record holds was signed, and its release has the checkpoint's very files; nothing without keys.

    Raises PermanentError(NotSigned | SignatureInvalid | ReleaseMismatch | Artifact...). No weights are read: whoever
    fetches the checkpoint compares its files with its manifest, and that is compared with the signed one here.
    """
    keys = Keys.find()
    if keys is None:
        return
    checkpoint = str(record["digest"])
    release = str(record.get("release") or checkpoint)
    _signatures().require_signed(store, release, keys)
    if not set(store.manifest(checkpoint).files) <= set(store.manifest(release).files):
        raise PermanentError("ReleaseMismatch", f"{release} is signed, but it is no release of {checkpoint}")


def _evidence(store: Store, digest: str) -> tuple[CompareTask, CompareReport]:
    try:
        document = json.loads((store.fetch(digest) / "evidence.json").read_bytes())
        return CompareTask.model_validate(document["task"]), CompareReport.model_validate(document["report"])
    except (OSError, ValueError, KeyError, TypeError, ValidationError) as error:
        first = error.errors(include_url=False)[0]["msg"] if isinstance(error, ValidationError) else str(error)
        raise PermanentError("EvidenceInvalid", f"{digest}: its evidence.json can not be read: {first}") from None
