"""Another base to compare with, once a model was retrained and promoted.

A model that was trained on the data since the change point knows that data: against the reference
of its predecessor it would alarm for ever. So the live traffic from the change point to the
promotion takes the place of the reference's counts, on the same bins. That base is fixed: a drift
that is slow is seen against it, as it would not be against one that moves along. It holds for as
long as that revision is stable; any other goes back to the ConfigMap.

The answers of the new model are nothing like its predecessor's, so they are compared with its own
first ones alone: those that it gave as a candidate, and after that, until there are enough.

A captured reference is such a base, too: of the first traffic, and whatever revision is stable.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import zip_longest
from typing import TYPE_CHECKING, Any

import numpy as np

from mooring.core.telemetry import Cells, Counted

if TYPE_CHECKING:
    from mooring.core.drift.measure import View
    from mooring.core.drift.reference import FeatureReference

#: Rows without which nothing is re-based yet.
LEAST_ROWS = 1000.0
#: How far back a base may reach (seconds), and where it begins when no change point is known.
LONGEST = 14 * 86_400.0
_WINDOWS = 24
#: Answers of the new revision that its own base needs.
_LEAST_ANSWERS = 500.0


@dataclass(frozen=True, slots=True)
class Base:
    """Live counts between two moments, in seconds: what ``revision`` was trained on, or, with an
    empty one, the first traffic. ``outputs`` are the first answers of that revision.
    """

    revision: str
    start: float
    end: float
    counts: Mapping[str, tuple[float, ...]]
    outputs: Mapping[str, tuple[float, ...]]

    @property
    def knows_answers(self) -> bool:
        """Whether the revision has answered often enough to be compared with itself."""
        return bool(self.outputs) and all(
            sum(one) >= _LEAST_ANSWERS for one in self.outputs.values()
        )

    def to_json(self) -> dict[str, Any]:
        return {
            "revision": self.revision,
            "start": self.start,
            "end": self.end,
            "counts": {name: list(one) for name, one in self.counts.items()},
            "outputs": {name: list(one) for name, one in self.outputs.items()},
        }

    @staticmethod
    def from_json(raw: Mapping[str, Any]) -> Base:
        """Reads ``to_json``; raises KeyError, TypeError or ValueError."""
        return Base(
            str(raw["revision"]),
            float(raw["start"]),
            float(raw["end"]),
            {name: tuple(map(float, one)) for name, one in raw["counts"].items()},
            {name: tuple(map(float, one)) for name, one in raw["outputs"].items()},
        )


def after_change(last_change: float, start: float, window: float) -> float | None:
    """Where a base begins that ends at ``start``: after the window in which the data changed, which
    holds some of what was before. None as long as no other window is over: that one alone would
    alarm against what follows.

    ``last_change`` is the latest change point of what alarms: features that moved together may
    differ by a window, since chance leaves a sum just above 0.
    """
    pure = last_change + window
    return pure if pure + window <= start else None


def spans(
    change_point: float | None,
    start: float,
    window: float,
    unhealthy: Sequence[tuple[float, float]],
) -> tuple[tuple[float, float], ...]:
    """What a base is read from: from the change point to ``start``, without broken windows."""
    since = start - _WINDOWS * window if change_point is None else change_point
    at = max(min(since, start - window), start - LONGEST)
    found = []
    for broken_from, broken_to in (*sorted(unhealthy), (start, start)):
        until = min(broken_from, start)
        if until > at:
            found.append((at, until))
        at = max(at, min(broken_to, start))
    return tuple(found)


def base_of(
    counted: Counted,
    grid: str,
    features: Sequence[FeatureReference],
    outputs: Sequence[FeatureReference],
    revision: str,
    start: float,
    end: float,
) -> Base | None:
    """The base; None as long as there are too few rows, or some features were not counted."""
    cells = counted.features.get(grid, {})
    if counted.gap or any(sum(cells.get(one.name, {}).values()) < LEAST_ROWS for one in features):
        return None
    base = Base(revision, start, end, _filled(features, cells), {})
    return with_answers(base, counted, grid, outputs)


def with_answers(
    base: Base, counted: Counted, grid: str, outputs: Sequence[FeatureReference]
) -> Base:
    """The base with what its revision has answered in ``counted`` as well."""
    answers = {
        name: one
        for (of, name), one in counted.outputs.get(grid, {}).items()
        if of == base.revision
    }
    return replace(
        base,
        outputs={
            name: tuple(
                a + b for a, b in zip_longest(one, base.outputs.get(name, ()), fillvalue=0.0)
            )
            for name, one in _filled(outputs, answers).items()
        },
    )


def _filled(
    features: Sequence[FeatureReference], cells: Mapping[str, Cells]
) -> dict[str, tuple[float, ...]]:
    return {
        one.name: tuple(cells.get(one.name, {}).get(cell, 0.0) for cell in range(one.grid.cells))
        for one in features
    }


def based(view: View, counts: Mapping[str, tuple[float, ...]]) -> View:
    """The view with these counts in place of the reference's, where it has all of them."""
    if not counts or any(len(counts.get(one.name, ())) != one.grid.cells for one in view.features):
        return view
    return view.rebased(view.layout.pad([np.array(counts[one.name]) for one in view.features]))
