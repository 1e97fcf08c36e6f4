"""Verbs: what a person asks for by ``mooring.dev/action: <verb>/<revision>/<token>``.

Each is taken once per value. Its effect and its acknowledgement are written to the record of the
revision that it names, in one write, so neither a lost status nor a restart takes it twice; and a
late verb never hits another revision than the one that its author saw.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import datetime

from mooring.core.retrain.desk import Desk
from mooring.core.revision import History, Rejection, Revision
from mooring.core.steps import RolloutPlan, in_words

_FORM = re.compile(
    r"(?P<verb>[a-z-]{1,32})/(?P<revision>[a-z0-9-]{1,63})/(?P<token>[A-Za-z0-9._:-]{1,64})"
)


@dataclass(frozen=True, slots=True)
class Action:
    """A parsed annotation. ``revision`` is the hash, with or without the deployment's name."""

    verb: str
    revision: str
    token: str

    @property
    def mark(self) -> str:
        """What its revision remembers it by: people use a token again for another verb."""
        return f"{self.verb}/{self.token}"


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a verb. ``revision`` is the record that it names with its effect, if any, and
    its acknowledgement: one that was refused today must not come true when things have changed.
    None where there is no such record.
    """

    action: Action
    accepted: bool
    message: str
    revision: Revision | None = None

    @property
    def result(self) -> str:
        """As status has it."""
        return "Accepted" if self.accepted else "Refused"


@dataclass(frozen=True, slots=True)
class Scene:
    """What a verb may need to know: which revision is which when it arrives."""

    history: History
    stable: Revision | None
    target: Revision | None
    now: datetime
    desk: Desk = field(default_factory=Desk)


def parse_action(text: str, deployment: str) -> Action:
    """Reads the annotation; raises ValueError with the form it must have."""
    match = _FORM.fullmatch(text)
    if match is None:
        raise ValueError(
            "the annotation mooring.dev/action has the form <verb>/<revision>/<token>, "
            f"for example restart/{deployment}-bcdfghjklm/1"
        )
    revision = match["revision"].removeprefix(f"{deployment}-")
    return Action(match["verb"], revision, match["token"])


def take(action: Action, scene: Scene) -> Outcome | None:
    """Carries a verb out on the records; None when it was taken before."""
    revision = scene.history.by_hash(action.revision)
    if revision is None:
        return Outcome(action, False, f"there is no revision {action.revision} (any more)")
    if action.mark in revision.acknowledged:
        return None
    outcome = _VERBS.get(action.verb, _unknown)(action, revision, scene)
    return replace(outcome, revision=(outcome.revision or revision).acknowledge(action.mark))


def _unknown(action: Action, revision: Revision, scene: Scene) -> Outcome:
    known = ", ".join(sorted(_VERBS))
    return Outcome(action, False, f"unknown verb {action.verb!r}: use one of {known}")


def _abort(action: Action, revision: Revision, scene: Scene) -> Outcome:
    if scene.stable is not None and revision.hash == scene.stable.hash:
        return Outcome(
            action, False, f"revision {revision.hash} is stable: there is nothing to abort"
        )
    if scene.target is None or revision.hash != scene.target.hash or revision.rejected:
        return Outcome(action, False, f"revision {revision.hash} is not rolling out")
    rejection = Rejection("Aborted", "aborted by hand", scene.now)
    changed = replace(revision, rejected=rejection, paused=False)
    return Outcome(action, True, f"revision {revision.hash} is rejected", changed)


def _retry(action: Action, revision: Revision, scene: Scene) -> Outcome:
    if revision.rejected is None:
        return Outcome(action, False, f"revision {revision.hash} is not rejected")
    changed = replace(revision, rejected=None)
    return Outcome(action, True, f"revision {revision.hash} may roll out again", changed)


def _restart(action: Action, revision: Revision, scene: Scene) -> Outcome:
    if scene.target is None or revision.hash != scene.target.hash:
        return Outcome(
            action, False, f"revision {revision.hash} is not the one that the spec asks for"
        )
    # A token is unique only among the verbs that name one revision.
    changed = replace(revision, restart=f"{revision.hash}-{action.token}")
    return Outcome(
        action, True, f"revision {revision.hash} is rendered anew as a new revision", changed
    )


def _pause(action: Action, revision: Revision, scene: Scene) -> Outcome:
    if scene.target is None or revision.hash != scene.target.hash:
        return Outcome(action, False, f"revision {revision.hash} is not rolling out")
    if revision.rejected is not None:
        return Outcome(action, False, f"revision {revision.hash} was rejected: retry it first")
    if scene.stable is None:
        return Outcome(
            action, False, f"revision {revision.hash} is the first: nothing else could serve"
        )
    if revision.hash == scene.stable.hash:
        return Outcome(action, False, f"revision {revision.hash} is stable already")
    changed = replace(revision, paused=True)
    return Outcome(action, True, f"revision {revision.hash} waits for resume", changed)


def _resume(action: Action, revision: Revision, scene: Scene) -> Outcome:
    if not revision.paused:
        return Outcome(action, False, f"revision {revision.hash} is not paused")
    changed = replace(revision, paused=False)
    return Outcome(action, True, f"revision {revision.hash} goes on", changed)


def _promote(action: Action, revision: Revision, scene: Scene) -> Outcome:
    refused = _not_rolling(action, revision, scene)
    if refused is not None or revision.rollout is None:
        return refused or _no_rollout(action, revision)
    if revision.rollout.done and not revision.paused:
        return Outcome(
            action, False, f"revision {revision.hash} has no step left: it takes over when its "
            "pods are ready"
        )  # fmt: skip
    plan = revision.rollout.advanced() if not revision.rollout.done else revision.rollout
    changed = replace(revision, rollout=plan, paused=False)
    return Outcome(action, True, f"revision {revision.hash} goes on: {_place(plan)}", changed)


def _promote_full(action: Action, revision: Revision, scene: Scene) -> Outcome:
    refused = _not_rolling(action, revision, scene)
    if refused is not None or revision.rollout is None:
        return refused or _no_rollout(action, revision)
    changed = replace(revision, rollout=revision.rollout.skipped(), paused=False)
    return Outcome(
        action, True, f"revision {revision.hash} takes over as soon as its pods are ready", changed
    )


def _undo(action: Action, revision: Revision, scene: Scene) -> Outcome:
    if scene.stable is None or revision.hash != scene.stable.hash:
        return Outcome(action, False, f"revision {revision.hash} is not stable: undo names stable")
    if revision.rejected is not None:
        return Outcome(action, False, f"revision {revision.hash} is being taken back already")
    if _rolls_out(scene):
        return Outcome(action, False, "another revision is rolling out: abort that one first")
    before = scene.history.before(revision)
    if before is None:
        return Outcome(action, False, f"there is no revision before {revision.hash} to go back to")
    rejection = Rejection("Undone", "taken back by hand", scene.now)
    changed = replace(revision, rejected=rejection)
    return Outcome(
        action, True, f"revision {revision.hash} is taken back, {before.hash} takes over", changed
    )


def _retrain(action: Action, revision: Revision, scene: Scene) -> Outcome:
    if scene.stable is None or revision.hash != scene.stable.hash:
        return Outcome(
            action, False, f"revision {revision.hash} is not stable: retrain names stable"
        )
    refused = scene.desk.refusal
    if refused:
        return Outcome(action, False, refused)
    ledger, request = scene.desk.by_hand(revision.hash, action.token)
    changed = replace(revision, ledger=ledger)
    return Outcome(action, True, f"RetrainingRequest {request} asks for a new model", changed)


def _rolls_out(scene: Scene) -> bool:
    target, stable = scene.target, scene.stable
    if target is None or target.rejected is not None or stable is None:
        return False
    return target.hash != stable.hash


def _not_rolling(action: Action, revision: Revision, scene: Scene) -> Outcome | None:
    """Why it cannot be promoted; None when it can."""
    if scene.stable is not None and revision.hash == scene.stable.hash:
        return Outcome(action, False, f"revision {revision.hash} is stable already")
    if scene.target is None or revision.hash != scene.target.hash:
        return Outcome(action, False, f"revision {revision.hash} is not rolling out")
    if revision.rejected is not None:
        return Outcome(action, False, f"revision {revision.hash} was rejected: retry it first")
    return None


def _no_rollout(action: Action, revision: Revision) -> Outcome:
    return Outcome(action, False, f"the rollout of revision {revision.hash} has not begun yet")


def _place(plan: RolloutPlan) -> str:
    if plan.done:
        return "all traffic follows when its pods are ready"
    return f"step {(plan.index or 0) + 1} of {len(plan.steps)}, {in_words(plan.step)}"


_VERBS: dict[str, Callable[[Action, Revision, Scene], Outcome]] = {
    "abort": _abort,
    "pause": _pause,
    "promote": _promote,
    "promote-full": _promote_full,
    "restart": _restart,
    "resume": _resume,
    "retrain": _retrain,
    "retry": _retry,
    "undo": _undo,
}
