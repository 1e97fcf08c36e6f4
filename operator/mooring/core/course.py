"""The course of a rollout: who has which role, what the table decides, and what follows from it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime

from mooring.api import ModelDeployment, ModelDeploymentSpec, parse_duration
from mooring.core import kinds
from mooring.core.allocation import ENVOY, REPLICAS, Roles, Setting, allocate
from mooring.core.analysis import Standard, standard
from mooring.core.capacity import Capacity, capacity, digest_pinned, needed, total
from mooring.core.examination import Evidence, Phase, evidence_for, examine
from mooring.core.judge import Verdict
from mooring.core.observed import Observed
from mooring.core.observed_routing import read_routing
from mooring.core.pods import worst
from mooring.core.progress import SCALED_TO_ZERO, Clock, Progress, ends, follow, stable_first
from mooring.core.render.metadata import child_name
from mooring.core.revision import History, Rejection, Revision
from mooring.core.rollout import Facts, Move, Rule, next_move
from mooring.core.signals import Signals
from mooring.core.situation import Situation
from mooring.core.steps import RolloutPlan, duration, in_words
from mooring.core.traffic import Route

#: What is kept of them in a record (characters).
_LAST_WORDS_LIMIT = 1000


def go_on(
    observed: Observed, resource: ModelDeployment, history: History, target: Revision | None
) -> Situation:
    """Finds the roles, lets the table decide, and says what everybody should have afterwards."""
    spec = resource.spec
    for revision in history.revisions:
        history = history.with_revision(_by_this_clock(revision, observed.now))
    target = _by_this_clock(target, observed.now) if target is not None else None
    stable = history.stable
    capacities = {
        r.hash: capacity(observed.child(kinds.DEPLOYMENT, child_name(observed.name, r.hash)))
        for r in history.revisions
    }
    setting = Setting(
        total=total(spec, capacities[stable.hash] if stable else Capacity()),
        autoscaled=spec.autoscaling is not None,
        router=spec.traffic.router,
        capacities=capacities,
        routing=read_routing(observed),
    )
    candidate = _candidate(history, target, capacities)
    history = _drop_others(history, candidate)
    if candidate is not None and (candidate.rollout is None or not candidate.rollout.rolling):
        candidate = replace(candidate, rollout=_begin(spec, stable, candidate))
    if candidate is not None and candidate.rollout is not None:
        runs = _available(observed, candidate, capacities.get(candidate.hash, Capacity())) > 0
        candidate = replace(candidate, rollout=candidate.rollout.timed(observed.now, runs=runs))
        history = history.with_revision(candidate)
    situation = Situation(
        history=history, stable=stable, target=_same(target, candidate), candidate=candidate,
        blocked=None, verb=None, rule=next_move(Facts(candidate=False)), progress=None,
        deadline=None, until=None, setting=setting, capacities=capacities, counts={},
        route=Route(), total=setting.total, needed=needed(spec), autoscaled=setting.autoscaled,
        held_to=_held_to(observed, spec, candidate or stable),
    )  # fmt: skip
    situation = _decided(observed, spec, situation)
    if situation.rule.reason == "AnalysisFailedInBake":
        return _taken_back(observed, resource, situation)
    return _examined(observed, spec, _placed(observed, situation))


def _held_to(
    observed: Observed, spec: ModelDeploymentSpec, judged: Revision | None
) -> Standard | None:
    if judged is None:
        return None
    return standard(
        spec,
        observed.settings,
        namespace=observed.namespace,
        name=observed.name,
        revision=judged.hash,
        signals=Signals.of(judged.rendered.signals),
    )


def _by_this_clock(revision: Revision, now: datetime) -> Revision:
    """What began in the future by this clock begins now.

    The clock was set back, or a leader before had another one. Written down once, since its end
    would else be another one in every round, and each would write it to status.
    """
    plan, promoted_at = revision.rollout, revision.promoted_at
    if plan is not None:
        revision = replace(revision, rollout=plan.not_after(now))
    if promoted_at is not None and promoted_at > now:
        revision = replace(revision, promoted_at=now)
    return revision


def _same(target: Revision | None, candidate: Revision | None) -> Revision | None:
    """The target as it is now: when it is the candidate, that has changed."""
    if target is None or candidate is None or target.hash != candidate.hash:
        return target
    return candidate


def _candidate(
    history: History, target: Revision | None, capacities: Mapping[str, Capacity]
) -> Revision | None:
    """Who is to become stable: the revision before it while stable is taken back, else the target.

    A stable revision that was rejected (undone, or failed after its promotion) goes before
    anything else: what it was promoted over takes its place again.
    """
    stable = history.stable
    if stable is not None and stable.rejected is not None:
        before = history.before(stable)
        if before is not None:
            return before
    if target is None or target.rejected is not None:
        return None
    return None if stable is not None and target.hash == stable.hash else target


def _begin(spec: ModelDeploymentSpec, stable: Revision | None, candidate: Revision) -> RolloutPlan:
    """Its steps; none for the first revision, nor on the way back to the one before."""
    plan = RolloutPlan.begin(spec.rollout)
    if candidate.rollout is not None:
        plan = replace(plan, attempt=candidate.rollout.attempt + 1)
    if stable is None or (stable.rejected is not None and candidate.promotion is not None):
        return replace(plan, steps=())
    return plan


def _drop_others(history: History, candidate: Revision | None) -> History:
    """Ends the rollout of whoever is not the candidate any more; it begins anew when it is again.

    A pause ends with it.
    """
    for revision in history.revisions:
        if candidate is not None and revision.hash == candidate.hash:
            continue
        if revision.rollout is not None and revision.rollout.rolling:
            ended = replace(revision, rollout=revision.rollout.ended(), paused=False)
            history = history.with_revision(ended)
    return history


def _decided(observed: Observed, spec: ModelDeploymentSpec, situation: Situation) -> Situation:
    """Asks the table until it wants to wait; every turn but the last ends a step or begins one."""
    while True:
        situation = _judged(observed, spec, situation)
        candidate, move = situation.candidate, situation.rule.move
        if candidate is None or candidate.rollout is None:
            return situation
        if move is Move.BEGIN:
            plan = replace(candidate.rollout, since=observed.now)
            situation = replace(situation, begun=(*situation.begun, _told(candidate)))
        elif move is Move.NEXT:
            plan = candidate.rollout.advanced()
        else:
            return _carry_out(observed, situation)
        changed = replace(candidate, rollout=plan)
        situation = replace(
            situation,
            history=situation.history.with_revision(changed),
            candidate=changed,
            target=_same(situation.target, changed),
        )


def _told(candidate: Revision) -> str:
    """What an Event says of the step that begins."""
    plan = candidate.rollout or RolloutPlan()
    place = f"step {plan.number} of {len(plan.steps)}"
    return f"revision {candidate.hash}: {place}: {in_words(plan.step)}"


def _judged(observed: Observed, spec: ModelDeploymentSpec, situation: Situation) -> Situation:
    """What the table says of the candidate as it stands."""
    candidate, stable, setting = situation.candidate, situation.stable, situation.setting
    if candidate is None:
        return _judged_in_bake(observed, situation)
    if candidate.rollout is None:
        return situation
    plan = candidate.rollout
    evidence = _evidence(observed, situation)
    roles = _roles(observed, situation)
    wants = allocate(roles, setting)
    has = setting.capacity(candidate)
    count = _count(observed, candidate, wants.counts.get(candidate.hash, 0), has)
    everything = _count(observed, candidate, setting.total, has)
    begun = plan.since is not None
    ends_at = None
    if plan.since is not None and plan.step is not None and plan.step.pause is None:
        since = min(plan.since, observed.now)
        ends_at = ends(since, duration(plan.step), observed.connected_since)
    measured = _measured(observed, situation, evidence)
    passed = measured and _passed(evidence)
    allowed = parse_duration(spec.rollout.progress_deadline)
    first = _stable_first(observed, situation, candidate)
    first_until = first.deadline(allowed, observed.connected_since) if first else None
    facts = Facts(
        candidate=True,
        has_stable=stable is not None,
        stable_serving=stable is not None
        and (setting.capacity(stable).available > 0 or wants.counts.get(stable.hash) == 0),
        complete=everything == setting.total and has.serves(setting.total),
        serving=has.available > 0,
        staffed=wants.staffed and has.available >= count,
        paused=candidate.paused,
        zero=setting.total == 0,
        stable_first=first_until is not None and observed.now < first_until,
        last=plan.done,
        taken=_taken(observed, setting, wants.route),
        begun=begun,
        elapsed=ends_at is not None and observed.now >= ends_at,
        pause=plan.step is not None and plan.step.pause is not None,
        judged=situation.held_to is not None,
        failed=_failed(evidence),
        measured=measured,
        passed=passed,
        passed_here=passed and _of_step(evidence, plan),
        final=plan.final,
        on_pass=spec.rollout.advance == "OnPass",
        promote_inconclusive=spec.rollout.on_inconclusive == "Promote",
        reject_inconclusive=spec.rollout.on_inconclusive == "Rollback",
    )
    rule = next_move(facts)
    given = setting.total == 0 or wants.counts.get(candidate.hash) != 0
    clock = _clock(rule) if given else Clock.OFF  # it cannot have pods that it is not given
    deadline, until = None, ends_at if rule.move is Move.DWELL else None
    if rule.reason == "StableFirst" and first is not None:
        progress, until = first, first_until
    else:
        available = _available(observed, candidate, has)
        recorded = observed.status.get("rollout") or {}
        progress = follow(
            recorded, observed.now, candidate.hash, plan.number, available, clock, allowed
        )
    if clock is Clock.RUNS:
        deadline = progress.deadline(allowed, observed.connected_since)
        rule = next_move(replace(facts, overdue=observed.now >= deadline))
    return replace(
        situation, rule=rule, progress=progress, deadline=deadline, until=until, evidence=evidence
    )


def _judged_in_bake(observed: Observed, situation: Situation) -> Situation:
    """What the table says while the revision before stable is kept."""
    baking = situation.stable is not None and _roles(observed, situation).previous is not None
    evidence = _evidence(observed, situation) if baking else None
    rule = next_move(Facts(candidate=False, baking=baking, failed=_failed(evidence)))
    return replace(situation, rule=rule, evidence=evidence)


def _evidence(observed: Observed, situation: Situation) -> Evidence | None:
    """What is known of the revision under judgement: the candidate, or stable in its bake."""
    judged = situation.candidate or situation.stable
    if situation.held_to is None or judged is None or judged.rejected is not None:
        return None
    return evidence_for(observed, judged)


def _failed(evidence: Evidence | None) -> bool:
    return evidence is not None and evidence.judgement.verdict is Verdict.FAIL


def _measured(observed: Observed, situation: Situation, evidence: Evidence | None) -> bool:
    complete = situation.held_to is not None and not situation.held_to.gaps
    return complete and evidence is not None and evidence.measured(observed.now)


def _passed(evidence: Evidence | None) -> bool:
    return evidence is not None and evidence.judgement.verdict is Verdict.PASS


def _of_step(evidence: Evidence | None, plan: RolloutPlan) -> bool:
    """Whether requests that were split as this step asks are part of it."""
    if evidence is None or plan.since is None or plan.step is None or plan.step.weight is None:
        return False
    weights = evidence.examination.weights
    counted = evidence.judgement.state.split[0] > 0 or not evidence.examination.analysis.counted
    # Pods are as near to a weight as whole ones can be; the step's time says whose they are.
    split = weights.candidate == plan.step.weight or bool(evidence.examination.groups)
    return evidence.at > plan.since and split and counted


def _examined(observed: Observed, spec: ModelDeploymentSpec, situation: Situation) -> Situation:
    """What is to be measured until the next decision."""
    held_to, stable = situation.held_to, situation.stable
    if held_to is None or not held_to.analysis.metrics or stable is None or stable.rejected:
        return replace(situation, evidence=None if held_to is None else situation.evidence)
    judged, against, phase = situation.candidate, stable, Phase.ROLLOUT
    if judged is None:
        if situation.previous is None or situation.baking_until is None:
            return situation
        judged, against, phase = stable, situation.previous, Phase.BAKE
    wanted = examine(
        observed,
        judged,
        against,
        held_to,
        situation.setting.routing,
        phase=phase,
        split=_split(spec, situation, judged, phase),
        available={name: has.available for name, has in situation.capacities.items()},
        sticky=spec.traffic.session_affinity is not None,
    )
    return replace(situation, examination=wanted)


def _split(
    spec: ModelDeploymentSpec, situation: Situation, judged: Revision, phase: Phase
) -> tuple[int, datetime | None]:
    """The share of the revision under judgement (percent), and since when it is in force.

    A router says when it has taken it. Without one the share is that of the step, from when its
    pods were there.
    """
    if spec.traffic.router == ENVOY:
        routing = situation.setting.routing
        return routing.route.weight(judged.hash), routing.taken_at
    since = judged.promoted_at
    if phase is Phase.ROLLOUT:
        since = judged.rollout.since if judged.rollout is not None else None
    return situation.route.weight(judged.hash), since


def _taken(observed: Observed, setting: Setting, route: Route) -> bool:
    """Whether requests go by the route that the step asks for."""
    if setting.router == REPLICAS:
        return True  # the Service follows the pods by itself
    return setting.routing.carries(route)


def _roles(observed: Observed, situation: Situation) -> Roles:
    stable, candidate, setting = situation.stable, situation.candidate, situation.setting
    previous = None
    if stable is not None and candidate is None and _baking(observed, stable) is not None:
        previous = situation.history.before(stable)
        if previous is not None and not setting.capacity(previous).exists:
            previous = None
    live = {r.hash for r in (stable, candidate, previous) if r is not None}
    leaving = tuple(
        r
        for r in situation.history.revisions
        if stable is not None and r.hash not in live and setting.capacity(r).exists
    )
    return Roles(stable, candidate, previous, leaving)


def _baking(observed: Observed, stable: Revision) -> datetime | None:
    """Until when the revision before this one is kept; None when it is not (any more)."""
    plan = stable.rollout
    if plan is None or plan.bake is None or stable.promoted_at is None or stable.rejected:
        return None
    since = min(stable.promoted_at, observed.now)
    until = ends(since, plan.bake, observed.connected_since)
    return until if observed.now < until else None


def _placed(observed: Observed, situation: Situation) -> Situation:
    """Pods and traffic for the roles as they are after the decision."""
    roles = _roles(observed, situation)
    wants = allocate(roles, situation.setting)
    by_hash = {r.hash: r for r in situation.history.revisions}
    counts = {
        name: _count(observed, by_hash[name], count, situation.capacities.get(name, Capacity()))
        for name, count in wants.counts.items()
    }
    if situation.rule.reason == "StableFirst" and situation.candidate is not None:
        waits = situation.candidate.hash
        counts[waits] = min(counts.get(waits, 0), situation.capacity(situation.candidate).set)
    baking = _baking(observed, roles.stable) if roles.stable and roles.previous else None
    return replace(
        situation,
        previous=roles.previous,
        leaving=roles.leaving,
        counts=counts,
        route=wants.route,
        baking_until=baking,
    )


def _count(observed: Observed, revision: Revision, wanted: int, has: Capacity) -> int:
    """All pods, or one until the first has fixed which bytes the others must find.

    What serves already is never taken back for that: its ConfigMap may have been deleted by hand.
    """
    config_map = observed.child(kinds.CONFIG_MAP, child_name(observed.name, revision.hash))
    if digest_pinned(revision, config_map):
        return wanted
    proven = revision.digest is not None or revision.promotion is not None
    return min(wanted, max(1, has.set if proven else 0))


def _available(observed: Observed, candidate: Revision, has: Capacity) -> int:
    """Its pods that are there. Ready ones count though their Deployment does not say so: they were
    asked just now, and its watch may have stopped.
    """
    ready = sum(pod.ready for pod in observed.pods.get(candidate.hash, ()))
    return max(has.available, ready)


def _clock(rule: Rule) -> Clock:
    """What the progress deadline does where this rule holds."""
    if rule.stage in ("Paused", SCALED_TO_ZERO):
        return Clock.OFF
    return Clock.RUNS if rule.move is Move.WAIT and rule.stage != "Routing" else Clock.STANDS


def _stable_first(observed: Observed, situation: Situation, candidate: Revision) -> Progress | None:
    """Since when the candidate's pods wait for stable's first, on the way up from no pods at all.

    Whichever came first would else take all the traffic, and with it the place of the other.
    """
    stable, setting = situation.stable, situation.setting
    if stable is None or setting.total == 0 or setting.capacity(stable).available > 0:
        return None
    has = setting.capacity(candidate)
    return stable_first(
        observed.status, observed.now, candidate.hash, scaled_to_zero=has.exists and has.set == 0
    )


def _carry_out(observed: Observed, situation: Situation) -> Situation:
    """Turns the table's move into changed records."""
    candidate = situation.candidate
    if candidate is None:
        return situation
    if situation.rule.move is Move.PROMOTE:
        promoted = replace(
            candidate,
            promotion=situation.history.next_promotion,
            promoted_at=observed.now,
            paused=False,
            rollout=candidate.rollout.ended() if candidate.rollout else None,
        )
        return replace(
            situation,
            history=situation.history.with_revision(promoted),
            stable=promoted,
            target=_same(situation.target, promoted),
            candidate=None,
            promoted=promoted,
        )
    if situation.rule.move is Move.REJECT:
        words = _words_of(observed, situation, candidate)
        rejection = Rejection(situation.rule.reason, words or situation.rule.message, observed.now)
        plan = candidate.rollout.ended() if candidate.rollout else None
        rejected = replace(candidate, rejected=rejection, rollout=plan)
        return replace(
            situation,
            history=situation.history.with_revision(rejected),
            target=_same(situation.target, rejected),
            candidate=None,
            rejected=rejected,
        )
    return situation


def _taken_back(observed: Observed, resource: ModelDeployment, situation: Situation) -> Situation:
    """Stable failed in its bake: it is rejected, and the revision before it takes over again."""
    stable, target = situation.stable, situation.target
    if stable is None or situation.evidence is None:
        return situation
    words = situation.evidence.judgement.reason[:_LAST_WORDS_LIMIT]
    rejected = replace(stable, rejected=Rejection("AnalysisFailed", words, observed.now))
    history = situation.history.with_revision(rejected)
    if target is not None and target.hash == rejected.hash:
        target = rejected
    after = go_on(observed, resource, history, target)
    return replace(after, rejected=rejected, evidence=situation.evidence)


def _words_of(observed: Observed, situation: Situation, revision: Revision) -> str:
    """Why it is rejected: what the evidence says, or what its pods say."""
    if situation.rule.reason in ("AnalysisFailed", "Inconclusive") and situation.evidence:
        return situation.evidence.judgement.reason[:_LAST_WORDS_LIMIT]
    return _last_words(observed, situation, revision)


def _last_words(observed: Observed, situation: Situation, revision: Revision) -> str:
    """Why its pods are not ready: what refuses them, or the last words of one of them."""
    refused = situation.capacity(revision).refused
    if refused:
        return refused[:_LAST_WORDS_LIMIT]
    found = worst(observed.pods.get(revision.hash, ()))
    return found.message if found else ""
