"""Cell samples as they were when the model was trained, and as they are today.

    python samples.py model model.onnx           the first model, from half of the data
    python samples.py table reference.csv        20,000 samples of the other half, with its answers
    python samples.py ask http://localhost:8080 300            asks 300 times about 20 samples
    python samples.py ask http://localhost:8080 300 --magnification 1.3    a new microscope magnifies more
    python samples.py ask http://localhost:8080 300 --lose 0.5       half of the areas are missing

The data is the Breast Cancer Wisconsin (Diagnostic) data set that comes with scikit-learn: 30
measurements of the cells of each of 569 tumours, and whether it was malignant. With --labels
s3://bucket/folder/ the samples that were asked about are put there with what the pathologist found,
which is what a model is made anew from.

Needs what requirements.txt lists.
"""

from __future__ import annotations

import argparse
import csv
import datetime as dt
import io
import json
import os
import urllib.request
from collections.abc import Sequence
from dataclasses import dataclass
from urllib.parse import urlsplit

import numpy as np
from sklearn.datasets import load_breast_cancer
from sklearn.model_selection import train_test_split

_DATA = load_breast_cancer()
FEATURES: tuple[str, ...] = tuple(name.replace(" ", "_") for name in _DATA.feature_names)
#: What grows with the magnification; areas grow by its square.
_LENGTHS = ("mean_radius", "mean_perimeter", "worst_radius", "worst_perimeter")
_AREAS = ("mean_area", "worst_area")
#: Nobody measures the same cells twice: so much does each measurement vary (a share of itself).
_PRECISION = 0.02
COLUMNS = ("time", "sample", *FEATURES, "malignant")


@dataclass(frozen=True)
class Samples:
    """Tumours: ``measured`` (n, 30), ``malignant`` (n,) of 0 and 1, ``number`` (n,) of each."""

    measured: np.ndarray
    malignant: np.ndarray
    number: np.ndarray

    def take(self, places: Sequence[int]) -> Samples:
        """Those at ``places``."""
        return Samples(self.measured[places], self.malignant[places], self.number[places])

    def of(self, *features: str) -> list[int]:
        """The columns of ``features``."""
        return [FEATURES.index(name) for name in features]


def halves() -> tuple[Samples, Samples]:
    """The half that the first model is trained on, and the half that traffic is made of."""
    malignant = 1 - _DATA.target  # the data set calls benign 1
    everything = Samples(_DATA.data, malignant, np.arange(len(malignant)))
    first, second = train_test_split(
        everything.number, test_size=0.5, random_state=0, stratify=malignant
    )
    return everything.take(first), everything.take(second)


def day(
    source: Samples, count: int, seed: int, *, magnification: float = 1.0, lose: float = 0.0
) -> Samples:
    """``count`` samples as they come in: drawn from ``source``, each measured anew.

    ``magnification`` is how much larger lengths come out than they did; ``lose`` the share of the areas
    that is missing (NaN).
    """
    chance = np.random.default_rng(seed)
    drawn = source.take(chance.integers(len(source.number), size=count))
    measured = drawn.measured * (1 + _PRECISION * chance.standard_normal(drawn.measured.shape))
    measured[:, drawn.of(*_LENGTHS)] *= magnification
    measured[:, drawn.of(*_AREAS)] *= magnification**2
    lost = chance.random(count) < lose
    measured[np.ix_(lost, drawn.of("mean_area"))] = np.nan
    return Samples(measured, drawn.malignant, drawn.number)


def labelled(samples: Samples, at: dt.datetime) -> str:
    """A CSV of ``samples``, which were asked about ``at`` that time, with what they were."""
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow(COLUMNS)
    for row, malignant, number in zip(
        samples.measured.tolist(), samples.malignant.tolist(), samples.number.tolist(), strict=True
    ):
        values = ("" if value != value else f"{value:.7g}" for value in row)
        writer.writerow([f"{at:%Y-%m-%dT%H:%M:%SZ}", number, *values, malignant])
    return text.getvalue()


def reference(model: bytes, count: int = 20_000) -> str:
    """The table that `mooring reference build` reads: samples as ever, and the model's answers."""
    from onnxruntime import InferenceSession

    samples = day(halves()[1], count, seed=1)
    rows = samples.measured.astype(np.float32)
    answers = InferenceSession(model).run(["probabilities"], {"measurements": rows})[0][:, 1]
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow([*FEATURES, "malignant"])
    for row, answer in zip(samples.measured.tolist(), answers.tolist(), strict=True):
        writer.writerow([*(f"{value:.7g}" for value in row), f"{answer:.7g}"])
    return text.getvalue()


def body(samples: Samples) -> tuple[bytes, dict[str, str]]:
    """A request for ``samples`` and its headers; as bytes, since JSON has no NaN for what is
    missing.
    """
    raw = samples.measured.astype("<f4").tobytes()
    tensor = {
        "name": "measurements",
        "shape": list(samples.measured.shape),
        "datatype": "FP32",
        "parameters": {"binary_data_size": len(raw)},
    }
    head = json.dumps({"inputs": [tensor]}).encode()
    return head + raw, {
        "Content-Type": "application/octet-stream",
        "Inference-Header-Content-Length": str(len(head)),
    }


def ask(url: str, times: int, magnification: float, lose: float, labels: str, name: str) -> None:
    """Sends requests of 20 samples, one after the other."""
    source = halves()[1]
    for turn in range(times):
        at = dt.datetime.now(dt.UTC)
        samples = day(source, 20, int(at.timestamp() * 1000) + turn, magnification=magnification, lose=lose)
        content, headers = body(samples)
        sent = urllib.request.Request(f"{url}/v2/models/{name}/infer", content, headers)
        with urllib.request.urlopen(sent, timeout=10) as answer:
            answer.read()
        if labels:
            put(f"{labels}{at:%Y-%m-%dT%H:%M:%S.%fZ}.csv", labelled(samples, at).encode())


def put(uri: str, content: bytes) -> None:
    """Stores an object; the address and the keys of the store stand in the environment."""
    import boto3

    parts = urlsplit(uri)
    boto3.client("s3").put_object(Bucket=parts.netloc, Key=parts.path.lstrip("/"), Body=content)


def main() -> None:
    """Reads the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("model").add_argument("path")
    table = commands.add_parser("table")
    table.add_argument("path")
    asking = commands.add_parser("ask")
    asking.add_argument("url")
    asking.add_argument("times", type=int)
    asking.add_argument("--magnification", type=float, default=1.0)
    asking.add_argument("--lose", type=float, default=0.0)
    asking.add_argument("--labels", default=os.environ.get("LABELS", ""))
    asking.add_argument("--model", default="screening")
    given = parser.parse_args()
    if given.command == "ask":
        ask(given.url, given.times, given.magnification, given.lose, given.labels, given.model)
        return
    from train import first_model

    model = first_model()
    content = model if given.command == "model" else reference(model).encode()
    with open(given.path, "wb") as file:
        file.write(content)


if __name__ == "__main__":
    main()
