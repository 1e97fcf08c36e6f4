"""Values for any field of a CRD, right and wrong ones, by its schema."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import yaml
from hypothesis import strategies as st

Json = dict[str, Any]
Place = tuple[str, ...]
#: A step into the items of a list.
ITEM = "[]"
_CRDS = Path(__file__).parents[2] / "crds"
#: What rules beyond the schema's own ask of texts: a value of each kind, and some that are none.
_TEXTS = (
    "s3://models/fraud/v9", "https://example.com/m.onnx", "pvc://claim/model", "file:///model",
    "sha256:" + "a" * 64, "10m", "1h30m", "0s", "8760h", "500m", "128Mi", "1.5Gi", "0", "25%", "1",
    "onnx", "fraud", "a-name", "envoy", "replicas", "cpu", "http", "x-tester", "{{ model.name }}",
    "", " ", "7d", "-1", "NaN", "../..", "s3://", "ü", "\u202e", "a" * 300,
)  # fmt: skip


@cache
def spec_schema(name: str = "modeldeployments") -> Json:
    """The schema of ``spec`` of one of our kinds."""
    definition = yaml.load((_CRDS / f"mooring.dev_{name}.yaml").read_text(), yaml.CSafeLoader)
    schema = definition["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
    found: Json = schema["properties"]["spec"]
    return found


def places(schema: Json, at: Place = ()) -> Iterator[tuple[Place, Json]]:
    """Every field below, its items too, with its schema."""
    for name, part in (schema.get("properties") or {}).items():
        yield (*at, name), part
        yield from places(part, (*at, name))
    if isinstance(schema.get("items"), dict):
        yield (*at, ITEM), schema["items"]
        yield from places(schema["items"], (*at, ITEM))


def values(schema: Json) -> st.SearchStrategy[Any]:
    """Mostly of the type that the schema asks for; bounds and patterns are met at times."""
    if "enum" in schema:
        return st.sampled_from(schema["enum"])
    if schema.get("x-kubernetes-int-or-string"):
        return st.one_of(st.integers(-1, 1001), st.sampled_from(_TEXTS))
    if schema.get("x-kubernetes-preserve-unknown-fields"):
        return st.just({})
    return _OF_TYPE[schema.get("type", "object")](schema)


def _strings(schema: Json) -> st.SearchStrategy[Any]:
    return st.one_of(st.sampled_from(_TEXTS), st.text(max_size=min(schema.get("maxLength", 9), 9)))


def _numbers(schema: Json) -> st.SearchStrategy[Any]:
    low, high = schema.get("minimum", 0), schema.get("maximum", 2**31 - 1)
    return st.one_of(
        st.sampled_from([low, high, low - 1, min(high, low + 1), min(high, 3)]),
        st.integers(int(low), int(high)),
    )


def _lists(schema: Json) -> st.SearchStrategy[Any]:
    return st.lists(values(schema.get("items") or {}), max_size=2)


def _objects(schema: Json) -> st.SearchStrategy[Any]:
    properties = schema.get("properties") or {}
    needed = set(schema.get("required") or ())
    if not properties:
        more = schema.get("additionalProperties")
        inner = values(more) if isinstance(more, dict) else st.just("x")
        return st.dictionaries(st.sampled_from(_TEXTS[:20]), inner, max_size=2)
    return st.fixed_dictionaries(
        {name: values(properties[name]) for name in sorted(needed)},
        optional={name: values(part) for name, part in properties.items() if name not in needed},
    )


_OF_TYPE: dict[str, Callable[[Json], st.SearchStrategy[Any]]] = {
    "string": _strings,
    "integer": _numbers,
    "number": lambda schema: st.one_of(_numbers(schema), st.just(0.5)),
    "boolean": lambda schema: st.booleans(),
    "array": _lists,
    "object": _objects,
}


@st.composite
def changes(draw: st.DrawFn, schema: Json, spec: Json) -> tuple[Place, Json]:
    """One field of ``spec`` set to another value, or taken out; the place and the new spec."""
    place, part = draw(st.sampled_from(list(places(schema))))
    value = draw(st.one_of(st.none(), values(part), values(part)))
    return place, changed(spec, place, value)


def changed(value: Any, place: Place, new: Any) -> Any:
    """A copy with ``new`` at this place; None takes the field out. What leads there is made."""
    head, rest = place[0], place[1:]
    if head == ITEM:
        items = list(value) if isinstance(value, list) else []
        first = items[0] if items else None
        replaced = [changed(first, rest, new)] if rest else [new] if new is not None else []
        return replaced + items[1:]
    found = dict(value) if isinstance(value, dict) else {}
    if rest:
        found[head] = changed(found.get(head), rest, new)
    elif new is None:
        found.pop(head, None)
    else:
        found[head] = new
    return found
