"""The tick: what is due is read once, judged, and written once; whatever happens in between."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from tests.core.drift.collected import HOUR, ROWS, raw_spec, traffic
from tests.engine.drift_case import Case, FakePrometheus
from tests.engine.objects import child, model

from mooring.adapters.kube import ApiError
from mooring.core import kinds
from mooring.core.telemetry import Counted


def shifted(hour: int) -> Counted:
    return traffic(hour, shift=0.8 if hour > 104 else 0.0)


def test_windows_end_at_full_hours_and_are_judged_once_each() -> None:
    case = Case(FakePrometheus(shifted))

    for hour in (100.2, 100.5, 101.001, 101.01, 101.02, 101.9, 102.01):
        case.round(hour)

    assert case.prometheus is not None
    assert case.prometheus.asked == [101, 102]
    assert case.server.written == ["fraud-drift"] * 3
    assert case.known[0].last_end == 102 * HOUR
    assert case.report.drift["state"] == "Steady"


def test_the_next_look_is_when_the_window_is_over_and_settled() -> None:
    case = Case(FakePrometheus(shifted))

    assert case.round(100.2) == 15.0
    assert case.round(101.0) == pytest.approx(15.0)
    assert case.round(101.0 + 10 / HOUR) == pytest.approx(5.0)


def test_what_was_missed_while_the_operator_was_away_is_made_up_for_in_one_write() -> None:
    steady, away = Case(FakePrometheus(shifted)), Case(FakePrometheus(shifted))
    for hour in range(100, 113):
        steady.round(hour + 0.01)

    away.round(100.01)
    away.restart()
    away.round(112.01)

    assert away.prometheus is not None
    assert away.prometheus.asked == list(range(101, 113))
    assert len(away.server.written) == 2
    assert away.known == steady.known
    assert away.report.drift["state"] == "Drifted"


def test_an_operator_that_is_killed_between_any_two_rounds_comes_to_the_same() -> None:
    steady, killed = Case(FakePrometheus(shifted)), Case(FakePrometheus(shifted))

    for hour in range(100, 112):
        steady.round(hour + 0.01)
        killed.round(hour + 0.01)
        killed.restart()

    assert killed.known == steady.known
    assert killed.report.facts == steady.report.facts


def test_an_answer_of_the_api_server_that_is_lost_takes_no_window_twice() -> None:
    case = Case(FakePrometheus(shifted))
    case.round(100.01)
    case.server.fails = ApiError(500, "InternalError", "no leader")
    case.round(101.01)
    case.server.fails = None
    case.round(101.02)
    first = case.known
    case.restart()

    assert case.known == first
    assert first[0].last_end == 101 * HOUR


def test_prometheus_away_for_a_minute_is_no_news_and_for_longer_is_told() -> None:
    case = Case(FakePrometheus(shifted))
    case.round(100.01)
    assert case.prometheus is not None
    case.prometheus.down = True

    case.round(101.01)
    assert case.report.conditions["Drifted"].reason == "Starting"
    case.round(101.1)
    assert case.report.conditions["DataHealthy"].reason == "PrometheusUnavailable"
    assert case.known[0].last_end == 100 * HOUR

    case.prometheus.down = False
    case.round(103.01)
    assert case.prometheus.asked == [101, 102, 103]
    assert case.report.drift["state"] == "Steady"


def test_without_prometheus_it_is_said_what_is_missing() -> None:
    case = Case(None)

    case.round(100.01)
    case.round(102.01)

    assert case.report.conditions["Drifted"].reason == "PrometheusNotConfigured"
    assert "config.prometheus.url" in case.report.drift["message"]


def test_a_reference_that_is_missing_is_told_at_once_and_so_is_its_return() -> None:
    case = Case(FakePrometheus(shifted))
    gone = case.server.maps.pop("fraud-reference")

    case.round(100.1)
    assert case.report.conditions["Drifted"].reason == "ReferenceMissing"
    assert (
        "ConfigMap fraud-reference does not exist in namespace shop"
        in (case.report.drift["message"])
    )
    case.server.maps["fraud-reference"] = gone
    case.round(100.2)
    assert case.report.conditions["Drifted"].reason == "Starting"
    case.round(101.01)
    assert case.report.drift["state"] == "Steady"


def test_where_the_router_copies_nothing_the_collector_is_not_looked_for() -> None:
    case = Case(FakePrometheus(lambda hour: Counted()))

    case.round(100.1)
    case.round(101.01)

    assert case.report.conditions["Drifted"].reason == "NoCopies"
    assert "needs spec.traffic.router: envoy" in case.report.drift["message"]


def test_a_reference_that_was_edited_is_refused() -> None:
    case = Case(FakePrometheus(shifted))
    data = case.server.maps["fraud-reference"]["data"]
    document = json.loads(data["reference.json"])
    document["features"][0]["counts"][5] += 1
    data["reference.json"] = json.dumps(document)

    case.round(100.1)

    assert case.report.conditions["Drifted"].reason == "ReferenceInvalid"
    assert "it was edited" in case.report.drift["message"]


def test_a_window_without_data_is_passed_over() -> None:
    case = Case(FakePrometheus(lambda hour: traffic(hour) if hour != 102 else Counted()))

    for hour in range(100, 104):
        case.round(hour + 0.01)

    assert [one.state for one in case.known[0].past] == ["Steady", "NoData", "Steady"]


def test_memory_that_was_damaged_begins_anew_where_it_stood() -> None:
    case = Case(FakePrometheus(shifted))
    for hour in range(100, 103):
        case.round(hour + 0.01)
    case.server.maps["fraud-drift"]["binaryData"] = {"state.json.zlib": "AAAA"}
    case.restart()

    case.round(103.01)

    assert case.prometheus is not None
    assert case.prometheus.asked == [101, 102, 103]
    assert case.known[0].last_end == 103 * HOUR


def test_a_config_map_of_somebody_else_is_left_alone_and_named() -> None:
    case = Case(FakePrometheus(shifted))
    case.server.add({"metadata": {"name": "fraud-drift", "namespace": "shop"}, "data": {}})

    case.round(100.1)

    assert case.server.written == []
    assert case.events.told == [
        "ConfigMap fraud-drift exists and is not ours, so the data is not judged: remove it"
    ]


def test_another_operator_that_was_faster_wins() -> None:
    case = Case(FakePrometheus(shifted))
    case.round(100.01)
    theirs = case.server.add(case.server.maps["fraud-drift"])

    case.round(101.01)

    assert case.server.maps["fraud-drift"] == theirs
    case.round(101.02)
    assert case.known[0].last_end == 101 * HOUR


def test_a_deployment_whose_spec_cannot_be_read_does_not_stop_the_others() -> None:
    case = Case(FakePrometheus(shifted))
    broken = model("broken", 6, uid="u2")
    broken["spec"]["monitoring"] = {"window": "never"}
    case.store.put(kinds.MODEL_DEPLOYMENT, broken)

    case.round(100.1)

    assert case.server.written == ["fraud-drift"]


def test_a_child_of_a_deployment_that_was_deleted_before_is_not_taken_over() -> None:
    case = Case(FakePrometheus(shifted))
    old = child(kinds.CONFIG_MAP, "fraud-drift", 50, owner="another")
    case.store.put(kinds.CONFIG_MAP, old)

    case.round(100.1)

    assert case.server.maps["fraud-drift"]["metadata"]["ownerReferences"][0]["uid"] == "u1"


def test_metrics_tell_the_state_and_go_with_the_deployment() -> None:
    case = Case(FakePrometheus(shifted))
    for hour in range(100, 112):
        case.round(hour + 0.01)

    text = case.metrics()
    labels = 'deployment="fraud",namespace="shop"'
    assert f"mooring_drift_alarm{{{labels}}} 1.0" in text
    assert f'mooring_drift_features{{{labels},state="Drifted"}} 1.0' in text
    assert 'mooring_drift_windows_total{result="judged"} 11.0' in text
    resource = case.store.get(kinds.MODEL_DEPLOYMENT, "shop", "fraud")
    assert resource is not None
    case.store.remove(kinds.MODEL_DEPLOYMENT, resource, gone=True)
    case.round(112.01)
    assert 'deployment="fraud"' not in case.metrics()


def test_seasons_are_read_from_the_same_hours_of_earlier_days() -> None:
    monitoring = raw_spec()
    monitoring["reference"]["seasonal"] = {"offset": "24h", "weeks": 1}
    case = Case(FakePrometheus(lambda hour: traffic(hour, shift=0.5)), monitoring)

    case.round(100.01)
    case.round(101.01)

    assert case.prometheus is not None
    assert case.prometheus.asked == [101, 76, 77, 78]
    assert case.report.drift["state"] == "Steady"


def test_a_retrained_revision_is_compared_with_the_traffic_after_the_change() -> None:
    # An hour whose counts cannot be told apart is left out of the base.
    case = Case(FakePrometheus(lambda hour: replace(shifted(hour), gap=hour == 109)))
    for hour in range(100, 111):
        case.round(hour + 0.01)
    assert case.report.drift["state"] == "Drifted"
    resource = case.store.get(kinds.MODEL_DEPLOYMENT, "shop", "fraud")
    assert resource is not None
    meta = {**resource["metadata"], "resourceVersion": "900"}
    status = {"stable": {"revision": "new"}}
    case.store.put(kinds.MODEL_DEPLOYMENT, {**resource, "metadata": meta, "status": status})
    record = child(kinds.CONTROLLER_REVISION, "fraud-new", 901)
    record["metadata"]["annotations"] = {"mooring.dev/adopted": "{}"}
    case.store.put(kinds.CONTROLLER_REVISION, record)

    for hour in range(111, 115):
        case.round(hour + 0.01)

    assert case.known[0].base is not None
    assert (case.known[0].base.start, case.known[0].base.end) == (105 * HOUR, 110 * HOUR)
    assert sum(case.known[0].base.counts["amount"]) == 4 * ROWS
    assert case.report.drift["state"] == "Steady"
    assert case.report.facts is not None
    assert not case.report.facts.drifted


def test_a_season_that_ends_is_judged_as_a_whole() -> None:
    monitoring = raw_spec()
    monitoring["reference"]["seasonal"] = {"offset": "24h", "weeks": 1}
    case = Case(FakePrometheus(traffic), monitoring)

    case.round(119.01)
    case.round(120.01)

    assert case.prometheus is not None
    assert len(case.prometheus.asked) == 1 + 3 + 24
    assert case.known[0].anchor.last_end == 120 * HOUR


def test_a_season_whose_last_windows_show_nothing_is_judged_with_the_next_one_and_once() -> None:
    monitoring = raw_spec()
    monitoring["reference"]["seasonal"] = {"offset": "24h", "weeks": 1}
    case = Case(
        FakePrometheus(lambda hour: Counted(scrapes=240) if 115 < hour < 123 else traffic(hour)),
        monitoring,
    )
    for hour in range(113, 123):
        case.round(hour + 0.01)
    assert not case.known[0].anchor.features
    assert case.prometheus is not None
    assert case.prometheus.asked.count(120) == 1

    case.round(123.01)
    case.restart()
    case.round(124.01)

    assert case.known[0].anchor.last_end == 120 * HOUR
    assert case.prometheus.asked.count(120) == 2  # as a window, and in its season


def test_metrics_tell_after_a_restart_what_was_judged_before() -> None:
    case = Case(FakePrometheus(shifted))
    for hour in range(100, 112):
        case.round(hour + 0.01)

    case.restart()
    case.round(111.5)

    assert 'mooring_drift_alarm{deployment="fraud",namespace="shop"} 1.0' in case.metrics()
