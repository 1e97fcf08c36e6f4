"""The clocks of a rollout: how long pods may be missing, and which time counts towards it.

They stand in status. Where that is lost they begin again; nothing that is served depends on them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from enum import Enum, auto
from typing import Any

from mooring.core.clock import parse_time

#: After a gap in what the operator could see, a time that ran out meanwhile waits this long.
GRACE_AFTER_GAP = timedelta(seconds=60)
#: The stage of a candidate that gets no pods yet.
SCALED_TO_ZERO = "ScaledToZero"


class Clock(Enum):
    """What the progress deadline does now."""

    #: Pods are missing.
    RUNS = auto()
    #: Every pod of the step is there. What ran before is kept, or a crash loop would never end.
    STANDS = auto()
    #: A person holds the candidate, or has taken its pods: what ran before is forgotten.
    OFF = auto()


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a candidate has come: the most pods ever available, since when that is waited for
    without success, and since when no pod is missing.

    ``since`` is put off by the time in which none was missing.
    """

    revision: str
    most_available: int
    since: datetime
    staffed_since: datetime | None = None

    def advanced(self, revision: str, available: int, now: datetime) -> Progress:
        """Progress restarts for another revision, and only a new maximum counts as progress."""
        if revision != self.revision:
            return Progress(revision, available, now)
        if available > self.most_available:
            return replace(self, most_available=available, since=now)
        return self

    def deadline(self, allowed: timedelta, connected_since: datetime | None) -> datetime:
        """When waiting ends. What ran out while nobody could look is given some grace."""
        return ends(self.since, allowed, connected_since)


def follow(
    recorded: Mapping[str, Any],
    now: datetime,
    revision: str,
    step: int | None,
    available: int,
    clock: Clock,
    allowed: timedelta,
) -> Progress:
    """The progress of a revision in a step, from what status says of its rollout (``recorded``).

    Each step has the whole time, as has what follows after a person's hold. Where pods are lost
    again the time goes on from where it stood, unless all of them were there for as long as it
    lasts (``allowed``) in one piece: that was no crash loop.
    """
    fresh = Progress(revision, available, now, now if clock is Clock.STANDS else None)
    before = _read(recorded, revision, now)
    if before is None or recorded.get("step") != step:
        return fresh
    if clock is Clock.OFF:
        return replace(before, staffed_since=None).advanced(revision, available, now)
    if "deadline" not in recorded and before.staffed_since is None:
        return fresh  # it was off, or an older version wrote it
    if clock is Clock.STANDS:
        before = replace(before, staffed_since=before.staffed_since or now)
    elif before.staffed_since is not None:
        stood = now - before.staffed_since
        if stood >= allowed:
            return fresh
        before = replace(before, since=min(before.since + stood, now), staffed_since=None)
    return before.advanced(revision, available, now)


def stable_first(
    status: Mapping[str, Any], now: datetime, revision: str, *, scaled_to_zero: bool
) -> Progress | None:
    """Since when a candidate of a step waits for stable's first pod, after all were asked to go.

    None where it does not: it was given its pods since, or none had been taken from it.
    ``scaled_to_zero`` says that its Deployment has none, for a status that was lost.
    """
    if not status:
        return Progress(revision, 0, now) if scaled_to_zero else None
    recorded = status.get("rollout") or {}
    if recorded.get("revision") != revision or recorded.get("stage") != SCALED_TO_ZERO:
        return None
    waiting = _read(recorded, revision, now) if "until" in recorded else None
    return waiting or Progress(revision, 0, now)


def ends(since: datetime, lasts: timedelta, connected_since: datetime | None) -> datetime:
    """When a time is over that began at ``since``. Time in which nobody could look does not count
    for its end alone: after a gap at least a minute of it is left.
    """
    end = since + lasts
    if connected_since is None:
        return end
    return max(end, connected_since + min(lasts, GRACE_AFTER_GAP))


def _read(recorded: Mapping[str, Any], revision: str, now: datetime) -> Progress | None:
    """What status says, unless it is of another revision or cannot be read.

    A clock that was set back must not put a deadline off by as much.
    """
    if recorded.get("revision") != revision:
        return None
    try:
        since, most = parse_time(recorded["progressedAt"]), int(recorded["maxAvailable"])
        staffed = recorded.get("staffedSince")
        staffed_since = min(parse_time(staffed), now) if staffed is not None else None
    except (KeyError, TypeError, ValueError):
        return None
    return Progress(revision, most, min(since, now), staffed_since)
