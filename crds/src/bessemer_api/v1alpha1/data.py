"""Data sets and how they are prepared; mixtures that a training stage reads."""

from collections.abc import Mapping
from typing import Annotated, ClassVar, Literal, Self

from pydantic import Field, model_validator

from bessemer_api.base import Model
from bessemer_api.fields import Digest, Fraction, Name, Uri

FilterName = Literal["gopherQuality", "gopherRepetition", "c4", "fineweb", "ocrDamage"]

DataKind = Literal["text", "messages", "promptCompletion", "preference", "prompts"]
"""Shape of a row; docs/data.md says which fields each has."""

DeriveRule = Literal["readingComprehension", "questionAnswer", "rejectedAnswers"]

DERIVED: Mapping[DeriveRule, tuple[DataKind, DataKind]] = {
    "readingComprehension": ("text", "text"),
    "questionAnswer": ("text", "promptCompletion"),
    "rejectedAnswers": ("promptCompletion", "preference"),
}
"""Kinds of the data set that a rule reads, and of the one that it makes."""


FieldName = Annotated[str, Field(min_length=1, max_length=64)]


class Fields(Model):
    """Names of the fields (JSON) or columns (Parquet) that hold a row."""

    messages: FieldName = Field("messages", description="List of messages, each with role and content.")
    prompt: FieldName = Field("prompt", description="Text or messages that are given.")
    completion: FieldName = Field("completion", description="Text or messages that answer the prompt.")
    chosen: FieldName = Field("chosen", description="The better answer.")
    rejected: FieldName = Field("rejected", description="The worse answer.")


class Source(Model):
    """One place that documents are read from."""

    uri: Uri = Field(description="File or folder: a path relative to the pipeline file (local runs), file:// or s3://.")
    sha256: Digest | None = Field(None, description="Expected digest of the content; a different content is refused.")
    text_field: Annotated[str, Field(max_length=64)] = Field(
        "text", description="Field (JSON) or column (Parquet) that holds the text of kind text."
    )
    fields: Fields | None = Field(
        None, description="Fields or columns of the source for the other kinds, where names differ: {prompt: question}."
    )


class Filter(Model):
    """One quality filter of a document."""

    name: FilterName = Field(description="Which published rule set is applied.")
    mode: Literal["enforce", "report"] = Field(
        "enforce", description="enforce rejects documents; report only counts what would be rejected."
    )
    thresholds: dict[Annotated[str, Field(max_length=64)], float] = Field(
        default_factory=dict, max_length=32, description="Thresholds that differ from the published ones, by name."
    )


class MinHash(Model):
    """Near-duplicate detection by MinHash with banding (locality sensitive hashing)."""

    ngram: int = Field(5, ge=1, le=50, description="Words in a shingle.")
    buckets: int = Field(14, ge=1, le=256, description="Bands of the signature.")
    hashes_per_bucket: int = Field(8, ge=1, le=64, description="Hashes in a band; all must agree.")


class Dedupe(Model):
    """Removal of duplicate documents; the first of each group stays."""

    exact: bool = Field(True, description="Drop documents whose normalised text is equal to an earlier one.")
    minhash: MinHash | None = Field(None, description="Drop near duplicates; absent switches it off.")


class Decontaminate(Model):
    """Removal of documents that contain evaluation items."""

    against: list[Name] = Field(min_length=1, max_length=16, description="Names of item banks (evaluation.banks).")
    ngram: int = Field(13, ge=3, le=64, description="Words in an n-gram.")
    max_hit_ratio: Fraction = Field(
        0.02, description="A document is rejected when more than this share of its n-grams occur in a bank."
    )


class Prepare(Model):
    """What happens to a data set before anything trains on it, in this order."""

    filters: list[Filter] = Field(
        default_factory=list,
        max_length=8,
        description="Quality filters, in order.",
        json_schema_extra={"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"]},
    )
    dedupe: Dedupe = Field(default_factory=lambda: Dedupe.model_validate({}), description="Duplicate removal.")
    decontaminate: Decontaminate | None = Field(None, description="Removal of documents that contain bank items.")
    min_characters: int = Field(1, ge=0, le=1_000_000, description="Shorter documents are rejected.")
    on_bad_row: Literal["reject", "fail"] = Field(
        "reject", description="A row that can not be read: keep it beside the result with its reason, or fail."
    )


class Derive(Model):
    """Rows that are made from another data set by rule: no model takes part. Equal seeds give equal rows."""

    from_: Name = Field(alias="from", description="Data set that is read as it is prepared.")
    rule: DeriveRule = Field(
        description="readingComprehension: texts followed by tasks about them (from text, to text); questionAnswer: "
        "questions with answers found in the text (from text, to promptCompletion); rejectedAnswers: a worse answer "
        "beside the right one (from promptCompletion, to preference)."
    )
    per_row: int = Field(4, ge=1, le=64, description="Most tasks, questions or pairs that one row gives.")
    reject_by: Literal["distractor", "corruption", "both"] = Field(
        "distractor",
        description="rejectedAnswers: the answer of another question, the right answer with something in it changed, "
        "or the one or the other in turn.",
    )


class DataSet(Model):
    """A named data set, read from sources or derived from another set; prepared once and pinned by digest."""

    kind: DataKind = Field(
        "text",
        description="Shape of a row: text, messages, promptCompletion, preference (prompt, chosen, rejected) or "
        "prompts (a prompt and what its verifier needs).",
    )
    sources: list[Source] = Field(
        default_factory=list, max_length=64, description="Where documents are read from, in order."
    )
    derive: Derive | None = Field(None, description="Make the rows from another data set, instead of sources.")
    prepare: Prepare = Field(default_factory=lambda: Prepare.model_validate({}), description="Preparation rules.")
    holdout: Annotated[float, Field(ge=0, le=0.5)] = Field(
        0.0,
        description="Share of documents that is set aside and never trained on; the stage reports its loss. What is "
        "derived from a document that was set aside is set aside too.",
    )
    expected_tokens: int | None = Field(
        None, ge=1, le=10**15, description="Its size after preparation, about: for estimates before it is prepared."
    )
    cel: ClassVar[tuple[tuple[str, str], ...]] = (
        (
            "has(self.derive) != (has(self.sources) && size(self.sources) > 0)",
            "a data set has either sources or derive",
        ),
        (
            "!has(self.derive) || self.kind == {'readingComprehension': 'text', 'questionAnswer': 'promptCompletion', "
            "'rejectedAnswers': 'preference'}[self.derive.rule]",
            "derive.rule makes rows of another kind than this data set",
        ),
    )

    @model_validator(mode="after")
    def _comes_from_one_place(self) -> Self:
        if (self.derive is None) != bool(self.sources):
            raise ValueError("a data set has either sources or derive")
        if self.derive is not None and DERIVED[self.derive.rule][1] != self.kind:
            raise ValueError("derive.rule makes rows of another kind than this data set")
        return self


class MixtureEntry(Model):
    """One part of a mixture."""

    ref: Name = Field(description="Name of a data set.")
    weight: Annotated[float, Field(gt=0, le=1000)] = Field(
        1.0, description="Share of the tokens that are drawn from this set, relative to the other weights."
    )


class Mixture(Model):
    """What a stage trains on."""

    mixture: list[MixtureEntry] = Field(
        min_length=1,
        max_length=32,
        description="Data sets and their share of the tokens.",
        json_schema_extra={"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["ref"]},
    )
    sequence_length: int = Field(1024, ge=8, le=1_048_576, description="Tokens in one training sequence.")
    packing: bool = Field(
        True, description="Pack several documents in a sequence; attention never crosses a document's border."
    )
