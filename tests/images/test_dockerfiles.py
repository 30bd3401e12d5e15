"""The Dockerfiles: read by rules, the operator's install measured, and its image built where buildah is to be had.

hadolint is a program in Haskell that no registry of ours offers, so its rules that matter here are tests.
"""

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FILES = sorted((ROOT / "images").glob("*/Dockerfile"))
MAX_BYTES = 200 * 1000 * 1000
Instruction = tuple[str, str]


def instructions(file: Path) -> list[Instruction]:
    """Every instruction with its arguments; comments are left out, continued lines joined."""
    lines = [line for line in file.read_text().splitlines() if line.strip() and not line.lstrip().startswith("#")]
    text = re.sub(r"\\\n\s*", " ", "\n".join(lines))
    return [(word.upper(), rest.strip()) for word, _, rest in (line.partition(" ") for line in text.splitlines())]


def stages(file: Path) -> list[list[Instruction]]:
    found: list[list[Instruction]] = [[]]
    for item in instructions(file):
        if item[0] == "FROM":
            found.append([])
        found[-1].append(item)
    return found[1:]


def test_there_are_two_images() -> None:
    assert [file.parent.name for file in FILES] == ["operator", "trainer"]


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.parent.name)
def test_the_base_is_an_argument_without_a_default_that_could_move(file: Path) -> None:
    found = instructions(file)
    assert found[0] == ("ARG", "BASE")
    assert {rest.split()[0] for word, rest in found if word == "FROM"} == {"${BASE}"}


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.parent.name)
def test_what_runs_is_built_in_another_stage_and_by_the_lock(file: Path) -> None:
    build, final = stages(file)
    assert any(word == "RUN" and "sync --frozen" in rest and "--no-dev" in rest for word, rest in build)
    assert not [rest for word, rest in final if word in {"RUN", "ADD"}]
    assert [rest for word, rest in final if word == "COPY"] == ["--from=build /opt/bessemer /opt/bessemer"]


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.parent.name)
def test_it_runs_as_a_user_by_number_without_a_shell(file: Path) -> None:
    final = dict(stages(file)[-1])
    assert final["USER"] == "65532:65532"
    assert final["CMD"].startswith("[")
    assert "ENTRYPOINT" not in final
    assert "PYTHONDONTWRITEBYTECODE=1" in final["ENV"]
    assert "UV_COMPILE_BYTECODE=1" in dict(stages(file)[0])["ENV"], "or every start compiles everything"


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.parent.name)
def test_nothing_comes_from_elsewhere(file: Path) -> None:
    words = {word for word, _ in instructions(file)}
    assert words <= {"ARG", "FROM", "WORKDIR", "COPY", "ENV", "RUN", "LABEL", "USER", "CMD"}
    for _, rest in [item for item in instructions(file) if item[0] == "COPY" and "--from" not in item[1]]:
        assert (ROOT / rest.split()[0]).exists()


def uv() -> str:
    return subprocess.run([str(ROOT / "tools" / "uv.sh")], capture_output=True, text=True, check=True).stdout.strip()


def size_of(folder: Path) -> int:
    return sum(path.lstat().st_size for path in folder.rglob("*") if not path.is_dir())


def test_the_operator_is_small_and_has_no_torch(tmp_path: Path) -> None:
    """The very command of its image, from the lock."""
    [command] = [rest for word, rest in stages(FILES[0])[0] if word == "RUN"]
    options = command.removeprefix('"$(tools/uv.sh)" ').replace("--no-cache ", "").split()
    environment = {**os.environ, "UV_PROJECT_ENVIRONMENT": str(tmp_path / "env"), "UV_COMPILE_BYTECODE": "1"}
    subprocess.run([uv(), *options], cwd=ROOT, env=environment, check=True, capture_output=True)
    names = {path.name for path in (tmp_path / "env").glob("lib/python3*/site-packages/*")}
    assert {"kopf", "kubernetes", "bessemer_operator"} <= names
    assert not names & {"torch", "transformers", "deepspeed", "numpy"}
    assert size_of(tmp_path / "env") < MAX_BYTES
    asked = [str(tmp_path / "env" / "bin" / "bessemer"), "--help"]
    assert subprocess.run(asked, capture_output=True, check=False).returncode == 0


LACKING = [name for name in ("buildah", "debootstrap") if shutil.which(name) is None] + (
    [] if os.geteuid() == 0 else ["root"]
)


@pytest.mark.e2e
@pytest.mark.slow
@pytest.mark.skipif(bool(LACKING), reason=f"no {' and no '.join(LACKING)}: images can not be built on this machine")
@pytest.mark.timeout(1200)
def test_buildah_builds_the_operators_image(tmp_path: Path) -> None:
    """From a Debian with Python, made here: no registry of images is needed."""
    base, storage = tmp_path / "base", ["--root", str(tmp_path / "storage"), "--runroot", str(tmp_path / "run")]
    packages = "--include=python3,python3-venv,ca-certificates"
    mirror = "http://deb.debian.org/debian"
    subprocess.run(["debootstrap", "--variant=minbase", packages, "bookworm", str(base), mirror], check=True)
    buildah = ["buildah", *storage, "--storage-driver=vfs"]

    def run(*arguments: str) -> str:
        return subprocess.run([*buildah, *arguments], check=True, capture_output=True, text=True, cwd=ROOT).stdout

    container = run("from", "scratch").strip()
    run("add", container, str(base), "/")
    run("commit", container, "localhost/base")
    file = ["-f", "images/operator/Dockerfile", "--build-arg", "BASE=localhost/base", "-t", "localhost/operator"]
    run("build", "--isolation=chroot", "--pull=never", *file, ".")
    container = run("from", "--pull=never", "localhost/operator").strip()
    assert "usage" in run("run", "--isolation=chroot", container, "--", "kopf", "--help").lower()
    assert run("run", "--isolation=chroot", container, "--", "id", "-u").strip() == "65532"
