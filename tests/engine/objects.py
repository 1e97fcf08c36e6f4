"""Raw objects as the API server sends them."""

from __future__ import annotations

from typing import Any

from mooring.core import kinds
from mooring.core.kinds import Kind

Json = dict[str, Any]


def raw(
    kind: Kind,
    name: str,
    version: int,
    *,
    uid: str = "u1",
    namespace: str = "shop",
    labels: dict[str, str] | None = None,
    **body: Any,
) -> Json:
    """An object of any kind; ``version`` is its resourceVersion."""
    meta: Json = {"name": name, "uid": uid, "resourceVersion": str(version)}
    if kind.namespaced:
        meta["namespace"] = namespace
    if labels:
        meta["labels"] = labels
    return {"apiVersion": kind.api_version, "kind": kind.name, "metadata": meta, **body}


def model(name: str, version: int, *, uid: str = "u1", runtime: str = "onnx", **meta: Any) -> Json:
    """A ModelDeployment."""
    found = raw(
        kinds.MODEL_DEPLOYMENT,
        name,
        version,
        uid=uid,
        spec={
            "model": {"uri": "s3://m/v1"},
            "runtime": {"name": runtime},
            "traffic": {"router": "replicas"},
        },
    )
    found["metadata"] |= meta
    return found


def child(
    kind: Kind, name: str, version: int, *, of: str = "fraud", uid: str = "c1", owner: str = "u1",
    **body: Any,
) -> Json:  # fmt: skip
    """A child with our labels and an owner."""
    labels = {kinds.LABEL_MANAGED_BY: kinds.MANAGED_BY, kinds.LABEL_DEPLOYMENT: of}
    found = raw(kind, name, version, uid=uid, labels=labels, **body)
    found["metadata"]["ownerReferences"] = [{"kind": "ModelDeployment", "name": of, "uid": owner}]
    return found
