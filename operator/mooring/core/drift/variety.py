"""Whether the answers of the stable revision lose their variety window by window.

A model that learns from its own answers narrows step by step, and no step need be a drift. It is
said beside what the windows came to; nothing is decided by it.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from mooring.core.drift.arrays import FloatArray
from mooring.core.drift.measure import View
from mooring.core.drift.outputs import collapse, entropy

#: Windows that are remembered: a day of hours, so that an evening is no trend.
KEPT = 24
_LEAST_WINDOWS = 8
#: Answers without which a window shows no variety.
_LEAST_ANSWERS = 100.0
#: How much must have gone within the windows that are remembered: what is narrow and stays so falls
#: no longer.
_FALLEN = 0.1

Variety = Mapping[str, tuple[float, ...]]
"""By output, the entropy of the last windows' answers over the reference's, the last one last."""


def followed(before: Variety, view: View, counts: Mapping[str, FloatArray]) -> Variety:
    """One window more; ``counts`` are fine ones by output, in the tested bins of ``view``."""
    fine = view.layout.pad(
        [
            counts.get(name, np.zeros(int(cells)))
            for name, cells in zip(view.names, view.layout.cells, strict=True)
        ]
    )
    coarse = view.layout.coarsen(fine)
    usual, now = entropy(view.coarse), entropy(coarse)
    found = {}
    for row, name in enumerate(view.names):
        known = before.get(name, ())
        if usual[row] > 0 and coarse[row].sum() >= _LEAST_ANSWERS:
            known = (*known, float(f"{now[row] / usual[row]:.6g}"))[-KEPT:]
        found[name] = known
    return found


def told(variety: Variety) -> str:
    """The outputs that lose their variety, in words; empty without any."""
    said = []
    for name, ratios in variety.items():
        if len(ratios) < _LEAST_WINDOWS:
            continue
        found = collapse(np.array(ratios))
        if found.collapsing and found.slope * len(ratios) <= -_FALLEN:
            said.append(f"{name} ({found.left:.0%} of the reference's is left)")
    return (
        f"the answers lose their variety from window to window: {', '.join(said)}" if said else ""
    )
