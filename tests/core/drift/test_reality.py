"""Traffic as it is: bursts, days and nights, many features, many windows."""

from __future__ import annotations

import numpy as np
import pytest
from tests.core.drift.samples import (
    Hashable,
    cell_shares,
    drawn,
    normal,
    normal_grid,
    references,
    replicas,
    share_below,
)

from mooring.core.drift import cusum
from mooring.core.drift.arrays import FloatArray
from mooring.core.drift.dispersion import dispersion
from mooring.core.drift.distances import Pair, psi
from mooring.core.drift.measure import View, measure
from mooring.core.drift.multiplicity import adjusted
from mooring.core.drift.season import PastWindow, is_short, seasonal_reference, wanted_starts
from mooring.core.drift.settings import DriftSettings
from mooring.core.drift.shift import chi_square, minimum_effect, z_scores

DECILES = np.full(10, 0.1)


def clustered(
    generator: np.random.Generator, rows: int, windows: int, features: int, clusters: float
) -> FloatArray:
    """Counts (windows, features, 10) whose variance is ``clusters`` times that of independent rows:
    every window has shares of its own (Dirichlet)."""
    if clusters <= 1:
        return drawn(generator, rows, DECILES, windows * features).reshape(windows, features, 10)
    strength = (rows - clusters) / (clusters - 1)
    shares = generator.dirichlet(DECILES * strength, size=(windows, features))
    return generator.multinomial(rows, shares).astype(np.float64)


@pytest.mark.parametrize(
    ("clusters", "without", "within"), [(1.2, 0.12, 0.055), (2.0, 0.49, 0.053), (4.0, 0.90, 0.051)]
)
def test_autocorrelated_traffic_keeps_its_level_once_dispersion_is_learnt(
    clusters: float, without: float, within: float
) -> None:
    generator = np.random.default_rng(11)
    features = 600
    parts = clustered(generator, 1000, 24, features, clusters)
    reference = parts.sum(axis=0)
    current = clustered(generator, 1000, 1, features, clusters)[0]
    pair, learnt = Pair.of(reference, current), dispersion(parts)
    assert float(np.median(learnt)) == pytest.approx(clusters, rel=0.1)
    _, _, naive = chi_square(pair)
    _, _, aware = chi_square(pair, dispersion=learnt, dispersion_df=23 * 9)
    assert share_below(naive, 0.05) == pytest.approx(without, abs=0.06)
    assert share_below(aware, 0.05) == pytest.approx(within, abs=0.03)
    assert share_below(minimum_effect(pair, 0.02, learnt), 0.01) <= 0.01


def swung(hour: int, extra: float = 0.0) -> FloatArray:
    """The shares of the fine cells at an hour of a day that swings by half a deviation."""
    shift = 0.5 * np.sin(2 * np.pi * (hour % 24) / 24)
    return cell_shares(normal_grid(), normal(float(shift) + extra))


def test_the_same_hour_of_earlier_weeks_is_silent_where_a_whole_week_alarms() -> None:
    generator = np.random.default_rng(4)
    view = replicas(
        normal_grid(), 24, tuple(cell_shares(normal_grid(), normal()).tolist()), Hashable()
    )
    hour, week = 3600.0, 168 * 3600.0
    rows = 24
    # Five weeks of hours, of which hours 24 to 47 of the last week are judged (one per feature).
    past = [
        PastWindow(h * hour, (h + 1) * hour, drawn(generator, 2000, swung(h), 1)[0])
        for h in range(5 * 168)
    ]
    whole_week = np.sum([one.counts for one in past[3 * 168 : 4 * 168]], axis=0)
    alarms = {"chi": 0.0, "psi": 0.0, "season": 0.0, "season psi": 0.0, "power": 0.0}
    for h in range(4 * 168 + 24, 4 * 168 + 24 + rows):
        found = seasonal_reference(past, h * hour, hour, offset=week, weeks=4)
        assert found.counts is not None
        assert found.windows == 12
        assert found.same is not None
        assert len(found.same) == 4
        current = np.stack((past[h].counts, drawn(generator, 2000, swung(h, 0.25), 1)[0]))
        tested = view.layout.assign[0]
        week_pair = pair_of(whole_week, current, tested)
        season_pair = pair_of(found.counts, current, tested)
        alarms["chi"] += float(chi_square(week_pair)[2][0] < 0.05) / rows
        alarms["psi"] += float(psi(week_pair)[0] > 0.1) / rows
        alarms["season"] += float(minimum_effect(season_pair, 0.02)[0] < 0.01) / rows
        alarms["season psi"] += float(psi(season_pair)[0] > 0.1) / rows
        alarms["power"] += float(minimum_effect(season_pair, 0.02)[1] < 0.01) / rows
    assert alarms["chi"] >= 0.9
    assert alarms["psi"] == pytest.approx(0.57, abs=0.15)
    assert alarms["season"] == 0
    assert alarms["season psi"] == 0
    assert alarms["power"] >= 0.9


def test_an_hour_has_a_dispersion_of_its_own_and_not_the_seasons() -> None:
    chance = np.random.default_rng(3)
    week = np.concatenate([chance.normal(0.5 * np.sin(h / 4), 1, size=300) for h in range(168)])
    view = View.of(references({"x": week}), DriftSettings())
    assert view.dispersion[0] > 3
    shares = cell_shares(view.features[0].grid, normal(0.5))
    hours = np.stack([drawn(chance, 1000, shares, 1) for _ in range(4)])
    assert view.rebased(hours.sum(axis=0), hours).dispersion[0] < 1.8
    # From two windows nothing is learnt.
    assert view.rebased(hours.sum(axis=0), hours[:2]).dispersion[0] == view.dispersion[0]


def pair_of(reference: FloatArray, current: FloatArray, assign: np.ndarray) -> Pair:
    """One reference and several windows, on the tested bins."""
    bins = int(assign.max()) + 1
    used = assign >= 0
    coarse = [
        np.bincount(assign[used], weights=one[: assign.size][used], minlength=bins)
        for one in (reference, *current)
    ]
    return Pair.of(np.stack([coarse[0]] * len(current)), np.stack(coarse[1:]))


def test_a_season_leaves_out_what_alarmed_and_never_reaches_the_present() -> None:
    counts = np.ones(3)
    past = [
        PastWindow(0, 10, counts), PastWindow(10, 20, counts, usable=False),
        PastWindow(20, 30, counts), PastWindow(100, 110, counts), PastWindow(110, 120, counts),
    ]  # fmt: skip
    found = seasonal_reference(past, 110, 10, offset=100, weeks=1)
    assert (found.windows, found.left_out) == (2, 1)
    assert found.counts is not None
    assert found.counts.tolist() == [2, 2, 2]
    # The very same hour was the unusable one.
    assert found.same is None
    assert seasonal_reference(past, 60, 10, offset=100, weeks=2).counts is None
    assert wanted_starts(100, 10, offset=10, weeks=1) == (80.0, 90.0)
    assert is_short(np.array([29.0, 30.0]), np.array([1.0, 1.0])).tolist() == [1.0, 0.0]


def test_twenty_quiet_features_alarm_in_most_windows_unless_corrected() -> None:
    p = np.random.default_rng(1).random((2000, 20))
    assert (p < 0.05).any(axis=1).mean() == pytest.approx(0.64, abs=0.04)
    for correction in ("BH", "BY", "Bonferroni"):
        found = np.array([adjusted(row, correction) for row in p])
        assert (found < 0.05).any(axis=1).mean() <= 0.065


def test_adjusted_values_are_those_of_the_textbook() -> None:
    p = np.array([0.01, 0.04, 0.03, np.nan, 0.005])
    assert adjusted(p)[[0, 1, 2, 4]] == pytest.approx([0.02, 0.04, 0.04, 0.02])
    assert np.isnan(adjusted(p)[3])
    assert adjusted(p, "Bonferroni")[0] == pytest.approx(0.04)
    assert adjusted(p, "BY")[4] == pytest.approx(0.02 * (1 + 1 / 2 + 1 / 3 + 1 / 4))
    assert adjusted(p, "None")[0] == 0.01
    assert np.isnan(adjusted(np.array([np.nan]))).all()
    with pytest.raises(ValueError, match="none of"):
        adjusted(p, "Holm")  # type: ignore[arg-type]


@pytest.mark.parametrize(("h", "windows"), [(3.99, 336), (5.06, 1000), (5.75, 2000)])
def test_siegmunds_run_lengths(h: float, windows: int) -> None:
    assert cusum.average_run_length(h) == pytest.approx(windows, rel=0.01)
    assert cusum.threshold(windows) == pytest.approx(h, abs=0.01)


@pytest.mark.parametrize(("features", "h"), [(1, 5.8), (30, 9.2), (1000, 12.7)])
def test_thresholds_for_one_false_alarm_a_quarter_of_hourly_windows(
    features: int, h: float
) -> None:
    wanted = cusum.run_length(features, 3600, 1.0)
    assert cusum.threshold(wanted) == pytest.approx(h, abs=0.06)


def run_lengths(h: float, paths: int, most: int, seed: int) -> float:
    """The mean windows to an alarm: all windows over all alarms, S starting anew after each."""
    generator = np.random.default_rng(seed)
    score, alarms = np.zeros(paths), 0
    for _ in range(most):
        score = cusum.step(score, generator.standard_normal(paths))
        over = score > h
        alarms += int(over.sum())
        score[over] = 0.0
    return paths * most / max(alarms, 1)


def test_simulated_run_lengths_are_siegmunds() -> None:
    assert run_lengths(3.99, 1000, 1000, seed=1) == pytest.approx(336, rel=0.08)


@pytest.mark.slow
@pytest.mark.parametrize(("h", "windows"), [(3.99, 336), (5.06, 1000), (5.75, 2000), (5.8, 2190)])
def test_simulated_run_lengths_are_siegmunds_in_full(h: float, windows: int) -> None:
    assert run_lengths(h, 20_000, 4000, seed=2) == pytest.approx(windows, rel=0.06)


def test_a_shift_at_the_floor_alarms_no_more_than_the_quarter_allows() -> None:
    # The worst case: every window lies exactly at PSI₀, so that z is standard normal.
    grid = normal_grid()
    view = replicas(grid, 400, tuple(cell_shares(grid, normal()).tolist()), Hashable())
    generator = np.random.default_rng(6)
    fine = view.rebased(drawn(generator, 30_000, cell_shares(grid, normal()), 400))
    moved = cell_shares(grid, normal(0.1444))
    z = np.stack(
        [
            z_scores(
                measure(
                    fine,
                    drawn(generator, 1000, moved, 400),
                    np.ones(400, dtype=np.bool_),
                    Hashable(),
                ).p
            )
            for _ in range(30)
        ],
        axis=1,
    )
    h = cusum.threshold(cusum.run_length(1, 3600, 1.0))
    # 12,000 windows at 2190 between alarms: about 5.5 are expected.
    assert (cusum.scores(z) > h).any(axis=1).sum() <= 14


def test_dependent_windows_calibrate_their_threshold_on_blocks() -> None:
    generator = np.random.default_rng(8)
    independent = generator.standard_normal(1000)
    dependent = np.empty(1000)
    dependent[0] = 0.0
    for at in range(1, 1000):
        dependent[at] = 0.6 * dependent[at - 1] + 0.8 * independent[at]
    siegmund = cusum.threshold(2000)
    assert cusum.calibrated_threshold(independent, 2000, block=24) == pytest.approx(
        siegmund, abs=1.0
    )
    assert cusum.calibrated_threshold(dependent, 2000, block=24) > siegmund + 2
    # Windows that never come near an alarm need no more than Siegmund's.
    assert cusum.calibrated_threshold(dependent - 8, 2000, block=24) == pytest.approx(siegmund)
    with pytest.raises(ValueError, match="two blocks"):
        cusum.calibrated_threshold(independent[:30], 2000, block=24)


def test_a_window_that_was_not_tested_leaves_the_evidence_as_it_is() -> None:
    after = cusum.step(np.array([2.0, 2.0, 0.2]), np.array([np.nan, 1.0, -3.0]))
    assert after.tolist() == [2.0, 2.5, 0.0]
