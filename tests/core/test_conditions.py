"""Conditions: true, of this generation, with the words that help."""

from __future__ import annotations

import re
from typing import Any

import pytest
from tests.core.given import ONNX_RUNTIME
from tests.core.world import World

from mooring.core.kinds import Ref
from mooring.core.observed import RuntimeSource
from mooring.core.plan import stalled

SERVICE = Ref("Service", "fraud")
V2 = {"uri": "s3://models/fraud/v2"}


def starting(replicas: int = 2) -> tuple[World, str]:
    world = World.with_spec(replicas=replicas)
    world.settle()
    (first,) = world.revisions()
    world.run_pods(first, ready=0)
    world.settle()
    return world, first


# Ready ----------------------------------------------------------------------------------------


def test_ready_only_with_all_the_pods_asked_for() -> None:
    world, first = starting(replicas=3)
    for ready in range(3):
        world.run_pods(first, ready)
        world.settle()
        assert world.condition("Ready")["status"] == "False"
        assert f"{ready} of 3 pods" in world.condition("Ready")["message"]
    world.run_pods(first)
    world.settle()
    ready_now = world.condition("Ready")
    assert ready_now["status"] == "True"
    assert ready_now["message"] == f"3 of 3 pods of revision {first} serve s3://models/fraud/v1"


def test_and_no_longer_when_one_goes() -> None:
    world = World.with_spec()
    stable = world.serve()
    world.run_pods(stable, ready=1)
    world.settle()
    assert world.condition("Ready")["status"] == "False"
    assert world.status["phase"] == "Degraded"
    assert "1 of 2 pods" in world.status["message"]


def test_a_change_that_concerns_no_pod_does_not_make_it_flap() -> None:
    world = World.with_spec()
    world.serve()
    told = len(world.told)
    world.edit(rollout={"progressDeadline": "20m", "revisionHistoryLimit": 3})
    for _ in range(3):
        world.round()
        assert world.condition("Ready")["status"] == "True"
    assert world.told[told:] == []


def test_it_carries_the_generation_that_it_is_true_of() -> None:
    world = World.with_spec()
    world.serve()
    world.edit(replicas=3)
    world.round()
    assert world.status["observedGeneration"] == 2
    assert {c["observedGeneration"] for c in world.status["conditions"]} == {2}
    assert world.condition("Ready")["status"] == "False", "two pods are not three"


def test_a_candidate_on_its_way_does_not_make_stable_unready() -> None:
    world = World.with_spec()
    world.serve()
    world.edit(model=V2)
    world.settle()
    assert world.condition("Ready")["status"] == "True"
    assert world.condition("Reconciling")["reason"] == "RollingOut"
    assert world.status["phase"] == "RollingOut"


@pytest.mark.parametrize(
    ("how", "reason", "words"),
    [
        ("foreign", "NameTaken", "belongs to Helm release web: remove it, or rename"),
        ("refuses", "WriteRefused", "Helm release web"),
    ],
)
def test_without_its_service_nothing_is_ready_however_many_pods_are(
    how: str, reason: str, words: str
) -> None:
    world = World.with_spec()
    getattr(world, how)[SERVICE] = "Helm release web"
    world.settle()
    (first,) = world.revisions()
    for _ in range(3):
        world.run_pods(first)
        world.settle()
    ready = world.condition("Ready")
    assert (ready["status"], ready["reason"]) == ("False", reason)
    assert words in ready["message"]
    assert world.reason("Stalled") == reason


def test_a_service_deleted_by_hand_is_said_to_be_missing_and_made_again() -> None:
    world = World.with_spec()
    world.serve()
    world.remove(SERVICE)
    world.round()
    assert world.reason("Ready") == "NoService"
    world.settle()
    assert world.reason("Ready") == ""


def test_the_time_of_transition_changes_with_the_status_alone() -> None:
    world = World.with_spec(replicas=3)
    stable = world.serve()
    at = world.condition("Ready")["lastTransitionTime"]
    world.wait(hours=1)
    world.settle()
    assert world.condition("Ready")["lastTransitionTime"] == at
    world.run_pods(stable, ready=2)
    world.settle()
    went = world.condition("Ready")["lastTransitionTime"]
    assert went > at
    world.wait(hours=1)
    world.run_pods(stable, ready=1)
    world.settle()
    assert world.condition("Ready")["lastTransitionTime"] == went


# last words -----------------------------------------------------------------------------------

WORDS = [
    ("FetchFailed", "s3://models/fraud/v1: the bucket models does not exist.", True),
    ("FetchFailed", "connection timed out after 30 s", False),
    ("ServerFailed", "the server ended with exit code 1: opset 99 is not supported", False),
    ("OutOfMemory", "the server was killed at its memory limit", False),
    ("ImagePullFailed", "container server: not found", False),
    ("Unschedulable", "0/3 nodes are available: 3 Insufficient memory.", False),
    ("ContainerRefused", 'container server: secret "db" not found', False),
]


@pytest.mark.parametrize(("reason", "words", "permanent"), WORDS)
def test_status_repeats_the_last_words_of_a_first_revision(
    reason: str, words: str, permanent: bool
) -> None:
    world, first = starting()
    world.fail_pods(first, reason, words, permanent=permanent)
    world.settle()
    ready = world.condition("Ready")
    assert (ready["status"], ready["reason"]) == ("False", reason)
    assert words in ready["message"]
    assert words in world.status["message"]
    assert world.reason("Stalled") == (reason if permanent else "")


@pytest.mark.parametrize(("reason", "words", "permanent"), WORDS)
def test_and_of_a_candidate_while_stable_stays_ready(
    reason: str, words: str, permanent: bool
) -> None:
    world = World.with_spec()
    stable = world.serve()
    world.edit(model=V2)
    world.settle()
    (candidate,) = set(world.revisions()) - {stable}
    world.fail_pods(candidate, reason, words, permanent=permanent)
    world.settle()
    assert world.condition("Ready")["status"] == "True"
    assert words in world.condition("Reconciling")["message"]
    assert words in world.status["message"]
    world.wait(minutes=11)
    world.settle()
    assert words in world.status["rejectedRevisions"][0]["message"]


def test_pods_that_are_refused_say_by_whom() -> None:
    world, first = starting()
    world.deployment(first)["status"]["conditions"] = [
        {
            "type": "ReplicaFailure",
            "status": "True",
            "reason": "FailedCreate",
            "message": 'pods "fraud-x" is forbidden: exceeded quota: team',
        }
    ]
    world.settle()
    assert world.reason("Ready") == "PodsRefused"
    assert "exceeded quota: team" in world.condition("Ready")["message"]


def test_also_where_a_candidate_is_given_up_for_it() -> None:
    world = World.with_spec()
    stable = world.serve()
    world.edit(model=V2)
    world.settle()
    (candidate,) = set(world.revisions()) - {stable}
    world.run_pods(candidate, ready=0)
    world.deployment(candidate)["status"]["conditions"] = [
        {"type": "ReplicaFailure", "status": "True", "message": "exceeded quota: team"}
    ]
    world.wait(minutes=11)
    world.settle()
    assert world.status["rejectedRevisions"][0]["message"] == "exceeded quota: team"


def test_what_helps_no_more_is_forgotten() -> None:
    world, first = starting()
    world.fail_pods(first, "ServerFailed", "bad luck")
    world.settle()
    world.serve()
    assert "bad luck" not in str(world.status)


# Stalled --------------------------------------------------------------------------------------

Edit = dict[str, Any]
BLOCKED: list[tuple[Edit, str, str]] = [
    ({"runtime": {"name": "onxx"}}, "RuntimeNotFound", "this namespace can use: onnx, tabular"),
    (
        {"model": V2 | {"format": {"name": "pickle"}}},
        "FormatNotSupported",
        "serves onnx, not pickle: change spec.model.format or spec.runtime.name",
    ),
    (
        {"model": V2 | {"format": {"name": "onnx", "version": "9"}}},
        "FormatNotSupported",
        "serves onnx 1, not 9: change spec.model.format.version",
    ),
    ({"runtime": {"name": "broken"}}, "RuntimeInvalid", "ModelRuntime broken"),
    ({"runtime": {"name": "typo"}}, "RuntimeInvalid", "use {{ model.name }}, {{ model.path }}"),
    ({"runtime": {"name": "mute"}}, "RuntimeInvalid", "service: false"),
]


def with_runtimes() -> World:
    world = World.with_spec()
    added: dict[str, dict[str, Any]] = {
        "tabular": ONNX_RUNTIME,
        "broken": {"image": "x"},
        "typo": ONNX_RUNTIME | {"env": [{"name": "A", "value": "{{ model.nmae }}"}]},
        "mute": {
            key: value for key, value in ONNX_RUNTIME.items() if key not in ("ports", "metrics")
        }
        | {"ports": [{"name": "http", "containerPort": 8080, "service": False}]},
    }
    for name, runtime in added.items():
        world.runtimes[name] = RuntimeSource("ModelRuntime", name, runtime)
    return world


@pytest.mark.parametrize(("edit", "reason", "words"), BLOCKED, ids=lambda value: str(value)[:40])
def test_what_a_second_object_forbids_is_stalled_and_what_served_serves_on(
    edit: Edit, reason: str, words: str
) -> None:
    world = with_runtimes()
    if reason == "RuntimeNotFound":
        for name in ("broken", "typo", "mute"):
            del world.runtimes[name]
    stable = world.serve()
    world.edit(**edit)
    world.settle()
    assert world.reason("Stalled") == reason
    assert words in world.condition("Stalled")["message"]
    assert f"revision {stable} serves on" in world.condition("Stalled")["message"]
    assert world.condition("Ready")["status"] == "True"
    assert world.revisions() == [stable]
    assert world.condition("Reconciling")["status"] == "False"


@pytest.mark.parametrize(("edit", "reason", "words"), BLOCKED, ids=lambda value: str(value)[:40])
def test_and_with_nothing_served_it_is_not_ready_for_the_same_reason(
    edit: Edit, reason: str, words: str
) -> None:
    world = with_runtimes()
    if reason == "RuntimeNotFound":
        for name in ("broken", "typo", "mute"):
            del world.runtimes[name]
    world.edit(**edit)
    world.settle()
    assert world.children == {}
    assert world.reason("Ready") == world.reason("Stalled") == reason
    assert words in world.status["message"]


def test_with_no_runtime_at_all_it_says_to_install_some() -> None:
    world = World.with_spec()
    world.runtimes.clear()
    world.settle()
    assert "install the chart's runtimes" in world.status["message"]


def test_it_goes_on_by_itself_when_the_runtime_appears() -> None:
    world = World.with_spec()
    runtime = world.runtimes.pop("onnx")
    world.settle()
    world.runtimes["onnx"] = runtime
    world.serve()
    assert world.reason("Stalled") == ""


def test_a_digest_that_the_administrator_asks_for_is_asked_for() -> None:
    world = World.with_spec()
    world.settings = type(world.settings)(require_digest=True)
    world.settle()
    assert world.reason("Stalled") == "DigestRequired"
    assert "mooring digest" in world.status["message"]
    world.edit(model={"uri": "s3://models/fraud/v1", "digest": "sha256:" + "a" * 64})
    world.serve()
    assert world.reason("Ready") == ""


INVALID: list[tuple[Edit, str]] = [
    ({"replicas": -1}, "spec.replicas"),
    ({"model": {"uri": "mlflow://fraud"}}, "spec.model.uri"),
    ({"model": {"uri": "s3://m/f", "digest": "sha256:abc"}}, "spec.model.digest"),
    ({"rollout": {"progressDeadline": "7d"}}, "spec.rollout.progressDeadline"),
    ({"rollout": {"steps": []}}, "spec.rollout.steps"),
    ({"autoscaling": {"maxReplicas": 3}}, "replicas and autoscaling exclude each other"),
    ({"model": None}, "spec.model"),
]


@pytest.mark.parametrize(("edit", "words"), INVALID, ids=str)
def test_a_spec_that_cannot_be_read_touches_nothing_and_names_the_field(
    edit: Edit, words: str
) -> None:
    world = World.with_spec()
    world.serve()
    writes = [w for w in world.writes if w != "status"]
    world.edit(**edit)
    plan = world.settle()
    assert (plan.apply, plan.scale, plan.delete) == ((), (), ())
    assert [w for w in world.writes if w != "status"] == writes
    assert world.reason("Stalled") == "InvalidSpec"
    assert words in world.condition("Stalled")["message"]
    assert world.condition("Ready")["status"] == "Unknown"
    assert world.status["observedGeneration"] == 2
    assert world.status["stable"]["replicas"]["ready"] == 2, "the rest of status stays"


def test_a_defect_of_ours_stalls_the_object_and_touches_nothing() -> None:
    world = World.with_spec()
    world.serve()
    plan = stalled(world.observed(), "InternalError", "a defect of the operator")
    assert (plan.apply, plan.scale, plan.delete) == ((), (), ())
    assert plan.status is not None
    found = {c["type"]: c["status"] for c in plan.status["conditions"]}
    assert found == {"Ready": "Unknown", "Reconciling": "False", "Stalled": "True"}


def test_nothing_goes_before_what_replaces_it_is_there() -> None:
    world = World.with_spec()
    stable = world.serve()
    world.edit(model=V2)
    world.settle()
    (candidate,) = set(world.revisions()) - {stable}
    world.refuses[Ref("Deployment", f"fraud-{stable}")] = "denied by policy"
    world.edit(model={"uri": "s3://models/fraud/v1"})
    world.settle()
    assert candidate in world.revisions()
    assert world.reason("Stalled") == "WriteRefused"
    assert "denied by policy" in world.status["message"]
    world.refuses.clear()
    world.settle()
    assert world.reason("Stalled") == ""
    assert world.revisions() == [stable]


@pytest.mark.parametrize("length", [10, 4096, 20_000])
def test_no_text_is_too_long_for_status(length: int) -> None:
    world = World.with_spec()
    world.refuses[SERVICE] = "x" * length
    world.settle()
    texts = [world.status["message"], *(c["message"] for c in world.status["conditions"])]
    assert max(map(len, texts)) <= 4096
    assert any("x" * 10 in text for text in texts)


# every text -----------------------------------------------------------------------------------


def test_what_stalls_says_what_to_do() -> None:
    """Every message of Stalled names a way out; one that does not would leave people alone."""
    ways = re.compile(r"change|use|add|remove|leave it out")
    world = with_runtimes()
    world.serve()
    for edit, _, _ in BLOCKED:
        world.edit(**edit)
        world.settle()
        assert ways.search(world.condition("Stalled")["message"])
        world.edit(model={"uri": "s3://models/fraud/v1"}, runtime={"name": "onnx"})


# events ---------------------------------------------------------------------------------------


def test_a_life_is_told_once_in_order() -> None:
    world = World.with_spec()
    first = world.serve()
    world.edit(model=V2)
    world.settle()
    (second,) = set(world.revisions()) - {first}
    world.fail_pods(second, "ServerFailed", "opset 99")
    world.settle()
    world.wait(minutes=11)
    world.settle()
    told = [text.split(":")[0] for text in world.told]
    assert told == [
        "Normal RevisionCreated",
        "Normal Promoted",
        "Normal Ready",
        "Normal RevisionCreated",
        "Warning RevisionRejected",
    ]
    assert "opset 99" in world.told[-1]
    assert all(name in " ".join(world.told) for name in (first, second))


def test_losing_and_regaining_readiness_is_told_each_time() -> None:
    world = World.with_spec()
    stable = world.serve()
    world.told.clear()
    for _ in range(2):
        world.run_pods(stable, ready=1)
        world.settle()
        world.run_pods(stable)
        world.settle()
    assert [t.split(":")[0] for t in world.told] == ["Warning NotReady", "Normal Ready"] * 2
    assert "1 of 2 pods" in world.told[0]


def test_what_could_not_be_recorded_is_not_told_again_and_again() -> None:
    world = World.with_spec()
    world.round()
    (record,) = [r for r in world.children if r.kind == "ControllerRevision"]
    fresh = World.with_spec()
    fresh.refuses[record] = "exceeded quota"
    for _ in range(5):
        fresh.round()
    assert [t for t in fresh.told if "RevisionCreated" in t] == fresh.told[:1]
    assert [t for t in fresh.told if "WriteRefused" in t] == fresh.told[1:]
    assert fresh.revisions() == [], "nothing is made from a record that could not be written"


def test_when_nothing_happens_nothing_is_told() -> None:
    world = World.with_spec()
    world.serve()
    world.told.clear()
    for _ in range(5):
        world.wait(hours=1)
        world.settle()
    assert world.told == []


# when to look again ---------------------------------------------------------------------------


def test_what_serves_needs_no_second_look() -> None:
    world = World.with_spec()
    world.serve()
    assert world.settle().look_again is None


def test_what_does_not_is_looked_at_ever_less_often() -> None:
    world, first = starting()
    spans = []
    for _ in range(8):
        plan = world.settle()
        assert plan.look_again is not None
        spans.append((plan.look_again - world.now).total_seconds())
        world.now = plan.look_again
    assert spans == sorted(spans)
    assert spans[0] == 2
    world.wait(minutes=9)
    plan = world.settle()
    assert plan.look_again is not None
    assert (plan.look_again - world.now).total_seconds() <= 30
    assert world.revisions() == [first]
