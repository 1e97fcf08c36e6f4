"""Counts by cell, as Prometheus gives them, as the arrays that statistics take."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from mooring.core.drift.arrays import FloatArray
from mooring.core.drift.reference import FeatureReference
from mooring.core.telemetry import Cells


def arrays(
    features: Sequence[FeatureReference], cells: Mapping[str, Cells]
) -> dict[str, FloatArray]:
    """Counts per cell; what was not counted at all is absent."""
    found = {}
    for one in features:
        counts = cells.get(one.name)
        if not counts:
            continue
        array = np.zeros(one.grid.cells)
        for cell, count in counts.items():
            if cell < array.size:
                array[cell] = count
        found[one.name] = array
    return found


def tuples(counts: Mapping[str, FloatArray]) -> dict[str, tuple[float, ...]]:
    """As they are remembered."""
    return {name: tuple(one.tolist()) for name, one in counts.items()}
