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
from mooring.core.capacity import Capacity, capacity, digest_pinned, needed, total
from mooring.core.clock import parse_time
from mooring.core.observed import Observed
from mooring.core.pods import worst
from mooring.core.render.metadata import child_name
from mooring.core.render.revision import CannotRender, render_revision
from mooring.core.revision import (
    History,
    Rejection,
    Revision,
    canonical_inputs,
    name_hash,
    read_history,
)
from mooring.core.rollout import Facts, Move, Progress, Rule, next_move
from mooring.core.verbs import Action, Outcome, Scene, parse_action, take

#: What is kept of them in a record (characters).
_LAST_WORDS_LIMIT = 1000


@dataclass(frozen=True, slots=True)
class Situation:
    """One ModelDeployment, understood.

    ``target`` is the revision that the spec asks for; ``candidate`` the same while it is neither
    stable nor rejected. ``counts`` are the pods each live revision should have now, ``total`` those
    of the whole deployment, ``needed`` those without which it is not ready. ``created``,
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
    needed: int
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
    history = _drop_done_restarts(_pin_digests(observed, history))
    target = history.target(inputs)
    verb = _take_verb(observed, history, target)
    if verb is not None:
        if verb.revision is not None:
            history = history.with_revision(verb.revision)
            target = history.target(inputs)
        if _said_before(observed, verb):
            verb = None
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
    first = _first_serving(observed, history, target)
    if first is not None:
        history = history.with_revision(first)
    situation = _roll(observed, resource, history, target)
    promoted = situation.promoted or first
    return replace(situation, blocked=blocked, verb=verb, created=created, promoted=promoted)


def _first_serving(
    observed: Observed, history: History, target: Revision | None
) -> Revision | None:
    """The first revision, where nobody was there to promote it before the spec went on.

    The public Service names it and its pods answer: it is stable, whatever is asked for now.
    """
    revision = history.by_hash(routed_revision(observed) or "")
    if history.stable is not None or revision is None or revision is target:
        return None  # there is a stable one, or the table decides
    live = observed.child(kinds.DEPLOYMENT, child_name(observed.name, revision.hash))
    if revision.rejected is not None or capacity(live).available == 0:
        return None
    return replace(revision, promotion=history.next_promotion, promoted_at=observed.now)


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
        return Outcome(Action("unknown", "", observed.action[:80]), False, str(error))
    return take(action, Scene(history, history.stable, target, observed.now))


def _said_before(observed: Observed, outcome: Outcome) -> bool:
    """Whether status shows this outcome: its record was refused or overtaken, or there is none."""
    last = observed.status.get("lastAction") or {}
    action = outcome.action
    said = (last.get("verb"), last.get("revision"), last.get("token"), last.get("result"))
    return said == (action.verb, action.revision, action.token, outcome.result)


def _restart_pending(history: History, target: Revision) -> bool:
    return target.restart is not None and all(r.nonce != target.restart for r in history.revisions)


def _drop_done_restarts(history: History) -> History:
    """Forgets a restart once its revision is recorded: that one may be forgotten in its turn, and
    coming back to these inputs must not restart them again.
    """
    made = {r.nonce for r in history.revisions}
    for revision in history.revisions:
        if revision.restart is not None and revision.restart in made:
            history = history.with_revision(replace(revision, restart=None))
    return history


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
    return Revision(
        name,
        history.next_sequence,
        full,
        rendered,
        acknowledged=_too_early(observed, name),
    )


def _too_early(observed: Observed, name: str) -> tuple[str, ...]:
    """The mark of a verb that is older than the record which it names.

    Nobody can have meant this record. It is the verb of an earlier one of the same inputs, which
    the history limit has taken, and with it the acknowledgement.
    """
    try:
        action = parse_action(observed.action or "", observed.name)
    except ValueError:
        return ()
    return (action.mark,) if action.revision == name else ()


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
    counts = {
        r.hash: _count(observed, r, wanted, capacities.get(r.hash, Capacity()))
        for r in (stable, candidate)
        if r is not None
    }
    steps = bool(spec.rollout.steps)
    allowed = parse_duration(spec.rollout.progress_deadline)
    progress = deadline = None
    facts = Facts(candidate=False)
    if candidate is not None:
        has = capacities.get(candidate.hash, Capacity())
        facts = Facts(
            candidate=True,
            has_stable=stable is not None,
            stable_serving=stable is not None and capacities[stable.hash].available > 0,
            complete=counts[candidate.hash] == wanted and has.serves(wanted),
            serving=has.available > 0,
            paused=candidate.paused,
            steps=steps,
            zero=wanted == 0,
        )
        held = next_move(facts).move is Move.HOLD
        progress = _progress(observed, candidate, has, held=held)
        if not held:
            deadline = progress.deadline(allowed, observed.connected_since)
            facts = replace(facts, overdue=observed.now >= deadline)
    situation = Situation(
        history=history, stable=stable, target=target, candidate=candidate, blocked=None,
        verb=None, rule=next_move(facts), progress=progress, deadline=deadline,
        capacities=capacities, counts=counts, total=wanted, needed=needed(spec), steps=steps,
        autoscaled=spec.autoscaling is not None,
    )  # fmt: skip
    return _carry_out(observed, situation)


def _count(observed: Observed, revision: Revision, wanted: int, has: Capacity) -> int:
    """All pods, or one until the first has fixed which bytes the others must find.

    What serves already is never taken back for that: its ConfigMap may have been deleted by hand.
    """
    config_map = observed.child(kinds.CONFIG_MAP, child_name(observed.name, revision.hash))
    if digest_pinned(revision, config_map):
        return wanted
    proven = revision.digest is not None or revision.promotion is not None
    return min(wanted, max(1, has.set if proven else 0))


def _progress(observed: Observed, candidate: Revision, has: Capacity, *, held: bool) -> Progress:
    """The progress so far, from status; begins anew where it is lost, or after a hold.

    A status without a deadline was written while the rollout was held. Ready pods count though
    their Deployment does not say so: they were asked just now, and its watch may have stopped.
    """
    ready = sum(pod.ready for pod in observed.pods.get(candidate.hash, ()))
    available = max(has.available, ready)
    fresh = Progress(candidate.hash, available, observed.now)
    recorded = observed.status.get("rollout") or {}
    if recorded.get("revision") != candidate.hash or ("deadline" not in recorded and not held):
        return fresh
    try:
        since = parse_time(recorded["progressedAt"])
        most = int(recorded["maxAvailable"])
    except (KeyError, TypeError, ValueError):
        return fresh
    # A clock that was set back must not put the deadline off by as much.
    before = Progress(candidate.hash, most, min(since, observed.now))
    return before.advanced(candidate.hash, available, observed.now)


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
        words = _last_words(observed, situation, candidate)
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


def routed_revision(observed: Observed) -> str | None:
    """The revision that the public Service names in the cluster, as last seen."""
    service = observed.child(kinds.SERVICE, observed.name)
    if service is None:
        return None
    found = (service["spec"].get("selector") or {}).get(kinds.LABEL_REVISION)
    return str(found) if found is not None else None


def _last_words(observed: Observed, situation: Situation, revision: Revision) -> str:
    """Why its pods are not ready: what refuses them, or the last words of one of them."""
    refused = situation.capacity(revision).refused
    if refused:
        return refused[:_LAST_WORDS_LIMIT]
    found = worst(observed.pods.get(revision.hash, ()))
    return found.message if found else ""
