"""Verbs: what a person asks for by ``mooring.dev/action: <verb>/<revision>/<token>``.

Each is taken once per value. Its effect and its acknowledgement are written to the record of the
revision that it names, in one write, so neither a lost status nor a restart takes it twice; and a
late verb never hits another revision than the one that its author saw.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime

from mooring.core.revision import History, Rejection, Revision

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


_VERBS: dict[str, Callable[[Action, Revision, Scene], Outcome]] = {
    "abort": _abort,
    "pause": _pause,
    "restart": _restart,
    "resume": _resume,
    "retry": _retry,
}
