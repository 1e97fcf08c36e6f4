"""Revisions: what makes one, what is pinned in it, and how it is kept in a ControllerRevision.

A revision's identity is its canonical *inputs* (``spec.model`` and ``spec.runtime``; empty fields
dropped, quantities normalised). Inputs are compared; the hash only names. Next to the inputs the
record stores everything rendered from them, so that a new operator, a new default or an edited
runtime template changes no running pod.

What happened to a revision (promoted, rejected, paused, restarted, which verbs were taken) stands
in annotations of the same object. Status can be lost; these cannot.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any

from mooring.api import ModelDeployment
from mooring.core import kinds
from mooring.core.clock import format_time, parse_time
from mooring.core.named import Named
from mooring.core.quantity import canonical
from mooring.core.retrain.adopted import Adopted
from mooring.core.retrain.ledger import Ledger
from mooring.core.steps import RolloutPlan

_HASH_LENGTH = 10
_ALPHABET = "bcdfghjklmnpqrstvwxz"
_KNOWN_ANNOTATIONS = frozenset(
    {
        kinds.ANNOTATION_ACKNOWLEDGED,
        kinds.ANNOTATION_ADOPTED,
        kinds.ANNOTATION_DIGEST,
        kinds.ANNOTATION_FINGERPRINT,
        kinds.ANNOTATION_NAMED,
        kinds.ANNOTATION_PAUSED,
        kinds.ANNOTATION_PROMOTED_AT,
        kinds.ANNOTATION_PROMOTION,
        kinds.ANNOTATION_REJECTED,
        kinds.ANNOTATION_RESTART,
        kinds.ANNOTATION_RETRAINING,
        kinds.ANNOTATION_ROLLOUT,
        kinds.ANNOTATION_ROUTER,
    }
)
#: Verbs remembered per revision, newest first, so that an old verb that a GitOps tool
#: writes back is not carried out again.
_ACKNOWLEDGED_LIMIT = 20


@dataclass(frozen=True, slots=True)
class Rejection:
    """Why a revision will not be rolled out again until somebody says ``retry``."""

    reason: str
    message: str
    at: datetime


@dataclass(frozen=True, slots=True)
class Rendered:
    """All that a revision's pods are made of. Written once, with the record.

    ``template`` is the complete pod template; ``config`` the runtime's files by ConfigMap key;
    ``ports`` the public ports ``{name, port, targetPort, appProtocol?}``; ``metrics_port`` the
    number of the metrics port, if any; ``fetched`` whether an init container brings the model
    (and so fixes its digest); ``remote`` whether it does so over the network;
    ``runtime`` the template that it was rendered from, for people; ``signals`` what its metrics
    tell (the API's RuntimeSignals as data), pinned with the server that exports them; ``router``
    the pod template of the routers while this revision is stable; None until the spec asks for
    routers.
    """

    template: Mapping[str, Any]
    config: Mapping[str, str]
    ports: tuple[Mapping[str, Any], ...]
    metrics_port: int | None
    fetched: bool
    remote: bool
    own_service_account: bool
    runtime: Mapping[str, str]
    signals: Mapping[str, Any] | None = None
    router: Mapping[str, Any] | None = None

    def to_data(self) -> dict[str, Any]:
        """The JSON form kept in the record."""
        data: dict[str, Any] = {
            "template": self.template,
            "config": dict(self.config),
            "ports": [dict(port) for port in self.ports],
            "fetched": self.fetched,
            "remote": self.remote,
            "ownServiceAccount": self.own_service_account,
            "runtime": dict(self.runtime),
        }
        if self.metrics_port is not None:
            data["metricsPort"] = self.metrics_port
        if self.signals is not None:
            data["signals"] = dict(self.signals)
        if self.router is not None:
            data["router"] = dict(self.router)
        return data

    @classmethod
    def from_data(cls, data: Mapping[str, Any]) -> Rendered:
        """Reads :meth:`to_data` back; raises KeyError or TypeError when it is no such record."""
        template, config = data["template"], data.get("config") or {}
        ports = tuple(data.get("ports") or ())
        if not all(isinstance(template[part], Mapping) for part in ("metadata", "spec")):
            raise TypeError("a pod template has metadata and spec")
        if not isinstance(config, Mapping):
            raise TypeError("config maps names to files")
        for port in ports:
            if not (isinstance(port["port"], int) and isinstance(port["targetPort"], int)):
                raise TypeError("ports are numbers")
            if not isinstance(port["name"], str):
                raise TypeError("a port has a name")
        return cls(
            template=template,
            config=config,
            ports=ports,
            metrics_port=data.get("metricsPort"),
            fetched=bool(data.get("fetched")),
            remote=bool(data.get("remote")),
            own_service_account=bool(data.get("ownServiceAccount")),
            runtime=data.get("runtime") or {},
            signals=data.get("signals") if isinstance(data.get("signals"), Mapping) else None,
            router=_template(data.get("router")),
        )


def _template(value: Any) -> Mapping[str, Any] | None:
    """A pod template as recorded; raises KeyError or TypeError when it is none."""
    if value is None:
        return None
    if not all(isinstance(value[part], Mapping) for part in ("metadata", "spec")):
        raise TypeError("a pod template has metadata and spec")
    return dict(value)


@dataclass(frozen=True, slots=True)
class Revision:
    """One revision as recorded. ``sequence`` counts creations, ``promotion`` promotions.

    The revision with the highest promotion is stable: promoting is one write of one annotation.
    ``restart`` is the nonce of a revision that is asked for and not made yet. ``rollout`` is how it
    rolls out, or did last. ``ledger`` is what retraining knows, kept by the stable revision, and
    ``adopted`` the request that its model stems from, if any; ``named`` that a registry has named
    its model, and when among others.
    ``resource_version`` is empty for a record that is not written yet; otherwise it guards every
    change of the record against a stale view. ``stored`` is the record's data as it was read, and
    ``unknown`` those of our annotations that another version has written: data never changes, so
    what an older or newer operator has put there has to be given back as it is.
    """

    hash: str
    sequence: int
    inputs: Mapping[str, Any]
    rendered: Rendered
    promotion: int | None = None
    promoted_at: datetime | None = None
    rejected: Rejection | None = None
    paused: bool = False
    restart: str | None = None
    acknowledged: tuple[str, ...] = ()
    digest: str | None = None
    rollout: RolloutPlan | None = None
    ledger: Ledger = field(default_factory=Ledger)
    adopted: Adopted | None = None
    named: Named | None = None
    resource_version: str = ""
    uid: str = ""
    stored: Mapping[str, Any] | None = None
    unknown: Mapping[str, str] = field(default_factory=dict)

    @property
    def data(self) -> dict[str, Any]:
        """What the record holds; never changed once it is written."""
        if self.stored is not None:
            return dict(self.stored)
        return {"inputs": dict(self.inputs), **self.rendered.to_data()}

    @property
    def nonce(self) -> str | None:
        """The restart that this revision exists for; None for the first of its inputs."""
        value = self.inputs.get("restart")
        return str(value) if value is not None else None

    @property
    def model_uri(self) -> str:
        return str(self.inputs["model"]["uri"])

    @property
    def model_source(self) -> str:
        """Where a registry's version has its bytes; empty for a model that its URI locates."""
        return str(self.inputs["model"].get("source") or "")

    @property
    def declared_digest(self) -> str | None:
        value = self.inputs["model"].get("digest")
        return str(value) if value is not None else None

    @property
    def resolved_digest(self) -> str | None:
        """The digest of what is served: as found by the first pod, or as declared."""
        return self.digest or self.declared_digest

    @property
    def settled(self) -> bool:
        """Whether it is known which bytes every further pod must find."""
        return not self.rendered.fetched or self.resolved_digest is not None

    def acknowledge(self, mark: str) -> Revision:
        """Remembers that the verb with this mark was taken."""
        return replace(self, acknowledged=(mark, *self.acknowledged)[:_ACKNOWLEDGED_LIMIT])


@dataclass(frozen=True, slots=True)
class History:
    """All readable records of one ModelDeployment, and the names of those that are not."""

    revisions: tuple[Revision, ...] = ()
    unreadable: tuple[str, ...] = field(default=())

    @property
    def stable(self) -> Revision | None:
        """The last one promoted; None before the first."""
        promoted = [r for r in self.revisions if r.promotion is not None]
        return max(promoted, key=lambda r: r.promotion or 0, default=None)

    def before(self, revision: Revision) -> Revision | None:
        """The one that was stable before this one and may be again; None where there is none."""
        earlier = [
            r
            for r in self.revisions
            if r.promotion is not None
            and r.promotion < (revision.promotion or 0)
            and r.rejected is None
        ]
        return max(earlier, key=lambda r: r.promotion or 0, default=None)

    def by_hash(self, name: str) -> Revision | None:
        return next((r for r in self.revisions if r.hash == name), None)

    def target(self, inputs: Mapping[str, Any]) -> Revision | None:
        """The newest record of these inputs; restarts of the same inputs count as newer ones.

        Both are compared in the form of today: a record may stem from a version that spelt a
        quantity otherwise, and an upgrade starts no rollout.
        """
        same = [r for r in self.revisions if normal_form(base_inputs(r.inputs)) == inputs]
        return max(same, key=lambda r: r.sequence, default=None)

    def with_revision(self, revision: Revision) -> History:
        """The history with this record added or changed."""
        others = tuple(r for r in self.revisions if r.hash != revision.hash)
        return replace(self, revisions=(*others, revision))

    @property
    def next_sequence(self) -> int:
        return max((r.sequence for r in self.revisions), default=0) + 1

    @property
    def next_promotion(self) -> int:
        return max((r.promotion or 0 for r in self.revisions), default=0) + 1


def canonical_inputs(resource: ModelDeployment) -> dict[str, Any]:
    """The identity of what the spec asks for, free of every default and empty field."""
    spec = resource.spec
    runtime = spec.runtime.model_dump(by_alias=True, exclude_none=True, mode="json")
    model = spec.model.model_dump(by_alias=True, exclude_none=True, mode="json")
    return normal_form({"model": model, "runtime": runtime})


def normal_form(inputs: Mapping[str, Any]) -> dict[str, Any]:
    """The inputs without empty fields, and with quantities in their one form."""
    runtime = inputs.get("runtime") or {}
    resources = dict(runtime.get("resources") or {})
    for part in ("requests", "limits"):
        if resources.get(part):
            resources[part] = {name: _quantity(q) for name, q in resources[part].items()}
    pruned = _without_empty({**inputs, "runtime": {**runtime, "resources": resources}})
    if not isinstance(pruned, dict):
        raise TypeError("inputs are an object")
    return pruned


def _quantity(text: Any) -> Any:
    """Its canonical form; what is no quantity (any more) stays what it is."""
    try:
        return canonical(text)
    except (TypeError, ValueError):
        return text


def base_inputs(inputs: Mapping[str, Any]) -> dict[str, Any]:
    """The inputs without the restart that tells two revisions of the same inputs apart."""
    return {key: value for key, value in inputs.items() if key != "restart"}


def name_hash(inputs: Mapping[str, Any], taken: Iterable[str] = ()) -> str:
    """A short name for the inputs; a name already ``taken`` by other inputs is stepped over."""
    used = set(taken)
    text = json.dumps(inputs, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    for attempt in range(len(used) + 1):
        salted = text if attempt == 0 else f"{text}#{attempt}"
        found = _letters(hashlib.sha256(salted.encode()).digest())
        if found not in used:
            return found
    raise AssertionError("more names taken than tried")


def _letters(digest: bytes) -> str:
    """Ten consonants: no YAML reader takes them for a number, and they spell no word."""
    number = int.from_bytes(digest, "big")
    letters = []
    for _ in range(_HASH_LENGTH):
        number, index = divmod(number, len(_ALPHABET))
        letters.append(_ALPHABET[index])
    return "".join(letters)


#: What reading a record raises that somebody has written over: JSON may be nested without end, and
#: a number be larger than any time.
_UNREADABLE = (
    KeyError, TypeError, ValueError, AttributeError, OverflowError, RecursionError,
)  # fmt: skip


def read_history(children: Mapping[kinds.Ref, Mapping[str, Any]]) -> History:
    """Reads every ControllerRevision among the children; a broken one is named, not fatal."""
    revisions, unreadable = [], []
    for ref, child in sorted(children.items()):
        if ref.kind != kinds.CONTROLLER_REVISION.name:
            continue
        try:
            revisions.append(_read(child))
        except _UNREADABLE:
            unreadable.append(ref.name)
    return History(tuple(revisions), tuple(unreadable))


def _read(child: Mapping[str, Any]) -> Revision:
    meta = child["metadata"]
    data = child["data"]
    annotations = meta.get("annotations") or {}
    rejected = annotations.get(kinds.ANNOTATION_REJECTED)
    promoted_at = annotations.get(kinds.ANNOTATION_PROMOTED_AT)
    promotion = annotations.get(kinds.ANNOTATION_PROMOTION)
    name = meta["labels"][kinds.LABEL_REVISION]
    if not isinstance(data["inputs"]["model"]["uri"], str):
        raise TypeError("model.uri is text")
    normal_form(data["inputs"])  # raises for what can never be compared
    if not meta["name"].endswith(f"-{name}"):
        raise ValueError("the label names another revision than the record")
    return Revision(
        hash=name,
        sequence=int(child.get("revision", 0)),
        inputs=data["inputs"],
        rendered=_with_router(Rendered.from_data(data), annotations.get(kinds.ANNOTATION_ROUTER)),
        promotion=int(promotion) if promotion is not None else None,
        promoted_at=parse_time(promoted_at) if promoted_at else None,
        rejected=_read_rejection(rejected) if rejected else None,
        paused=annotations.get(kinds.ANNOTATION_PAUSED) == "true",
        restart=annotations.get(kinds.ANNOTATION_RESTART),
        acknowledged=tuple(
            mark for mark in annotations.get(kinds.ANNOTATION_ACKNOWLEDGED, "").split(",") if mark
        ),
        digest=annotations.get(kinds.ANNOTATION_DIGEST),
        rollout=_read_rollout(annotations.get(kinds.ANNOTATION_ROLLOUT)),
        ledger=_read_ledger(annotations.get(kinds.ANNOTATION_RETRAINING)),
        adopted=_read_adopted(annotations.get(kinds.ANNOTATION_ADOPTED)),
        named=_read_named(annotations.get(kinds.ANNOTATION_NAMED)),
        stored=data,
        unknown={
            key: value
            for key, value in annotations.items()
            if key.startswith(f"{kinds.GROUP}/") and key not in _KNOWN_ANNOTATIONS
        },
        resource_version=meta.get("resourceVersion", ""),
        uid=meta.get("uid", ""),
    )


def _with_router(rendered: Rendered, text: str | None) -> Rendered:
    """With the routers' template that was pinned after the record was made."""
    if rendered.router is not None or not text:
        return rendered
    return replace(rendered, router=_template(json.loads(text)))


def _read_rejection(text: str) -> Rejection:
    value = json.loads(text)
    return Rejection(value["reason"], value["message"], parse_time(value["at"]))


def _read_rollout(text: str | None) -> RolloutPlan | None:
    return RolloutPlan.from_text(text) if text else None


def _read_ledger(text: str | None) -> Ledger:
    return Ledger.from_text(text) if text else Ledger()


def _read_adopted(text: str | None) -> Adopted | None:
    return Adopted.from_text(text) if text else None


def _read_named(text: str | None) -> Named | None:
    return Named.from_text(text) if text else None


def record_annotations(revision: Revision) -> dict[str, str]:
    """The durable facts of a revision, as annotations of its record."""
    facts: dict[str, str | None] = {
        kinds.ANNOTATION_PROMOTION: str(revision.promotion) if revision.promotion else None,
        kinds.ANNOTATION_PROMOTED_AT: (
            format_time(revision.promoted_at) if revision.promoted_at else None
        ),
        kinds.ANNOTATION_REJECTED: (
            json.dumps(
                {
                    "reason": revision.rejected.reason,
                    "message": revision.rejected.message,
                    "at": format_time(revision.rejected.at),
                },
                sort_keys=True,
                ensure_ascii=False,
            )
            if revision.rejected
            else None
        ),
        kinds.ANNOTATION_PAUSED: "true" if revision.paused else None,
        kinds.ANNOTATION_RESTART: revision.restart,
        kinds.ANNOTATION_ACKNOWLEDGED: ",".join(revision.acknowledged) or None,
        kinds.ANNOTATION_DIGEST: revision.digest,
        kinds.ANNOTATION_ROLLOUT: revision.rollout.to_text() if revision.rollout else None,
        kinds.ANNOTATION_RETRAINING: revision.ledger.to_text() if revision.ledger else None,
        kinds.ANNOTATION_ADOPTED: revision.adopted.to_text() if revision.adopted else None,
        kinds.ANNOTATION_NAMED: revision.named.to_text() if revision.named else None,
        kinds.ANNOTATION_ROUTER: _late_router(revision),
    }
    return dict(revision.unknown) | {k: v for k, v in facts.items() if v is not None}


def _late_router(revision: Revision) -> str | None:
    """The routers' template as text, where data, which never changes, has none."""
    if revision.stored is None or revision.stored.get("router") is not None:
        return None
    if revision.rendered.router is None:
        return None
    return json.dumps(revision.rendered.router, sort_keys=True, ensure_ascii=False)


#: Fields in which something empty means something: an empty selector selects everything, and an
#: empty value is a label's value like any other.
_VERBATIM = frozenset(
    {
        "affinity",
        "nodeSelector",
        "podAnnotations",
        "podLabels",
        "tolerations",
        "topologySpreadConstraints",
    }
)
#: Unset means our default, an empty list none at all.
_MEANT_EMPTY = frozenset({"topologySpreadConstraints"})


def _without_empty(value: object) -> object:
    if isinstance(value, dict):
        pruned = {
            key: item if key in _VERBATIM else _without_empty(item) for key, item in value.items()
        }
        return {
            key: item
            for key, item in pruned.items()
            if item not in (None, {}, [], "") or (key in _MEANT_EMPTY and item is not None)
        }
    if isinstance(value, list):
        return [_without_empty(item) for item in value]
    return value
