"""The span of data to train on: from the change, a season at least, without broken data."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from mooring.core.clock import parse_time
from mooring.core.retrain.window import data_window

NOW = datetime(2026, 2, 1, tzinfo=UTC)
WEEK = timedelta(days=7)


def days(first: float, last: float) -> tuple[datetime, datetime]:
    """From so many days ago to so many."""
    return NOW - timedelta(days=first), NOW - timedelta(days=last)


def test_it_begins_where_the_data_changed() -> None:
    found = data_window(NOW, NOW - timedelta(days=20), WEEK)
    assert found == {"start": "2026-01-12T00:00:00Z", "end": "2026-02-01T00:00:00Z"}


@pytest.mark.parametrize("change", [None, NOW - timedelta(hours=3), NOW + timedelta(hours=3)])
def test_it_holds_a_season_at_least(change: datetime | None) -> None:
    assert data_window(NOW, change, WEEK)["start"] == "2026-01-25T00:00:00Z"


def test_broken_data_is_left_out_and_made_up_for() -> None:
    found = data_window(NOW, None, WEEK, [days(3, 2), days(6, 5.5)])
    assert found["start"] == "2026-01-23T12:00:00Z"
    assert found["exclude"] == [
        {"start": "2026-01-26T00:00:00Z", "end": "2026-01-26T12:00:00Z"},
        {"start": "2026-01-29T00:00:00Z", "end": "2026-01-30T00:00:00Z"},
    ]


def test_overlapping_spans_count_once_and_the_future_not_at_all() -> None:
    spans = [days(3, 1), days(2, 1.5), days(-1, -2), (NOW - timedelta(days=1), NOW + WEEK)]
    found = data_window(NOW, None, WEEK, spans)
    assert found["exclude"] == [{"start": "2026-01-29T00:00:00Z", "end": "2026-02-01T00:00:00Z"}]
    assert parse_time(found["start"]) == NOW - WEEK - timedelta(days=3)


def test_no_more_spans_than_the_schema_takes() -> None:
    spans = [days(60 - i, 59.9 - i) for i in range(60)]
    assert len(data_window(NOW, NOW - timedelta(days=61), WEEK, spans)["exclude"]) == 50
