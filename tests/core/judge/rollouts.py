"""Rollouts for the tests of the judge: counters that grow, ticks, and a judge that remembers."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from mooring.core.judge import (
    Analysis,
    Counters,
    ErrorRate,
    Judgement,
    Latency,
    Metric,
    Pods,
    Scrape,
    State,
    Tick,
    Verdict,
    Weights,
    judge_one,
)

#: Geometric, factor √2, from 1 ms to about 2.9 s.
EDGES = tuple(0.001 * 2 ** (place / 2) for place in range(24))
OBJECTIVE = EDGES[16]
ERRORS = Analysis((Metric("errors", ErrorRate(max_ratio=1.5)),))
BOTH = Analysis(
    (
        Metric("errors", ErrorRate(max_ratio=1.5, max=0.02)),
        Metric("latency", Latency(0.95, max=OBJECTIVE, max_ratio=1.3)),
    ),
    edges=EDGES,
    unfinished_after=OBJECTIVE,
)
FAST = 10
SLOW = 22


def latency(place: int, count: float) -> tuple[float, ...]:
    """``count`` requests in one bucket of EDGES."""
    return tuple(count if at == place else 0.0 for at in range(len(EDGES) + 1))


def grown(before: Counters, requests: float, errors: float = 0.0, place: int = FAST) -> Counters:
    """The counters after so many further requests, all of them in one latency bucket."""
    more = Counters(requests, errors, 0.0, latency(place, requests))
    return replace(before.plus(more), unfinished=before.unfinished)


@dataclass
class Rollout:
    """One rollout with one router pod, driven tick by tick."""

    analysis: Analysis = ERRORS
    weight: float = 10.0
    pods: Pods = field(default_factory=lambda: Pods(1, 9))
    now: float = 0.0
    candidate: Counters = field(default_factory=Counters)
    stable: Counters = field(default_factory=Counters)
    weights: Weights | None = None
    state: State | None = None
    last: Judgement | None = None

    def scrape(self) -> Scrape:
        return Scrape(self.now, self.candidate, (self.stable,))

    def look(self, **changes: object) -> Judgement:
        """One tick with the counters as they are; ``changes`` are fields of the tick."""
        weights = self.weights or Weights(self.weight, 0.0)
        tick = Tick(self.now, weights, {"router-0": self.scrape()}, self.pods)
        tick = replace(tick, **changes)  # type: ignore[arg-type]
        state = self.state or State.begin(self.analysis)
        self.last = judge_one(self.analysis, state, tick)
        self.state = self.last.state
        return self.last

    def go(
        self,
        requests: tuple[float, float] = (10, 90),
        errors: tuple[float, float] = (0, 0),
        places: tuple[int, int] = (FAST, FAST),
        **changes: object,
    ) -> Judgement:
        """Five seconds with so much traffic on candidate and stable, and a look at their end."""
        self.now += self.analysis.tick
        self.candidate = grown(self.candidate, requests[0], errors[0], places[0])
        self.stable = grown(self.stable, requests[1], errors[1], places[1])
        return self.look(**changes)

    @property
    def verdict(self) -> Verdict | None:
        """Of the last look."""
        return None if self.last is None else self.last.verdict

    def samples(self, metric: int = 0) -> tuple[int, int]:
        """Requests on both sides that the last look had seen in all."""
        assert self.last is not None
        found = self.last.metrics[metric]
        return found.samples, found.baseline_samples
