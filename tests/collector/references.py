"""References and collectors for tests, made by the operator's own code."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import numpy as np

from mooring.core.drift.building import categorical_grid, numeric_grid
from mooring.core.drift.reference import Reference, feature_reference
from mooring_collector.exposition import exposition
from mooring_collector.grid import read_reference
from mooring_collector.settings import Bounds, read_settings
from mooring_collector.telemetry import Exchange, Telemetry


def reference(columns: int = 3, *, tensor: str = "x", texts: bool = False) -> Reference:
    """Columns ``x[0]``…, with ``texts`` a category ``city``; the outputs ``score``."""
    values = np.random.default_rng(3).normal(size=(2000, columns))
    features = [
        feature_reference(numeric_grid(f"{tensor}[{i}]", values[:, i]), values[:, i], "number")
        for i in range(columns)
    ]
    if texts:
        cities = ["rome"] * 1000 + ["bonn"] * 700 + ["lima"] * 300
        features.append(feature_reference(categorical_grid("city", cities), cities, "string"))
    scores = 1 / (1 + np.exp(-values[:, 0]))
    output = feature_reference(numeric_grid("score", scores), scores, "number")
    return Reference(tuple(features), (output,))


def telemetry(
    found: Reference | None = None, bounds: Bounds | None = None, **config: Any
) -> Telemetry:
    """A collector's counts, as its files would configure them, with room for fewer labels."""
    if "feedback" in config:
        config["feedback"] = {"limit": 1 << 16, **config["feedback"]}
    read = read_reference((found or reference()).to_text().encode())
    return Telemetry(read_settings(json.dumps(config).encode(), read), bounds or Bounds(), seed=1)


def infer(*rows: list[Any], name: str = "x", **more: Any) -> bytes:
    """A request of the Open Inference Protocol."""
    flat = [value for row in rows for value in row]
    width = len(rows[0]) if rows else 1
    tensor = {"name": name, "shape": [len(rows), width], "datatype": "FP64", "data": flat}
    return json.dumps({"inputs": [tensor], **more}).encode()


def answer(*scores: float, name: str = "score") -> bytes:
    """Its answer."""
    tensor = {"name": name, "shape": [len(scores), 1], "datatype": "FP64", "data": list(scores)}
    return json.dumps({"model_name": "m", "outputs": [tensor]}).encode()


def exchange(request: bytes, reply: bytes, **more: Any) -> Exchange:
    """What the router has copied."""
    sizes = {"request_bytes": len(request), "answer_bytes": len(reply), "status": 200}
    return Exchange(request, reply, **(sizes | more))


def exposed(found: Telemetry) -> str:
    """What a scrape would get."""
    return asyncio.run(exposition(found, held_bytes=0, exchanges=0, lag=0)).decode()
