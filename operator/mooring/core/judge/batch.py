"""Judges many rollouts at once: counters in, verdicts and what to remember out.

There is one code path. A single rollout is a batch of one, a simulation is a batch of its runs.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache

import numpy as np

from mooring.core.judge.evidence import Array
from mooring.core.judge.memory import WIDTH, Failure, Rows, State
from mooring.core.judge.pods import Restarts, judge_restarts
from mooring.core.judge.readings import Tick
from mooring.core.judge.report import Line, lines, metric_judgement, quantiles_of
from mooring.core.judge.settings import (
    Analysis,
    ErrorRate,
    Latency,
    PredictionShift,
    Threshold,
    problems,
)
from mooring.core.judge.shift import judge_shift
from mooring.core.judge.split import ALPHA, log_wrong_split
from mooring.core.judge.thresholds import judge_threshold
from mooring.core.judge.verdicts import MetricJudgement, SplitCheck, Verdict, overall
from mooring.core.judge.weigh import Terms, weigh
from mooring.core.judge.windows import Intake, Windows, take_in

#: Ticks without a fresh sample after which there is no data.
STALE_TICKS = 3
#: The load of a pod of one side may be this part of the other's, or one over it.
_LOAD_LOW, _LOAD_HIGH = 0.8, 1.25


@dataclass(frozen=True, slots=True)
class Subject:
    """One rollout to judge: by what, what is remembered of it, and what this tick brings."""

    analysis: Analysis
    state: State
    tick: Tick


@dataclass(frozen=True, slots=True)
class Judgement:
    """What came of it. ``state`` is to be remembered until the next tick.

    ``fresh``: samples are no older than three ticks, without which no step may advance; always
    when no metric is counted. ``blocked``: why Pass may not be given now. ``notes`` are for people:
    what was left out, and over-dispersion that is not calibrated.
    """

    verdict: Verdict
    reason: str
    metrics: tuple[MetricJudgement, ...]
    state: State
    fresh: bool
    split: SplitCheck = field(default_factory=SplitCheck)
    blocked: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


_problems = lru_cache(maxsize=4096)(problems)
_digest = lru_cache(maxsize=4096)(Analysis.digest)


def judge_one(analysis: Analysis, state: State, tick: Tick) -> Judgement:
    """One rollout at one tick."""
    return judge([Subject(analysis, state, tick)])[0]


def judge(subjects: Sequence[Subject]) -> list[Judgement]:
    """All rollouts at one tick, in the order given. Never raises for what was measured.

    Settings with problems (see :func:`mooring.core.judge.settings.problems`) are Inconclusive and
    leave the state as it was. A state of other settings begins anew.
    """
    found: dict[int, Judgement] = {}
    sound: list[tuple[int, Subject]] = []
    for place, subject in enumerate(subjects):
        wrong = _problems(subject.analysis)
        if wrong:
            found[place] = Judgement(
                Verdict.INCONCLUSIVE, "; ".join(wrong), (), subject.state, False
            )
        else:
            sound.append((place, _sound(subject)))
    if sound:
        judged = _judge([subject for _, subject in sound])
        found |= {place: one for (place, _), one in zip(sound, judged, strict=True)}
    return [found[place] for place in range(len(subjects))]


def _sound(subject: Subject) -> Subject:
    """Makes nonsense harmless: an impossible weight is no random split, a clock without time 0."""
    state, tick = subject.state, subject.tick
    if state.settings != _digest(subject.analysis):
        state = State.begin(subject.analysis, state.phi)
    now, weights = tick.now, tick.weights
    if not math.isfinite(now):
        now = state.fresh or 0.0
    good = math.isfinite(weights.candidate) and 0 <= weights.candidate <= 100
    if not good or not math.isfinite(weights.since):
        weights = replace(weights, candidate=0.0, since=math.inf, random=False, exact=False)
    return Subject(subject.analysis, state, replace(tick, now=now, weights=weights))


def _judge(subjects: Sequence[Subject]) -> list[Judgement]:
    states = [s.state for s in subjects]
    analyses = [s.analysis for s in subjects]
    ticks = [s.tick for s in subjects]
    intake = take_in(states, analyses, ticks)
    terms = _terms(subjects)
    count = len(terms.owner)
    buckets = intake.windows.latency.shape[2]
    matrix = np.array([row for s in states for row in s.rows]).reshape(count, WIDTH)
    weighed = weigh(Rows.of(matrix), _histograms(states, buckets), intake.windows, terms)
    quantiles = np.array([q for a in analyses for q in quantiles_of(a.counted)])
    said = lines(weighed, terms, quantiles)
    splits = _splits(subjects, intake.windows)
    remembered = weighed.rows.matrix().tolist()
    histograms = weighed.histograms.tolist()
    result, row = [], 0
    for place, subject in enumerate(subjects):
        mine = range(row, row + len(subject.analysis.counted))
        width = len(subject.analysis.grid) + 1
        evidence = _Evidence(
            tuple(tuple(remembered[r]) for r in mine),
            tuple((tuple(histograms[r][0][:width]), tuple(histograms[r][1][:width])) for r in mine),
            [said[r] for r in mine],
        )
        result.append(_conclude(subject, intake, place, splits[place], evidence))
        row += len(mine)
    return result


@dataclass(frozen=True, slots=True)
class _Evidence:
    """One rollout's part of a batch: what to remember, and what to say of each counted metric."""

    rows: tuple[tuple[float, ...], ...]
    histograms: tuple[tuple[tuple[float, ...], tuple[float, ...]], ...]
    lines: list[Line]


def _histograms(states: Sequence[State], buckets: int) -> Array:
    """(rows, 2, buckets), padded with empty buckets where a rollout's grid has fewer."""
    lines = [
        [[*side, *(0.0,) * (buckets - len(side))] for side in pair]
        for state in states
        for pair in state.histograms
    ]
    return np.array(lines, dtype=float).reshape(len(lines), 2, buckets)


def _or_nan(value: float | None) -> float:
    return math.nan if value is None else value


def _terms(subjects: Sequence[Subject]) -> Terms:
    owner, channel, edges, comparable = [], [], [], []
    columns: list[tuple[float, ...]] = []
    for place, subject in enumerate(subjects):
        analysis, channels = subject.analysis, 0
        alike = _comparable(subject.tick)
        for metric in analysis.counted:
            rule = metric.rule
            if not isinstance(rule, ErrorRate | Latency):
                continue
            is_latency = isinstance(rule, Latency)
            channels += is_latency
            owner.append(place)
            channel.append(channels if is_latency else 0)
            edges.append(analysis.edges)
            comparable.append(alike)
            columns.append((
                is_latency, _or_nan(rule.max_ratio), _or_nan(rule.passing_ratio),
                _or_nan(rule.objective), _or_nan(rule.floor),
                subject.state.phi.get(metric.name, 1.0), analysis.share_of(metric), analysis.alpha,
                subject.tick.weights.candidate >= 100,
            ))  # fmt: skip
    values = np.array(columns, dtype=float).reshape(len(columns), 9)
    return Terms(
        owner=np.array(owner, dtype=np.intp),
        channel=np.array(channel, dtype=np.intp),
        is_latency=values[:, 0] > 0,
        ratio=values[:, 1],
        passing_ratio=values[:, 2],
        objective=values[:, 3],
        floor=values[:, 4],
        phi=values[:, 5],
        alpha=values[:, 6],
        total_alpha=values[:, 7],
        comparable=np.array(comparable, dtype=bool),
        alone=values[:, 8] > 0,
        edges=edges,
    )


def _comparable(tick: Tick) -> bool:
    """Whether a pod of either side bears about the same load: latency grows with it."""
    weight, pods = tick.weights.candidate, tick.pods
    if not 0 < weight < 100 or pods.candidate < 1 or pods.stable < 1:
        return False
    load = (weight / pods.candidate) / ((100 - weight) / pods.stable)
    return _LOAD_LOW <= load <= _LOAD_HIGH


@dataclass(frozen=True, slots=True)
class _Split:
    counts: tuple[float, float]
    check: SplitCheck


def _splits(subjects: Sequence[Subject], windows: Windows) -> list[_Split]:
    """The attempts under the weights in force, and whether they are split so."""
    added = np.zeros((len(subjects), 2))
    np.add.at(added, windows.owner, windows.requests)
    before = np.array([
        s.state.split
        if s.state.weights == (s.tick.weights.candidate, s.tick.weights.since)
        else (0.0, 0.0)
        for s in subjects
    ])  # fmt: skip
    counts = before + added
    weight = np.array([s.tick.weights.candidate / 100 for s in subjects])
    wrong = log_wrong_split(counts[:, 0], counts[:, 1], weight) >= -math.log(ALPHA)
    result = []
    for at, subject in enumerate(subjects):
        c, s = counts[at].tolist()
        checked = subject.tick.weights.exact and subject.tick.weights.random and c + s > 0
        observed = 100 * c / (c + s) if c + s > 0 else None
        check = (
            SplitCheck(not wrong[at], observed, subject.tick.weights.candidate)
            if checked
            else SplitCheck(True, observed, subject.tick.weights.candidate)
        )
        result.append(_Split((c, s), check))
    return result


def _conclude(
    subject: Subject, intake: Intake, place: int, split: _Split, evidence: _Evidence
) -> Judgement:
    analysis, state, tick = subject.analysis, subject.state, subject.tick
    # A clock that was set back must not make old samples look fresh for long.
    began = tick.now if state.began is None else min(state.began, tick.now)
    seen = None if state.fresh is None else min(state.fresh, tick.now)
    seen = tick.now if intake.fresh[place] else seen
    counted = analysis.counted
    pace = max(analysis.tick, tick.interval if math.isfinite(tick.interval) else 0.0)
    fresh = not counted or (seen is not None and tick.now - seen <= STALE_TICKS * pace)
    judged, streaks = _metrics(subject, evidence, fresh=fresh, timed=not intake.untimed[place])
    restarts = judge_restarts(state.restarts, tick.pods, tick.now)
    since = tick.weights.since
    state = State(
        settings=state.settings,
        phi=state.phi,
        ticks=state.ticks + 1,
        began=began,
        fresh=seen,
        weights=(tick.weights.candidate, since) if math.isfinite(since) else None,
        split=split.counts,
        sources=intake.sources[place],
        rows=evidence.rows,
        histograms=evidence.histograms,
        streaks=streaks,
        restarts=restarts.memory,
        failure=state.failure,
        predictions=state.predictions,
    )
    state = _latch(state, judged, restarts, tick.now)
    blocked = _blocked(subject, restarts, split)
    failed = None if state.failure is None else _told(state.failure)
    verdict, reason = overall(judged, failed=failed, blocked=blocked, fresh=fresh)
    notes = []
    if intake.refused[place]:
        notes.append(f"{intake.refused[place]} scrapes held numbers that make no sense")
    open_ = [metric.name for metric in counted if metric.name not in state.phi]
    if open_:
        notes.append(f"over-dispersion is uncalibrated for {', '.join(open_)}")
    return Judgement(
        verdict, reason, tuple(judged), state, fresh, split.check, blocked, tuple(notes)
    )


def _metrics(
    subject: Subject, evidence: _Evidence, *, fresh: bool, timed: bool
) -> tuple[list[MetricJudgement], dict[str, int]]:
    """Every metric in the order of the settings, and the streaks of the free values."""
    judged: list[MetricJudgement] = []
    streaks: dict[str, int] = {}
    lines_left = iter(evidence.lines)
    for metric in subject.analysis.metrics:
        if metric.counted:
            line = next(lines_left)
            one = metric_judgement(metric, subject.analysis, line, fresh=fresh, timed=timed)
            judged.append(replace(one, dispersion=subject.state.phi.get(metric.name)))
        elif isinstance(metric.rule, Threshold):
            value = subject.tick.values.get(metric.name)
            streak = subject.state.streaks.get(metric.name, 0)
            one, streaks[metric.name] = judge_threshold(metric, value, streak)
            judged.append(one)
        elif isinstance(metric.rule, PredictionShift):
            limit, memory = metric.rule.max_psi, subject.state.predictions
            judged.append(judge_shift(metric, limit, subject.analysis, memory, subject.tick.now))
    return judged, streaks


def _latch(
    state: State, judged: Sequence[MetricJudgement], restarts: Restarts, now: float
) -> State:
    """The first Fail stays: what failed once is not made good by a quiet hour."""
    if state.failure is not None:
        return state
    if restarts.failed is not None:
        return replace(state, failure=Failure("pods", restarts.failed, now, state.ticks))
    for one in judged:
        if one.verdict is Verdict.FAIL:
            return replace(state, failure=Failure(one.name, one.reason, now, state.ticks))
    return state


def _told(failure: Failure) -> str:
    return f"{failure.metric}: {failure.reason}"


def _blocked(subject: Subject, restarts: Restarts, split: _Split) -> tuple[str, ...]:
    """Why Pass may not be given now."""
    found = []
    if restarts.doubt is not None:
        found.append(restarts.doubt)
    ejected = sum(max(s.ejections, 0) for s in subject.tick.scrapes.values())
    if ejected:
        found.append("outlier detection keeps pods of the candidate out")
    if not split.check.ok and split.check.observed is not None:
        found.append(
            f"{split.check.observed:.1f} % of the attempts go to the candidate instead of "
            f"{subject.tick.weights.candidate:g} %"
        )
    return tuple(found)


def join(judgement: Judgement, others: Sequence[MetricJudgement], now: float) -> Judgement:
    """Puts metrics that were judged elsewhere in their places. A Fail among them is remembered."""
    given = {one.name: one for one in others}
    metrics = tuple(given.get(one.name, one) for one in judgement.metrics)
    state = _latch(judgement.state, metrics, Restarts(()), now)
    failed = None if state.failure is None else _told(state.failure)
    verdict, reason = overall(
        metrics, failed=failed, blocked=judgement.blocked, fresh=judgement.fresh
    )
    return replace(judgement, metrics=metrics, state=state, verdict=verdict, reason=reason)
