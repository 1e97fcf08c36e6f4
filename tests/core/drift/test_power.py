"""The selectable tests: the power that they must reach, and the size that they must keep."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.special import chdtrc, kolmogorov
from tests.core.drift.samples import cell_shares, drawn, judged, normal, normal_grid, share_below

from mooring.core.drift.distances import (
    Pair,
    hellinger_squared,
    jensen_shannon,
    psi,
    wasserstein,
)
from mooring.core.drift.mmd import mmd
from mooring.core.drift.ordered import ordered_tests
from mooring.core.drift.settings import METHODS, DriftSettings
from mooring.core.drift.shift import chi_square

#: shift → power of χ² at α = .01 for windows of 100, 300, 1000, 3000 and 10,000 rows, deciles, the
#: reference ten times the window.
TABLE = [
    (0.1, (0.02, 0.05, 0.25, 0.91, 1.0)),
    (0.2, (0.07, 0.35, 0.98, 1.0, 1.0)),
    (0.3, (0.23, 0.85, 1.0, 1.0, 1.0)),
    (0.5, (0.79, 1.0, 1.0, 1.0, 1.0)),
]
SIZES = (100, 300, 1000, 3000, 10_000)
CHI_SQUARE = DriftSettings(method="chiSquare")


def chi_square_alarms(shift: float, m: int, windows: int) -> float:
    grid = normal_grid()
    found = judged(
        grid, cell_shares(grid, normal()), cell_shares(grid, normal(shift)),
        n=10 * m, m=m, windows=windows, settings=CHI_SQUARE,
    )  # fmt: skip
    return share_below(found.p, 0.01)


@pytest.mark.parametrize(("shift", "expected"), TABLE)
def test_chi_square_reaches_its_power(shift: float, expected: tuple[float, ...]) -> None:
    found = [chi_square_alarms(shift, m, 400) for m in SIZES]
    assert all(a >= b - 0.075 for a, b in zip(found, expected, strict=True)), found


@pytest.mark.slow
@pytest.mark.parametrize(("shift", "expected"), TABLE)
def test_chi_square_reaches_its_power_in_full(shift: float, expected: tuple[float, ...]) -> None:
    found = [chi_square_alarms(shift, m, 4000) for m in SIZES]
    assert all(a >= b - 0.03 for a, b in zip(found, expected, strict=True)), found


@pytest.mark.parametrize(("size", "naive"), [(1000, 0.48), (5000, 0.97)])
def test_both_sides_are_samples_and_the_one_sample_test_would_alarm_at_nothing(
    size: int, naive: float
) -> None:
    generator = np.random.default_rng(1)
    # A reference of 1000 rows; the window grows.
    shares = np.full(10, 0.1)
    reference, current = drawn(generator, 1000, shares, 500), drawn(generator, size, shares, 500)
    _, _, p = chi_square(Pair.of(reference, current))
    assert share_below(p, 0.05) == pytest.approx(0.05, abs=0.03)
    expected = reference / 1000 * size
    one_sample = ((current - expected) ** 2 / expected).sum(axis=1)
    assert share_below(chdtrc(9, one_sample), 0.05) == pytest.approx(naive, abs=0.12)


def test_sparse_bins_are_pooled_until_they_expect_five() -> None:
    reference = np.array([[100.0, 1, 1, 1, 1, 100], [0, 0, 1, 1, 0, 0]])
    current = np.array([[100.0, 1, 1, 1, 1, 100], [1.0, 0, 0, 1, 0, 0]])
    statistic, df, p = chi_square(Pair.of(reference, current))
    assert df.tolist() == [1.0, 0.0]
    assert statistic[0] == pytest.approx(0.0, abs=1e-12)
    assert p.tolist() == pytest.approx([1.0, 1.0])


@pytest.mark.parametrize("bins", [5, 20])
def test_binned_kolmogorov_smirnov_has_its_nominal_size_where_the_continuous_one_has_not(
    bins: int,
) -> None:
    generator = np.random.default_rng(3)
    shares = np.full(bins, 1 / bins)
    pair = Pair.of(drawn(generator, 5000, shares, 400), drawn(generator, 1000, shares, 400))
    centres = np.broadcast_to(np.arange(bins, dtype=np.float64), (400, bins))
    found = ordered_tests(pair, centres, draws=1000)
    for p in (
        found.kolmogorov_smirnov_p, found.anderson_darling_p, found.wasserstein_p,
    ):  # fmt: skip
        assert share_below(p, 0.05) == pytest.approx(0.05, abs=0.035)
    scale = np.sqrt(5000 * 1000 / 6000)
    continuous = kolmogorov(scale * found.kolmogorov_smirnov)
    assert share_below(continuous, 0.05) <= share_below(found.kolmogorov_smirnov_p, 0.05)
    assert share_below(continuous, 0.05) <= 0.04


@pytest.mark.parametrize("method", METHODS)
def test_every_method_finds_half_a_deviation_and_leaves_equal_windows_alone(method: str) -> None:
    grid = normal_grid()
    same, moved = cell_shares(grid, normal()), cell_shares(grid, normal(0.5))
    settings = DriftSettings(method=method)  # type: ignore[arg-type]
    quiet = judged(grid, same, same, n=20_000, m=2000, windows=60, settings=settings)
    loud = judged(grid, same, moved, n=20_000, m=2000, windows=60, settings=settings)
    assert share_below(quiet.p, 0.01) <= 0.05
    assert share_below(loud.p, 0.01) == 1.0
    assert np.isfinite(loud.statistic).all()


@pytest.mark.parametrize(("shift", "expected"), [(0.33, 0.1), (0.5, 0.24)])
def test_distances_lie_on_one_scale(shift: float, expected: float) -> None:
    grid = normal_grid()
    found = judged(
        grid, cell_shares(grid, normal()), cell_shares(grid, normal(shift)),
        n=10**7, m=10**7, windows=1,
    )  # fmt: skip
    assert float(found.psi[0]) == pytest.approx(expected, abs=0.012)
    same, moved = np.full(10, 0.1), np.linspace(0.09, 0.11, 10)
    pair = Pair.of(1e9 * same[None], 1e9 * moved[None])
    one = float(psi(pair)[0])
    assert float(8 * jensen_shannon(pair)[0]) == pytest.approx(one, rel=0.01)
    assert float(8 * hellinger_squared(pair)[0]) == pytest.approx(one, rel=0.01)


def test_wasserstein_is_the_way_that_mass_travels_in_the_features_units() -> None:
    reference, current = np.array([[100.0, 0, 0]]), np.array([[0.0, 0, 50]])
    centres = np.array([[0.0, 1.0, 7.0]])
    assert float(wasserstein(Pair.of(reference, current), centres)[0]) == pytest.approx(7.0)
    # A bin without a place, such as missing, is left out.
    centres[0, 2] = np.nan
    assert float(wasserstein(Pair.of(reference, current), centres)[0]) == pytest.approx(0.0)


def test_mmd_sees_a_correlation_that_breaks_where_no_histogram_moves() -> None:
    generator = np.random.default_rng(1)
    together = generator.multivariate_normal([0, 0], [[1, 0.9], [0.9, 1]], size=800)
    apart = generator.normal(size=(400, 2))
    assert mmd(together[:400], apart).p == pytest.approx(1 / 201)
    assert mmd(together[:400], together[400:]).p > 0.05


def test_mmd_keeps_its_size() -> None:
    generator = np.random.default_rng(2)
    p = [
        mmd(generator.normal(size=(40, 3)), generator.normal(size=(40, 3)), permutations=99).p
        for _ in range(60)
    ]
    assert np.mean(np.array(p) <= 0.05) <= 0.13


def test_mmd_says_what_it_cannot_compare() -> None:
    with pytest.raises(ValueError, match="same features"):
        mmd(np.zeros((5, 2)), np.zeros((5, 3)))
    with pytest.raises(ValueError, match="two rows"):
        mmd(np.zeros((1, 2)), np.zeros((5, 2)))
