"""Whatever happens in whatever order, no episode is asked for twice, and nothing is adopted twice.

A machine of hypothesis lets data drift, settle and break, moves the clock, kills the operator
between two writes, loses status, edits the model, aborts candidates, and has whoever trains
succeed, fail or bring nonsense.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from datetime import timedelta
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule
from tests.core.retrain.setting import (
    JOB,
    TEMPLATE,
    drift,
    job_ends,
    made,
    request_status,
    retraining,
    serving,
    steady,
    unknown,
)
from tests.core.world import World

from mooring.core.retrain.facts import RetrainingFacts

BUDGET = {"perMonth": 50, "maxInFlight": 2, "maxIneffective": 50}
TRIGGERS: tuple[dict[str, Any], ...] = ({"drift": {"for": "1h"}}, {"schedule": "0 3 * * *"})


class Retrained(RuleBasedStateMachine):
    """One model, and all that may befall it."""

    def __init__(self) -> None:
        super().__init__()
        wanted = retraining(*TRIGGERS, action=JOB, cooldown="1h", budget=BUDGET)
        self.world: World = serving(wanted)
        self.world.retraining = RetrainingFacts(templates={"train": TEMPLATE})
        self.world.doubting = True
        self.episodes = 0
        self.drifting = False
        self.number = 0
        self.ever: dict[str, dict[str, Any]] = {}
        self.jobs: set[str] = set()

    def _note(self) -> None:
        """What was ever made: a deletion later must not hide it."""
        for name, request in self.world.requests.items():
            self.ever.setdefault(name, request["spec"])
        self.jobs |= set(made(self.world, "Job"))

    # the data ---------------------------------------------------------------------------------

    @rule(hours=st.sampled_from([0, 2]))
    def drifts(self, hours: int) -> None:
        if not self.drifting:
            self.episodes += 1
        self.drifting = True
        drift(self.world, timedelta(hours=hours))

    @rule()
    def settles_down(self) -> None:
        """And somebody is there to see it, or the episode may not have ended."""
        steady(self.world)
        self.world.round()
        self._note()
        self.drifting = False

    @rule()
    def is_not_known(self) -> None:
        unknown(self.world)

    @rule()
    def breaks(self) -> None:
        drift(self.world, timedelta(hours=2), healthy=False)
        if not self.drifting:
            self.episodes += 1
        self.drifting = True

    # misfortune -------------------------------------------------------------------------------

    @rule(writes=st.integers(0, 5))
    def dies_in_the_middle(self, writes: int) -> None:
        self.world.round(kill_after=writes)
        self._note()

    @rule()
    def loses_status(self) -> None:
        self.world.lose_status()

    @rule(hours=st.sampled_from([1, 5, 26]))
    def time_passes(self, hours: int) -> None:
        self.world.wait(hours=hours)

    @rule()
    def a_request_is_deleted(self) -> None:
        for name in sorted(self.world.requests)[:1]:
            if self.world.history.stable is None:
                return
            self.world.settle(20)  # one that nobody has seen yet would be made again
            self._note()
            self.world.requests.pop(name, None)
            self.world.made = {r: m for r, m in self.world.made.items() if r.name != name}
            jobs = {n: j for n, j in self.world.retraining.jobs.items() if n != name}
            self.world.retraining = replace(self.world.retraining, jobs=jobs)

    # people -----------------------------------------------------------------------------------

    @rule(outcome=st.sampled_from(["good", "bad", "fails"]))
    def a_job_ends(self, outcome: str) -> None:
        running = [n for n, j in self.world.retraining.jobs.items() if not j.ended]
        for name in running[:1]:
            self.number += 1
            uri = f"s3://models/{'fraud' if outcome == 'good' else 'other'}/r{self.number}"
            words = f'{{"uri": "{uri}", "digest": "sha256:{self.number:064x}"}}'
            job_ends(self.world, name, words, succeeded=outcome != "fails")

    @rule()
    def serves(self) -> None:
        self.world.serve()
        self._note()

    @rule(version=st.integers(1, 2))
    def git_changes_the_model(self, version: int) -> None:
        self.world.model(f"s3://models/fraud/v{version}")

    @rule()
    def aborts(self) -> None:
        candidate = (self.world.resource.get("status") or {}).get("candidate") or {}
        if candidate:
            self.number += 1
            self.world.act(f"abort/{candidate['revision']}/{self.number}")

    # never ------------------------------------------------------------------------------------

    @invariant()
    def no_occasion_is_asked_for_twice(self) -> None:
        self._note()
        occasions = Counter(
            (spec["revision"], spec["trigger"]["type"], spec["trigger"]["episode"])
            for spec in self.ever.values()
        )
        assert all(count == 1 for count in occasions.values()), occasions
        per_revision = Counter(
            spec["revision"] for spec in self.ever.values() if spec["trigger"]["type"] == "Drift"
        )
        assert all(count <= self.episodes for count in per_revision.values())

    @invariant()
    def no_job_without_its_request(self) -> None:
        assert self.jobs <= set(self.ever)

    @invariant()
    def no_request_is_adopted_by_two_models(self) -> None:
        models: dict[str, set[str]] = {}
        for revision in self.world.history.revisions:
            if revision.adopted is not None:
                models.setdefault(revision.adopted.request, set()).add(revision.model_uri)
        assert all(len(found) == 1 for found in models.values()), models

    @invariant()
    def only_allowed_models_roll_out(self) -> None:
        uris = [r.model_uri for r in self.world.history.revisions]
        assert all(uri.startswith("s3://models/fraud/") for uri in uris), uris

    def teardown(self) -> None:
        self.world.settle(20)
        for name in self.world.requests:
            assert request_status(self.world, name).get("phase"), "nobody tends it"


Retrained.TestCase.settings = settings(
    max_examples=25,
    stateful_step_count=25,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
test_no_order_of_events_asks_or_adopts_twice = Retrained.TestCase
