"""What a SavedModel can be asked, read from its file without TensorFlow.

TensorFlow Serving loads a SavedModel that has no signature, reports it as available, and then
refuses every request. So it is looked at before: a few length-prefixed fields of protobuf's wire
format, whose numbers stand in tensorflow/core/protobuf/{saved_model,meta_graph}.proto.
"""

from __future__ import annotations

import mmap
from collections.abc import Iterator
from pathlib import Path

from mooring_fetcher.failure import PermanentFailure

FILE = "saved_model.pb"

_META_GRAPHS = 2
_META_INFO, _SIGNATURES = 1, 5
_TAGS = 4
_KEY = 1
_SERVE = "serve"
_INTERNAL = "__saved_model"


def check_servable(path: Path, where: str) -> None:
    """Raises PermanentFailure when the SavedModel at `path` has nothing that a client could call.

    A file that is no SavedModel at all passes: the server says better than this what ails it.
    """
    try:
        signatures = serving_signatures(path)
    except (ValueError, OSError):
        return
    if signatures is None:
        raise PermanentFailure(
            f"The SavedModel in {where} has no graph with the tag {_SERVE!r}, so TensorFlow "
            "Serving cannot serve it: export it with tf.saved_model.save."
        )
    if not signatures:
        raise PermanentFailure(
            f"The SavedModel in {where} has no signature, so every request would be refused: "
            "export it with tf.saved_model.save(…, signatures={'serving_default': …})."
        )


def serving_signatures(path: Path) -> tuple[str, ...] | None:
    """Names of the signatures of the graph with the tag `serve`; None when there is no such graph.

    Raises ValueError when the bytes are not protobuf, OSError when they cannot be read.
    """
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        for graph in _messages(data, 0, len(data), _META_GRAPHS):
            tags = {
                _text(data, tag)
                for info in _messages(data, *graph, _META_INFO)
                for tag in _messages(data, *info, _TAGS)
            }
            if _SERVE not in tags:
                continue
            names = (
                _text(data, key)
                for entry in _messages(data, *graph, _SIGNATURES)
                for key in _messages(data, *entry, _KEY)
            )
            return tuple(sorted(name for name in names if not name.startswith(_INTERNAL)))
    return None


def _text(data: mmap.mmap, span: tuple[int, int]) -> str:
    return data[span[0] : span[1]].decode(errors="replace")


def _messages(data: mmap.mmap, begin: int, end: int, wanted: int) -> Iterator[tuple[int, int]]:
    """Begin and end of each length-prefixed field of that number; the others are skipped."""
    at = begin
    while at < end:
        key, at = _varint(data, at, end)
        kind = key & 7
        if kind == 0:
            _, at = _varint(data, at, end)
            continue
        if kind == 2:
            size, at = _varint(data, at, end)
        elif kind in (1, 5):
            size = 8 if kind == 1 else 4
        else:
            raise ValueError(f"wire type {kind}")
        if at + size > end:
            raise ValueError("a field that is longer than what holds it")
        if kind == 2 and key >> 3 == wanted:
            yield at, at + size
        at += size


def _varint(data: mmap.mmap, at: int, end: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 70, 7):
        if at >= end:
            raise ValueError("a number that is cut off")
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
    raise ValueError("a number that is too long")
