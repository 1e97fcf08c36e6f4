"""The invariants that can be read from what the API server has stored, in the order it did so.

Pure functions over a recorded history (docs/reliability.md names the invariants), so a history
that was kept can be judged again: ``python -m tests.faults.campaign --judge FILE``.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

from tests.faults.history import Happening, Json

from mooring.core import kinds
from mooring.core.render.router.objects import router_name
from mooring.core.render.router.table import read_table

#: Whoever plays the user in these runs.
USER = "user"


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
        live = self.find("ConfigMap", router_name(deployment))
        table = read_table(live) if live else None
        return dict(table[0].route.weights) if table else {}

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
        for check in (_weights, _capacity, _rejected, _ready, _spec):
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
            name = f"{happening.kind} {happening.name}"
            births[name] += happening.change == "ADDED"
            deaths[name] += happening.change == "DELETED"
    return dict(births), dict(deaths)


def _weights(scene: Scene, happening: Happening) -> Iterator[str]:
    """I3: weights sum to 100, and none is raised onto a revision without an available pod."""
    deployment = _deployment_of(happening.obj)
    if happening.kind != "ConfigMap" or happening.name != router_name(deployment):
        return
    if happening.change == "DELETED":
        return
    table = read_table(happening.obj)
    if table is None:
        yield "I3: the routers' table cannot be read"
        return
    weights, before = table[0].route.weights, scene.weights(deployment)
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
    if scene.find("ConfigMap", router_name(deployment)) is not None:
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
    elif happening.kind == "ConfigMap" and happening.name == router_name(deployment):
        table, weights = read_table(happening.obj), scene.weights(deployment)
        for revision, weight in (table[0].route.weights if table else {}).items():
            was = weights.get(revision, 0)
            if weight > was and _is_rejected(scene, deployment, revision):
                yield f"I4: {revision} is rejected, and its weight rises from {was} to {weight}"


def _is_rejected(scene: Scene, deployment: str, revision: str) -> bool:
    record = scene.find("ControllerRevision", f"{deployment}-{revision}") or {}
    annotations = (record.get("metadata") or {}).get("annotations") or {}
    return kinds.ANNOTATION_REJECTED in annotations


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


def _request_key(request: Json) -> str:
    spec = request["spec"]
    reference = (spec.get("deploymentRef") or {}).get("name")
    return f"{reference}: {spec.get('idempotencyKey') or json.dumps(spec, sort_keys=True)}"


def _label(obj: Json, label: str) -> str:
    labels: dict[str, Any] = obj["metadata"].get("labels") or {}
    return str(labels.get(label, ""))


def _deployment_of(obj: Json) -> str:
    return _label(obj, kinds.LABEL_DEPLOYMENT)
