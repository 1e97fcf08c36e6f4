"""Reads what both revisions under judgement answered, window by window: for ``predictionShift``."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Mapping
from datetime import datetime
from typing import TYPE_CHECKING

from mooring.adapters.prometheus import Prometheus
from mooring.adapters.prometheus_telemetry import read_window
from mooring.core.answers import NoAnswer
from mooring.core.examination import Examination
from mooring.core.router_counters import ScrapeLabels
from mooring.core.telemetry import Counted, Watched
from mooring.engine.queue import Key

if TYPE_CHECKING:
    from mooring.core.judge.shift import OutputWindow
    from mooring.core.tribunal import Remembered

#: Outputs of a model, for the size of an answer.
_OUTPUTS = 4


async def read_predictions(
    prometheus: Prometheus,
    wanted: Mapping[Key, Examination],
    remembered: Mapping[Key, Remembered],
    now: datetime,
    labels: ScrapeLabels,
) -> dict[Key, OutputWindow]:
    """The windows that are over by ``now``: one question per shard for all that end together.

    What could not be read is left out, and asked for again at the next tick.
    """
    from mooring.core.judge.shift import WINDOW
    from mooring.core.tribunal import window_due, window_of

    ends: dict[float, list[Key]] = defaultdict(list)
    for key, one in wanted.items():
        end = window_due(one, remembered.get(key), now)
        if end is not None:
            ends[end].append(key)

    async def read(end: float, keys: list[Key]) -> Mapping[tuple[str, str], Counted | NoAnswer]:
        watched = [Watched(key.namespace, key.name, _OUTPUTS, answers=True) for key in keys]
        return await read_window(prometheus, watched, end - WINDOW, end, WINDOW, labels)

    answers = await asyncio.gather(*(read(end, keys) for end, keys in ends.items()))
    found: dict[Key, OutputWindow] = {}
    for (end, keys), answer in zip(ends.items(), answers, strict=True):
        for key in keys:
            counted = answer.get((key.namespace, key.name))
            if not isinstance(counted, Counted) or not counted.scrapes:
                continue
            found[key] = window_of(counted, end, wanted[key].revision, wanted[key].against)
    return found
