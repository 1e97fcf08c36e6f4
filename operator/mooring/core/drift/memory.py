"""What is remembered of a deployment's data from window to window, as one compressed document."""

from __future__ import annotations

import json
import zlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from mooring.core.drift.concept import Concept
from mooring.core.drift.rebase import Base
from mooring.core.drift.state import DriftState

_FORMAT = 1
#: Windows whose sizes are kept, for plots.
PLOTTED = 48
#: Revisions whose answers are followed.
MOST_REVISIONS = 4
#: Spans that a seasonal reference leaves out.
MOST_ODD = 200
_LARGEST = 64 * 1024 * 1024
#: What reading one raises that somebody has written over, beside ValueError.
_UNREADABLE = (
    LookupError, TypeError, AttributeError, OverflowError, RecursionError, zlib.error,
)  # fmt: skip

Spans = tuple[tuple[float, float], ...]


@dataclass(frozen=True, slots=True)
class Past:
    """A window that is over, for plots: its end, rows, state, and PSI by feature."""

    end: float
    rows: float
    state: str
    psi: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Memory:
    """All that is remembered.

    Attributes:
        last_end: end of the last window that was taken, in seconds.
        reference: hash of the reference that the rest belongs to; another one begins anew.
        features: the state of all features.
        outputs: the state of the outputs, by revision, the one that was seen last coming last.
        episode: end of the window in which the present episode began to alarm.
        odd: spans that alarmed or were unhealthy, which no seasonal reference holds.
        counts: fine counts of the last window, by feature.
        output_counts: the same by revision and output.
        past: earlier windows, the last one last.
        base: what is compared with in place of the reference's counts, after a retraining.
        began: start of the first window with this reference, in seconds.
        stable: the revision that was stable in the last window, and whether it was retrained.
        retrained: see there.
        variety: of the stable revision's answers, by output; see :mod:`mooring.core.drift.variety`.
        anchor: beside a seasonal reference, the state of whole seasons against the base.
        concept: the labels of the stable revision; None before the first.
    """

    last_end: float
    reference: str = ""
    features: DriftState = field(default_factory=DriftState)
    outputs: Mapping[str, DriftState] = field(default_factory=dict)
    episode: float | None = None
    odd: Spans = ()
    counts: Mapping[str, tuple[float, ...]] = field(default_factory=dict)
    output_counts: Mapping[str, Mapping[str, tuple[float, ...]]] = field(default_factory=dict)
    past: tuple[Past, ...] = ()
    base: Base | None = None
    anchor: DriftState = field(default_factory=DriftState)
    began: float | None = None
    variety: Mapping[str, tuple[float, ...]] = field(default_factory=dict)
    stable: str | None = None
    retrained: bool = False
    concept: Concept | None = None

    def to_bytes(self) -> bytes:
        """Compressed JSON; the same memory always gives the same bytes."""
        found: dict[str, Any] = {
            "format": _FORMAT,
            "lastEnd": self.last_end,
            "reference": self.reference,
            "features": self.features.to_json(),
            "outputs": {name: one.to_json() for name, one in self.outputs.items()},
            "episode": self.episode,
            "odd": [list(span) for span in self.odd],
            "counts": {name: _whole(one) for name, one in self.counts.items()},
            "outputCounts": {
                revision: {name: _whole(one) for name, one in counts.items()}
                for revision, counts in self.output_counts.items()
            },
            "base": self.base.to_json() if self.base is not None else None,
            "anchor": self.anchor.to_json(),
            "began": self.began,
            "variety": {name: list(one) for name, one in self.variety.items()},
            "stable": self.stable,
            "retrained": self.retrained,
            "concept": self.concept.to_json() if self.concept is not None else None,
            "past": [[one.end, one.rows, one.state, dict(one.psi)] for one in self.past],
        }
        return zlib.compress(json.dumps(found, separators=(",", ":")).encode(), 9)

    @staticmethod
    def from_bytes(raw: bytes) -> Memory:
        """Reads ``to_bytes``; raises ValueError for anything else."""
        try:
            opened = zlib.decompressobj()
            text = opened.decompress(raw, _LARGEST)
            if opened.unconsumed_tail:
                raise ValueError("it is larger than any that was written")
            found = json.loads(text)
            if found["format"] != _FORMAT:
                raise ValueError(f"it is of format {found['format']}")
            return Memory(
                last_end=float(found["lastEnd"]),
                reference=str(found["reference"]),
                features=DriftState.from_json(found["features"]),
                outputs={n: DriftState.from_json(one) for n, one in found["outputs"].items()},
                episode=found["episode"],
                odd=tuple((float(a), float(b)) for a, b in found["odd"]),
                counts={name: tuple(one) for name, one in found["counts"].items()},
                output_counts={
                    revision: {name: tuple(one) for name, one in counts.items()}
                    for revision, counts in found["outputCounts"].items()
                },
                past=tuple(
                    Past(float(end), float(rows), str(state), dict(psi))
                    for end, rows, state, psi in found["past"]
                ),
                base=Base.from_json(found["base"]) if found.get("base") is not None else None,
                began=found.get("began"),
                variety={n: tuple(map(float, one)) for n, one in found.get("variety", {}).items()},
                stable=found.get("stable"),
                retrained=bool(found.get("retrained")),
                concept=Concept.from_json(found["concept"]) if found.get("concept") else None,
                anchor=(
                    DriftState.from_json(found["anchor"]) if "anchor" in found else DriftState()
                ),
            )
        except _UNREADABLE as error:
            raise ValueError(f"the memory cannot be read: {error!r}") from error


def _whole(counts: tuple[float, ...]) -> list[float]:
    return [int(one) if one == int(one) else one for one in counts]


def with_span(spans: Spans, start: float, end: float) -> Spans:
    """The spans with one more, joined to the last where they touch; the oldest fall off."""
    if spans and start <= spans[-1][1]:
        return (*spans[:-1], (spans[-1][0], max(end, spans[-1][1])))
    return (*spans, (start, end))[-MOST_ODD:]


def joined_spans(many: Iterable[Spans]) -> Spans:
    """The spans of several series as one rising list."""
    found: Spans = ()
    for start, end in sorted(span for one in many for span in one):
        found = with_span(found, start, end)
    return found
