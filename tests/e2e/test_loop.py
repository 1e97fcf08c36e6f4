"""The whole loop on a real cluster: drift is found, retraining asked for once, the result adopted.

Windows are a minute long, the shortest there is, so this takes several minutes: it is run by
`make test-full`. Training happens outside, as a pipeline would that watches the requests.
"""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.e2e.requests import payments

from mooring_dev.cluster import Cluster
from mooring_dev.demo_client import Client
from mooring_dev.demo_model import Model, condition, is_true, read_manifests
from mooring_dev.demo_store import BUCKET, example, example_file
from mooring_dev.s3 import S3Server

pytestmark = pytest.mark.slow

Named = Callable[[str], Model]
Status = dict[str, Any]
#: Two windows, the one that is under way, and a busy machine (seconds).
WINDOWS = 300.0


@pytest.fixture
def monitored(measured: Cluster, model: Named, uris: dict[str, str], tmp_path: Path) -> Model:
    """The drift example with windows of a minute, and retraining that a pipeline does."""
    fraud = model("fraud")
    table = tmp_path / "training.csv"
    subprocess.run(
        [sys.executable, str(example_file("drift", "payments.py")), "table", str(table)], check=True
    )
    command = [sys.executable, "-m", "mooring", "reference", "build", str(table)]
    built = subprocess.run(
        [*command, "--name", "fraud-reference", "--prediction", "fraud"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert built.returncode == 0, built.stderr
    measured.kubectl("apply", "--server-side", "-n", fraud.namespace, "-f", "-", input=built.stdout)
    manifest = read_manifests(example_file("drift", "modeldeployment.yaml"))[0]
    manifest["spec"]["monitoring"]["window"] = "1m"
    manifest["spec"]["rollout"] = {"steps": [{"weight": 50, "duration": "10s"}]}
    manifest["spec"]["retraining"] = {
        "triggers": [{"drift": {"for": "1m"}}],
        "action": {"none": {}},
        "allowedPrefixes": ["s3://models/fraud/"],
        "minDataWindow": "1m",
        "cooldown": "1m",
    }
    fraud.apply(manifest)
    fraud.wait_serving(uris["v1"])
    return fraud


def drift(status: Status) -> Status:
    found: Status = status.get("drift") or {}
    return found


def requests_of(model: Model) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(
        model.kubectl("get", "retrainingrequests", "-o", "json")
    )["items"]
    return found


def test_a_broken_feed_is_data_health_and_never_retraining(
    monitored: Model, client: Client
) -> None:
    url = f"http://fraud.{monitored.namespace}.svc/v2/models/fraud/infer"
    with payments(client, url) as stream:
        monitored.wait("a steady window", lambda s: drift(s).get("state") == "Steady",
                       seconds=WINDOWS)  # fmt: skip
        stream.become(lose=0.5)
        status = monitored.wait(
            "the broken feed",
            lambda s: condition(s, "DataHealthy").get("status") == "False",
            seconds=WINDOWS,
        )
        assert "amount" in condition(status, "DataHealthy")["message"]
        assert not is_true(status, "Drifted")
    assert requests_of(monitored) == []
    assert stream.failed == 0, stream.why


def test_a_lasting_shift_is_retrained_once_and_the_new_model_goes_through_the_canary(
    monitored: Model, client: Client, store: S3Server, measured: Cluster
) -> None:
    spec = json.loads(monitored.kubectl("get", "mdep", "fraud", "-o", "json"))["spec"]
    url = f"http://fraud.{monitored.namespace}.svc/v2/models/fraud/infer"
    with payments(client, url) as stream:
        monitored.wait("a steady window", lambda s: drift(s).get("state") == "Steady",
                       seconds=WINDOWS)  # fmt: skip
        assert requests_of(monitored) == []
        stream.become(distance=2.0)
        status = monitored.wait("drift", lambda s: is_true(s, "Drifted"), seconds=WINDOWS)
        assert "distance_km" in condition(status, "Drifted")["message"]
        monitored.wait("a request", lambda _: bool(requests_of(monitored)), seconds=WINDOWS)
        measured.kubectl("rollout", "restart", "deployment", "-n", "mooring-system")
        (request,) = requests_of(monitored)
        content = example().build("v2")
        uri = store.put(BUCKET, "fraud/retrained/model.onnx", content)
        digest = f"sha256:{hashlib.sha256(content).hexdigest()}"
        result = {"status": {"result": {"uri": uri, "digest": digest}}}
        name = request["metadata"]["name"]
        monitored.kubectl(
            "patch", "retrainingrequest", name, "--subresource=status", "--type=merge",
            "-p", json.dumps(result),
        )  # fmt: skip
        status = monitored.wait(
            "the retrained model",
            lambda s: s["stable"]["modelUri"] == uri and is_true(s, "Ready"),
            seconds=WINDOWS,
        )
        monitored.wait("the alarm's end", lambda s: not is_true(s, "Drifted"), seconds=WINDOWS)
    assert stream.failed == 0, stream.why
    assert len(requests_of(monitored)) == 1, "asked once, whatever was restarted"
    assert json.loads(monitored.kubectl("get", "mdep", "fraud", "-o", "json"))["spec"] == spec
