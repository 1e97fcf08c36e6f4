"""Labels that came later, window after window: what is concluded from them, and what is not."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import pytest
from tests.core.drift.collected import HOUR, STABLE, spec
from tests.core.drift.labelled import (
    USUAL,
    WATCH,
    Meaning,
    Span,
    came,
    flipped,
    labels,
    meant,
    reference,
    span,
)

from mooring.core.drift.concept import ALPHA, Concept, Told, followed, told
from mooring.core.telemetry import Counted

#: With a maturity of two hours, the first window whose labels are judged.
FIRST = 3


def after(
    windows: Mapping[int, Counted] | Sequence[Counted],
    *,
    seed: int = 1,
    rows: int = 20_000,
    broken: tuple[Span, ...] = (),
    **watch: object,
) -> tuple[Concept | None, int]:
    """What is known after these hours, and the first that alarmed (0: none)."""
    hours = windows if isinstance(windows, Mapping) else dict(enumerate(windows, 1))
    known, first = None, 0
    found = replace(WATCH, **watch)  # type: ignore[arg-type]
    for hour, counted in hours.items():
        so_far = tuple((a, b) for a, b in broken if a < (hour + 1) * HOUR)
        known = followed(found, reference(seed, rows), counted, known, so_far, *span(hour))
        if known is not None and known.alarm_at is not None and not first:
            first = hour
    return known, first


def run(
    seed: int,
    windows: int,
    *,
    rows: int = 300,
    meaning: Meaning = meant,
    scores: Span = USUAL,
    known: int = 5_000,
) -> int:
    """The window that alarms, from the first that is judged on, with a reference of its own."""
    hours = {h: came([seed, h], rows, meaning, scores) for h in range(1, windows + FIRST)}
    _, first = after(hours, seed=seed, rows=known)
    return max(first - FIRST + 1, 0)


def said(known: Concept | None, **watch: object) -> Told:
    found = told(replace(WATCH, **watch), reference(), known)  # type: ignore[arg-type]
    assert found is not None
    return found


@pytest.mark.parametrize(
    ("rows", "known"), [(300, 20_000), (2_000, 1_000)], ids=["large reference", "short reference"]
)
def test_labels_as_the_references_raise_no_alarm_whatever_reference_was_drawn(
    rows: int, known: int
) -> None:
    assert [run(seed, 40, rows=rows, known=known) for seed in range(10)] == [0] * 10


@pytest.mark.slow
def test_labels_as_the_references_raise_no_alarm_in_full() -> None:
    alarms = [run(seed, 120, rows=300) > 0 for seed in range(500)]
    assert np.mean(alarms) <= ALPHA


def test_another_distribution_of_scores_alone_is_no_drift_of_the_concept() -> None:
    # Most scores were below 1/2; now most are above. What each of them means is the same.
    assert [run(seed, 40, rows=1_000, scores=(5.0, 3.0)) for seed in range(10)] == [0] * 10


def test_scores_that_move_within_a_wide_cell_are_no_drift_of_the_concept() -> None:
    # The reference's highest cells are wide: most scores are now in their upper halves, where a
    # few points more are 1, and twenty thousand labels a window are certain of that.
    for seed in (60_013, 60_014, 60_015):
        windows = [came([seed, h], 20_000) for h in range(1, 11)]
        windows += [came([seed, h], 20_000, scores=(6.0, 2.0)) for h in range(11, 16)]
        assert after(windows, seed=seed, rows=2_000)[1] == 0


def test_labels_that_come_for_some_scores_only_are_no_drift_of_the_concept() -> None:
    cells = reference().outputs[0].grid.ordered
    kept = np.where(np.arange(cells) < cells / 2, 1.0, 0.02)  # refused loans have no label
    windows = [Counted(scrapes=9, outcomes=labels([4, h], 1_000, kept=kept)) for h in range(40)]
    assert after(windows)[1] == 0


def test_a_tenth_of_the_labels_flipped_is_found_within_a_dozen_windows_of_three_hundred() -> None:
    found = [run(seed, 12, meaning=flipped(0.1)) for seed in range(10)]
    assert all(0 < one <= 12 for one in found), found


def test_five_labels_a_window_add_up() -> None:
    found = [run(seed, 60, rows=5, meaning=flipped(0.2)) for seed in range(6)]
    assert all(0 < one <= 60 for one in found), found


def test_a_score_that_means_nothing_any_more_is_found_in_the_first_windows() -> None:
    found = [run(seed, 3, meaning=lambda s: np.full(s.size, 0.5)) for seed in range(10)]
    assert all(0 < one <= 3 for one in found), found


def test_fewer_positives_at_the_same_scores_are_found_though_no_error_has_grown() -> None:
    # Nothing below 1/2 is ever 1 any more: accuracy is better than ever, and the world another.
    gone: Meaning = lambda s: np.where(s < 0.5, meant(s) / 10, meant(s))  # noqa: E731
    known, first = after([came([5, h], 2_000, gone) for h in range(20)])
    assert first > 0
    assert "the calibration has changed" in said(known).message


def test_what_is_worse_is_said_in_the_models_own_terms() -> None:
    known, first = after([came([6, h], 300, flipped(0.2)) for h in range(14)])
    found = said(known)
    assert first > 0
    assert found.message.startswith(
        "score means something else by now: accuracy is 0.694 where the reference has 0.829 "
        "at the same scores, by 3600 labels since 1970-01-01T03:00:00Z (p = "
    )
    assert found.status["state"] == "Drifted"
    assert found.status["pValue"] <= ALPHA
    assert found.output == f"score@{STABLE}"
    assert found.change_point == FIRST * HOUR


def test_an_absurd_name_of_the_score_is_cut_before_what_is_said_of_it() -> None:
    usual = reference()
    (score,) = usual.outputs
    assert usual.calibration is not None
    name = "o" * 60_000
    known, _ = after([came([1, h], 2_000, flipped(0.2)) for h in range(1, 20)])
    found = told(
        WATCH,
        replace(
            usual,
            outputs=(replace(score, grid=replace(score.grid, name=name)),),
            calibration=replace(usual.calibration, output=name),
        ),
        known,
    )
    assert found is not None
    assert found.status["output"] == "o" * 252 + "…"
    assert "at the same scores" in found.status["message"]
    assert len(found.status["message"]) < 1_000


@pytest.mark.parametrize("hour", [1, 2])
def test_labels_that_come_early_are_not_judged_before_the_late_ones_can_be_there(hour: int) -> None:
    # Only fraud is reported within the first two hours.
    early = {h: came([7, h], 2_000, lambda s: np.ones(s.size)) for h in range(1, FIRST)}
    known, first = after({**early, **{h: came([7, h], 300) for h in range(FIRST, 20)}})
    assert first == 0
    waiting, _ = after({h: one for h, one in early.items() if h <= hour})
    assert said(waiting).status["state"] == "InsufficientData"
    assert "1970-01-01T03:00:00Z" in said(waiting).status["message"]
    assert said(known).status["state"] == "Steady"


def test_labels_of_predictions_on_broken_data_are_not_judged() -> None:
    odd = {h: came([8, h], 500, flipped(0.5)) for h in range(10, 14)}
    usual = {h: came([8, h], 500) for h in (*range(1, 10), *range(14, 30))}
    windows = dict(sorted({**usual, **odd}.items()))
    # Broken from 10 to 12; the labels of those predictions come until 14.
    assert after(windows, broken=((10 * HOUR, 12 * HOUR),))[1] == 0
    assert after(windows)[1] > 0


def test_a_window_that_was_taken_changes_nothing_when_it_is_taken_again() -> None:
    windows = [came([9, h], 300, flipped(0.1)) for h in range(6)]
    known, _ = after(windows)
    for hour in (6, 5, 1):
        assert followed(WATCH, reference(), windows[hour - 1], known, (), *span(hour)) == known


def test_a_window_without_labels_is_no_evidence() -> None:
    known, _ = after([came([9, h], 300) for h in range(6)])
    later = followed(WATCH, reference(), Counted(scrapes=240), known, (), *span(9))
    assert known is not None
    assert later == replace(known, last_end=10 * HOUR)


def test_it_continues_exactly_from_its_json_and_stays_small() -> None:
    known, _ = after([came([10, h], 300, flipped(0.1)) for h in range(40)])
    assert known is not None
    text = json.dumps(known.to_json())
    assert Concept.from_json(json.loads(text)) == known
    assert len(text) < 8_000


def test_an_alarm_ends_when_labels_are_as_they_were_and_another_can_begin() -> None:
    bad = {h: came([11, h], 500, flipped(0.2)) for h in range(10, 40)}
    good = {h: came([11, h], 500) for h in (*range(1, 10), *range(40, 80))}
    windows = dict(sorted({**good, **bad}.items()))
    known, first = after({h: one for h, one in windows.items() if h < 40})
    assert 10 <= first <= 13
    assert known is not None
    assert known.alarm_at == (first + 1) * HOUR  # a month of it would not change when it began
    ended, _ = after(windows)
    assert ended is not None
    assert ended.alarm_at is None
    assert said(ended).status["state"] == "Steady"
    assert said(ended).status["pValue"] > ALPHA
    again = {h: came([11, h], 500, flipped(0.2)) for h in range(80, 90)}
    assert after({**windows, **again})[0].alarm_at is not None  # type: ignore[union-attr]


def test_an_alarm_lasts_as_long_as_its_cause() -> None:
    known, first = after([came([12, h], 500, flipped(0.15)) for h in range(200)])
    assert known is not None
    assert known.alarm_at == (first + 1) * HOUR


def test_another_revision_begins_anew() -> None:
    known, first = after([came([13, h], 500, flipped(0.2)) for h in range(12)])
    assert first > 0
    other = replace(WATCH, stable="def")
    assert followed(other, reference(), came(1, 500), known, (), *span(20)) is None
    theirs = Counted(scrapes=9, outcomes=labels(1, 500, revision="def"))
    anew = followed(other, reference(), theirs, known, (), *span(20))
    assert anew is not None
    assert (anew.revision, anew.first, anew.alarm_at) == ("def", 20 * HOUR, None)


def test_a_retrained_models_labels_are_held_against_its_own_first_ones() -> None:
    # Its scores are sharper than its predecessor's, by which the reference was made.
    own: Meaning = lambda s: np.where(s > 0.4, 0.95, 0.05)  # noqa: E731
    usual = {h: came([14, h], 300, own) for h in range(1, 40)}
    known, first = after(usual, retrained=True)
    assert first == 0
    assert said(known, retrained=True).status["state"] == "Steady"
    waiting, _ = after({h: usual[h] for h in range(1, 5)}, retrained=True)
    assert "600 labels of the retrained model" in said(waiting, retrained=True).status["message"]
    worse: Meaning = lambda s: 0.75 * own(s) + 0.25 * (1 - own(s))  # noqa: E731
    known, first = after(
        {**usual, **{h: came([14, h], 300, worse) for h in range(40, 60)}}, retrained=True
    )
    assert 40 <= first < 60
    assert "where its own first labels have" in said(known, retrained=True).message


def test_labels_that_are_numbers_are_not_judged() -> None:
    (grid,) = labels(1, 300)
    numbers = {grid: {(STABLE, "score", "(number)"): {3: 90.0}, (STABLE, "score", "1"): {3: 9.0}}}
    known, first = after([Counted(scrapes=9, outcomes=numbers) for _ in range(20)])
    assert first == 0
    assert "other numbers" in said(known).status["message"]


def test_nothing_is_said_where_labels_cannot_be_judged() -> None:
    without = replace(WATCH, spec=spec())
    assert followed(without, reference(), came(1, 300), None, (), *span(1)) is None
    assert told(without, reference(), None) is None
    unknown = replace(reference(), calibration=None)
    assert told(WATCH, unknown, None) is None
    assert "no label has come" in said(None).status["message"]
