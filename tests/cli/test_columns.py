from __future__ import annotations

import io

import pytest
from rich.console import Console
from rich.text import Text

from mooring.cli.columns import Column, fit
from mooring.cli.words import short_uri


def printed(columns: list[Column], width: int) -> list[str]:
    out = Console(file=io.StringIO(), width=width)
    out.print(fit(columns, width))
    assert isinstance(out.file, io.StringIO)
    return [row.rstrip() for row in out.file.getvalue().splitlines()]


def texts(*cells: str) -> list[Text]:
    return [Text(cell) for cell in cells]


COLUMNS = [
    Column("NAME", texts("fraud", "churn")),
    Column("STEP", texts("", "")),
    Column("MODEL", texts("s3://models/fraud/exports/v7", ""), 16, short_uri),
    Column("AGE", texts("3d", "4d"), drop=2),
    Column("WHY", texts("errors rose from 1 % to 9 %", ""), 12, drop=1),
]


@pytest.mark.parametrize(
    ("width", "rows"),
    [
        (100, ["NAME   MODEL                         AGE  WHY",
               "fraud  s3://models/fraud/exports/v7  3d   errors rose from 1 % to 9 %",
               "churn  -                             4d   -"]),
        (50, ["NAME   MODEL                     AGE  WHY",
              "fraud  s3://…/fraud/exports/v7   3d   errors rose",
              "                                      from 1 % to",
              "                                      9 %",
              "churn  -                         4d   -"]),
        (40, ["NAME   MODEL                WHY",
              "fraud  s3://…/exports/v7    errors rose",
              "                            from 1 % to",
              "                            9 %",
              "churn  -                    -"]),
        (25, ["NAME   MODEL",
              "fraud  s3://…/exports/v7",
              "churn  -"]),
    ],
)  # fmt: skip
def test_what_is_typed_again_stays_whole_and_the_rest_gives_way(
    width: int, rows: list[str]
) -> None:
    assert printed(COLUMNS, width) == rows
    assert max(len(row) for row in rows) <= width


def test_a_table_without_rows_is_no_error() -> None:
    assert printed([Column("NAME"), Column("AGE")], 80) in ([], [""])
