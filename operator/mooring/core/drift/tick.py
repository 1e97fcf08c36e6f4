"""One window of one deployment: counts in; memory and report out. Pure, and run in a thread.

    memory, report = judge(watch, reference, counted, memory, start, end)

What cannot be judged is said and goes on: a window without data, a reference that does not fit.
What could not be *read* is not taken (:func:`unread`): it is asked for again.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from mooring.api import parse_duration
from mooring.api.conditions import DATA_HEALTHY, DRIFTED
from mooring.api.monitoring_status import NAME_LENGTH, WORST
from mooring.core.conditions import Finding
from mooring.core.drift import concept, variety
from mooring.core.drift.counted import arrays, tuples
from mooring.core.drift.episode import Window, evaluate, threshold_of
from mooring.core.drift.health import Rule
from mooring.core.drift.measure import View
from mooring.core.drift.memory import (
    MOST_REVISIONS,
    PLOTTED,
    Memory,
    Past,
    joined_spans,
    with_span,
)
from mooring.core.drift.rebase import after_change, base_of, based, spans, with_answers
from mooring.core.drift.reference import FeatureReference, Reference
from mooring.core.drift.report import Condition, DriftReport, WindowReport, summary
from mooring.core.drift.season import (
    PastWindow,
    SeasonalReference,
    seasonal_reference,
    seasons_over,
)
from mooring.core.drift.settings import DriftSettings
from mooring.core.drift.state import DriftState
from mooring.core.drift.telling import Telling, anchored, digits
from mooring.core.drift.watch import Watch, nothing_to_judge, unsuitable
from mooring.core.monitoring import DriftFacts, Report, at, shown
from mooring.core.sentences import bounded
from mooring.core.telemetry import Cells, Counted

#: What the collector reports under no feature's name.
_NOT_FEATURES = frozenset({"", "(answer)", "(other)"})
#: Requests with a tensor that nobody knows are one caller's mistake up to this share.
_STRAY = 0.01
#: Windows without traffic, in which labels may come all the same.
_LABELS_ONLY = frozenset({"NoTraffic", "NothingCounted"})


@dataclass(frozen=True, slots=True)
class Earlier:
    """What was counted in an earlier window, for a seasonal reference."""

    start: float
    end: float
    counted: Counted


def begun(start: float, end: float, problem: Finding | None = None) -> tuple[Memory, Report]:
    """Before the first window, which lasts from ``start`` to ``end``."""
    finding = problem or Finding("Starting", f"the first window ends at {shown(end)}", "Unknown")
    finding = replace(finding, message=bounded(finding.message))
    return Memory(last_end=start, began=start), Report(
        {"state": "NoData", "message": finding.message},
        {DATA_HEALTHY: finding, DRIFTED: finding},
    )


def unread(report: Report, problem: Finding) -> Report:
    """The report while a window that is over cannot be read: it waits, and an alarm stays."""
    problem = replace(problem, message=bounded(problem.message))
    facts = replace(report.facts, healthy=False) if report.facts is not None else None
    drifted = report.conditions.get(DRIFTED)
    conditions = {DATA_HEALTHY: problem, DRIFTED: problem}
    if drifted is not None and drifted.status == "True":
        conditions[DRIFTED] = drifted
    return Report({**report.drift, "message": problem.message}, conditions, facts)


def skipped(
    memory: Memory, report: Report, problem: Finding, start: float, end: float, rows: float = 0.0
) -> tuple[Memory, Report]:
    """A window that nothing can be said about: taken, while all evidence stays as it is."""
    past = Past(end, rows, "NoData")
    memory = replace(memory, last_end=end, past=(*memory.past, past)[-PLOTTED:])
    waiting = unread(report, problem)
    drifted = waiting.conditions[DRIFTED].status == "True"
    facts = waiting.facts
    if facts is not None:
        facts = replace(facts, window_end=at(end))
    drift = {
        **waiting.drift,
        "state": "Drifted" if drifted else "NoData",
        "windowEnd": shown(end),
        "rows": int(rows),
    }
    return memory, Report(drift, waiting.conditions, facts)


def judge(
    watch: Watch,
    reference: Reference,
    counted: Counted,
    memory: Memory,
    report: Report,
    start: float,
    end: float,
    earlier: Sequence[Earlier] = (),
    *,
    fresh: Counted | None = None,
    seasons: Sequence[Earlier] = (),
) -> tuple[Memory, Report]:
    """Judges the window ``(start, end]``.

    Args:
        watch: what is asked for.
        reference: what to compare with.
        counted: the window.
        memory: from the window before.
        report: of the window before.
        start: of the window, in seconds.
        end: of the window, in seconds.
        earlier: windows of earlier seasons, for a seasonal reference.
        fresh: what was counted in :func:`rebasing`, where that gave spans.
        seasons: what was counted in :func:`seasons_due`.
    """
    grid, name = reference.grid_hash, reference.hash
    if watch.stable is None:  # status was lost, and is written anew any moment
        watch = replace(watch, stable=memory.stable, retrained=memory.retrained)
    problem = hindrance(watch, reference, counted)
    if problem is not None:
        if problem.reason in _LABELS_ONLY and memory.reference == name:
            # Labels come at night, too: what they show is told with the next window of traffic.
            memory = _with_labels(memory, watch, reference, counted, start, end)
        return skipped(memory, report, problem, start, end, counted.rows)
    if memory.reference != name:
        memory = Memory(memory.last_end, name, odd=memory.odd, past=memory.past, began=start)
    wanted = rebasing(watch, memory, report, start)
    span = (wanted[0][0] if wanted else start, start)
    memory = _on_its_base(watch, reference, grid, memory, span, fresh)
    step = _Step(watch, reference, grid, counted, memory, start, end)
    return step.run(earlier, seasons)


def _with_labels(
    memory: Memory, watch: Watch, reference: Reference, counted: Counted, start: float, end: float
) -> Memory:
    """The memory with what labels say; ``memory`` knows what of this window was broken."""
    answers = memory.outputs.get(watch.stable or "", DriftState())
    broken = (*memory.features.unhealthy, *answers.unhealthy)
    found = concept.followed(watch, reference, counted, memory.concept, broken, start, end)
    return replace(memory, concept=found)


def hindrance(watch: Watch, reference: Reference, counted: Counted) -> Finding | None:
    """Why a window cannot be judged; None when it can."""
    return unsuitable(watch, reference) or nothing_to_judge(watch, reference.grid_hash, counted)


def seasons_due(watch: Watch, memory: Memory, end: float) -> tuple[tuple[float, float], ...]:
    """The spans to be read before the window that ends at ``end``: the seasons that are over and
    were not judged as a whole.
    """
    if watch.season is None:
        return ()
    judged, taken = memory.features.last_end, memory.anchor.last_end
    return seasons_over(end, watch.season, judged=judged, taken=taken)


def rebasing(
    watch: Watch, memory: Memory, report: Report, start: float
) -> tuple[tuple[float, float], ...]:
    """The spans to be read before the window at ``start``, to be compared with from then on: what
    stable was retrained on, or the first traffic.
    """
    broken, base = memory.features.unhealthy, memory.base
    if watch.retrained and watch.stable is not None:
        if base is not None and base.revision == watch.stable:
            return ()
        facts = report.facts
        changed = facts.change_point.timestamp() if facts and facts.change_point else None
        if changed is not None:
            last = memory.features.last_change or changed
            changed = after_change(last, start, watch.window)
            if changed is None:
                return ()
        return spans(changed, start, watch.window, broken)
    began, captured = memory.began, watch.captured
    if base is not None or began is None or captured is None or start < began + captured:
        return ()
    return spans(began, start, watch.window, broken)


def _on_its_base(
    watch: Watch,
    reference: Reference,
    grid: str,
    memory: Memory,
    span: tuple[float, float],
    fresh: Counted | None,
) -> Memory:
    """Takes the base of a retrained revision up, and that of another one down: both begin anew."""
    base, began = memory.base, memory.began
    others = {"", watch.stable}
    if base is not None and watch.stable and not watch.retrained and base.revision not in others:
        base, began = None, span[1]  # that revision is stable no more
    if fresh is not None:
        revision = (watch.stable or "") if watch.retrained else ""
        features, outputs = watch.watched(reference), reference.outputs if revision else ()
        made = base_of(fresh, grid, features, outputs, revision, *span)
        base = made if made is not None else base
    if base == memory.base:
        return memory
    kept = DriftState(memory.features.basis, unhealthy=memory.features.unhealthy)
    return Memory(
        memory.last_end, memory.reference, kept, odd=memory.odd, past=memory.past, base=base,
        began=began, concept=memory.concept,
    )  # fmt: skip


@dataclass(slots=True)
class _Step:
    watch: Watch
    reference: Reference
    grid: str
    counted: Counted
    memory: Memory
    start: float
    end: float

    def run(self, earlier: Sequence[Earlier], seasons: Sequence[Earlier]) -> tuple[Memory, Report]:
        settings, features = self.watch.settings, self.watch.watched(self.reference)
        outputs, revisions = self.reference.outputs, self._revisions()
        if self.watch.season is not None:  # whole seasons are judged as well
            settings = replace(
                settings, false_alarms_per_quarter=settings.false_alarms_per_quarter / 2
            )
            due = seasons_due(self.watch, self.memory, self.end)  # a new base knows no old season
            for season in seasons:
                if (season.start, season.end) in due:
                    self._anchor(features, settings, season)
        streams = 2 * (len(features) + len(outputs) * len(revisions))
        settings = replace(settings, threshold=threshold_of(settings, streams))
        found: list[tuple[str | None, WindowReport]] = []
        state = self.memory.features
        if features:
            state, window_report = self._features(features, settings, earlier)
            found.append((None, anchored(window_report, self.memory.anchor)))
        states = {
            revision: one
            for revision, one in self.memory.outputs.items()
            if revision not in revisions
        }
        for revision in revisions if outputs else ():
            if self._is_new(revision):
                continue
            states[revision], window_report = self._outputs(revision, settings)
            found.append((revision, window_report))
        return self._reported(state, dict(list(states.items())[-MOST_REVISIONS:]), found)

    def _features(
        self,
        features: tuple[FeatureReference, ...],
        settings: DriftSettings,
        earlier: Sequence[Earlier],
    ) -> tuple[DriftState, WindowReport]:
        view = self._view(features, settings)
        season = self._season(view, earlier)
        if season is not None and season.counts is not None:
            view = view.rebased(season.counts, season.same)
        known = {one.name for one in self.reference.features}
        answers = {one.name for one in self.reference.outputs}
        named = {one.name for one in self.watch.spec.features or ()}
        window = Window(
            self.start,
            self.end,
            arrays(features, self._cells()),
            self.counted.rows,
            view.grid,
            violations={
                name: rules for name, rules in self.counted.violations.items() if name in known
            },
            malformed=self.counted.requests.get("unparsed", 0.0),
            read=self.counted.requests.get("answered"),
            unknown=tuple(
                name
                for name, rules in self.counted.violations.items()
                if name not in known | named | answers | _NOT_FEATURES
                and rules.get(Rule.SCHEMA.value, 0.0) > _STRAY * self.counted.rows
            ),
        )
        expectations = self.watch.expectations(self.reference)
        return evaluate(view, window, self.memory.features, settings, expectations=expectations)

    def _view(self, features: tuple[FeatureReference, ...], settings: DriftSettings) -> View:
        view = View.of(features, settings, grid=self.grid)
        base = self.memory.base
        return view if base is None else based(view, base.counts)

    def _anchor(
        self,
        features: tuple[FeatureReference, ...],
        settings: DriftSettings,
        season: Earlier,
    ) -> None:
        """Judges a whole season, which has no season in it, against what does not move along."""
        anchor, counted = self.memory.anchor, season.counted
        if features and counted.scrapes and not counted.gap:
            settings = replace(settings, window=season.end - season.start)
            settings = replace(settings, threshold=threshold_of(settings, 2 * len(features)))
            counts = arrays(features, counted.features.get(self.grid, {}))
            window = Window(season.start, season.end, counts, counted.rows, self.grid)
            anchor, _ = evaluate(self._view(features, settings), window, anchor, settings)
        # One that shows nothing has had its turn, too: it is not read again with every window.
        self.memory = replace(self.memory, anchor=replace(anchor, last_end=season.end))

    def _season(self, view: View, earlier: Sequence[Earlier]) -> SeasonalReference | None:
        seasonal = self.watch.spec.reference.seasonal
        if seasonal is None:
            return None
        past = []
        for one in earlier:
            cells = one.counted.features.get(self.grid, {})
            if not cells or one.counted.gap:
                continue
            known = arrays(view.features, cells)
            fine = view.layout.pad(
                [known.get(f.name, np.zeros(f.grid.cells)) for f in view.features]
            )
            odd = any(a < one.end and one.start < b for a, b in self.memory.odd)
            past.append(PastWindow(one.start, one.end, fine, usable=not odd))
        offset = parse_duration(seasonal.offset).total_seconds()
        return seasonal_reference(
            past, self.start, self.watch.window, offset=offset, weeks=seasonal.weeks
        )

    def _outputs(self, revision: str, settings: DriftSettings) -> tuple[DriftState, WindowReport]:
        outputs = self.reference.outputs
        view = View.of(outputs, settings, grid=self.grid)
        base = self.memory.base
        if base is not None and base.revision == revision:
            view = based(view, base.outputs)
        counts = arrays(outputs, self._output_cells(revision))
        rows = max((float(one.sum()) for one in counts.values()), default=self.counted.rows)
        window = Window(self.start, self.end, counts, rows, view.grid)
        if revision == self.watch.stable:
            more = variety.followed(self._variety(), view, counts)
            self.memory = replace(self.memory, variety=more, stable=revision)
        before = self.memory.outputs.get(revision, DriftState())
        expectations = self.watch.expectations(self.reference)
        return evaluate(view, window, before, settings, expectations=expectations)

    def _variety(self) -> variety.Variety:
        """What is known of the stable revision's answers; of another one's nothing."""
        same = self.memory.stable in (None, self.watch.stable)
        return self.memory.variety if same else {}

    def _is_new(self, revision: str) -> bool:
        """Whether too little is known of what a retrained revision usually answers; its answers are
        then remembered, and judged later.
        """
        if not self.watch.retrained or revision != self.watch.stable:
            return False
        base = self.memory.base
        if base is None or base.revision != revision:
            return True
        if base.knows_answers:
            return False
        more = with_answers(base, self.counted, self.grid, self.reference.outputs)
        self.memory = replace(self.memory, base=more)
        return True

    def _cells(self) -> Mapping[str, Cells]:
        return self.counted.features.get(self.grid, {})

    def _output_cells(self, revision: str) -> Mapping[str, Cells]:
        cells = self.counted.outputs.get(self.grid, {})
        return {name: one for (of, name), one in cells.items() if of == revision}

    def _revisions(self) -> tuple[str, ...]:
        """Whose answers are judged: those that answered, at most four, stable always."""
        rows: dict[str, float] = {}
        cells = self.counted.outputs.get(self.grid, {})
        for (revision, _), one in cells.items():
            rows[revision] = max(rows.get(revision, 0.0), sum(one.values()))
        most = sorted(rows, key=lambda revision: (-rows[revision], revision))
        stable = self.watch.stable
        if stable is not None and (stable in rows or not rows):
            most = [stable, *(one for one in most if one != stable)]
        return tuple(most[:MOST_REVISIONS])

    def _reported(
        self,
        state: DriftState,
        states: dict[str, DriftState],
        found: list[tuple[str | None, WindowReport]],
    ) -> tuple[Memory, Report]:
        own = [(revision, one) for revision, one in found if revision in (None, self.watch.stable)]
        reports = [(revision, r) for revision, one in own for r in one.features]
        reports.sort(key=lambda pair: pair[1].rank)
        broken = tuple(finding for _, one in own for finding in one.findings)
        condition, message = summary([_named(*pair) for pair in reports], broken)
        fading = variety.told(self.memory.variety) if any(revision for revision, _ in own) else ""
        message = f"{message}; {fading}" if fading else message
        self.memory = _with_labels(
            replace(self.memory, features=state, outputs=states),
            self.watch, self.reference, self.counted, self.start, self.end,
        )  # fmt: skip
        labels = concept.told(self.watch, self.reference, self.memory.concept)
        odd = self.memory.odd
        if condition is Condition.DRIFTED or broken:
            odd = with_span(odd, self.start, self.end)
        if labels is not None and labels.message:
            condition, message = Condition.DRIFTED, f"{labels.message}; {message}"
        alarming = condition is Condition.DRIFTED
        episode = self.memory.episode if self.memory.episode is not None else self.end
        everything = [(revision, r) for revision, one in found for r in one.features]
        everything.sort(key=lambda pair: pair[1].rank)
        sizes = {_name(revision, r): digits(r.psi) for revision, r in everything}
        known = {name: size for name, size in sizes.items() if size is not None}
        past = Past(self.end, self.counted.rows, condition.value, known)
        memory = replace(
            self.memory,
            last_end=self.end,
            stable=self.watch.stable,
            variety=self._variety(),
            retrained=self.watch.retrained,
            episode=episode if alarming else None,
            odd=odd,
            counts=tuples(arrays(self.reference.features, self._cells())),
            output_counts={
                revision: tuples(arrays(self.reference.outputs, self._output_cells(revision)))
                for revision in states
            },
            past=(*self.memory.past, past)[-PLOTTED:],
        )
        changes = [one.change_point for _, one in own if one.change_point is not None]
        drifted = [
            _name(revision, r) for revision, r in reports if r.condition is Condition.DRIFTED
        ]
        if labels is not None and labels.change_point is not None:
            changes.append(labels.change_point)
            drifted = list(dict.fromkeys((labels.output, *drifted)))
        facts = DriftFacts(
            drifted=alarming,
            since=at(memory.episode),
            change_point=at(min(changes, default=None)),
            features=tuple(bounded(one, NAME_LENGTH) for one in drifted[:WORST]),
            healthy=not broken,
            unhealthy_windows=tuple(
                (_moment(a), _moment(b)) for a, b in joined_spans(one.unhealthy for _, one in own)
            ),
            episode=int(memory.episode or 0),
            window_end=at(self.end),
            message=bounded(message),
        )
        watched = tuple(one.name for one in self.watch.watched(self.reference))
        told = Telling(
            self.watch.spec.reference.config_map, self.memory.reference, watched,
            self.counted.rows, self.end, condition, message, broken, self.memory.base, labels,
        )  # fmt: skip
        drift = told.status(facts, reports, everything)
        return memory, Report(drift, told.conditions(reports), facts)


def _name(revision: str | None, one: DriftReport) -> str:
    return one.feature if revision is None else f"{one.feature}@{revision}"


def _named(revision: str | None, one: DriftReport) -> DriftReport:
    """As a sentence names it, which goes on behind the name."""
    name = bounded(one.feature, NAME_LENGTH)
    return replace(one, feature=name if revision is None else f"the answers' {name}")


def _moment(seconds: float) -> Any:
    return at(seconds)
