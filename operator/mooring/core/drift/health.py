"""Data health: is the data broken? Kept apart from drift.

Drift says that the world has moved, and asks for a new model. Broken data (a feature that is
missing, constant, out of range, of another schema) asks for a repair, and a model trained on it
would be worse: so it blocks retraining rather than causing it.

An expectation tolerates a share. It is broken when the window shows more with certainty (exact
binomial, one in a thousand), so that one odd row among ten is no finding.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any

import numpy as np
from scipy.special import betainc

from mooring.core.drift.arrays import FloatArray
from mooring.core.drift.grid import FeatureGrid

_CERTAINTY = 0.001
_RARE_CONSTANT = 1e-6
#: Fewer equal rows may well be one caller's, who sends the same again.
_LEAST_ROWS = 20


class Rule(Enum):
    """What can be expected of data."""

    SCHEMA = "schema"
    MISSING = "missing"
    NON_FINITE = "nonFinite"
    OUT_OF_RANGE = "outOfRange"
    UNSEEN_CATEGORY = "unseenCategory"
    RANGE = "range"
    DOMAIN = "domain"
    PATTERN = "pattern"
    TYPE = "type"
    CONSTANT = "constant"


#: With these the window's histogram of the feature says nothing about the world.
MEANINGLESS = frozenset({Rule.SCHEMA, Rule.MISSING, Rule.NON_FINITE, Rule.CONSTANT})


@dataclass(frozen=True, slots=True)
class Expectations:
    """Tolerated shares of a window's rows, per feature or for all of them.

    Attributes:
        missing, non_finite, out_of_range, unseen_category: shares beyond what the reference has.
        range, domain, pattern: shares of violations of declared rules, as they were counted.
        constant: whether a feature that takes one value only is a finding.
    """

    missing: float = 0.01
    non_finite: float = 0.0
    out_of_range: float = 0.01
    unseen_category: float = 0.01
    range: float = 0.0
    domain: float = 0.0
    pattern: float = 0.0
    constant: bool = True

    def to_json(self) -> dict[str, Any]:
        """As the field of the same name in the API."""
        return {
            "missing": self.missing, "nonFinite": self.non_finite,
            "outOfRange": self.out_of_range, "unseenCategory": self.unseen_category,
            "range": self.range, "domain": self.domain, "pattern": self.pattern,
            "constant": self.constant,
        }  # fmt: skip

    @staticmethod
    def from_json(raw: Mapping[str, Any]) -> Expectations:
        """Reads ``to_json``; what is absent has its default."""
        usual = Expectations()
        return Expectations(
            missing=float(raw.get("missing", usual.missing)),
            non_finite=float(raw.get("nonFinite", usual.non_finite)),
            out_of_range=float(raw.get("outOfRange", usual.out_of_range)),
            unseen_category=float(raw.get("unseenCategory", usual.unseen_category)),
            range=float(raw.get("range", usual.range)),
            domain=float(raw.get("domain", usual.domain)),
            pattern=float(raw.get("pattern", usual.pattern)),
            constant=bool(raw.get("constant", usual.constant)),
        )


@dataclass(frozen=True, slots=True)
class Finding:
    """One broken expectation.

    Attributes:
        feature: its name; empty when it is about rows as a whole.
        rule: which one.
        share, tolerated: of the rows looked at.
        rows: how many rows were looked at.
        message: one sentence for people.
    """

    feature: str
    rule: Rule
    share: float
    tolerated: float
    rows: int
    message: str

    def to_json(self) -> dict[str, Any]:
        return {
            "feature": self.feature, "rule": self.rule.value, "share": round(self.share, 6),
            "tolerated": round(self.tolerated, 6), "rows": self.rows, "message": self.message,
        }  # fmt: skip


def feature_findings(
    grid: FeatureGrid,
    reference: FloatArray,
    current: FloatArray | None,
    expectations: Expectations,
    violations: Mapping[str, float] | None = None,
    *,
    rows: float = 0.0,
) -> tuple[Finding, ...]:
    """What is broken about one feature in one window.

    Args:
        grid: its cells.
        reference: counts per cell.
        current: the same of the window; None when the feature did not appear at all among
            ``rows`` rows of it.
        expectations: what is tolerated.
        violations: rows that broke a declared rule, by the rule's name, as they were counted.
        rows: rows of the window.
    """
    if current is None:
        if rows <= 0:
            return ()
        of_another_type = float((violations or {}).get(Rule.TYPE.value, 0.0))
        if of_another_type > 0:  # such values are in no cell
            return tuple(_wrong_type(grid.name, of_another_type, rows))
        text = f"{grid.name} is absent from all {rows:.0f} rows; the reference has it"
        return (Finding(grid.name, Rule.SCHEMA, 1.0, 0.0, int(rows), text),)
    m, n = float(current.sum()), float(reference.sum())
    if m <= 0:
        return ()
    found = []
    for rule, cells, tolerated, what in _watched_cells(grid, expectations):
        usual = float(reference[cells].sum()) / n if n > 0 else 0.0
        seen = float(current[cells].sum())
        found += _exceeds(grid.name, rule, seen, m, usual + tolerated, what)
    declared = {
        Rule.RANGE: (expectations.range, "outside the declared range"),
        Rule.DOMAIN: (expectations.domain, "outside the declared domain"),
        Rule.PATTERN: (expectations.pattern, "not of the declared pattern"),
    }
    for rule, (tolerated, what) in declared.items():
        seen = float((violations or {}).get(rule.value, 0.0))
        found += _exceeds(grid.name, rule, seen, m, tolerated, what)
    found += _wrong_type(grid.name, float((violations or {}).get(Rule.TYPE.value, 0.0)), m, rows)
    if expectations.constant:
        found += _constant(grid, reference, current)
    return tuple(found)


def _wrong_type(name: str, seen: float, *rows: float) -> list[Finding]:
    """Of all rows, and not of those in cells alone: what is no number is in none."""
    return _exceeds(name, Rule.TYPE, seen, max(seen, *rows), 0.0, "of another type")


def _watched_cells(
    grid: FeatureGrid, expectations: Expectations
) -> list[tuple[Rule, list[int], float, str]]:
    watched = [(Rule.MISSING, [grid.missing], expectations.missing, "missing")]
    if grid.non_finite is not None:
        cells = [grid.non_finite]
        watched.append((Rule.NON_FINITE, cells, expectations.non_finite, "infinite"))
    if grid.below is not None and grid.above is not None:
        cells, tolerated = [grid.below, grid.above], expectations.out_of_range
        what = f"outside the reference's range {grid.edges[0]:.6g} to {grid.edges[-1]:.6g}"
        watched.append((Rule.OUT_OF_RANGE, cells, tolerated, what))
    if grid.unseen is not None and not grid.open:
        cells, tolerated = [grid.unseen], expectations.unseen_category
        watched.append((Rule.UNSEEN_CATEGORY, cells, tolerated, "of an unknown category"))
    return watched


def _exceeds(
    name: str, rule: Rule, seen: float, rows: float, tolerated: float, what: str,
    unit: str = "rows",
) -> list[Finding]:  # fmt: skip
    """A finding when ``seen`` of ``rows`` shows a rate above ``tolerated`` with certainty."""
    if seen <= 0 or seen / rows <= tolerated:
        return []
    # P(at least so many | rate tolerated); at a rate of 0 a single one is proof.
    chance = float(betainc(seen, rows - seen + 1, tolerated)) if tolerated > 0 else 0.0
    if chance > _CERTAINTY:
        return []
    share = seen / rows
    text = (
        f"{_percent(share)} of {name} is {what} ({rows:.0f} {unit}); {_percent(tolerated)} is "
        "tolerated"
    )
    return [Finding(name, rule, share, tolerated, int(rows), text)]


def _percent(share: float) -> str:
    """With as many digits as tell it from nothing: one row in a million may be one too many."""
    return f"{share:.1%}" if share >= 0.001 or share <= 0 else f"{100 * share:.1g}%"


def _constant(grid: FeatureGrid, reference: FloatArray, current: FloatArray) -> list[Finding]:
    """A finding when all values fall into one cell, and by the reference that cannot be chance."""
    listed = np.arange(grid.ordered)
    m, n = float(current[listed].sum()), float(reference[listed].sum())
    if m <= 0 or n <= 0:
        return []
    cell = int(current[listed].argmax())
    if m < _LEAST_ROWS or current[cell] < m or not is_constant(current[listed], reference[listed]):
        return []
    text = (
        f"{grid.name} is always {grid.labels()[cell]} in {m:.0f} rows; "
        f"in the reference {reference[cell] / n:.1%} are"
    )
    return [Finding(grid.name, Rule.CONSTANT, 1.0, 0.0, int(m), text)]


def is_constant(current: FloatArray, reference: FloatArray) -> bool:
    """All m rows in one bin, whose reference share p makes that as unlikely as p^m < 10⁻⁶.

    Right for imbalanced models, too: 50 times "no fraud" in a row are no news where 99.9 % are.
    """
    m, n = float(current.sum()), float(reference.sum())
    cell = int(current.argmax())
    if m <= 0 or n <= 0 or current[cell] < m:
        return False
    share = (float(reference[cell]) + 0.5) / (n + 0.5 * reference.size)
    return m * float(np.log(share)) < float(np.log(_RARE_CONSTANT))


def row_findings(
    rows: float,
    malformed: float,
    unknown_features: Sequence[str],
    *,
    read: float | None = None,
    tolerated: float = 0.01,
) -> tuple[Finding, ...]:
    """What is broken about the window as a whole: bodies that fit no schema, new features.

    ``malformed`` bodies could not be read and ``read`` could, as many as rows unless stated: one
    body may hold a thousand.
    """
    found = []
    total = (rows if read is None else read) + malformed
    if total > 0:
        found += _exceeds(
            "the bodies", Rule.SCHEMA, malformed, total, tolerated, "unreadable", "bodies"
        )
    for name in sorted(unknown_features)[:20]:
        text = f"{name} is sent, but the reference does not know it"
        found.append(Finding(name, Rule.SCHEMA, 1.0, 0.0, int(rows), text))
    return tuple(found)


def blocks_retraining(findings: Sequence[Finding]) -> str | None:
    """Why nothing should be trained on this data, or None. Every finding is a reason."""
    if not findings:
        return None
    worst = max(findings, key=lambda finding: (finding.rule in MEANINGLESS, finding.share))
    others = f", and {len(findings) - 1} more" if len(findings) > 1 else ""
    return f"the data is broken: {worst.message}{others}"
