"""The pod template that all attempts share. It passes Pod Security `restricted`."""

from typing import Any

from bessemer_api.job import GIT_CREDENTIALS_ENV, METRICS_PORT_ENV, REPORT_ENV, SIGNING_ENV, SPEC_ENV
from bessemer_operator.core.profile import Profile

RUN_FOLDER = "/etc/bessemer"
GIT_FOLDER = "/etc/bessemer-git"
SIGNING_FOLDER = "/etc/bessemer-signing"
SCRATCH = "/scratch"
TERMINATION_LOG = "/dev/termination-log"
METRICS_PORT = 9402


def build_pod_template(name: str, command: list[str], profile: Profile, labels: dict[str, str]) -> dict[str, Any]:
    """Template of a pod with one container; `name` is the attempt's (and its ConfigMap's)."""
    container = _container(name, command, profile)
    spec: dict[str, Any] = {
        "restartPolicy": "Never",
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "serviceAccountName": profile.service_account,
        "terminationGracePeriodSeconds": profile.grace_period_seconds,
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": 65532,
            "runAsGroup": 65532,
            "fsGroup": 65532,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "containers": [container],
        "volumes": [
            {"name": "run", "configMap": {"name": name}},
            {"name": "scratch", "emptyDir": {}},
            {"name": "shm", "emptyDir": {"medium": "Memory", "sizeLimit": profile.shared_memory}},
        ],
    }
    if profile.node_selector:
        spec["nodeSelector"] = dict(profile.node_selector)
    if profile.tolerations:
        spec["tolerations"] = [_toleration(item.wire()) for item in profile.tolerations]
    if profile.priority_class:
        spec["priorityClassName"] = profile.priority_class
    return {"metadata": {"labels": labels}, "spec": spec}


def with_git(template: dict[str, Any], profile: Profile) -> dict[str, Any]:
    """The template with the profile's credentials for git; as it is where the profile has none."""
    if profile.git_secret is None:
        return template
    secret = {"secretName": profile.git_secret, "defaultMode": 0o440}
    return _with_files(template, ("git", secret), (GIT_CREDENTIALS_ENV, GIT_FOLDER))


def with_signing(template: dict[str, Any], profile: Profile, files: tuple[str, ...]) -> dict[str, Any]:
    """The template with these keys of the profile's Secret as files; as it is where there are none."""
    if profile.signing_secret is None or not files:
        return template
    items = [{"key": name, "path": name} for name in files]
    secret = {"secretName": profile.signing_secret, "defaultMode": 0o440, "items": items}
    return _with_files(template, ("signing", secret), (SIGNING_ENV, SIGNING_FOLDER))


def _with_files(
    template: dict[str, Any], secret: tuple[str, dict[str, Any]], variable: tuple[str, str]
) -> dict[str, Any]:
    """The template with a Secret (name of its volume, source) in the folder that a variable (name, value) names."""
    spec = template["spec"]
    first, *others = spec["containers"]
    (name, source), (variable_name, folder) = secret, variable
    container = {
        **first,
        "env": [*first["env"], {"name": variable_name, "value": folder}],
        "volumeMounts": [*first["volumeMounts"], {"name": name, "mountPath": folder, "readOnly": True}],
    }
    volumes = [*spec["volumes"], {"name": name, "secret": source}]
    return {**template, "spec": {**spec, "containers": [container, *others], "volumes": volumes}}


def _toleration(document: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in document.items() if value != ""}


def _container(name: str, command: list[str], profile: Profile) -> dict[str, Any]:
    resources: dict[str, Any] = {"cpu": profile.cpu, "memory": profile.memory}
    if profile.gpus:
        resources["nvidia.com/gpu"] = str(profile.gpus)
    container: dict[str, Any] = {
        "name": "pytorch",
        "image": profile.image,
        "imagePullPolicy": profile.image_pull_policy,
        "command": command,
        "env": _environment(profile),
        "ports": [{"name": "metrics", "containerPort": METRICS_PORT, "protocol": "TCP"}],
        "resources": {"requests": dict(resources), "limits": dict(resources)},
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        },
        "terminationMessagePath": TERMINATION_LOG,
        "terminationMessagePolicy": "File",
        "volumeMounts": [
            {"name": "run", "mountPath": RUN_FOLDER, "readOnly": True},
            {"name": "scratch", "mountPath": SCRATCH},
            {"name": "shm", "mountPath": "/dev/shm"},  # noqa: S108 - a mount point, no temporary file
        ],
    }
    if profile.store_secret:
        container["envFrom"] = [{"secretRef": {"name": profile.store_secret}}]
    return container


def _environment(profile: Profile) -> list[dict[str, str]]:
    fixed = {
        SPEC_ENV: f"{RUN_FOLDER}/run.json",
        REPORT_ENV: TERMINATION_LOG,
        METRICS_PORT_ENV: str(METRICS_PORT),
        "BESSEMER_SCRATCH": SCRATCH,
        "HOME": SCRATCH,
        "TMPDIR": SCRATCH,
    }
    merged = {**profile.environment, **fixed}
    return [{"name": key, "value": value} for key, value in sorted(merged.items())]
