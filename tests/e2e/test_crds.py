"""The CRDs on a real API server, which judges their structure and the cost of their rules, and decides the cases."""

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from bessemer_api.v1alpha1 import KINDS
from tests.api.case import Case
from tests.api.cases import BOUNDS, CASES
from tests.api.documents import DOCUMENTS, edited
from tests.support.controlplane import ControlPlane, KubectlError

pytestmark = pytest.mark.e2e

CRDS = Path(__file__).parents[2] / "crds"
EXAMPLES = [
    file
    for file in sorted((CRDS.parent / "examples").rglob("*.yaml"))
    if "kind: AdaptationPipeline\n" in file.read_text()
]
NAMESPACE = "crds-test"
NAMES = {"AdaptationPipeline": "apipe", "TrainingStage": "tstage", "MergeJob": "mergejob", "Evaluation": "eval"}


@pytest.fixture(scope="module")
def cluster(control_plane: ControlPlane) -> Iterator[ControlPlane]:
    """The committed CRDs, established, and a namespace."""
    control_plane.kubectl(["apply", "--server-side", "-f", str(CRDS)])
    control_plane.kubectl(["wait", "--for=condition=Established", "--timeout=60s", "-f", str(CRDS)])
    control_plane.create_namespace(NAMESPACE)
    yield control_plane
    control_plane.kubectl(["delete", "namespace", NAMESPACE, "--wait=false"])


def judged(plane: ControlPlane, document: dict[str, Any], *options: str) -> str:
    """What the API server says against a document; empty if it takes it."""
    named = edited(document, {"metadata.namespace": NAMESPACE})
    try:
        plane.kubectl(["create", "--dry-run=server", "-f", "-", *options], stdin=json.dumps(named))
    except KubectlError as refusal:
        return str(refusal)
    return ""


@pytest.mark.parametrize("case", [*CASES, *BOUNDS], ids=lambda case: case.id)
def test_the_api_server_decides_as_pydantic_does(cluster: ControlPlane, case: Case) -> None:
    said = judged(cluster, case.document)
    if case in BOUNDS:
        assert "is invalid" in said
    elif case.refused:
        assert case.refused in said
    else:
        assert said == ""


@pytest.mark.parametrize("file", EXAMPLES, ids=lambda file: f"{file.parent.name}-{file.stem}")
def test_every_example_is_accepted_as_it_stands(cluster: ControlPlane, file: Path) -> None:
    arguments = ["create", "--dry-run=server", "--validate=strict", "-n", NAMESPACE, "-o", "name", "-f", str(file)]
    assert cluster.kubectl(arguments).startswith("adaptationpipeline.bessemer.dev/")


def test_no_crd_is_warned_about(cluster: ControlPlane) -> None:
    command = [str(cluster._kubectl), f"--kubeconfig={cluster.kubeconfig}"]
    arguments = ["apply", "--server-side", "--dry-run=server", "--warnings-as-errors", "-f", str(CRDS)]
    done = subprocess.run([*command, *arguments], check=False, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_every_crd_is_structural_and_served(cluster: ControlPlane, kind: type) -> None:
    name = next(path.stem.removeprefix("bessemer.dev_") for path in CRDS.glob(f"*_{kind.__name__.lower()}s.yaml"))
    crd = json.loads(cluster.kubectl(["get", "crd", f"{name}.bessemer.dev", "-o", "json"]))
    conditions = {condition["type"]: condition["status"] for condition in crd["status"]["conditions"]}
    assert conditions == {"NamesAccepted": "True", "Established": "True"}


def test_unknown_fields_are_refused_by_strict_validation(cluster: ControlPlane) -> None:
    document = edited(DOCUMENTS["AdaptationPipeline"], {"spec.stages.2.train.learningrate": 1e-5})
    assert 'unknown field "spec.stages[2].train.learningrate"' in judged(cluster, document, "--validate=strict")
    document = edited(DOCUMENTS["AdaptationPipeline"], {"spec.data.poems.sources.0.fields": {"answer": "a"}})
    assert 'sources[0].fields.answer"' in judged(cluster, document, "--validate=strict")


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        ({"spec.stages.2.name": "words"}, "spec.stages[2]: Duplicate value"),
        ({"spec.gates.1.name": "forgetting"}, "spec.gates[1]: Duplicate value"),
        ({"spec.gates.1.vetoes": ["contamination", "contamination"]}, "vetoes[1]: Duplicate value"),
    ],
    ids=["two_stages_of_one_name", "two_gates_of_one_name", "a_veto_twice"],
)
def test_duplicates_in_keyed_lists_are_refused(cluster: ControlPlane, edit: dict[str, Any], message: str) -> None:
    assert message in judged(cluster, edited(DOCUMENTS["AdaptationPipeline"], edit))


@pytest.mark.parametrize("kind", ["TrainingStage", "MergeJob", "Evaluation"])
def test_inputs_can_not_change_and_the_rest_can(cluster: ControlPlane, kind: str) -> None:
    name = DOCUMENTS[kind]["metadata"]["name"]
    cluster.apply(edited(DOCUMENTS[kind], {"metadata.namespace": NAMESPACE}))
    target = [NAMES[kind], name, f"--namespace={NAMESPACE}", "--type=merge", "-p"]
    cluster.kubectl(["patch", *target, '{"spec": {"profile": "big", "suspend": true, "limits": {"maxAttempts": 5}}}'])
    with pytest.raises(KubectlError, match=r"spec\.inputs is immutable"):
        cluster.kubectl(["patch", *target, '{"spec": {"inputs": {"seed": 7}}}'])
    with pytest.raises(KubectlError, match=r"spec\.inputDigest is immutable"):
        cluster.kubectl(["patch", *target, f'{{"spec": {{"inputDigest": "sha256:{"1" * 64}"}}}}'])
    cluster.kubectl(["delete", NAMES[kind], name, f"--namespace={NAMESPACE}"])


def test_only_scalar_defaults_are_persisted(cluster: ControlPlane) -> None:
    cluster.apply(edited(DOCUMENTS["TrainingStage"], {"metadata.namespace": NAMESPACE}))
    arguments = ["get", "tstage", "poems-cpt", f"--namespace={NAMESPACE}", "-o", "json"]
    spec = json.loads(cluster.kubectl(arguments))["spec"]
    assert spec.keys() == {"store", "inputs", "inputDigest", "profile", "nodes", "suspend", "retry"}
    assert spec["inputs"]["train"]["learningRate"] == 2e-5
    cluster.kubectl(["delete", "tstage", "poems-cpt", f"--namespace={NAMESPACE}"])


def test_kubectl_get_prints_the_columns(cluster: ControlPlane) -> None:
    cluster.apply(edited(DOCUMENTS["AdaptationPipeline"], {"metadata.namespace": NAMESPACE}))
    ready = {"type": "Ready", "status": "False", "reason": "Running", "lastTransitionTime": "2026-01-31T12:00:00Z"}
    status = {
        "currentStage": "cpt",
        "progress": "4/9",
        "gate": "Pending",
        "promoted": "012345abcdef",
        "conditions": [ready],
    }
    target = ["apipe", "poems", f"--namespace={NAMESPACE}"]
    cluster.kubectl(["patch", *target, "--subresource=status", "--type=merge", "-p", json.dumps({"status": status})])
    header, row = cluster.kubectl(["get", *target]).splitlines()
    assert header.split() == ["NAME", "STAGE", "PROGRESS", "GATE", "PROMOTED", "READY", "AGE"]
    assert row.split()[:-1] == ["poems", "cpt", "4/9", "Pending", "012345abcdef", "False"]
    cluster.kubectl(["delete", *target])


@pytest.mark.parametrize("kind", sorted(NAMES))
def test_columns_of_a_fresh_object_are_printed(cluster: ControlPlane, kind: str) -> None:
    cluster.apply(edited(DOCUMENTS[kind], {"metadata.namespace": NAMESPACE}))
    assert len(cluster.kubectl(["get", NAMES[kind], "-o", "wide", f"--namespace={NAMESPACE}"]).splitlines()) == 2
    assert DOCUMENTS[kind]["metadata"]["name"] in cluster.kubectl(["get", "bessemer", f"--namespace={NAMESPACE}"])
    cluster.kubectl(["delete", NAMES[kind], "--all", f"--namespace={NAMESPACE}"])


@pytest.mark.parametrize(
    ("path", "sentence"),
    [
        ("apipe", "How a model is made, judged and promoted"),
        ("apipe.spec.stages", "Stages: a DAG by `from`."),
        ("apipe.spec.stages.train.learningRate", "Peak learning rate."),
        ("apipe.spec.data.sources.uri", "File or folder"),
        ("tstage.spec.inputs", "Everything that determines the result. Immutable."),
        ("mergejob.spec.inputs.t", "Interpolation factors (slerp"),
        ("eval.status.conditions.reason", "One PascalCase word that says why."),
    ],
)
def test_kubectl_explain_reads_well(cluster: ControlPlane, path: str, sentence: str) -> None:
    assert sentence in " ".join(cluster.kubectl(["explain", path]).split())
