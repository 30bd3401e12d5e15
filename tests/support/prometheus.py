"""A real Prometheus beside a test cluster: it scrapes the operator, and training pods as it finds them in the API.

Programs: PATH, else what tools/prometheus.sh unpacked. Only for tests.
"""

import json
import os
import shutil
import urllib.parse
import urllib.request
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

from tests.support.controlplane import ControlPlane, Program
from tests.support.controlplane.process import free_port

_CACHE = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "bessemer/prometheus/usr/bin"
REASON = "Prometheus is not installed (tools/prometheus.sh gets it where Debian's packages can be reached)"
JOB_OF_OPERATOR, JOB_OF_PODS = "bessemer-operator", "bessemer-attempts"
_POD = "__meta_kubernetes_pod"
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


def start(plane: ControlPlane, static: Mapping[str, Sequence[str]]) -> Prometheus:
    """Start one that ends with the control plane. `static`: targets by job, with honour of their own labels."""
    folder, port = plane.folder / "prometheus", free_port()
    folder.mkdir()
    file = folder / "prometheus.yaml"
    with file.open("w") as stream:
        YAML(typ="safe").dump(configuration(plane, static), stream)
    argv = [
        str(PROMETHEUS),
        f"--config.file={file}",
        f"--storage.tsdb.path={folder / 'data'}",
        f"--web.listen-address=127.0.0.1:{port}",
        "--log.level=warn",
    ]
    made = Prometheus(f"http://127.0.0.1:{port}")
    plane.processes.start(Program("prometheus", argv, env={}, is_ready=lambda: _answers(made)))
    return made


def _answers(made: Prometheus) -> bool:
    try:
        with urllib.request.urlopen(f"{made.url}/-/ready", timeout=5) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False


def configuration(plane: ControlPlane, static: Mapping[str, Sequence[str]]) -> Json:
    """What the chart's monitors come to; the kubelet of the tests gives each pod a port of its own."""
    fixed = [
        {"job_name": job, "honor_labels": True, "static_configs": [{"targets": list(targets)}]}
        for job, targets in static.items()
    ]
    pods = {
        "job_name": JOB_OF_PODS,
        "kubernetes_sd_configs": [{"role": "pod", "kubeconfig_file": str(plane.kubeconfig)}],
        "relabel_configs": [
            {
                "source_labels": ["__meta_kubernetes_pod_label_app_kubernetes_io_managed_by"],
                "regex": "bessemer",
                "action": "keep",
            },
            {"source_labels": ["__meta_kubernetes_pod_phase"], "regex": "Running", "action": "keep"},
            {"source_labels": ["__meta_kubernetes_pod_container_port_name"], "regex": "metrics", "action": "keep"},
            {
                "source_labels": [
                    "__meta_kubernetes_pod_ip",
                    "__meta_kubernetes_pod_annotation_bessemer_dev_metrics_port",
                ],
                "regex": "(.+);(.+)",
                "replacement": "$1:$2",
                "target_label": "__address__",
            },
            {"source_labels": ["__meta_kubernetes_namespace"], "target_label": "namespace"},
            {"source_labels": [f"{_POD}_name"], "target_label": "pod"},
        ],
    }
    return {"global": {"scrape_interval": "500ms", "scrape_timeout": "450ms"}, "scrape_configs": [*fixed, pods]}


def _keep(label: str, value: str) -> Json:
    return {"source_labels": [f"{_POD}_{label}"], "regex": value, "action": "keep"}
