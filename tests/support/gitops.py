"""A team that works by git: examples/gitops with its addresses filled in, its data, and two bare repositories.

Who applies the team's folder, and through whom people act, is a Platform; the one here is kubectl and the program
`bessemer`. It must not know what a test is after.
"""

import json
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any, Protocol

from tests.support.controlplane import ControlPlane
from tests.support.health import PIPELINE, health_of
from tests.support.helm.program import render
from tests.support.installation import NAMESPACE as SYSTEM
from tests.support.localrun import COMMAND
from tests.support.mini import WORDS, texts, write_rows
from tests.trainer.git.bare import Bare

EXAMPLE = Path(__file__).parents[2] / "examples/gitops"
NAMESPACE, NAME, OWNER = "team", "specialist", "ana"
DECLARED, SERVED = "team/pipeline.yaml", "specialist/service.yaml"
FIRST, SECOND = "2026-01", "2026-02"
"""Revisions of the domain's data; half of the first teaches nothing, so that the second makes a better model."""
ADDRESSES: Mapping[str, str] = {
    "https://git.example.com/org/pipelines.git": "pipelines/deploy.git",
    "https://git.example.com/org/deploy.git": "deploy/deploy.git",
    "s3://models": "models",
    "s3://datasets": "datasets",
}
"""What the example's README tells to fill in, and where it is in the team's folder."""

Obj = dict[str, Any]


class Platform(Protocol):
    """Who applies what is in git, and lets a release owner act."""

    def sync(self) -> None:
        """What is in git now will be applied."""

    def act(self, action: str) -> None:
        """The release owner asks for an action: approve, rollback."""

    def health(self) -> str:
        """Health of the pipeline, in Argo CD's words."""


@dataclass(frozen=True)
class Team:
    """Its folder, the repository of pipelines, and the one that is deployed."""

    folder: Path
    pipelines: Bare
    deploy: Bare

    @classmethod
    def make(cls, folder: Path) -> "Team":
        write_data(folder / "datasets")
        deploy = Bare.make(folder / "deploy", (EXAMPLE / "deploy/service.yaml").read_text(), SERVED)
        declared = filled(folder, (EXAMPLE / DECLARED).read_text())
        return cls(folder, Bare.make(folder / "pipelines", declared, DECLARED), deploy)

    def edit(self, old: str, new: str, message: str) -> None:
        """A commit that changes one place of the pipeline."""
        text = self.pipelines.show(DECLARED)
        assert text.count(old) == 1, old
        self.pipelines.write(text.replace(old, new), message, DECLARED)

    def served(self) -> str:
        """Digest of the release that the deploy repository serves; "none" before the first promotion."""
        (line,) = (line for line in self.deploy.show(SERVED).splitlines() if "storageUri:" in line)
        return line.partition("storageUri:")[2].split()[0].rpartition("/")[2].replace("sha256-", "sha256:")


def filled(folder: Path, text: str) -> str:
    """A text of the example with the addresses of a team's folder."""
    for address, place in ADDRESSES.items():
        text = text.replace(address, f"file://{folder}/{place}")
    return text


def write_data(folder: Path) -> None:
    """Texts and items as the pipeline names them, and a case that a user reported."""
    random = Random(7)
    good, other = texts(200), texts(200, seed=5)
    mixed = [text if n % 2 else " ".join([random.choice(WORDS)] * 40) + "." for n, text in enumerate(other)]
    case = {"id": "bug-1", "prompt": "steel", "verifier": {"kind": "exactMatch", "answers": ["slag"]}}
    files = {
        "general": [{"text": text} for text in good],
        f"{FIRST}/texts": [{"text": text} for text in mixed],
        f"{SECOND}/texts": [{"text": text} for text in other],
        "held": [{"text": text} for text in texts(120, seed=1)],
    }
    for name, rows in files.items():
        path = folder / f"{name}.jsonl"
        path.parent.mkdir(parents=True, exist_ok=True)
        write_rows(path, [{"id": f"{path.stem}-{n}", **row} for n, row in enumerate(rows)])
    write_rows(folder / "regressions.jsonl", [case])


@contextmanager
def admission(plane: ControlPlane) -> Iterator[None]:
    """The chart's admission policies, for as long as this lasts."""
    policies = [item for item in render(namespace=SYSTEM) if item["kind"].startswith("ValidatingAdmissionPolicy")]
    plane.apply(*policies)
    try:
        yield
    finally:
        for item in policies:
            plane.kubectl(["delete", item["kind"], item["metadata"]["name"], "--wait=false"])


@dataclass(frozen=True)
class ByHand:
    """No Argo CD: a person with kubectl, and an owner with `bessemer`; health by the script that Argo CD runs."""

    plane: ControlPlane
    team: Team

    def __post_init__(self) -> None:
        role = {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "bessemer-promoter"}
        subjects = [{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": OWNER}]
        binding = {"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "RoleBinding"}
        metadata = {"name": "owner", "namespace": NAMESPACE}
        self.plane.apply({**binding, "metadata": metadata, "roleRef": role, "subjects": subjects})

    def sync(self) -> None:
        """As `kubectl apply` does."""
        self.team.pipelines.pull()
        self.plane.kubectl(["apply", "-n", NAMESPACE, "-f", str(self.team.pipelines.person / "team")])

    def act(self, action: str) -> None:
        """By the program, in the name of the release owner."""
        config = self.plane.kubeconfig_for_user(OWNER)
        subprocess.run(
            [*COMMAND, action, NAME, "-n", NAMESPACE, "--kubeconfig", str(config)], check=True, capture_output=True
        )

    def health(self) -> str:
        """By the script that Argo CD would run."""
        return str(health_of(PIPELINE, pipeline(self.plane))["status"])


def pipeline(plane: ControlPlane) -> Obj:
    """The team's pipeline as the cluster has it."""
    return dict(json.loads(plane.kubectl(["get", "apipe", NAME, "-n", NAMESPACE, "-o", "json"])))
