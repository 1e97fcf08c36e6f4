"""Windows in, state and report out: episodes, their course, and restarts that change nothing."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from functools import cache

import numpy as np
import pytest
from tests.core.drift.samples import cell_shares, drawn, normal, references

from mooring.core.drift.arrays import FloatArray
from mooring.core.drift.course import KEPT, REMEMBERED, Kind, course, period
from mooring.core.drift.episode import Window, WrongGrid, evaluate, threshold_of
from mooring.core.drift.health import Rule
from mooring.core.drift.measure import View
from mooring.core.drift.report import WORST, Condition, DriftReport, WindowReport
from mooring.core.drift.settings import DriftSettings, FeatureSettings
from mooring.core.drift.state import DriftState, with_unhealthy
from mooring.core.drift.telling import feature_status

HOUR = 3600.0
SETTINGS = DriftSettings()
ROWS = 1000


@cache
def view() -> View:
    chance = np.random.default_rng(1)
    colours: list[str | None] = [str(one) for one in chance.choice(["red", "green"], 30_000)]
    return View.of(references({"amount": chance.normal(size=30_000), "colour": colours}), SETTINGS)


def window(hour: int, amounts: FloatArray | None = None, seed: int | None = None) -> Window:
    """The window of an hour: quiet, unless the shares of amount's cells are given."""
    chance = np.random.default_rng(hour if seed is None else seed)
    shares = cell_shares(view().features[0].grid, normal()) if amounts is None else amounts
    colours = view().features[1].counts
    return Window(
        start=hour * HOUR,
        end=(hour + 1) * HOUR,
        rows=ROWS,
        grid=view().grid,
        counts={
            "amount": drawn(chance, ROWS, shares, 1)[0],
            "colour": drawn(chance, ROWS, colours, 1)[0],
        },
    )


def moved(shift: float) -> FloatArray:
    return cell_shares(view().features[0].grid, normal(shift))


def told(
    windows: list[Window], state: DriftState | None = None
) -> Iterator[tuple[DriftState, WindowReport]]:
    state = state or DriftState()
    for one in windows:
        state, report = evaluate(view(), one, state, SETTINGS)
        yield state, report


def of(report: WindowReport, name: str) -> DriftReport:
    return next(one for one in report.features if one.feature == name)


def test_quiet_windows_are_steady_and_leave_nothing_behind() -> None:
    reports = list(told([window(hour) for hour in range(48)]))
    assert {report.condition for _, report in reports} == {Condition.STEADY}
    state, report = reports[-1]
    assert report.message == "none of 2 features drifted"
    assert report.episode is None
    assert state.last_end == 48 * HOUR
    assert all(s.score == 0 for f in state.features.values() for s in f.streams.values())


def test_a_drift_alarms_says_when_it_began_and_ends_with_the_shift() -> None:
    hours = [window(h) for h in range(6)]
    hours += [window(h, moved(0.6)) for h in range(6, 20)] + [window(h) for h in range(20, 26)]
    reports = [report for _, report in told(hours)]
    drifted = [place for place, r in enumerate(reports) if r.condition is Condition.DRIFTED]
    # Two windows of evidence to alarm, and after the shift a few until the evidence is gone.
    assert drifted[0] in {6, 7}
    assert 20 <= drifted[-1] <= 23
    assert drifted == list(range(drifted[0], drifted[-1] + 1))
    last = reports[19]
    amount = of(last, "amount")
    assert amount.change_point == 6 * HOUR
    assert amount.alarm_since == (drifted[0] + 1) * HOUR
    assert amount.kind is Kind.SUDDEN
    assert last.episode == (drifted[0] + 1) * HOUR
    assert last.change_point == 6 * HOUR
    assert of(last, "colour").condition is Condition.STEADY
    assert last.features[0].feature == "amount"
    assert last.message.startswith("1 of 2 features drifted: amount (sudden, PSI ")
    assert "since 1970-01-01T06:00:00Z" in last.message
    assert reports[-1].episode is None


def test_one_odd_window_is_no_episode_unless_it_is_enormous() -> None:
    reports = [r for _, r in told([window(0), window(1, moved(0.25)), window(2), window(3)])]
    assert {report.condition for report in reports} == {Condition.STEADY}


def test_a_restart_at_any_window_changes_nothing() -> None:
    hours = [window(h) for h in range(4)] + [window(h, moved(0.4)) for h in range(4, 12)]
    plain = [(state, report.to_json()) for state, report in told(hours)]
    state = DriftState()
    for place, one in enumerate(hours):
        # Everything in memory is lost before every single window.
        state = DriftState.from_json(json.loads(json.dumps(state.to_json())))
        state, report = evaluate(view(), one, state, SETTINGS)
        assert (state, report.to_json()) == plain[place]


def test_a_window_that_was_taken_already_changes_nothing() -> None:
    state, _ = list(told([window(0), window(1, moved(0.5))]))[-1]
    again, report = evaluate(view(), window(1, moved(0.5)), state, SETTINGS)
    assert again == state
    assert report.condition in set(Condition)
    overlapping = replace(window(1), start=1.5 * HOUR, end=2.5 * HOUR)
    assert evaluate(view(), overlapping, state, SETTINGS)[0] == state


def test_other_settings_begin_anew_but_another_number_of_false_alarms_does_not() -> None:
    state, _ = list(told([window(0), window(1, moved(0.4))]))[-1]
    score = state.features["amount"].streams["shape"].score
    assert score > 0
    fewer = replace(SETTINGS, false_alarms_per_quarter=0.1)
    kept, _ = evaluate(view(), window(2, moved(0.4)), state, fewer)
    assert kept.features["amount"].streams["shape"].score > score
    assert threshold_of(fewer, 4) > threshold_of(SETTINGS, 4)
    other = replace(SETTINGS, features={"amount": FeatureSettings(min_effect_psi=0.5)})
    tolerant = View.of(view().features, other)
    anew, report = evaluate(tolerant, window(2, moved(0.4)), state, other)
    assert anew.features["amount"].streams["shape"].score == 0
    assert of(report, "amount").floor.startswith("a shift of the mean by about 0.7")


def test_counts_of_another_grid_are_refused() -> None:
    with pytest.raises(WrongGrid, match="counted on grid other"):
        evaluate(view(), replace(window(0), grid="other"), DriftState(), SETTINGS)
    short = replace(window(0), counts={"amount": np.ones(3)})
    with pytest.raises(ValueError, match="feature amount: 3 counts"):
        evaluate(view(), short, DriftState(), SETTINGS)


def test_a_window_that_is_too_small_says_how_many_rows_it_needs() -> None:
    few = replace(window(0), counts={k: v * 0 for k, v in window(0).counts.items()}, rows=0)
    few.counts["amount"][10] = 5.0
    state, report = evaluate(view(), few, DriftState(), SETTINGS)
    assert report.condition is Condition.INSUFFICIENT_DATA
    amount = of(report, "amount")
    assert amount.condition is Condition.INSUFFICIENT_DATA
    assert amount.m == 5
    assert amount.needed == pytest.approx(21, abs=2)
    assert "at least" in report.message
    assert state.features["amount"].streams["shape"].score == 0


def test_a_feature_that_is_constant_in_the_reference_is_judged_and_no_lack_of_data() -> None:
    values = np.full(5000, 3.0)
    (constant,) = references({"version": values})
    one = View.of([constant], SETTINGS)
    counted = Window(0, HOUR, {"version": constant.grid.count(values)}, 5000, one.grid)
    _, report = evaluate(one, counted, DriftState(), SETTINGS)
    assert report.condition is Condition.STEADY
    assert feature_status(None, report.features[0], {})["message"].startswith("constant in the")


def test_a_reference_that_is_too_small_says_so_and_does_not_blame_the_window() -> None:
    chance = np.random.default_rng(1)
    (small,) = references({"amount": chance.normal(size=15)})
    one = View.of([small], SETTINGS)
    seen = chance.normal(scale=0.1, size=5000)
    counted = Window(0, HOUR, {"amount": small.grid.count(seen)}, 5000, one.grid)
    _, report = evaluate(one, counted, DriftState(), SETTINGS)
    said = feature_status(None, report.features[0], {})["message"]
    assert said.startswith("the 15 rows of the reference are too few: ")
    assert report.message == said


def test_a_broken_feed_is_data_health_and_no_drift_and_blocks_retraining() -> None:
    broken = window(0)
    counts = {name: one.copy() for name, one in broken.counts.items()}
    missing = view().features[0].grid.missing
    counts["amount"] = np.floor(counts["amount"] / 2)
    counts["amount"][missing] = ROWS - counts["amount"].sum()
    state = DriftState()
    for hour in range(24):
        one = replace(broken, counts=counts, start=hour * HOUR, end=(hour + 1) * HOUR)
        state, report = evaluate(view(), one, state, SETTINGS)
        assert report.condition is Condition.UNHEALTHY
        assert report.blocked is not None
        assert "of amount is missing" in report.blocked
    assert report.episode is None
    assert state.unhealthy == ((0.0, 24 * HOUR),)
    assert [finding.rule for finding in report.findings] == [Rule.MISSING]


def test_a_feature_that_vanishes_holds_its_evidence() -> None:
    state, _ = list(told([window(0), window(1, moved(0.4))]))[-1]
    before = state.features["amount"].streams["shape"]
    gone = window(2)
    gone = replace(gone, counts={"colour": gone.counts["colour"]})
    state, report = evaluate(view(), gone, state, SETTINGS)
    assert state.features["amount"].streams["shape"] == before
    assert [f.rule for f in report.findings] == [Rule.SCHEMA]
    assert of(report, "amount").condition is Condition.UNHEALTHY
    assert np.isnan(of(report, "amount").psi)
    assert "psi" not in of(report, "amount").to_json()


def test_a_new_category_is_counted_and_reported_and_never_an_error() -> None:
    one = window(0)
    colour = one.counts["colour"].copy()
    unseen = view().features[1].grid.unseen
    assert unseen is not None
    colour[unseen] = 200
    report = WindowReport(Condition.STEADY, "", 0, 0, ())
    state = DriftState()
    for hour in range(3):
        now = replace(
            one, counts={**one.counts, "colour": colour}, start=hour * HOUR, end=(hour + 1) * HOUR
        )
        state, report = evaluate(view(), now, state, SETTINGS)
    assert [finding.rule for finding in report.findings] == [Rule.UNSEEN_CATEGORY]
    found = of(report, "colour")
    assert (found.condition, found.by, found.tail) == (Condition.DRIFTED, "tails", "unseen")
    assert "more in unseen" in report.message


def test_an_anchor_sees_what_a_reference_that_moves_along_never_sees() -> None:
    state, report = DriftState(), WindowReport(Condition.STEADY, "", 0, 0, ())
    assert threshold_of(SETTINGS, 6) > threshold_of(SETTINGS, 4)
    chance = np.random.default_rng(3)
    for week in range(12):
        now = window(week, moved(0.058 * week), seed=week)
        # Re-based every week on the week before.
        fine = drawn(chance, 30_000, moved(0.058 * (week - 1)), 1)[0]
        based = view().rebased(view().layout.pad([fine, view().features[1].counts]))
        state, report = evaluate(based, now, state, SETTINGS, anchor=view())
    assert of(report, "amount").by == "anchor"
    assert report.condition is Condition.DRIFTED
    assert "against the anchor" in report.message


def test_status_shows_the_worst_twenty_and_counts_all() -> None:
    chance = np.random.default_rng(5)
    wide = View.of(references({f"f{i:02}": chance.normal(size=5000) for i in range(30)}), SETTINGS)
    state = DriftState()
    report = WindowReport(Condition.STEADY, "", 0, 0, ())
    for hour in range(4):
        counts = {
            one.name: one.grid.count(chance.normal(0.8 if one.name > "f26" else 0, size=ROWS))
            for one in wide.features
        }
        now = Window(hour * HOUR, (hour + 1) * HOUR, counts, ROWS, wide.grid)
        state, report = evaluate(wide, now, state, SETTINGS)
    assert report.counts["Drifted"] == 3
    shown = report.to_json()
    assert len(shown["features"]) == WORST
    assert {one["feature"] for one in shown["features"][:3]} == {"f27", "f28", "f29"}
    assert shown["features"][0]["referenceShort"]
    assert json.loads(json.dumps(shown)) == shown
    assert len(json.dumps(state.to_json())) / 30 < 400


@pytest.mark.parametrize(
    ("sizes", "kind"),
    [
        ([0.4, 0.5, 0.52, 0.48, 0.51, 0.5], Kind.SUDDEN),
        ([0.14, 0.2, 0.25, 0.33, 0.38, 0.45, 0.5], Kind.GRADUAL),
        ([0.1, 0.5, 0.5], Kind.UNKNOWN),
        ([0.5, 0.5, 0.5, 0.5, 0.5, 0.5], Kind.SUDDEN),
    ],
)
def test_at_once_and_by_and_by_are_told_apart(sizes: list[float], kind: Kind) -> None:
    assert course(sizes, [], 0.0) is kind


def test_what_comes_again_and_again_is_recurring() -> None:
    day = 86_400.0
    assert course([0.5] * 6, [0.0, day, 2 * day], 3 * day) is Kind.RECURRING
    assert period([0.0, day, 2 * day], 3 * day) == day
    assert course([0.5] * 6, [0.0, day], 30 * day) is Kind.SUDDEN
    assert course([0.5] * 6, [0.0], day) is Kind.SUDDEN
    assert period([], day) is None


def test_an_evening_shift_is_recurring_on_its_third_day() -> None:
    hours = [window(h, moved(0.6) if h % 24 >= 18 else None) for h in range(24 * 3)]
    state, report = list(told(hours))[-1]
    amount = of(report, "amount")
    assert amount.kind is Kind.RECURRING
    assert amount.period == pytest.approx(86_400, rel=0.1)
    assert "recurring" in report.message
    assert "every 24 h" in report.message
    feature = state.features["amount"]
    assert len(feature.starts) == 2 <= REMEMBERED
    assert len(feature.sizes) <= KEPT


def test_unhealthy_spans_are_joined_and_bounded() -> None:
    spans: tuple[tuple[float, float], ...] = ()
    spans = with_unhealthy(spans, 0, 1)
    assert with_unhealthy(spans, 1, 2) == ((0, 2),)
    for place in range(100):
        spans = with_unhealthy(spans, 10 * place + 5, 10 * place + 6)
    assert len(spans) == 32


@pytest.mark.parametrize("raw", [{}, {"basis": "x"}, {"features": 3}])
def test_a_state_that_is_none_is_refused(raw: dict[str, object]) -> None:
    with pytest.raises(ValueError, match="cannot be read"):
        DriftState.from_json(raw)


def test_settings_that_mean_nothing_are_refused() -> None:
    with pytest.raises(ValueError, match="window must be above 0"):
        DriftSettings(window=0)
    with pytest.raises(ValueError, match="method 'magic' is none of minimumEffect, "):
        DriftSettings(method="magic")  # type: ignore[arg-type]
