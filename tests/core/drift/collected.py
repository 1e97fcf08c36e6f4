"""A reference of two features and a score, and windows of traffic as a collector counts them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np
from tests.core.drift.samples import references

from mooring.api import MonitoringSpec
from mooring.core.drift.arrays import FloatArray
from mooring.core.drift.reference import Reference, config_map
from mooring.core.telemetry import Cells, Counted, joined

HOUR = 3600.0
ROWS = 2000
STABLE = "abc"


@cache
def reference(seed: int = 1) -> Reference:
    chance = np.random.default_rng(seed)
    many = 60_000
    features = references(
        {
            "amount": chance.normal(size=many),
            "branch": [str(one) for one in chance.choice(["north", "south", "west"], many)],
        }
    )
    return Reference(features, references({"score": chance.beta(2, 5, many)}))


def reference_map(name: str = "fraud-reference", seed: int = 1) -> dict[str, Any]:
    return config_map(reference(seed), name, "shop")


def spec(**changes: Any) -> MonitoringSpec:
    return MonitoringSpec.model_validate(raw_spec(**changes))


def raw_spec(**changes: Any) -> dict[str, Any]:
    return {"reference": {"configMap": "fraud-reference"}, **changes}


def traffic(
    hour: int,
    *,
    shift: float = 0.0,
    missing: float = 0.0,
    rows: int = ROWS,
    score_shift: float = 0.0,
    revision: str = STABLE,
    **changes: Any,
) -> Counted:
    """The window of an hour: as in the reference, but for what is said."""
    counted = _traffic(hour, shift, missing, rows, score_shift, revision)
    return replace(counted, **changes)


@cache
def _traffic(
    hour: int, shift: float, missing: float, rows: int, score_shift: float, revision: str
) -> Counted:
    chance = np.random.default_rng([hour, 7])
    amount = chance.normal(shift, size=rows)
    amount[chance.random(rows) < missing] = np.nan
    branch = chance.choice(["north", "south", "west"], rows)
    score = np.clip(chance.beta(2, 5, rows) + score_shift, 0, 1)
    grid = reference().grid_hash
    first, second = reference().features
    (output,) = reference().outputs
    categories = np.zeros(second.grid.cells)
    for name, count in zip(*np.unique(branch, return_counts=True), strict=True):
        categories += second.grid.count([str(name)]) * count
    features = {
        "amount": cells(first.grid.count(amount)),
        "branch": cells(categories),
    }
    return Counted(
        rows=float(rows),
        requests={"answered": float(rows)},
        features={grid: features},
        outputs={grid: {(revision, "score"): cells(output.grid.count(score))}},
        scrapes=240,
    )


def cells(counts: FloatArray) -> Cells:
    """As a collector exports them: what is 0 is not there."""
    return {cell: float(count) for cell, count in enumerate(counts.tolist()) if count}


def exported(
    counted: Mapping[int, Counted], namespace: str = "shop", pod: str = "", life: str = "1.000"
) -> str:
    """The collector's page after these windows, all of one life."""
    whole = joined(counted.values())
    common = f'namespace="{namespace}",pod="{pod}",life="{life}"'
    lines = [f'mooring_telemetry_rows_total{{{common},revision=""}} {whole.rows}']
    for kind, value in whole.requests.items():
        name = "mooring_telemetry_requests_total"
        lines.append(f'{name}{{{common},revision="{STABLE}",traffic="live",kind="{kind}"}} {value}')
    for grid, features in whole.features.items():
        for feature, cells_ in features.items():
            for cell, value in cells_.items():
                labels = f'{common},revision="{STABLE}",grid="{grid}",feature="{feature}"'
                name = "mooring_telemetry_feature_rows_total"
                lines.append(f'{name}{{{labels},cell="{cell}"}} {value}')
    for grid, outputs in whole.outputs.items():
        for (revision, output), cells_ in outputs.items():
            for cell, value in cells_.items():
                labels = f'{common},revision="{revision}",grid="{grid}",output="{output}"'
                labels += ',traffic="live"'
                name = "mooring_telemetry_output_rows_total"
                lines.append(f'{name}{{{labels},cell="{cell}"}} {value}')
    lines += _outcomes(whole, common)
    for feature, rules in whole.violations.items():
        for rule, value in rules.items():
            labels = f'{common},revision="{STABLE}",feature="{feature}",rule="{rule}"'
            lines.append(f"mooring_telemetry_violations_total{{{labels}}} {value}")
    return "\n".join(lines) + "\n"


def _outcomes(counted: Counted, common: str) -> list[str]:
    return [
        f'mooring_telemetry_outcomes_total{{{common},revision="{revision}",grid="{grid}",'
        f'output="{output}",label="{label}",cell="{cell}"}} {value}'
        for grid, outcomes in counted.outcomes.items()
        for (revision, output, label), of_cell in outcomes.items()
        for cell, value in of_cell.items()
    ]
