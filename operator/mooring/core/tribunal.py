"""One tick: everything that is under judgement is weighed at once.

What was read of the routers and of free queries goes in with what is remembered; evidence for the
next decisions comes out, and what to remember until the next tick. Production, ``mooring replay``
and tests go through here.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime

from mooring.core import signals
from mooring.core.answers import NoAnswer, Reason
from mooring.core.examination import Evidence, Examination
from mooring.core.halves import History, channels_of
from mooring.core.judge import (
    Analysis,
    Judgement,
    MetricJudgement,
    PredictionShift,
    Scrape,
    State,
    Subject,
    Threshold,
    Tick,
    Verdict,
    dispersion_of,
    join,
    judge,
)
from mooring.core.judge.batch import STALE_TICKS
from mooring.core.judge.shift import OutputWindow, Predictions, begins, due, take_predictions
from mooring.core.router_counters import Source
from mooring.core.scrapes import Memory, take
from mooring.core.telemetry import Counted

#: Clocks that differ by less are taken as one (seconds): a question takes that long to be answered.
_SAME_CLOCK = 2.0
#: A pause of a router's scrapes beyond this is an outage and no interval (seconds).
_LONGEST_INTERVAL = 120.0


@dataclass(frozen=True, slots=True)
class Measured:
    """What was read for one examination.

    ``sources``: scrapes of its routers. ``unscraped``: model pods that should answer a scrape and
    do not. ``failed``: why the routers' counters could not be read. ``values``: by metric, what a
    free query gave, or why it gave nothing. ``history``: what stable's halves have counted in the
    hours before; None where nobody asked, or there is no answer. ``pods``: the servers' own counts,
    for an examination that goes by them. ``outputs``: predictions of a window that is over.
    """

    sources: tuple[Source, ...] = ()
    unscraped: tuple[str, ...] = ()
    failed: NoAnswer | None = None
    values: Mapping[str, float | NoAnswer] = field(default_factory=dict)
    history: History | None = None
    pods: signals.Pods = field(default_factory=signals.Pods)
    outputs: OutputWindow | None = None


@dataclass(frozen=True, slots=True)
class Remembered:
    """Kept in memory between two ticks of one attempt. What a restart loses of it does no harm.

    ``written``: the split in force and since when, on the operator's clock; ``since`` the same on
    Prometheus' clock, fixed when it was first seen, so that it stays the same number. ``scraped``:
    when each router was last scraped. ``interval``: seconds between two scrapes. ``news``: of each
    free query, when it last gave a new value, and the seconds between the last two.
    """

    attempt: str
    state: State
    memory: Memory = field(default_factory=Memory)
    lives: tuple[signals.Lives, signals.Lives] = (signals.Lives(), signals.Lives())
    written: tuple[float, float] | None = None
    since: float = 0.0
    scraped: Mapping[str, float] = field(default_factory=dict)
    interval: float = 0.0
    news: Mapping[str, tuple[float, float]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Case:
    """One examination with what was read for it and what is remembered of it."""

    examination: Examination
    measured: Measured
    remembered: Remembered | None = None


def weigh(cases: Sequence[Case], now: datetime) -> list[tuple[Evidence, Remembered]]:
    """The evidence of each case and what to remember of it, in the order given."""
    prepared = [_prepared(case, now) for case in cases]
    judged = judge([subject for subject, _ in prepared])
    return [
        _concluded(case, remembered, judgement, now)
        for case, (_, remembered), judgement in zip(cases, prepared, judged, strict=True)
    ]


def calibrated(wanted: Examination, remembered: Remembered | None) -> bool:
    """Whether the over-dispersion of every counted metric is known, and so frozen."""
    if wanted.groups:
        return True  # nothing is halved without a router
    phi = _before(wanted, remembered).state.phi
    return all(metric.name in phi for metric in wanted.analysis.counted)


def window_due(wanted: Examination, remembered: Remembered | None, now: datetime) -> float | None:
    """The end of the window of predictions that is to be read now; None where none is."""
    found = _predictions(wanted, _before(wanted, remembered).state)
    return None if found is None else due(found.until, now.timestamp())


def window_of(counted: Counted, end: float, candidate: str, stable: str) -> OutputWindow:
    """What two revisions answered in a window, on the grid that the candidate is counted on."""
    best, found = 0.0, OutputWindow(end)
    for outputs in () if counted.gap else counted.outputs.values():
        ours, theirs = (
            {name: cells for (of, name), cells in outputs.items() if of == revision}
            for revision in (candidate, stable)
        )
        rows = sum(sum(cells.values()) for cells in ours.values())
        if rows > best:
            best, found = rows, OutputWindow(end, ours, theirs)
    return found


def _predictions(wanted: Examination, state: State) -> Predictions | None:
    """What is remembered of predictions, from the first window after the rollout began; None where
    no metric is about them.
    """
    if not any(isinstance(metric.rule, PredictionShift) for metric in wanted.analysis.metrics):
        return None
    if state.predictions is not None or not math.isfinite(wanted.weights.since):
        return state.predictions
    return Predictions(begins(wanted.weights.since))


def _before(wanted: Examination, remembered: Remembered | None) -> Remembered:
    """What is remembered of this attempt, or else what status says of it."""
    if remembered is not None and remembered.attempt == wanted.attempt:
        return remembered
    state, _ = State.load(wanted.state, wanted.analysis)
    return Remembered(wanted.attempt, state)


def _phi(analysis: Analysis, history: History) -> Mapping[str, float]:
    """Over-dispersion by metric, of those that the halves tell anything of."""
    found = {}
    for metric, channels in channels_of(analysis).items():
        sums = [history.channels[name] for name in channels if name in history.channels]
        known = [
            one
            for one in (
                dispersion_of(
                    part.windows,
                    part.both,
                    part.both_squared,
                    2 * part.halves_squared - part.both_squared,
                )
                for part in sums
            )
            if one.calibrated
        ]
        if known:
            found[metric] = max(one.phi for one in known)
    return found


def _prepared(case: Case, now: datetime) -> tuple[Subject, Remembered]:
    wanted, measured = case.examination, case.measured
    before = _before(wanted, case.remembered)
    if measured.history is not None:
        phi = _phi(wanted.analysis, measured.history)
        before = replace(before, state=before.state.calibrated(wanted.analysis, phi))
    predictions = _predictions(wanted, before.state)
    if predictions is not None:
        windows = (measured.outputs,) if measured.outputs is not None else ()
        predictions = take_predictions(wanted.analysis, predictions, windows)
        before = replace(before, state=replace(before.state, predictions=predictions))
    lives, memory = before.lives, before.memory
    scrapes: Mapping[str, Scrape]
    if wanted.groups:
        at, edges = now.timestamp(), wanted.analysis.edges
        scrapes, lives = signals.take(measured.pods, edges, at, lives)
    else:
        scrapes, memory = take(measured.sources, wanted.candidate, wanted.stable, memory)
    written = (wanted.weights.candidate, wanted.weights.since)
    since = before.since
    if before.written != written:
        since = wanted.weights.since + _ahead(measured.sources, now)
    remembered = replace(
        before,
        memory=memory,
        lives=lives,
        written=written,
        since=since,
        scraped={**before.scraped, **{name: one.time for name, one in scrapes.items()}},
        interval=_interval(before, scrapes),
        news=_news(before, measured, now.timestamp()),
    )
    own = tuple(pod for pod in measured.unscraped if _of(pod, wanted.revision))
    others = len(measured.unscraped) - len(own)
    tick = Tick(
        now=now.timestamp(),
        weights=replace(wanted.weights, since=since),
        scrapes=scrapes,
        # Nobody's pods answer: then scraping is at fault, not the candidate.
        pods=replace(wanted.pods, unscraped=0 if others >= wanted.pods.stable > 0 else len(own)),
        values={
            name: None if isinstance(value, NoAnswer) else value
            for name, value in measured.values.items()
        },
        interval=remembered.interval,
    )
    return Subject(wanted.analysis, before.state, tick), remembered


def _of(pod: str, revision: str) -> bool:
    """Whether a model pod belongs to a revision: its name is that of the Deployment and more."""
    return f"-{revision}-" in pod


def _ahead(sources: Sequence[Source], now: datetime) -> float:
    """How far Prometheus' clock is ahead of ours (seconds); 0 where nobody can tell."""
    if not sources:
        return 0.0
    ahead = sources[0].evaluated_at - now.timestamp()
    return ahead if abs(ahead) > _SAME_CLOCK else 0.0


def _interval(before: Remembered, scrapes: Mapping[str, Scrape]) -> float:
    """The latest time between two scrapes of one router."""
    gaps = [
        one.time - before.scraped[name]
        for name, one in scrapes.items()
        if name in before.scraped and one.time > before.scraped[name]
    ]
    found = max((gap for gap in gaps if gap <= _LONGEST_INTERVAL), default=0.0)
    return found or before.interval


def _news(before: Remembered, measured: Measured, now: float) -> Mapping[str, tuple[float, float]]:
    """When each free query last gave a new value, and how long after the one before."""
    found = {name: one for name, one in before.news.items() if name in measured.values}
    for name, value in measured.values.items():
        if not isinstance(value, NoAnswer):
            last, gap = found.get(name, (now, 0.0))
            found[name] = (now, now - last if 0 < now - last <= _LONGEST_INTERVAL else gap)
    return found


def _concluded(
    case: Case, remembered: Remembered, judgement: Judgement, now: datetime
) -> tuple[Evidence, Remembered]:
    wanted = case.examination
    judgement = _without_news(case, remembered, judgement, now.timestamp())
    judgement = _without_optional(case, judgement, now)
    remembered = replace(remembered, state=judgement.state)
    missing = _missing(case, judgement)
    pace = max(wanted.analysis.tick, remembered.interval)
    began = judgement.state.began
    waited = now.timestamp() - began if began is not None else 0.0
    evidence = Evidence(
        examination=wanted,
        at=now,
        judgement=judgement,
        missing=missing,
        interval=remembered.interval,
        overdue=bool(missing) and waited > STALE_TICKS * pace,
    )
    return evidence, remembered


def _without_news(
    case: Case, remembered: Remembered, judgement: Judgement, now: float
) -> Judgement:
    """A free query that gives the last value once more is no news: its metric stands as it was, for
    as many looks as a router may miss. A cache may answer less often than there are looks.
    """
    analysis, held = case.examination.analysis, []
    rules = {metric.name: metric.rule for metric in analysis.metrics}
    for one in judgement.metrics:
        answer, rule = case.measured.values.get(one.name), rules[one.name]
        if not isinstance(answer, NoAnswer) or answer.reason is not Reason.STALE:
            continue
        last, gap = remembered.news.get(one.name, (-math.inf, 0.0))
        if isinstance(rule, Threshold) and now - last <= STALE_TICKS * max(analysis.tick, gap):
            passed = judgement.state.streaks.get(one.name, 0) >= rule.consecutive
            held.append(_held(one, passed=passed, seconds=now - last))
    return join(judgement, held, now) if held else judgement


def _held(one: MetricJudgement, *, passed: bool, seconds: float) -> MetricJudgement:
    reason = f"no newer value for {seconds:.0f} s; it stands as it was (no guarantee)"
    return replace(one, verdict=Verdict.PASS if passed else Verdict.INCONCLUSIVE, reason=reason)


def _without_optional(case: Case, judgement: Judgement, now: datetime) -> Judgement:
    """Free queries that may give nothing hold nobody up when they do."""
    optional = {query.metric for query in case.examination.queries if query.optional}
    passed_over = [
        replace(one, verdict=Verdict.PASS, reason="no data, and the spec says to ignore that")
        for one in judgement.metrics
        if one.name in optional and one.verdict is Verdict.NO_DATA
    ]
    return join(judgement, passed_over, now.timestamp()) if passed_over else judgement


def _missing(case: Case, judgement: Judgement) -> str:
    """Which measurement is not there, in one sentence."""
    wanted, measured = case.examination, case.measured
    if wanted.groups:
        unsignalled = _unsignalled(wanted, measured, judgement)
        if unsignalled:
            return unsignalled
    elif wanted.analysis.counted and not judgement.fresh:
        place = f"{wanted.target.namespace}/{wanted.target.deployment}-router-*"
        if measured.failed is not None:
            return measured.failed.message
        if not measured.sources:
            return (
                f"Prometheus has no samples of the router pods {place}: check that it discovers "
                "and scrapes them (annotations prometheus.io/scrape and prometheus.io/port)"
            )
        oldest = max(source.age for source in measured.sources)
        return f"the newest samples of the router pods {place} are {oldest:.0f} s old"
    for one in judgement.metrics:
        if one.verdict is Verdict.NO_DATA:
            why = measured.values.get(one.name)
            words = why.message if isinstance(why, NoAnswer) else one.reason
            return f"metric {one.name}: {words}"
    return ""


def _unsignalled(wanted: Examination, measured: Measured, judgement: Judgement) -> str:
    """The same of the servers' own counts."""
    if not wanted.analysis.counted:
        return ""
    pods = measured.pods
    if not judgement.fresh:
        if pods.failed is not None:
            return pods.failed.message
        place = f"{wanted.groups[0].namespace}/{wanted.groups[0].name}-*"
        return (
            f"Prometheus has no samples of the pods {place} by the runtime's spec.signals: check "
            "that it discovers and scrapes them (annotations prometheus.io/scrape and "
            "prometheus.io/port)"
        )
    return signals.missing_edge(pods.candidate.values(), wanted.analysis.edges)
