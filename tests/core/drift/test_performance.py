"""Performance from delayed labels: the figures, and e-processes that keep their promise."""

from __future__ import annotations

import json

import numpy as np
import pytest

from mooring.core.drift.arrays import FloatArray
from mooring.core.drift.performance import (
    ErrorOutcomes,
    Outcomes,
    Process,
    Processes,
    after_window,
    auc,
    calibration_ratio,
    error_ratios,
    figures,
    rate_ratios,
)

BINS = 10
SCORES = (np.arange(BINS) + 0.5) / BINS


def outcomes(
    chance: np.random.Generator, rows: int, *, meaning: FloatArray = SCORES, labelled: float = 1.0
) -> Outcomes:
    predicted = chance.multinomial(rows, np.full(BINS, 1 / BINS))
    known = chance.binomial(predicted, labelled)
    return Outcomes(
        predicted.astype(float), known.astype(float), chance.binomial(known, meaning).astype(float)
    )


def test_figures_are_those_of_the_rows() -> None:
    chance = np.random.default_rng(1)
    found = figures(outcomes(chance, 200_000), threshold_bin=5)
    # A calibrated uniform score: accuracy .75, AUC 5/6 less the ties within bins.
    assert found.accuracy == pytest.approx(0.75, abs=0.005)
    assert found.precision == pytest.approx(0.75, abs=0.005)
    assert found.recall == pytest.approx(0.75, abs=0.005)
    assert found.auc == pytest.approx(0.83, abs=0.01)
    assert found.calibration_error < 0.01
    assert found.coverage == 1


def test_labels_that_are_selected_by_score_do_not_bend_the_figures() -> None:
    chance = np.random.default_rng(2)
    predicted = np.full(BINS, 100_000.0)
    # Nearly all labels come from the confident bins.
    known = predicted * np.array([0.9, 0.5, 0.1, 0.02, 0.02, 0.02, 0.02, 0.1, 0.5, 0.9])
    selected = Outcomes(predicted, known, chance.binomial(known.astype(int), SCORES).astype(float))
    found = figures(selected, threshold_bin=5)
    assert found.accuracy == pytest.approx(0.75, abs=0.01)
    assert found.coverage == pytest.approx(0.308)


def test_without_labels_nothing_is_claimed() -> None:
    none = Outcomes(np.full(3, 10.0), np.zeros(3), np.zeros(3))
    found = figures(none, threshold_bin=1)
    assert np.isnan(found.accuracy)
    assert (found.labelled, found.coverage) == (0, 0.0)
    assert np.isnan(auc(np.zeros(3), np.ones(3)))
    with pytest.raises(ValueError, match="no more positives than labels"):
        Outcomes(np.ones(2), np.ones(2), np.full(2, 2.0))


def run(meaning: FloatArray, *, seed: int, windows: int, rows: int = 500) -> tuple[Processes, int]:
    """The processes after some windows, and the window in which the first alarmed."""
    chance = np.random.default_rng(seed)
    reference = outcomes(chance, 20_000)
    processes, first = Processes(), 0
    for place in range(1, windows + 1):
        window = outcomes(chance, rows, meaning=meaning, labelled=0.5)
        processes = after_window(processes, window, reference, threshold_bin=5)
        if not first and processes.alarming(0.05):
            first = place
    return processes, first


def test_a_model_as_good_as_its_reference_is_left_alone() -> None:
    alarms = [run(SCORES, seed=seed, windows=20)[1] > 0 for seed in range(20)]
    assert np.mean(alarms) <= 0.1


@pytest.mark.slow
def test_a_model_as_good_as_its_reference_is_left_alone_in_full() -> None:
    alarms = [run(SCORES, seed=seed, windows=100)[1] > 0 for seed in range(300)]
    assert np.mean(alarms) <= 0.05


def test_concept_drift_alarms_and_says_in_which_figures() -> None:
    turned = np.clip(0.5 + 0.6 * (SCORES - 0.5), 0, 1)
    processes, first = run(turned, seed=1, windows=40)
    assert 0 < first <= 15
    assert {"accuracy", "precision", "calibration"} <= set(processes.alarming(0.05))
    assert processes.by_figure["accuracy"].p < 1e-3


def test_a_better_model_is_no_alarm_but_its_scores_mean_something_else() -> None:
    sharper = np.clip(0.5 + 1.1 * (SCORES - 0.5), 0, 1)
    processes, _ = run(sharper, seed=1, windows=200, rows=5000)
    assert set(processes.alarming(0.05)) == {"calibration"}


def test_a_failure_that_starts_late_is_found_as_fast() -> None:
    chance = np.random.default_rng(4)
    reference = outcomes(chance, 20_000)
    processes = Processes()
    for _ in range(100):
        processes = after_window(processes, outcomes(chance, 500), reference, 5)
    broken = np.full(BINS, 0.5)
    late = 0
    while not processes.alarming(0.05) and late < 10:
        late += 1
        processes = after_window(processes, outcomes(chance, 500, meaning=broken), reference, 5)
    assert late <= 3


def test_processes_continue_exactly_from_their_json() -> None:
    processes, _ = run(SCORES, seed=1, windows=5)
    assert Processes.from_json(json.loads(json.dumps(processes.to_json()))) == processes
    assert Process().p == 1


def test_larger_errors_of_a_regression_alarm_and_equal_ones_do_not() -> None:
    chance = np.random.default_rng(5)
    reference = np.histogram(np.abs(chance.normal(size=20_000)), np.linspace(0, 5, 21))[0]
    rates = []
    for scale, limit in ((1.0, 0.1), (1.2, 1.0)):
        alarmed = 0
        for _ in range(30):
            process = Process()
            for _ in range(20):
                errors = np.abs(chance.normal(scale=scale, size=200)).clip(0, 4.99)
                counts = np.histogram(errors, np.linspace(0, 5, 21))[0].astype(float)
                process = process.after(error_ratios(counts, reference.astype(float)))
            alarmed += process.alarms(0.05)
        rates.append(alarmed / 30)
        assert rates[-1] <= limit
    assert rates[1] >= 0.9


def test_mean_errors_come_from_their_counters() -> None:
    found = ErrorOutcomes(np.array([3.0, 1.0]), absolute=8.0, squared=24.0, predicted=10)
    assert found.mae == 2.0
    assert found.rmse == pytest.approx(6**0.5)
    assert np.isnan(ErrorOutcomes(np.zeros(2), 0, 0, 5).mae)


def test_outcomes_of_two_windows_add_up() -> None:
    one = outcomes(np.random.default_rng(1), 10)
    assert (one + one).predicted.sum() == 20


def test_evidence_that_is_held_falls_again_and_its_peak_is_remembered() -> None:
    process = Process()
    for _ in range(50):
        process = process.after(np.array([1.0, 2.0]))
    held = process.held(8.0)
    assert process.evidence > 40
    assert held.evidence == pytest.approx(8.0, abs=0.01)
    assert held.peak == process.peak
    assert Process().evidence == 0


def test_bins_of_which_the_reference_knows_little_prove_little() -> None:
    # One error in five rows: .4 in the traffic is no proof, though all other bins know a lot.
    usual, known = np.array([1.0, 1000.0]), np.array([5.0, 10_000.0])
    there = rate_ratios(np.array([400.0, 0.0]), np.array([1000.0, 0.0]), usual, known)
    assert (there < 0).all()
    here = rate_ratios(np.array([0.0, 400.0]), np.array([0.0, 1000.0]), usual, known)
    assert here.max() > 100


def test_bins_of_which_the_reference_knows_nothing_are_left_out() -> None:
    none = np.array([0.0])
    assert not rate_ratios(np.array([9.0]), np.array([9.0]), none, none).any()
    unknown = Outcomes(none, none, none)
    assert not calibration_ratio(Outcomes(none, np.array([9.0]), np.array([9.0])), unknown).any()


def test_another_distribution_of_scores_is_no_evidence_of_any_figure() -> None:
    chance = np.random.default_rng(6)
    reference, processes = outcomes(chance, 20_000), Processes()
    for _ in range(50):
        rows = chance.multinomial(500, np.array([0, 0, 0, 0, 1, 2, 2, 2, 2, 1]) / 10).astype(float)
        window = Outcomes(rows, rows, chance.binomial(rows.astype(int), SCORES).astype(float))
        processes = after_window(processes, window, reference, 5)
    assert processes.alarming(0.05) == ()
