"""Fields of pods that users may set: the same names and meaning as in Kubernetes' core/v1.

A curated few instead of a PodSpec: it keeps the CRDs small and the pods within Pod Security
"restricted".
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from mooring.api.schema_types import (
    ATOMIC,
    ATOMIC_MAP,
    EXPONENT_PATTERN,
    ApiModel,
    ListMap,
    ObjectName,
    Quantity,
    Rule,
    StrictBool,
    StrictInt,
    matcher,
    pattern_rule,
    quantity_value,
)

ENV_NAME_PATTERN = r"^[A-Za-z_][A-Za-z0-9_]*$"

EnvName = Annotated[
    str,
    Field(max_length=128),
    pattern_rule(
        ENV_NAME_PATTERN,
        "must be the name of an environment variable: letters, digits and '_', not beginning "
        "with a digit",
    ),
]
DataKey = Annotated[str, Field(min_length=1, max_length=253)]
Argument = Annotated[
    str, Field(max_length=4096, description="One argument, passed as it is: no shell reads it.")
]

LABEL_KEY_PATTERN = (
    r"^([a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?/)?[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?$"
)
LABEL_VALUE_PATTERN = r"^([A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?)?$"
OPERATOR_KEY_PATTERN = (
    r"^(([a-z0-9.-]+\.)?mooring\.dev/.*|app\.kubernetes\.io/(managed-by|instance))$"
)


_KEY_MESSAGE = (
    "a key is an optional DNS prefix and '/', then at most 63 letters, digits, '-', '_' or '.', "
    "such as team or example.com/team"
)


def _keys_match(pattern: str) -> Rule:
    return Rule(
        cel=f"self.all(key, key.matches(r'{pattern}'))",
        message=f"has a key that Kubernetes refuses: {_KEY_MESSAGE}",
        check=lambda entries: all(map(matcher(pattern), entries)),
    )


_OPERATOR_KEYS = Rule(
    cel=f"!self.exists(key, key.matches(r'{OPERATOR_KEY_PATTERN}'))",
    message=(
        "keys of mooring.dev/ and app.kubernetes.io/managed-by and instance are set by the "
        "operator: leave them out, or use a prefix of your own"
    ),
    check=lambda entries: not any(map(matcher(OPERATOR_KEY_PATTERN), entries)),
)

LabelValue = Annotated[
    str,
    Field(max_length=63, description="The value of the label; at most 63 characters."),
    pattern_rule(
        LABEL_VALUE_PATTERN,
        "must be a label value: letters, digits, '-', '_' or '.', beginning and ending with a "
        "letter or digit, or empty",
    ),
]
AnnotationValue = Annotated[str, Field(max_length=4096, description="The value of the annotation.")]
Labels = Annotated[dict[str, LabelValue], Field(max_length=32), _keys_match(LABEL_KEY_PATTERN)]
PodLabels = Annotated[Labels, _OPERATOR_KEYS]
PodAnnotations = Annotated[
    dict[str, AnnotationValue],
    Field(max_length=32),
    _keys_match(LABEL_KEY_PATTERN),
    _OPERATOR_KEYS,
]


class KeyReference(ApiModel):
    """A key of a Secret or ConfigMap in the same namespace."""

    name: ObjectName
    """Name of the Secret or ConfigMap. Example: database."""
    key: DataKey
    """The key in its data. Example: password."""
    optional: StrictBool | None = None
    """Whether the pod may start without it; default false."""


class EnvVarSource(ApiModel):
    """Where the value of a variable comes from; exactly one of the fields."""

    secret_key_ref: KeyReference | None = None
    """A key of a Secret in the same namespace; the kubelet reads it, the operator never does."""
    config_map_key_ref: KeyReference | None = None
    """A key of a ConfigMap in the same namespace."""

    rules = (
        Rule(
            cel="has(self.secretKeyRef) != has(self.configMapKeyRef)",
            message="set exactly one of secretKeyRef and configMapKeyRef",
            check=lambda s: (s.secret_key_ref is None) != (s.config_map_key_ref is None),
        ),
    )


class EnvVar(ApiModel):
    """One environment variable of the server."""

    name: EnvName
    """Name of the variable. Example: OMP_NUM_THREADS."""
    value: Annotated[str, Field(max_length=8192)] | None = None
    """The value as text: quote numbers and booleans. Excludes valueFrom."""
    value_from: EnvVarSource | None = None
    """Where the value comes from instead: a Secret or a ConfigMap. Excludes value."""

    rules = (
        Rule(
            cel="!has(self.value) || !has(self.valueFrom)",
            message="value and valueFrom exclude each other: remove one of them",
            check=lambda e: e.value is None or e.value_from is None,
        ),
    )


EnvVars = Annotated[tuple[EnvVar, ...], Field(max_length=64), ListMap(("name",))]


class LocalObjectReference(ApiModel):
    """An object in the same namespace, by name."""

    name: ObjectName
    """Name of the object."""


# As many as Kubernetes 1.30 lets the rules for a quantity be checked for.
ResourceList = Annotated[dict[str, Quantity], Field(max_length=7)]

COMPARED_RESOURCES = ("cpu", "memory", "ephemeral-storage")
"""Compared at apply; every further one would come near the limit of CEL's cost budget."""


def _within_limit(resource: str) -> Rule:
    """The request is at most the limit; says nothing where one of them is no quantity at all."""
    request, limit = (f"self.{part}['{resource}']" for part in ("requests", "limits"))
    comparable = " && ".join(
        f"isQuantity(string({amount})) && !string({amount}).matches('{EXPONENT_PATTERN}')"
        for amount in (request, limit)
    )

    def check(resources: Resources) -> bool:
        wanted = (resources.requests or {}).get(resource)
        allowed = (resources.limits or {}).get(resource)
        return (
            wanted is None or allowed is None or quantity_value(wanted) <= quantity_value(allowed)
        )

    return Rule(
        cel=(
            f"!has(self.requests) || !has(self.limits) || !('{resource}' in self.requests) || "
            f"!('{resource}' in self.limits) || !({comparable}) || "
            f"!quantity(string({request})).isGreaterThan(quantity(string({limit})))"
        ),
        message=(
            f"requests more {resource} than limits allows: raise the {resource} of limits or lower "
            "that of requests"
        ),
        check=check,
    )


class Resources(ApiModel):
    """CPU, memory and devices of the server's container, as in any pod."""

    requests: ResourceList | None = None
    """What the scheduler sets aside, by resource. Example: {cpu: 500m, memory: 512Mi}."""
    limits: ResourceList | None = None
    """What the server may use at most, by resource. Example: {memory: 1Gi, nvidia.com/gpu: 1}."""

    rules = tuple(_within_limit(resource) for resource in COMPARED_RESOURCES)


class Toleration(ApiModel):
    """Lets the pods onto nodes with a matching taint, as in core/v1."""

    key: Annotated[str, Field(max_length=316)] | None = None
    """Key of the taint; empty with operator Exists means every taint."""
    operator: Literal["Equal", "Exists"] | None = None
    """How the value is compared: Equal (the default) or Exists."""
    value: Annotated[str, Field(max_length=63)] | None = None
    """Value of the taint; for operator Equal only."""
    effect: Literal["NoSchedule", "PreferNoSchedule", "NoExecute"] | None = None
    """Effect of the taint: NoSchedule, PreferNoSchedule or NoExecute; unset means all."""
    toleration_seconds: Annotated[StrictInt, Field(ge=0, le=2**53)] | None = None
    """Seconds to stay on the node after a NoExecute taint; unset means for ever."""

    rules = (
        Rule(
            cel="has(self.key) && self.key != '' || has(self.operator) && "
            "self.operator == 'Exists'",
            message="needs a key, or operator Exists, which tolerates every taint",
            check=lambda t: bool(t.key) or t.operator == "Exists",
        ),
        Rule(
            cel="!has(self.value) || self.value == '' || !has(self.operator) || "
            "self.operator == 'Equal'",
            message="operator Exists compares no value: remove value",
            check=lambda t: not t.value or t.operator != "Exists",
        ),
        Rule(
            cel="!has(self.tolerationSeconds) || has(self.effect) && self.effect == 'NoExecute'",
            message="tolerationSeconds goes with effect NoExecute only",
            check=lambda t: t.toleration_seconds is None or t.effect == "NoExecute",
        ),
    )


class LabelSelectorRequirement(ApiModel):
    """One condition on a label."""

    key: Annotated[str, Field(max_length=316)]
    """The label's key."""
    operator: Literal["In", "NotIn", "Exists", "DoesNotExist"]
    """How the label is compared: In, NotIn, Exists or DoesNotExist."""
    values: (
        Annotated[
            tuple[Annotated[str, Field(max_length=63, description="One value.")], ...],
            Field(max_length=32, json_schema_extra=ATOMIC),
        ]
        | None
    ) = None
    """The values for In and NotIn; empty for the others."""

    rules = (
        Rule(
            cel="(self.operator in ['In', 'NotIn']) == "
            "(has(self.values) && self.values.size() > 0)",
            message="In and NotIn need values, Exists and DoesNotExist have none",
            check=lambda r: (r.operator in ("In", "NotIn")) == bool(r.values),
        ),
    )


class LabelSelector(ApiModel):
    """Selects pods by their labels; all conditions must hold."""

    match_labels: Labels | None = None
    """Labels that a pod must have, with these values."""
    match_expressions: (
        Annotated[
            tuple[LabelSelectorRequirement, ...], Field(max_length=16, json_schema_extra=ATOMIC)
        ]
        | None
    ) = None
    """Further conditions on labels."""


class TopologySpreadConstraint(ApiModel):
    """How pods spread over nodes or zones, as in core/v1."""

    max_skew: Annotated[StrictInt, Field(ge=1, le=1000)]
    """How much the number of pods may differ between two domains."""
    topology_key: Annotated[str, Field(min_length=1, max_length=316)]
    """The node label that makes a domain. Example: topology.kubernetes.io/zone."""
    when_unsatisfiable: Literal["DoNotSchedule", "ScheduleAnyway"]
    """What to do when it cannot be met: DoNotSchedule or ScheduleAnyway."""
    label_selector: Annotated[LabelSelector, Field(json_schema_extra=ATOMIC_MAP)] | None = None
    """The pods that are counted; unset counts none. Example: {matchLabels: {team: risk}}."""
    min_domains: Annotated[StrictInt, Field(ge=1, le=1000)] | None = None
    """The least number of domains; for DoNotSchedule only."""
    node_affinity_policy: Literal["Honor", "Ignore"] | None = None
    """Whether node affinity limits the nodes that count: Honor (the default) or Ignore."""
    node_taints_policy: Literal["Honor", "Ignore"] | None = None
    """Whether taints limit the nodes that count: Honor or Ignore (the default)."""
    match_label_keys: (
        Annotated[
            tuple[Annotated[str, Field(max_length=316, description="A label's key.")], ...],
            Field(max_length=16, json_schema_extra=ATOMIC),
        ]
        | None
    ) = None
    """Label keys whose values are taken from the pod itself and added to the selector."""

    rules = (
        Rule(
            cel="!has(self.minDomains) || self.whenUnsatisfiable == 'DoNotSchedule'",
            message="minDomains goes with whenUnsatisfiable DoNotSchedule only",
            check=lambda c: c.min_domains is None or c.when_unsatisfiable == "DoNotSchedule",
        ),
        Rule(
            cel="!has(self.matchLabelKeys) || has(self.labelSelector)",
            message="matchLabelKeys adds to labelSelector, which is not set",
            check=lambda c: c.match_label_keys is None or c.label_selector is not None,
        ),
    )


Tolerations = Annotated[tuple[Toleration, ...], Field(max_length=32, json_schema_extra=ATOMIC)]
TopologySpreadConstraints = Annotated[
    tuple[TopologySpreadConstraint, ...],
    Field(max_length=16),
    ListMap(("topologyKey", "whenUnsatisfiable")),
]
ImagePullSecrets = Annotated[
    tuple[LocalObjectReference, ...], Field(max_length=16), ListMap(("name",))
]
Arguments = Annotated[tuple[Argument, ...], Field(max_length=128, json_schema_extra=ATOMIC)]
