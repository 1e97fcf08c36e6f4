"""Whoever trains: a Job from a template, a sink that is told, a pipeline; and what they bring."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from tests.core.retrain.setting import (
    JOB,
    TEMPLATE,
    V8,
    condition,
    drift,
    entries,
    job_ends,
    job_of,
    made,
    only_request,
    request_status,
    retraining,
    serving,
)
from tests.core.world import World

from mooring.core.kinds import Ref
from mooring.core.retrain.facts import SinkAnswer

SINK = {"sink": {"name": "pipelines"}}


def asking(action: dict[str, Any], **changes: Any) -> World:
    world = serving(retraining(action=action, **changes))
    drift(world)
    return world


def training() -> tuple[World, str]:
    world = asking(JOB)
    world.retraining = replace(world.retraining, templates={"train": TEMPLATE})
    world.settle()
    return world, only_request(world)


# a Job ----------------------------------------------------------------------------------------


def test_a_job_is_made_once_and_owned_by_its_request() -> None:
    world, name = training()
    assert made(world, "Job") == [name]
    assert made(world, "ConfigMap") == [name]
    job = job_of(world, name)
    assert job["metadata"]["ownerReferences"][0]["uid"] == f"uid-{name}"
    assert job["spec"]["backoffLimit"] == 2
    assert request_status(world, name)["jobName"] == name
    assert request_status(world, name)["phase"] == "Running"
    assert condition(world, name, "Dispatched") == ("True", "JobCreated")
    del world.made[Ref("Job", name)]
    world.retraining = replace(world.retraining, jobs={})
    world.settle()
    assert made(world, "Job") == []
    assert request_status(world, name)["phase"] == "Failed"
    assert "was deleted" in request_status(world, name)["message"]


def test_its_pods_are_told_everything_and_get_no_requests_of_the_model() -> None:
    world, name = training()
    template = job_of(world, name)["spec"]["template"]
    assert template["metadata"]["labels"] == {
        "team": "risk",
        "mooring.dev/retraining-request": name,
    }
    assert template["spec"]["restartPolicy"] == "Never"
    (container,) = template["spec"]["containers"]
    env = {v["name"]: v["value"] for v in container["env"]}
    assert env["MOORING_REQUEST"] == name
    assert env["MOORING_DEPLOYMENT"] == "fraud"
    assert env["MOORING_REVISION"] == world.status["stable"]["revision"]
    assert env["MOORING_WINDOW_START"] < env["MOORING_WINDOW_END"]
    assert env["A"] == "b"
    assert container["terminationMessagePolicy"] == "FallbackToLogsOnError"
    mounts = {m["mountPath"]: m for m in container["volumeMounts"]}
    assert mounts["/etc/mooring"]["readOnly"]
    told = json.loads(world.made[Ref("ConfigMap", name)]["data"]["request.json"])
    assert told["allowedPrefixes"] == ["s3://models/fraud/"]
    assert told["dataWindow"]["start"] == env["MOORING_WINDOW_START"]
    assert told["idempotencyKey"] == env["MOORING_IDEMPOTENCY_KEY"]


def test_a_template_that_does_not_exist_is_named_where_the_request_is() -> None:
    world = asking(JOB)
    world.retraining = replace(world.retraining, templates={"train": None})
    plan = world.settle()
    name = only_request(world)
    assert request_status(world, name)["message"] == (
        "PodTemplate train does not exist in namespace shop: create it, or correct "
        "spec.retraining.action.job.templateRef"
    )
    assert condition(world, name, "Dispatched") == ("False", "TemplateUnusable")
    assert plan.look_again is not None
    assert plan.look_again <= world.now + timedelta(seconds=30)
    world.retraining = replace(world.retraining, templates={"train": TEMPLATE})
    world.settle()
    assert made(world, "Job") == [name]


def test_a_template_without_containers_is_told_of() -> None:
    world = asking(JOB)
    world.retraining = replace(world.retraining, templates={"train": {"template": {}}})
    world.settle()
    assert "has no containers" in request_status(world, only_request(world))["message"]


def test_what_the_api_server_refuses_is_told_of() -> None:
    world = asking(JOB)
    name = None
    world.retraining = replace(world.retraining, templates={"train": None})
    world.settle()
    name = only_request(world)
    world.retraining = replace(
        world.retraining, templates={"train": TEMPLATE}, refused={name: "quota exceeded"}
    )
    plan = world.round()
    assert "quota exceeded" in request_status(world, name)["message"]
    assert plan.create != ()  # and it is tried again


@pytest.mark.parametrize(
    ("deadline", "ends"),
    [
        ("9999-12-31T23:59:59Z", "9999-12-31T23:59:59Z"),
        ("2026-01-01t02:00:00z", "2026-01-01T02:00:00Z"),
        ("2026-01-01T04:00:00+02:00", "2026-01-01T02:00:00Z"),
        ("9999-12-31T23:59:59-23:00", "2026-01-02T00:01:00Z"),
        ("0001-01-01T00:00:00+23:00", "2026-01-02T00:01:00Z"),
    ],
)
def test_any_deadline_that_the_api_takes_is_kept_or_counts_as_not_stated(
    deadline: str, ends: str
) -> None:
    """Seconds beyond 2³¹ overflow in Kubernetes, and the Job would fail as soon as it began."""
    world = serving(retraining(action=JOB))
    world.retraining = replace(world.retraining, templates={"train": TEMPLATE})
    world.request("by-hand", {"deploymentRef": {"name": "fraud"}, "deadline": deadline})
    world.settle()
    assert request_status(world, "by-hand")["phase"] == "Running"
    spec = job_of(world, "by-hand")["spec"]
    assert 0 < spec["activeDeadlineSeconds"] < 2**31
    env = {v["name"]: v["value"] for v in spec["template"]["spec"]["containers"][0]["env"]}
    assert env["MOORING_DEADLINE"] == ends


@pytest.mark.parametrize("kind", ["ConfigMap", "Job"])
def test_what_somebody_else_has_of_its_name_is_told_of_and_waited_for(kind: str) -> None:
    world = asking(JOB)
    world.retraining = replace(world.retraining, templates={"train": None})
    world.settle()
    name = only_request(world)
    world.retraining = replace(world.retraining, templates={"train": TEMPLATE}, taken={name: kind})
    plan = world.round()
    assert request_status(world, name)["message"] == (
        f"{kind} {name} belongs to somebody else, and the Job needs one of that name: "
        "remove it, or make a request of another name"
    )
    assert condition(world, name, "Dispatched") == ("False", "NameTaken")
    assert plan.look_again is not None
    assert plan.look_again <= world.now + timedelta(seconds=30)
    assert [manifest["kind"] for manifest in plan.create] == ["ConfigMap", "Job"]


def test_a_job_that_is_being_made_is_looked_for_soon_whatever_comes_of_it() -> None:
    """After a restart a refusal may change nothing that would bring another round."""
    world = asking(JOB)
    world.retraining = replace(world.retraining, templates={"train": TEMPLATE})
    for _ in range(10):
        plan = world.round()
        if any(manifest["kind"] == "Job" for manifest in plan.create):
            break
    assert plan.look_again is not None
    assert plan.look_again <= world.now + timedelta(seconds=30)


def test_the_last_words_of_its_pod_are_the_result() -> None:
    world, name = training()
    words = json.dumps({**V8, "metrics": {"accuracy": 0.93}})
    job_ends(world, name, f"epoch 9\n{words}")
    world.settle()
    status = request_status(world, name)
    assert status["phase"] == "Succeeded"
    assert status["result"] == {**V8, "metrics": {"accuracy": "0.93"}}
    assert world.status["candidate"]["modelUri"] == V8["uri"]


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ("", "the Job left no result"),
        ('{"uri": "s3://models/fraud/v8"}', "has no digest"),
        (json.dumps({**V8, "uri": "s3://elsewhere/v8"}), "none of the allowed prefixes"),
    ],
)
def test_a_job_without_a_result_that_may_be_served_has_failed(words: str, told: str) -> None:
    world, name = training()
    job_ends(world, name, words)
    world.settle()
    assert request_status(world, name)["phase"] == "Failed"
    assert told in request_status(world, name)["message"]
    assert [e.outcome for e in entries(world)] == ["Failed"]
    assert "candidate" not in world.status


def test_a_job_that_fails_leaves_its_last_words() -> None:
    world, name = training()
    job_ends(world, name, "MemoryError: 12 GiB", succeeded=False)
    world.settle()
    status = request_status(world, name)
    assert status["phase"] == "Failed"
    assert status["message"] == "the Job failed (BackoffLimitExceeded): MemoryError: 12 GiB"
    assert any("RetrainingFailed" in told for told in world.told)


# a pipeline -----------------------------------------------------------------------------------


def test_a_wrong_result_is_said_to_be_so_and_may_be_corrected() -> None:
    world = asking({"none": {}})
    world.settle()
    name = only_request(world)
    world.patch_request(name, phase="Running", result={**V8, "uri": "s3://models/fraud/../x"})
    world.settle()
    assert condition(world, name, "ResultAccepted") == ("False", "InvalidResult")
    assert "'..'" in request_status(world, name)["message"]
    assert "candidate" not in world.status
    world.patch_request(name, result=V8)
    world.settle()
    assert condition(world, name, "ResultAccepted") == ("True", "Valid")
    assert world.status["candidate"]["modelUri"] == V8["uri"]


def test_success_without_a_result_is_none() -> None:
    world = asking({"none": {}})
    world.settle()
    name = only_request(world)
    world.patch_request(name, phase="Succeeded")
    world.settle()
    assert request_status(world, name)["phase"] == "Running"


def test_without_a_result_by_the_deadline_it_has_failed() -> None:
    world = asking({"none": {}}, deadline="2h")
    plan = world.settle()
    name = only_request(world)
    assert plan.look_again == world.now + timedelta(hours=2)
    world.wait(hours=2)
    world.settle()
    assert request_status(world, name)["phase"] == "Failed"
    assert "no result by" in request_status(world, name)["message"]
    world.patch_request(name, result=V8)  # too late
    world.settle()
    assert "candidate" not in world.status


def test_what_a_pipeline_has_put_into_status_stays() -> None:
    world = asking({"none": {}})
    world.settle()
    name = only_request(world)
    own = {"type": "Queued", "status": "True", "reason": "Queued", "message": "m",
           "lastTransitionTime": "2026-01-01T00:00:00Z"}  # fmt: skip
    status = request_status(world, name)
    world.patch_request(name, conditions=[*status["conditions"], own], result=V8)
    world.settle()
    assert own in request_status(world, name)["conditions"]


# a sink ---------------------------------------------------------------------------------------


def told(world: World, problem: str = "") -> str:
    """Answers the delivery that is due; returns the event's id."""
    plan = world.round()
    (delivery,) = plan.deliver
    answer = SinkAnswer(world.now, delivery.attempt, problem, delivery.id)
    world.retraining = replace(world.retraining, answers={delivery.request: answer})
    world.settle()
    return delivery.id


def test_a_sink_is_told_until_it_takes_it_with_one_id() -> None:
    world = asking(SINK)
    world.retraining = replace(world.retraining, sinks=frozenset({"pipelines"}))
    world.settle()
    name = only_request(world)
    ids = set()
    for attempt in range(1, 6):
        ids.add(told(world, "answered 500"))
        assert request_status(world, name)["attempts"] == attempt
        assert condition(world, name, "Dispatched") == ("False", "DeliveryFailed")
        assert world.round().deliver == ()
        world.wait(minutes=15)
    ids.add(told(world))
    assert len(ids) == 1
    assert condition(world, name, "Dispatched") == ("True", "Delivered")
    world.wait(hours=1)
    assert world.settle().deliver == ()


def test_every_attempt_tells_of_the_revision_that_was_asked_for_whatever_is_stable() -> None:
    prefixes = ["s3://models/fraud/"]
    world = asking(SINK, allowedPrefixes=prefixes)
    world.retraining = replace(world.retraining, sinks=frozenset({"pipelines"}))
    world.settle()
    before = world.status["stable"]["revision"]
    bodies = []
    for attempt in (1, 2):
        (delivery,) = world.round().deliver
        assert delivery.attempt == attempt
        bodies.append(delivery.body)
        answer = SinkAnswer(world.now, attempt, "answered 500", delivery.id)
        world.retraining = replace(world.retraining, answers={delivery.request: answer})
        world.settle()
        world.model("s3://models/other/v9")  # somebody rolls another model out
        world.serve()
        world.wait(minutes=15)
        assert world.status["stable"]["revision"] != before
    assert bodies[0] == bodies[1]
    data = json.loads(bodies[0])["data"]
    assert data["revision"] == before
    assert data["model"]["uri"] == "s3://models/fraud/v1"


def test_the_record_of_a_revision_outlives_the_history_limit_while_it_is_retrained() -> None:
    world = serving(retraining(action=SINK, deadline="2h"), rollout={"revisionHistoryLimit": 1})
    drift(world)
    world.settle()
    before = world.status["stable"]["revision"]
    for number in range(5, 9):
        world.model(f"s3://models/fraud/v{number}")
        world.serve()
    assert world.history.by_hash(before) is not None
    world.wait(hours=2)
    world.settle()
    assert [entry.outcome for entry in entries(world)] == ["Failed"]
    assert world.history.by_hash(before) is None


def test_a_sink_waits_ever_longer_and_a_restart_does_not_hurry_it() -> None:
    world = asking(SINK)
    world.retraining = replace(world.retraining, sinks=frozenset({"pipelines"}))
    world.settle()
    told(world, "answered 500")
    world.retraining = replace(world.retraining, answers={})  # a new process
    waits = []
    plan = world.settle()
    assert plan.deliver == ()
    assert plan.look_again is not None
    waits.append(plan.look_again - world.now)
    world.now = plan.look_again
    told(world, "answered 500")
    plan = world.settle()
    assert plan.look_again is not None
    waits.append(plan.look_again - world.now)
    assert waits == [timedelta(seconds=10), timedelta(seconds=20)]


def test_a_request_that_comes_back_as_another_one_is_told_of_as_such() -> None:
    world = serving(retraining(action=SINK))
    world.retraining = replace(world.retraining, sinks=frozenset({"pipelines"}))
    world.request("by-hand", {"deploymentRef": {"name": "fraud"}})
    world.settle()
    first = told(world)
    del world.requests["by-hand"]
    world.settle()
    again = world.request("by-hand", {"deploymentRef": {"name": "fraud"}})
    again["metadata"]["uid"] = "uid-another"
    world.settle()
    assert condition(world, "by-hand", "Dispatched") == ("False", "Delivering")
    assert told(world) == "uid-another" != first


def test_the_name_of_a_request_that_has_failed_is_not_asked_for_again_and_says_so() -> None:
    world = serving(retraining(action=SINK))
    world.request("by-hand", {"deploymentRef": {"name": "fraud"}})
    world.settle()
    world.patch_request("by-hand", phase="Failed")
    world.settle()
    assert request_status(world, "by-hand")["message"] != ""
    world.request("by-hand", {"deploymentRef": {"name": "fraud"}})
    world.settle()
    assert request_status(world, "by-hand")["phase"] == "Failed"
    assert "give a new one another name" in request_status(world, "by-hand")["message"]


def test_an_unknown_sink_is_named_with_those_that_there_are() -> None:
    world = asking(SINK)
    world.retraining = replace(world.retraining, sinks=frozenset({"a", "b"}))
    world.settle()
    assert request_status(world, only_request(world))["message"] == (
        "there is no sink 'pipelines': the operator's administrator has set up a, b"
    )
