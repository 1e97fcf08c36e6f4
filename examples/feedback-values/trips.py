"""How long will a trip take? Predictions, and at the end of each trip (here: at once) the truth.

    python trips.py model model.onnx               the model; needs the packages onnx and numpy
    python trips.py table training.csv             20,000 trips and the model's answers
    python trips.py send MODEL COLLECTOR 100       asks 100 times about 20 trips, then tells
    python trips.py send MODEL COLLECTOR 100 --slower 1.3    roadworks: all takes 30 % longer

MODEL and COLLECTOR are addresses, such as http://localhost:8080. But for the model it needs nothing
but Python.
"""

from __future__ import annotations

import argparse
import csv
import random
import sys
import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "feedback-labels"))

from feedback import partly, post, tell

FEATURES = ("distance_km", "rush_hour", "rain")
MINUTES = (2.4, 6.0, 3.0)
START = 4.0

Trip = tuple[float, float, float]


def trip(chance: random.Random) -> Trip:
    """One trip: how far, in the rush hour or not, in the rain or not."""
    return (
        round(chance.lognormvariate(1.6, 0.6), 1),
        float(chance.random() < 0.3),
        float(chance.random() < 0.2),
    )


def predict(trips: Sequence[Trip]) -> list[float]:
    """Minutes, in plain arithmetic: a linear regression."""
    return [
        START + sum(value * per for value, per in zip(one, MINUTES, strict=True)) for one in trips
    ]


def took(chance: random.Random, minutes: float, slower: float = 1.0) -> float:
    """How long a trip took of which the model thought so: 10 % off, more or less."""
    return round(minutes * slower * (1 + chance.gauss(0, 0.1)), 2)


def request(trips: Sequence[Trip]) -> dict[str, Any]:
    """The trips as an Open Inference Protocol v2 request."""
    data = [value for one in trips for value in one]
    shape = [len(trips), len(FEATURES)]
    return {"inputs": [{"name": "trips", "shape": shape, "datatype": "FP32", "data": data}]}


def told(
    chance: random.Random, name: str, minutes: Sequence[float], slower: float, share: float
) -> dict[str, Any]:
    """The feedback about one request: how long each trip took, null where nobody has said so."""
    labels = [took(chance, one, slower) for one in minutes]
    return partly(chance, name, labels, share)


def table(path: str, rows: int = 20_000) -> None:
    """A training table: the features, and what the model answers to them."""
    chance = random.Random(1)
    trips = [trip(chance) for _ in range(rows)]
    with Path(path).open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow([*FEATURES, "minutes"])
        for one, minutes in zip(trips, predict(trips), strict=True):
            writer.writerow([*one, f"{minutes:.4f}"])


def build() -> bytes:
    """The model as an ONNX file."""
    import numpy as np
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    width = len(FEATURES)
    graph = helper.make_graph(
        [
            helper.make_node("MatMul", ["trips", "per"], ["moving"]),
            helper.make_node("Add", ["moving", "start"], ["column"]),
            helper.make_node("Squeeze", ["column", "axis"], ["minutes"]),
        ],
        "trips",
        [helper.make_tensor_value_info("trips", TensorProto.FLOAT, ["n", width])],
        [helper.make_tensor_value_info("minutes", TensorProto.FLOAT, ["n"])],
        [
            numpy_helper.from_array(np.array(MINUTES, np.float32).reshape(width, 1), "per"),
            numpy_helper.from_array(np.array([START], np.float32), "start"),
            numpy_helper.from_array(np.array([1], np.int64), "axis"),
        ],
        doc_string=f"Minutes that a trip takes, from {', '.join(FEATURES)}.",
    )
    model = helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9, producer_name="example"
    )
    onnx.checker.check_model(model, full_check=True)
    return model.SerializeToString()


def send(given: argparse.Namespace) -> None:
    """Asks, and then tells how long it took, as a batch job would that learns it from elsewhere."""
    chance = random.Random(uuid.uuid4().int)  # noqa: S311  # others each time
    feedback = []
    for _ in range(given.times):
        trips = [trip(chance) for _ in range(20)]
        name = uuid.uuid4().hex
        answer = post(f"{given.url}/v2/models/{given.model}/infer", {"id": name, **request(trips)})
        minutes = answer["outputs"][0]["data"]
        feedback.append(told(chance, name, minutes, given.slower, given.share))
    tell(given.collector, feedback)


def main() -> None:
    """Reads the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("model").add_argument("path")
    commands.add_parser("table").add_argument("path")
    sending = commands.add_parser("send")
    sending.add_argument("url")
    sending.add_argument("collector")
    sending.add_argument("times", type=int)
    sending.add_argument("--slower", type=float, default=1.0)
    sending.add_argument("--share", type=float, default=0.5, help="of the truth that comes")
    sending.add_argument("--model", default="trips")
    given = parser.parse_args()
    if given.command == "model":
        Path(given.path).write_bytes(build())
    elif given.command == "table":
        table(given.path)
    else:
        send(given)


if __name__ == "__main__":
    main()
