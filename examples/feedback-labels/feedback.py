"""What every client of a collector needs that tells it later what was true."""

from __future__ import annotations

import json
import random
import urllib.request
from collections.abc import Sequence
from typing import Any

_AT_ONCE = 100


def partly(
    chance: random.Random, name: str, labels: Sequence[bool | float], share: float
) -> dict[str, Any]:
    """The feedback about one request: a label for each of its rows, null where none has come."""
    return {"id": name, "labels": [one if chance.random() < share else None for one in labels]}


def tell(collector: str, feedback: Sequence[dict[str, Any]]) -> None:
    """Posts all of it, and prints what has come of it."""
    for start in range(0, len(feedback), _AT_ONCE):
        print(post(f"{collector}/feedback", feedback[start : start + _AT_ONCE]))


def post(url: str, body: object) -> Any:
    """One POST of JSON, and its answer."""
    data = json.dumps(body).encode()
    headers = {"Content-Type": "application/json"}
    sent = urllib.request.Request(url, data, headers)  # noqa: S310  # as given
    with urllib.request.urlopen(sent, timeout=10) as answer:  # noqa: S310
        return json.load(answer)
