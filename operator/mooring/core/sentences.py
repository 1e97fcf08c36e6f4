"""Sentences for status and Events."""

from __future__ import annotations

from mooring.api.schema_types import MESSAGE_LENGTH


def bounded(message: str, most: int = MESSAGE_LENGTH) -> str:
    """As much of it as the schema lets into status: a status must always be writable."""
    return message if len(message) <= most else message[: most - 1] + "…"
