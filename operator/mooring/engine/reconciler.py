"""One round for one ModelDeployment: observe, decide, write.

All reads come before the decision; what is written is exactly the plan. Errors of the API server
are told apart: a conflict means that our view was old (look again), a refusal is put before the
user by the next round, anything else is retried.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime

from mooring.adapters.kube import REPLICAS_MANAGER, ApiError, KubeClient
from mooring.core import kinds
from mooring.core.events import Event
from mooring.core.fingerprint import covers, is_applied
from mooring.core.front import Touch
from mooring.core.kinds import KIND_BY_NAME, Ref
from mooring.core.objects import Deletion, owned, replicas_manifest
from mooring.core.observed import (
    Manifest,
    Observed,
    RenderSettings,
    revisions_to_inspect,
    routers_to_ask,
)
from mooring.core.plan import Plan, decide, stalled
from mooring.core.pods import PodReport, report
from mooring.engine.evidence import Examiner
from mooring.engine.lease import LeaseLost
from mooring.engine.merge_patch import merge_patch
from mooring.engine.metrics import Metrics
from mooring.engine.queue import Key, KeyedQueue
from mooring.engine.recorder import Recorder
from mooring.engine.refusals import Refusals, may_write, owner_of, unknown
from mooring.engine.registry import RegistryWatch
from mooring.engine.retraining import RetrainingIO
from mooring.engine.routers import Routers
from mooring.engine.second_look import Conflict, SecondLook
from mooring.engine.store import Store, Writing

log = logging.getLogger(__name__)

#: After a round that has written children: to see what came of it, unless something happens before.
_AFTERWARDS = 1.0
_REFUSED_FIRST = 10.0
_REFUSED_LAST = 60.0


@dataclass(slots=True)
class Reconciler:
    """Works on one key at a time per worker; see :meth:`reconcile`."""

    client: KubeClient
    store: Store
    queue: KeyedQueue
    recorder: Recorder
    metrics: Metrics
    settings: RenderSettings
    routers: Routers
    retraining: RetrainingIO
    now: Callable[[], datetime]
    connected_since: Callable[[], datetime | None]
    examiner: Examiner
    registry: RegistryWatch
    unserved: Callable[[], frozenset[str]] = frozenset
    _refusals: dict[Key, Refusals] = field(default_factory=dict)
    _applied: dict[Key, dict[Ref, tuple[str, str]]] = field(default_factory=dict)
    _listed: dict[Key, dict[str, tuple[str, tuple[PodReport, ...]]]] = field(default_factory=dict)

    async def work(self) -> None:
        """One worker: takes keys until cancelled or until the lease is lost.

        Between two rounds the event loop has its turn. A round that finds nothing to write waits
        for nothing, and thousands of them, as after a new start, would hold back the probes and
        the renewal of the lease until the last.
        """
        while True:
            await asyncio.sleep(0)
            key = await self.queue.get()
            try:
                await self._round(key)
            finally:
                self.queue.done(key)

    async def _round(self, key: Key) -> None:
        started = time.monotonic()
        result = "error"
        try:
            await self.reconcile(key)
            result = "success"
            self.queue.succeeded(key)
        except Conflict:
            result = "conflict"
            self.queue.retry(key)
        except ApiError as error:
            self.metrics.reconcile_errors.labels("api").inc()
            wait = self.queue.retry(key, at_least=error.retry_after or 0.0)
            log.warning("%s: %s; again in %.1f s", key, error, wait)
        except (LeaseLost, asyncio.CancelledError):
            result = "cancelled"
            raise
        except Exception:
            self.metrics.reconcile_errors.labels("internal").inc()
            wait = self.queue.retry(key)
            log.exception("%s: a defect of the operator; again in %.0f s", key, wait)
        finally:
            self.metrics.reconciles.labels(result).inc()
            self.metrics.reconcile_seconds.observe(time.monotonic() - started)

    async def reconcile(self, key: Key) -> None:
        """Observes, decides and writes once. Raises ApiError, Conflict or LeaseLost."""
        observed = await self._observe(key)
        if observed is None:
            self._forget(key)
            return
        plan = self._decide(key, observed)
        self.examiner.want(key, plan.examination)
        refusals = Refusals()
        look = SecondLook(self.client, self.store)
        if not await self._write_status(key, observed, plan) and self._makes_something(plan):
            await look.there(observed)
        told = _told_by_status(plan)
        self._tell(observed, (event for event in plan.events if event.reason in told))
        records = [m for m in plan.apply if m["kind"] == kinds.CONTROLLER_REVISION.name]
        recorded = {
            Ref(record["kind"], record["metadata"]["name"])
            for record in records
            if await self._apply(key, observed, record, refusals)
        }
        wrote = bool(recorded)
        if not refusals:  # nothing is made from a record that could not be written
            self._tell(observed, (event for event in plan.events if event.reason not in told))
            await look.before_pods_start(observed, plan, recorded)
            wrote |= await self._write_children(key, observed, plan, refusals, look)
            wrote |= await self._write_retraining(key, plan)
        self._look_again(key, observed, plan, refusals, wrote=wrote)

    def _tell(self, observed: Observed, events: Iterable[Event]) -> None:
        for event in events:
            self.recorder.record(observed.resource, event)

    async def _observe(self, key: Key) -> Observed | None:
        resource = self.store.get(kinds.MODEL_DEPLOYMENT, key.namespace, key.name)
        if resource is None:
            return None
        uid = resource["metadata"].get("uid", "")
        children = {
            ref: child
            for ref, child in self.store.children(key).items()
            if ref.kind != kinds.JOB.name and owned(child, uid)
        }
        pods = {
            revision: await self._pods(key, revision)
            for revision in sorted(revisions_to_inspect(children))
        }
        pods |= await self._judged_pods(key, children, pods)
        routers = None
        if routers_to_ask(resource, children):
            routers = await self.routers.ask(key.namespace, key.name)
        before = self._refusals.get(key, Refusals())
        return Observed(
            now=self.now(),
            resource=resource,
            children=children,
            runtimes=self.store.runtimes(key.namespace),
            pods=pods,
            foreign=dict(before.foreign),
            failures=dict(before.failures),
            connected_since=self.connected_since(),
            unserved=self.unserved(),
            settings=self.settings,
            routers=routers,
            evidence=self.examiner.found(key),
            retraining=await self.retraining.observe(key, resource),
            registry=self.registry.look_up(key, resource),
        )

    async def _judged_pods(
        self, key: Key, children: Mapping[Ref, Manifest], seen: Mapping[str, object]
    ) -> dict[str, tuple[PodReport, ...]]:
        """The pods of what is under judgement, for their restarts. They are listed again only when
        their Deployment has changed: a restart makes a pod unavailable for a while.
        """
        wanted = self.examiner.wanted(key)
        if wanted is None:
            self._listed.pop(key, None)
            return {}
        listed = self._listed.setdefault(key, {})
        found = {}
        for revision in (wanted.revision, wanted.against):
            live = children.get(Ref(kinds.DEPLOYMENT.name, f"{key.name}-{revision}"))
            if live is None or revision in seen:
                continue
            if listed.get(revision, ("", ()))[0] != _version(live):
                listed[revision] = _version(live), await self._pods(key, revision)
            found[revision] = listed[revision][1]
        return found

    async def _pods(self, key: Key, revision: str) -> tuple[PodReport, ...]:
        selector = f"{kinds.LABEL_DEPLOYMENT}={key.name},{kinds.LABEL_REVISION}={revision}"
        found: list[PodReport] = []
        async for chunk in self.client.list(kinds.POD, key.namespace, label_selector=selector):
            found += [report(pod) for pod in chunk]
        return tuple(found)

    def _decide(self, key: Key, observed: Observed) -> Plan:
        try:
            return decide(observed)
        except Exception as error:  # a defect of ours stalls this object and no other
            self.metrics.reconcile_errors.labels("decide").inc()
            log.exception("%s: deciding failed", key)
            return stalled(
                observed,
                "InternalError",
                f"a defect of the operator: {type(error).__name__}: {error}; what serves is left "
                "as it is; the operator's log has the details",
            )

    async def _write_status(self, key: Key, observed: Observed, plan: Plan) -> bool:
        """Whether anything was written, which shows that the resource is there as it was seen."""
        if plan.status is None:
            return False
        stored = observed.resource.get("status")
        patch = merge_patch(stored if isinstance(stored, Mapping) else {}, plan.status)
        if not patch:
            return False
        meta = observed.resource["metadata"]
        body = {"metadata": {"resourceVersion": meta["resourceVersion"]}, "status": patch}
        kind = kinds.MODEL_DEPLOYMENT
        write = self.client.patch_status(kind, observed.namespace, observed.name, body)
        try:
            await self._send(key, kind, observed.name, write, guarded=True)
        except ApiError as error:
            if error.status in (404, 409):  # 404: deleted meanwhile, so nothing is made for it
                raise Conflict from error
            raise
        return True

    def _makes_something(self, plan: Plan) -> bool:
        """Whether one of the planned objects is not there yet."""
        return any(
            self.store.get(
                KIND_BY_NAME[m["kind"]], m["metadata"]["namespace"], m["metadata"]["name"]
            )
            is None
            for m in plan.apply
        )

    async def _send(
        self, key: Key, kind: kinds.Kind, name: str, write: Awaitable[Manifest], *, guarded: bool
    ) -> Manifest:
        """Writes, and takes the answer in.

        A ``guarded`` write creates, or goes on from the version that was decided on: the answer
        then holds nothing new. Any other may bring back what somebody else has changed meanwhile.
        """
        under_way = Writing()
        try:
            with self.store.writing(kind, key.namespace, name) as under_way:
                written = await write
                self.queue.succeeded(key)  # it gets on: what fails after this is tried again soon
                touched = self.store.put(kind, written)
                if not guarded:
                    under_way.touched |= touched
        finally:
            for touched_key in under_way.touched:
                self.queue.add(touched_key)
        return written

    async def _write_retraining(self, key: Key, plan: Plan) -> bool:
        async def send(
            key: Key, kind: kinds.Kind, name: str, write: Awaitable[Manifest]
        ) -> Manifest:
            return await self._send(key, kind, name, write, guarded=True)

        try:
            return await self.retraining.write(key, plan, send)
        except ApiError as error:
            if error.status == 409:
                raise Conflict from error
            raise

    async def _write_children(
        self, key: Key, observed: Observed, plan: Plan, refusals: Refusals, look: SecondLook
    ) -> bool:
        wrote = False
        for manifest in plan.apply:
            if manifest["kind"] != kinds.CONTROLLER_REVISION.name:
                wrote |= await self._apply(key, observed, manifest, refusals)
        for touch in plan.touch:
            wrote |= await self._touch(observed, touch)
        # Nothing goes before what replaces it is there.
        going = look.going(observed, plan, deletions=not refusals)
        if going:
            applied = self._applied.get(key, {})
            written = {ref: version for ref, (version, _) in applied.items()}
            await look.before_pods_go(observed, going, written)
        for ref, count in plan.scale:
            wrote |= await self._scale(observed, ref, count, refusals, look)
        for deletion in plan.delete:
            if refusals:
                break
            self._applied.get(key, {}).pop(deletion.ref, None)
            await self._delete(observed, deletion, look)
            wrote = True
        return wrote

    async def _delete(self, observed: Observed, deletion: Deletion, look: SecondLook) -> None:
        """Pods go only with the very version of their Deployment that was looked at again."""
        kind, name, version = KIND_BY_NAME[deletion.ref.kind], deletion.ref.name, None
        if kind == kinds.DEPLOYMENT:
            live = self.store.get(kind, observed.namespace, name)
            version = _version(live) if live is not None else None
        try:
            await self.client.delete(kind, observed.namespace, name, deletion.uid, version)
        except ApiError as error:
            if error.status == 409:
                await look.update(kind, observed.namespace, name)
                raise Conflict from error
            raise

    async def _touch(self, observed: Observed, touch: Touch) -> bool:
        """Annotates a router pod, whose kubelet then brings the new files within half a second
        instead of within a minute. A pod that is gone needs none.
        """
        body = {
            "metadata": {
                "uid": touch.uid,
                "annotations": {kinds.ANNOTATION_VERSION: touch.version},
            }
        }
        try:
            await self.client.patch(kinds.POD, observed.namespace, touch.pod, body)
        except ApiError as error:
            if error.status not in (404, 409):  # 409: another pod of that name by now
                raise
        return True

    async def _apply(
        self, key: Key, observed: Observed, manifest: Manifest, refusals: Refusals
    ) -> bool:
        kind = KIND_BY_NAME[manifest["kind"]]
        ref = Ref(kind.name, manifest["metadata"]["name"])
        live = self.store.get(kind, observed.namespace, ref.name)
        if live is None and ref in observed.children:
            raise Conflict(f"{ref} has gone since it was decided to keep it")
        if live is not None and not may_write(live, observed):
            refusals.foreign[ref] = owner_of(live)
            return False
        if live is not None and self._nothing_to_do(key, ref, manifest, live):
            self.metrics.writes_avoided.inc()
            return False
        if live is not None:  # or the apply would make anew what has gone meanwhile
            meta = {**manifest["metadata"], "uid": live["metadata"].get("uid", "")}
            manifest = {**manifest, "metadata": meta}
        write = self.client.apply(kind, manifest, create_only=live is None)
        guarded = live is None or "resourceVersion" in manifest["metadata"]
        try:
            written = await self._send(key, kind, ref.name, write, guarded=guarded)
        except ApiError as error:
            if error.status == 409:
                await self._look_closer(kind, observed, ref, refusals)
                return False
            if not (error.refused or unknown(kind, error)):
                raise
            if live is not None and await self._replaced(key, kind, manifest, live):
                raise Conflict(f"{ref} was put in order, and can be applied now") from error
            refusals.failures[ref] = str(error)
            return False
        self._applied.setdefault(key, {})[ref] = _version(written), _fingerprint(written)
        return True

    async def _replaced(
        self, key: Key, kind: kinds.Kind, manifest: Manifest, live: Manifest
    ) -> bool:
        """Whether an object that cannot be applied was brought back by a merge patch.

        An apply adds to a list, and leaves what others have put there: a Service's port that
        somebody has renumbered stays beside ours, under the same name, which the server refuses.
        A merge patch replaces lists.
        """
        ours: Manifest = {part: manifest[part] for part in ("spec", "data") if part in manifest}
        if kind == kinds.CONTROLLER_REVISION or covers(live, ours):
            return False
        name = manifest["metadata"]["name"]
        body: Manifest = {"metadata": {"resourceVersion": _version(live)}, **ours}
        write = self.client.patch(kind, key.namespace, name, body)
        try:
            await self._send(key, kind, name, write, guarded=False)
        except ApiError as error:
            if error.status not in (404, 409) and not error.refused:
                raise
            return False
        return True

    async def _look_closer(
        self, kind: kinds.Kind, observed: Observed, ref: Ref, refusals: Refusals
    ) -> None:
        """After a conflict: the name is somebody else's, or our view of the object was old."""
        live = await self.client.get(kind, observed.namespace, ref.name)
        if live is not None and not may_write(live, observed):
            refusals.foreign[ref] = owner_of(live)
            return
        if live is not None:
            self.store.put(kind, live)
        raise Conflict(f"{ref} has changed")

    def _nothing_to_do(self, key: Key, ref: Ref, manifest: Manifest, live: Manifest) -> bool:
        """Whether the live object is still what our last apply of this manifest came back as,
        in whatever form the server stores it; else, and after a restart, by comparison.
        """
        last = self._applied.get(key, {}).get(ref)
        if last == (_version(live), _fingerprint(manifest)):
            return True
        return is_applied(manifest, live)

    async def _scale(
        self, observed: Observed, ref: Ref, count: int, refusals: Refusals, look: SecondLook
    ) -> bool:
        """A size is written over the one that it was decided on, and over no other: what was to
        add a pod would else take away those that somebody has added meanwhile.
        """
        key, kind = Key(observed.namespace, observed.name), kinds.DEPLOYMENT
        live = self.store.get(kind, observed.namespace, ref.name)
        if live is None or ref in refusals.failures or ref in refusals.foreign:
            return False
        if _size(live) == count:
            return False
        decided_on = observed.children.get(ref)
        if decided_on is not None and _size(decided_on) != _size(live):
            raise Conflict(f"{ref} has another size by now")
        manifest = replicas_manifest(observed, live, count)
        write = self.client.apply(kind, manifest, manager=REPLICAS_MANAGER)
        try:
            await self._send(key, kind, ref.name, write, guarded=True)
        except ApiError as error:
            if error.status in (404, 409):
                await look.update(kind, observed.namespace, ref.name)
                raise Conflict from error
            if not error.refused:
                raise
            refusals.failures[ref] = str(error)
            return False
        return True

    def _look_again(
        self, key: Key, observed: Observed, plan: Plan, refusals: Refusals, *, wrote: bool
    ) -> None:
        before = self._refusals.get(key, Refusals())
        same = refusals.same_objects(before)
        if refusals:
            refusals.rounds = before.rounds + 1 if same else 0
            self._refusals[key] = refusals
            # At once where status has to say so; then ever more rarely.
            wait = min(_REFUSED_LAST, _REFUSED_FIRST * 2.0 ** min(before.rounds, 8))
            self.queue.add_after(key, wait if same else 0.0)
        else:
            self._refusals.pop(key, None)
            if not same:
                self.queue.add(key)
        if wrote:
            self.queue.add_after(key, _AFTERWARDS)
        if plan.look_again is not None:
            self.queue.add_after(key, (plan.look_again - observed.now).total_seconds())

    def _forget(self, key: Key) -> None:
        self._refusals.pop(key, None)
        self._applied.pop(key, None)
        self._listed.pop(key, None)
        self.examiner.want(key, None)
        self.retraining.forget(key)
        self.registry.forget(key)
        self.queue.forget(key)


def _told_by_status(plan: Plan) -> frozenset[str]:
    """Reasons of the events that tell what status says; all others tell what a record says."""
    reasons = (c["reason"] for c in (plan.status or {}).get("conditions", ()))
    return frozenset({"Ready", "NotReady", "ActionRefused", *reasons})


def _size(deployment: Manifest) -> int:
    return int(deployment["spec"].get("replicas", 1))


def _version(obj: Manifest) -> str:
    return str(obj["metadata"].get("resourceVersion", ""))


def _fingerprint(obj: Manifest) -> str:
    return str((obj["metadata"].get("annotations") or {}).get(kinds.ANNOTATION_FINGERPRINT, ""))
