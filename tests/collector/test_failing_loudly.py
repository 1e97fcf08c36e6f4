"""The shifts of "Failing Loudly" (Rabanser et al. 2019), from the bytes of requests to the verdict.

Real data: the retraining example's 30 measurements and its model. The collector's own code reads
requests and answers and writes its page, the operator's own code reads that page as Prometheus
hands it on, and judges window after window. Gaussian noise falls upon a share of the samples; a
knock-out takes a share of one class away.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import numpy as np
import onnxruntime  # type: ignore[import-untyped]
import pytest
from tests.collector.references import exchange, exposed

from mooring.api import MonitoringSpec
from mooring.api.conditions import DATA_HEALTHY, DRIFTED
from mooring.core.answers import Keyed
from mooring.core.drift.building import numeric_grid
from mooring.core.drift.reference import Reference, feature_reference
from mooring.core.drift.tick import begun, judge
from mooring.core.drift.watch import Watch
from mooring.core.monitoring import Report
from mooring.core.render.collector import collector_config
from mooring.core.telemetry import Counted, Part, Watched, read
from mooring_collector.grid import read_reference
from mooring_collector.settings import Bounds, read_settings
from mooring_collector.telemetry import Telemetry
from mooring_dev import demo_samples

# Starts no server, but takes eight seconds of processor time: too much for the unit tier.
pytestmark = pytest.mark.process

HOUR = 3600.0
ROWS, WINDOWS = 1000, 5
REVISION = "abc"
POD = "screening-collector-5d4b-x7k2p"
SPEC = MonitoringSpec.model_validate(
    {
        "reference": {"configMap": "screening-reference"},
        "outputs": [{"name": "malignant", "output": "probabilities[1]"}],
    }
)
_KEYED = ("revision", "traffic", "grid", "cell", "rule", "kind", "feature", "output")
_COUNTER = re.compile(
    r"mooring_telemetry_(?P<metric>\w+)_total\{(?P<labels>.*)\} (?P<value>[0-9.e+]+)"
)
_LABEL = re.compile(r'(\w+)="([^"]*)"')
NOISY = ("mean_texture", "mean_symmetry", "worst_smoothness")

Shift = Callable[[Any, np.random.Generator], Any]


@cache
def model() -> onnxruntime.InferenceSession:
    return onnxruntime.InferenceSession(demo_samples.train().first_model())


def answered(samples: Any) -> np.ndarray:
    rows = {demo_samples.TENSOR: samples.measured.astype(np.float32)}
    found: np.ndarray = model().run(["probabilities"], rows)[0]
    return found


@cache
def traffic_half() -> Any:
    return demo_samples.samples().halves()[1]


@cache
def reference() -> Reference:
    """30 windows of samples as ever."""
    samples = demo_samples.samples().day(traffic_half(), 30 * ROWS, 1)
    scores = answered(samples)[:, 1].astype(np.float64)
    columns = zip(demo_samples.samples().FEATURES, samples.measured.T, strict=True)
    features = [feature_reference(numeric_grid(n, v), v, "number") for n, v in columns]
    output = feature_reference(numeric_grid("malignant", scores), scores, "number")
    return Reference(tuple(features), (output,))


class Collector:
    """The collector's code, asked window after window what it has counted since."""

    def __init__(self) -> None:
        config = json.dumps(collector_config(SPEC, ("open-inference-v2",))).encode()
        bins = read_reference(reference().to_text().encode())
        self._telemetry = Telemetry(read_settings(config, bins), Bounds(), seed=1)
        self._before: dict[str, float] = {}

    def count(self, samples: Any) -> None:
        body, headers = demo_samples.samples().body(samples)
        scores = answered(samples)
        outputs = [
            {"name": "label", "shape": [len(scores)], "datatype": "INT64",
             "data": scores.argmax(axis=1).tolist()},
            {"name": "probabilities", "shape": list(scores.shape), "datatype": "FP32",
             "data": scores.ravel().tolist()},
        ]  # fmt: skip
        reply = json.dumps({"model_name": "screening", "outputs": outputs}).encode()
        copied = exchange(body, reply)
        copied = replace(copied, header_bytes=int(headers["Inference-Header-Content-Length"]))
        self._telemetry.count(REVISION, "live", copied, 0.0)

    def since(self, part: Part) -> Counted:
        """What a Prometheus that scrapes this page answers to the operator's question."""
        page: dict[str, float] = {}
        for line in exposed(self._telemetry).splitlines():
            if sample := _COUNTER.fullmatch(line):
                labels = dict(_LABEL.findall(sample["labels"]))
                fields = (labels.get(name, "") for name in _KEYED)
                key = "|".join(("shop", POD, sample["metric"], *fields))
                page[key] = page.get(key, 0.0) + float(sample["value"])
        new = {key: value - self._before.get(key, 0.0) for key, value in page.items()}
        self._before = page
        lives = {f"shop|{POD}|{said}|0.000": 240.0 for said in ("scrapes", "before")}
        counted = {key: value for key, value in new.items() if value > 0}
        watched = Watched("shop", "screening")
        found = read(Keyed({**counted, **lives}, part.end), [watched], part)
        assert isinstance(found, dict)
        answer = found[watched.key]
        assert isinstance(answer, Counted)
        return answer


@dataclass(frozen=True)
class Seen:
    """What the windows came to: the last report, and in which window an alarm began."""

    report: Report
    alarm: int | None

    @property
    def features(self) -> set[str]:
        facts = self.report.facts
        known = demo_samples.samples().FEATURES
        return {one for one in facts.features if one in known} if facts is not None else set()


@cache
def seen(shift: Shift | None) -> Seen:
    """One window as ever, then the shift for as long as there are windows."""
    collector, watch = Collector(), Watch(SPEC, REVISION)
    memory, report = begun(HOUR, 2 * HOUR)
    alarm = None
    for number in range(1, WINDOWS + 2):
        chance = np.random.default_rng([number, 5])
        samples = demo_samples.samples().day(traffic_half(), ROWS, 100 + number)
        if shift is not None and number > 1:
            samples = shift(samples, chance)
        collector.count(samples)
        part = Part(number * HOUR, (number + 1) * HOUR, HOUR)
        counted = collector.since(part)
        assert counted.rows == len(samples.number)
        memory, report = judge(watch, reference(), counted, memory, report, part.start, part.end)
        if alarm is None and report.conditions[DRIFTED].status == "True":
            alarm = number
    return Seen(report, alarm)


def noise(share: float, deviations: float) -> Shift:
    """Gaussian noise upon a share of the samples, in three features."""

    def apply(samples: Any, chance: np.random.Generator) -> Any:
        measured = samples.measured.copy()
        hit = chance.random(len(measured)) < share
        for column in samples.of(*NOISY):
            spread = deviations * traffic_half().measured[:, column].std()
            measured[hit, column] += chance.normal(0, spread, int(hit.sum()))
        return replace(samples, measured=measured)

    return apply


def knocked_out(share: float) -> Shift:
    """A share of the malignant samples is not there."""

    def apply(samples: Any, chance: np.random.Generator) -> Any:
        gone = (samples.malignant == 1) & (chance.random(len(samples.number)) < share)
        return samples.take(np.flatnonzero(~gone))

    return apply


def broken_feed(samples: Any, chance: np.random.Generator) -> Any:
    measured = samples.measured.copy()
    measured[chance.random(len(measured)) < 0.5, samples.of("mean_area")[0]] = np.nan
    return replace(samples, measured=measured)


def apart() -> dict[str, float]:
    """How far the classes lie apart in each feature, in standard deviations."""
    half = traffic_half()
    one, other = half.measured[half.malignant == 1], half.measured[half.malignant == 0]
    far = np.abs(one.mean(axis=0) - other.mean(axis=0)) / half.measured.std(axis=0)
    return dict(zip(demo_samples.samples().FEATURES, far.tolist(), strict=True))


def test_without_a_shift_there_is_no_alarm_and_the_data_is_healthy() -> None:
    found = seen(None)

    assert found.alarm is None
    assert found.report.drift["state"] == "Steady"
    assert found.report.conditions[DATA_HEALTHY].status == "True"


@pytest.mark.parametrize(("share", "deviations"), [(1.0, 1.0), (0.5, 1.0), (0.1, 10.0)])
def test_noise_is_found_and_named_on_the_features_that_it_fell_upon(
    share: float, deviations: float
) -> None:
    found = seen(noise(share, deviations))

    assert found.alarm is not None
    assert found.features == set(NOISY)


@pytest.mark.parametrize("share", [1.0, 0.5])
def test_a_knocked_out_class_is_found_in_the_features_that_tell_the_classes_apart(
    share: float,
) -> None:
    found, far = seen(knocked_out(share)), apart()

    assert found.alarm is not None
    assert set(sorted(far, key=lambda name: -far[name])[:10]) <= found.features
    assert not {name for name, distance in far.items() if distance < 0.1} & found.features


def test_a_broken_feed_is_data_health_and_no_drift() -> None:
    found = seen(broken_feed)

    health = found.report.conditions[DATA_HEALTHY]
    assert health.status == "False"
    assert "mean_area" in health.message
    assert found.alarm is None
    assert found.report.facts is not None
    assert found.report.facts.healthy is False
