"""A model that serves, with retraining, and what others do to it."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any

from tests.core.given import spec
from tests.core.world import World

from mooring.core.kinds import Ref
from mooring.core.retrain.facts import DriftFacts, JobFacts
from mooring.core.retrain.ledger import Entry, joined

DIGEST = "sha256:" + "a" * 64
V8 = {"uri": "s3://models/fraud/v8", "digest": DIGEST}
JOB = {"job": {"templateRef": {"name": "train"}}}
TEMPLATE: dict[str, Any] = {
    "template": {
        "metadata": {"labels": {"team": "risk", "mooring.dev/deployment": "other"}},
        "spec": {
            "restartPolicy": "Always",
            "containers": [{"name": "train", "image": "example.com/train:1",
                            "env": [{"name": "A", "value": "b"},
                                    {"name": "MOORING_REQUEST", "value": "forged"}]}],
        },
    }
}  # fmt: skip


def retraining(*triggers: dict[str, Any], **changes: Any) -> dict[str, Any]:
    return {
        "triggers": list(triggers) or [{"drift": {"for": "3h"}}],
        "action": {"none": {}},
        **changes,
    }


def serving(wanted: dict[str, Any] | None = None, **changes: Any) -> World:
    """A stable revision, settled; the spec of retraining as given."""
    world = World.with_spec(spec(retraining=wanted or retraining(), **changes))
    world.serve()
    world.settle()
    return world


def drift(world: World, since: timedelta = timedelta(hours=4), **facts: Any) -> None:
    """The data drifts, since so long ago."""
    began = world.now - since
    found = DriftFacts(drifted=True, since=began, change_point=began, features=("amount",), **facts)
    world.retraining = replace(world.retraining, drift=found)


def steady(world: World) -> None:
    world.retraining = replace(world.retraining, drift=DriftFacts(steady=True))


def unknown(world: World) -> None:
    world.retraining = replace(world.retraining, drift=None)


def job_ends(world: World, name: str, words: str, *, succeeded: bool = True) -> None:
    """The Job of a request comes to its end."""
    ended = JobFacts("uid", True, succeeded, words, "" if succeeded else "BackoffLimitExceeded", 1)
    world.retraining = replace(world.retraining, jobs={**world.retraining.jobs, name: ended})


def only_request(world: World) -> str:
    (name,) = world.requests
    return name


def entries(world: World) -> tuple[Entry, ...]:
    """What the records say."""
    return joined(r.ledger for r in world.history.revisions).entries


def request_status(world: World, name: str) -> dict[str, Any]:
    return dict(world.requests[name].get("status") or {})


def condition(world: World, name: str, kind: str) -> tuple[str, str]:
    for found in request_status(world, name).get("conditions") or ():
        if found["type"] == kind:
            return str(found["status"]), str(found["reason"])
    return "", ""


def made(world: World, kind: str) -> list[str]:
    return sorted(ref.name for ref in world.made if ref.kind == kind)


def job_of(world: World, name: str) -> dict[str, Any]:
    return world.made[Ref("Job", name)]
