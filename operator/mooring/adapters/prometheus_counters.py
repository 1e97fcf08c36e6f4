"""Reading the counters of many rollouts' routers: as few questions as keep each answer small."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable

from mooring.adapters.prometheus import Prometheus
from mooring.core.answers import NoAnswer, Reason, read_keyed
from mooring.core.router_counters import KEY, Reading, ScrapeLabels, Target, query, read, shards


async def read_counters(
    prometheus: Prometheus,
    targets: Iterable[Target],
    labels: ScrapeLabels | None = None,
    *,
    at: float | None = None,
) -> Reading:
    """One question per shard, all at once. A shard whose answer is too large is halved.

    ``at``: what was counted at this time, in seconds on Prometheus' clock, instead of now.
    """
    found = await asyncio.gather(
        *(_read_shard(prometheus, shard, labels, at) for shard in shards(targets))
    )
    return _joined(found)


async def _read_shard(
    prometheus: Prometheus,
    shard: tuple[Target, ...],
    labels: ScrapeLabels | None,
    at: float | None,
) -> Reading:
    def reader(body: bytes, _: float) -> Reading | NoAnswer:
        keyed = read_keyed(body, KEY)
        return keyed if isinstance(keyed, NoAnswer) else read(keyed, shard)

    answer = await prometheus.read(query(shard, labels), reader, at=at)
    if not isinstance(answer, NoAnswer):
        return answer
    if answer.reason is Reason.TOO_LARGE and len(shard) > 1:
        middle = len(shard) // 2
        halves = (shard[:middle], shard[middle:])
        return _joined(
            await asyncio.gather(*(_read_shard(prometheus, half, labels, at) for half in halves))
        )
    return Reading(failed={target.key: answer for target in shard})


def _joined(readings: Iterable[Reading]) -> Reading:
    parts = list(readings)
    return Reading(
        sources={key: value for part in parts for key, value in part.sources.items()},
        unscraped={key: value for part in parts for key, value in part.unscraped.items()},
        failed={key: value for part in parts for key, value in part.failed.items()},
        warnings=tuple(dict.fromkeys(warning for part in parts for warning in part.warnings)),
    )
