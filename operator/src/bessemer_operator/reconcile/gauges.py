"""Gauges that are read off the cache at each scrape: what is there now. Labels name what exists, and nothing else."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import datetime

from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from bessemer_operator.core.naming import LABEL_PIPELINE, LABEL_STAGE
from bessemer_operator.core.profile import Profile
from bessemer_operator.reconcile.cache import Cache, Obj

PHASES = ("Ready", "Stalled", "Suspended", "Reconciling", "Pending")
POD_PHASES = ("Pending", "Running")
_GPU = "nvidia.com/gpu"
_PIPELINE = ("namespace", "pipeline")
Samples = dict[tuple[str, ...], float]


def phase_of(pipeline: Obj) -> str:
    """One word for a pipeline, from its conditions."""
    conditions = (pipeline.get("status") or {}).get("conditions") or []
    held = {item["type"] for item in conditions if item["status"] == "True"}
    return next((phase for phase in PHASES if phase in held), "Pending")


class Objects(Collector):
    """All of these gauges."""

    def __init__(self, cache: Cache, profiles: Mapping[str, Profile], now: Callable[[], datetime]) -> None:
        self._cache, self._profiles, self._now = cache, profiles, now

    def collect(self) -> Iterable[Metric]:
        pipelines, pods = list(self._cache.of_kind("AdaptationPipeline")), list(self._cache.of_kind("Pod"))
        yield _family("bessemer_pipelines", "Pipelines by what they do.", ["phase"], _phases(pipelines))
        yield _family("bessemer_pods", "Pods of attempts that are not over.", ["phase"], _pod_phases(pods))
        yield from _of_stage_pods(pods)
        yield from _of_stages(pipelines)
        yield from _of_gates(pipelines)
        labels = [*_PIPELINE, "channel"]
        yield _family("bessemer_channel_record", "Number of a channel's newest record.", labels, _records(pipelines))
        labels = [*_PIPELINE, "diagnostic", "stage"]
        yield _family("bessemer_diagnostic_alarm", "1 for each alarm of a diagnostic.", labels, _alarms(pipelines))

        labels, stages = [*_PIPELINE, "stage"], self._cache.of_kind("TrainingStage")
        spent = _gpu_seconds(stages, self._profiles, self._now())
        yield _family("bessemer_stage_gpu_seconds", "GPUs times seconds of all attempts of a stage.", labels, spent)

    def describe(self) -> Iterator[Metric]:
        return iter(())


def _family(name: str, text: str, labels: Sequence[str], samples: Mapping[tuple[str, ...], float]) -> Metric:
    family = GaugeMetricFamily(name, text, labels=labels)
    for key, value in samples.items():
        family.add_metric(list(key), value)
    return family


def _phases(pipelines: Iterable[Obj]) -> Samples:
    found = [phase_of(pipeline) for pipeline in pipelines]
    return {(phase,): float(found.count(phase)) for phase in PHASES}


def _pod_phases(pods: Iterable[Obj]) -> Samples:
    found = [(pod.get("status") or {}).get("phase") or "Pending" for pod in pods]
    return {(phase,): float(found.count(phase)) for phase in POD_PHASES}


def _of_stage_pods(pods: Iterable[Obj]) -> Iterator[Metric]:
    """Running pods of stages: what joins the metrics of pods and of DCGM to pipelines."""
    info: Samples = {}
    gpus: Samples = {}
    for pod in pods:
        metadata, labels = pod["metadata"], pod["metadata"].get("labels") or {}
        if (pod.get("status") or {}).get("phase") != "Running" or LABEL_STAGE not in labels:
            continue
        key = (metadata["namespace"], metadata["name"], labels.get(LABEL_PIPELINE, ""), labels[LABEL_STAGE])
        info[key], gpus[key] = 1.0, _gpus(pod)
    names = ["namespace", "pod", "pipeline", "stage"]
    yield _family("bessemer_stage_pod_info", "Running pods of stages.", names, info)
    yield _family("bessemer_stage_pod_gpus", "GPUs that a running pod of a stage holds.", names, gpus)


def _gpus(pod: Obj) -> float:
    limits = [
        (item.get("resources") or {}).get("limits") or {} for item in (pod.get("spec") or {}).get("containers") or []
    ]
    return float(sum(int(limit.get(_GPU, 0)) for limit in limits))


def _of_stages(pipelines: Iterable[Obj]) -> Iterator[Metric]:
    """How far running stages are. Seconds left are there once the pod can tell."""
    done: Samples = {}
    left: Samples = {}
    for where, status in _statuses(pipelines):
        for row in status.get("stages") or []:
            if row["phase"] != "Running":
                continue
            done[*where, row["name"]] = row["progressPercentage"] / 100
            if row.get("estimatedRemainingSeconds") is not None:
                left[*where, row["name"]] = float(row["estimatedRemainingSeconds"])
    names = [*_PIPELINE, "stage"]
    yield _family("bessemer_stage_progress_ratio", "Share of a running stage that is done.", names, done)
    yield _family("bessemer_stage_remaining_seconds", "Estimated time left of a running stage.", names, left)


def _of_gates(pipelines: Iterable[Obj]) -> Iterator[Metric]:
    """What gates measured, and what they ask: score above -notWorseThan holds, above winBy wins."""
    scores: Samples = {}
    asked: Samples = {}
    for pipeline in pipelines:
        where = _where(pipeline)
        for gate in (pipeline.get("status") or {}).get("gates") or []:
            for axis in gate.get("axes") or []:
                scores[*where, gate["name"], axis["name"]] = axis["delta"]
        for gate in pipeline["spec"].get("gates") or []:
            for axis in gate["axes"]:
                asked[*where, gate["name"], axis["name"], "notWorseThan"] = -float(axis["notWorseThan"])
                if axis.get("winBy") is not None:
                    asked[*where, gate["name"], axis["name"], "winBy"] = float(axis["winBy"])
    names = [*_PIPELINE, "gate", "axis"]
    text = "Mean difference of candidate and baseline on an axis at the newest look; larger is better."
    yield _family("bessemer_gate_score", text, names, scores)
    text = "What a gate asks of an axis: the score must be shown to be above it."
    yield _family("bessemer_gate_threshold", text, [*names, "bound"], asked)


def _gpu_seconds(stages: Iterable[Obj], profiles: Mapping[str, Profile], now: datetime) -> Samples:
    """What attempts held by their profile as it is now, from their start to their end. Superseded stages count too."""
    found: Samples = {}
    for stage in stages:
        metadata, spec = stage["metadata"], stage["spec"]
        labels, profile = metadata.get("labels") or {}, profiles.get(spec["profile"])
        key = (metadata["namespace"], labels.get(LABEL_PIPELINE, ""), labels.get(LABEL_STAGE, metadata["name"]))
        gpus = float(profile.gpus * spec.get("nodes", 1)) if profile is not None else 0.0
        attempts = (stage.get("status") or {}).get("attempts") or []
        found[key] = found.get(key, 0.0) + gpus * sum(_seconds(item, now) for item in attempts)
    return found


def _seconds(attempt: Obj, now: datetime) -> float:
    begun, ended = attempt.get("startedAt"), attempt.get("finishedAt")
    end = datetime.fromisoformat(ended) if ended else now
    return max(0.0, (end - datetime.fromisoformat(begun)).total_seconds()) if begun else 0.0


def _records(pipelines: Iterable[Obj]) -> Samples:
    return {
        (*where, item["name"]): float(item.get("record") or 0)
        for where, status in _statuses(pipelines)
        for item in status.get("channels") or []
    }


def _alarms(pipelines: Iterable[Obj]) -> Samples:
    return {
        (*where, item["name"], item["subject"]): 1.0
        for where, status in _statuses(pipelines)
        for item in status.get("diagnostics") or []
        if item["state"] == "Alarm"
    }


def _statuses(pipelines: Iterable[Obj]) -> Iterator[tuple[tuple[str, str], Obj]]:
    return ((_where(pipeline), pipeline.get("status") or {}) for pipeline in pipelines)


def _where(pipeline: Obj) -> tuple[str, str]:
    return pipeline["metadata"]["namespace"], pipeline["metadata"]["name"]
