"""mlflow://model@alias: the version that the alias names rolls out, and spec stays as it is.

What a registry says is a value here; while it says nothing, what it said last holds.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from tests.core.given import spec
from tests.core.retrain.setting import V8, drift, only_request, retraining
from tests.core.world import World

from mooring.core import kinds
from mooring.core.kinds import Ref
from mooring.core.observed import RenderSettings
from mooring.core.registry import (
    NOT_FOUND,
    UNAVAILABLE,
    NotRegistered,
    Registered,
    registered,
)

CHAMPION = "mlflow://fraud@champion"
AWAY = NotRegistered(UNAVAILABLE, "the model registry did not answer within 5 s", lasting=False)
UNKNOWN = NotRegistered(NOT_FOUND, "the model registry says: Registered model alias is not found.")
DIGEST = "sha256:" + "d" * 64


def version(number: int, **changes: Any) -> Registered:
    found = Registered("fraud", str(number), f"s3://mlflow/1/models/m-{number}/artifacts")
    return replace(found, **changes)


def serving(answer: Registered | None = None, **changes: Any) -> World:
    """A stable revision of what the alias names."""
    world = World.with_spec(spec(CHAMPION, **changes))
    world.registry = answer or version(7)
    world.serve()
    world.settle()
    return world


def condition(world: World) -> tuple[str, str, str]:
    found = next(c for c in world.status["conditions"] if c["type"] == "ModelResolved")
    return found["status"], found["reason"], found["message"]


def stable(world: World) -> str:
    return str(world.status["stable"]["modelUri"])


def fetched(world: World, revision: str) -> str:
    """Where the fetcher of a revision is sent."""
    template = world.deployment(revision)["spec"]["template"]
    args = template["spec"]["initContainers"][0]["args"]
    return str(args[args.index("--uri") + 1])


def test_the_version_serves_and_its_bytes_come_from_where_the_registry_has_them() -> None:
    world = serving()
    assert stable(world) == "mlflow://fraud/7"
    assert fetched(world, world.status["stable"]["revision"]) == version(7).source
    assert condition(world) == (
        "True", "Resolved",
        f"{CHAMPION} is mlflow://fraud/7, at s3://mlflow/1/models/m-7/artifacts",
    )  # fmt: skip
    assert world.reason("Stalled") == ""


def test_when_the_alias_moves_the_new_version_goes_through_the_canary() -> None:
    world = serving()
    before = dict(world.resource["spec"])
    first = world.status["stable"]["revision"]
    world.registry = version(8)
    world.settle()
    candidate = world.status["candidate"]
    assert (candidate["modelUri"], stable(world)) == ("mlflow://fraud/8", "mlflow://fraud/7")
    assert fetched(world, candidate["revision"]) == version(8).source
    assert fetched(world, first) == version(7).source
    world.serve()
    assert stable(world) == "mlflow://fraud/8"
    assert world.resource["spec"] == before


def test_when_it_moves_back_the_revision_that_there_is_serves_again() -> None:
    world = serving()
    first = world.status["stable"]["revision"]
    world.registry = version(8)
    world.settle()
    world.registry = version(7)
    world.settle()
    assert "candidate" not in world.status
    assert world.status["stable"]["revision"] == first
    assert len(world.history.revisions) == 2


def test_an_alias_spelt_as_its_version_is_the_same_model() -> None:
    world = serving()
    revision = world.status["stable"]["revision"]
    world.model("mlflow://fraud/7")
    world.settle()
    assert world.status["stable"]["revision"] == revision
    assert "candidate" not in world.status


def test_a_rejected_version_is_not_tried_again_and_the_next_one_is() -> None:
    world = serving()
    world.registry = version(8)
    world.settle()
    candidate = world.status["candidate"]["revision"]
    world.act(f"abort/{candidate}/1")
    world.settle()
    world.wait(minutes=5)
    world.settle()
    assert world.reason("Stalled") == "RevisionRejected"
    assert stable(world) == "mlflow://fraud/7"
    world.registry = version(9)
    world.serve()
    assert stable(world) == "mlflow://fraud/9"
    assert world.reason("Stalled") == ""


@pytest.mark.parametrize("answer", [None, AWAY])
@pytest.mark.parametrize("status_lost", [False, True])
def test_while_the_registry_is_away_all_goes_on_also_after_a_restart(
    answer: NotRegistered | None, status_lost: bool
) -> None:
    world = serving()
    world.registry = version(8)
    world.settle()
    candidate = world.status["candidate"]["revision"]
    world.registry = answer
    if status_lost:
        world.lose_status()
    world.settle()
    assert world.status["candidate"]["revision"] == candidate
    assert condition(world)[0] == ("Unknown" if answer is None else "False")
    assert "mlflow://fraud/8" in condition(world)[2]
    assert world.reason("Stalled") == ""
    world.serve()
    assert stable(world) == "mlflow://fraud/8"


def test_what_was_named_last_is_known_and_not_what_was_made_last() -> None:
    world = serving()
    world.registry = version(8)
    world.settle()
    world.registry = version(7)
    world.settle()
    world.registry = None
    world.lose_status()
    world.settle()
    assert stable(world) == "mlflow://fraud/7"
    assert "candidate" not in world.status


@pytest.mark.parametrize("writes", range(8))
def test_killed_after_any_write_a_moved_alias_makes_one_revision(writes: int) -> None:
    world = serving()
    world.registry = version(8)
    for _ in range(6):
        world.round(kill_after=writes)
        world.lose_status()
    world.serve()
    assert stable(world) == "mlflow://fraud/8"
    assert len(world.history.revisions) == 2


def test_a_registry_that_says_the_same_again_makes_no_write() -> None:
    world = serving()
    before = len(world.writes)
    for _ in range(5):
        world.wait(seconds=30)
        world.round()
    assert len(world.writes) == before


@pytest.mark.parametrize(
    ("answer", "ready", "stalled"),
    [
        (None, "ResolvingModel", ""),
        (AWAY, UNAVAILABLE, ""),
        (UNKNOWN, NOT_FOUND, NOT_FOUND),
    ],
)
def test_a_name_that_nobody_has_followed_yet_serves_nothing_and_says_why(
    answer: NotRegistered | None, ready: str, stalled: str
) -> None:
    world = World.with_spec(spec(CHAMPION))
    world.registry = answer
    world.settle()
    reasons = {c["type"]: c["reason"] for c in world.status["conditions"] if c["type"] == "Ready"}
    assert reasons == {"Ready": ready}
    assert world.reason("Stalled") == stalled
    assert world.history.revisions == ()
    world.registry = version(7)
    world.serve()
    assert stable(world) == "mlflow://fraud/7"


def test_an_alias_that_is_gone_stalls_and_what_it_named_serves_on() -> None:
    world = serving()
    revision = world.status["stable"]["revision"]
    world.registry = UNKNOWN
    world.settle()
    assert world.reason("Stalled") == NOT_FOUND
    assert f"revision {revision} serves on" in world.status["message"]
    assert world.deployment(revision)["spec"]["replicas"] == 2
    assert world.reason("Ready") == ""


def test_another_model_in_spec_stays_away_until_it_is_known() -> None:
    world = World.with_spec(spec("s3://models/fraud/v1"))
    world.serve()
    world.model(CHAMPION)
    world.registry = AWAY
    world.settle()
    assert stable(world) == "s3://models/fraud/v1"
    assert world.reason("Stalled") == ""
    reconciling = next(c for c in world.status["conditions"] if c["type"] == "Reconciling")
    assert (reconciling["status"], reconciling["reason"]) == ("True", UNAVAILABLE)


def test_a_digest_that_the_registry_knows_is_declared() -> None:
    world = World.with_spec(spec(CHAMPION))
    world.settings = RenderSettings(require_digest=True)
    world.registry = version(7)
    world.settle()
    assert world.reason("Stalled") == "DigestRequired"
    world.registry = version(7, digest=DIGEST)
    world.serve()
    assert world.status["stable"]["modelDigest"] == DIGEST


def test_artifacts_behind_the_tracking_server_are_fetched_by_its_address() -> None:
    proxied = version(7, source="mlflow-artifacts:/1/models/m-7/artifacts")
    world = World.with_spec(spec(CHAMPION))
    world.registry = proxied
    world.settle()
    assert world.reason("Stalled") == "RegistryNotConfigured"
    world.settings = RenderSettings(registry_url="https://mlflow.example.com/team")
    world.serve()
    assert fetched(world, world.status["stable"]["revision"]) == (
        "mlflow-artifacts+https://mlflow.example.com/team/api/2.0/mlflow-artifacts/artifacts"
        "/1/models/m-7/artifacts"
    )
    policy = world.children[Ref(kinds.NETWORK_POLICY.name, "fraud")]
    assert "169.254.0.0/16" in str(policy["spec"]["egress"])


def test_another_address_of_the_tracking_server_makes_no_revision() -> None:
    proxied = version(7, source="mlflow-artifacts:/1/models/m-7/artifacts")
    world = World.with_spec(spec(CHAMPION))
    world.registry = proxied
    world.settings = RenderSettings(registry_url="https://mlflow.example.com")
    world.serve()
    world.settle()
    world.settings = RenderSettings(registry_url="https://elsewhere.example.com")
    before = len(world.writes)
    world.settle()
    assert len(world.writes) == before


def test_the_record_that_was_named_last_outlives_the_history_limit() -> None:
    world = serving(
        rollout={"progressDeadline": "10m", "revisionHistoryLimit": 0},
        retraining=retraining(cooldown="0s", allowedPrefixes=["s3://models/"]),
    )
    drift(world)
    world.settle()
    world.patch_request(only_request(world), result=V8)
    world.serve()
    world.wait(hours=2)
    world.settle()
    assert stable(world) == V8["uri"]
    world.registry = None
    world.lose_status()
    world.settle()
    assert stable(world) == V8["uri"]
    assert "candidate" not in world.status


def test_a_moved_alias_wins_over_a_retrained_model() -> None:
    world = serving(retraining=retraining(cooldown="0s", allowedPrefixes=["s3://models/"]))
    drift(world)
    world.settle()
    world.patch_request(only_request(world), result=V8)
    world.serve()
    assert stable(world) == V8["uri"]
    assert fetched(world, world.status["stable"]["revision"]) == V8["uri"]
    world.registry = version(8)
    world.serve()
    assert stable(world) == "mlflow://fraud/8"


@pytest.mark.parametrize(
    ("location", "source"),
    [
        ("s3://b/1/models/m-1/artifacts", "s3://b/1/models/m-1/artifacts"),
        ("gs://b/1", "gs://b/1"),
        ("mlflow-artifacts:/1/r/artifacts/model", "mlflow-artifacts:/1/r/artifacts/model"),
        (
            "wasbs://models@fraudstore.blob.core.windows.net/1/m",
            "abfss://models@fraudstore.blob.core.windows.net/1/m",
        ),
    ],
)
def test_places_that_pods_can_fetch_from_are_taken(location: str, source: str) -> None:
    assert registered("fraud", "7", location, {}) == Registered("fraud", "7", source)


@pytest.mark.parametrize(
    "location",
    [
        "/mlruns/1/models/m-1",
        "file:///etc",
        "pvc://claim/path",
        "https://evil.example.com/model",
        "mlflow-artifacts://evil.example.com/1/m",
        "mlflow-artifacts:/1/../../2",
        "s3://b/1/../2",
        "s3://b/1 2",
        "wasbs://models@evil.example.com/1",
        "az://models@account/1",
        "dbfs:/models/1",
        "s3://b/" + "x" * 3000,
        "",
    ],
)
def test_places_that_are_not_for_pods_are_refused_by_name(location: str) -> None:
    found = registered("fraud", "7", location, {})
    assert isinstance(found, NotRegistered)
    assert found.reason == "ModelNotReadable"
    assert "version 7 of fraud" in found.message
    assert len(found.message) < 600


def test_a_tag_that_is_no_digest_is_refused() -> None:
    found = registered("fraud", "7", "s3://b/1", {"mooring.dev/digest": "md5:1"})
    assert isinstance(found, NotRegistered)
    assert "mooring.dev/digest" in found.message
