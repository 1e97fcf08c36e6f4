"""What may not or could not be written: names that others hold, and what the API server refused."""

from __future__ import annotations

from dataclasses import dataclass, field

from mooring.adapters.kube import ApiError
from mooring.core import kinds
from mooring.core.kinds import Ref
from mooring.core.objects import owned
from mooring.core.observed import Manifest, Observed


@dataclass(slots=True)
class Refusals:
    """What the API server refused in the last round of a key, and names that others hold.

    ``rounds`` counts how often it has been the same objects.
    """

    failures: dict[Ref, str] = field(default_factory=dict)
    foreign: dict[Ref, str] = field(default_factory=dict)
    rounds: int = 0

    def same_objects(self, other: Refusals) -> bool:
        """Whether the same objects are concerned; answers may contain a time or a number."""
        return (self.failures.keys(), self.foreign.keys()) == (
            other.failures.keys(),
            other.foreign.keys(),
        )

    def __bool__(self) -> bool:
        return bool(self.failures or self.foreign)


def may_write(live: Manifest, observed: Observed) -> bool:
    """Ours by owner; or an orphan with our labels, as a restored backup leaves them."""
    meta = live["metadata"]
    if meta.get("ownerReferences"):
        return owned(live, observed.uid)
    labels = meta.get("labels") or {}
    return bool(
        labels.get(kinds.LABEL_MANAGED_BY) == kinds.MANAGED_BY
        and labels.get(kinds.LABEL_DEPLOYMENT) == observed.name
    )


def owner_of(live: Manifest) -> str:
    """Whose an object is that may not be written, in words."""
    owners = live["metadata"].get("ownerReferences") or ()
    if not owners:
        return "somebody else (it does not carry Mooring's labels)"
    owner = owners[0]
    return f"{owner.get('kind')} {owner.get('name')} (uid {owner.get('uid')})"


def unknown(kind: kinds.Kind, error: ApiError) -> bool:
    """Whether the cluster does not know this kind, or a field of it: its definition is somebody
    else's, and may have been removed a moment ago or be an old one.
    """
    if kind not in kinds.OPTIONAL_KINDS:
        return False
    return error.status == 404 or "field not declared in schema" in error.message
