"""Cron schedules of five numeric fields, in UTC.

The semantics are those of Vixie cron, with two things settled: a range may wrap around (``22-2``),
and when both day fields are restricted a day need match only one of them. UTC has no gaps and no
repeated hours, so every time that matches comes exactly once.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

_FIELDS = (
    ("minute", 0, 59),
    ("hour", 0, 23),
    ("day of month", 1, 31),
    ("month", 1, 12),
    ("day of week", 0, 7),
)
#: 29 February comes within eight years of any day, also around a century.
_HORIZON_DAYS = 8 * 366 + 1


@dataclass(frozen=True, slots=True)
class Schedule:
    """A parsed schedule. Days of the week count from Sunday = 0."""

    minutes: tuple[int, ...]
    hours: tuple[int, ...]
    days: frozenset[int]
    months: frozenset[int]
    weekdays: frozenset[int]
    any_day: bool
    any_weekday: bool

    def latest(self, now: datetime, after: datetime) -> datetime | None:
        """The last time that matches, after ``after`` and not after ``now``; None if none does."""
        day = now.astimezone(UTC).date()
        for _ in range(_HORIZON_DAYS):
            if datetime(day.year, day.month, day.day, tzinfo=UTC) + timedelta(days=1) <= after:
                return None
            if self._matches(datetime(day.year, day.month, day.day, tzinfo=UTC)):
                for moment in reversed(self._times(day.year, day.month, day.day)):
                    if moment <= now:
                        return moment if moment > after else None
            day -= timedelta(days=1)
        return None

    def next(self, now: datetime) -> datetime | None:
        """The first time that matches after ``now``; None when no day ever does."""
        day = now.astimezone(UTC).date()
        for _ in range(_HORIZON_DAYS):
            if self._matches(datetime(day.year, day.month, day.day, tzinfo=UTC)):
                for moment in self._times(day.year, day.month, day.day):
                    if moment > now:
                        return moment
            day += timedelta(days=1)
        return None

    def _matches(self, day: datetime) -> bool:
        if day.month not in self.months:
            return False
        of_month = day.day in self.days
        of_week = day.isoweekday() % 7 in self.weekdays
        if self.any_day or self.any_weekday:
            return of_month and of_week
        return of_month or of_week

    def _times(self, year: int, month: int, day: int) -> list[datetime]:
        return [
            datetime(year, month, day, hour, minute, tzinfo=UTC)
            for hour in self.hours
            for minute in self.minutes
        ]


def parse_schedule(text: str) -> Schedule:
    """Reads five fields; raises ValueError with the field that is wrong and what it may hold."""
    fields = text.split(" ")
    if len(fields) != len(_FIELDS):
        raise ValueError(f"schedule {text!r} has {len(fields)} fields: it must have five")
    found = [
        _values(field, name, low, high)
        for field, (name, low, high) in zip(fields, _FIELDS, strict=True)
    ]
    minutes, hours, days, months, weekdays = found
    schedule = Schedule(
        minutes=tuple(sorted(minutes)),
        hours=tuple(sorted(hours)),
        days=frozenset(days),
        months=frozenset(months),
        weekdays=frozenset(weekdays),
        any_day=fields[2].startswith("*"),
        any_weekday=fields[4].startswith("*"),
    )
    if schedule.next(datetime(2000, 1, 1, tzinfo=UTC)) is None:
        raise ValueError(f"schedule {text!r} names a day that no year has")
    return schedule


def _values(field: str, name: str, low: int, high: int) -> set[int]:
    found: set[int] = set()
    top = 6 if name == "day of week" else high  # 7 is another name of Sunday
    for item in field.split(","):
        span, slash, step_text = item.partition("/")
        step = _number(step_text, name, 1, 99) if slash else 1
        if span == "*":
            first, last = low, top
        else:
            start, dash, end = span.partition("-")
            first = _number(start, name, low, high)
            last = _number(end, name, low, high) if dash else (top if slash else first)
        width = top - low + 1
        if last < first:  # 22-2 goes on past the end
            last += width
        found |= {low + (value - low) % width for value in range(first, last + 1, step)}
    return found


def _number(text: str, name: str, low: int, high: int) -> int:
    if not (text.isascii() and text.isdigit()) or not low <= int(text) <= high:
        raise ValueError(f"schedule: {text!r} is no {name}: use {low} to {high}")
    return int(text)
