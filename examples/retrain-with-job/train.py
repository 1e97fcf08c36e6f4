"""Make the model anew, from the samples of the days that the request names.

Runs in the Job's pod. It is told which window of data to learn from by the request
(MOORING_REQUEST_FILE), finds the labelled samples under LABELS, and leaves the place and the digest
of the new model behind as the container's last words.
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
import os
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import boto3
import numpy as np
from samples import COLUMNS, FEATURES, Samples, halves
from skl2onnx import to_onnx
from skl2onnx.common.data_types import FloatTensorType
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import accuracy_score, roc_auc_score
from sklearn.model_selection import GroupShuffleSplit
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler

#: Fewer tumours than this teach a model of 30 weights nothing.
LEAST = 100


def fit(samples: Samples) -> Pipeline:
    """A logistic regression of the 30 measurements."""
    return make_pipeline(StandardScaler(), LogisticRegression()).fit(
        samples.measured, samples.malignant
    )


def exported(model: Pipeline) -> bytes:
    """The model as an ONNX file: `measurements` in; `label` and `probabilities` out."""
    graph = to_onnx(
        model,
        initial_types=[("measurements", FloatTensorType([None, len(FEATURES)]))],
        options={"zipmap": False},
        target_opset={"": 17, "ai.onnx.ml": 3},
    )
    return graph.SerializeToString()


def first_model() -> bytes:
    """The model that is served before there is any traffic."""
    return exported(fit(halves()[0]))


def trained(samples: Samples) -> tuple[bytes, dict[str, float]]:
    """The new model, and how well it does on tumours that it has not seen.

    The same tumour may have been measured often, so the test is on other tumours, not other rows.
    """
    if len(np.unique(samples.number)) < LEAST or len(np.unique(samples.malignant)) < 2:
        sys.exit(
            f"{len(np.unique(samples.number))} tumours with a label in the data window, of "
            f"{len(np.unique(samples.malignant))} kinds: at least {LEAST} of both are needed."
        )
    split = GroupShuffleSplit(n_splits=1, test_size=0.3, random_state=0)
    ((learnt, tested),) = split.split(samples.measured, groups=samples.number)
    model, unseen = fit(samples.take(learnt)), samples.take(tested)
    metrics = {"accuracy": accuracy_score(unseen.malignant, model.predict(unseen.measured))}
    if len(np.unique(unseen.malignant)) == 2:
        scores = model.predict_proba(unseen.measured)[:, 1]
        metrics["auc"] = roc_auc_score(unseen.malignant, scores)
    return exported(model), {name: round(float(value), 4) for name, value in metrics.items()}


def within(time: str, window: Mapping[str, Any]) -> bool:
    """Whether a row of that time is to be learnt from: times in UTC sort as text."""
    if not window["start"] <= time < window["end"]:
        return False
    return not any(one["start"] <= time < one["end"] for one in window.get("exclude", ()))


def parsed(tables: Iterable[str], window: Mapping[str, Any]) -> Samples:
    """The rows of the window in ``tables`` (CSV) that lack nothing."""
    measured, malignant, number = [], [], []
    for table in tables:
        for row in csv.DictReader(io.StringIO(table)):
            if within(row["time"], window) and all(row[name] for name in COLUMNS):
                measured.append([float(row[name]) for name in FEATURES])
                malignant.append(int(row["malignant"]))
                number.append(int(row["sample"]))
    shape = (len(measured), len(FEATURES))
    return Samples(np.reshape(measured, shape), np.array(malignant), np.array(number))


class Store:
    """An S3 store; its address and keys stand in the environment (AWS_…)."""

    def __init__(self) -> None:
        self._client = boto3.client("s3")

    def tables(self, folder: str) -> Iterable[str]:
        """The content of every object under ``folder`` (an s3:// URI), one after the other."""
        bucket, prefix = _parts(folder)
        pages = self._client.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix)
        for page in pages:
            for found in page.get("Contents", ()):
                answer = self._client.get_object(Bucket=bucket, Key=found["Key"])
                yield answer["Body"].read().decode()

    def put(self, uri: str, content: bytes) -> None:
        """Stores ``content``."""
        bucket, key = _parts(uri)
        self._client.put_object(Bucket=bucket, Key=key, Body=content)


def _parts(uri: str) -> tuple[str, str]:
    parts = urlsplit(uri)
    return parts.netloc, parts.path.lstrip("/")


def main() -> None:
    """Trains on what the request names, and says what came of it."""
    request = json.loads(Path(os.environ["MOORING_REQUEST_FILE"]).read_text())
    store = Store()
    samples = parsed(store.tables(os.environ["LABELS"]), request["dataWindow"])
    print(f"{len(samples.malignant)} samples of {request['dataWindow']}")
    model, metrics = trained(samples)
    # A pod that is lost is followed by another: the same request always writes the same place.
    uri = f"{request['allowedPrefixes'][0]}{request['request']}/model.onnx"
    store.put(uri, model)
    digest = f"sha256:{hashlib.sha256(model).hexdigest()}"
    result = json.dumps({"uri": uri, "digest": digest, "metrics": metrics})
    print(result)
    Path(os.environ.get("TERMINATION_LOG", "/dev/termination-log")).write_text(result)


if __name__ == "__main__":
    main()
