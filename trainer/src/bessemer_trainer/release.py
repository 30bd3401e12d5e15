"""A release: the folder that is handed over. The checkpoint's files, its model card and results, in one artifact.

It depends on the candidate, its evidence and its lineage alone: every channel hands over the same folder, and a
promotion that runs again finds it. The weights are shared with the checkpoint, not stored twice where that can be.
"""

import json
import tempfile
from pathlib import Path

from pydantic import ValidationError

from bessemer_api.job import CompareReport, CompareTask, PromoteTask
from bessemer_trainer.card import Facts, write_card
from bessemer_trainer.errors import PermanentError
from bessemer_trainer.store import Store

KIND = "release"


def publish_release(store: Store, task: PromoteTask, scratch: Path) -> str:
    """Digest of the release. Raises PermanentError(EvidenceInvalid) for evidence that no comparison wrote."""
    asked, found = _evidence(store, task.evidence)
    scratch.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="release-", dir=scratch) as name:
        write_card(Path(name), Facts(task, asked, found, store.manifest(task.candidate).meta))
        meta = {"checkpoint": task.candidate, "evidence": task.evidence}
        return store.extend(task.candidate, Path(name), KIND, meta)


def _evidence(store: Store, digest: str) -> tuple[CompareTask, CompareReport]:
    try:
        document = json.loads((store.fetch(digest) / "evidence.json").read_bytes())
        return CompareTask.model_validate(document["task"]), CompareReport.model_validate(document["report"])
    except (OSError, ValueError, KeyError, TypeError, ValidationError) as error:
        first = error.errors(include_url=False)[0]["msg"] if isinstance(error, ValidationError) else str(error)
        raise PermanentError("EvidenceInvalid", f"{digest}: its evidence.json can not be read: {first}") from None
