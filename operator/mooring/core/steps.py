"""The steps of a rollout: what one began with, where it stands, and what each step asks for.

They are pinned in the record of the candidate when its rollout begins, so an edit of the spec
changes no running rollout; and so is the place in them, since what is served depends on it.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any

from mooring.api import RolloutSpec, RolloutStep, parse_duration
from mooring.core.clock import format_time, parse_time

#: Unset means that stable stays whole until the promotion.
FULL_SURGE = "100%"


@dataclass(frozen=True, slots=True)
class RolloutPlan:
    """A rollout as pinned.

    ``index`` counts the steps that are done; None while this revision is not rolling out. ``since``
    is when the present step's traffic was taken; ``stopped`` is since when the step's time stands
    still, because the candidate has no pod. ``bake`` is how long the previous revision is kept
    after the promotion, with ``previous_weight`` percent of the traffic. ``attempt`` counts the
    rollouts of the revision before this one: each may spend the analysis' alpha anew.
    """

    steps: tuple[RolloutStep, ...] = ()
    bake: timedelta | None = None
    previous_weight: int = 0
    max_surge: str = FULL_SURGE
    index: int | None = 0
    since: datetime | None = None
    stopped: datetime | None = None
    attempt: int = 0

    @classmethod
    def begin(cls, spec: RolloutSpec) -> RolloutPlan:
        """The plan of a rollout that begins now."""
        return cls(
            steps=tuple(spec.steps or ()),
            bake=parse_duration(spec.bake.duration) if spec.bake else None,
            previous_weight=spec.bake.previous_weight if spec.bake else 0,
            max_surge=spec.max_surge or FULL_SURGE,
        )

    @property
    def rolling(self) -> bool:
        return self.index is not None

    @property
    def done(self) -> bool:
        """Whether every step is."""
        return self.index is None or self.index >= len(self.steps)

    @property
    def final(self) -> bool:
        """Whether no step follows the present one."""
        return self.index is not None and self.index == len(self.steps) - 1

    @property
    def step(self) -> RolloutStep | None:
        """The present step; None when all are done."""
        return None if self.done else self.steps[self.index or 0]

    @property
    def number(self) -> int | None:
        """The present step's, from 1; None when all are done."""
        return None if self.done else (self.index or 0) + 1

    def timed(self, now: datetime, *, runs: bool) -> RolloutPlan:
        """Its step's time goes on, or stands still: then it ends as much later."""
        if self.since is None or runs is (self.stopped is None):
            return self
        if not runs:
            return replace(self, stopped=now)
        return replace(self, since=self.since + (now - (self.stopped or now)), stopped=None)

    def not_after(self, now: datetime) -> RolloutPlan:
        """With no time in the future of a clock that was set back."""
        since, stopped = (t and min(t, now) for t in (self.since, self.stopped))
        return replace(self, since=since, stopped=stopped)

    def advanced(self) -> RolloutPlan:
        """At the next step, whose time has not begun."""
        index = min((self.index or 0) + 1, len(self.steps))
        return replace(self, index=index, since=None, stopped=None)

    def skipped(self) -> RolloutPlan:
        """With every step done."""
        return replace(self, index=len(self.steps), since=None, stopped=None)

    def ended(self) -> RolloutPlan:
        """No longer rolling out; what concerns the time after a promotion stays."""
        return replace(self, index=None, since=None, stopped=None)

    def surge(self, total: int) -> int:
        """How many pods beyond ``total`` may run; a percentage is rounded up."""
        text = self.max_surge
        if text.endswith("%"):
            return math.ceil(total * int(text[:-1]) / 100)
        return int(text)

    def to_text(self) -> str:
        """The annotation of the record."""
        data: dict[str, Any] = {
            "steps": [step.as_dict() for step in self.steps],
            "bakeSeconds": self.bake.total_seconds() if self.bake is not None else None,
            "previousWeight": self.previous_weight or None,
            "maxSurge": self.max_surge if self.max_surge != FULL_SURGE else None,
            "index": self.index,
            "since": format_time(self.since) if self.since else None,
            "stopped": format_time(self.stopped) if self.stopped else None,
            "attempt": self.attempt or None,
        }
        kept = {key: value for key, value in data.items() if value not in (None, [])}
        return json.dumps(kept, sort_keys=True, separators=(",", ":"))

    @classmethod
    def from_text(cls, text: str) -> RolloutPlan:
        """Reads :meth:`to_text` back; raises ValueError, TypeError or KeyError otherwise."""
        data = json.loads(text)
        if not isinstance(data, Mapping):
            raise TypeError("a rollout is an object")
        bake, since, index = data.get("bakeSeconds"), data.get("since"), data.get("index")
        stopped = data.get("stopped")
        return cls(
            steps=tuple(RolloutStep.model_validate(step) for step in data.get("steps") or ()),
            bake=timedelta(seconds=float(bake)) if bake is not None else None,
            previous_weight=int(data.get("previousWeight") or 0),
            max_surge=str(data.get("maxSurge") or FULL_SURGE),
            index=int(index) if index is not None else None,
            since=parse_time(since) if since else None,
            stopped=parse_time(stopped) if stopped else None,
            attempt=int(data.get("attempt") or 0),
        )


@dataclass(frozen=True, slots=True)
class Demand:
    """What a step asks for: the candidate's share of the traffic and of its copies, in percent, the
    headers that lead to it, and the least number of its pods.
    """

    weight: int = 0
    mirror: int = 0
    headers: tuple[tuple[str, str], ...] = ()
    pods: int = 0


def demand(plan: RolloutPlan) -> Demand:
    """What the present step asks for. Weights and pods hold on; mirror and match do not."""
    behind = plan.steps[: (plan.index or 0) + 1] if plan.rolling else ()
    weights = [step.weight for step in behind if step.weight is not None]
    pods = [step.replicas for step in behind if step.replicas is not None]
    step = plan.step
    return Demand(
        weight=weights[-1] if weights else 0,
        mirror=(step.mirror or 0) if step else 0,
        headers=tuple((m.header.lower(), m.exact) for m in (step.match or ())) if step else (),
        pods=max(pods, default=0),
    )


def duration(step: RolloutStep) -> timedelta:
    """How long the step lasts once its traffic is taken."""
    return parse_duration(step.duration) if step.duration else timedelta(0)


def in_words(step: RolloutStep | None) -> str:
    """One step for people; None is what follows the last."""
    if step is None:
        return "all traffic"
    if step.weight is not None:
        what = f"weight {step.weight}"
    elif step.mirror is not None:
        what = f"mirror {step.mirror}"
    elif step.match is not None:
        what = "match " + ", ".join(f"{m.header}: {m.exact}" for m in step.match)
    elif step.replicas is not None:
        what = f"{step.replicas} replicas"
    else:
        return "pause until promote"
    return f"{what} for {step.duration}" if step.duration else what
