"""A real Prometheus beside a test cluster: it scrapes the operator, and the pods of attempts while they run.

Programs: PATH, else what tools/debian.sh unpacked. Only for tests.
"""

import json
import os
import shutil
import urllib.parse
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

from bessemer_operator.executor import METRICS_PORT_ANNOTATION
from tests.support.controlplane import ControlPlane, Program
from tests.support.controlplane.process import free_port
from tests.support.dcgm import gpus_of, served

_CACHE = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "bessemer/prometheus/usr/bin"
RULES = Path(__file__).parents[2] / "charts/bessemer/rules/bessemer.yaml"
REASON = "Prometheus is not installed (tools/debian.sh gets it where Debian's packages can be reached)"
Json = Any


def find(name: str) -> str | None:
    """Path of `prometheus` or `promtool`; None when it is not there."""
    cached = _CACHE / name
    return shutil.which(name) or (str(cached) if cached.is_file() else None)


PROMETHEUS, PROMTOOL = find("prometheus"), find("promtool")


@dataclass(frozen=True)
class Prometheus:
    """One that runs; ask it."""

    url: str

    def get(self, path: str, **query: str | float) -> Json:
        """`data` of an answer of its HTTP API."""
        parameters = urllib.parse.urlencode(query)
        with urllib.request.urlopen(f"{self.url}/api/v1/{path}?{parameters}", timeout=30) as answer:
            document = json.loads(answer.read())
        assert document["status"] == "success", document
        return document["data"]

    def over(self, expr: str, start: float, end: float, step: float) -> dict[str, list[tuple[float, str]]]:
        """Times and values of every series of a query, by its labels."""
        found = self.get("query_range", query=expr, start=start, end=end, step=step)
        return {
            json.dumps(item["metric"], sort_keys=True): [(float(at), value) for at, value in item["values"]]
            for item in found["result"]
        }


@contextmanager
def started(plane: ControlPlane, operator_port: int) -> Iterator[Prometheus]:
    """It scrapes the operator, pods of attempts, and a stand-in for dcgm-exporter, and ends with the context."""
    port = free_port()
    folder = plane.folder / f"prometheus-{port}"
    folder.mkdir()
    file = folder / "prometheus.yaml"
    pages = {"/metrics": lambda: gpus_of(operator_port), "/targets": lambda: ("application/json", targets(plane))}
    with served(pages) as address:
        with file.open("w") as stream:
            YAML(typ="safe").dump(configuration(operator_port, address), stream)
        argv = [
            str(PROMETHEUS),
            f"--config.file={file}",
            f"--storage.tsdb.path={folder / 'data'}",
            f"--web.listen-address=127.0.0.1:{port}",
            "--log.level=warn",
        ]
        made = Prometheus(f"http://127.0.0.1:{port}")
        plane.processes.start(Program("prometheus", argv, env={}, is_ready=lambda: _answers(made)))
        try:
            yield made
        finally:
            plane.processes.stop("prometheus")


def _answers(made: Prometheus) -> bool:
    try:
        with urllib.request.urlopen(f"{made.url}/-/ready", timeout=5) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False


def configuration(operator_port: int, stand_in: str) -> Json:
    """What the chart's monitors come to. Debian builds Prometheus without Kubernetes' discovery, so
    pods are found over HTTP.
    """
    fixed = {"bessemer-operator": f"127.0.0.1:{operator_port}", "dcgm-exporter": stand_in}
    jobs = [
        {"job_name": job, "honor_labels": True, "static_configs": [{"targets": [address]}]}
        for job, address in fixed.items()
    ]
    found = {"url": f"http://{stand_in}/targets", "refresh_interval": "1s"}
    pods = {"job_name": "bessemer-attempts", "http_sd_configs": [found]}
    often = {"scrape_interval": "1s", "scrape_timeout": "1s", "evaluation_interval": "1s"}
    return {"global": often, "scrape_configs": [*jobs, pods], "rule_files": [str(RULES)]}


def targets(plane: ControlPlane) -> str:
    """Where running pods of attempts serve their metrics; the kubelet of the tests gives each a port of its own."""
    try:
        pods = plane.get("/api/v1/pods?labelSelector=app.kubernetes.io%2Fmanaged-by%3Dbessemer")["items"]
    except OSError:  # the API server is stopped on purpose
        pods = []
    groups = []
    for pod in pods:
        metadata, status = pod["metadata"], pod.get("status") or {}
        port = (metadata.get("annotations") or {}).get(METRICS_PORT_ANNOTATION)
        if status.get("phase") == "Running" and status.get("podIP") and port:
            labels = {"namespace": metadata["namespace"], "pod": metadata["name"]}
            groups.append({"targets": [f"{status['podIP']}:{port}"], "labels": labels})
    return json.dumps(groups)
