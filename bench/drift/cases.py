"""The rows that all are judged on: seeded, numbers only, a case per question.

A case has a reference and windows; every column is a feature of its own, so 20 columns and 24
windows are 480 independent judgements. Categories are whole numbers, and each tool is told that
they are categories.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Rows = NDArray[np.float64]
Question = Literal["false alarms", "power", "season", "season power", "speed"]
#: (generator, rows, columns) → values
Draw = Callable[[np.random.Generator, int, int], Rows]
WINDOWS = 24
COLUMNS = 20
CATEGORIES = (0.3, 0.25, 0.2, 0.15, 0.1)
MOVED = (0.2, 0.25, 0.2, 0.15, 0.2)
_SWING = 0.5


@dataclass(frozen=True)
class Case:
    """One question.

    Attributes:
        name: what is asked.
        question: the part of the table it belongs to.
        reference: rows × columns; windows × rows × columns when every window has its own.
        windows: windows × rows × columns.
        categorical: whether the columns are categories.
    """

    name: str
    question: Question
    reference: Rows
    windows: Rows
    categorical: bool = False


def normal(shift: float = 0.0) -> Draw:
    """Normal values, moved by ``shift`` standard deviations."""
    return lambda chance, rows, columns: chance.normal(shift, 1.0, size=(rows, columns))


def lognormal(chance: np.random.Generator, rows: int, columns: int) -> Rows:
    """Amounts with a long tail."""
    return chance.lognormal(0.0, 1.5, size=(rows, columns))


def zeros(share: float) -> Draw:
    """Zeros, and exponential values in the rest of the rows."""

    def draw(chance: np.random.Generator, rows: int, columns: int) -> Rows:
        values = chance.exponential(size=(rows, columns))
        return np.where(chance.random((rows, columns)) < share, 0.0, values)

    return draw


def extremes(share: float) -> Draw:
    """Normal values, a share of them ten deviations too large: a unit bug."""

    def draw(chance: np.random.Generator, rows: int, columns: int) -> Rows:
        values = chance.normal(size=(rows, columns))
        return np.where(chance.random((rows, columns)) < share, values + 10.0, values)

    return draw


def categories(shares: tuple[float, ...]) -> Draw:
    """Categories 0, 1, 2 ... with these shares."""
    return lambda chance, rows, columns: chance.choice(
        len(shares), p=shares, size=(rows, columns)
    ).astype(np.float64)


def cases(seed: int = 20_261_121) -> Iterator[Case]:
    """All cases, one after the other (the largest has some 60 MB)."""
    chance = np.random.default_rng(seed)

    def case(
        name: str, question: Question, before: Draw, after: Draw, n: int, m: int, cat: bool = False
    ) -> Case:
        windows = np.stack([after(chance, m, COLUMNS) for _ in range(WINDOWS)])
        return Case(f"{name}, n={n}, m={m}", question, before(chance, n, COLUMNS), windows, cat)

    flat, five, even = normal(), categories(CATEGORIES), categories((0.5, 0.5))
    for n, m in ((5000, 100), (5000, 1000), (5000, 5000)):
        yield case("normal", "false alarms", flat, flat, n, m)
    yield case("lognormal", "false alarms", lognormal, lognormal, 5000, 1000)
    yield case("95 % zeros", "false alarms", zeros(0.95), zeros(0.95), 5000, 1000)
    for m in (1000, 5000):
        yield case("category of 5", "false alarms", five, five, 1000, m, True)
    yield case("category of 2", "false alarms", even, even, 5000, 2000, True)
    yield case("mean +.25σ", "power", flat, normal(0.25), 9000, 300)
    yield case("mean +.25σ", "power", flat, normal(0.25), 30_000, 1000)
    yield case("mean +.33σ", "power", flat, normal(0.33), 30_000, 1000)
    yield case("mean +.5σ", "power", flat, normal(0.5), 9000, 300)
    yield case("zeros 95 % → 85 %", "power", zeros(0.95), zeros(0.85), 30_000, 1000)
    yield case("2 % at 10σ", "power", flat, extremes(0.02), 30_000, 1000)
    moved = categories((0.4, 0.6))
    yield case("share .5 → .6", "power", even, moved, 60_000, 2000, True)
    yield case("a category .3 → .2", "power", five, categories(MOVED), 30_000, 1000, True)
    yield from _seasons(chance)
    yield Case(
        "50 columns, n=10000, m=10000", "speed", flat(chance, 10_000, 50),
        flat(chance, 10_000, 50)[None],
    )  # fmt: skip


def _seasons(chance: np.random.Generator) -> Iterator[Case]:
    """A day that swings by half a deviation, hourly windows of 2000 rows, five columns."""
    hours, rows, columns = 24, 2000, 5

    def at(hour: int, extra: float = 0.0) -> Rows:
        shift = _SWING * np.sin(2 * np.pi * (hour % 24) / 24) + extra
        return chance.normal(shift, 1.0, size=(rows, columns))

    # In the order of time, as a reference should be.
    week = np.concatenate([at(hour) for hour in range(168)])
    # The same hour and its neighbours in each of four weeks.
    told = np.stack(
        [
            np.concatenate([at(hour + beside) for _ in range(4) for beside in (-1, 0, 1)])
            for hour in range(hours)
        ]
    )
    quiet = np.stack([at(hour) for hour in range(hours)])
    shifted = np.stack([at(hour, 0.25) for hour in range(hours)])
    yield Case("a day against the whole week", "season", week, quiet)
    yield Case("a day against the same hours", "season", told, quiet)
    yield Case("the day +.25σ against the same hours", "season power", told, shifted)
