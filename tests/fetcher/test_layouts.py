"""What TensorFlow Serving and TorchServe find where they look, and what is refused for them."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mooring_fetcher.failure import PermanentFailure
from mooring_fetcher.fetch import Request, fetch
from mooring_fetcher.layouts import archive_layout, saved_model_layout
from mooring_fetcher.saved_model import check_servable, serving_signatures

if TYPE_CHECKING:
    from tests.fetcher.conftest import Loopback, Workbench

HALF_PLUS_TWO = Path(__file__).parents[2] / "examples" / "tfserving" / "model" / "00000123"

Permanent = Callable[..., Any]


def lengthy(field: int, content: bytes) -> bytes:
    """A length-prefixed field of protobuf's wire format."""
    size, digits = len(content), b""
    while size >= 0x80:
        digits, size = digits + bytes([size & 0x7F | 0x80]), size >> 7
    return bytes([field << 3 | 2]) + digits + bytes([size]) + content


def saved_model(*signatures: str, tag: str = "serve") -> bytes:
    entries = b"".join(lengthy(5, lengthy(1, name.encode())) for name in signatures)
    graph = lengthy(1, lengthy(4, tag.encode())) + lengthy(2, b"nodes" * 100) + entries
    return b"\x08\x01" + lengthy(2, graph)


@pytest.mark.parametrize(
    ("paths", "expected"),
    [
        (["saved_model.pb"], ["42/saved_model.pb"]),
        (
            ["saved_model.pb", "variables/variables.index"],
            ["42/saved_model.pb", "42/variables/variables.index"],
        ),
        (["00000042/saved_model.pb", "00000042/assets/a"], ["42/assets/a", "42/saved_model.pb"]),
        (["export/saved_model.pb", "README.md"], ["42/saved_model.pb", "README.md"]),
        (["saved_model.pbtxt"], ["42/saved_model.pbtxt"]),
    ],
)
def test_a_saved_model_goes_into_the_folder_of_its_version(
    paths: list[str], expected: list[str]
) -> None:
    assert sorted(saved_model_layout(paths, "42", "s3://m").values()) == expected


@pytest.mark.parametrize(
    ("paths", "words"),
    [
        (["fraud.onnx"], ("no SavedModel", "'fraud.onnx'", "runtime")),
        (["a/b/saved_model.pb"], ("no SavedModel",)),
        (["1/saved_model.pb", "2/saved_model.pb"], ("'1', '2'", "name its folder")),
        (["a/saved_model.pb", "42/x"], ("'a'", "'42' beside it")),
    ],
)
def test_what_holds_not_exactly_one_saved_model_is_refused(
    paths: list[str], words: tuple[str, ...], permanent: Permanent
) -> None:
    with permanent("s3://m/x", *words):
        saved_model_layout(paths, "42", "s3://m/x")


@pytest.mark.parametrize(
    ("paths", "expected"),
    [
        (["fraud-v7.mar"], ["fraud.mar"]),
        (["fraud.mar", "other.mar"], ["fraud.mar", "other.mar"]),
        (["fraud-v7.mar", "notes/a.txt"], ["fraud.mar", "notes/a.txt"]),
    ],
)
def test_a_model_archive_is_called_as_the_model(paths: list[str], expected: list[str]) -> None:
    assert sorted(archive_layout(paths, "fraud", "s3://m").values()) == expected


@pytest.mark.parametrize(
    ("paths", "words"),
    [
        (["fraud.onnx"], ("no model archive (.mar)", "'fraud.onnx'")),
        (["a.mar", "b.mar"], ("'a.mar', 'b.mar'", "name one of them")),
        ([f"{n}.bin" for n in range(9)], ("'4.bin' and 4 more",)),
    ],
)
def test_what_holds_no_model_archive_of_ours_is_refused(
    paths: list[str], words: tuple[str, ...], permanent: Permanent
) -> None:
    with permanent("s3://m/x", *words):
        archive_layout(paths, "fraud", "s3://m/x")


NAMES = st.lists(
    st.text("a1/", min_size=1, max_size=5).filter(lambda name: "" not in name.split("/")),
    unique=True,
    max_size=5,
)


@given(NAMES, st.sampled_from(["saved_model.pb", "a/saved_model.pb", "1/saved_model.pb"]))
def test_a_layout_loses_no_file_and_merges_none(paths: list[str], model: str) -> None:
    files = [*paths, model]
    try:
        placed = saved_model_layout(files, "1", "here")
    except PermanentFailure:
        return
    assert sorted(placed) == sorted(files)
    assert len(set(placed.values())) == len(files)


# --- signatures -------------------------------------------------------------------------------


def test_the_signatures_of_a_real_saved_model_are_read_without_tensorflow() -> None:
    found = serving_signatures(HALF_PLUS_TWO / "saved_model.pb")

    assert found is not None
    assert "serving_default" in found
    assert len(found) == 5


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (saved_model(), ("no signature", "every request would be refused", "serving_default")),
        (saved_model("__saved_model_init_op"), ("no signature",)),
        (saved_model("serving_default", tag="train"), ("no graph with the tag 'serve'",)),
    ],
)
def test_a_saved_model_that_nobody_could_ask_is_refused(
    content: bytes, words: tuple[str, ...], tmp_path: Path, permanent: Permanent
) -> None:
    path = tmp_path / "saved_model.pb"
    path.write_bytes(content)

    with permanent("s3://m/x", *words):
        check_servable(path, "s3://m/x")


@pytest.mark.parametrize(
    "content", [b"", b"not protobuf at all", saved_model("a")[:-3], b"\x12\xff" * 30]
)
def test_a_damaged_saved_model_is_left_to_the_server_which_says_it_better(
    content: bytes, tmp_path: Path
) -> None:
    path = tmp_path / "saved_model.pb"
    path.write_bytes(content)

    with pytest.raises(ValueError, match=r".+"):
        serving_signatures(path)
    check_servable(path, "here")


# --- fetched and mounted ----------------------------------------------------------------------


def packed(files: dict[str, bytes]) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:gz") as archive:
        for name, body in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(body)
            archive.addfile(info, io.BytesIO(body))
    return out.getvalue()


@pytest.fixture
def get(web: Loopback, bench: Workbench, tmp_path: Path) -> Callable[..., Any]:
    def run(name: str, body: bytes, **request: Any) -> Path:
        uri = web.put(f"/{name}", body, etag='"1"')
        fetch(Request(uri, tmp_path / "models", allow_http=True, **request), bench.run())
        return tmp_path / "models"

    return run


def files_of(folder: Path) -> Iterator[str]:
    for path in sorted(folder.rglob("*")):
        if path.is_file() and not path.name.startswith("."):
            yield path.relative_to(folder).as_posix()


def test_an_archive_of_a_saved_model_is_fetched_into_its_version(get: Callable[..., Any]) -> None:
    body = packed({"export/saved_model.pb": saved_model("serving_default"), "export/a": b"1"})

    target = get("m.tar.gz", body, layout="tfserving", model_version="7")

    assert list(files_of(target)) == ["7/a", "7/saved_model.pb"]


def test_a_fetched_saved_model_without_signatures_is_refused(
    get: Callable[..., Any], permanent: Permanent
) -> None:
    with permanent("m.tar.gz", "no signature"):
        get("m.tar.gz", packed({"saved_model.pb": saved_model()}), layout="tfserving")


@pytest.mark.parametrize("version", ["", "v7", "../1", "-1", "01", "1" * 19])
def test_a_version_is_a_number_that_the_server_reads_back_alike(
    get: Callable[..., Any], version: str, permanent: Permanent
) -> None:
    with permanent("--model-version"):
        get("m.tar.gz", b"", layout="tfserving", model_version=version)


def test_a_model_archive_is_fetched_under_the_models_name(get: Callable[..., Any]) -> None:
    target = get("fraud-v7.mar", b"zip", layout="torchserve", model_name="fraud")

    assert list(files_of(target)) == ["fraud.mar"]


def claim(target: Path, bench: Workbench, **request: Any) -> None:
    fetch(Request("pvc://claim/fraud", target, **request), bench.run())


def test_a_claim_is_mounted_as_the_version_and_must_be_a_saved_model(
    tmp_path: Path, bench: Workbench, permanent: Permanent
) -> None:
    mounted = tmp_path / "7"
    (mounted / "42").mkdir(parents=True)
    (mounted / "42" / "saved_model.pb").write_bytes(saved_model("serving_default"))
    with permanent("pvc://claim/fraud", "not the folder of a SavedModel"):
        claim(mounted, bench, layout="tfserving", model_version="7")

    claim(mounted / "42", bench, layout="tfserving", model_version="42")
    (mounted / "42" / "saved_model.pb").write_bytes(saved_model())
    with permanent("no signature"):
        claim(mounted / "42", bench, layout="tfserving", model_version="42")


def test_an_archive_on_a_claim_is_mounted_by_name_or_has_the_models_name(
    tmp_path: Path, bench: Workbench, permanent: Permanent
) -> None:
    (tmp_path / "fraud-v7.mar").write_bytes(b"zip")
    claim(tmp_path / "fraud-v7.mar", bench, layout="torchserve", model_name="fraud")

    with permanent("fraud.mar", "name the archive itself"):
        claim(tmp_path, bench, layout="torchserve", model_name="fraud")
    (tmp_path / "fraud.mar").write_bytes(b"zip")
    claim(tmp_path, bench, layout="torchserve", model_name="fraud")
