"""The columns of a training table, from CSV or Parquet, without pandas.

CSV is read by the standard library. Parquet needs pyarrow, which is installed with
``mooring-operator[reference]`` and imported only when such a file is read. A column is a feature
of numbers when all of its cells are numbers, or truth values; else its texts are categories.
"""

from __future__ import annotations

import csv
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from mooring.cli.failure import Failure

FloatArray = NDArray[np.float64]
ColumnType = Literal["integer", "number", "boolean", "string"]
#: Spellings of "no value" in a column of numbers; in texts only the empty cell is one, for NA is
#: Namibia.
_MISSING = frozenset({"", "na", "n/a", "nan", "null", "none", "-nan", "#n/a"})
_TRUTH = {"true": 1.0, "false": 0.0}
#: With so many numbers in it, a column is one of numbers, and what is none is a mistake.
_MOSTLY = 0.9
_CSV_SUFFIXES = {".csv": ",", ".tsv": "\t"}
_PARQUET_SUFFIXES = (".parquet", ".pq")


@dataclass(frozen=True, slots=True)
class Column:
    """One column.

    Attributes:
        name: as the header has it.
        type: what its values are.
        numbers: its values where they are numbers (NaN is missing), else None.
        texts: its values where they are texts (None is missing), else None.
    """

    name: str
    type: ColumnType
    numbers: FloatArray | None = None
    texts: tuple[str | None, ...] | None = None

    @property
    def values(self) -> FloatArray | tuple[str | None, ...]:
        """Numbers or texts."""
        return self.numbers if self.numbers is not None else self.texts or ()


@dataclass(frozen=True, slots=True)
class TrainingTable:
    """The columns that were asked for, the number of rows, and what could not be read as either."""

    columns: tuple[Column, ...]
    rows: int
    left_out: tuple[str, ...] = ()


def read_table(path: Path, wanted: Collection[str], categorical: Collection[str]) -> TrainingTable:
    """Reads ``wanted`` columns (all if empty), ``categorical`` ones as texts whatever they hold.

    Raises Failure with a sentence that names the row or the column.
    """
    if path.suffix.lower() in _PARQUET_SUFFIXES:
        return _parquet(path, wanted, categorical)
    if path.suffix.lower() in _CSV_SUFFIXES:
        delimiter = _CSV_SUFFIXES[path.suffix.lower()]
        return _csv(path, delimiter, wanted, categorical)
    raise Failure(f"{path.name}: the name must end in .csv, .tsv or .parquet")


def _csv(
    path: Path, delimiter: str, wanted: Collection[str], categorical: Collection[str]
) -> TrainingTable:
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            lines = csv.reader(file, delimiter=delimiter, strict=True)
            header = next(lines, None)
            if not header:
                raise Failure(f"{path.name} is empty: the first line must name the columns")
            places = _places(path, header, wanted, categorical)
            cells: list[list[str]] = [[] for _ in places]
            rows = 0
            for row in lines:
                if not row:
                    continue
                rows += 1
                if len(row) != len(header):
                    raise Failure(
                        f"{path.name}, line {lines.line_num}: {len(row)} cells, but the header "
                        f"names {len(header)} columns"
                    )
                for kept, place in zip(cells, places.values(), strict=True):
                    kept.append(row[place])
    except UnicodeDecodeError as error:
        raise Failure(f"{path.name} is not UTF-8 (byte {error.start}): convert it first") from error
    except csv.Error as error:
        raise Failure(f"{path.name}, line {lines.line_num}: {error}") from error
    except OSError as error:
        raise Failure(f"{path.name} cannot be read: {error.strerror}") from error
    if not rows:
        raise Failure(f"{path.name} has a header, but no rows")
    columns = tuple(
        text_column(path, name, one, as_text=name in categorical)
        for name, one in zip(places, cells, strict=True)
    )
    return TrainingTable(columns, rows)


def _places(
    path: Path, header: Sequence[str], wanted: Collection[str], categorical: Collection[str]
) -> dict[str, int]:
    """The wanted columns and where they stand."""
    names = [name.strip() for name in header]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise Failure(f"{path.name}: the header names {', '.join(twice)} twice")
    nameless = [place + 1 for place, name in enumerate(names) if not name]
    if nameless and not wanted:
        raise Failure(f"{path.name}: column {nameless[0]} has no name in the header")
    unknown = sorted({*wanted, *categorical} - set(names))
    if unknown:
        known = ", ".join(names[:20]) + (" ..." if len(names) > 20 else "")
        raise Failure(f"{path.name} has no column {', '.join(unknown)}; it has {known}")
    return {name: place for place, name in enumerate(names) if not wanted or name in wanted}


def text_column(path: Path, name: str, cells: Sequence[str], *, as_text: bool) -> Column:
    """A column from texts: numbers if all of them are, categories else."""
    stripped = [cell.strip() for cell in cells]
    if not as_text:
        numbers, wrong = _numbers(stripped)
        filled = sum(cell.lower() not in _MISSING for cell in stripped)
        if wrong is None and filled:
            return Column(name, _number_type(stripped, numbers), numbers=numbers)
        unread = int(np.isneginf(numbers).sum()) if wrong is not None else 0
        if wrong is not None and filled - unread >= _MOSTLY * filled and filled > unread:
            # The header is row 1, as every spreadsheet counts.
            raise Failure(
                f"{path.name}, row {wrong + 2}, column {name}: {stripped[wrong]!r} is no number, "
                f"but {(filled - unread) / filled:.1%} of the column are. Mend it, or say "
                f"--categorical {name}"
            )
    return Column(name, "string", texts=tuple(cell or None for cell in stripped))


def _numbers(cells: Sequence[str]) -> tuple[FloatArray, int | None]:
    """Numbers of all cells, and the first that is none; such ones are -inf when there is one."""
    found = np.empty(len(cells))
    wrong = None
    for place, cell in enumerate(cells):
        lowered = cell.lower()
        if lowered in _MISSING:
            found[place] = np.nan
        elif lowered in _TRUTH:
            found[place] = _TRUTH[lowered]
        else:
            try:
                # Python also reads 1_000, which no other program writes.
                found[place] = float(cell) if "_" not in cell else float("x")
            except ValueError:
                wrong = place if wrong is None else wrong
                found[place] = -np.inf
    return found, wrong


def _number_type(cells: Sequence[str], numbers: FloatArray) -> ColumnType:
    if any(cell.lower() in _TRUTH for cell in cells):
        return "boolean"
    return _type_of(numbers)


def _type_of(numbers: FloatArray) -> ColumnType:
    finite = numbers[np.isfinite(numbers)]
    return "integer" if finite.size and bool((finite == np.round(finite)).all()) else "number"


def _parquet(path: Path, wanted: Collection[str], categorical: Collection[str]) -> TrainingTable:
    try:
        pa = import_module("pyarrow")
        parquet = import_module("pyarrow.parquet")
    except ModuleNotFoundError as error:
        raise Failure(
            "reading Parquet needs pyarrow: pip install 'mooring-operator[reference]', "
            "or write the table as CSV"
        ) from error
    try:
        file = parquet.ParquetFile(path)
        names = file.schema_arrow.names
        places = _places(path, names, wanted, categorical)
        table = file.read(columns=list(places))
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError, OSError) as error:
        first = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise Failure(f"{path.name} cannot be read as Parquet: {first}") from error
    if not table.num_rows:
        raise Failure(f"{path.name} has columns, but no rows")
    columns, left_out = [], []
    for name in places:
        column = _arrow_column(name, table.column(name), as_text=name in categorical)
        if column is None:
            if name in wanted:
                kind = table.column(name).type
                raise Failure(f"{path.name}, column {name}: values of type {kind} cannot be binned")
            left_out.append(name)
        else:
            columns.append(column)
    return TrainingTable(tuple(columns), table.num_rows, tuple(left_out))


def _arrow_column(name: str, values: Any, *, as_text: bool) -> Column | None:
    """A column of Arrow values, or None for dates, lists and other things without bins."""
    types, kind = import_module("pyarrow.types"), values.type
    if types.is_dictionary(kind):
        kind = kind.value_type
        values = values.cast(kind)
    number = types.is_integer(kind) or types.is_floating(kind) or types.is_decimal(kind)
    if as_text or types.is_string(kind) or types.is_large_string(kind):
        texts = [None if one is None else _text(one) for one in values.to_pylist()]
        return Column(name, "string", texts=tuple(texts))
    if types.is_boolean(kind):
        return Column(name, "boolean", numbers=_float_array(values))
    if number:
        numbers = _float_array(values)
        return Column(name, "integer" if types.is_integer(kind) else "number", numbers=numbers)
    return None


def _text(value: Any) -> str:
    """A category as traffic writes it: whole numbers without a fraction."""
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return str(value).lower() if isinstance(value, bool) else str(value)


def _float_array(values: Any) -> FloatArray:
    found = [np.nan if one is None else float(one) for one in values.to_pylist()]
    return np.array(found, dtype=np.float64)
