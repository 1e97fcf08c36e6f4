"""What would the judge do? Seeded traffic through the very code that judges rollouts.

A run is a rollout: its windows go through :func:`mooring.core.judge.weigh.weigh`, as those of the
operator do, and what is remembered between ticks is rounded as it is there. The rules that others
use look at the same traffic, once a minute.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Final

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtri

from mooring.core.judge.evidence import Array
from mooring.core.judge.memory import FIRST_ROW, Rows
from mooring.core.judge.settings import ErrorRate
from mooring.core.judge.weigh import Terms, weigh
from mooring.core.judge.windows import Windows

_MINUTE: Final = 60.0
#: No such thing happened in the run.
NEVER: Final = -1


@dataclass(frozen=True, slots=True)
class Step:
    """Percent of the traffic on the candidate, for so many seconds."""

    weight: float
    seconds: float


@dataclass(frozen=True, slots=True)
class Scenario:
    """The rollouts to play through.

    ``requests``: per minute over both sides, Poisson. ``error_rate``: lowest and highest common
    rate; drawn anew every minute between them, for both sides. ``tick``: seconds between two looks.
    ``alpha``: the part of it that this metric may spend. ``phi``: over-dispersion allowed for.
    """

    steps: tuple[Step, ...]
    requests: float = 600.0
    error_rate: tuple[float, float] = (0.001, 0.009)
    rule: ErrorRate = field(default_factory=lambda: ErrorRate(max_ratio=1.0))
    alpha: float = 0.05
    tick: float = 5.0
    runs: int = 400
    seed: int = 1
    phi: float = 1.0


@dataclass(frozen=True, slots=True)
class Outcome:
    """Per run the seconds until the first Fail and the first Pass before it (NEVER without one).

    ``promoted``: it never failed and passes when the last step ends. ``others``: for each other
    rule, the seconds until it failed the run.
    """

    failed: Array
    passed: Array
    promoted: NDArray[np.bool_]
    others: dict[str, Array]

    @property
    def caught(self) -> float:
        """The part of the runs that failed."""
        return float(np.mean(self.failed != NEVER))

    def median(self, which: Array | None = None) -> float | None:
        """Seconds until half of the failed runs had failed; None when none did."""
        times = self.failed if which is None else which
        times = times[times != NEVER]
        return float(np.median(times)) if times.size else None


@dataclass(frozen=True, slots=True)
class _Traffic:
    """One tick of all runs: requests and errors (runs, 2), and whether a minute ends with it."""

    at: float
    requests: Array
    errors: Array
    minute_ends: bool


def terms_of(scenario: Scenario) -> Terms:
    """Every run a row of its own, under the same rule."""
    rule, runs = scenario.rule, scenario.runs

    def column(value: float | None) -> Array:
        return np.full(runs, np.nan if value is None else value)

    return Terms(
        owner=np.arange(runs, dtype=np.intp),
        channel=np.zeros(runs, dtype=np.intp),
        is_latency=np.zeros(runs, dtype=bool),
        ratio=column(rule.max_ratio),
        passing_ratio=column(rule.passing_ratio),
        objective=column(rule.objective),
        floor=column(rule.floor),
        phi=column(scenario.phi),
        alpha=column(scenario.alpha),
        total_alpha=column(scenario.alpha),
        comparable=np.zeros(runs, dtype=bool),
        alone=np.zeros(runs, dtype=bool),
        edges=((),) * runs,
    )


def simulate(
    scenario: Scenario,
    ratio: float = 1.0,
    *,
    limit: float | None = None,
    progress: Callable[[float], None] | None = None,
) -> Outcome:
    """Plays the scenario with a candidate of ``ratio`` times the common error rate.

    ``limit``: the error rate of a minute that the fixed thresholds of others take as a failure;
    with it they are played, too. ``progress`` is told the part that is done.
    """
    terms, runs = terms_of(scenario), scenario.runs
    memory = np.tile(np.array(FIRST_ROW), (runs, 1))
    failed, passed = np.full(runs, float(NEVER)), np.full(runs, float(NEVER))
    passes = np.zeros(runs, dtype=bool)
    rivals = None if limit is None else _Rivals(runs, limit, scenario.alpha)
    total = sum(step.seconds for step in scenario.steps)
    owner, warm = np.arange(runs, dtype=np.intp), np.ones(runs, dtype=bool)
    empty = np.zeros((runs, 2, 1))
    for traffic in _traffic(scenario, ratio):
        windows = Windows(owner, traffic.requests, traffic.errors[:, :, None], empty, warm)
        weighed = weigh(Rows.of(memory), empty, windows, terms)
        memory = weighed.rows.matrix()
        passes = weighed.passing >= -np.log(scenario.alpha)
        running = failed == NEVER
        failed[weighed.failed.any(axis=1) & running] = traffic.at
        passed[passes & (passed == NEVER) & (failed == NEVER)] = traffic.at
        if rivals is not None:
            rivals.look(traffic)
        if progress is not None:
            progress(traffic.at / total)
    others = {} if rivals is None else rivals.failed
    return Outcome(failed, passed, passes & (failed == NEVER), others)


def _traffic(scenario: Scenario, ratio: float) -> Iterator[_Traffic]:
    """Requests by chance, errors by the rate of their minute; the same for one seed."""
    random = np.random.default_rng(scenario.seed)
    low, high = scenario.error_rate
    rate, minute, at = np.zeros(scenario.runs), -1, 0.0
    for step in scenario.steps:
        share = step.weight / 100
        for _ in range(max(1, round(step.seconds / scenario.tick))):
            if int(at // _MINUTE) != minute:
                minute = int(at // _MINUTE)
                rate = random.uniform(low, high, scenario.runs)
            mean = scenario.requests * scenario.tick / _MINUTE
            shape = (scenario.runs, 2)
            requests = random.poisson(np.broadcast_to([mean * share, mean * (1 - share)], shape))
            rates = np.stack([np.minimum(rate * ratio, 1.0), rate], axis=1)
            errors = random.binomial(requests, rates)
            at += scenario.tick
            ends = int((at + 1e-9) // _MINUTE) != minute
            yield _Traffic(at, requests.astype(float), errors.astype(float), ends)


class _Rivals:
    """The rules of others, at the end of every minute: see the names in ``failed``.

    Fixed thresholds on the candidate's error rate of the minute (Argo Rollouts' failureLimit,
    Flagger's threshold, with the limit that the user gives), and a one-sided pooled z-test of all
    counts so far, looked at every time.
    """

    def __init__(self, runs: int, limit: float, alpha: float) -> None:
        self._limit = limit
        self._critical = float(ndtri(1 - alpha))
        self._minute = np.zeros((runs, 4))
        self._all = np.zeros((runs, 4))
        self._above = np.zeros(runs)
        names = ("failureLimit 0", "failureLimit 3", "threshold 5", "peeking z-test")
        self.failed = {name: np.full(runs, float(NEVER)) for name in names}

    def look(self, traffic: _Traffic) -> None:
        counts = np.concatenate([traffic.errors, traffic.requests], axis=1)
        self._minute += counts
        self._all += counts
        if not traffic.minute_ends:
            return
        c, _, n, _ = self._minute.T
        self._above += c > self._limit * n
        self._minute = np.zeros_like(self._minute)
        c, s, n_c, n_s = self._all.T
        p = (c + s) / np.maximum(n_c + n_s, 1)
        spread = np.sqrt(p * (1 - p) * (1 / np.maximum(n_c, 1) + 1 / np.maximum(n_s, 1)))
        gap = c / np.maximum(n_c, 1) - s / np.maximum(n_s, 1)
        z_fails = (spread > 0) & (gap > self._critical * spread) & (n_c > 0) & (n_s > 0)
        rules = (self._above > 0, self._above > 3, self._above >= 5, z_fails)
        for times, fails in zip(self.failed.values(), rules, strict=True):
            times[fails & (times == NEVER)] = traffic.at
