"""Reading what collectors counted: as few questions as keep each answer small."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping, Sequence

from mooring.adapters.prometheus import Prometheus
from mooring.core.answers import NoAnswer, Reason, read_keyed
from mooring.core.router_counters import KEY, ScrapeLabels
from mooring.core.telemetry import (
    HALVES,
    Counted,
    Name,
    Part,
    Watched,
    joined,
    parts,
    query,
    read,
    shards,
)

_Answers = Mapping[Name, Counted | NoAnswer]


async def read_window(
    prometheus: Prometheus,
    watched: Iterable[Watched],
    start: float,
    end: float,
    window: float,
    labels: ScrapeLabels | None = None,
) -> _Answers:
    """What was counted in ``(start, end]``, by (namespace, deployment), or why nobody can say.

    ``window`` is the length of the windows. Shards are asked at once, parts of a window in turn.
    """
    groups = shards(watched)
    spans = parts(start, end, window)
    found: dict[Name, Counted | NoAnswer] = {}
    for group in await asyncio.gather(
        *(_read_shard(prometheus, shard, spans, labels) for shard in groups)
    ):
        found.update(group)
    return found


async def _read_shard(
    prometheus: Prometheus,
    shard: tuple[Watched, ...],
    spans: Sequence[Part],
    labels: ScrapeLabels | None,
) -> _Answers:
    read_parts = [await _read_part(prometheus, shard, span, labels) for span in spans]
    return {one.key: _joined([part[one.key] for part in read_parts]) for one in shard}


async def _read_part(
    prometheus: Prometheus,
    shard: tuple[Watched, ...],
    part: Part,
    labels: ScrapeLabels | None,
    cells: str | None = None,
) -> _Answers:
    def reader(body: bytes, _: float) -> Mapping[Name, Counted] | NoAnswer:
        keyed = read_keyed(body, KEY)
        return keyed if isinstance(keyed, NoAnswer) else read(keyed, shard, part)

    answer = await prometheus.read(query(shard, part, labels, cells=cells), reader)
    if not isinstance(answer, NoAnswer):
        return answer
    if answer.reason is Reason.TOO_LARGE and len(shard) > 1:
        middle = len(shard) // 2
        halves = [
            await _read_part(prometheus, half, part, labels)
            for half in (shard[:middle], shard[middle:])
        ]
        return {**halves[0], **halves[1]}
    if answer.reason is Reason.TOO_LARGE and cells is None:
        both = [await _read_part(prometheus, shard, part, labels, half) for half in HALVES]
        return {one.key: _joined([half[one.key] for half in both]) for one in shard}
    return {one.key: answer for one in shard}


def _joined(readings: Sequence[Counted | NoAnswer]) -> Counted | NoAnswer:
    """The sum of all, or the first reason why there is none."""
    counted = []
    for one in readings:
        if isinstance(one, NoAnswer):
            return one
        counted.append(one)
    return joined(counted)
