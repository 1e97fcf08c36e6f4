"""What deciles alone miss, each of the four with a window that they missed."""

from __future__ import annotations

import numpy as np
import pytest
from tests.core.drift.samples import (
    DEFAULT,
    binary_grid,
    binary_shares,
    cell_shares,
    drawn,
    judged,
    normal,
    normal_grid,
    references,
    share_below,
)

from mooring.core.drift.arrays import FloatArray
from mooring.core.drift.building import numeric_grid
from mooring.core.drift.episode import Window, evaluate
from mooring.core.drift.floor import share_floor
from mooring.core.drift.health import Expectations, Rule, feature_findings
from mooring.core.drift.measure import View
from mooring.core.drift.report import Condition
from mooring.core.drift.settings import DriftSettings
from mooring.core.drift.state import DriftState


def zeros_and(share: float, rows: int, seed: int) -> FloatArray:
    """A feature that is 0 but for a share of exponential values."""
    generator = np.random.default_rng(seed)
    return np.where(generator.random(rows) < share, 0.0, generator.exponential(size=rows))


def test_atoms_a_change_in_the_share_of_one_value_is_seen() -> None:
    grid = numeric_grid("spent", zeros_and(0.95, 30_000, seed=1))
    assert grid.atoms == (0.0,)
    before = grid.count(zeros_and(0.95, 300_000, seed=2))
    after = grid.count(zeros_and(0.85, 300_000, seed=3))
    same = judged(grid, before, before, n=30_000, m=1000, windows=300)
    moved = judged(grid, before, after, n=30_000, m=1000, windows=300)
    assert share_below(same.p, 0.01) == 0.0
    assert share_below(same.tail_p, 0.01) <= 0.01
    assert share_below(moved.p, 0.01) == 1.0


def test_rare_extremes_two_percent_far_outside_are_seen_and_are_broken_data() -> None:
    grid = normal_grid()
    before = cell_shares(grid, normal())
    after = 0.98 * before
    after[grid.ordered - 1] += 0.02  # ten standard deviations: above the range
    same = judged(grid, before, before, n=20_000, m=1000, windows=400)
    moved = judged(grid, before, after, n=20_000, m=1000, windows=400)
    assert share_below(same.tail_p, 0.01) <= 0.005
    assert share_below(moved.tail_p, 0.01) >= 0.99
    # The body's test has little to say about it: that is why the tails have one of their own.
    assert share_below(moved.p, 0.01) < 0.05
    counts = drawn(np.random.default_rng(5), 5000, after, 1)[0]
    found = feature_findings(grid, before * 20_000, counts, Expectations())
    assert [finding.rule for finding in found] == [Rule.OUT_OF_RANGE]
    assert "outside the reference's range" in found[0].message


def test_a_shift_below_the_floor_does_not_alarm_in_the_tails_either() -> None:
    grid = normal_grid()
    before = cell_shares(grid, normal())
    for m in (1000, 100_000):
        moved = judged(grid, before, cell_shares(grid, normal(0.144)), n=30 * m, m=m, windows=300)
        assert share_below(moved.tail_p, 0.01) <= 0.02


def test_few_bins_the_price_of_the_floor_is_known_and_paid_by_windows_in_a_row() -> None:
    before, after = binary_shares(0.5), binary_shares(0.6)
    single = judged(binary_grid(), before, after, n=2000, m=2000, windows=400)
    assert share_below(single.p, 0.01) == pytest.approx(0.3, abs=0.09)
    assert share_floor(0.5, 0.02) == pytest.approx(0.07, abs=0.002)
    settings = DriftSettings()
    flags = np.array([0.0, 1.0] * 30_000)
    np.random.default_rng(0).shuffle(flags)
    view = View.of(references({"flag": flags}), settings)
    assert view.floors == ("a change of the share of 1 by .07 or more",)
    assert windows_until_alarm(view, settings, after, m=2000, seed=1) <= 12


@pytest.mark.parametrize("share", [0.02, 0.1, 0.5, 0.9])
def test_the_floor_of_two_values_is_told_of_one_of_them(share: float) -> None:
    flags = (np.random.default_rng(3).random(60_000) < share).astype(float)
    (floor,) = View.of(references({"flag": flags}), DriftSettings()).floors
    assert floor.startswith("a change of the share of 1 by ")


@pytest.mark.parametrize("seed", range(3))
def test_small_windows_a_lasting_quarter_deviation_is_found_within_a_day(seed: int) -> None:
    settings = DriftSettings()
    values = np.random.default_rng(100 + seed).normal(size=9000)
    view = View.of(references({"amount": values}), settings)
    shares = cell_shares(view.features[0].grid, normal(0.25))
    # About every fifth window of 300 rows would alarm by itself.
    assert windows_until_alarm(view, settings, shares, m=300, seed=seed) <= 24


@pytest.mark.slow
def test_small_windows_in_full_nearly_every_such_drift_is_found_within_a_day() -> None:
    found = []
    for seed in range(200):
        values = np.random.default_rng(1000 + seed).normal(size=9000)
        view = View.of(references({"amount": values}), DEFAULT)
        shares = cell_shares(view.features[0].grid, normal(0.25))
        found.append(windows_until_alarm(view, DEFAULT, shares, m=300, seed=seed))
    assert np.mean(np.array(found) <= 24) >= 0.95
    assert np.median(found) <= 14


def windows_until_alarm(
    view: View, settings: DriftSettings, shares: FloatArray, *, m: int, seed: int
) -> int:
    """How many windows of a lasting shift it takes, beginning with six quiet ones; at most 48."""
    generator = np.random.default_rng(seed)
    quiet = view.fine[0] / view.fine[0].sum()
    state, name = DriftState(), view.names[0]
    for hour in range(54):
        now = quiet if hour < 6 else shares
        window = Window(
            start=hour * 3600.0, end=(hour + 1) * 3600.0, rows=m, grid=view.grid,
            counts={name: drawn(generator, m, now, 1)[0]},
        )  # fmt: skip
        state, report = evaluate(view, window, state, settings)
        if report.condition is Condition.DRIFTED:
            assert hour >= 6, "a false alarm"
            change = report.features[0].change_point
            assert change is not None
            # By chance S may leave 0 a few windows before.
            assert change >= 2 * 3600
            return hour - 5
    return 99
