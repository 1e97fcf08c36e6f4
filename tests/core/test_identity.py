"""What makes a revision: two specs that mean the same are one, two that differ are two."""

from __future__ import annotations

import string
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.core.world import World

from mooring.api import parse_model_deployment
from mooring.core.revision import base_inputs, canonical_inputs, name_hash

MODEL: dict[str, Any] = {"uri": "s3://models/fraud/v1"}
RUNTIME: dict[str, Any] = {"name": "onnx"}


def inputs(
    model: dict[str, Any] | None = None, runtime: dict[str, Any] | None = None, **top: Any
) -> dict[str, Any]:
    """The identity of a spec with these parts added to the smallest one."""
    resource = parse_model_deployment(
        {
            "apiVersion": "mooring.dev/v1alpha1",
            "kind": "ModelDeployment",
            "metadata": {"name": "fraud", "namespace": "shop"},
            "spec": {"model": MODEL | (model or {}), "runtime": RUNTIME | (runtime or {}), **top},
        }
    )
    return canonical_inputs(resource)


def requests(**amounts: Any) -> dict[str, Any]:
    return {"resources": {"requests": amounts}}


@pytest.mark.parametrize(
    "runtime",
    [
        {"env": []},
        {"args": []},
        {"resources": {}},
        {"resources": {"requests": {}, "limits": {}}},
        {"nodeSelector": {}},
        {"tolerations": []},
        {"imagePullSecrets": []},
        {"podLabels": {}},
        {"podAnnotations": {}},
        {"affinity": {}},
    ],
    ids=str,
)
def test_an_empty_field_is_the_same_as_none(runtime: dict[str, Any]) -> None:
    assert inputs(runtime=runtime) == inputs()


SAME = [
    (requests(cpu="0.5"), requests(cpu="500m")),
    (requests(memory="1024Mi"), requests(memory="1Gi")),
    (requests(cpu=2), requests(cpu="2")),
    (requests(cpu="2000m"), requests(cpu="2")),
    (
        {"resources": {"limits": {"memory": "1Gi"}, "requests": {"cpu": "1"}}},
        {"resources": {"requests": {"cpu": "1000m"}, "limits": {"memory": "1024Mi"}}},
    ),
    ({"podLabels": {"a": "1", "b": "2"}}, {"podLabels": {"b": "2", "a": "1"}}),
    ({"env": [{"name": "A", "value": ""}]}, {"env": [{"name": "A"}]}),
]


@pytest.mark.parametrize(("one", "other"), SAME, ids=str)
def test_spelling_makes_no_difference(one: dict[str, Any], other: dict[str, Any]) -> None:
    assert inputs(runtime=one) == inputs(runtime=other)
    assert name_hash(inputs(runtime=one)) == name_hash(inputs(runtime=other))


DIFFERENT: list[dict[str, Any]] = [
    {},
    {"version": "0.2.0"},
    {"env": [{"name": "A", "value": "1"}]},
    {"args": [""]},
    {"args": ["--threads", "2"]},
    {"args": ["2", "--threads"]},
    requests(cpu="500m"),
    requests(cpu="501m"),
    {"nodeSelector": {"node-role.kubernetes.io/gpu": ""}},
    {"podLabels": {"sidecar": ""}},
    {"podAnnotations": {"sidecar": ""}},
    {"topologySpreadConstraints": []},
    {"affinity": {"podAntiAffinity": {}}},
    {"affinity": {"nodeAffinity": {}}},
    {"tolerations": [{"operator": "Exists"}]},
    {"tolerations": [{"key": "gpu"}]},
    {"serviceAccountName": "own"},
    {"priorityClassName": "high"},
    {
        "topologySpreadConstraints": [
            {"maxSkew": 1, "topologyKey": "zone", "whenUnsatisfiable": "DoNotSchedule"}
        ]
    },
    {
        "topologySpreadConstraints": [
            {
                "maxSkew": 1,
                "topologyKey": "zone",
                "whenUnsatisfiable": "DoNotSchedule",
                "labelSelector": {},
            }
        ]
    },
]


def test_what_changes_the_pods_changes_the_identity() -> None:
    found = [inputs(runtime=runtime) for runtime in DIFFERENT]
    for index, one in enumerate(found):
        for other in found[index + 1 :]:
            assert one != other
    assert len({name_hash(one) for one in found}) == len(found)


@pytest.mark.parametrize(
    "model",
    [
        {"uri": "s3://models/fraud/v2"},
        {"digest": "sha256:" + "0" * 64},
        {"format": {"name": "onnx"}},
        {"credentials": {"secretName": "s3"}},
        {"name": "fraud"},
    ],
    ids=str,
)
def test_every_field_of_the_model_is_part_of_it(model: dict[str, Any]) -> None:
    assert inputs(model=model) != inputs()


def test_an_affinity_with_an_empty_selector_is_kept_as_it_is() -> None:
    affinity = {
        "podAntiAffinity": {
            "requiredDuringSchedulingIgnoredDuringExecution": [
                {"topologyKey": "kubernetes.io/hostname", "labelSelector": {}}
            ]
        }
    }
    assert inputs(runtime={"affinity": affinity})["runtime"]["affinity"] == affinity


@pytest.mark.parametrize(
    "top",
    [
        {"replicas": 7},
        {"autoscaling": {"maxReplicas": 3}},
        {"rollout": {"progressDeadline": "1h"}},
        {"rollout": {"steps": [{"weight": 5, "duration": "10m"}]}},
        {"rollout": {"revisionHistoryLimit": 0}},
    ],
    ids=str,
)
def test_how_many_and_how_to_roll_out_is_no_part_of_it(top: dict[str, Any]) -> None:
    assert inputs(**top) == inputs()


def test_a_default_is_never_written_into_it() -> None:
    assert inputs() == {"model": MODEL, "runtime": RUNTIME}


def test_a_spec_that_only_spells_differently_rolls_nothing_out() -> None:
    world = World.with_spec(runtime={"name": "onnx", "resources": {"requests": {"cpu": "0.5"}}})
    stable = world.serve()
    world.edit(
        runtime={"env": [], "resources": {"requests": {"cpu": "500m"}}, "name": "onnx"},
    )
    world.settle()
    assert world.revisions() == [stable]


def test_a_node_label_with_an_empty_value_rolls_out() -> None:
    world = World.with_spec()
    first = world.serve()
    world.edit(runtime={"name": "onnx", "nodeSelector": {"node-role.kubernetes.io/gpu": ""}})
    second = world.serve()
    assert second != first
    template = world.deployment(second)["spec"]["template"]
    assert template["spec"]["nodeSelector"] == {"node-role.kubernetes.io/gpu": ""}


def test_a_restart_is_another_revision_of_the_same_inputs() -> None:
    once, again = {**inputs(), "restart": "a-1"}, {**inputs(), "restart": "b-1"}
    assert base_inputs(once) == base_inputs(again) == inputs()
    assert len({name_hash(inputs()), name_hash(once), name_hash(again)}) == 3


def test_a_name_is_ten_consonants() -> None:
    name = name_hash(inputs())
    assert len(name) == 10
    assert set(name) <= set(string.ascii_lowercase) - set("aeiouy")


@given(st.integers(0, 5))
def test_a_name_that_other_inputs_have_is_stepped_over(taken: int) -> None:
    names: list[str] = []
    for _ in range(taken + 1):
        names.append(name_hash(inputs(), names))
    assert len(set(names)) == taken + 1


def test_a_collision_gives_the_new_revision_another_name() -> None:
    world = World.with_spec()
    world.model("s3://models/fraud/v2")
    world.settle()
    (name,) = world.revisions()
    # The record of quite other inputs stands under the name that the first spec would get.
    other = World.with_spec()
    other.settle()
    (wanted,) = other.revisions()
    ref = next(r for r in world.children if r.kind == "ControllerRevision")
    record = world.children.pop(ref)
    record["metadata"]["name"] = f"fraud-{wanted}"
    record["metadata"]["labels"]["mooring.dev/revision"] = wanted
    world.children[type(ref)("ControllerRevision", f"fraud-{wanted}")] = record
    world.model("s3://models/fraud/v1")
    world.settle()
    assert name not in world.revisions()
    assert wanted not in world.revisions()
    assert world.history.target(inputs()) is not None
