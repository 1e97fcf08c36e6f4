"""The client of examples/feedback-labels speaks as the collector listens, and its story holds."""

from __future__ import annotations

import csv
import importlib
import json
import random
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from tests.collector.references import answer, exchange, telemetry

from mooring.api import parse_model_deployment
from mooring.core.drift.reference import from_config_map
from mooring.core.retrain.figures import measured
from mooring.core.retrain.measuring import KNOWN, Labels
from mooring_collector.feedback import read_feedback

EXAMPLE = Path(__file__).parents[2] / "examples" / "feedback-labels"
FLOOR = 0.85


@pytest.fixture(scope="module")
def client() -> Any:
    """The example's script as a module."""
    before = list(sys.path)
    sys.path.insert(0, str(EXAMPLE))
    try:
        yield importlib.import_module("labels")
    finally:
        sys.path[:] = before
        for name in ("labels", "feedback", "payments", "make_model"):
            sys.modules.pop(name, None)


@pytest.fixture(scope="module")
def reference(client: Any, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The reference as the example's own commands build it."""
    path = tmp_path_factory.mktemp("labels") / "training.csv"
    client.table(str(path), 6000)
    with path.open() as file:
        assert next(csv.reader(file))[-2:] == ["fraud", "was_fraud"]
    command = [sys.executable, "-m", "mooring", "reference", "build", str(path), "--name", "r"]
    built = subprocess.run(
        [*command, "--prediction", "fraud", "--label", "was_fraud"],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    return from_config_map(yaml.safe_load(built.stdout))


def counted(client: Any, reference: Any, missed: float) -> Labels:
    """Payments asked about and labelled by the example, counted by the collector's own code."""
    chance = random.Random(7)
    found = telemetry(reference, feedback={"maturity": 60})
    for number in range(150):
        payments = [client.payment(chance) for _ in range(20)]
        scores = client.predict("v1", payments)
        body = json.dumps({"id": f"r{number}", **client.request(payments)}).encode()
        found.count("aa", "live", exchange(body, answer(*scores, name="fraud")), 0.0)
        piece = client.labelled(chance, f"r{number}", scores, missed, 0.5)
        for one in read_feedback(json.loads(json.dumps(piece))):
            assert found.label(one, 1.0) == "joined"
    found.flush()
    revision = found.revision("aa")
    (cells,) = [c for column, c in revision.outputs["live"].series() if column.name == "fraud"]
    predicted = {("fraud", int(cell)): float(cells[cell]) for cell in np.flatnonzero(cells)}
    outcomes = {key: float(count) for key, count in revision.outcomes.counts.items()}
    return Labels(predicted, outcomes)


def test_its_model_is_good_enough_until_there_is_a_fraud_that_it_knows_nothing_of(
    client: Any, reference: Any
) -> None:
    good = measured(counted(client, reference, 0.0), reference).metrics
    assert good["accuracy"].lower > FLOOR
    assert good["estimatedAccuracy"].lower > FLOOR
    bad = measured(counted(client, reference, 0.3), reference).metrics
    assert bad["accuracy"].upper < FLOOR
    assert bad["estimatedAccuracy"].lower > FLOOR
    assert "labels for" in bad["accuracy"].note


def test_its_trigger_names_a_metric_that_is_measured() -> None:
    raw = yaml.safe_load((EXAMPLE / "modeldeployment.yaml").read_text())
    raw["metadata"]["namespace"] = "shop"
    retraining = parse_model_deployment(raw).spec.retraining
    assert retraining is not None
    assert retraining.triggers is not None
    (trigger,) = retraining.triggers
    assert trigger.performance is not None
    assert trigger.performance.metric in KNOWN
    assert trigger.performance.below == FLOOR
