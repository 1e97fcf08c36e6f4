from __future__ import annotations

from datetime import timedelta

import pytest
from tests.cli.objects import NOW, at

from mooring.cli import words
from mooring.cli.estimates import Reading


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [(-5, "0s"), (0, "0s"), (59, "59s"), (60, "1m00s"), (724, "12m04s"), (3600, "1h00m"),
     (11_100, "3h05m"), (86_400, "1d00h"), (187_200, "2d04h")],
)  # fmt: skip
def test_a_span_is_shown_by_its_two_greatest_units(seconds: int, shown: str) -> None:
    assert words.span(timedelta(seconds=seconds)) == shown


@pytest.mark.parametrize(
    ("minutes", "shown"),
    [(5, "0s"), (0, "0s"), (-1, "60s"), (-2, "2m"), (-119, "119m"), (-120, "2h"), (-4000, "2d")],
)
def test_an_age_is_shown_as_kubectl_shows_it(minutes: float, shown: str) -> None:
    assert words.age(at(minutes), NOW) == shown


def test_an_age_of_what_is_no_time_is_empty() -> None:
    assert [words.age(value, NOW) for value in (None, "", "soon", 7)] == ["", "", "", ""]


def test_a_time_of_another_day_shows_its_date() -> None:
    assert words.clock(at(-1), NOW) == "11:59:00Z"
    assert words.clock(at(-1440), NOW) == "2026-11-20 12:00:00Z"


@pytest.mark.parametrize(
    ("uri", "width", "shown"),
    [
        ("s3://models/fraud/v7", 40, "s3://models/fraud/v7"),
        ("s3://models/fraud/exports/2026/v7", 24, "s3://…/exports/2026/v7"),
        ("s3://models/averyveryverylongname", 20, "s3://…yverylongname"),
        ("", 10, ""),
    ],
)
def test_a_long_uri_keeps_its_scheme_and_its_end(uri: str, width: int, shown: str) -> None:
    found = words.short_uri(uri, width)
    assert len(found) <= width
    if len(shown) == len(found):
        assert found == shown
    assert found.startswith(uri[:5])
    assert found.endswith(uri[-2:])


def test_texts_of_others_cannot_move_the_cursor() -> None:
    assert words.plain("a\x1b[2Jb\nc\td\x00") == "a�[2Jb c d�"
    assert words.plain(None) == ""


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("0s", 0), ("90s", 90), ("10m", 600), ("1h30m", 5400), ("1.5h", 5400), ("250ms", 0.25)],
)
def test_durations_are_those_of_the_api(text: str, seconds: float) -> None:
    assert words.parse_duration(text).total_seconds() == seconds


@pytest.mark.parametrize("text", ["", "10", "7d", "10 m", "-5m", "m", "1h30"])
def test_what_is_no_duration_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="write a duration such as"):
        words.parse_duration(text)


@pytest.mark.parametrize("text", ["9" * 400 + "h", "99999999999h", "9" * 30 + "ms"])
def test_a_duration_beyond_all_time_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="longer than a duration can be"):
        words.parse_duration(text)


def test_bursts_are_told_where_they_take_evidence_away() -> None:
    told = {2.34: "evidence counts 1/2.3, as errors come in bursts", 1.1: "", None: ""}
    for dispersion, sentence in told.items():
        record = {"name": "errors", "dispersion": dispersion}
        assert Reading(record, "errorRate", bake=False).bursts == sentence
