"""Cron in UTC: five numeric fields, ranges that may wrap around, no time twice."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mooring.api.retraining_spec import SCHEDULE_PATTERN
from mooring.api.schema_types import matcher
from mooring.core.retrain.schedule import parse_schedule

ACCEPTED = matcher(SCHEDULE_PATTERN)


def at(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


@pytest.mark.parametrize(
    ("schedule", "now", "following"),
    [
        ("0 3 * * 0", "2026-01-01T00:00", "2026-01-04T03:00"),
        ("0 3 * * 7", "2026-01-01T00:00", "2026-01-04T03:00"),
        ("0 3 * * 0", "2026-01-04T03:00", "2026-01-11T03:00"),
        ("*/15 * * * *", "2026-01-01T00:14:59", "2026-01-01T00:15"),
        ("30 22-2 * * *", "2026-01-01T02:30", "2026-01-01T22:30"),
        ("30 22-2 * * *", "2026-01-01T23:31", "2026-01-02T00:30"),
        ("0 0 29 2 *", "2026-01-01T00:00", "2028-02-29T00:00"),
        ("0 0 29 2 *", "2096-03-01T00:00", "2104-02-29T00:00"),
        ("0 0 31 * *", "2026-02-01T00:00", "2026-03-31T00:00"),
        ("0 0 13 * 5", "2026-01-01T00:00", "2026-01-02T00:00"),  # either day is enough
        ("0 0 13 * 5", "2026-01-10T00:00", "2026-01-13T00:00"),
        ("0 0 */2 * 5", "2026-01-01T00:01", "2026-01-09T00:00"),  # a star restricts nothing
        ("0 0 1 11-2/3 *", "2026-01-02T00:00", "2026-02-01T00:00"),
        ("5,7 1 1 1 *", "2026-01-01T01:05", "2026-01-01T01:07"),
        ("0 0 * * 6-1", "2026-01-06T00:00", "2026-01-10T00:00"),
        ("0 0 * * 1/2", "2026-01-03T00:00", "2026-01-05T00:00"),
        ("0 0 5/10 * *", "2026-01-06T00:00", "2026-01-15T00:00"),
    ],
)
def test_the_next_time_is(schedule: str, now: str, following: str) -> None:
    assert ACCEPTED(schedule)
    assert parse_schedule(schedule).next(at(now)) == at(following)


@pytest.mark.parametrize(
    ("schedule", "what"),
    [
        ("60 * * * *", "'60' is no minute: use 0 to 59"),
        ("* 24 * * *", "'24' is no hour"),
        ("* * 0 * *", "'0' is no day of month"),
        ("* * 32 * *", "'32' is no day of month"),
        ("* * * 13 *", "'13' is no month"),
        ("* * * * 8", "'8' is no day of week"),
        ("* * * *", "has 4 fields"),
        ("@weekly", "has 1 fields"),
        ("0 0 31 2 *", "a day that no year has"),
        ("0 0 30 2 *", "a day that no year has"),
        ("a * * * *", "'a' is no minute"),
        ("*/0 * * * *", "'0' is no minute"),
        ("1-2-3 * * * *", "'2-3' is no minute"),
        ("١ * * * *", "is no minute"),
    ],
)
def test_what_is_wrong_is_said_with_what_is_right(schedule: str, what: str) -> None:
    with pytest.raises(ValueError, match=what):
        parse_schedule(schedule)


SOME = st.sampled_from(
    ["* * * * *", "0 3 * * 0", "7-50/9 22-2 1,15 * *", "0 0 29 2 *", "30 4 * 1-6/2 1-5"]
)
SECONDS = 20 * 365 * 86400
MOMENT = st.integers(0, SECONDS).map(
    lambda seconds: datetime(2020, 1, 1, tzinfo=UTC) + timedelta(seconds=seconds)
)


@given(text=SOME, now=MOMENT)
def test_next_and_latest_are_each_others_neighbours(text: str, now: datetime) -> None:
    schedule = parse_schedule(text)
    following = schedule.next(now)
    assert following is not None
    assert following > now
    assert schedule.latest(following, now) == following
    assert schedule.latest(following - timedelta(seconds=1), now) is None
    before = schedule.latest(now, datetime(1990, 1, 1, tzinfo=UTC))
    assert before is not None
    assert before <= now
    assert schedule.next(before) == following
