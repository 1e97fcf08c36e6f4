"""Labels that are numbers: errors of predictions in bounded memory, and what is no such label."""

from __future__ import annotations

import json
import math
import re

import numpy as np
import pytest
from tests.collector.references import answer, exchange, exposed, infer, reference, telemetry
from tests.collector.test_labels import client, kinds, label, observed, outcomes

from mooring.core.drift.building import numeric_grid
from mooring.core.drift.reference import Reference, feature_reference
from mooring_collector.feedback import Waiting
from mooring_collector.grid import Grid
from mooring_collector.regression import ErrorSums, error_edges
from mooring_collector.telemetry import Telemetry

PRICES = np.random.default_rng(5).gamma(4.0, 50.0, 2000)


def priced() -> Reference:
    """The reference of a model that answers with a price."""
    output = feature_reference(numeric_grid("price", PRICES), PRICES, "number")
    return Reference(reference().features, (output,))


def asked(*prices: float, at: float = 0.0) -> Telemetry:
    """A collector that has seen one request of so many rows."""
    found = telemetry(priced(), feedback={"maturity": 60})
    body = infer(*[[1, 2, 3]] * len(prices), id="one")
    found.count("aa", "live", exchange(body, answer(*prices, name="price")), at)
    return found


def sums(found: Telemetry, output: str = "price") -> tuple[float, ...]:
    """Labels, Σ|e|, Σe² and Σe⁴ over all cells."""
    errors = found.revision("aa").errors[output]
    parts = (errors.rows, errors.absolute, errors.squared, errors.quartic)
    return tuple(float(one.sum()) for one in parts)


def test_errors_are_summed_at_the_cell_of_their_prediction() -> None:
    found = asked(100.0, 300.0)
    assert label(found, id="one", labels=[103.0, 298]) == ["joined", "joined"]
    errors, grid = found.revision("aa").errors["price"], priced().outputs[0].grid
    low, high = grid.numeric_cells(np.array([100.0, 300.0])).tolist()
    assert sums(found) == pytest.approx((2, 5, 9 + 4, 81 + 16))
    assert (errors.absolute[low], errors.absolute[high]) == (3.0, 2.0)
    assert sum(errors.bins) == 2
    # The labels themselves have no series: there may be as many as predictions.
    assert outcomes(found) == {("price", low, "(number)"): 1, ("price", high, "(number)"): 1}


def test_a_number_that_comes_with_its_prediction_needs_no_memory() -> None:
    found = telemetry(priced())
    found.revision("aa")
    assert label(found, revision="aa", score=120.5, label=120) == ["joined"]
    assert sums(found)[:2] == (1, 0.5)
    assert label(found, revision="aa", score=10**400, label=120) == [
        "the prediction of output price was no finite number"
    ]


def test_outputs_of_one_prediction_have_labels_of_their_own() -> None:
    sizes = feature_reference(numeric_grid("size", PRICES), PRICES, "number")
    both = Reference(reference().features, (*priced().outputs, sizes))
    found = telemetry(both, feedback={"maturity": 60})
    tensors = [
        {"name": name, "shape": [1, 1], "datatype": "FP64", "data": [value]}
        for name, value in (("price", 100.0), ("size", 50.0))
    ]
    body = json.dumps({"outputs": tensors}).encode()
    found.count("aa", "live", exchange(infer([1, 2, 3], id="one"), body), 0.0)
    assert label(found, id="one", output="colour", label=48) == ["output is one of price, size"]
    assert label(found, id="one", output="size", label=48) == ["joined"]
    assert label(found, id="one", output="size", label=48) == ["unknown"]
    assert label(found, id="one", output="price", label=101) == ["joined"]
    assert label(found, id="one", output="price", label=101) == ["unknown"]
    assert sums(found, "size")[:2] == (1, 2)
    assert sums(found, "price")[:2] == (1, 1)


def test_zero_and_one_are_the_truth_of_a_score_and_a_number_too() -> None:
    found = telemetry(feedback={"maturity": 60})
    observed(found, "one", 0.25, 0.75, 0.5)
    assert label(found, id="one", labels=[0, 1, True]) == ["joined"] * 3
    assert sorted(name for _, _, name in outcomes(found)) == ["0", "1", "1"]
    assert sums(found, "score") == pytest.approx((2, 0.5, 0.125, 2 * 0.25**4))


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ("dear", "output price is a number: its label is a number, true or false, not the text 'd"),
        ("17.5", "output price is a number"),
    ],
)
def test_a_text_is_no_label_of_a_number_and_the_prediction_waits_on(
    given: str, sentence: str
) -> None:
    found = asked(100.0)
    (said,) = label(found, id="one", label=given)
    assert said.startswith(sentence)
    assert label(found, id="one", label=101) == ["joined"]
    assert found.revision("aa").feedback == {"refused": 1, "joined": 1}
    assert sums(found)[0] == 1


def test_half_is_no_label_of_a_class() -> None:
    found = telemetry(kinds())
    found.revision("aa")
    (said,) = label(found, revision="aa", score="cat", label=0.5)
    assert said.startswith("output kind is a class")
    assert said.endswith("not 0.5")
    assert found.revision("aa").feedback == {"refused": 1}
    assert outcomes(found) == {}


@pytest.mark.parametrize("prediction", [b"null", b'"inf"'])
def test_a_prediction_that_is_no_number_has_no_error(prediction: bytes) -> None:
    found = asked(100.0)
    body = answer(1.0, name="price").replace(b"1.0", prediction)
    found.count("aa", "live", exchange(infer([1, 2, 3], id="odd"), body), 0.0)
    (said,) = label(found, id="odd", label=3.5)
    assert said == "the prediction of output price was no finite number"
    assert not found.revision("aa").errors


# --- huge, tiny and odd -----------------------------------------------------------------------


def grid(*edges: float) -> Grid:
    return Grid("price", edges)


@pytest.mark.parametrize(
    ("edges", "size"),
    [
        ((10.0, 20.0, 110.0), 110.0),
        ((-50.0, 50.0), 100.0),
        ((300.0, 301.0), 301.0),  # predictions that hardly differ: errors may be as large as they
        ((-1e-30, 1e-30), 1.0),  # nothing but zeros
        ((-1e308, 1e308), 1e70),
    ],
)
def test_bins_have_the_size_of_what_the_reference_holds(
    edges: tuple[float, ...], size: float
) -> None:
    found = error_edges(grid(*edges))
    assert (found[0], found[-1], len(found)) == (size / 8192, size * 2, 15)


def test_one_huge_error_counts_as_twice_the_size_and_the_sums_go_on() -> None:
    found = ErrorSums(grid(0.0, 100.0))
    for error in (1.0, -1e300, math.inf, 2.0):
        found.add(1, error)
    assert found.absolute[1] == 1 + 200 + 200 + 2
    assert found.squared[1] == 1 + 2 * 200.0**2 + 4
    assert found.quartic[1] == 1 + 2 * 200.0**4 + 16
    assert found.bins[-1] == 2
    huge = ErrorSums(grid(-1e308, 1e308))
    for _ in range(1000):
        huge.add(0, 1e308)
    assert np.isfinite(huge.quartic).all()


def test_however_many_labels_come_the_page_grows_by_cells_alone() -> None:
    found = telemetry(priced())
    found.revision("aa")
    chance = np.random.default_rng(1)
    lengths = []
    for _ in range(2):
        for score in chance.gamma(4.0, 50.0, 4000).tolist():
            label(found, revision="aa", score=score, label=score + float(chance.normal()))
        lines = exposed(found).splitlines()
        lengths.append(sum("error" in line or "labelled" in line for line in lines))
    assert lengths[0] <= lengths[1] <= 4 * priced().outputs[0].grid.cells + 40


def test_predictions_of_many_outputs_wait_in_the_same_memory() -> None:
    many = Waiting(1 << 20, 500, 500)
    assert many._sets * 4 * (20 + 10 * 500) <= 64 << 20
    assert Waiting(1 << 20, 4, 4)._sets == 1 << 18


# --- over HTTP --------------------------------------------------------------------------------


def test_the_page_holds_a_histogram_and_the_sums() -> None:
    found = asked(100.0)
    label(found, id="one", label=103)
    text = re.sub(r'(life|grid)="[^"]+",', "", exposed(found))
    cell = int(priced().outputs[0].grid.numeric_cells(np.array([100.0]))[0])
    where = f'revision="aa",output="price",cell="{cell}"'
    assert f"mooring_telemetry_labelled_rows_total{{{where}}} 1\n" in text
    assert f"mooring_telemetry_absolute_errors_total{{{where}}} 3.0\n" in text
    assert f"mooring_telemetry_squared_errors_total{{{where}}} 9.0\n" in text
    assert f"mooring_telemetry_quartic_errors_total{{{where}}} 81.0\n" in text
    histogram = 'mooring_telemetry_absolute_error_{}{{revision="aa",output="price"{}}} {}\n'
    assert histogram.format("bucket", ',le="+Inf"', 1) in text
    assert histogram.format("sum", "", 3.0) in text
    assert histogram.format("count", "", 1) in text


@pytest.mark.parametrize("number", [b"NaN", b"1e999", b"-Infinity"])
async def test_a_body_with_a_number_that_is_none_is_refused_with_its_place(number: bytes) -> None:
    found = asked(100.0)
    async with client(found) as http:
        answered = await http.post("/feedback", content=b'[{"id":"one","label":' + number + b"}]")
    assert answered.status_code == 400
    assert "not JSON" in answered.json()["error"]
    assert "column" in answered.json()["error"]
    assert found.revisions[""].feedback["refused"] == 1
    assert label(found, id="one", label=103) == ["joined"]


async def test_what_is_refused_among_what_is_not_is_counted_and_explained() -> None:
    found = asked(100.0, 200.0, at=10**9)  # in the future of the clock: never late
    async with client(found) as http:
        some = await http.post("/feedback", json={"id": "one", "labels": [99.5, "dear"]})
        none = await http.post("/feedback", json={"id": "one", "labels": [None, "dear"]})
    assert (some.status_code, some.json()["joined"], some.json()["refused"]) == (200, 1, 1)
    assert "not the text 'dear'" in some.json()["errors"][0]
    assert (none.status_code, none.json()["refused"]) == (400, 1)
    assert found.revision("aa").feedback == {"joined": 1, "refused": 2}
