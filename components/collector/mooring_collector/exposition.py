"""The counts as Prometheus text.

A series is written once it is above zero: most cells of most features stay empty, and with 500
features there are 33,000 of them. A client library would make an object of each at every scrape.
"""

from __future__ import annotations

import asyncio
import resource
import sys
import time
from collections.abc import Iterator, Sequence
from itertools import accumulate, islice

import numpy as np

from mooring_collector import __version__
from mooring_collector.counts import SIZE_EDGES
from mooring_collector.telemetry import Revision, Telemetry

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
_PREFIX = "mooring_telemetry_"
_PIECE = 2000
#: When this process began to count: the counters of two processes in one pod are then two series,
#: and none ever falls. A revision whose counts may have been dropped and begun anew has lives of
#: its own, for the same reason.
_LIFE = f"{time.time():.3f}"


async def exposition(telemetry: Telemetry, *, held_bytes: int, exchanges: int, lag: float) -> bytes:
    """Everything, in the text format. Between its pieces others get their turn: of three revisions
    of 500 features it has 90,000 lines.
    """
    telemetry.flush()
    parts: list[bytes] = []
    lines = _lines(telemetry, held_bytes, exchanges, lag)
    while piece := list(islice(lines, _PIECE)):
        parts.append(("\n".join(piece) + "\n").encode("utf-8", "replace"))
        await asyncio.sleep(0)
    return b"".join(parts)


def _lines(telemetry: Telemetry, held_bytes: int, exchanges: int, lag: float) -> Iterator[str]:
    for part in (_requests, _features, _outputs, _violations, _sizes, _feedback, _errors):
        yield from part(telemetry)
    yield from _own(held_bytes, exchanges, lag)


def _text(value: str) -> str:
    return value.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")


def _head(name: str, kind: str, about: str) -> Iterator[str]:
    yield f"# HELP {name} {about}"
    yield f"# TYPE {name} {kind}"


def _revisions(telemetry: Telemetry) -> Iterator[tuple[str, Revision]]:
    """Every revision, after the labels that tell its series from all others."""
    # A list, since new ones may come, and old ones go, between two pieces.
    for name, revision in list(telemetry.revisions.items()):
        yield _labels(name, revision), revision


def _labels(name: str, revision: Revision | None = None) -> str:
    life = f"{_LIFE}/{revision.number}" if revision is not None and revision.again else _LIFE
    return f'life="{life}",revision="{_text(name)}"'


def _requests(telemetry: Telemetry) -> Iterator[str]:
    name = f"{_PREFIX}requests_total"
    yield from _head(name, "counter", "Requests by what became of their copies.")
    for shown, revision in _revisions(telemetry):
        for (traffic, kind), count in sorted(revision.requests.items()):
            labels = f'{shown},traffic="{traffic}",kind="{kind}"'
            yield f"{name}{{{labels}}} {count}"
    name = f"{_PREFIX}rows_total"
    yield from _head(name, "counter", "Rows of live requests that were counted into features.")
    yield f"{name}{{{_labels('')}}} 0"  # there from the start: scraped, and nobody asked
    for shown, revision in _revisions(telemetry):
        if revision.rows:
            yield f"{name}{{{shown}}} {revision.rows}"


def _features(telemetry: Telemetry) -> Iterator[str]:
    name = f"{_PREFIX}feature_rows_total"
    yield from _head(name, "counter", "Rows of live requests by feature and cell of the grid.")
    grid = _text(telemetry.settings.grid)
    for shown, revision in _revisions(telemetry):
        for column, cells in revision.features.series():
            start = f'{name}{{{shown},grid="{grid}",feature="{_text(column.name)}",cell="'
            yield from (f'{start}{cell}"}} {cells[cell]}' for cell in np.flatnonzero(cells))


def _outputs(telemetry: Telemetry) -> Iterator[str]:
    name = f"{_PREFIX}output_rows_total"
    yield from _head(name, "counter", "Rows of answers by output and cell of the grid.")
    grid = _text(telemetry.settings.grid)
    for shown, revision in _revisions(telemetry):
        for traffic, outputs in revision.outputs.items():
            for column, cells in outputs.series():
                labels = (
                    f'{shown},traffic="{traffic}",grid="{grid}",'
                    f'output="{_text(column.name)}",cell="'
                )
                yield from (f'{name}{{{labels}{cell}"}} {cells[cell]}'
                            for cell in np.flatnonzero(cells))  # fmt: skip
    name = f"{_PREFIX}constant_outputs_total"
    yield from _head(name, "counter", "Rows of answers with the value of the row before.")
    for shown, revision in _revisions(telemetry):
        for traffic, outputs in revision.outputs.items():
            for output, count in sorted(outputs.constant.items()):
                labels = f'{shown},traffic="{traffic}",output="{_text(output)}"'
                yield f"{name}{{{labels}}} {count}"


def _violations(telemetry: Telemetry) -> Iterator[str]:
    name = f"{_PREFIX}violations_total"
    yield from _head(name, "counter", "Rows that broke a rule, by feature (or output) and rule.")
    for shown, revision in _revisions(telemetry):
        found = revision.features.violations.copy()
        found.update(revision.outputs["live"].violations)
        for (feature, rule), count in sorted(found.items()):
            labels = f'{shown},feature="{_text(feature)}",rule="{rule}"'
            yield f"{name}{{{labels}}} {count}"


def _sizes(telemetry: Telemetry) -> Iterator[str]:
    for part, about in (("request", "requests"), ("response", "answers")):
        name = f"{_PREFIX}{part}_bytes"
        yield from _head(name, "histogram", f"Bodies of {about} that were looked at.")
        for shown, revision in _revisions(telemetry):
            sizes = revision.request_sizes if part == "request" else revision.answer_sizes
            yield from _histogram(name, shown, SIZE_EDGES, sizes.counts, sizes.total)


def _histogram(
    name: str, labels: str, edges: Sequence[float], bins: Sequence[int], total: float
) -> Iterator[str]:
    counts = list(accumulate(bins))
    if not counts[-1]:
        return
    for edge, count in zip((*edges, "+Inf"), counts, strict=True):
        yield f'{name}_bucket{{{labels},le="{edge}"}} {count}'
    yield f"{name}_sum{{{labels}}} {total}"
    yield f"{name}_count{{{labels}}} {counts[-1]}"


def _feedback(telemetry: Telemetry) -> Iterator[str]:
    name = f"{_PREFIX}feedback_total"
    yield from _head(name, "counter", "Labels that came, by whether their prediction was found.")
    for shown, revision in _revisions(telemetry):
        for result, count in sorted(revision.feedback.items()):
            yield f'{name}{{{shown},result="{result}"}} {count}'
    name = f"{_PREFIX}outcomes_total"
    yield from _head(name, "counter", "Labels by the output's cell that they belong to.")
    grid = _text(telemetry.settings.grid)
    for shown, revision in _revisions(telemetry):
        for (output, cell, label), count in sorted(revision.outcomes.counts.items()):
            labels = (
                f'{shown},grid="{grid}",output="{_text(output)}",cell="{cell}",'
                f'label="{_text(label)}"'
            )
            yield f"{name}{{{labels}}} {count}"


def _errors(telemetry: Telemetry) -> Iterator[str]:
    grid = _text(telemetry.settings.grid)
    for part, about in (
        ("labelled_rows", "Labels that are numbers, by the output's cell that they belong to."),
        ("absolute_errors", "Sum of |prediction - label|, by the output's cell."),
        ("squared_errors", "Sum of (prediction - label)^2, by the output's cell."),
        ("quartic_errors", "Sum of (prediction - label)^4, by the output's cell."),
    ):
        name = f"{_PREFIX}{part}_total"
        yield from _head(name, "counter", about)
        for shown, revision in _revisions(telemetry):
            for output, sums in list(revision.errors.items()):
                start = f'{name}{{{shown},grid="{grid}",output="{_text(output)}",cell="'
                values = {
                    "labelled_rows": sums.rows,
                    "absolute_errors": sums.absolute,
                    "squared_errors": sums.squared,
                    "quartic_errors": sums.quartic,
                }[part]
                yield from (
                    f'{start}{cell}"}} {values[cell]}' for cell in np.flatnonzero(sums.rows)
                )
    name = f"{_PREFIX}absolute_error"
    yield from _head(name, "histogram", "Labels that are numbers, by |prediction - label|.")
    for shown, revision in _revisions(telemetry):
        for output, sums in list(revision.errors.items()):
            labels = f'{shown},grid="{grid}",output="{_text(output)}"'
            total = float(sums.absolute.sum())
            yield from _histogram(name, labels, sums.edges, sums.bins, total)


def _own(held_bytes: int, exchanges: int, lag: float) -> Iterator[str]:
    used = resource.getrusage(resource.RUSAGE_SELF)
    gauges = (
        ("mooring_collector_held_bytes", "Bytes of bodies whose exchanges go on.", held_bytes),
        ("mooring_collector_exchanges", "Exchanges that go on.", exchanges),
        ("mooring_collector_lag_seconds", "How far behind it is.", round(lag, 6)),
        # ru_maxrss is the highest so far, in KiB on Linux.
        ("mooring_collector_peak_memory_bytes", "Highest resident memory.", used.ru_maxrss << 10),
    )
    for name, about, value in gauges:
        yield from _head(name, "gauge", about)
        yield f"{name} {value}"
    name = "process_cpu_seconds_total"
    yield from _head(name, "counter", "CPU time, user and system.")
    yield f"{name} {used.ru_utime + used.ru_stime:.6f}"
    name = "mooring_collector_build_info"
    yield from _head(name, "gauge", "Always 1; the labels say what is running.")
    python = ".".join(map(str, sys.version_info[:3]))
    yield f'{name}{{version="{__version__}",python="{python}"}} 1'
