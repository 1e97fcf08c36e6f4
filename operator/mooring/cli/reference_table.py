"""The columns of a training table, from CSV, lines of JSON or Parquet, without pandas.

CSV and JSON are read by the standard library. Parquet needs pyarrow, which is installed with
``mooring-operator[reference]`` and imported only when such a file is read. A column is a feature
of numbers when all of its cells are numbers, or truth values; else its texts are categories. In CSV
a cell is a number if it reads like one; in JSON and Parquet what is written as a text is one, as
the collector takes it.
"""

from __future__ import annotations

import csv
import json
import math
import re
from array import array
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from decimal import Decimal
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
_MOST_TEXTS = 100_000
#: Numbers that JSON does not have, as the collector spells and takes them, in any case.
_WORDS = {
    "nan": math.nan, "": math.nan, "inf": math.inf, "infinity": math.inf, "-inf": -math.inf,
    "-infinity": -math.inf,
}  # fmt: skip
_WHOLE = re.compile(r"-?\d+\.0+")
_CSV_SUFFIXES = {".csv": ",", ".tsv": "\t"}
_PARQUET_SUFFIXES = (".parquet", ".pq")
_JSON_SUFFIXES = (".jsonl", ".ndjson")
_MOST_COLUMNS = 4096


@dataclass(frozen=True, slots=True)
class Column:
    """One column.

    Attributes:
        name: as the header has it.
        type: what its values are.
        numbers: its values where they are numbers (NaN is missing), else None.
        texts: its values where they are texts (None is missing), else None. Both are None when
            there are too many different texts to be categories.
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
    """The columns that were asked for, the number of rows, and what could not be read as either.

    ``outputs`` are columns that the file itself calls the model's answers.
    """

    columns: tuple[Column, ...]
    rows: int
    left_out: tuple[str, ...] = ()
    outputs: tuple[str, ...] = ()


def read_table(path: Path, wanted: Collection[str], categorical: Collection[str]) -> TrainingTable:
    """Reads ``wanted`` columns (all if empty), ``categorical`` ones as texts whatever they hold.

    Raises Failure with a sentence that names the row or the column.
    """
    if path.suffix.lower() in _PARQUET_SUFFIXES:
        return _parquet(path, wanted, categorical)
    if path.suffix.lower() in _CSV_SUFFIXES:
        delimiter = _CSV_SUFFIXES[path.suffix.lower()]
        return _csv(path, delimiter, wanted, categorical)
    if path.suffix.lower() in _JSON_SUFFIXES:
        return _json_lines(path, wanted, categorical)
    raise Failure(f"{path.name}: the name must end in .csv, .tsv, .jsonl, .ndjson or .parquet")


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
            cells = [_CsvCells(name, as_text=name in categorical) for name in places]
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
                    kept.add(row[place], lines.line_num)
    except UnicodeDecodeError as error:
        raise Failure(f"{path.name} is not UTF-8 (byte {error.start}): convert it first") from error
    except csv.Error as error:
        raise Failure(f"{path.name}, line {lines.line_num}: {error}") from error
    except OSError as error:
        raise Failure(f"{path.name} cannot be read: {error.strerror}") from error
    if not rows:
        raise Failure(f"{path.name} has a header, but no rows")
    return TrainingTable(tuple(one.column(path.name) for one in cells), rows)


def _places(
    path: Path, header: Sequence[str], wanted: Collection[str], categorical: Collection[str]
) -> dict[str, int]:
    """The wanted columns and where they stand."""
    names = [name.strip() for name in header]
    other = next((sign for sign in ";\t|" if len(names) == 1 and sign in names[0]), None)
    if other:
        raise Failure(
            f"{path.name}: the header is one column, {names[0]!r}: write the table with commas "
            "between its cells, or with tabs as .tsv"
        )
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise Failure(
            f"{path.name}: the header names {', '.join(twice)} twice: give each column its own name"
        )
    nameless = [place + 1 for place, name in enumerate(names) if not name]
    if nameless and not wanted:
        raise Failure(
            f"{path.name}: column {nameless[0]} has no name in the header: name it, write the "
            "table without an index, or choose columns by --features"
        )
    unknown = sorted({*wanted, *categorical} - set(names))
    if unknown:
        known = ", ".join(names[:20]) + (" ..." if len(names) > 20 else "")
        raise Failure(f"{path.name} has no column {', '.join(unknown)}; it has {known}")
    return {name: place for place, name in enumerate(names) if not wanted or name in wanted}


def _json_lines(path: Path, wanted: Collection[str], categorical: Collection[str]) -> TrainingTable:
    """An object per line, by column; one that a row lacks is missing there."""
    cells: dict[str, _JsonCells] = {}
    outputs: set[str] = set()
    rows = 0
    for line, row, answers in _json_rows(path):
        outputs.update(answers)
        for name in row.keys() - cells.keys():
            if not wanted or name in wanted:
                cells[name] = _JsonCells(name, as_text=name in categorical)
                cells[name].skip(rows)
        if len(cells) > _MOST_COLUMNS:
            raise Failure(f"{path.name}, line {line}: more than {_MOST_COLUMNS} columns")
        rows += 1
        for name, kept in cells.items():
            kept.add(_json_value(path, name, row.get(name), line), line)
    if not rows:
        raise Failure(f"{path.name} is empty: write one object a line")
    unknown = sorted({*wanted, *categorical} - cells.keys())
    if unknown:
        known = ", ".join(sorted(cells)[:20])
        raise Failure(f"{path.name} has no column {', '.join(unknown)}; it has {known}")
    columns = tuple(cells[name].column(path.name) for name in sorted(cells))
    return TrainingTable(columns, rows, outputs=tuple(sorted(outputs & cells.keys())))


def _json_rows(path: Path) -> Iterator[tuple[int, dict[str, Any], Collection[str]]]:
    """The rows by line, and which of their columns are answers.

    Those of captured traffic have their columns in "features" and "outputs".
    """
    line = 0
    try:
        with path.open(encoding="utf-8-sig") as file:
            for line, text in enumerate(file, 1):
                if not text.strip():
                    continue
                row = json.loads(text)
                answers: dict[str, Any] = {}
                if isinstance(row, dict) and isinstance(row.get("features"), dict):
                    if isinstance(row.get("outputs"), dict):
                        answers = row["outputs"]
                    row = row["features"]
                if not isinstance(row, dict):
                    raise Failure(f"{path.name}, line {line}: a row is an object by column")
                both = sorted(row.keys() & answers.keys())
                if both:
                    raise Failure(
                        f"{path.name}, line {line}: {both[0]} is a feature and an output: give "
                        "each its own name"
                    )
                yield line, {**row, **answers}, answers.keys()
    except UnicodeDecodeError as error:
        raise Failure(f"{path.name} is not UTF-8 (byte {error.start}): convert it first") from error
    except (ValueError, RecursionError) as error:
        raise Failure(f"{path.name}, line {line}: not JSON: {error}") from error
    except OSError as error:
        raise Failure(f"{path.name} cannot be read: {error.strerror}") from error


def _json_value(path: Path, name: str, value: Any, line: int) -> Any:
    if isinstance(value, list | dict):
        raise Failure(
            f"{path.name}, line {line}, column {name}: a value is a {type(value).__name__}: write "
            "each of its parts as a column"
        )
    return value


class _Cells:
    """The cells of one column as they come: 12 bytes each, whatever they hold.

    Numbers are kept as such, texts as places in a list of different ones. More than 100,000
    different texts are no categories; they are then forgotten.
    """

    #: What a cell is that is no number.
    other = "is no number"

    def __init__(self, name: str, *, as_text: bool) -> None:
        self._name, self._as_text = name, as_text
        self._numbers = array("d")
        self._codes: array[int] | None = array("i")
        self._texts: dict[str | None, int] = {}
        self._filled = self._wrong = 0
        self._first_wrong: tuple[int, str] | None = None
        self._truth = self._fraction = False

    def skip(self, rows: int) -> None:
        """Takes so many empty cells: of rows before the first that has this column."""
        for _ in range(rows):
            self._keep(None)
            self._numbers.append(math.nan)

    def _keep(self, text: str | None) -> None:
        if self._codes is not None:
            self._codes.append(self._texts.setdefault(text, len(self._texts)))
            if len(self._texts) > _MOST_TEXTS:
                self._codes = None
                self._texts.clear()

    def _mistyped(self, cell: str, line: int) -> float:
        self._wrong += 1
        if self._first_wrong is None:
            self._first_wrong = (line, cell)
        return math.nan

    def column(self, file: str) -> Column:
        """The column: numbers if all of its cells are, else categories. Raises Failure."""
        if self._filled and not self._wrong:
            numbers = np.array(self._numbers, dtype=np.float64)
            kind: ColumnType = "integer" if not self._fraction else "number"
            # Beside true, 1 is a truth value, and 5 is none: with it, all of them are numbers.
            if self._truth and np.isin(numbers[~np.isnan(numbers)], (0.0, 1.0)).all():
                kind = "boolean"
            return Column(self._name, kind, numbers=numbers)
        right = self._filled - self._wrong
        if self._first_wrong is not None and right >= _MOSTLY * self._filled:
            line, cell = self._first_wrong
            raise Failure(
                f"{file}, row {line}, column {self._name}: {cell!r} {self.other}, but "
                f"{right / self._filled:.1%} of the column are. Mend it, or say "
                f"--categorical {self._name}"
            )
        if self._codes is None:
            return Column(self._name, "string")
        known = self._spelt(list(self._texts))
        return Column(self._name, "string", texts=tuple(known[code] for code in self._codes))

    def _spelt(self, texts: list[str | None]) -> list[str | None]:
        """The different texts as traffic says them."""
        return texts


class _CsvCells(_Cells):
    """Cells that are all texts, of which those are numbers that read like one."""

    def add(self, raw: str, line: int) -> None:
        """Takes a cell of a line of the file."""
        cell = raw.strip()
        self._keep(cell or None)
        if not self._as_text:
            self._numbers.append(self._number(cell, line))

    def _number(self, cell: str, line: int) -> float:
        try:
            number = float(cell)
        except ValueError:
            lowered = cell.lower()
            if lowered in _MISSING:
                return math.nan
            self._filled += 1
            if lowered in _TRUTH:
                self._truth = True
                return _TRUTH[lowered]
            return self._mistyped(cell, line)
        if math.isnan(number):
            return math.nan
        self._filled += 1
        # 10.0 is spelt as a number that may be 10.5 tomorrow.
        self._fraction = self._fraction or not cell.lstrip("+-").isdigit()
        # Python also reads 1_000, which no other program writes.
        return self._mistyped(cell, line) if "_" in cell else number

    def _spelt(self, texts: list[str | None]) -> list[str | None]:
        if self._as_text and all(_WHOLE.fullmatch(text) for text in texts if text):
            # Numbers that are names, of a table that writes whole ones so: traffic says 7, not 7.0.
            return [text and text.partition(".")[0] for text in texts]
        return texts


class _JsonCells(_Cells):
    """Values that say themselves whether they are numbers, truth values or texts."""

    other = "is a text and no number"

    def add(self, value: Any, line: int) -> None:
        """Takes a value of a line of the file; None is missing."""
        self._keep(None if value is None else _text(value))
        if not self._as_text:
            self._numbers.append(self._number(value, line))

    def _number(self, value: Any, line: int) -> float:
        found = _WORDS.get(value.lower()) if isinstance(value, str) else _float(value)
        if found is not None and math.isnan(found):
            return found
        self._filled += 1
        if found is None:
            return self._mistyped(value, line)
        self._truth = self._truth or isinstance(value, bool)
        self._fraction = self._fraction or isinstance(value, float)
        return found


def _parquet(path: Path, wanted: Collection[str], categorical: Collection[str]) -> TrainingTable:
    try:
        pa = import_module("pyarrow")
        parquet = import_module("pyarrow.parquet")
    except ModuleNotFoundError as error:
        raise Failure(
            "reading Parquet needs pyarrow: install Mooring with the extra `reference` "
            "(docs/install.md), or write the table as CSV"
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


def _text(value: Any) -> str | None:
    """A category as the collector spells it, whose numbers are float64; None is missing there."""
    if isinstance(value, int | float | Decimal) and not isinstance(value, bool):
        number = _float(value)
        if not math.isfinite(number):
            return None
        return str(int(number)) if number.is_integer() else str(number)
    return str(value).lower() if isinstance(value, bool) else str(value)


def _float(value: Any) -> float:
    """NaN where there is none, and infinity for what is too large for a float."""
    try:
        return math.nan if value is None else float(value)
    except OverflowError:
        return math.inf if value > 0 else -math.inf


def _float_array(values: Any) -> FloatArray:
    return np.array([_float(one) for one in values.to_pylist()], dtype=np.float64)
