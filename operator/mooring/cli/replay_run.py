"""Asks Prometheus look by look about the past, and lets the judge look on."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator, Callable, Iterable
from dataclasses import replace
from typing import Final

from mooring.adapters.prometheus import Prometheus
from mooring.adapters.prometheus_access import Access
from mooring.adapters.prometheus_counters import read_counters
from mooring.adapters.prometheus_halves import read_halves
from mooring.adapters.prometheus_telemetry import read_window
from mooring.cli.failure import NOT_FOUND, UNREACHABLE, Failure
from mooring.cli.replay_subject import Asked, Period
from mooring.cli.replay_view import Change, Played
from mooring.core.analysis import Standard
from mooring.core.answers import NoAnswer, single_value
from mooring.core.examination import Phase
from mooring.core.halves import Halved, History, edges_of
from mooring.core.judge import PredictionShift, Verdict
from mooring.core.judge.shift import WINDOW, OutputWindow, window_before
from mooring.core.replay import (
    Playing,
    Trial,
    clusters_query,
    look,
    revisions_of,
    spans,
    split_clusters_of,
)
from mooring.core.router_counters import Reading, ScrapeLabels
from mooring.core.telemetry import Counted, Watched
from mooring.core.tribunal import Measured, window_of

#: So many looks are read at once; they are judged one after the other all the same.
AT_ONCE: Final = 4


async def play(
    asked: Asked,
    period: Period,
    held_to: Standard,
    access: Access,
    labels: ScrapeLabels,
    progress: Callable[[float], None],
) -> Played:
    """The replay, to its end or to the first Fail: what came after is another rollout's history."""
    prometheus = Prometheus(access)
    try:
        trial = await _trial(prometheus, asked, period, held_to, labels)
        step = period.tick.total_seconds()
        times = (trial.began + n * step for n in range(period.looks))
        playing, changes, looks = Playing(), list[Change](), 0
        history = await _history(prometheus, trial, labels)
        async for at, read in _measured(prometheus, trial, labels, times):
            outputs = await _outputs(prometheus, trial, labels, at, step)
            measured = replace(read, history=history, outputs=outputs)
            evidence, playing = look(trial, playing, at, measured)
            looks += 1
            progress(looks / period.looks)
            change = Change.of(evidence, playing.weight, changes[-1] if changes else None)
            changes += [change] if change is not None else []
            if evidence.judgement.verdict is Verdict.FAIL:
                break
    finally:
        await prometheus.close()
    return Played(trial, asked.resource.spec, period, looks, tuple(changes), evidence)


async def _trial(
    prometheus: Prometheus, asked: Asked, period: Period, held_to: Standard, labels: ScrapeLabels
) -> Trial:
    names = await _clusters(prometheus, asked, period, labels)
    began = period.began.timestamp()
    return Trial(
        namespace=asked.namespace,
        deployment=asked.resource.metadata.name,
        revision=asked.candidate,
        against=asked.stable,
        standard=held_to,
        candidate=split_clusters_of(asked.candidate, names),
        stable=split_clusters_of(asked.stable, names),
        began=began,
        weights=tuple(spans(period.weights, began)),
        phase=Phase.BAKE if asked.bake else Phase.ROLLOUT,
    )


async def _outputs(
    prometheus: Prometheus, trial: Trial, labels: ScrapeLabels, at: float, step: float
) -> OutputWindow | None:
    """The predictions of a window that was over by this look, and not by the one before."""
    end = window_before(at)
    rules = (metric.rule for metric in trial.standard.analysis.metrics)
    shifts = any(isinstance(rule, PredictionShift) for rule in rules)
    if not shifts or end == window_before(at - step):
        return None
    watched = Watched(trial.namespace, trial.deployment, answers=True)
    found = await read_window(prometheus, [watched], end - WINDOW, end, WINDOW, labels)
    counted = found.get(watched.key)
    if not isinstance(counted, Counted) or not counted.scrapes:
        return None
    return window_of(counted, end, trial.revision, trial.against)


async def _history(prometheus: Prometheus, trial: Trial, labels: ScrapeLabels) -> History | None:
    """What stable's halves had counted by then, as the operator asks when it begins to judge."""
    analysis = trial.standard.analysis
    if not analysis.counted:
        return None
    halved = Halved(trial.namespace, trial.deployment, edges_of(analysis))
    found = (await read_halves(prometheus, [halved], labels, at=trial.began)).get(halved.key)
    return None if isinstance(found, NoAnswer) else found


async def _clusters(
    prometheus: Prometheus, asked: Asked, period: Period, labels: ScrapeLabels
) -> tuple[str, ...]:
    """The routers' clusters in this time; raises Failure when one of the revisions has none."""
    name = asked.resource.metadata.name
    text = clusters_query(
        asked.namespace, name, (period.ended - period.began).total_seconds(), labels
    )
    answer = await prometheus.query(text, at=period.ended.timestamp())
    if isinstance(answer, NoAnswer):
        # The sentence names the operator's settings, which are options here.
        words = answer.message.replace("prometheus.url", "--prometheus")
        raise Failure(words.replace("prometheus.timeout", "--timeout"), UNREACHABLE)
    names = tuple(sample.labels.get("envoy_cluster_name", "") for sample in answer.samples)
    known = revisions_of(names)
    for revision in (asked.candidate, asked.stable):
        if revision not in known:
            has = f"it has {', '.join(known)}" if known else "it has no routers of it at all"
            raise Failure(
                f"Prometheus has no counters of revision {revision} of {asked.namespace}/{name} in "
                f"this time: {has}",
                NOT_FOUND,
            )
    return names


async def _measured(
    prometheus: Prometheus, trial: Trial, labels: ScrapeLabels, times: Iterable[float]
) -> AsyncIterator[tuple[float, Measured]]:
    """What was to be read at each time, in their order; some are asked for at once."""
    left = iter(times)
    while batch := list(itertools.islice(left, AT_ONCE)):
        found = await asyncio.gather(*(_read(prometheus, trial, labels, at) for at in batch))
        for pair in zip(batch, found, strict=True):
            yield pair


async def _read(prometheus: Prometheus, trial: Trial, labels: ScrapeLabels, at: float) -> Measured:
    target = trial.target
    counted = trial.standard.analysis.counted
    reading = await read_counters(prometheus, [target], labels, at=at) if counted else Reading()
    values: dict[str, float | NoAnswer] = {}
    for query in trial.standard.queries:
        answer = single_value(await prometheus.query(query.text, single=True, at=at))
        values[query.metric] = answer if isinstance(answer, NoAnswer) else answer.value
    return Measured(
        sources=tuple(reading.sources.get(target.key, ())),
        unscraped=tuple(reading.unscraped.get(target.key, ())),
        failed=reading.failed.get(target.key),
        values=values,
    )
