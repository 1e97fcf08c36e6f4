"""Payments as they were when the model was trained, and as they are today.

    python payments.py table training.csv             60,000 payments with the model's answers
    python payments.py ask http://localhost:8080 100  asks 100 times about 20 payments
    python payments.py ask http://localhost:8080 100 --distance 2    people travel twice as far
    python payments.py ask http://localhost:8080 100 --lose 0.5      a feed loses half of the amounts

Needs nothing but Python. The same seed gives the same payments.
"""

from __future__ import annotations

import argparse
import csv
import json
import math
import os
import random
import struct
import sys
import urllib.request
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "onnx"))

from make_model import FEATURES, predict, request

Payment = tuple[float, float, float, float]


def payment(chance: random.Random, distance: float = 1.0) -> Payment:
    """One payment: amount, at night or not, distance in km, from a new device or not."""
    return (
        round(chance.lognormvariate(3.6, 0.9), 2),
        float(chance.random() < 0.1),
        round(chance.lognormvariate(2.0, 1.2) * distance, 1),
        float(chance.random() < 0.1),
    )


def table(path: str, rows: int = 60_000) -> None:
    """A training table: the features, and what the model answers to them."""
    chance = random.Random(1)
    payments = [payment(chance) for _ in range(rows)]
    with Path(path).open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow([*FEATURES, "fraud"])
        for one, answer in zip(payments, predict("v1", payments), strict=True):
            writer.writerow([*one, f"{answer:.6f}"])


def ask(url: str, times: int, distance: float, lose: float, model: str) -> None:
    """Sends requests of 20 payments, one after the other."""
    chance = random.Random(os.getpid())  # noqa: S311  # others each time
    for _ in range(times):
        payments = [payment(chance, distance) for _ in range(20)]
        lost = [(math.nan if chance.random() < lose else one[0], *one[1:]) for one in payments]
        _send(f"{url}/v2/models/{model}/infer", lost)


def _send(url: str, payments: list[Payment]) -> None:
    """One request with its tensor as bytes, since JSON has no NaN for what is missing."""
    values = [value for one in payments for value in one]
    raw = struct.pack(f"<{len(values)}f", *values)
    (tensor,) = request(payments)["inputs"]
    del tensor["data"]
    tensor["parameters"] = {"binary_data_size": len(raw)}
    head = json.dumps({"inputs": [tensor], "parameters": {"binary_data_output": True}}).encode()
    headers = {
        "Content-Type": "application/octet-stream",
        "Inference-Header-Content-Length": str(len(head)),
    }
    sent = urllib.request.Request(url, head + raw, headers)  # noqa: S310  # as given
    with urllib.request.urlopen(sent, timeout=10) as answer:  # noqa: S310
        answer.read()


def main() -> None:
    """Reads the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("table").add_argument("path")
    asking = commands.add_parser("ask")
    asking.add_argument("url")
    asking.add_argument("times", type=int)
    asking.add_argument("--distance", type=float, default=1.0)
    asking.add_argument("--lose", type=float, default=0.0)
    asking.add_argument("--model", default="fraud")
    given = parser.parse_args()
    if given.command == "table":
        table(given.path)
    else:
        ask(given.url, given.times, given.distance, given.lose, given.model)


if __name__ == "__main__":
    main()
