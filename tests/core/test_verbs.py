"""Verbs: each does one thing, to the revision that it names, once per value of the annotation."""

from __future__ import annotations

import pytest
from tests.core.given import copied
from tests.core.world import World

from mooring.core.kinds import Ref
from mooring.core.verbs import parse_action

V1, V2 = "s3://models/fraud/v1", "s3://models/fraud/v2"


def rolling_out() -> tuple[World, str, str]:
    world = World.with_spec()
    stable = world.serve()
    world.model(V2)
    world.settle()
    (candidate,) = set(world.revisions()) - {stable}
    return world, stable, candidate


def act(world: World, text: str) -> tuple[str, str]:
    """Gives a verb and lets it be taken; returns what status says came of it."""
    world.act(text)
    world.settle()
    last = world.status["lastAction"]
    return last["result"], last["message"]


# the form -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "revision", "token"),
    [
        ("abort/bcdfghjklm/1", "bcdfghjklm", "1"),
        ("abort/fraud-bcdfghjklm/1", "bcdfghjklm", "1"),
        ("abort/bcdfghjklm/2026-01-01T12:00:00Z.a_b", "bcdfghjklm", "2026-01-01T12:00:00Z.a_b"),
    ],
)
def test_the_revision_may_be_named_with_the_deployment_or_without(
    text: str, revision: str, token: str
) -> None:
    action = parse_action(text, "fraud")
    assert (action.verb, action.revision, action.token) == ("abort", revision, token)


WRONG = [
    "", " ", "abort", "abort/x", "abort//1", "abort/x/", "/x/1", "abort/x/1/2", "abort x 1",
    "Abort/x/1", "abort/X/1", "abort/x/a b", "abort/x/a,b", "abort/x/1\n", "abort/x/" + "1" * 65,
    "abort/" + "x" * 64 + "/1", "a" * 33 + "/x/1", "ä/x/1",
]  # fmt: skip


@pytest.mark.parametrize("text", WRONG)
def test_a_wrong_form_is_refused_with_the_right_one(text: str) -> None:
    world, _, _ = rolling_out()
    result, message = act(world, text)
    assert result == "Refused"
    assert "<verb>/<revision>/<token>" in message
    assert len([t for t in world.told if "ActionRefused" in t]) == 1
    last = world.status["lastAction"]
    assert len(last["token"]) <= 253
    writes = len(world.writes)
    world.settle()
    assert len(world.writes) == writes


def test_an_unknown_verb_names_those_that_there_are() -> None:
    world, _, candidate = rolling_out()
    result, message = act(world, f"promot/{candidate}/1")
    assert result == "Refused"
    for verb in ("abort", "pause", "restart", "resume", "retry"):
        assert verb in message


def test_a_revision_that_does_not_exist_is_said_to_be_gone() -> None:
    world, _, _ = rolling_out()
    result, message = act(world, "abort/zzzzzzzzzz/1")
    assert result == "Refused"
    assert "zzzzzzzzzz" in message


# each of them ---------------------------------------------------------------------------------


def test_abort_rejects_the_candidate_and_stable_serves_on() -> None:
    world, stable, candidate = rolling_out()
    assert act(world, f"abort/{candidate}/1")[0] == "Accepted"
    assert world.revisions() == [stable]
    (rejected,) = world.status["rejectedRevisions"]
    assert (rejected["revision"], rejected["reason"]) == (candidate, "Aborted")


def test_abort_takes_back_a_first_revision_that_does_not_serve() -> None:
    world = World.with_spec()
    world.settle()
    (first,) = world.revisions()
    assert act(world, f"abort/{first}/1")[0] == "Accepted"
    assert world.revisions() == []
    assert world.reason("Ready") == "Aborted"
    assert act(world, f"retry/{first}/2")[0] == "Accepted"
    assert world.serve() == first


def test_retry_lets_a_rejected_revision_roll_out_again() -> None:
    world, _, candidate = rolling_out()
    act(world, f"abort/{candidate}/1")
    assert act(world, f"retry/{candidate}/2")[0] == "Accepted"
    assert world.serve() == candidate


def test_pause_and_resume_hold_a_candidate_and_let_it_go() -> None:
    world, stable, candidate = rolling_out()
    assert act(world, f"pause/{candidate}/1")[0] == "Accepted"
    assert world.serve() == stable
    assert act(world, f"resume/{candidate}/2")[0] == "Accepted"
    assert world.serve() == candidate


def test_abort_of_a_paused_candidate_leaves_nothing_paused() -> None:
    world, _, candidate = rolling_out()
    act(world, f"pause/{candidate}/1")
    act(world, f"abort/{candidate}/2")
    act(world, f"retry/{candidate}/3")
    assert world.serve() == candidate


def test_restart_makes_a_revision_of_the_same_inputs_that_takes_over_when_ready() -> None:
    world = World.with_spec()
    old = world.serve()
    assert act(world, f"restart/{old}/1")[0] == "Accepted"
    assert world.routed() == old
    new = world.serve()
    assert new != old
    world.model(V1)
    world.settle()
    assert world.revisions() == [new], "the same spec again is no reason to go back"


def test_restart_works_again_and_again_with_the_same_token() -> None:
    world = World.with_spec()
    seen = [world.serve()]
    for _ in range(3):
        assert act(world, f"restart/{seen[-1]}/1")[0] == "Accepted"
        seen.append(world.serve())
    assert len(set(seen)) == 4


def test_a_restart_of_the_first_revision_takes_no_pods_away_that_have_just_begun_to_serve() -> None:
    world = World.with_spec()
    world.settle()
    (first,) = world.revisions()
    world.act(f"restart/{first}/1")
    world.run_pods(first)
    world.settle()
    assert world.routed() == first
    assert world.counts()[first] == 2
    assert world.serve() != first


@pytest.mark.parametrize("kill_after", range(6))
def test_a_restart_survives_being_killed_at_any_write(kill_after: int) -> None:
    world = World.with_spec()
    old = world.serve()
    world.act(f"restart/{old}/1")
    world.round(kill_after=kill_after)
    new = world.serve()
    assert new != old
    assert len(world.history.revisions) == 2


def test_a_restart_that_fails_leaves_the_running_pods_alone() -> None:
    world = World.with_spec()
    old = world.serve()
    act(world, f"restart/{old}/1")
    (new,) = set(world.revisions()) - {old}
    world.fail_pods(new, "ServerFailed", "no")
    world.settle()
    world.wait(minutes=11)
    world.settle()
    assert world.counts() == {old: 2}
    assert world.routed() == old
    assert world.status["rejectedRevisions"][0]["revision"] == new


def test_a_restart_is_not_made_again_when_its_revision_is_forgotten() -> None:
    rollout = {"progressDeadline": "10m", "revisionHistoryLimit": 0}
    world = World.with_spec(rollout=rollout)
    old = world.serve()
    act(world, f"restart/{old}/1")
    world.wait(minutes=11)
    world.settle()
    world.model(V2)
    world.settle()
    world.model(V1)
    world.settle()
    assert world.revisions() == [old]


def test_a_restart_that_cannot_be_rendered_is_made_when_it_can() -> None:
    world = World.with_spec()
    old = world.serve()
    runtime = world.runtimes.pop("onnx")
    act(world, f"restart/{old}/1")
    assert world.reason("Stalled") == "RuntimeNotFound"
    assert world.reason("Ready") == ""
    world.runtimes["onnx"] = runtime
    assert world.serve() != old


# refused --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("verb", "whom", "words"),
    [
        ("abort", "stable", "is stable"),
        ("pause", "stable", "not rolling out"),
        ("restart", "stable", "not the one that the spec asks for"),
        ("resume", "candidate", "not paused"),
        ("retry", "candidate", "not rejected"),
        ("retry", "stable", "not rejected"),
    ],
)
def test_what_makes_no_sense_is_refused_with_the_reason(verb: str, whom: str, words: str) -> None:
    world, stable, candidate = rolling_out()
    name = {"stable": stable, "candidate": candidate}[whom]
    result, message = act(world, f"{verb}/{name}/1")
    assert result == "Refused"
    assert words in message
    assert name in message
    assert {*world.revisions()} == {stable, candidate}


def test_where_nothing_rolls_out_there_is_nothing_to_abort_promote_or_pause() -> None:
    world = World.with_spec()
    stable = world.serve()
    before = copied(world.children)
    for verb in ("abort", "promote", "promote-full", "pause", "resume", "retry", "undo"):
        result, message = act(world, f"{verb}/{stable}/{verb}")
        assert (result, stable in message) == ("Refused", True), verb
    named = Ref("ControllerRevision", f"fraud-{stable}")
    changed = {ref for ref, child in world.children.items() if child != before[ref]}
    assert changed == {named}, "nothing but what was said to it"
    assert world.history.stable is not None
    assert (world.history.stable.rejected, world.history.stable.paused) == (None, False)


def test_a_rejected_revision_cannot_be_paused_and_the_first_needs_no_pause() -> None:
    world, _, candidate = rolling_out()
    act(world, f"abort/{candidate}/1")
    assert "retry it first" in act(world, f"pause/{candidate}/2")[1]
    fresh = World.with_spec()
    fresh.settle()
    (first,) = fresh.revisions()
    assert "nothing else could serve" in act(fresh, f"pause/{first}/1")[1]


# once -----------------------------------------------------------------------------------------


def test_a_verb_is_taken_and_told_once() -> None:
    world, _, candidate = rolling_out()
    act(world, f"pause/{candidate}/1")
    act(world, f"resume/{candidate}/2")
    act(world, f"pause/{candidate}/1")
    assert world.status["lastAction"]["verb"] == "resume", "a token that comes back is an old one"
    assert len([t for t in world.told if "ActionTaken" in t]) == 2
    assert world.serve() == candidate


def test_a_lost_status_does_not_let_it_be_taken_again() -> None:
    world, _, candidate = rolling_out()
    act(world, f"abort/{candidate}/1")
    act(world, f"retry/{candidate}/2")
    world.act(f"abort/{candidate}/1")
    world.lose_status()
    assert world.serve() == candidate


def test_a_refused_verb_does_not_come_true_when_things_have_changed() -> None:
    world = World.with_spec()
    first = world.serve()
    assert act(world, f"pause/{first}/1")[0] == "Refused"  # it is stable
    world.model(V2)
    world.serve()
    world.model(V1)
    assert world.serve() == first, "the annotation stands there still, and pauses nobody"


def test_nor_when_status_is_lost_meanwhile() -> None:
    world, stable, candidate = rolling_out()
    act(world, f"abort/{stable}/1")
    world.serve()
    world.model(V1)
    world.lose_status()
    world.settle()
    assert world.status["candidate"]["revision"] == stable
    assert world.serve() == stable
    assert candidate not in world.revisions()


def test_a_late_verb_never_hits_another_revision() -> None:
    world, stable, candidate = rolling_out()
    world.model("s3://models/fraud/v3")
    world.settle()
    result, message = act(world, f"abort/{candidate}/1")
    assert (result, "not rolling out" in message) == ("Refused", True)
    assert len(world.revisions()) == 2
    assert world.routed() == stable


def test_a_verb_older_than_its_record_is_not_taken_again() -> None:
    world = World.with_spec(rollout={"progressDeadline": "10m", "revisionHistoryLimit": 0})
    world.serve()
    world.model(V2)
    world.settle()
    (candidate,) = set(world.revisions()) - {world.routed()}
    act(world, f"abort/{candidate}/1")
    world.model("s3://models/fraud/v3")
    world.serve()
    assert Ref("ControllerRevision", f"fraud-{candidate}") not in world.children
    world.model(V2)
    assert world.serve() == candidate, "its acknowledgement went with its record; it stays taken"


def test_another_verb_with_the_token_of_a_refused_one_is_taken() -> None:
    world, _, candidate = rolling_out()
    act(world, "abort/zzzzzzzzzz/1")
    act(world, f"pause/{candidate}/1")
    assert world.status["lastAction"]["result"] == "Accepted"


def test_a_token_may_serve_again_for_another_verb() -> None:
    world, stable, candidate = rolling_out()
    act(world, f"pause/{candidate}/1")
    assert world.serve() == stable
    assert act(world, f"resume/{candidate}/1")[0] == "Accepted"
    assert world.serve() == candidate


def test_each_of_two_wrong_verbs_is_told() -> None:
    world, _, _ = rolling_out()
    act(world, "abort/zzzzzzzzzz/1")
    act(world, "abort/yyyyyyyyyy/1")
    assert world.status["lastAction"]["revision"] == "yyyyyyyyyy"
    assert len([t for t in world.told if "ActionRefused" in t]) == 2


@pytest.mark.parametrize("kill_after", range(5))
def test_killed_while_taking_a_verb_it_is_taken_once_all_the_same(kill_after: int) -> None:
    world, stable, candidate = rolling_out()
    world.act(f"abort/{candidate}/1")
    world.round(kill_after=kill_after)
    world.settle()
    assert world.revisions() == [stable]
    acknowledged = world.children[Ref("ControllerRevision", f"fraud-{candidate}")]["metadata"][
        "annotations"
    ]["mooring.dev/acknowledged"]
    assert acknowledged == "abort/1"


def test_many_tokens_are_remembered_but_not_without_end() -> None:
    world, _, candidate = rolling_out()
    for number in range(30):
        act(world, f"{'resume' if number % 2 else 'pause'}/{candidate}/t{number}")
    record = world.children[Ref("ControllerRevision", f"fraud-{candidate}")]
    tokens = record["metadata"]["annotations"]["mooring.dev/acknowledged"].split(",")
    assert [token.split("/")[1] for token in tokens] == [f"t{n}" for n in range(29, 9, -1)]


def test_a_verb_wins_over_what_was_measured_before_it() -> None:
    world, stable, candidate = rolling_out()
    world.run_pods(candidate, ready=0)
    world.settle()
    world.run_pods(candidate)
    world.act(f"abort/{candidate}/1")
    world.settle()
    assert world.routed() == stable
    assert world.revisions() == [stable]
