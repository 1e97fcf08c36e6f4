"""Sum the JUnit results of the test tiers into one closing line.

Usage: ``count_results.py DIRECTORY TIER...`` reads ``DIRECTORY/TIER.xml`` for each tier and prints
``N passed, N failed, N skipped``. It exits with 1 when anything failed, when a tier left no result
(its run died, which counts as one failure) or when nothing ran at all.
"""

from __future__ import annotations

import sys
import xml.etree.ElementTree as ET
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Counts:
    """How many tests ended which way; an error in set-up or tear-down is a failure."""

    passed: int = 0
    failed: int = 0
    skipped: int = 0

    def __add__(self, other: Counts) -> Counts:
        return Counts(
            self.passed + other.passed, self.failed + other.failed, self.skipped + other.skipped
        )

    def __str__(self) -> str:
        return f"{self.passed} passed, {self.failed} failed, {self.skipped} skipped"


def read_counts(report: Path) -> Counts:
    """Count the cases of one report. A missing or broken report is one failure, never none."""
    try:
        root = ET.parse(report).getroot()  # noqa: S314 - written by our own pytest
    except (OSError, ET.ParseError) as error:
        print(f"{report}: no result ({error})", file=sys.stderr)
        return Counts(failed=1)
    # A test whose body and tear-down both fail has two cases of one name: count it once.
    outcome: dict[tuple[str, str], str] = {}
    for case in root.iter("testcase"):
        key = (case.get("classname", ""), case.get("name", ""))
        if case.find("failure") is not None or case.find("error") is not None:
            outcome[key] = "failed"
        elif case.find("skipped") is not None:
            outcome.setdefault(key, "skipped")
        else:
            outcome.setdefault(key, "passed")
    ends = list(outcome.values())
    return Counts(ends.count("passed"), ends.count("failed"), ends.count("skipped"))


def main(arguments: list[str]) -> int:
    """Print the closing line; return the exit code."""
    directory, *tiers = arguments
    total = Counts()
    for tier in tiers:
        counts = read_counts(Path(directory) / f"{tier}.xml")
        print(f"{tier:>10}: {counts}")
        total += counts
    print(total, flush=True)
    return 1 if total.failed or not total.passed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
