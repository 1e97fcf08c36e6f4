"""The reference: what the features and outputs looked like when all was well, as one document.

It lives in an immutable ConfigMap, so it must stay below 1 MiB, and it is named by a hash, so that
nothing is ever compared with another model's reference without being told.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from mooring.core.drift.arrays import FloatArray
from mooring.core.drift.coarse import layout
from mooring.core.drift.dispersion import learnt
from mooring.core.drift.grid import FeatureGrid, InvalidGrid, grid_hash
from mooring.core.drift.health import Expectations

FORMAT = 1
#: The key of the ConfigMap, and the label that carries the hash.
DATA_KEY = "reference.json"
HASH_LABEL = "mooring.dev/reference"
#: What etcd takes of one object is 1.5 MiB; the API server refuses a ConfigMap above 1 MiB.
MOST_BYTES = 1024 * 1024 - 4096
MOST_FEATURES = 500
#: Sub-windows of the reference from which over-dispersion is learnt.
SUB_WINDOWS = 24


class InvalidReference(ValueError):
    """A reference that cannot be used; the message is one sentence that says why."""


@dataclass(frozen=True, slots=True)
class FeatureReference:
    """One feature (or one output of the model) of the reference.

    Attributes:
        grid: its cells.
        counts: rows of the reference per cell, shape (cells,).
        type: what the values are: integer, number, boolean or string.
        dispersion: δ̂ of its own sub-windows, at least 1.
    """

    grid: FeatureGrid
    counts: FloatArray
    type: str = "number"
    dispersion: float = 1.0

    def __post_init__(self) -> None:
        if self.counts.shape != (self.grid.cells,):
            raise InvalidReference(
                f"feature {self.grid.name}: {self.counts.size} counts for a grid of "
                f"{self.grid.cells} cells"
            )
        if not np.isfinite(self.counts).all() or (self.counts < 0).any():
            raise InvalidReference(f"feature {self.grid.name}: a count is negative or no number")

    @property
    def name(self) -> str:
        return self.grid.name

    @property
    def rows(self) -> float:
        return float(self.counts.sum())

    def to_json(self) -> dict[str, Any]:
        return {
            **self.grid.to_json(),
            "type": self.type,
            "counts": [_whole(count) for count in self.counts.tolist()],
            **({"dispersion": round(self.dispersion, 4)} if self.dispersion > 1 else {}),
        }

    @staticmethod
    def from_json(raw: Mapping[str, Any]) -> FeatureReference:
        """Reads ``to_json``; raises InvalidReference."""
        try:
            return FeatureReference(
                grid=FeatureGrid.from_json(raw),
                counts=np.array([float(count) for count in raw["counts"]], dtype=np.float64),
                type=str(raw.get("type", "number")),
                dispersion=max(1.0, float(raw.get("dispersion", 1.0))),
            )
        except InvalidGrid as error:
            raise InvalidReference(str(error)) from error
        except (KeyError, TypeError, ValueError, OverflowError) as error:
            if isinstance(error, InvalidReference):
                raise
            raise InvalidReference(f"a feature cannot be read: {error!r}") from error


def _whole(count: float) -> int | float:
    return int(count) if count == int(count) else count


@dataclass(frozen=True, slots=True)
class Calibration:
    """What the model's scores meant: labelled rows and positives per cell of an output's grid."""

    output: str
    labelled: FloatArray
    positives: FloatArray

    def __post_init__(self) -> None:
        both = self.labelled, self.positives
        if self.labelled.ndim != 1 or self.labelled.shape != self.positives.shape:
            raise InvalidReference(
                "labelled and positives of a calibration are lists of one length"
            )
        if not all(np.isfinite(one).all() and (one >= 0).all() for one in both):
            raise InvalidReference("a count of a calibration is negative or no number")
        if (self.positives > self.labelled).any():
            raise InvalidReference("a calibration has more positives than labels")

    def to_json(self) -> dict[str, Any]:
        return {
            "output": self.output,
            "labelled": [_whole(one) for one in self.labelled.tolist()],
            "positives": [_whole(one) for one in self.positives.tolist()],
        }


@dataclass(frozen=True, slots=True)
class Reference:
    """A reference as a whole.

    Attributes:
        features: the model's inputs.
        outputs: what it answers: class, score or value; judged per revision.
        calibration: labels per score, where the reference had any.
        source: where it came from, for people: file name, rows, columns left out.
        expectations: tolerated shares as ``Expectations.to_json`` has them, where stated.
    """

    features: tuple[FeatureReference, ...]
    outputs: tuple[FeatureReference, ...] = ()
    calibration: Calibration | None = None
    source: Mapping[str, Any] | None = None
    expectations: Mapping[str, Any] | None = None

    def __post_init__(self) -> None:
        names = [one.name for one in (*self.features, *self.outputs)]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise InvalidReference(f"{', '.join(twice)}: named twice in the reference")
        if len(names) > MOST_FEATURES:
            raise InvalidReference(
                f"{len(names)} features and outputs; at most {MOST_FEATURES} can be watched. "
                "Name those that matter"
            )
        if not names:
            raise InvalidReference("the reference has neither features nor outputs")

    @property
    def grid_hash(self) -> str:
        """Names the grid: counts and reference must agree in it."""
        return grid_hash(one.grid for one in (*self.features, *self.outputs))

    def to_json(self) -> dict[str, Any]:
        """The document; its own hash is over everything else in it."""
        found: dict[str, Any] = {
            "format": FORMAT,
            "grid": self.grid_hash,
            "features": [one.to_json() for one in self.features],
            "outputs": [one.to_json() for one in self.outputs],
        }
        if self.calibration:
            found["calibration"] = self.calibration.to_json()
        if self.source:
            found["source"] = dict(self.source)
        if self.expectations:
            found["expectations"] = dict(self.expectations)
        return found

    def to_text(self) -> str:
        """Compact JSON. Raises InvalidReference when no ConfigMap can hold it."""
        text = json.dumps(self.to_json(), separators=(",", ":"), ensure_ascii=False)
        try:
            size = len(text.encode())
        except UnicodeEncodeError as error:
            raise InvalidReference(
                f"the reference holds {text[error.start]!r}, which is no Unicode text: name it anew"
            ) from error
        if size > MOST_BYTES:
            raise InvalidReference(
                f"the reference has {size} bytes; a ConfigMap holds {MOST_BYTES}. "
                "Name fewer features, or fewer bins"
            )
        return text

    @property
    def hash(self) -> str:
        """16 hex digits over the whole document."""
        return hashlib.sha256(self.to_text().encode()).hexdigest()[:16]

    @staticmethod
    def from_text(text: str) -> Reference:
        """Reads ``to_text``; raises InvalidReference, also when the grid was edited."""
        try:
            raw = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise InvalidReference(f"the reference is not JSON: {error}") from error
        if not isinstance(raw, Mapping) or raw.get("format") != FORMAT:
            raise InvalidReference(f"the reference is not of format {FORMAT}: build it anew")
        if not all(isinstance(raw.get(key, []), list) for key in ("features", "outputs")):
            raise InvalidReference("the reference's features and outputs must be lists")
        _check_words(raw)
        found = Reference(
            features=tuple(map(FeatureReference.from_json, raw.get("features", ()))),
            outputs=tuple(map(FeatureReference.from_json, raw.get("outputs", ()))),
            calibration=_calibration(raw.get("calibration")),
            source=raw.get("source"),
            expectations=raw.get("expectations"),
        )
        calibration = found.calibration
        cells = {one.name: one.grid.cells for one in found.outputs}
        if calibration and cells.get(calibration.output) != calibration.labelled.size:
            raise InvalidReference(
                f"the reference's calibration does not fit an output {calibration.output}"
            )
        if raw.get("grid") != found.grid_hash:
            raise InvalidReference(
                f"the reference names grid {raw.get('grid')} but holds {found.grid_hash}: "
                "it was edited; build it anew"
            )
        return found


def _check_words(raw: Mapping[str, Any]) -> None:
    """What is no count: where it came from, and what is expected."""
    for part in ("source", "expectations"):
        if not isinstance(raw.get(part) or {}, Mapping):
            raise InvalidReference(f"the reference's {part} must be an object")
    try:
        expected = Expectations.from_json(raw.get("expectations") or {}).to_json()
    except (TypeError, ValueError, OverflowError) as error:
        raise InvalidReference(f"the reference's expectations cannot be read: {error}") from error
    odd = [name for name, share in expected.items() if not 0 <= share <= 1]
    if odd:
        raise InvalidReference(
            f"the reference's expectations cannot be read: {odd[0]} is no share from 0 to 1"
        )


def _calibration(raw: Mapping[str, Any] | None) -> Calibration | None:
    if raw is None:
        return None
    try:
        return Calibration(
            output=str(raw["output"]),
            labelled=np.array(raw["labelled"], dtype=np.float64),
            positives=np.array(raw["positives"], dtype=np.float64),
        )
    except InvalidReference:
        raise
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise InvalidReference(f"the reference's calibration cannot be read: {error!r}") from error


def config_map(reference: Reference, name: str, namespace: str | None = None) -> dict[str, Any]:
    """The immutable ConfigMap that carries a reference; raises InvalidReference if too large."""
    text = reference.to_text()
    metadata: dict[str, Any] = {"name": name}
    if namespace:
        metadata["namespace"] = namespace
    metadata["labels"] = {
        "app.kubernetes.io/part-of": "mooring",
        HASH_LABEL: reference.hash,
        "mooring.dev/grid": reference.grid_hash,
    }
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": metadata,
        "immutable": True,
        "data": {DATA_KEY: text},
    }


def from_config_map(manifest: Mapping[str, Any]) -> Reference:
    """Reads ``config_map``; raises InvalidReference when it is not one of these, or was edited."""
    data = manifest.get("data") or {}
    name = (manifest.get("metadata") or {}).get("name", "?")
    if DATA_KEY not in data:
        raise InvalidReference(f"ConfigMap {name} has no key {DATA_KEY}: it holds no reference")
    found = Reference.from_text(data[DATA_KEY])
    labels = (manifest.get("metadata") or {}).get("labels") or {}
    if labels.get(HASH_LABEL, found.hash) != found.hash:
        raise InvalidReference(f"ConfigMap {name} is labelled {labels[HASH_LABEL]} but holds "
                               f"{found.hash}: it was edited; build it anew")  # fmt: skip
    return found


def feature_reference(
    grid: FeatureGrid, values: FloatArray | Sequence[str | None], type_: str
) -> FeatureReference:
    """Counts the reference's values, in the order of time, and learns δ̂ from 24 parts of them."""
    cells = (
        grid.numeric_cells(np.asarray(values, dtype=np.float64))
        if grid.kind == "numeric"
        else grid.category_cells(values)
    )
    parts = [
        np.bincount(part, minlength=grid.cells).astype(np.float64)
        for part in np.array_split(cells, SUB_WINDOWS)
    ]
    fine = np.array(parts)[:, None, :]
    counts = fine.sum(axis=0)[0]
    tested = layout([grid], [counts])
    spread = float(learnt(tested.coarsen(fine), tested.mask)[0]) if tested.mask.size else 1.0
    return FeatureReference(grid, counts, type_, spread)
