"""What the collector is told: ``collector.json``, as the operator writes it, and its own bounds."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

import orjson
import re2  # type: ignore[import-untyped]

from mooring_collector.errors import ConfigurationError
from mooring_collector.grid import Grid, Reference

Protocol = Literal["open-inference", "tensorflow-serving", "torchserve"]
MOST_COLUMNS = 500
_COLUMN = re.compile(r"(.+)\[(\d{1,6})\]")


@dataclass(frozen=True, slots=True)
class Bounds:
    """What one collector takes at most; what is more is counted as dropped.

    Attributes:
        body_bytes: of one body.
        held_bytes: of all bodies that are held while their exchanges go on.
        exchanges: that go on at the same time.
        exchange_seconds: how long one may go on.
        lag_seconds: how far the collector may be behind before it lets new exchanges pass.
        revisions: whose counts are kept.
        names: of tensors that nobody knows, per revision; labels that are no class of their output,
            per output.
    """

    body_bytes: int = 4 << 20
    held_bytes: int = 64 << 20
    exchanges: int = 2000
    exchange_seconds: float = 900.0
    lag_seconds: float = 0.25
    revisions: int = 64
    names: int = 20


@dataclass(frozen=True, slots=True)
class Column:
    """One feature or output: where its values stand, where they are counted, what they must be.

    Attributes:
        name: its name, the label of its counts.
        tensor: the tensor that holds it, or the key of a row.
        index: its column there, in the order of memory.
        exact: whether ``tensor`` and ``index`` were stated, and not made of the name.
        grid: its cells; None when the reference does not know it.
        numeric: whether its values are numbers; else they are texts.
        hashed: whether texts are hashed before they are looked up.
    """

    name: str
    tensor: str
    index: int = 0
    exact: bool = False
    grid: Grid | None = None
    numeric: bool = True
    type: str = "number"
    least: float = -float("inf")
    greatest: float = float("inf")
    domain: frozenset[str] | None = None
    pattern: Any = None
    excluded: bool = False
    hashed: bool = False


@dataclass(frozen=True, slots=True)
class Settings:
    """Everything that ``collector.json`` says, joined with the reference.

    Attributes:
        features, outputs: the columns that are counted.
        ordered: all columns of the reference in its order, the excluded ones too, for a model that
            takes them as one unnamed row.
        grid: the hash of the reference's grid.
        protocol: how bodies are written.
        sample: the share of exchanges that is looked at.
        maturity: seconds after its request at which a label is late; 0 takes no labels.
        labels: predictions that can wait for their labels.
        reservoir: rows per revision that are kept for ``GET /sample``; 0 keeps none.
    """

    features: tuple[Column, ...] = ()
    outputs: tuple[Column, ...] = ()
    ordered: tuple[str, ...] = ()
    grid: str = ""
    protocol: Protocol = "open-inference"
    sample: float = 1.0
    maturity: float = 0.0
    labels: int = 1 << 20
    reservoir: int = 0


def read_settings(text: bytes, reference: Reference) -> Settings:
    """Reads ``collector.json``.

    Raises:
        ConfigurationError: something in it is wrong; the message names it.
    """
    try:
        raw = orjson.loads(text)
    except ValueError as error:
        raise ConfigurationError(f"collector.json is not JSON: {error}") from error
    if not isinstance(raw, dict):
        raise ConfigurationError("collector.json is not an object")
    protocol = raw.get("protocol", "open-inference")
    if protocol not in get_args(Protocol):
        known = ", ".join(get_args(Protocol))
        raise ConfigurationError(f"protocol {protocol!r} is none of {known}")
    try:
        feedback = raw.get("feedback") or {}
        return Settings(
            features=_columns(raw.get("features"), reference.features, "input"),
            outputs=_columns(raw.get("outputs"), reference.outputs, "output"),
            ordered=tuple(grid.name for grid in reference.features),
            grid=reference.grid,
            protocol=protocol,
            sample=min(max(float(raw.get("sample", 1.0)), 0.0), 1.0),
            maturity=max(0.0, float(feedback.get("maturity", 0))),
            labels=min(max(int(feedback.get("limit", 1 << 20)), 1 << 10), 1 << 24),
            reservoir=min(max(int(raw.get("reservoir", 0)), 0), 100_000),
        )
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise ConfigurationError(f"collector.json cannot be read: {error!r}") from error


def _columns(
    raw: Sequence[Mapping[str, Any]] | None, grids: Sequence[Grid], place: str
) -> tuple[Column, ...]:
    by_name = {grid.name: grid for grid in grids}
    if not raw:
        raw = [{"name": grid.name} for grid in grids]
    if len(raw) > MOST_COLUMNS:
        raise ConfigurationError(f"{len(raw)} features; at most {MOST_COLUMNS} can be watched")
    return tuple(_column(one, by_name.get(str(one["name"])), place) for one in raw)


def _column(raw: Mapping[str, Any], grid: Grid | None, place: str) -> Column:
    name = str(raw["name"])
    stated = raw.get(place)
    tensor, index = _place(str(stated or name))
    domain, pattern = raw.get("domain"), raw.get("pattern")
    type_ = str(raw.get("type") or (grid.type if grid else "string" if domain else "number"))
    textual = type_ == "string" or domain is not None or pattern is not None
    numeric = grid.numeric if grid else not textual
    hashed = bool(raw.get("hash", False))
    if hashed and numeric and not raw.get("exclude"):
        raise ConfigurationError(f"feature {name} has numbers: only texts can be hashed")
    bounds = raw.get("range") or {}
    return Column(
        name=name,
        tensor=tensor,
        index=index,
        exact=stated is not None,
        grid=grid,
        numeric=numeric,
        type=type_,
        least=_number(bounds.get("min"), -float("inf")),
        greatest=_number(bounds.get("max"), float("inf")),
        domain=frozenset(map(str, domain)) if domain is not None else None,
        pattern=_pattern(name, pattern),
        excluded=bool(raw.get("exclude", False)),
        hashed=hashed,
    )


def _place(text: str) -> tuple[str, int]:
    found = _COLUMN.fullmatch(text)
    return (found[1], int(found[2])) if found else (text, 0)


def _number(value: Any, otherwise: float) -> float:
    return otherwise if value is None else float(value)


def _pattern(name: str, pattern: str | None) -> Any:
    """RE2 takes time in proportion to the text, whoever wrote it."""
    if pattern is None:
        return None
    options = re2.Options()
    options.log_errors = False
    try:
        return re2.compile(pattern, options)
    except re2.error as error:
        raise ConfigurationError(f"feature {name}: the pattern is not RE2: {error}") from error
