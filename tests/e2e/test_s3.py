"""A whole pipeline with its store on a real S3 server: with the user's credentials here, with a Secret on a cluster."""

import json
from collections.abc import Iterator

import pytest

from bessemer_operator.cli.problems import EXIT_OK, EXIT_STAGE
from tests.conftest import LocalStory
from tests.faults.test_bad_input import ONLY_DATA
from tests.support.controlplane import ControlPlane
from tests.support.installation import PROFILES, installed
from tests.support.localrun import Ended, Runner, outputs_of, summary_of
from tests.support.mini import write_mini
from tests.support.s3 import S3Server

pytestmark = [pytest.mark.e2e, pytest.mark.slow, pytest.mark.timeout(1800)]

TEAM = "s3-test"
SECRET = "bessemer-s3"


@pytest.fixture(scope="module")
def server() -> Iterator[S3Server]:
    with S3Server.start() as running:
        yield running


@pytest.fixture(scope="module")
def on_s3(server: S3Server, local_story: LocalStory, tmp_path_factory: pytest.TempPathFactory) -> tuple[Runner, Ended]:
    """A local run over the same data as the one with a folder as its store."""
    folder = tmp_path_factory.mktemp("s3")
    edits = {"spec.store": f"s3://{server.bucket}/models/mini"}
    file = local_story.mini.write(edits, file=str(folder / "pipeline.yaml"))
    runner = Runner(file, server.environment)
    return runner, runner.run()


def test_a_store_on_s3_gives_the_same_artifacts_and_the_same_verdict(
    on_s3: tuple[Runner, Ended], local_story: LocalStory
) -> None:
    runner, ended = on_s3
    assert (ended.code, ended.errors) == (EXIT_OK, "")
    assert summary_of(runner.pipeline()) == summary_of(local_story.first.pipeline)


def test_the_credentials_are_written_nowhere(on_s3: tuple[Runner, Ended], server: S3Server) -> None:
    runner, ended = on_s3
    files = [path for path in runner.state.rglob("*") if path.is_file()]
    assert [path for path in files if server.secret_key.encode() in path.read_bytes()] == []
    assert server.secret_key not in ended.output + ended.errors


def test_wrong_credentials_are_told_in_one_line(on_s3: tuple[Runner, Ended], server: S3Server) -> None:
    runner, _ = on_s3
    wrong = {**server.environment, "AWS_SECRET_ACCESS_KEY": "wrong"}
    ended = Runner(runner.file, wrong).run()
    assert ended.code == EXIT_STAGE
    assert [line for line in ended.output.splitlines() if line.startswith("StoreUnusable: resolve: ")] != []
    assert Runner(runner.file, server.environment).run().code == EXIT_OK


@pytest.fixture
def namespace(control_plane: ControlPlane, server: S3Server) -> Iterator[str]:
    control_plane.create_namespace(TEAM)
    metadata = {"name": SECRET, "namespace": TEAM}
    secret = {"apiVersion": "v1", "kind": "Secret", "metadata": metadata, "stringData": server.environment}
    control_plane.apply(secret)
    yield TEAM
    control_plane.kubectl(["delete", "namespace", TEAM, "--wait=false"])


def test_on_a_cluster_pods_get_the_credentials_from_the_secret_that_their_profile_names(
    namespace: str, control_plane: ControlPlane, server: S3Server
) -> None:
    """Only the data is prepared: what a store does is the same in both worlds."""
    where = {"spec.store": f"s3://{server.bucket}/models/cluster"}
    with_secret = {**PROFILES["default"], "storeSecret": SECRET}
    mini = write_mini(control_plane.folder / "s3-mini", {**ONLY_DATA, **where})
    with installed(control_plane, {**PROFILES, "default": with_secret}) as installation:
        control_plane.kubectl(["apply", "-n", namespace, "-f", str(mini.file)])
        wait = ["wait", "-n", namespace, "--for=condition=Ready", "--timeout=5m", "apipe/mini"]
        control_plane.kubectl(wait)
        pipeline = json.loads(control_plane.kubectl(["get", "apipe", "mini", "-n", namespace, "-o", "json"]))
        log = installation.operator_log
    assert str(outputs_of(pipeline)["data-texts"]).startswith("sha256:")
    assert server.secret_key not in log + json.dumps(pipeline)
