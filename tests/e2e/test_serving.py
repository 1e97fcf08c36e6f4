"""A declared model becomes a served model, and leaves nothing behind."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from mooring_dev.demo_client import Client, service_url
from mooring_dev.demo_model import Model, condition, is_true, read_manifests
from mooring_dev.demo_store import EXAMPLES, example, example_file, expected
from mooring_dev.images import Built

CHILDREN = (
    "deployments,replicasets,pods,services,endpointslices,configmaps,serviceaccounts,"
    "poddisruptionbudgets,networkpolicies,controllerrevisions,horizontalpodautoscalers"
)
OURS = "app.kubernetes.io/managed-by=mooring"

Named = Callable[[str], Model]


def _apply_example(model: Named) -> Model:
    fraud = model("fraud")
    fraud.apply(read_manifests(example_file("onnx", "modeldeployment.yaml"))[0])
    return fraud


def test_the_example_is_served_and_answers_as_arithmetic_does(model: Named, client: Client) -> None:
    fraud = _apply_example(model)
    status = fraud.wait_ready()

    # Ready is true of it: the very first request is answered.
    request = json.loads(example_file("onnx", "request.json").read_text())
    answer = client.infer(service_url("fraud", fraud.namespace), request)

    wanted = expected("v1", example().PAYMENTS)
    assert answer["outputs"][0]["data"] == pytest.approx(wanted, abs=1e-6)
    assert answer["model_name"] == "fraud"
    assert status["phase"] == "Serving"
    assert status["stable"]["modelUri"] == "s3://models/fraud/v1/model.onnx"
    assert status["stable"]["replicas"] == {"desired": 2, "ready": 2}
    assert status["stable"]["modelDigest"].startswith("sha256:")
    assert "candidate" not in status


def test_models_and_routers_are_admitted_by_pod_security_restricted_and_hold_no_token(
    model: Named,
) -> None:
    fraud = _apply_example(model)
    fraud.wait_ready()

    pods = json.loads(fraud.kubectl("get", "pods", "-o", "json"))["items"]

    assert len(pods) == 4
    for pod in pods:
        kinds = {kind for volume in pod["spec"]["volumes"] for kind in volume if kind != "name"}
        assert "projected" not in kinds
        containers = pod["spec"]["containers"] + pod["spec"].get("initContainers", [])
        assert all(each["securityContext"]["readOnlyRootFilesystem"] for each in containers)
    labels = fraud.cluster.kubectl("get", "namespace", fraud.namespace, "-o", "json")
    enforced = json.loads(labels)["metadata"]["labels"]["pod-security.kubernetes.io/enforce"]
    assert enforced == "restricted"


def test_deleting_a_model_deployment_deletes_everything_that_was_made_for_it(
    model: Named,
) -> None:
    fraud = _apply_example(model)
    fraud.wait_ready()
    before = fraud.kubectl("get", CHILDREN, "-l", OURS, "-o", "name").split()

    fraud.delete()

    assert {name.partition("/")[0] for name in before} >= {
        "controllerrevision.apps",
        "deployment.apps",
        "networkpolicy.networking.k8s.io",
        "pod",
        "poddisruptionbudget.policy",
        "service",
        "serviceaccount",
    }
    fraud.kubectl("wait", "--for=delete", "pods", "-l", OURS, "--timeout=90s")
    assert fraud.kubectl("get", CHILDREN, "-l", OURS, "-o", "name").split() == []


def _server_without_a_model(name: str, image: str) -> dict[str, Any]:
    """A runtime whose server is alive at once, and whose model is ready when a file appears."""
    program = (
        "import http.server, pathlib\n"
        "class Handler(http.server.BaseHTTPRequestHandler):\n"
        "    def do_GET(self):\n"
        "        ready = self.path == '/live' or pathlib.Path('/tmp/loaded').exists()\n"
        "        self.send_response(200 if ready else 503)\n"
        "        self.end_headers()\n"
        "http.server.ThreadingHTTPServer(('', 8080), Handler).serve_forever()\n"
    )
    return {
        "apiVersion": "mooring.dev/v1alpha1",
        "kind": "ModelRuntime",
        "metadata": {"name": name},
        "spec": {
            "formats": [{"name": "slow"}],
            "protocols": ["custom"],
            "image": image,
            "command": ["python", "-c", program],
            "ports": [{"name": "http", "containerPort": 8080}],
            "livenessProbe": {"httpGet": {"path": "/live", "port": "http"}},
            "readinessProbe": {"httpGet": {"path": "/ready", "port": "http"}, "periodSeconds": 1},
        },
    }


def test_ready_waits_for_the_model_and_not_for_the_server(
    model: Named, built: tuple[Built, ...]
) -> None:
    slow = model("slow")
    image = next(one.reference for one in built if one.image.name == "onnx-server")
    runtime = json.dumps(_server_without_a_model("slow", image))
    slow.cluster.kubectl("apply", "-n", slow.namespace, "-f", "-", input=runtime)
    slow.apply(
        {
            "apiVersion": "mooring.dev/v1alpha1",
            "kind": "ModelDeployment",
            "metadata": {},
            "spec": {
                "model": {"uri": "file:///models/slow", "format": {"name": "slow"}},
                "runtime": {"name": "slow"},
            },
        }
    )

    status = slow.wait(
        "a server that runs without its model",
        lambda status: "not ready yet" in condition(status, "Ready").get("message", ""),
    )
    assert condition(status, "Ready")["status"] == "False"

    pod = slow.kubectl("get", "pods", "-l", "mooring.dev/deployment=slow", "-o", "name").strip()
    slow.kubectl("exec", pod, "--", "python", "-c", "open('/tmp/loaded', 'w').close()")
    assert is_true(slow.wait_ready(), "Ready")


#: Values for Helm are no objects.
_OBJECTS = sorted(path for path in EXAMPLES.rglob("*.yaml") if path.name != "values.yaml")


@pytest.mark.parametrize("path", _OBJECTS, ids=lambda path: f"{path.parent.name}-{path.stem}")
def test_every_example_is_accepted_by_strict_validation(path: Any, model: Named) -> None:
    anyone = model("anyone")

    output = anyone.kubectl("apply", "--dry-run=server", "--validate=strict", "-f", str(path))

    assert output.count("(server dry run)") == len(read_manifests(path))
