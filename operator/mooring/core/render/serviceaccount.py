"""The identity of the model pods. It is granted nothing, and no token is mounted."""

from __future__ import annotations

from typing import Any

from mooring.core import kinds
from mooring.core.render.metadata import manifest


def service_account(*, deployment: str, namespace: str, uid: str) -> dict[str, Any]:
    """The account of every revision that does not name one of its own."""
    return manifest(
        kinds.SERVICE_ACCOUNT,
        deployment,
        namespace=namespace,
        deployment=deployment,
        uid=uid,
        automountServiceAccountToken=False,
    )
