"""The children that should exist, those that should go, and when to look again.

Order is safety here: a record before what is made from it, the digest before the pods that must
match it, the route before the pods that it leaves.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from mooring.api import ModelDeploymentSpec, parse_duration
from mooring.core import kinds
from mooring.core.clock import parse_time
from mooring.core.fingerprint import stamped
from mooring.core.kinds import Ref
from mooring.core.observed import Manifest, Observed
from mooring.core.render.autoscaler import autoscaler
from mooring.core.render.configmap import config_map
from mooring.core.render.controllerrevision import controller_revision
from mooring.core.render.deployment import deployment, replicas
from mooring.core.render.metadata import child_name
from mooring.core.render.networkpolicy import network_policy
from mooring.core.render.poddisruptionbudget import pod_disruption_budget
from mooring.core.render.service import public_service, revision_service
from mooring.core.render.serviceaccount import service_account
from mooring.core.revision import Revision
from mooring.core.situation import Situation, routed_revision


@dataclass(frozen=True, slots=True)
class Deletion:
    """An object to delete, if it is still the one that was looked at."""

    ref: Ref
    uid: str


@dataclass(frozen=True, slots=True)
class Objects:
    """``apply`` in order; ``scale`` after it, by the manager of replicas; ``delete`` last."""

    apply: tuple[Manifest, ...]
    scale: tuple[tuple[Ref, int], ...]
    delete: tuple[Deletion, ...]
    look_again: datetime | None


def objects(observed: Observed, spec: ModelDeploymentSpec, situation: Situation) -> Objects:
    """The whole desired state of one ModelDeployment."""
    live = [r for r in (situation.stable, situation.candidate) if r is not None]
    draining, drained_at = _draining(observed, situation, {r.hash for r in live})
    kept = [*live, *draining]
    expired = _expired(spec, situation, {r.hash for r in kept})
    records = [r for r in situation.history.revisions if r.hash not in expired]
    owner = {
        "deployment": observed.name,
        "namespace": observed.namespace,
        "uid": observed.uid,
    }
    wanted = [controller_revision(r, **owner) for r in records]
    wanted += [config_map(r, **owner) for r in kept]
    if any(r.rendered.own_service_account for r in kept):
        wanted.append(service_account(**owner))
    if kept:
        wanted.append(network_policy(kept, **owner, settings=observed.settings))
    route = _route(observed, situation, kept)
    if route is not None:
        since = _routed_since(observed, route) or observed.now
        wanted.append(pod_disruption_budget(route, **owner))
        wanted.append(public_service(route, **owner, since=since))
    wanted += [revision_service(r, **owner) for r in kept]
    deadline = parse_duration(spec.rollout.progress_deadline)
    wanted += [deployment(r, **owner, progress_deadline=deadline) for r in kept]
    if (
        spec.autoscaling is not None
        and situation.stable is not None
        and _scaled_by_autoscaler(situation, situation.stable)
    ):
        wanted.append(autoscaler(situation.stable, spec.autoscaling, **owner))
    apply = tuple(stamped(manifest) for manifest in wanted)
    names = {Ref(m["kind"], m["metadata"]["name"]) for m in apply}
    return Objects(
        apply=apply,
        scale=_scale(observed, situation, live),
        delete=_obsolete(observed, names),
        look_again=drained_at,
    )


def replicas_manifest(observed: Observed, ref: Ref, uid: str, count: int) -> Manifest:
    """What the manager of replicas applies to a Deployment that was seen to exist."""
    return replicas(ref.name, namespace=observed.namespace, uid=uid, count=count)


def _scale(
    observed: Observed, situation: Situation, live: list[Revision]
) -> tuple[tuple[Ref, int], ...]:
    found = []
    for revision in live:
        # An autoscaler leaves a Deployment without pods alone, for good: below its range we help.
        below = situation.capacity(revision).set < situation.total
        if _scaled_by_autoscaler(situation, revision) and not below:
            continue
        ref = Ref(kinds.DEPLOYMENT.name, child_name(observed.name, revision.hash))
        found.append((ref, situation.counts.get(revision.hash, situation.total)))
    return tuple(found)


def _scaled_by_autoscaler(situation: Situation, revision: Revision) -> bool:
    """Stable's pods are, once it is known which bytes the further ones must find."""
    return situation.autoscaled and revision is situation.stable and revision.settled


def _draining(
    observed: Observed, situation: Situation, live: set[str]
) -> tuple[list[Revision], datetime | None]:
    """Revisions that took traffic until just now: their pods stay until routes have left them."""
    stable = situation.stable
    if stable is None:
        return [], None
    leave_at = (_routed_since(observed, stable) or observed.now) + observed.settings.drain
    found = []
    for revision in situation.history.revisions:
        if revision.hash in live or revision.promotion is None:
            continue
        if not situation.capacity(revision).exists:
            continue
        if observed.now >= leave_at:
            continue
        found.append(revision)
    if not found:
        return [], None
    # A clock that was set back must not keep the pods for ever.
    return found, min(max(leave_at, observed.now + timedelta(seconds=1)),
                      observed.now + observed.settings.drain)  # fmt: skip


def _route(observed: Observed, situation: Situation, kept: list[Revision]) -> Revision | None:
    """The revision that the public Service is to name: the one that serves.

    A route is never moved off pods that answer onto none, whatever has happened to the others.
    """
    serving = situation.serving
    if serving is None or situation.total == 0 or situation.capacity(serving).available:
        return serving
    routed = routed_revision(observed)
    current = next((r for r in kept if r.hash == routed), None)
    return current if current is not None and situation.capacity(current).available else serving


def _routed_since(observed: Observed, revision: Revision) -> datetime | None:
    """Since when the public Service names this revision; None while it does not."""
    if routed_revision(observed) != revision.hash:
        return None
    service = observed.child(kinds.SERVICE, observed.name) or {}
    annotations = service["metadata"].get("annotations") or {}
    try:
        return parse_time(annotations[kinds.ANNOTATION_ROUTED])
    except (KeyError, TypeError, ValueError):
        return observed.now  # somebody has removed it; at the latest since now


def _expired(spec: ModelDeploymentSpec, situation: Situation, kept: set[str]) -> set[str]:
    """Records beyond the history limit, oldest first; what is live or asked for never goes."""
    limit = spec.rollout.revision_history_limit
    if situation.target is not None:
        kept = kept | {situation.target.hash}
    elif situation.blocked is not None:
        return set()
    idle = sorted(
        (r for r in situation.history.revisions if r.hash not in kept),
        key=lambda r: r.sequence,
    )
    return {r.hash for r in idle[: max(0, len(idle) - limit)]}


def _obsolete(observed: Observed, wanted: set[Ref]) -> tuple[Deletion, ...]:
    """Our own children that nothing asks for any more. What others own is never touched."""
    found = []
    for ref, child in sorted(observed.children.items(), reverse=True):
        if ref in wanted or not owned(child, observed.uid):
            continue
        if child["metadata"].get("deletionTimestamp"):
            continue
        found.append(Deletion(ref, child["metadata"]["uid"]))
    return tuple(found)


def owned(child: Mapping[str, Any], uid: str) -> bool:
    """Whether the object is ours: it names us as its owner, or it has our labels and no owner."""
    owners = child["metadata"].get("ownerReferences") or ()
    if owners:
        return any(o.get("uid") == uid for o in owners)
    labels = child["metadata"].get("labels") or {}
    return bool(labels.get(kinds.LABEL_MANAGED_BY) == kinds.MANAGED_BY)
