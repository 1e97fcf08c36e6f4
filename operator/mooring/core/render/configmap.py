"""A revision's ConfigMap: the runtime's configuration files, and the digest of the model."""

from __future__ import annotations

from typing import Any

from mooring.core import kinds
from mooring.core.render.metadata import child_name, manifest
from mooring.core.render.pod import DIGEST_KEY
from mooring.core.revision import Revision


def config_map(revision: Revision, *, deployment: str, namespace: str, uid: str) -> dict[str, Any]:
    """Every later pod of the revision must find the digest that stands here."""
    data = dict(revision.rendered.config)
    if revision.digest:
        data[DIGEST_KEY] = revision.digest
    return manifest(
        kinds.CONFIG_MAP,
        child_name(deployment, revision.hash),
        namespace=namespace,
        deployment=deployment,
        uid=uid,
        of_revision=revision.hash,
        data=data,
    )
