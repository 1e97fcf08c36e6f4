"""Bodies as tables: a tensor is a matrix whose rows are the model's.

Numbers are float64 whatever they were sent as. Where not all values are numbers (texts, missing
ones, a sentence where a number should be) the matrix holds the values as they came.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import orjson
from numpy.typing import NDArray

from mooring_collector.errors import OversizedBody, UnreadableBody

Matrix = NDArray[Any]
"""Shape (rows, columns); float64 or object."""
Tensors = Mapping[str, Matrix]
UNNAMED = ""
#: More would be nobody's row, but a picture.
MOST_VALUES = 1 << 20
#: Tensors of a body, or keys of a row: each costs microseconds, and a body of short names could
#: hold the event loop for seconds. Of a model's columns 500 can be watched.
MOST_TENSORS = 4096
#: Rows of a body that are no plain tensor of numbers. Of a digit or two a million of them fit one,
#: and would hold the event loop for two seconds.
MOST_ROWS = 1 << 17
_BARE = (b"NaN", b"Infinity")
_CONVERSION = (TypeError, ValueError, OverflowError)


def read_json(body: bytes) -> Any:
    """Any JSON, and the bare NaN and Infinity that Python's own writer makes.

    Raises:
        UnreadableBody: it is not JSON.
    """
    try:
        return orjson.loads(body)
    except ValueError as error:
        if any(word in body for word in _BARE):
            try:
                return json.loads(body)
            except (ValueError, RecursionError):
                pass
        raise UnreadableBody("the body is not JSON") from error


def matrix(data: Any, rows: int | None = None) -> Matrix:
    """Nested or flat values as a matrix; without ``rows`` the outermost list counts them.

    Raises:
        UnreadableBody: the rows are of different lengths, or there are too many values.
    """
    try:
        found = np.array(data, dtype=np.float64)
    except _CONVERSION:
        found = None
    if found is None or not _plain(data, found):
        bounded((len(data) if isinstance(data, list) else 1) if rows is None else rows)
        flat: list[Any] = []
        _flatten(data, flat)
        outer = len(data) if isinstance(data, list) else 1
        found = np.empty(len(flat), dtype=object)
        found[:] = flat
        rows = outer if rows is None else rows
    elif rows is None:
        rows = found.shape[0] if found.ndim else 1
    return shaped(found, rows)


def bounded(rows: int) -> None:
    """Raises OversizedBody where there are too many rows."""
    if rows > MOST_ROWS:
        raise OversizedBody(f"the body has more than {MOST_ROWS} rows")


def shaped(values: Matrix, rows: int) -> Matrix:
    """The values as that many rows.

    Raises:
        UnreadableBody: they do not fit.
    """
    if values.size > MOST_VALUES:
        raise UnreadableBody("the tensor is too large")
    if rows <= 0:
        if values.size:
            raise UnreadableBody("the shape does not fit the data")
        return np.empty((0, 1))
    if values.size % rows:
        raise UnreadableBody("the shape does not fit the data")
    return values.reshape(rows, -1)


def _plain(data: Any, found: Matrix) -> bool:
    """Whether numpy has not made numbers of texts."""
    if not found.size:
        return True
    first = data
    while isinstance(first, list):
        first = first[0]
    # Behind a number, texts that read like one are taken for one: only "NaN" and its like are sent.
    return not isinstance(first, str)


def _flatten(data: Any, into: list[Any], depth: int = 0) -> None:
    if not isinstance(data, list):
        into.append(data)
        return
    if depth > 16 or len(into) > MOST_VALUES:
        raise UnreadableBody("the tensor is too large or too deep")
    for one in data:
        _flatten(one, into, depth + 1)


def row_tensors(rows: Sequence[Any]) -> dict[str, Matrix]:
    """A list of rows, as TensorFlow Serving and TorchServe have them: objects by key, or values.

    A key that a row lacks is missing there.
    """
    if not rows:
        return {}
    bounded(len(rows))
    if not any(isinstance(row, dict) for row in rows):
        return {UNNAMED: matrix(list(rows), len(rows))}
    keys: dict[str, None] = {}
    most = min(MOST_TENSORS, MOST_VALUES // len(rows))
    for row in rows:
        if not isinstance(row, dict):
            raise UnreadableBody("some rows are objects and some are not")
        keys.update(dict.fromkeys(row))
        if len(keys) > most:
            raise UnreadableBody("the rows have too many keys")
    found = {}
    for key in keys:
        try:
            found[key] = matrix([row.get(key) for row in rows], len(rows))
        except UnreadableBody:
            # Only of unequal rows: nothing can be said of this key alone.
            found[key] = np.full((len(rows), 1), None, dtype=object)
    return found


def rows_of(tensors: Tensors) -> int:
    """How many rows a body has: what most of its tensors say."""
    lengths = [len(values) for values in tensors.values()]
    if len(lengths) < 2:
        return lengths[0] if lengths else 0
    return max(set(lengths), key=lengths.count)
