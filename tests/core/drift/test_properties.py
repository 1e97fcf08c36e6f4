"""What must hold for any counts."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from mooring.core.drift.arrays import FloatArray
from mooring.core.drift.building import categorical_grid, numeric_grid
from mooring.core.drift.coarse import layout
from mooring.core.drift.distances import (
    Pair,
    anderson_darling,
    hellinger_squared,
    jensen_shannon,
    kolmogorov_smirnov,
    psi,
    total_variation,
)
from mooring.core.drift.grid import FeatureGrid
from mooring.core.drift.shift import chi_square, minimum_effect

EXAMPLES = settings(max_examples=30, deadline=None)
COUNTS = arrays(np.float64, (2, 7), elements=st.integers(0, 5000).map(float))
SYMMETRIC = (
    psi, jensen_shannon, hellinger_squared, total_variation, kolmogorov_smirnov, anderson_darling,
)  # fmt: skip
UNORDERED = (psi, jensen_shannon, hellinger_squared, total_variation)
VALUES = st.lists(
    st.one_of(
        st.sampled_from([0.0, 1.0, -1.0, 0.1, 1e-9, 1e9]),
        st.floats(-1e6, 1e6, allow_nan=False, width=32),
    ),
    min_size=1,
    max_size=300,
).map(lambda found: np.array(found, dtype=np.float64))


def pair(counts: FloatArray) -> Pair:
    return Pair.of(counts[:1], counts[1:])


@EXAMPLES
@given(COUNTS)
def test_distances_are_symmetric_and_not_negative(counts: FloatArray) -> None:
    for distance in SYMMETRIC:
        there, back = float(distance(pair(counts))[0]), float(distance(pair(counts[::-1]))[0])
        assert there == pytest.approx(back, abs=1e-9)
        assert there >= 0


@EXAMPLES
@given(COUNTS, st.permutations(range(7)))
def test_without_an_order_the_order_of_bins_does_not_matter(
    counts: FloatArray, order: list[int]
) -> None:
    for distance in UNORDERED:
        assert float(distance(pair(counts))[0]) == pytest.approx(
            float(distance(pair(counts[:, order]))[0]), abs=1e-9
        )
    p = minimum_effect(pair(counts), 0.02)
    assert float(p[0]) == pytest.approx(float(minimum_effect(pair(counts[:, order]), 0.02)[0]))


@EXAMPLES
@given(arrays(np.float64, 7, elements=st.integers(0, 5000).map(float)))
def test_equal_counts_are_no_shift(counts: FloatArray) -> None:
    same = Pair.of(counts[None], counts[None])
    for distance in SYMMETRIC:
        assert float(distance(same)[0]) == pytest.approx(0.0, abs=1e-12)
    assert float(chi_square(same)[2][0]) == pytest.approx(1.0)
    assert float(minimum_effect(same, 0.02)[0]) > 0.5


@EXAMPLES
@given(COUNTS)
def test_masked_bins_do_not_count(counts: FloatArray) -> None:
    mask = np.array([[True] * 5 + [False] * 2])
    cut = Pair.of(counts[:1, :5], counts[1:, :5])
    masked = Pair.of(counts[:1], counts[1:], mask)
    for distance in SYMMETRIC:
        assert float(distance(masked)[0]) == pytest.approx(float(distance(cut)[0]), abs=1e-12)
    assert float(chi_square(masked)[0][0]) == pytest.approx(float(chi_square(cut)[0][0]))
    assert float(minimum_effect(masked, 0.02)[0]) == pytest.approx(
        float(minimum_effect(cut, 0.02)[0])
    )


@EXAMPLES
@given(VALUES, VALUES)
def test_windows_add_up(one: FloatArray, other: FloatArray) -> None:
    grid = numeric_grid("x", one)
    both = grid.count(np.concatenate((one, other)))
    assert (both == grid.count(one) + grid.count(other)).all()
    tested = layout([grid], [grid.count(one)])
    parts = [tested.coarsen(tested.pad([grid.count(part)])) for part in (one, other)]
    assert (tested.coarsen(tested.pad([both])) == parts[0] + parts[1]).all()


@EXAMPLES
@given(VALUES)
def test_a_reference_lies_within_its_own_range_also_in_single_precision(
    values: FloatArray,
) -> None:
    grid = numeric_grid("x", values)
    single = values.astype(np.float32).astype(np.float64)
    for counts in (grid.count(values), grid.count(single)):
        assert counts.sum() == values.size
        assert counts[grid.below] == counts[grid.above] == counts[grid.missing] == 0
    held = {grid.atoms[at]: cell for at, cell in enumerate(grid.atom_cells())}
    singles = np.unique(values).astype(np.float32)
    for atom, cell in held.items():
        if np.count_nonzero(singles == np.float32(atom)) > 1:
            continue  # the reference tells apart what single precision cannot: see the next rule
        assert int(grid.numeric_cells(np.array([np.float64(np.float32(atom))]))[0]) == cell


def test_frequent_values_that_only_double_precision_tells_apart_are_counted_apart() -> None:
    values = np.array([0.1, np.float64(np.float32(0.1))] * 5)
    grid = numeric_grid("x", values)
    assert len(grid.atoms) == 2
    assert [grid.count(values)[cell] for cell in grid.atom_cells()] == [5, 5]


@EXAMPLES
@given(VALUES)
def test_a_grid_survives_its_json_and_tests_every_ordered_value(values: FloatArray) -> None:
    grid = numeric_grid("x", values)
    assert FeatureGrid.from_json(grid.to_json()) == grid
    counts = grid.count(values)
    tested = layout([grid], [counts])
    assert float(tested.coarsen(tested.pad([counts])).sum()) == values.size
    assert len(tested.labels[0]) == int(tested.bins[0])
    assert len(grid.labels()) == grid.cells


@EXAMPLES
@given(st.lists(st.sampled_from([None, "a", "b", "ä", ""]), min_size=1, max_size=50))
def test_every_category_has_its_cell(values: list[str | None]) -> None:
    grid = categorical_grid("x", values)
    counts = grid.count([*values, "new"])
    assert counts[grid.missing] == values.count(None)
    assert grid.unseen is not None
    assert counts[grid.unseen] == 1
    assert counts.sum() == len(values) + 1
