"""From a container in a pod's manifest to a process on this host. Pure: no files, no processes, no cluster.

There are no images and no mount namespaces here. So a container's command is looked up on this host, with this
Python's own programs first, and every argument and environment value that is a path under a volume mount, or the
termination message path, is rewritten to where the kubelet put it. Commands are argv lists; there is no shell.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from bessemer_operator.cluster import Obj

DEFAULT_MESSAGE_PATH = "/dev/termination-log"
METRICS_PORT_VARIABLE = "BESSEMER_METRICS_PORT"
METRICS_PORT_ANNOTATION = "bessemer.dev/metrics-port"

PASSED_ON = (
    *("HOME", "LANG", "LC_ALL", "TZ", "TMPDIR", "LD_LIBRARY_PATH", "XDG_CACHE_HOME"),
    *("DS_ACCELERATOR", "OMP_NUM_THREADS", "CUDA_VISIBLE_DEVICES", "CUDA_HOME", "TORCH_EXTENSIONS_DIR", "CC", "CXX"),
    *("SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE", "HF_HOME", "HF_HUB_OFFLINE"),
    *("HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "http_proxy", "https_proxy", "no_proxy"),
)
"""What of the user's own environment a pod sees; everything else, and every credential, stays out."""

_REFERENCE = re.compile(r"\$(\$|\(([-._a-zA-Z][-._a-zA-Z0-9]*)\))")
_MASTER_ADDRESSES = ("MASTER_ADDR", "PET_MASTER_ADDR")
_MASTER_PORTS = ("MASTER_PORT", "PET_MASTER_PORT")


class ConfigError(Exception):
    """The manifest asks for what is not there (a ConfigMap, a key), or for what a host can not give."""


@dataclass(frozen=True, slots=True)
class Launch:
    """One process to start."""

    argv: tuple[str, ...]
    env: Mapping[str, str]
    cwd: Path
    log: Path
    message: Path
    """Where the process writes its termination message."""


@dataclass(frozen=True, slots=True)
class PodContext:
    """What a manifest can not know about the host it runs on."""

    folder: Path
    host_env: Mapping[str, str]
    """Already reduced to what may be passed on, with PATH (this Python's folder first)."""
    master_port: int
    metrics_port: int
    data: Mapping[tuple[str, str], Mapping[str, bytes] | None] = field(default_factory=dict)
    """Contents of ConfigMaps and Secrets by (kind, name); None for one that does not exist."""


def build_launch(pod: Obj, container: Obj, context: PodContext) -> Launch:
    """The process of one container. Raises ConfigError."""
    argv = [*(container.get("command") or ()), *(container.get("args") or ())]
    if not container.get("command"):
        raise ConfigError(f"container {container['name']}: no command; an image's own can not be known without images")
    paths = _path_map(container, context)
    declared = _declared_env(pod, container, context)
    env = {name: _on_host(name, value, paths, context) for name, value in declared.items()}
    base = {**context.host_env, "HOSTNAME": pod["metadata"]["name"]}
    temporary = paths.get("/tmp")  # noqa: S108 - a mount point in the pod, not a file
    return Launch(
        argv=tuple(_rewrite(_expand(item, declared), paths) for item in argv),
        env={**base, **({"TMPDIR": str(temporary)} if temporary else {}), **env},
        cwd=Path(_rewrite(container["workingDir"], paths)) if container.get("workingDir") else context.folder,
        log=context.folder / f"{container['name']}.log",
        message=message_file(container, context.folder),
    )


def message_file(container: Obj, folder: Path) -> Path:
    """Where a container's termination message lies on this host."""
    return folder / f"{container['name']}.termination"


def asks_for_metrics_port(pod: Obj) -> bool:
    """Whether a container lets the kubelet choose its metrics port."""
    containers = pod["spec"]["containers"]
    return any(entry["name"] == METRICS_PORT_VARIABLE for item in containers for entry in item.get("env") or ())


def references(pod: Obj) -> Iterator[tuple[str, str, bool]]:
    """Every ConfigMap and Secret that the pod names: (kind, name, optional)."""
    for container in (*(pod["spec"].get("initContainers") or ()), *pod["spec"]["containers"]):
        for source in container.get("envFrom") or ():
            yield from _named(source, "configMapRef", "secretRef")
        for entry in container.get("env") or ():
            yield from _named(entry.get("valueFrom") or {}, "configMapKeyRef", "secretKeyRef")
    for volume in pod["spec"].get("volumes") or ():
        for source in (volume, *((volume.get("projected") or {}).get("sources") or ())):
            yield from _named(source, "configMap", "secret")


def _named(source: Obj, config_map: str, secret: str) -> Iterator[tuple[str, str, bool]]:
    for key, kind in ((config_map, "ConfigMap"), (secret, "Secret")):
        if key in source:
            found = source[key]
            yield kind, found.get("name") or found["secretName"], bool(found.get("optional"))


def _path_map(container: Obj, context: PodContext) -> dict[str, Path]:
    """Mount points, deepest first, with where they are on this host."""
    paths = {container.get("terminationMessagePath") or DEFAULT_MESSAGE_PATH: message_file(container, context.folder)}
    for mount in container.get("volumeMounts") or ():
        where = context.folder / "volumes" / mount["name"]
        paths[mount["mountPath"].rstrip("/")] = where / mount["subPath"] if mount.get("subPath") else where
    return dict(sorted(paths.items(), key=lambda item: -len(item[0])))


def _rewrite(text: str, paths: Mapping[str, Path]) -> str:
    """`text` where it is such a path, whole, after `--option=`, or in a file URL; else as it is."""
    for before in ("", "file://"):
        head, equals, tail = text.partition("=") if text.startswith("--") else ("", "", text)
        if not tail.startswith(before):
            continue
        path = tail[len(before) :]
        for mount, where in paths.items():
            if path == mount or path.startswith(mount + "/"):
                return f"{head}{equals}{before}{where}{path[len(mount) :]}"
    return text


def _on_host(name: str, value: str, paths: Mapping[str, Path], context: PodContext) -> str:
    """Pod names do not resolve and ports are shared on one host."""
    if name == "PATH":  # the image's own; here this Python stands for the image
        return f"{context.host_env['PATH'].split(os.pathsep)[0]}{os.pathsep}{value}"
    if name in _MASTER_ADDRESSES:
        return "127.0.0.1"
    if name in _MASTER_PORTS:
        return str(context.master_port)
    if name == "PET_RDZV_ENDPOINT":
        return f"127.0.0.1:{context.master_port}"
    if name == METRICS_PORT_VARIABLE:
        return str(context.metrics_port)
    return _rewrite(value, paths)


def _declared_env(pod: Obj, container: Obj, context: PodContext) -> dict[str, str]:
    env: dict[str, str] = {}
    for source in container.get("envFrom") or ():
        for kind, name, optional in _named(source, "configMapRef", "secretRef"):
            data = _data(context, kind, name, optional) or {}
            env.update({source.get("prefix", "") + key: value.decode() for key, value in data.items()})
    for entry in container.get("env") or ():
        value = _value(pod, entry, context) if "valueFrom" in entry else _expand(entry.get("value") or "", env)
        if value is not None:
            env[entry["name"]] = value
    return env


def _value(pod: Obj, entry: Obj, context: PodContext) -> str | None:
    source = entry["valueFrom"]
    if "fieldRef" in source:
        return field_value(pod, source["fieldRef"]["fieldPath"])
    for key, (kind, name, optional) in zip(source, _named(source, "configMapKeyRef", "secretKeyRef"), strict=False):
        data = _data(context, kind, name, optional) or {}
        wanted = source[key]["key"]
        if wanted not in data and not optional:
            raise ConfigError(f"couldn't find key {wanted} in {kind} {name}")
        return data[wanted].decode() if wanted in data else None
    raise ConfigError(f"env {entry['name']}: {', '.join(source)} is not supported on a host without containers")


def _data(context: PodContext, kind: str, name: str, optional: bool) -> Mapping[str, bytes] | None:
    data = context.data.get((kind, name))
    if data is None and not optional:
        raise ConfigError(f'{kind.lower()} "{name}" not found')
    return data


def field_value(pod: Obj, path: str) -> str:
    """The downward API: a field of the pod as text. Raises ConfigError for a path that is not offered."""
    meta, spec = pod["metadata"], pod["spec"]
    keyed = re.fullmatch(r"metadata\.(labels|annotations)\['(.+)'\]", path)
    if keyed:
        return str((meta.get(keyed[1]) or {}).get(keyed[2], ""))
    fields = {
        "metadata.name": meta["name"],
        "metadata.namespace": meta["namespace"],
        "metadata.uid": meta["uid"],
        "spec.nodeName": spec.get("nodeName", ""),
        "spec.serviceAccountName": spec.get("serviceAccountName", "default"),
        **dict.fromkeys(("status.podIP", "status.podIPs", "status.hostIP", "status.hostIPs"), "127.0.0.1"),
    }
    if path not in fields:
        raise ConfigError(f"fieldPath {path} is not one of {', '.join(fields)}, metadata.labels[''], .annotations['']")
    return str(fields[path])


def _expand(text: str, env: Mapping[str, str]) -> str:
    """`$(NAME)` from what was declared before; `$$` is a dollar sign; an unknown name stays as it is."""
    return _REFERENCE.sub(lambda found: "$" if found[1] == "$" else env.get(found[2], found[0]), text)
