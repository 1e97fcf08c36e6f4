"""Requests whose latencies nobody reads: they are no evidence of latency, least of all good.

A scrape configuration may drop the buckets of histograms, which are most of what a router exports,
and Envoy shows a histogram some seconds after its first request. An empty histogram beside requests
would look as if every one of them had been fast.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from mooring.core.judge.evidence import Array
from mooring.core.judge.readings import Counters, Scrape

#: What stands in the first bucket of a histogram that was not read, less the seconds since when.
_MARK: Final = -1.0
#: Envoy adds its histograms up every 5 s; without one for longer, it is not scraped.
_LASTS: Final = 5.0


def unread_sides(scrape: Scrape, *, timed: bool) -> tuple[bool, bool]:
    """Whether candidate and stable have requests and no histogram. ``timed``: one is asked for."""
    if not timed:
        return False, False
    return _unread(scrape.candidate), any(map(_unread, scrape.stable))


def _unread(side: Counters) -> bool:
    return side.attempts > 0 and not side.latency


def without_marks(before: Array, first: int) -> tuple[Array, Array]:
    """Remembered sides (n, 2, width) with their marks taken out, and these (n, 2), 0 for none.

    ``first``: place of the first bucket.
    """
    marks = np.minimum(before[:, :, first], 0.0)
    cleared = before.copy()
    cleared[:, :, first] -= marks
    return cleared, marks


def with_marks(buckets: Array, unread: NDArray[np.bool_], marks: Array, seconds: Array) -> Array:
    """Buckets (n, 2, b) to remember: those of an unread side are 0, and the first is its mark."""
    kept = np.where(unread[:, :, None], 0.0, buckets)
    lasting = np.where(marks < 0, marks - np.maximum(seconds, 0.0)[:, None], _MARK)
    kept[:, :, 0] = np.where(unread, lasting, kept[:, :, 0])
    return kept


def is_untimed(sources: Iterable[Sequence[float]], head: int, width: int, buckets: int) -> bool:
    """Whether no router pod tells how long requests take, though some have had requests.

    ``sources``: as remembered, each of ``head`` numbers and then, for either side, ``width`` others
    (the attempts first) before its ``buckets``.
    """
    candidate = head + width
    stable = candidate + buckets + width
    found = False
    for source in sources:
        mark = min(source[candidate], source[stable])
        if mark >= 0 and source[head] > 0:
            return False
        found = found or mark <= _MARK - _LASTS
    return found
