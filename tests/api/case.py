"""One case of a rule that one object can decide."""

from dataclasses import dataclass, field
from typing import Any

from tests.api.documents import DOCUMENTS, Document, edited


@dataclass(frozen=True)
class Case:
    """A document, and whether it is accepted; if not, a part of the message (the same from both judges)."""

    id: str
    refused: str = ""
    edits: dict[str, Any] = field(default_factory=dict)
    kind: str = "AdaptationPipeline"

    @property
    def document(self) -> Document:
        return edited(DOCUMENTS[self.kind], self.edits)
