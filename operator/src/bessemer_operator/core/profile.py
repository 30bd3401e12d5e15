"""Profiles: an administrator's named ways of running pods. A pipeline names one and can say nothing else about pods."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from bessemer_api.base import Model
from bessemer_api.fields import Duration

SECRET_PATTERN = r"^bessemer-[a-z0-9]([-a-z0-9]*[a-z0-9])?$"  # noqa: S105 - a pattern of names, no secret


AcceleratorKind = Literal[
    "a10g-24gb",
    "l4-24gb",
    "rtx4090-24gb",
    "l40s-48gb",
    "a100-40gb",
    "a100-80gb",
    "h100-pcie-80gb",
    "h100-80gb",
    "h200-141gb",
    "b200-180gb",
    "mi300x-192gb",
]


class Toleration(Model):
    """A toleration, as in a pod."""

    key: str = ""
    operator: Literal["Exists", "Equal"] = "Exists"
    value: str = ""
    effect: Literal["", "NoSchedule", "PreferNoSchedule", "NoExecute"] = ""


class Accelerator(Model):
    """What one process of a pod computes on, for estimates only. `kind` names a row of core/accelerators.py."""

    kind: AcceleratorKind | None = Field(None, description="A known one; the fields below override its numbers.")
    memory_gib: Annotated[float, Field(gt=0, le=100_000)] | None = Field(None, description="Memory that can be used.")
    teraflops: Annotated[float, Field(gt=0, le=1e6)] | None = Field(
        None, description="Peak of dense bf16 arithmetic, in 10^12 operations a second."
    )
    utilisation: Annotated[float, Field(gt=0, le=1)] | None = Field(
        None, description="Share of the peak that training reaches (MFU)."
    )


class Profile(Model):
    """How pods of one kind of work run."""

    image: str = Field("bessemer-trainer", description="Image, by digest in production.")
    image_pull_policy: Literal["Always", "IfNotPresent", "Never"] = "IfNotPresent"
    cpu: str = Field("1", description="CPU request and limit of a pod.")
    memory: str = Field("2Gi", description="Memory request and limit of a pod.")
    gpus: int = Field(0, ge=0, le=64, description="GPUs of a pod; each gets one process.")
    processes_per_node: int = Field(1, ge=1, le=64, description="Processes of a training pod without GPUs.")
    accelerator: Accelerator | None = Field(None, description="What a process computes on, for `bessemer plan`.")
    shared_memory: str = Field("1Gi", description="Size of /dev/shm.")
    node_selector: dict[str, str] = Field(default_factory=dict)
    tolerations: list[Toleration] = Field(default_factory=list)
    service_account: str = Field("default", description="Account of the pods; its token is never mounted.")
    store_secret: Annotated[str, Field(pattern=SECRET_PATTERN)] | None = Field(
        None, description="Secret whose keys become environment variables (AWS_...); its name begins with bessemer-."
    )
    git_secret: Annotated[str, Field(pattern=SECRET_PATTERN)] | None = Field(
        None,
        description="Secret that promotion Jobs with a git target mount as files: `username` and `password` (or "
        "`token` alone), `ssh-privatekey` with `known_hosts`, `ca.crt`.",
    )
    git_repositories: list[Annotated[str, Field(max_length=512)]] = Field(
        default_factory=list,
        description="What git targets may name: a repository, or, with a slash at the end, all below it. The Secret is "
        "never shown to another server. Empty: any, which is refused together with a Secret.",
    )
    signing_secret: Annotated[str, Field(pattern=SECRET_PATTERN)] | None = Field(
        None,
        description="Secret with `private.pem` and `public.pem` (one key or several): what is promoted is signed, and "
        "what is used of a channel must be. The private key is mounted into promotion Jobs alone.",
    )
    environment: dict[str, str] = Field(default_factory=dict, description="Variables that the administrator sets.")
    queue: str | None = Field(None, description="Kueue LocalQueue.")
    priority_class: str | None = None
    grace_period_seconds: int = Field(120, ge=1, le=86_400, description="Covers the longest step and a save.")
    pending_deadline: Duration = Field("10m", description="A pod that waits longer for a node becomes a condition.")

    @model_validator(mode="after")
    def _secret_is_for_named_repositories(self) -> Self:
        if self.git_secret is not None and not self.git_repositories:
            raise ValueError("gitSecret needs gitRepositories: what the Secret may be shown to")
        return self

    def allows(self, repository: str) -> bool:
        """Whether a git target may name this repository."""
        allowed = self.git_repositories
        return not allowed or any(
            repository.startswith(item) if item.endswith("/") else repository == item for item in allowed
        )

    @property
    def ranks(self) -> int:
        """Processes of one training pod."""
        return self.gpus or self.processes_per_node
