"""Any sequence of specs, verbs, verdicts, pods, routers and clock steps keeps I3, I4, I5 and I7.

What a ModelDeployment behind routers goes through is drawn at random, every single write of it is
kept in order, and the history is judged by the oracles of the fault runs.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule, run_state_machine_as_test
from tests.core.given import copied
from tests.core.test_evidence import ERRORS, MEASURING
from tests.core.traffic import Traffic
from tests.core.world import World
from tests.faults.history import Happening
from tests.faults.oracles import judge

from mooring.core.judge import Verdict
from mooring.core.kinds import Ref
from mooring.core.revision import Revision

_VERBS = st.sampled_from(
    ["abort", "abort", "pause", "resume", "retry", "restart", "promote", "promote-full", "undo"]
)
_VERDICTS = st.sampled_from([*Verdict, Verdict.PASS])
_INDEX = st.integers(0, 5)
_STEPS = st.sampled_from(
    [
        [{"weight": 20, "duration": "30s"}],
        [{"weight": 10, "duration": "30s"}, {"pause": {}}, {"weight": 60, "duration": "1m"}],
        [{"weight": 50, "duration": "1m"}, {"weight": 100, "duration": "30s"}],
        [{"replicas": 2}, {"pause": {}}, {"weight": 90, "duration": "30s"}],
    ]
)
_BAKES = st.sampled_from([None, {"duration": "2m"}, {"duration": "2m", "previousWeight": 10}])


class Recorded(World):
    """A world whose every change is kept, in the order in which they were made."""

    happenings: list[Happening]
    known: dict[Ref, dict[str, Any]]

    def note(self) -> None:
        """Keeps what has changed since this was last asked: at most one object per write."""
        mine = Ref("ModelDeployment", "fraud")
        now = {**self.children, mine: self.resource}
        for ref in [ref for ref in self.known if ref not in now]:
            self._keep("DELETED", ref, self.known.pop(ref))
        for ref, obj in now.items():
            if self.known.get(ref) != obj:
                change = "MODIFIED" if ref in self.known else "ADDED"
                self.known[ref] = copied(obj)
                self._keep(change, ref, self.known[ref])

    def _keep(self, change: str, ref: Ref, obj: dict[str, Any]) -> None:
        self.happenings.append(Happening(len(self.happenings) + 1, change, ref.kind, obj))

    def _written(self, what: str) -> None:
        self.note()  # what the write before this one has changed
        super()._written(what)


class Rollouts(RuleBasedStateMachine):
    """A world behind routers, and what people, Prometheus, kubelets and clocks may do to it."""

    def __init__(self) -> None:
        super().__init__()
        world = Recorded.with_spec(
            replicas=3,
            traffic={"router": "envoy"},
            rollout={"progressDeadline": "10m", "revisionHistoryLimit": 10,
                     "steps": [{"weight": 20, "duration": "30s"}]},
            analysis={"metrics": [ERRORS]},
        )  # fmt: skip
        assert isinstance(world, Recorded)
        self.world = world
        self.world.settings = MEASURING
        self.world.happenings, self.world.known = [], {}
        self.traffic = Traffic(self.world)
        self.world.serve()
        self.world.note()

    @initialize(
        version=st.integers(1, 4),
        steps=_STEPS,
        ends=st.lists(st.tuples(_VERDICTS, st.booleans()), min_size=1, max_size=3),
    )
    def begins(self, version: int, steps: Any, ends: list[tuple[Verdict, bool]]) -> None:
        """Most of what may happen happens while something rolls out."""
        self.edits_the_rollout(steps, None, "100%", "OnTime", "Hold")
        self.edits_the_model(version)
        self.one_round()
        for verdict, fresh in ends:
            self.a_step_is_over(verdict, fresh)

    # people -------------------------------------------------------------------------------------

    @rule(version=st.integers(1, 4))
    def edits_the_model(self, version: int) -> None:
        self.world.model(f"s3://models/fraud/v{version}")

    @rule(count=st.integers(0, 5))
    def scales(self, count: int) -> None:
        self.world.edit(replicas=count)

    @rule(
        steps=_STEPS, bake=_BAKES, surge=st.sampled_from(["100%", "100%", "25%", 1]),
        advance=st.sampled_from(["OnTime", "OnPass"]),
        inconclusive=st.sampled_from(["Hold", "Promote", "Rollback"]),
    )  # fmt: skip
    def edits_the_rollout(
        self, steps: Any, bake: Any, surge: Any, advance: str, inconclusive: str
    ) -> None:
        wanted = {"progressDeadline": "10m", "revisionHistoryLimit": 10, "steps": steps,
                  "maxSurge": surge, "advance": advance,
                  "onInconclusive": inconclusive}  # fmt: skip
        self.world.edit(rollout=wanted | ({"bake": bake} if bake else {}))

    @rule(verb=_VERBS, index=_INDEX, token=st.sampled_from(["1", "2", "3"]))
    def acts(self, verb: str, index: int, token: str) -> None:
        known = sorted(r.hash for r in self.world.history.revisions)
        self.world.act(f"{verb}/{known[index % len(known)]}/{token}")

    # what is measured ---------------------------------------------------------------------------

    @rule(verdict=_VERDICTS, fresh=st.booleans())
    def judges(self, verdict: Verdict, fresh: bool) -> None:
        if self.world.examination is not None:
            self.traffic.flow(5.0)
            found = self.traffic.weighed()
            said = replace(found.judgement, verdict=verdict, fresh=fresh)
            self.world.evidence = replace(found, judgement=said)
        self.one_round()

    @rule(share=st.sampled_from([0.0, 0.0, 0.5]))
    def measures(self, share: float) -> None:
        """A while in which the judge itself says what it finds."""
        wanted = self.world.examination
        if wanted is not None:
            self.traffic.errors[wanted.revision] = share
        for _ in range(4):
            self.traffic.flow(10.0)
            if self.world.examination is not None:
                self.world.evidence = self.traffic.weighed()
            self.one_round()

    # the cluster --------------------------------------------------------------------------------

    @rule(index=_INDEX, ready=st.integers(0, 4))
    def runs_pods(self, index: int, ready: int) -> None:
        names = self.world.revisions()
        self.world.run_pods(names[index % len(names)], ready)

    @rule()
    def runs_all_pods(self) -> None:
        for name in self.world.revisions():
            self.world.run_pods(name)

    @rule(count=st.integers(1, 3))
    def runs_routers(self, count: int) -> None:
        self.world.run_routers(count)

    @rule(follow=st.booleans())
    def lets_routers_follow(self, follow: bool) -> None:
        self.world.routers_follow = follow

    @rule(seconds=st.sampled_from([1, 20, 61, 700, 86400, -5, -600, -3600]))
    def moves_the_clock(self, seconds: int) -> None:
        self.world.now += timedelta(seconds=seconds)

    @rule()
    def loses_status(self) -> None:
        self.world.lose_status()

    @rule(writes=st.integers(0, 8))
    def dies_amid_its_writes(self, writes: int) -> None:
        self.one_round(kill_after=writes)

    # the operator -------------------------------------------------------------------------------

    @rule(rounds=st.integers(1, 4))
    def works(self, rounds: int) -> None:
        for _ in range(rounds):
            self.one_round()

    @rule()
    def all_goes_well(self) -> None:
        self.world.routers_follow = True
        for _ in range(3):
            self.one_round()
            self.one_round()
            self.runs_all_pods()
            self.runs_routers(2)
        self.one_round()

    @rule(verdict=_VERDICTS, fresh=st.booleans())
    def a_step_is_over(self, verdict: Verdict, fresh: bool) -> None:
        """All pods and routers are there, its time has passed, and this is what was measured."""
        self.all_goes_well()
        self.moves_the_clock(61)
        self.judges(verdict, fresh)
        self.one_round()

    @rule(index=_INDEX, ready=st.integers(0, 1))
    def pods_die_amid_it(self, index: int, ready: int) -> None:
        self.runs_pods(index, ready)
        self.one_round()
        self.one_round()

    def one_round(self, *, kill_after: int | None = None) -> None:
        world = self.world
        world.note()
        before = {r.hash: r for r in world.history.revisions}
        stable = world.history.stable
        had = self.available(stable)
        world.round(kill_after=kill_after)
        world.note()
        for now in world.history.revisions:
            self.evidence_was_there(before.get(now.hash), now, stable, had)

    def evidence_was_there(
        self, before: Revision | None, now: Revision, stable: Revision | None, had: int
    ) -> None:
        """I5: nothing but fresh evidence or a person ends the last step beside a stable that
        serves.
        """
        was = before.rollout if before is not None else None
        if was is None or now.rollout is None or stable is None or not had or stable == before:
            return
        ended = not was.done and now.rollout.done and now.rollout.rolling
        promoted = before is not None and now.promotion != before.promotion and not was.done
        by_hand = before is not None and now.acknowledged != before.acknowledged
        if not (ended or promoted) or by_hand:
            return
        found = self.world.evidence
        assert found is not None, "nothing was measured"
        assert found.examination.revision == now.hash
        assert found.measured(self.world.now), "what was measured is old"
        lenient = self.world.resource["spec"]["rollout"].get("onInconclusive") == "Promote"
        passed = found.judgement.verdict is Verdict.PASS
        assert passed or (lenient and found.judgement.verdict is Verdict.INCONCLUSIVE)

    def available(self, revision: Revision | None) -> int:
        if revision is None or revision.hash not in self.world.revisions():
            return 0
        status = self.world.deployment(revision.hash).get("status", {})
        return int(status.get("availableReplicas", 0))

    def teardown(self) -> None:
        """I3, I4 and I7 of every write. (I5 of the fault runs goes by their clock.)"""
        found = [b for b in judge(self.world.happenings) if not b.startswith("I5")]
        assert found == []


_QUIET = [HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much]
QUICK = settings(
    max_examples=20, stateful_step_count=10, deadline=None, derandomize=True, database=None,
    suppress_health_check=_QUIET,
)  # fmt: skip
THOROUGH = settings(
    max_examples=400, stateful_step_count=50, deadline=None, suppress_health_check=_QUIET,
    print_blob=True,
)  # fmt: skip


def test_no_sequence_of_anything_breaks_an_invariant_of_the_rollout() -> None:
    run_state_machine_as_test(Rollouts, settings=QUICK)


@pytest.mark.slow
@pytest.mark.timeout(3000)
def test_no_long_sequence_does_either() -> None:
    run_state_machine_as_test(Rollouts, settings=THOROUGH)
