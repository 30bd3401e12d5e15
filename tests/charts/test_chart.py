"""The chart without a cluster: linted, unit-tested by Helm's own plugin, its rights, its documents."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from bessemer_operator.core.manifests.pod import build_pod_template
from bessemer_operator.core.naming import LABEL_ATTEMPT, MANAGED_BY
from bessemer_operator.core.profile import Profile
from bessemer_operator.settings import read_profiles
from tests.support.controlplane.layout import INIT_CONTAINER
from tests.support.helm.program import CHART, HelmError, find, helm, program, render

pytestmark = pytest.mark.e2e  # Helm is built once, as the control plane is

ROOT = CHART.parents[1]
VALUES = sorted((CHART / "ci").glob("*.yaml"))
Obj = dict[str, Any]


@pytest.mark.parametrize("values", VALUES, ids=lambda path: path.stem)
def test_helm_lint_finds_nothing(values: Path) -> None:
    assert "0 chart(s) failed" in helm("lint", str(CHART), "--strict", f"--values={values}")


def test_helm_unittest_passes() -> None:
    done = subprocess.run([str(program("helm-unittest")), str(CHART)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "0 failed" in done.stdout or "failed" not in done.stdout


def test_tables_of_the_chart_are_up_to_date() -> None:
    done = subprocess.run([sys.executable, str(ROOT / "tools" / "chart.py"), "--check"], check=False)
    assert done.returncode == 0


REFUSED: list[tuple[str, Obj, str]] = [
    ("a_value_that_is_none", {"replica": 1}, "replica"),
    ("two_operators", {"replicas": 2}, "replicas"),
    ("no_profile", {"profiles": None}, "profiles"),
    ("a_profile_with_a_volume", {"profiles": {"default": {"hostPath": "/"}}}, "hostPath"),
    ("a_secret_of_another", {"profiles": {"default": {"storeSecret": "root-token"}}}, "storeSecret"),
    ("a_negative_gpu", {"profiles": {"default": {"gpus": -1}}}, "gpus"),
    ("a_profile_with_a_bad_name", {"profiles": {"GPU!": {}}}, "GPU!"),
    ("a_digest_that_is_none", {"image": {"digest": "latest"}}, "digest"),
    ("a_controller_that_ends_the_quotation", {"admission": {"controllers": ["a'] || true || ['"]}}, "controllers"),
]


@pytest.mark.parametrize(("values", "named"), [row[1:] for row in REFUSED], ids=[row[0] for row in REFUSED])
def test_the_schema_refuses(values: Obj, named: str) -> None:
    with pytest.raises(HelmError, match=named):
        render(values)


@pytest.mark.parametrize("values", VALUES, ids=lambda path: path.stem)
def test_the_operator_reads_the_profiles_as_they_were_meant(values: Path, tmp_path: Path) -> None:
    given = YAML(typ="safe").load(values)
    config = find(render(given), "ConfigMap", "bessemer-profiles")
    file = tmp_path / "profiles.yaml"
    file.write_text(config["data"]["profiles.yaml"])
    found = {name: profile.wire() for name, profile in read_profiles(file).items()}
    for name, profile in given.get("profiles", {}).items():
        assert found[name] == Profile.model_validate({"image": found[name]["image"], **profile}).wire()
    assert all(profile["image"].startswith("ghcr.io/bessemer-dev/trainer") for profile in found.values())


RIGHTS = """
bessemer.dev adaptationpipelines trainingstages mergejobs evaluations: get list watch create patch delete
bessemer.dev adaptationpipelines/status trainingstages/status mergejobs/status evaluations/status: patch
kubeflow.org pytorchjobs: get list watch create patch delete
batch jobs: get list watch create patch delete
core pods: get list watch
kueue.x-k8s.io workloads: list
core configmaps: get create delete
core events: get create patch
coordination.k8s.io leases: create
coordination.k8s.io leases (bessemer-operator): get update
"""


def rights(manifests: list[Obj]) -> str:
    """The rules of everything that is bound to the operator's account, a line each."""
    bindings = [item for item in manifests if item["kind"] in {"RoleBinding", "ClusterRoleBinding"}]
    lines: dict[str, None] = {}
    for binding in bindings:
        reference = binding["roleRef"]
        same = [item for item in manifests if item["kind"] == reference["kind"] and item["metadata"]["name"] == reference["name"]]  # fmt: skip # noqa: E501
        for rule in same[0]["rules"]:
            [group] = rule["apiGroups"]
            names = f" ({' '.join(rule['resourceNames'])})" if "resourceNames" in rule else ""
            lines[f"{group or 'core'} {' '.join(rule['resources'])}{names}: {' '.join(rule['verbs'])}"] = None
    return "\n".join(lines)


@pytest.mark.parametrize("values", [{}, {"watchNamespaces": ["team-a", "team-b"]}], ids=["cluster", "namespaces"])
def test_the_operator_may_do_this_and_nothing_else(values: Obj) -> None:
    """A snapshot: whoever adds a right adds it here. No wildcard, no secrets, no exec, no roles or bindings."""
    manifests = render(values)
    assert rights(manifests) == RIGHTS.strip()
    kinds = {item["kind"] for item in manifests}
    assert ("ClusterRoleBinding" in kinds) == (not values)


@pytest.mark.parametrize("values", VALUES, ids=lambda path: path.stem)
def test_no_role_of_the_chart_is_wide(values: Path) -> None:
    roles = [item for item in render(YAML(typ="safe").load(values)) if item["kind"] in {"Role", "ClusterRole"}]
    for rule in [rule for role in roles for rule in role["rules"]]:
        every = {*rule["apiGroups"], *rule["resources"], *rule["verbs"]}
        assert not every & {"*", "secrets", "pods/exec", "pods/attach", "escalate", "bind", "impersonate"}
        assert "rbac.authorization.k8s.io" not in rule["apiGroups"]


def matches(selector: Obj, labels: Obj) -> bool:
    """Whether a label selector, with `Exists` as its only operator, takes these labels."""
    needed = [item["key"] for item in selector.get("matchExpressions", [])]
    return all(labels.get(key) == value for key, value in selector.get("matchLabels", {}).items()) and all(
        key in labels for key in needed
    )


def test_network_policies_take_the_pods_that_they_are_about() -> None:
    manifests = render({"networkPolicy": {"namespaces": ["models"]}})
    attempts = find(manifests, "NetworkPolicy", "bessemer-attempts")["spec"]
    operator = find(manifests, "NetworkPolicy", "bessemer-operator")["spec"]
    own = find(manifests, "Deployment", "bessemer-operator")["spec"]["template"]["metadata"]["labels"]
    template = build_pod_template("a1", ["python"], Profile(), {**MANAGED_BY, LABEL_ATTEMPT: "a1"})
    labels = template["metadata"]["labels"]
    assert matches(attempts["podSelector"], labels)
    assert not matches(attempts["podSelector"], own)
    assert not matches(attempts["podSelector"], {"app": "other"})
    assert matches(operator["podSelector"], own)
    [peers] = attempts["ingress"][0]["from"]
    assert matches(peers["podSelector"], labels)
    assert "namespaceSelector" not in peers  # peers are of the same namespace
    assert matches(attempts["ingress"][1]["from"][0]["podSelector"], own)
    assert matches(operator["egress"][2]["to"][0]["podSelector"], labels)
    port = template["spec"]["containers"][0]["ports"][0]["containerPort"]
    assert attempts["ingress"][1]["ports"] == [{"protocol": "TCP", "port": port}]


def test_the_template_for_training_operator_comes_with_the_chart() -> None:
    text = INIT_CONTAINER.read_text()
    assert INIT_CONTAINER.is_relative_to(CHART)
    assert "seccompProfile" in text
