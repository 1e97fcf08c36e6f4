"""Make the example's model: how likely is a card payment fraud?

    python make_model.py v1 model.onnx        needs the packages onnx and numpy

v3 is v2 with a defect: it looks the distance up in a table and fails beyond the table's end.

A logistic regression on four features, so small that its answers can be computed by hand: that is
what `predict` does, without ONNX, and what the demo prints beside the server's answers.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence
from pathlib import Path

FEATURES = ("amount", "night", "distance_km", "new_device")
MEAN = (60.0, 0.1, 25.0, 0.1)
SCALE = (85.0, 0.3, 120.0, 0.3)
# v2 has learnt that people travel: distance counts for little, a new device at night for more.
WEIGHTS = {
    "v1": (0.7, 0.4, 0.6, 0.3),
    "v2": (0.5, 0.9, 0.1, 0.4),
    "v3": (0.5, 0.9, 0.1, 0.4),
}
BIAS = {"v1": -3.2, "v2": -3.6, "v3": -3.6}
#: Zones of 100 km that v3 knows; of a payment from farther away it knows nothing, and fails.
ZONES = 5

PAYMENTS = (
    (12.5, 0.0, 2.0, 0.0),
    (480.0, 1.0, 310.0, 1.0),
    (95.0, 0.0, 900.0, 1.0),
)
"""Payments to ask about: coffee, a suspicious night, a new phone on holiday."""


def predict(version: str, payments: Sequence[Sequence[float]]) -> list[float]:
    """The probability of fraud of each payment, in plain arithmetic."""
    found = []
    for payment in payments:
        z = BIAS[version]
        for value, mean, scale, weight in zip(
            payment, MEAN, SCALE, WEIGHTS[version], strict=True
        ):
            z += weight * (value - mean) / scale
        found.append(1.0 / (1.0 + math.exp(-z)))
    return found


def request(payments: Sequence[Sequence[float]] = PAYMENTS) -> dict[str, object]:
    """The payments as an Open Inference Protocol v2 request."""
    tensor = {
        "name": "payments",
        "shape": [len(payments), len(FEATURES)],
        "datatype": "FP32",
        "data": [value for payment in payments for value in payment],
    }
    return {"inputs": [tensor]}


def build(version: str) -> bytes:
    """The model as an ONNX file."""
    import numpy as np
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    def constant(name: str, values: Sequence[float], shape: tuple[int, ...]) -> onnx.TensorProto:
        return numpy_helper.from_array(np.array(values, np.float32).reshape(shape), name)

    width = len(FEATURES)
    nodes = [
        helper.make_node("Sub", ["payments", "mean"], ["centred"]),
        helper.make_node("Div", ["centred", "scale"], ["standardised"]),
        helper.make_node("MatMul", ["standardised", "weights"], ["weighted"]),
        helper.make_node("Add", ["weighted", "bias"], ["z"]),
        helper.make_node("Sigmoid", ["z"], ["column"]),
        helper.make_node("Squeeze", ["column", "axis"], ["fraud"]),
    ]
    table = []
    if version == "v3":
        nodes[-1].output[0] = "known"
        nodes += [
            helper.make_node("Gather", ["payments", "distance"], ["far"], axis=1),
            helper.make_node("Div", ["far", "zone_km"], ["zones"]),
            helper.make_node("Cast", ["zones"], ["zone"], to=TensorProto.INT64),
            helper.make_node("Gather", ["fees", "zone"], ["fee"]),
            helper.make_node("Add", ["known", "fee"], ["fraud"]),
        ]
        table = [
            numpy_helper.from_array(np.array(FEATURES.index("distance_km"), np.int64), "distance"),
            constant("zone_km", (100.0,), (1,)),
            constant("fees", (0.0,) * ZONES, (ZONES,)),
        ]
    graph = helper.make_graph(
        nodes,
        "fraud",
        [helper.make_tensor_value_info("payments", TensorProto.FLOAT, ["n", width])],
        [helper.make_tensor_value_info("fraud", TensorProto.FLOAT, ["n"])],
        [
            constant("mean", MEAN, (1, width)),
            constant("scale", SCALE, (1, width)),
            constant("weights", WEIGHTS[version], (width, 1)),
            constant("bias", (BIAS[version],), (1,)),
            numpy_helper.from_array(np.array([1], np.int64), "axis"),
            *table,
        ],
        doc_string=f"Probability of fraud from {', '.join(FEATURES)}.",
    )
    # Versions that every onnxruntime of the last years reads.
    model = helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9, producer_name="example"
    )
    onnx.checker.check_model(model, full_check=True)
    return model.SerializeToString()


if __name__ == "__main__":
    if len(sys.argv) != 3 or sys.argv[1] not in WEIGHTS:
        sys.exit(__doc__)
    Path(sys.argv[2]).write_bytes(build(sys.argv[1]))
