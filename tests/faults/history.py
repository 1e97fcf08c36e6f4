"""What happened in a namespace, by the API server's own watches: recorded, kept, and read again."""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
from collections.abc import AsyncIterator, Iterable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import aiohttp
from tests.apiserver.cluster import Api, Refused, until

from mooring.core import kinds
from mooring.core.kinds import CHILD_KINDS, OPTIONAL_KINDS, Kind, Ref
from mooring.core.retrain.ledger import Ledger, joined

Json = dict[str, Any]

#: Given by the API server or by the clock, so they differ from run to run.
_GIVEN = (
    kinds.ANNOTATION_PROMOTED_AT,
    kinds.ANNOTATION_FINGERPRINT,
    kinds.ANNOTATION_ROUTED,
    kinds.ANNOTATION_ACCEPTED,
    kinds.ANNOTATION_RETRAINING,  # joined of all records: see _ledger
)
#: What the fault "meddled" leaves on an object.
MEDDLED = "example.com/meddled"
WATCHED = (*CHILD_KINDS, kinds.MODEL_DEPLOYMENT, kinds.RETRAINING_REQUEST, kinds.JOB)
#: What the API server promises about resourceVersions of one etcd is used here: they are numbers
#: that rise over all kinds, so the events of several watches can be put in one order.


#: A request's name and key are hashes over the uid of its ModelDeployment; moments differ anyway.
_BY_RUN = (
    (re.compile(r"fraud-rr-[a-z0-9]+"), "fraud-rr"),
    (re.compile(r"\b[0-9a-f]{32}\b"), "KEY"),
    (re.compile(r"\b\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ"), "TIME"),
)


def steady(text: str) -> str:
    """A text without what differs from run to run. Two requests have one name then, made twice."""
    for pattern, instead in _BY_RUN:
        text = pattern.sub(instead, text)
    return text


@dataclass(frozen=True, slots=True)
class Happening:
    """One event: what has become of an object, at which version of the whole store."""

    version: int
    change: str
    kind: str
    obj: Json

    @property
    def name(self) -> str:
        return str(self.obj["metadata"]["name"])

    def __str__(self) -> str:
        return f"{self.change} {self.kind} {self.name} at {self.version}"


@dataclass
class History:
    """Everything that happened to children, ModelDeployments and requests for retraining."""

    happenings: list[Happening] = field(default_factory=list)
    kinds: tuple[Kind, ...] = WATCHED

    @contextlib.asynccontextmanager
    async def watch(self, api: Api, namespace: str) -> AsyncIterator[None]:
        """Listens, directly and not through the proxy, until left."""
        ready = [asyncio.Event() for _ in self.kinds]
        async with asyncio.TaskGroup() as group:
            tasks = [
                group.create_task(self._listen(api, namespace, kind, event))
                for kind, event in zip(self.kinds, ready, strict=True)
            ]
            await asyncio.gather(*(event.wait() for event in ready))
            yield
            for task in tasks:
                task.cancel()

    async def _listen(self, api: Api, namespace: str, kind: Kind, ready: asyncio.Event) -> None:
        path = kind.path(namespace)
        listed: Json = await until(partial(_listed, api, path), f"{kind.name}s can be listed")
        version = listed["metadata"]["resourceVersion"]
        async with api.session.get(
            f"{api.server}{path}?watch=true&resourceVersion={version}",
            timeout=aiohttp.ClientTimeout(total=None),
            read_bufsize=2**21,
        ) as stream:
            ready.set()
            async for line in stream.content:
                event = json.loads(line)
                obj = event["object"]
                at = int(obj["metadata"]["resourceVersion"])
                self.happenings.append(Happening(at, event["type"], kind.name, obj))

    def in_order(self) -> list[Happening]:
        """All of it, by the order in which the API server stored it."""
        return sorted(self.happenings, key=lambda happening: happening.version)

    def save(self, path: Path) -> None:
        """One JSON object a line, to be read again by :meth:`load`."""
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("w") as out:
            for h in self.in_order():
                out.write(json.dumps([h.version, h.change, h.kind, h.obj]) + "\n")

    @classmethod
    def load(cls, lines: Iterable[str]) -> History:
        return cls([Happening(*json.loads(line)) for line in lines])


async def _listed(api: Api, path: str) -> Json | None:
    """None while the storage of a new kind is not open yet."""
    try:
        return await api.request("GET", path)
    except Refused as error:
        if error.status == 429:
            return None
        raise


async def _routes(api: Api, namespace: str) -> dict[Ref, Json]:
    """Children of the kinds that not every cluster has."""
    found: dict[Ref, Json] = {}
    for kind in OPTIONAL_KINDS:
        with contextlib.suppress(Refused):
            for obj in await api.list(kind, namespace, kinds.LABEL_DEPLOYMENT):
                found[Ref(kind.name, obj["metadata"]["name"])] = obj
    return found


async def end_state(api: Api, namespace: str) -> Json:
    """Every child without what the API server and the clock give, and the status likewise."""
    found: Json = {}
    children = await api.children(namespace) | await _routes(api, namespace)
    for ref, child in children.items():
        meta = child["metadata"]
        spec = dict(child.get("spec") or {})
        for given in ("clusterIP", "clusterIPs"):
            if spec.get(given) not in ("None", ["None"]):
                spec.pop(given, None)
        found[str(ref)] = {
            "labels": meta.get("labels"),
            "annotations": _annotations(meta.get("annotations") or {}),
            "owners": [owner["name"] for owner in meta.get("ownerReferences", ())],
            "spec": spec,
            "data": child.get("data"),
        }
        version = (meta.get("annotations") or {}).get(kinds.ANNOTATION_VERSION)
        if version:  # a hash over the namespace, too
            text = json.dumps(found[str(ref)]).replace(version, "VERSION")
            found[str(ref)] = json.loads(text)
    found["ledger"] = _ledger(children.values())
    resource = await api.get(kinds.MODEL_DEPLOYMENT, namespace, "fraud") or {}
    status = resource.get("status") or {}
    stable, candidate = status.get("stable") or {}, status.get("candidate")
    found["status"] = {
        "phase": status.get("phase"),
        "stable": {k: v for k, v in stable.items() if k != "since"},
        "candidate": candidate and {k: v for k, v in candidate.items() if k != "since"},
        "conditions": [(c["type"], c["status"], c["reason"]) for c in status.get("conditions", ())],
    }
    text = steady(json.dumps(found).replace(namespace, "NAMESPACE"))
    return json.loads(text)  # type: ignore[no-any-return]


def _ledger(children: Iterable[Json]) -> Json:
    """What all records know together of requests; the one before a promotion may know less."""
    texts = [
        (child["metadata"].get("annotations") or {}).get(kinds.ANNOTATION_RETRAINING)
        for child in children
    ]
    known = joined(Ledger.from_text(text) for text in texts if text)
    return dict(json.loads(known.to_text()))


def _annotations(annotations: dict[str, str]) -> Json:
    """Without times."""
    kept: Json = {k: v for k, v in annotations.items() if k not in (*_GIVEN, MEDDLED)}
    if kinds.ANNOTATION_REJECTED in kept:
        rejected = json.loads(kept[kinds.ANNOTATION_REJECTED])
        kept[kinds.ANNOTATION_REJECTED] = {k: v for k, v in rejected.items() if k != "at"}
    return kept
