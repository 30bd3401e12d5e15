"""The clock of the shell, and times as Kubernetes writes them. Nothing that decides may import this."""

from __future__ import annotations

from datetime import UTC, datetime


def utc_now() -> datetime:
    """Now, with its time zone."""
    return datetime.now(UTC)  # noqa: TID251 - the one place; what decides gets time as an argument


def stamp(moment: datetime) -> str:
    """RFC 3339 to the second, as in metadata.creationTimestamp."""
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def now_stamp() -> str:
    """Now, as text."""
    return stamp(utc_now())
