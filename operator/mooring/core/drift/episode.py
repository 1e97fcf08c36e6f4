"""One step per window: counts in, state and report out. Pure; a restart continues exactly.

    view = View.of(reference.features, settings)
    state, report = evaluate(view, window, state, settings)

Outputs are judged by the same step with a view and a state of their own, one per revision.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import numpy as np

from mooring.core.drift import cusum, health, shift
from mooring.core.drift.arrays import BoolArray, FloatArray
from mooring.core.drift.coarse import TAILS as TAIL_KINDS
from mooring.core.drift.course import KEPT, REMEMBERED, Kind, course, period
from mooring.core.drift.health import Expectations, Finding
from mooring.core.drift.measure import Measured, View, measure
from mooring.core.drift.report import Condition, DriftReport, WindowReport, summary
from mooring.core.drift.season import ENOUGH
from mooring.core.drift.settings import DriftSettings
from mooring.core.drift.state import (
    ANCHOR,
    SHAPE,
    TAILS,
    DriftState,
    FeatureState,
    Stream,
    with_unhealthy,
)

#: S is held this far above h, so that an alarm that was right for a month ends within hours of the
#: shift.
_CEILING = 8.0


class WrongGrid(ValueError):
    """Counts that were made on another grid than the reference's."""


@dataclass(frozen=True, slots=True)
class Window:
    """The counts of one window.

    Attributes:
        start, end: seconds since 1970; windows are disjoint.
        counts: fine counts by feature; a feature that never appeared is absent.
        rows: rows in all.
        grid: hash of the grid that they were counted on.
        violations: rows that broke a declared rule, by feature and rule.
        malformed: bodies that could not be read.
        read: bodies that could; None: as many as rows.
        unknown: features that the reference does not know.
    """

    start: float
    end: float
    counts: Mapping[str, FloatArray]
    rows: float
    grid: str
    violations: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    malformed: float = 0.0
    read: float | None = None
    unknown: tuple[str, ...] = ()


def evaluate(
    view: View,
    window: Window,
    state: DriftState,
    settings: DriftSettings,
    *,
    anchor: View | None = None,
    expectations: Mapping[str, Expectations] | Expectations | None = None,
) -> tuple[DriftState, WindowReport]:
    """Judges one window, and carries the state on.

    Args:
        view: the reference to compare with (``View.rebased`` for a seasonal one).
        window: what was counted.
        state: from the window before; the state of another grid or of other settings is dropped.
        settings: how to judge.
        anchor: a reference that is never re-based, next to a re-based one.
        expectations: for all features, or by name; the defaults where none are given.

    A window that overlaps one already taken changes nothing and is reported as it stands, so
    taking a window twice after a restart is harmless. Raises WrongGrid.
    """
    if window.grid != view.grid:
        raise WrongGrid(
            f"the window was counted on grid {window.grid}, the reference is of {view.grid}"
        )
    basis = f"{view.grid}/{settings.hash}"
    if state.basis != basis:
        state = DriftState(basis=basis)
    taken = state.last_end is not None and window.start < state.last_end
    fine, present = _padded(view, window)
    findings = _findings(view, window, fine, present, expectations)
    broken = _broken(view, findings)
    measured = measure(view, fine, present, settings, anchor)
    streams = (SHAPE, TAILS) if anchor is None else (SHAPE, TAILS, ANCHOR)
    threshold = threshold_of(settings, len(view.names) * len(streams))
    if not taken:
        state = _advanced(state, view, window, measured, broken, streams, threshold)
        if findings:
            spans = with_unhealthy(state.unhealthy, window.start, window.end)
            state = replace(state, unhealthy=spans)
    return state, _report(state, view, window, measured, findings, broken, threshold, settings)


def threshold_of(settings: DriftSettings, streams: int) -> float:
    """h for so many CUSUMs in all: the calibrated one, or Siegmund's."""
    if settings.threshold is not None:
        return settings.threshold
    wanted = cusum.run_length(streams, settings.window, settings.false_alarms_per_quarter)
    return cusum.threshold(wanted)


def _padded(view: View, window: Window) -> tuple[FloatArray, BoolArray]:
    present = np.array([name in window.counts for name in view.names], dtype=np.bool_)
    empty = {
        name: np.zeros(int(cells))
        for name, cells in zip(view.names, view.layout.cells, strict=True)
        if name not in window.counts
    }
    fine = view.layout.pad([window.counts.get(name, empty.get(name, ())) for name in view.names])
    return fine, present


def _findings(
    view: View,
    window: Window,
    fine: FloatArray,
    present: BoolArray,
    expectations: Mapping[str, Expectations] | Expectations | None,
) -> tuple[Finding, ...]:
    found: list[Finding] = []
    usual = expectations if isinstance(expectations, Expectations) else Expectations()
    own = expectations if isinstance(expectations, Mapping) else {}
    for row, feature in enumerate(view.features):
        cells = feature.grid.cells
        found += health.feature_findings(
            feature.grid,
            view.fine[row, :cells],
            fine[row, :cells] if present[row] else None,
            own.get(feature.name, usual),
            window.violations.get(feature.name),
            rows=window.rows,
        )
    found += health.row_findings(window.rows, window.malformed, window.unknown, read=window.read)
    return tuple(found)


def _broken(view: View, findings: tuple[Finding, ...]) -> BoolArray:
    """Features whose histogram says nothing this time: their evidence is held as it is."""
    names = {finding.feature for finding in findings if finding.rule in health.MEANINGLESS}
    return np.array([name in names for name in view.names], dtype=np.bool_)


def _advanced(
    state: DriftState,
    view: View,
    window: Window,
    measured: Measured,
    broken: BoolArray,
    streams: tuple[str, ...],
    threshold: float,
) -> DriftState:
    found: dict[str, FeatureState] = {}
    p_values = {SHAPE: measured.p, TAILS: measured.tail_p, ANCHOR: measured.anchor_p}
    before = [state.features.get(name, FeatureState()) for name in view.names]
    after: list[dict[str, Stream]] = [{} for _ in view.names]
    for stream in streams:
        old = [one.streams.get(stream, Stream(zero_at=window.start)) for one in before]
        p = p_values[stream]
        z = np.where(np.isfinite(p) & ~broken, shift.z_scores(np.nan_to_num(p, nan=1.0)), np.nan)
        score = cusum.step(np.array([one.score for one in old]), z)
        score = np.minimum(score, threshold + _CEILING)
        for row, (one, value) in enumerate(zip(old, score.tolist(), strict=True)):
            after[row][stream] = _stream(one, value, bool(np.isfinite(z[row])), window, threshold)
    for row, name in enumerate(view.names):
        held = bool(broken[row]) or not np.isfinite(measured.p[row])
        found[name] = _feature(before[row], after[row], float(measured.size[row]), held=held)
    alarming = any(one.alarming for one in found.values())
    episode = state.episode if state.episode is not None else window.end
    return replace(
        state, last_end=window.end, features=found, episode=episode if alarming else None
    )


def _stream(old: Stream, score: float, tested: bool, window: Window, threshold: float) -> Stream:
    if not tested:
        return old
    if score <= 0:
        return Stream(0.0, window.end, None)
    alarm_at = old.alarm_at
    if alarm_at is None and score > threshold:
        alarm_at = window.end
    return Stream(score, old.zero_at, alarm_at)


def _feature(
    before: FeatureState, streams: dict[str, Stream], size: float, *, held: bool
) -> FeatureState:
    after = FeatureState(streams, before.sizes, before.starts)
    if not held:
        sizes = before.sizes
        if all(stream.score <= 0 for stream in streams.values()):
            sizes = ()
        elif len(sizes) < KEPT:
            # Six digits are plenty for a message, and keep the state small.
            sizes = (*sizes, float(f"{size:.6g}"))
        after = replace(after, sizes=sizes)
    if before.alarming and not after.alarming:
        began = before.streams[before.alarming].zero_at
        after = replace(after, starts=(*before.starts, began)[-REMEMBERED:])
    return after


def _report(
    state: DriftState,
    view: View,
    window: Window,
    measured: Measured,
    findings: tuple[Finding, ...],
    broken: BoolArray,
    threshold: float,
    settings: DriftSettings,
) -> WindowReport:
    unhealthy = {finding.feature for finding in findings}
    reports = [
        _feature_report(
            state.features.get(name, FeatureState()), view, row, measured, threshold,
            unhealthy=name in unhealthy or bool(broken[row]), settings=settings,
        )
        for row, name in enumerate(view.names)
    ]  # fmt: skip
    reports.sort(key=lambda report: report.rank)
    condition, message = summary(reports, findings)
    changes = [
        report.change_point
        for report in reports
        if report.condition is Condition.DRIFTED and report.change_point is not None
    ]
    return WindowReport(
        condition=condition,
        message=message,
        start=window.start,
        end=window.end,
        features=tuple(reports),
        findings=findings,
        blocked=health.blocks_retraining(findings),
        episode=state.episode,
        change_point=min(changes, default=None),
        unhealthy=state.unhealthy,
    )


def _feature_report(
    state: FeatureState,
    view: View,
    row: int,
    measured: Measured,
    threshold: float,
    *,
    unhealthy: bool,
    settings: DriftSettings,
) -> DriftReport:
    name = view.names[row]
    by = state.alarming or max(
        state.streams, key=lambda one: state.streams[one].score, default=SHAPE
    )
    stream = state.streams.get(by, Stream())
    p = measured.tail_p[row] if by == TAILS else measured.p[row]
    drifted = state.alarming is not None
    began = stream.zero_at if drifted else None
    # What is constant in the reference has rare cells only: their test is the whole test.
    tests = measured.p if view.layout.bins[row] > 1 else measured.tail_p
    kind = course(state.sizes, state.starts, began) if began is not None else Kind.UNKNOWN
    return DriftReport(
        feature=name,
        condition=_condition(drifted, unhealthy, bool(np.isfinite(tests[row]))),
        method=settings.method_of(name),
        statistic=float(measured.statistic[row]),
        psi=float(measured.psi[row]),
        n=int(measured.n[row]),
        m=int(measured.m[row]),
        needed=int(measured.needed[row]),
        p=float(p),
        q=float(measured.q[row]),
        score=stream.score,
        threshold=threshold,
        by=by,
        tail=TAIL_KINDS[int(measured.tail_kind[row])].value if by == TAILS else None,
        alarm_since=stream.alarm_at,
        change_point=began,
        kind=kind,
        period=period(state.starts, began) if kind is Kind.RECURRING and began else None,
        floor=view.floors[row],
        reference_short=bool(measured.m[row] > 0 and measured.n[row] < ENOUGH * measured.m[row]),
    )


def _condition(drifted: bool, unhealthy: bool, tested: bool) -> Condition:
    if drifted:
        return Condition.DRIFTED
    if unhealthy:
        return Condition.UNHEALTHY
    return Condition.STEADY if tested else Condition.INSUFFICIENT_DATA
