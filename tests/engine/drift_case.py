"""A monitored deployment, a fake API server, a fake Prometheus, and operators that come and go."""

from __future__ import annotations

import asyncio
import copy
import json
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from prometheus_client import CollectorRegistry, generate_latest
from tests.core.drift.collected import HOUR, STABLE, raw_spec, reference_map
from tests.engine.objects import Json, model

from mooring.adapters.kube import ApiError
from mooring.core import kinds
from mooring.core.answers import NoAnswer, Reason
from mooring.core.drift.memory import Memory
from mooring.core.kinds import Kind
from mooring.core.monitoring import Report
from mooring.core.router_counters import KEY, ScrapeLabels
from mooring.core.telemetry import Counted
from mooring.engine.drift import SETTLE, DriftWatch
from mooring.engine.drift_child import Monitored, opened
from mooring.engine.drift_metrics import DriftMetrics
from mooring.engine.queue import KeyedQueue
from mooring.engine.store import Store

POD = "fraud-collector-5c8d9f7b9c-abcde"
DOWN = NoAnswer(Reason.REFUSED, "Nobody listens.")


def body_of(counted: Counted, namespace: str = "shop", pod: str = POD) -> bytes:
    """The answer of Prometheus to the query, by keys."""
    at = f"{namespace}|{pod}|"
    keys = {f"{at}rows|{STABLE}||||||": counted.rows}
    if counted.scrapes:
        keys[f"{at}scrapes|1.000"] = float(counted.scrapes)
        if not counted.gap:
            keys[f"{at}before|1.000"] = 0.0
    for grid, features in counted.features.items():
        for name, cells in features.items():
            for cell, value in cells.items():
                keys[f"{at}feature_rows|{STABLE}||{grid}|{cell}|||{name}|"] = value
    for grid, outputs in counted.outputs.items():
        for (revision, name), cells in outputs.items():
            for cell, value in cells.items():
                keys[f"{at}output_rows|{revision}|live|{grid}|{cell}||||{name}"] = value
    for grid, outcomes in counted.outcomes.items():
        for (revision, name, label), cells in outcomes.items():
            for cell, value in cells.items():
                keys[f"{at}outcomes|{revision}||{grid}|{cell}||{label}||{name}"] = value
    result = [
        {"metric": {KEY: key}, "value": [1.0, str(value)]} for key, value in keys.items() if value
    ] + [
        {"metric": {KEY: key}, "value": [1.0, "0"]} for key in keys if "|before|" in key
    ]  # fmt: skip
    answer = {"status": "success", "data": {"resultType": "vector", "result": result}}
    return json.dumps(answer).encode()


@dataclass
class FakePrometheus:
    """Answers by the end of the window that is asked for."""

    windows: Callable[[int], Counted]
    down: bool = False
    asked: list[int] = field(default_factory=list)

    async def read(self, text: str, reader: Any, *, single: bool = False) -> Any:
        await asyncio.sleep(0)
        if self.down:
            return DOWN
        moments = re.findall(r"@ ([0-9.]+)", text)
        hour = round(float(moments[0]) / HOUR)
        self.asked.append(hour)
        return reader(body_of(self.windows(hour)), 0.0)


class Server:
    """ConfigMaps, and how often they were written."""

    def __init__(self) -> None:
        self.maps: dict[str, Json] = {}
        self.written: list[str] = []
        self.version = 100
        self.fails: ApiError | None = None

    def add(self, manifest: Json) -> Json:
        self.version += 1
        found = copy.deepcopy(manifest)
        meta = found["metadata"]
        found["metadata"] = {**meta, "uid": f"uid-{meta['name']}",
                             "resourceVersion": str(self.version)}  # fmt: skip
        self.maps[meta["name"]] = found
        return copy.deepcopy(found)

    async def get(self, kind: Kind, namespace: str, name: str) -> Json | None:
        if self.fails is not None:
            raise self.fails
        return copy.deepcopy(self.maps.get(name))

    async def apply(self, kind: Kind, manifest: Json, *, create_only: bool = False) -> Json:
        if self.fails is not None:
            raise self.fails
        name = manifest["metadata"]["name"]
        live = self.maps.get(name)
        version = manifest["metadata"].get("resourceVersion")
        if live is not None and (create_only or live["metadata"]["resourceVersion"] != version):
            raise ApiError(409, "Conflict", "it has changed")
        self.written.append(name)
        return self.add(manifest)


class Events:
    def __init__(self) -> None:
        self.told: list[str] = []

    def record(self, resource: Json, event: Any) -> None:
        self.told.append(event.message)


@dataclass
class Case:
    """One deployment, a clock, and an operator that can be started anew."""

    prometheus: Any
    monitoring: Json = field(default_factory=raw_spec)
    hour: float = 100.2
    settle: float = SETTLE
    server: Server = field(default_factory=Server)
    store: Store = field(default_factory=Store)
    events: Events = field(default_factory=Events)
    registry: CollectorRegistry = field(default_factory=CollectorRegistry)
    watch: DriftWatch = field(init=False)

    def __post_init__(self) -> None:
        self.server.add(reference_map())
        resource = model("fraud", 5)
        resource["metadata"]["generation"] = 1
        resource["spec"]["monitoring"] = self.monitoring
        resource["status"] = {"stable": {"revision": STABLE}}
        self.store.put(kinds.MODEL_DEPLOYMENT, resource)
        self.restart()

    def restart(self) -> None:
        """Another process, which knows what the API server does."""
        resource = self.store.get(kinds.MODEL_DEPLOYMENT, "shop", "fraud")
        self.store = Store()
        assert resource is not None
        self.store.put(kinds.MODEL_DEPLOYMENT, resource)
        if "fraud-drift" in self.server.maps:
            self.store.put(kinds.CONFIG_MAP, self.server.maps["fraud-drift"])
        self.registry = CollectorRegistry()
        self.queue = KeyedQueue()
        self.watch = DriftWatch(
            self.server, self.store, self.queue, self.events,  # type: ignore[arg-type]
            DriftMetrics(self.registry), self.prometheus, ScrapeLabels(),
            lambda: datetime.fromtimestamp(self.hour * HOUR, UTC), self.settle,
        )  # fmt: skip

    def round(self, hour: float | None = None) -> float:
        self.hour = self.hour if hour is None else hour
        return asyncio.run(self.watch.round())

    @property
    def known(self) -> tuple[Memory, Report]:
        resource = self.store.get(kinds.MODEL_DEPLOYMENT, "shop", "fraud")
        assert resource is not None
        (one,) = self.watch._monitored()
        assert isinstance(one, Monitored)
        return opened(one, 0.0)

    @property
    def report(self) -> Report:
        return self.known[1]

    def metrics(self) -> str:
        return generate_latest(self.registry).decode()
