"""The life of one pod on this host: configuration, volumes, init containers, containers, status, end."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from bessemer_operator.cluster import Cluster, ClusterError, Conflict, Invalid, NotFound, Obj, Ref, ref_of

from . import podstatus
from .launch import (
    METRICS_PORT_ANNOTATION,
    ConfigError,
    PodContext,
    asks_for_metrics_port,
    build_launch,
    message_file,
    references,
)
from .podstatus import PodState, State
from .ports import Ports
from .process import Process, StartError
from .volumes import build_volumes, remove_volumes

FIELD_MANAGER = "kubelet"
CONFIG_RETRY_SECONDS = (0.25, 0.5, 1.0, 2.0, 5.0)
WRITE_RETRY_SECONDS = (0.25, 0.5, 1.0, 2.0, 4.0, 8.0)


@dataclass(frozen=True, slots=True)
class Host:
    """What all pods of this process share."""

    cluster: Cluster
    workdir: Path
    env: Mapping[str, str]
    ports: Ports
    now: Callable[[], str]


class _GoneError(Exception):
    """The pod object is no longer there, or is another one by now."""


class PodWorker:
    """Runs a pod in a task of its own; `order_stop` and `lose` come from the kubelet."""

    def __init__(self, host: Host, pod: Obj) -> None:
        self.pod = pod
        self.ref = ref_of(pod)
        self.uid: str = pod["metadata"]["uid"]
        self._host = host
        self._folder = pod_folder(host.workdir, pod)
        self._processes: dict[str, Process] = {}
        self._stop = asyncio.Event()
        self._delete_when_done = False
        names = [item["name"] for item in _containers(pod)]
        state = PodState("Pending", host.now(), {name: podstatus.waiting("PodInitializing") for name in names})
        self._state = state
        self.task = asyncio.create_task(self._run(), name=f"pod {self.ref}")
        self._killer: asyncio.TimerHandle | None = None

    @property
    def is_done(self) -> bool:
        return self.task.done()

    def order_stop(self, grace_seconds: float, delete: bool, disruption: str = "") -> None:
        """SIGTERM now, SIGKILL after the grace period; an order may only shorten an earlier one."""
        self._delete_when_done = self._delete_when_done or delete
        if disruption and not self._stop.is_set():
            message = "Pod was terminated in response to imminent node shutdown."
            self._state = replace(self._state, disruption=disruption, reason="Terminated", message=message)
        if not self._stop.is_set():
            self._stop.set()
            for process in self._processes.values():
                process.terminate()
        loop = asyncio.get_running_loop()
        when = loop.time() + grace_seconds
        if self._killer is None or when < self._killer.when():
            if self._killer is not None:
                self._killer.cancel()
            self._killer = loop.call_at(when, self.kill)

    def kill(self) -> None:
        """End all processes now."""
        self._stop.set()
        for process in self._processes.values():
            process.kill()

    async def _run(self) -> None:
        try:
            await self._live()
        except _GoneError:
            pass
        except Exception as error:  # noqa: BLE001 - whatever it was, the pod ends, and says so; other pods go on
            await self._give_up(f"{type(error).__name__}: {error}")
        finally:
            self.kill()
            await asyncio.gather(*(process.wait() for process in self._processes.values()))
            if self._killer is not None:
                self._killer.cancel()
            self._host.ports.release(self.uid)
        if self._delete_when_done:
            await force_delete(self._host.cluster, self.ref, self.uid)
            remove_volumes(self._folder)

    async def _give_up(self, why: str) -> None:
        self.kill()
        try:
            await self._end("HostError", why)
        except _GoneError:
            return

    async def _live(self) -> None:
        self._folder.mkdir(parents=True, exist_ok=True)
        await self._publish()
        unsupported = _unsupported(self.pod)
        if unsupported:
            await self._end("UnsupportedByHost", unsupported)
            return
        context = await self._prepare()
        if context is not None and await self._init(context):
            await self._main(context)
        await self._end(self._state.reason, self._state.message)

    async def _prepare(self) -> PodContext | None:
        """Ports, configuration and volumes; waits for what is missing. None when ordered to stop."""
        attempt = 0
        while not self._stop.is_set():
            try:
                context = await self._context()
                build_volumes(self.pod, context, self._host.workdir / "claims")
                for container in self.pod["spec"]["containers"]:
                    build_launch(self.pod, container, context)
            except (ConfigError, ClusterError) as error:
                await self._wait_for_config(str(error), CONFIG_RETRY_SECONDS[min(attempt, 4)])
                attempt += 1
            else:
                return context
        return None

    async def _wait_for_config(self, why: str, seconds: float) -> None:
        state = podstatus.waiting("CreateContainerConfigError", why)
        names = [item["name"] for item in self.pod["spec"]["containers"]]
        if self._state.containers[names[0]] != state:
            await self._set(dict.fromkeys(names, state))
        try:
            async with asyncio.timeout(seconds):  # wait_for may swallow a cancellation (Python 3.11)
                await self._stop.wait()
        except TimeoutError:
            return

    async def _context(self) -> PodContext:
        metrics_port = 0
        if asks_for_metrics_port(self.pod):
            metrics_port = self._host.ports.take(self.uid)
            await self._annotate(str(metrics_port))
        return PodContext(
            folder=self._folder,
            host_env=self._host.env,
            master_port=self._host.ports.take(gang_key(self.pod)),
            metrics_port=metrics_port,
            data={(kind, name): await self._data(kind, name) for kind, name, _ in references(self.pod)},
        )

    async def _annotate(self, port: str) -> None:
        if (self.pod["metadata"].get("annotations") or {}).get(METRICS_PORT_ANNOTATION) != port:
            try:
                self.pod = await self._host.cluster.patch_annotations(self.ref, {METRICS_PORT_ANNOTATION: port})
            except NotFound:
                raise _GoneError from None

    async def _data(self, kind: str, name: str) -> Mapping[str, bytes] | None:
        try:
            found = await self._host.cluster.get(Ref(kind, name, self.ref.namespace))
        except NotFound:
            return None
        encoded = "data" if kind == "Secret" else "binaryData"
        plain = found.get("stringData" if kind == "Secret" else "data") or {}
        decoded = {key: base64.b64decode(value) for key, value in (found.get(encoded) or {}).items()}
        return {**decoded, **{key: value.encode() for key, value in plain.items()}}

    async def _init(self, context: PodContext) -> bool:
        """Run the init containers in order; True when all succeeded.

        This host stands for one image: that of the pod's containers. An init container of another image has
        nothing to run in, so it counts as done (training-operator's waits for DNS, which one host does not need).
        """
        images = {item.get("image") for item in self.pod["spec"]["containers"]}
        for container in self.pod["spec"].get("initContainers") or ():
            if container.get("image") in images:
                await self._run_container(container, context)
            else:
                now = self._host.now()
                done = podstatus.terminated(0, now, now, message="not run: this host has no images")
                await self._set({container["name"]: done})
            if self._stop.is_set() or podstatus.phase_of(self.pod, self._state.containers) == "Failed":
                return False
        return True

    async def _main(self, context: PodContext) -> None:
        containers = self.pod["spec"]["containers"]
        await asyncio.gather(*(self._run_container(container, context) for container in containers))

    async def _run_container(self, container: Obj, context: PodContext) -> None:
        name, started = container["name"], self._host.now()
        try:
            launch = build_launch(self.pod, container, context)
            process = self._processes[name] = await Process.start(launch)
        except (ConfigError, StartError) as error:
            state = podstatus.terminated(128, started, self._host.now(), "StartError", str(error))
            await self._set({name: state})
            return
        if self._stop.is_set():
            process.kill()
        try:
            await self._set({name: podstatus.running(started)})
            code = await process.wait()
        finally:
            process.kill()
        message = self._message(container, code)
        await self._set({name: podstatus.terminated(code, started, self._host.now(), message=message)})

    def _message(self, container: Obj, code: int) -> str:
        try:
            text = podstatus.last_bytes(message_file(container, self._folder).read_bytes(), podstatus.MAX_MESSAGE_BYTES)
        except OSError as error:
            return f"Error on reading termination log: {error.strerror}"
        falls_back = container.get("terminationMessagePolicy") == "FallbackToLogsOnError"
        if text or code == 0 or not falls_back:
            return text
        return podstatus.last_lines((self._folder / f"{container['name']}.log").read_bytes())

    async def _set(self, states: Mapping[str, State]) -> None:
        """Take note of containers' states; publish unless that ends the pod (`_end` does)."""
        containers = {**self._state.containers, **states}
        phase = podstatus.phase_of(self.pod, containers)
        self._state = replace(self._state, containers=containers)
        if phase not in ("Succeeded", "Failed"):
            self._state = replace(self._state, phase=phase)
            await self._publish()

    async def _end(self, reason: str, message: str) -> None:
        phase = podstatus.phase_of(self.pod, self._state.containers)
        is_success = phase == "Succeeded" and not self._state.disruption
        phase = "Succeeded" if is_success else "Failed"
        self._state = replace(self._state, phase=phase, reason=reason, message=message)
        await self._publish()

    async def _publish(self) -> None:
        self._state = podstatus.with_transitions(self._state, self._host.now())
        await publish(self._host.cluster, self.pod, self._state)


async def publish(cluster: Cluster, pod: Obj, state: PodState) -> None:
    """Write a pod's status, for as long as it takes. Raises _GoneError when the pod is not there any more."""
    meta = {key: pod["metadata"][key] for key in ("name", "namespace", "uid")}
    obj = {"apiVersion": "v1", "kind": "Pod", "metadata": meta, "status": podstatus.build_status(pod, state)}
    attempt = 0
    while True:
        try:
            await cluster.apply_status(obj, FIELD_MANAGER)
        except (NotFound, Conflict, Invalid) as error:
            raise _GoneError from error
        except ClusterError:
            await asyncio.sleep(WRITE_RETRY_SECONDS[min(attempt, len(WRITE_RETRY_SECONDS) - 1)])
            attempt += 1
        else:
            return


async def publish_lost(cluster: Cluster, pod: Obj, now: str) -> None:
    """Mark a pod failed whose processes an earlier kubelet took with it."""
    try:
        await publish(cluster, pod, podstatus.lost_state(pod, now))
    except _GoneError:
        return


async def force_delete(cluster: Cluster, ref: Ref, uid: str) -> None:
    """Remove a pod object that has no processes any more; not one that has taken its name."""
    attempt = 0
    while True:
        try:
            await cluster.delete(ref, uid=uid, grace_seconds=0)
        except (NotFound, Conflict):
            return
        except ClusterError:
            await asyncio.sleep(WRITE_RETRY_SECONDS[min(attempt, len(WRITE_RETRY_SECONDS) - 1)])
            attempt += 1
        else:
            return


def pod_folder(workdir: Path, pod: Obj) -> Path:
    """Where a pod's logs and volumes lie: <workdir>/pods/<namespace>_<name>_<uid>."""
    meta = pod["metadata"]
    return workdir / "pods" / f"{meta['namespace']}_{meta['name']}_{meta['uid']}"


def gang_key(pod: Obj) -> str:
    """What pods that train together have in common: their controller."""
    for owner in pod["metadata"].get("ownerReferences") or ():
        if owner.get("controller"):
            return f"gang {owner['uid']}"
    return f"gang {pod['metadata']['uid']}"


def _containers(pod: Obj) -> list[Obj]:
    return [*(pod["spec"].get("initContainers") or ()), *pod["spec"]["containers"]]


def _unsupported(pod: Obj) -> str:
    policy = pod["spec"].get("restartPolicy", "Always")
    return "" if policy == "Never" else f"restartPolicy {policy}: this executor runs pods with restartPolicy Never only"
