"""How what is known about the data comes into status, conditions and Events."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from tests.core.world import World

from mooring.core import kinds
from mooring.core.conditions import Finding
from mooring.core.kinds import Ref
from mooring.core.monitoring import REPORT_KEY, DriftFacts, Report, facts
from mooring.core.plan import Plan, decide
from mooring.core.render.metadata import manifest

MONITORING: dict[str, Any] = {"reference": {"configMap": "fraud-reference"}}
STEADY = Report(
    {"state": "Steady", "message": "none of 3 features drifted"},
    {
        "DataHealthy": Finding("AsExpected", "no expectation is broken"),
        "Drifted": Finding("Steady", "none of 3 features drifted", "False"),
    },
    DriftFacts(drifted=False, healthy=True, window_end=datetime(2026, 1, 1, tzinfo=UTC)),
)
DRIFTED = Report(
    {"state": "Drifted", "message": "1 of 3 features drifted: amount (PSI 0.23)"},
    {
        "DataHealthy": Finding("AsExpected", "no expectation is broken"),
        "Drifted": Finding("Drifted", "1 of 3 features drifted: amount (PSI 0.23)"),
    },
    DriftFacts(drifted=True, healthy=True, features=("amount",), episode=7),
)


def serving(**changes: Any) -> World:
    world = World.with_spec(**changes)
    world.settle()
    return world


def with_report(world: World, report: Report | str) -> None:
    text = report if isinstance(report, str) else report.to_text()
    child = manifest(
        kinds.CONFIG_MAP, "fraud-drift", namespace="shop", deployment="fraud", uid="uid-1",
        data={REPORT_KEY: text},
    )  # fmt: skip
    child["metadata"]["uid"] = "uid-drift"
    child["metadata"]["resourceVersion"] = "999"
    world.children[Ref("ConfigMap", "fraud-drift")] = child


def decided(world: World) -> Plan:
    plan = decide(world.observed())
    if plan.status is not None:
        world.resource["status"] = plan.status
    return plan


def condition(plan: Plan, kind: str) -> dict[str, Any]:
    assert plan.status is not None
    (found,) = [one for one in plan.status["conditions"] if one["type"] == kind]
    return dict(found)


def reasons(plan: Plan) -> list[str]:
    return [event.reason for event in plan.events]


def test_without_monitoring_nothing_is_said_and_the_config_map_goes() -> None:
    world = serving()
    with_report(world, STEADY)

    plan = decided(world)

    assert plan.status is not None
    assert "drift" not in plan.status
    assert {one["type"] for one in plan.status["conditions"]}.isdisjoint({"Drifted", "DataHealthy"})
    assert "fraud-drift" in [one.ref.name for one in plan.delete]


def test_with_monitoring_the_config_map_stays_and_makes_no_revision() -> None:
    world = serving()
    before = {ref for ref in world.children if ref.kind == "ControllerRevision"}
    world.edit(monitoring=MONITORING)
    with_report(world, STEADY)

    plan = decided(world)

    assert "fraud-drift" not in [one.ref.name for one in plan.delete]
    made = {m["metadata"]["name"] for m in plan.apply if m["kind"] == "ControllerRevision"}
    assert made == {ref.name for ref in before}
    assert plan.status is not None
    assert plan.status["drift"] == STEADY.drift


def test_before_the_first_window_nothing_is_known() -> None:
    world = serving(monitoring=MONITORING)

    plan = decided(world)

    assert condition(plan, "Drifted")["status"] == "Unknown"
    assert condition(plan, "DataHealthy")["status"] == "Unknown"
    assert facts(world.observed()) is None


def test_a_config_map_that_somebody_damaged_is_as_good_as_none() -> None:
    for text in ("{", "[]", '{"status": 1}', '{"status": {}, "conditions": {"Drifted": 1}}'):
        world = serving(monitoring=MONITORING)
        with_report(world, text)

        assert condition(decided(world), "Drifted")["status"] == "Unknown"


def test_drift_that_begins_and_ends_is_told_once_each() -> None:
    world = serving(monitoring=MONITORING)
    told = []
    for report in (STEADY, STEADY, DRIFTED, DRIFTED, STEADY, STEADY):
        with_report(world, report)
        told += [reason for reason in reasons(decided(world)) if "Drift" in reason]

    assert told == ["Drifted", "DriftEnded"]


def test_a_score_that_means_something_else_is_told_once_also_amid_a_drift_of_the_data() -> None:
    conditions = {**DRIFTED.conditions, "Drifted": Finding("ConceptDrifted", "accuracy is .8")}
    concept = replace(DRIFTED, conditions=conditions)
    for reports, events in (
        ((STEADY, concept, concept, STEADY), ["ConceptDrifted", "DriftEnded"]),
        ((DRIFTED, concept, concept, DRIFTED), ["Drifted", "ConceptDrifted"]),
    ):
        world = serving(monitoring=MONITORING)
        told = []
        for report in reports:
            with_report(world, report)
            told += [reason for reason in reasons(decided(world)) if "Drift" in reason]
        assert told == events


def test_data_that_breaks_and_is_mended_is_told_once_each() -> None:
    broken = replace(
        STEADY,
        conditions={
            **STEADY.conditions,
            "DataHealthy": Finding("Missing", "50.0% of amount is missing", "False"),
        },
    )
    world = serving(monitoring=MONITORING)
    told = []
    for report in (STEADY, broken, broken, STEADY):
        with_report(world, report)
        told += [event for event in decided(world).events if "Data" in event.reason]

    assert [event.reason for event in told] == ["DataUnhealthy", "DataHealthy"]
    assert told[0].message == "50.0% of amount is missing"


def test_what_keeps_data_from_being_judged_is_told_once() -> None:
    missing = Finding("ReferenceMissing", "ConfigMap x does not exist", "Unknown")
    unknown = Report({"state": "NoData"}, {"DataHealthy": missing, "Drifted": missing})
    world = serving(monitoring=MONITORING)
    told = []
    for _ in range(3):
        with_report(world, unknown)
        told += [reason for reason in reasons(decided(world)) if "Reference" in reason]

    assert told == ["ReferenceMissing"]


def test_retraining_reads_the_facts() -> None:
    world = serving(monitoring=MONITORING)
    with_report(world, DRIFTED)

    assert facts(world.observed()) == DRIFTED.facts


def test_facts_survive_being_written_down() -> None:
    whole = DriftFacts(
        drifted=True,
        since=datetime(2026, 1, 1, 3, tzinfo=UTC),
        change_point=datetime(2026, 1, 1, 1, tzinfo=UTC),
        features=("a", "score@abc"),
        healthy=True,
        unhealthy_windows=(
            (datetime(2026, 1, 1, 1, tzinfo=UTC), datetime(2026, 1, 1, 2, tzinfo=UTC)),
        ),
        episode=1767236400,
        window_end=datetime(2026, 1, 1, 4, tzinfo=UTC),
        message="x",
    )

    assert DriftFacts.from_json(whole.to_json()) == whole
