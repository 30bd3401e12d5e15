"""The kubelet with real processes on a local cluster. Nothing is mocked; no test waits longer than it must."""

import asyncio
import base64
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from bessemer_operator.cluster import NotFound, Obj, Ref, ref_of
from bessemer_operator.cluster.local import LocalCluster
from bessemer_operator.cluster.objects import owner_reference
from bessemer_operator.executor import Node, run_node

WAIT_SECONDS = 30.0


@dataclass
class World:
    """A local cluster in `folder` with a kubelet for node `n`."""

    cluster: LocalCluster
    folder: Path
    stop: asyncio.Event
    kubelet: asyncio.Task[None]

    async def run(self, obj: Obj) -> Obj:
        """Create a pod and return it when it has ended."""
        made = await self.cluster.create(obj)
        return await self.until(ref_of(made), lambda pod: pod["status"]["phase"] in ("Succeeded", "Failed"))

    async def started(self, obj: Obj, file: str = "ready") -> Obj:
        """Create a pod and return it when its process has made a file in the world's folder."""
        made = await self.cluster.create(obj)
        await soon((self.folder / file).exists)
        return await self.until(ref_of(made), lambda pod: pod["status"]["phase"] == "Running")

    async def until(self, ref: Ref, holds: Callable[[Obj], Any]) -> Obj:
        deadline = time.monotonic() + WAIT_SECONDS
        while True:
            found = await self.cluster.get(ref)
            if holds(found):
                return found
            assert time.monotonic() < deadline, found["status"]
            await asyncio.sleep(0.02)

    async def gone(self, ref: Ref) -> None:
        deadline = time.monotonic() + WAIT_SECONDS
        while True:
            try:
                found = await self.cluster.get(ref)
            except NotFound:
                return
            assert time.monotonic() < deadline, found
            await asyncio.sleep(0.02)


async def soon(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + WAIT_SECONDS
    while not holds():
        assert time.monotonic() < deadline
        await asyncio.sleep(0.02)


@pytest_asyncio.fixture
async def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[World]:
    monkeypatch.setenv("HF_TOKEN", "canary")
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    cluster, stop = LocalCluster(tmp_path / "cluster"), asyncio.Event()
    cluster.claim()
    nodes = [Node("n", {"cpu": "2"}), Node("m", {"cpu": "2"})]
    kubelet = asyncio.create_task(run_node(cluster, nodes, tmp_path / "cluster", stop, None))
    yield World(cluster, tmp_path, stop, kubelet)
    stop.set()
    await kubelet
    await cluster.close()


def python(text: str, *args: str) -> list[str]:
    return ["python", "-c", text, *args]


def pod(command: list[str], name: str = "p", **more: Any) -> Obj:
    """A pod on node `n`; keywords of the container, or of the pod by `spec` and `meta`."""
    spec, meta = more.pop("spec", {}), more.pop("meta", {})
    container = {"name": "main", "image": "trainer", "command": command, **more}
    found = {"nodeName": "n", "restartPolicy": "Never", "terminationGracePeriodSeconds": 20, "containers": [container]}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "namespace": "team", **meta},
        "spec": {**found, **spec},
    }


def source(kind: str, name: str, **data: str) -> Obj:
    return {"apiVersion": "v1", "kind": kind, "metadata": {"name": name, "namespace": "team"}, "data": data}


def ended(pod: Obj, container: int = 0) -> dict[str, Any]:
    state: dict[str, Any] = pod["status"]["containerStatuses"][container]["state"]["terminated"]
    return {key: value for key, value in state.items() if key not in ("startedAt", "finishedAt")}


def condition(pod: Obj, kind: str) -> dict[str, Any] | None:
    return next((item for item in pod["status"]["conditions"] if item["type"] == kind), None)


SAY = "import os, sys; open(os.environ['MESSAGE'], 'w').write({})"
MESSAGE = {"name": "MESSAGE", "value": "/dev/termination-log"}


async def said(world: World, expression: str, *args: str, **more: Any) -> str:
    """What a pod's process makes of an expression, by its termination message."""
    env = [MESSAGE, *more.pop("env", [])]
    done = await world.run(pod(python(SAY.format(expression), *args), env=env, **more))
    assert done["status"]["phase"] == "Succeeded", (done["status"], await world.cluster.pod_log(ref_of(done)))
    return str(ended(done).get("message", ""))


ENDS = [
    pytest.param("pass", {"exitCode": 0, "reason": "Completed"}, id="success"),
    pytest.param("raise SystemExit(64)", {"exitCode": 64, "reason": "Error"}, id="an exit code"),
    pytest.param("import os; os.kill(os.getpid(), 9)", {"exitCode": 137, "reason": "Error"}, id="a signal is 128 + n"),
    pytest.param("import os; os.abort()", {"exitCode": 134, "reason": "Error"}, id="an abort"),
]


@pytest.mark.parametrize(("program", "expected"), ENDS)
async def test_a_container_ends_with(program: str, expected: dict[str, Any], world: World) -> None:
    done = await world.run(pod(python(program)))
    assert ended(done) == expected
    assert done["status"]["phase"] == ("Succeeded" if expected["exitCode"] == 0 else "Failed")


async def test_a_program_that_is_not_there_is_a_start_error(world: World) -> None:
    done = await world.run(pod(["no-such-program"]))
    expected = 'exec: "no-such-program": executable file not found in $PATH'
    assert ended(done) == {"exitCode": 128, "reason": "StartError", "message": expected}


async def test_a_restart_policy_other_than_never_is_refused(world: World) -> None:
    done = await world.run(pod(python("pass"), spec={"restartPolicy": "Always"}))
    assert (done["status"]["phase"], done["status"]["reason"]) == ("Failed", "UnsupportedByHost")
    assert "restartPolicy Always" in done["status"]["message"]


async def test_a_pod_of_another_node_is_left_alone(world: World) -> None:
    await world.cluster.create(pod(python("pass"), name="elsewhere", spec={"nodeName": "x"}))
    await world.run(pod(python("pass")))
    assert (await world.cluster.get(Ref("Pod", "elsewhere", "team")))["status"] == {"phase": "Pending"}


async def test_the_status_is_a_kubelet_s(world: World) -> None:
    running = await world.started(
        pod(python(f"open({str(world.folder / 'ready')!r}, 'w'); import time; time.sleep(99)"))
    )
    status = running["status"]
    assert status["containerStatuses"][0]["state"].keys() == {"running"}
    assert (status["podIP"], status["hostIP"]) == ("127.0.0.1", "127.0.0.1")
    assert {item["type"]: item["status"] for item in status["conditions"]} == {
        "PodReadyToStartContainers": "True",
        "Initialized": "True",
        "Ready": "True",
        "ContainersReady": "True",
    }


async def test_the_environment_is_what_the_manifest_says_and_little_else(world: World) -> None:
    await world.cluster.create(source("ConfigMap", "cm", key="from map"))
    await world.cluster.create(source("Secret", "s", key=base64.b64encode(b"from secret").decode()))
    env = [
        {"name": "PLAIN", "value": "a b"},
        {"name": "MADE", "value": "$(PLAIN)/$$(PLAIN)/$(ABSENT)"},
        {"name": "FROM_MAP", "valueFrom": {"configMapKeyRef": {"name": "cm", "key": "key"}}},
        {"name": "FROM_SECRET", "valueFrom": {"secretKeyRef": {"name": "s", "key": "key"}}},
        {"name": "OPTIONAL", "valueFrom": {"secretKeyRef": {"name": "s", "key": "no", "optional": True}}},
        {"name": "LABEL", "valueFrom": {"fieldRef": {"fieldPath": "metadata.labels['x/y']"}}},
        {"name": "NODE", "valueFrom": {"fieldRef": {"fieldPath": "spec.nodeName"}}},
        {"name": "IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}},
    ]
    more: Any = {"envFrom": [{"prefix": "P_", "configMapRef": {"name": "cm"}}], "meta": {"labels": {"x/y": "z"}}}
    found = dict(eval(await said(world, "repr(sorted(os.environ.items()))", env=env, **more)))  # our own text
    expected = {"PLAIN": "a b", "MADE": "a b/$(PLAIN)/$(ABSENT)", "FROM_MAP": "from map", "FROM_SECRET": "from secret"}
    expected |= {"LABEL": "z", "NODE": "n", "IP": "127.0.0.1", "P_key": "from map", "OMP_NUM_THREADS": "3"}
    assert found | expected == found
    assert found["PATH"].split(os.pathsep)[0] == str(Path(sys.executable).parent)
    assert {"HF_TOKEN", "OPTIONAL", "PYTEST_CURRENT_TEST"}.isdisjoint(found)


HOSTILE = ["$(touch x)", "; exit 3", "a\nb", "--help", "`id`", "$HOME", "*", "a" * 100_000]


async def test_arguments_are_data_and_never_a_shell_s(world: World) -> None:
    assert await said(world, "str(sys.argv[1:-1]) + str(len(sys.argv[-1]))", *HOSTILE) == f"{HOSTILE[:-1]}100000"


async def test_a_nul_in_an_argument_is_a_start_that_failed(world: World) -> None:
    done = await world.run(pod(python("pass", "a\0b")))
    assert ended(done)["exitCode"] == 128
    assert await world.cluster.pod_log(ref_of(done)) == "can not start: embedded null byte\n"


async def test_a_path_of_the_image_does_not_hide_this_python(world: World) -> None:
    env = [{"name": "PATH", "value": "/opt/conda/bin"}]
    assert (
        await said(world, "os.environ['PATH']", env=env) == f"{Path(sys.executable).parent}{os.pathsep}/opt/conda/bin"
    )


async def test_volumes_are_where_the_arguments_say(world: World) -> None:
    await world.cluster.create(source("ConfigMap", "cm", a="A", b="B"))
    await world.cluster.create(source("Secret", "s", key=base64.b64encode(b"\0secret").decode()))
    volumes = [
        {"name": "map", "configMap": {"name": "cm", "items": [{"key": "a", "path": "deep/a.txt"}]}},
        {"name": "all", "projected": {"sources": [{"configMap": {"name": "cm"}}, {"secret": {"name": "s"}}]}},
        {"name": "empty", "emptyDir": {}},
        {"name": "claim", "persistentVolumeClaim": {"claimName": "data"}},
        {"name": "pod", "downwardAPI": {"items": [{"path": "name", "fieldRef": {"fieldPath": "metadata.name"}}]}},
    ]
    mounts = [
        {"name": "map", "mountPath": "/etc/map"},
        {"name": "all", "mountPath": "/etc/map/all/"},
        {"name": "empty", "mountPath": "/scratch"},
        {"name": "empty", "mountPath": "/etc/sub", "subPath": "sub"},
        {"name": "claim", "mountPath": "/claim"},
        {"name": "pod", "mountPath": "/pod"},
    ]
    read = "".join(
        (
            "''.join(open(p).read() for p in sys.argv[1:5]) + os.path.basename(os.environ['S']) + ",
            "str(os.path.isdir(os.environ['S'])) + sys.argv[5] + sys.argv[6].split('=')[0] + ",
            "str(os.path.exists(sys.argv[6].split('=')[1])) + str(open(os.environ['C'] + '/x', 'w').write('kept'))",
        )
    )
    args = ["/etc/map/deep/a.txt", "/etc/map/all/b", "/etc/map/all/key", "/pod/name", "/etc/mapped", "--in=/etc/map"]
    env = [{"name": "S", "value": "/scratch"}, {"name": "C", "value": "/claim"}]
    text = await said(world, read, *args, env=env, spec={"volumes": volumes}, volumeMounts=mounts)
    assert text == "ABsecretpemptyTrue/etc/mapped--inTrue4"
    assert (world.folder / "cluster/claims/team/data/x").read_text() == "kept"


async def test_a_missing_config_map_is_waited_for(world: World) -> None:
    volumes = [{"name": "v", "configMap": {"name": "late"}}]
    await world.cluster.create(pod(python("pass"), spec={"volumes": volumes}))
    ref = Ref("Pod", "p", "team")
    waiting = await world.until(ref, lambda pod: "containerStatuses" in pod["status"] and state(pod).get("message"))
    expected = {"reason": "CreateContainerConfigError", "message": 'configmap "late" not found'}
    assert (waiting["status"]["phase"], state(waiting)) == ("Pending", expected)
    await world.cluster.create(source("ConfigMap", "late", a="1"))
    await world.until(ref, lambda pod: pod["status"]["phase"] == "Succeeded")


def state(pod: Obj) -> dict[str, Any]:
    found: dict[str, Any] = pod["status"]["containerStatuses"][0]["state"].get("waiting", {})
    return found


async def test_of_a_termination_message_the_last_4096_bytes_are_kept(world: World) -> None:
    text = await said(world, "'a' * 5000 + 'end'")
    assert (len(text), text[-5:]) == (4096, "aaend")


async def test_the_log_stands_in_for_the_message_of_a_failure_where_asked(world: World) -> None:
    program = python("print('one'); print('two'); raise SystemExit(1)")
    done = await world.run(pod(program, terminationMessagePolicy="FallbackToLogsOnError"))
    assert ended(done)["message"] == "one\ntwo\n"


async def test_the_log_outlives_the_pod_and_its_volumes_do_not(world: World) -> None:
    done = await world.run(pod(python("print('hello')"), spec={"volumes": [{"name": "v", "emptyDir": {}}]}))
    await world.cluster.delete(ref_of(done))
    await soon(lambda: not list(world.folder.glob("cluster/pods/*/volumes")))
    assert await world.cluster.pod_log(ref_of(done)) == "hello\n"


async def test_init_containers_of_the_same_image_run_first_and_others_count_as_done(world: World) -> None:
    mounts = [{"name": "v", "mountPath": "/v"}]
    init = {"name": "i", "image": "trainer", "volumeMounts": mounts}
    init["command"] = python("import sys; open(sys.argv[1], 'w').write('made')", "/v/f")
    foreign = {"name": "f", "image": "alpine", "command": ["sh", "-c", "exit 1"]}
    spec = {"initContainers": [foreign, init], "volumes": [{"name": "v", "emptyDir": {}}]}
    assert await said(world, "open(sys.argv[1]).read()", "/v/f", spec=spec, volumeMounts=mounts) == "made"


async def test_a_failed_init_container_fails_the_pod(world: World) -> None:
    init = {"name": "i", "image": "trainer", "command": python("raise SystemExit(7)")}
    done = await world.run(pod(python("pass"), spec={"initContainers": [init]}))
    assert done["status"]["phase"] == "Failed"
    assert done["status"]["initContainerStatuses"][0]["state"]["terminated"]["exitCode"] == 7
    assert done["status"]["containerStatuses"][0]["state"] == {"waiting": {"reason": "PodInitializing"}}


async def test_pods_of_one_job_meet_at_one_port_and_each_has_its_metrics_port(world: World) -> None:
    names = "('MASTER_ADDR', 'PET_RDZV_ENDPOINT', 'MASTER_PORT', 'BESSEMER_METRICS_PORT')"
    expression = f"' '.join(os.environ[k] for k in {names})"
    env = [
        {"name": "MASTER_ADDR", "value": "j-master-0"},
        {"name": "MASTER_PORT", "value": "23456"},
        {"name": "PET_RDZV_ENDPOINT", "value": "j-worker-0:23456"},
        {"name": "BESSEMER_METRICS_PORT", "value": "9402"},
    ]
    program = python(
        SAY.format(expression)
        + f"; open(os.path.join({str(world.folder)!r}, sys.argv[1]), 'w'); import time; time.sleep(99)",
    )
    found = {}
    owners = {name: owner_reference(await world.cluster.create(source("ConfigMap", name))) for name in "ab"}
    for name, job, node in (("a0", "a", "n"), ("a1", "a", "m"), ("b0", "b", "n")):
        meta = {"ownerReferences": [owners[job]]}
        made = await world.started(
            pod([*program, name], name, env=[MESSAGE, *env], spec={"nodeName": node}, meta=meta), name
        )
        [file] = world.folder.glob(f"cluster/pods/team_{name}_*/main.termination")
        address, endpoint, port, metrics = file.read_text().split()
        assert (address, endpoint) == ("127.0.0.1", f"127.0.0.1:{port}")
        assert made["metadata"]["annotations"]["bessemer.dev/metrics-port"] == metrics
        found[name] = (port, metrics)
    ports = {name: port for name, (port, _) in found.items()}
    assert ports["a0"] == ports["a1"] != ports["b0"]
    assert len({*ports.values(), *(metrics for _, metrics in found.values())}) == 5


STUBBORN = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN)"
POLITE = "import signal, sys; signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))"


def waits(world: World, before: str) -> list[str]:
    return python(f"{before}; open({str(world.folder / 'ready')!r}, 'w'); import time; time.sleep(99)")


async def test_a_deleted_pod_gets_sigterm_and_time_to_save(world: World) -> None:
    saved = f"(open({str(world.folder / 'saved')!r}, 'w'), sys.exit(143))"
    before = f"import signal, sys; signal.signal(signal.SIGTERM, lambda *_: {saved})"
    running = await world.started(pod(waits(world, before), meta={"finalizers": ["test/hold"]}))
    await world.cluster.delete(ref_of(running))
    done = await world.until(ref_of(running), lambda pod: pod["status"]["phase"] == "Failed")
    assert (ended(done)["exitCode"], (world.folder / "saved").exists()) == (143, True)
    await world.cluster.update({**done, "metadata": {**done["metadata"], "finalizers": []}})
    await world.gone(ref_of(running))


async def test_a_pod_that_ignores_sigterm_is_killed_after_its_grace(world: World) -> None:
    running = await world.started(pod(waits(world, STUBBORN), meta={"finalizers": ["test/hold"]}))
    begun = time.monotonic()
    await world.cluster.delete(ref_of(running), grace_seconds=1)
    done = await world.until(ref_of(running), lambda pod: pod["status"]["phase"] == "Failed")
    assert ended(done)["exitCode"] == 137
    assert time.monotonic() - begun >= 1.0


async def test_a_deletion_can_be_made_shorter(world: World) -> None:
    running = await world.started(pod(waits(world, STUBBORN), spec={"terminationGracePeriodSeconds": 3600}))
    await world.cluster.delete(ref_of(running))
    await world.cluster.delete(ref_of(running), grace_seconds=1)
    await world.gone(ref_of(running))


async def test_a_pod_removed_by_force_loses_its_processes(world: World) -> None:
    program = f"import os; open({str(world.folder / 'pid')!r}, 'w').write(str(os.getpid()))"
    running = await world.started(pod(waits(world, program)))
    await world.cluster.delete(ref_of(running), grace_seconds=0)
    pid = int((world.folder / "pid").read_text())
    await soon(lambda: not is_alive(pid))


async def test_a_pod_that_takes_the_name_of_another_runs_on_its_own(world: World) -> None:
    first = await world.run(pod(python("raise SystemExit(1)")))
    await world.cluster.delete(ref_of(first))
    second = await world.run(pod(python("pass")))
    assert (first["status"]["phase"], second["status"]["phase"]) == ("Failed", "Succeeded")


SPAWN = """
import os, subprocess, sys, time
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(99)"], start_new_session=True)
open(sys.argv[1] + ".new", "w").write(f"{os.getpid()} {child.pid}")
os.rename(sys.argv[1] + ".new", sys.argv[1])
time.sleep(float(sys.argv[2]))
"""


def is_alive(pid: int) -> bool:
    """Whether a process runs (a zombie does not)."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state not in "ZX"


async def test_processes_in_sessions_of_their_own_end_with_the_container(world: World) -> None:
    await world.run(pod(python(SPAWN, str(world.folder / "pids"), "0")))
    _, child = map(int, (world.folder / "pids").read_text().split())
    assert not is_alive(child)


async def test_a_kubelet_that_stops_ends_its_pods_as_disrupted(world: World) -> None:
    running = await world.started(pod(waits(world, POLITE)))
    world.stop.set()
    await world.kubelet
    done = await world.cluster.get(ref_of(running))
    assert (done["status"]["phase"], done["status"]["reason"], ended(done)["exitCode"]) == ("Failed", "Terminated", 143)
    found = condition(done, "DisruptionTarget")
    assert found is not None
    assert (found["status"], found["reason"]) == ("True", "TerminationByKubelet")


async def test_a_killed_kubelet_leaves_no_process_and_the_next_one_says_what_was_lost(tmp_path: Path) -> None:
    cluster = LocalCluster(tmp_path)
    await cluster.create(pod(python(SPAWN, str(tmp_path / "pids"), "99")))
    host = [sys.executable, "-m", "tests.operator.executor.kubelet_host", str(tmp_path)]
    with subprocess.Popen(host, cwd=Path(__file__).parents[3]) as kubelet:
        await soon((tmp_path / "pids").exists)
        pids = list(map(int, (tmp_path / "pids").read_text().split()))
        assert all(map(is_alive, pids))
        kubelet.send_signal(signal.SIGKILL)
    await soon(lambda: not any(map(is_alive, pids)))
    stop = asyncio.Event()
    again = asyncio.create_task(run_node(cluster, [Node("n", {"cpu": "2"})], tmp_path, stop, None))
    done = await World(cluster, tmp_path, stop, again).until(
        Ref("Pod", "p", "team"), lambda pod: pod["status"]["phase"] == "Failed"
    )
    assert (done["status"]["reason"], ended(done)["exitCode"], ended(done)["reason"]) == (
        "NodeLost",
        137,
        "ContainerStatusUnknown",
    )
    assert condition(done, "DisruptionTarget") is not None
    stop.set()
    await again
