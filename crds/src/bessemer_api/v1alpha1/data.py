"""Data sets and how they are prepared; mixtures that a training stage reads."""

from typing import Annotated, Literal

from pydantic import Field

from bessemer_api.base import Model
from bessemer_api.fields import Digest, Fraction, Name, Uri

FilterName = Literal["gopherQuality", "gopherRepetition", "c4", "fineweb", "ocrDamage"]


class Source(Model):
    """One place that documents are read from."""

    uri: Uri = Field(description="File or folder: a path relative to the pipeline file (local runs), file:// or s3://.")
    sha256: Digest | None = Field(None, description="Expected digest of the content; a different content is refused.")
    text_field: Annotated[str, Field(max_length=64)] = Field("text", description="JSON field that holds the text.")


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


class DataSet(Model):
    """A named data set; prepared once and pinned by digest."""

    kind: Literal["text", "messages", "promptCompletion", "preference", "prompts"] = Field(
        "text", description="Shape of a record."
    )
    sources: list[Source] = Field(min_length=1, max_length=64, description="Where documents are read from, in order.")
    prepare: Prepare = Field(default_factory=lambda: Prepare.model_validate({}), description="Preparation rules.")
    holdout: Annotated[float, Field(ge=0, le=0.5)] = Field(
        0.0, description="Share of documents that is set aside and never trained on; the stage reports its loss."
    )
    expected_tokens: int | None = Field(
        None, ge=1, le=10**15, description="Its size after preparation, about: for estimates before it is prepared."
    )


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
