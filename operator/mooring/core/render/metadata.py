"""Names, labels and owner of every child."""

from __future__ import annotations

from typing import Any

from mooring.core import kinds


def child_name(deployment: str, revision: str) -> str:
    """The name of a revision's own objects: ``fraud-7c9f0a12de``."""
    return f"{deployment}-{revision}"


def labels(deployment: str, revision: str | None = None) -> dict[str, str]:
    """The labels of every child; those of one revision name it too."""
    found = {
        kinds.LABEL_MANAGED_BY: kinds.MANAGED_BY,
        kinds.LABEL_INSTANCE: deployment,
        kinds.LABEL_DEPLOYMENT: deployment,
    }
    if revision is not None:
        found[kinds.LABEL_REVISION] = revision
    return found


def selector(deployment: str, revision: str | None = None) -> dict[str, str]:
    """Selects a deployment's pods, or those of one revision. Selectors can never change."""
    found = {kinds.LABEL_DEPLOYMENT: deployment}
    if revision is not None:
        found[kinds.LABEL_REVISION] = revision
    return found


def owner(name: str, uid: str) -> dict[str, Any]:
    """The owner reference that makes garbage collection clean up after us."""
    return {
        "apiVersion": f"{kinds.GROUP}/{kinds.VERSION}",
        "kind": kinds.MODEL_DEPLOYMENT.name,
        "name": name,
        "uid": uid,
        "controller": True,
        "blockOwnerDeletion": True,
    }


def manifest(
    kind: kinds.Kind,
    name: str,
    *,
    namespace: str,
    deployment: str,
    uid: str,
    of_revision: str | None = None,
    annotations: dict[str, str] | None = None,
    **body: Any,
) -> dict[str, Any]:
    """A child with its labels and owner; ``body`` holds its other top-level fields."""
    meta: dict[str, Any] = {
        "name": name,
        "namespace": namespace,
        "labels": labels(deployment, of_revision),
        "ownerReferences": [owner(deployment, uid)],
    }
    if annotations:
        meta["annotations"] = annotations
    return {"apiVersion": kind.api_version, "kind": kind.name, "metadata": meta, **body}
