"""Performance from delayed labels, measured on counters and judged as e-processes.

Labels come late and not for every prediction: those of refused loans never do. So outcomes are
counted per score bin, every figure is weighted by how often the traffic, not the labels, fell into
each bin (post-stratified), and the coverage is said.

Each judgement is an e-process: the product over windows of likelihood ratios against what the
reference says, mixed over alternatives and starting times as in the judging of candidates,

    S_t = (S_{t−1} + 1/(t(t+1)))·e^ℓ_t,   E_t = Σ_k w_k·(S_t + 1/(t+1)),

so that a model which is as good as its reference ever alarms with probability at most α, however
often one looks (Ville). The reference's own rate is taken at its upper 95 % bound.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from scipy.special import betaln

from mooring.core.drift.arrays import BoolArray, FloatArray
from mooring.core.drift.grid import FeatureGrid

#: Alternatives: by how much the odds of an error have grown.
_ODDS = np.log(np.array([1.25, 1.5, 2.0, 3.0, 5.0, 10.0]))
#: How strongly the alternative of "calibration has changed" holds on to the reference, in rows.
_CALIBRATION_STRENGTH = 20.0
#: How strongly what is known holds at most: scores that move within a wide cell change its share.
_MOST_STRENGTH = 100.0
_UPPER = 3.09
_SMALL = 1e-6
#: From this score on the class 1 is predicted.
_THRESHOLD = 0.5
#: Labels that mean the class 1.
TRUE = frozenset({"1", "true", "True"})


@dataclass(frozen=True, slots=True)
class Outcomes:
    """Counters of one window (or of the reference) per score bin, all of shape (bins,).

    Attributes:
        predicted: predictions in the traffic, with or without a label.
        labelled: those whose label has come.
        positives: labelled ones whose label is positive (for several classes: the predicted one).
    """

    predicted: FloatArray
    labelled: FloatArray
    positives: FloatArray

    def __post_init__(self) -> None:
        shapes = {self.predicted.shape, self.labelled.shape, self.positives.shape}
        if len(shapes) != 1 or (self.positives > self.labelled).any():
            raise ValueError("outcomes need one count per bin, and no more positives than labels")

    def __add__(self, other: Outcomes) -> Outcomes:
        return Outcomes(
            self.predicted + other.predicted,
            self.labelled + other.labelled,
            self.positives + other.positives,
        )

    @property
    def coverage(self) -> float:
        """The share of predictions with a label; 0 without predictions."""
        return float(self.labelled.sum() / max(self.predicted.sum(), 1.0))


def called(grid: FeatureGrid) -> BoolArray:
    """The cells of a score that predict the class 1, shape (ordered,): once true, always true."""
    # The cells' middles: a threshold within a cell goes to the side on which most of it lies.
    edges = np.array(grid.edges)
    middles = (edges[:-1] + edges[1:]) / 2
    return np.concatenate(
        [[edges[0] > _THRESHOLD], middles >= _THRESHOLD, [edges[-1] >= _THRESHOLD]]
    )


@dataclass(frozen=True, slots=True)
class Figures:
    """Post-stratified estimates; NaN where nothing was predicted or nothing is positive."""

    accuracy: float
    precision: float
    recall: float
    auc: float
    calibration_error: float
    labelled: int
    coverage: float


def figures(outcomes: Outcomes, threshold_bin: int, means: FloatArray | None = None) -> Figures:
    """The figures of a binary classifier from outcomes per score bin, lowest scores first.

    Bins from ``threshold_bin`` on are predicted as positive. ``means`` are the bins' mean scores
    for the calibration error Σ w_b·|s_b − mean_b|; without, the middle of equal bins of [0, 1].
    Bins of the traffic without a label are left out, and the other weights scaled up.
    """
    known = outcomes.labelled > 0
    rate = np.where(known, outcomes.positives / np.maximum(outcomes.labelled, 1), 0.0)
    weights = np.where(known, outcomes.predicted, 0.0)
    total = float(weights.sum())
    if total <= 0:
        nan = float("nan")
        return Figures(nan, nan, nan, nan, nan, 0, outcomes.coverage)
    weights = weights / total
    count = weights.size
    called = np.arange(count) >= threshold_bin
    positive, negative = weights * rate, weights * (1 - rate)
    middles = (np.arange(count) + 0.5) / count if means is None else means
    return Figures(
        accuracy=float(positive[called].sum() + negative[~called].sum()),
        precision=_ratio(positive[called].sum(), weights[called].sum()),
        recall=_ratio(positive[called].sum(), positive.sum()),
        auc=auc(positive, negative),
        calibration_error=float((weights * np.abs(rate - middles)).sum()),
        labelled=int(outcomes.labelled.sum()),
        coverage=outcomes.coverage,
    )


def _ratio(part: float, whole: float) -> float:
    return float(part / whole) if whole > 0 else float("nan")


def auc(positive: FloatArray, negative: FloatArray) -> float:
    """P(a positive scores above a negative) from weights per score bin, ties counting ½."""
    both = float(positive.sum() * negative.sum())
    below = np.cumsum(negative) - negative
    return float((positive * (below + negative / 2)).sum() / both) if both > 0 else float("nan")


@dataclass(frozen=True, slots=True)
class ErrorOutcomes:
    """Regression: counters of |prediction − label|.

    Attributes:
        counts: histogram of the absolute error over fixed rising bins.
        absolute, squared: sums of |e| and e², for MAE and RMSE.
        predicted: predictions in the traffic.
    """

    counts: FloatArray
    absolute: float
    squared: float
    predicted: float

    @property
    def mae(self) -> float:
        """Mean absolute error; NaN without labels."""
        return _ratio(self.absolute, float(self.counts.sum()))

    @property
    def rmse(self) -> float:
        """Root of the mean squared error; NaN without labels."""
        return float(np.sqrt(_ratio(self.squared, float(self.counts.sum()))))


@dataclass(frozen=True, slots=True)
class Process:
    """An e-process: log S per alternative, windows so far, the largest evidence yet.

    A few numbers, JSON-able, from which it continues exactly.
    """

    log_s: tuple[float, ...] = ()
    t: int = 0
    peak: float = 0.0

    def after(self, log_ratios: FloatArray) -> Process:
        """The process after a window with these log likelihood ratios, one per alternative."""
        t = self.t + 1
        past = np.array(self.log_s or (-np.inf,) * log_ratios.size)
        log_s = np.logaddexp(past, -np.log(t * (t + 1.0))) + log_ratios
        found = Process(tuple(float(one) for one in log_s), t, self.peak)
        return replace(found, peak=max(self.peak, found.evidence))

    @property
    def evidence(self) -> float:
        """log E as it stands now; 0 before the first window."""
        if not self.log_s:
            return 0.0
        mixed = float(np.logaddexp.reduce(np.array(self.log_s)) - np.log(len(self.log_s)))
        return float(np.logaddexp(mixed, -np.log(self.t + 1.0)))

    def held(self, most: float) -> Process:
        """The process with no alternative's evidence above this: it can fall again soon."""
        return replace(self, log_s=tuple(min(one, most) for one in self.log_s))

    def alarms(self, alpha: float) -> bool:
        """Whether the evidence has ever reached 1/α."""
        return self.peak >= -float(np.log(alpha))

    @property
    def p(self) -> float:
        """Anytime-valid p-value."""
        return float(np.exp(-self.peak))

    def to_json(self) -> dict[str, Any]:
        return {"logS": list(self.log_s), "t": self.t, "peak": self.peak}

    @staticmethod
    def from_json(raw: Mapping[str, Any]) -> Process:
        return Process(tuple(map(float, raw["logS"])), int(raw["t"]), float(raw["peak"]))


@dataclass(frozen=True, slots=True)
class Processes:
    """The e-processes of one revision's labelled outcomes, by the figure that they watch."""

    by_figure: Mapping[str, Process] = field(default_factory=dict)

    def alarming(self, alpha: float) -> tuple[str, ...]:
        """The figures that have got worse; α is divided over all that are watched."""
        share = alpha / max(len(self.by_figure), 1)
        return tuple(name for name, one in self.by_figure.items() if one.alarms(share))

    def to_json(self) -> dict[str, Any]:
        return {name: process.to_json() for name, process in self.by_figure.items()}

    @staticmethod
    def from_json(raw: Mapping[str, Any]) -> Processes:
        return Processes({name: Process.from_json(one) for name, one in raw.items()})


def after_window(
    processes: Processes,
    window: Outcomes,
    reference: Outcomes,
    threshold_bin: int,
    *,
    seen: FloatArray | None = None,
    usual: Outcomes | None = None,
) -> Processes:
    """The processes of a classifier after one more window.

    Args:
        processes: before it.
        window: labels that came in it.
        reference: what is compared with.
        threshold_bin: from here on the class 1 is predicted.
        seen: labels per bin that the evidence rests on, this window's among them.
        usual: the reference and whatever else is known of what scores mean.
    """
    positive = np.arange(window.labelled.size) >= threshold_bin
    errors = np.where(positive, window.labelled - window.positives, window.positives)
    theirs = np.where(positive, reference.labelled - reference.positives, reference.positives)
    rows = window.labelled if seen is None else seen

    def ratios(bins: BoolArray) -> FloatArray:
        return rate_ratios(
            errors[bins], window.labelled[bins], theirs[bins], reference.labelled[bins], rows[bins]
        )

    found = {
        "accuracy": ratios(np.ones_like(positive)),
        "precision": ratios(positive),
        "omission": ratios(~positive),
        "calibration": calibration_ratio(window, reference if usual is None else usual),
    }
    return Processes(
        {name: processes.by_figure.get(name, Process()).after(one) for name, one in found.items()}
    )


def rate_ratios(
    errors: FloatArray,
    rows: FloatArray,
    usual: FloatArray,
    usual_rows: FloatArray,
    seen: FloatArray | None = None,
) -> FloatArray:
    """log likelihood ratios of "the odds of an error have grown", one per alternative.

    Per bin, errors ~ Binomial(rows, e_b) with the reference's e_b; the alternative tilts the odds
    by the same factor in all bins. Selection of labels by score therefore changes nothing. All e_b
    are multiplied by the upper bound of Σ n_b·e_b over its estimate, for n_b = ``seen`` (``rows``
    where that is not given): where the labels come from bins of which the reference knows little,
    little is certain. Bins of which it knows nothing are left out.
    """
    known = usual_rows > 0
    found = (usual[known] + 0.5) / (usual_rows[known] + 1)
    weight = (rows if seen is None else seen)[known]
    expected = float(weight @ found)
    if expected <= 0:
        return np.zeros(_ODDS.size)
    spread = np.sqrt(float(weight**2 @ (found * (1 - found) / (usual_rows[known] + 1))))
    rate = np.clip(found * (1 + _UPPER * spread / expected), _SMALL, 1 - _SMALL)
    growth = np.log1p(rate[None, :] * (np.exp(_ODDS)[:, None] - 1))
    return np.asarray(_ODDS * errors[known].sum() - growth @ rows[known], dtype=np.float64)


def calibration_ratio(window: Outcomes, reference: Outcomes) -> FloatArray:
    """log Bayes factor of "a score means something else now", either way; shape (1,).

    Per bin: positives under Beta((½, ½) + the reference's counts), worth 100 rows at most, against
    a Beta of the same mean worth 20 rows only. So the reference's uncertainty is part of the null
    hypothesis, and so is a difference of a few points.
    """
    y, n = window.positives, window.labelled
    a, b = reference.positives + 0.5, reference.labelled - reference.positives + 0.5
    most = np.minimum(_MOST_STRENGTH / (a + b), 1.0)
    a, b = a * most, b * most
    strength = np.minimum(_CALIBRATION_STRENGTH / (a + b), 1.0)
    loose_a, loose_b = a * strength, b * strength
    usual = betaln(a + y, b + n - y) - betaln(a, b)
    other = betaln(loose_a + y, loose_b + n - y) - betaln(loose_a, loose_b)
    return np.array([float((other - usual).sum())])


def error_ratios(window: FloatArray, reference: FloatArray) -> FloatArray:
    """Regression: log likelihood ratios of "absolute errors have grown", one per tilt.

    Both are histograms of |e| over the same rising bins; the alternative tilts the reference's
    shares by e^{ηj} towards the large ones.
    """
    share = (reference + 0.5) / (reference.sum() + reference.size / 2)
    tilts = np.array([0.05, 0.1, 0.2, 0.4])[:, None] * np.arange(share.size)[None, :]
    weights = share * np.exp(tilts)
    logs = tilts - np.log(weights.sum(axis=1))[:, None]
    return np.asarray(logs @ window, dtype=np.float64)
