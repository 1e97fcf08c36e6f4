"""Errors of regressions: those of the traffic, and bounds that hold whatever errors look like."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import numpy as np
import pytest
from scipy.special import gammaln
from tests.core.drift.samples import references

from mooring.core.drift.arrays import BoolArray, FloatArray, IntArray
from mooring.core.drift.reference import Reference
from mooring.core.retrain.errors import Errors, mean_absolute, root_mean_squared
from mooring.core.retrain.figures import measured
from mooring.core.retrain.measuring import ABSOLUTE, QUARTIC, ROWS, SQUARED, Labels

CELLS = 20
Draw = Callable[[np.random.Generator, int], FloatArray]


def errors(sizes: FloatArray, cells: IntArray | None = None, **more: FloatArray) -> Errors:
    """Counters of labels with errors of these sizes; every prediction has its label."""
    places = np.zeros(sizes.size, dtype=np.int64) if cells is None else cells

    def summed(power: int) -> FloatArray:
        return np.bincount(places, sizes**power, CELLS).astype(np.float64)

    rows = summed(0)
    return Errors(more.get("predicted", rows), rows, summed(1), summed(2), summed(4))


def test_with_all_labels_the_figures_are_those_of_the_rows() -> None:
    sizes = np.abs(np.random.default_rng(1).normal(0, 3, 5000))
    found, root = errors(sizes, np.arange(5000) % CELLS), float(np.sqrt((sizes**2).mean()))
    mae, rmse = mean_absolute(found), root_mean_squared(found)
    assert mae is not None
    assert rmse is not None
    assert mae.value == pytest.approx(sizes.mean())
    assert rmse.value == pytest.approx(root)
    for one, truth in ((mae, 3 * np.sqrt(2 / np.pi)), (rmse, 3.0)):
        assert one.lower < truth < one.upper
        assert one.upper - one.lower < 0.15 * truth


def test_no_label_is_no_figure() -> None:
    nothing = errors(np.array([]))
    assert mean_absolute(nothing) is None
    assert root_mean_squared(nothing) is None


@pytest.mark.parametrize(
    ("sizes", "lower"),
    [
        ([1000.0], 0.0),  # one label proves nothing
        ([5.0] * 3, 0.0),  # nor do three that are alike
        ([5.0] * 12, 1.86),
        ([5.0] * 500, 4.91),  # but hundreds do
        ([1.0] * 1000 + [8000.0], 0.0),  # one mistyped label is no bad model
        ([0.0] * 50, 0.0),
    ],
)
def test_certainty_comes_with_the_number_of_labels(sizes: list[float], lower: float) -> None:
    found = mean_absolute(errors(np.array(sizes)))
    assert found is not None
    assert found.lower == pytest.approx(lower, abs=0.05)
    assert found.lower <= found.value <= found.upper


def test_a_cell_counts_as_the_traffic_and_not_as_its_labels() -> None:
    """Labels come for the expensive half alone, nearly, and errors there are ten times as large."""
    sizes = np.concatenate([np.full(1000, 10.0), np.full(50, 1.0)])
    cells = np.repeat([1, 0], [1000, 50])
    predicted = np.zeros(CELLS)
    predicted[:2] = (5000, 5000)
    found = mean_absolute(errors(sizes, cells, predicted=predicted))
    assert found is not None
    assert found.value == pytest.approx(5.5)
    assert found.lower < 4.5
    assert found.upper > 6.0


DRAWN: dict[str, tuple[Draw, float, float]] = {
    "half normal": (lambda c, n: np.abs(c.normal(size=n)), np.sqrt(2 / np.pi), 1.0),
    "lognormal": (lambda c, n: c.lognormal(0, 1, n), np.exp(0.5), np.exp(2.0)),
}


@pytest.mark.parametrize("rows", [5, 30, 400])
@pytest.mark.parametrize("name", DRAWN)
def test_a_model_as_good_as_its_bound_is_hardly_ever_called_worse(name: str, rows: int) -> None:
    """400 looks of two metrics each: 0.4 alarms are expected at the stated level of 1 in 2,000."""
    draw, mean, square = DRAWN[name]
    chance = np.random.default_rng(rows)
    alarms = 0
    for _ in range(400):
        found = errors(draw(chance, rows), chance.integers(0, CELLS, rows))
        mae, rmse = mean_absolute(found), root_mean_squared(found)
        assert mae is not None
        assert rmse is not None
        alarms += mae.lower > mean or rmse.lower > np.sqrt(square)
    assert alarms <= 2


@pytest.mark.parametrize("rows", [2, 5, 12, 30, 100, 400])
def test_errors_that_are_nearly_always_the_same_give_no_false_certainty(rows: int) -> None:
    """Exactly: each error is 1 with probability p, else 0, so that their number is binomial."""
    one = np.arange(rows + 1.0)
    found = [mean_absolute(errors((np.arange(rows) < count).astype(np.float64))) for count in one]
    lower = np.array([bounds.lower for bounds in found if bounds is not None])
    for p in (0.05, 0.2, 0.5, 0.8, 0.9, 0.95, 0.98, 0.99, 0.999):
        chances = np.exp(
            gammaln(rows + 1) - gammaln(one + 1) - gammaln(rows - one + 1)
            + one * np.log(p) + (rows - one) * np.log1p(-p)
        )  # fmt: skip
        assert chances.sum() == pytest.approx(1.0)
        assert chances[lower > p].sum() < 0.0007, p


# --- through the production path --------------------------------------------------------------


@cache
def reference() -> Reference:
    (price,) = references({"price": np.random.default_rng(2).gamma(4.0, 50.0, 20_000)})
    return Reference((), (price,))


def labels(prices: FloatArray, wrong: FloatArray, come: BoolArray) -> Labels:
    """As collectors count them: all predictions, and the errors of those whose label has come."""
    grid = reference().outputs[0].grid
    cells = grid.numeric_cells(prices)

    def summed(power: int, rows: BoolArray) -> dict[int, float]:
        found = np.bincount(cells[rows], np.abs(wrong[rows]) ** power, grid.cells)
        return {int(cell): float(found[cell]) for cell in np.flatnonzero(found)}

    everything = np.ones(prices.size, dtype=bool)
    return Labels(
        {("price", cell): n for cell, n in summed(0, everything).items()},
        {("price", cell, "(number)"): n for cell, n in summed(0, come).items()},
        {
            ("price", cell, what): value
            for what, power in ((ROWS, 0), (ABSOLUTE, 1), (SQUARED, 2), (QUARTIC, 4))
            for cell, value in summed(power, come).items()
        },
    )


def world(chance: np.random.Generator, worse: float = 1.0) -> tuple[FloatArray, FloatArray]:
    """Prices, and errors in proportion to them."""
    prices = chance.gamma(4.0, 50.0, 2000)
    return prices, chance.normal(0, 0.1 * worse, 2000) * prices


#: Of the world above: E|e| = 20·√(2/π), √E e² = .1·√E price².
MAE, RMSE = 20 * np.sqrt(2 / np.pi), 0.1 * np.sqrt(200.0**2 + 4 * 50.0**2)


def test_a_good_model_is_left_alone_and_a_worse_one_found_though_labels_choose() -> None:
    """A label comes for every tenth cheap and for two of three expensive things."""
    chance = np.random.default_rng(20_261_121)
    found = {"good": 0, "worse": 0}
    naive = []
    for _ in range(150):
        for name, worse in (("good", 1.0), ("worse", 1.3)):
            prices, wrong = world(chance, worse)
            come = chance.random(2000) < np.where(prices > 200, 0.66, 0.1)
            metrics = measured(labels(prices, wrong, come), reference()).metrics
            found[name] += metrics["mae"].lower > MAE or metrics["rmse"].lower > RMSE
            if name == "good":
                naive.append(float(np.abs(wrong[come]).mean()))
    assert found["good"] <= 1
    assert found["worse"] >= 105
    assert np.mean(naive) > 1.2 * MAE  # what an average over labels alone would have said


def test_labels_that_are_numbers_have_errors_and_no_accuracy() -> None:
    prices, wrong = world(np.random.default_rng(3))
    told = measured(labels(prices, wrong, np.arange(2000) % 4 == 0), reference())
    assert set(told.metrics) == {"mae", "rmse"}
    assert told.metrics["mae"].value == pytest.approx(MAE, rel=0.15)
    assert told.metrics["rmse"].samples == 500
    assert told.metrics["rmse"].note == "labels for 25% of the predictions"
    assert told.problem == "labels of output price are numbers: they have mae and rmse"


def test_scores_with_labels_zero_and_one_have_both() -> None:
    found = Labels(
        {("price", 5): 10.0},
        {("price", 5, "1"): 8.0},
        {("price", 5, ROWS): 8.0, ("price", 5, ABSOLUTE): 2.0, ("price", 5, SQUARED): 0.5},
    )
    told = measured(found, reference())
    assert {"accuracy", "mae", "rmse"} <= set(told.metrics)
    assert told.problem == ""
    assert told.metrics["rmse"].value == 0.25


def test_truth_values_have_no_error_and_it_says_so() -> None:
    told = measured(Labels({("price", 5): 10.0}, {("price", 5, "1"): 8.0}), reference())
    assert "mae" not in told.metrics
    assert told.problem == "labels of output price are truth values: mae and rmse need numbers"
