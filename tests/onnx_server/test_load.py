"""Finding and loading a model, and the one sentence where that fails."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from onnx import TensorProto, helper
from tests.onnx_server import graphs

from mooring_onnx_server.errors import ModelLoadError, ModelRunError
from mooring_onnx_server.load_errors import explain, one_line
from mooring_onnx_server.model import find_model_file, load_model, warm_up
from mooring_onnx_server.settings import SessionSettings

SESSION = SessionSettings(intra_op_threads=1)


def files(folder: Path, *names: str) -> Path:
    for name in names:
        (folder / name).write_bytes(b"")
    return folder


def test_model_onnx_is_the_model_whatever_lies_beside_it(tmp_path: Path) -> None:
    files(tmp_path, "model.onnx", "other.onnx", "weights.bin")
    assert find_model_file(tmp_path).name == "model.onnx"


def test_else_the_only_onnx_file_is(tmp_path: Path) -> None:
    files(tmp_path, "fraud.onnx", "fraud.onnx.data", "README", ".hidden.onnx")
    assert find_model_file(tmp_path).name == "fraud.onnx"


@pytest.mark.parametrize(
    ("names", "said"),
    [
        ((), r"no \.onnx file in the model folder .* \(it is empty\): the model's URI must"),
        (("a.pkl", "b.txt"), r"no \.onnx file .* \(it holds a\.pkl, b\.txt\)"),
        (
            ("a.onnx", "b.onnx"),
            r"holds 2 models \(a\.onnx, b\.onnx\): name one of them model\.onnx",
        ),
        (tuple(f"{i}.onnx" for i in range(9)), r"holds 9 models \(0\.onnx, .* and 4 more\)"),
    ],
)
def test_none_or_several_is_a_sentence(tmp_path: Path, names: tuple[str, ...], said: str) -> None:
    with pytest.raises(ModelLoadError, match=said):
        find_model_file(files(tmp_path, *names))


def test_an_absent_folder_is_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(ModelLoadError, match=r"cannot be read \(No such file or directory\)"):
        find_model_file(tmp_path / "absent")


def relu(path: Path, *, opset: int = graphs.OPSET, ir_version: int = graphs.IR_VERSION) -> Path:
    value = graphs.value
    return graphs.save(
        path,
        [helper.make_node("Relu", ["x"], ["y"])],
        [value("x", TensorProto.FLOAT, ["n"])],
        [value("y", TensorProto.FLOAT, ["n"])],
        domains=(),
        opset=opset,
        ir_version=ir_version,
    )


def unknown_operator(path: Path, domain: str) -> Path:
    value = graphs.value
    return graphs.save(
        path,
        [helper.make_node("Foo", ["x"], ["y"], domain=domain)],
        [value("x", TensorProto.FLOAT, ["n"])],
        [value("y", TensorProto.FLOAT, ["n"])],
        domains=(domain,) if domain else (),
    )


def unsupported_type(path: Path) -> Path:
    value = graphs.value
    return graphs.save(
        path,
        [helper.make_node("Identity", ["x"], ["y"])],
        [value("x", TensorProto.BFLOAT16, ["n"])],
        [value("y", TensorProto.BFLOAT16, ["n"])],
    )


def written(content: bytes) -> Callable[[Path], Path]:
    def build(path: Path) -> Path:
        path.write_bytes(content)
        return path

    return build


def cut_short(path: Path) -> Path:
    whole = graphs.linear(path).read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    return path


def folder(path: Path) -> Path:
    path.mkdir()
    return path


def outside(path: Path) -> Path:
    (path.parent.parent / "secret.bin").write_bytes(b"\0" * 64)
    return graphs.with_external_data(path, "../secret.bin", None, length=64)


def outside_by_link(path: Path) -> Path:
    (path.parent.parent / "secret.bin").write_bytes(b"\0" * 64)
    path.parent.mkdir(exist_ok=True)
    (path.parent / "weights.bin").symlink_to("../secret.bin")
    return graphs.with_external_data(path, "weights.bin", None, length=64)


def outside_by(location: str) -> Callable[[Path], Path]:
    """A location that only looks as if it stayed inside (CVE-2024-27318 and its like)."""

    def build(path: Path) -> Path:
        (path.parent.parent / "secret.bin").write_bytes(b"\0" * 64)
        (path.parent / "sub").mkdir(parents=True)
        (path.parent / "up").symlink_to("..")
        return graphs.with_external_data(path, location, None, length=64)

    return build


def outside_from_a_node(path: Path) -> Path:
    """The reference stands in a node's attribute, not among the graph's weights."""
    (path.parent.parent / "secret.bin").write_bytes(b"\0" * 64)
    tensor = helper.make_tensor("w", TensorProto.FLOAT, [16], b"\0" * 64, raw=True)
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    for key, text in (("location", "../secret.bin"), ("offset", "0"), ("length", "64")):
        entry = tensor.external_data.add()
        entry.key, entry.value = key, text
    return graphs.save(
        path,
        [
            helper.make_node("Constant", [], ["w"], value=tensor),
            helper.make_node("Add", ["x", "w"], ["y"]),
        ],
        [graphs.value("x", TensorProto.FLOAT, [16])],
        [graphs.value("y", TensorProto.FLOAT, [16])],
    )


BROKEN: list[tuple[str, Callable[[Path], Path], str]] = [
    ("empty", written(b""), r"model\.onnx \(0 bytes\) is not an ONNX model, or it is cut short"),
    ("error page", written(b"<html>404</html>"), r"\(16 bytes\) is not an ONNX model"),
    ("cut short", cut_short, r"is not an ONNX model, or it is cut short: upload the file again"),
    ("folder", folder, r"is not a file: it must be an ONNX model"),
    (
        "custom operator",
        lambda p: unknown_operator(p, "com.acme"),
        r"uses the operator 'com\.acme:Foo', which onnxruntime does not know: export",
    ),
    (
        "unknown operator",
        lambda p: unknown_operator(p, ""),
        r"uses the operator 'Foo', which opset 21 does not have: export",
    ),
    (
        "opset from the future",
        lambda p: relu(p, opset=99),
        r"is of opset 99 of ai\.onnx, this server knows up to \d+: export it with opset \d+",
    ),
    (
        "IR from the future",
        lambda p: relu(p, ir_version=99),
        r"is of ONNX IR version 99, this server knows up to \d+: save it",
    ),
    (
        "unsupported type",
        unsupported_type,
        r"input 'x' is of type tensor\(bfloat16\), which this server cannot carry: export",
    ),
    (
        "external data missing",
        lambda p: graphs.with_external_data(p, "weights.bin", None, length=64),
        r"keeps weights in the file 'weights\.bin', which is not beside it: upload",
    ),
    (
        "external data cut short",
        lambda p: graphs.with_external_data(p, "weights.bin", b"\0" * 10, length=64),
        r"tensor 'w' wants 64 bytes of a file that has 10: upload that file again",
    ),
    ("external data outside", outside, r"points to external data outside its own folder"),
    ("external data by link", outside_by_link, r"points to external data outside its own folder"),
    *(
        (
            f"external data by {location}",
            outside_by(location),
            r"points to external data outside its own folder",
        )
        for location in (
            "sub/../../secret.bin",
            "./../secret.bin",
            "up/secret.bin",
            "..//secret.bin",
        )
    ),
    (
        "external data outside, from a node",
        outside_from_a_node,
        r"points to external data outside its own folder",
    ),
    (
        "external data absolute",
        lambda p: graphs.with_external_data(p, "/etc/passwd", None, length=64),
        r"points to external data outside its own folder",
    ),
]


@pytest.mark.parametrize(
    ("build", "said"), [case[1:] for case in BROKEN], ids=[case[0] for case in BROKEN]
)
def test_a_model_that_does_not_load_is_one_sentence(
    tmp_path: Path, build: Callable[[Path], Path], said: str
) -> None:
    (tmp_path / "models").mkdir()
    path = build(tmp_path / "models" / "model.onnx")
    with pytest.raises(ModelLoadError) as caught:
        load_model(path, SESSION)
    message = str(caught.value)
    assert re.search(said, message)
    assert "\n" not in message
    assert "onnxruntime_src" not in message


@pytest.mark.parametrize(
    "text", ["std::bad_alloc", "Failed to allocate memory for requested buffer"]
)
def test_out_of_memory_says_what_to_raise(tmp_path: Path, text: str) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(b"\0" * 2_500_000)
    for error in (
        RuntimeError(f"[ONNXRuntimeError] : 6 : RUNTIME_EXCEPTION : {text}"),
        MemoryError(),
    ):
        said = explain(error, path)
        assert said.startswith("out of memory while loading model.onnx (2 MB): raise the")


def test_a_message_not_known_here_is_kept_on_one_bounded_line(tmp_path: Path) -> None:
    raw = (
        "[ONNXRuntimeError] : 1 : FAIL : Load model from /m/model.onnx failed:"
        "/onnxruntime_src/onnxruntime/core/graph/model.cc:256 onnxruntime::Model::Model(a&&, "
        "const b*) Something new\nhappened.  " + "x" * 2000
    )
    said = explain(RuntimeError(raw), tmp_path / "model.onnx")
    assert said.startswith("onnxruntime cannot load model.onnx: Something new happened. xxx")
    assert said.endswith("where it was exported")
    assert len(said) < 900


def test_a_nodes_failure_is_said_without_codes_and_source_files() -> None:
    raw = (
        "[ONNXRuntimeError] : 2 : INVALID_ARGUMENT : Non-zero status code returned while running "
        "Gather node. Name:'' Status Message: indices element out of data bounds, idx=9"
    )
    assert one_line(raw).startswith("Non-zero status code returned while running Gather node.")


def test_external_data_beside_the_model_is_loaded(tmp_path: Path) -> None:
    weights = np.arange(16, dtype=np.float32)
    path = graphs.with_external_data(
        tmp_path / "model.onnx", "weights.bin", weights.tobytes(), length=64
    )
    model = load_model(path, SESSION)
    (result,) = model.run(["y"], {"x": np.array([[2]], np.float32)})
    assert np.array_equal(result, weights[None, :] * 2)


def test_a_mount_that_is_swapped_by_links_is_loaded(tmp_path: Path) -> None:
    # The kubelet mounts ConfigMaps, and image volumes may come, as links into a data folder.
    weights = np.ones(16, np.float32).tobytes()
    graphs.with_external_data(tmp_path / "..1" / "model.onnx", "weights.bin", weights, length=64)
    for name in ("model.onnx", "weights.bin"):
        (tmp_path / name).symlink_to(Path("..1") / name)
    assert load_model(find_model_file(tmp_path), SESSION).signature.inputs[0].name == "x"


def test_warm_up_runs_every_datatype_and_gives_no_complaint(tmp_path: Path) -> None:
    model = load_model(graphs.echo(tmp_path / "model.onnx", shape=("n", None, 2)), SESSION)
    assert warm_up(model, 2) is None


def test_a_warm_up_that_the_model_refuses_is_reported_not_raised(tmp_path: Path) -> None:
    value = graphs.value
    path = graphs.save(
        tmp_path / "model.onnx",
        [helper.make_node("Reshape", ["x", "shape"], ["y"])],
        [value("x", TensorProto.FLOAT, ["n"])],
        [value("y", TensorProto.FLOAT, [None, 8])],
        [helper.make_tensor("shape", TensorProto.INT64, [2], [-1, 8])],
    )
    refused = warm_up(load_model(path, SESSION), 3)
    assert refused is not None
    assert "the model failed on this request" in refused


def test_the_metadata_is_the_graphs(tmp_path: Path) -> None:
    signature = load_model(graphs.scikit_classifier(tmp_path / "model.onnx"), SESSION).signature
    assert [spec.metadata for spec in signature.inputs] == [
        {"name": "x", "datatype": "FP32", "shape": [-1, 3]}
    ]
    assert [output.tensor.metadata for output in signature.outputs] == [
        {"name": "label", "datatype": "INT64", "shape": [-1]},
        {"name": "probabilities", "datatype": "FP32", "shape": [-1, -1]},
    ]


@pytest.mark.parametrize(
    "settings",
    [
        SessionSettings(2, 2, "parallel", "disable", allow_spinning=True),
        SessionSettings(1, graph_optimization="basic"),
        SessionSettings(1, graph_optimization="extended"),
    ],
    ids=lambda s: f"{s.execution_mode}-{s.graph_optimization}",
)
def test_session_settings_change_nothing_about_the_answer(
    tmp_path: Path, settings: SessionSettings
) -> None:
    model = load_model(graphs.linear(tmp_path / "model.onnx"), settings)
    x = np.array([[1, 2, 3]], np.float32)
    (scores,) = model.run(["scores"], {"x": x})
    assert np.allclose(scores, x @ graphs.WEIGHTS + graphs.OFFSETS)


def test_a_provider_that_this_onnxruntime_lacks_is_one_sentence(tmp_path: Path) -> None:
    path = graphs.linear(tmp_path / "model.onnx")
    with pytest.raises(ModelLoadError) as caught:
        load_model(path, SessionSettings(1, provider="cuda"))
    assert str(caught.value) == (
        "the provider 'cuda' is not in this image, whose onnxruntime has cpu: use an image with "
        "onnxruntime-gpu, or --provider cpu"
    )


def test_a_provider_that_onnxruntime_silently_replaces_by_the_cpu_is_one_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # What onnxruntime-gpu 1.31 does on a machine without a GPU.
    has = ["CUDAExecutionProvider", "CPUExecutionProvider"]
    monkeypatch.setattr("onnxruntime.get_available_providers", lambda: has)
    session = type("Session", (), {"get_providers": lambda _: has[1:]})
    monkeypatch.setattr("onnxruntime.InferenceSession", lambda *_, **__: session())
    with pytest.raises(ModelLoadError, match=r"'cuda' cannot be used here: .*nvidia\.com/gpu: 1"):
        load_model(graphs.linear(tmp_path / "model.onnx"), SessionSettings(1, provider="cuda"))


def test_a_failure_in_the_run_is_one_sentence(tmp_path: Path) -> None:
    model = load_model(graphs.lookup(tmp_path / "model.onnx"), SESSION)
    with pytest.raises(ModelRunError) as caught:
        model.run(["found"], {"index": np.array([9], np.int64)})
    assert caught.value.status == 500
    assert re.search("^the model failed on this request: .*Gather.*idx=9", caught.value.message)
