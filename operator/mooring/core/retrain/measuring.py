"""How well the model does: what is asked of Prometheus about its labels, and the answer.

Collectors count each label by the cell of the score (or of the class) that was predicted, and where
it is a number, sum powers of its prediction's error there. Numbers are differences of raw counters
of one process each, as those of windows are (:mod:`mooring.core.telemetry`). What is made of them
is in :mod:`mooring.core.retrain.figures`.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Final

from mooring.api import MonitoringSpec, RetrainingSpec, parse_duration
from mooring.api.retraining_spec import MAE, RMSE
from mooring.core.answers import Keyed, NoAnswer, Reason
from mooring.core.router_counters import KEY, ScrapeLabels

#: How often it is measured.
EVERY: Final = timedelta(minutes=5)
#: Labels of so many windows are looked at together.
_WINDOWS: Final = 24
_LEAST: Final = timedelta(minutes=10)
_LONGEST: Final = timedelta(days=7)
_PREFIX: Final = "mooring_telemetry_"

ACCURACY: Final = "accuracy"
ESTIMATED: Final = "estimatedAccuracy"
MEASURED: Final = (ACCURACY, "precision", "recall", "auc")
KNOWN: Final = (*MEASURED, MAE, RMSE, ESTIMATED)
#: What collectors sum of errors.
ROWS: Final = "labelled_rows"
ABSOLUTE: Final = "absolute_errors"
SQUARED: Final = "squared_errors"
QUARTIC: Final = "quartic_errors"
_SUMMED: Final = (ROWS, ABSOLUTE, SQUARED, QUARTIC)


@dataclass(frozen=True, slots=True)
class Measurement:
    """What is to be measured of a revision: labels of ``span``, in the terms of a reference."""

    revision: str
    reference: str
    span: timedelta
    namespace: str
    deployment: str


def measurement(
    retraining: RetrainingSpec | None,
    monitoring: MonitoringSpec | None,
    revision: str,
    namespace: str,
    deployment: str,
) -> Measurement | None:
    """What to measure; None where no trigger asks for it, or nothing is monitored."""
    asked = retraining is not None and any(t.performance for t in retraining.triggers or ())
    if not asked or monitoring is None or not revision:
        return None
    span = min(max(parse_duration(monitoring.window) * _WINDOWS, _LEAST), _LONGEST)
    return Measurement(revision, monitoring.reference.config_map, span, namespace, deployment)


def query(what: Measurement, now: datetime, labels: ScrapeLabels) -> str:
    """The PromQL of one measurement: labels and predictions of a revision, by output and cell."""
    span = f"{round(what.span.total_seconds())}s"
    end = now.timestamp()
    start = end - what.span.total_seconds()
    where = (
        f'__name__=~"{_PREFIX}({"|".join(("outcomes", "output_rows", *_SUMMED))})_total",'
        f'{labels.namespace}="{what.namespace}",'
        f'{labels.pod}=~"{what.deployment.replace(".", "[.]")}-collector-.+",'
        f'revision="{what.revision}",traffic=~"|live"'
    )
    kept = f"{labels.namespace},{labels.pod},metric,life,grid,cell,label,output"

    def last(at: float) -> str:
        found = f"last_over_time({{{where}}}[{span}] @ {at:.3f})"
        named = f'label_replace({found},"metric","$1","__name__","{_PREFIX}(.+)_total")'
        return f"max by ({kept}) ({named})"

    grown = f"({last(end)} - ({last(start)} or {last(end)} * 0)) > 0"
    joined = ",".join(f'"{name}"' for name in ("metric", "grid", "cell", "output", "label"))
    return f'sum by ({KEY}) (label_join({grown},"{KEY}","|",{joined}))'


@dataclass(frozen=True, slots=True)
class Labels:
    """What collectors have counted on one grid.

    ``predicted`` are predictions by (output, cell), ``labelled`` labels by (output, cell, label).
    ``errors``: of labels that are numbers their count and the sums of powers of |error|, by
    (output, cell, what is summed).
    """

    predicted: Mapping[tuple[str, int], float]
    labelled: Mapping[tuple[str, int, str], float]
    errors: Mapping[tuple[str, int, str], float] = field(default_factory=dict)


def read(keyed: Keyed, grid: str) -> Labels | NoAnswer:
    """The answer to :func:`query`; counts of other grids are left out."""
    if keyed.warnings:
        return NoAnswer(Reason.INCOMPLETE, f"Prometheus warns: {keyed.warnings[0]}")
    predicted: dict[tuple[str, int], float] = defaultdict(float)
    labelled: dict[tuple[str, int, str], float] = defaultdict(float)
    errors: dict[tuple[str, int, str], float] = defaultdict(float)
    for text, value in keyed.values.items():
        metric, found, cell, *rest = *text.split("|", 3), "", ""
        if found != grid or not (cell.isascii() and cell.isdigit() and len(cell) < 6):
            continue
        # An output's name may hold the separator, and a label, too: the last one parts them.
        output, _, label = rest[0].rpartition("|")
        if metric == "outcomes":
            labelled[output, int(cell), label] += value
        elif metric in _SUMMED:
            errors[output, int(cell), metric] += value
        else:
            predicted[output, int(cell)] += value
    return Labels(dict(predicted), dict(labelled), dict(errors))
