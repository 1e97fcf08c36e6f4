"""``mooring reference build``: a training table becomes an immutable ConfigMap."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from click.testing import CliRunner, Result

from mooring.cli.reference import reference
from mooring.core.drift.reference import Reference, from_config_map
from mooring_collector.extraction import digest

ROWS = 2000


@pytest.fixture
def table(tmp_path: Path) -> Path:
    """Numbers, truth values, categories, missing values, a score with its label, and an id."""
    chance = np.random.default_rng(1)
    score = chance.random(ROWS)
    label = (chance.random(ROWS) < score).astype(int)
    lines = ["amount,count,flag,colour,branch,score,fraud,id"]
    for row in range(ROWS):
        amount = "" if row % 50 == 0 else f"{chance.normal(100, 20):.2f}"
        colour = ("red", "green", "NA", "")[row % 4]
        flag = ("true", "False")[row % 2]
        lines.append(
            f"{amount},{row % 7},{flag},{colour},{row % 3},{score[row]:.4f},{label[row]},u{row}"
        )
    path = tmp_path / "train.csv"
    path.write_text("\n".join(lines) + "\n")
    return path


def run(*arguments: str | Path) -> Result:
    return CliRunner().invoke(reference, ["build", *map(str, arguments)])


def built(*arguments: str | Path) -> tuple[dict[str, Any], Reference]:
    done = run(*arguments)
    assert done.exit_code == 0, done.output
    manifest = yaml.safe_load(done.stdout)
    return manifest, from_config_map(manifest)


def test_a_table_becomes_an_immutable_hashed_config_map(table: Path) -> None:
    manifest, found = built(
        table, "--name", "fraud-reference", "-n", "shop", "--prediction", "score",
        "--label", "fraud", "--categorical", "branch",
    )  # fmt: skip
    assert (manifest["kind"], manifest["immutable"]) == ("ConfigMap", True)
    assert manifest["metadata"]["name"] == "fraud-reference"
    assert manifest["metadata"]["namespace"] == "shop"
    assert manifest["metadata"]["labels"]["mooring.dev/reference"] == found.hash
    by_name = {one.name: one for one in found.features}
    assert {name: one.type for name, one in by_name.items()} == {
        "amount": "number", "count": "integer", "flag": "boolean", "colour": "string",
        "branch": "string",
    }  # fmt: skip
    amount = by_name["amount"]
    assert amount.counts[amount.grid.missing] == ROWS / 50
    assert all(one.rows == ROWS for one in by_name.values())
    # Seven values of one seventh each: seven atoms. In texts NA is a category, not a gap.
    assert by_name["count"].grid.atoms == tuple(map(float, range(7)))
    assert by_name["flag"].grid.atoms == (0.0, 1.0)
    assert by_name["colour"].grid.categories == ("NA", "green", "red")
    assert by_name["branch"].grid.categories == ("0", "1", "2")
    assert [one.name for one in found.outputs] == ["score"]
    assert found.expectations is not None
    assert found.expectations["missing"] == 0.01
    assert found.calibration is not None
    assert found.calibration.labelled.sum() == ROWS
    assert 0.4 < found.calibration.positives.sum() / ROWS < 0.6


def test_labels_of_rows_that_a_model_has_learnt_are_warned_of(table: Path) -> None:
    done = run(table, "--name", "x", "--prediction", "score", "--label", "fraud")
    assert "what score means is learnt from 2000 labels: of rows that the model" in done.stderr
    assert "what score means" not in run(table, "--name", "x", "--prediction", "score").stderr


def test_what_cannot_be_watched_is_left_out_and_named(table: Path) -> None:
    done = run(table, "--name", "x")
    assert "left out: id (2000 different texts in 2000 rows: an identifier" in done.stderr
    assert "7 features, 2000 rows" in done.stderr
    refused = run(table, "--name", "x", "--features", "amount,id")
    assert refused.exit_code == 1
    assert "train.csv, column id: 2000 different texts" in refused.stderr


def test_the_same_table_gives_the_same_bytes_and_json_means_the_same(table: Path) -> None:
    first, second = run(table, "--name", "x"), run(table, "--name", "x")
    assert first.stdout == second.stdout
    as_json = run(table, "--name", "x", "-o", "json")
    assert json.loads(as_json.stdout) == yaml.safe_load(first.stdout)


def test_features_are_chosen_by_name(table: Path) -> None:
    _, found = built(table, "--name", "x", "--features", "amount,flag", "--features", "colour")
    assert [one.name for one in found.features] == ["amount", "flag", "colour"]
    _, found = built(table, "--name", "x", "--exclude", "id,fraud,score,branch,count")
    assert [one.name for one in found.features] == ["amount", "flag", "colour"]


@pytest.mark.parametrize(
    ("text", "arguments", "sentence"),
    [
        ("a,b\n1,2\n3\n", (), "t.csv, line 3: 1 cells, but the header names 2 columns"),
        ("", (), "t.csv is empty: the first line must name the columns"),
        ("a,b\n", (), "t.csv has a header, but no rows"),
        ("a,a\n1,2\n", (), "t.csv: the header names a twice: give each column its own name"),
        ("a;b\n1;2\n", (), "the header is one column, 'a;b': write the table with commas"),
        ("a,b\n1,2\n", ("--exclude", "c"), "t.csv has no column c"),
        ("a,b\n1,2\n", ("--hash", "a"), "column a: only texts can be hashed; say --categorical a"),
        ("d,a\n2026-01-01,1\n", ("--features", "d"), "column d: it holds dates; say --categorical"),
        ("a,\n1,2\n", (), "t.csv: column 2 has no name in the header"),
        ("a\n" + "1\n" * 30 + "x7\n", (), "t.csv, row 32, column a: 'x7' is no number, but 96.8%"),
        ("a,b\n1,2\n", ("--features", "c"), "t.csv has no column c; it has a, b"),
        ("a,b\n1,2\n", ("--prediction", "c"), "t.csv has no column c"),
        ("a\n\n,\n", (), "line 3: 2 cells"),
        ("a,b\n,1\n,2\n", ("--features", "a"), "t.csv, column a: it is empty"),
        ("a,b\ninf,1\n-inf,2\n", ("--features", "a"), "column a: it holds no finite number"),
        ("p,y\n.5,2\n.1,0\n", ("--prediction", "p", "--label", "y"), "labels must be 0 or 1"),
        ("p,y\nx,1\ny,0\n", ("--prediction", "p", "--label", "y"), "scores must be numbers"),
        ('a,b\n"1,2\n', (), "t.csv, line 2"),
    ],
)
def test_a_bad_table_is_refused_in_one_sentence(
    tmp_path: Path, text: str, arguments: tuple[str, ...], sentence: str
) -> None:
    path = tmp_path / "t.csv"
    path.write_text(text)
    done = run(path, "--name", "x", *arguments)
    assert done.exit_code == 1, done.output
    assert sentence in done.stderr
    assert not done.stdout


def test_a_table_that_is_not_text_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_bytes(b"a\n\xff\xfe\n")
    assert "t.csv is not UTF-8" in run(path, "--name", "x").stderr
    other = tmp_path / "t.xlsx"
    other.write_bytes(b"PK")
    assert "must end in .csv, .tsv, .jsonl, .ndjson or .parquet" in run(other, "--name", "x").stderr


def test_a_long_column_of_identifiers_is_left_out_without_being_kept(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_text("id,x\n" + "".join(f"u{i},{i}\n" for i in range(100_002)))
    done = run(path, "--name", "x")
    assert done.exit_code == 0
    assert "left out: id (more than 100,000 different texts" in done.stderr


def test_wrong_usage_has_its_own_code(table: Path) -> None:
    assert run(table, "--name", "x", "--label", "fraud").exit_code == 2
    both = run(table, "--name", "x", "--features", "amount", "--prediction", "amount")
    assert both.exit_code == 2
    assert run(table).exit_code == 2
    assert run(table, "--name", "Fraud_1").exit_code == 2


def test_too_many_features_are_refused_with_the_way_out(tmp_path: Path) -> None:
    path = tmp_path / "wide.csv"
    names = ",".join(f"f{i}" for i in range(501))
    path.write_text(f"{names}\n" + (",".join("1" for _ in range(501)) + "\n") * 3)
    done = run(path, "--name", "x")
    assert done.exit_code == 1
    assert "at most 500 can be watched" in done.stderr


def test_numbers_that_happen_to_be_whole_are_no_integers(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_text("price,count,exact\n" + "10.0,3,1e3\n20.0,-4,7\n" * 20)
    _, found = built(path, "--name", "x")
    kinds = {one.name: one.type for one in found.features}
    assert kinds == {"price": "number", "count": "integer", "exact": "number"}


def test_names_that_a_table_writes_as_numbers_are_those_that_traffic_says(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_text("branch,release\n" + "7.0,1.0\n12.0,1.1\n,2.0\n" * 20)
    _, found = built(path, "--name", "x", "--categorical", "branch,release")
    assert [one.grid.categories for one in found.features] == [("12", "7"), ("1.0", "1.1", "2.0")]


def test_names_and_texts_that_no_status_could_hold_are_left_out(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    long, text = "n" * 129, "t" * 257
    path.write_text(f"{long},note,x\n" + f"1,{text},1\n2,short,2\n" * 20)
    done = run(path, "--name", "x")
    assert "(its name is longer than the 128 characters that status can hold)" in done.stderr
    assert "left out: note (it holds texts of more than 256 characters" in done.stderr
    assert run(path, "--name", "x", "--prediction", "note").exit_code == 1


def test_dates_are_left_out_unless_they_are_said_to_be_names(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    rows = "".join(f"2026-01-{i % 28 + 1:02},{i % 28 + 1}.1.2026 10:00,{i}\n" for i in range(500))
    path.write_text("day,when,x\n" + rows)
    done = run(path, "--name", "x")
    assert "left out: day (it holds dates" in done.stderr
    assert "left out: when (it holds dates" in done.stderr
    _, found = built(path, "--name", "x", "--categorical", "day")
    assert [one.name for one in found.features] == ["day", "x"]


def test_texts_that_are_hashed_are_those_that_the_collector_counts(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_text("city,x\n" + "rome,1\nbonn,2\n,3\n" * 10)
    manifest, found = built(path, "--name", "x", "--hash", "city")
    assert found.features[0].grid.categories == (digest("bonn"), digest("rome"))
    assert "rome" not in json.dumps(manifest)


def test_lines_of_json_and_captured_traffic_are_read_as_csv_is(tmp_path: Path) -> None:
    path = tmp_path / "t.jsonl"
    rows: list[dict[str, Any]] = [
        {"x": i, "city": "rome" if i % 2 else None, "ok": i % 3 == 0} for i in range(60)
    ]
    rows.append({"x": 60, "late": 1.5})
    path.write_text("".join(json.dumps(row) + "\n" for row in rows) + "\n")
    _, plain = built(path, "--name", "x")
    by_name = {one.name: one for one in plain.features}
    assert {name: one.type for name, one in by_name.items()} == {
        "city": "string", "late": "number", "ok": "boolean", "x": "integer",
    }  # fmt: skip
    assert by_name["late"].counts[by_name["late"].grid.missing] == 60
    lines = [json.dumps({"revision": "a", "features": row}) + "\n" for row in rows]
    path.write_text("".join(lines))
    assert built(path, "--name", "x")[1].to_text() == plain.to_text()


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("", "t.jsonl is empty: write one object a line"),
        ('{"a": 1}\n{"a": \n', "t.jsonl, line 2: not JSON"),
        ("[1, 2]\n", "line 1: a row is an object by column"),
        ('{"a": [1, 2]}\n', "line 1, column a: a value is a list: write each of its parts"),
    ],
)
def test_lines_that_are_no_rows_are_refused_in_one_sentence(
    tmp_path: Path, text: str, sentence: str
) -> None:
    path = tmp_path / "t.jsonl"
    path.write_text(text)
    done = run(path, "--name", "x")
    assert done.exit_code == 1
    assert sentence in done.stderr


def test_few_rows_are_said_to_be_few(table: Path, tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_text("x\n1\n2\n")
    assert "2 rows are few" in run(path, "--name", "x").stderr
    assert "rows are few" not in run(table, "--name", "x").stderr


def test_parquet_reads_as_csv_does(tmp_path: Path) -> None:
    arrow = pytest.importorskip("pyarrow")
    from datetime import date

    parquet = pytest.importorskip("pyarrow.parquet")
    columns = {
        "amount": arrow.array([1.5, None, 2.5, float("nan")] * 100),
        "count": arrow.array([1, 2, 3, None] * 100, type=arrow.int32()),
        "flag": arrow.array([True, False, None, True] * 100),
        "colour": arrow.array(["red", "green", None, "red"] * 100).dictionary_encode(),
        "day": arrow.array([date(2026, 1, 1)] * 400),
    }
    path = tmp_path / "t.parquet"
    parquet.write_table(arrow.table(columns), path)
    done = run(path, "--name", "x")
    assert "left out: day (neither numbers nor texts)" in done.stderr
    found = {one.name: one for one in from_config_map(yaml.safe_load(done.stdout)).features}
    assert {name: one.type for name, one in found.items()} == {
        "amount": "number", "count": "integer", "flag": "boolean", "colour": "string",
    }  # fmt: skip
    assert [one.counts[one.grid.missing] for one in found.values()] == [200, 100, 100, 100]
    refused = run(path, "--name", "x", "--features", "day")
    assert "column day: values of type date32" in refused.stderr
    for option in (("--prediction", "day"), ("--prediction", "amount", "--label", "day")):
        other = run(path, "--name", "x", *option)
        assert other.exit_code == 1
        assert "t.parquet, column day: it holds neither numbers nor texts" in other.stderr
    broken = tmp_path / "broken.parquet"
    broken.write_bytes(b"PAR1")
    assert "broken.parquet cannot be read as Parquet" in run(broken, "--name", "x").stderr
