"""Documents for tests of the kinds: one that is accepted of each kind, and edits by dotted path."""

import copy
from collections.abc import Mapping
from typing import Any

Document = dict[str, Any]

ABSENT = object()
"""As a value of an edit: the field is removed."""

DIGEST = "sha256:" + "0" * 64

PIPELINE: Document = {
    "apiVersion": "bessemer.dev/v1alpha1",
    "kind": "AdaptationPipeline",
    "metadata": {"name": "poems", "namespace": "default"},
    "spec": {
        "store": "s3://models/poems",
        "data": {
            "poems": {
                "sources": [{"uri": "s3://raw/poems.jsonl"}],
                "prepare": {"decontaminate": {"against": ["bank"]}},
            }
        },
        "stages": [
            {"name": "words", "method": "tokenizer", "data": {"mixture": [{"ref": "poems"}]}, "tokenizer": {}},
            {
                "name": "pretrain",
                "method": "pretrain",
                "data": {"mixture": [{"ref": "poems"}], "sequenceLength": 64},
                "model": {"hiddenSize": 64, "intermediateSize": 128, "layers": 2, "heads": 4},
                "train": {"epochs": 1, "globalBatchTokens": 512},
            },
            {
                "name": "cpt",
                "method": "cpt",
                "data": {"mixture": [{"ref": "poems"}], "sequenceLength": 64},
                "train": {"maxSteps": 10, "globalBatchTokens": 512, "learningRate": 2e-5},
                "gate": "forgetting",
            },
        ],
        "evaluation": {
            "banks": [{"name": "bank", "dev": 10, "gate": 400, "tasks": {"loss": {"uri": "s3://raw/items.jsonl"}}}],
            "axes": [{"name": "loss", "task": "bitsPerByte"}],
        },
        "gates": [
            {
                "name": "forgetting",
                "baseline": {"stageInput": True},
                "looks": [200],
                "compose": {"atLeast": 0},
                "axes": [{"name": "loss", "notWorseThan": 0.05}],
            },
            {
                "name": "release",
                "baseline": {"channel": "prod", "orElse": {"stage": "pretrain"}},
                "looks": [200, 400],
                "axes": [{"name": "loss", "winBy": 0.0, "notWorseThan": 0.05}],
            },
        ],
        "promotion": {"candidates": ["cpt"], "gate": "release", "channels": [{"name": "prod"}]},
    },
}

STAGE: Document = {
    "apiVersion": "bessemer.dev/v1alpha1",
    "kind": "TrainingStage",
    "metadata": {"name": "poems-cpt", "namespace": "default"},
    "spec": {
        "store": "s3://models/poems",
        "inputDigest": DIGEST,
        "inputs": {"method": "cpt", "train": {"maxSteps": 10}, "startFrom": DIGEST, "data": DIGEST},
    },
}

MERGE: Document = {
    "apiVersion": "bessemer.dev/v1alpha1",
    "kind": "MergeJob",
    "metadata": {"name": "poems-slerp", "namespace": "default"},
    "spec": {
        "store": "s3://models/poems",
        "inputDigest": DIGEST,
        "inputs": {"method": "slerp", "parents": [DIGEST, DIGEST], "t": [{"value": [0.5]}]},
    },
}

EVALUATION: Document = {
    "apiVersion": "bessemer.dev/v1alpha1",
    "kind": "Evaluation",
    "metadata": {"name": "poems-eval", "namespace": "default"},
    "spec": {
        "store": "s3://models/poems",
        "inputDigest": DIGEST,
        "inputs": {
            "checkpoint": DIGEST,
            "bank": DIGEST,
            "axes": [{"name": "loss", "task": "bitsPerByte"}],
            "part": "gate",
            "start": 0,
            "end": 200,
        },
    },
}

DOCUMENTS = {document["kind"]: document for document in (PIPELINE, STAGE, MERGE, EVALUATION)}


def edited(document: Document, edits: Mapping[str, Any]) -> Document:
    """A copy of `document` with the value at each dotted path (`spec.stages.0.name`) set, or removed by ABSENT."""
    result = copy.deepcopy(document)
    for path, value in edits.items():
        *parents, last = path.split(".")
        node: Any = result
        for part in parents:
            node = node[int(part)] if isinstance(node, list) else node[part]
        key: Any = int(last) if isinstance(node, list) else last
        if value is ABSENT:
            del node[key]
        else:
            node[key] = copy.deepcopy(value)
    return result
