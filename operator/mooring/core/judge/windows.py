"""From cumulative counters to windows: what happened between two scrapes of one router pod.

One scrape of one router pod holds both sides at one moment, so a window of one pod is consistent
in itself. Windows of several pods are never mixed: each has its own share π, and a pod that misses
a scrape contributes a longer window later.

A remembered source is one flat tuple: its sample time, the times of two older samples a and b,
then for the candidate and for stable attempts, attempts at a and b, the credit for overdue requests
(:mod:`mooring.core.judge.overdue`; not there in what earlier versions wrote), the counted bad
requests per channel, and the latency buckets. Channel 0 is errors; each latency metric has one of
its own, requests slower than its objective. :mod:`mooring.core.judge.unread` marks histograms that
were not read: windows with one say nothing of latency.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

import numpy as np
from numpy.typing import NDArray

from mooring.core.clock import CLOCK_SET_BACK
from mooring.core.judge.edges import snap
from mooring.core.judge.evidence import Array
from mooring.core.judge.memory import FORGET_AFTER, MAX_SOURCES, State
from mooring.core.judge.overdue import NEVER, overdue, rotate, settle
from mooring.core.judge.readings import CONTRADICTION, Counters, Scrape, Tick
from mooring.core.judge.settings import Analysis, Latency
from mooring.core.judge.unread import is_untimed, unread_sides, with_marks, without_marks

#: No counter of a router gets there, and above it one more would be lost in rounding.
_MOST: Final = 1e15
_HEAD: Final = 3
_SIDE: Final = 4
_CREDIT: Final = 3


@dataclass(frozen=True, slots=True)
class Windows:
    """Windows of many rollouts; ``owner`` is the place of the rollout. Counts are of the window.

    ``requests``: attempts (windows, 2); ``bad`` (windows, 2, channels); ``latency``
    (windows, 2, buckets). ``warm``: latency may be judged by it: no endpoint was younger than the
    warm-up, and histograms were read at both ends.
    """

    owner: NDArray[np.intp]
    requests: Array
    bad: Array
    latency: Array
    warm: NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Intake:
    """Windows, and per rollout what its sources look like after them.

    ``fresh``: a source gave a new sample. ``refused``: scrapes whose numbers make no sense.
    ``untimed``: there are requests, and no histogram of their latencies.
    """

    windows: Windows
    sources: tuple[Mapping[str, tuple[float, ...]], ...]
    fresh: tuple[bool, ...]
    refused: tuple[int, ...]
    untimed: tuple[bool, ...]


@lru_cache(maxsize=4096)
def channels_of(analysis: Analysis) -> tuple[int | None, ...]:
    """Per channel the first bucket that counts as bad; None for channel 0, the errors.

    A latency metric without an objective has a channel in which nothing is ever bad.
    """
    found: list[int | None] = [None]
    for metric in analysis.counted:
        if isinstance(metric.rule, Latency):
            edge = None if metric.rule.max is None else snap(analysis.edges, metric.rule.max)
            found.append(len(analysis.edges) + 1 if edge is None else edge + 1)
    return tuple(found)


@lru_cache(maxsize=4096)
def _shape(analysis: Analysis) -> tuple[int, int]:
    """Channels and buckets."""
    return len(channels_of(analysis)), len(analysis.grid) + 1


def take_in(states: Sequence[State], analyses: Sequence[Analysis], ticks: Sequence[Tick]) -> Intake:
    """The windows that the ticks bring, for all rollouts at once."""
    shapes = [_shape(a) for a in analyses]
    channels = max((c for c, _ in shapes), default=1)
    buckets = max((b for _, b in shapes), default=1)
    owner: list[int] = []
    names: list[str] = []
    new: list[list[float]] = []
    unread: list[tuple[bool, bool]] = []
    old: list[Sequence[float]] = []
    width = _HEAD + 2 * (_SIDE + channels + buckets)
    nothing = (NEVER,) * width
    for place, (state, tick) in enumerate(zip(states, ticks, strict=True)):
        for name in sorted(tick.scrapes)[:MAX_SOURCES]:
            owner.append(place)
            names.append(name)
            new.append(_flat(tick.scrapes[name], buckets, shapes[place][1]))
            unread.append(unread_sides(tick.scrapes[name], timed=shapes[place][1] > 1))
            known = state.sources.get(name)
            old.append(nothing if known is None else _wide(known, shapes[place], channels, buckets))
    if not owner:
        return _nothing(states, channels, buckets)
    limits = np.array([a.unfinished_after or 0.0 for a in analyses])
    first_bad = np.full((len(analyses), channels), buckets)
    for place, analysis in enumerate(analyses):
        for channel, edge in enumerate(channels_of(analysis)):
            first_bad[place, channel] = buckets if edge is None else edge
    hung = np.array([_hung_channels(a, channels) for a in analyses], dtype=float)
    owners = np.array(owner, dtype=np.intp)
    frame = _Frame(
        np.array([t.weights.since for t in ticks])[owners],
        np.array([t.weights.random for t in ticks])[owners],
        limits[owners],
        first_bad[owners],
        hung[owners],
        np.array([_warm_from(t, a) for t, a in zip(ticks, analyses, strict=True)])[owners],
        np.array(unread),
    )
    cut = _cut(np.array(new), np.array(old, dtype=float), frame, channels, buckets)
    return _gather(states, ticks, shapes, owners, names, cut, (channels, buckets))


def _warm_from(tick: Tick, analysis: Analysis) -> float:
    newest = tick.pods.newest
    return -np.inf if newest is None or not np.isfinite(newest) else newest + analysis.warm_up


def _hung_channels(analysis: Analysis, channels: int) -> list[bool]:
    """Whether a request without an answer after ``unfinished_after`` is bad, per channel."""
    found = [analysis.unfinished_after is not None]
    for metric in analysis.counted:
        if isinstance(metric.rule, Latency):
            limit, objective = analysis.unfinished_after, metric.rule.max
            found.append(limit is not None and objective is not None and limit >= objective)
    return found + [False] * (channels - len(found))


def _flat(scrape: Scrape, buckets: int, expected: int) -> list[float]:
    """time, born, then per side attempts, errors, unfinished and the buckets."""
    stable = scrape.stable[0] if scrape.stable else Counters()
    for half in scrape.stable[1:]:
        stable = stable.plus(half)
    row = [scrape.time, np.nan if scrape.born is None else scrape.born]
    for side in (scrape.candidate, stable):
        latency = side.latency if expected > 1 else ()
        if latency and len(latency) != expected:
            row[0] = np.nan  # a histogram over another grid says nothing
            latency = ()
        row += [side.attempts, side.errors, side.unfinished, *latency]
        row += [0.0] * (buckets - len(latency))
    return row


def _wide(
    known: Sequence[float], shape: tuple[int, int], channels: int, buckets: int
) -> Sequence[float]:
    """A remembered source, padded to the widest of the batch."""
    c, b = shape
    if len(known) == _HEAD + 2 * (_SIDE - 1 + c + b):
        known = _with_credit(known)
    if len(known) != _HEAD + 2 * (_SIDE + c + b):
        return (NEVER,) * (_HEAD + 2 * (_SIDE + channels + buckets))
    if (c, b) == (channels, buckets):
        return known
    row = list(known[:_HEAD])
    for side in range(2):
        at = _HEAD + side * (_SIDE + c + b)
        row += known[at : at + _SIDE + c]
        row += [0.0] * (channels - c)
        row += known[at + _SIDE + c : at + _SIDE + c + b]
        row += [0.0] * (buckets - b)
    return row


def _with_credit(known: Sequence[float]) -> Sequence[float]:
    """A source as earlier versions remembered it, with a credit that is not known."""
    stable = _HEAD + (len(known) - _HEAD) // 2
    parts = [known[:_HEAD]]
    for start, end in ((_HEAD, stable), (stable, len(known))):
        parts += [known[start : start + _CREDIT], (NEVER,), known[start + _CREDIT : end]]
    return [value for part in parts for value in part]


@dataclass(frozen=True, slots=True)
class _Frame:
    """Per source, what its rollout says: see the names in :func:`take_in`."""

    since: Array
    random: NDArray[np.bool_]
    limit: Array
    first_bad: NDArray[np.intp]
    hung: Array
    warm_from: Array
    unread: NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class _Cut:
    fresh: NDArray[np.bool_]
    valid: NDArray[np.bool_]
    emit: NDArray[np.bool_]
    warm: NDArray[np.bool_]
    requests: Array
    bad: Array
    latency: Array
    memory: Array


def _cut(new: Array, old: Array, frame: _Frame, channels: int, buckets: int) -> _Cut:
    """Takes the differences of all sources; the rules stand where they are applied."""
    time, born = new[:, 0], new[:, 1]
    sides = new[:, 2:].reshape(len(new), 2, 3 + buckets)
    numbers = sides.reshape(len(new), -1)
    sane = (numbers >= 0) & (numbers < _MOST)
    valid = np.isfinite(time) & sane.all(axis=1)
    sides = np.where(valid[:, None, None], sides, 0.0)
    before, marks = without_marks(
        old[:, _HEAD:].reshape(len(old), 2, _SIDE + channels + buckets), _SIDE + channels
    )
    # Errors are not among them: what clients gave up is a difference, which may fall by one or two.
    raw_new = np.concatenate([sides[:, :, :1], sides[:, :, 3:]], axis=2)
    raw_old = np.concatenate([before[:, :, :1], before[:, :, _SIDE + channels :]], axis=2)
    known = old[:, 0] > NEVER
    set_back = known & (time < old[:, 0] - CLOCK_SET_BACK)
    fresh = valid & (~known | set_back | (time > old[:, 0]))
    first = ~known | set_back
    # Attempts that fell began anew with their process. When they fell on one side only, its
    # cluster was replaced, and nobody knows what the window holds: it is left out. When something
    # fell and attempts did not, the answer was not complete, and must not become what the next one
    # is compared with.
    fell = (raw_new < raw_old).any(axis=2) & ~first[:, None]
    anew = (raw_new[:, :, 0] < raw_old[:, :, 0]) & ~first[:, None]
    restarted = anew.any(axis=1) & (anew | (raw_old[:, :, 0] == 0)).all(axis=1)
    partial = fell.any(axis=1) & ~restarted
    contradicts = (fell & ~anew).any(axis=1) & ~restarted
    valid &= ~(contradicts & fresh & (time - old[:, 0] < CONTRADICTION))
    fresh &= valid
    from_zero = first | restarted
    # A window counts when all of it lies under the weights in force. Counters that began at zero
    # count from there only when it is known that their process did: sums over endpoints fall, too,
    # when somebody forgets those that went.
    young = (born >= frame.since) & ~set_back
    reborn = (born >= old[:, 0]) & (young | (old[:, 0] >= frame.since))
    inside = np.where(restarted, reborn, old[:, 0] >= frame.since)
    begins_inside = np.where(first, young, inside)
    emit = fresh & ~partial & begins_inside & frame.random
    base = np.where((from_zero[:, None] | fell)[:, :, None], 0.0, raw_old)
    counted_base = np.where(
        (from_zero[:, None] | fell)[:, :, None], 0.0, before[:, :, _SIDE : _SIDE + channels]
    )
    broken = from_zero | partial
    head = np.where(broken[:, None], NEVER, old[:, :_HEAD])
    waiting = overdue(sides, before, head, time, frame.limit)
    above = _above(sides[:, :, 3:], frame.first_bad)
    level = above + waiting[:, :, None] * frame.hung[:, None, :]
    # An overdue request is bad once: not again when its answer comes at last, which is slow.
    counted = np.maximum(counted_base, level)
    bad = counted - counted_base
    credit = np.where(from_zero[:, None] | fell, 0.0, before[:, :, _CREDIT])
    bad[:, :, 0], counted[:, :, 0], credit = settle(
        sides[:, :, 1], waiting * frame.hung[:, :1], sides[:, :, 2], counted_base[:, :, 0], credit
    )
    anchors, anchor_counts = rotate(head, before, time, frame.limit)
    marks = np.where(from_zero[:, None], 0.0, marks)
    kept = with_marks(sides[:, :, 3:], frame.unread, marks, time - old[:, 0])
    memory = np.concatenate(
        [
            time[:, None],
            anchors,
            np.concatenate(
                [sides[:, :, :1], anchor_counts, credit[:, :, None], counted, kept], 2
            ).reshape(len(new), -1),
        ],
        axis=1,
    )
    difference = raw_new - base
    timed = ~(frame.unread | (marks < 0)).any(axis=1)
    begins = np.where(from_zero, np.where(first, born, old[:, 0]), old[:, 0])
    return _Cut(
        fresh, valid, emit, timed & (begins >= frame.warm_from), difference[:, :, 0], bad,
        difference[:, :, 1:], memory,
    )  # fmt: skip


def _above(latency: Array, first_bad: NDArray[np.intp]) -> Array:
    """Counts in the buckets from ``first_bad`` on: (n, 2, b) and (n, c) to (n, 2, c)."""
    places = np.arange(latency.shape[2])
    slow = places[None, None, :] >= first_bad[:, :, None]
    return np.asarray(np.einsum("nsb,ncb->nsc", latency, slow.astype(float)))


def _gather(
    states: Sequence[State],
    ticks: Sequence[Tick],
    shapes: Sequence[tuple[int, int]],
    owners: NDArray[np.intp],
    names: Sequence[str],
    cut: _Cut,
    widest: tuple[int, int],
) -> Intake:
    sources = [dict(state.sources) for state in states]
    fresh = [False] * len(states)
    refused = [0] * len(states)
    lines = cut.memory.tolist()
    for at, (place, name) in enumerate(zip(owners.tolist(), names, strict=True)):
        if not cut.valid[at]:
            refused[place] += 1
        elif cut.fresh[at]:
            fresh[place] = True
            sources[place][name] = _narrow(lines[at], shapes[place], widest)
    kept = tuple(_bounded(one, tick) for one, tick in zip(sources, ticks, strict=True))
    use = cut.emit
    windows = Windows(owners[use], cut.requests[use], cut.bad[use], cut.latency[use], cut.warm[use])
    untimed = tuple(
        is_untimed([one[name] for name in tick.scrapes if name in one], _HEAD, _SIDE + c, b)
        for one, tick, (c, b) in zip(kept, ticks, shapes, strict=True)
    )
    return Intake(windows, kept, tuple(fresh), tuple(refused), untimed)


def _narrow(
    line: list[float], shape: tuple[int, int], widest: tuple[int, int]
) -> tuple[float, ...]:
    c, b = shape
    channels, buckets = widest
    if shape == widest:
        return tuple(line)
    row = line[:_HEAD]
    for side in range(2):
        at = _HEAD + side * (_SIDE + channels + buckets)
        row += line[at : at + _SIDE + c]
        row += line[at + _SIDE + channels : at + _SIDE + channels + b]
    return tuple(row)


def _bounded(sources: dict[str, tuple[float, ...]], tick: Tick) -> dict[str, tuple[float, ...]]:
    """Forgets router pods that are gone, and keeps no more than MAX_SOURCES: those given now."""
    if not sources:
        return sources
    newest = max(values[0] for values in sources.values())
    alive = {
        name: values
        for name, values in sources.items()
        if name in tick.scrapes or values[0] >= newest - FORGET_AFTER
    }
    order = sorted(alive, key=lambda name: (name not in tick.scrapes, name))
    return {name: alive[name] for name in sorted(order[:MAX_SOURCES])}


def _nothing(states: Sequence[State], channels: int, buckets: int) -> Intake:
    empty = Windows(
        np.zeros(0, dtype=np.intp),
        np.zeros((0, 2)),
        np.zeros((0, 2, channels)),
        np.zeros((0, 2, buckets)),
        np.zeros(0, dtype=bool),
    )
    no = (False,) * len(states)
    return Intake(empty, tuple(s.sources for s in states), no, (0,) * len(states), no)
