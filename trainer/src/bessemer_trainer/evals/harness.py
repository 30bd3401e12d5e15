"""Tasks of lm-evaluation-harness: read from a folder of YAML when the bank is made, scored by the harness's own code.

What is taken from the harness: how a document becomes a prompt (few-shot examples included), which requests it makes,
its filters and its metrics. What is ours: the model, the tokens, the log-probabilities (they agree with the harness's
HFLM within 1e-4, a test holds that), generation, and the result of every item.

A folder is data, never code: `!function` is refused, templates run in jinja's sandbox, data comes from JSON Lines files
of the folder, and nothing is looked up on a hub. The package is imported only here.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import yaml
from jinja2.sandbox import SandboxedEnvironment

Config = Mapping[str, Any]
FEWSHOT_SEED = 1234
"""Which examples a prompt shows; the harness' own default."""

_ONLY_FOR_PROMPTS = frozenset(
    ["dataset_kwargs", "num_fewshot", "training_split", "validation_split", "fewshot_split", "fewshot_config"]
)
"""Of a configuration, what scoring does not need: prompts are made when the bank is."""

OUTPUTS = ("multiple_choice", "loglikelihood", "generate_until")


class _Loader(yaml.SafeLoader):  # type: ignore[misc]  # PyYAML is untyped
    """Safe YAML; any tag of the harness is refused by name."""


def _refuse_tag(loader: yaml.SafeLoader, suffix: str, node: yaml.Node) -> None:
    raise ValueError(f"!{suffix} is code; a task may hold templates only")


_Loader.add_multi_constructor("!", _refuse_tag)


def read_task(folder: Path, name: str) -> dict[str, Any]:
    """The configuration of a task, with what it includes. ValueError says what is wrong, and where."""
    for path in sorted((*folder.rglob("*.yaml"), *folder.rglob("*.yml"))):
        document = _read_yaml(path)
        if document.get("task") == name:
            return _checked(_with_includes(document, path, folder), path)
    raise ValueError(f"no YAML file of the folder has `task: {name}`")


def _read_yaml(path: Path) -> dict[str, Any]:
    try:
        document = yaml.load(path.read_text(encoding="utf-8"), Loader=_Loader)  # noqa: S506 - a SafeLoader
    except (yaml.YAMLError, ValueError) as error:
        raise ValueError(f"{path.name}: {error}") from None
    return document if isinstance(document, dict) else {}


def _with_includes(document: dict[str, Any], path: Path, folder: Path) -> dict[str, Any]:
    included = document.pop("include", None)
    if included is None:
        return document
    other = (path.parent / str(included)).resolve()
    if not other.is_relative_to(folder.resolve()) or not other.is_file():
        raise ValueError(f"{path.name}: include {included!r} is no file of the folder")
    return {**_with_includes(_read_yaml(other), other, folder), **document}


def _checked(config: dict[str, Any], path: Path) -> dict[str, Any]:
    if config.get("output_type", "generate_until") not in OUTPUTS:
        raise ValueError(f"{path.name}: output_type {config['output_type']!r}: expected one of {', '.join(OUTPUTS)}")
    if config.get("dataset_path") != "json":
        raise ValueError(f"{path.name}: dataset_path {config.get('dataset_path')!r}: expected json with data_files")
    if not isinstance((config.get("dataset_kwargs") or {}).get("data_files"), dict):
        raise ValueError(f"{path.name}: dataset_kwargs.data_files: expected a JSON Lines file by split")
    if not config.get("test_split") and not config.get("validation_split"):
        raise ValueError(f"{path.name}: neither test_split nor validation_split")
    return config


def bank_items(folder: Path, name: str) -> Iterator[dict[str, Any]]:
    """One item for each document of the task's test split: its prompt as it will be shown, and the document."""
    config = read_task(folder, name)
    splits = {split: _documents(folder, file) for split, file in config["dataset_kwargs"]["data_files"].items()}
    task = build_task(config, splits)
    task.set_fewshot_seed(FEWSHOT_SEED)
    split = config.get("test_split") or config["validation_split"]
    kept = {key: value for key, value in config.items() if key not in _ONLY_FOR_PROMPTS} | {"test_split": split}
    if split not in splits:
        raise ValueError(f"task {name}: data_files has no split {split!r}")
    for number, document in enumerate(splits[split]):
        shots = int(config.get("num_fewshot") or 0)
        prompt = task.fewshot_context(document, num_fewshot=shots, gen_prefix=task.doc_to_prefix(document))
        if not isinstance(prompt, str):
            raise ValueError(f"task {name}: it makes several prompts of one document, which is not supported")
        identity = document.get("id", f"{name}-{number}")
        yield {"id": str(identity), "prompt": prompt, "answer": _right(task, document), "doc": document, "task": kept}


def _documents(folder: Path, file: object) -> list[dict[str, Any]]:
    path = (folder / str(file)).resolve()
    if not path.is_relative_to(folder.resolve()) or not path.is_file():
        raise ValueError(f"data_files: {file!r} is no file of the folder")
    found = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    if not all(isinstance(document, dict) for document in found):
        raise ValueError(f"{path.name}: expected a JSON object a line")
    return found


def _right(task: Any, document: Mapping[str, Any]) -> str:  # noqa: ANN401 - the package is untyped
    """The right answer in words: what must not stand in training data beside the prompt."""
    target = task.doc_to_target(document)
    if task.OUTPUT_TYPE == "multiple_choice" and isinstance(target, int):
        return str(task.doc_to_choice(document)[target])
    return str(target[0] if isinstance(target, list) and target else target)


def build_task(config: Config, splits: Mapping[str, Sequence[Mapping[str, Any]]]) -> Any:  # noqa: ANN401 - untyped
    """The harness's own task over these documents. ValueError when it refuses the configuration."""
    harness, dataset = _packages()
    own = {key: value for key, value in config.items() if key not in {"dataset_kwargs", "dataset_path"}}
    data = {split: dataset.from_list([dict(document) for document in found]) for split, found in splits.items()}
    try:
        return harness.ConfigurableTask(config={**own, "dataset_path": "json", "custom_dataset": lambda **_: data})
    except (TypeError, ValueError, KeyError, AssertionError) as error:
        raise ValueError(f"lm-evaluation-harness refuses task {config.get('task')}: {error}") from None


@lru_cache(maxsize=1)
def _packages() -> tuple[Any, Any]:
    """The harness with its templates sandboxed, and the class of its data sets."""
    import logging  # noqa: PLC0415
    import warnings  # noqa: PLC0415

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from datasets import Dataset  # noqa: PLC0415 - seconds of import, for its users alone
        from lm_eval import utils  # noqa: PLC0415 - as above
        from lm_eval.api import task  # noqa: PLC0415 - as above
    logging.getLogger("lm_eval").setLevel(logging.ERROR)
    sandbox = SandboxedEnvironment(undefined=utils.env.undefined, keep_trailing_newline=True)
    sandbox.filters["regex_replace"] = utils.regex_replace
    utils.env = sandbox
    return task, Dataset
