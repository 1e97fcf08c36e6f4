"""A ModelDeployment in one line, for logs of pipelines."""

from __future__ import annotations

from mooring.cli.cluster import Json
from mooring.cli.estimates import summary
from mooring.cli.snapshot import ROLES, Snapshot
from mooring.cli.words import plain


def line(snapshot: Snapshot) -> str:
    """Phase, revisions with weights and pods, the step, the verdict, and what is waited for."""
    status = snapshot.status
    parts = [plain(status.get("phase")) or "not looked at yet"]
    parts += [_revision(role, snapshot.part(role)) for role in ROLES if snapshot.part(role)]
    parts += _rollout(snapshot.part("rollout"))
    verdict = summary(snapshot)
    if verdict:
        parts.append(f"analysis {verdict}")
    waiting = plain(snapshot.part("rollout").get("waitingFor"))
    message = plain(status.get("message"))
    if message:
        parts.append(message)
    if waiting and waiting != message:
        parts.append(f"waits for {waiting}")
    if snapshot.unseen and status:
        parts.append("newest spec not looked at yet")
    return "; ".join(parts)


def _revision(role: str, record: Json) -> str:
    text = f"{role} {plain(record.get('revision'))}"
    if record.get("weight") is not None:
        text += f" {record['weight']}%"
    replicas = record.get("replicas")
    if replicas:
        text += f" {replicas.get('ready', 0)}/{replicas.get('desired', 0)}"
    return text


def _rollout(rollout: Json) -> list[str]:
    if rollout.get("step") is None:
        return [plain(rollout["stage"])] if rollout.get("stage") else []
    text = f"step {rollout['step']}"
    text += f" of {rollout['steps']}" if rollout.get("steps") is not None else ""
    text += f" {plain(rollout['stage'])}" if rollout.get("stage") else ""
    return [text + (f": {plain(rollout['doing'])}" if rollout.get("doing") else "")]
