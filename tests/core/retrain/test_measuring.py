"""What is asked of Prometheus about labels, when, and what a trigger makes of the answer."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from tests.core.retrain.setting import only_request, retraining, serving

from mooring.api import MonitoringSpec, RetrainingSpec
from mooring.core.answers import Keyed, NoAnswer
from mooring.core.retrain.facts import PerformanceFacts
from mooring.core.retrain.measuring import Labels, Measurement, measurement, query, read
from mooring.core.router_counters import ScrapeLabels

ACCURACY: dict[str, Any] = {"performance": {"metric": "accuracy", "below": 0.9}}
MONITORING = {"reference": {"configMap": "fraud-reference"}}
LABELS = retraining(ACCURACY)
BAD = PerformanceFacts(0.8, 0.7, 0.85, 900, "labels for 12% of the predictions")


def asked(spec: dict[str, Any] | None, monitoring: dict[str, Any] | None) -> Measurement | None:
    return measurement(
        RetrainingSpec.model_validate(spec) if spec is not None else None,
        MonitoringSpec.model_validate(monitoring) if monitoring is not None else None,
        "abc", "shop", "fraud",
    )  # fmt: skip


@pytest.mark.parametrize(
    ("spec", "monitoring"),
    [(None, MONITORING), (LABELS, None), (retraining({"drift": {}}), MONITORING)],
)
def test_nothing_is_measured_that_no_trigger_asks_for_or_nobody_counts(
    spec: dict[str, Any] | None, monitoring: dict[str, Any] | None
) -> None:
    assert asked(spec, monitoring) is None


@pytest.mark.parametrize(
    ("window", "span"),
    [("1h", timedelta(days=1)), ("10s", timedelta(minutes=10)), ("168h", timedelta(days=7))],
)
def test_labels_of_twenty_four_windows_are_looked_at(window: str, span: timedelta) -> None:
    found = asked(LABELS, {**MONITORING, "window": window})
    assert found == Measurement("abc", "fraud-reference", span, "shop", "fraud")


def test_the_query_reads_one_revision_of_one_deployment() -> None:
    what = Measurement("abc", "r", timedelta(hours=1), "shop", "fraud.v2")
    text = query(what, datetime(2026, 1, 1, tzinfo=UTC), ScrapeLabels("ns", "kubernetes_pod"))
    assert 'ns="shop",kubernetes_pod=~"fraud[.]v2-collector-.+",revision="abc"' in text
    assert "[3600s] @ 1767225600.000" in text
    assert "[3600s] @ 1767222000.000" in text
    assert "increase(" not in text


def test_counts_of_other_grids_and_odd_answers_are_left_out() -> None:
    keyed = Keyed(
        {
            "output_rows|g|3|score|": 10.0,
            "outcomes|g|3|score|1": 4.0,
            "outcomes|other|3|score|1": 9.0,
            "outcomes|g|x|score|1": 9.0,
            "outcomes|g|3|a|b|0": 2.0,
            "outcomes": 9.0,
            "labelled_rows|g|3|score|": 4.0,
            "absolute_errors|g|3|score|": 1.5,
            "absolute_errors|other|3|score|": 9.0,
        },
        None,
        (),
    )
    assert read(keyed, "g") == Labels(
        {("score", 3): 10.0},
        {("score", 3, "1"): 4.0, ("a|b", 3, "0"): 2.0},
        {("score", 3, "labelled_rows"): 4.0, ("score", 3, "absolute_errors"): 1.5},
    )
    assert isinstance(read(replace(keyed, warnings=("partial",)), "g"), NoAnswer)


def test_a_decision_asks_for_the_measurement_and_looks_again() -> None:
    world = serving(LABELS, monitoring=MONITORING, traffic={"router": "envoy"})
    plan = world.round()
    assert plan.measure is not None
    assert plan.measure.revision == world.status["stable"]["revision"]
    assert plan.look_again is not None
    assert plan.look_again <= world.now + timedelta(minutes=5)


def test_a_bad_model_is_asked_for_once_and_the_request_says_how_bad() -> None:
    world = serving(LABELS)
    revision = world.status["stable"]["revision"]
    world.retraining = replace(
        world.retraining, performance={"accuracy": BAD}, performance_of=revision
    )
    world.settle()
    world.wait(days=3)
    world.settle()
    request = world.requests[only_request(world)]["spec"]
    assert request["trigger"]["message"] == (
        "accuracy is 0.8 (between 0.7 and 0.85, 900 samples; labels for 12% of the "
        "predictions), below 0.9"
    )
    assert request["evidence"][0]["samples"] == 900


def test_what_was_measured_of_another_revision_asks_for_nothing() -> None:
    world = serving(LABELS)
    world.retraining = replace(
        world.retraining, performance={"accuracy": BAD}, performance_of="another"
    )
    world.settle()
    assert not world.requests
    assert "not measured yet" in world.status["retraining"]["message"]


@pytest.mark.parametrize(
    ("metric", "words"),
    [
        ("accuracy", "no label has come"),
        ("f1", "use one of accuracy, precision, recall, auc, mae, rmse"),
    ],
)
def test_what_cannot_be_measured_is_said(metric: str, words: str) -> None:
    world = serving(retraining({"performance": {"metric": metric, "below": 0.9}}))
    revision = world.status["stable"]["revision"]
    world.retraining = replace(
        world.retraining, performance_of=revision, performance_problem="no label has come"
    )
    world.settle()
    assert not world.requests
    assert words in world.status["retraining"]["message"]
