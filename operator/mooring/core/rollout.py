"""The rollout: every rule that moves a candidate on, in one table, first match wins.

A candidate is the revision that the spec asks for while another one is stable, or while none is.
The facts are plain values; what follows from them is written down by :mod:`mooring.core.plan`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum

#: After a gap in what the operator could see, a deadline that ran out meanwhile waits this long.
GRACE_AFTER_GAP = timedelta(seconds=60)


class Move(StrEnum):
    """What to do with the candidate now."""

    STAY = "Stay"
    WAIT = "Wait"
    #: Waits for a person, so no deadline runs.
    HOLD = "Hold"
    PROMOTE = "Promote"
    REJECT = "Reject"


@dataclass(frozen=True, slots=True)
class Facts:
    """What the table looks at.

    ``complete``: all pods that the candidate should have are available. ``serving``: at least one
    is. ``overdue``: no new pod became available within the progress deadline. ``steps``: the spec
    asks for traffic steps. ``zero``: no pods are asked for at all.
    """

    candidate: bool
    has_stable: bool = False
    stable_serving: bool = False
    complete: bool = False
    serving: bool = False
    paused: bool = False
    steps: bool = False
    overdue: bool = False
    zero: bool = False


@dataclass(frozen=True, slots=True)
class Rule:
    """One row: when it holds, this move, for this reason, which people may read."""

    reason: str
    when: Callable[[Facts], bool]
    move: Move
    message: str


RULES: tuple[Rule, ...] = (
    Rule("NoCandidate", lambda f: not f.candidate, Move.STAY, "nothing is rolling out"),
    Rule(
        "FirstRevision",
        lambda f: not f.has_stable and (f.serving or f.zero),
        Move.PROMOTE,
        "it is the first revision",
    ),
    Rule(
        "Paused",
        lambda f: f.paused,
        Move.HOLD,
        "paused by hand: resume or abort it",
    ),
    Rule(
        "StepsNotSupported",
        lambda f: f.steps and f.has_stable and f.stable_serving,
        Move.HOLD,
        "this version cannot split traffic by spec.rollout.steps: remove them, and the candidate "
        "takes over when all its pods are ready",
    ),
    Rule("Complete", lambda f: f.complete, Move.PROMOTE, "all pods of the candidate are ready"),
    Rule(
        "StableNotServing",
        lambda f: f.has_stable and not f.stable_serving and f.serving,
        Move.PROMOTE,
        "stable does not serve, and the candidate does",
    ),
    Rule(
        "ProgressDeadlineExceeded",
        lambda f: f.overdue and f.has_stable,
        Move.REJECT,
        "no further pod became ready in time",
    ),
    Rule("Starting", lambda f: True, Move.WAIT, "waiting for the candidate's pods"),
)


def next_move(facts: Facts) -> Rule:
    """The first rule that holds; the last one always does."""
    return next(rule for rule in RULES if rule.when(facts))


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a candidate has come: the most pods ever available, and since when."""

    revision: str
    most_available: int
    since: datetime

    def advanced(self, revision: str, available: int, now: datetime) -> Progress:
        """Progress restarts for another revision, and only a new maximum counts as progress."""
        if revision != self.revision:
            return Progress(revision, available, now)
        if available > self.most_available:
            return Progress(revision, available, now)
        return self

    def deadline(self, allowed: timedelta, connected_since: datetime | None) -> datetime:
        """When waiting ends. What ran out while nobody could look is given some grace."""
        end = self.since + allowed
        if connected_since is None:
            return end
        return max(end, connected_since + min(allowed, GRACE_AFTER_GAP))
