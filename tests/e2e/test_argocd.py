"""The release owner's day again, applied by a real Argo CD from git, with people who act through its API.

Then what self-heal and prune do to a pipeline that people rolled back or suspended: nothing.
"""

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import pytest
from ruamel.yaml import YAML

from tests.e2e.test_release_day import STORY, Day, the_day
from tests.support.argocd import NAMESPACE as ARGOCD
from tests.support.argocd import REASON, ArgoCD, RefusedError, find_argocd
from tests.support.controlplane import ControlPlane
from tests.support.gitops import EXAMPLE, NAME, NAMESPACE, OWNER, Team, filled
from tests.support.localrun import conditions_of
from tests.support.prometheus import PROMETHEUS
from tests.support.prometheus import REASON as NO_PROMETHEUS

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.platform,
    pytest.mark.slow,
    pytest.mark.timeout(7200),
    pytest.mark.skipif(find_argocd() is None, reason=REASON),
    pytest.mark.skipif(PROMETHEUS is None, reason=NO_PROMETHEUS),
]

MEMBER = "ed"
"""Who may sync the application, and no more."""
NOTE_FILE = "team/note.yaml"
NOTE = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "note"}, "data": {"a": "git"}}
ROLLED_BACK = 5
"""Steps of the day until something was rolled back."""
KIND = {"group": "bessemer.dev", "version": "v1alpha1", "kind": "AdaptationPipeline"}


@dataclass(frozen=True)
class ThroughArgoCD:
    """Argo CD looks at git by itself; people use its API with their own tokens."""

    argocd: ArgoCD

    @cached_property
    def tokens(self) -> dict[str, str]:
        return {person: self.argocd.token_of(person) for person in (OWNER, MEMBER)}

    def sync(self) -> None:
        """Nothing to do: it polls."""

    def act(self, action: str, person: str = OWNER) -> None:
        """The button on its page."""
        wanted = {"name": NAME, "namespace": NAMESPACE, "resourceName": NAME, "action": action, **KIND}
        self.argocd.call("POST", f"applications/{NAME}/resource/actions/v2", wanted, self.tokens[person])

    def health(self) -> str:
        """Health of the whole Application."""
        return str(self.status.get("health", {}).get("status", "Missing"))

    @property
    def status(self) -> dict[str, Any]:
        return dict(self.argocd.application(NAME).get("status", {}))


@pytest.fixture(scope="module")
def day(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Day]:
    team = Team.make(tmp_path_factory.mktemp("team"))
    application = YAML(typ="safe").load(filled(team.folder, (EXAMPLE / "platform/application.yaml").read_text()))
    access = [EXAMPLE / "platform/access.yaml"]
    with (
        ControlPlane.start(tmp_path_factory.mktemp("day")) as plane,
        the_day(plane, team) as make,
        ArgoCD.start(plane, [OWNER, MEMBER], access) as argocd,
    ):
        plane.apply(application)
        yield make(ThroughArgoCD(argocd))
        plane.kubectl(["delete", "application", NAME, "-n", ARGOCD])


@pytest.mark.parametrize("step", STORY[:ROLLED_BACK], ids=lambda step: step.__name__.removeprefix("test_"))
def test_the_day_until_the_rollback(day: Day, step: Callable[[Day], None]) -> None:
    """And what git declares is what is there, although the API server fills in defaults: nothing is out of sync."""
    step(day)
    day.until("the application to be in sync", lambda: through(day).status["sync"]["status"] == "Synced")


def test_who_may_sync_may_not_approve(day: Day) -> None:
    """Argo CD acts by its own account, which holds the verb `promote`: its RBAC is the lock."""
    through(day).argocd.call("POST", f"applications/{NAME}/sync", {}, through(day).tokens[MEMBER])
    for action in ("approve", "rollback"):
        with pytest.raises(RefusedError, match="permission denied"):
            through(day).act(action, MEMBER)


def test_an_action_that_makes_no_sense_now_is_refused_by_its_script(day: Day) -> None:
    with pytest.raises(RefusedError, match="nothing waits for approval"):
        day.platform.act("approve")


def test_self_heal_and_prune_leave_a_rolled_back_pipeline_as_it_is(day: Day) -> None:
    before = footprint(day)
    assert before["notes"].keys() >= {"bessemer.dev/rollback", "bessemer.dev/approve"}
    heal_and_prune(day)
    assert footprint(day) == before


def test_self_heal_and_prune_leave_a_suspended_pipeline_as_it_is(day: Day) -> None:
    day.platform.act("suspend")
    day.until("work to stop", lambda: conditions_of(day.pipeline).get("Suspended", ("", ""))[0] == "True")
    before = footprint(day)
    heal_and_prune(day)
    assert (footprint(day), day.platform.health()) == (before, "Suspended")
    assert conditions_of(day.pipeline)["Suspended"][0] == "True"
    day.platform.act("resume")
    day.until("work to go on", lambda: conditions_of(day.pipeline).get("Suspended", ("False", ""))[0] == "False")


@pytest.mark.parametrize("step", STORY[ROLLED_BACK:], ids=lambda step: step.__name__.removeprefix("test_"))
def test_the_rest_of_the_day(day: Day, step: Callable[[Day], None]) -> None:
    step(day)


def test_what_was_refused_may_be_tried_again_and_is_refused_again(day: Day) -> None:
    """The third script that needs a clock; nobody's verdict changes by asking again."""
    day.platform.act("retry")
    assert "bessemer.dev/retry" in day.pipeline["metadata"]["annotations"]
    footprint(day)
    assert day.platform.health() == "Degraded"


def through(day: Day) -> ThroughArgoCD:
    assert isinstance(day.platform, ThroughArgoCD)
    return day.platform


def footprint(day: Day) -> dict[str, Any]:
    """What people asked of the pipeline, and what is there of it once the operator is done."""

    def is_done() -> bool:
        return conditions_of(day.pipeline)["Reconciling"][0] == "False" and bool(day.pipeline["status"]["report"])

    day.until("the operator to be done", is_done)
    metadata = day.pipeline["metadata"]
    notes = {key: value for key, value in metadata["annotations"].items() if key.startswith("bessemer.dev/")}
    # Looking at the world again, and telling of it, are no work: a change that was reverted leaves a Job of each.
    made = day.objects("tstage,eval,jobs,pytorchjobs")
    children = {name for name in made if "-resolve-" not in name and "-report-" not in name}
    commits = len(day.team.deploy.log())
    return {
        "uid": metadata["uid"],
        "notes": notes,
        "children": children,
        "served": day.team.served(),
        "commits": commits,
    }


def heal_and_prune(day: Day) -> None:
    """Argo CD reverts what was changed in the cluster, and deletes what git no longer has; both are seen to happen."""
    change = ["-n", NAMESPACE, "--type=merge", "-p"]

    def note() -> str:
        return day.plane.kubectl(
            ["get", "cm", "note", "-n", NAMESPACE, "--ignore-not-found", "-o", "jsonpath={.data.a}"]
        )

    day.team.pipelines.write(json.dumps(NOTE), "a note", NOTE_FILE)
    day.until("the note", lambda: note() == "git")
    day.plane.kubectl(["patch", "cm", "note", *change, json.dumps({"data": {"a": "cluster"}})])
    day.until("the note to be healed", lambda: note() == "git")
    shorter = {"spec": {"promotion": {"approval": {"required": True, "timeout": "1h"}}}}
    day.plane.kubectl(["patch", "apipe", NAME, *change, json.dumps(shorter)])
    day.until("the pipeline to be healed", lambda: day.pipeline["spec"]["promotion"]["approval"]["timeout"] == "72h")
    day.team.pipelines.remove(NOTE_FILE, "no note")
    day.until("the note to be pruned", lambda: note() == "")
