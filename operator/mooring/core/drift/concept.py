"""Whether a score still means what it meant: labels that came later, against the reference's.

Labels are counted by the cell of the score that they belong to, and judged given that cell, so
neither another distribution of scores nor a selection of labels by score is evidence. What is
judged: errors of all predictions, of those of the class 1, of those of the class 0, and what the
score means at all, each by an e-process (:mod:`mooring.core.drift.performance`). They share α of
one beginning: a model as good as its reference ever alarms with that probability at most, however
long and however often one looks. They begin anew with another revision, another reference, and once
an alarm is over.

A label is counted in the window in which it comes. Those that come early may be of one kind (fraud
is reported, honesty is not), so windows are judged only once the oldest label can be ``maturity``
old, and those are left out whose labels may belong to predictions on broken data.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final

import numpy as np

from mooring.api import parse_duration
from mooring.api.monitoring_status import NAME_LENGTH
from mooring.core.drift.arrays import BoolArray, FloatArray
from mooring.core.drift.performance import TRUE, Outcomes, Processes, after_window, called
from mooring.core.drift.reference import FeatureReference, Reference
from mooring.core.drift.watch import Watch
from mooring.core.monitoring import shown
from mooring.core.sentences import bounded
from mooring.core.telemetry import Counted

#: The probability of ever alarming without a reason, of one beginning.
ALPHA: Final = 0.001
#: Labels, and labels of each kind, from which is known what a retrained model's scores mean.
_OWN, _OWN_OF_EACH = 1000.0, 30.0
_NUMBER: Final = "(number)"

Spans = tuple[tuple[float, float], ...]


@dataclass(frozen=True, slots=True)
class Labels:
    """Labels and those of the class 1 among them, by cell of the score."""

    labelled: tuple[float, ...]
    positives: tuple[float, ...]

    @staticmethod
    def none(cells: int) -> Labels:
        return Labels((0.0,) * cells, (0.0,) * cells)

    @property
    def total(self) -> float:
        return sum(self.labelled)

    @property
    def outcomes(self) -> Outcomes:
        labelled = np.array(self.labelled)
        return Outcomes(labelled, labelled, np.array(self.positives))

    def __add__(self, other: Labels) -> Labels:
        return Labels(
            tuple(a + b for a, b in zip(self.labelled, other.labelled, strict=True)),
            tuple(a + b for a, b in zip(self.positives, other.positives, strict=True)),
        )

    def to_json(self) -> list[list[float]]:
        return [list(self.labelled), list(self.positives)]

    @staticmethod
    def from_json(raw: Any) -> Labels:
        labelled, positives = raw
        return Labels(tuple(map(float, labelled)), tuple(map(float, positives)))


@dataclass(frozen=True, slots=True)
class Concept:
    """What is remembered of a revision's labels: a few numbers per cell.

    Attributes:
        revision: whose labels; another one begins anew.
        first: start of the window in which its first label came as stable, in seconds.
        last_end: end of the last window that was taken.
        not_before: windows that begin earlier are not judged.
        processes: the evidence.
        earlier: labels judged up to ``zero_at``.
        recent: labels judged since.
        zero_at: end of the last window after which nothing spoke for a change (or the start of the
            first): where the change began, if there is one.
        alarm_at: end of the window that alarmed; None without an alarm.
        own: of a retrained revision its first labels, which take the place of the reference's.
        numbers: whether the last labels were other numbers than 0 and 1.
    """

    revision: str
    first: float
    last_end: float
    earlier: Labels
    recent: Labels
    zero_at: float
    not_before: float = 0.0
    processes: Processes = field(default_factory=Processes)
    alarm_at: float | None = None
    own: Labels | None = None
    numbers: bool = False

    def to_json(self) -> dict[str, Any]:
        return {
            "revision": self.revision,
            "first": self.first,
            "lastEnd": self.last_end,
            "notBefore": self.not_before,
            "processes": self.processes.to_json(),
            "earlier": self.earlier.to_json(),
            "recent": self.recent.to_json(),
            "zeroAt": self.zero_at,
            "alarmAt": self.alarm_at,
            "own": self.own.to_json() if self.own is not None else None,
            "numbers": self.numbers,
        }

    @staticmethod
    def from_json(raw: Mapping[str, Any]) -> Concept:
        """Reads ``to_json``; raises KeyError, TypeError or ValueError."""
        alarm = raw["alarmAt"]
        return Concept(
            revision=str(raw["revision"]),
            first=float(raw["first"]),
            last_end=float(raw["lastEnd"]),
            not_before=float(raw["notBefore"]),
            processes=Processes.from_json(raw["processes"]),
            earlier=Labels.from_json(raw["earlier"]),
            recent=Labels.from_json(raw["recent"]),
            zero_at=float(raw["zeroAt"]),
            alarm_at=float(alarm) if alarm is not None else None,
            own=Labels.from_json(raw["own"]) if raw["own"] is not None else None,
            numbers=bool(raw["numbers"]),
        )


def judged_output(watch: Watch, reference: Reference) -> FeatureReference | None:
    """The score whose labels can be judged; None without labels, or without any to compare with."""
    calibration = reference.calibration
    if watch.spec.ground_truth is None or calibration is None:
        return None
    found = (one for one in reference.outputs if one.name == calibration.output)
    output = next(found, None)
    return output if output is not None and output.grid.kind == "numeric" else None


def followed(
    watch: Watch,
    reference: Reference,
    counted: Counted,
    known: Concept | None,
    broken: Spans,
    start: float,
    end: float,
) -> Concept | None:
    """What is known after the window ``(start, end]``.

    Args:
        watch: what is asked for.
        reference: the labels to compare with.
        counted: the window.
        known: from the window before.
        broken: spans with broken data, up to this window.
        start: of the window, in seconds.
        end: of the window, in seconds.

    A window that overlaps one already taken changes nothing.
    """
    output = judged_output(watch, reference)
    revision, truth = watch.stable, watch.spec.ground_truth
    if output is None or truth is None or revision is None:
        return None
    cells = output.grid.ordered
    if known is not None and (known.revision != revision or len(known.recent.labelled) != cells):
        known = None
    window, numbers = _window(counted, reference.grid_hash, revision, output)
    if known is not None and start < known.last_end:
        return known
    if known is None and window.total == 0 and not numbers:
        return None
    if known is None:
        none = Labels.none(cells)
        known = Concept(revision, start, end, none, none, start)
    maturity = parse_duration(truth.maturity).total_seconds()
    begins = max((known.first, *(until for _, until in broken))) + maturity
    known = replace(known, last_end=end, not_before=begins)
    if window.total == 0 and not numbers:
        return known
    known = replace(known, numbers=numbers)
    if numbers or start < begins:
        return known
    if watch.retrained and not _suffices(known.own):
        own = window if known.own is None else known.own + window
        return replace(known, own=own)
    if not known.processes.by_figure:
        known = replace(known, zero_at=start)
    return _judged(known, window, _usual(watch, reference, known, cells), output, end)


def _window(
    counted: Counted, grid: str, revision: str, output: FeatureReference
) -> tuple[Labels, bool]:
    """The labels of a revision, and whether some are other numbers than 0 and 1."""
    labelled, positives = np.zeros(output.grid.ordered), np.zeros(output.grid.ordered)
    numbers = False
    for (of, name, label), cells in counted.outcomes.get(grid, {}).items():
        if of != revision or name != output.name:
            continue
        numbers = numbers or label == _NUMBER
        for cell, count in cells.items():
            if cell < labelled.size and label != _NUMBER:
                labelled[cell] += count
                positives[cell] += count if label in TRUE else 0.0
    return Labels(tuple(labelled.tolist()), tuple(positives.tolist())), numbers


def _suffices(own: Labels | None) -> bool:
    if own is None or own.total < _OWN:
        return False
    positives = sum(own.positives)
    return min(positives, own.total - positives) >= _OWN_OF_EACH


def _usual(watch: Watch, reference: Reference, known: Concept, cells: int) -> Outcomes:
    """What is compared with: the reference's labels, or a retrained model's own first ones."""
    if watch.retrained and known.own is not None:
        return known.own.outcomes
    assert reference.calibration is not None
    labelled = reference.calibration.labelled[:cells]
    return Outcomes(labelled, labelled, reference.calibration.positives[:cells])


def _judged(
    known: Concept, window: Labels, usual: Outcomes, output: FeatureReference, end: float
) -> Concept:
    positive = called(output.grid)
    threshold_bin = int(np.argmax(positive)) if positive.any() else positive.size
    recent = known.recent + window
    # What scores meant before this window is part of what they usually mean, but for what has
    # alarmed: an alarm must not end because one is used to it.
    settled = known.earlier if known.alarm_at is not None else known.earlier + known.recent
    processes = after_window(
        known.processes,
        window.outcomes,
        usual,
        threshold_bin,
        seen=np.array(recent.labelled),
        usual=usual + settled.outcomes,
    )
    most = threshold(processes)
    highest = max(one.evidence for one in processes.by_figure.values())
    held = Processes({name: one.held(most) for name, one in processes.by_figure.items()})
    known = replace(known, processes=held, recent=recent)
    if highest >= most and known.alarm_at is None:
        return replace(known, alarm_at=end)
    if highest > 0:
        return known
    none = Labels.none(len(recent.labelled))
    if known.alarm_at is not None:
        return replace(known, processes=Processes(), recent=none, zero_at=end, alarm_at=None)
    return replace(known, earlier=known.earlier + recent, recent=none, zero_at=end)


def threshold(processes: Processes) -> float:
    """The evidence, as log E of one figure, from which it alarms: α is shared by all figures."""
    return math.log(max(len(processes.by_figure), 1) / ALPHA)


@dataclass(frozen=True, slots=True)
class Told:
    """What is told of a revision's labels.

    Attributes:
        status: ``status.drift.concept``.
        message: one sentence; empty while nothing alarms.
        change_point: where the change began; None without an alarm.
        output: as the features that drifted are named.
    """

    status: Mapping[str, Any]
    message: str = ""
    change_point: float | None = None
    output: str = ""


def told(watch: Watch, reference: Reference, known: Concept | None) -> Told | None:
    """What is to be told; None where labels cannot be judged at all."""
    output = judged_output(watch, reference)
    if output is None:
        return None
    name = bounded(output.name, NAME_LENGTH)
    status: dict[str, Any] = {"state": "InsufficientData", "output": name, "labels": 0}
    if known is None:
        return Told({**status, "message": "no label has come (POST /feedback of the collector)"})
    status |= {"revision": known.revision}
    status["labels"] = int(known.earlier.total + known.recent.total)
    if known.numbers:
        return Told({**status, "message": "labels are other numbers than 0 and 1: not judged"})
    if known.alarm_at is None:
        waiting = _waiting(watch, known)
        if waiting:
            return Told({**status, "message": waiting})
    steady = "labels are as the reference's at the same scores"
    if not known.processes.by_figure:  # an alarm is just over
        return Told({**status, "state": "Steady", "message": steady})
    figures = known.processes.by_figure
    most = threshold(known.processes)
    p = min(1.0, len(figures) * min(one.p for one in figures.values()))
    score = max(0.0, *(one.evidence for one in figures.values()))
    status |= {"pValue": _digits(p), "score": _digits(score), "threshold": _digits(most)}
    if known.alarm_at is None:
        return Told({**status, "state": "Steady", "message": steady})
    # What a score means at all comes last: it says the least about what is worse.
    alarmed = next(name for name, one in figures.items() if one.peak >= most)
    usual = _usual(watch, reference, known, len(known.recent.labelled))
    whose = "its own first labels have" if watch.retrained else "the reference has"
    message = (
        f"{name} means something else by now: "
        f"{_worse(alarmed, known.recent, usual, called(output.grid), whose)} at the same scores, "
        f"by {known.recent.total:.0f} labels since {shown(known.zero_at)} (p = {p:.1g})"
    )
    status |= {"state": "Drifted", "since": shown(known.alarm_at), "message": message}
    where = f"{name}@{known.revision}"
    return Told(status, message, known.zero_at, where)


def _waiting(watch: Watch, known: Concept) -> str:
    """Why no label is judged now; empty where some are."""
    judged = known.earlier.total + known.recent.total
    if known.last_end <= known.not_before or (judged == 0 and known.own is None):
        return f"labels that come from {shown(known.not_before)} on are judged"
    if watch.retrained and judged == 0:
        count = known.own.total if known.own is not None else 0.0
        return (
            f"{count:.0f} labels of the retrained model; once there are {_OWN:.0f}, "
            f"{_OWN_OF_EACH:.0f} of each kind, later ones are held against these"
        )
    return ""


def _worse(figure: str, found: Labels, usual: Outcomes, positive: BoolArray, whose: str) -> str:
    """A figure of these labels, beside what it were if the same scores meant what they did."""
    known = usual.labelled > 0
    labelled = np.where(known, np.array(found.labelled), 0.0)
    positives = np.where(known, np.array(found.positives), 0.0)
    expected = labelled * usual.positives / np.maximum(usual.labelled, 1.0)

    def shares(cells: BoolArray, of: FloatArray, before: FloatArray) -> tuple[str, str]:
        rows = max(float(labelled[cells].sum()), 1.0)
        return f"{of[cells].sum() / rows:.3f}", f"{before[cells].sum() / rows:.3f}"

    everywhere = np.ones_like(positive)
    match figure:
        case "accuracy":
            right = np.where(positive, positives, labelled - positives)
            before = np.where(positive, expected, labelled - expected)
            now, was = shares(everywhere, right, before)
            return f"accuracy is {now} where {whose} {was}"
        case "precision":
            now, was = shares(positive, positives, expected)
            return f"precision is {now} where {whose} {was}"
        case "omission":
            now, was = shares(~positive, positives, expected)
            return f"of those predicted as 0 a share of {now} is 1 where {whose} {was}"
        case _:
            now, was = shares(everywhere, positives, expected)
            return f"the calibration has changed (a share of {now} is 1 where {whose} {was})"


def _digits(value: float) -> float:
    return float(f"{value:.4g}")
