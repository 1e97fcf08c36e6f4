"""A reference is of its table's rows: the collector that is given them finds nothing wrong."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from click.testing import CliRunner, Result
from tests.collector.references import answer, exchange, telemetry

from mooring.cli.reference import reference as reference_command
from mooring.core.drift.reference import FeatureReference, Reference, from_config_map

NAN, INF = float("nan"), float("inf")


def run(path: Path, *options: str) -> Result:
    return CliRunner().invoke(reference_command, ["build", str(path), "--name", "r", *options])


def lines(folder: Path, values: list[Any]) -> Path:
    """A table of lines of JSON with the column ``v``, and one of numbers beside it."""
    path = folder / "t.jsonl"
    rows = [{"v": value, "x": place * 0.5} for place, value in enumerate(values)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def built(path: Path, *options: str) -> Reference:
    done = run(path, *options)
    assert done.exit_code == 0, done.output
    return from_config_map(yaml.safe_load(done.stdout))


def feature(found: Reference, name: str = "v") -> FeatureReference:
    return next(one for one in found.features if one.name == name)


def counted(found: Reference, rows: list[dict[str, Any]]) -> tuple[dict[Any, int], list[int]]:
    """What breaks a rule, and the rows per cell of ``v``, of requests of one row each."""
    collector = telemetry(found, protocol="tensorflow-serving")
    for row in rows:
        body = json.dumps({"instances": [row]}).encode()
        collector.count("aa", "live", exchange(body, answer()), 0.0)
    collector.flush()
    features = collector.revision("aa").features
    columns = [*features.numeric, *features.texts]
    cells = [*features.cells, *features.text_cells]
    (place,) = [place for place, one in enumerate(columns) if one.name == "v"]
    return dict(features.violations), cells[place].tolist()


SAME: list[tuple[list[Any], str, tuple[str, ...]]] = [
    # digits that JSON writes as texts are texts
    (["01234", "01235"], "string", ("01234", "01235")),
    (["1.0", "2.50", "1e3"], "string", ("1.0", "1e3", "2.50")),
    (["true", "False"], "string", ("False", "true")),
    (["1", "2", None], "string", ("1", "2")),
    # and nothing is taken from a text
    ([" a ", "a", ""], "string", ("", " a ", "a")),
    (["NA", "null", "n/a"], "string", ("NA", "n/a", "null")),
    # the numbers that JSON lacks are words beside numbers, and texts beside texts
    ([1.5, "NaN", "Infinity", "-Infinity", "inf", ""], "number", ()),
    ([1, 2, "Infinity", "NaN"], "integer", ()),
    (["NaN", "Infinity", "x"], "string", ("Infinity", "NaN", "x")),
    ([1.5, NAN, INF], "number", ()),
    # numbers beside texts are spelt as the collector spells them
    (["x", 7, 7.5, 1e16, -3.0, "7"], "string", ("-3", "10000000000000000", "7", "7.5", "x")),
    (["x", 2**53 + 1, None], "string", (str(2**53), "x")),
    # numbers
    ([1, 2, 3, None], "integer", ()),
    ([1.0, 2.0], "number", ()),
    ([True, False, None], "boolean", ()),
    ([True, 0, 1], "boolean", ()),
    ([True, 0, 5], "integer", ()),
]


@pytest.mark.parametrize(("values", "kind", "categories"), SAME)
def test_lines_of_json_are_what_the_collector_takes_them_for(
    tmp_path: Path, values: list[Any], kind: str, categories: tuple[str, ...]
) -> None:
    path = lines(tmp_path, values * 10)
    found = built(path)
    assert feature(found).type == kind
    assert tuple(sorted(feature(found).grid.categories)) == categories
    wrong, cells = counted(found, [json.loads(line) for line in path.read_text().splitlines()])
    assert wrong == {}
    assert cells == feature(found).counts.tolist()


@pytest.mark.parametrize("values", [[True, False], [1, 0], [True, False, "unknown"]])
@pytest.mark.parametrize("options", [["--categorical", "v"], ["--categorical", "v", "--hash", "v"]])
@pytest.mark.parametrize("asked", [[True, False], [1, 0], [True, False, None]])
def test_the_truth_is_the_category_that_it_is_in_the_reference_however_a_body_says_it(
    tmp_path: Path, values: list[Any], options: list[str], asked: list[Any]
) -> None:
    found = built(lines(tmp_path, values * 10), *options)
    collector = telemetry(
        found, protocol="tensorflow-serving",
        features=[{"name": "v", "hash": True}] if "--hash" in options else None,
    )  # fmt: skip
    body = json.dumps({"instances": [{"v": value, "x": 0.5} for value in asked]}).encode()
    collector.count("aa", "live", exchange(body, answer()), 0.0)
    collector.flush()
    features = collector.revision("aa").features
    grid = feature(found).grid
    (cells,) = (one.tolist() for one in features.text_cells)
    seen = dict(zip((*grid.categories, "(unseen)", "(missing)"), cells, strict=True))
    assert seen["(unseen)"] == 0
    assert seen["(missing)"] == asked.count(None)
    assert sum(cells) == len(asked)


@pytest.mark.parametrize(
    ("values", "categories"),
    [
        (["1.0", "2.0"], ("1.0", "2.0")),
        ([1.0, 2.0, 2.5], ("1", "2", "2.5")),
        ([1e16, 3, -0.0, None, NAN], ("0", "10000000000000000", "3")),
        ([7, 7.0, "7", "7.0"], ("7", "7.0")),
        ([2**53 + 1, 10**400], (str(2**53),)),
    ],
)
def test_names_are_spelt_as_the_collector_spells_them(
    tmp_path: Path, values: list[Any], categories: tuple[str, ...]
) -> None:
    found = built(lines(tmp_path, values * 10), "--categorical", "v")
    assert tuple(sorted(feature(found).grid.categories)) == categories
    asked = [{"v": value, "x": 0.5} for value in values if value != 10**400]
    wrong, cells = counted(found, asked)
    assert wrong == {}
    grid = feature(found).grid
    assert sum(cells[: len(categories)]) + cells[grid.missing] == len(asked)


def test_a_few_texts_among_numbers_are_a_mistake_that_is_named(tmp_path: Path) -> None:
    path = lines(tmp_path, [*range(30), "31"])
    done = run(path)
    assert done.exit_code == 1
    assert "t.jsonl, row 31, column v: '31' is a text and no number, but 96.8%" in done.stderr
    found = built(path, "--categorical", "v")
    assert {"7", "31"} <= set(feature(found).grid.categories)


def test_names_in_parquet_are_spelt_as_the_collector_spells_them(tmp_path: Path) -> None:
    arrow = pytest.importorskip("pyarrow")
    from decimal import Decimal

    parquet = pytest.importorskip("pyarrow.parquet")
    columns = {
        "v": arrow.array([1.0, 2.5, NAN, None] * 10),
        "price": arrow.array([Decimal("7.00"), Decimal("7.50")] * 20),
        "zip": arrow.array(["01234", "1.0"] * 20),
    }
    path = tmp_path / "t.parquet"
    parquet.write_table(arrow.table(columns), path)
    found = built(path, "--categorical", "v,price")
    assert feature(found).grid.categories == ("1", "2.5")
    assert feature(found).counts[feature(found).grid.missing] == 20
    assert feature(found, "price").grid.categories == ("7", "7.5")
    assert feature(found, "zip").grid.categories == ("01234", "1.0")
    rows = [{"v": v, "price": 7.0, "zip": "01234"} for v in (1.0, 2.5, NAN, None)]
    wrong, cells = counted(found, rows)
    assert (wrong, np.sum(cells), cells[feature(found).grid.missing]) == ({}, 4, 2)
