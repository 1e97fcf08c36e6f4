"""The invariants that can be read from what the API server has stored, in the order it did so.

Pure functions over a recorded history (docs/reliability.md names the invariants), so a history
that was kept can be judged again: ``python -m tests.faults.campaign --judge FILE``.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

from tests.faults.history import Happening, Json, steady

from mooring.core import kinds
from mooring.core.clock import parse_time
from mooring.core.render.router.objects import router_name
from mooring.core.render.router.table import read_table

#: Whoever plays the user in these runs.
USER = "user"
#: What tells routers of each kind where requests go.
_ENVOY, _GATEWAY = "ConfigMap", "HTTPRoute"
#: Evidence is of now for four ticks, of a second in these runs, and times are whole seconds.
_FRESH = timedelta(seconds=5)


@dataclass
class Scene:
    """What is there after some of the history: the newest form of every object."""

    objects: dict[tuple[str, str], Json] = field(default_factory=dict)

    def find(self, kind: str, name: str) -> Json | None:
        return self.objects.get((kind, name))

    def take(self, happening: Happening) -> None:
        key = (happening.kind, happening.name)
        if happening.change == "DELETED":
            self.objects.pop(key, None)
        else:
            self.objects[key] = happening.obj

    def available(self, deployment: str, revision: str) -> int:
        live = self.find("Deployment", f"{deployment}-{revision}") or {}
        return int((live.get("status") or {}).get("availableReplicas", 0))

    def weights(self, deployment: str) -> dict[str, int]:
        """The shares that the routers are told; empty where there are none."""
        for kind, name in ((_ENVOY, router_name(deployment)), (_GATEWAY, deployment)):
            live = self.find(kind, name)
            if live is not None:
                return _told(kind, live) or {}
        return {}

    def routed(self, deployment: str) -> bool:
        """Whether anything but the Service splits the requests."""
        return bool(self.find(_ENVOY, router_name(deployment)) or self.find(_GATEWAY, deployment))

    def stable(self, deployment: str) -> str:
        """The revision that was promoted last; empty before there is one."""
        found = {
            int(_record(obj)[kinds.ANNOTATION_PROMOTION]): _label(obj, kinds.LABEL_REVISION)
            for (kind, _), obj in self.objects.items()
            if kind == "ControllerRevision" and _deployment_of(obj) == deployment
            if kinds.ANNOTATION_PROMOTION in _record(obj)
        }
        return found[max(found)] if found else ""

    def total(self, deployment: str) -> int:
        """How many pods the spec asks for; 0 when there is no such object (any more)."""
        live = self.find("ModelDeployment", deployment)
        return int(live["spec"].get("replicas", 1)) if live else 0


def judge(history: Iterable[Happening]) -> list[str]:
    """Every breach as a sentence that begins with the invariant's name. ``history`` in order."""
    scene = Scene()
    asked: Counter[str] = Counter()
    breaches: list[str] = []
    for happening in history:
        for check in (_weights, _capacity, _rejected, _promoted, _ready, _spec):
            breaches += [f"{text} ({happening})" for text in check(scene, happening)]
        if happening.kind == "RetrainingRequest" and happening.change == "ADDED":
            asked[_request_key(happening.obj)] += 1
        scene.take(happening)
    breaches += [f"I6: {count} requests for {key}" for key, count in asked.items() if count > 1]
    return breaches


def births_and_deaths(history: Iterable[Happening]) -> tuple[dict[str, int], dict[str, int]]:
    """How often each child was made and removed (I2)."""
    births: Counter[str] = Counter()
    deaths: Counter[str] = Counter()
    for happening in history:
        labels = happening.obj["metadata"].get("labels") or {}
        if kinds.LABEL_DEPLOYMENT in labels:
            name = steady(f"{happening.kind} {happening.name}")
            births[name] += happening.change == "ADDED"
            deaths[name] += happening.change == "DELETED"
    return dict(births), dict(deaths)


def _weights(scene: Scene, happening: Happening) -> Iterator[str]:
    """I3: weights sum to 100, and none is raised onto a revision without an available pod."""
    deployment = _deployment_of(happening.obj)
    if happening.change == "DELETED" or not _routes(happening, deployment):
        return
    weights, before = _told(happening.kind, happening.obj), scene.weights(deployment)
    if weights is None:
        yield "I3: the routers' table cannot be read"
        return
    if weights and sum(weights.values()) != 100:
        yield f"I3: weights sum to {sum(weights.values())}: {dict(weights)}"
    for revision, weight in weights.items():
        risen = bool(before) and weight > before.get(revision, 0)  # first of all: nothing to lose
        if risen and not scene.available(deployment, revision) and scene.total(deployment):
            yield f"I3: {weight} % for {revision}, which has no available pod"


def _capacity(scene: Scene, happening: Happening) -> Iterator[str]:
    """I3: pods that the traffic needs are not taken away.

    With routers, a revision keeps pods for its share. Without, all pods that are available stay as
    many as the spec asks for.
    """
    if happening.kind != "Deployment":
        return
    revision = _label(happening.obj, kinds.LABEL_REVISION)
    deployment = _deployment_of(happening.obj)
    before = scene.find("Deployment", happening.name)
    total = scene.total(deployment)
    if not revision or before is None or not total:
        return
    asked = 0 if happening.change == "DELETED" else int(happening.obj["spec"].get("replicas", 1))
    if asked >= int(before["spec"].get("replicas", 1)):
        return
    if scene.routed(deployment):
        # A share is a whole percent, rounded down: see mooring.core.sizing.
        weight = scene.weights(deployment).get(revision, 0)
        if asked * 100 < total * (weight - 1):
            yield f"I3: {asked} of {total} pods are left for {weight} % of the requests"
        return
    others = sum(
        scene.available(deployment, _label(obj, kinds.LABEL_REVISION))
        for (kind, name), obj in scene.objects.items()
        if kind == "Deployment" and name != happening.name and _deployment_of(obj) == deployment
    )
    had = others + scene.available(deployment, revision)
    left = others + min(asked, scene.available(deployment, revision))
    if left < min(had, total):
        yield f"I3: {left} available pods are left of {had}, and {total} are asked for"


def _rejected(scene: Scene, happening: Happening) -> Iterator[str]:
    """I4: what was rejected gets neither more traffic nor more pods."""
    deployment = _deployment_of(happening.obj)
    if happening.change == "DELETED" or not scene.total(deployment):
        return
    if happening.kind == "Deployment":
        revision = _label(happening.obj, kinds.LABEL_REVISION)
        before = scene.find("Deployment", happening.name)
        now = int(happening.obj["spec"].get("replicas", 1))
        was = int(before["spec"].get("replicas", 1)) if before else 0
        if revision and now > was and _is_rejected(scene, deployment, revision):
            yield f"I4: {revision} is rejected, and its pods rise from {was} to {now}"
    elif _routes(happening, deployment):
        weights = scene.weights(deployment)
        for revision, weight in (_told(happening.kind, happening.obj) or {}).items():
            was = weights.get(revision, 0)
            if weight > was and _is_rejected(scene, deployment, revision):
                yield f"I4: {revision} is rejected, and its weight rises from {was} to {weight}"


def _is_rejected(scene: Scene, deployment: str, revision: str) -> bool:
    record = scene.find("ControllerRevision", f"{deployment}-{revision}") or {}
    annotations = (record.get("metadata") or {}).get("annotations") or {}
    return kinds.ANNOTATION_REJECTED in annotations


def _promoted(scene: Scene, happening: Happening) -> Iterator[str]:
    """I5: where an analysis is asked for, what is promoted has passed it, a moment ago.

    Status is written before the record, so it is there to be compared. Not looked at: the first
    revision, what people promote past the evidence, and what takes over from one that is broken.
    """
    deployment = _deployment_of(happening.obj)
    live = scene.find("ModelDeployment", deployment) or {}
    if happening.kind != "ControllerRevision" or "analysis" not in live.get("spec", {}):
        return
    now, before = _record(happening.obj), _record(scene.find(happening.kind, happening.name))
    if kinds.ANNOTATION_PROMOTION not in now or kinds.ANNOTATION_PROMOTION in before:
        return
    stable = scene.stable(deployment)
    verb = (live["metadata"].get("annotations") or {}).get(kinds.ANNOTATION_ACTION) or "-"
    if not stable or not scene.available(deployment, stable) or verb.startswith("promote"):
        return
    revision = _label(happening.obj, kinds.LABEL_REVISION)
    found: Json = (live.get("status") or {}).get("analysis") or {}
    verdicts = {one["name"]: one["verdict"] for one in found.get("metrics") or ()}
    asked = {str(one["name"]) for one in live["spec"]["analysis"]["metrics"]}
    if found.get("revision") != revision or found.get("verdict") != "Pass":
        yield f"I5: {revision} was promoted on {found.get('verdict')} of {found.get('revision')}"
    elif {name for name, verdict in verdicts.items() if verdict == "Pass"} != asked:
        yield f"I5: {revision} was promoted on {verdicts}"
    else:
        age = parse_time(now[kinds.ANNOTATION_PROMOTED_AT]) - parse_time(found["observedAt"])
        if age > _FRESH:
            yield f"I5: {revision} was promoted on evidence of {age.total_seconds():.0f} s ago"


def _record(record: Json | None) -> dict[str, str]:
    """The annotations of a record: all that may change of it."""
    return dict(((record or {}).get("metadata") or {}).get("annotations") or {})


def _ready(scene: Scene, happening: Happening) -> Iterator[str]:
    """I7: what says Ready says of which generation, and it is true of the pods."""
    if happening.kind != "ModelDeployment" or happening.change == "DELETED":
        return
    status = happening.obj.get("status") or {}
    before = scene.find("ModelDeployment", happening.name) or {}
    if status == before.get("status"):
        return  # somebody wrote something else
    for condition in status.get("conditions") or ():
        if condition["type"] != "Ready" or condition["status"] != "True":
            continue
        if "observedGeneration" not in condition:
            yield "I7: Ready=True without the generation that it is true of"
        elif condition["observedGeneration"] > happening.obj["metadata"]["generation"]:
            yield "I7: Ready=True of a generation that is not there yet"
        stable = status.get("stable") or {}
        replicas = stable.get("replicas") or {}
        ready, desired = replicas.get("ready", 0), replicas.get("desired", 1)
        if ready < desired:
            yield f"I7: Ready=True with {replicas}"
        found = scene.available(happening.name, str(stable.get("revision")))
        if found < min(ready, desired):
            yield f"I7: Ready=True with {ready} pods, and the API server knows of {found}"


def _spec(scene: Scene, happening: Happening) -> Iterator[str]:
    """I10: nobody but the user owns a field of the spec."""
    if happening.kind != "ModelDeployment":
        return
    for entry in happening.obj["metadata"].get("managedFields") or ():
        if "f:spec" in entry["fieldsV1"] and entry["manager"] != USER:
            yield f"I10: spec was written by {entry['manager']}"


def _routes(happening: Happening, deployment: str) -> bool:
    """Whether this is what tells the routers of a deployment where requests go."""
    where = (happening.kind, happening.name)
    return where in ((_ENVOY, router_name(deployment)), (_GATEWAY, deployment))


def _told(kind: str, live: Json) -> dict[str, int] | None:
    """The weights in a router's table, or in the last rule of an HTTPRoute; None for neither."""
    if kind == _ENVOY:
        table = read_table(live)
        return dict(table[0].route.weights) if table else None
    name = _deployment_of(live)
    backends = live["spec"]["rules"][-1].get("backendRefs") or ()
    return {
        ref["name"].removeprefix(f"{name}-").removesuffix("-gateway"): int(ref.get("weight", 1))
        for ref in backends
    }


def _request_key(request: Json) -> str:
    spec = request["spec"]
    reference = (spec.get("deploymentRef") or {}).get("name")
    return f"{reference}: {spec.get('idempotencyKey') or json.dumps(spec, sort_keys=True)}"


def _label(obj: Json, label: str) -> str:
    labels: dict[str, Any] = obj["metadata"].get("labels") or {}
    return str(labels.get(label, ""))


def _deployment_of(obj: Json) -> str:
    return _label(obj, kinds.LABEL_DEPLOYMENT)
