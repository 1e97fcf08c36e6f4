"""Rollouts by predictionShift: measured by the collector, decided as by any other metric."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from typing import Any

import numpy as np
import pytest
from tests.core.judge.test_shift import cells
from tests.core.test_evidence import MEASURING
from tests.core.test_monitoring import MONITORING
from tests.core.test_steps import run, start
from tests.core.world import World
from tests.engine.test_evidence import START, examination

from mooring.core.answers import NoAnswer, Reason
from mooring.core.judge import Analysis, Metric, PredictionShift
from mooring.core.judge.shift import SETTLE, WINDOW, OutputWindow
from mooring.core.router_counters import ScrapeLabels
from mooring.core.telemetry import Counted, Part, Watched, query
from mooring.core.tribunal import Case, Measured, Remembered, weigh, window_due
from mooring.engine.predictions import read_predictions
from mooring.engine.queue import Key

SHIFT = {"name": "p", "predictionShift": {"maxPSI": 0.1}}
STEPS: list[dict[str, Any]] = [{"weight": 10, "duration": "30m"}, {"weight": 50, "duration": "1h"}]


def judged(**spec: Any) -> tuple[World, str]:
    world = World.with_spec(
        replicas=2,
        traffic={"router": "envoy"},
        rollout={"progressDeadline": "10m", "revisionHistoryLimit": 10, "steps": STEPS},
        analysis={"metrics": [SHIFT]},
        **spec,
    )
    world.settings = MEASURING
    world.serve()
    candidate = start(world)
    run(world)
    return world, candidate


def watch(world: World, shift: float, ticks: int = 120) -> None:
    """A look every other minute; windows of 3,000 rows, of which the candidate has its share."""
    random = np.random.default_rng(3)
    remembered: Remembered | None = None
    for _ in range(ticks):
        world.wait(minutes=2)
        for revision in world.revisions():
            world.run_pods(revision)
        wanted = world.examination
        if wanted is not None:
            window = None
            end = window_due(wanted, remembered, world.now)
            if end is not None:
                ours = int(30 * wanted.weights.candidate)
                window = OutputWindow(
                    end,
                    {"score": cells(random.normal(shift, 1, ours))},
                    {"score": cells(random.normal(0, 1, 3000 - ours))},
                )
            case = Case(wanted, Measured(outputs=window), remembered)
            ((world.evidence, remembered),) = weigh([case], world.now)
        world.follow()
        if "candidate" not in world.status:
            break
    world.settle(40)


def test_predictions_that_shift_roll_the_candidate_back_and_say_how_far() -> None:
    world, _ = judged(monitoring=MONITORING)
    assert world.reason("Stalled") == ""
    watch(world, 1.0)
    found = world.condition("RolledBack")
    assert found["reason"] == "AnalysisFailed"
    assert "PSI is" in found["message"]
    (metric,) = world.status["analysis"]["metrics"]
    assert metric["candidate"]["value"] > 0.1
    assert metric["guaranteed"] is True


def test_predictions_that_stay_promote_it() -> None:
    world, candidate = judged(monitoring=MONITORING)
    watch(world, 0.0)
    assert world.status["stable"]["revision"] == candidate


def test_without_monitoring_nobody_counts_predictions_and_the_gap_says_so() -> None:
    world, _ = judged()
    found = world.condition("Stalled")
    assert found["reason"] == "NotMeasured"
    assert "set spec.monitoring and use router envoy" in found["message"]


def test_evidence_goes_on_from_status_after_a_restart() -> None:
    world, _ = judged(monitoring=MONITORING)
    watch(world, 0.0, ticks=10)
    assert world.examination is not None
    before = window_due(world.examination, None, world.now)
    fresh = world.status["analysis"]["metrics"][0]["samples"]
    watch(world, 0.0, ticks=1)
    assert world.status["analysis"]["metrics"][0]["samples"] >= fresh > 0
    assert before is None or before > world.now.timestamp() - 2 * WINDOW - SETTLE


# reading ------------------------------------------------------------------------------------------


def wanted(name: str) -> Any:
    analysis = Analysis((Metric("p", PredictionShift(0.1)),), tick=10.0)
    return examination(name, analysis=analysis)


@pytest.mark.parametrize(
    ("answer", "rows"),
    [
        (Counted(outputs={"g": {("new", "y"): {1: 5.0}, ("old", "y"): {1: 9.0}}}, scrapes=3), 5.0),
        (Counted(outputs={"g": {("new", "y"): {1: 5.0}}}, scrapes=3, gap=True), 0.0),
        (Counted(), None),
        (NoAnswer(Reason.TIMEOUT, "late"), None),
    ],
)
def test_rollouts_whose_windows_end_together_are_read_at_once(
    monkeypatch: pytest.MonkeyPatch, answer: Counted | NoAnswer, rows: float | None
) -> None:
    asked = []

    async def read_window(_: object, watched: Any, start: float, end: float, *__: object) -> Any:
        asked.append((start, end))
        return {one.key: answer for one in watched}

    monkeypatch.setattr("mooring.engine.predictions.read_window", read_window)
    keys = {Key("shop", name): wanted(name) for name in ("a", "b")}
    now = datetime.fromtimestamp(START.timestamp() + WINDOW + SETTLE, UTC)
    found = asyncio.run(read_predictions(None, keys, {}, now, ScrapeLabels()))  # type: ignore[arg-type]
    assert asked == [(START.timestamp(), START.timestamp() + WINDOW)]
    if rows is None:
        assert found == {}, "asked for again at the next tick"
    else:
        assert {sum(one.candidate.get("y", {}).values()) for one in found.values()} == {rows}


def test_only_answers_are_read_of_the_collector() -> None:
    part = Part(0.0, WINDOW, WINDOW)
    assert "feature_rows" not in query([Watched("shop", "a", answers=True)], part)
    assert "feature_rows" in query([Watched("shop", "a")], part)
