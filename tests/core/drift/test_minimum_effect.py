"""The test of a minimum effect: silent below its floor at any size, and sharp above it."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.special import chndtr
from tests.core.drift.samples import cell_shares, judged, normal, normal_grid, share_below

from mooring.core.drift.shift import noncentral_tail, samples_to_see, z_scores

#: The shift of a normal feature whose PSI over deciles is exactly .02.
BOUNDARY = 0.14446

#: shift, and the share of windows of 300, 1000, 10⁴ and 10⁶ rows that alarm. The reference holds
#: thirty times the window; below the boundary that makes no difference.
TABLE = [
    (0.0, (0.0, 0.0, 0.0, 0.0)),
    (0.01, (0.0, 0.0, 0.0, 0.0)),
    (BOUNDARY, (0.008, 0.008, 0.010, 0.009)),
    (0.25, (0.20, 0.74, 1.0, 1.0)),
    (0.33, (0.65, 0.998, 1.0, 1.0)),
]
SIZES = (300, 1000, 10_000, 1_000_000)


def alarms(shift: float, m: int, windows: int, ratio: int = 30) -> float:
    grid = normal_grid()
    found = judged(
        grid, cell_shares(grid, normal()), cell_shares(grid, normal(shift)),
        n=ratio * m, m=m, windows=windows,
    )  # fmt: skip
    return share_below(found.p, 0.01)


@pytest.mark.parametrize(("shift", "expected"), TABLE)
def test_rows_of_the_table(shift: float, expected: tuple[float, ...]) -> None:
    found = [alarms(shift, m, 400) for m in SIZES]
    # Three standard errors of 400 windows, and what a normal fine grid differs from deciles.
    slack = [3 * np.sqrt(max(p * (1 - p), 0.003) / 400) + 0.02 for p in expected]
    assert found == pytest.approx(expected, abs=max(slack))
    assert all(abs(a - b) <= s for a, b, s in zip(found, expected, slack, strict=True))


@pytest.mark.slow
@pytest.mark.parametrize(("shift", "expected"), TABLE)
def test_rows_of_the_table_in_full(shift: float, expected: tuple[float, ...]) -> None:
    found = [np.mean([alarms(shift, m, 4000)]) for m in SIZES]
    assert found == pytest.approx(expected, abs=0.03)


@pytest.mark.parametrize("m", SIZES)
def test_at_the_boundary_it_alarms_as_often_as_it_may_with_equal_sides(m: int) -> None:
    assert alarms(BOUNDARY, m, 400, ratio=1) <= 0.01 + 3 * np.sqrt(0.01 / 400)


def test_the_form_for_large_noncentrality_continues_the_exact_one() -> None:
    nc, df = np.full(9, 1999.0), np.full(9, 9.0)
    x = np.linspace(1700, 2500, 9)
    for at, close in ((nc, 1e-9), (nc + 2, 2e-3)):
        exact = np.asarray(1 - chndtr(x, df, at), dtype=np.float64)
        assert z_scores(noncentral_tail(x, df, at)) == pytest.approx(z_scores(exact), abs=close)


def test_no_data_and_no_bins_give_no_evidence() -> None:
    nan, inf = np.nan, np.inf
    x = np.array([nan, 5.0, 5.0, 0.0, -1.0])
    found = noncentral_tail(x, np.array([3.0, 0.0, 3.0, 3.0, 3.0]), np.array([1.0, 1, inf, 1, 1]))
    assert found.tolist() == [1.0] * 5


def test_the_window_that_sees_a_shift_can_be_foretold() -> None:
    # .25σ has a PSI of .0598; at the size foretold for a power of .8, about .8 are found.
    m = int(samples_to_see(10, 1e9, 0.02, 0.0598, alpha=0.01, power=0.8))
    assert 900 < m < 1400
    assert alarms(0.25, m, 400, ratio=300) == pytest.approx(0.8, abs=0.07)
    assert samples_to_see(10, 1e9, 0.02, 0.02, alpha=0.01, power=0.8) == float("inf")
    assert samples_to_see(10, 50, 0.02, 0.03, alpha=0.01, power=0.8) == float("inf")
