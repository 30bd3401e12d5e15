"""The volumes of a pod as plain directories under its folder. Writes files; asks no cluster."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath

from bessemer_operator.cluster import Obj

from .launch import ConfigError, PodContext, field_value

Files = dict[str, bytes]


def build_volumes(pod: Obj, context: PodContext, claims: Path) -> None:
    """Make every volume of the pod. `claims` holds a directory for each PersistentVolumeClaim.

    Raises ConfigError for a missing source, and for kinds of volume that a host without containers can not give.
    """
    root = context.folder / "volumes"
    root.mkdir(parents=True, exist_ok=True)
    for volume in pod["spec"].get("volumes") or ():
        where = root / volume["name"]
        if "persistentVolumeClaim" in volume:
            _link(where, claims / pod["metadata"]["namespace"] / volume["persistentVolumeClaim"]["claimName"])
            continue
        where.mkdir(exist_ok=True)
        for path, content in _files(pod, volume, context).items():
            _write(where, path, content)
    for container in (*(pod["spec"].get("initContainers") or ()), *pod["spec"]["containers"]):
        for mount in container.get("volumeMounts") or ():
            _check_path(mount.get("subPath") or ".")


def remove_volumes(folder: Path) -> None:
    """Drop a pod's volumes; its logs stay. What a claim's link points to stays as well."""
    shutil.rmtree(folder / "volumes", ignore_errors=True)


def _files(pod: Obj, volume: Obj, context: PodContext) -> Files:
    if "emptyDir" in volume:
        return {}
    if "projected" in volume:
        files: Files = {}
        for source in volume["projected"].get("sources") or ():
            files.update(_source(pod, source, context))
        return files
    return _source(pod, volume, context)


def _source(pod: Obj, source: Obj, context: PodContext) -> Files:
    if "downwardAPI" in source:
        items = source["downwardAPI"].get("items") or ()
        return {item["path"]: field_value(pod, item["fieldRef"]["fieldPath"]).encode() for item in items}
    for key, kind in (("configMap", "ConfigMap"), ("secret", "Secret")):
        if key in source:
            return dict(_selected(kind, source[key], context))
    kinds = ", ".join(key for key in source if key != "name")
    raise ConfigError(f"volume {source.get('name', '')}: {kinds} is not supported on a host without containers")


def _selected(kind: str, source: Obj, context: PodContext) -> Iterator[tuple[str, bytes]]:
    name = source.get("name") or source["secretName"]
    data: Mapping[str, bytes] | None = context.data.get((kind, name))
    if data is None:
        if source.get("optional"):
            return
        raise ConfigError(f'{kind.lower()} "{name}" not found')
    for item in source.get("items") or [{"key": key, "path": key} for key in data]:
        if item["key"] not in data:
            raise ConfigError(f"{kind.lower()} references non-existent config key: {item['key']}")
        yield item["path"], data[item["key"]]


def _write(where: Path, path: str, content: bytes) -> None:
    _check_path(path)
    target = where / path
    target.parent.mkdir(parents=True, exist_ok=True)
    target.unlink(missing_ok=True)
    target.touch(mode=0o600)
    target.write_bytes(content)


def _link(where: Path, target: Path) -> None:
    target.mkdir(parents=True, exist_ok=True)
    where.unlink(missing_ok=True)
    where.symlink_to(target.resolve(), target_is_directory=True)


def _check_path(path: str) -> None:
    parts = PurePosixPath(path)
    if parts.is_absolute() or ".." in parts.parts:
        raise ConfigError(f"path {path!r} must be relative and must not contain '..'")
