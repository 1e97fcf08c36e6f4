"""All that one collector has counted, and how an exchange is counted.

One thread (the event loop's) reads and writes it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, get_args

import numpy as np

from mooring_collector.bodies import read_answer, read_request
from mooring_collector.counts import Histograms, Outputs, Sizes
from mooring_collector.errors import OversizedBody, UnreadableBody
from mooring_collector.extraction import Extractor, Table, digest
from mooring_collector.feedback import (
    Feedback,
    InvalidFeedback,
    Label,
    Outcomes,
    Prediction,
    Result,
    Waiting,
    held,
    slot_name,
)
from mooring_collector.regression import ErrorSums
from mooring_collector.sampling import Samples
from mooring_collector.settings import Bounds, Column, Settings
from mooring_collector.tensors import rows_of

Traffic = Literal["live", "shadow", "match"]
"""What answered: the split traffic, copies of it, or requests chosen by their headers."""
Kind = Literal["answered", "failed", "unparsed", "dropped", "sampled_out"]
OTHER = "(other)"
_ANSWER = "(answer)"


@dataclass(slots=True)
class Exchange:
    """A request and its answer, as they were copied.

    ``broken``: parts of it were not kept, so it cannot be read.
    """

    request: bytes = b""
    answer: bytes = b""
    request_bytes: int = 0
    answer_bytes: int = 0
    status: int = 0
    request_id: str = ""
    header_bytes: int = 0
    broken: bool = False


@dataclass(slots=True)
class Revision:
    """The counts of one revision.

    Attributes:
        number: tells it from all others of this process; none is given twice.
        again: whether counts of the same revision may have been dropped before, so that these are
            a new life of its series, which begin at 0.
        used: when it had its last exchange, in uses of any revision.
    """

    number: int
    again: bool
    features: Histograms
    outputs: Mapping[Traffic, Outputs]
    outcomes: Outcomes
    requests: Counter[tuple[Traffic, Kind]] = field(default_factory=Counter)
    rows: int = 0
    request_sizes: Sizes = field(default_factory=Sizes)
    answer_sizes: Sizes = field(default_factory=Sizes)
    feedback: Counter[Result] = field(default_factory=Counter)
    errors: dict[str, ErrorSums] = field(default_factory=dict)
    used: int = 0

    def label(self, found: Prediction, feedback: Feedback) -> tuple[int, ...]:
        """Counts the label of one output, or of all, and gives the cells that wait for theirs yet.

        Raises:
            InvalidFeedback: there is no such output, or it takes no such label.
        """
        columns = self.outputs["live"].columns()
        if feedback.output and all(one.name != feedback.output for one in columns):
            raise _unknown_output(columns)
        numbers = (*found.numbers, *[None] * (len(columns) - len(found.numbers)))
        places, rest = [], []
        for column, cell, number in zip(columns, found.cells, numbers, strict=True):
            meant = feedback.output in ("", column.name)
            rest.append(-1 if meant else cell)
            if meant and cell >= 0:
                places.append((column, cell, number))
        self.take(places, feedback.label)
        return tuple(rest)

    def take(self, places: Sequence[tuple[Column, int, float | None]], label: Label) -> None:
        """Counts a label of a prediction, given as (output, cell, number) for each output.

        Raises:
            InvalidFeedback: no output takes such a label; nothing is counted.
        """
        problems, taken = [], False
        for column, cell, number in places:
            found = held(column, label, number)
            if isinstance(found, str):
                problems.append(found)
                continue
            taken = True
            self.outcomes.add(column, cell, found.label)
            if found.error is not None and column.grid is not None:
                if column.name not in self.errors:
                    self.errors[column.name] = ErrorSums(column.grid)
                self.errors[column.name].add(cell, found.error)
        if problems and not taken:
            raise InvalidFeedback(problems[0])


class Telemetry:
    """The counts of every revision of one deployment."""

    def __init__(self, settings: Settings, bounds: Bounds, seed: int | None = None) -> None:
        self.settings = settings
        self._bounds = bounds
        self._random = np.random.default_rng(seed)
        self._features = Extractor(settings.features, settings.ordered)
        answers = [one.name for one in settings.outputs]
        self._outputs = Extractor(settings.outputs, answers, whole=False)
        self.samples = Samples(settings.reservoir, self._features, self._outputs)
        self._waiting: Waiting | None = None
        if settings.maturity > 0:
            numbers = len(self._outputs.numeric)
            self._waiting = Waiting(settings.labels, numbers + len(self._outputs.texts), numbers)
        self.revisions: dict[str, Revision] = {}
        self._begun = self._uses = 0
        self._dropped = False

    def revision(self, name: str) -> Revision:
        """The counts of a revision, which is used now; what is of no revision is under ``""``.

        A revision more than there may be takes the place of the one that went longest without an
        exchange: a model is rolled out more often than its collector starts, and the newest
        revision is the one to be watched.
        """
        found = self.revisions.get(name)
        if found is None:
            found = self._begin(name)
        self._uses += 1
        found.used = self._uses
        return found

    def _begin(self, name: str) -> Revision:
        kept = [one for one in self.revisions if one]
        if name and len(kept) >= self._bounds.revisions:
            del self.revisions[min(kept, key=lambda one: self.revisions[one].used)]
            self._dropped = True
        names = self._bounds.names
        found = self.revisions[name] = Revision(
            number=self._begun,
            # Of all that come after a drop, since whose names were dropped is not kept.
            again=self._dropped,
            features=Histograms(self._features, names),
            outputs={kind: Outputs(self._outputs, names) for kind in get_args(Traffic)},
            outcomes=Outcomes(names),
        )
        self._begun += 1
        return found

    def sampled(self) -> bool:
        """Whether to look at the next exchange."""
        share = self.settings.sample
        return share >= 1 or bool(self._random.random() < share)

    # --- exchanges ------------------------------------------------------------------------------

    def count(self, name: str, traffic: Traffic, exchange: Exchange, now: float) -> Kind:
        """Counts an exchange that has ended, whatever came of it."""
        revision = self.revision(name)
        revision.request_sizes.observe(exchange.request_bytes)
        if exchange.answer_bytes:
            revision.answer_sizes.observe(exchange.answer_bytes)
        kind = self._read(name, revision, traffic, exchange, now)
        revision.requests[traffic, kind] += 1
        return kind

    def pass_over(self, name: str, traffic: Traffic, kind: Kind) -> None:
        """Counts an exchange that was not looked at."""
        self.revision(name).requests[traffic, kind] += 1

    def _read(
        self, name: str, revision: Revision, traffic: Traffic, exchange: Exchange, now: float
    ) -> Kind:
        if not 200 <= exchange.status < 300:
            return "failed"
        if exchange.broken:
            return "dropped"
        protocol = self.settings.protocol
        try:
            tensors, own_id = read_request(protocol, exchange.request, exchange.header_bytes)
            rows = rows_of(tensors)
            asked = self._features.read(tensors) if traffic == "live" else None
        except OversizedBody:
            return "dropped"
        except UnreadableBody:
            return "unparsed"
        if asked is not None:
            revision.rows += asked.rows
            revision.features.add(asked)
        outputs = revision.outputs[traffic]
        answer: Table | None = None
        try:
            answer = self._outputs.read(read_answer(protocol, exchange.answer, rows))
        except UnreadableBody:
            outputs.violations[_ANSWER, "schema"] += max(rows, 1)
            return "answered"
        finally:
            if asked is not None:
                self.samples.add(name, asked, answer)
        cells = outputs.add(answer)
        request = own_id or exchange.request_id
        if self._waiting is not None and request and cells:
            for row, (found, numbers) in enumerate(
                zip(cells, answer.numbers.tolist(), strict=True)
            ):
                slot = slot_name(request, row, traffic == "shadow")
                self._waiting.put(slot, revision.number, found, now, numbers)
        return "answered"

    # --- labels ---------------------------------------------------------------------------------

    def label(self, feedback: Feedback, now: float) -> Result:
        """Counts one label.

        Raises:
            InvalidFeedback: it is not of the kind that the outputs have, which is counted. Its
                prediction goes on waiting for another.
        """
        if feedback.score is not None:
            return self._label_score(feedback)
        if self._waiting is None:
            self.refuse()
            raise InvalidFeedback(
                "no prediction waits for its label: set spec.monitoring.groundTruth, or give the "
                "revision and its score"
            )
        found = self._join(feedback, now, copy=False)
        try:
            if self._join(feedback, now, copy=True) == "joined":
                found = "joined"
        except InvalidFeedback:
            if found != "joined":  # what a candidate answered to a copy is not its sender's matter
                raise
        if found == "unknown":
            self.revision("").feedback["unknown"] += 1
        return found

    def _join(self, feedback: Feedback, now: float, *, copy: bool) -> Result:
        if self._waiting is None:
            return "unknown"
        name = slot_name(feedback.request, feedback.row, copy)
        found = self._waiting.take(name)
        if found is None:
            return "unknown"
        made_by = (one for one in self.revisions.values() if one.number == found.revision)
        revision = next(made_by, None)
        if revision is None:
            return "unknown"  # its revision was dropped while the prediction waited
        if now - found.when > self.settings.maturity:
            revision.feedback["late"] += 1
            return "late"
        try:
            rest = revision.label(found, feedback)
        except InvalidFeedback:
            self._put_back(name, found, found.cells)
            self._refused(revision)
            raise
        if max(rest, default=-1) >= 0:
            self._put_back(name, found, rest)
        if feedback.output and rest == found.cells:
            return "unknown"  # this output has its label
        revision.feedback["joined"] += 1
        return "joined"

    def _put_back(self, name: str, found: Prediction, cells: Sequence[int]) -> None:
        if self._waiting is not None:
            self._waiting.put(name, found.revision, cells, found.when, found.numbers)

    def _label_score(self, feedback: Feedback) -> Result:
        revision = self.revisions.get(feedback.revision)
        if revision is None:
            self.revision("").feedback["unknown"] += 1
            return "unknown"
        try:
            revision.take([self._place(revision, feedback)], feedback.label)
        except InvalidFeedback:
            self._refused(revision)
            raise
        revision.feedback["joined"] += 1
        return "joined"

    def _place(self, revision: Revision, feedback: Feedback) -> tuple[Column, int, float | None]:
        """The output that the score of this feedback is of, its cell, and it as a number."""
        columns = revision.outputs["live"].columns()
        known = [one.name for one in columns if one.grid is not None]
        wanted = [name for name in known if not feedback.output or name == feedback.output]
        if len(wanted) != 1:
            raise _unknown_output(columns)
        column = next(one for one in columns if one.name == wanted[0])
        grid, score = column.grid, feedback.score
        assert grid is not None
        if not column.numeric:
            text = str(score)
            return column, grid.category(digest(text) if column.hashed else text), None
        if isinstance(score, str):
            raise InvalidFeedback(f"output {column.name} is a number: a score of it is one")
        number = _as_float(score)
        return column, grid.cell(number), number

    def _refused(self, revision: Revision) -> None:
        revision.feedback["refused"] += 1

    def refuse(self) -> None:
        """Counts feedback that cannot be read."""
        self._refused(self.revision(""))

    # --- what is shown --------------------------------------------------------------------------

    def flush(self) -> None:
        """Bins all rows that wait."""
        for revision in self.revisions.values():
            revision.features.flush()
            for outputs in revision.outputs.values():
                outputs.flush()


def _unknown_output(columns: Sequence[Column]) -> InvalidFeedback:
    known = ", ".join(one.name for one in columns if one.grid is not None)
    return InvalidFeedback(f"output is one of {known or 'none'}")


def _as_float(score: float) -> float:
    try:
        return float(score)
    except OverflowError:  # of an integer of hundreds of digits
        return float("inf")
