"""Which revision is which: reads the records, takes a verb, finds or makes the one asked for.

Nothing here renders a child or a condition.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from mooring.api import ModelDeployment
from mooring.core import kinds
from mooring.core.capacity import capacity
from mooring.core.course import go_on
from mooring.core.observed import Observed
from mooring.core.observed_routing import read_routing
from mooring.core.registry import Resolution, followed, with_name
from mooring.core.render.metadata import child_name
from mooring.core.render.revision import CannotRender, render_revision, router_of
from mooring.core.retrain.adoption import Wanted, open_desk, wanted, without_outdated
from mooring.core.retrain.desk import Desk
from mooring.core.retrain.drifting import drift_facts
from mooring.core.retrain.ledger import joined
from mooring.core.retrain.work import closings, work
from mooring.core.revision import History, Revision, canonical_inputs, name_hash, read_history
from mooring.core.situation import Situation, routed_revision
from mooring.core.told import is_ahead
from mooring.core.verbs import Action, Outcome, Scene, parse_action, take


def understand(observed: Observed, resource: ModelDeployment) -> Situation:
    """Derives the situation; raises ValueError when a record cannot be read."""
    history = read_history(observed.children)
    resolution = followed(resource.spec.model.uri, observed.registry, history)
    resource = resolution.applied(resource)
    inputs = resolution.pinned(canonical_inputs(resource))
    history = _drop_done_restarts(_pin_digests(observed, history))
    history = _pin_routers(observed, resource, history)
    facts = observed.retraining
    if facts.drift is None:
        facts = replace(facts, drift=drift_facts(observed))
    desk = open_desk(observed, resource, history, inputs, facts)
    history = without_outdated(history, desk)
    want = wanted(history, desk, inputs)
    target = history.target(want.inputs)
    action = _action(observed)
    postponed = isinstance(action, Action) and is_ahead(observed.status, history, action)
    given = action if isinstance(action, Action) and not postponed else None
    verb = action if isinstance(action, Outcome) else None
    if given is not None:
        verb = take(given, Scene(history, history.stable, target, observed.now, desk))
    if verb is not None:
        if verb.revision is not None:
            history = history.with_revision(verb.revision)
            want = wanted(history, desk, inputs)
            target = history.target(want.inputs)
        if _said_before(observed, verb):
            verb = None
    found = _Found(history, target, blocked=resolution.blocked)
    if resolution.known:
        found = _named(_found(observed, resource, found, want, given), inputs, resolution)
    history, target = found.history, found.target
    first = _first_serving(observed, history, target)
    if first is not None:
        history = history.with_revision(first)
    situation = go_on(observed, resource, history, target)
    promoted = situation.promoted or first
    situation = replace(
        situation,
        blocked=found.blocked,
        verb=verb,
        postponed=postponed,
        created=found.created,
        promoted=promoted,
        resolution=resolution if resolution.needed else None,
    )
    return _retrained(situation, desk)


@dataclass(frozen=True, slots=True)
class _Found:
    """The revision asked for, as far as there is one or can be; ``created`` is set with it if this
    decision makes it.
    """

    history: History
    target: Revision | None
    created: Revision | None = None
    blocked: CannotRender | None = None


def _found(
    observed: Observed, resource: ModelDeployment, found: _Found, want: Wanted, given: Action | None
) -> _Found:
    """The target, made where there is no record of these inputs, or a restart of them is due.

    ``given`` is a verb that was given before there was such a record.
    """
    history, target = found.history, found.target
    if target is None or _restart_pending(history, target):
        nonce = target.restart if target else None
        try:
            created = _new_revision(observed, want.resource(resource), history, want.inputs, nonce)
        except CannotRender as error:
            return replace(found, blocked=error)
        marks = _too_early(given, created.hash)
        created = replace(created, adopted=want.adopted, acknowledged=marks)
        return replace(
            found, history=history.with_revision(created), target=created, created=created
        )
    if want.adopted is not None and target.adopted != want.adopted:
        target = replace(target, adopted=want.adopted)
        return replace(found, history=history.with_revision(target), target=target)
    return found


def _named(found: _Found, inputs: Mapping[str, object], resolution: Resolution) -> _Found:
    """The same with the record marked that a registry names now."""
    history, named = with_name(found.history, inputs, resolution)
    if named is None or found.target is None or named.hash != found.target.hash:
        return replace(found, history=history)
    created = named if found.created is not None else None
    return replace(found, history=history, target=named, created=created)


def _retrained(situation: Situation, desk: Desk) -> Situation:
    """The situation with what retraining makes of it. Its ledger goes with the stable revision."""
    stable = situation.stable
    if stable is None or not (desk.spec or desk.requests or desk.ledger):
        return situation
    # A verb has asked in the record alone. Of all others the desk knows best: what was gone in the
    # record may be there again.
    ledger = desk.ledger.with_new(stable.ledger)
    rolling_out = situation.candidate is not None or stable.rejected is not None
    before = joined(r.ledger for r in situation.history.revisions)
    found = work(
        replace(desk, ledger=ledger), stable, situation.history.revisions, rolling_out=rolling_out
    )
    found = replace(found, told=(*closings(before, found.ledger), *found.told))
    if found.ledger == stable.ledger:
        return replace(situation, retraining=found)
    changed = replace(stable, ledger=found.ledger)
    target = situation.target
    return replace(
        situation,
        history=situation.history.with_revision(changed),
        stable=changed,
        target=changed if target is not None and target.hash == changed.hash else target,
        retraining=found,
    )


def _first_serving(
    observed: Observed, history: History, target: Revision | None
) -> Revision | None:
    """The first revision, where nobody was there to promote it before the spec went on.

    The public Service names it and its pods answer: it is stable, whatever is asked for now.
    """
    revision = history.by_hash(routed_revision(observed, read_routing(observed)) or "")
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


def _pin_routers(observed: Observed, resource: ModelDeployment, history: History) -> History:
    """Records the routers' template for revisions from before the spec asked for routers.

    An upgrade of the operator then restarts these routers no more than those of others.
    """
    stable = history.stable
    for revision in history.revisions:
        replaced = revision.promotion is not None and revision is not stable
        if replaced or revision.rendered.router is not None or revision.rejected is not None:
            continue
        ports = revision.rendered.ports
        template = router_of(observed.name, resource.spec, ports, observed.settings)
        if template is not None:
            rendered = replace(revision.rendered, router=template)
            history = history.with_revision(replace(revision, rendered=rendered))
    return history


def _action(observed: Observed) -> Action | Outcome | None:
    """The verb that somebody gave; refused where it cannot be read."""
    if observed.action is None:
        return None
    try:
        return parse_action(observed.action, observed.name)
    except ValueError as error:
        return Outcome(Action("unknown", "", observed.action[:80]), False, str(error))


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
    runtime, model = resource.spec.runtime.name, inputs["model"]
    rendered = render_revision(
        observed.name,
        observed.namespace,
        resource,
        observed.runtimes.get(runtime),
        tuple(observed.runtimes),
        name,
        observed.settings,
        str(model.get("source", "")) if isinstance(model, Mapping) else "",
    )
    return Revision(
        name,
        history.next_sequence,
        full,
        rendered,
    )


def _too_early(given: Action | None, revision: str) -> tuple[str, ...]:
    """The mark of a verb that is older than the record which it names.

    Nobody can have meant this record. It is the verb of an earlier one of the same inputs, which
    the history limit has taken, and with it the acknowledgement.
    """
    return (given.mark,) if given is not None and given.revision == revision else ()
