"""Writes a small model whose answers are known without onnxruntime, and a request for it.

    python tools/make_example_model.py FOLDER        needs the packages onnx and numpy

A logistic regression on 30 standardised features with two classes, shaped like the usual
breast-cancer example: `x` FP32 [batch,30] to `label` INT64 [batch] and `probabilities` FP32
[batch,2]. Every number in it follows from a formula, so the file is the same wherever it is
made. FOLDER gets `model.onnx` and `request.json`; what the model must answer to it, computed in
numpy, is printed.
"""

from __future__ import annotations

import json
from pathlib import Path

import click
import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper

FEATURES = 30
# Opset and IR version that every onnxruntime of the last years reads.
OPSET, IR_VERSION = 17, 9

_STEPS = np.arange(FEATURES, dtype=np.float32)
MEAN = (10 + 5 * np.sin(_STEPS)).astype(np.float32)
SCALE = (2 + np.cos(_STEPS)).astype(np.float32)
WEIGHTS = (np.sin(0.7 * _STEPS + 0.3) / 3).astype(np.float32)
BIAS = np.float32(-0.25)

Rows = npt.NDArray[np.float32]


def rows() -> Rows:
    """Three documented inputs: an average one, one a scale above it, one a scale below."""
    return np.stack([MEAN, MEAN + SCALE, MEAN - SCALE]).round(3).astype(np.float32)


def expected(x: Rows) -> tuple[list[int], list[float]]:
    """Labels and probabilities (row by row, class 0 first) of `x`, in float64."""
    logits = ((x.astype(np.float64) - MEAN) / SCALE) @ WEIGHTS.astype(np.float64) + BIAS
    positive = 1 / (1 + np.exp(-logits))
    labels: list[int] = (positive > 0.5).astype(int).tolist()
    probabilities: list[float] = np.stack([1 - positive, positive], axis=1).ravel().tolist()
    return labels, probabilities


def build() -> onnx.ModelProto:
    """The model."""
    initializers = {
        "mean": MEAN,
        "scale": SCALE,
        # Two columns, as softmax over (0, z) is the sigmoid of z.
        "weights": np.stack([np.zeros_like(WEIGHTS), WEIGHTS], axis=1),
        "bias": np.array([0, BIAS], np.float32),
    }
    nodes = [
        helper.make_node("Sub", ["x", "mean"], ["centred"]),
        helper.make_node("Div", ["centred", "scale"], ["standardised"]),
        helper.make_node("MatMul", ["standardised", "weights"], ["weighted"]),
        helper.make_node("Add", ["weighted", "bias"], ["logits"]),
        helper.make_node("Softmax", ["logits"], ["probabilities"], axis=1),
        helper.make_node("ArgMax", ["logits"], ["label"], axis=1, keepdims=0),
    ]
    graph = helper.make_graph(
        nodes,
        "classifier",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", FEATURES])],
        [
            helper.make_tensor_value_info("label", TensorProto.INT64, ["batch"]),
            helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, ["batch", 2]),
        ],
        [numpy_helper.from_array(value, name) for name, value in initializers.items()],
    )
    opsets = [helper.make_opsetid("", OPSET)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=IR_VERSION)
    onnx.checker.check_model(model, full_check=True)
    return model


def request(x: Rows) -> dict[str, object]:
    """`x` as an Open Inference Protocol v2 request."""
    data = [round(float(value), 3) for value in x.ravel()]
    return {"inputs": [{"name": "x", "shape": list(x.shape), "datatype": "FP32", "data": data}]}


@click.command()
@click.argument("folder", type=click.Path(file_okay=False, path_type=Path))
@click.option("--rows", "count", type=click.IntRange(1, 3), default=3, help="Rows of the request.")
def main(folder: Path, count: int) -> None:
    """Writes model.onnx and request.json into FOLDER and prints the expected answer."""
    folder.mkdir(parents=True, exist_ok=True)
    x = rows()[:count]
    (folder / "model.onnx").write_bytes(build().SerializeToString(deterministic=True))
    (folder / "request.json").write_text(json.dumps(request(x)) + "\n")
    labels, probabilities = expected(x)
    click.echo(json.dumps({"label": labels, "probabilities": [round(p, 6) for p in probabilities]}))


if __name__ == "__main__":
    main()
