"""Generates the CustomResourceDefinitions from the resource models.

`python -m mooring.api.crd` writes `crds/`; with `--check` it writes nothing and exits with 1 when
a file there is stale.

pydantic's JSON schema is not structural in Kubernetes' sense: references are put in place here,
`anyOf` with null, `const` and numeric exclusive bounds are rewritten, and what the API server
needs besides (descriptions, bounds for CEL's cost budget, no defaults inside lists) is insisted on.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from mooring.api.generated import Generated
from mooring.api.modeldeployment import ModelDeployment
from mooring.api.modelruntime import ClusterModelRuntime, ModelRuntime
from mooring.api.retrainingrequest import RetrainingRequest
from mooring.api.schema_types import GROUP, VERSION, ApiModel

Schema = dict[str, Any]

MAX_BYTES = 100_000
_HEADER = "# Generated from operator/mooring/api by `python -m mooring.api.crd`: do not edit.\n"
_INT32_MAX = 2**31 - 1


@dataclass(frozen=True, slots=True)
class Column:
    """A column of `kubectl get`; priority 1 shows with `-o wide` only."""

    name: str
    path: str
    type: str = "string"
    description: str = ""
    priority: int = 0

    def schema(self) -> Schema:
        """The entry of `additionalPrinterColumns`."""
        found: Schema = {"name": self.name, "type": self.type, "jsonPath": self.path}
        if self.description:
            found["description"] = self.description
        return found | ({"priority": self.priority} if self.priority else {})


AGE = Column("Age", ".metadata.creationTimestamp", type="date", description="Time since creation.")


@dataclass(frozen=True, slots=True)
class Definition:
    """What a CRD says about a kind besides its schema."""

    model: type[ApiModel]
    plural: str
    short_name: str
    columns: tuple[Column, ...]
    scope: str = "Namespaced"
    subresources: Schema = field(default_factory=dict)

    @property
    def kind(self) -> str:
        return self.model.__name__

    @property
    def file_name(self) -> str:
        return f"{GROUP}_{self.plural}.yaml"


_RUNTIME_COLUMNS = (
    Column("Image", ".spec.image", description="Image of the server."),
    Column("Version", ".spec.version", description="Default tag of the image."),
    AGE,
    Column("Description", ".spec.description", description="What it is.", priority=1),
)

DEFINITIONS: tuple[Definition, ...] = (
    Definition(
        ModelDeployment,
        plural="modeldeployments",
        short_name="mdep",
        columns=(
            Column("Phase", ".status.phase", description="What is going on, in one word."),
            Column(
                "Ready",
                ".status.stable.replicas.ready",
                type="integer",
                description="Pods of the stable revision that are ready.",
            ),
            Column(
                "Desired",
                ".status.stable.replicas.desired",
                type="integer",
                description="Pods that the stable revision should have.",
            ),
            Column("Revision", ".status.stable.revision", description="The revision that serves."),
            Column(
                "Candidate",
                ".status.candidate.revision",
                description="The revision that is to take over.",
            ),
            Column(
                "Weight",
                ".status.candidate.weight",
                type="integer",
                description="Percent of the traffic that it gets.",
            ),
            Column("Data", ".status.drift.state", description="How the data stands."),
            AGE,
            Column("Verdict", ".status.analysis.verdict", description="Of the judge.", priority=1),
            Column("URI", ".spec.model.uri", description="Where the model is.", priority=1),
            Column("Message", ".status.message", description="What is going on.", priority=1),
        ),
        subresources={
            "status": {},
            "scale": {
                "specReplicasPath": ".spec.replicas",
                "statusReplicasPath": ".status.replicas",
                "labelSelectorPath": ".status.selector",
            },
        },
    ),
    Definition(ModelRuntime, plural="modelruntimes", short_name="mrt", columns=_RUNTIME_COLUMNS),
    Definition(
        ClusterModelRuntime,
        plural="clustermodelruntimes",
        short_name="cmrt",
        columns=_RUNTIME_COLUMNS,
        scope="Cluster",
    ),
    Definition(
        RetrainingRequest,
        plural="retrainingrequests",
        short_name="rr",
        columns=(
            Column("Deployment", ".spec.deploymentRef.name", description="What needs a new model."),
            Column("Trigger", ".spec.trigger.type", description="What made it necessary."),
            Column("Phase", ".status.phase", description="How far it is."),
            Column("Result", ".status.revision", description="The revision made of the result."),
            AGE,
            Column("URI", ".status.result.uri", description="The new model.", priority=1),
            Column("Message", ".status.message", description="What is going on.", priority=1),
        ),
        subresources={"status": {}},
    ),
)


class NotStructural(ValueError):
    """A model says something that a CRD cannot say, or leaves out what it must say."""


def custom_resource_definition(definition: Definition) -> Schema:
    """The complete CRD of a kind, as plain data."""
    version: Schema = {
        "name": VERSION,
        "served": True,
        "storage": True,
        "additionalPrinterColumns": [column.schema() for column in definition.columns],
        "schema": {"openAPIV3Schema": structural_schema(definition.model)},
    }
    if definition.subresources:
        version["subresources"] = definition.subresources
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{definition.plural}.{GROUP}"},
        "spec": {
            "group": GROUP,
            "scope": definition.scope,
            "names": {
                "kind": definition.kind,
                "listKind": f"{definition.kind}List",
                "plural": definition.plural,
                "singular": definition.kind.lower(),
                "shortNames": [definition.short_name],
                "categories": ["ml"],
            },
            "versions": [version],
        },
    }


def structural_schema(model: type[ApiModel]) -> Schema:
    """The structural schema of a resource; raises NotStructural naming the field."""
    raw = model.model_json_schema(by_alias=True, mode="validation")
    definitions = raw.pop("$defs", {})
    raw["properties"]["metadata"] = {"type": "object", "description": "Standard metadata."}
    root = _convert(raw, definitions, model.__name__, in_list=False)
    properties = root["properties"]
    for name in ("apiVersion", "kind"):
        properties[name] = {"type": "string", "description": properties[name]["description"]}
    # The name alone may be mentioned, so that a rule can point at it.
    properties["metadata"] = {"type": "object", "properties": {"name": {"type": "string"}}}
    root["required"] = ["spec"]
    return root


_COPIED = (
    "format",
    "enum",
    "pattern",
    "minLength",
    "maxLength",
    "minItems",
    "maxItems",
    "minProperties",
    "maxProperties",
    "minimum",
    "maximum",
    "x-kubernetes-int-or-string",
    "x-kubernetes-preserve-unknown-fields",
    "x-kubernetes-list-type",
    "x-kubernetes-list-map-keys",
    "x-kubernetes-map-type",
    "x-kubernetes-validations",
)
_DROPPED = frozenset({"title", "const", "propertyNames"})
_HANDLED = frozenset(
    {
        *_COPIED,
        *_DROPPED,
        "type",
        "description",
        "default",
        "properties",
        "required",
        "items",
        "additionalProperties",
        "exclusiveMinimum",
        "exclusiveMaximum",
    }
)


def _convert(
    schema: Mapping[str, Any], definitions: Mapping[str, Any], path: str, *, in_list: bool
) -> Schema:
    flat = _flatten(schema, definitions, path)
    unknown = set(flat) - _HANDLED
    if unknown:
        raise NotStructural(f"{path}: cannot express {', '.join(sorted(unknown))} in a CRD")
    found: Schema = {}
    if "type" in flat:
        found["type"] = flat["type"]
    found["description"] = " ".join(str(flat.get("description", "")).split())
    if not found["description"]:
        raise NotStructural(f"{path}: has no description")
    if flat.get("default") is not None and not in_list:
        found["default"] = flat["default"]
    found |= {key: flat[key] for key in _COPIED if key in flat}
    if "const" in flat:
        found["enum"] = [flat["const"]]
    _bounds(found, flat)
    if "properties" in flat:
        found["properties"] = {
            name: _convert(child, definitions, f"{path}.{name}", in_list=in_list)
            for name, child in flat["properties"].items()
        }
        if flat.get("required"):
            found["required"] = sorted(flat["required"])
    if "items" in flat:
        found["items"] = _convert(flat["items"], definitions, f"{path}[]", in_list=True)
    if isinstance(flat.get("additionalProperties"), Mapping):
        found["additionalProperties"] = _convert(
            flat["additionalProperties"], definitions, f"{path}{{}}", in_list=in_list
        )
    _insist_on_bounds(found, path)
    return found


def _flatten(schema: Mapping[str, Any], definitions: Mapping[str, Any], path: str) -> Schema:
    """Puts references in place and removes the null alternative of optional fields."""
    flat = dict(schema)
    while "$ref" in flat or "anyOf" in flat:
        if "$ref" in flat:
            name = flat.pop("$ref").removeprefix("#/$defs/")
            flat = _merged(definitions[name], flat)
        if "anyOf" in flat:
            choices = [c for c in flat.pop("anyOf") if c.get("type") != "null"]
            if len(choices) != 1:
                raise NotStructural(f"{path}: is a union of several types")
            flat = _merged(choices[0], flat)
    return flat


def _merged(general: Mapping[str, Any], special: Mapping[str, Any]) -> Schema:
    """What is said at the place of use wins, except that rules add up."""
    rules = [
        rule for schema in (general, special) for rule in schema.get("x-kubernetes-validations", ())
    ]
    return {**general, **special} | ({"x-kubernetes-validations": rules} if rules else {})


def _bounds(found: Schema, flat: Mapping[str, Any]) -> None:
    """OpenAPI 3.0 has the exclusive bound as a flag beside the number."""
    for ours, theirs in (("minimum", "exclusiveMinimum"), ("maximum", "exclusiveMaximum")):
        if theirs in flat:
            found[ours] = flat[theirs]
            found[theirs] = True
    if found.get("type") == "integer":
        found["format"] = "int32" if found.get("maximum", 2**63) <= _INT32_MAX else "int64"


def _insist_on_bounds(found: Schema, path: str) -> None:
    """CEL's cost budget is computed from the greatest object that the schema allows."""
    kind = found.get("type")
    if kind == "string" and not ({"maxLength", "enum", "format"} & found.keys()):
        raise NotStructural(f"{path}: a string needs max_length")
    if kind == "array" and "maxItems" not in found:
        raise NotStructural(f"{path}: a list needs max_length")
    if kind == "array" and "x-kubernetes-list-type" not in found:
        raise NotStructural(f"{path}: a list must say how it is merged")
    if "additionalProperties" in found and "maxProperties" not in found:
        raise NotStructural(f"{path}: a map needs max_length")


# Twenty levels deep a third of the file would be indentation: a field without fields of its own
# stands on one line, and so does what is short.
_ONE_LINE = 300
_NESTING = ("properties", "items", "additionalProperties")


class _Dumper(yaml.SafeDumper):
    """Writes short objects and lists on one line, and never anchors."""

    def ignore_aliases(self, data: Any) -> bool:
        return True

    def represent_mapping(
        self, tag: str, mapping: Any, flow_style: bool | None = None
    ) -> yaml.MappingNode:
        return super().represent_mapping(tag, mapping, _is_short(mapping))

    def represent_sequence(
        self, tag: str, sequence: Any, flow_style: bool | None = None
    ) -> yaml.SequenceNode:
        return super().represent_sequence(tag, sequence, _is_short(sequence))


def _is_short(value: Mapping[str, Any] | Sequence[Any]) -> bool:
    inner = value.values() if isinstance(value, Mapping) else value
    flat = not any(isinstance(one, Mapping | list) for one in inner)
    leaf = (
        isinstance(value, Mapping)
        and isinstance(value.get("type"), str)
        and not value.keys() & set(_NESTING)
    )
    return flat or leaf or len(str(value)) <= _ONE_LINE


def render(definition: Definition) -> str:
    """The text of the CRD's file."""
    crd = custom_resource_definition(definition)
    text = _HEADER + yaml.dump(
        crd, Dumper=_Dumper, sort_keys=False, width=10_000, allow_unicode=True
    )
    if len(text.encode()) >= MAX_BYTES:
        raise NotStructural(f"{definition.kind}: {len(text.encode())} bytes, over {MAX_BYTES}")
    return text


@cache
def rendered_files() -> dict[str, str]:
    """The text of every file of `crds/`, by name."""
    return {definition.file_name: render(definition) for definition in DEFINITIONS}


FILES = Generated(
    module="mooring.api.crd",
    what="the CustomResourceDefinitions",
    folder=Path("crds"),
    pattern=f"{GROUP}_*.yaml",
    render=rendered_files,
)

if __name__ == "__main__":
    sys.exit(FILES.main())
