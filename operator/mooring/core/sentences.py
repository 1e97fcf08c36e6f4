"""Sentences for status and Events."""

from __future__ import annotations

from mooring.api.schema_types import MESSAGE_LENGTH


def bounded(message: str) -> str:
    """As much of it as the schema lets into status: a status must always be writable."""
    if len(message) <= MESSAGE_LENGTH:
        return message
    return message[: MESSAGE_LENGTH - 1] + "…"
