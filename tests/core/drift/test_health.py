"""Broken data, silent failures, references that cannot be used."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from tests.core.drift.samples import category_grid, references

from mooring.core.drift.arrays import FloatArray
from mooring.core.drift.building import categorical_grid, numeric_grid
from mooring.core.drift.floor import floor_text, share_floor
from mooring.core.drift.grid import FeatureGrid, InvalidGrid
from mooring.core.drift.health import (
    Expectations,
    Rule,
    blocks_retraining,
    feature_findings,
    is_constant,
    row_findings,
)
from mooring.core.drift.measure import View
from mooring.core.drift.outputs import estimated_accuracy, variance_collapse
from mooring.core.drift.reference import (
    Calibration,
    InvalidReference,
    Reference,
    config_map,
    from_config_map,
)
from mooring.core.drift.settings import DriftSettings

VALUES = np.random.default_rng(1).normal(size=5000)
GRID = numeric_grid("amount", VALUES)
USUAL = GRID.count(VALUES)


def with_cell(cell: int | None, rows: float, total: float = 1000) -> FloatArray:
    assert cell is not None
    found: FloatArray = USUAL / USUAL.sum() * (total - rows)
    found[cell] += rows
    return found


@pytest.mark.parametrize(
    ("cell", "rule"),
    [
        (GRID.missing, Rule.MISSING),
        (GRID.non_finite, Rule.NON_FINITE),
        (GRID.below, Rule.OUT_OF_RANGE),
        (GRID.above, Rule.OUT_OF_RANGE),
    ],
)
def test_each_kind_of_broken_value_is_a_finding(cell: int, rule: Rule) -> None:
    found = feature_findings(GRID, USUAL, with_cell(cell, 60), Expectations())
    assert [finding.rule for finding in found] == [rule]
    assert found[0].share == pytest.approx(0.06)
    assert "6.0% of amount is" in found[0].message
    assert json.loads(json.dumps(found[0].to_json()))["rule"] == rule.value


def test_what_is_tolerated_or_may_be_chance_is_no_finding() -> None:
    assert feature_findings(GRID, USUAL, with_cell(GRID.missing, 10), Expectations()) == ()
    # 2 of 100 may be chance at 1 %; 20 of 1000 hardly.
    assert not feature_findings(GRID, USUAL, with_cell(GRID.missing, 2, 100), Expectations())
    assert feature_findings(GRID, USUAL, with_cell(GRID.missing, 30), Expectations())
    usual = USUAL.copy()
    usual[GRID.missing] = 500
    assert not feature_findings(GRID, usual, with_cell(GRID.missing, 90), Expectations())
    assert feature_findings(GRID, USUAL, np.zeros(GRID.cells), Expectations()) == ()


def test_declared_rules_are_judged_by_their_counters() -> None:
    counted = {"pattern": 5.0, "domain": 0.0, "range": 0.0}
    found = feature_findings(GRID, USUAL, with_cell(5, 0), Expectations(), counted)
    assert [finding.rule for finding in found] == [Rule.PATTERN]
    tolerant = Expectations(pattern=0.05)
    assert feature_findings(GRID, USUAL, with_cell(5, 0), tolerant, counted) == ()


def test_values_of_another_type_are_a_share_of_all_rows_though_no_cell_has_them() -> None:
    counted = {"type": 600.0}
    some = feature_findings(GRID, USUAL, with_cell(5, 0, 400), Expectations(), counted, rows=1000)
    assert [(one.rule, one.share, one.rows) for one in some] == [(Rule.TYPE, 0.6, 1000)]
    every = feature_findings(GRID, USUAL, None, Expectations(), {"type": 1000.0}, rows=1000)
    assert [one.message for one in every] == [
        "100.0% of amount is of another type (1000 rows); 0.0% is tolerated"
    ]


def test_unreadable_bodies_are_a_share_of_bodies_however_many_rows_the_others_have() -> None:
    (found,) = row_findings(50_000, 500, (), read=500)
    assert found.share == 0.5
    assert row_findings(50_000, 5, (), read=500) == ()


def test_one_row_too_many_is_not_said_to_be_none() -> None:
    (found,) = feature_findings(GRID, USUAL, with_cell(5, 0, 1e6), Expectations(), {"range": 1.0})
    assert found.message.startswith("0.0001% of amount is outside the declared range")


def test_expectations_survive_their_json() -> None:
    one = Expectations(missing=0.2, constant=False)
    assert Expectations.from_json(one.to_json()) == one
    assert Expectations.from_json({}) == Expectations()


def test_an_unknown_category_is_a_finding_unless_the_reference_had_more_than_it_lists() -> None:
    grid = category_grid(3)
    usual = np.array([500.0, 300, 200, 0, 0])
    now = np.array([450.0, 300, 200, 50, 0])
    found = feature_findings(grid, usual, now, Expectations())
    assert [finding.rule for finding in found] == [Rule.UNSEEN_CATEGORY]
    assert feature_findings(replace(grid, open=True), usual, now, Expectations()) == ()


def test_a_constant_is_incredible_only_where_the_reference_varies() -> None:
    grid = category_grid(2)
    even, rare = np.array([500.0, 500, 0, 0]), np.array([999.0, 1, 0, 0])
    always = np.array([50.0, 0, 0, 0])
    found = feature_findings(grid, even, always, Expectations())
    assert [finding.rule for finding in found] == [Rule.CONSTANT]
    assert "colour is always a in 50 rows; in the reference 50.0% are" in found[0].message
    assert feature_findings(grid, rare, always, Expectations()) == ()
    assert feature_findings(grid, even, always, Expectations(constant=False)) == ()
    # p^m < 10⁻⁶: at one half from twenty rows on.
    assert not is_constant(np.array([19.0, 0]), np.array([500.0, 500]))
    assert is_constant(np.array([20.0, 0]), np.array([500.0, 500]))
    assert is_constant(np.array([0, 5.0]), rare[:2])


def test_vanished_features_unknown_ones_and_unreadable_bodies_are_schema() -> None:
    gone = feature_findings(GRID, USUAL, None, Expectations(), rows=100)
    assert gone[0].message == "amount is absent from all 100 rows; the reference has it"
    assert feature_findings(GRID, USUAL, None, Expectations(), rows=0) == ()
    found = row_findings(90, 10, ("extra",))
    assert [finding.rule for finding in found] == [Rule.SCHEMA, Rule.SCHEMA]
    assert "10.0% of the bodies is unreadable (100 bodies)" in found[0].message
    assert row_findings(0, 0, ()) == ()


def test_every_finding_blocks_retraining_and_the_worst_is_named() -> None:
    assert blocks_retraining(()) is None
    gone = feature_findings(GRID, USUAL, None, Expectations(), rows=100)
    odd = feature_findings(GRID, USUAL, with_cell(GRID.above, 900), Expectations())
    assert odd
    why = blocks_retraining((*odd, *gone))
    assert why is not None
    assert why.startswith("the data is broken: amount is absent")
    assert why.endswith(f"and {len(odd)} more")


def test_estimated_accuracy_follows_the_scores() -> None:
    labelled, positives = np.full(4, 1000.0), np.array([50.0, 300, 700, 950])
    sure, torn = np.array([500.0, 0, 0, 500]), np.array([0, 500.0, 500, 0])
    same = estimated_accuracy(sure, sure, positives, labelled)
    assert same.accuracy == same.reference == pytest.approx(0.95)
    worse = estimated_accuracy(torn, sure, positives, labelled)
    assert worse.accuracy == pytest.approx(0.7)
    assert worse.p < 1e-6 < same.p
    unknown = estimated_accuracy(sure, sure, positives, np.zeros(4))
    assert unknown.accuracy == 0.5
    with pytest.raises(ValueError, match="no predictions"):
        estimated_accuracy(np.zeros(4), sure, positives, labelled)


def test_a_variance_that_collapses_step_by_step_is_seen_and_a_steady_one_is_not() -> None:
    chance = np.random.default_rng(2)
    usual = np.full(10, 1000.0)

    def outputs(width: float) -> FloatArray:
        shares = np.exp(-(((np.arange(10) - 4.5) / (10 * width)) ** 2))
        return chance.multinomial(2000, shares / shares.sum()).astype(np.float64)

    narrowing = variance_collapse([outputs(1 / (1 + step)) for step in range(10)], usual)
    assert narrowing.collapsing
    assert narrowing.left < 0.8
    assert narrowing.slope < 0
    steady = variance_collapse([outputs(5) for _ in range(10)], usual)
    assert not steady.collapsing
    assert steady.left == pytest.approx(1, abs=0.02)
    assert not variance_collapse([outputs(5)], usual).collapsing
    assert variance_collapse([outputs(1)], np.array([100.0, 0])).left == 1
    with pytest.raises(ValueError, match="no window"):
        variance_collapse([], usual)


def small() -> Reference:
    features = references({"amount": VALUES, "colour": ["red", "green", None] * 100})
    labelled = np.full(GRID.cells, 10.0)
    return Reference(
        features, references({"score": VALUES}), Calibration("score", labelled, labelled / 2),
        {"file": "train.csv", "rows": 5000}, Expectations().to_json(),
    )  # fmt: skip


def test_a_reference_survives_its_config_map() -> None:
    manifest = config_map(small(), "fraud", "shop")
    assert manifest["immutable"]
    found = from_config_map(json.loads(json.dumps(manifest)))
    assert found.hash == small().hash == manifest["metadata"]["labels"]["mooring.dev/reference"]
    assert found.grid_hash == small().grid_hash
    assert found.features[1].grid.categories == ("green", "red")
    assert found.calibration is not None
    assert found.calibration.positives.sum() == GRID.cells * 5


def test_an_edited_reference_is_refused() -> None:
    manifest = config_map(small(), "fraud")
    text = manifest["data"]["reference.json"]
    edited = {**manifest, "data": {"reference.json": text.replace('"red"', '"blue"')}}
    with pytest.raises(InvalidReference, match="it was edited; build it anew"):
        from_config_map(edited)
    counts = {**manifest, "data": {"reference.json": text.replace('"rows":5000', '"rows":5001')}}
    with pytest.raises(InvalidReference, match="is labelled"):
        from_config_map(counts)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("{", "not JSON"),
        ("[]", "not of format 1"),
        ('{"format": 2}', "not of format 1"),
        ('{"format": 1, "features": {}}', "must be lists"),
        ('{"format": 1}', "neither features nor outputs"),
        ('{"format": 1, "features": [{"name": "a"}]}', "cannot be read"),
        (
            '{"format":1,"features":[{"name":"a","kind":"numeric","edges":[2,1],"counts":[]}]}',
            "feature a: edges must be finite, rising",
        ),
        (
            '{"format":1,"features":[{"name":"a","kind":"numeric","edges":[1,2],"counts":[1]}]}',
            "feature a: 1 counts for a grid of 5 cells",
        ),
        (
            '{"format":1,"features":[{"name":"a","kind":"numeric","edges":[1,2],"counts":[1,1,1,-1,1]}]}',
            "feature a: a count is negative",
        ),
        (
            '{"format":1,"features":[{"name":"a","kind":"categorical","categories":["x","x"]}]}',
            "a category is listed twice",
        ),
        ('{"format":1,"features":[{"name":"a","kind":"tree","counts":[]}]}', "'tree' is unknown"),
    ],
)
def test_a_reference_that_is_none_says_so_in_one_sentence(text: str, sentence: str) -> None:
    with pytest.raises(InvalidReference, match=sentence):
        Reference.from_text(text)


@pytest.mark.parametrize(
    ("part", "value", "sentence"),
    [
        ("source", 7, "the reference's source must be an object"),
        ("expectations", [1], "the reference's expectations must be an object"),
        ("expectations", {"missing": "few"}, "expectations cannot be read: could not convert"),
        ("expectations", {"missing": 10**400}, "expectations cannot be read: int too large"),
        ("expectations", {"range": float("nan")}, "cannot be read: range is no share from 0 to 1"),
        ("expectations", {"outOfRange": -1}, "cannot be read: outOfRange is no share from 0 to 1"),
        ("calibration", {"output": "score", "labelled": 3, "positives": 1}, "lists of one length"),
        ("calibration", {"output": "score", "labelled": [1], "positives": [2]}, "more positives"),
        (
            "calibration",
            {"output": "other", "labelled": [1], "positives": [1]},
            "an output o",
        ),
    ],
)
def test_what_is_beside_the_counts_of_a_reference_is_read_with_care(
    part: str, value: object, sentence: str
) -> None:
    raw = json.loads(small().to_text()) | {part: value}
    with pytest.raises(InvalidReference, match=sentence):
        Reference.from_text(json.dumps(raw))


def test_a_config_map_without_a_reference_is_refused() -> None:
    with pytest.raises(InvalidReference, match=r"ConfigMap x has no key reference\.json"):
        from_config_map({"metadata": {"name": "x"}, "data": {"a": "b"}})
    with pytest.raises(InvalidReference, match="named twice"):
        Reference(references({"a": VALUES}), references({"a": VALUES}))


def test_five_hundred_features_fit_a_config_map_and_too_much_is_refused() -> None:
    one = references({"x": np.random.default_rng(1).lognormal(size=20_000) * 123.456789})[0]
    wide = Reference(
        tuple(replace(one, grid=replace(one.grid, name=f"feature-{i}")) for i in range(500))
    )
    assert len(wide.to_text().encode()) < 600_000
    names = tuple(f"{'x' * 60}{i}" for i in range(64))
    huge = references({"c": list(names)})[0]
    heavy = Reference(
        tuple(replace(huge, grid=replace(huge.grid, name=f"f{i}")) for i in range(400))
    )
    with pytest.raises(InvalidReference, match="a ConfigMap holds"):
        config_map(heavy, "x")


def test_an_open_category_shares_one_cell_among_the_rest() -> None:
    values = [f"c{i % 100}" for i in range(1000)]
    grid = categorical_grid("c", values)
    assert grid.open
    assert len(grid.categories) == 64
    assert grid.unseen is not None
    assert grid.count(values)[grid.unseen] == 360


def test_a_feature_without_a_number_has_no_grid() -> None:
    with pytest.raises(InvalidGrid, match="no finite value"):
        numeric_grid("x", np.array([np.nan, np.inf]))
    with pytest.raises(InvalidGrid, match="cannot be read"):
        FeatureGrid.from_json({"kind": "numeric"})


def test_a_constant_feature_has_one_bin_and_its_floor_says_so() -> None:
    view = View.of(references({"x": np.full(100, 7.0)}), DriftSettings())
    assert view.layout.labels == (("7",),)
    assert view.floors[0].startswith("constant in the reference")


def test_floors_are_in_the_features_own_terms() -> None:
    nan = np.full(3, np.nan)
    counts = np.array([600.0, 300, 100])
    assert floor_text(("red", "green", "blue"), counts, nan, 0.02) == (
        "a change of the share of red by .07 or more"
    )
    spread = floor_text(tuple("abcde"), np.full(5, 100.0), np.linspace(0.0, 40, 5), 0.02)
    assert spread == "a shift of the mean by about 2 (.14 standard deviations) or more"
    assert share_floor(0.5, 0.02) == pytest.approx(0.07, abs=0.001)
    assert share_floor(0.001, 1e9) == 1.0
