"""Where files end up, and that starting over is harmless."""

from __future__ import annotations

import errno
import io
import os
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mooring_fetcher import placing
from mooring_fetcher.digest import digest_path
from mooring_fetcher.failure import PermanentFailure
from mooring_fetcher.fetch import Request, fetch
from mooring_fetcher.placing import laid_out

if TYPE_CHECKING:
    from tests.fetcher.conftest import Loopback, Workbench


def packed(files: dict[str, bytes], mode: int = 0o644) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:gz") as archive:
        for name, body in files.items():
            info = tarfile.TarInfo(name)
            info.size, info.mode = len(body), mode
            archive.addfile(info, io.BytesIO(body))
    return out.getvalue()


def placed(target: Path) -> dict[str, bytes]:
    return {
        path.relative_to(target).as_posix(): path.read_bytes()
        for path in target.rglob("*")
        if path.is_file() and not path.name.startswith(".")
    }


@pytest.fixture
def target(tmp_path: Path) -> Path:
    return tmp_path / "models"


Get = Callable[..., Any]


@pytest.fixture
def get(web: Loopback, bench: Workbench, target: Path) -> Get:
    def run(name: str, body: bytes, **request: Any) -> Any:
        etag = f'"{hash(body)}"'
        wanted = Request(web.put(f"/{name}", body, etag=etag), target, allow_http=True, **request)
        return fetch(wanted, bench.run())

    return run


# --- layouts --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("paths", "expected"),
    [
        (["fraud-v7.onnx"], ["m/1/model.onnx"]),
        (["model.onnx", "model.onnx.data"], ["m/1/model.onnx", "m/1/model.onnx.data"]),
        (["net.pt"], ["m/1/model.pt"]),
        (["a.onnx", "b.onnx"], ["m/1/a.onnx", "m/1/b.onnx"]),
        (["weights.bin"], ["m/1/weights.bin"]),
        (
            ["saved_model.pb", "variables/variables.index"],
            [
                "m/1/model.savedmodel/saved_model.pb",
                "m/1/model.savedmodel/variables/variables.index",
            ],
        ),
        (["config.pbtxt", "1/model.onnx"], ["m/1/model.onnx", "m/config.pbtxt"]),
        (["1/model.onnx", "3/model.onnx"], ["m/1/model.onnx", "m/3/model.onnx"]),
        (["m/config.pbtxt", "m/1/model.onnx"], ["m/1/model.onnx", "m/config.pbtxt"]),
        (["x/config.pbtxt", "x/1/model.onnx"], ["m/1/x/1/model.onnx", "m/1/x/config.pbtxt"]),
    ],
)
def test_triton_gets_a_model_repository(paths: list[str], expected: list[str]) -> None:
    assert sorted(laid_out(paths, "triton", "m").values()) == expected


NAMES = st.lists(
    st.text("ab/1.onx", min_size=1, max_size=9).filter(lambda name: "" not in name.split("/")),
    unique=True,
    max_size=6,
)


@given(NAMES)
def test_a_layout_loses_no_file_and_merges_none(paths: list[str]) -> None:
    for layout in ("flat", "triton"):
        result = laid_out(paths, layout, "m")
        assert sorted(result) == sorted(paths)
        assert len(set(result.values())) == len(paths)


def test_a_triton_model_is_laid_out_when_fetched(get: Get, target: Path) -> None:
    get("fraud.onnx", b"weights", layout="triton", model_name="fraud")
    assert placed(target) == {"fraud/1/model.onnx": b"weights"}


@pytest.mark.parametrize("name", ["", "../evil", "a/b", ".hidden"])
def test_a_triton_model_needs_a_plain_name(
    get: Get, name: str, permanent: Callable[..., Any]
) -> None:
    with permanent("--model-name"):
        get("fraud.onnx", b"weights", layout="triton", model_name=name)


# --- archives -------------------------------------------------------------------------------


def test_an_archive_is_verified_as_an_archive_and_placed_unpacked(get: Get, target: Path) -> None:
    body = packed({"saved_model.pb": b"graph", "variables/x": b"v"})
    (target.parent / "m.tar.gz").write_bytes(body)
    found = get("m.tar.gz", body)
    assert found == digest_path(target.parent / "m.tar.gz")
    assert placed(target) == {"saved_model.pb": b"graph", "variables/x": b"v"}


def test_a_mar_is_a_zip_that_stays_whole(get: Get, target: Path) -> None:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        archive.writestr("MAR-INF/MANIFEST.json", "{}")
    get("net.mar", out.getvalue())
    assert placed(target) == {"net.mar": out.getvalue()}


def test_permissions_are_plain_whatever_the_archive_says(get: Get, target: Path) -> None:
    before = os.umask(0o077)
    try:
        get("m.tgz", packed({"bin/tool": b"#!"}, mode=0o6777))
    finally:
        os.umask(before)
    assert (target / "bin" / "tool").stat().st_mode & 0o7777 == 0o644
    assert (target / "bin").stat().st_mode & 0o7777 == 0o755


def test_a_refused_archive_leaves_nothing_behind(
    get: Get, target: Path, permanent: Callable[..., Any]
) -> None:
    with permanent("climbs out"):
        get("m.tgz", packed({"model.onnx": b"x", "../evil": b"x"}))
    assert [path.name for path in target.rglob("*")] == [".partial"]
    assert not (target.parent / "evil").exists()


def test_the_wrong_archive_is_not_even_unpacked(
    get: Get, target: Path, monkeypatch: pytest.MonkeyPatch, permanent: Callable[..., Any]
) -> None:
    monkeypatch.setattr(
        "mooring_fetcher.unpacking.unpack", lambda *arguments: pytest.fail("unpacked")
    )
    with permanent("changed since this revision was pinned"):
        get("m.tgz", packed({"a": b"x"}), pinned="sha256:" + "0" * 64)


def test_linked_names_share_their_bytes(get: Get, target: Path) -> None:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:gz") as archive:
        link = tarfile.TarInfo("snapshot/model.onnx")
        link.type, link.linkname = tarfile.SYMTYPE, "../blob"
        archive.addfile(link)
        blob = tarfile.TarInfo("blob")
        blob.size = 3
        archive.addfile(blob, io.BytesIO(b"abc"))
    get("m.tgz", out.getvalue())
    assert placed(target) == {"blob": b"abc", "snapshot/model.onnx": b"abc"}
    assert not any(path.is_symlink() for path in target.rglob("*"))
    assert (target / "blob").stat().st_ino == (target / "snapshot/model.onnx").stat().st_ino


# --- starting over --------------------------------------------------------------------------


class Killed(BaseException):
    """Stands for SIGKILL: nothing of ours handles it."""


STEPS = ("_assemble", "_write_marker", "_remove")


@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("occurrence", [1, 2])
@pytest.mark.parametrize("moment", ["before", "after"])
def test_a_kill_at_any_step_of_placing_is_mended_by_the_next_start(
    get: Get, target: Path, monkeypatch: pytest.MonkeyPatch, step: str, occurrence: int, moment: str
) -> None:
    get("m.tgz", packed({"old.onnx": b"old", "shared/x": b"old"}))
    real = getattr(placing, step)
    calls = 0

    def dying(*arguments: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == occurrence and moment == "before":
            raise Killed
        result = real(*arguments)
        if calls == occurrence:
            raise Killed
        return result

    new = packed({"new.onnx": b"new", "shared/x": b"new"})
    with monkeypatch.context() as patch:
        patch.setattr(placing, step, dying)
        try:
            get("m.tgz", new)
        except Killed:
            pass
        else:
            assert calls < occurrence
    get("m.tgz", new)
    assert placed(target) == {"new.onnx": b"new", "shared/x": b"new"}
    assert not (target / ".partial").exists()


def test_a_kill_between_two_renames_is_mended_by_the_next_start(
    get: Get, target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    body = packed({"a": b"1", "b/c": b"2", "d": b"3"})
    real = Path.rename

    def dying(self: Path, to: Path) -> Path:
        if self.parent.name == "ready" and self.name == "b":
            raise Killed
        return real(self, to)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "rename", dying)
        with pytest.raises(Killed):
            get("m.tgz", body)
    assert (target / "a").exists()
    get("m.tgz", body)
    assert placed(target) == {"a": b"1", "b/c": b"2", "d": b"3"}


def test_files_of_somebody_else_are_neither_removed_nor_replaced(
    get: Get, target: Path, permanent: Callable[..., Any]
) -> None:
    (target / "lost+found").mkdir(parents=True)
    (target / "notes.txt").write_text("mine")
    get("m.onnx", b"weights")
    assert (target / "notes.txt").read_text() == "mine"
    (target / "other.onnx").write_text("mine")
    with permanent("already holds 'other.onnx'", "did not put there"):
        get("other.onnx", b"weights")
    assert (target / "other.onnx").read_text() == "mine"


@pytest.mark.parametrize(
    "marker",
    [
        '{"entries": ["../victim"], "uri": "", "layout": "", "digest": "", "bytes": 0, "files": 0}',
        '{"entries": [7], "uri": "", "layout": "", "digest": "", "bytes": 0, "files": 0}',
        '{"entries": "victim"}',
        "[]",
        "",
    ],
)
def test_a_forged_marker_removes_nothing(get: Get, target: Path, marker: str) -> None:
    target.mkdir()
    (target / ".mooring-fetch.json").write_text(marker)
    victim = target.parent / "victim"
    victim.write_text("mine")
    get("m.onnx", b"weights")
    assert victim.read_text() == "mine"


def test_a_partial_folder_that_is_a_link_is_not_followed(get: Get, target: Path) -> None:
    elsewhere = target.parent / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "mine").write_text("mine")
    target.mkdir()
    (target / ".partial").symlink_to(elsewhere)
    get("m.onnx", b"weights")
    assert (elsewhere / "mine").read_text() == "mine"


# --- disks ----------------------------------------------------------------------------------


def test_a_full_volume_is_told_with_the_way_out(
    get: Get, monkeypatch: pytest.MonkeyPatch, transient: Callable[..., Any]
) -> None:
    def full(self: object, chunk: bytes) -> None:
        from mooring_fetcher.transfer import disk_failure

        raise disk_failure(OSError(errno.ENOSPC, "No space left on device"), Path("/mnt/models/x"))

    monkeypatch.setattr("mooring_fetcher.transfer.FileSink.write", full)
    with transient("model volume at /mnt/models is full", "sizeLimit"):
        get("m.onnx", b"weights")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_disk_that_fills_up_while_writing_is_that_failure(
    web: Loopback,
    bench: Workbench,
    target: Path,
    monkeypatch: pytest.MonkeyPatch,
    transient: Callable[..., Any],
) -> None:
    monkeypatch.setattr("mooring_fetcher.fetch._partial_name", lambda uri, file: "full")
    monkeypatch.setattr("mooring_fetcher.fetch.keep_only", lambda folder, names: None)
    (target / ".partial").mkdir(parents=True)
    (target / ".partial" / "full").symlink_to("/dev/full")
    url = web.put("/m.onnx", b"weights" * 100_000, etag=None)
    with transient("is full"):
        fetch(Request(url, target, allow_http=True), bench.run())


def test_a_target_that_cannot_be_written_is_told(
    get: Get, target: Path, permanent: Callable[..., Any]
) -> None:
    target.write_text("a file where the volume should be")
    with permanent("cannot be written", "fsGroup"):
        get("m.onnx", b"weights")


# --- claims ---------------------------------------------------------------------------------


def verify(target: Path, bench: Workbench, path: str = "", **request: Any) -> Any:
    return fetch(Request(f"pvc://claim/{path}", target, **request), bench.run())


def test_a_claim_is_verified_in_place_and_left_alone(target: Path, bench: Workbench) -> None:
    (target / "1").mkdir(parents=True)
    (target / "1" / "model.onnx").write_bytes(b"weights")
    (target / "lost+found").mkdir()
    (target / "lost+found" / "x").write_text("not the model")
    found = verify(target, bench)
    assert (found.files, found.size) == (1, 7)
    assert verify(target, bench, pinned=found.digest) == found
    assert {path.name for path in target.iterdir()} == {"1", "lost+found"}
    with pytest.raises(PermanentFailure, match="changed since this revision was pinned"):
        verify(target, bench, pinned="sha256:" + "0" * 64)


def test_what_is_wrong_with_a_claim_is_told(
    target: Path, bench: Workbench, permanent: Callable[..., Any]
) -> None:
    with permanent("pvc://claim/a is not mounted"):
        verify(target, bench, "a")
    target.mkdir()
    with permanent("holds no file"):
        verify(target, bench, "a")
    (target / "out").symlink_to("/etc/passwd")
    with permanent("leads out"):
        verify(target, bench, "a")


def test_an_archive_on_a_claim_must_be_unpacked_there(
    target: Path, bench: Workbench, permanent: Callable[..., Any]
) -> None:
    target.write_bytes(b"an archive mounted as a file")
    with permanent("unpack it on the claim"):
        verify(target, bench, "m.tar.gz")


def test_a_claim_for_triton_must_be_laid_out_already(
    target: Path, bench: Workbench, permanent: Callable[..., Any]
) -> None:
    (target / "1").mkdir(parents=True)
    (target / "1" / "model.onnx").write_bytes(b"weights")
    with permanent("model repository", "fraud/1/"):
        verify(target, bench, layout="triton", model_name="fraud")
    (target / "fraud").mkdir()
    (target / "1").rename(target / "fraud" / "1")
    assert verify(target, bench, layout="triton", model_name="fraud").files == 1
