"""A bare repository on this machine with one file, and what people do to it by git itself."""

import os
import subprocess
from dataclasses import dataclass
from pathlib import Path

FILE = "models/biomed/service.yaml"
KEY = "spec.model.storageUri"
TEXT = "# served\nspec:\n  model:\n    storageUri: s3://models/old   # by digest\n    replicas: 2\n"


def git(folder: Path, *arguments: str, check: bool = True) -> str:
    person = {f"GIT_{who}_{what}": "ana@example.com" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")}
    done = subprocess.run(
        ["git", *arguments], cwd=folder, env={**os.environ, **person}, check=check, capture_output=True, text=True
    )
    return done.stdout


@dataclass(frozen=True)
class Bare:
    """The repository, and a person's clone of it."""

    folder: Path
    person: Path

    @classmethod
    def make(cls, root: Path, text: str = TEXT, path: str = FILE) -> "Bare":
        bare = cls(root / "deploy.git", root / "person")
        root.mkdir(parents=True, exist_ok=True)
        git(root, "init", "--quiet", "--bare", "--initial-branch=main", str(bare.folder))
        git(root, "clone", "--quiet", str(bare.folder), str(bare.person))
        git(bare.person, "checkout", "--quiet", "-B", "main")
        bare.write(text, "begin", path)
        return bare

    @property
    def url(self) -> str:
        return f"file://{self.folder}"

    def write(self, text: str, message: str, path: str = FILE) -> None:
        """A person commits and pushes."""
        self.pull()
        place = self.person / path
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(text)
        self._push(message)

    def remove(self, path: str, message: str) -> None:
        """A person takes a file away."""
        self.pull()
        (self.person / path).unlink()
        self._push(message)

    def _push(self, message: str) -> None:
        git(self.person, "add", "--all")
        git(self.person, "commit", "--quiet", "-m", message)
        git(self.person, "push", "--quiet", "origin", "HEAD:refs/heads/main")

    def pull(self) -> None:
        git(self.person, "pull", "--quiet", "origin", "main", check=False)

    def show(self, path: str = FILE) -> str:
        """The file as the branch has it."""
        return git(self.folder, "show", f"main:{path}")

    def log(self) -> list[str]:
        """Subjects, oldest first."""
        return git(self.folder, "log", "--reverse", "--format=%s", "main").splitlines()
