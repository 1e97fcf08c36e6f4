"""The table of the rollout, row by row, and the clock of its deadline."""

from __future__ import annotations

import itertools
from dataclasses import fields
from datetime import UTC, datetime, timedelta
from functools import cache

import pytest

from mooring.core.progress import GRACE_AFTER_GAP, Progress
from mooring.core.rollout import RULES, Facts, Move, next_move

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)
TEN_MINUTES = timedelta(minutes=10)


def facts(*true: str) -> Facts:
    """A candidate whose steps are done, or which has none."""
    return Facts(**{"candidate": True} | dict.fromkeys(true, True))


def step(*true: str) -> Facts:
    """A candidate in a step, beside a stable that serves."""
    beside = {"candidate": True, "has_stable": True, "stable_serving": True, "last": False}
    return Facts(**beside | dict.fromkeys(true, True))


def judged(*true: str) -> Facts:
    """A candidate under judgement in a step whose time runs."""
    return step("serving", "staffed", "taken", "begun", "judged", *true)


TABLE: list[tuple[Facts, str, Move]] = [
    # Nothing rolls out.
    (Facts(candidate=False), "NoCandidate", Move.STAY),
    (Facts(candidate=False, has_stable=True, stable_serving=True), "NoCandidate", Move.STAY),
    # The first revision takes over as soon as it serves, since nothing else does.
    (facts(), "Promoting", Move.WAIT),
    (facts("serving"), "FirstRevision", Move.PROMOTE),
    (facts("serving", "complete"), "FirstRevision", Move.PROMOTE),
    (facts("zero"), "FirstRevision", Move.PROMOTE),
    (facts("serving", "paused"), "FirstRevision", Move.PROMOTE),
    (facts("overdue"), "Promoting", Move.WAIT),
    # Beside a stable that serves, only a complete candidate takes over.
    (facts("has_stable", "stable_serving"), "Promoting", Move.WAIT),
    (facts("has_stable", "stable_serving", "serving"), "Promoting", Move.WAIT),
    (facts("has_stable", "stable_serving", "serving", "complete"), "Complete", Move.PROMOTE),
    (facts("has_stable", "stable_serving", "zero", "complete"), "Complete", Move.PROMOTE),
    # A stable that does not serve must not block its own repair.
    (facts("has_stable"), "Promoting", Move.WAIT),
    (facts("has_stable", "serving"), "StableNotServing", Move.PROMOTE),
    (facts("has_stable", "serving", "overdue"), "StableNotServing", Move.PROMOTE),
    (
        Facts(candidate=True, has_stable=True, serving=True, last=False),
        "StableNotServing",
        Move.PROMOTE,
    ),
    # No progress in time: back to stable. Complete at the last moment is still complete.
    (facts("has_stable", "stable_serving", "overdue"), "ProgressDeadlineExceeded", Move.REJECT),
    (
        facts("has_stable", "stable_serving", "serving", "overdue"),
        "ProgressDeadlineExceeded",
        Move.REJECT,
    ),
    (facts("has_stable", "overdue"), "ProgressDeadlineExceeded", Move.REJECT),
    (facts("has_stable", "stable_serving", "complete", "overdue"), "Complete", Move.PROMOTE),
    (step("serving", "overdue"), "ProgressDeadlineExceeded", Move.REJECT),
    # What a person holds is held, whatever else is true.
    (facts("has_stable", "stable_serving", "complete", "paused"), "Paused", Move.HOLD),
    (facts("has_stable", "serving", "paused"), "Paused", Move.HOLD),
    (facts("has_stable", "stable_serving", "overdue", "paused"), "Paused", Move.HOLD),
    (step("serving", "staffed", "taken", "begun", "elapsed", "paused"), "Paused", Move.HOLD),
    # No pods asked for: a step shows nothing, so it neither ends nor is left out.
    (step("zero", "complete", "staffed", "taken"), "ScaledToZero", Move.HOLD),
    (step("zero", "complete", "staffed", "taken", "begun", "pause"), "ScaledToZero", Move.HOLD),
    (step("zero", "complete", "staffed", "taken", "begun", "elapsed"), "ScaledToZero", Move.HOLD),
    (step("zero", "paused"), "ScaledToZero", Move.HOLD),
    # On the way up from there stable is not broken: whichever pod came first would else decide.
    (step("stable_first"), "StableFirst", Move.WAIT),
    (
        Facts(candidate=True, has_stable=True, serving=True, last=False, stable_first=True),
        "StableFirst",
        Move.WAIT,
    ),
    (facts("has_stable", "serving", "stable_first"), "StableNotServing", Move.PROMOTE),
    # A step: first its pods, then its traffic, then its time.
    (step(), "Scaling", Move.WAIT),
    (step("serving"), "Scaling", Move.WAIT),
    (step("serving", "complete"), "Scaling", Move.WAIT),
    (step("serving", "staffed"), "Routing", Move.WAIT),
    (step("serving", "staffed", "elapsed", "begun"), "Routing", Move.WAIT),
    (step("serving", "staffed", "taken"), "StepBegins", Move.BEGIN),
    (step("serving", "staffed", "taken", "pause"), "StepBegins", Move.BEGIN),
    (step("serving", "staffed", "taken", "begun"), "WaitingInStep", Move.DWELL),
    (step("serving", "staffed", "taken", "begun", "pause"), "WaitingForPromote", Move.HOLD),
    (step("serving", "staffed", "taken", "begun", "elapsed"), "StepDone", Move.NEXT),
    # All of a candidate's pods are no reason to leave out a step.
    (step("serving", "staffed", "complete", "taken", "begun"), "WaitingInStep", Move.DWELL),
    # Evidence against the candidate ends everything, a pause too, where there is a way back.
    (step("serving", "failed"), "AnalysisFailed", Move.REJECT),
    (step("serving", "failed", "paused"), "AnalysisFailed", Move.REJECT),
    (facts("has_stable", "stable_serving", "complete", "failed"), "AnalysisFailed", Move.REJECT),
    (facts("has_stable", "serving", "failed"), "StableNotServing", Move.PROMOTE),
    (facts("serving", "failed"), "FirstRevision", Move.PROMOTE),
    # After the promotion it ends the bake, while there is one.
    (Facts(candidate=False, baking=True, failed=True), "AnalysisFailedInBake", Move.REJECT),
    (Facts(candidate=False, baking=True), "NoCandidate", Move.STAY),
    (Facts(candidate=False, failed=True), "NoCandidate", Move.STAY),
    # Evidence for it ends a step early only where the spec wants that, and never a pause.
    (judged("measured", "passed", "passed_here", "on_pass"), "PassedEarly", Move.NEXT),
    (judged("measured", "passed", "on_pass"), "WaitingInStep", Move.DWELL),
    (judged("measured", "passed", "passed_here"), "WaitingInStep", Move.DWELL),
    (
        judged("measured", "passed", "passed_here", "on_pass", "pause"),
        "WaitingForPromote",
        Move.HOLD,
    ),
    # A step that is over goes on with fresh measurements, the last one with a Pass.
    (judged("elapsed"), "NoData", Move.HOLD),
    (judged("elapsed", "final", "promote_inconclusive"), "NoData", Move.HOLD),
    (judged("elapsed", "final", "reject_inconclusive"), "NoData", Move.HOLD),
    (judged("elapsed", "measured"), "StepDone", Move.NEXT),
    (judged("elapsed", "measured", "final"), "AwaitingEvidence", Move.HOLD),
    (judged("elapsed", "measured", "final", "passed"), "StepDone", Move.NEXT),
    (judged("elapsed", "measured", "final", "promote_inconclusive"), "StepDone", Move.NEXT),
    (judged("elapsed", "measured", "final", "reject_inconclusive"), "Inconclusive", Move.REJECT),
]


@pytest.mark.parametrize(("given", "reason", "move"), TABLE)
def test_the_table(given: Facts, reason: str, move: Move) -> None:
    rule = next_move(given)
    assert (rule.reason, rule.move) == (reason, move)


def test_every_rule_is_needed_by_some_row() -> None:
    assert {next_move(given).reason for given, _, _ in TABLE} == {rule.reason for rule in RULES}


#: What evidence can say, by the facts that are true of it: all of its combinations are too many.
#: And the way up from no pods, before which there is none.
EVIDENCE: tuple[tuple[str, ...], ...] = (
    (),
    ("judged",),
    ("judged", "failed"),
    ("judged", "measured"),
    ("judged", "measured", "final"),
    ("judged", "measured", "final", "promote_inconclusive"),
    ("judged", "measured", "final", "reject_inconclusive"),
    ("judged", "measured", "passed", "passed_here", "on_pass"),
    ("judged", "failed", "baking"),
    ("stable_first",),
)
_OF_EVIDENCE = {"judged", "failed", "measured", "passed", "passed_here", "final", "on_pass",
                "promote_inconclusive", "reject_inconclusive", "baking",
                "stable_first"}  # fmt: skip


@cache
def every_combination() -> tuple[Facts, ...]:
    names = [field.name for field in fields(Facts) if field.name not in _OF_EVIDENCE]
    return tuple(
        Facts(**dict(zip(names, values, strict=True)), **dict.fromkeys(evidence, True))
        for evidence in EVIDENCE
        for values in itertools.product((False, True), repeat=len(names))
    )


@cache
def every_move() -> tuple[tuple[Facts, Move], ...]:
    return tuple((given, next_move(given).move) for given in every_combination())


def test_in_no_case_a_rejection_leaves_nothing_to_go_back_to() -> None:
    for given, move in every_move():
        if move is Move.REJECT:
            assert (given.candidate and given.has_stable) or given.baking


def test_in_no_case_a_serving_stable_is_left_for_less_than_all_pods() -> None:
    for given, move in every_move():
        if move is Move.PROMOTE and given.has_stable and given.stable_serving:
            assert given.complete


def test_in_no_case_a_candidate_without_progress_waits_for_ever() -> None:
    for given, move in every_move():
        without_pods = not given.last and (given.zero or given.stable_first)
        if given.paused or without_pods:
            continue  # a person holds it, or its pods are not asked for: no time of its own runs
        if given.candidate and given.has_stable and given.overdue:
            assert move in (Move.PROMOTE, Move.REJECT)


def test_in_no_case_a_step_is_left_out_while_stable_serves() -> None:
    for given, move in every_move():
        if given.has_stable and given.stable_serving and not given.last:
            assert move is not Move.PROMOTE or not given.candidate


def test_in_no_case_a_step_ends_before_its_traffic_was_taken_for_its_time() -> None:
    for given, move in every_move():
        if move is Move.NEXT:
            assert given.staffed
            assert given.taken
            assert given.begun
            assert given.elapsed or (given.on_pass and given.passed_here)
            assert not given.pause


def test_in_no_case_a_step_is_done_or_left_out_while_no_pods_are_asked_for() -> None:
    for given, move in every_move():
        if given.candidate and given.has_stable and given.zero and not given.last:
            assert move in (Move.HOLD, Move.REJECT)


def test_in_no_case_a_step_is_left_out_for_a_stable_that_is_on_its_way_up() -> None:
    for given, move in every_move():
        if given.candidate and given.has_stable and given.stable_first and not given.last:
            assert move is not Move.PROMOTE


def test_in_no_case_a_step_goes_on_without_measurements_that_were_asked_for() -> None:
    for given, move in every_move():
        if given.judged and not given.measured:
            assert move is not Move.NEXT


@pytest.mark.parametrize(
    ("available", "later", "expected"),
    [
        ([1, 2, 3], 0, 3),
        ([1, 0, 1, 0, 1], 4, 1),
        ([2, 1, 0], 2, 2),
        ([0, 0, 0], 2, 0),
    ],
)
def test_only_a_new_maximum_is_progress(available: list[int], later: int, expected: int) -> None:
    progress = Progress("a", 0, NOON)
    moment = NOON
    for count in available:
        moment += timedelta(minutes=1)
        progress = progress.advanced("a", count, moment)
    assert progress.most_available == expected
    if expected and later == 0:
        assert progress.since == moment
    elif not expected:
        assert progress.since == NOON
    else:
        assert progress.since == NOON + timedelta(minutes=1)


def test_another_revision_begins_anew() -> None:
    later = NOON + TEN_MINUTES
    assert Progress("a", 3, NOON).advanced("b", 1, later) == Progress("b", 1, later)


@pytest.mark.parametrize(
    ("allowed", "connected", "expected"),
    [
        (TEN_MINUTES, None, NOON + TEN_MINUTES),
        (TEN_MINUTES, NOON, NOON + TEN_MINUTES),
        # The operator was away when the deadline ran out.
        (TEN_MINUTES, NOON + 3 * TEN_MINUTES, NOON + 3 * TEN_MINUTES + GRACE_AFTER_GAP),
        # It came back just before.
        (TEN_MINUTES, NOON + timedelta(minutes=9, seconds=30), NOON + timedelta(minutes=10.5)),
        # The grace is never longer than the deadline itself.
        (timedelta(seconds=5), NOON + TEN_MINUTES, NOON + TEN_MINUTES + timedelta(seconds=5)),
    ],
)
def test_the_deadline_gives_what_nobody_saw_some_grace(
    allowed: timedelta, connected: datetime | None, expected: datetime
) -> None:
    assert Progress("a", 0, NOON).deadline(allowed, connected) == expected
