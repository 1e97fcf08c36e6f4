"""Predictions, and weeks later (here: at once) what truly happened.

    python labels.py table training.csv            60,000 payments, the model's answers, the truth
    python labels.py send MODEL COLLECTOR 100      asks 100 times about 20 payments, then labels
    python labels.py send MODEL COLLECTOR 100 --missed 0.3    frauds that the model knows nothing of

MODEL and COLLECTOR are addresses, such as http://localhost:8080. Needs nothing but Python.
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

for folder in ("onnx", "drift"):
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent / folder))

from feedback import partly, post, tell
from make_model import FEATURES, predict, request
from payments import Payment, payment


def truth(chance: random.Random, score: float, missed: float = 0.0) -> bool:
    """Whether a payment turns out to be fraud: as often as the score says, and of those that it
    thinks harmless a share ``missed`` besides.
    """
    return chance.random() < score or (score < 0.5 and chance.random() < missed)


def table(path: str, rows: int = 60_000) -> None:
    """A training table: the features, what the model answers to them, and what was true."""
    chance = random.Random(1)
    payments = [payment(chance) for _ in range(rows)]
    with Path(path).open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow([*FEATURES, "fraud", "was_fraud"])
        for one, score in zip(payments, predict("v1", payments), strict=True):
            writer.writerow([*one, f"{score:.6f}", int(truth(chance, score))])


def labelled(
    chance: random.Random, name: str, scores: Sequence[float], missed: float, share: float
) -> dict[str, Any]:
    """The feedback about one request: a label for each of its rows, null where none has come."""
    labels = [truth(chance, score, missed) for score in scores]
    return partly(chance, name, labels, share)


def send(given: argparse.Namespace) -> None:
    """Asks, and then posts all labels, as a batch job would that learns them from elsewhere."""
    chance = random.Random(uuid.uuid4().int)  # noqa: S311  # others each time
    feedback = []
    for _ in range(given.times):
        payments: list[Payment] = [payment(chance) for _ in range(20)]
        name = uuid.uuid4().hex
        answer = post(
            f"{given.url}/v2/models/{given.model}/infer", {"id": name, **request(payments)}
        )
        scores = answer["outputs"][0]["data"]
        feedback.append(labelled(chance, name, scores, given.missed, given.share))
    tell(given.collector, feedback)


def main() -> None:
    """Reads the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("table").add_argument("path")
    sending = commands.add_parser("send")
    sending.add_argument("url")
    sending.add_argument("collector")
    sending.add_argument("times", type=int)
    sending.add_argument("--missed", type=float, default=0.0)
    sending.add_argument("--share", type=float, default=0.5, help="of the labels that come")
    sending.add_argument("--model", default="fraud")
    given = parser.parse_args()
    if given.command == "table":
        table(given.path)
    else:
        send(given)


if __name__ == "__main__":
    main()
