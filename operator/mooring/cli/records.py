"""Revisions as their ControllerRevisions record them: what ``history`` and ``diff`` read.

The operator's own reader is not used: it refuses a record that it cannot act on, while a person
wants to see just that one; and it needs the models of the API, which take half a second to import.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from mooring.cli.cluster import Cluster, Json
from mooring.cli.failure import NOT_FOUND, Failure
from mooring.core import kinds


@dataclass(frozen=True, slots=True)
class Record:
    """One ControllerRevision. ``promotion`` counts promotions: the highest is stable."""

    revision: str
    sequence: int
    promotion: int | None
    annotations: dict[str, str]
    data: Json
    created: str

    @property
    def inputs(self) -> Json:
        return self.data.get("inputs") or {}

    @property
    def model_uri(self) -> str:
        return str((self.inputs.get("model") or {}).get("uri") or "")

    @property
    def digest(self) -> str:
        declared = (self.inputs.get("model") or {}).get("digest")
        return str(self.annotations.get(kinds.ANNOTATION_DIGEST) or declared or "")

    @property
    def runtime(self) -> str:
        return str((self.data.get("runtime") or {}).get("name") or "")

    @property
    def promoted_at(self) -> str:
        return self.annotations.get(kinds.ANNOTATION_PROMOTED_AT, "")

    @property
    def rejected(self) -> dict[str, Any]:
        """Why and when it was taken back; empty when it was not."""
        text = self.annotations.get(kinds.ANNOTATION_REJECTED)
        if not text:
            return {}
        try:
            found = json.loads(text)
        except ValueError:
            found = None
        return found if isinstance(found, dict) else {"reason": "Unreadable", "message": text}

    @property
    def paused(self) -> bool:
        return self.annotations.get(kinds.ANNOTATION_PAUSED) == "true"


def read_records(cluster: Cluster, name: str) -> list[Record]:
    """All records of a ModelDeployment, the newest first.

    Raises:
        Failure: NOT_FOUND when there is neither a record nor such a ModelDeployment.
    """
    labels = f"{kinds.LABEL_DEPLOYMENT}={name}"
    found, _ = cluster.objects(kinds.CONTROLLER_REVISION, labels=labels)
    if not found:
        cluster.get(kinds.MODEL_DEPLOYMENT, name)
    return sorted((_record(obj) for obj in found), key=lambda r: r.sequence, reverse=True)


def _record(obj: Json) -> Record:
    meta = obj["metadata"]
    annotations = meta.get("annotations") or {}
    promotion = annotations.get(kinds.ANNOTATION_PROMOTION, "")
    data = obj.get("data")
    return Record(
        revision=str((meta.get("labels") or {}).get(kinds.LABEL_REVISION) or meta["name"]),
        sequence=int(obj.get("revision") or 0),
        promotion=int(promotion) if promotion.isdigit() else None,
        annotations=annotations,
        data=data if isinstance(data, dict) else {},
        created=str(meta.get("creationTimestamp") or ""),
    )


def stable_of(records: Sequence[Record]) -> Record | None:
    """The one promoted last; None before the first."""
    promoted = [r for r in records if r.promotion is not None]
    return max(promoted, key=lambda r: r.promotion or 0, default=None)


def previous_of(records: Sequence[Record]) -> Record | None:
    """The one that was stable before the stable one."""
    promoted = sorted((r.promotion or 0, r.revision) for r in records if r.promotion is not None)
    if len(promoted) < 2:
        return None
    return next(r for r in records if r.revision == promoted[-2][1])


def choose(records: Sequence[Record], wanted: str, name: str) -> Record:
    """The record that a person means.

    ``wanted`` is a hash or the beginning of one, the name of the ControllerRevision, a number of
    ``history``, or one of stable, previous and newest. Raises Failure NOT_FOUND, with what there
    is, when none or more than one fits.
    """
    roles = {
        "stable": stable_of(records),
        "previous": previous_of(records),
        "newest": records[0] if records else None,
    }
    if wanted in roles:
        found = roles[wanted]
        if found is None:
            raise Failure(f"{name} has no {wanted} revision", NOT_FOUND)
        return found
    text = wanted.removeprefix(f"{name}-")
    fitting = [r for r in records if r.revision == text or str(r.sequence) == text]
    fitting = fitting or [r for r in records if text and r.revision.startswith(text)]
    if len(fitting) == 1:
        return fitting[0]
    what = f"{len(fitting)} revisions begin with" if fitting else f"{name} has no revision"
    known = ", ".join(f"{r.revision} ({r.sequence})" for r in fitting or records) or "none at all"
    raise Failure(f"{what} {wanted}: there are {known}", NOT_FOUND)
