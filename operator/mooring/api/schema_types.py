"""Building blocks of the resource models: the base model, rules, and shared scalar types.

A rule that one object can show to be broken is written once, as a `Rule`: the CEL expression goes
into the CRD, the Python check runs offline, and both give the same message. Everything here is
read by `mooring.api.crd` through pydantic's JSON schema.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import (
    AwareDatetime,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    GetCoreSchemaHandler,
    GetJsonSchemaHandler,
    PlainSerializer,
    Strict,
    WithJsonSchema,
    model_validator,
)
from pydantic.alias_generators import to_camel
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema, PydanticCustomError, core_schema

GROUP = "mooring.dev"
VERSION = "v1alpha1"
API_VERSION: Literal["mooring.dev/v1alpha1"] = "mooring.dev/v1alpha1"

RULE_ERROR = "rule"


@dataclass(frozen=True, slots=True)
class Rule:
    """One rule, checked by the API server (CEL) and offline (Python) with the same message.

    On a scalar it stands in `Annotated[...]`; on a model in the class variable `rules`. `message`
    says what is wrong and the way out; the path of the field is put in front by both checkers.
    `field` (such as `.maxReplicas`) moves the report from the object to one of its fields.
    """

    cel: str
    message: str
    check: Callable[[Any], bool]
    field: str = ""

    def schema(self) -> dict[str, str]:
        """The entry of `x-kubernetes-validations` for this rule."""
        entry = {"rule": self.cel, "message": self.message}
        return entry | {"fieldPath": self.field} if self.field else entry

    def _validate(self, value: Any) -> Any:
        if not self.check(value):
            raise _broken((self,))
        return value

    def __get_pydantic_core_schema__(
        self, source: Any, handler: GetCoreSchemaHandler
    ) -> CoreSchema:
        return core_schema.no_info_after_validator_function(self._validate, handler(source))

    def __get_pydantic_json_schema__(
        self, schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> JsonSchemaValue:
        json_schema = dict(handler(schema))
        earlier = json_schema.get("x-kubernetes-validations", [])
        return json_schema | {"x-kubernetes-validations": [*earlier, self.schema()]}


def _broken(rules: tuple[Rule, ...]) -> PydanticCustomError:
    context = {
        "text": "; ".join(rule.message for rule in rules),
        "failures": [(rule.field, rule.message) for rule in rules],
    }
    return PydanticCustomError(RULE_ERROR, "{text}", context)


def refusal(message: str, field: str = "") -> PydanticCustomError:
    """The error of a check that has no rule in CEL; `field` leads on from where it is raised."""
    context = {"text": message, "failures": [(field, message)]}
    return PydanticCustomError(RULE_ERROR, "{text}", context)


def matcher(pattern: str) -> Callable[[str], bool]:
    """A check that a text matches an RE2 pattern as CEL's `matches` does: `$` is the very end."""
    exact = pattern.removesuffix("$") + r"\Z" if pattern.endswith("$") else pattern
    compiled = re.compile(exact, re.ASCII)
    return lambda text: compiled.search(text) is not None


def pattern_rule(pattern: str, message: str) -> Rule:
    """The rule that a text matches a pattern, with a message better than the pattern itself."""
    return Rule(cel=f"self.matches(r'{pattern}')", message=message, check=matcher(pattern))


@dataclass(frozen=True, slots=True)
class ListMap:
    """Marks a list of named things: entries are merged by `keys`, which must be unique.

    `keys` are the names in YAML (camelCase); the API server and the offline check both refuse a
    second entry with the same keys.
    """

    keys: tuple[str, ...]

    def _validate(self, items: tuple[ApiModel, ...]) -> tuple[ApiModel, ...]:
        seen: set[Hashable] = set()
        for index, item in enumerate(items):
            key = tuple(getattr(item, to_snake(name)) for name in self.keys)
            if key in seen:
                shown = ", ".join(f"{n} {v!r}" for n, v in zip(self.keys, key, strict=True))
                message = f"Duplicate value: {shown} is given more than once; keep one of them"
                raise refusal(message, f"[{index}]")
            seen.add(key)
        return items

    def __get_pydantic_core_schema__(
        self, source: Any, handler: GetCoreSchemaHandler
    ) -> CoreSchema:
        return core_schema.no_info_after_validator_function(self._validate, handler(source))

    def __get_pydantic_json_schema__(
        self, schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> JsonSchemaValue:
        return dict(handler(schema)) | {
            "x-kubernetes-list-type": "map",
            "x-kubernetes-list-map-keys": list(self.keys),
        }


def to_snake(name: str) -> str:
    """`secretName` → `secret_name`: the Python attribute of a YAML field."""
    return re.sub(r"(?<=[a-z0-9])([A-Z])", lambda m: "_" + m.group(1).lower(), name)


ATOMIC = {"x-kubernetes-list-type": "atomic"}
"""Extra JSON schema of a list that is replaced as a whole by server-side apply."""

ATOMIC_MAP = {"x-kubernetes-map-type": "atomic"}
"""Extra JSON schema of an object that is replaced as a whole by server-side apply."""

PRESERVE = {"x-kubernetes-preserve-unknown-fields": True}
"""Extra JSON schema of an object whose content belongs to another Kubernetes API."""


class ApiModel(BaseModel):
    """Base of every resource model: camelCase in YAML, frozen, unknown fields refused."""

    model_config = ConfigDict(
        alias_generator=to_camel,
        populate_by_name=True,
        extra="forbid",
        frozen=True,
        use_attribute_docstrings=True,
        # An attribute named `model` or `model_uri` is this product's own word, not pydantic's.
        protected_namespaces=(),
    )

    rules: ClassVar[tuple[Rule, ...]] = ()
    """Rules over several fields of this model; `check` gets the model."""

    @model_validator(mode="after")
    def _check_rules(self) -> Self:
        if self.rules:
            broken = [rule for rule in self.rules if not rule.check(self)]
            if broken:
                raise _broken(tuple(broken))
        return self

    @classmethod
    def __get_pydantic_json_schema__(
        cls, schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> JsonSchemaValue:
        json_schema = handler.resolve_ref_schema(handler(schema))
        if cls.rules:
            json_schema["x-kubernetes-validations"] = [rule.schema() for rule in cls.rules]
        return json_schema

    def as_dict(self) -> dict[str, Any]:
        """Plain data as it stands in YAML: camelCase, no unset fields, times as RFC 3339."""
        return self.model_dump(mode="json", by_alias=True, exclude_none=True)


# --- scalars -------------------------------------------------------------------------------------

DURATION_PATTERN = (
    r"^([0-9]{1,5}(\.[0-9]{1,3})?h)?([0-9]{1,7}(\.[0-9]{1,3})?m)?"
    r"([0-9]{1,9}(\.[0-9]{1,3})?s)?([0-9]{1,9}ms)?$"
)
_matches_duration = matcher(DURATION_PATTERN)
_DURATION_PART = re.compile(r"([0-9.]+)(ms|h|m|s)")
_SECONDS = {"h": 3600.0, "m": 60.0, "s": 1.0, "ms": 0.001}

DURATION_MESSAGE = (
    "must be a duration such as 30s, 10m, 1h30m or 168h: numbers with h, m, s and ms in this "
    "order; write 168h, not 7d"
)


def parse_duration(text: str) -> timedelta:
    """The length of a Go-style duration such as `1h30m`; raises ValueError with the way out."""
    if not text or not _matches_duration(text):
        raise ValueError(f"{text!r} {DURATION_MESSAGE}")
    parts = _DURATION_PART.findall(text)
    return timedelta(seconds=sum(float(number) * _SECONDS[unit] for number, unit in parts))


def _is_duration(text: str) -> bool:
    return bool(text) and _matches_duration(text)


Duration = Annotated[
    str,
    Field(max_length=32),
    Rule(
        cel=f"self.size() > 0 && self.matches(r'{DURATION_PATTERN}')",
        message=DURATION_MESSAGE,
        check=_is_duration,
    ),
]
"""A Go-style duration; `parse_duration` reads it."""

PositiveDuration = Annotated[
    Duration,
    Rule(
        cel=(
            f"!self.matches(r'{DURATION_PATTERN}') || self.size() == 0 || "
            "duration(self) >= duration('1s')"
        ),
        message="must be at least 1s",
        check=lambda text: parse_duration(text) >= timedelta(seconds=1),
    ),
]
"""A duration of one second or more."""

QUANTITY_MESSAGE = (
    "must be a resource quantity of zero or more, such as 500m, 2, 512Mi or 1Gi (suffixes m, k, M, "
    "G, T or Ki, Mi, Gi, Ti; a fraction in quotes)"
)
QUANTITY_LENGTH = 40
_QUANTITY_PARTS = re.compile(
    r"^([+-]?[0-9]*\.?[0-9]*)([eE][+-]?[0-9]{1,2}|[numkMGTPE]|[KMGTPE]i|)\Z"
)
_SUFFIXES = {"": 0, "n": -9, "u": -6, "m": -3, "k": 3, "M": 6, "G": 9, "T": 12, "P": 15, "E": 18}
_BINARY_SUFFIXES = {"Ki": 1, "Mi": 2, "Gi": 3, "Ti": 4, "Pi": 5, "Ei": 6}


def quantity_value(text: str) -> Decimal:
    """The number that a resource quantity stands for; raises ValueError if it is none.

    Grammar and suffixes as in apimachinery's resource.Quantity.
    """
    number, suffix = split_quantity(text)
    if suffix in _BINARY_SUFFIXES:
        return number * Decimal(1024 ** _BINARY_SUFFIXES[suffix])
    if suffix[:1] in ("e", "E") and len(suffix) > 1:
        return number.scaleb(int(suffix[1:]))
    return number.scaleb(_SUFFIXES[suffix])


def split_quantity(text: str) -> tuple[Decimal, str]:
    """`1.5Gi` → (1.5, `Gi`); raises ValueError if it is no quantity."""
    match = _QUANTITY_PARTS.match(text) if len(text) <= QUANTITY_LENGTH else None
    if match is None or not any(c.isdigit() for c in match.group(1)):
        raise ValueError(f"{text!r} {QUANTITY_MESSAGE}")
    return Decimal(match.group(1)), match.group(2)


def _quantity_text(value: Any) -> Any:
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    if isinstance(value, float):
        message = f'{QUANTITY_MESSAGE}: write "{value}" with quotes'
        raise refusal(message)
    return value


def _is_quantity(text: str) -> bool:
    try:
        split_quantity(text)
    except ValueError:
        return False
    return not text.startswith("-")


# A pattern for the whole would cost too much, since the text of an int-or-string counts as three
# megabytes long. The short one is there because apimachinery takes a bare `m` for a quantity.
_QUANTITY_RULE = Rule(
    cel=(
        "type(self) == int ? self >= 0 : type(self) == string && !self.startsWith('-') && "
        r"self.matches(r'\d') && isQuantity(self)"
    ),
    message=QUANTITY_MESSAGE,
    check=_is_quantity,
)

EXPONENT_PATTERN = "[eE][^i]"
"""Finds the exponent of a quantity such as 1e3 (and spares the suffixes E and Ei)."""

has_exponent = matcher(EXPONENT_PATTERN)

# An API server that compares 1e999999999 with anything computes for longer than a request lasts, in
# pods as well.
_NO_EXPONENT_RULE = Rule(
    cel=f"type(self) != string || !self.matches('{EXPONENT_PATTERN}')",
    message="must not have an exponent: write it with a suffix, such as 1k, 2M or 1Gi",
    check=lambda text: not has_exponent(text),
)

Quantity = Annotated[
    str,
    BeforeValidator(_quantity_text),
    Field(max_length=QUANTITY_LENGTH),
    _NO_EXPONENT_RULE,
    _QUANTITY_RULE,
    WithJsonSchema(
        {
            "x-kubernetes-int-or-string": True,
            "maxLength": QUANTITY_LENGTH,
            "description": "An amount of the resource, such as 500m, 2, 512Mi or 1Gi.",
            "x-kubernetes-validations": [_QUANTITY_RULE.schema(), _NO_EXPONENT_RULE.schema()],
        }
    ),
]
"""A resource quantity as text; whole numbers are taken too and kept as text."""

StrictInt = Annotated[int, Strict()]
StrictBool = Annotated[bool, Strict()]

DNS_LABEL_PATTERN = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$"
DNS_SUBDOMAIN_PATTERN = r"^[a-z0-9]([-.a-z0-9]*[a-z0-9])?$"

ObjectName = Annotated[
    str,
    Field(max_length=253),
    pattern_rule(
        DNS_SUBDOMAIN_PATTERN,
        "must be a name of lower-case letters, digits, '-' and '.', "
        "beginning and ending with a letter or digit",
    ),
]
"""The name of a Secret, ConfigMap, ServiceAccount or another object in the same namespace."""


def format_time(moment: datetime) -> str:
    """RFC 3339 in UTC with whole seconds, as `metav1.Time` is written."""
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


Timestamp = Annotated[AwareDatetime, PlainSerializer(format_time, return_type=str)]
"""A moment; written with whole seconds in UTC. A time without a zone is refused."""

MESSAGE_LENGTH = 4096


def _shorten(text: Any) -> Any:
    """Status must always be writable, so a long text is cut instead of refused."""
    if isinstance(text, str) and len(text) > MESSAGE_LENGTH:
        return text[: MESSAGE_LENGTH - 1] + "…"
    return text


StatusMessage = Annotated[str, BeforeValidator(_shorten), Field(max_length=MESSAGE_LENGTH)]
"""A sentence in status; longer texts are cut to 4096 characters."""
