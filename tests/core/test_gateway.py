"""Rollouts behind a Gateway: the same rules as behind routers, on what an HTTPRoute can say."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from tests.core.gateways import ROUTE, run_gateways, split
from tests.core.world import World

from mooring.core import kinds

V1, V2 = (f"s3://models/fraud/v{i}" for i in (1, 2))
GATEWAY: dict[str, Any] = {
    "router": "gateway",
    "gateway": {"parentRefs": [{"name": "public", "namespace": "infra"}]},
}
NO = {"type": "Accepted", "status": "False", "reason": "NotAllowedByListeners",
      "message": "namespace shop is not allowed"}  # fmt: skip


def behind_gateway(*steps: dict[str, Any], replicas: int = 4) -> tuple[World, str]:
    rollout = {"progressDeadline": "10m", **({"steps": list(steps)} if steps else {})}
    world = World.with_spec(replicas=replicas, traffic=GATEWAY, rollout=rollout)
    stable = world.serve()
    run(world)
    assert split(world) == {stable: 100}
    assert world.reason("Ready") == ""
    return world, stable


def start(world: World) -> str:
    before = set(world.revisions())
    world.model(V2)
    world.settle()
    (candidate,) = set(world.revisions()) - before
    return candidate


def run(world: World, seconds: int = 1) -> list[dict[str, int]]:
    """Lets pods and Gateways follow until nothing moves for minutes; returns the weights that
    were written.
    """
    seen = [split(world)]
    for _ in range(40):
        before = len(world.writes)
        for revision in world.revisions():
            world.run_pods(revision)
        world.round()
        if split(world) != seen[-1]:
            seen.append(split(world))
        run_gateways(world)
        world.wait(seconds=seconds)
        plan = world.round()
        later = plan.look_again is None or plan.look_again > world.now + timedelta(minutes=2)
        if len(world.writes) == before and later:
            return seen
        if split(world) != seen[-1]:
            seen.append(split(world))
    return seen


def test_a_candidate_is_named_one_write_before_it_gets_a_request_and_one_after() -> None:
    world, stable = behind_gateway({"weight": 20})
    candidate = start(world)
    assert run(world)[:5] == [
        {stable: 100},
        {stable: 100, candidate: 0},
        {stable: 80, candidate: 20},
        {candidate: 100, stable: 0},
        {candidate: 100},
    ]


def test_a_service_stands_before_the_route_that_names_it_and_stays_until_it_does_not() -> None:
    world, _ = behind_gateway({"weight": 20})
    start(world)
    for _ in range(60):
        for revision in world.revisions():
            world.run_pods(revision)
        plan = world.round()
        names = [kinds.Ref(m["kind"], m["metadata"]["name"]) for m in plan.apply]
        for revision in split(world):
            service = kinds.Ref("Service", f"fraud-{revision}-gateway")
            assert service in world.children
            assert service in names[: names.index(ROUTE)]
        run_gateways(world)
        world.wait(seconds=2)


def test_nothing_moves_before_the_gateway_has_accepted_the_last_move() -> None:
    world, stable = behind_gateway({"weight": 20, "duration": "1m"})
    candidate = start(world)
    world.run_pods(candidate)
    world.settle()
    assert split(world) == {stable: 100, candidate: 0}
    world.wait(minutes=5)
    world.settle()
    assert split(world) == {stable: 100, candidate: 0}
    run_gateways(world)
    world.settle()
    world.wait(seconds=2)
    world.settle()
    assert split(world) == {stable: 80, candidate: 20}
    assert "since" not in world.status["rollout"], "its time begins when the Gateway has it"
    run_gateways(world)
    world.settle()
    assert "since" not in world.status["rollout"], "and its proxies can be expected to"
    world.wait(seconds=2)
    world.settle()
    assert "since" in world.status["rollout"]


def test_the_public_service_is_that_of_stable_until_the_promotion() -> None:
    world, stable = behind_gateway({"weight": 50, "duration": "1h"})
    candidate = start(world)
    run(world)
    assert split(world) == {stable: 50, candidate: 50}
    assert world.routed() == stable
    world.act(f"promote/{candidate}/1")
    run(world)
    assert world.routed() == candidate


def test_the_old_pods_stay_until_the_gateway_has_left_them_for_as_long_as_drain() -> None:
    world, stable = behind_gateway()
    candidate = start(world)
    for _ in range(20):
        if split(world) == {candidate: 100, stable: 0}:
            break
        for revision in world.revisions():
            world.run_pods(revision)
        world.round()
        if split(world).get(candidate) != 100:
            run_gateways(world)
            world.wait(seconds=2)
    world.wait(minutes=5)
    world.settle()
    assert stable in world.revisions(), "no Gateway has said that it has left them"
    run_gateways(world)
    world.settle()
    world.wait(seconds=world.settings.drain.total_seconds() - 1)
    world.settle()
    assert stable in world.revisions(), "proxies may be later than the Gateway's word"
    run(world)
    world.wait(seconds=world.settings.drain.total_seconds())
    world.settle()
    assert stable not in world.revisions()
    assert kinds.Ref("Service", f"fraud-{stable}-gateway") not in world.children


def test_an_abort_takes_the_weight_back_at_once() -> None:
    world, stable = behind_gateway({"weight": 50, "duration": "1h"})
    candidate = start(world)
    run(world)
    world.act(f"abort/{candidate}/1")
    world.round()
    assert split(world) == {stable: 100, candidate: 0}


def test_mirror_and_match_are_asked_of_the_gateway() -> None:
    world, _ = behind_gateway(
        {"mirror": 40, "duration": "10m"},
        {"match": [{"header": "X-Tester", "exact": "yes"}], "duration": "10m"},
    )
    candidate = start(world)
    run(world)
    (rule,) = world.children[ROUTE]["spec"]["rules"]
    assert rule["filters"][0]["requestMirror"]["percent"] == 40
    world.wait(minutes=10)
    run(world)
    match, rest = world.children[ROUTE]["spec"]["rules"]
    assert match["matches"][0]["headers"][0]["name"] == "x-tester"
    assert match["backendRefs"][0]["name"] == f"fraud-{candidate}-gateway"
    assert "filters" not in rest


# what stands in the way -------------------------------------------------------------------------


def test_a_refused_route_stalls_the_rollout_while_stable_serves() -> None:
    world, stable = behind_gateway({"weight": 20})
    candidate = start(world)
    world.run_pods(candidate)
    world.settle()
    run_gateways(world, NO)
    world.settle()
    assert world.reason("Stalled") == "GatewayRefused"
    message = world.condition("Stalled")["message"]
    assert message.startswith(
        "Gateway infra/public: Accepted is False, NotAllowedByListeners: "
        "namespace shop is not allowed"
    )
    assert world.reason("Ready") == ""
    assert world.routed() == stable
    run_gateways(world)
    world.settle()
    assert world.reason("Stalled") == ""


def test_a_gateway_that_never_answers_is_said_to_be_silent_after_a_minute() -> None:
    world = World.with_spec(traffic=GATEWAY)
    world.settle()
    for revision in world.revisions():
        world.run_pods(revision)
    world.settle()
    assert world.reason("Stalled") == ""
    assert world.reason("Ready") == "GatewayStarting"
    world.wait(seconds=60)
    world.settle()
    assert world.reason("Stalled") == "GatewayNotAnswering"
    assert "Gateway infra/public" in world.condition("Stalled")["message"]
    assert world.reason("Ready") == "GatewayNotAnswering"
    (stable,) = world.revisions()
    assert world.routed() == stable


def test_a_cluster_without_the_gateway_api_is_told_what_to_install_and_gets_no_route() -> None:
    world = World.with_spec(traffic=GATEWAY)
    world.unserved = frozenset({"HTTPRoute"})
    world.settle()
    for revision in world.revisions():
        world.run_pods(revision)
    world.settle()
    assert ROUTE not in world.children
    assert world.reason("Stalled") == "GatewayApiMissing"
    assert "install the definitions of the Gateway API" in world.condition("Stalled")["message"]
    world.unserved = frozenset()
    world.settle()
    run(world)
    assert world.reason("Stalled") == ""
    assert world.reason("Ready") == ""


def test_a_route_that_somebody_has_edited_counts_as_taken_by_nobody() -> None:
    world, stable = behind_gateway({"weight": 20, "duration": "1h"})
    candidate = start(world)
    run(world)
    (rule,) = world.children[ROUTE]["spec"]["rules"]
    rule["backendRefs"][0]["weight"] = 77
    run_gateways(world)
    world.round()
    assert split(world) == {stable: 80, candidate: 20}, "written anew"
    annotations = world.children[ROUTE]["metadata"]["annotations"]
    assert kinds.ANNOTATION_ACCEPTED not in annotations


def test_status_says_that_no_weight_is_measured() -> None:
    world, stable = behind_gateway()
    assert world.status["router"]["kind"] == "gateway"
    assert world.status["router"]["version"] == world.status["router"]["taken"]
    assert "does not tell how it has split" in world.status["router"]["message"]
    assert world.status["stable"]["revision"] == stable
    assert world.status["stable"]["weight"] == 100


# changing the router ----------------------------------------------------------------------------


def test_routers_of_before_stay_until_nobody_is_sent_to_them() -> None:
    world = World.with_spec(traffic={"router": "envoy"})
    stable = world.serve()
    world.edit(traffic=GATEWAY)
    world.settle()
    assert world.routed() == stable
    assert kinds.Ref("Deployment", "fraud-router") in world.children
    run_gateways(world)
    world.wait(minutes=1)
    world.settle()
    assert kinds.Ref("Deployment", "fraud-router") not in world.children
    assert world.reason("Ready") == ""


def test_another_router_removes_the_route_and_its_services() -> None:
    world, stable = behind_gateway()
    world.edit(traffic={"router": "envoy"})
    world.serve()
    assert ROUTE not in world.children
    assert kinds.Ref("Service", f"fraud-{stable}-gateway") not in world.children
    assert world.route() == {stable: 100}
