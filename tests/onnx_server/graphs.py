"""Small ONNX models, built operator by operator, each for one thing a test needs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

OPSET = 21
IR_VERSION = 10
Shape = Sequence[int | str | None] | None

WEIGHTS = np.array([[0.5, -0.5], [0.25, -0.25], [1.0, -1.0]], np.float32)
OFFSETS = np.array([0.1, -0.1], np.float32)


def value(name: str, element: int, shape: Shape) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, element, shape)


def save(
    path: Path,
    nodes: Sequence[onnx.NodeProto],
    inputs: Sequence[onnx.ValueInfoProto],
    outputs: Sequence[onnx.ValueInfoProto],
    initializers: Sequence[onnx.TensorProto] = (),
    *,
    opset: int = OPSET,
    ir_version: int = IR_VERSION,
    domains: Sequence[str] = ("ai.onnx.ml",),
) -> Path:
    """Writes a model with these parts and gives its path back."""
    graph = helper.make_graph(nodes, "graph", inputs, outputs, initializers)
    opsets = [helper.make_opsetid("", opset), *(helper.make_opsetid(d, 3) for d in domains)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=ir_version)
    path.parent.mkdir(parents=True, exist_ok=True)
    onnx.save(model, path)
    return path


def linear(path: Path, *, batch: int | str | None = "batch") -> Path:
    """`x` FP32 [batch,3] to `scores` FP32 [batch,2]: x @ WEIGHTS + OFFSETS."""
    return save(
        path,
        [
            helper.make_node("MatMul", ["x", "w"], ["product"]),
            helper.make_node("Add", ["product", "b"], ["scores"]),
        ],
        [value("x", TensorProto.FLOAT, [batch, 3])],
        [value("scores", TensorProto.FLOAT, [batch, 2])],
        [numpy_helper.from_array(WEIGHTS, "w"), numpy_helper.from_array(OFFSETS, "b")],
    )


def scikit_classifier(path: Path) -> Path:
    """What a scikit-learn logistic regression is converted to by default: ZipMap and all.

    `x` FP32 [?,3] to `label` INT64 [?] and `probabilities`, rows of {label: probability}.
    """
    maps = helper.make_sequence_type_proto(
        helper.make_map_type_proto(
            TensorProto.INT64, helper.make_tensor_type_proto(TensorProto.FLOAT, None)
        )
    )
    return save(
        path,
        [
            helper.make_node(
                "LinearClassifier",
                ["x"],
                ["label", "raw"],
                domain="ai.onnx.ml",
                classlabels_ints=[0, 7],
                coefficients=WEIGHTS.T.flatten().tolist(),
                intercepts=OFFSETS.tolist(),
                post_transform="SOFTMAX",
            ),
            helper.make_node(
                "ZipMap",
                ["raw"],
                ["probabilities"],
                domain="ai.onnx.ml",
                classlabels_int64s=[0, 7],
            ),
        ],
        [value("x", TensorProto.FLOAT, [None, 3])],
        [value("label", TensorProto.INT64, [None]), helper.make_value_info("probabilities", maps)],
    )


ELEMENTS = {
    "BOOL": TensorProto.BOOL,
    "UINT8": TensorProto.UINT8,
    "UINT16": TensorProto.UINT16,
    "UINT32": TensorProto.UINT32,
    "UINT64": TensorProto.UINT64,
    "INT8": TensorProto.INT8,
    "INT16": TensorProto.INT16,
    "INT32": TensorProto.INT32,
    "INT64": TensorProto.INT64,
    "FP16": TensorProto.FLOAT16,
    "FP32": TensorProto.FLOAT,
    "FP64": TensorProto.DOUBLE,
    "BYTES": TensorProto.STRING,
}


def echo(path: Path, datatypes: Sequence[str] = tuple(ELEMENTS), shape: Shape = ("n",)) -> Path:
    """One input a datatype, `in_FP32` and so on, each given back as `out_FP32` and so on."""
    return save(
        path,
        [helper.make_node("Identity", [f"in_{d}"], [f"out_{d}"]) for d in datatypes],
        [value(f"in_{d}", ELEMENTS[d], shape) for d in datatypes],
        [value(f"out_{d}", ELEMENTS[d], shape) for d in datatypes],
    )


def lookup(path: Path) -> Path:
    """`index` INT64 [n] to `found` FP32 [n]: fails in the run where an index is not below 4."""
    return save(
        path,
        [helper.make_node("Gather", ["table", "index"], ["found"])],
        [value("index", TensorProto.INT64, ["n"])],
        [value("found", TensorProto.FLOAT, ["n"])],
        [numpy_helper.from_array(np.arange(4, dtype=np.float32), "table")],
    )


def divide(path: Path) -> Path:
    """`over` FP32 [n] to `result` = 1 / over: infinite at 0, NaN at NaN."""
    return save(
        path,
        [helper.make_node("Reciprocal", ["over"], ["result"])],
        [value("over", TensorProto.FLOAT, ["n"])],
        [value("result", TensorProto.FLOAT, ["n"])],
    )


def laborious(path: Path, width: int = 64) -> Path:
    """`steps` INT64 [1] to `sum` FP32 [1]: takes as long as the client asks for."""
    body = helper.make_graph(
        [
            helper.make_node("MatMul", ["state", "w"], ["next"]),
            helper.make_node("Identity", ["go"], ["go_on"]),
        ],
        "body",
        [
            value("i", TensorProto.INT64, []),
            value("go", TensorProto.BOOL, []),
            value("state", TensorProto.FLOAT, [width, width]),
        ],
        [value("go_on", TensorProto.BOOL, []), value("next", TensorProto.FLOAT, [width, width])],
    )
    identity = np.eye(width, dtype=np.float32)
    return save(
        path,
        [
            helper.make_node("Loop", ["steps", "", "w"], ["last"], body=body),
            helper.make_node("ReduceSum", ["last"], ["total"], keepdims=0),
            helper.make_node("Reshape", ["total", "one"], ["sum"]),
        ],
        [value("steps", TensorProto.INT64, [1])],
        [value("sum", TensorProto.FLOAT, [1])],
        [
            numpy_helper.from_array(identity, "w"),
            numpy_helper.from_array(np.array([1], np.int64), "one"),
        ],
    )


def with_external_data(path: Path, location: str, data: bytes | None, *, length: int) -> Path:
    """A model whose weights are in another file, `location`; `data` None leaves it out."""
    saved = save(
        path,
        [helper.make_node("MatMul", ["x", "w"], ["y"])],
        [value("x", TensorProto.FLOAT, ["n", 1])],
        [value("y", TensorProto.FLOAT, ["n", length // 4])],
        [numpy_helper.from_array(np.zeros((1, 1), np.float32), "w")],
    )
    model = onnx.load(saved, load_external_data=False)
    tensor = model.graph.initializer[0]
    tensor.ClearField("raw_data")
    del tensor.dims[:]
    tensor.dims.extend([1, length // 4])
    tensor.data_location = TensorProto.EXTERNAL
    for key, text in (("location", location), ("offset", "0"), ("length", str(length))):
        entry = tensor.external_data.add()
        entry.key, entry.value = key, text
    saved.write_bytes(model.SerializeToString())
    if data is not None:
        (path.parent / location).write_bytes(data)
    return saved
