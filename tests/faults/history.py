"""What happened in a namespace, by the API server's own watches, and what must be true of it."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

import aiohttp
from tests.apiserver.cluster import Api

from mooring.core import kinds
from mooring.core.kinds import CHILD_KINDS, Kind

Json = dict[str, Any]

#: Given by the API server or by the clock, so they differ from run to run.
_GIVEN = (kinds.ANNOTATION_PROMOTED_AT, kinds.ANNOTATION_FINGERPRINT, kinds.ANNOTATION_ROUTED)


@dataclass
class History:
    """Counts creations and deletions per object, and notes every breach as a sentence."""

    births: Counter[str] = field(default_factory=Counter)
    deaths: Counter[str] = field(default_factory=Counter)
    breaches: list[str] = field(default_factory=list)
    deployments: dict[str, Json] = field(default_factory=dict)

    @contextlib.asynccontextmanager
    async def watch(self, api: Api, namespace: str) -> AsyncIterator[None]:
        """Listens, directly and not through the proxy, until left."""
        ready: list[asyncio.Event] = []
        async with asyncio.TaskGroup() as group:
            tasks = []
            for kind in (*CHILD_KINDS, kinds.MODEL_DEPLOYMENT):
                ready.append(asyncio.Event())
                tasks.append(group.create_task(self._listen(api, namespace, kind, ready[-1])))
            await asyncio.gather(*(event.wait() for event in ready))
            yield
            for task in tasks:
                task.cancel()

    async def _listen(self, api: Api, namespace: str, kind: Kind, ready: asyncio.Event) -> None:
        path = kind.path(namespace)
        listed = await api.request("GET", path)
        version = listed["metadata"]["resourceVersion"]
        async with api.session.get(
            f"{api.server}{path}?watch=true&resourceVersion={version}",
            timeout=aiohttp.ClientTimeout(total=None),
        ) as stream:
            ready.set()
            async for line in stream.content:
                event = json.loads(line)
                self._note(kind, event["type"], event["object"])

    def _note(self, kind: Kind, change: str, obj: Json) -> None:
        if kind == kinds.MODEL_DEPLOYMENT:
            self._judge_status(obj)
            return
        name = f"{kind.name} {obj['metadata']['name']}"
        if kinds.LABEL_DEPLOYMENT not in (obj["metadata"].get("labels") or {}):
            return
        self.births[name] += change == "ADDED"
        self.deaths[name] += change == "DELETED"
        if kind == kinds.DEPLOYMENT:
            if change == "DELETED":
                self.deployments.pop(obj["metadata"]["name"], None)
            else:
                self.deployments[obj["metadata"]["name"]] = obj

    def _judge_status(self, obj: Json) -> None:
        """I7: what says Ready says of which generation, and it is true of it."""
        status = obj.get("status") or {}
        for condition in status.get("conditions") or ():
            if condition["type"] != "Ready" or condition["status"] != "True":
                continue
            if "observedGeneration" not in condition:
                self.breaches.append("I7: Ready=True without the generation that it is true of")
            replicas = (status.get("stable") or {}).get("replicas") or {}
            if replicas.get("ready", 0) < replicas.get("desired", 1):
                self.breaches.append(f"I7: Ready=True with {replicas}")


async def end_state(api: Api, namespace: str) -> Json:
    """Every child without what the API server and the clock give, and the status likewise."""
    found: Json = {}
    for ref, child in (await api.children(namespace)).items():
        meta = child["metadata"]
        annotations = {
            key: value
            for key, value in (meta.get("annotations") or {}).items()
            if key not in _GIVEN
        }
        spec = dict(child.get("spec") or {})
        for given in ("clusterIP", "clusterIPs"):
            if spec.get(given) not in ("None", ["None"]):
                spec.pop(given, None)
        found[str(ref)] = {
            "labels": meta.get("labels"),
            "annotations": annotations,
            "owners": [owner["name"] for owner in meta.get("ownerReferences", ())],
            "spec": spec,
            "data": child.get("data"),
        }
    status = (await api.resource(namespace, "fraud"))["status"]
    found["status"] = {
        "phase": status["phase"],
        "stable": {k: v for k, v in status["stable"].items() if k != "since"},
        "candidate": status.get("candidate"),
        "conditions": [(c["type"], c["status"], c["reason"]) for c in status["conditions"]],
    }
    return json.loads(json.dumps(found).replace(namespace, "NAMESPACE"))  # type: ignore[no-any-return]
