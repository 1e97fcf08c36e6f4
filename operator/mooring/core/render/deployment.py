"""The Deployment of a revision: its pinned pod template under a name of its own.

``replicas`` is not here. It belongs to a field manager of its own (see :func:`replicas`), so that
an autoscaler can take it over without the two of them pulling at one field.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from mooring.core import kinds
from mooring.core.render.metadata import child_name, manifest, selector
from mooring.core.revision import Revision


def deployment(
    revision: Revision,
    *,
    deployment: str,
    namespace: str,
    uid: str,
    progress_deadline: timedelta,
) -> dict[str, Any]:
    """The Deployment that runs exactly this revision, under the deadline of the day."""
    return manifest(
        kinds.DEPLOYMENT,
        child_name(deployment, revision.hash),
        namespace=namespace,
        deployment=deployment,
        uid=uid,
        of_revision=revision.hash,
        spec={
            "selector": {"matchLabels": selector(deployment, revision.hash)},
            "template": dict(revision.rendered.template),
            # The template never changes; a Deployment's own history would hold nothing.
            "revisionHistoryLimit": 0,
            "progressDeadlineSeconds": max(1, int(progress_deadline.total_seconds())),
        },
    )


def replicas(name: str, *, namespace: str, uid: str, version: str, count: int) -> dict[str, Any]:
    """What the field manager of replicas applies. The uid keeps it from creating anything, the
    version from undoing what somebody else has scaled since.
    """
    return {
        "apiVersion": kinds.DEPLOYMENT.api_version,
        "kind": kinds.DEPLOYMENT.name,
        "metadata": {
            "name": name, "namespace": namespace, "uid": uid, "resourceVersion": version
        },
        "spec": {"replicas": count},
    }  # fmt: skip
