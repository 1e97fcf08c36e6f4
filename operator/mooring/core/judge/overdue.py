"""Requests that have waited too long for an answer: counted as errors once, whatever comes of them.

What is still in flight must have been waiting too long as far as it cannot have been started
recently. Such requests are errors at once, and their number is remembered as *credit*: when they
end as errors, these are no second ones.
"""

from __future__ import annotations

from typing import Final

import numpy as np

from mooring.core.judge.evidence import Array

#: Stands for "there is no such sample", and for a credit that is not known.
NEVER: Final = -1.0


def overdue(sides: Array, before: Array, head: Array, time: Array, limit: Array) -> Array:
    """At least so many requests have waited longer than ``limit`` for an answer, per side.

    Those in flight can be younger only as far as requests were started since the last sample that
    is old enough. When even the last scrape is, the youngest part of the window is estimated, three
    standard deviations up.
    """
    attempts, flying = sides[:, :, 0], sides[:, :, 2]
    age = time - head[:, 0]
    with np.errstate(divide="ignore", invalid="ignore"):
        part = np.where(age > 0, limit / np.where(age > 0, age, 1.0), 1.0)
    recent = np.maximum(attempts - before[:, :, 0], 0.0) * np.minimum(part, 1.0)[:, None]
    by_last = recent + 3 * np.sqrt(recent) + 1
    started = np.full_like(attempts, np.inf)
    for anchor in (1, 2):  # a, then b, which is younger and so closer
        old_enough = (head[:, anchor] > NEVER) & (time - head[:, anchor] >= limit)
        since = np.maximum(attempts - before[:, :, anchor], 0.0)
        started = np.where(old_enough[:, None], since, started)
    last_enough = (head[:, 0] > NEVER) & (age >= limit)
    started = np.where(last_enough[:, None], by_last, started)
    return np.where((limit > 0)[:, None], np.maximum(flying - started, 0.0), 0.0)


def rotate(head: Array, before: Array, time: Array, limit: Array) -> tuple[Array, Array]:
    """The two older samples that are kept: b moves to a when it is old enough, the last to b.

    Where there is no last sample, there is none to keep.
    """
    last, a, b = head[:, 0], head[:, 1], head[:, 2]
    move = (b <= NEVER) | (time - b >= limit)
    times = np.stack([np.where(move, b, a), np.where(move, last, b)], axis=1)
    attempts, old_a, old_b = before[:, :, 0], before[:, :, 1], before[:, :, 2]
    counts = np.stack(
        [np.where(move[:, None], old_b, old_a), np.where(move[:, None], attempts, old_b)], axis=2
    )
    gone = last <= NEVER
    return np.where(gone[:, None], NEVER, times), np.where(gone[:, None, None], 0.0, counts)


def settle(
    errors: Array, waiting: Array, flying: Array, counted: Array, credit: Array
) -> tuple[Array, Array, Array]:
    """New errors, those counted in all, and the credit that is left; all of shape (n, 2).

    ``errors``: the counter now. ``waiting``: :func:`overdue`. ``flying``: requests in flight.
    ``counted``: the counter so far. ``credit``: overdue requests that were counted and have not
    ended as errors. It cannot be more than what is in flight: the others were answered well, and a
    credit for them would swallow as many errors of other requests.

    States of earlier versions remember both as one sum, and :data:`NEVER` for the credit. What of
    the sum the counter does not show is credit.
    """
    known = credit > NEVER
    credit = np.where(known, credit, np.maximum(counted - errors, 0.0))
    counted = np.where(known, counted, np.minimum(counted, errors))
    # What clients gave up is a difference, which may fall by one or two and rise again.
    risen = np.maximum(errors - counted, 0.0)
    left = np.maximum(waiting, np.minimum(credit - risen, flying))
    return np.maximum(risen + waiting - credit, 0.0), np.maximum(counted, errors), left
