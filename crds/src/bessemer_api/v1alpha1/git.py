"""A git target: the file of a deploy repository in which a promotion changes one scalar. Says nothing of credentials:

the administrator gives them to a profile, with the repositories that they are for, so that no pipeline can send them
anywhere else.
"""

from typing import Annotated, ClassVar, Literal, Self

from pydantic import Field, model_validator

from bessemer_api.base import Model
from bessemer_api.fields import Digest, Duration, Url

_HOST = r"[A-Za-z0-9]([A-Za-z0-9.-]*[A-Za-z0-9])?(:[0-9]{1,5})?"
_STEPS = r"(/[A-Za-z0-9_~][A-Za-z0-9._~-]*)+"
REPOSITORY_PATTERN = rf"^(https://{_HOST}{_STEPS}|ssh://([a-z_][a-z0-9_-]{{0,31}}@)?{_HOST}{_STEPS}|file://{_STEPS})$"
"""No password, query, fragment, percent sign, `..`, or part that begins with a dash can be written at all."""

_PART = r"[A-Za-z0-9_][A-Za-z0-9_-]*(\.[A-Za-z0-9_-]+)*"
PATH_PATTERN = rf"^{_PART}(/{_PART})*$"
"""A relative path or a branch; no part begins with a dot or a dash, no two dots in a row."""

Repository = Annotated[str, Field(pattern=REPOSITORY_PATTERN, max_length=512)]
RepositoryPath = Annotated[str, Field(pattern=PATH_PATTERN, max_length=256)]
Branch = Annotated[str, Field(pattern=PATH_PATTERN, max_length=128)]
Key = Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)*$", max_length=256)]

NEEDS_PROVIDER = "mode pullRequest needs the provider, and an https repository"
NO_PROVIDER = "provider belongs to mode pullRequest"


class GitTarget(Model):
    """The scalar that says, in a deploy repository, which model is served."""

    repository: Repository = Field(description="https://, ssh://, or file:// on this machine; never with a password.")
    branch: Branch = Field("main", description="Branch that is deployed.")
    path: RepositoryPath = Field(description="YAML file in it; it must exist.")
    key: Key = Field(
        description="The scalar, by dots: spec.predictor.model.storageUri; a number counts in a list. It must exist. "
        "It will hold the URL of the promoted folder, by digest."
    )
    mode: Literal["push", "pullRequest"] = Field(
        "push", description="push: a commit on the branch. pullRequest: it is proposed, and a person merges it."
    )
    provider: Literal["gitea", "github"] | None = Field(
        None, description="Whose API opens the pull request: gitea (Forgejo too) or github (Enterprise too)."
    )
    evidence: RepositoryPath = Field(
        "evidence", description="Folder of the evidence files, one for each promotion; it is made where it is missing."
    )
    poll_every: Duration = Field("1m", description="How often it is looked whether a pull request has been merged.")
    cel: ClassVar[tuple[tuple[str, str], ...]] = (
        (
            "!has(self.mode) || self.mode != 'pullRequest' || "
            "(has(self.provider) && self.repository.startsWith('https://'))",
            NEEDS_PROVIDER,
        ),
        ("(has(self.mode) && self.mode == 'pullRequest') || !has(self.provider)", NO_PROVIDER),
    )

    @model_validator(mode="after")
    def _provider_opens_pull_requests(self) -> Self:
        if self.mode != "pullRequest" and self.provider is not None:
            raise ValueError(NO_PROVIDER)
        if self.mode == "pullRequest" and (self.provider is None or not self.repository.startswith("https://")):
            raise ValueError(NEEDS_PROVIDER)
        return self


class MergeWait(Model):
    """A change in git that waits for a person."""

    digest: Digest = Field(description="Checkpoint that is proposed.")
    url: Url = Field("", description="The pull request.")
    round: int = Field(0, ge=0, description="How often it has been looked at again.")
