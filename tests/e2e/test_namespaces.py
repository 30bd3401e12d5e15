"""An install for some namespaces: with rights in them alone it does its whole work there, and none elsewhere."""

import json
from collections.abc import Iterator

import pytest

from tests.support.controlplane import ControlPlane
from tests.support.installation import ACCOUNT, PROFILES
from tests.support.installation import NAMESPACE as SYSTEM
from tests.support.queues import Site, site_on

pytestmark = pytest.mark.e2e
OURS, ALSO_OURS, THEIRS = "team-a", "team-b", "strangers"


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    with ControlPlane.start(tmp_path_factory.mktemp("namespaces")) as plane:
        for space in (OURS, ALSO_OURS, THEIRS):
            plane.create_namespace(space)
        with site_on(plane, PROFILES, [OURS, ALSO_OURS]) as made:
            yield made


def test_pipelines_of_its_namespaces_are_worked_on_and_others_are_not(site: Site) -> None:
    for space in (THEIRS, OURS, ALSO_OURS):
        site.apply("calm", space, "gpu-2")
    for space in (OURS, ALSO_OURS):
        site.await_done("calm", space)
    [stranger] = site.every("adaptationpipelines", THEIRS)
    assert "status" not in stranger
    assert site.every("trainingstages", THEIRS) == []


def test_it_was_refused_nothing_that_it_asked_for(site: Site) -> None:
    """A right that only the cluster-wide install has would show here."""
    log = site.bessemer.operator_log.lower()
    assert "forbidden" not in log
    assert "traceback" not in log


def test_its_account_may_nothing_elsewhere(site: Site) -> None:
    def may(verb: str, what: str, space: str) -> str:
        review = {
            "apiVersion": "authorization.k8s.io/v1",
            "kind": "SubjectAccessReview",
            "spec": {
                "user": f"system:serviceaccount:{SYSTEM}:{ACCOUNT}",
                "resourceAttributes": {"verb": verb, "group": "bessemer.dev", "resource": what, "namespace": space},
            },
        }
        answer = site.plane.kubectl(["create", "-f", "-", "-o", "json"], stdin=json.dumps(review))
        return str(json.loads(answer)["status"]["allowed"])

    asked = [(verb, "adaptationpipelines") for verb in ("list", "watch", "patch")] + [("create", "trainingstages")]
    assert {may(verb, what, OURS) for verb, what in asked} == {"True"}
    assert {may(verb, what, THEIRS) for verb, what in asked} == {"False"}
