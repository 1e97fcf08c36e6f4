"""Labels that come late: predictions wait for them in a table of fixed size.

A prediction is found by the id of its request. The table is set-associative: an id has four places,
and when all are taken the oldest prediction makes room. So memory is bounded exactly, and nothing
is ever swept. Ids are kept as keyed 64-bit hashes only.

A label is a class or a number, and which of them an output takes, its grid says: see :func:`held`.
"""

from __future__ import annotations

import math
import secrets
from array import array
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any, Literal

from mooring_collector.counts import MOST_ROWS
from mooring_collector.settings import Column

Result = Literal["joined", "late", "unknown", "refused"]
_WAYS = 4
_LONGEST_ID = 256
_NO_CELL = 0xFFFF
#: What the table may take: a million predictions of a model with four outputs.
_MOST_BYTES = 64 << 20
_TRUTH = frozenset({"0", "1", "true", "false", "True", "False"})
#: The class of all labels that are numbers and no truth values: they have no series of their own.
NUMBER = "(number)"


@dataclass(frozen=True, slots=True)
class Prediction:
    """One row's prediction.

    Attributes:
        revision: number of the revision that made it.
        cells: the cell of each output, numbers first; -1 is none.
        when: seconds.
        numbers: the outputs that are numbers, as they were.
    """

    revision: int
    cells: tuple[int, ...]
    when: float
    numbers: tuple[float, ...] = ()


class Waiting:
    """Predictions that wait for their labels, by id: at most ``limit`` of them, in 64 MiB.

    ``outputs`` are all that have cells; the first ``numbers`` of them are kept as numbers, too.
    """

    def __init__(self, limit: int, outputs: int, numbers: int = 0) -> None:
        most = _MOST_BYTES // (20 + 2 * outputs + 8 * numbers)
        self._sets = max(1, min(limit, most) // _WAYS)
        slots = self._sets * _WAYS
        self._outputs, self._width = outputs, numbers
        self._key = secrets.token_bytes(16)
        self._keys = array("Q", bytes(8 * slots))
        # A free place is older than any prediction.
        self._times = array("d", [-math.inf]) * slots
        self._revisions = array("I", bytes(4 * slots))
        self._cells = array("H", bytes(2 * slots * outputs))
        self._numbers = array("d", bytes(8 * slots * numbers))

    def put(
        self,
        name: str,
        revision: int,
        cells: Sequence[int],
        now: float,
        numbers: Sequence[float] = (),
    ) -> None:
        """Keeps a prediction; the last one of a name counts."""
        key = self._hash(name)
        base = key % self._sets * _WAYS
        slot = base
        for place in range(base, base + _WAYS):
            # Its own place first, wherever it is: a free one before it would keep both predictions.
            if self._keys[place] == key:
                slot = place
                break
            if self._times[place] < self._times[slot]:
                slot = place
        self._keys[slot], self._times[slot], self._revisions[slot] = key, now, revision
        start = slot * self._outputs
        for place, cell in enumerate(cells):
            self._cells[start + place] = cell if 0 <= cell < _NO_CELL else _NO_CELL
        start = slot * self._width
        for place, number in enumerate(numbers):
            self._numbers[start + place] = number

    def take(self, name: str) -> Prediction | None:
        """Gives a prediction and forgets it; None when it is not there."""
        key = self._hash(name)
        base = key % self._sets * _WAYS
        for slot in range(base, base + _WAYS):
            if self._keys[slot] == key:
                self._keys[slot] = 0
                self._times[slot], when = -math.inf, self._times[slot]
                start = slot * self._outputs
                cells = tuple(
                    -1 if cell == _NO_CELL else cell
                    for cell in self._cells[start : start + self._outputs]
                )
                start = slot * self._width
                numbers = tuple(self._numbers[start : start + self._width])
                return Prediction(self._revisions[slot], cells, when, numbers)
        return None

    def _hash(self, name: str) -> int:
        text = name.encode("utf-8", "surrogatepass")
        return int.from_bytes(blake2b(text, digest_size=8, key=self._key).digest(), "little") or 1


def slot_name(request: str, row: int, copy: bool) -> str:
    """The name of one row's prediction; a copy of the request has predictions of its own."""
    return f"{'c' if copy else 'l'}{row}/{request}"


@dataclass(frozen=True, slots=True)
class Label:
    """What was true: a class by its name, a number, or either.

    ``text`` is empty for a number that names no class, such as 0.5; ``number`` is None for a text
    or a truth value.
    """

    text: str
    number: float | None = None


@dataclass(frozen=True, slots=True)
class Feedback:
    """One label: of a row of a request by its id, or with the score that it belongs to."""

    label: Label
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
        Feedback(_label(label), request, row, output=output)
        for row, label in enumerate(labels)
        if label is not None or len(labels) == 1
    ]


def _label(raw: Any) -> Label:
    if isinstance(raw, bool):
        return Label("1" if raw else "0")
    if isinstance(raw, str) and 0 < len(raw) <= 64:
        return Label(raw)
    if not isinstance(raw, int | float):
        raise InvalidFeedback("a label is a text of 1 to 64 characters, a number, true or false")
    try:
        number = float(raw)
    except OverflowError:
        number = math.inf
    if not math.isfinite(number):
        raise InvalidFeedback("a label that is a number is finite: leave out what is not known")
    whole = isinstance(raw, int) or (number.is_integer() and abs(number) < 1e9)
    return Label(str(int(raw))[:64] if whole else "", number)


@dataclass(frozen=True, slots=True)
class Held:
    """What a label says of one prediction: the class it counts as, and the error if it has one."""

    label: str
    error: float | None = None


def held(column: Column, label: Label, predicted: float | None) -> Held | str:
    """Holds a label against a prediction; or why that cannot be, as a sentence for its sender.

    A class is held against names and whole numbers. A number is held against numbers, and those
    that are 0 or 1, true or false, count as a score's truth, too.
    """
    if not column.numeric:
        return Held(label.text) if label.text else (
            f"output {column.name} is a class: its label is a text, a whole number, true or false, "
            f"not {label.number:g}"
        )  # fmt: skip
    if label.number is not None:
        if predicted is None or not math.isfinite(predicted):
            return f"the prediction of output {column.name} was no finite number"
        return Held(label.text if label.text in _TRUTH else NUMBER, predicted - label.number)
    if label.text in _TRUTH:
        return Held(label.text)
    return (
        f"output {column.name} is a number: its label is a number, true or false, "
        f"not the text {label.text!r}"
    )


class Outcomes:
    """Labels by the cell of the score that they belong to.

    Classes that the output itself has are always told apart, since accuracy is the share of labels
    that are the predicted class: how many there are, the reference says. Other labels come from
    outside, so each output has ``names`` of them, and what is beyond is "(other)".
    """

    def __init__(self, names: int) -> None:
        self._names = names
        self.counts: Counter[tuple[str, int, str]] = Counter()
        self._strange: dict[str, set[str]] = {}

    def add(self, output: Column, cell: int, label: str) -> None:
        """Counts one label of a prediction in that cell."""
        if output.grid is None or label not in output.grid.categories:
            label = self._told_apart(output.name, label)
        self.counts[output.name, cell, label] += 1

    def _told_apart(self, output: str, label: str) -> str:
        known = self._strange.setdefault(output, set())
        if label not in known:
            if len(known) >= self._names:
                return "(other)"
            known.add(label)
        return label
