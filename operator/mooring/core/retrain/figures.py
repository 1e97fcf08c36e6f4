"""How well the model does, from labels that came later.

Labels do not come for every prediction, and seldom evenly: those of refused loans never do. So each
figure is weighted by how often the traffic fell into a cell, and not by how often a label did. Its
bounds hold with 99.9 %, so that a look every few minutes at a day of labels finds no bad model
where there is none. An output that is a number has errors, too
(:mod:`mooring.core.retrain.errors`). Without labels accuracy is *estimated* from what scores meant
in the reference, under a name of its own, since that is blind to a world that has changed.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

import numpy as np

from mooring.api.retraining_spec import MAE, RMSE
from mooring.core.drift.arrays import FloatArray
from mooring.core.drift.outputs import estimated_accuracy
from mooring.core.drift.performance import TRUE, Outcomes, called, figures
from mooring.core.drift.reference import FeatureReference, Reference
from mooring.core.retrain.errors import Errors, mean_absolute, root_mean_squared
from mooring.core.retrain.facts import PerformanceFacts
from mooring.core.retrain.measuring import (
    ABSOLUTE,
    ACCURACY,
    ESTIMATED,
    QUARTIC,
    ROWS,
    SQUARED,
    Labels,
)

#: 99.9 % on both sides.
_CERTAIN: Final = 3.29
#: The class of labels that are other numbers than 0 and 1, as collectors call it.
_NUMBER: Final = "(number)"


@dataclass(frozen=True, slots=True)
class Told:
    """Metrics by name, and why one that is not among them could not be measured."""

    metrics: Mapping[str, PerformanceFacts] = field(default_factory=dict)
    problem: str = ""


def measured(labels: Labels, reference: Reference) -> Told:
    """The metrics of the output that has labels; of several, of the one with the most."""
    output = _output(labels, reference)
    if output is None:
        return Told(problem="the reference names no output of the model")
    found: dict[str, PerformanceFacts] = {}
    rows = np.array([labels.predicted.get((output.name, c), 0.0) for c in range(output.grid.cells)])
    calibration = reference.calibration
    if calibration is not None and calibration.output == output.name and rows.sum() > 0:
        found[ESTIMATED] = _estimated(output, rows, calibration.labelled, calibration.positives)
    of_cell = {k[1:]: v for k, v in labels.labelled.items() if k[0] == output.name}
    if not of_cell:
        return Told(found, "no label has come (POST /feedback of the collector)")
    if output.grid.kind == "categorical":
        said = f"output {output.name} is a class, and has {ACCURACY} alone"
        return Told(found | _of_classes(output, rows, of_cell), said)
    found |= _of_errors(output, rows, labels)
    odd = sorted({label for _, label in of_cell} - TRUE - {"0", "false", "False"})
    if _NUMBER in odd:
        said = f"labels of output {output.name} are numbers: they have {MAE} and {RMSE}"
        return Told(found, said)
    if odd:
        return Told(
            found,
            f"label {odd[0]!r} of output {output.name} is neither 0 nor 1, true nor false: a score "
            "can be held against no other",
        )
    none = f"labels of output {output.name} are truth values: {MAE} and {RMSE} need numbers"
    return Told(found | _of_scores(output, rows, of_cell), "" if MAE in found else none)


def _output(labels: Labels, reference: Reference) -> FeatureReference | None:
    counted: dict[str, float] = defaultdict(float)
    for (name, _, _), value in labels.labelled.items():
        counted[name] += value
    known = [one for one in reference.outputs if one.grid.ordered]
    return max(known, key=lambda one: counted[one.name], default=None)


def _of_classes(
    output: FeatureReference, rows: FloatArray, of_cell: Mapping[tuple[int, str], float]
) -> dict[str, PerformanceFacts]:
    """Accuracy of predicted classes: a prediction is right when its label is its category."""
    names = output.grid.categories
    labelled, right = np.zeros(rows.size), np.zeros(rows.size)
    for (cell, label), value in of_cell.items():
        if cell < rows.size:
            labelled[cell] += value
            right[cell] += value if cell < len(names) and label == names[cell] else 0.0
    return {ACCURACY: _facts(*_share(rows, labelled, right), labelled, rows)}


def _of_scores(
    output: FeatureReference, rows: FloatArray, of_cell: Mapping[tuple[int, str], float]
) -> dict[str, PerformanceFacts]:
    """Metrics of a score for the class 1; from ½ on it is the class that is predicted."""
    count = output.grid.ordered
    labelled, positives = np.zeros(count), np.zeros(count)
    for (cell, label), value in of_cell.items():
        if cell < count:
            labelled[cell] += value
            positives[cell] += value if label in TRUE else 0.0
    traffic = np.maximum(rows[:count], labelled)
    positive = called(output.grid)
    threshold = int(np.argmax(positive)) if positive.any() else count
    outcomes = Outcomes(traffic, labelled, positives)
    usual = figures(outcomes, threshold)
    right = np.where(positive, positives, labelled - positives)
    found = {ACCURACY: _share(traffic, labelled, right)}
    if np.isfinite(usual.precision):
        chosen = np.where(positive, 1.0, 0.0)
        found["precision"] = _share(traffic * chosen, labelled * chosen, positives * chosen)
    if np.isfinite(usual.recall):
        found["recall"] = (usual.recall, _effective(traffic, labelled, positives))
    if np.isfinite(usual.auc):
        least = float(min(positives.sum(), (labelled - positives).sum()))
        found["auc"] = (usual.auc, least)
    return {name: _facts(*one, labelled, traffic) for name, one in found.items()}


def _of_errors(
    output: FeatureReference, rows: FloatArray, labels: Labels
) -> dict[str, PerformanceFacts]:
    """Errors of predictions that are numbers, where labels are, too."""

    def summed(what: str) -> FloatArray:
        cells = range(output.grid.ordered)
        return np.array([labels.errors.get((output.name, cell, what), 0.0) for cell in cells])

    errors = Errors(
        rows[: output.grid.ordered],
        summed(ROWS),
        summed(ABSOLUTE),
        summed(SQUARED),
        summed(QUARTIC),
    )
    note = _note(errors.labelled, rows)
    samples = int(errors.labelled.sum())
    return {
        name: PerformanceFacts(one.value, one.lower, one.upper, samples, note)
        for name, one in ((MAE, mean_absolute(errors)), (RMSE, root_mean_squared(errors)))
        if one is not None
    }


def _share(traffic: FloatArray, labelled: FloatArray, right: FloatArray) -> tuple[float, float]:
    """A share weighted by the traffic, and how many labels drawn evenly would be as telling."""
    known = labelled > 0
    weights = np.where(known, traffic, 0.0)
    total = float(weights.sum())
    if total <= 0:
        return float("nan"), 0.0
    weights = weights / total
    rate = np.where(known, right / np.maximum(labelled, 1), 0.0)
    # A cell with few labels is no more certain than a fair coin would be.
    smooth = (right + 0.5) / (labelled + 1)
    spread = float((weights**2 * smooth * (1 - smooth) / np.maximum(labelled, 1)).sum())
    value = float(weights @ rate)
    even = float(weights @ smooth)
    return value, even * (1 - even) / spread if spread > 0 else 0.0


def _effective(traffic: FloatArray, labelled: FloatArray, counted: FloatArray) -> float:
    """Kish's effective number of the labels ``counted``, each weighing as its cell's traffic."""
    weight = np.where(labelled > 0, traffic / np.maximum(labelled, 1), 0.0)
    squares = float((weight**2 * counted).sum())
    return float((weight * counted).sum()) ** 2 / squares if squares > 0 else 0.0


def _note(labelled: FloatArray, traffic: FloatArray) -> str:
    covered = labelled.sum() / max(float(traffic.sum()), 1.0)
    return f"labels for {min(covered, 1.0):.0%} of the predictions"


def _facts(
    value: float, effective: float, labelled: FloatArray, traffic: FloatArray
) -> PerformanceFacts:
    """With the interval of Wilson for as many labels as these are worth."""
    note = _note(labelled, traffic)
    samples = int(labelled.sum())
    if effective <= 0 or not np.isfinite(value):
        return PerformanceFacts(value if np.isfinite(value) else 0.0, 0.0, 1.0, samples, note)
    share = _CERTAIN**2 / effective
    middle = (value + share / 2) / (1 + share)
    half = (
        _CERTAIN * float(np.sqrt(value * (1 - value) / effective + share / (4 * effective)))
    ) / (1 + share)
    return PerformanceFacts(value, max(middle - half, 0.0), min(middle + half, 1.0), samples, note)


def _estimated(
    output: FeatureReference, rows: FloatArray, labelled: FloatArray, positives: FloatArray
) -> PerformanceFacts:
    count = output.grid.ordered
    found = estimated_accuracy(
        rows[:count], output.counts[:count], positives[:count], labelled[:count]
    )
    half = _CERTAIN * found.standard_error
    return PerformanceFacts(
        found.accuracy, max(found.accuracy - half, 0.0), min(found.accuracy + half, 1.0),
        int(rows.sum()), "estimated without labels, blind to a changed world",
    )  # fmt: skip
