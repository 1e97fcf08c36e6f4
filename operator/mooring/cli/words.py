"""Values as people read them: times, places of models, and texts that others wrote."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta

_SHORT_DIGEST = 12
_UNITS = {"h": "hours", "m": "minutes", "s": "seconds", "ms": "milliseconds"}
_DURATION = re.compile(r"(\d+(?:\.\d+)?)(ms|h|m|s)")


def plain(value: object) -> str:
    """One line without control characters, whatever somebody has written into the cluster."""
    return visible(" ".join(str(value if value is not None else "").split()))


def visible(text: str) -> str:
    """The text with a mark for each control character: none may move the user's cursor."""
    return "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in text)


def moment(text: object) -> datetime | None:
    """A time as the API writes it; None for anything else."""
    if not isinstance(text, str):
        return None
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        return None
    return found if found.tzinfo else found.replace(tzinfo=UTC)


def span(duration: timedelta) -> str:
    """A time span by its two greatest units: 45s, 12m04s, 3h05m, 2d04h."""
    seconds = max(0, int(duration.total_seconds()))
    minutes, hours, days = seconds // 60, seconds // 3600, seconds // 86400
    if minutes < 1:
        return f"{seconds}s"
    if hours < 1:
        return f"{minutes}m{seconds % 60:02d}s"
    if days < 1:
        return f"{hours}h{minutes % 60:02d}m"
    return f"{days}d{hours % 24:02d}h"


def age(since: object, now: datetime) -> str:
    """How long ago this was, by its greatest unit as kubectl has it; empty when it is no time."""
    found = moment(since)
    if found is None:
        return ""
    seconds = max(0, int((now - found).total_seconds()))
    for size, unit in ((86400, "d"), (3600, "h"), (60, "m")):
        if seconds >= 2 * size:
            return f"{seconds // size}{unit}"
    return f"{seconds}s"


def clock(at: object, now: datetime) -> str:
    """The time of day in UTC, with the date when it is another day."""
    found = moment(at)
    if found is None:
        return plain(at)
    found = found.astimezone(UTC)
    return found.strftime("%H:%M:%SZ" if found.date() == now.date() else "%Y-%m-%d %H:%M:%SZ")


def short_digest(digest: object) -> str:
    """As much of a digest as tells two apart."""
    text = plain(digest)
    name, _, rest = text.partition(":")
    return f"{name}:{rest[:_SHORT_DIGEST]}" if rest else text


def short_uri(uri: object, width: int) -> str:
    """A model's place in at most ``width`` columns: its scheme and the end of its path."""
    text = plain(uri)
    if len(text) <= width:
        return text
    scheme, separator, rest = text.partition("://")
    head = scheme + separator + "…" if separator else "…"
    tail = rest if separator else text
    room = max(1, width - len(head))
    cut = tail[-room:]
    # Whole segments read better than half ones, where that costs little.
    slash = cut.find("/")
    return head + (cut[slash:] if 0 <= slash < room // 2 else cut)


def count(number: int, noun: str) -> str:
    """``1 pod``, ``2 pods``."""
    return f"{number} {noun}{'' if number == 1 else 's'}"


def parse_duration(text: str) -> timedelta:
    """A Go duration (10m, 1h30m, 0s); raises ValueError otherwise.

    The API's own parser would do, but importing the API costs half a second of every command.
    """
    if not text or _DURATION.sub("", text):
        raise ValueError("write a duration such as 90s, 10m or 1h30m")
    try:
        parts = [timedelta(**{_UNITS[u]: float(n)}) for n, u in _DURATION.findall(text)]
        return sum(parts, timedelta())
    except OverflowError:
        raise ValueError("that is longer than a duration can be") from None
