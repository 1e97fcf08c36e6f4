"""Generates the API reference page from the same schemas as the CRDs.

`python -m mooring.api.reference` writes `docs/reference/`; with `--check` it writes nothing and
exits with 1 when a page there is stale.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

from mooring.api.crd import DEFINITIONS, Definition, Schema, structural_schema
from mooring.api.generated import Generated
from mooring.api.modelruntime import ClusterModelRuntime
from mooring.api.schema_types import API_VERSION

_INTRODUCTION = f"""\
# API reference: {API_VERSION}

<!-- Generated from operator/mooring/api by `python -m mooring.api.reference`: do not edit. -->

Every field of every kind, with its bounds, default and rules. `kubectl explain mdep.spec.model`
shows the same words. Fields marked * are required. What breaks a rule is refused when it is
applied, with the message given here; for unknown fields see [gitops.md](../gitops.md).

"""


def page() -> str:
    """The whole page, as Markdown."""
    contents = "".join(
        f"- [{d.kind}](#{d.kind.lower()}) (`{d.short_name}`, {_scope(d)})\n" for d in DEFINITIONS
    )
    return _INTRODUCTION + contents + "".join(_kind(definition) for definition in DEFINITIONS)


def _scope(definition: Definition) -> str:
    return "in a namespace" if definition.scope == "Namespaced" else "for the whole cluster"


def _kind(definition: Definition) -> str:
    schema = structural_schema(definition.model)
    text = f"\n## {definition.kind}\n\n{_escaped(schema['description'])}\n"
    text += _rules(schema)
    if definition.model is ClusterModelRuntime:
        return text + "\nIts spec is that of a [ModelRuntime](#modelruntime-spec).\n"
    for name in ("spec", "status"):
        if name in schema["properties"]:
            text += "".join(_sections(definition.kind, name, schema["properties"][name]))
    return text


def _sections(kind: str, path: str, schema: Schema) -> Iterator[str]:
    """One section for the object at this path and one for every object below it."""
    yield _section(kind, path, schema)
    for name, child in schema.get("properties", {}).items():
        inner, suffix = _inner(child)
        if "properties" in inner:
            yield from _sections(kind, f"{path}.{name}{suffix}", inner)


def _inner(schema: Schema) -> tuple[Schema, str]:
    """The object that a list or map holds, and how its path goes on."""
    if "items" in schema:
        return schema["items"], "[]"
    if "additionalProperties" in schema:
        return schema["additionalProperties"], "{}"
    return schema, ""


def _section(kind: str, path: str, schema: Schema) -> str:
    text = f"\n### {kind} `{path}`\n\n{_escaped(schema['description'])}\n"
    text += _rules(schema)
    text += "\n| field | type | meaning |\n|---|---|---|\n"
    required = schema.get("required", ())
    for name, child in schema["properties"].items():
        star = "*" if name in required else ""
        text += f"| `{name}`{star} | {_type(child)} | {_meaning(child)} |\n"
    return text


def _type(schema: Schema) -> str:
    if "enum" in schema:
        return ", ".join(f"`{value}`" for value in schema["enum"])
    if schema.get("x-kubernetes-int-or-string"):
        return "integer or string"
    if "items" in schema:
        keys = schema.get("x-kubernetes-list-map-keys")
        named = f", by {' and '.join(keys)}" if keys else ""
        return f"list of {_plural(_type(schema['items']))}, {_count(schema)}{named}"
    if "additionalProperties" in schema:
        return f"map of {_plural(_type(schema['additionalProperties']))}, {_count(schema)}"
    if schema["type"] == "integer":
        return _integer(schema)
    if schema.get("format") == "date-time":
        return "time (RFC 3339)"
    if schema["type"] == "string" and "maxLength" in schema:
        return f"string, at most {schema['maxLength']} characters"
    return str(schema["type"])


def _integer(schema: Schema) -> str:
    low, high = schema.get("minimum"), schema.get("maximum")
    if low is not None and high is not None:
        return f"integer, {low} to {high}"
    return f"integer, at least {low}" if low is not None else "integer"


def _count(schema: Schema) -> str:
    least = schema.get("minItems", 0)
    most = schema.get("maxItems", schema.get("maxProperties"))
    return f"{least} to {most}" if least else f"at most {most}"


def _plural(text: str) -> str:
    return text.replace("string", "strings", 1).replace("object", "objects", 1)


def _meaning(schema: Schema) -> str:
    parts = [_escaped(schema["description"])]
    default = schema.get("default")
    if default not in (None, {}):
        parts.append(f"Default: `{default}`.")
    inner, _ = _inner(schema)
    described = inner is not schema and "properties" not in inner
    if "properties" not in schema:
        parts += [f"Refused with: “{message}”." for message in _messages(schema)]
    if described:
        parts += [f"Each refused with: “{message}”." for message in _messages(inner)]
    return " ".join(parts)


def _rules(schema: Schema) -> str:
    messages = _messages(schema)
    if not messages:
        return ""
    return "\nRefused with:\n\n" + "".join(f"- “{message}”\n" for message in messages)


def _messages(schema: Schema) -> list[str]:
    rules = schema.get("x-kubernetes-validations", ())
    named = [(rule.get("fieldPath", "").lstrip("."), rule["message"]) for rule in rules]
    return [_escaped(f"{field}: {text}" if field else text) for field, text in named]


def _escaped(text: str) -> str:
    """Keeps angle brackets, bars and placeholders as they are read, not as markup."""
    prose_and_code = text.replace("|", "\\|").split("`")
    prose_and_code[::2] = [
        prose.replace("<", "&lt;").replace("{{", "&#123;&#123;").replace("*", "\\*")
        for prose in prose_and_code[::2]
    ]
    return "`".join(prose_and_code)


FILES = Generated(
    module="mooring.api.reference",
    what="the API reference",
    folder=Path("docs/reference"),
    pattern="api.md",
    render=lambda: {"api.md": page()},
)

if __name__ == "__main__":
    sys.exit(FILES.main())
