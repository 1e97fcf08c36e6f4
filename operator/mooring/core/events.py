"""Events: what has just happened, told once, with numbers where there are any."""

from __future__ import annotations

from dataclasses import dataclass

from mooring.core import kinds
from mooring.core.conditions import Finding
from mooring.core.judge import Verdict
from mooring.core.observed import Observed
from mooring.core.rollout import Move
from mooring.core.sentences import bounded
from mooring.core.situation import Situation

NORMAL, WARNING = "Normal", "Warning"


@dataclass(frozen=True, slots=True)
class Event:
    """An Event about the ModelDeployment; ``type`` is Normal or Warning."""

    type: str
    reason: str
    message: str


def events(
    observed: Observed, situation: Situation, findings: dict[str, Finding]
) -> tuple[Event, ...]:
    """What this decision brings about, and which conditions it turns."""
    deeds = _deeds(observed, situation)
    told = {deed.reason for deed in deeds}
    turns = (*turned(observed, findings), *_passed(observed, situation))
    return (*deeds, *(turn for turn in turns if turn.reason not in told))


def _passed(observed: Observed, situation: Situation) -> tuple[Event, ...]:
    """Evidence that has come to speak for a revision, with its numbers."""
    evidence = situation.evidence
    if evidence is None or evidence.judgement.verdict is not Verdict.PASS:
        return ()
    before = observed.status.get("analysis") or {}
    judged = evidence.examination.revision
    if (before.get("revision"), before.get("verdict")) == (judged, Verdict.PASS):
        return ()
    words = "; ".join(f"{one.name}: {one.reason}" for one in evidence.judgement.metrics)
    return (Event(NORMAL, "AnalysisPassed", bounded(f"revision {judged}: {words}")),)


def _deeds(observed: Observed, situation: Situation) -> tuple[Event, ...]:
    """What is done by writing a record; nothing while records are refused, for it is not done."""
    refused = (*observed.failures, *observed.foreign)
    if any(ref.kind == kinds.CONTROLLER_REVISION.name for ref in refused):
        return ()
    found = []
    if situation.verb is not None:
        verb = situation.verb
        kind = NORMAL if verb.accepted else WARNING
        name = "ActionTaken" if verb.accepted else "ActionRefused"
        found.append(Event(kind, name, f"{verb.action.verb}: {verb.message}"))
    if situation.created is not None:
        created = situation.created
        found.append(
            Event(NORMAL, "RevisionCreated", f"revision {created.hash} for {created.model_uri}")
        )
    found += [Event(NORMAL, "StepBegan", text) for text in situation.begun]
    if situation.promoted is not None:
        promoted = situation.promoted
        found.append(
            Event(NORMAL, "Promoted", f"revision {promoted.hash} is stable: {_why(situation)}")
        )
    if situation.retraining is not None:
        found += [Event(t.type, t.reason, t.message) for t in situation.retraining.told]
    if situation.rejected is not None and situation.rejected.rejected is not None:
        rejected = situation.rejected
        why = situation.rejected.rejected
        found.append(
            Event(WARNING, "RevisionRejected", f"revision {rejected.hash}: {why.reason}: "
                  f"{why.message}")
        )  # fmt: skip
    return tuple(found)


def _why(situation: Situation) -> str:
    if situation.rule.move is Move.PROMOTE:
        return situation.rule.message
    return "it serves already, and nothing else does"


def turned(observed: Observed, findings: dict[str, Finding]) -> tuple[Event, ...]:
    """Ready that came or went, and every new reason to be stalled."""
    before = {c.get("type"): c for c in observed.status.get("conditions") or ()}
    found = []
    ready, was = findings["Ready"], before.get("Ready") or {}
    if ready.status == "True" and was.get("status") != "True":
        found.append(Event(NORMAL, "Ready", ready.message))
    if ready.status != "True" and was.get("status") == "True":
        found.append(Event(WARNING, "NotReady", f"{ready.reason}: {ready.message}"))
    stalled, was = findings["Stalled"], before.get("Stalled") or {}
    if stalled.status == "True" and (was.get("status"), was.get("reason")) != (
        "True",
        stalled.reason,
    ):
        found.append(Event(WARNING, stalled.reason, stalled.message))
    return tuple(found)
