"""Hand a checkpoint over to the deploy repository: change one scalar, add the evidence, by a push or a pull request.

A promotion has an id, which its commit carries as a trailer, and its branch and evidence file in their names. So it is
done once, however often it runs; and when its commit is in the history but its value no longer in the file, a person
has taken it back, which is stated and not fought. Nothing is ever pushed by force.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bessemer_api.digest import canonical_json, sha256_digest
from bessemer_api.v1alpha1.git import GitTarget
from bessemer_trainer.errors import PermanentError, TransientError
from bessemer_trainer.forge import Forge, PullRequest
from bessemer_trainer.gitrepo import Clone, Credentials, OvertakenError
from bessemer_trainer.scalar import read_scalar, replace_scalar
from bessemer_trainer.store import Store

TRAILER = "Bessemer-Promotion"
_RACES = 10
"""Pushes that were overtaken after which it is tried again later."""


@dataclass(frozen=True, slots=True)
class Change:
    """What shall stand in git. `evidence` says why; the same evidence is the same promotion."""

    target: GitTarget
    value: str
    subject: str
    evidence: Mapping[str, Any]

    @property
    def id(self) -> str:
        """Identity of the promotion: 16 hexadecimal digits."""
        place = {name: getattr(self.target, name) for name in ("repository", "branch", "path", "key")}
        about = {"target": place, "value": self.value, "evidence": dict(self.evidence)}
        return sha256_digest(canonical_json(about)).removeprefix("sha256:")[:16]

    @property
    def branch(self) -> str:
        return f"bessemer/{self.id}"

    @property
    def message(self) -> str:
        lines = [f"{name}: {value}" for name, value in self.evidence.items() if isinstance(value, str) and value]
        return "\n".join([self.subject, "", *lines, f"{TRAILER}: {self.id}", ""])


@dataclass(frozen=True, slots=True)
class HandedOver:
    """Git has it by `commit`; or, without one, a person has to merge `url`."""

    commit: str = ""
    url: str = ""


def git_entry(target: GitTarget | None, done: HandedOver | None) -> dict[str, Any]:
    """What a channel's record says of git."""
    if target is None or done is None:
        return {}
    place = {name: getattr(target, name) for name in ("repository", "branch", "path", "key")}
    return {"git": {**place, "commit": done.commit}}


def evidence_of(store: Store, digest: str | None) -> dict[str, Any]:
    """The numbers that a gate decided from, by axis; nothing where a record names no evidence."""
    if digest is None:
        return {}
    document = json.loads((store.fetch(digest) / "evidence.json").read_bytes())
    axes = document["report"]["axes"]
    names = ("n", "delta", "standardError", "low", "high", "baselineMean", "candidateMean")
    return {"axes": {axis["name"]: {name: axis[name] for name in names} for axis in axes}}


def hand_over(change: Change, scratch: Path, credentials: Credentials | None = None) -> HandedOver:
    """Do it, or find that it is done.

    Raises PermanentError(Git...), which names what a person has to do; TransientError(GitUnreachable | GitContended).
    """
    known = credentials or Credentials.find()
    for _ in range(_RACES):
        clone = Clone.make(change.target.repository, change.target.branch, scratch / "git", known)
        try:
            return _done(change, clone) or _propose(change, clone)
        except OvertakenError:
            continue
    where = f"{change.target.repository}, branch {change.target.branch}"
    raise TransientError("GitContended", f"{where}: {_RACES} times somebody else pushed first")


def _done(change: Change, clone: Clone) -> HandedOver | None:
    """Whether the branch has it: by our commit, or because a person wrote the same."""
    found = clone.find_trailer(TRAILER, change.id)
    now = read_scalar(_text(change, clone), change.target.key)
    if now == change.value:
        return HandedOver(found or clone.last_change(change.target.path))
    if found is None:
        return None
    raise PermanentError(
        "RevertedInGit",
        f"{change.target.repository}: {change.target.branch} had it by {found[:12]}, and {change.target.key} was "
        f"changed again by {clone.last_change(change.target.path)[:12]}; a person's change is not overwritten. Revert "
        "that commit and annotate bessemer.dev/retry to go on",
    )


def _propose(change: Change, clone: Clone) -> HandedOver:
    if change.target.mode == "push":
        commit = _write(change, clone)
        clone.push(change.target.branch)
        return HandedOver(commit)
    forge = Forge(change.target, clone.credentials)
    request = forge.find(change.branch)
    if request is None:
        if not clone.has_remote_branch(change.branch):
            _write(change, clone)
            clone.push(change.branch)
        request = forge.open(change.branch, change.subject, change.message)
    if not request.is_open:
        raise _closed(change, request)
    return HandedOver(url=request.url)


def _closed(change: Change, request: PullRequest) -> PermanentError:
    if request.is_merged:
        message = f"{request.url} was merged, but {change.target.branch} does not have {change.target.key} as proposed"
        return PermanentError("RevertedInGit", f"{message}; a person's change is not overwritten")
    fix = "open it again and annotate bessemer.dev/retry to go on"
    return PermanentError("MergeDeclined", f"{request.url} was closed without a merge; {fix}")


def _write(change: Change, clone: Clone) -> str:
    """Commit the scalar and the evidence."""
    text = replace_scalar(_text(change, clone), change.target.key, change.value)
    evidence = f"{change.target.evidence}/{change.id}.json"
    document = {"promotion": change.id, "value": change.value, **change.evidence}
    written = {change.target.path: text, evidence: json.dumps(document, indent=2, sort_keys=True) + "\n"}
    for path, content in written.items():
        place = _inside(clone, path)
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(content.encode())
    return clone.commit(list(written), change.message)


def _text(change: Change, clone: Clone) -> str:
    place = _inside(clone, change.target.path)
    if not place.is_file():
        where = f"{change.target.repository}, branch {change.target.branch}"
        raise PermanentError("GitFileMissing", f"{where}: there is no file {change.target.path}")
    try:
        return place.read_bytes().decode()
    except UnicodeDecodeError:
        raise PermanentError("GitFileInvalid", f"{change.target.path} is no UTF-8 text") from None


def _inside(clone: Clone, path: str) -> Path:
    """The file, which is no way out of the clone. Links were not checked out as links, so this is a second lock."""
    place = clone.folder / path
    if not place.resolve().is_relative_to(clone.folder.resolve()) or place.is_symlink():
        raise PermanentError("GitFileInvalid", f"{path} leads out of the repository")
    return place
