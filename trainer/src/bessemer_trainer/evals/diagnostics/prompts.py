"""Which axes have prompts that can be answered in free text. No measuring here."""

GENERATING = (
    "distinctValidNovel",
    "verifiableConstraints",
    "verified",
    "reasoningGym",
    "exactMatch",
    "jsonAnswer",
    "toolCall",
    "multipleChoice",
)
"""Tasks whose items carry a `prompt`, the freest answers first."""
