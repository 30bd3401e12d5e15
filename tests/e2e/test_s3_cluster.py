"""A store on a real S3 server, with a Secret on a real control plane: pods get it by their profile."""

import json
from collections.abc import Iterator

import pytest

from tests.faults.test_bad_input import ONLY_DATA
from tests.support.controlplane import ControlPlane
from tests.support.installation import PROFILES, installed
from tests.support.localrun import outputs_of
from tests.support.mini import write_mini
from tests.support.s3 import S3Server

pytestmark = [pytest.mark.e2e, pytest.mark.slow, pytest.mark.timeout(1800)]

TEAM = "s3-test"
SECRET = "bessemer-s3"


@pytest.fixture
def namespace(control_plane: ControlPlane, server: S3Server) -> Iterator[str]:
    control_plane.create_namespace(TEAM)
    metadata = {"name": SECRET, "namespace": TEAM}
    secret = {"apiVersion": "v1", "kind": "Secret", "metadata": metadata, "stringData": server.environment}
    control_plane.apply(secret)
    yield TEAM
    control_plane.kubectl(["delete", "namespace", TEAM, "--wait=false"])


def test_on_a_cluster_pods_get_the_credentials_from_the_secret_that_their_profile_names(
    namespace: str, control_plane: ControlPlane, server: S3Server
) -> None:
    """Only the data is prepared: what a store does is the same in both worlds."""
    where = {"spec.store": f"s3://{server.bucket}/models/cluster"}
    with_secret = {**PROFILES["default"], "storeSecret": SECRET}
    mini = write_mini(control_plane.folder / "s3-mini", {**ONLY_DATA, **where})
    with installed(control_plane, {**PROFILES, "default": with_secret}) as installation:
        control_plane.kubectl(["apply", "-n", namespace, "-f", str(mini.file)])
        wait = ["wait", "-n", namespace, "--for=condition=Ready", "--timeout=5m", "apipe/mini"]
        control_plane.kubectl(wait)
        pipeline = json.loads(control_plane.kubectl(["get", "apipe", "mini", "-n", namespace, "-o", "json"]))
        log = installation.operator_log
    assert str(outputs_of(pipeline)["data-texts"]).startswith("sha256:")
    assert server.secret_key not in log + json.dumps(pipeline)
