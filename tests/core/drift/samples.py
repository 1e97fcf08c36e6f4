"""Counts drawn from known distributions, sent through the code that production runs.

Every replica is a feature of one view, so a thousand windows are judged in one call.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cache

import numpy as np
from scipy.special import ndtr, ndtri

from mooring.core.drift.arrays import FloatArray
from mooring.core.drift.building import categorical_grid, numeric_grid
from mooring.core.drift.grid import FeatureGrid
from mooring.core.drift.measure import Measured, View, measure
from mooring.core.drift.reference import FeatureReference
from mooring.core.drift.settings import DriftSettings

Cdf = Callable[[FloatArray], FloatArray]


def normal(shift: float = 0.0, scale: float = 1.0) -> Cdf:
    return lambda x: np.asarray(ndtr((x - shift) / scale), dtype=np.float64)


@cache
def normal_grid(name: str = "x") -> FeatureGrid:
    """The grid of a large sample of a standard normal feature."""
    return numeric_grid(name, ndtri((np.arange(20_000) + 0.5) / 20_000))


@cache
def binary_grid() -> FeatureGrid:
    return numeric_grid("flag", np.array([0.0, 1.0] * 500))


@cache
def category_grid(count: int = 4) -> FeatureGrid:
    names = [chr(ord("a") + place) for place in range(count)]
    return categorical_grid("colour", (), declared=names)


def cell_shares(grid: FeatureGrid, cdf: Cdf) -> FloatArray:
    """The exact share of every cell of a numeric feature without missing values."""
    at = np.concatenate(([0.0], cdf(np.array(grid.edges)), [1.0]))
    return np.concatenate((np.diff(at), [0.0, 0.0]))


def binary_shares(ones: float) -> FloatArray:
    grid = binary_grid()
    found = np.zeros(grid.cells)
    found[list(grid.atom_cells())] = (1 - ones, ones)
    return found


@cache
def replicas(
    grid: FeatureGrid, count: int, shares: tuple[float, ...], settings: DriftSettings
) -> View:
    """A view of ``count`` copies of one feature, its tested bins formed from these shares."""
    counts = np.array(shares) * 1e6
    return View.of(
        [FeatureReference(replace(grid, name=f"{grid.name}{i}"), counts) for i in range(count)],
        settings,
    )


DEFAULT = DriftSettings()


class Hashable(DriftSettings):
    """Settings as a key of the cache above."""

    __slots__ = ()

    def __hash__(self) -> int:
        return hash(self.hash)


def judged(
    grid: FeatureGrid,
    before: FloatArray,
    after: FloatArray,
    *,
    n: int,
    m: int,
    windows: int,
    settings: DriftSettings = DEFAULT,
    seed: int = 7,
) -> Measured:
    """``windows`` pairs of a reference of n rows and a window of m rows, each drawn anew."""
    key = Hashable(
        min_effect_psi=settings.min_effect_psi, method=settings.method, bins=settings.bins
    )
    view = replicas(grid, windows, tuple(before.tolist()), key)
    generator = np.random.default_rng(seed)
    reference = drawn(generator, n, before, windows)
    current = drawn(generator, m, after, windows)
    return measure(view.rebased(reference), current, np.ones(windows, dtype=np.bool_), settings)


def drawn(
    generator: np.random.Generator, rows: int, shares: FloatArray, windows: int
) -> FloatArray:
    shares = shares / shares.sum()
    return generator.multinomial(rows, shares, size=windows).astype(np.float64)


def share_below(p: FloatArray, level: float) -> float:
    """How often p is below a level, of all windows (one that was not tested did not alarm)."""
    return float((np.nan_to_num(p, nan=1.0) < level).mean())


def references(data: dict[str, FloatArray | Sequence[str | None]]) -> tuple[FeatureReference, ...]:
    """References of some features from their values: numbers or texts."""
    from mooring.core.drift.reference import feature_reference

    found = []
    for name, values in data.items():
        if isinstance(values, np.ndarray):
            found.append(feature_reference(numeric_grid(name, values), values, "number"))
        else:
            found.append(feature_reference(categorical_grid(name, values), values, "string"))
    return tuple(found)
