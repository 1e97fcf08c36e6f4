"""The CRDs say what the models say, in the form that the API server wants, and are not stale."""

from __future__ import annotations

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path
from typing import Any, Literal

import pytest
import yaml
from pydantic import Field

from mooring.api import ApiModel, crd
from mooring_dev.control_plane import ControlPlane
from mooring_dev.errors import DevError

REPOSITORY = Path(__file__).parent.parent.parent
CRDS = REPOSITORY / "crds"
Schema = dict[str, Any]

DEFINITIONS = pytest.mark.parametrize("definition", crd.DEFINITIONS, ids=lambda d: d.plural)


_structural = cache(crd.structural_schema)


def schema_of(definition: crd.Definition) -> Schema:
    return _structural(definition.model)


def walk(
    schema: Schema, path: str = "", *, in_list: bool = False
) -> Iterator[tuple[str, Schema, bool]]:
    """Every schema below this one with its path, and whether it is inside a list."""
    for name, child in schema.get("properties", {}).items():
        yield from _with_children(child, f"{path}.{name}".lstrip("."), in_list=in_list)
    if "items" in schema:
        yield from _with_children(schema["items"], f"{path}[]", in_list=True)
    if "additionalProperties" in schema:
        yield from _with_children(schema["additionalProperties"], f"{path}{{}}", in_list=in_list)


def _with_children(
    schema: Schema, path: str, *, in_list: bool
) -> Iterator[tuple[str, Schema, bool]]:
    yield path, schema, in_list
    yield from walk(schema, path, in_list=in_list)


def fields(definition: crd.Definition) -> list[tuple[str, Schema, bool]]:
    return [found for found in walk(schema_of(definition)) if not found[0].startswith("metadata")]


def run(*arguments: str) -> int:
    return crd.FILES.main(list(arguments))


# --- the files -----------------------------------------------------------------------------------


def test_the_files_are_what_the_models_say() -> None:
    assert list(crd.FILES.stale(CRDS)) == []


def test_check_passes_on_fresh_files_and_writes_nothing(tmp_path: Path) -> None:
    assert run("--out", str(tmp_path)) == 0
    before = {path: path.stat().st_mtime_ns for path in tmp_path.iterdir()}

    assert run("--check", "--out", str(tmp_path)) == 0
    assert {path: path.stat().st_mtime_ns for path in tmp_path.iterdir()} == before


@pytest.mark.parametrize("how", ["edited", "missing", "surplus"])
def test_check_names_a_stale_file_and_the_command(
    how: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run("--out", str(tmp_path))
    victim = tmp_path / "mooring.dev_modelruntimes.yaml"
    if how == "edited":
        victim.write_text(victim.read_text() + "# by hand\n")
    elif how == "missing":
        victim.unlink()
    else:
        victim = tmp_path / "mooring.dev_others.yaml"
        victim.write_text("")

    assert run("--check", "--out", str(tmp_path)) == 1

    told = capsys.readouterr().err
    assert str(victim) in told
    assert "python -m mooring.api.crd" in told


@DEFINITIONS
def test_a_file_is_below_100_kb(definition: crd.Definition) -> None:
    assert (CRDS / f"mooring.dev_{definition.plural}.yaml").stat().st_size < 100_000


@DEFINITIONS
def test_a_file_has_no_anchors_and_reads_back(definition: crd.Definition) -> None:
    text = crd.render(definition)

    assert yaml.load(text, yaml.CSafeLoader) == crd.custom_resource_definition(definition)
    assert "&id" not in text


# --- the schema ----------------------------------------------------------------------------------


@DEFINITIONS
def test_every_field_item_and_map_is_described(definition: crd.Definition) -> None:
    blank = [path for path, schema, _ in fields(definition) if not schema.get("description")]

    assert blank == []


@DEFINITIONS
def test_no_default_stands_inside_a_list(definition: crd.Definition) -> None:
    wrong = [
        path for path, schema, in_list in fields(definition) if in_list and "default" in schema
    ]

    assert wrong == []


def test_what_makes_a_revision_has_no_default() -> None:
    (definition,) = (d for d in crd.DEFINITIONS if d.kind == "ModelDeployment")

    with_default = [path for path, schema, _ in fields(definition) if "default" in schema]

    assert with_default == [
        "spec.traffic",
        "spec.traffic.router",
        "spec.traffic.replicas",
        "spec.traffic.timeout",
        "spec.traffic.retries",
        "spec.traffic.outlierDetection",
        "spec.traffic.outlierDetection.consecutiveErrors",
        "spec.traffic.outlierDetection.interval",
        "spec.traffic.outlierDetection.baseEjectionTime",
        "spec.traffic.outlierDetection.maxEjectionPercent",
        "spec.rollout",
        "spec.rollout.bake.previousWeight",
        "spec.rollout.advance",
        "spec.rollout.onInconclusive",
        "spec.rollout.progressDeadline",
        "spec.rollout.revisionHistoryLimit",
        "spec.analysis.alpha",
        "spec.monitoring.reference.captured.window",
        "spec.monitoring.reference.seasonal.offset",
        "spec.monitoring.reference.seasonal.weeks",
        "spec.monitoring.window",
        "spec.monitoring.drift",
        "spec.monitoring.drift.method",
        "spec.monitoring.drift.minEffectPSI",
        "spec.monitoring.drift.falseAlarmsPerQuarter",
        "spec.monitoring.sample",
        "spec.monitoring.groundTruth.maturity",
        "spec.monitoring.sampleStore.rows",
        "spec.retraining.minDataWindow",
        "spec.retraining.cooldown",
        "spec.retraining.deadline",
        "spec.retraining.historyLimit",
        "spec.retraining.budget",
        "spec.retraining.budget.perMonth",
        "spec.retraining.budget.maxInFlight",
        "spec.retraining.budget.maxIneffective",
        "spec.retraining.onSuccess",
    ]


@DEFINITIONS
def test_everything_has_a_bound(definition: crd.Definition) -> None:
    for path, schema, _ in fields(definition):
        kind = schema.get("type")
        if kind == "string" and path not in ("apiVersion", "kind"):
            assert {"maxLength", "enum", "format"} & schema.keys(), path
        if kind == "array":
            assert "maxItems" in schema, path
        if "additionalProperties" in schema:
            assert "maxProperties" in schema, path


@DEFINITIONS
def test_every_list_says_how_it_is_merged(definition: crd.Definition) -> None:
    lists = [(path, s) for path, s, _ in fields(definition) if s.get("type") == "array"]

    assert [path for path, s in lists if "x-kubernetes-list-type" not in s] == []
    for path, schema in lists:
        if schema["x-kubernetes-list-type"] == "map":
            keys = set(schema["x-kubernetes-list-map-keys"])
            assert keys <= set(schema["items"]["required"]), path


@DEFINITIONS
def test_lists_of_named_things_are_maps(definition: crd.Definition) -> None:
    for path, schema, _ in fields(definition):
        if schema.get("type") == "array" and "name" in schema["items"].get("required", ()):
            if "namespace" in schema["items"]["properties"]:
                continue  # a name that is not alone what tells them apart
            assert schema["x-kubernetes-list-type"] == "map", path


@DEFINITIONS
def test_every_rule_has_a_message(definition: crd.Definition) -> None:
    for path, schema, _ in fields(definition):
        for rule in schema.get("x-kubernetes-validations", ()):
            assert rule["message"], path


@DEFINITIONS
def test_conditions_are_a_map_with_a_generation_of_their_own(definition: crd.Definition) -> None:
    for path, schema, _ in fields(definition):
        if path.endswith(".conditions"):
            assert schema["x-kubernetes-list-map-keys"] == ["type"]
            assert "observedGeneration" in schema["items"]["properties"]


def test_names_are_as_users_know_them() -> None:
    names = {d.kind: (d.plural, d.short_name, d.scope) for d in crd.DEFINITIONS}

    assert names == {
        "ModelDeployment": ("modeldeployments", "mdep", "Namespaced"),
        "ModelRuntime": ("modelruntimes", "mrt", "Namespaced"),
        "ClusterModelRuntime": ("clustermodelruntimes", "cmrt", "Cluster"),
        "RetrainingRequest": ("retrainingrequests", "rr", "Namespaced"),
    }


# --- the generator refuses what a CRD cannot say -------------------------------------------------


class Undescribed(ApiModel):
    """A resource."""

    metadata: int = 0
    size: int


class Unbounded(ApiModel):
    """A resource."""

    metadata: int = 0
    name: str
    """A name without a bound."""


class United(ApiModel):
    """A resource."""

    metadata: int = 0
    size: int | bool
    """Of two types."""


class Unmerged(ApiModel):
    """A resource."""

    metadata: int = 0
    names: tuple[int, ...] = Field(max_length=3)
    """A list that does not say how it is merged."""


@pytest.mark.parametrize(
    ("model", "complaint"),
    [
        (Undescribed, "Undescribed.size: has no description"),
        (Unbounded, "Unbounded.name: a string needs max_length"),
        (United, "United.size: is a union of several types"),
        (Unmerged, r"Unmerged.names\[\]: has no description"),
    ],
)
def test_a_model_that_a_crd_cannot_express_is_refused_by_name(
    model: type[ApiModel], complaint: str
) -> None:
    with pytest.raises(crd.NotStructural, match=complaint):
        crd.structural_schema(model)


class Numbers(ApiModel):
    """A resource."""

    api_version: Literal["v1"] = "v1"
    """Version."""
    kind: Literal["Numbers"] = "Numbers"
    """Kind."""
    metadata: int = 0
    above: int | None = Field(None, gt=3, lt=10)
    """Between two bounds."""
    only: Literal["one"] = "one"
    """One value."""


def test_nulls_exclusive_bounds_and_constants_are_rewritten() -> None:
    properties = crd.structural_schema(Numbers)["properties"]

    assert properties["above"] == {
        "type": "integer",
        "description": "Between two bounds.",
        "minimum": 3,
        "exclusiveMinimum": True,
        "maximum": 10,
        "exclusiveMaximum": True,
        "format": "int32",
    }
    assert properties["only"]["enum"] == ["one"]
    assert properties["kind"] == {"type": "string", "description": "Kind."}


# --- the API server ------------------------------------------------------------------------------


@pytest.mark.apiserver
@DEFINITIONS
def test_the_api_server_finds_the_schema_structural(
    definition: crd.Definition, control_plane_with_crds: ControlPlane
) -> None:
    stored = json.loads(
        control_plane_with_crds.kubectl(
            "get", "crd", f"{definition.plural}.mooring.dev", "-o", "json"
        )
    )

    conditions = {c["type"]: c["status"] for c in stored["status"]["conditions"]}
    assert conditions["Established"] == "True"
    assert conditions.get("NonStructuralSchema", "False") == "False"


@pytest.mark.apiserver
@DEFINITIONS
def test_kubectl_explain_has_words_for_every_field(
    definition: crd.Definition, control_plane_with_crds: ControlPlane
) -> None:
    objects = sorted(
        {
            path.replace("[]", "").replace("{}", "")
            for path, schema, _ in fields(definition)
            if "properties" in schema
        }
    )

    def explain(path: str) -> str:
        return control_plane_with_crds.kubectl("explain", f"{definition.short_name}.{path}")

    with ThreadPoolExecutor(4) as pool:
        explained = dict(zip(objects, pool.map(explain, objects), strict=True))

    recursive = control_plane_with_crds.kubectl("explain", definition.short_name, "--recursive")
    assert "spec\t<Object>" in recursive
    for path, text in {**explained, "": recursive}.items():
        assert "<no description>" not in text, path
        assert "<empty>" not in text, path


SAMPLE: Schema = {
    "apiVersion": "mooring.dev/v1alpha1",
    "kind": "ModelDeployment",
    "metadata": {"name": "columns"},
    "spec": {"model": {"uri": "s3://models/fraud"}, "runtime": {"name": "onnx"}, "replicas": 3},
}
STATUS = {
    "status": {
        "phase": "RollingOut",
        "message": "1 of 3 pods ready",
        "replicas": 3,
        "selector": "mooring.dev/revision=aaa",
        "stable": {
            "revision": "aaa",
            "modelUri": "s3://models/fraud",
            "replicas": {"desired": 3, "ready": 2},
        },
        "candidate": {"revision": "bbb", "modelUri": "s3://models/fraud", "weight": 5},
    }
}


@pytest.fixture
def sample(control_plane_with_crds: ControlPlane) -> Iterator[ControlPlane]:
    control_plane_with_crds.kubectl("create", "-f", "-", input=json.dumps(SAMPLE))
    control_plane_with_crds.kubectl(
        "patch", "mdep", "columns", "--subresource=status", "--type=merge",
        "-p", json.dumps(STATUS),
    )  # fmt: skip
    yield control_plane_with_crds
    control_plane_with_crds.kubectl("delete", "mdep", "columns")


@pytest.mark.apiserver
def test_kubectl_get_shows_what_serves_and_what_rolls_out(sample: ControlPlane) -> None:
    header, row = (line.split() for line in sample.kubectl("get", "mdep").splitlines())
    wide = sample.kubectl("get", "ml", "-o", "wide")

    assert header == [
        "NAME", "PHASE", "READY", "DESIRED", "REVISION", "CANDIDATE", "WEIGHT", "DATA", "AGE",
    ]  # fmt: skip
    assert row[:-1] == ["columns", "RollingOut", "2", "3", "aaa", "bbb", "5"]
    assert "s3://models/fraud" in wide
    assert "1 of 3 pods ready" in wide


@pytest.mark.apiserver
def test_scale_writes_spec_replicas_and_selects_the_stable_pods(sample: ControlPlane) -> None:
    sample.kubectl("scale", "mdep", "columns", "--replicas=5")

    scale = json.loads(
        sample.kubectl("get", "mdep", "columns", "--subresource=scale", "-o", "json")
    )
    assert scale["spec"]["replicas"] == 5
    assert scale["status"] == {"replicas": 3, "selector": "mooring.dev/revision=aaa"}


@pytest.mark.apiserver
def test_kubectl_names_unknown_fields_by_default(control_plane_with_crds: ControlPlane) -> None:
    typo = {**SAMPLE, "spec": {**SAMPLE["spec"], "canary": 5}}

    with pytest.raises(DevError, match=r'unknown field "spec.canary"'):
        control_plane_with_crds.kubectl("create", "-f", "-", input=json.dumps(typo))


@pytest.mark.apiserver
def test_the_spec_of_a_retraining_request_cannot_change(
    control_plane_with_crds: ControlPlane,
) -> None:
    request = {
        "apiVersion": "mooring.dev/v1alpha1",
        "kind": "RetrainingRequest",
        "metadata": {"name": "fixed"},
        "spec": {
            "deploymentRef": {"name": "fraud"},
            "revision": "abc",
            "trigger": {"type": "Manual"},
            "idempotencyKey": "abc-manual-1",
        },
    }
    control_plane_with_crds.kubectl("create", "-f", "-", input=json.dumps(request))

    with pytest.raises(DevError, match="spec cannot be changed: create another"):
        control_plane_with_crds.kubectl(
            "patch", "rr", "fixed", "--type=merge", "-p", '{"spec":{"revision":"def"}}'
        )
