"""Parsing resources with errors that people can act on.

One line per problem, each beginning with the path of the field as it stands in YAML, with the
same words that the API server uses: both come from the same rules.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from mooring.api.modeldeployment import ModelDeployment
from mooring.api.modeldeployment_status import ModelDeploymentStatus
from mooring.api.modelruntime import ClusterModelRuntime, ModelRuntime, RuntimeTemplate
from mooring.api.retrainingrequest import RetrainingRequest
from mooring.api.schema_types import RULE_ERROR, ApiModel, Rule

Resource = ModelDeployment | ModelRuntime | ClusterModelRuntime | RetrainingRequest
KINDS: Mapping[str, type[ModelDeployment | ModelRuntime | ClusterModelRuntime | RetrainingRequest]]
KINDS = {
    "ModelDeployment": ModelDeployment,
    "ModelRuntime": ModelRuntime,
    "ClusterModelRuntime": ClusterModelRuntime,
    "RetrainingRequest": RetrainingRequest,
}

_Model = TypeVar("_Model", bound=ApiModel)


class InvalidResource(ValueError):
    """A resource that cannot be accepted. `problems` holds one line per broken rule."""

    def __init__(self, problems: tuple[str, ...]) -> None:
        super().__init__("\n".join(problems))
        self.problems = problems


def parse_model_deployment(raw: Mapping[str, Any], *, strict: bool = False) -> ModelDeployment:
    """Reads a ModelDeployment; raises InvalidResource naming every field that is wrong.

    A stored object may have been written under a newer CRD, so unknown fields are ignored, and a
    status that does not fit is dropped: it can be lost without harm. `strict` refuses both, for
    files that somebody is about to apply.
    """
    return _parse_with_status(ModelDeployment, raw, strict)


def parse_retraining_request(raw: Mapping[str, Any], *, strict: bool = False) -> RetrainingRequest:
    """Reads a RetrainingRequest, as `parse_model_deployment` does."""
    return _parse(RetrainingRequest, raw, strict)


def parse_runtime_template(raw: Mapping[str, Any], *, strict: bool = False) -> RuntimeTemplate:
    """Reads the spec of a ModelRuntime or ClusterModelRuntime; paths begin with `spec`."""
    return _parse(RuntimeTemplate, raw, strict, prefix=("spec",))


def parse_model_runtime(raw: Mapping[str, Any], *, strict: bool = False) -> ModelRuntime:
    """Reads a ModelRuntime, as `parse_model_deployment` does."""
    return _parse(ModelRuntime, raw, strict)


def parse_cluster_model_runtime(
    raw: Mapping[str, Any], *, strict: bool = False
) -> ClusterModelRuntime:
    """Reads a ClusterModelRuntime, as `parse_model_deployment` does."""
    return _parse(ClusterModelRuntime, raw, strict)


def parse_status(raw: Mapping[str, Any] | None) -> ModelDeploymentStatus:
    """Reads a stored status; one that does not fit counts as lost and gives an empty one."""
    try:
        return ModelDeploymentStatus.model_validate(raw or {}, extra="ignore")
    except ValidationError:
        return ModelDeploymentStatus()


def status_fits(raw: object) -> bool:
    """Whether a stored status has the form of this version's, but for fields that are unknown."""
    try:
        ModelDeploymentStatus.model_validate(raw, extra="ignore")
    except ValidationError:
        return False
    return True


def lint(raw: Mapping[str, Any]) -> Resource:
    """Reads any resource of this group from a file, refusing unknown fields and kinds."""
    kind = str(raw.get("kind"))
    if kind not in KINDS:
        raise InvalidResource((f"kind: {kind!r} is not one of {', '.join(KINDS)}",))
    return _parse(KINDS[kind], raw, strict=True)


def _parse_with_status(
    model: type[ModelDeployment], raw: Mapping[str, Any], strict: bool
) -> ModelDeployment:
    if strict or "status" not in raw:
        return _parse(model, raw, strict)
    parsed = _parse(model, {key: raw[key] for key in raw if key != "status"}, strict)
    return parsed.model_copy(update={"status": parse_status(raw["status"])})


def _parse(model: type[_Model], raw: Any, strict: bool, prefix: tuple[str, ...] = ()) -> _Model:
    try:
        # `forbid` stands in the models themselves, where metadata is exempt from it.
        return model.model_validate(raw) if strict else model.model_validate(raw, extra="ignore")
    except ValidationError as error:
        lines = [line for found in error.errors() for line in _lines(model, raw, found, prefix)]
        raise InvalidResource(tuple(dict.fromkeys(lines))) from error


def _lines(
    model: type[BaseModel], raw: Any, error: ErrorDetails, prefix: tuple[str, ...]
) -> list[str]:
    location = tuple(part for part in error["loc"] if part not in _UNION_BRANCHES)
    path = ".".join((*prefix, _path(model, location))).strip(".")
    context = error.get("ctx") or {}
    if error["type"] == RULE_ERROR:
        return [f"{path}{field}: {text}".lstrip(".: ") for field, text in context["failures"]]
    if error["type"] == "extra_forbidden":
        return [f"{path}: {_unknown_field(model, location)}"]
    if error["type"] == "string_type" and (rule := _broken(model, location, error["input"])):
        return [f"{path}: is {_shown(error['input'])}, but {rule.message}"]
    words = _WORDS.get(error["type"])
    return [f"{path}: {words(context, error['input']) if words else error['msg']}".lstrip(": ")]


def _path(model: type[BaseModel], location: tuple[int | str, ...]) -> str:
    """The place as the API server writes it: `spec.steps[0]`, and `requests[cpu]` in a map."""
    text = ""
    current: type[BaseModel] | None = model
    for part in location:
        if isinstance(part, int) or current is None:
            text += f"[{part}]"
        else:
            text += f".{part}" if text else part
            current = _child(current, part)
    return text


def _child(model: type[BaseModel], name: str) -> type[BaseModel] | None:
    """The model of this field; None for a scalar, a map, or a field that does not exist."""
    field = next((f for f in model.model_fields.values() if f.alias == name), None)
    return _model_in(field.annotation) if field else None


def _broken(model: type[BaseModel], location: tuple[int | str, ...], value: Any) -> Rule | None:
    """The rule of this field of text that a bare number would break in quotes, too: a duration
    lacks its unit then, and quotes would not help.
    """
    *above, name = location
    current: type[BaseModel] | None = model
    for part in above:
        if isinstance(part, str) and current is not None:
            current = _child(current, part)
    fields = current.model_fields.values() if current else ()
    field = next((f for f in fields if f.alias == name), None)
    if field is None or not isinstance(value, int | float):
        return None
    rules = _rules((*field.metadata, field.annotation))
    return next((rule for rule in rules if not rule.check(str(value))), None)


def _rules(annotations: Iterable[Any]) -> Iterator[Rule]:
    """The rules of a field, those within `X | None` and `Annotated[X, …]` as well."""
    for annotation in annotations:
        if isinstance(annotation, Rule):
            yield annotation
        for name in ("__args__", "__metadata__"):
            yield from _rules(getattr(annotation, name, ()))


def _unknown_field(model: type[BaseModel], location: tuple[int | str, ...]) -> str:
    *_, name = location
    near = difflib.get_close_matches(str(name), _siblings(model, location[:-1]), n=1)
    if near:
        return f"unknown field: did you mean {near[0]}?"
    known = ", ".join(_siblings(model, location[:-1]))
    return f"unknown field: remove it; the fields here are {known or 'none'}"


def _siblings(model: type[BaseModel], location: tuple[int | str, ...]) -> list[str]:
    """The YAML names of the fields of the object at this place."""
    current: type[BaseModel] | None = model
    for part in location:
        if current is None:
            return []
        if isinstance(part, int):
            continue
        current = _child(current, part)
    return [f.alias or name for name, f in current.model_fields.items()] if current else []


def _model_in(annotation: Any) -> type[BaseModel] | None:
    """The model inside `X | None`, `tuple[X, ...]` or `Annotated[X, …]`."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next((m for a in getattr(annotation, "__args__", ()) if (m := _model_in(a))), None)


_UNION_BRANCHES = frozenset({"int", "str", "function-after[_validate(), int]"})

_Words = Callable[[Mapping[str, Any], Any], str]


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:59] + "…"


def _wanted(what: str) -> _Words:
    return lambda context, value: f"must be {what}, not {_shown(value)}"


_WORDS: Mapping[str, _Words] = {
    "missing": lambda context, value: "is required: add it",
    "string_type": _wanted("text (in quotes if it looks like a number or true/false)"),
    "int_type": _wanted("a whole number without quotes"),
    "float_type": _wanted("a number without quotes"),
    "finite_number": _wanted("a finite number"),
    "bool_type": _wanted("true or false without quotes"),
    "dict_type": _wanted("an object with fields"),
    "model_type": _wanted("an object with fields"),
    "model_attributes_type": _wanted("an object with fields"),
    "tuple_type": _wanted("a list"),
    "string_too_long": lambda c, v: f"is too long: at most {c['max_length']} characters",
    "string_too_short": lambda c, v: "is empty: give a value or leave the field out",
    "too_long": lambda c, v: f"has too many entries: at most {c['max_length']}",
    "too_short": lambda c, v: f"has too few entries: at least {c['min_length']}",
    "greater_than_equal": lambda c, v: f"is {v}, but must be greater than or equal to {c['ge']}",
    "less_than_equal": lambda c, v: f"is {v}, but must be less than or equal to {c['le']}",
    "greater_than": lambda c, v: f"is {v}, but must be greater than {c['gt']:g}",
    "literal_error": lambda c, v: f"must be {c['expected']}, not {_shown(v)}",
}
