"""The verbs of the command line on a pipeline in a real cluster. No operator runs; what they write is looked at."""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from bessemer_operator.cli.problems import EXIT_GATE, EXIT_NOT_FOUND, EXIT_UNFIT, EXIT_UNREACHABLE
from bessemer_operator.reconcile.lease import LEASE_LABELS
from tests.api.documents import PIPELINE, edited
from tests.support.controlplane import ControlPlane

pytestmark = pytest.mark.e2e

CRDS = Path(__file__).parents[2] / "crds"
NAMESPACE = "cli-test"
HOME = "doctor-test"
"""Where an operator would live: other tests of this control plane install real ones elsewhere."""
NOW = "2026-01-31T12:00:00Z"
COMMAND = [sys.executable, "-m", "bessemer_operator.cli.main"]
SCHEMA = "/spec/versions/0/schema/openAPIV3Schema"


class Cluster:
    """A namespace with the pipeline of the tests, and the program pointed at it."""

    def __init__(self, plane: ControlPlane) -> None:
        self.plane = plane

    def bessemer(self, *arguments: str, kubeconfig: Path | None = None) -> subprocess.CompletedProcess[str]:
        place = ["-n", NAMESPACE, "--kubeconfig", str(kubeconfig or self.plane.kubeconfig)]
        done = subprocess.run([*COMMAND, *arguments, *place], check=False, capture_output=True, text=True, timeout=300)
        assert "Traceback" not in done.stderr, done.stderr
        return done

    def pipeline(self) -> dict[str, Any]:
        arguments = ["get", "apipe", "poems", f"--namespace={NAMESPACE}", "-o", "json"]
        document: dict[str, Any] = json.loads(self.plane.kubectl(arguments))
        return document

    def annotations(self) -> dict[str, str]:
        found: dict[str, str] = self.pipeline()["metadata"].get("annotations", {})
        return found


@pytest.fixture(scope="module")
def cluster(control_plane: ControlPlane) -> Iterator[Cluster]:
    control_plane.kubectl(["apply", "--server-side", "-f", str(CRDS)])
    control_plane.kubectl(["wait", "--for=condition=Established", "--timeout=60s", "-f", str(CRDS)])
    control_plane.create_namespace(NAMESPACE)
    control_plane.apply(edited(PIPELINE, {"metadata.namespace": NAMESPACE}))
    yield Cluster(control_plane)
    control_plane.kubectl(["delete", "namespace", NAMESPACE, "--wait=false"])


def test_verbs_are_annotations(cluster: Cluster) -> None:
    assert cluster.bessemer("suspend", "poems").stdout == "poems is suspended\n"
    assert cluster.annotations()["bessemer.dev/suspend"] == "true"
    assert cluster.bessemer("resume", "poems").returncode == 0
    assert "bessemer.dev/suspend" not in cluster.annotations()
    assert cluster.bessemer("retry", "poems").returncode == 0
    first = cluster.annotations()["bessemer.dev/retry"]
    assert cluster.bessemer("retry", "poems").returncode == 0
    assert cluster.annotations()["bessemer.dev/retry"] != first
    assert cluster.bessemer("rerun-from", "poems", "cpt").returncode == 0
    assert cluster.annotations()["bessemer.dev/rerun-from"].startswith("cpt/")
    assert cluster.pipeline()["metadata"]["generation"] == 1


def test_status_tells_one_and_all(cluster: Cluster) -> None:
    assert cluster.bessemer("status", "poems").stdout.splitlines()[0] == f"{NAMESPACE}/poems"
    assert json.loads(cluster.bessemer("status", "poems", "-o", "json").stdout)["metadata"]["name"] == "poems"
    header, row = cluster.bessemer("status").stdout.splitlines()
    assert (header.split()[0], row.split()[0]) == ("NAME", "poems")


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (("status", "nothing"), EXIT_NOT_FOUND, "There is no pipeline nothing in namespace cli-test."),
        (("suspend", "nothing"), EXIT_NOT_FOUND, "There is no pipeline nothing"),
        (("report", "poems"), EXIT_NOT_FOUND, "poems has no report yet."),
        (("rerun-from", "poems", "cpd"), 2, "poems has no stage cpd; its stages: words, pretrain, cpt"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_what_is_not_there_is_told(cluster: Cluster, arguments: tuple[str, ...], code: int, message: str) -> None:
    done = cluster.bessemer(*arguments)
    assert (done.returncode, message in done.stderr) == (code, True), done.stderr


def test_a_user_without_rights_is_told(cluster: Cluster) -> None:
    done = cluster.bessemer("suspend", "poems", kubeconfig=cluster.plane.kubeconfig_for_user("mallory"))
    assert (done.returncode, "forbidden" in done.stderr.lower()) == (EXIT_UNREACHABLE, True), done.stderr


def test_status_of_all_namespaces_and_a_watch_that_ends_when_the_pipeline_settles(cluster: Cluster) -> None:
    header, row = (line.split() for line in cluster.bessemer("status", "-A").stdout.splitlines()[:2])
    assert (header[:2], len(row) >= 2) == (["NAMESPACE", "NAME"], True)
    process = subprocess.Popen(
        [*COMMAND, "watch", "poems", "-n", NAMESPACE, "--kubeconfig", str(cluster.plane.kubeconfig)],
        stdout=subprocess.PIPE,
        text=True,
    )
    stalled = [
        {"type": kind, "status": status, "reason": "GateFailed", "message": "worse", "lastTransitionTime": NOW}
        for kind, status in (("Ready", "False"), ("Reconciling", "False"), ("Stalled", "True"))
    ]
    status = {"observedGeneration": cluster.pipeline()["metadata"]["generation"], "conditions": stalled}
    patch = ["patch", "apipe", "poems", f"--namespace={NAMESPACE}", "--subresource=status", "--type=merge", "-p"]
    cluster.plane.kubectl([*patch, json.dumps({"status": status})])
    output, _ = process.communicate(timeout=300)
    assert (process.returncode, output.splitlines()[-1]) == (EXIT_GATE, "GateFailed: worse")


def findings(cluster: Cluster, kubeconfig: Path | None = None) -> tuple[int, dict[str, tuple[str, str]]]:
    """Exit code of `doctor`, and level and message by subject."""
    done = cluster.bessemer("doctor", "--operator-namespace", HOME, "-o", "json", kubeconfig=kubeconfig)
    found = json.loads(done.stdout)
    assert all(bool(item["fix"]) == (item["level"] != "ok") for item in found if item["level"] != "unknown")
    return done.returncode, {item["subject"]: (item["level"], item["message"]) for item in found}


def test_the_doctor_says_what_is_missing(cluster: Cluster) -> None:
    plane, crd = cluster.plane, "mergejobs.bessemer.dev"
    plane.create_namespace(HOME)
    code, found = findings(cluster)
    assert code == EXIT_UNFIT
    assert found[f"crd {crd}"] == ("ok", "is that of this version")
    assert found["training-operator"][0] == "ok"
    assert found["profiles"][0] == "fault"

    loose = {"default": {"image": "trainer:latest", "queue": "training"}}
    metadata = {"name": "profiles", "namespace": HOME}
    profiles = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata}
    plane.apply({**profiles, "data": {"profiles.yaml": json.dumps(loose)}})
    held = {"holderIdentity": "operator-0", "renewTime": "2026-01-31T12:00:00.000000Z"}
    lease = {"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "spec": held}
    plane.apply({**lease, "metadata": {"name": "any-operator", "namespace": HOME, "labels": dict(LEASE_LABELS)}})
    change = [{"op": "replace", "path": f"{SCHEMA}/description", "value": "another"}]
    plane.kubectl(["patch", "crd", crd, "--type=json", "-p", json.dumps(change)])
    try:
        _, found = findings(cluster)
        assert found[f"crd {crd}"][0] == "warning"
        assert found["operator"][0] == "fault" and "operator-0 renewed the Lease" in found["operator"][1]
        assert found["profiles (profiles)"] == ("warning", "name an image by tag, not by digest: default")
        assert found["queues"][0] == "fault" and "Kueue is not installed" in found["queues"][1]
    finally:
        plane.kubectl(["apply", "--server-side", "--force-conflicts", "-f", str(CRDS)])


def test_the_doctor_calls_unknown_what_the_user_may_not_look_at(cluster: Cluster) -> None:
    _, found = findings(cluster, cluster.plane.kubeconfig_for_user("mallory"))
    assert (found["crds"][0], found["operator"][0]) == ("unknown", "unknown")
    assert found["mallory: look (status, watch, report)"][0] == "warning"


def test_the_shell_completes_names_from_the_cluster(cluster: Cluster) -> None:
    words = ["suspend", "-n", NAMESPACE, "--kubeconfig", str(cluster.plane.kubeconfig), "po"]
    script = "from bessemer_operator.cli.completion import main; main()"
    done = subprocess.run([sys.executable, "-c", script, *words], check=True, capture_output=True, text=True)
    assert done.stdout.splitlines() == ["poems", ":4"]
