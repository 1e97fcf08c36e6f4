"""Predictions of the candidate against stable's: what fails, what passes, what is remembered."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from itertools import islice

import numpy as np
import pytest

from mooring.core.judge import Analysis, Metric, PredictionShift, State, Threshold, Verdict
from mooring.core.judge.shift import (
    SETTLE,
    WINDOW,
    OutputWindow,
    Predictions,
    begins,
    due,
    judge_shift,
    take_predictions,
)

ANALYSIS = Analysis((Metric("p", PredictionShift(0.1)),))
(METRIC,) = ANALYSIS.metrics
#: Edges of 40 cells of a score.
EDGES = np.linspace(-4, 4, 39)


def cells(values: np.ndarray) -> dict[int, float]:
    counts = np.bincount(np.searchsorted(EDGES, values), minlength=40)
    return {int(cell): float(n) for cell, n in enumerate(counts) if n}


def verdict(memory: Predictions, now: float | None = None) -> Verdict:
    at = memory.until if now is None else now
    return judge_shift(METRIC, 0.1, ANALYSIS, memory, at).verdict


def played(
    shift: float,
    rows: int = 200,
    windows: int = 40,
    *,
    seed: int = 1,
    weights: tuple[float, float] = (0.05, 0.5),
    swing: float = 0.0,
) -> Iterator[Verdict]:
    """Windows with ``rows`` in all, the candidate's part rising; ``swing``: both move by day."""
    random = np.random.default_rng(seed)
    memory = Predictions(0.0)
    for number, weight in enumerate(np.linspace(*weights, windows)):
        common = swing * number / windows
        ours, theirs = random.poisson([rows * weight, rows * (1 - weight)])
        window = OutputWindow(
            WINDOW * (number + 1),
            {"score": cells(random.normal(common + shift, 1, ours))},
            {"score": cells(random.normal(common, 1, theirs))},
        )
        memory = take_predictions(ANALYSIS, memory, [window])
        yield verdict(memory)


def test_a_good_candidate_fails_within_alpha_and_passes() -> None:
    runs = [list(played(0.0, seed=seed)) for seed in range(60)]
    assert sum(Verdict.FAIL in run for run in runs) <= 3
    assert all(run[-1] is Verdict.PASS for run in runs)


def test_a_shift_that_is_tolerated_never_fails_however_many_rows_there_are() -> None:
    runs = [played(0.2, 20_000, 12, seed=seed) for seed in range(15)]  # PSI 0.04
    assert not any(Verdict.FAIL in run for run in runs)


@pytest.mark.parametrize(("shift", "within"), [(0.6, 40), (1.0, 20)])
def test_a_larger_shift_fails(shift: float, within: int) -> None:
    runs = [islice(played(shift, seed=seed, rows=600), within) for seed in range(20)]
    assert all(Verdict.FAIL in run for run in runs)


def classes(
    before: list[float], after: list[float], rows: int, windows: int, seed: int
) -> tuple[list[Verdict], Predictions]:
    """Shares of classes on stable and on the candidate, which has a tenth of the rows."""
    random = np.random.default_rng(seed)
    memory, found = Predictions(0.0), []
    for number in range(1, windows + 1):
        sides = random.multinomial(rows // 10, after), random.multinomial(rows - rows // 10, before)
        ours, theirs = ({c: float(n) for c, n in enumerate(side) if n} for side in sides)
        window = OutputWindow(WINDOW * number, {"y": ours}, {"y": theirs})
        memory = take_predictions(ANALYSIS, memory, [window])
        found.append(verdict(memory))
    return found, memory


@pytest.mark.parametrize("before", [0.0, 0.001, 0.005])
@pytest.mark.parametrize("others", [1, 2])
def test_a_rare_class_that_becomes_many_times_as_frequent_fails_and_never_passes(
    before: float, others: int
) -> None:
    usual, more = ([*[(1 - rare) / others] * others, rare] for rare in (before, 0.095))
    runs = [classes(usual, more, 1000, 30, seed)[0] for seed in range(20)]
    assert all(Verdict.FAIL in run for run in runs)
    assert sum(Verdict.PASS in run for run in runs) <= 1


def test_a_rare_class_that_stays_rare_passes() -> None:
    runs = [classes([0.995, 0.005], [0.995, 0.005], 1000, 30, seed)[0] for seed in range(20)]
    assert all(run[-1] is Verdict.PASS for run in runs)
    assert not any(Verdict.FAIL in run for run in runs)


def test_a_rare_class_within_the_tolerated_shift_fails_within_alpha() -> None:
    runs = [classes([0.995, 0.005], [0.952, 0.048], 3000, 30, seed)[0] for seed in range(60)]
    assert sum(Verdict.FAIL in run for run in runs) <= 5  # PSI 0.099


def test_classes_that_are_too_rare_to_be_compared_are_not_passed_unseen() -> None:
    found, memory = classes([0.99, 0.01], [0.96, 0.04], 1500, 1, seed=1)
    assert found == [Verdict.INCONCLUSIVE]
    assert memory.found["p"][2] == 1.0
    alike = classes([1.0], [1.0], 3000, 1, seed=1)[0]
    assert alike == [Verdict.PASS], "there is only one, and nothing to join"


def test_a_stray_row_of_a_rare_class_does_not_withhold_pass_for_ever() -> None:
    """So few rows hide no shift as large as the limit once there are many others."""
    memory = Predictions(0.0)
    verdicts = []
    for window in range(1, 40):
        stable = {0: 1000.0} if window != 3 else {0: 999.0, 1: 1.0}
        ours = {0: 1000.0}
        read = [OutputWindow(WINDOW * window, {"y": ours}, {"y": stable})]
        memory = take_predictions(ANALYSIS, memory, read)
        verdicts.append(verdict(memory))
    assert verdicts[-1] is Verdict.PASS


def test_a_share_that_rises_while_the_day_goes_on_is_no_shift() -> None:
    runs = [played(0.0, 1000, seed=seed, swing=3.0) for seed in range(20)]
    assert not any(Verdict.FAIL in run for run in runs)


def test_one_output_of_several_that_shifts_is_enough() -> None:
    random = np.random.default_rng(4)
    memory = Predictions(0.0)
    for number in range(20):
        same = cells(random.normal(0, 1, 300))
        window = OutputWindow(
            WINDOW * (number + 1),
            {"class": same, "score": cells(random.normal(1, 1, 300))},
            {"class": cells(random.normal(0, 1, 900)), "score": cells(random.normal(0, 1, 900))},
        )
        memory = take_predictions(ANALYSIS, memory, [window])
    assert verdict(memory) is Verdict.FAIL


def test_nothing_is_said_from_few_rows_and_old_counts_are_no_data() -> None:
    few = take_predictions(
        ANALYSIS, Predictions(0.0), [OutputWindow(WINDOW, {"y": {1: 9.0}}, {"y": {1: 90.0}})]
    )
    judged = judge_shift(METRIC, 0.1, ANALYSIS, few, few.until)
    assert (judged.verdict, judged.samples) == (Verdict.INCONCLUSIVE, 9)
    assert judge_shift(METRIC, 0.1, ANALYSIS, None, 0.0).verdict is Verdict.INCONCLUSIVE
    assert verdict(Predictions(0.0), now=10 * WINDOW) is Verdict.NO_DATA
    enough = OutputWindow(WINDOW, {"y": {1: 500.0, 2: 500.0}}, {"y": {1: 500.0, 2: 500.0}})
    memory = take_predictions(ANALYSIS, Predictions(0.0), [enough])
    assert verdict(memory, now=memory.until + 10 * WINDOW) is Verdict.NO_DATA


def test_a_window_counts_once_and_one_without_either_side_not_at_all() -> None:
    window = OutputWindow(WINDOW, {"y": {1: 50.0, 2: 50.0}}, {"y": {1: 400.0, 2: 400.0}})
    memory = take_predictions(ANALYSIS, Predictions(0.0), [window, window])
    assert memory.rows == 100
    alone = OutputWindow(2 * WINDOW, {"y": {1: 50.0}}, {})
    after = take_predictions(ANALYSIS, memory, [alone])
    assert (after.rows, after.until) == (100, 2 * WINDOW)


def test_windows_begin_after_the_split_and_are_read_when_they_are_over() -> None:
    assert begins(WINDOW + 1) == 2 * WINDOW
    assert due(0.0, WINDOW + SETTLE - 1) is None
    assert due(0.0, WINDOW + SETTLE) == WINDOW
    assert due(0.0, 100 * WINDOW + SETTLE) == 100 * WINDOW, "too many to make up for"


def test_what_is_remembered_goes_through_status_unchanged() -> None:
    random = np.random.default_rng(2)
    window = OutputWindow(
        WINDOW, {"y": cells(random.normal(0, 1, 333))}, {"y": cells(random.normal(0, 1, 777))}
    )
    memory = take_predictions(ANALYSIS, Predictions(0.0), [window])
    state = replace(State.begin(ANALYSIS), predictions=memory)
    raw = json.loads(json.dumps(state.dump()))
    assert State.load(raw, ANALYSIS) == (state, None)
    for part, nonsense in (("numbers", [None] * 5), ("numbers", [0, 1e300, 0, 0, 0]),
                           ("cells", {"y": [[1, -1, 2]]}), ("found", 3)):  # fmt: skip
        broken = {**raw, "predictions": {**raw["predictions"], part: nonsense}}
        found, why = State.load(broken, ANALYSIS)
        assert found.predictions is None
        assert why is not None


def test_alpha_is_shared_with_the_other_metrics_that_have_a_guarantee() -> None:
    free = Metric("free", Threshold(max=1.0))
    both = Analysis((METRIC, Metric("q", PredictionShift(0.2)), free))
    assert both.share_of(METRIC) == pytest.approx(ANALYSIS.share_of(METRIC) / 2)
