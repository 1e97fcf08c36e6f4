"""The digest: fixed for ever, the same everywhere."""

from __future__ import annotations

import hashlib
import json
import os
import random
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from mooring.cli.digest import digest
from mooring_fetcher.digest import FileDigest, digest_path, parse_digest, tree_digest
from mooring_fetcher.limits import Limits

SHELL = r"""
cd "$1" && find . -type f -printf '%P\n' | LC_ALL=C sort | while IFS= read -r f; do
  printf '%s\0%s\0%s\n' "$f" "$(stat -c %s "$f")" "$(sha256sum <"$f" | cut -c-64)"
done | sha256sum | cut -c-64
"""


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    root = tmp_path / "model"
    for name, body in {
        "model.onnx": b"weights",
        "a/b.txt": b"",
        "a.txt": b"sorts between a and a/b when sorted by parts",
        "ünïcode/ж.bin": b"\0\1",
    }.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(body)
    return root


def test_the_digest_of_a_file_is_its_sha256(tmp_path: Path) -> None:
    file = tmp_path / "model.onnx"
    file.write_bytes(b"weights")
    found = digest_path(file)
    assert found.digest == "sha256:" + hashlib.sha256(b"weights").hexdigest()
    assert (found.size, found.files) == (7, 1)


def test_the_digest_of_a_folder_is_what_the_documented_shell_command_prints(tree: Path) -> None:
    shell = subprocess.run(
        ["bash", "-c", SHELL, "bash", str(tree)], capture_output=True, text=True, check=True
    )
    assert digest_path(tree).digest == "sha256:" + shell.stdout.strip()


def test_the_digest_of_a_folder_never_changes_between_versions() -> None:
    files = [
        FileDigest("model.onnx", 7, hashlib.sha256(b"weights").hexdigest()),
        FileDigest("a/b.txt", 0, hashlib.sha256(b"").hexdigest()),
    ]
    expected = hashlib.sha256(
        b"a/b.txt\x000\x00e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855\n"
        b"model.onnx\x007\x00" + hashlib.sha256(b"weights").hexdigest().encode() + b"\n"
    ).hexdigest()
    assert tree_digest(files).digest == f"sha256:{expected}"


PATHS = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), min_size=1)
FILES = st.lists(
    st.builds(FileDigest, PATHS, st.integers(0, 9), st.sampled_from(["0" * 64, "1" * 64])),
    max_size=5,
    unique_by=lambda file: file.path,
)


@given(FILES, st.randoms())
def test_the_order_of_files_does_not_matter(files: list[FileDigest], dice: random.Random) -> None:
    shuffled = list(files)
    dice.shuffle(shuffled)
    assert tree_digest(shuffled) == tree_digest(files)


@given(FILES, FILES)
def test_two_different_trees_never_share_a_digest(
    one: list[FileDigest], other: list[FileDigest]
) -> None:
    same = tree_digest(one).digest == tree_digest(other).digest
    assert same == (set(one) == set(other))


def test_permissions_times_and_empty_folders_do_not_count(tree: Path) -> None:
    before = digest_path(tree)
    (tree / "empty").mkdir()
    (tree / "model.onnx").chmod(0o755)
    os.utime(tree / "model.onnx", (0, 0))
    assert digest_path(tree) == before


def test_a_link_counts_as_the_file_it_names_but_not_if_it_leads_out_of_a_claim(
    tree: Path, tmp_path: Path, permanent: Callable[..., Any]
) -> None:
    plain = digest_path(tree)
    outside = tmp_path / "blob"
    (tree / "model.onnx").rename(outside)
    (tree / "model.onnx").symlink_to(outside)
    assert digest_path(tree) == plain
    with permanent("leads out of the model's folder"):
        digest_path(tree, inside_only=True)


def test_what_has_no_digest_is_named(tmp_path: Path, permanent: Callable[..., Any]) -> None:
    with permanent("does not exist"):
        digest_path(tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    with permanent("holds no file"):
        digest_path(tmp_path / "empty")
    (tmp_path / "dangling").mkdir()
    (tmp_path / "dangling" / "x").symlink_to("gone")
    with permanent("link to nothing"):
        digest_path(tmp_path / "dangling")
    (tmp_path / "pipes").mkdir()
    os.mkfifo(tmp_path / "pipes" / "p")
    with permanent("device, pipe or socket"):
        digest_path(tmp_path / "pipes")
    (tmp_path / "looped").mkdir()
    (tmp_path / "looped" / "self").symlink_to(".")
    with permanent("link to a folder"):
        digest_path(tmp_path / "looped")


def test_limits_hold_for_local_folders_too(tree: Path, permanent: Callable[..., Any]) -> None:
    with permanent("more than 2 files"):
        digest_path(tree, limits=Limits(max_files=2))
    with permanent("more than 3 B"):
        digest_path(tree, limits=Limits(max_bytes=3))


@pytest.mark.parametrize(
    "text", ["sha256:abc", "md5:" + "0" * 32, "0" * 64, "sha256:" + "A" * 64, "sha256:" + "0" * 65]
)
def test_a_malformed_digest_is_refused(text: str, permanent: Callable[..., Any]) -> None:
    with permanent("is not a digest"):
        parse_digest(text, "spec.model.digest")


def test_a_blank_digest_is_none() -> None:
    assert parse_digest(" \n", "x") is None
    assert parse_digest("sha256:" + "0" * 64 + "\n", "x") == "sha256:" + "0" * 64


def test_the_command_prints_what_the_fetcher_verifies(tree: Path) -> None:
    expected = digest_path(tree)
    plain = CliRunner().invoke(digest, [str(tree)])
    assert (plain.exit_code, plain.stdout) == (0, expected.digest + "\n")
    as_file_uri = CliRunner().invoke(digest, [f"file://{tree}"])
    assert as_file_uri.stdout == plain.stdout
    data = json.loads(CliRunner().invoke(digest, [str(tree), "-o", "json"]).stdout)
    assert data == {
        "digest": expected.digest,
        "bytes": expected.size,
        "files": expected.files,
    }


def test_the_command_says_in_one_line_why_there_is_no_digest(tmp_path: Path) -> None:
    result = CliRunner().invoke(digest, [str(tmp_path / "nowhere")])
    assert result.exit_code == 3
    assert result.stdout == ""
    assert "does not exist" in result.stderr
    assert result.stderr.count("\n") == 1
