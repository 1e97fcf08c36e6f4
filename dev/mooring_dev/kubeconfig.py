"""Write kubeconfig files with client certificates."""

from __future__ import annotations

import base64
import json
from pathlib import Path

from mooring_dev import files
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
    return files.write_text(path, json.dumps(document, indent=1))
