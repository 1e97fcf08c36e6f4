"""Requests through two routers, as Prometheus would tell of them, and the ticks that weigh them."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from tests.core.world import World

from mooring.core.answers import NoAnswer, Reason
from mooring.core.examination import Evidence
from mooring.core.halves import History
from mooring.core.router_counters import Attempts, ClusterCounts, Source
from mooring.core.tribunal import Case, Measured, Remembered, weigh

DOWN = NoAnswer(Reason.REFUSED, "Nobody listens at http://prometheus:9090.")


@dataclass
class Traffic:
    """``rate``: requests a second. ``errors``: by revision, the share that fails. ``values``: what
    free queries give. ``history``: what stable's halves counted before. Clear ``scraped`` or
    ``answers`` for a Prometheus that sees or says nothing.
    """

    world: World
    rate: float = 50.0
    errors: dict[str, float] = field(default_factory=dict)
    values: dict[str, float | NoAnswer] = field(default_factory=dict)
    scraped: bool = True
    answers: bool = True
    rng: np.random.Generator = field(default_factory=lambda: np.random.default_rng(7))
    totals: dict[tuple[str, str], list[float]] = field(default_factory=dict)
    remembered: Remembered | None = None
    history: History | None = None

    def flow(self, seconds: float) -> None:
        """Requests come in for so long, split as the routers were told."""
        self.world.wait(seconds=seconds)
        for router in self.world.routers:
            for revision, weight in self.world.route().items():
                mean = self.rate * seconds * weight / 100 / len(self.world.routers)
                count = self.rng.poisson(mean)
                failed = self.rng.binomial(count, self.errors.get(revision, 0.0))
                halved = revision in self.world.halved()
                parts = ("-a", "-b") if halved else ("",)
                for part in parts:
                    total = self.totals.setdefault((router, revision + part), [0.0, 0.0])
                    total[0] += count / len(parts)
                    total[1] += failed / len(parts)

    def look(self, *, settle: bool = True) -> None:
        """One tick: whatever is wanted is measured and weighed, and a decision follows."""
        wanted = self.world.examination
        if wanted is None:
            self.remembered = None
        else:
            self.world.evidence = self.weighed()
        if settle:
            self.world.settle(40)
        else:
            self.world.follow()

    def weighed(self) -> Evidence:
        """What a tick finds of what the last decision wanted to have measured."""
        wanted = self.world.examination
        assert wanted is not None, "nothing is under judgement"
        case = Case(wanted, self._measured(), self.remembered)
        ((found, self.remembered),) = weigh([case], self.world.now)
        return found

    def tick(self, times: int = 1, seconds: float = 10.0) -> None:
        """Requests and looks, in turns; the last is seen to settle."""
        for left in reversed(range(times)):
            self.flow(seconds)
            self.look(settle=left == 0)

    def _measured(self) -> Measured:
        if not self.answers:
            failed = dict.fromkeys(self.values, DOWN)
            return Measured(failed=DOWN, values=failed)
        sources = self._sources() if self.scraped else ()
        return Measured(sources=sources, values=dict(self.values), history=self.history)

    def _sources(self) -> tuple[Source, ...]:
        at = self.world.now.timestamp()
        return tuple(
            Source(
                router,
                at,
                at,
                {
                    cluster: ClusterCounts(
                        {"10.0.0.1:8080": Attempts(count, count - bad, bad)}, ejected=0.0
                    )
                    for (pod, cluster), (count, bad) in self.totals.items()
                    if pod == router
                },
                born=0.0,
            )
            for router in self.world.routers
        )
