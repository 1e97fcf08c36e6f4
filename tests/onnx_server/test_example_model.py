"""The example model's answers are those that its tool computes without onnxruntime."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from types import ModuleType

import pytest
from click.testing import CliRunner
from tests.onnx_server.servers import COMPONENT

from mooring_onnx_server.model import load_model
from mooring_onnx_server.request import RequestDecoder
from mooring_onnx_server.settings import SessionSettings


@pytest.fixture(scope="module")
def tool() -> ModuleType:
    path = COMPONENT / "tools" / "make_example_model.py"
    spec = importlib.util.spec_from_file_location("make_example_model", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_what_the_tool_prints_is_what_the_model_answers(tool: ModuleType, tmp_path: Path) -> None:
    printed = json.loads(CliRunner().invoke(tool.main, [str(tmp_path)]).output)
    model = load_model(tmp_path / "model.onnx", SessionSettings(intra_op_threads=1))
    request = RequestDecoder(model.signature).decode((tmp_path / "request.json").read_bytes())
    label, probabilities = model.run(request.outputs, request.feeds)
    assert label.tolist() == printed["label"] == [0, 1, 0]
    assert probabilities.ravel().tolist() == pytest.approx(printed["probabilities"], abs=1e-5)


def test_the_model_is_the_same_file_every_time(tool: ModuleType, tmp_path: Path) -> None:
    for name in ("a", "b"):
        CliRunner().invoke(tool.main, [str(tmp_path / name)])
    first, second = ((tmp_path / name / "model.onnx").read_bytes() for name in ("a", "b"))
    assert first == second
