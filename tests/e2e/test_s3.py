"""A whole pipeline on this machine with its store on a real S3 server, and with its user's credentials."""

import pytest

from bessemer_operator.cli.problems import EXIT_OK, EXIT_STAGE
from tests.conftest import LocalStory
from tests.support.localrun import Ended, Runner, summary_of
from tests.support.s3 import S3Server

pytestmark = [pytest.mark.e2e, pytest.mark.slow, pytest.mark.timeout(1800)]


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
