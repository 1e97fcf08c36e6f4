"""A second look at the API server before pods start or go.

What a round decides rests on what the watches have told, and that may be old: a watch that has
stopped without a word, a leader that has only just taken over, a second operator where there should
be one. For most writes this costs time alone, since the next round puts them right. Pods that were
taken away are missing until then, and pods of a rejected revision work until then; so what such a
step rests on is read anew, by name, and a step that rests on something else is decided again.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

from mooring.adapters.kube import KubeClient
from mooring.core import kinds
from mooring.core.capacity import capacity
from mooring.core.kinds import KIND_BY_NAME, Kind, Ref
from mooring.core.observed import Manifest, Observed
from mooring.core.plan import Plan
from mooring.engine.store import Store


class Conflict(Exception):
    """Something was decided on a view that has changed meanwhile."""


@dataclass(frozen=True, slots=True)
class SecondLook:
    """Reads again what a plan rests on. Every method raises Conflict where that has changed, with
    the store brought up to date, and ApiError where it cannot be read.
    """

    client: KubeClient
    store: Store

    async def there(self, observed: Observed) -> None:
        """The resource is there, and the same one: else its children are on their way out.

        Their deletion is often seen before its own, and a watch may lose that; each child would be
        made again until it is known.
        """
        live = await self._fresh(kinds.MODEL_DEPLOYMENT, observed.namespace, observed.name)
        if live is None or live["metadata"].get("uid") != observed.uid:
            raise Conflict(f"{observed.name} is gone")

    async def before_pods_go(
        self, observed: Observed, going: Collection[str], written: Mapping[Ref, str]
    ) -> None:
        """What it rests on that these Deployments lose pods, some or all of them.

        That is what the user asks for, the pods of all revisions, their records, and the digests
        that pods have to match. ``written``: the versions that our own applies have come back as.
        """
        deployments = _of_revisions(observed)
        for ref in deployments:  # first, since a write of theirs is then held to this version
            await self._pods(observed, ref)
        for ref in deployments:
            record = Ref(kinds.CONTROLLER_REVISION.name, ref.name)
            await self._unchanged(observed, record, written)
        for name in sorted(going):
            await self._unchanged(observed, Ref(kinds.CONFIG_MAP.name, name), written)
        await self._wish(observed)

    async def before_pods_start(
        self, observed: Observed, plan: Plan, recorded: Collection[Ref]
    ) -> None:
        """The record of each revision whose Deployment is to be made: it may have been rejected.

        ``recorded`` names those that this round has written, over the version it was decided on.
        """
        for manifest in plan.apply:
            ref = Ref(manifest["kind"], manifest["metadata"]["name"])
            record = Ref(kinds.CONTROLLER_REVISION.name, ref.name)
            if ref.kind != kinds.DEPLOYMENT.name or not _of_revision(manifest):
                continue
            if record not in recorded and self._get(observed, ref) is None:
                await self._unchanged(observed, record, {})

    def going(self, observed: Observed, plan: Plan, *, deletions: bool) -> frozenset[str]:
        """The Deployments of which a plan takes pods away, by scaling or with all of them."""
        found = set()
        for ref, count in plan.scale:
            live = self._get(observed, ref)
            if live is not None and count < capacity(live).set:
                found.add(ref.name)
        if deletions:
            found |= {d.ref.name for d in plan.delete if d.ref.kind == kinds.DEPLOYMENT.name}
        return frozenset(found)

    async def update(self, kind: Kind, namespace: str, name: str) -> None:
        """Takes in what an object is now, after the API server has said that we are wrong of it."""
        await self._fresh(kind, namespace, name)

    def _get(self, observed: Observed, ref: Ref) -> Manifest | None:
        return self.store.get(KIND_BY_NAME[ref.kind], observed.namespace, ref.name)

    async def _fresh(self, kind: Kind, namespace: str, name: str) -> Manifest | None:
        live = await self.client.get(kind, namespace, name)
        known = self.store.get(kind, namespace, name)
        if live is not None:
            self.store.put(kind, live)
        elif known is not None:
            self.store.remove(kind, known, gone=True)
        return live

    async def _unchanged(self, observed: Observed, ref: Ref, written: Mapping[Ref, str]) -> None:
        fresh = await self._fresh(KIND_BY_NAME[ref.kind], observed.namespace, ref.name)
        decided_on = observed.children.get(ref)
        versions = {None if decided_on is None else _version(decided_on), written.get(ref)}
        if (None if fresh is None else _version(fresh)) not in versions:
            raise Conflict(f"{ref} has changed")

    async def _pods(self, observed: Observed, ref: Ref) -> None:
        """Its size is the one that was decided on, and no pod has become unavailable since."""
        seen = capacity(observed.children[ref])
        now = capacity(await self._fresh(kinds.DEPLOYMENT, observed.namespace, ref.name))
        if not now.exists or now.set != seen.set or now.available < seen.available:
            raise Conflict(f"{ref} has changed")

    async def _wish(self, observed: Observed) -> None:
        live = await self._fresh(kinds.MODEL_DEPLOYMENT, observed.namespace, observed.name)
        if live is None or _asked(live) != _asked(observed.resource):
            raise Conflict(f"{observed.name} has changed")


def _of_revisions(observed: Observed) -> list[Ref]:
    """The Deployments of revisions; routers and collectors are no concern of a rollout."""
    return sorted(
        ref
        for ref, child in observed.children.items()
        if ref.kind == kinds.DEPLOYMENT.name and _of_revision(child)
    )


def _of_revision(manifest: Manifest) -> bool:
    return kinds.LABEL_REVISION in (manifest["metadata"].get("labels") or {})


def _asked(resource: Manifest) -> tuple[object, ...]:
    """What stands for all that users ask for: which object, its spec, and the last verb."""
    meta = resource["metadata"]
    action = (meta.get("annotations") or {}).get(kinds.ANNOTATION_ACTION)
    return meta.get("uid"), meta.get("generation"), meta.get("deletionTimestamp"), action


def _version(obj: Manifest) -> str:
    return str(obj["metadata"].get("resourceVersion", ""))
