"""Whether a merge is whole: asked of the files that mergekit wrote, before anybody uses them."""

import shutil
from pathlib import Path

import numpy as np

from bessemer_trainer.errors import PermanentError
from bessemer_trainer.merging.parents import Parent, template_of
from bessemer_trainer.merging.tensors import WEIGHTS, TensorFile, open_tensors
from bessemer_trainer.tokenizer_files import TOKENIZER_FILES, copy_tokenizer

_CONFIGS = ("config.json", "generation_config.json")


def broken(problem: str) -> PermanentError:
    """The error that throws a merge away."""
    return PermanentError("MergeBroken", f"{problem}; nothing was published")


def complete(merged: Path, target: Path, first: Parent) -> Path:
    """The weights that mergekit wrote, with the configuration and the tokenizer of the first parent, to the letter.

    What else mergekit wrote (a configuration of its own, a model card) stays behind.
    """
    if not (merged / WEIGHTS).is_file():
        raise broken(f"mergekit left no {WEIGHTS}")
    shutil.rmtree(target, ignore_errors=True)
    target.mkdir(parents=True)
    (merged / WEIGHTS).rename(target / WEIGHTS)
    for name in _CONFIGS:
        if (first.folder / name).is_file():
            shutil.copyfile(first.folder / name, target / name)
    copy_tokenizer(first.folder, target)
    return target


def require_whole(folder: Path, first: Parent) -> int:
    """The number of parameters. Raises PermanentError(MergeBroken) that names what is wrong."""
    weights = open_tensors(folder)
    _require_same_tensors(weights, first)
    for name in weights.tensors:
        if weights.is_float(name) and not all(bool(np.isfinite(chunk).all()) for chunk in weights.chunks(name)):
            raise broken(f"{name} of the merge holds NaN or infinity")
    parameters, expected = (sum(item.size for item in file.tensors.values()) for file in (weights, first.weights))
    if parameters != expected:
        raise broken(f"the merge has {parameters} parameters, its parents {expected}")
    _require_same_text(folder, first)
    return parameters


def _require_same_tensors(weights: TensorFile, first: Parent) -> None:
    ours, theirs = weights.tensors, first.weights.tensors
    for name in sorted(theirs.keys() | ours.keys()):
        if name not in ours or name not in theirs:
            raise broken(f"the merge {'lacks' if name in theirs else 'has'} the tensor {name}, unlike its parents")
        for what, found, expected in (
            ("shape", list(ours[name].shape), list(theirs[name].shape)),
            ("number format", ours[name].dtype, theirs[name].dtype),
        ):
            if found != expected:
                raise broken(f"{name} of the merge has the {what} {found}, in its parents {expected}")


def _require_same_text(folder: Path, first: Parent) -> None:
    for name in (*TOKENIZER_FILES, *_CONFIGS):
        files = [item / name for item in (folder, first.folder)]
        contents = [file.read_bytes() if file.is_file() else None for file in files]
        if contents[0] != contents[1]:
            raise broken(f"{name} of the merge is not that of its first parent")
    if template_of(folder) != template_of(first.folder):
        raise broken("the chat template of the merge is not that of its first parent")
