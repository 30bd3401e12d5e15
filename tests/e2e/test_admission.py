"""The chart's admission policies on a real API server, as the users they are about: each forgery by its id."""
# ruff: noqa: E501 - the tables have one try a line

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import pytest

from tests.api.documents import DIGEST, DOCUMENTS, EVALUATION, PIPELINE, edited
from tests.support.controlplane import ControlPlane, KubectlError, wait_for
from tests.support.helm.program import render

pytestmark = pytest.mark.e2e

NAMESPACE = "admission-test"
SYSTEM = "admission-system"
OPERATOR = f"system:serviceaccount:{SYSTEM}:bessemer-operator"
JOB_CONTROLLER = "system:serviceaccount:kube-system:job-controller"
TRAINING_OPERATOR = "system:serviceaccount:kubeflow:training-operator"
KUEUE = "system:serviceaccount:kueue-system:kueue-controller-manager"
ANA, ED, VERA, ADMIN = "ana", "ed", "vera", "root"
"""Ana promotes, Ed edits, Vera only looks; the administrator may all that RBAC can give."""
APPROVAL, OTHER = f"{DIGEST}/{DIGEST}", f"{DIGEST}/sha256:{'1' * 64}"
KEY = "bessemer.dev"

Obj = dict[str, Any]


@dataclass(frozen=True)
class Try:
    """A write, who tries it, and a part of the refusal; empty where it is allowed."""

    id: str
    who: str
    write: "Write"
    refused: str = ""


@dataclass(frozen=True)
class Write:
    """Arguments of kubectl, with the document that goes to its stdin."""

    arguments: tuple[str, ...]
    document: Obj | None = field(default=None)


def annotate(name: str = "waits", kind: str = "apipe", **notes: str | None) -> Write:
    """What `kubectl annotate` does: a merge patch."""
    found = {f"{KEY}/{key.replace('_', '-')}": value for key, value in notes.items()}
    return patch(kind, name, {"metadata": {"annotations": found}})


def patch(kind: str, name: str, change: Obj, *options: str) -> Write:
    return Write(("patch", kind, name, "--type=merge", "-p", json.dumps(change), *options))


def create(document: Obj, **notes: str) -> Write:
    return Write(("create", "-f", "-"), annotated(document, notes))


def apply(document: Obj, **notes: str) -> Write:
    return Write(("apply", "--server-side", "--force-conflicts", "-f", "-"), annotated(document, notes))


def replace(document: Obj, **notes: str) -> Write:
    return Write(("replace", "-f", "-"), annotated(document, notes))


def status(document: Obj, found: Obj) -> Write:
    """As the operator writes it: by server-side apply."""
    arguments = ("apply", "--server-side", "--force-conflicts", "--subresource=status", "-f", "-")
    return Write(arguments, edited(named(document, "alone"), {"metadata.namespace": NAMESPACE, **found}))


def raw(loss: str) -> Write:
    """A metric in letters that a JSON library would not write."""
    change = f'{{"status": {{"metrics": {{"loss": {loss}}}}}}}'
    return Write(("patch", "eval", "alone", "--subresource=status", "--type=merge", "-p", change))


def annotated(document: Obj, notes: Mapping[str, str]) -> Obj:
    found = {f"{KEY}/{key.replace('_', '-')}": value for key, value in notes.items()}
    return edited(document, {"metadata.namespace": NAMESPACE, "metadata.annotations": found})


def named(document: Obj, name: str) -> Obj:
    return edited(document, {"metadata.name": name})


def owned(document: Obj, name: str, api_version: str = f"{KEY}/v1alpha1", kind: str = "AdaptationPipeline") -> Obj:
    """As the operator writes a child: controlled by a pipeline."""
    owner = {
        "apiVersion": api_version,
        "kind": kind,
        "name": "waits",
        "uid": "6a0a4f4e-0000-4000-8000-000000000000",
        "controller": True,
    }
    return edited(document, {"metadata.name": name, "metadata.ownerReferences": [owner]})


MARKED = {"app.kubernetes.io/managed-by": "bessemer", f"{KEY}/attempt": "waits-a1"}
CONTAINER = {"name": "pytorch", "image": "trainer"}
TEMPLATE = {"metadata": {"labels": MARKED}, "spec": {"restartPolicy": "Never", "containers": [CONTAINER]}}
META = {"namespace": NAMESPACE, "labels": MARKED}
POD: Obj = {"apiVersion": "v1", "kind": "Pod", "metadata": {**META, "name": "waits-a1-0"}, "spec": TEMPLATE["spec"]}
JOB: Obj = {
    "apiVersion": "batch/v1",
    "kind": "Job",
    "metadata": {**META, "name": "waits-a1"},
    "spec": {"suspend": True, "template": TEMPLATE},
}
TORCH: Obj = {
    "apiVersion": "kubeflow.org/v1",
    "kind": "PyTorchJob",
    "metadata": {**META, "name": "waits-t1"},
    "spec": {
        "runPolicy": {"suspend": True},
        "pytorchReplicaSpecs": {"Master": {"replicas": 1, "restartPolicy": "Never", "template": TEMPLATE}},
    },
}
CONFIG: Obj = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {**META, "name": "waits-a1"}, "data": {"run": "1"}}
WAITS, APPROVED = named(PIPELINE, "waits"), named(PIPELINE, "approved")
PASSED = {"status": {"phase": "Succeeded", "outputDigest": DIGEST, "metrics": {"loss": 0.1}}}
PROMOTED = {"status": {"promoted": "012345abcdef"}}
NO_VERB = "the verb promote on this adaptationpipeline is missing"
ONLY_OPERATOR = "a status is written by the operator only"
CHILD = "a child of a pipeline is made and changed by the operator only"
MADE = "an attempt is made by the operator only"

PROMOTION = [
    Try("an_approval_in_ones_own_name", ANA, annotate(approve=APPROVAL, approved_by=ANA)),
    Try("a_rejection_in_ones_own_name", ANA, annotate(reject=APPROVAL, rejected_by=ANA)),
    Try("a_rollback_in_ones_own_name", ANA, annotate(rollback=DIGEST, rollback_by=ANA)),
    Try("taking_back_an_approval", ANA, annotate("approved", approve=None, approved_by=None)),
    Try("an_edit_of_the_spec_by_an_editor", ED, patch("apipe", "waits", {"spec": {"revisionHistoryLimit": 3}})),
    Try("an_edit_beside_an_approval_that_stays", ED, patch("apipe", "approved", {"spec": {"revisionHistoryLimit": 3}})),
    Try("a_retry_by_an_editor", ED, annotate(retry="again")),
    Try("an_apply_without_verbs_by_an_editor", ED, apply(named(PIPELINE, "new"))),
    Try("an_approval_in_anothers_name", ANA, annotate(approve=APPROVAL, approved_by="bo"), "approved-by must be ana"),
    Try("an_approval_in_nobodys_name", ANA, annotate(approve=APPROVAL), "approved-by must be ana"),
    Try("a_rejection_in_anothers_name", ANA, annotate(reject=APPROVAL, rejected_by="bo"), "rejected-by must be ana"),
    Try("a_rollback_in_anothers_name", ANA, annotate(rollback=DIGEST, rollback_by="bo"), "rollback-by must be ana"),
    Try("an_approval_by_an_editor", ED, annotate(approve=APPROVAL, approved_by=ED), NO_VERB),
    Try("an_approval_by_an_editor_in_a_promoters_name", ED, annotate(approve=APPROVAL, approved_by=ANA), NO_VERB),
    Try("a_rollback_by_an_editor", ED, annotate(rollback=DIGEST, rollback_by=ED), NO_VERB),
    Try("an_approval_by_a_viewer", VERA, annotate(approve=APPROVAL, approved_by=VERA), "cannot patch resource"),
    Try("an_approval_by_an_administrator_in_anothers_name", ADMIN, annotate(approve=APPROVAL, approved_by=ANA), "must be root"),
    Try("anothers_approval_turned_to_other_digests", ADMIN, annotate("approved", approve=OTHER), "approved-by must be root"),
    Try("an_approval_taken_over", ADMIN, annotate("approved", approved_by="bo"), "approved-by must be root"),
    Try("an_approval_removed_by_an_editor", ED, annotate("approved", approve=None, approved_by=None), NO_VERB),
    Try("an_approval_replayed_by_creation", ED, create(named(PIPELINE, "copy"), approve=APPROVAL, approved_by=ANA), NO_VERB),
    Try("an_approval_replayed_by_apply", ED, apply(named(PIPELINE, "copy"), approve=APPROVAL, approved_by=ANA), NO_VERB),
    Try("an_approval_by_server_side_apply", ED, apply(WAITS, approve=APPROVAL, approved_by=ED), NO_VERB),
    Try("an_approval_by_replacement", ED, replace(WAITS, approve=APPROVAL, approved_by=ED), NO_VERB),
    Try("a_rollback_by_creation", ED, create(named(PIPELINE, "copy"), rollback=DIGEST, rollback_by=ED), NO_VERB),
    Try("an_approval_through_the_status", ED, patch("apipe", "waits", {"metadata": {"annotations": {f"{KEY}/approve": APPROVAL}}}, "--subresource=status"), 'resource "adaptationpipelines/status"'),
    Try("an_approval_by_the_operator_itself", OPERATOR, annotate(approve=APPROVAL, approved_by=OPERATOR), NO_VERB),
]  # fmt: skip

RESULTS = [
    Try("the_operator_writes_a_status", OPERATOR, status(EVALUATION, PASSED)),
    Try("a_status_patched_by_an_administrator", ADMIN, patch("eval", "child", PASSED, "--subresource=status"), ONLY_OPERATOR),
    Try("a_status_of_ones_own_evaluation", ADMIN, patch("eval", "alone", PASSED, "--subresource=status"), ONLY_OPERATOR),
    Try("a_stage_declared_done", ADMIN, patch("tstage", "alone", PASSED, "--subresource=status"), ONLY_OPERATOR),
    Try("a_merge_declared_done", ADMIN, patch("mergejob", "alone", PASSED, "--subresource=status"), ONLY_OPERATOR),
    Try("a_gate_declared_passed", ADMIN, patch("apipe", "waits", PROMOTED, "--subresource=status"), ONLY_OPERATOR),
    Try("a_status_by_server_side_apply", ADMIN, status(EVALUATION, PASSED), ONLY_OPERATOR),
    Try("a_status_by_an_editor", ED, patch("eval", "alone", PASSED, "--subresource=status"), 'resource "evaluations/status"'),
    Try("evidence_that_is_nan", ADMIN, raw("NaN"), "invalid character 'N'"),
    Try("evidence_that_is_the_word_nan", OPERATOR, status(EVALUATION, {"status": {"metrics": {"loss": "NaN"}}}), "expected numeric"),
    Try("evidence_beyond_all_numbers", ADMIN, raw("1e309"), "cannot unmarshal number 1e309"),
]  # fmt: skip

CHILDREN = [
    Try("an_evaluation_that_stands_alone", ED, create(named(EVALUATION, "mine"))),
    Try("a_suspended_evaluation_of_ones_own", ED, patch("eval", "alone", {"spec": {"suspend": True}})),
    Try("a_child_of_the_operator", OPERATOR, create(owned(EVALUATION, "new"))),
    Try("a_deleted_child", ED, Write(("delete", "eval", "child"))),
    Try("a_note_on_a_child", ED, annotate("child", "eval", seen="yes")),
    Try("a_forged_evaluation", ED, create(owned(EVALUATION, "forged")), CHILD),
    Try("a_forged_evaluation_with_a_status", ADMIN, create(edited(owned(EVALUATION, "forged"), {"status": PASSED["status"]})), CHILD),
    Try("a_forged_stage", ADMIN, create(owned(DOCUMENTS["TrainingStage"], "forged")), CHILD),
    Try("a_forged_merge", ADMIN, create(owned(DOCUMENTS["MergeJob"], "forged")), CHILD),
    Try("an_evaluation_put_into_a_pipeline", ED, patch("eval", "alone", {"metadata": {"ownerReferences": owned(EVALUATION, "alone")["metadata"]["ownerReferences"]}}), CHILD),
    Try("a_child_with_another_profile", ED, patch("eval", "child", {"spec": {"profile": "big"}}), CHILD),
    Try("a_child_without_its_owner", ED, patch("eval", "child", {"metadata": {"ownerReferences": None}}), CHILD),
    Try("a_child_with_another_label", ED, patch("eval", "child", {"metadata": {"labels": {f"{KEY}/pipeline": "other"}}}), CHILD),
    Try("inputs_that_change", OPERATOR, patch("eval", "alone", {"spec": {"inputs": {"end": 7}}}), "spec.inputs is immutable"),
]  # fmt: skip

ATTEMPTS = [
    Try("an_attempt_of_the_operator", OPERATOR, create(named(JOB, "next"))),
    Try("a_report_kept_by_the_operator", OPERATOR, annotate("waits-a1", "job", report="{}")),
    Try("a_pod_of_the_job_controller", JOB_CONTROLLER, create(named(POD, "next"))),
    Try("a_pod_of_the_training_operator", TRAINING_OPERATOR, create(named(POD, "next"))),
    Try("a_pod_of_ones_own", ED, create(edited(POD, {"metadata.labels": {"app": "mine"}, "metadata.name": "more"}))),
    Try("a_job_that_a_queue_resumes", KUEUE, patch("job", "waits-a1", {"spec": {"suspend": False}})),
    Try("a_forged_job", ADMIN, create(named(JOB, "forged")), MADE),
    Try("a_forged_pytorchjob", ADMIN, create(named(TORCH, "forged")), MADE),
    Try("a_forged_run_spec", ADMIN, create(named(CONFIG, "forged")), MADE),
    Try("a_forged_pod", ED, create(named(POD, "forged")), MADE),
    Try("a_job_of_a_controller", JOB_CONTROLLER, create(named(JOB, "forged")), MADE),
    Try("a_pod_turned_into_a_member", ED, patch("pod", "mine", {"metadata": {"labels": MARKED}}), "whose it is"),
    Try("a_pod_with_another_image", ED, patch("pod", "waits-a1-0", {"spec": {"containers": [{**CONTAINER, "image": "evil"}]}}, "--type=strategic"), "what an attempt runs"),
    Try("a_pytorchjob_with_another_image", ADMIN, patch("pytorchjob", "waits-t1", {"spec": {"pytorchReplicaSpecs": {"Master": {"template": {"spec": {"containers": [{**CONTAINER, "image": "evil"}]}}}}}}), "what an attempt runs"),
    Try("a_forged_report", ED, annotate("waits-a1", "job", report="{}"), "the report and the digest"),
    Try("a_report_by_a_controller", JOB_CONTROLLER, annotate("waits-a1", "job", report="{}"), "the report and the digest"),
]  # fmt: skip


@pytest.fixture(scope="module")
def cluster(control_plane: ControlPlane) -> Iterator[ControlPlane]:
    """The chart for one namespace, its users, and objects as the operator and the controllers left them."""
    for name in (SYSTEM, NAMESPACE):
        control_plane.create_namespace(name)
    installed = [item for item in render({"watchNamespaces": [NAMESPACE]}, namespace=SYSTEM) if item["kind"] != "Deployment"]  # fmt: skip
    control_plane.apply(*[item for item in installed if item["kind"] == "CustomResourceDefinition"])
    control_plane.kubectl(["wait", "--for=condition=Established", "--timeout=60s", "crd", "--all"])
    control_plane.apply(*[item for item in installed if item["kind"] != "CustomResourceDefinition"])
    for user, role in ((ANA, f"bessemer-{SYSTEM}-promoter"), (ED, f"bessemer-{SYSTEM}-editor"), (VERA, "view")):
        bind(control_plane, user, role)
    bind(control_plane, ED, "edit")
    for controller in (JOB_CONTROLLER, TRAINING_OPERATOR, KUEUE, ADMIN):
        bind(control_plane, controller, "cluster-admin")
    prepare(control_plane)
    yield control_plane
    control_plane.kubectl(["delete", "namespace", NAMESPACE, SYSTEM, "--wait=false"])
    policies = [item["metadata"]["name"] for item in installed if item["kind"] == "ValidatingAdmissionPolicy"]
    for kind in ("validatingadmissionpolicybinding", "validatingadmissionpolicy"):
        control_plane.kubectl(["delete", kind, *policies])


def bind(plane: ControlPlane, user: str, role: str) -> None:
    name = f"{user}-{role}".replace(":", "-")
    plane.kubectl(
        ["create", "rolebinding", name, f"--clusterrole={role}", f"--user={user}", f"--namespace={NAMESPACE}"]
    )


def prepare(plane: ControlPlane) -> None:
    """What is there before anybody tries anything."""
    run(plane, ADMIN, create(WAITS))
    wait_for("the policies to hold", lambda: "the verb" in said(plane, ED, annotate(approve=APPROVAL, approved_by=ED)))
    run(plane, ED, apply(APPROVED))
    run(plane, ANA, annotate("approved", approve=APPROVAL, approved_by=ANA))
    for kind in ("TrainingStage", "MergeJob", "Evaluation"):
        run(plane, ED, create(named(DOCUMENTS[kind], "alone")))
    child = owned(EVALUATION, "child")
    child["metadata"]["ownerReferences"][0]["uid"] = uid_of(plane, "waits")
    run(plane, OPERATOR, create(child))
    for document in (JOB, TORCH, CONFIG):
        run(plane, OPERATOR, create(document))
    run(plane, JOB_CONTROLLER, create(POD))
    run(plane, ED, create(edited(POD, {"metadata.labels": {"app": "mine"}, "metadata.name": "mine"})))


def uid_of(plane: ControlPlane, pipeline: str) -> str:
    return plane.kubectl(["get", "apipe", pipeline, "-n", NAMESPACE, "-o", "jsonpath={.metadata.uid}"])


def run(plane: ControlPlane, who: str, write: Write, *options: str) -> None:
    arguments = [*write.arguments, f"--as={who}", f"--namespace={NAMESPACE}", *options]
    plane.kubectl(arguments, stdin=json.dumps(write.document) if write.document else None)


def said(plane: ControlPlane, who: str, write: Write) -> str:
    """What the API server says against a write that it does not keep; empty if it takes it."""
    try:
        run(plane, who, write, "--dry-run=server")
    except KubectlError as refusal:
        return str(refusal)
    return ""


@pytest.mark.parametrize("case", [*PROMOTION, *RESULTS, *CHILDREN, *ATTEMPTS], ids=lambda case: case.id)
def test_who_may_write_what(cluster: ControlPlane, case: Try) -> None:
    answer = said(cluster, case.who, case.write)
    if case.refused:
        assert case.refused in answer
    else:
        assert answer == ""


def test_a_status_in_a_creation_is_dropped(cluster: ControlPlane) -> None:
    run(cluster, ED, create(edited(named(EVALUATION, "premade"), {"status": PASSED["status"]})))
    found = json.loads(cluster.kubectl(["get", "eval", "premade", "-n", NAMESPACE, "-o", "json"]))
    assert "status" not in found


def test_annotations_in_a_write_of_the_status_are_dropped(cluster: ControlPlane) -> None:
    """The path of which one could forget the check: the subresource keeps no annotation of anybody."""
    change = {"metadata": {"annotations": {f"{KEY}/rollback": DIGEST}}, "status": {"observedGeneration": 1}}
    answer = said(cluster, OPERATOR, patch("apipe", "waits", change, "--subresource=status"))
    found = json.loads(cluster.kubectl(["get", "apipe", "waits", "-n", NAMESPACE, "-o", "json"]))
    assert "verb promote" in answer or "annotations" not in found["metadata"]


def test_the_garbage_collector_takes_a_child_with_its_pipeline(cluster: ControlPlane) -> None:
    run(cluster, ADMIN, create(named(PIPELINE, "goes")))
    child = owned(EVALUATION, "goes-too")
    child["metadata"]["ownerReferences"][0] |= {"name": "goes", "uid": uid_of(cluster, "goes")}
    run(cluster, OPERATOR, create(child))
    cluster.kubectl(["delete", "apipe", "goes", "-n", NAMESPACE])
    gone = ["get", "eval", "goes-too", "-n", NAMESPACE, "--ignore-not-found", "-o", "name"]
    wait_for("the child to go", lambda: cluster.kubectl(gone) == "", 120)
