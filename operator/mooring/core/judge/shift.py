"""The candidate's predictions against stable's of the same time: ``predictionShift``.

The collector counts what each revision answers, in cells of one fixed grid. Windows of a few
minutes are added up; in each, stable's counts are weighted to the candidate's number of rows, so
that a share that rises while the day goes on does not look like a shift. Whether the shift is
larger than ``maxPSI`` is asked by the test of a minimum effect (:mod:`mooring.core.drift.shift`),
each time that the candidate's rows have grown by a fifth: look k spends α·6/(π²k²), which over all
looks is α. Pass is the same test turned round, against twice ``maxPSI``.

PSI is near its limit distribution where each cell has some rows of either side, so cells are joined
until they do. What joining hides must not pass: Pass goes by the cells as they were counted.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final

import numpy as np

from mooring.core.drift.distances import Pair, psi
from mooring.core.drift.shift import noncentral_tail
from mooring.core.judge.evidence import Array
from mooring.core.judge.settings import Analysis, Metric, PredictionShift
from mooring.core.judge.verdicts import Estimate, MetricJudgement, Verdict

#: Length of a window in seconds; windows begin at multiples of it, the same for all rollouts.
WINDOW: Final = 300.0
#: So long after its end a window is read: the last scrape of it has come in by then (seconds).
SETTLE: Final = 60.0
#: Without a window for so long there is no data (seconds).
_STALE: Final = 4 * WINDOW
#: Rows of either side below which nobody looks, and by how much they grow between two looks.
_LEAST_ROWS: Final = 100.0
_GROWTH: Final = 1.2
#: Cells are joined with their neighbours until so many rows are expected in them on either side.
_LEAST_EXPECTED: Final = 10.0
#: Pass is against a shift of so many times what is tolerated.
_PASS: Final = 2.0
_MOST_OUTPUTS: Final = 8
#: No count gets there; what lies in status may be written by others.
_MOST: Final = 1e12

Cells = Mapping[int, float]


@dataclass(frozen=True, slots=True)
class OutputWindow:
    """Rows by output and cell that both revisions answered with until ``end`` (seconds)."""

    end: float
    candidate: Mapping[str, Cells] = field(default_factory=dict)
    stable: Mapping[str, Cells] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Predictions:
    """What is remembered of both sides' predictions.

    ``until``: end of the last window. ``looks``: so far, the last one at ``looked`` rows of the
    candidate. ``rows``: those now; ``spread``: Σ n_c²/n_s over the windows. ``cells``: by output
    and cell the candidate's rows and stable's weighted ones. ``found``: of the last look, by
    metric, the greatest PSI and the p-values of Fail and Pass.
    """

    until: float
    looks: int = 0
    looked: float = 0.0
    rows: float = 0.0
    spread: float = 0.0
    cells: Mapping[str, Mapping[int, tuple[float, float]]] = field(default_factory=dict)
    found: Mapping[str, tuple[float, float, float]] = field(default_factory=dict)

    @property
    def against(self) -> float:
        """How many rows of stable the weighted ones are worth."""
        return self.rows**2 / self.spread if self.spread > 0 else 0.0

    def dump(self) -> dict[str, Any]:
        """As JSON: numbers, lists and objects only."""
        cells = {
            name: [[cell, *counts] for cell, counts in sorted(of.items())]
            for name, of in self.cells.items()
        }
        numbers = [self.until, self.looks, self.looked, self.rows, self.spread]
        return {
            "numbers": numbers,
            "cells": cells,
            "found": {k: list(v) for k, v in self.found.items()},
        }

    @classmethod
    def load(cls, raw: Any) -> Predictions:
        """Reads :meth:`dump` back; raises for anything else as reading a state does."""
        until, looks, looked, rows, spread = map(float, raw["numbers"])
        if not all(0 <= number < _MOST for number in (until, looks, looked, rows, spread)):
            raise ValueError
        cells = {
            str(name): {int(cell): (float(c), float(s)) for cell, c, s in of}
            for name, of in raw["cells"].items()
        }
        found = {str(k): (float(a), float(b), float(c)) for k, (a, b, c) in raw["found"].items()}
        counts = [n for of in cells.values() for pair in of.values() for n in pair]
        if not all(0 <= number < _MOST for number in counts) or (found and looks < 1):
            raise ValueError
        return cls(until, int(looks), looked, rows, spread, cells, found)


def begins(since: float) -> float:
    """The start of the first window that lies after ``since``."""
    return math.ceil(since / WINDOW) * WINDOW


def window_before(now: float) -> float:
    """The end of the last window that can be read by ``now``."""
    return math.floor((now - SETTLE) / WINDOW) * WINDOW


def due(until: float, now: float) -> float | None:
    """The end of the window to read next; None while none is over."""
    end = until + WINDOW
    if now - end > 12 * WINDOW:
        end = window_before(now)  # too many to make up for
    return end if end + SETTLE <= now else None


def take_predictions(
    analysis: Analysis, memory: Predictions, windows: Sequence[OutputWindow]
) -> Predictions:
    """Adds windows, and looks when there is enough that is new."""
    for window in windows:
        if window.end > memory.until:
            memory = _added(memory, window)
    grown = memory.rows >= max(_LEAST_ROWS, _GROWTH * memory.looked) and any(memory.cells.values())
    return _look(analysis, memory) if grown and memory.against >= _LEAST_ROWS else memory


def _added(memory: Predictions, window: OutputWindow) -> Predictions:
    memory = replace(memory, until=window.end)
    both = sorted(
        set(window.candidate) & set(window.stable),
        key=lambda name: (-sum(window.candidate[name].values()), name),
    )
    sums = {
        name: (sum(window.candidate[name].values()), sum(window.stable[name].values()))
        for name in both[:_MOST_OUTPUTS]
    }
    sums = {name: pair for name, pair in sums.items() if min(pair) > 0}
    if not sums:
        return memory
    cells = {name: dict(of) for name, of in memory.cells.items()}
    for name, (ours, theirs) in sums.items():
        of = cells.setdefault(name, {})
        for cell in set(window.candidate[name]) | set(window.stable[name]):
            c, s = of.get(cell, (0.0, 0.0))
            more = window.stable[name].get(cell, 0.0) * ours / theirs
            of[cell] = (c + window.candidate[name].get(cell, 0.0), round(s + more, 3))
    ours, theirs = max(sums.values())
    return replace(
        memory, rows=memory.rows + ours, spread=memory.spread + ours**2 / theirs, cells=cells
    )


def _look(analysis: Analysis, memory: Predictions) -> Predictions:
    found = {}
    for metric in analysis.metrics:
        if isinstance(metric.rule, PredictionShift):
            each = [
                _compared(of, memory.against, metric.rule.max_psi)
                for of in memory.cells.values()
                if of
            ]
            # Any output may fail, so each has its part; all have to pass.
            fails = min(1.0, len(each) * min(fail for _, fail, _ in each))
            found[metric.name] = (max(p for p, _, _ in each), fails, max(p for *_, p in each))
    return replace(memory, looks=memory.looks + 1, looked=memory.rows, found=found)


def _compared(
    cells: Mapping[int, tuple[float, float]], against: float, limit: float
) -> tuple[float, float, float]:
    """PSI, and the p-values of "at most ``limit``" and of "at least twice as much"."""
    counts = np.array([cells[cell] for cell in sorted(cells)])
    counts = counts[counts.sum(axis=1) > 0]
    if not counts.size or not (counts.sum(axis=0) > 0).all():
        return 0.0, 1.0, 1.0
    joined = _joined(counts, against)
    pair = _pair(joined, against)
    distance, freedom = psi(pair), np.maximum(pair.bins - 1, 1.0)
    fail = noncentral_tail(distance / pair.v, freedom, limit / pair.v)
    if len(joined) < min(2, len(counts)) and _hides(counts, against) > limit:
        return float(distance[0]), float(fail[0]), 1.0  # nothing is left to compare
    # A shift within a joined cell cannot be seen there. PSI over the cells as they are has it, and
    # what that is too large by, because some hold few rows, only makes Pass later.
    whole = np.maximum(distance, psi(_pair(counts, against)))
    passing = 1 - noncentral_tail(whole / pair.v, freedom, _PASS * limit / pair.v)
    return float(distance[0]), float(fail[0]), float(passing[0])


def _hides(counts: Array, against: float) -> float:
    """The largest PSI that cells may have of which so few rows are expected that all were joined.

    One side may have no such row, and the other as many as are joined: a share p of them adds
    p ln(p n), which falls with the n rows of the smaller side. Beyond that nothing can hide.
    """
    fewer = min(float(counts[:, 0].sum()), against)
    return _LEAST_EXPECTED / fewer * math.log(fewer)


def _pair(counts: Array, against: float) -> Pair:
    """Stable's rows, as many as they are worth, and the candidate's."""
    current, reference = counts[:, 0], counts[:, 1]
    return Pair.of((reference * against / reference.sum())[None, :], current[None, :])


def _joined(counts: Array, against: float) -> Array:
    """Cells (n, 2) joined with their neighbours until each expects enough rows on either side.

    By an expected number and not by a share of all rows: with a share, a class that is rare is
    joined however many rows there are, and nobody sees it become many times as frequent.
    """
    fewer = min(float(counts[:, 0].sum()), against) / float(counts.sum())
    kept: list[Array] = []
    held = np.zeros(2)
    for row in counts:
        held = held + row
        if held.sum() * fewer >= _LEAST_EXPECTED:
            kept.append(held)
            held = np.zeros(2)
    if kept:
        kept[-1] = kept[-1] + held
    return np.array(kept or [held])


def judge_shift(
    metric: Metric, limit: float, analysis: Analysis, memory: Predictions | None, now: float
) -> MetricJudgement:
    """The verdict by the last look."""
    if memory is None or metric.name not in memory.found:
        waited = memory is not None and now - memory.until > _STALE and not memory.rows
        verdict = Verdict.NO_DATA if waited else Verdict.INCONCLUSIVE
        rows = 0 if memory is None else int(memory.rows)
        words = f"predictions are compared from {_LEAST_ROWS:.0f} rows on: there are {rows:,}"
        if waited:
            words = "the collector has counted no predictions of both revisions"
        return MetricJudgement(metric.name, verdict, words, samples=rows)
    distance, fails, passes = memory.found[metric.name]
    spend = 6 / (math.pi**2 * memory.looks**2)
    bound = analysis.share_of(metric) * spend
    told = f"PSI is {distance:.3g} over {int(memory.looked):,} rows, {limit:g} is tolerated"
    verdict = Verdict.INCONCLUSIVE
    if fails <= bound:
        verdict = Verdict.FAIL
    elif now - memory.until > _STALE:
        verdict, told = Verdict.NO_DATA, "the collector's counts of predictions are old"
    elif passes <= analysis.alpha * spend:
        verdict = Verdict.PASS
    return MetricJudgement(
        metric.name,
        verdict,
        told,
        evidence=min(1.0, math.log(max(fails, 1e-300)) / math.log(bound)),
        p_value=min(1.0, fails / spend),
        estimate=Estimate(distance, math.nan, math.nan),
        samples=int(memory.rows),
        baseline_samples=int(memory.against),
    )
