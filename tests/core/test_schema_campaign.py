"""Every field that the schema has is changed to anything at all, and changed back.

Whatever it was, deciding never raises; what served serves on, or a revision of the new spec takes
over; and afterwards everything is as it was.
"""

from __future__ import annotations

import pickle
from functools import cache
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.core.given import copied, spec
from tests.core.schema_values import Json, changes, places, spec_schema
from tests.core.world import World

from mooring.core import kinds
from mooring.core.kinds import Ref
from mooring.core.render.router.observation import prepared_template

_GIVEN = ("uid", "resourceVersion", "generation")
_TIMES = (kinds.ANNOTATION_PROMOTED_AT, kinds.ANNOTATION_FINGERPRINT, kinds.ANNOTATION_ROUTED,
          kinds.ANNOTATION_PROMOTION, kinds.ANNOTATION_ROLLOUT)  # fmt: skip
SPEC = spec(
    runtime={"name": "onnx", "env": [{"name": "A", "value": "1"}], "args": ["--x"],
             "resources": {"requests": {"cpu": "500m"}, "limits": {"memory": "1Gi"}}},
    traffic={"router": "envoy", "timeout": "30s"},
    rollout={"steps": [{"weight": 20, "duration": "10m"}], "progressDeadline": "10m",
             "revisionHistoryLimit": 10},
)  # fmt: skip


@cache
def _served() -> bytes:
    world = World.with_spec(copied(SPEC))
    world.serve()
    return pickle.dumps(world)


def _children(world: World) -> dict[Ref, Json]:
    """What is there for the stable revision, without what time and the server give."""
    stable = world.history.stable
    assert stable is not None
    found = {}
    for ref, child in world.children.items():
        if ref.kind == "ControllerRevision" and not ref.name.endswith(stable.hash):
            continue  # what has been tried is remembered
        meta: Json = {k: v for k, v in child["metadata"].items() if k not in _GIVEN}
        annotations = (meta.get("annotations") or {}).items()
        meta["annotations"] = {k: v for k, v in annotations if k not in _TIMES}
        found[ref] = {**copied(child), "metadata": meta}
        found[ref].pop("status", None)
        if ref.name == "fraud-router" and ref.kind == "Deployment":
            # Routers that were prepared for monitoring once stay so: to undo it restarts them.
            whole = found[ref]["spec"]
            found[ref]["spec"] = whole | {"template": prepared_template(whole["template"])}
    return found


def _live(world: World) -> None:
    """Lets some time go by in which pods start."""
    for _ in range(4):
        world.settle(40)
        for revision in world.revisions():
            world.run_pods(revision)
        if Ref("Deployment", "fraud-router") in world.children:
            world.run_routers()
        world.wait(seconds=20)
    world.settle(40)


def _change_and_change_back(new: Any) -> None:
    world: World = pickle.loads(_served())
    before, stable = _children(world), world.history.stable
    assert stable is not None
    world.edit()
    world.resource["spec"] = new
    world.settle(40)
    served = world.history.stable
    assert served is not None, "what serves is never forgotten"
    assert world.revisions(), "and keeps its pods"
    world.settle(40)
    world.edit()
    world.resource["spec"] = copied(SPEC)
    for _ in range(6):
        _live(world)
        world.wait(minutes=11)
    assert _children(world) == before
    assert world.reason("Ready") == ""
    assert world.reason("Stalled") == ""
    assert "candidate" not in world.status


_SLOW = (HealthCheck.too_slow, HealthCheck.filter_too_much, HealthCheck.data_too_large)


@settings(max_examples=8, deadline=None, suppress_health_check=_SLOW)
@given(changes(spec_schema(), SPEC))
def test_any_field_changed_and_changed_back_leaves_the_plan_as_it_was(
    change: tuple[tuple[str, ...], Json],
) -> None:
    _change_and_change_back(change[1])


@pytest.mark.slow
@pytest.mark.timeout(3000)
@settings(max_examples=3000, deadline=None, suppress_health_check=_SLOW)
@given(changes(spec_schema(), SPEC))
def test_however_many_fields_one_tries(change: tuple[tuple[str, ...], Json]) -> None:
    _change_and_change_back(change[1])


_ANYTHING = st.recursive(
    st.one_of(
        st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False), st.text(max_size=9)
    ),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=9), inner, max_size=3)
    ),
    max_leaves=8,
)  # fmt: skip


@settings(max_examples=40, deadline=None, suppress_health_check=_SLOW)
@given(_ANYTHING)
def test_a_spec_that_is_anything_at_all_stalls_and_touches_nothing(new: Any) -> None:
    """The schema keeps it out; an older one may not have."""
    world: World = pickle.loads(_served())
    before = _children(world)
    world.resource["spec"] = new
    world.settle()
    assert world.reason("Stalled") == "InvalidSpec"
    assert _children(world) == before


@settings(max_examples=40, deadline=None, suppress_health_check=_SLOW)
@given(st.data())
def test_a_status_that_is_anything_at_all_is_written_anew(data: st.DataObject) -> None:
    """Status is ours, and anybody with the right to it may have written it."""
    world: World = pickle.loads(_served())
    before, wanted = _children(world), copied(world.status)
    field = data.draw(st.sampled_from([None, *sorted(wanted), "rollout", "analysis", "previous"]))
    odd = data.draw(_ANYTHING)
    world.resource["status"] = odd if field is None else {**wanted, field: odd}
    world.settle()
    assert _children(world) == before
    assert world.reason("Ready") == ""
    assert world.status["stable"]["revision"] == wanted["stable"]["revision"]


def test_places_are_found_in_all_of_the_schema() -> None:
    found = {".".join(place) for place, _ in places(spec_schema())}
    assert {"model.uri", "rollout.steps.[].weight", "runtime.resources", "replicas"} <= found
