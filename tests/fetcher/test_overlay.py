"""What is seen of layers laid one over the other."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.fetcher.registry_client import tar

from mooring_fetcher.digest import FileDigest
from mooring_fetcher.fetch import Run
from mooring_fetcher.limits import Limits
from mooring_fetcher.overlay import Overlay
from mooring_fetcher.store import Listing, RemoteFile
from mooring_fetcher.unpacking import unpacked


def seen(*layers: str) -> dict[str, int]:
    """Which layer (from 0) each visible path is from; a layer is its paths with blanks between."""
    overlay = Overlay()
    for index, layer in enumerate(layers):
        files = [(FileDigest(path, index, ""), Path(path)) for path in layer.split()]
        overlay.layer(files)
    return {file.path: file.size for file in overlay.files}


@pytest.mark.parametrize(
    ("layers", "left"),
    [
        (["a b", "b c"], {"a": 0, "b": 1, "c": 1}),
        (["a b", ".wh.a"], {"b": 0}),
        (["d/a d/b", ".wh.d"], {}),
        (["d/a d/b e", "d/.wh..wh..opq d/c"], {"e": 0, "d/c": 1}),
        (["a d/b", ".wh..wh..opq c"], {"c": 1}),
        # A file takes a folder's place, and the other way round.
        (["d/a d/b", "d"], {"d": 1}),
        (["d", "d/a"], {"d/a": 1}),
        # A whiteout hides what is below its layer, not what is in it.
        (["d/a", "d/b .wh.d"], {"d/b": 1}),
        (["d/a", ".wh.d", "d/c"], {"d/c": 2}),
        (["da/x d/a", ".wh.d"], {"da/x": 0}),
    ],
)
def test_what_is_seen_of_layers(layers: list[str], left: dict[str, int]) -> None:
    assert seen(*layers) == left


@pytest.mark.parametrize(
    ("limits", "part"),
    [(Limits(max_bytes=2500), "more than 2.4 KiB"), (Limits(max_files=2), "more than 2 files")],
)
def test_the_limits_hold_for_all_layers_together_also_for_what_is_hidden(
    tmp_path: Path, permanent: Callable[..., Any], limits: Limits, part: str
) -> None:
    """Three layers, each with the same file of 1000 bytes: one is seen, three are on the disk."""
    layers, files, sources = [], [], {}
    for index in range(3):
        name, at = f"layer-{index:03d}", tmp_path / f"{index}"
        at.write_bytes(tar({"model.bin": bytes([index]) * 1000}))
        layers.append(RemoteFile(name, name, at.stat().st_size, "v", None, "tar.gz"))
        files.append(FileDigest(name, at.stat().st_size, ""))
        sources[name] = at
    listing = Listing(False, tuple(layers), "sha256:x")
    with permanent(part):
        unpacked("the image", listing, files, sources, tmp_path, Run(limits=limits))
