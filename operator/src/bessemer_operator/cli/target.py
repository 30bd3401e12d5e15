"""Which pipeline a command is about: that of a file (its local run), or one by name in a cluster.

Turns what a cluster answers into errors for the user. It must not change anything.
"""

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from bessemer_api.v1alpha1.pipeline import AdaptationPipeline
from bessemer_operator.cli.place import Place
from bessemer_operator.cli.problems import EXIT_INVALID, EXIT_NOT_FOUND, EXIT_UNREACHABLE, UserError, printable
from bessemer_operator.cli.yamlfile import read_pipeline
from bessemer_operator.cluster.protocol import Cluster, ClusterError, Invalid, NotFound, Ref
from bessemer_operator.core.findings import field_path
from bessemer_operator.local import NAMESPACE, LocalRun

if TYPE_CHECKING:
    from bessemer_operator.cluster.kube import KubeCluster

STATE = ".bessemer"
KIND = "AdaptationPipeline"


@dataclass(frozen=True, slots=True)
class Target:
    """One pipeline; `file` is set for a local run."""

    ref: Ref
    place: Place
    file: str = ""

    @property
    def run(self) -> LocalRun | None:
        """The local run; None for a pipeline in a cluster."""
        return LocalRun(state_folder(self.file, self.place)) if self.file else None


def state_folder(file: str, place: Place) -> Path:
    """The folder of a local run: --state, or .bessemer beside the file."""
    return Path(place.state or Path(os.path.abspath(file)).parent / STATE)  # noqa: PTH100 - follows no links


def find_target(name: str, place: Place) -> Target:
    """The target that the user named: a YAML file stands for its local run. Raises InvalidFileError."""
    is_file = Path(name).suffix in {".yaml", ".yml", ".json"} or Path(name).is_file()
    if not is_file:
        return Target(Ref(KIND, name, namespace_of(place)), place)
    pipeline, _ = read_pipeline(name)
    return Target(Ref(KIND, pipeline.metadata.name, pipeline.metadata.namespace), place, name)


async def connect(place: Place) -> "KubeCluster":
    """The cluster of a place. Raises Unavailable."""
    from bessemer_operator.cluster.kube import KubeCluster  # noqa: PLC0415 - a second to import, for clusters only

    return await KubeCluster.connect(_kubeconfig(place), place.context or None)


def namespace_of(place: Place) -> str:
    """The namespace that was asked for, else that of the context."""
    from bessemer_operator.cluster.kube import default_namespace  # noqa: PLC0415 - as above

    return place.namespace or default_namespace(_kubeconfig(place), place.context or None) or NAMESPACE


def _kubeconfig(place: Place) -> Path | None:
    return Path(place.kubeconfig) if place.kubeconfig else None


def as_pipeline(obj: dict[str, Any]) -> AdaptationPipeline:
    """The model of an object of a cluster. Raises UserError for one that another version wrote."""
    try:
        return AdaptationPipeline.model_validate(obj)
    except ValidationError as error:
        name, first = obj.get("metadata", {}).get("name", ""), error.errors(include_url=False)[0]
        where = field_path(tuple(first["loc"]))
        message = f"{name}: this version of bessemer does not understand {where}: {first['msg']}"
        raise UserError(printable(message), EXIT_INVALID) from None


@asynccontextmanager
async def opened(target: Target) -> AsyncIterator[Cluster]:
    """The cluster of a target. Raises UserError for whatever the cluster says, inside the block too."""
    with_errors = f"{target.ref.name}: " if target.ref.name else ""
    try:
        async with _connected(target) as cluster:
            yield cluster
    except NotFound:
        where = f"namespace {target.ref.namespace}" if target.run is None else str(target.run.state)
        raise UserError(f"There is no pipeline {target.ref.name} in {where}.", EXIT_NOT_FOUND) from None
    except Invalid as error:
        raise UserError(f"{with_errors}{error}", EXIT_INVALID) from None
    except ClusterError as error:
        raise UserError(f"{with_errors}{error}", EXIT_UNREACHABLE) from None


@asynccontextmanager
async def _connected(target: Target) -> AsyncIterator[Cluster]:
    run = target.run
    if run is not None and not (run.state / "cluster").is_dir():
        raise UserError(f"Nothing has run in {run.state} yet; begin with: bessemer run {target.file}", EXIT_NOT_FOUND)
    cluster: Cluster = run.cluster if run is not None else await connect(target.place)
    try:
        yield cluster
    finally:
        await cluster.close()
