"""What a promotion writes into a deploy repository is an InferenceService by KServe's own definition of one.

The definition is KServe's, the API server is real; that KServe then serves the folder is not tested here.
"""

from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from bessemer_trainer.scalar import replace_scalar
from tests.support.controlplane import ControlPlane, KubectlError
from tests.support.controlplane.process import wait_for
from tests.support.kserve import inference_service_crd

pytestmark = pytest.mark.e2e

SERVICE = Path(__file__).parents[2] / "examples/gitops/deploy/service.yaml"
KEY = "spec.predictor.model.storageUri"
RELEASE = "s3://models/artifacts/sha256-" + "5" * 64
STRICT = ["create", "--dry-run=server", "--validate=strict", "-o", "yaml", "-f", "-"]


@pytest.fixture(scope="module")
def cluster(control_plane: ControlPlane) -> Iterator[ControlPlane]:
    crd = str(inference_service_crd())
    control_plane.kubectl(["apply", "--server-side", "-f", crd])
    known = ["api-resources", "--api-group=serving.kserve.io", "-o", "name"]
    wait_for("KServe's kind to be served", lambda: "inferenceservices" in control_plane.kubectl(known), 120)
    yield control_plane
    control_plane.kubectl(["delete", "-f", crd, "--wait=false"])


def test_kserve_takes_the_example_with_a_release_in_it(cluster: ControlPlane) -> None:
    promoted = replace_scalar(SERVICE.read_text(), KEY, RELEASE)
    taken = yaml.safe_load(cluster.kubectl(STRICT, stdin=promoted))
    assert taken["kind"] == "InferenceService"
    assert taken["spec"]["predictor"]["model"]["storageUri"] == RELEASE


def test_a_field_that_kserve_does_not_know_is_refused(cluster: ControlPlane) -> None:
    with pytest.raises(KubectlError, match="storageURI"):
        cluster.kubectl(STRICT, stdin=SERVICE.read_text().replace("storageUri", "storageURI"))
