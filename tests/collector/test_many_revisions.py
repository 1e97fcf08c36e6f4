"""More revisions than a collector keeps: the one that is not used any more makes room."""

from __future__ import annotations

import re
from collections import defaultdict

from tests.collector.references import answer, exchange, exposed, infer, telemetry
from tests.collector.test_labels import label, observed, outcomes

from mooring_collector.settings import Bounds
from mooring_collector.telemetry import Telemetry

_SERIES = re.compile(r"^(mooring_telemetry_\w+\{.+\}) (\S+)$", re.MULTILINE)


def collector(revisions: int = 3) -> Telemetry:
    return telemetry(bounds=Bounds(revisions=revisions), feedback={"maturity": 60})


def send(found: Telemetry, *revisions: str) -> None:
    for name in revisions:
        found.count(name, "live", exchange(infer([1, 2, 3]), answer(0.5)), 0.0)


def series(found: Telemetry) -> dict[str, float]:
    return {name: float(value) for name, value in _SERIES.findall(exposed(found))}


def test_the_newest_revision_is_counted_under_its_name_however_many_came_before() -> None:
    found = telemetry()
    for number in range(200):
        send(found, f"rev{number}")
        assert found.revisions[f"rev{number}"].rows == 1
    assert len(found.revisions) == Bounds().revisions


def test_the_revision_that_went_longest_without_an_exchange_makes_room() -> None:
    found = collector()
    send(found, "stable", "one", "two", "stable")
    found.pass_over("one", "live", "dropped")
    send(found, "three")
    assert list(found.revisions) == ["stable", "one", "three"]
    assert found.revisions["stable"].rows == 2


def test_a_label_of_a_dropped_revision_is_unknown_and_counts_for_no_other() -> None:
    found = collector()
    observed(found, "early", 0.25, revision="gone")
    send(found, *(f"rev{number}" for number in range(10)))
    assert label(found, id="early", label=1) == ["unknown"]
    assert label(found, revision="gone", score=0.25, label=1) == ["unknown"]
    assert found.revisions[""].feedback == {"unknown": 2}
    assert not any(outcomes(found, name) for name in list(found.revisions))


def test_labels_of_the_newest_revision_are_joined_however_many_came_before() -> None:
    found = collector()
    send(found, *(f"rev{number}" for number in range(70)))
    found._begun = 1 << 16  # as after so many revisions
    observed(found, "late", 0.25, revision="new")
    assert label(found, id="late", label=1) == ["joined"]
    assert sum(outcomes(found, "new").values()) == 1


def test_what_belongs_to_no_revision_is_never_dropped_and_takes_no_place() -> None:
    found = collector()
    assert label(found, id="nobody", label=1) == ["unknown"]
    send(found, *(f"rev{number}" for number in range(10)))
    assert found.revisions[""].feedback == {"unknown": 1}
    assert set(found.revisions) == {"", "rev7", "rev8", "rev9"}


def test_no_series_ever_falls_so_the_differences_of_a_returning_revision_are_exact() -> None:
    found = collector()
    before: dict[str, float] = {}
    grown: dict[str, float] = defaultdict(float)
    for names in (["a", "a", "a"], ["b", "c", "d"], ["a"], ["e", "f", "g"], ["a", "a"]):
        send(found, *names)
        page = series(found)
        for name, value in page.items():
            assert value >= before.get(name, 0.0), name
            if name.startswith("mooring_telemetry_rows_total") and 'revision="a"' in name:
                grown["a"] += value - before.get(name, 0.0)
        before |= page
    assert grown["a"] == 6


def test_revisions_of_a_collector_that_dropped_none_have_the_life_of_their_process() -> None:
    found = collector()
    send(found, "a", "b", "c")
    (life,) = set(re.findall('life="([^"]+)"', exposed(found)))
    assert float(life) > 0
    send(found, "d")
    assert set(re.findall('life="([^"]+)"', exposed(found))) == {life, f"{life}/3"}
