"""The quickstart's own file in both worlds: the demo's run on this machine, and the same file on a real control plane.

The local run is the one in examples/quickstart: where `make demo` has run, it is there already. The cluster's took
35 minutes beside other work, so `make platform` runs it; tests/e2e/test_both_worlds.py does the same with a tiny
pipeline in every run of the tests.
"""

import json
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from bessemer_operator.cli.problems import EXIT_GATE, EXIT_OK
from tests.support import worlds
from tests.support.controlplane import ControlPlane
from tests.support.installation import installed
from tests.support.localrun import Obj, Runner, conditions_of
from tests.support.mini import TRAIN_PROFILE

pytestmark = [pytest.mark.platform, pytest.mark.timeout(14_400)]

EXAMPLE = Path(__file__).parents[2] / "examples" / "quickstart"
TEAM = "quickstart"


def for_a_cluster(folder: Path) -> Path:
    """The same file as its user would write it for a cluster: no path is relative, and training has a profile."""
    yaml = YAML(typ="safe")
    document = yaml.load((EXAMPLE / "pipeline.yaml").read_text())
    spec = document["spec"]
    spec["store"], spec["profiles"] = f"file://{folder}/store", {"train": TRAIN_PROFILE}
    sources = [source for data in spec["data"].values() for source in data["sources"]]
    tasks = [task for bank in spec["evaluation"]["banks"] for task in bank["tasks"].values()]
    for place in {id(item): item for item in [*sources, *tasks]}.values():
        place["uri"] = f"file://{EXAMPLE}/{place['uri']}"
    target = folder / "pipeline.yaml"
    with target.open("w") as stream:
        yaml.dump(document, stream)
    return target


def test_the_demo_and_its_cluster_run_agree(tmp_path: Path, control_plane: ControlPlane) -> None:
    subprocess.run([sys.executable, str(EXAMPLE / "fetch_data.py")], check=True)
    control_plane.create_namespace(TEAM)
    with installed(control_plane):
        control_plane.kubectl(["apply", "-n", TEAM, "-f", str(for_a_cluster(tmp_path))])
        over = ["--for=condition=Reconciling=False", "--timeout=180m"]
        control_plane.kubectl(["wait", "-n", TEAM, "apipe/quickstart", *over])
        there = json.loads(control_plane.kubectl(["get", "apipe", "quickstart", "-n", TEAM, "-o", "json"]))

    runner = Runner(EXAMPLE / "pipeline.yaml")
    ended = runner.run()
    assert ended.code in {EXIT_OK, EXIT_GATE}, ended.errors
    here = runner.pipeline()
    assert decided(there) == decided(here)
    local, cluster = EXAMPLE / ".bessemer" / "store", tmp_path / "store"
    for part in (worlds.artifacts, worlds.results, worlds.losses):
        assert_holds(part(local), part(cluster), part.__name__)  # type: ignore[operator]  # three functions of one shape
    assert_holds(promotions(worlds.channel_files(local)), promotions(worlds.channel_files(cluster)), "channel")


def decided(pipeline: Obj) -> Obj:
    """Without reasons of conditions: of a run of what the demo has promoted already, one is another."""
    conditions = {name: status for name, (status, _) in conditions_of(pipeline).items()}
    return {**worlds.decided(pipeline), "conditions": conditions}


def promotions(files: Mapping[str, object]) -> Mapping[str, object]:
    """Records without tries: the demo's other pipelines have theirs in the same channel."""
    return {name: content for name, content in files.items() if "tries" not in name}


def assert_holds(local: Mapping[str, object], cluster: Mapping[str, object], what: str) -> None:
    """All that the cluster made was made here; the demo's other pipelines made more."""
    assert cluster, f"no {what}"
    others = sorted(name for name, content in cluster.items() if local.get(name) != content)
    assert not others, f"{what}: {len(others)} of {len(cluster)} differ, for example {others[:5]}"
