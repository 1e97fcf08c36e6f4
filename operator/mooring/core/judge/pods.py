"""Restarts of the candidate's pods: a failure signal that no counter of the router shows.

A pod that crashes before it answers leaves few errors behind, since the router stops sending. What
is remembered: restarts of both sides as last seen, those counted on both sides, and when the last
one was.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

from mooring.core.judge.readings import Pods

#: So many restarts of candidate pods within the memory below fail the candidate.
LIMIT: Final = 2.0
#: Restarts are forgotten when there was none for so long (seconds).
MEMORY: Final = 600.0


@dataclass(frozen=True, slots=True)
class Restarts:
    """What follows: ``failed`` and why, or ``doubt``, which blocks Pass; and what to remember."""

    memory: tuple[float, ...]
    failed: str | None = None
    doubt: str | None = None


def judge_restarts(memory: tuple[float, ...], pods: Pods, now: float) -> Restarts:
    """Counts restarts since the last tick. A fall of a count is a pod that was replaced.

    Restarts that stable's pods have as well, per pod, are the cluster's fault and only doubt. No
    chance of error goes with this rule.
    """
    seen_c, seen_s = float(pods.candidate_restarts), float(pods.stable_restarts)
    if len(memory) == 5:
        last_c, last_s, c, s, at = memory
    else:
        # A candidate's pods are new with it; stable's may have restarted long ago.
        last_c, last_s, c, s, at = 0.0, seen_s, 0.0, 0.0, now
    new = max(seen_c - last_c, 0.0)
    if new > 0:
        at = now
    elif now < at or now - at > MEMORY:
        c = s = 0.0
        at = now
    c, s = c + new, s + max(seen_s - last_s, 0.0)
    kept = (seen_c, seen_s, c, s, at)
    if c >= LIMIT:
        per_pod = c / max(pods.candidate, 1), s / max(pods.stable, 1)
        if per_pod[1] * 2 > per_pod[0]:
            return Restarts(
                kept, doubt=f"pods of both revisions restart ({c:.0f} candidate, {s:.0f} stable)"
            )
        return Restarts(
            kept,
            failed=f"the candidate's pods restarted {c:.0f} times within "
            f"{math.ceil(MEMORY / 60)} minutes",
        )
    if c > 0:
        return Restarts(kept, doubt="a pod of the candidate has restarted")
    if pods.unscraped > 0:
        return Restarts(kept, doubt=f"{pods.unscraped} pods of the candidate cannot be scraped")
    return Restarts(kept)
