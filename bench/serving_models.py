"""The two models of the serving benchmark, and the one request for both.

Both have the same input and outputs: `x` FP32 [batch, 30] to `label` INT64 [batch] and
`probabilities` FP32 [batch, 2]. The slow one does the tiny one's work after a detour of matrix
products, so that the right answer is known without running it.
"""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from types import ModuleType

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

_EXAMPLE = Path(__file__).resolve().parent.parent / "components/onnx-server/tools"
WIDTH = 1024
LAYERS = 14
"""Matrix products of 1 x WIDTH by WIDTH x WIDTH: about 5 ms on one core of the machine that the
published figures are from."""


def _example() -> ModuleType:
    """The script that makes the ONNX server's example model."""
    found = importlib.util.spec_from_file_location("example", _EXAMPLE / "make_example_model.py")
    if found is None or found.loader is None:
        raise FileNotFoundError(_EXAMPLE)
    module = importlib.util.module_from_spec(found)
    found.loader.exec_module(module)
    return module


_MODULE = _example()
_ROWS = _MODULE.rows()[:1]
REQUEST: bytes = json.dumps(_MODULE.request(_ROWS)).encode()
EXPECTED: list[float] = _MODULE.expected(_ROWS)[1]


def write_tiny(folder: Path) -> Path:
    """A logistic regression of 30 features."""
    folder.mkdir(parents=True)
    onnx.save(_MODULE.build(), folder / "model.onnx")
    return folder


def write_slow(folder: Path) -> Path:
    """The same after LAYERS products that add nothing: x plus zero times their sum."""
    folder.mkdir(parents=True)
    model = _MODULE.build()
    generator = np.random.default_rng(0)
    weights = [generator.normal(0, WIDTH**-0.5, (_MODULE.FEATURES, WIDTH))]
    weights += [generator.normal(0, WIDTH**-0.5, (WIDTH, WIDTH)) for _ in range(LAYERS)]
    nodes = []
    value = "x"
    for layer, weight in enumerate(weights):
        model.graph.initializer.append(
            numpy_helper.from_array(weight.astype(np.float32), f"w{layer}")
        )
        nodes.append(helper.make_node("MatMul", [value, f"w{layer}"], [f"h{layer}"]))
        value = f"h{layer}"
    zero = numpy_helper.from_array(np.array(0, np.float32), "zero")
    model.graph.initializer.append(zero)
    nodes += [
        helper.make_node("ReduceSum", [value], ["sum"], keepdims=0),
        helper.make_node("Mul", ["sum", "zero"], ["nothing"]),
        helper.make_node("Add", ["x", "nothing"], ["x_again"]),
    ]
    for node in model.graph.node:
        node.input[:] = ["x_again" if name == "x" else name for name in node.input]
    whole = [*nodes, *model.graph.node]
    del model.graph.node[:]
    model.graph.node.extend(whole)
    onnx.checker.check_model(model, full_check=True)
    assert model.graph.input[0].type.tensor_type.elem_type == TensorProto.FLOAT
    onnx.save(model, folder / "model.onnx")
    return folder
