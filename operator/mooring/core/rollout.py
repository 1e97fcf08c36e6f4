"""The rollout: every rule that moves a candidate on, in one table, first match wins.

A candidate is the revision that is to become stable: the one that the spec asks for, or the
previous one while stable is taken back. The facts are plain values; what follows from them is
written down by :mod:`mooring.core.situation`. docs/rollouts.md shows this table.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum

from mooring.core.progress import SCALED_TO_ZERO


class Move(StrEnum):
    """What to do with the candidate now."""

    STAY = "Stay"
    #: Waits for the cluster; the progress deadline runs where pods are missing.
    WAIT = "Wait"
    #: Waits for the end of a step.
    DWELL = "Dwell"
    #: Waits for a person, so no time runs.
    HOLD = "Hold"
    #: The traffic of the step is taken: its time begins.
    BEGIN = "Begin"
    NEXT = "Next"
    PROMOTE = "Promote"
    REJECT = "Reject"


@dataclass(frozen=True, slots=True)
class Facts:
    """What the table looks at.

    ``stable_first``: none were asked for, and stable's first one is on its way again.
    ``complete``: all pods that the candidate should have as stable are available. ``serving``: at
    least one is. ``staffed``: those that the present step needs are. ``overdue``: no new pod became
    available within the progress deadline. ``zero``: no pods are asked for at all. ``last``: every
    step is done. ``taken``: every ready router sends the requests as the step asks for. ``begun``
    and ``elapsed``: the step's time runs, and is over. ``pause``: the step waits for a person.

    Of evidence: ``judged`` when an analysis is asked for. ``failed``: it speaks against the
    candidate, or against stable while that is ``baking``. ``measured``: there are fresh
    measurements. ``passed``: it speaks for the candidate; ``passed_here``: also after what this
    step's traffic showed. ``final``: no step follows. ``on_pass``, ``promote_inconclusive``,
    ``reject_inconclusive``: what the spec says to do with it.
    """

    candidate: bool
    has_stable: bool = False
    stable_serving: bool = False
    complete: bool = False
    serving: bool = False
    staffed: bool = False
    paused: bool = False
    overdue: bool = False
    zero: bool = False
    stable_first: bool = False
    last: bool = True
    taken: bool = False
    begun: bool = False
    elapsed: bool = False
    pause: bool = False
    judged: bool = False
    failed: bool = False
    measured: bool = False
    passed: bool = False
    passed_here: bool = False
    final: bool = False
    baking: bool = False
    on_pass: bool = False
    promote_inconclusive: bool = False
    reject_inconclusive: bool = False


@dataclass(frozen=True, slots=True)
class Rule:
    """One row: when it holds, this move, for this reason, which people may read.

    ``stage`` is the word for status, and ``awaits`` what it waits for there, to stand after "waits
    for": empty where it goes on at once.
    """

    reason: str
    stage: str
    when: Callable[[Facts], bool]
    move: Move
    message: str
    awaits: str = ""


RULES: tuple[Rule, ...] = (
    Rule(
        "AnalysisFailedInBake",
        "Baking",
        lambda f: not f.candidate and f.baking and f.failed,
        Move.REJECT,
        "the evidence speaks against the promoted revision",
    ),
    Rule("NoCandidate", "", lambda f: not f.candidate, Move.STAY, "nothing is rolling out"),
    Rule(
        "FirstRevision",
        "Promoting",
        lambda f: not f.has_stable and (f.serving or f.zero),
        Move.PROMOTE,
        "it is the first revision",
    ),
    Rule(
        "AnalysisFailed",
        "Waiting",
        lambda f: f.failed and f.has_stable and f.stable_serving,
        Move.REJECT,
        "the evidence speaks against it",
    ),
    Rule(
        "ScaledToZero",
        SCALED_TO_ZERO,
        lambda f: f.zero and f.has_stable and not f.last,
        Move.HOLD,
        "no pods are asked for, so nothing can be tried",
        "pods to be asked for again",
    ),
    Rule(
        "StableFirst",
        SCALED_TO_ZERO,
        lambda f: f.stable_first and f.has_stable and not f.last,
        Move.WAIT,
        "waiting for stable's first pod, before the candidate's",
        "stable's first pod",
    ),
    Rule(
        "Paused",
        "Paused",
        lambda f: f.paused,
        Move.HOLD,
        "paused by hand: resume or abort it",
        "somebody to say resume or abort",
    ),
    Rule(
        "Complete",
        "Promoting",
        lambda f: f.last and f.complete,
        Move.PROMOTE,
        "all pods of the candidate are ready",
    ),
    Rule(
        "StableNotServing",
        "Promoting",
        lambda f: f.has_stable and not f.stable_serving and f.serving,
        Move.PROMOTE,
        "stable does not serve, and the candidate does",
    ),
    Rule(
        "ProgressDeadlineExceeded",
        "Scaling",
        lambda f: f.overdue and f.has_stable,
        Move.REJECT,
        "no further pod became ready in time",
    ),
    Rule(
        "Promoting",
        "Promoting",
        lambda f: f.last,
        Move.WAIT,
        "waiting for the candidate's pods, to give it all the traffic",
        "the candidate's pods, to give it all the traffic",
    ),
    Rule(
        "Scaling",
        "Scaling",
        lambda f: not f.staffed,
        Move.WAIT,
        "waiting for the step's pods",
        "the step's pods",
    ),
    Rule(
        "Routing",
        "Routing",
        lambda f: not f.taken,
        Move.WAIT,
        "waiting until every router has taken the step's routes",
        "every router to take the step's routes",
    ),
    Rule(
        "StepBegins",
        "Waiting",
        lambda f: not f.begun,
        Move.BEGIN,
        "the step's traffic is taken",
    ),
    Rule(
        "WaitingForPromote",
        "Waiting",
        lambda f: f.pause,
        Move.HOLD,
        "the step waits for promote",
        "somebody to say promote",
    ),
    Rule(
        "PassedEarly",
        "Waiting",
        lambda f: f.on_pass and f.measured and f.passed_here and not f.elapsed,
        Move.NEXT,
        "the evidence passes before the step's time is over",
    ),
    Rule(
        "WaitingInStep",
        "Waiting",
        lambda f: not f.elapsed,
        Move.DWELL,
        "the step's time is not over",
        "the step's time to be over",
    ),
    Rule(
        "NoData",
        "Waiting",
        lambda f: f.judged and not f.measured,
        Move.HOLD,
        "the step's time is over, and there are no fresh measurements to go on by",
        "fresh measurements to go on by",
    ),
    Rule(
        "Inconclusive",
        "Waiting",
        lambda f: f.judged and f.final and not f.passed and f.reject_inconclusive and f.has_stable,
        Move.REJECT,
        "the evidence did not pass by the end of the last step",
    ),
    Rule(
        "AwaitingEvidence",
        "Waiting",
        lambda f: f.judged and f.final and not f.passed and not f.promote_inconclusive,
        Move.HOLD,
        "promotion waits until the evidence passes: promote or abort it to decide by hand",
        "the evidence to pass, or somebody to say promote or abort",
    ),
    Rule("StepDone", "Waiting", lambda f: True, Move.NEXT, "the step's time is over"),
)


def next_move(facts: Facts) -> Rule:
    """The first rule that holds; the last one always does."""
    return next(rule for rule in RULES if rule.when(facts))
