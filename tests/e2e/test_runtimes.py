"""Every shipped runtime, and one of a user's own, on a real cluster: a prediction, and bad models.

The images of TorchServe and of the stand-in for TensorFlow Serving take 1.5 GB each: minutes to
build and to load, so their tests are among the slow ones. Each test loads what it needs.
"""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import pytest

from mooring_dev import images
from mooring_dev.cluster import Cluster
from mooring_dev.demo_client import Client
from mooring_dev.demo_model import Model, read_manifests
from mooring_dev.demo_store import BUCKET, example, example_file, expected
from mooring_dev.s3 import S3Server

Named = Callable[[str], Model]

START_SECONDS = 180.0


def load(cluster: Cluster, image: str) -> None:
    """Build an image that is built on demand, and hand it to the cluster."""
    images.load(cluster, (image,))


def request_of(folder: str) -> dict[str, Any]:
    read: dict[str, Any] = json.loads(example_file(folder, "request.json").read_text())
    return read


def manifest_of(folder: str) -> dict[str, Any]:
    return read_manifests(example_file(folder, "modeldeployment.yaml"))[0]


def serve(model: Model, folder: str) -> dict[str, Any]:
    """Apply the example as it stands, and wait until it serves."""
    model.cluster.kubectl(
        "apply", "-n", model.namespace, "-f", str(example_file(folder, "modeldeployment.yaml"))
    )
    return model.wait_ready(seconds=START_SECONDS)


@dataclass(frozen=True)
class Bad:
    """A model that cannot be served: what is put under which key, and what status has to say."""

    key: str
    files: Mapping[str, bytes]
    says: str


def put(store: S3Server, key: str, files: Mapping[str, bytes]) -> str:
    """Upload the files below `key`; the URI of the only one, or of the folder."""
    for name, content in files.items():
        uri = store.put(BUCKET, f"{key}/{name}", content)
    return uri if len(files) == 1 and "saved_model.pb" not in files else f"s3://{BUCKET}/{key}"


def assert_stable_serves_on_while_status_explains(
    model: Model, store: S3Server, bad: Bad, ask: Callable[[], Any]
) -> None:
    stable = model.status()["stable"]["revision"]
    answer = ask()

    model.patch({"spec": {"model": {"uri": put(store, bad.key, bad.files)}}})
    status = model.wait(
        f"{bad.says!r} in status",
        lambda status: bad.says in json.dumps(status, ensure_ascii=False).replace('\\"', '"'),
        seconds=START_SECONDS,
    )

    assert status["stable"]["revision"] == stable
    assert ask() == answer


# --- TorchServe -------------------------------------------------------------------------------


def with_handler(archive: bytes, edit: Callable[[str], str]) -> bytes:
    """The model archive with its handler's source changed."""
    source, out = zipfile.ZipFile(io.BytesIO(archive)), io.BytesIO()
    with zipfile.ZipFile(out, "w") as target:
        for name in source.namelist():
            content = source.read(name)
            changed = edit(content.decode()).encode() if name.endswith(".py") else content
            target.writestr(name, changed)
    return out.getvalue()


def raising(source: str) -> str:
    method = "    def initialize(self, context):\n        raise ValueError('no merchants')\n\n"
    head, _, rest = source.partition("    def preprocess")
    return f"{head}{method}    def preprocess{rest}"


@pytest.mark.slow
def test_torchserve_serves_a_real_model_archive_and_bad_ones_do_not_replace_it(
    operator: Cluster, model: Named, client: Client, store: S3Server
) -> None:
    load(operator, "torchserve")
    archive = example_file("torchserve", "fraud.mar").read_bytes()
    store.put(BUCKET, "fraud-torch/v1/fraud.mar", archive)
    fraud = model("fraud-torch")
    serve(fraud, "torchserve")
    url = f"http://fraud-torch.{fraud.namespace}.svc"

    def ask() -> Any:
        return client.infer(f"{url}/predictions/fraud", request_of("torchserve"))["predictions"]

    assert ask() == pytest.approx(expected("v1", example().PAYMENTS), abs=1e-6)
    revision = fraud.status()["stable"]["revision"]
    pods = ("get", "pods", "-l", f"mooring.dev/revision={revision}", "-o")
    pod, *_ = fraud.kubectl(*pods, "name").split()
    own = ("exec", pod, "-c", "server", "--", "python", "-c")
    described = fraud.kubectl(*own, _GET.format(url="http://127.0.0.1:8081/models/fraud"))
    assert json.loads(described)[0]["batchSize"] == 4
    metrics = fraud.kubectl(*own, _GET.format(url="http://127.0.0.1:8082/metrics"))
    assert 'ts_inference_requests_total{model_name="fraud"' in metrics
    address = fraud.kubectl("get", pod, "-o", "jsonpath={.status.podIP}")
    outside = fraud.kubectl(*own, _REFUSED.format(host=address, port=8081))
    assert outside.strip() == "refused"

    for bad in (
        Bad(
            "fraud-torch/raises",
            {"fraud.mar": with_handler(archive, raising)},
            "fraud.mar did not load: ValueError: no merchants (fraud_handler.py, line",
        ),
        Bad("fraud-torch/onnx", {"fraud.onnx": b"\x08\x07onnx"}, "holds no model archive (.mar)"),
    ):
        assert_stable_serves_on_while_status_explains(fraud, store, bad, ask)


_GET = "import urllib.request as u; print(u.urlopen('{url}', timeout=5).read().decode())"
_REFUSED = """
import socket
try:
    socket.create_connection(('{host}', {port}), timeout=3)
    print('open')
except ConnectionRefusedError:
    print('refused')
"""


# --- TensorFlow Serving (its stand-in) ----------------------------------------------------------

_BY_GRPC = """
import sys, grpc, tensorflow as tf
from tensorflow_serving.apis import predict_pb2, prediction_service_pb2_grpc
request = predict_pb2.PredictRequest()
request.model_spec.name = "half_plus_two"
request.model_spec.version.value = 123
request.inputs["x"].CopyFrom(tf.make_tensor_proto([[1.0], [2.0], [5.0]]))
with grpc.insecure_channel(sys.argv[1]) as channel:
    stub = prediction_service_pb2_grpc.PredictionServiceStub(channel)
    answer = stub.Predict(request, timeout=20)
print(tf.make_ndarray(answer.outputs["y"]).ravel().tolist())
"""


def lengthy(field: int, content: bytes) -> bytes:
    """A short length-prefixed field of protobuf's wire format."""
    return bytes([field << 3 | 2, len(content)]) + content


@pytest.mark.slow
def test_tfserving_is_configured_for_a_real_saved_model_and_bad_ones_do_not_replace_it(
    operator: Cluster, model: Named, client: Client, store: S3Server
) -> None:
    load(operator, "tfserving-standin")
    folder = example_file("tfserving", "model", "00000123")
    store.put_tree(BUCKET, "half_plus_two/00000123", folder)
    half = model("half-plus-two")
    serve(half, "tfserving")
    url = f"http://half-plus-two.{half.namespace}.svc/v1/models/half_plus_two"

    def ask() -> Any:
        return client.infer(f"{url}:predict", request_of("tfserving"))["predictions"]

    assert ask() == [[2.5], [3.0], [4.5]]
    assert client.infer(f"{url}/versions/123:predict", request_of("tfserving")) == {
        "predictions": [[2.5], [3.0], [4.5]]
    }
    code, text = client.post(f"{url}:predict", {"signature_name": "none", "instances": [[1.0]]})
    assert (code, "none" in text) == (400, True)
    revision = half.status()["stable"]["revision"]
    answered = half.kubectl(
        "exec", f"deployment/half-plus-two-{revision}", "-c", "server", "--",
        "python", "-c", _BY_GRPC, f"half-plus-two.{half.namespace}.svc:9000",
    )  # fmt: skip
    assert json.loads(answered) == [2.5, 3.0, 4.5]

    good = (folder / "saved_model.pb").read_bytes()
    unsigned = b"\x08\x01" + lengthy(2, lengthy(1, lengthy(4, b"serve")))
    for bad in (
        Bad("half_plus_two/124", {"saved_model.pb": unsigned}, "has no signature"),
        Bad("half_plus_two/125", {"saved_model.pb": good[:5000]}, "Failed to start server. Error"),
        Bad("half_plus_two/126", {"fraud.mar": b"zip"}, "holds no SavedModel"),
    ):
        assert_stable_serves_on_while_status_explains(half, store, bad, ask)


# --- ONNX -------------------------------------------------------------------------------------


def unknown_operator() -> bytes:
    from onnx import TensorProto, helper

    graph = helper.make_graph(
        [helper.make_node("Frobnicate", ["x"], ["y"], domain="ai.onnx.ml")],
        "graph",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 4])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n"])],
    )
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("ai.onnx.ml", 3)]
    content: bytes = helper.make_model(
        graph, opset_imports=opsets, ir_version=9
    ).SerializeToString()
    return content


def test_an_unknown_operator_or_another_servers_model_does_not_replace_a_graph(
    model: Named, client: Client, store: S3Server
) -> None:
    fraud = model("fraud")
    serve(fraud, "onnx")
    url = f"http://fraud.{fraud.namespace}.svc/v2/models/fraud/infer"

    def ask() -> Any:
        return client.infer(url, request_of("onnx"))["outputs"][0]["data"]

    for bad in (
        Bad("fraud/unknown", {"model.onnx": unknown_operator()}, "Frobnicate"),
        Bad("fraud/archive", {"fraud.mar": b"zip"}, ".onnx"),
    ):
        assert_stable_serves_on_while_status_explains(fraud, store, bad, ask)


# --- a runtime of one's own ---------------------------------------------------------------------


def test_a_runtime_of_ones_own_needs_a_dockerfile_and_a_modelruntime_and_no_python_of_mooring(
    operator: Cluster, model: Named, client: Client, store: S3Server
) -> None:
    load(operator, "sklearn-server")
    content = example_file("custom-runtime", "model.joblib").read_bytes()
    store.put(BUCKET, "taxi/v1/model.joblib", content)
    taxi = model("taxi")
    runtime = str(example_file("custom-runtime", "modelruntime.yaml"))
    taxi.cluster.kubectl("apply", "-n", taxi.namespace, "-f", runtime)
    serve(taxi, "custom-runtime")
    url = f"http://taxi.{taxi.namespace}.svc/models/taxi/predict"

    def ask() -> Any:
        return client.infer(url, request_of("custom-runtime"))["predictions"]

    assert ask() == pytest.approx([3.5 + 1.8 * 5 + 0.4 * 12, 3.5])

    bad = Bad("taxi/v2", {"model.joblib": b"no pickle"}, "model.joblib is not a scikit-learn model")
    assert_stable_serves_on_while_status_explains(taxi, store, bad, ask)
