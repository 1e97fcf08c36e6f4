"""Labels in the operator: read with the window's counts, judged once, and shown as a metric."""

from __future__ import annotations

from dataclasses import replace

from prometheus_client import CollectorRegistry, generate_latest
from tests.core.drift.collected import raw_spec, reference_map, traffic
from tests.core.drift.labelled import flipped, labels, meant, reference
from tests.engine.drift_case import Case, FakePrometheus

from mooring.api.conditions import DRIFTED
from mooring.core.drift.reference import config_map
from mooring.core.monitoring import Report
from mooring.core.telemetry import Counted
from mooring.engine.drift_metrics import DriftMetrics


def turned(hour: int) -> Counted:
    meaning = flipped(0.2) if hour >= 110 else meant
    return replace(traffic(hour), outcomes=labels([hour, 21], 400, meaning))


def labelled_case() -> Case:
    case = Case(
        FakePrometheus(turned),
        raw_spec(groundTruth={"maturity": "2h"}),
    )
    case.server.maps.clear()
    name = reference_map()["metadata"]["name"]
    case.server.add(config_map(reference(), name, "shop"))
    return case


def test_the_operator_comes_to_the_same_whenever_it_is_killed() -> None:
    steady, killed = labelled_case(), labelled_case()
    for hour in range(100, 118):
        steady.round(hour + 0.01)
        killed.round(hour + 0.01)
        killed.round(hour + 0.02)
        killed.restart()

    assert killed.known == steady.known
    assert steady.report.conditions[DRIFTED].reason == "ConceptDrifted"
    labels_ = 'deployment="fraud",namespace="shop"'
    shown = steady.metrics()
    assert f"mooring_drift_alarm{{{labels_}}} 1.0" in shown
    (line,) = (
        one for one in shown.splitlines()
        if one.startswith(f"mooring_drift_concept_evidence_ratio{{{labels_}}}")
    )  # fmt: skip
    assert float(line.split()[-1]) > 0.9


def test_the_metric_of_labels_goes_with_them_and_with_the_deployment() -> None:
    registry = CollectorRegistry()
    metrics = DriftMetrics(registry)
    name = "mooring_drift_concept_evidence_ratio{"
    known = Report({"state": "Steady", "concept": {"score": 2.0, "threshold": 8.0}})
    shown = f'{name}deployment="fraud",namespace="shop"}} 0.25'
    metrics.report("shop", "fraud", 1.0, known)
    assert shown in text_of(registry)
    metrics.report("shop", "fraud", 2.0, Report({"state": "Steady"}))
    assert name not in text_of(registry)
    metrics.report("shop", "fraud", 3.0, known)
    assert shown in text_of(registry)
    metrics.keep(set())
    assert name not in text_of(registry)


def text_of(registry: CollectorRegistry) -> str:
    return generate_latest(registry).decode()


def test_nothing_is_shown_where_no_label_is_judged() -> None:
    case = Case(FakePrometheus(traffic))
    for hour in range(100, 103):
        case.round(hour + 0.01)

    assert "mooring_drift_concept_evidence_ratio{" not in case.metrics()
