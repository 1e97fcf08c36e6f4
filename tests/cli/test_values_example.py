"""The client of examples/feedback-values speaks as the collector listens, and its story holds."""

from __future__ import annotations

import csv
import importlib
import json
import random
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from click.testing import CliRunner
from tests.collector.references import answer, exchange, telemetry

from mooring.api import parse_model_deployment
from mooring.cli import main
from mooring.core.drift.reference import from_config_map
from mooring.core.retrain.facts import PerformanceFacts
from mooring.core.retrain.figures import measured
from mooring.core.retrain.measuring import ABSOLUTE, QUARTIC, ROWS, SQUARED, Labels
from mooring_collector.feedback import read_feedback

EXAMPLE = Path(__file__).parents[2] / "examples" / "feedback-values"
#: Of the example's trips, by 10⁷ of them.
MEAN_ERROR = 1.6465


@pytest.fixture(scope="module")
def client() -> Any:
    """The example's script as a module."""
    before = list(sys.path)
    sys.path.insert(0, str(EXAMPLE))
    try:
        yield importlib.import_module("trips")
    finally:
        sys.path[:] = before
        for name in ("trips", "feedback"):
            sys.modules.pop(name, None)


@pytest.fixture(scope="module")
def reference(client: Any, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The reference as the example's own commands build it."""
    path = tmp_path_factory.mktemp("values") / "training.csv"
    client.table(str(path), 6000)
    with path.open() as file:
        assert next(csv.reader(file)) == ["distance_km", "rush_hour", "rain", "minutes"]
    command = ["reference", "build", str(path), "--name", "r", "--prediction", "minutes"]
    built = CliRunner().invoke(main, command)
    assert built.exit_code == 0, built.stderr
    return from_config_map(yaml.safe_load(built.stdout))


def counted(
    client: Any, reference: Any, slower: float, seed: int, requests: int, typo: bool
) -> Labels:
    """Trips asked about and told of by the example, counted by the collector's own code."""
    chance = random.Random(seed)
    found = telemetry(reference, feedback={"maturity": 60})
    for number in range(requests):
        trips = [client.trip(chance) for _ in range(20)]
        minutes = client.predict(trips)
        body = json.dumps({"id": f"r{number}", **client.request(trips)}).encode()
        found.count("aa", "live", exchange(body, answer(*minutes, name="minutes")), 0.0)
        piece = client.told(chance, f"r{number}", minutes, slower, 0.5)
        if typo and number == 0:
            piece["labels"][0] = 1e12
        for one in read_feedback(json.loads(json.dumps(piece))):
            assert found.label(one, 1.0) == "joined"
    found.flush()
    revision = found.revision("aa")
    (cells,) = [c for column, c in revision.outputs["live"].series() if column.name == "minutes"]
    sums = revision.errors["minutes"]
    powers = {
        ROWS: sums.rows, ABSOLUTE: sums.absolute, SQUARED: sums.squared, QUARTIC: sums.quartic,
    }  # fmt: skip
    return Labels(
        {("minutes", int(cell)): float(cells[cell]) for cell in np.flatnonzero(cells)},
        {key: float(count) for key, count in revision.outcomes.counts.items()},
        {
            ("minutes", int(cell), what): float(values[cell])
            for what, values in powers.items()
            for cell in np.flatnonzero(sums.rows)
        },
    )


def mae(
    client: Any,
    reference: Any,
    slower: float,
    seed: int = 7,
    requests: int = 150,
    typo: bool = False,
) -> Any:
    found: PerformanceFacts = measured(
        counted(client, reference, slower, seed, requests, typo), reference
    ).metrics["mae"]
    return found


def test_its_model_is_good_enough_until_there_are_roadworks(client: Any, reference: Any) -> None:
    good, bad = (mae(client, reference, slower) for slower in (1.0, 1.3))
    limit = _limit()
    assert good.lower < MEAN_ERROR < good.upper < limit
    assert bad.lower > limit
    assert "labels for" in bad.note


def test_one_mistyped_label_neither_condemns_a_good_model_nor_saves_a_bad_one(
    client: Any, reference: Any
) -> None:
    good, bad = (mae(client, reference, slower, typo=True) for slower in (1.0, 1.3))
    assert good.lower < _limit() < bad.lower


def test_a_model_at_its_limit_is_left_alone_and_one_a_third_worse_is_found(
    client: Any, reference: Any
) -> None:
    """15 days of some 300 labels each, with the limit at the good model's true error."""
    false = sum(mae(client, reference, 1.0, seed, 30).lower > MEAN_ERROR for seed in range(15))
    found = sum(mae(client, reference, 1.08, seed, 30).lower > MEAN_ERROR for seed in range(15))
    assert false == 0
    assert found >= 13


def test_its_trigger_is_the_error_that_its_story_tells_of(client: Any) -> None:
    assert _limit() == 3
    model = pytest.importorskip("onnxruntime").InferenceSession(client.build())
    trips = [(10.0, 1.0, 0.0), (0.5, 0.0, 1.0)]
    (minutes,) = model.run(None, {"trips": np.array(trips, np.float32)})
    assert minutes.tolist() == pytest.approx(client.predict(trips))


def _limit() -> float:
    raw = yaml.safe_load((EXAMPLE / "modeldeployment.yaml").read_text())
    raw["metadata"]["namespace"] = "shop"
    retraining = parse_model_deployment(raw).spec.retraining
    assert retraining is not None
    (trigger,) = retraining.triggers or ()
    assert trigger.performance is not None
    assert trigger.performance.metric == "mae"
    assert trigger.performance.above is not None
    return trigger.performance.above
