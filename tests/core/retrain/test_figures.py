"""Figures from labels are those of the traffic, with bounds that hold."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest
from tests.core.drift.samples import references

from mooring.core.drift.arrays import BoolArray, FloatArray
from mooring.core.drift.reference import Calibration, Reference
from mooring.core.retrain.figures import Told, measured
from mooring.core.retrain.measuring import Labels

CHANCE = np.random.default_rng(20_261_121)
SCORES = CHANCE.beta(1, 2, 60_000)


@cache
def reference(*, calibrated: bool = False) -> Reference:
    (score,) = references({"score": SCORES})
    calibration = None
    if calibrated:
        labelled = score.counts.copy()
        centres = np.clip(np.nan_to_num(score.grid.centres()), 0, 1)
        positives = labelled.copy()
        positives[: centres.size] = np.round(labelled[: centres.size] * centres)
        calibration = Calibration("score", labelled, np.minimum(positives, labelled))
    return Reference((), (score,), calibration)


def labels(scores: FloatArray, positive: BoolArray, come: BoolArray) -> Labels:
    """As collectors count them: all predictions, and the labels that have come."""
    grid = reference().outputs[0].grid
    cells = grid.numeric_cells(scores)

    def counted(rows: BoolArray) -> dict[int, float]:
        found = np.bincount(cells[rows], minlength=grid.cells)
        return {int(cell): float(found[cell]) for cell in np.flatnonzero(found)}

    return Labels(
        {("score", cell): count for cell, count in counted(every(cells.size)).items()},
        {
            ("score", cell, label): count
            for label, rows in (("1", positive), ("0", ~positive))
            for cell, count in counted(rows & come).items()
        },
    )


def calibrated_world(
    rows: int, seed: int, *, twisted: bool = False
) -> tuple[FloatArray, BoolArray]:
    """Scores that mean what they say, or the opposite."""
    chance = np.random.default_rng(seed)
    scores = chance.beta(1, 2, rows)
    share = 1 - scores if twisted else scores
    return scores, chance.random(rows) < share


def every(rows: int) -> BoolArray:
    """All labels have come."""
    return np.full(rows, fill_value=True)


def true_accuracy(scores: FloatArray, positive: BoolArray) -> float:
    return float(((scores >= 0.5) == positive).mean())


def test_with_all_labels_the_figures_are_those_of_the_rows() -> None:
    scores, positive = calibrated_world(20_000, 1)
    found = measured(labels(scores, positive, every(20_000)), reference()).metrics
    called = scores >= 0.5
    wanted = {
        "accuracy": true_accuracy(scores, positive),
        "precision": float(positive[called].mean()),
        "recall": float(called[positive].mean()),
    }
    for name, value in wanted.items():
        assert found[name].value == pytest.approx(value, abs=0.02), name
        assert found[name].lower < value < found[name].upper, name
        assert found[name].samples == 20_000
    pairs = positive & np.roll(~positive, 1)
    above = float((scores[pairs] > np.roll(scores, 1)[pairs]).mean())
    assert found["auc"].lower < above < found["auc"].upper


def test_labels_that_come_for_high_scores_only_do_not_bend_the_accuracy() -> None:
    scores, positive = calibrated_world(40_000, 2)
    come = np.random.default_rng(3).random(40_000) < np.where(scores > 0.5, 0.9, 0.05)
    kept = come
    naive = true_accuracy(scores[kept], positive[kept])
    found = measured(labels(scores, positive, come), reference()).metrics["accuracy"]
    wanted = true_accuracy(scores, positive)
    assert abs(found.value - wanted) < 0.02 < abs(naive - wanted)
    assert found.lower < wanted < found.upper
    assert f"labels for {kept.mean():.0%} of the predictions" in found.note


@pytest.mark.parametrize("rows", [50, 500, 5000])
def test_the_bounds_hold_whatever_the_number_of_labels(rows: int) -> None:
    truth = true_accuracy(*calibrated_world(400_000, 4))
    missed = 0
    for seed in range(200):
        scores, positive = calibrated_world(rows, 1000 + seed)
        found = measured(labels(scores, positive, every(rows)), reference()).metrics["accuracy"]
        missed += not found.lower <= truth <= found.upper
    assert missed <= 3


def test_few_labels_are_far_from_certain() -> None:
    scores, positive = calibrated_world(12, 5)
    found = measured(labels(scores, positive, every(12)), reference()).metrics["accuracy"]
    assert found.upper - found.lower > 0.5


def test_a_world_that_has_turned_is_seen_by_labels_and_not_by_the_estimate() -> None:
    scores, positive = calibrated_world(20_000, 6, twisted=True)
    found = measured(labels(scores, positive, every(20_000)), reference(calibrated=True)).metrics
    assert found["accuracy"].upper < 0.5
    assert found["estimatedAccuracy"].lower > 0.6
    assert "estimated" in found["estimatedAccuracy"].note


def test_without_labels_accuracy_is_estimated_under_its_own_name() -> None:
    scores, positive = calibrated_world(20_000, 7)
    told = measured(labels(scores, positive, ~every(20_000)), reference(calibrated=True))
    assert set(told.metrics) == {"estimatedAccuracy"}
    wanted = true_accuracy(scores, positive)
    assert told.metrics["estimatedAccuracy"].value == pytest.approx(wanted, abs=0.02)
    assert "no label has come" in told.problem


def test_nothing_counted_is_no_figure() -> None:
    told = measured(Labels({}, {}), reference(calibrated=True))
    assert told == Told({}, "no label has come (POST /feedback of the collector)")


def test_classes_are_right_when_the_label_is_the_class() -> None:
    (kind,) = references({"kind": ["cat"] * 700 + ["dog"] * 300})
    place = {name: cell for cell, name in enumerate(kind.grid.categories)}
    counted = Labels(
        {("kind", place["cat"]): 900.0, ("kind", place["dog"]): 100.0},
        {
            ("kind", place["cat"], "cat"): 90.0,
            ("kind", place["cat"], "dog"): 10.0,
            ("kind", place["dog"], "dog"): 50.0,
            ("kind", place["dog"], "cat"): 50.0,
        },
    )
    found = measured(counted, Reference((), (kind,))).metrics["accuracy"]
    assert found.value == pytest.approx(0.9 * 0.9 + 0.1 * 0.5)
    assert found.samples == 200
    assert set(measured(counted, Reference((), (kind,))).metrics) == {"accuracy"}


def test_labels_that_are_no_truth_values_are_named() -> None:
    told = measured(Labels({("score", 5): 10.0}, {("score", 5, "yes"): 3.0}), reference())
    assert told.metrics == {}
    assert "'yes'" in told.problem


@pytest.mark.parametrize("cell", [0, 62, 63, 9999])
def test_cells_at_the_ends_and_beyond_do_no_harm(cell: int) -> None:
    told = measured(Labels({("score", cell): 10.0}, {("score", cell, "1"): 3.0}), reference())
    for facts in told.metrics.values():
        assert 0 <= facts.lower <= facts.upper <= 1
