"""The record of a revision. Its data never changes (the API server sees to that)."""

from __future__ import annotations

from typing import Any

from mooring.core import kinds
from mooring.core.render.metadata import child_name, manifest
from mooring.core.revision import Revision, record_annotations


def controller_revision(
    revision: Revision, *, deployment: str, namespace: str, uid: str
) -> dict[str, Any]:
    """The ControllerRevision of a revision.

    A record that exists carries its resourceVersion, so that a change decided on a stale view
    (a promotion, a rejection) fails instead of overwriting what somebody else has decided.
    """
    record = manifest(
        kinds.CONTROLLER_REVISION,
        child_name(deployment, revision.hash),
        namespace=namespace,
        deployment=deployment,
        uid=uid,
        of_revision=revision.hash,
        annotations=record_annotations(revision),
        revision=revision.sequence,
        data=revision.data,
    )
    if revision.resource_version:
        record["metadata"]["resourceVersion"] = revision.resource_version
    return record
