"""The children that should exist, those that should go, and when to look again.

Order is safety here: a record before what is made from it, the digest before the pods that must
match it, the route before the pods that it leaves.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from mooring.api import ModelDeploymentSpec, parse_duration
from mooring.core import kinds
from mooring.core.allocation import GATEWAY
from mooring.core.autoscaling import floor
from mooring.core.fingerprint import stamped
from mooring.core.front import Touch, front, leaves
from mooring.core.kinds import Ref
from mooring.core.monitoring import keeps
from mooring.core.observed import Manifest, Observed
from mooring.core.registry import named_last
from mooring.core.render.autoscaler import autoscaler
from mooring.core.render.configmap import config_map
from mooring.core.render.controllerrevision import controller_revision
from mooring.core.render.deployment import deployment, replicas
from mooring.core.render.metadata import child_name
from mooring.core.render.networkpolicy import network_policy
from mooring.core.render.poddisruptionbudget import pod_disruption_budget
from mooring.core.render.router.httproute import gateway_service
from mooring.core.render.service import revision_service
from mooring.core.render.serviceaccount import service_account
from mooring.core.revision import Revision
from mooring.core.situation import Situation


@dataclass(frozen=True, slots=True)
class Deletion:
    """An object to delete, if it is still the one that was looked at."""

    ref: Ref
    uid: str


@dataclass(frozen=True, slots=True)
class Objects:
    """``apply`` in order; then ``touch`` the router pods, ``scale`` by the manager of replicas, and
    ``delete`` last.
    """

    apply: tuple[Manifest, ...]
    touch: tuple[Touch, ...]
    scale: tuple[tuple[Ref, int], ...]
    delete: tuple[Deletion, ...]
    look_again: datetime | None


def objects(observed: Observed, spec: ModelDeploymentSpec, situation: Situation) -> Objects:
    """The whole desired state of one ModelDeployment."""
    staying = [r for r in (situation.stable, situation.candidate, situation.previous) if r]
    draining, drained_at = _draining(observed, situation)
    kept = [*staying, *draining]
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
    if spec.traffic.router == GATEWAY:
        wanted += [gateway_service(r, **owner) for r in kept]  # before the route that names them
    entrance = front(observed, spec, situation)
    wanted += entrance.objects
    if entrance.budget is not None:
        wanted.append(pod_disruption_budget(entrance.budget, **owner))
    wanted += [revision_service(r, **owner) for r in kept]
    deadline = parse_duration(spec.rollout.progress_deadline)
    wanted += [deployment(r, **owner, progress_deadline=deadline) for r in kept]
    floor_ends = None
    if (
        spec.autoscaling is not None
        and situation.stable is not None
        and _scaled_by_autoscaler(situation, situation.stable)
    ):
        least, floor_ends = floor(observed, situation, spec.autoscaling, entrance.objects)
        wanted.append(autoscaler(situation.stable, spec.autoscaling, least=least, **owner))
    apply = tuple(stamped(manifest) for manifest in wanted)
    names = {Ref(m["kind"], m["metadata"]["name"]) for m in apply}
    moments = [m for m in (drained_at, entrance.look_again, floor_ends) if m is not None]
    return Objects(
        apply=apply,
        scale=_scale(observed, situation, kept),
        delete=_obsolete(observed, names | keeps(observed, spec.monitoring)),
        touch=entrance.touch,
        look_again=min(moments, default=None),
    )


def replicas_manifest(observed: Observed, live: Manifest, count: int) -> Manifest:
    """What the manager of replicas applies to a Deployment that was seen to exist."""
    meta = live["metadata"]
    return replicas(
        meta["name"],
        namespace=observed.namespace,
        uid=meta["uid"],
        version=meta["resourceVersion"],
        count=count,
    )


def _scale(
    observed: Observed, situation: Situation, kept: list[Revision]
) -> tuple[tuple[Ref, int], ...]:
    """Pods of every revision that is told a number; the others keep what they have."""
    found = []
    for revision in kept:
        count = situation.counts.get(revision.hash)
        if count is None:
            continue
        # An autoscaler leaves a Deployment without pods alone, for good: below its range we help.
        below = situation.capacity(revision).set < situation.total
        if _scaled_by_autoscaler(situation, revision) and not below:
            continue
        found.append((Ref(kinds.DEPLOYMENT.name, child_name(observed.name, revision.hash)), count))
    return tuple(found)


def _scaled_by_autoscaler(situation: Situation, revision: Revision) -> bool:
    """Stable's pods are, once it is known which bytes the further ones must find."""
    return situation.autoscaled and revision is situation.stable and revision.settled


def _draining(observed: Observed, situation: Situation) -> tuple[list[Revision], datetime | None]:
    """Revisions that took traffic until just now: their pods stay until routes have left them."""
    found, moments = [], []
    for revision in situation.leaving:
        stays, until = leaves(observed, situation, revision)
        if not stays:
            continue
        found.append(revision)
        if until is not None:
            moments.append(until)
    return found, min(moments, default=None)


def _expired(spec: ModelDeploymentSpec, situation: Situation, kept: set[str]) -> set[str]:
    """Records beyond the history limit, oldest first; what is live or asked for never goes."""
    limit = spec.rollout.revision_history_limit
    named = named_last(situation.history) if situation.resolution is not None else None
    if named is not None:  # by it the name is known while the registry is away
        kept = kept | {named.hash}
    if situation.retraining is not None:  # whoever trains is told of the model they are about
        kept = kept | {entry.revision for entry in situation.retraining.in_flight}
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
