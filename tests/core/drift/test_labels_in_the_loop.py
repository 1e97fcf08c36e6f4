"""Labels beside the data, window after window: what status, conditions and retraining see."""

from __future__ import annotations

import json
import zlib
from dataclasses import replace

import pytest
from tests.core.drift.collected import HOUR, STABLE, spec, traffic
from tests.core.drift.labelled import WATCH, Meaning, flipped, labels, meant, reference, span

from mooring.api.conditions import DRIFTED
from mooring.api.modeldeployment_status import ModelDeploymentStatus
from mooring.core.drift.memory import Memory
from mooring.core.drift.tick import begun, judge, rebasing
from mooring.core.drift.watch import Watch
from mooring.core.monitoring import Report
from mooring.core.telemetry import Counted, joined


def window(hour: int, meaning: Meaning = meant, *, rows: int = 400, **of_data: float) -> Counted:
    known = traffic(hour, **of_data)  # type: ignore[arg-type]
    return replace(known, outcomes=labels([hour, 21], rows, meaning))


def without_traffic(hour: int, meaning: Meaning = meant) -> Counted:
    return Counted(scrapes=240, outcomes=labels([hour, 21], 400, meaning))


def followed(windows: dict[int, Counted], watch: Watch = WATCH) -> dict[int, tuple[Memory, Report]]:
    """Every window judged in turn; all is written down and read between them, as in a restart."""
    memory, report = begun(min(windows) * HOUR, (min(windows) + 1) * HOUR)
    found = {}
    for hour, counted in windows.items():
        memory, report = judge(watch, reference(), counted, memory, report, *span(hour))
        memory = Memory.from_bytes(memory.to_bytes())
        report = Report.from_text(report.to_text())
        ModelDeploymentStatus.model_validate({"drift": report.drift})
        found[hour] = memory, report
    return found


def turned(hour: int, at: int = 8) -> Counted:
    return window(hour, flipped(0.2) if hour >= at else meant)


def test_a_score_that_means_something_else_is_drift_of_the_concept() -> None:
    found = followed({hour: turned(hour) for hour in range(1, 20)})

    _, before = found[7]
    assert before.conditions[DRIFTED].reason == "Steady"
    assert before.drift["concept"]["state"] == "Steady"
    _, report = found[19]
    assert report.drift["state"] == "Drifted"
    assert report.drift["concept"]["state"] == "Drifted"
    drifted = report.conditions[DRIFTED]
    assert (drifted.status, drifted.reason) == ("True", "ConceptDrifted")
    assert "accuracy is 0.6" in drifted.message
    assert "none of 3 features drifted" in drifted.message
    assert report.facts is not None
    assert report.facts.drifted
    assert report.facts.features == (f"score@{STABLE}",)
    assert report.facts.change_point is not None
    assert report.facts.change_point.timestamp() == 8 * HOUR
    episodes = {one.facts.episode for _, one in found.values() if one.facts and one.facts.drifted}
    assert len(episodes) == 1


def test_the_same_labels_for_two_days_raise_no_alarm() -> None:
    found = followed({hour: window(hour) for hour in range(1, 49)})

    assert {report.drift["state"] for _, report in found.values()} == {"Steady"}


def test_data_that_drifts_and_a_score_that_does_not_is_drift_of_the_data_alone() -> None:
    found = followed({hour: window(hour, shift=0.6) for hour in range(1, 14)})

    _, report = found[13]
    assert report.conditions[DRIFTED].reason == "Drifted"
    assert report.drift["concept"]["state"] == "Steady"


def test_both_at_once_are_one_episode_that_names_both() -> None:
    windows = {h: window(h, shift=0.6 if h >= 4 else 0.0) for h in range(1, 10)}
    windows |= {h: window(h, flipped(0.2), shift=0.6) for h in range(10, 24)}
    found = followed(windows)

    _, report = found[23]
    assert report.facts is not None
    assert report.facts.features == (f"score@{STABLE}", "amount")
    assert report.conditions[DRIFTED].reason == "ConceptDrifted"
    episodes = {one.facts.episode for _, one in found.values() if one.facts and one.facts.drifted}
    assert len(episodes) == 1


def test_labels_that_come_while_nobody_asks_the_model_are_judged_all_the_same() -> None:
    day = {hour: window(hour) for hour in range(1, 10)}
    night = {hour: without_traffic(hour, flipped(0.3)) for hour in range(10, 16)}
    found = followed({**day, **night, 16: traffic(16)})

    assert found[15][1].drift["state"] == "NoData"
    assert found[16][1].conditions[DRIFTED].reason == "ConceptDrifted"


def test_a_window_that_was_not_scraped_before_shows_no_label() -> None:
    windows = {hour: window(hour) for hour in range(1, 10)}
    gap = replace(window(10, flipped(0.5)), gap=True)
    before, after = followed({**windows, 10: gap})[9], followed({**windows, 10: gap})[10]

    assert before[0].concept == after[0].concept


def test_broken_data_holds_the_evidence_of_labels_until_they_are_of_good_data_again() -> None:
    def counted(hour: int) -> Counted:
        # The labels of predictions on broken data come for two hours more.
        odd = 8 <= hour < 13
        return window(hour, flipped(0.5) if odd else meant, missing=0.5 if 8 <= hour < 11 else 0.0)

    found = followed({hour: counted(hour) for hour in range(1, 30)})

    assert "Drifted" not in {report.drift["state"] for _, report in found.values()}
    assert "1970-01-01T13:00:00Z" in found[11][1].drift["concept"]["message"]
    assert found[29][1].drift["concept"]["state"] == "Steady"


def test_another_reference_begins_anew() -> None:
    memory, report = followed({hour: turned(hour) for hour in range(1, 20)})[19]
    other = reference(seed=2)
    memory, report = judge(WATCH, other, window(20), memory, report, *span(20))

    assert memory.concept is not None
    assert memory.concept.first == 20 * HOUR
    assert report.conditions[DRIFTED].status == "False"


def test_labels_go_on_where_the_data_is_compared_with_the_first_traffic_from_now_on() -> None:
    reference_ = {"configMap": "fraud-reference", "captured": {"window": "1h"}}
    watch = replace(WATCH, spec=spec(reference=reference_, groundTruth={"maturity": "2h"}))
    memory, report = followed({hour: window(hour) for hour in range(1, 7)}, watch)[6]
    before = memory.concept
    wanted = rebasing(watch, memory, report, 7 * HOUR)
    fresh = joined(window(hour) for hour in range(1, 7))
    memory, report = judge(watch, reference(), window(7), memory, report, *span(7), fresh=fresh)

    assert wanted
    assert memory.base is not None
    assert before is not None
    assert memory.concept is not None
    assert memory.concept.first == before.first
    assert report.drift["concept"]["labels"] == 5 * 400


def test_nothing_is_said_of_labels_without_ground_truth() -> None:
    watch = replace(WATCH, spec=WATCH.spec.model_copy(update={"ground_truth": None}))
    memory, report = followed({hour: turned(hour) for hour in range(1, 16)}, watch)[15]

    assert memory.concept is None
    assert "concept" not in report.drift
    assert report.drift["state"] == "Steady"


def test_a_memory_from_before_labels_were_judged_is_read() -> None:
    memory, _ = followed({hour: window(hour) for hour in range(1, 4)})[3]
    raw = json.loads(zlib.decompress(memory.to_bytes()))
    del raw["concept"]

    old = Memory.from_bytes(zlib.compress(json.dumps(raw).encode()))

    assert old == replace(memory, concept=None)


def test_a_memory_with_damaged_labels_is_a_value_error() -> None:
    memory, _ = followed({hour: window(hour) for hour in range(1, 4)})[3]
    raw = json.loads(zlib.decompress(memory.to_bytes()))
    for odd in ([1], {"revision": "a"}, {**raw["concept"], "earlier": 7}):
        text = json.dumps({**raw, "concept": odd})
        with pytest.raises(ValueError, match="cannot be read"):
            Memory.from_bytes(zlib.compress(text.encode()))
