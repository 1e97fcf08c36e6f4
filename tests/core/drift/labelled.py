"""A score with labels: a reference that knows what it meant, and windows of labels that came."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import cache

import numpy as np
from tests.core.drift.collected import HOUR, STABLE, cells, spec
from tests.core.drift.collected import reference as of_the_data

from mooring.core.drift.arrays import FloatArray
from mooring.core.drift.reference import Calibration, Reference
from mooring.core.drift.watch import Watch
from mooring.core.telemetry import Cells, Counted

Meaning = Callable[[FloatArray], FloatArray]
Span = tuple[float, float]

#: The score of the reference lies between 0 and 1, and mostly below ½.
USUAL = (2.0, 5.0)
WATCH = Watch(spec(groundTruth={"maturity": "2h"}), STABLE)


def meant(score: FloatArray) -> FloatArray:
    """P(1 | score) in the reference: calibrated, and a bit steeper than the score."""
    return np.asarray(np.clip(0.5 + 1.6 * (score - 0.5), 0.02, 0.98))


def flipped(share: float) -> Meaning:
    """This share of all labels says the opposite."""
    return lambda score: meant(score) * (1 - share) + (1 - meant(score)) * share


@cache
def reference(seed: int = 1, rows: int = 20_000) -> Reference:
    """A reference of the data, and labels of so many rows of a draw of its own."""
    known = of_the_data()
    chance = np.random.default_rng([seed, 11])
    labelled, positives = drawn(chance, rows, meant, USUAL)
    size = known.outputs[0].grid.cells
    return replace(
        known, calibration=Calibration("score", padded(labelled, size), padded(positives, size))
    )


def padded(counts: FloatArray, size: int) -> FloatArray:
    return np.concatenate([counts, np.zeros(size - counts.size)])


def drawn(
    chance: np.random.Generator, rows: int, meaning: Meaning, scores: Span = USUAL
) -> tuple[FloatArray, FloatArray]:
    """Labels and those that are 1, per ordered cell of the score."""
    grid = of_the_data().outputs[0].grid
    score = chance.beta(*scores, rows)
    places = grid.numeric_cells(score)
    ones = chance.random(rows) < meaning(score)
    count = grid.ordered
    return (
        np.bincount(places, minlength=count)[:count].astype(float),
        np.bincount(places[ones], minlength=count)[:count].astype(float),
    )


def labels(
    seed: object,
    rows: int,
    meaning: Meaning = meant,
    scores: Span = USUAL,
    *,
    revision: str = STABLE,
    kept: FloatArray | None = None,
) -> dict[str, dict[tuple[str, str, str], Cells]]:
    """``Counted.outcomes`` of a window; ``kept``: which share of each cell's labels comes."""
    chance = np.random.default_rng(seed)  # type: ignore[arg-type]
    labelled, ones = drawn(chance, rows, meaning, scores)
    zeros = labelled - ones
    if kept is not None:
        ones = chance.binomial(ones.astype(int), kept).astype(float)
        zeros = chance.binomial(zeros.astype(int), kept).astype(float)
    return {
        of_the_data().grid_hash: {
            (revision, "score", "1"): cells(ones),
            (revision, "score", "0"): cells(zeros),
        }
    }


def span(hour: int) -> Span:
    return hour * HOUR, (hour + 1) * HOUR


def came(seed: object, rows: int, meaning: Meaning = meant, scores: Span = USUAL) -> Counted:
    """A window in which labels came, and nothing else."""
    return Counted(scrapes=240, outcomes=labels(seed, rows, meaning, scores))
