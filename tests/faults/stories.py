"""What happens in a fault run: a few lives of one ModelDeployment, each told to its end.

A story is told by the user's side alone. Whatever goes wrong between the operator and the API
server meanwhile, it must come to the same end.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

from tests.apiserver.cluster import Api, Json, deploy, until
from tests.apiserver.jobs import BY_JOB, TEMPLATE, finish_job
from tests.apiserver.pods import Pods
from tests.faults.measuring import ANALYSIS, Measuring
from tests.faults.routers import FakeRouters

from mooring.core import kinds
from mooring.core.kinds import CHILD_KINDS

_SECONDS = 240.0
_EVERY = 0.12
V1, V2, V3 = (f"s3://models/fraud/v{number}" for number in (1, 2, 3))
_TRAINED = {"uri": V2, "digest": "sha256:" + "3" * 64}
_STEPS: list[Json] = [{"weight": 20}, {"pause": {}}, {"weight": 60}]


@dataclass
class Stage:
    """One namespace, and what the user does and waits for there."""

    api: Api
    namespace: str
    pods: Pods
    routers: FakeRouters
    measuring: Measuring | None = None

    async def apply(self, uri: str, *, routers: bool = False, **changes: Any) -> None:
        """``kubectl apply`` of the whole object."""
        spec: Json = {
            "model": {"uri": uri},
            "runtime": {"name": "onnx"},
            "traffic": {"router": "envoy" if routers else "replicas"},
            "replicas": 2,
            **changes,
        }
        await deploy(self.api, self.namespace, spec=spec)

    async def act(self, verb: str, revision: str, token: str = "1") -> None:
        body = {
            "metadata": {"annotations": {kinds.ANNOTATION_ACTION: f"{verb}/{revision}/{token}"}}
        }
        await self.api.patch(kinds.MODEL_DEPLOYMENT, self.namespace, "fraud", body)

    async def status(self) -> Json:
        """Its status once it is of the present spec, else nothing."""
        resource = await self.api.resource(self.namespace, "fraud")
        status: Json = resource.get("status") or {}
        seen = status.get("observedGeneration") == resource["metadata"]["generation"]
        return status if seen else {}

    async def serves(self, uri: str, what: str = "", unlike: str = "") -> str:
        """Waits until nothing but a revision of this model serves, and returns its name.

        ``unlike``: not this revision.
        """

        async def now() -> str:
            status = await self.status()
            stable = status.get("stable") or {}
            name = str(stable.get("revision", ""))
            count = stable.get("replicas") or {}
            alone = stable.get("modelUri") == uri and status.get("candidate") is None
            if count.get("ready") != count.get("desired"):
                return ""
            if not alone or name == unlike or not await self._at_rest(name):
                return ""
            return name if await self.api.ready(self.namespace, "fraud") else ""

        return str(await until(now, what or f"{uri} serves", seconds=_SECONDS, every=_EVERY))

    async def _at_rest(self, revision: str) -> bool:
        """Whether no other revision has pods, and no router sends anything elsewhere."""
        found = await self.api.list(kinds.DEPLOYMENT, self.namespace, kinds.LABEL_REVISION)
        names = [obj["metadata"]["name"] for obj in found]
        elsewhere = any(w != {revision: 100} for w in self.routers.weights.values())
        return names == [f"fraud-{revision}"] and not elsewhere

    async def waits(self, reason: str = "WaitingForPromote") -> str:
        """Waits until its candidate waits for a person, and returns its name."""

        async def now() -> str:
            status = await self.status()
            reasons = {c["type"]: c["reason"] for c in status.get("conditions") or ()}
            candidate = status.get("candidate") or {}
            return str(candidate.get("revision", "")) if reasons["Reconciling"] == reason else ""

        async def safely() -> str:
            with contextlib.suppress(KeyError):
                return await now()
            return ""

        return str(await until(safely, reason, seconds=_SECONDS, every=_EVERY))

    async def rejects(self, uri: str) -> None:
        """Waits until the record of a revision of this model says that it is rejected."""

        async def now() -> bool:
            records = await self.api.list(kinds.CONTROLLER_REVISION, self.namespace)
            return any(
                record["data"]["inputs"]["model"]["uri"] == uri
                and kinds.ANNOTATION_REJECTED in record["metadata"]["annotations"]
                for record in records
            )

        await until(now, f"{uri} is rejected", seconds=_SECONDS, every=_EVERY)

    async def job(self) -> str:
        """The name of the Job, once there is one."""
        found = await self.api.list(kinds.JOB, self.namespace)
        return str(found[0]["metadata"]["name"]) if found else ""

    async def delete(self) -> None:
        """Deletes it, and plays the garbage collector until nothing of it is left."""
        self.routers.gone = True
        await self.api.delete(kinds.MODEL_DEPLOYMENT, self.namespace, "fraud")
        await until(
            partial(self._collected), "everything of it is gone", seconds=_SECONDS, every=_EVERY
        )

    async def _collected(self) -> bool:
        """Removes what has lost its owner, as the garbage collector would."""
        found = 0
        for kind in (*CHILD_KINDS, kinds.POD):
            for obj in await self.api.list(kind, self.namespace):
                if obj["metadata"].get("ownerReferences"):
                    found += 1
                    name = obj["metadata"]["name"]
                    await self.api.delete(kind, self.namespace, name, gracePeriodSeconds=0)
        if found == 0:
            await asyncio.sleep(0.3)  # whoever still makes something has had the time
        return found == 0


Story = Callable[[Stage], Awaitable[object]]


async def _update(stage: Stage) -> None:
    """A first model, and a second one that takes over."""
    await stage.apply(V1)
    await stage.serves(V1)
    await stage.apply(V2)
    await stage.serves(V2)


async def _canary(stage: Stage) -> None:
    """By steps behind routers, with a pause that is ended by hand."""
    rollout = {"steps": _STEPS}
    await stage.apply(V1, routers=True, rollout=rollout)
    await stage.serves(V1)
    await stage.apply(V2, routers=True, rollout=rollout)
    await stage.act("promote", await stage.waits())
    await stage.serves(V2)


async def _abort(stage: Stage) -> None:
    """A canary is aborted, tried again, and then promoted past all its steps."""
    rollout = {"steps": _STEPS}
    await stage.apply(V1, routers=True, rollout=rollout)
    await stage.serves(V1)
    await stage.apply(V2, routers=True, rollout=rollout)
    candidate = await stage.waits()
    await stage.act("abort", candidate)
    await stage.serves(V1, "v1 has all the traffic again")
    await stage.act("retry", candidate)
    await stage.waits()
    await stage.act("promote-full", candidate)
    await stage.serves(V2)


async def _restart(stage: Stage) -> None:
    """Pods are made anew by a verb, then there are more of them, then fewer."""
    await stage.apply(V1)
    first = await stage.serves(V1)
    await stage.act("restart", first)
    await stage.serves(V1, "the restarted revision serves", unlike=first)
    await stage.apply(V1, replicas=3)
    await stage.serves(V1, "three pods")
    await stage.apply(V1, replicas=1)
    await stage.serves(V1, "one pod")


async def _delete(stage: Stage) -> None:
    """It is deleted amid its canary, and made again under the same name."""
    rollout = {"steps": _STEPS}
    await stage.apply(V1, routers=True, rollout=rollout)
    await stage.serves(V1)
    await stage.apply(V2, routers=True, rollout=rollout)
    await stage.waits()
    await stage.delete()
    await stage.apply(V3)
    await stage.serves(V3)


async def _gateway(stage: Stage) -> None:
    """By steps behind a Gateway, taken back by hand, and then promoted."""
    rollout = {"steps": _STEPS}
    gateway = {"parentRefs": [{"name": "public"}], "hostnames": ["fraud.example.com"]}
    traffic = {"router": "gateway", "gateway": gateway}
    await stage.apply(V1, traffic=traffic, rollout=rollout)
    await stage.serves(V1)
    await stage.apply(V2, traffic=traffic, rollout=rollout)
    await stage.act("promote", await stage.waits())
    await stage.serves(V2)


async def _evidence(stage: Stage) -> None:
    """A candidate is promoted by what Prometheus says of it, and the next one rolled back."""
    assert stage.measuring is not None
    judged = {"rollout": {"steps": [{"weight": 50, "duration": "1s"}]}, "analysis": ANALYSIS}
    await stage.apply(V1, routers=True, **judged)
    await stage.serves(V1)
    await stage.apply(V2, routers=True, **judged)
    await stage.serves(V2)
    stage.measuring.bad = True
    await stage.apply(V3, routers=True, **judged)
    await stage.rejects(V3)
    await stage.serves(V2, "v2 has all the traffic again")


async def _retrain(stage: Stage) -> None:
    """A person asks for another model, a Job trains it, and it takes over."""
    await stage.api.create(kinds.POD_TEMPLATE, stage.namespace, TEMPLATE)
    await stage.apply(V1, retraining=BY_JOB)
    await stage.act("retrain", await stage.serves(V1))
    job = await until(stage.job, "a Job", seconds=_SECONDS, every=_EVERY)
    await finish_job(stage.api, stage.namespace, str(job), json.dumps(_TRAINED))
    await stage.serves(V2)


STORIES: dict[str, Story] = {
    "update": _update,
    "canary": _canary,
    "abort": _abort,
    "restart": _restart,
    "delete": _delete,
    "gateway": _gateway,
    "evidence": _evidence,
    "retrain": _retrain,
}
#: Those in which Prometheus is asked.
JUDGED = frozenset({"evidence"})
