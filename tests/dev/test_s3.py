from __future__ import annotations

from pathlib import Path

import pytest

from mooring_dev.errors import DevError
from mooring_dev.s3 import S3Server

pytestmark = pytest.mark.s3


def test_what_was_put_can_be_read(tmp_path: Path) -> None:
    with S3Server.start(tmp_path) as server:
        uri = server.put("models", "fraud/v 1/model+a.onnx", b"weights")
        assert uri == "s3://models/fraud/v 1/model+a.onnx"
        assert server.get("models", "fraud/v 1/model+a.onnx") == b"weights"


def test_a_folder_is_stored_with_its_paths(tmp_path: Path) -> None:
    folder = tmp_path / "model"
    (folder / "1").mkdir(parents=True)
    (folder / "1" / "model.bin").write_bytes(b"1")
    (folder / "labels.txt").write_bytes(b"a")
    with S3Server.start(tmp_path / "s3") as server:
        assert server.put_tree("models", "m/v1", folder) == "s3://models/m/v1"
        assert server.get("models", "m/v1/1/model.bin") == b"1"
        assert server.get("models", "m/v1/labels.txt") == b"a"


def test_what_was_deleted_is_gone_and_the_error_says_so(tmp_path: Path) -> None:
    with S3Server.start(tmp_path) as server:
        server.put("models", "a", b"1")
        server.delete("models", "a")
        with pytest.raises(DevError, match="NoSuchKey"):
            server.get("models", "a")


def test_wrong_credentials_are_refused(tmp_path: Path) -> None:
    with S3Server.start(tmp_path) as server:
        wrong = S3Server(tmp_path, server.endpoint, server.access_key, "wrong", server.claim)
        with pytest.raises(DevError, match="403"):
            wrong.get("models", "a")
