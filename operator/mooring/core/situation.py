"""Which revision is which: reads the records, takes a verb, finds or makes the one asked for.

The result is what the rest of the decision is made of. Nothing here renders a child or a
condition.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime

from mooring.api import ModelDeployment, parse_duration
from mooring.core import kinds
from mooring.core.capacity import Capacity, capacity, digest_pinned, total
from mooring.core.clock import parse_time
from mooring.core.observed import Observed
from mooring.core.pods import worst
from mooring.core.render.metadata import child_name
from mooring.core.render.revision import CannotRender, render_revision
from mooring.core.revision import (
    History,
    Rejection,
    Revision,
    base_inputs,
    canonical_inputs,
    name_hash,
    read_history,
)
from mooring.core.rollout import Facts, Move, Progress, Rule, next_move
from mooring.core.verbs import Action, Outcome, Scene, parse_action, take


@dataclass(frozen=True, slots=True)
class Situation:
    """One ModelDeployment, understood.

    ``target`` is the revision that the spec asks for; ``candidate`` the same while it is neither
    stable nor rejected. ``counts`` are the pods each live revision should have now. ``created``,
    ``promoted`` and ``rejected`` name what this decision itself brings about.
    """

    history: History
    stable: Revision | None
    target: Revision | None
    candidate: Revision | None
    blocked: CannotRender | None
    verb: Outcome | None
    rule: Rule
    progress: Progress | None
    deadline: datetime | None
    capacities: Mapping[str, Capacity]
    counts: Mapping[str, int]
    total: int
    steps: bool
    autoscaled: bool
    created: Revision | None = None
    promoted: Revision | None = None
    rejected: Revision | None = None

    @property
    def serving(self) -> Revision | None:
        """The revision that the public Service names: stable, or before there is one the first."""
        return self.stable or self.candidate

    def capacity(self, revision: Revision | None) -> Capacity:
        return self.capacities.get(revision.hash, Capacity()) if revision else Capacity()


def understand(observed: Observed, resource: ModelDeployment) -> Situation:
    """Derives the situation; raises ValueError when a record cannot be read."""
    history = read_history(observed.children)
    inputs = canonical_inputs(resource)
    history = _pin_digests(observed, history)
    target = history.target(inputs)
    verb = _take_verb(observed, history, target)
    if verb is not None and verb.revision is not None:
        history = history.with_revision(verb.revision)
        target = history.target(inputs)
    blocked: CannotRender | None = None
    created: Revision | None = None
    if target is None or _restart_pending(history, target):
        nonce = target.restart if target else None
        try:
            created = _new_revision(observed, resource, history, inputs, nonce)
        except CannotRender as error:
            blocked = error
        else:
            history = history.with_revision(created)
            target = created
    situation = _roll(observed, resource, history, target)
    return replace(situation, blocked=blocked, verb=verb, created=created)


def _pin_digests(observed: Observed, history: History) -> History:
    """Records the digest that a revision's first pod has found."""
    for revision in history.revisions:
        if revision.digest or revision.declared_digest or not revision.rendered.fetched:
            continue
        found = {r.digest for r in observed.pods.get(revision.hash, ()) if r.digest}
        if found:
            # More than one is possible only where somebody scaled by hand before the first was
            # pinned; the smallest is as good as any, and the same at every attempt.
            history = history.with_revision(replace(revision, digest=min(found)))
    return history


def _take_verb(observed: Observed, history: History, target: Revision | None) -> Outcome | None:
    if observed.action is None:
        return None
    try:
        action = parse_action(observed.action, observed.name)
    except ValueError as error:
        action = Action("", "", observed.action[:80])
        outcome: Outcome | None = Outcome(action, False, str(error))
    else:
        outcome = take(action, Scene(history, history.stable, target, observed.now))
    if outcome is None or not outcome.accepted:
        last = observed.status.get("lastAction") or {}
        if outcome is None or last.get("token") == outcome.action.token:
            return None  # said before; a refusal is kept in status alone
    return outcome


def _restart_pending(history: History, target: Revision) -> bool:
    return target.restart is not None and all(
        r.nonce != target.restart
        for r in history.revisions
        if base_inputs(r.inputs) == base_inputs(target.inputs)
    )


def _new_revision(
    observed: Observed,
    resource: ModelDeployment,
    history: History,
    inputs: Mapping[str, object],
    nonce: str | None,
) -> Revision:
    full = dict(inputs) if nonce is None else {**inputs, "restart": nonce}
    taken = {r.hash for r in history.revisions if r.inputs != full}
    name = name_hash(full, taken)
    runtime = resource.spec.runtime.name
    rendered = render_revision(
        observed.name,
        observed.namespace,
        resource,
        observed.runtimes.get(runtime),
        tuple(observed.runtimes),
        name,
        observed.settings,
    )
    return Revision(name, history.next_sequence, full, rendered)


def _roll(
    observed: Observed, resource: ModelDeployment, history: History, target: Revision | None
) -> Situation:
    spec = resource.spec
    stable = history.stable
    capacities = {
        r.hash: capacity(observed.child(kinds.DEPLOYMENT, child_name(observed.name, r.hash)))
        for r in history.revisions
    }
    is_candidate = (
        target is not None
        and target.rejected is None
        and (stable is None or target.hash != stable.hash)
    )
    candidate = target if is_candidate else None
    wanted = total(spec, capacities[stable.hash] if stable else Capacity())
    counts = {r.hash: _count(observed, r, wanted) for r in (stable, candidate) if r is not None}
    steps = bool(spec.rollout.steps)
    allowed = parse_duration(spec.rollout.progress_deadline)
    progress = deadline = None
    facts = Facts(candidate=False)
    if candidate is not None:
        has = capacities.get(candidate.hash, Capacity())
        progress = _progress(observed, candidate, has)
        deadline = progress.deadline(allowed, observed.connected_since)
        facts = Facts(
            candidate=True,
            has_stable=stable is not None,
            stable_serving=stable is not None and capacities[stable.hash].available > 0,
            complete=counts[candidate.hash] == wanted and has.serves(wanted),
            serving=has.available > 0,
            paused=candidate.paused,
            steps=steps,
            overdue=observed.now >= deadline,
            zero=wanted == 0,
        )
    situation = Situation(
        history=history, stable=stable, target=target, candidate=candidate, blocked=None,
        verb=None, rule=next_move(facts), progress=progress, deadline=deadline,
        capacities=capacities, counts=counts, total=wanted, steps=steps,
        autoscaled=spec.autoscaling is not None,
    )  # fmt: skip
    return _carry_out(observed, situation)


def _count(observed: Observed, revision: Revision, wanted: int) -> int:
    """All pods, or one until the first has fixed which bytes the others must find."""
    config_map = observed.child(kinds.CONFIG_MAP, child_name(observed.name, revision.hash))
    return wanted if digest_pinned(revision, config_map) else min(1, wanted)


def _progress(observed: Observed, candidate: Revision, has: Capacity) -> Progress:
    recorded = observed.status.get("rollout") or {}
    since = recorded.get("progressedAt")
    if recorded.get("revision") != candidate.hash or not since:
        return Progress(candidate.hash, has.available, observed.now)
    before = Progress(candidate.hash, int(recorded.get("maxAvailable", 0)), parse_time(since))
    return before.advanced(candidate.hash, has.available, observed.now)


def _carry_out(observed: Observed, situation: Situation) -> Situation:
    """Turns the table's move into changed records."""
    candidate = situation.candidate
    if candidate is None:
        return situation
    if situation.rule.move is Move.PROMOTE:
        promoted = replace(
            candidate, promotion=situation.history.next_promotion, promoted_at=observed.now
        )
        return replace(
            situation,
            history=situation.history.with_revision(promoted),
            stable=promoted,
            target=promoted,
            candidate=None,
            promoted=promoted,
        )
    if situation.rule.move is Move.REJECT:
        words = _last_words(observed, candidate)
        rejection = Rejection(situation.rule.reason, words or situation.rule.message, observed.now)
        rejected = replace(candidate, rejected=rejection)
        return replace(
            situation,
            history=situation.history.with_revision(rejected),
            target=rejected,
            candidate=None,
            rejected=rejected,
        )
    return situation


def _last_words(observed: Observed, revision: Revision) -> str:
    found = worst(observed.pods.get(revision.hash, ()))
    return found.message if found else ""
