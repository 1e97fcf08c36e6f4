"""What the collectors counted in a window: the query that asks Prometheus, and its answer.

The numbers are differences of raw counters, never ``increase()``, which extrapolates. They are
exact, because every counter of a collector carries the label ``life``, the start of its process
(a slash and a number follow where a revision has come after others were dropped, since its counts
may have begun anew): such a series never falls, so what a window holds is its last value in the
window less its last value before. Both are found by ``last_over_time`` over the same span at fixed
times (``@``), so the value that ends one window is the value that the next one begins from: nothing
is counted twice or lost between them, and a window can be read again later with the same result. A
series that was not there before began at 0: a collector exports a cell only once it has counted.

One case has no answer: a process that is older than the window, and was not scraped in the span
before it. What it counted then and in the window cannot be told apart, so the reading says so
(``gap``). What it counted between its last scrape and its end is lost, as with every counter.

A window longer than six hours is read in parts, since Prometheus reads every sample of the span.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from mooring.core.answers import Keyed, NoAnswer, Reason
from mooring.core.router_counters import KEY, ScrapeLabels

#: How far back one question looks (seconds).
LONGEST_PART: Final = 6 * 3600.0
#: Series of an answer take about 120 bytes.
SHARD_SERIES: Final = 15_000
#: Cells of a feature that usually have counts.
_CELLS: Final = 40
_NAME: Final = re.compile(r"[a-z0-9]([-.a-z0-9]*[a-z0-9])?")
_POD: Final = re.compile(r"(.+)-collector-[a-z0-9]{1,10}-[a-z0-9]{5}")
_PREFIX: Final = "mooring_telemetry_"
_COUNTERS: Final = f"{_PREFIX}(requests|rows|feature_rows|output_rows|violations|outcomes)_total"
_ANSWERS: Final = f"{_PREFIX}(rows|output_rows)_total"
_KEPT: Final = (
    "metric", "life", "revision", "traffic", "grid", "cell", "rule", "kind", "feature", "output",
)  # fmt: skip
#: ``feature`` and ``output`` come last, since they alone may hold the separator.
_KEYED: Final = (
    "metric", "revision", "traffic", "grid", "cell", "rule", "kind", "feature", "output",
)  # fmt: skip
#: Labels that a score takes; no other counter has one.
_LABELS: Final = "|0|1|true|false|True|False|[(]number[)]"
_FIELDS: Final = 2 + len(_KEYED) - 2
_BORN_SLACK: Final = 1.0
#: After it stands which of a process's revisions a life is of. Each process has one without, too.
_OF_REVISION: Final = "/"

#: Requests that a header chose are no sample of all; copies for a shadow are one of its answers.
_LIVE: Final = ("", "live")
_TRAFFIC: Final = {"output_rows": (*_LIVE, "shadow")}

Name = tuple[str, str]
Cells = Mapping[int, float]
Answer = tuple[str, str, str]
"""A revision, its output, and what was true."""


@dataclass(frozen=True, slots=True)
class Part:
    """A span of time that one question is about: ``(start, end]``, and how far it looks back."""

    start: float
    end: float
    lookback: float


def parts(start: float, end: float, window: float) -> tuple[Part, ...]:
    """The questions that a window is read by. ``window``: the length of all windows, in seconds."""
    lookback = min(window, LONGEST_PART)
    found = []
    at = start
    while at < end:
        until = min(at + lookback, end)
        found.append(Part(at, until, lookback))
        at = until
    return tuple(found)


@dataclass(frozen=True, slots=True)
class Watched:
    """One ModelDeployment whose collector is read; ``features`` is about how many it counts, and
    ``answers`` whether those are not wanted, but what its revisions answered.
    """

    namespace: str
    deployment: str
    features: int = 20
    answers: bool = False

    def __post_init__(self) -> None:
        for name in (self.namespace, self.deployment):
            if not _NAME.fullmatch(name):
                raise ValueError(f"{name!r} is not the name of an object")

    @property
    def key(self) -> Name:
        return self.namespace, self.deployment


@dataclass(frozen=True, slots=True)
class Counted:
    """What one collector counted in a window.

    Attributes:
        rows: rows of all revisions.
        requests: requests by kind.
        features: rows by grid, feature and cell, over all revisions.
        outputs: rows by grid, revision, output and cell.
        violations: rows by feature and rule.
        outcomes: labels that came, by grid, revision, output, label and cell: those that say 0 or
            1, and ``(number)`` for all that are other numbers.
        scrapes: how many scrapes the numbers are from; 0: nobody looked.
        gap: a process that was not scraped before the window: the numbers are not the window's.
    """

    rows: float = 0.0
    requests: Mapping[str, float] = field(default_factory=dict)
    features: Mapping[str, Mapping[str, Cells]] = field(default_factory=dict)
    outputs: Mapping[str, Mapping[Name, Cells]] = field(default_factory=dict)
    violations: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    scrapes: int = 0
    gap: bool = False
    outcomes: Mapping[str, Mapping[Answer, Cells]] = field(default_factory=dict)


def shards(watched: Iterable[Watched], most: int = SHARD_SERIES) -> tuple[tuple[Watched, ...], ...]:
    """The deployments in groups of about ``most`` series, always the same for the same ones."""
    found: list[tuple[Watched, ...]] = []
    group: list[Watched] = []
    size = 0
    for one in sorted(watched, key=lambda one: one.key):
        series = one.features * _CELLS
        if group and size + series > most:
            found.append(tuple(group))
            group, size = [], 0
        group.append(one)
        size += series
    return (*found, tuple(group)) if group else tuple(found)


def query(
    watched: Sequence[Watched],
    part: Part,
    labels: ScrapeLabels | None = None,
    *,
    cells: str | None = None,
) -> str:
    """The PromQL that reads one part of a window. ``cells``: a pattern of the cells to read."""
    names = labels or ScrapeLabels()
    where = _where(watched, names)
    only = f',cell=~"{cells}"' if cells is not None else ""
    kinds = _ANSWERS if all(one.answers for one in watched) else _COUNTERS
    counters = f'{{__name__=~"{kinds}",{where}{only},label=~"{_LABELS}"}}'
    rows = f"{_PREFIX}rows_total{{{where}}}"
    now, before = (_last(counters, at, part.lookback, names) for at in (part.end, part.start))
    counted = f"({now} - ({before} or {now} * 0)) > 0"
    span, end, start = _seconds(part.lookback), _moment(part.end), _moment(part.start)
    return " or ".join(
        (
            _sum(counted, names, _KEYED),
            _lives(f"count_over_time({rows}[{span}] @ {end})", "scrapes", names),
            _lives(f"last_over_time({rows}[{span}] @ {start}) * 0", "before", names),
        )
    )


#: Halves of an answer that is too large: by the last digit of the cell.
HALVES: Final = ("|.*[0-4]", ".*[5-9]")


def _last(selector: str, at: float, lookback: float, names: ScrapeLabels) -> str:
    last = f"last_over_time({selector}[{_seconds(lookback)}] @ {_moment(at)})"
    named = f'label_replace({last},"metric","$1","__name__","{_PREFIX}(.+)_total")'
    # What was true stands where the kind of a request does.
    named = f'label_replace({named},"kind","$1","label","(.+)")'
    return f"max by ({','.join((names.namespace, names.pod, *_KEPT))}) ({named})"


def _sum(vector: str, names: ScrapeLabels, keyed: Sequence[str]) -> str:
    joined = ",".join(f'"{name}"' for name in (names.namespace, names.pod, *keyed))
    return f'sum by ({KEY}) (label_join({vector},"{KEY}","|",{joined}))'


def _lives(vector: str, what: str, names: ScrapeLabels) -> str:
    named = f'label_replace({vector},"metric","{what}","","")'
    joined = ",".join(f'"{name}"' for name in (names.namespace, names.pod, "metric", "life"))
    return f'max by ({KEY}) (label_join({named},"{KEY}","|",{joined}))'


def _where(watched: Sequence[Watched], names: ScrapeLabels) -> str:
    namespaces = "|".join(sorted({one.namespace for one in watched}))
    pods = "|".join(f"{one.deployment}-collector-.+" for one in sorted(watched, key=_by_key))
    return f'{names.namespace}=~"{_dots(namespaces)}",{names.pod}=~"{_dots(pods)}"'


def _by_key(one: Watched) -> Name:
    return one.key


def _dots(names: str) -> str:
    """A dot in a name is a dot; ``.+`` stays as it is. ``[.]`` spares an escape in the string."""
    return re.sub(r"\.(?!\+)", "[.]", names)


def _seconds(span: float) -> str:
    return f"{round(span * 1000)}ms"


def _moment(at: float) -> str:
    return f"{at:.3f}"


def read(keyed: Keyed, watched: Sequence[Watched], part: Part) -> Mapping[Name, Counted] | NoAnswer:
    """The answer by (namespace, deployment); what no collector was scraped for has no scrapes.

    An answer that came with warnings may be partial, and is none.
    """
    if keyed.warnings:
        return NoAnswer(
            Reason.INCOMPLETE,
            f"Prometheus warns, so nothing is judged by its answer: {keyed.warnings[0]}",
        )
    found = {one.key: _Sums() for one in watched}
    for text, value in keyed.values.items():
        namespace, _, rest = text.partition("|")
        pod, *fields = rest.split("|", _FIELDS - 1)
        matched = _POD.fullmatch(pod)
        sums = found.get((namespace, matched[1])) if matched else None
        if sums is not None and value >= 0:
            sums.add(fields, value)
    return {key: sums.counted(part) for key, sums in found.items()}


class _Sums:
    """Adds up one deployment's series."""

    def __init__(self) -> None:
        self.rows = 0.0
        self.requests: dict[str, float] = defaultdict(float)
        self.features: dict[str, dict[str, dict[int, float]]] = {}
        self.outputs: dict[str, dict[Name, dict[int, float]]] = {}
        self.violations: dict[str, dict[str, float]] = {}
        self.outcomes: dict[str, dict[Answer, dict[int, float]]] = {}
        self.lives: dict[str, float] = {}
        self.before: set[str] = set()

    def add(self, fields: list[str], value: float) -> None:
        match fields:
            case ["scrapes", life] if _OF_REVISION in life:
                pass  # seen by the scrapes of its process, and began at 0 in it
            case ["scrapes", life]:
                self.lives[life] = max(value, self.lives.get(life, 0.0))
            case ["before", life]:
                self.before.add(life)
            case [metric, revision, traffic, grid, cell, rule, kind, last]:
                if traffic in _TRAFFIC.get(metric, _LIVE):
                    self._count(metric, revision, grid, cell, rule, kind, last, value)

    def _count(
        self, metric: str, revision: str, grid: str, cell: str, rule: str, kind: str, last: str,
        value: float,
    ) -> None:  # fmt: skip
        if metric == "rows":
            self.rows += value
        elif metric == "requests":
            self.requests[kind] += value
        elif metric == "violations":
            of_feature = self.violations.setdefault(last[:-1], {})
            of_feature[rule] = of_feature.get(rule, 0.0) + value
        elif cell.isascii() and cell.isdigit() and len(cell) < 6:
            if metric == "feature_rows":
                cells = self.features.setdefault(grid, {}).setdefault(last[:-1], {})
            elif metric == "outcomes":
                cells = self.outcomes.setdefault(grid, {}).setdefault(
                    (revision, last[1:], kind), {}
                )
            else:
                cells = self.outputs.setdefault(grid, {}).setdefault((revision, last[1:]), {})
            cells[int(cell)] = cells.get(int(cell), 0.0) + value

    def counted(self, part: Part) -> Counted:
        return Counted(
            self.rows, dict(self.requests), self.features, self.outputs, self.violations,
            int(sum(self.lives.values())),
            any(
                _born(life) < part.start - _BORN_SLACK and life not in self.before
                for life in self.lives
            ),
            self.outcomes,
        )  # fmt: skip


def _born(life: str) -> float:
    """When a process began; one that does not say is taken as new."""
    try:
        return float(life)
    except ValueError:
        return float("inf")


def joined(readings: Iterable[Counted]) -> Counted:
    """Readings of several parts, or of the halves of one, as one."""
    sums, scrapes, gap = _Sums(), 0, False
    for one in readings:
        sums.rows += one.rows
        scrapes += one.scrapes
        gap = gap or one.gap
        for kind, value in one.requests.items():
            sums.requests[kind] += value
        for feature, rules in one.violations.items():
            for rule, value in rules.items():
                own = sums.violations.setdefault(feature, {})
                own[rule] = own.get(rule, 0.0) + value
        for grid, features in one.features.items():
            for name, cells in features.items():
                _add(sums.features.setdefault(grid, {}).setdefault(name, {}), cells)
        for grid, outputs in one.outputs.items():
            for output, cells in outputs.items():
                _add(sums.outputs.setdefault(grid, {}).setdefault(output, {}), cells)
        for grid, outcomes in one.outcomes.items():
            for answer, cells in outcomes.items():
                _add(sums.outcomes.setdefault(grid, {}).setdefault(answer, {}), cells)
    return Counted(
        sums.rows, dict(sums.requests), sums.features, sums.outputs, sums.violations, scrapes, gap,
        sums.outcomes,
    )  # fmt: skip


def _add(to: dict[int, float], cells: Cells) -> None:
    for cell, value in cells.items():
        to[cell] = to.get(cell, 0.0) + value
