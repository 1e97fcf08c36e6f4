"""TensorFlow Serving's configuration, read by the protobuf messages that its project publishes."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from mooring_dev.locks import exclusive
from mooring_dev.paths import cache_root

ROOT = Path(__file__).parents[2]
PIN = ROOT / "dev" / "tfserving-standin" / "api.txt"

READ = """
import json, sys
from google.protobuf import json_format, text_format
from tensorflow_serving.config import model_server_config_pb2
message = text_format.Parse(sys.stdin.read(), model_server_config_pb2.ModelServerConfig())
print(json.dumps(json_format.MessageToDict(message, preserving_proto_field_name=True)))
"""


@pytest.fixture(scope="session")
def api() -> Path:
    """A folder with tensorflow-serving-api alone: it asks for all of TensorFlow, and its messages
    need none of it.
    """
    folder = cache_root() / "tfserving-api" / hashlib.sha256(PIN.read_bytes()).hexdigest()[:12]
    with exclusive(cache_root() / "tfserving-api.lock", "another test's installation"):
        if not (folder / "tensorflow_serving").exists():
            subprocess.run(
                [
                    *(sys.executable, "-m", "pip", "install", "--quiet", "--no-deps"),
                    *("--require-hashes", "--target", str(folder), "-r", str(PIN)),
                ],
                check=True,
            )
    return folder


def config_of(case: str) -> str:
    """models.config as the golden pods of `case` mount it."""
    expected = (ROOT / "tests" / "golden" / case / "expected.yaml").read_text()
    for manifest in yaml.safe_load_all(expected):
        if manifest["kind"] == "ConfigMap":
            for key, content in manifest.get("data", {}).items():
                if "models.config" in key:
                    return str(content)
    raise AssertionError(f"{case} has no models.config")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("case", "name", "version"),
    [("tfserving", "half_plus_two", 123), ("tfserving-claim", "fraud", 42)],
)
def test_the_real_messages_read_one_model_with_one_pinned_version(
    api: Path, case: str, name: str, version: int
) -> None:
    done = subprocess.run(
        [sys.executable, "-c", READ],
        input=config_of(case),
        env={**os.environ, "PYTHONPATH": str(api)},
        capture_output=True,
        text=True,
        check=True,
    )

    (model,) = json.loads(done.stdout)["model_config_list"]["config"]
    assert model == {
        "name": name,
        "base_path": "/mnt/models",
        "model_platform": "tensorflow",
        "model_version_policy": {"specific": {"versions": [str(version)]}},
    }
