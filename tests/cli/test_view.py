"""What ``mooring get`` draws, character by character.

Write the golden files anew by ``pytest tests/golden tests/cli/test_view.py --update-golden``.
"""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from tests.cli import objects
from tests.cli.objects import NOW, at, condition

from mooring.cli.diagnosis import diagnose
from mooring.cli.estimates import interval, readings, seconds
from mooring.cli.line import line
from mooring.cli.snapshot import Snapshot
from mooring.cli.view import Scene, tree
from mooring.core.rollout import RULES

GOLDEN = Path(__file__).parent / "golden"


def drawn(snapshot: Snapshot, width: int = 80, *, colour: bool = False) -> str:
    out = Console(
        file=io.StringIO(), width=width, no_color=not colour, force_terminal=colour,
        color_system="standard" if colour else None, highlight=False, legacy_windows=False,
    )  # fmt: skip
    out.print(tree(Scene(snapshot, NOW, width)))
    file = out.file
    assert isinstance(file, io.StringIO)
    return "".join(row.rstrip() + "\n" for row in file.getvalue().splitlines())


def paused() -> Snapshot:
    status = objects.rolling_out()
    status["phase"] = "Paused"
    status["rollout"] = {
        "stage": "Paused", "step": 5, "steps": 6, "doing": "pause", "since": at(-90),
        "waitingFor": "somebody to say promote", "next": "step 6: weight 50 for 30m",
    }  # fmt: skip
    return Snapshot(objects.deployment(status), objects.all_pods())


def scaling() -> Snapshot:
    status = objects.rolling_out()
    status["candidate"] = objects.candidate(weight=0, measuredWeight=None)
    status["rollout"] = {
        "stage": "Scaling", "step": 1, "steps": 6, "doing": "weight 5 for 10m", "deadline": at(4),
        "waitingFor": "the step's pods", "maxAvailable": 1,
    }  # fmt: skip
    status["router"] = {
        "kind": "envoy", "version": "8a", "taken": "7f", "routers": {"desired": 2, "ready": 1},
        "message": "fraud-router-0: weighted cluster bkdzxfpnlt is unknown",
    }  # fmt: skip
    routers = (objects.pod("router", 0), objects.pod("router", 1, ready=False))
    return Snapshot(objects.deployment(status), (*objects.all_pods()[:5], *routers))


def baking() -> Snapshot:
    status = objects.serving(
        phase="Baking",
        stable=objects.candidate(weight=95, replicas={"desired": 3, "ready": 3}),
        previous=objects.stable(weight=5),
        rollout={"stage": "Baking", "since": at(-10), "until": at(20), "next": "the previous ends"},
    )
    pods = [objects.pod(objects.STABLE, n) for n in range(12)]
    pods += [objects.pod(objects.OLD, 0)]
    pods[-1]["metadata"]["deletionTimestamp"] = at(0)
    return Snapshot(objects.deployment(status), tuple(pods))


def rolled_back() -> Snapshot:
    status = objects.serving(
        conditions=[
            condition("Ready", "True", "Serving", objects.SERVING),
            condition("Stalled", "True", "RevisionRejected", "revision bkdzxfpnlt was rejected"),
            condition("RolledBack", "True", "ErrorRate", "errors rose from 1 % to 9 %"),
        ],
        phase="Stalled",
        message="revision bkdzxfpnlt was rejected",
        rejectedRevisions=[
            {"revision": f"r{n}", "reason": "ErrorRate", "message": "errors rose", "at": at(-n)}
            for n in range(5)
        ],
        lastAction={"verb": "undo", "revision": "x", "result": "Refused", "message": "too late"},
    )
    return Snapshot(objects.deployment(status), pods_unknown="you may not list pods here")


def no_data() -> Snapshot:
    analysis = objects.evidence(
        verdict="NoData", observedAt=at(-4), scrapeInterval="30s",
        message="no router pod gave a fresh sample for more than three ticks",
        blocked=["a pod of the candidate restarted"],
    )  # fmt: skip
    for metric in analysis["metrics"][:2]:
        metric.update(verdict="NoData", reason="no router pod gave a fresh sample")
        del metric["evidence"]
    return Snapshot(objects.judged(**analysis))


def judged_in_its_bake() -> Snapshot:
    failed = {
        "name": "errors", "verdict": "Fail", "guaranteed": True, "evidence": 1.32, "pValue": 0.0004,
        "reason": "31.00% of the attempts fail against 0.50% on stable, over 400 requests",
        "candidate": {"value": 0.31, "low": 0.22, "high": 0.41},
        "stable": {"value": 0.005}, "samples": 400, "stableSamples": 1, "decidedAt": at(-0.1),
    }  # fmt: skip
    resource = objects.judged(
        baking().status,
        phase="Bake", verdict="Fail", message=f"errors: {failed['reason']}", metrics=[failed],
    )  # fmt: skip
    return Snapshot(resource)


def judged_before() -> Snapshot:
    analysis = objects.evidence(verdict="Pass", message="every metric passes", observedAt=at(-90))
    analysis["metrics"] = analysis["metrics"][:1]
    del analysis["state"]
    return Snapshot(objects.deployment(objects.serving(analysis=analysis)))


def retraining(**found: Any) -> Snapshot:
    why = "RetrainingRequest fraud-rr-dk was made for this episode of Drift"
    status = objects.serving(retraining={"request": "fraud-rr-dk", "message": why, **found})
    if found.get("outcome") == "Adopted":
        revision = {"request": "fraud-rr-dk", "revision": objects.STABLE, "uri": "s3://models/new"}
        status["adoptedModel"] = revision
    return Snapshot(objects.deployment(status))


CASES = {
    "retraining": retraining(inFlight=1),
    "retrained": retraining(inFlight=0, outcome="Adopted"),
    "judged-before": judged_before(),
    "judged": Snapshot(objects.judged()),
    "judged-no-data": no_data(),
    "judged-bake": judged_in_its_bake(),
    "rolling-out": Snapshot(objects.deployment(objects.rolling_out()), objects.all_pods()),
    "paused": paused(),
    "scaling": scaling(),
    "baking": baking(),
    "rolled-back": rolled_back(),
    "serving": Snapshot(objects.deployment(objects.serving())),
    "stalled": Snapshot(objects.deployment(objects.stalled(), "churn")),
    "untouched": Snapshot(objects.deployment()),
    "behind": Snapshot(objects.deployment(objects.serving(), generation=4)),
}


@pytest.mark.parametrize("width", [80, 140])
@pytest.mark.parametrize("case", CASES)
def test_the_tree_is_drawn_as_the_golden_file_has_it(
    case: str, width: int, request: pytest.FixtureRequest
) -> None:
    golden = GOLDEN / f"{case}-{width}.txt"
    found = drawn(CASES[case], width)
    if request.config.getoption("--update-golden", default=False):
        golden.write_text(found)
    assert found == golden.read_text()
    assert max(len(row) for row in found.splitlines()) <= width


@pytest.mark.parametrize("case", CASES)
def test_a_log_gets_the_same_in_one_line(case: str) -> None:
    found = line(CASES[case])
    assert "\n" not in found
    assert found.split(";")[0] == (CASES[case].status.get("phase") or "not looked at yet")


def test_the_line_of_a_rollout_tells_weights_pods_step_and_what_it_waits_for() -> None:
    assert line(CASES["rolling-out"]) == (
        "RollingOut; stable hcqmvwrtzb 75% 3/3; candidate bkdzxfpnlt 25% 1/2; step 2 of 6 Waiting: "
        "weight 25 for 20m; 25 % of the traffic goes to revision bkdzxfpnlt; waits for the step's "
        "time to be over"
    )


def test_a_pod_cannot_write_to_the_terminal_of_who_looks() -> None:
    broken = objects.broken_pod(words="bad\x1b]0;owned\x07 [red]model[/red]")
    found = drawn(Snapshot(objects.deployment(objects.rolling_out()), (broken,)), 200)
    assert "\x1b" not in found
    assert "bad�]0;owned� [red]model[/red]" in found


@pytest.mark.parametrize(
    ("field", "value"),
    [("rollout", {"waitingFor": "pods"}), ("router", {}), ("router", {"kind": "replicas"}),
     ("stable", {"revision": "x"}), ("lastAction", {"verb": "retry"}), ("conditions", None),
     ("rejectedRevisions", [{"revision": "x"}]), ("rollout", {"step": 1}),
     ("analysis", {"revision": "x", "verdict": "Pass"}),
     ("analysis", {"revision": "x", "metrics": [{"name": "gone", "verdict": "Later"}]}),
     ("analysis", {"metrics": [{"name": "p95", "candidate": {"low": 600}, "ratio": {}}]})],
)  # fmt: skip
def test_a_status_that_an_older_operator_fills_less_of_is_drawn_all_the_same(
    field: str, value: Any
) -> None:
    status = {**objects.rolling_out(), field: value}
    snapshot = Snapshot(objects.deployment(status), objects.all_pods())
    assert drawn(snapshot).startswith("fraud in shop  RollingOut\n")
    assert line(snapshot).startswith("RollingOut; ")


def test_trouble_is_red_and_what_is_ready_green() -> None:
    found = drawn(CASES["rolling-out"], 200, colour=True)
    assert "\x1b[32mready\x1b[0m" in found
    assert "\x1b[31m, ServerFailed\x1b[0m" in found


def test_the_line_of_a_judged_rollout_tells_the_verdict_and_how_many_metrics_pass() -> None:
    assert "; analysis Inconclusive (1 of 3 metrics pass); " in line(CASES["judged"])
    assert "; analysis Fail" in line(CASES["judged-bake"])


def test_what_decided_the_last_rollout_is_told_as_the_past() -> None:
    past = CASES["judged-before"]
    assert "last analysis Pass  of bkdzxfpnlt  90m ago\n" in drawn(past)
    assert "analysis" not in line(past)
    assert [f.about for f in diagnose(past, [], NOW).findings] == []


def test_a_verdict_has_its_colour_and_the_bar_turns_red_on_its_way() -> None:
    found = drawn(CASES["judged"], 200, colour=True)
    assert "\x1b[32mPass\x1b[0m" in found
    assert "\x1b[33mInconclusive\x1b[0m" in found
    assert "\x1b[31m" + "━" * 9 in found


def test_what_is_judged_in_the_bake_is_called_what_it_is() -> None:
    found = drawn(CASES["judged-bake"])
    assert "promoted" in found
    assert "previous   0.5 % of 1 request\n" in found


@pytest.mark.parametrize(
    ("ends", "shown"),
    [
        ({"value": 0.2, "low": 0.1, "high": 0.4}, "200 ms (100 ms to 400 ms)"),
        ({"value": 0.2, "low": 0.1}, "200 ms (at least 100 ms)"),
        ({"value": 1.5, "high": 2}, "1.5 s (0 ms to 2 s)"),
        ({"low": 600}, "more than 600 s"),
        ({"value": 0.2}, "200 ms"),
        ({}, ""),
        (None, ""),
    ],
)
def test_an_end_that_nothing_bounds_is_not_made_up(
    ends: dict[str, float] | None, shown: str
) -> None:
    assert interval(ends, seconds) == shown


def test_metrics_stand_in_the_order_of_the_spec() -> None:
    metrics = list(reversed(objects.evidence()["metrics"]))
    found = readings(Snapshot(objects.judged(metrics=metrics)))
    assert [reading.name for reading in found] == ["errors", "p95", "approved"]


def test_the_rollouts_shown_here_wait_for_what_the_operator_says() -> None:
    said = {rule.awaits for rule in RULES}
    shown = {found.part("rollout").get("waitingFor", "") for found in CASES.values()}
    assert shown - said <= {"pods"}
