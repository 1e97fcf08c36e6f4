"""Whatever happens in whatever order, some things never do.

A machine of hypothesis edits the spec, gives verbs, lets pods live and die, moves the clock, loses
status, kills the operator between two writes, upgrades it, deletes children and refuses writes;
what must always hold is checked after every round.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from tests.core.given import ONNX_RUNTIME
from tests.core.world import EVERY_REVISION, World

from mooring.api import ModelDeploymentStatus
from mooring.core.kinds import Ref
from mooring.core.observed import RuntimeSource
from mooring.core.plan import Plan
from mooring.core.revision import Revision
from mooring.core.steps import FULL_SURGE

SERVICE = Ref("Service", "fraud")
VERBS = st.sampled_from(["abort", "pause", "resume", "retry", "restart", "promote"])
INDEX = st.integers(0, 5)


class Cluster(RuleBasedStateMachine):
    """The world, and what a person, a kubelet and misfortune may do to it."""

    def __init__(self) -> None:
        super().__init__()
        self.world = World.with_spec()
        self.world.doubting = True
        self.runtime = self.world.runtimes["onnx"]

    # people -----------------------------------------------------------------------------------

    @rule(version=st.integers(1, 3), digest=st.sampled_from([None, "sha256:" + "1" * 64]))
    def edits_the_model(self, version: int, digest: str | None) -> None:
        model: dict[str, Any] = {"uri": f"s3://models/fraud/v{version}"}
        self.world.edit(model=model | ({"digest": digest} if digest else {}))

    @rule(name=st.sampled_from(["onnx", "onnx", "unknown"]))
    def edits_the_runtime_name(self, name: str) -> None:
        self.world.edit(runtime={"name": name})

    @rule(count=st.integers(0, 4))
    def scales(self, count: int) -> None:
        self.world.resource["spec"].pop("autoscaling", None)
        self.world.edit(replicas=count)

    @rule(least=st.integers(1, 2), most=st.integers(2, 4))
    def autoscales(self, least: int, most: int) -> None:
        self.world.resource["spec"].pop("replicas", None)
        self.world.resource["spec"]["rollout"].pop("maxSurge", None)  # refused together
        self.world.edit(autoscaling={"minReplicas": least, "maxReplicas": most})

    @rule(
        steps=st.sampled_from([None, None, *([{"weight": w}] for w in (5, 50, 90, 100))]),
        limit=st.sampled_from([0, 1, 10]),
        deadline=st.sampled_from(["30s", "10m"]),
        surge=st.sampled_from(["100%", "100%", "25%", 0]),
    )
    def edits_the_rollout(self, steps: Any, limit: int, deadline: str, surge: Any) -> None:
        rollout: dict[str, Any] = {"progressDeadline": deadline, "revisionHistoryLimit": limit}
        if "autoscaling" not in self.world.resource["spec"]:
            rollout["maxSurge"] = surge
        self.world.edit(rollout=rollout | ({"steps": steps} if steps else {}))

    @rule(verb=VERBS, index=INDEX, token=st.sampled_from(["1", "2"]))
    def acts(self, verb: str, index: int, token: str) -> None:
        known = sorted(r.hash for r in self.world.history.revisions) or ["none"]
        self.world.act(f"{verb}/{known[index % len(known)]}/{token}")

    @rule(text=st.sampled_from(["", "abort", "abort/x", "a/b/c/d"]))
    def acts_nonsense(self, text: str) -> None:
        self.world.act(text)

    # the cluster ------------------------------------------------------------------------------

    @rule(index=INDEX, ready=st.integers(0, 4), digest=st.sampled_from(["d1", "d1", "d2", None]))
    def runs_pods(self, index: int, ready: int, digest: str | None) -> None:
        if names := self.world.revisions():
            self.world.run_pods(names[index % len(names)], ready, digest)

    @rule()
    def runs_all_pods(self) -> None:
        for name in self.world.revisions():
            self.world.run_pods(name)

    @rule(index=INDEX, permanent=st.booleans())
    def fails_pods(self, index: int, permanent: bool) -> None:
        if names := self.world.revisions():
            name = names[index % len(names)]
            self.world.fail_pods(name, "FetchFailed", "no such bucket", permanent=permanent)

    @precondition(lambda self: Ref("HorizontalPodAutoscaler", "fraud") in self.world.children)
    @rule(count=st.integers(0, 5))
    def moves_the_autoscaler(self, count: int) -> None:
        target = self.world.children[Ref("HorizontalPodAutoscaler", "fraud")]
        name = target["spec"]["scaleTargetRef"]["name"].removeprefix("fraud-")
        if name in self.world.revisions():
            self.world.autoscale(name, count)

    @rule(seconds=st.sampled_from([1, 20, 61, 700, 86400, -5, -3600]))
    def moves_the_clock(self, seconds: int) -> None:
        self.world.now += timedelta(seconds=seconds)

    # misfortune -------------------------------------------------------------------------------

    @rule()
    def loses_status(self) -> None:
        self.world.lose_status()

    @rule(writes=st.integers(0, 6))
    def dies_in_the_middle(self, writes: int) -> None:
        self.one_round(kill_after=writes)
        self.world.connected_since = self.world.now

    @rule(image=st.sampled_from(["fetcher:1", "fetcher:2"]), demand=st.booleans())
    def is_upgraded(self, image: str, demand: bool) -> None:
        self.world.settings = replace(
            self.world.settings, fetcher_image=image, require_digest=demand
        )
        self.world.connected_since = self.world.now

    @rule(version=st.sampled_from(["0.1.0", "0.2.0", None]))
    def changes_the_runtime(self, version: str | None) -> None:
        self.world.runtimes.clear()
        if version:
            edited = ONNX_RUNTIME | {"version": version}
            self.world.runtimes["onnx"] = RuntimeSource("ClusterModelRuntime", "onnx", edited)

    @rule(index=st.integers(0, 30))
    def deletes_a_child_by_hand(self, index: int) -> None:
        refs = [r for r in sorted(self.world.children) if r.kind != "ControllerRevision"]
        # The pods of a Deployment go with it: that nobody can make up for.
        refs = [r for r in refs if r.kind != "Deployment"]
        if refs:
            self.world.remove(refs[index % len(refs)])

    @rule(index=st.integers(0, 30))
    def refuses_writes(self, index: int) -> None:
        refs = sorted(self.world.children)
        if refs:
            self.world.refuses[refs[index % len(refs)]] = "denied"

    @rule()
    def refuses_no_more(self) -> None:
        self.world.refuses.clear()

    @rule(
        kind=st.sampled_from(["ControllerRevision", "Deployment", "Service", "ConfigMap"]),
        answers_lost=st.booleans(),
    )
    def watches_no_more(self, kind: str, answers_lost: bool) -> None:
        self.world.stop_watching(kind)
        self.world.answers_lost = answers_lost

    @rule()
    def watches_again(self) -> None:
        self.world.resync()

    # the operator -----------------------------------------------------------------------------

    @rule(rounds=st.integers(1, 3))
    def works(self, rounds: int) -> None:
        for _ in range(rounds):
            self.one_round()

    @rule()
    def comes_to_rest(self) -> None:
        self.world.refuses.clear()
        self.world.resync()
        for _ in range(12):
            before = len(self.world.writes)
            self.one_round()
            if len(self.world.writes) == before:
                break
        else:
            raise AssertionError(f"does not settle: {self.world.writes[-12:]}")
        self.at_rest()

    def one_round(self, *, kill_after: int | None = None) -> Plan:
        world = self.world
        before, counts = world.history, world.counts()
        routed = world.routed() if SERVICE in world.children else None
        answering = self.available(routed)
        plan = world.round(kill_after=kill_after)
        if not world.stale:
            self.stable_is_kept(before.stable, counts)
        self.traffic_is_never_left_without_pods(routed, answering)
        self.promotions_are_deserved({r.hash: r for r in before.revisions})
        return plan

    # what never happens -----------------------------------------------------------------------

    def stable_is_kept(self, before: Revision | None, counts: dict[str, int]) -> None:
        """Its Deployment is neither deleted nor scaled below what is asked for."""
        world, stable = self.world, self.world.history.stable
        assert before is None or stable is not None
        if before is None or stable is None or before.hash != stable.hash:
            return
        if stable.hash in counts:
            assert stable.hash in world.revisions()
            if any(map(makes_room, world.history.revisions)):
                return
            asked = world.resource["spec"].get("replicas", counts[stable.hash])
            assert world.counts()[stable.hash] >= min(counts[stable.hash], asked)

    def traffic_is_never_left_without_pods(self, routed: str | None, answering: int) -> None:
        """Where pods answered before, pods answer after; whatever the operator could not see."""
        world = self.world
        if not answering or SERVICE not in world.children:
            return
        if world.resource["spec"].get("replicas") == 0:
            return
        given_up = world.history.by_hash(routed or "")
        if world.history.stable is None and given_up is not None and given_up.rejected:
            return  # a first revision that somebody has aborted: nothing should serve
        assert self.available(world.routed()), f"{routed} had {answering} pods: {world.writes[-8:]}"

    def promotions_are_deserved(self, before: dict[str, Revision]) -> None:
        """No rejected revision is promoted unless somebody says retry, and numbers are unique."""
        numbers = [r.promotion for r in self.world.history.revisions if r.promotion]
        assert len(numbers) == len(set(numbers))
        action = self.world.resource["metadata"]["annotations"].get("mooring.dev/action", "")
        for revision in self.world.history.revisions:
            old = before.get(revision.hash)
            if old is None or old.promotion == revision.promotion or old.rejected is None:
                continue
            assert action.startswith(f"retry/{revision.hash}/")

    def available(self, revision: str | None) -> int:
        if revision == EVERY_REVISION:
            return sum(self.available(name) for name in self.world.revisions())
        if revision not in self.world.revisions():
            return 0
        status = self.world.deployment(str(revision)).get("status", {})
        return int(status.get("availableReplicas", 0))

    def at_rest(self) -> None:
        """What is true once nothing is left to do."""
        world = self.world
        status, stable = world.status, world.history.stable
        assert status["observedGeneration"] == world.resource["metadata"]["generation"]
        candidate = status.get("candidate", {}).get("revision")
        if stable is not None:
            lost = self.available(stable.hash) == 0 and self.available(candidate) > 0
            assert world.routed() in (stable.hash, EVERY_REVISION, candidate if lost else None)
            assert stable.hash in world.revisions()
            held = status["phase"] == "Paused"
            if self.available(stable.hash) == 0 and self.available(candidate) and not held:
                assert world.counts()[stable.hash] == 0 == status["stable"]["replicas"]["desired"]
        if world.condition("Ready")["status"] == "True":
            assert stable is not None
            least = world.resource["spec"].get("autoscaling", {}).get("minReplicas")
            desired = status["stable"]["replicas"]["desired"]
            assert self.available(stable.hash) >= (least or desired)
        for child in world.children.values():
            assert child["metadata"]["ownerReferences"][0]["uid"] == "uid-1"
        live = {r for r in (stable and stable.hash, candidate) if r}
        draining = set(world.revisions()) - live
        served = {r.hash for r in world.history.revisions if r.promotion or r.rollout}
        assert draining <= served

    @invariant()
    def status_fits_its_schema(self) -> None:
        if "status" in self.world.resource:
            parsed = ModelDeploymentStatus.model_validate(self.world.status)
            assert {c.type for c in parsed.conditions or ()} == {
                "Ready",
                "Reconciling",
                "Stalled",
                "RolledBack",
            }
            assert all(c.message for c in parsed.conditions or ())


def makes_room(revision: Revision) -> bool:
    """Whether stable may give up pods to it before it is promoted."""
    plan = revision.rollout
    if plan is None:
        return False
    return plan.max_surge != FULL_SURGE or any((s.weight or 0) > 50 for s in plan.steps)


QUIET = [HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much]
QUICK = settings(
    max_examples=40,
    stateful_step_count=30,
    deadline=None,
    derandomize=True,
    suppress_health_check=QUIET,
    database=None,
)
THOROUGH = settings(
    max_examples=400,
    stateful_step_count=50,
    deadline=None,
    suppress_health_check=QUIET,
    print_blob=True,
)


def test_whatever_happens_some_things_never_do() -> None:
    run(QUICK)


@pytest.mark.slow
@pytest.mark.timeout(3000)
def test_however_long_one_tries() -> None:
    run(THOROUGH)


def run(how: settings) -> None:
    from hypothesis.stateful import run_state_machine_as_test

    run_state_machine_as_test(Cluster, settings=how)
