"""The retraining example's program: what it learns from, what it leaves behind, what it refuses."""

from __future__ import annotations

import datetime as dt
import http.server
import io
import json
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime  # type: ignore[import-untyped]
import pytest

from mooring.core.retrain.result import check, read_words
from mooring_dev import demo_samples, demo_samples_program

# scikit-learn alone takes seconds to import: too much for the unit tier.
pytestmark = pytest.mark.process

NOON = dt.datetime(2026, 11, 21, 12, tzinfo=dt.UTC)
WINDOW = {"start": "2026-11-21T12:00:00Z", "end": "2026-11-21T13:00:00Z"}
PREFIX = "s3://models/screening/retrained/"


def answers(model: bytes, samples: Any) -> np.ndarray:
    rows = {demo_samples.TENSOR: samples.measured.astype(np.float32)}
    found: np.ndarray = onnxruntime.InferenceSession(model).run(["probabilities"], rows)[0][:, 1]
    return found


def accuracy(model: bytes, samples: Any) -> float:
    return float(((answers(model, samples) > 0.5) == samples.malignant).mean())


def table(samples: Any, minutes: int = 0) -> str:
    text: str = demo_samples.samples().labelled(samples, NOON + dt.timedelta(minutes=minutes))
    return text


def test_the_file_answers_what_the_fitted_model_answers() -> None:
    train, (first, other) = demo_samples.train(), demo_samples.samples().halves()
    fitted = train.fit(first)

    wanted = fitted.predict_proba(other.measured)[:, 1]
    assert np.abs(answers(train.exported(fitted), other) - wanted).max() < 1e-4


def test_what_is_learnt_from_magnified_samples_tells_them_better_than_the_first_model() -> None:
    train = demo_samples.train()
    learnt = train.parsed([table(demo_samples.day(1, magnification=1.3).take(range(2000)))], WINDOW)

    model, metrics = train.trained(learnt)

    today = demo_samples.day(2, magnification=1.3)
    assert accuracy(train.first_model(), today) < 0.9
    assert accuracy(model, today) > 0.93
    assert 0.9 < metrics["accuracy"] <= 1.0
    assert 0.9 < metrics["auc"] <= 1.0


def test_only_the_window_without_its_broken_spans_is_learnt_from() -> None:
    window = {**WINDOW, "exclude": [{"start": "2026-11-21T12:10:00Z",
                                     "end": "2026-11-21T12:20:00Z"}]}  # fmt: skip
    day = demo_samples.day(1)
    tables = [table(day.take([place]), minutes) for place, minutes in
              enumerate((-1, 0, 9, 10, 19, 20, 59, 60))]  # fmt: skip

    found = demo_samples.train().parsed(tables, window)

    assert found.number.tolist() == day.number[[1, 2, 5, 6]].tolist()


def test_a_row_that_lacks_a_measurement_is_left_out() -> None:
    day = demo_samples.day(1, lose=1.0).take(range(5))

    found = demo_samples.train().parsed([table(day)], WINDOW)

    assert found.measured.shape == (0, 30)


@pytest.mark.parametrize("rows", [0, 50])
def test_too_little_data_is_refused_in_a_sentence(rows: int) -> None:
    train = demo_samples.train()
    few = train.parsed([table(demo_samples.day(1).take(range(rows)))], WINDOW)

    with pytest.raises(SystemExit, match="at least 100 of both are needed"):
        train.trained(few)


class MemoryStore:
    """What stands for the S3 client."""

    objects: dict[str, bytes] = {}  # noqa: RUF012  # one store for the program and its test

    def tables(self, folder: str) -> list[str]:
        return [text.decode() for uri, text in self.objects.items() if uri.startswith(folder)]

    def put(self, uri: str, content: bytes) -> None:
        self.objects[uri] = content


def test_its_last_words_are_a_result_that_is_accepted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    train, labelled = demo_samples.train(), "s3://models/screening/labelled/"
    rows = table(demo_samples.day(1).take(range(500)))
    MemoryStore.objects = {f"{labelled}one.csv": rows.encode()}
    request = {"request": "screening-1", "allowedPrefixes": [PREFIX], "dataWindow": WINDOW}
    (tmp_path / "request.json").write_text(json.dumps(request))
    monkeypatch.setattr(train, "Store", MemoryStore)
    monkeypatch.setenv("LABELS", labelled)
    monkeypatch.setenv("MOORING_REQUEST_FILE", str(tmp_path / "request.json"))
    monkeypatch.setenv("TERMINATION_LOG", str(tmp_path / "words"))

    train.main()
    words = (tmp_path / "words").read_text()
    train.main()

    result = check(read_words(words), (PREFIX,))
    assert result.uri == f"{PREFIX}screening-1/model.onnx"
    assert (tmp_path / "words").read_text() == words, "the same request again is the same model"


class _Handler(http.server.BaseHTTPRequestHandler):
    """Answers every request, as a model would."""

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        self.send_response(200)
        self.send_header("Content-Length", "2")
        self.end_headers()
        self.wfile.write(b"{}")

    def log_message(self, *_: object) -> None:
        return


class LabelStore:
    """What stands for the S3 server."""

    def __init__(self) -> None:
        self.tables: dict[str, str] = {}

    def put(self, _bucket: str, key: str, content: bytes) -> str:
        self.tables[key] = content.decode()
        return key


class Here:
    """What stands for the client's pod: this machine."""

    def begin(self, *arguments: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, *arguments], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )


def test_what_was_asked_about_is_put_into_the_store_with_its_labels() -> None:
    store, before, after = LabelStore(), demo_samples.day(1).take(range(9)), demo_samples.day(2)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_port}/infer"
        asking = demo_samples.Asking(Here(), url, before, store)  # type: ignore[arg-type]
        with asking:
            asking.become(after)
            until = time.monotonic() + 60
            while not any(key.endswith("-1.csv") for key in store.tables):
                assert time.monotonic() < until, "the new samples were not told of"
                time.sleep(0.05)
        server.shutdown()

    assert asking.failed == 0
    rows = [line.split(",")[1] for text in store.tables.values() for line in text.splitlines()[1:]]
    assert 0 < len(rows) <= 2 * asking.sent
    known = set(map(str, [*before.number, *after.number]))
    assert set(rows) <= known


def test_a_missing_measurement_is_sent_as_nan() -> None:
    body, headers = demo_samples_program.request("x", [[1.0, float("nan")]])

    head = int(headers["Inference-Header-Content-Length"])
    (tensor,) = json.loads(body[:head])["inputs"]
    assert tensor["shape"] == [1, 2]
    values = np.frombuffer(body[head:], "<f4")
    assert values[0] == 1.0
    assert np.isnan(values[1])


def test_the_program_tells_which_rows_it_asked_about(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(demo_samples_program, "post", lambda *_: None)
    monkeypatch.setattr(demo_samples_program, "REPORT", 0.0)
    lines = [json.dumps({"rows": [[1.0, None]]}), json.dumps({"rows": [[2.0, 3.0]]})]
    monkeypatch.setattr("sys.stdin", io.StringIO("\n".join(lines) + "\n"))

    demo_samples_program.main("http://nowhere/", "x")

    told = [json.loads(line) for line in capsys.readouterr().out.splitlines() if line[0] == "{"]
    assert told[-1]["failed"] == 0
    assert sum(len(one["asked"]) for one in told[:-1]) == 2 * told[-1]["sent"]
