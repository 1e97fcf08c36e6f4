"""Write kubeconfig files with client certificates."""

from __future__ import annotations

import base64
import json
import os
from pathlib import Path

from mooring_dev.certificates import KeyPair


def _embedded(path: Path) -> str:
    return base64.b64encode(path.read_bytes()).decode()


def write(path: Path, *, server: str, authority: Path, pair: KeyPair, context: str) -> Path:
    """Write a kubeconfig at ``path`` that stands alone: certificates are embedded.

    JSON is YAML, and needs no YAML library.
    """
    document = {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": context,
        "clusters": [
            {
                "name": context,
                "cluster": {"server": server, "certificate-authority-data": _embedded(authority)},
            }
        ],
        "users": [
            {
                "name": context,
                "user": {
                    "client-certificate-data": _embedded(pair.certificate),
                    "client-key-data": _embedded(pair.key),
                },
            }
        ],
        "contexts": [{"name": context, "context": {"cluster": context, "user": context}}],
    }
    staging = path.with_name(path.name + ".part")
    descriptor = os.open(staging, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w") as stream:
        json.dump(document, stream, indent=1)
    staging.rename(path)
    return path
