"""What is remembered of a candidate between two ticks: a few numbers, kept in status.

A judge that is restarted from it goes on bit for bit: nothing else flows from one tick to the
next. Log-evidence is rounded down to six decimals at every tick, so that it is short to write and
never more than was found.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any, Final, Self

import numpy as np

from mooring.core.judge.evidence import (
    FAIL_ALTERNATIVES,
    LATE_ODDS,
    PASS_ALTERNATIVES,
    RATIO_GRID,
    Array,
)
from mooring.core.judge.latency import TILTS
from mooring.core.judge.settings import Analysis
from mooring.core.judge.shift import Predictions

_VERSION: Final = 1
#: Router pods that are remembered; further ones are not evidence.
MAX_SOURCES: Final = 8
#: A router pod that gave no sample for so long is gone (seconds).
FORGET_AFTER: Final = 3600.0


@dataclass(frozen=True, slots=True)
class Rows:
    """The evidence of many metrics, one row each; every field has shape (rows, width).

    ``windows``: t of the start mixture against stable. ``fail``: log S per alternative.
    ``passing``: log of the product against the Pass ratio, per alternative. ``grid``:
    log-likelihood per rate ratio. ``totals``: bad and all requests of the candidate, then the same
    of stable.
    ``late_windows``, ``late``, ``since``: the process against the objective, and the candidate's
    bad and all requests that it has seen since its last beginning. ``alarm``: CUSUM of stable
    against the same objective. ``wait``: stable's requests and the windows since the candidate
    first missed it. ``tainted``: it missed while stable did. ``restarts``: beginnings after that.
    ``tilt_windows``, ``tilt``, ``tilt_passing``: the comparison of histograms. ``peaks``: the
    greatest log E of the three so far (against stable, objective, histograms).
    """

    windows: Array
    fail: Array
    passing: Array
    grid: Array
    totals: Array
    late_windows: Array
    late: Array
    since: Array
    alarm: Array
    wait: Array
    tainted: Array
    restarts: Array
    tilt_windows: Array
    tilt: Array
    tilt_passing: Array
    peaks: Array

    @classmethod
    def of(cls, matrix: Array) -> Self:
        """Cuts (rows, WIDTH) into its fields."""
        parts, at = {}, 0
        for name, width in _WIDTHS.items():
            parts[name] = matrix[:, at : at + width]
            at += width
        return cls(**parts)

    def matrix(self) -> Array:
        """All fields side by side, rounded as they are remembered."""
        down = {"fail", "passing", "late", "alarm", "tilt", "tilt_passing", "peaks"}
        parts = []
        for item in fields(self):
            values = getattr(self, item.name)
            if item.name in down:
                values = np.floor(values * 1e6) / 1e6
            elif item.name == "grid":
                values = np.round(values, 3)
            parts.append(values)
        return np.concatenate(parts, axis=1)


_WIDTHS: Final[dict[str, int]] = {
    "windows": 1,
    "fail": len(FAIL_ALTERNATIVES),
    "passing": len(PASS_ALTERNATIVES),
    "grid": len(RATIO_GRID),
    "totals": 4,
    "late_windows": 1,
    "late": len(LATE_ODDS),
    "since": 2,
    "alarm": len(LATE_ODDS),
    "wait": 2,
    "tainted": 1,
    "restarts": 1,
    "tilt_windows": 1,
    "tilt": len(TILTS),
    "tilt_passing": len(TILTS),
    "peaks": 3,
}
WIDTH: Final = sum(_WIDTHS.values())
_FROM_NOTHING: Final = frozenset({"fail", "late", "tilt", "peaks"})
#: A row before its first window: mixtures that have not begun, everything else zero.
FIRST_ROW: Final[tuple[float, ...]] = tuple(
    value
    for name, width in _WIDTHS.items()
    for value in (-math.inf if name in _FROM_NOTHING else 0.0,) * width
)


@dataclass(frozen=True, slots=True)
class Failure:
    """The Fail that was found: it stays, whatever comes after. ``at`` is the operator's clock."""

    metric: str
    reason: str
    at: float
    tick: int


@dataclass(frozen=True, slots=True)
class State:
    """Everything that the judge remembers of one revision and attempt.

    ``settings``: digest of the analysis that the evidence belongs to. ``phi``: over-dispersion per
    counted metric, frozen at the start; a metric without one is uncalibrated. ``weights``: percent
    and since when the split has been counted, with the attempts of both sides in ``split``.
    ``ticks``: looks so far. ``fresh``: the operator's clock at the last fresh sample. ``sources``:
    per router pod the numbers that :mod:`mooring.core.judge.windows` lays out. ``rows``,
    ``histograms``: per counted metric. ``streaks``: for free values, how often in a row they were
    inside (positive) or outside (negative). ``restarts``: see :mod:`mooring.core.judge.pods`.
    ``predictions``: see :mod:`mooring.core.judge.shift`.
    """

    settings: str
    phi: Mapping[str, float] = field(default_factory=dict)
    ticks: int = 0
    began: float | None = None
    fresh: float | None = None
    weights: tuple[float, float] | None = None
    split: tuple[float, float] = (0.0, 0.0)
    sources: Mapping[str, tuple[float, ...]] = field(default_factory=dict)
    rows: tuple[tuple[float, ...], ...] = ()
    histograms: tuple[tuple[tuple[float, ...], tuple[float, ...]], ...] = ()
    streaks: Mapping[str, int] = field(default_factory=dict)
    restarts: tuple[float, ...] = ()
    failure: Failure | None = None
    predictions: Predictions | None = None

    @classmethod
    def begin(cls, analysis: Analysis, phi: Mapping[str, float] | None = None) -> Self:
        """No evidence yet. ``phi`` by metric; missing, below 1 or not finite means uncalibrated."""
        buckets = len(analysis.grid) + 1
        empty = (0.0,) * buckets
        known = {m.name: (phi or {}).get(m.name) for m in analysis.counted}
        return cls(
            settings=analysis.digest(),
            phi={k: float(v) for k, v in known.items() if v is not None and 1 <= v < math.inf},
            rows=(FIRST_ROW,) * len(analysis.counted),
            histograms=((empty, empty),) * len(analysis.counted),
        )

    def calibrated(self, analysis: Analysis, phi: Mapping[str, float]) -> State:
        """With the over-dispersion of metrics that had none yet; frozen from then on.

        Evidence that was found before takes part as if it had been divided from the start. For
        sums of logarithms that is exact. The mixtures over starting times are taken down where
        they speak for anything, and never up: a root of an e-process, capped by it, is one too.
        """
        fresh = {
            m.name: float(phi[m.name])
            for m in analysis.counted
            if m.name not in self.phi and 1 <= phi.get(m.name, math.nan) < math.inf
        }
        if not fresh or len(self.rows) != len(analysis.counted):
            return self
        by = np.array([fresh.get(m.name, 1.0) for m in analysis.counted])[:, None]
        rows = Rows.of(np.array(self.rows).reshape(len(self.rows), WIDTH))
        mixed = ("fail", "late", "tilt", "peaks")
        changed = {
            name: np.minimum(getattr(rows, name), getattr(rows, name) / by) for name in mixed
        }
        summed = ("passing", "grid", "alarm", "tilt_passing")
        changed |= {name: getattr(rows, name) / by for name in summed}
        matrix = replace(rows, **changed).matrix()
        return replace(self, phi={**self.phi, **fresh}, rows=tuple(map(tuple, matrix.tolist())))

    def dump(self) -> dict[str, Any]:
        """The state as JSON: numbers, texts, lists and objects only, no infinities."""
        raw: dict[str, Any] = {
            "v": _VERSION,
            "settings": self.settings,
            "ticks": self.ticks,
            "split": _short(self.split),
            "sources": {name: _short(values) for name, values in self.sources.items()},
            "rows": [_short(row) for row in self.rows],
            "histograms": [
                [_short(side) if any(side) else [] for side in pair] for pair in self.histograms
            ],
        }
        if self.phi:
            raw["phi"] = dict(self.phi)
        if self.streaks:
            raw["streaks"] = dict(self.streaks)
        if self.restarts:
            raw["restarts"] = _short(self.restarts)
        if self.weights is not None:
            raw["weights"] = list(self.weights)
        times = {"began": self.began, "fresh": self.fresh}
        raw |= {name: value for name, value in times.items() if value is not None}
        if self.predictions is not None:
            raw["predictions"] = self.predictions.dump()
        if self.failure is not None:
            lost = self.failure
            raw["failure"] = [lost.metric, lost.reason, lost.at, lost.tick]
        return raw

    @classmethod
    def load(
        cls, raw: object, analysis: Analysis, phi: Mapping[str, float] | None = None
    ) -> tuple[State, str | None]:
        """Reads back what :meth:`dump` wrote; never raises.

        Returns the state and, where evidence could not be taken up again, a sentence that says why:
        it then begins anew, with the over-dispersion ``phi``.
        """
        fresh = cls.begin(analysis, phi)
        if raw is None:
            return fresh, None
        try:
            state = _read(raw, len(analysis.grid) + 1)
        except (LookupError, TypeError, ValueError, AttributeError, OverflowError):
            return fresh, "the evidence in status could not be read: it begins anew"
        if state.settings != fresh.settings:
            return fresh, "the analysis settings have changed: the evidence begins anew"
        good = (
            len(state.rows) == len(fresh.rows)
            and all(len(row) == WIDTH for row in state.rows)
            and len(state.histograms) == len(fresh.histograms)
            and all(
                len(side) == len(analysis.grid) + 1 for pair in state.histograms for side in pair
            )
        )
        if not good:
            return fresh, "the evidence in status has another form: it begins anew"
        return state, None


def _read(raw: Any, buckets: int) -> State:
    if raw["v"] != _VERSION:
        raise ValueError
    failure = raw.get("failure")
    weights = raw.get("weights")
    state = State(
        settings=str(raw["settings"]),
        phi={str(k): float(v) for k, v in raw.get("phi", {}).items()},
        ticks=int(raw["ticks"]),
        began=_time(raw.get("began")),
        fresh=_time(raw.get("fresh")),
        weights=None if weights is None else (float(weights[0]), float(weights[1])),
        split=(float(raw["split"][0]), float(raw["split"][1])),
        sources={str(k): _long(v) for k, v in raw["sources"].items()},
        rows=tuple(_long(row) for row in raw["rows"]),
        histograms=tuple(
            (_long(pair[0] or [0] * buckets), _long(pair[1] or [0] * buckets))
            for pair in raw["histograms"]
        ),
        streaks={str(k): int(v) for k, v in raw.get("streaks", {}).items()},
        restarts=_long(raw.get("restarts", [])),
    )
    if "predictions" in raw:
        state = replace(state, predictions=Predictions.load(raw["predictions"]))
    if failure is not None:
        metric, reason, at, tick = failure
        state = replace(state, failure=Failure(str(metric), str(reason), float(at), int(tick)))
    return state


def _time(value: Any) -> float | None:
    return None if value is None else float(value)


def _short(values: tuple[float, ...]) -> list[float | int | None]:
    """Whole numbers without a point, and null for the logarithm of zero."""
    return [
        None if value == -math.inf else int(value) if value == int(value) else value
        for value in values
    ]


def _long(values: Any) -> tuple[float, ...]:
    found = tuple(-math.inf if value is None else float(value) for value in values)
    if any(math.isnan(value) or value == math.inf for value in found):
        raise ValueError
    return found
