"""What is remembered between windows: a few numbers per feature, as JSON.

It is bounded (at most 500 features, 12 sizes and 4 starts each, 32 unhealthy spans), and floats
are written in full, so a restart continues bit for bit. It belongs to one grid and one way of
judging; another one begins anew.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

#: The streams of a feature: its distribution, its rare cells, and its distribution against the
#: anchor that is never re-based.
SHAPE, TAILS, ANCHOR = "shape", "tails", "anchor"
MOST_SPANS = 32


@dataclass(frozen=True, slots=True)
class Stream:
    """One CUSUM.

    Attributes:
        score: S.
        zero_at: end of the last window with S = 0 (or the start of the first), in seconds.
        alarm_at: end of the window in which S passed h; None when it does not alarm. An alarm
            lasts until S is back at 0.
    """

    score: float = 0.0
    zero_at: float = 0.0
    alarm_at: float | None = None

    def to_json(self) -> list[float | None]:
        return [self.score, self.zero_at, self.alarm_at]

    @staticmethod
    def from_json(raw: list[float | None]) -> Stream:
        score, zero_at, alarm_at = raw
        return Stream(float(score or 0.0), float(zero_at or 0.0), alarm_at)


@dataclass(frozen=True, slots=True)
class FeatureState:
    """One feature's streams, sizes of the shift since the change point, and earlier episodes."""

    streams: Mapping[str, Stream] = field(default_factory=dict)
    sizes: tuple[float, ...] = ()
    starts: tuple[float, ...] = ()

    @property
    def alarming(self) -> str | None:
        """The stream that alarms, the one of the distribution first."""
        for name in (SHAPE, TAILS, ANCHOR):
            if name in self.streams and self.streams[name].alarm_at is not None:
                return name
        return None

    def to_json(self) -> dict[str, Any]:
        return {
            "streams": {name: stream.to_json() for name, stream in self.streams.items()},
            **({"sizes": list(self.sizes)} if self.sizes else {}),
            **({"starts": list(self.starts)} if self.starts else {}),
        }

    @staticmethod
    def from_json(raw: Mapping[str, Any]) -> FeatureState:
        return FeatureState(
            {name: Stream.from_json(one) for name, one in raw.get("streams", {}).items()},
            tuple(raw.get("sizes", ())),
            tuple(raw.get("starts", ())),
        )


@dataclass(frozen=True, slots=True)
class DriftState:
    """All that one deployment (or one revision's outputs) carries from window to window.

    Attributes:
        basis: hash of grid and settings that the scores belong to.
        last_end: end of the last window that was taken, in seconds.
        episode: when the present episode began to alarm; None without one. It is the key of what
            is asked for because of it.
        features: by name.
        unhealthy: spans (start, end) of windows with broken data, adjacent ones joined: nothing is
            trained on them.
    """

    basis: str = ""
    last_end: float | None = None
    episode: float | None = None
    features: Mapping[str, FeatureState] = field(default_factory=dict)
    unhealthy: tuple[tuple[float, float], ...] = ()

    @property
    def last_change(self) -> float | None:
        """The latest change point of the features that alarm."""
        alarming = ((one, one.alarming) for one in self.features.values())
        return max((one.streams[name].zero_at for one, name in alarming if name), default=None)

    def to_json(self) -> dict[str, Any]:
        return {
            "basis": self.basis,
            "lastEnd": self.last_end,
            "episode": self.episode,
            "features": {name: one.to_json() for name, one in self.features.items()},
            "unhealthy": [list(span) for span in self.unhealthy],
        }

    @staticmethod
    def from_json(raw: Mapping[str, Any]) -> DriftState:
        """Reads ``to_json``. Raises ValueError for anything else: the caller starts anew."""
        try:
            return DriftState(
                basis=str(raw["basis"]),
                last_end=raw["lastEnd"],
                episode=raw["episode"],
                features={
                    name: FeatureState.from_json(one) for name, one in raw["features"].items()
                },
                unhealthy=tuple((float(a), float(b)) for a, b in raw["unhealthy"]),
            )
        except (KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"the drift state cannot be read: {error!r}") from error


def with_unhealthy(
    spans: tuple[tuple[float, float], ...], start: float, end: float
) -> tuple[tuple[float, float], ...]:
    """The spans with one more, joined to the last one when it is adjacent; the oldest fall off."""
    if spans and start <= spans[-1][1]:
        joined = (*spans[:-1], (spans[-1][0], max(end, spans[-1][1])))
    else:
        joined = (*spans, (start, end))
    return joined[-MOST_SPANS:]
