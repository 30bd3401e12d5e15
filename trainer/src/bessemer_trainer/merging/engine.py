"""mergekit, in a process of its own: `python -m bessemer_trainer.merging.engine JOB`, a JSON file.

The only file that imports mergekit. It runs where the parents' folders lie beside the job's file, on one thread, so
that equal inputs give equal bytes; then it tries the merge out (probe.py, barrier.py), since torch is loaded already.
"""

import json
import os
import resource
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

OUT, RESULT = "merged", "result.json"
ONE_FILE = 10**15
"""Parameters in one file of weights: artifacts hold one."""


@dataclass(frozen=True, slots=True)
class Job:
    """What the process is told. Paths are relative to the job's file; `texts` names a file of held-out documents."""

    document: dict[str, Any]
    parents: list[str]
    method: str
    seed: int = 0
    base: str | None = None
    texts: str | None = None


def run_mergekit(document: dict[str, Any], out: Path, seed: int) -> None:
    """Merge as mergekit's command line does. Folders that the document names are relative to the working folder."""
    from mergekit.config import MergeConfiguration  # noqa: PLC0415 - seconds of import
    from mergekit.merge import run_merge  # noqa: PLC0415
    from mergekit.options import MergeOptions  # noqa: PLC0415

    options = MergeOptions(
        copy_tokenizer=False,
        write_model_card=False,
        trust_remote_code=False,
        random_seed=seed,
        num_threads=1,
        out_shard_size=ONE_FILE,
        quiet=True,
    )
    run_merge(MergeConfiguration.model_validate(document), str(out), options)


def name_architecture(path: Path) -> None:
    """Complete a configuration that does not name its architecture: mergekit asks for it, transformers does not."""
    from transformers.models.auto.modeling_auto import (  # noqa: PLC0415 - seconds of import
        MODEL_FOR_CAUSAL_LM_MAPPING_NAMES,
    )

    config = json.loads(path.read_bytes())
    if not config.get("architectures"):
        config["architectures"] = [MODEL_FOR_CAUSAL_LM_MAPPING_NAMES[config["model_type"]]]
        path.write_text(json.dumps(config))


def main(path: Path) -> int:
    """Do the job and leave its figures beside it."""
    import torch  # noqa: PLC0415 - seconds of import

    job = Job(**json.loads(path.read_bytes()))
    os.chdir(path.parent)
    torch.set_num_threads(1)
    for name in (*job.parents, *([job.base] if job.base else [])):
        name_architecture(Path(name) / "config.json")
    run_mergekit(job.document, Path(OUT), job.seed)
    from bessemer_trainer.merging import barrier, probe  # noqa: PLC0415 - they need a merge

    found: dict[str, Any] = {"probe": probe.probe(Path(OUT), [Path(name) for name in job.parents])}
    if job.texts is not None:
        base = Path(job.base) if job.base else None
        found["barrier"] = barrier.measure([Path(name) for name in job.parents], base, job.method, Path(job.texts))
    found["peakBytes"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    Path(RESULT).write_text(json.dumps(found))
    return 0


def write_job(folder: Path, job: Job) -> Path:
    """The file that `main` reads."""
    path = folder / "job.json"
    path.write_text(json.dumps(asdict(job)))
    return path


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
