"""Talking to the API server directly: a hundred cases in a second, and its answers in parts."""

from __future__ import annotations

import base64
import http.client
import json
import ssl
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from mooring_dev.control_plane import ControlPlane

PLURALS = {
    "ModelDeployment": "modeldeployments",
    "ModelRuntime": "modelruntimes",
    "RetrainingRequest": "retrainingrequests",
}

Create = Callable[[dict[str, Any]], dict[str, Any]]


@pytest.fixture(scope="session")
def create(
    control_plane_with_crds: ControlPlane, tmp_path_factory: pytest.TempPathFactory
) -> Create:
    """Creates a resource as a dry run, strictly; gives the object or the Status that refuses it."""
    config = json.loads(control_plane_with_crds.kubeconfig.read_text())
    context = _tls(config, tmp_path_factory.mktemp("tls"))
    address = urlsplit(config["clusters"][0]["cluster"]["server"])

    def send(manifest: dict[str, Any]) -> dict[str, Any]:
        connection = http.client.HTTPSConnection(
            str(address.hostname), address.port, context=context, timeout=10
        )
        try:
            connection.request(
                "POST",
                f"/apis/mooring.dev/v1alpha1/namespaces/default/{PLURALS[manifest['kind']]}"
                "?dryRun=All&fieldValidation=Strict",
                json.dumps(manifest),
                {"Content-Type": "application/json"},
            )
            answer: dict[str, Any] = json.loads(connection.getresponse().read())
            return answer
        finally:
            connection.close()

    return send


def _tls(config: dict[str, Any], folder: Path) -> ssl.SSLContext:
    def decoded(text: str) -> bytes:
        return base64.b64decode(text)

    user = config["users"][0]["user"]
    certificate, key = folder / "client.crt", folder / "client.key"
    certificate.write_bytes(decoded(user["client-certificate-data"]))
    key.write_bytes(decoded(user["client-key-data"]))
    authority = decoded(config["clusters"][0]["cluster"]["certificate-authority-data"])
    context = ssl.create_default_context(cadata=authority.decode())
    context.load_cert_chain(certificate, key)
    return context
