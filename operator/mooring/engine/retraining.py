"""The I/O of retraining: what is read before a decision about it, and what is written after.

Requests, Jobs and their files are created and never written again; a request's status is patched on
the version that was decided on.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from mooring.adapters.kube import ApiError, KubeClient
from mooring.core import kinds
from mooring.core.kinds import KIND_BY_NAME
from mooring.core.observed import Manifest
from mooring.core.plan import Plan
from mooring.core.retrain.facts import JobFacts, RetrainingFacts
from mooring.core.retrain.observing import (
    ended,
    job_facts,
    owned_by,
    template_to_read,
    unfinished,
)
from mooring.core.retrain.work import RequestStatus
from mooring.engine.deliveries import Deliveries
from mooring.engine.merge_patch import merge_patch
from mooring.engine.metrics import Metrics
from mooring.engine.performance import PerformanceWatch
from mooring.engine.queue import Key
from mooring.engine.row_counts import RowCounts
from mooring.engine.store import Store

log = logging.getLogger(__name__)

#: The Events that tell the end of a request, and how the metric calls it.
_OUTCOMES = {
    "ModelAdopted": "adopted",
    "ModelTrained": "left",
    "RetrainingFailed": "failed",
    "ModelSuperseded": "superseded",
    "RequestDeleted": "deleted",
}

#: Writes an object and takes the answer into the store.
Send = Callable[[Key, kinds.Kind, str, Awaitable[Manifest]], Awaitable[Manifest]]


@dataclass(slots=True)
class RetrainingIO:
    """Reads facts and carries out the part of a plan that is about requests."""

    client: KubeClient
    store: Store
    metrics: Metrics
    deliveries: Deliveries
    counts: RowCounts
    performance: PerformanceWatch
    _refused: dict[Key, dict[str, str]] = field(default_factory=dict)
    _taken: dict[Key, dict[str, str]] = field(default_factory=dict)

    async def observe(self, key: Key, resource: Manifest) -> RetrainingFacts:
        """Facts about one ModelDeployment; asks the API server only where work is to be done.

        Raises ApiError.
        """
        requests = self.store.requests(key)
        if not requests:
            return RetrainingFacts(
                sinks=self.deliveries.sinks(key.namespace),
                refused=self._refused.get(key, {}),
                taken=self._taken.get(key, {}),
                new_data=self.counts.found(key),
                **self.performance.found(key),
            )
        jobs = self._jobs(key, requests)
        facts = {
            name: await self._job(key, job, finished=not unfinished(requests[name]))
            for name, job in jobs.items()
        }
        templates: dict[str, Mapping[str, Any] | None] = {}
        template = template_to_read(resource, requests.values(), jobs)
        if template is not None:
            kind = kinds.POD_TEMPLATE
            templates[template] = await self.client.get(kind, key.namespace, template)
        return RetrainingFacts(
            requests=tuple(requests.values()),
            jobs=facts,
            templates=templates,
            sinks=self.deliveries.sinks(key.namespace),
            answers=self.deliveries.answers(key),
            refused=self._refused.get(key, {}),
            taken=self._taken.get(key, {}),
            new_data=self.counts.found(key),
            **self.performance.found(key),
        )

    async def write(self, key: Key, plan: Plan, send: Send) -> bool:
        """Creates, patches and delivers; returns whether anything was written.

        Raises ApiError; 409 where the view that was decided on is an old one.
        """
        self._refused.pop(key, None)
        self._taken.pop(key, None)
        wrote = False
        for manifest in plan.create:
            unmade = {*self._refused.get(key, ()), *self._taken.get(key, ())}
            # No Job without the file that it mounts, nor with somebody else's.
            if manifest["metadata"]["name"] not in unmade:
                wrote |= await self._create(key, manifest, send)
        for status in plan.request_statuses:
            wrote |= await self._patch(key, status, send)
        for event in plan.events:
            if event.reason in _OUTCOMES:
                self.metrics.retraining_outcomes.labels(_OUTCOMES[event.reason]).inc()
        for delivery in plan.deliver:
            self.deliveries.start(key, delivery)
        for question in plan.count:
            self.counts.start(key, question)
        if plan.measure is not None:
            self.performance.start(key, plan.measure)
        else:
            self.performance.forget(key)
        return wrote

    def forget(self, key: Key) -> None:
        """The ModelDeployment is gone."""
        self._refused.pop(key, None)
        self._taken.pop(key, None)
        self.deliveries.forget(key)
        self.counts.forget(key)
        self.performance.forget(key)

    def _jobs(self, key: Key, requests: Mapping[str, Manifest]) -> dict[str, Manifest]:
        """The Jobs of these requests, by the requests' names; not those of others of that name."""
        found = {}
        for name, request in requests.items():
            job = self.store.get(kinds.JOB, key.namespace, name)
            if job is not None and owned_by(job, request["metadata"].get("uid", "")):
                found[name] = job
        return found

    async def _job(self, key: Key, job: Manifest, *, finished: bool) -> JobFacts:
        if finished or not ended(job):
            return job_facts(job)
        pods: list[Manifest] = []
        selector = f"{kinds.LABEL_REQUEST}={job['metadata']['name']}"
        async for chunk in self.client.list(kinds.POD, key.namespace, label_selector=selector):
            pods += chunk
        return job_facts(job, pods)

    async def _create(self, key: Key, manifest: Manifest, send: Send) -> bool:
        kind = KIND_BY_NAME[manifest["kind"]]
        name = str(manifest["metadata"]["name"])
        known = self.store.get(kind, key.namespace, name)
        if known is not None:
            self._ours(key, kind, known, manifest)
            return False
        try:
            await send(key, kind, name, self.client.create(kind, key.namespace, manifest))
        except ApiError as error:
            if error.status == 409:
                return await self._found(key, kind, manifest)
            if not error.refused and error.status != 404:
                raise
            self._refused.setdefault(key, {})[name] = str(error)
            return False
        if kind == kinds.RETRAINING_REQUEST:
            trigger = str(manifest["spec"]["trigger"]["type"])
            self.metrics.retraining_requests.labels(trigger).inc()
        return True

    async def _found(self, key: Key, kind: kinds.Kind, manifest: Manifest) -> bool:
        """An object of this name exists: made by us before our view of it was new, or not ours."""
        name = str(manifest["metadata"]["name"])
        live = await self.client.get(kind, key.namespace, name)
        if live is None:
            return True  # it is gone again: the next round makes it
        if not self._ours(key, kind, live, manifest):
            return False
        self.store.put(kind, live)
        return True

    def _ours(self, key: Key, kind: kinds.Kind, live: Manifest, wanted: Manifest) -> bool:
        """Whether a live object is the one that is to be made; that it is not is kept to be said.

        A RetrainingRequest is whoever's that names this ModelDeployment; what is made for it is
        that very request's, and not an earlier one's of its name.
        """
        if kind == kinds.RETRAINING_REQUEST:
            ours = (live.get("spec") or {}).get("deploymentRef") == {"name": key.name}
        else:
            ours = owned_by(live, wanted["metadata"]["ownerReferences"][0]["uid"])
        if not ours:
            self._taken.setdefault(key, {})[str(wanted["metadata"]["name"])] = kind.name
        return ours

    async def _patch(self, key: Key, wanted: RequestStatus, send: Send) -> bool:
        patch = merge_patch(wanted.before, wanted.status)
        kind = kinds.RETRAINING_REQUEST
        body = {"metadata": {"resourceVersion": wanted.version}, "status": patch}
        write = self.client.patch_status(kind, key.namespace, wanted.name, body)
        try:
            await send(key, kind, wanted.name, write)
        except ApiError as error:
            if error.status == 404:
                return False
            if not error.refused:
                raise
            log.warning("%s: status of %s was refused: %s", key, wanted.name, error)
            return False
        return True
