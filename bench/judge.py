"""Judges many rollouts in one tick, as the operator does every few seconds, and measures it.

    python -m bench.judge --rollouts 1000

Each rollout has two metrics (error rate and latency, each against stable and against an objective),
two router pods and a latency grid of 24 edges. Measured is the CPU time of one tick in one thread,
counters in, verdicts and new state out; and beside it reading and writing the state as JSON, and
its size.
"""

from __future__ import annotations

import json
import statistics
import time

import click
import numpy as np
from rich.console import Console
from rich.table import Table

from bench.machine import describe
from mooring.core.judge import (
    Analysis,
    Counters,
    ErrorRate,
    Latency,
    Metric,
    Pods,
    Scrape,
    State,
    Subject,
    Tick,
    Weights,
    judge,
)

EDGES = tuple(0.001 * 2 ** (place / 2) for place in range(24))
ANALYSIS = Analysis(
    metrics=(
        Metric("errors", ErrorRate(max_ratio=1.5, max=0.02)),
        Metric("latency", Latency(quantile=0.95, max=EDGES[16], max_ratio=1.3)),
    ),
    edges=EDGES,
    unfinished_after=EDGES[16],
)
SOURCES = ("router-0", "router-1")
REQUESTS = np.array([10, 90])
TICK = 5.0


def _sides(random: np.random.Generator, rollouts: int) -> np.ndarray:
    """What both sides of every source see in one tick: attempts, errors, buckets."""
    shape = (rollouts, len(SOURCES), 2)
    attempts = random.poisson(REQUESTS, shape)
    errors = random.binomial(attempts, 0.005)
    slots = len(EDGES) + 1
    share = np.exp(-0.5 * ((np.arange(slots) - 11) / 2.0) ** 2)
    latency = random.multinomial(attempts, share / share.sum())
    return np.concatenate([attempts[..., None], errors[..., None], latency], axis=-1)


def _tick(totals: np.ndarray, now: float) -> list[Tick]:
    ticks = []
    for rollout in totals.tolist():
        scrapes = {}
        for name, sides in zip(SOURCES, rollout, strict=True):
            candidate, stable = (Counters(n, bad, 0.0, tuple(b)) for n, bad, *b in sides)
            scrapes[name] = Scrape(now, candidate, (stable,), born=0.0)
        ticks.append(Tick(now, Weights(10, 0.0), scrapes, Pods(1, 9)))
    return ticks


@click.command()
@click.option("--rollouts", default=1000, show_default=True, type=click.IntRange(min=1))
@click.option("--ticks", default=20, show_default=True, type=click.IntRange(min=1))
@click.option("--no-color", is_flag=True, help="No colours (NO_COLOR is respected, too).")
@click.option("-o", "--output", type=click.Choice(["table", "json"]), default="table")
def main(rollouts: int, ticks: int, no_color: bool, output: str) -> None:
    """Print the CPU time of one tick over all rollouts."""
    random = np.random.default_rng(7)
    states = [State.begin(ANALYSIS)] * rollouts
    totals = np.zeros((rollouts, len(SOURCES), 2, len(EDGES) + 3))
    judging, saving, loading, size = [], [], [], 0
    for at in range(1, ticks + 1):
        totals = totals + _sides(random, rollouts)
        given = _tick(totals, at * TICK)
        subjects = [Subject(ANALYSIS, s, t) for s, t in zip(states, given, strict=True)]
        begin = time.process_time()
        found = judge(subjects)
        judging.append(time.process_time() - begin)
        begin = time.process_time()
        texts = [json.dumps(one.state.dump(), separators=(",", ":")) for one in found]
        saving.append(time.process_time() - begin)
        begin = time.process_time()
        states = [State.load(json.loads(text), ANALYSIS)[0] for text in texts]
        loading.append(time.process_time() - begin)
        size = max(size, *(len(text) for text in texts))
    results = {
        "rollouts": rollouts,
        "metrics": len(ANALYSIS.metrics),
        "ticks": ticks,
        "judgeSeconds": round(statistics.median(judging), 4),
        "judgeSecondsWorst": round(max(judging), 4),
        "dumpSeconds": round(statistics.median(saving), 4),
        "loadSeconds": round(statistics.median(loading), 4),
        "stateBytesLargest": size,
        "machine": describe(),
    }
    if output == "json":
        click.echo(json.dumps(results))
        return
    table = Table(title=f"{rollouts} rollouts × {len(ANALYSIS.metrics)} metrics, one tick")
    table.add_column("what")
    table.add_column("CPU, median of ticks", justify="right")
    table.add_row("judge", f"{results['judgeSeconds']:.3f} s")
    table.add_row("judge, the slowest tick", f"{results['judgeSecondsWorst']:.3f} s")
    table.add_row("state to JSON", f"{results['dumpSeconds']:.3f} s")
    table.add_row("state from JSON", f"{results['loadSeconds']:.3f} s")
    table.add_row("largest state", f"{size:,} bytes")
    console = Console(no_color=no_color or None)
    console.print(table)
    console.print(str(describe()), style="dim")


if __name__ == "__main__":
    main()
