"""Writes the rules of a rollout, and a diagram of their course, into docs/rollouts.md.

Both are read off the one table in `mooring.core.rollout`: the diagram by letting the facts of a
step come true one after the other and asking the table each time. `--check` only says whether the
document is up to date (exit code 1 if not).
"""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

from mooring.core.rollout import RULES, Facts, Move, next_move

DOCUMENT = Path(__file__).parent.parent / "docs" / "rollouts.md"
_BEGIN, _END = "<!-- generated: rules -->", "<!-- end of generated: rules -->"
#: A step beside a stable that serves, and what comes true in it, in its natural order.
_STEP = Facts(candidate=True, has_stable=True, stable_serving=True, last=False)
_COURSE = (
    ("serving", "first pod available"),
    ("staffed", "the step's pods available"),
    ("taken", "every router has taken the routes"),
    ("begun", "its time begins"),
    ("elapsed", "its time is over"),
)
_LAST = (("serving", "first pod available"), ("complete", "all pods available"))
#: What evidence can do to the last step.
_EVIDENCE: tuple[tuple[str, dict[str, bool]], ...] = (
    ("the evidence fails", {"failed": True}),
    ("it passes, and advance is OnPass", {"passed": True, "passed_here": True, "on_pass": True}),
    ("its time is over without measurements", {"elapsed": True, "measured": False}),
    ("its time is over and nothing can be told", {"elapsed": True}),
    ("the same, and onInconclusive is Rollback", {"elapsed": True, "reject_inconclusive": True}),
)
#: What can happen in any state.
_FOR_PODS = ("Scaling", "Promoting")
_ANY = (("paused", "pause"), ("overdue", "no progress in time"))


def edges() -> list[tuple[str, str, str]]:
    """(state, what happens, next state), each once, in the order in which they are met."""
    found: dict[tuple[str, str, str], None] = {}
    for begin, course in ((_STEP, _COURSE), (replace(_STEP, last=True), _LAST)):
        facts = begin
        for name, happens in course:
            here = next_move(facts).reason
            for fact, event in _ANY:
                there = next_move(replace(facts, **{fact: True})).reason
                if fact == "overdue" and here not in _FOR_PODS:
                    continue  # the deadline runs only while pods are missing
                if there != here:
                    found[here, event, there] = None
            facts = replace(facts, **{name: True})
            if next_move(facts).reason != here:
                found[here, happens, next_move(facts).reason] = None
    waiting = replace(_STEP, serving=True, staffed=True, taken=True, begun=True, pause=True)
    found["StepBegins", "the step is a pause", next_move(waiting).reason] = None
    judged = replace(waiting, pause=False, judged=True, measured=True, final=True)
    for happens, changes in _EVIDENCE:
        there = next_move(replace(judged, **changes)).reason
        found["WaitingInStep", happens, there] = None
    found["WaitingForPromote", "promote", "StepDone"] = None
    zero, up = replace(judged, zero=True), replace(_STEP, stable_first=True)
    found["WaitingInStep", "scaled to 0", next_move(zero).reason] = None
    found[next_move(zero).reason, "scaled up", next_move(up).reason] = None
    found[next_move(up).reason, "stable's first pod, or no progress in time", "Scaling"] = None
    found["Paused", "resume or promote", "Scaling"] = None
    found["StepDone", "another step", "Scaling"] = None
    found["StepDone", "no step left", "Promoting"] = None
    return list(found)


def generated() -> str:
    """The part of the document between the marks."""
    lines = [_BEGIN, "", "```mermaid", "stateDiagram-v2", "    [*] --> Scaling: a new revision"]
    lines += [f"    {here} --> {there}: {event}" for here, event, there in edges()]
    ends = {rule.reason for rule in RULES if rule.move in (Move.PROMOTE, Move.REJECT)}
    met = {there for _, _, there in edges()}
    lines += [f"    {reason} --> [*]" for reason in sorted(ends & met)]
    lines += ["```", "", "The first rule that holds decides:", ""]
    lines += ["| | rule | then | because |", "| --- | --- | --- | --- |"]
    lines += [
        f"| {number} | {rule.reason} | {rule.move.value} | {rule.message} |"
        for number, rule in enumerate(RULES, 1)
    ]
    return "\n".join([*lines, "", _END])


def main() -> None:
    """Writes the document anew, or checks it."""
    text = DOCUMENT.read_text()
    before, _, rest = text.partition(_BEGIN)
    _, _, after = rest.partition(_END)
    wanted = before + generated() + after
    if "--check" not in sys.argv[1:]:
        DOCUMENT.write_text(wanted)
    elif wanted != text:
        sys.exit(f"{DOCUMENT.name} is stale: run make docs")


if __name__ == "__main__":
    main()
