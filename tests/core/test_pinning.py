"""A live revision is what was recorded: nothing but a new revision changes its pods."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from tests.core.given import ONNX_RUNTIME, copied
from tests.core.test_steps import in_step, run
from tests.core.world import World

from mooring.core.kinds import Ref
from mooring.core.observed import RenderSettings, RuntimeSource
from mooring.core.render import pod, revision


def template(world: World, name: str) -> Any:
    return copied(world.deployment(name)["spec"]["template"])


def edit_runtime(world: World) -> None:
    edited = ONNX_RUNTIME | {
        "version": "0.2.0",
        "args": ["--new"],
        "terminationGracePeriodSeconds": 9,
    }
    world.runtimes["onnx"] = RuntimeSource("ClusterModelRuntime", "onnx", edited)


def hide_runtime(world: World) -> None:
    """A ModelRuntime of the same name in the namespace."""
    own = ONNX_RUNTIME | {"image": "example.com/own:{{ runtime.version }}"}
    world.runtimes["onnx"] = RuntimeSource("ModelRuntime", "onnx", own)


def delete_runtime(world: World) -> None:
    del world.runtimes["onnx"]


def upgrade_operator(world: World) -> None:
    world.settings = replace(
        world.settings,
        fetcher_image="example.com/fetcher:2",
        pull_policy="Always",
        pre_stop_seconds=30,
        max_model_bytes=1 << 30,
    )


def demand_digests(world: World) -> None:
    world.settings = replace(world.settings, require_digest=True)


AROUND = [edit_runtime, hide_runtime, delete_runtime, upgrade_operator, demand_digests]


@pytest.mark.parametrize("change", AROUND)
def test_what_changes_around_a_live_revision_changes_nothing_of_it(
    change: Callable[[World], None],
) -> None:
    world = World.with_spec()
    stable = world.serve()
    before, children, writes = template(world, stable), copied(world.children), world.writes
    told = list(writes)
    change(world)
    world.settle()
    assert world.writes == told
    assert world.children == children
    assert template(world, stable) == before


@pytest.mark.parametrize("change", AROUND)
def test_nor_does_it_change_a_candidate_on_its_way(change: Callable[[World], None]) -> None:
    world = World.with_spec()
    stable = world.serve()
    world.model("s3://models/fraud/v2")
    world.settle()
    (candidate,) = set(world.revisions()) - {stable}
    before = template(world, candidate)
    change(world)
    assert world.serve() == candidate
    assert template(world, candidate) == before


def test_an_upgrade_and_the_way_back_amid_a_canary_touch_no_pod_and_no_share() -> None:
    """Scenario 29, behind routers: theirs are pods as well."""
    world, stable, candidate = in_step()
    pods = [f"fraud-{stable}", f"fraud-{candidate}", "fraud-router"]

    def seen() -> Any:
        specs = {name: copied(world.children[Ref("Deployment", name)]["spec"]) for name in pods}
        return specs, world.route(), sorted(world.children)

    before, old = seen(), world.settings
    newer = replace(
        old, fetcher_image="fetcher:2", router_image="router:2", collector_image="collector:2",
        pull_policy="Always", router_pull_policy="Always", pre_stop_seconds=30,
    )  # fmt: skip
    for running in (newer, old, newer):
        world.settings, world.connected_since = running, world.now
        run(world)
        assert seen() == before
    world.wait(minutes=11)
    run(world)
    assert world.route() == {stable: 75, candidate: 25}, "and the canary goes on"


def test_a_new_default_of_the_renderer_waits_for_the_next_revision(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    world = World.with_spec()
    stable = world.serve()
    before = template(world, stable)
    monkeypatch.setattr(pod, "_DEFAULT_GRACE_SECONDS", 120)
    monkeypatch.setattr(pod, "_DEFAULT_USER", 1000)
    writes = len(world.writes)
    world.settle()
    assert len(world.writes) == writes
    assert template(world, stable) == before
    world.model("s3://models/fraud/v2")
    after = template(world, world.serve())
    assert after["spec"]["securityContext"]["runAsUser"] == 1000
    assert after["spec"]["terminationGracePeriodSeconds"] == 128


def test_a_live_revision_is_never_rendered_again(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World.with_spec()
    stable = world.serve()

    def forbidden(*args: object) -> None:
        raise AssertionError("rendered again")

    monkeypatch.setattr(revision, "pod_template", forbidden)
    world.edit(replicas=5)
    world.remove(next(r for r in world.children if r.kind == "Deployment"))
    assert world.serve() == stable


@pytest.mark.parametrize(
    ("change", "path", "expected"),
    [
        (edit_runtime, ("containers", 0, "image"), "example.com/onnx-server:0.2.0"),
        (hide_runtime, ("containers", 0, "image"), "example.com/own:0.1.0"),
        (upgrade_operator, ("initContainers", 0, "image"), "example.com/fetcher:2"),
    ],
)
def test_a_restart_takes_it_up_as_a_new_revision(
    change: Callable[[World], None], path: tuple[Any, ...], expected: str
) -> None:
    world = World.with_spec()
    old = world.serve()
    change(world)
    world.act(f"restart/{old}/now")
    world.settle()
    assert world.routed() == old
    assert world.counts()[old] == 2, "the old pods serve on until the new ones do"
    new = world.serve()
    assert new != old
    found: Any = template(world, new)["spec"]
    for step in path:
        found = found[step]
    assert found == expected
    assert world.status["stable"]["modelUri"] == "s3://models/fraud/v1"


@pytest.mark.parametrize(
    "other",
    [
        lambda data: data.update(signals=[{"name": "errors"}]),  # a newer operator knows more
        lambda data: data.pop("ownServiceAccount"),  # an older one knew less
        lambda data: data.pop("metricsPort"),
    ],
)
def test_a_record_of_another_version_is_kept_as_it_is(
    other: Callable[[dict[str, Any]], None],
) -> None:
    world = World.with_spec(runtime={"name": "onnx", "serviceAccountName": "own"})
    stable = world.serve()
    record = world.children[Ref("ControllerRevision", f"fraud-{stable}")]
    other(record["data"])
    record["metadata"]["annotations"]["mooring.dev/adopted-from"] = "a-retraining"
    stored, before = copied(record["data"]), template(world, stable)
    world.edit(replicas=3)
    world.act(f"abort/{stable}/1")  # its acknowledgement is written to the record
    world.serve()
    record = world.children[Ref("ControllerRevision", f"fraud-{stable}")]
    assert record["data"] == stored
    assert record["metadata"]["annotations"]["mooring.dev/adopted-from"] == "a-retraining"
    assert record["metadata"]["annotations"]["mooring.dev/acknowledged"] == "abort/1"
    assert template(world, stable) == before
    assert world.reason("Stalled") == ""


def test_inputs_that_another_version_spelt_otherwise_are_the_same_inputs() -> None:
    resources = {"requests": {"cpu": "500m", "memory": "1Gi"}}
    world = World.with_spec(runtime={"name": "onnx", "resources": resources})
    stable = world.serve()
    record = world.children[Ref("ControllerRevision", f"fraud-{stable}")]
    record["data"]["inputs"]["runtime"] |= {
        "resources": {"requests": {"cpu": "0.5", "memory": "1024Mi"}, "limits": {}},
        "env": [],
    }
    assert world.serve() == stable
    assert len(world.history.revisions) == 1


def test_settings_that_concern_no_pod_reach_what_is_live() -> None:
    world = World.with_spec()
    world.serve()
    world.settings = RenderSettings(prometheus_namespace_labels={"team": "observability"})
    world.settle()
    policy = world.children[next(r for r in world.children if r.kind == "NetworkPolicy")]
    peer = policy["spec"]["ingress"][-1]["from"][0]
    assert peer["namespaceSelector"] == {"matchLabels": {"team": "observability"}}


@pytest.mark.parametrize(
    "damage",
    [
        lambda live: live["spec"]["template"]["spec"]["containers"][0].update(image="evil:1"),
        lambda live: live["spec"]["template"]["spec"].update(automountServiceAccountToken=True),
        lambda live: live["metadata"].update(labels={}),
    ],
)
def test_what_somebody_changes_in_a_deployment_is_changed_back(
    damage: Callable[[dict[str, Any]], None],
) -> None:
    world = World.with_spec()
    stable = world.serve()
    before = template(world, stable)
    damage(world.deployment(stable))
    world.settle()
    assert template(world, stable) == before
    assert world.deployment(stable)["metadata"]["labels"]["mooring.dev/revision"] == stable


def test_a_record_holds_a_template_of_routers_only_where_the_spec_asks_for_them() -> None:
    found = []
    for router in ("replicas", "envoy"):
        world = World.with_spec(traffic={"router": router})
        stable = world.serve()
        found.append(world.children[Ref("ControllerRevision", f"fraud-{stable}")])
    assert ["router" in record["data"] for record in found] == [False, True]
    assert not any("mooring.dev/router-template" in r["metadata"]["annotations"] for r in found)


def test_routers_that_a_spec_asks_for_later_are_pinned_as_well() -> None:
    world = World.with_spec(traffic={"router": "replicas"})
    stable = world.serve()
    data = copied(world.children[Ref("ControllerRevision", f"fraud-{stable}")]["data"])
    world.edit(traffic={"router": "envoy"})
    world.settle()
    world.run_routers()
    world.settle()
    record = world.children[Ref("ControllerRevision", f"fraud-{stable}")]
    routers = template(world, "router")
    assert record["data"] == data
    assert (
        '"mooring.dev/router:dev"'
        in record["metadata"]["annotations"]["mooring.dev/router-template"]
    )
    told = list(world.writes)
    world.settings = replace(world.settings, router_image="example.com/router:2")
    world.settle()
    assert world.writes == told
    assert template(world, "router") == routers
