"""Reading what stable's halves have counted: few questions, one after the other."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from mooring.adapters.prometheus import Prometheus
from mooring.core.answers import NoAnswer, read_keyed
from mooring.core.halves import Halved, History, query, read, shards
from mooring.core.router_counters import KEY, ScrapeLabels


async def read_halves(
    prometheus: Prometheus,
    halved: Iterable[Halved],
    labels: ScrapeLabels | None = None,
    *,
    at: float | None = None,
) -> Mapping[tuple[str, str], History | NoAnswer]:
    """The sums of each, or why there are none. ``at``: as of then, on Prometheus' clock."""
    found: dict[tuple[str, str], History | NoAnswer] = {}
    for shard in shards(halved):

        def reader(
            body: bytes, _: float, shard: tuple[Halved, ...] = shard
        ) -> Mapping[tuple[str, str], History] | NoAnswer:
            keyed = read_keyed(body, KEY)
            return keyed if isinstance(keyed, NoAnswer) else read(keyed, shard)

        answer = await prometheus.read(query(shard, labels), reader, at=at)
        if isinstance(answer, NoAnswer):
            found |= {one.key: answer for one in shard}
        else:
            found |= answer
    return found
