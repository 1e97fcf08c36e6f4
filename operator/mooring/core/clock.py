"""Times as the API writes them. The core never asks what time it is: ``now`` is an input."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Final

from mooring.api.schema_types import format_time

__all__ = ["CLOCK_SET_BACK", "annotated_time", "format_time", "parse_time"]

#: A sample that is older than the last by less is a late answer, else the clock was set back (s).
CLOCK_SET_BACK: Final = 300.0


def parse_time(text: str) -> datetime:
    """Reads RFC 3339 into UTC; raises ValueError otherwise. Without zone it is taken as UTC."""
    moment = datetime.fromisoformat(text)
    try:
        return moment.astimezone(UTC) if moment.tzinfo else moment.replace(tzinfo=UTC)
    except OverflowError as error:
        # The API server takes it, and in UTC it is no year of four digits.
        raise ValueError(f"{text} is too far away") from error


def annotated_time(manifest: Mapping[str, Any], annotation: str) -> datetime | None:
    """A moment from an object's annotation; None where there is none that can be read."""
    try:
        return parse_time(manifest["metadata"]["annotations"][annotation])
    except (KeyError, TypeError, ValueError):
        return None
