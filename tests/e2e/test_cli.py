"""The verbs of the command line on a pipeline in a real cluster. No operator runs; what they write is looked at."""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from bessemer_operator.cli.problems import EXIT_NOT_FOUND, EXIT_UNREACHABLE
from tests.api.documents import PIPELINE, edited
from tests.support.controlplane import ControlPlane

pytestmark = pytest.mark.e2e

CRDS = Path(__file__).parents[2] / "crds"
NAMESPACE = "cli-test"


class Cluster:
    """A namespace with the pipeline of the tests, and the program pointed at it."""

    def __init__(self, plane: ControlPlane) -> None:
        self.plane = plane

    def bessemer(self, *arguments: str, kubeconfig: Path | None = None) -> subprocess.CompletedProcess[str]:
        place = ["-n", NAMESPACE, "--kubeconfig", str(kubeconfig or self.plane.kubeconfig)]
        command = [sys.executable, "-m", "bessemer_operator.cli.main", *arguments, *place]
        done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=120)
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
