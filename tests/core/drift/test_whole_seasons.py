"""Whole seasons beside a seasonal reference: each is judged once, by whichever window follows."""

from __future__ import annotations

from dataclasses import replace

import pytest
from tests.core.drift.collected import HOUR, STABLE, reference, spec, traffic

from mooring.core.drift.memory import Memory
from mooring.core.drift.season import seasons_over
from mooring.core.drift.tick import Earlier, begun, judge, seasons_due
from mooring.core.drift.watch import Watch
from mooring.core.monitoring import Report
from mooring.core.telemetry import Counted, joined

SEASONAL = {"configMap": "fraud-reference", "seasonal": {"offset": "24h", "weeks": 1}}
WATCH = Watch(spec(reference=SEASONAL), STABLE)
BUSY = 12  # the only hour of a day with traffic
QUIET = Counted(scrapes=240)
UNSEEN = Counted()
AFTER_A_GAP = traffic(1, gap=True)

Found = tuple[Memory, Report]


def an_hour(found: Found, hour: int, counted: Counted, slow: float = 0.0) -> Found:
    """One window, with whatever season it asks for."""
    memory, report = found
    seasons = [
        Earlier(a, b, joined(traffic(int(b / HOUR) + h, shift=slow) for h in range(6)))
        for a, b in seasons_due(WATCH, memory, (hour + 1) * HOUR)
    ]
    day_before = traffic(hour + 1000, shift=slow - 0.04)
    earlier = [Earlier((hour - 24) * HOUR, (hour - 23) * HOUR, day_before)]
    return judge(
        WATCH, reference(), counted, memory, report, hour * HOUR, (hour + 1) * HOUR, earlier,
        seasons=seasons,
    )  # fmt: skip


def days(shifts: list[float], last: Counted | None) -> list[Found]:
    """A busy hour each day, and the last hour of the day as given (None: busy, too)."""
    found = [begun(23 * HOUR, 24 * HOUR)]
    for day, slow in enumerate(shifts, 1):
        busy, end = 24 * day + BUSY, 24 * day + 23
        after = an_hour(found[-1], busy, traffic(busy, shift=slow), slow)
        found.append(an_hour(after, end, last or traffic(end, shift=slow), slow))
    return found


@pytest.mark.parametrize("last", [None, QUIET, UNSEEN, AFTER_A_GAP])
def test_a_slow_drift_is_found_whatever_the_last_hour_of_a_season_shows(
    last: Counted | None,
) -> None:
    found = days([0.04 * day for day in range(1, 10)], last)

    assert found[2][1].drift["state"] != "Drifted"
    memory, report = found[-1]
    assert report.drift["state"] == "Drifted"
    assert any(one.alarming for one in memory.anchor.features.values())


def test_its_alarm_ends_when_seasons_are_as_they_were_though_their_last_hour_is_quiet() -> None:
    drifted, report = days([0.04 * day for day in range(1, 10)], QUIET)[-1]
    assert any(one.alarming for one in drifted.anchor.features.values())

    found = drifted, report
    for day in range(10, 30):
        found = an_hour(found, 24 * day + BUSY, traffic(24 * day + BUSY))

    assert not any(one.alarming for one in found[0].anchor.features.values())


@pytest.mark.parametrize(
    ("end", "judged", "taken", "due"),
    [
        (24, None, None, [24]),  # the first window of all ends a season
        (13, None, None, []),  # a season before the first window is nobody's
        (24, 23, None, [24]),
        (25, 13, None, [24]),  # the last hours of the season showed nothing
        (37, 13, 24, []),  # it had its turn
        (23, 13, None, []),  # it is not over
        (109, 13, None, [24]),  # days without traffic between hold nothing to judge
        (120, 13, None, [24, 120]),
        (28, 21, None, [24]),  # windows of seven hours never end with the day
        (48, 24, 24, [48]),
    ],
)
def test_the_season_of_the_last_window_is_due_when_it_is_over_and_only_once(
    end: float, judged: float | None, taken: float | None, due: list[float]
) -> None:
    found = seasons_over(
        end * HOUR, 24 * HOUR, judged=judged and judged * HOUR, taken=taken and taken * HOUR
    )

    assert found == tuple(((one - 24) * HOUR, one * HOUR) for one in due)


def test_a_season_that_shows_nothing_has_its_turn_and_changes_nothing() -> None:
    memory, report = an_hour(begun(23 * HOUR, 24 * HOUR), 24 + BUSY, traffic(24 + BUSY))
    hour = 48 + BUSY
    (span,) = seasons_due(WATCH, memory, (hour + 1) * HOUR)

    after, _ = judge(
        WATCH, reference(), traffic(hour), memory, report, hour * HOUR, (hour + 1) * HOUR,
        seasons=[Earlier(*span, UNSEEN)],
    )  # fmt: skip

    assert after.anchor == replace(memory.anchor, last_end=48 * HOUR)
    assert seasons_due(WATCH, after, (hour + 2) * HOUR) == ()


def test_another_reference_is_not_held_against_a_season_before_it() -> None:
    memory, report = an_hour(begun(23 * HOUR, 24 * HOUR), 24 + BUSY, traffic(24 + BUSY))
    hour = 48 + BUSY
    (span,) = seasons_due(WATCH, memory, (hour + 1) * HOUR)

    after, _ = judge(
        WATCH, reference(2), traffic(hour), memory, report, hour * HOUR, (hour + 1) * HOUR,
        seasons=[Earlier(*span, traffic(48, shift=2.0))],
    )  # fmt: skip

    assert after.anchor.features == {}
