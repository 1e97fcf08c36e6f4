"""Labels that come late: predictions wait for them in a table of fixed size.

A prediction is found by the id of its request. The table is set-associative: an id has four places,
and when all are taken the oldest prediction makes room. So memory is bounded exactly, and nothing
is ever swept. Ids are kept as keyed 64-bit hashes only.
"""

from __future__ import annotations

import secrets
from array import array
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any, Literal

from mooring_collector.counts import MOST_ROWS

Result = Literal["joined", "late", "unknown", "refused"]
_WAYS = 4
_LONGEST_ID = 256
_NO_CELL = 0xFFFF


class Waiting:
    """Predictions that wait for their labels: id to (revision, cells of the outputs, time)."""

    def __init__(self, limit: int, outputs: int) -> None:
        self._sets = max(1, limit // _WAYS)
        slots = self._sets * _WAYS
        self._outputs = outputs
        self._key = secrets.token_bytes(16)
        self._keys = array("Q", bytes(8 * slots))
        self._times = array("d", bytes(8 * slots))
        self._revisions = array("H", bytes(2 * slots))
        self._cells = array("H", bytes(2 * slots * outputs))

    def put(self, name: str, revision: int, cells: Sequence[int], now: float) -> None:
        """Keeps a prediction; the last one of a name counts."""
        key = self._hash(name)
        base = key % self._sets * _WAYS
        slot = base
        for place in range(base, base + _WAYS):
            if self._keys[place] in (0, key):
                slot = place
                break
            if self._times[place] < self._times[slot]:
                slot = place
        self._keys[slot], self._times[slot], self._revisions[slot] = key, now, revision
        start = slot * self._outputs
        for place, cell in enumerate(cells):
            self._cells[start + place] = cell if 0 <= cell < _NO_CELL else _NO_CELL

    def take(self, name: str) -> tuple[int, tuple[int, ...], float] | None:
        """Gives a prediction and forgets it; None when it is not there."""
        key = self._hash(name)
        base = key % self._sets * _WAYS
        for slot in range(base, base + _WAYS):
            if self._keys[slot] == key:
                self._keys[slot] = 0
                self._times[slot], when = 0.0, self._times[slot]
                start = slot * self._outputs
                cells = tuple(
                    -1 if cell == _NO_CELL else cell
                    for cell in self._cells[start : start + self._outputs]
                )
                return self._revisions[slot], cells, when
        return None

    def _hash(self, name: str) -> int:
        text = name.encode("utf-8", "surrogatepass")
        return int.from_bytes(blake2b(text, digest_size=8, key=self._key).digest(), "little") or 1


def slot_name(request: str, row: int, copy: bool) -> str:
    """The name of one row's prediction; a copy of the request has predictions of its own."""
    return f"{'c' if copy else 'l'}{row}/{request}"


@dataclass(frozen=True, slots=True)
class Feedback:
    """One label: of a row of a request by its id, or with the score that it belongs to."""

    label: str
    request: str = ""
    row: int = 0
    revision: str = ""
    output: str = ""
    score: Any = None


class InvalidFeedback(ValueError):
    """One piece of feedback that cannot be taken; the message is a sentence for its sender."""


def read_feedback(raw: Any) -> list[Feedback]:
    """One object of ``POST /feedback``: several rows of one request make several labels.

    Raises:
        InvalidFeedback: it is none.
    """
    if not isinstance(raw, dict):
        raise InvalidFeedback("feedback is an object with id and label")
    request, revision, output = (raw.get(key, "") for key in ("id", "revision", "output"))
    if not all(isinstance(one, str) for one in (request, revision, output)):
        raise InvalidFeedback("id, revision and output are texts")
    if len(request) > _LONGEST_ID:
        raise InvalidFeedback(f"an id has at most {_LONGEST_ID} characters")
    if "score" in raw:
        if not revision:
            raise InvalidFeedback("feedback with a score names its revision")
        score = raw["score"]
        if not isinstance(score, bool | int | float | str):
            raise InvalidFeedback("a score is a number or a text")
        return [Feedback(_label(raw.get("label")), "", 0, revision, output, score)]
    if not request:
        raise InvalidFeedback("feedback has neither the id of a request nor a score")
    labels = raw.get("labels", [raw.get("label")])
    if not isinstance(labels, list) or not 0 < len(labels) <= MOST_ROWS:
        raise InvalidFeedback(f"labels are a list of 1 to {MOST_ROWS}")
    return [
        Feedback(_label(label), request, row)
        for row, label in enumerate(labels)
        if label is not None or len(labels) == 1
    ]


def _label(raw: Any) -> str:
    if isinstance(raw, bool):
        return "1" if raw else "0"
    if isinstance(raw, float) and raw.is_integer() and abs(raw) < 1e9:
        raw = int(raw)
    if isinstance(raw, int) or (isinstance(raw, str) and 0 < len(raw) <= 64):
        return str(raw)[:64]
    raise InvalidFeedback("a label is a class: a text of 1 to 64 characters, a whole number, true "
                          "or false")  # fmt: skip


class Outcomes:
    """Labels by the cell of the score that they belong to."""

    def __init__(self, names: int) -> None:
        self._names = names
        self.counts: Counter[tuple[str, int, str]] = Counter()
        self._labels: set[str] = set()

    def add(self, output: str, cell: int, label: str) -> None:
        """Counts one. Labels come from outside, so beyond a number of them they are "(other)"."""
        if label not in self._labels:
            if len(self._labels) >= self._names:
                label = "(other)"
            else:
                self._labels.add(label)
        self.counts[output, cell, label] += 1
