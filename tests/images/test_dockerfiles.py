"""The Dockerfiles: read by rules, the operator's install measured, and its image built where buildah is to be had.

hadolint is a program in Haskell that no registry of ours offers, so its rules that matter here are tests.
"""

import json
import os
import re
import shutil
import ssl
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FILES = sorted((ROOT / "images").glob("*/Dockerfile"))
MAX_BYTES = 200 * 1000 * 1000
TRUSTED = "etc/ssl/certs/ca-certificates.crt"
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


@dataclass(frozen=True)
class Buildah:
    """buildah with its storage in a folder; what runs is separated by chroot, which needs no more of the machine."""

    storage: Path

    def __call__(self, *arguments: str) -> str:
        options = ["--root", str(self.storage / "root"), "--runroot", str(self.storage / "run"), "--storage-driver=vfs"]
        command = ["buildah", *options, *arguments]
        done = subprocess.run(command, check=False, capture_output=True, text=True, cwd=ROOT)
        assert done.returncode == 0, f"{arguments}: {done.stdout[-2000:]}{done.stderr[-2000:]}"
        return done.stdout.strip()

    def run(self, image: str, *command: str) -> str:
        """What a command in a container of the image writes."""
        container = self("from", "--pull=never", image)
        return self("run", "--isolation=chroot", container, "--", *command)


@pytest.fixture(scope="module")
def buildah(tmp_path_factory: pytest.TempPathFactory) -> Buildah:
    """With an image `localhost/base`: a Debian with Python, made here, so that no registry of images is needed. It
    trusts whom this machine trusts, as a company's base does.
    """
    folder = tmp_path_factory.mktemp("images")
    base, buildah = folder / "base", Buildah(folder)
    packages, mirror = "--include=python3,python3-venv,ca-certificates", "http://deb.debian.org/debian"
    subprocess.run(["debootstrap", "--variant=minbase", packages, "bookworm", str(base), mirror], check=True)
    trusted = ssl.get_default_verify_paths().cafile
    if trusted is not None:
        shutil.copyfile(trusted, base / TRUSTED)
    container = buildah("from", "scratch")
    buildah("add", container, str(base), "/")
    buildah("config", "--env", f"SSL_CERT_FILE=/{TRUSTED}", container)
    buildah("commit", container, "localhost/base")
    return buildah


@pytest.mark.platform
@pytest.mark.skipif(bool(LACKING), reason=f"no {' and no '.join(LACKING)}: images can not be built on this machine")
@pytest.mark.timeout(3600)
def test_buildah_builds_the_operators_image(buildah: Buildah) -> None:
    file = ["-f", "images/operator/Dockerfile", "--build-arg", "BASE=localhost/base", "-t", "localhost/operator"]
    buildah("build", "--isolation=chroot", "--pull=never", *file, ".")
    assert buildah.run("localhost/operator", "id", "-u") == "65532"
    assert "usage" in buildah.run("localhost/operator", "kopf", "--help").lower()
    assert "general language model" in buildah.run("localhost/operator", "bessemer", "--help")
    installed = buildah.run("localhost/operator", "du", "-sb", "/opt/bessemer").split()[0]
    assert int(installed) < MAX_BYTES
    shown = json.loads(buildah("inspect", "--type=image", "localhost/operator"))["OCIv1"]["config"]
    assert (shown["User"], shown["Cmd"][0]) == ("65532:65532", "kopf")
