"""What is seen of layers laid one over the other."""

from __future__ import annotations

from pathlib import Path

import pytest

from mooring_fetcher.digest import FileDigest
from mooring_fetcher.overlay import Overlay


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
