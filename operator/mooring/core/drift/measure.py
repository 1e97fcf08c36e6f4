"""All statistics of one window against one reference, for all features at once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from mooring.core.drift import shift, tails
from mooring.core.drift.arrays import BoolArray, FloatArray
from mooring.core.drift.coarse import Layout, layout
from mooring.core.drift.dispersion import learnt
from mooring.core.drift.distances import Pair, psi
from mooring.core.drift.floor import floor_text
from mooring.core.drift.grid import grid_hash
from mooring.core.drift.multiplicity import adjusted
from mooring.core.drift.ordered import ordered_tests
from mooring.core.drift.reference import SUB_WINDOWS, FeatureReference
from mooring.core.drift.settings import DriftSettings

#: Rows that every tested bin must expect. PSI with ½ added bears two: below the floor it does not
#: alarm anyway (tests hold its size there).
LEAST_EXPECTED = 2.0
#: Windows of one hour from which its own dispersion can be learnt.
_LEAST_WINDOWS = 3
_ORDERED = ("kolmogorovSmirnov", "andersonDarling", "wasserstein")


@dataclass(frozen=True, slots=True)
class View:
    """A reference made ready for comparing: computed once, used for every window.

    Attributes:
        features: as the reference has them.
        grid: hash of the grid that windows must be counted on.
        layout: the tested bins. They stay those of ``features`` when the counts are re-based.
        fine: fine counts to compare with, shape (F, max cells).
        coarse, tails: the same per tested bin (F, K) and per kind of tail (F, tails).
        floor_psi: PSI₀ per feature, shape (F,).
        ratio: tolerated growth of tails per feature, shape (F,).
        dispersion: δ̂ per feature, shape (F,).
        methods: the test of each feature.
        floors: the smallest shift that alarms, in words.
    """

    features: tuple[FeatureReference, ...]
    grid: str
    layout: Layout
    fine: FloatArray
    coarse: FloatArray
    tails: FloatArray
    floor_psi: FloatArray
    ratio: FloatArray
    dispersion: FloatArray
    methods: tuple[str, ...]
    floors: tuple[str, ...]

    @property
    def names(self) -> tuple[str, ...]:
        """The features, in the order of every array."""
        return self.layout.names

    @staticmethod
    def of(
        features: Sequence[FeatureReference], settings: DriftSettings, *, grid: str | None = None
    ) -> View:
        """The view of features under settings.

        ``grid`` is the hash that windows carry, of the whole reference where ``features`` are a
        part of it.
        """
        tested = layout(
            [one.grid for one in features], [one.counts for one in features], bins=settings.bins
        )
        fine = tested.pad([one.counts for one in features])
        coarse = tested.coarsen(fine)
        floor_psi = np.array([settings.floor_of(one.name) for one in features], dtype=np.float64)
        texts = [
            floor_text(labels, coarse[row, : len(labels)], tested.centres[row, : len(labels)], size)
            for row, (labels, size) in enumerate(
                zip(tested.labels, floor_psi.tolist(), strict=True)
            )
        ]
        return View(
            features=tuple(features),
            grid=grid or grid_hash(one.grid for one in features),
            layout=tested,
            fine=fine,
            coarse=coarse,
            tails=tested.tail_counts(fine),
            floor_psi=floor_psi,
            ratio=np.array([tails.tolerated_ratio(size) for size in floor_psi.tolist()]),
            dispersion=np.array([one.dispersion for one in features], dtype=np.float64),
            methods=tuple(settings.method_of(one.name) for one in features),
            floors=tuple(texts),
        )

    def rebased(self, fine: FloatArray, same: FloatArray | None = None) -> View:
        """The same bins and floors with other counts: a seasonal or a re-based reference.

        ``same`` are the counts of three or more windows of the very same hour, shape
        (windows, F, max cells): a reference of a whole week takes the season for over-dispersion,
        so δ̂ is learnt anew from what differs within the hour. Without them δ̂ stays.
        """
        spread = self.dispersion
        if same is not None and len(same) >= _LEAST_WINDOWS:
            spread = learnt(self.layout.coarsen(same), self.layout.mask)
        return replace(
            self,
            dispersion=spread,
            fine=fine,
            coarse=self.layout.coarsen(fine),
            tails=self.layout.tail_counts(fine),
        )


@dataclass(frozen=True, slots=True)
class Measured:
    """One window's statistics, each of shape (F,); NaN where a feature could not be tested.

    Attributes:
        statistic, p: of the feature's own test.
        q: p over all features and streams of this window.
        psi: whatever the test is.
        n, m: rows in the tested bins.
        needed: rows that the window must have.
        size: √(PSI − its expectation under no drift), about the shift in standard deviations.
        tail_p, tail_kind: the exact tests of rare cells, and the kind of the least of them.
        anchor_p: against the anchor.
    """

    statistic: FloatArray
    p: FloatArray
    q: FloatArray
    psi: FloatArray
    n: FloatArray
    m: FloatArray
    needed: FloatArray
    size: FloatArray
    tail_p: FloatArray
    tail_kind: FloatArray
    anchor_p: FloatArray


def measure(
    view: View,
    fine: FloatArray,
    present: BoolArray,
    settings: DriftSettings,
    anchor: View | None = None,
) -> Measured:
    """Everything about one window's fine counts (F, max cells).

    ``present`` says which features were seen at all, shape (F,).
    """
    pair = Pair.of(view.coarse, view.layout.coarsen(fine), view.layout.mask)
    needed = shift.samples_needed(pair, least_expected=LEAST_EXPECTED, ratio=view.dispersion)
    tested = present & (pair.bins > 1) & (pair.m >= needed) & (pair.n >= needed)
    found_psi = np.where((pair.m > 0) & (pair.n > 0), psi(pair), np.nan)
    statistic, p = _own_tests(view, pair, found_psi)
    p = np.where(tested, p, np.nan)
    tail_p, tail_kind = _tail_tests(view, fine)
    tail_p = np.where(present, tail_p, np.nan)
    either = np.fmin(p, tail_p) * np.where(np.isfinite(p) & np.isfinite(tail_p), 2, 1)
    return Measured(
        statistic=np.where(tested, statistic, np.nan),
        p=p,
        q=adjusted(np.minimum(either, 1.0), settings.correction),
        psi=found_psi,
        n=pair.n,
        m=pair.m,
        needed=needed,
        size=np.sqrt(np.maximum(np.nan_to_num(found_psi - pair.v * (pair.bins - 1)), 0.0)),
        tail_p=tail_p,
        tail_kind=tail_kind,
        anchor_p=_against_anchor(view, anchor, fine, tested),
    )


def _own_tests(view: View, pair: Pair, found_psi: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Statistic and p of every feature by the test that was chosen for it."""
    with np.errstate(invalid="ignore"):
        p = shift.minimum_effect(pair, view.floor_psi, view.dispersion, distance=found_psi)
    statistic = found_psi.copy()
    for method in set(view.methods) - {"minimumEffect"}:
        rows = np.flatnonzero([one == method for one in view.methods])
        part = Pair.of(pair.reference[rows], pair.current[rows], pair.mask[rows])
        spread = view.dispersion[rows]
        if method == "chiSquare":
            learnt = np.where(spread > 1, (SUB_WINDOWS - 1) * (part.bins - 1), np.inf)
            statistic[rows], _, p[rows] = shift.chi_square(
                part, dispersion=spread, dispersion_df=learnt
            )
        elif method in _ORDERED:
            statistic[rows], p[rows] = _ordered_test(
                method, part, view.layout.centres[rows], spread
            )
        elif method == "psi":
            p[rows] = shift.minimum_effect(part, 0.0, spread)
        else:
            distance = shift.on_psi_scale(part, method)
            statistic[rows] = distance / 8
            p[rows] = shift.minimum_effect(part, view.floor_psi[rows], spread, distance=distance)
    return statistic, p


def _ordered_test(
    method: str, part: Pair, centres: FloatArray, spread: FloatArray
) -> tuple[FloatArray, FloatArray]:
    found = ordered_tests(part, centres, dispersion=spread)
    if method == "kolmogorovSmirnov":
        return found.kolmogorov_smirnov, found.kolmogorov_smirnov_p
    if method == "andersonDarling":
        return found.anderson_darling, found.anderson_darling_p
    return found.wasserstein, found.wasserstein_p


def _tail_tests(view: View, fine: FloatArray) -> tuple[FloatArray, FloatArray]:
    p = tails.tail_p_values(
        view.tails,
        view.layout.tail_counts(fine),
        view.fine.sum(axis=1),
        fine.sum(axis=1),
        view.ratio,
        dispersion=view.dispersion,
    )
    return tails.combined(p, view.layout.tails.astype(np.float64))


def _against_anchor(
    view: View, anchor: View | None, fine: FloatArray, tested: BoolArray
) -> FloatArray:
    if anchor is None:
        return np.full(tested.shape, np.nan)
    pair = Pair.of(anchor.coarse, anchor.layout.coarsen(fine), anchor.layout.mask)
    usable = tested & (pair.n > 0) & (pair.bins > 1)
    return np.where(usable, shift.minimum_effect(pair, view.floor_psi, view.dispersion), np.nan)
