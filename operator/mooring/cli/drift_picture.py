"""What is known about a ModelDeployment's data, put together for a table and for a page."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from mooring.cli.failure import FAILED, NOT_FOUND, Failure
from mooring.cli.words import plain
from mooring.core import kinds

if TYPE_CHECKING:
    import numpy as np

    from mooring.api import MonitoringSpec
    from mooring.cli.cluster import Cluster, Json
    from mooring.core.drift.measure import View
    from mooring.core.drift.memory import Memory
    from mooring.core.drift.reference import FeatureReference, Reference
    from mooring.core.drift.state import FeatureState
    from mooring.core.drift.watch import Watch

_SEASONAL = (
    "the reference shown is the ConfigMap's; each window is compared with the same hours of "
    "earlier seasons, where there are any"
)
#: Alarms first, then broken data, then the rest.
_ORDER = ("Drifted", "Unhealthy", "InsufficientData", "Steady", "NoData")


@dataclass(frozen=True, slots=True)
class FeaturePicture:
    """One feature, or one output of a revision.

    Attributes:
        name, revision: the revision whose answers these are; empty for a feature.
        state, message: how it stands, in a word and in a sentence.
        psi, evidence: of the last window, and gathered over windows as a share of what alarms.
        bins: labels of the tested bins.
        reference, current: shares per bin; empty where nothing was counted.
        reference_rows, rows: rows in all.
        odd: shares of missing, infinite, out-of-range and unseen values in the window, by name.
        psis: PSI of the windows so far, None where there is none.
    """

    name: str
    revision: str
    state: str
    message: str
    psi: float | None
    evidence: float | None
    bins: tuple[str, ...]
    reference: tuple[float, ...]
    current: tuple[float, ...]
    reference_rows: int
    rows: int
    odd: Mapping[str, float] = field(default_factory=dict)
    psis: tuple[float | None, ...] = ()

    @property
    def label(self) -> str:
        return f"{self.name}@{self.revision}" if self.revision else self.name


@dataclass(frozen=True, slots=True)
class Picture:
    """All of one ModelDeployment. ``past``: end, rows and state of the windows so far."""

    name: str
    namespace: str
    model: str
    drift: Json
    conditions: Mapping[str, Json]
    features: tuple[FeaturePicture, ...]
    past: tuple[tuple[datetime, float, str], ...]
    floor: float
    note: str = ""


def picture(cluster: Cluster, name: str) -> Picture:
    """Reads the resource, its ConfigMap and the reference.

    Raises:
        Failure: there is no such ModelDeployment, or it is not monitored.
    """
    from mooring.api import InvalidResource, parse_model_deployment

    resource = cluster.get(kinds.MODEL_DEPLOYMENT, name)
    try:
        spec = parse_model_deployment({k: v for k, v in resource.items() if k != "status"}).spec
    except InvalidResource as error:
        raise Failure(f"the spec of {name} cannot be read: {error.problems[0]}", FAILED) from error
    if spec.monitoring is None:
        raise Failure(
            f"{name} is not monitored: set spec.monitoring, with a reference that `mooring "
            "reference build` made",
            FAILED,
        )
    status = resource.get("status") or {}
    memory, note = _memory(cluster, name)
    reference: Reference | None = None
    if memory is not None:
        reference, note = _reference(cluster, spec.monitoring, note)
    features: tuple[FeaturePicture, ...] = ()
    if memory is not None and reference is not None:
        features = _features(spec.monitoring, status, memory, reference)
        if spec.monitoring.reference.seasonal is not None and not note:
            note = _SEASONAL
    return Picture(
        name=name,
        namespace=cluster.namespace,
        model=plain(spec.model.uri),
        drift=status.get("drift") or {},
        conditions={
            str(one.get("type")): one
            for one in status.get("conditions") or ()
            if one.get("type") in ("DataHealthy", "Drifted")
        },
        features=features,
        past=tuple(
            (datetime.fromtimestamp(one.end, UTC), one.rows, one.state)
            for one in (memory.past if memory is not None else ())
        ),
        floor=spec.monitoring.drift.min_effect_psi,
        note=note,
    )


def _memory(cluster: Cluster, name: str) -> tuple[Memory | None, str]:
    from mooring.core.drift.memory import Memory
    from mooring.core.monitoring import STATE_KEY, drift_name

    try:
        child = cluster.get(kinds.CONFIG_MAP, drift_name(name))
        return Memory.from_bytes(base64.b64decode(child["binaryData"][STATE_KEY])), ""
    except Failure as failure:
        if failure.exit_code != NOT_FOUND:
            raise
        return None, "no window is over yet"
    except (KeyError, TypeError, ValueError):
        return None, f"ConfigMap {drift_name(name)} was damaged; the next window writes it anew"


def _reference(cluster: Cluster, spec: MonitoringSpec, note: str) -> tuple[Reference | None, str]:
    from mooring.core.drift.reference import InvalidReference, from_config_map

    name = spec.reference.config_map
    try:
        return from_config_map(cluster.get(kinds.CONFIG_MAP, name)), note
    except Failure as failure:
        return None, f"histograms need ConfigMap {name}: {failure.message}"
    except InvalidReference as error:
        return None, plain(error)


def _features(
    spec: MonitoringSpec, status: Json, memory: Memory, reference: Reference
) -> tuple[FeaturePicture, ...]:
    from mooring.core.drift.episode import threshold_of
    from mooring.core.drift.measure import View
    from mooring.core.drift.rebase import based
    from mooring.core.drift.watch import Watch

    watch = Watch(spec)
    settings, watched = watch.settings, watch.watched(reference)
    told = {
        (str(one.get("feature")), str(one.get("revision") or "")): one
        for one in (status.get("drift") or {}).get("features") or ()
    }
    known = next((one["threshold"] for one in told.values() if one.get("threshold")), None)
    threshold = known or threshold_of(
        settings, 2 * (len(watched) + len(reference.outputs) * max(len(memory.outputs), 1))
    )
    sides = [("", watched, memory.counts, memory.features.features)]
    sides += [
        (revision, reference.outputs, memory.output_counts.get(revision, {}), state.features)
        for revision, state in memory.outputs.items()
    ]
    found = []
    for revision, features, counts, states in sides:
        if not features:
            continue
        view = View.of(features, settings, grid=reference.grid_hash)
        if memory.base is not None and revision in ("", memory.base.revision):
            view = based(view, memory.base.outputs if revision else memory.base.counts)
        # A revision that did not answer in the last window is not judged in it either.
        answered = counts or not revision
        standing = (
            _standing(view, counts, watch, reference, memory)
            if answered
            else ["NoData"] * len(features)
        )
        found += [
            _feature(
                view, row, revision, counts, states, told, threshold, memory, standing=standing[row]
            )
            for row in range(len(features))
        ]
    found.sort(key=lambda one: (_ORDER.index(one.state), -(one.evidence or 0), -(one.psi or 0)))
    return tuple(found)


def _standing(
    view: View,
    counts: Mapping[str, Sequence[float]],
    watch: Watch,
    reference: Reference,
    memory: Memory,
) -> list[str]:
    """How each feature stood in the last window that was judged, but for alarms and declared rules.

    Status tells of the worst alone.
    """
    import numpy as np

    from mooring.core.drift.health import feature_findings
    from mooring.core.drift.measure import measure

    rows = next((one.rows for one in reversed(memory.past) if one.state != "NoData"), 0.0)
    sizes = view.layout.cells
    present = [len(counts.get(name, ())) == sizes[row] for row, name in enumerate(view.names)]
    fine = view.layout.pad(
        [
            counts[name] if present[row] else np.zeros(int(sizes[row]))
            for row, name in enumerate(view.names)
        ]
    )
    measured = measure(view, fine, np.array(present, dtype=np.bool_), watch.settings)
    tests = np.where(view.layout.bins > 1, measured.p, measured.tail_p)
    expectations = watch.expectations(reference)
    found = []
    for row, one in enumerate(view.features):
        cells = one.grid.cells
        seen = fine[row, :cells] if present[row] else None
        if feature_findings(one.grid, view.fine[row, :cells], seen, expectations, rows=rows):
            found.append("Unhealthy")
        else:
            found.append("Steady" if np.isfinite(tests[row]) else "InsufficientData")
    return found


def _feature(
    view: View,
    row: int,
    revision: str,
    counts: Mapping[str, Sequence[float]],
    states: Mapping[str, FeatureState],
    told: Mapping[tuple[str, str], Json],
    threshold: float,
    memory: Memory,
    *,
    standing: str,
) -> FeaturePicture:
    import numpy as np

    from mooring.core.drift.floor import floor_said

    one = view.features[row]
    name = one.name
    label = f"{name}@{revision}" if revision else name
    fine = np.array(counts.get(name, ()), dtype=np.float64)
    padded = np.zeros_like(view.fine)
    if fine.size == one.grid.cells:
        padded[row, : fine.size] = fine
    bins = view.layout.labels[row]
    current = view.layout.coarsen(padded)[row, : len(bins)]
    usual = view.coarse[row, : len(bins)]
    streams = states[name].streams.values() if name in states else ()
    score = max((stream.score for stream in streams), default=None)
    said = told.get((name, revision), {})
    alarming = name in states and states[name].alarming is not None
    psis = tuple(past.psi.get(label) for past in memory.past)
    return FeaturePicture(
        name=name,
        revision=revision,
        state=str(said.get("state") or ("Drifted" if alarming else standing)),
        message=plain(said.get("message") or floor_said(view.floors[row])),
        psi=psis[-1] if psis else None,
        evidence=None if score is None else score / threshold,
        bins=tuple(bins),
        reference=_shares(usual),
        current=_shares(current),
        reference_rows=int(one.rows),
        rows=int(fine.sum()),
        odd=_odd(one, fine),
        psis=psis,
    )


def _shares(counts: np.ndarray[Any, Any]) -> tuple[float, ...]:
    total = float(counts.sum())
    return tuple(float(one) / total for one in counts) if total > 0 else ()


def _odd(one: FeatureReference, fine: np.ndarray[Any, Any]) -> dict[str, float]:
    """What the tested bins do not show."""
    grid, total = one.grid, float(fine.sum())
    if total <= 0 or fine.size != grid.cells:
        return {}
    cells: dict[str, list[int | None]] = {
        "missing": [grid.missing],
        "infinite": [grid.non_finite],
        "out of range": [grid.below, grid.above],
        "unseen": [grid.unseen],
    }
    shares = {
        name: sum(float(fine[place]) for place in places if place is not None) / total
        for name, places in cells.items()
    }
    return {name: share for name, share in shares.items() if share > 0}
