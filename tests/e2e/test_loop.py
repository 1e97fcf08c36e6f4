"""The whole loop on a real cluster: drift is found, retraining asked for once, the result adopted.

Windows are a minute long, the shortest there is, so this takes several minutes: it is run by
`make test-full`. Training happens outside, as a pipeline would that watches the requests.
"""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Self

import pytest
from tests.e2e.conftest import CLUSTER, mooring_dev

from mooring_dev import prometheus
from mooring_dev.binaries import ensure
from mooring_dev.cluster import Cluster
from mooring_dev.demo_client import EXEC_ENVIRONMENT, Client
from mooring_dev.demo_model import Model, condition, is_true, read_manifests
from mooring_dev.demo_store import BUCKET, example, example_file
from mooring_dev.s3 import S3Server

pytestmark = pytest.mark.slow

Named = Callable[[str], Model]
Status = dict[str, Any]
_PROGRAM = Path(__file__).parent / "faulty" / "payments.py"
#: Two windows, the one that is under way, and a busy machine (seconds).
WINDOWS = 300.0
#: So long must nothing be heard of what must not happen: three windows (seconds).
QUIET = 200.0


@pytest.fixture(scope="module")
def watching(cluster: Cluster, install: Callable[..., None]) -> Iterator[Cluster]:
    """The cluster with Prometheus, and an operator that reads it."""
    mooring_dev("prometheus", "install", "--name", CLUSTER)
    install(f"config.prometheus.url={prometheus.IN_CLUSTER_URL}", "config.prometheus.interval=5s")
    yield cluster
    install()


class Payments:
    """Payments that go on while the block runs; ``become`` changes what they are like."""

    def __init__(self, client: Client, url: str) -> None:
        kubectl = [str(ensure("kubectl")), f"--kubeconfig={client.cluster.kubeconfig}"]
        execute = ["exec", "-i", "-n", client.namespace, "client", "--"]
        sources = [example_file("onnx", "make_model.py"), example_file("drift", "payments.py")]
        program = ["python", "-c", _PROGRAM.read_text(), *(s.read_text() for s in sources), url]
        self._command = [*kubectl, *execute, *program]
        self.failed = self.sent = 0

    def __enter__(self) -> Self:
        self._process = subprocess.Popen(
            self._command,
            env={**os.environ, **EXEC_ENVIRONMENT},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self._process.stdout is not None
        assert self._process.stdout.readline().strip() == "started"
        return self

    def __exit__(self, *_: object) -> None:
        output, _errors = self._process.communicate(timeout=60)
        counts = json.loads(output.strip().splitlines()[-1])
        self.sent, self.failed = counts["sent"], counts["failed"]

    def become(self, **changes: float) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(changes) + "\n")
        self._process.stdin.flush()


@pytest.fixture
def monitored(watching: Cluster, model: Named, uris: dict[str, str], tmp_path: Path) -> Model:
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
    watching.kubectl("apply", "--server-side", "-n", fraud.namespace, "-f", "-", input=built.stdout)
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
    with Payments(client, url) as payments:
        monitored.wait("a steady window", lambda s: drift(s).get("state") == "Steady",
                       seconds=WINDOWS)  # fmt: skip
        payments.become(lose=0.5)
        status = monitored.wait(
            "the broken feed",
            lambda s: condition(s, "DataHealthy").get("status") == "False",
            seconds=WINDOWS,
        )
        assert "amount" in condition(status, "DataHealthy")["message"]
        assert not is_true(status, "Drifted")
    assert requests_of(monitored) == []
    assert payments.failed == 0


def test_a_lasting_shift_is_retrained_once_and_the_new_model_goes_through_the_canary(
    monitored: Model, client: Client, store: S3Server, watching: Cluster
) -> None:
    spec = json.loads(monitored.kubectl("get", "mdep", "fraud", "-o", "json"))["spec"]
    url = f"http://fraud.{monitored.namespace}.svc/v2/models/fraud/infer"
    with Payments(client, url) as payments:
        monitored.wait("a steady window", lambda s: drift(s).get("state") == "Steady",
                       seconds=WINDOWS)  # fmt: skip
        assert requests_of(monitored) == []
        payments.become(distance=2.0)
        status = monitored.wait("drift", lambda s: is_true(s, "Drifted"), seconds=WINDOWS)
        assert "distance_km" in condition(status, "Drifted")["message"]
        monitored.wait("a request", lambda _: bool(requests_of(monitored)), seconds=WINDOWS)
        watching.kubectl("rollout", "restart", "deployment", "-n", "mooring-system")
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
    assert payments.failed == 0
    assert len(requests_of(monitored)) == 1, "asked once, whatever was restarted"
    assert json.loads(monitored.kubectl("get", "mdep", "fraud", "-o", "json"))["spec"] == spec
