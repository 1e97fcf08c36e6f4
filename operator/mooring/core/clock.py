"""Times as the API writes them. The core never asks what time it is: ``now`` is an input."""

from __future__ import annotations

from datetime import UTC, datetime

from mooring.api.schema_types import format_time

__all__ = ["format_time", "parse_time"]


def parse_time(text: str) -> datetime:
    """Reads RFC 3339; raises ValueError otherwise. A time without zone is taken as UTC."""
    moment = datetime.fromisoformat(text)
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)
