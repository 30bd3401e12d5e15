"""Base model of every wire type, references between kinds, and conditions shaped as metav1.Condition."""

from typing import Annotated, Any, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field
from pydantic.alias_generators import to_camel

from bessemer_api.fields import Text, Timestamp


class Model(BaseModel):
    """Frozen; camelCase on the wire; unknown fields are refused.

    `cel` lists (rule, message) pairs that the CRD carries as x-kubernetes-validations; each has a pydantic
    validator beside it that decides the same, and one table of cases tests both.
    """

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        alias_generator=to_camel,
        populate_by_name=True,
        validate_default=True,
        allow_inf_nan=False,
        protected_namespaces=(),
    )
    cel: ClassVar[tuple[tuple[str, str], ...]] = ()

    def wire(self) -> dict[str, Any]:
        """The JSON document as it is sent: camelCase, without absent optional fields."""
        return self.model_dump(mode="json", by_alias=True, exclude_none=True)


class Condition(Model):
    """One condition, shaped as metav1.Condition."""

    type: Annotated[str, Field(max_length=64)] = Field(description="Name of the condition, for example Promoted.")
    status: Literal["True", "False", "Unknown"] = Field(description="Whether the condition holds.")
    reason: Annotated[str, Field(max_length=64)] = Field(description="One PascalCase word that says why.")
    message: Annotated[str, Field(max_length=4096)] = Field("", description="One sentence for people.")
    last_transition_time: Timestamp = Field(description="When status last changed.")
    observed_generation: int = Field(0, ge=0, description="Generation of the spec that this was decided for.")


class Metadata(BaseModel):
    """The part of ObjectMeta that we read. Unknown fields are kept out of the way, not refused."""

    model_config = ConfigDict(frozen=True, extra="ignore", alias_generator=to_camel, populate_by_name=True)
    name: Annotated[str, Field(pattern=r"^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$", max_length=63)]
    namespace: str = "default"
    uid: str = ""
    generation: int = 0
    resource_version: str = ""
    labels: dict[str, str] = Field(default_factory=dict)
    annotations: dict[str, str] = Field(default_factory=dict)
    creation_timestamp: str = ""
    deletion_timestamp: str | None = None


Conditions = Annotated[
    list[Condition],
    Field(max_length=16, json_schema_extra={"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["type"]}),
]

__all__ = ["Condition", "Conditions", "Metadata", "Model", "Text"]
